/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
/// The algorithm is ours to keep: a seed must mean the same run next year.
public struct SplitMix: RandomNumberGenerator, Sendable {
    public var state: UInt64
    public init(seed: UInt64) { state = seed }

    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    /// A number in `0..<bound`. The bias of the remainder is below 2^-32 for the bounds used here.
    public mutating func below(_ bound: UInt64) -> UInt64 {
        invariant(bound > 0)
        return next() % bound
    }

    public mutating func chance(_ numerator: UInt64, in denominator: UInt64) -> Bool {
        below(denominator) < numerator
    }

    /// An independent generator, for one actor of a simulation.
    public mutating func split() -> SplitMix { SplitMix(seed: next()) }
}
