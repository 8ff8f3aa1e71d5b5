import Primitives

/// A machine's two clocks: each begins somewhere else and runs a little wrong, within the bound that the
/// protocol relies on (protocol-rules.md S13). Goes on while the process is dead or frozen.
struct NodeClock {
    private let bootOffset: UInt64
    /// Parts per million, added to the true rate.
    private let driftPPM: Int64
    /// Microseconds; jumps are faults.
    private(set) var wallOffset: Int64

    /// 2026-01-01, where every simulation begins.
    private static let epochMicroseconds: Int64 = 1_767_225_600_000_000

    init(random: inout SplitMix, driftPPMMax: Int64, wallSkewMax: TimeSpan) {
        bootOffset = random.below(1_000_000_000_000)
        driftPPM = driftPPMMax == 0 ? 0 : random.within(-driftPPMMax...driftPPMMax)
        let skew = Int64(wallSkewMax.nanoseconds / 1_000)
        wallOffset = skew == 0 ? 0 : random.within(-skew...skew)
    }

    func instant(at time: Instant) -> Instant {
        Instant(nanoseconds: bootOffset &+ scaled(time.nanoseconds))
    }

    func reading(at time: Instant) -> ClockReading {
        let wall = Self.epochMicroseconds + Int64(scaled(time.nanoseconds) / 1_000) + wallOffset
        return ClockReading(
            instant: instant(at: time), wallMicroseconds: UInt64(clamping: wall))
    }

    /// A true time at which the clock shows `instant`, or a few microseconds more.
    func time(of instant: Instant) -> Instant {
        if instant == .never { return .never }
        if instant.nanoseconds <= bootOffset { return .zero }
        let shown = instant.nanoseconds - bootOffset
        // The rates differ by a fraction of a percent: each round leaves that fraction of the error.
        var time = shown
        for _ in 0..<4 {
            let shows = scaled(time)
            time = shows > shown ? time - (shows - shown) : time + (shown - shows)
        }
        while scaled(time) < shown { time += shown - scaled(time) }
        return Instant(nanoseconds: time)
    }

    mutating func jump(microseconds: Int64) { wallOffset += microseconds }

    private func scaled(_ nanoseconds: UInt64) -> UInt64 {
        UInt64(Int64(nanoseconds) + Int64(nanoseconds / 1_000_000) * driftPPM)
    }
}

extension SplitMix {
    mutating func within(_ range: ClosedRange<Int64>) -> Int64 {
        range.lowerBound + Int64(below(UInt64(range.upperBound - range.lowerBound) + 1))
    }

    mutating func span(_ range: ClosedRange<TimeSpan>) -> TimeSpan {
        let width = range.upperBound.nanoseconds - range.lowerBound.nanoseconds
        return TimeSpan(nanoseconds: range.lowerBound.nanoseconds + below(width + 1))
    }

    mutating func pick<T>(_ list: [T]) -> T { list[Int(below(UInt64(list.count)))] }

    mutating func shuffle<T>(_ list: inout [T]) {
        for i in stride(from: list.count - 1, to: 0, by: -1) {
            list.swapAt(i, Int(below(UInt64(i + 1))))
        }
    }
}

/// A run's fingerprint: everything that is delivered goes into it, so two equal traces are equal runs.
struct TraceHash {
    private(set) var value: UInt64 = 0xCBF2_9CE4_8422_2325

    mutating func add(_ number: UInt64) {
        value = (value ^ number) &* 0x9E37_79B9_7F4A_7C15
        value ^= value >> 29
    }
    mutating func add(_ bytes: Bytes) { add(KeyHash.hash(bytes)) }
    mutating func add(_ text: String) { add(KeyHash.hash(Bytes(text))) }
}
