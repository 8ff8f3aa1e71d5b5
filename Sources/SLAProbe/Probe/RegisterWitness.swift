package import Primitives

/// Remembers what was written to one key that only this prober writes, and judges what is read from
/// it.
///
/// Each write carries the next number. A read may show any write that was not certainly followed,
/// and finished before the read began, by another: overlapping writes and those with an unknown
/// outcome may take effect in any order.
package struct RegisterWitness: Sendable {
    /// Numbers given out so far: 1, 2, 3, ...
    package private(set) var issued: UInt64 = 0
    private var started: [UInt64: Instant] = [:]
    /// When writes were acknowledged; the newest `acknowledgedMax` of them.
    private var acknowledged: [UInt64: Instant] = [:]
    private var acknowledgedOrder: [UInt64] = []
    private var unknown: Set<UInt64> = []
    /// Greatest start of an acknowledged write.
    private var frontier = Instant.zero
    private let acknowledgedMax: Int

    package init(acknowledgedMax: Int = 1024) { self.acknowledgedMax = acknowledgedMax }

    /// What a read that begins now must not miss.
    package struct Mark: Sendable { fileprivate let frontier: Instant }

    package mutating func beginWrite(at now: Instant) -> UInt64 {
        issued += 1
        started[issued] = now
        return issued
    }

    package mutating func acknowledge(_ number: UInt64, at now: Instant) {
        guard let start = started.removeValue(forKey: number) else { return }
        acknowledged[number] = now
        acknowledgedOrder.append(number)
        frontier = max(frontier, start)
        if acknowledgedOrder.count > 2 * acknowledgedMax {
            for old in acknowledgedOrder.prefix(acknowledgedMax) { acknowledged[old] = nil }
            acknowledgedOrder.removeFirst(acknowledgedMax)
        }
    }

    /// Failed. `mayHaveHappened`: it may still show up, at any time.
    package mutating func fail(_ number: UInt64, mayHaveHappened: Bool) {
        guard started.removeValue(forKey: number) != nil, mayHaveHappened else { return }
        unknown.insert(number)
    }

    package func beginRead() -> Mark { Mark(frontier: frontier) }

    package func judge(_ value: String?, since mark: Mark) -> Outcome {
        guard let value else { return mark.frontier == .zero ? .ok : .wrongAnswer }
        guard let number = UInt64(value), number >= 1, number <= issued else { return .wrongAnswer }
        if started[number] != nil || unknown.contains(number) { return .ok }
        // Not kept: acknowledged so long ago that many came after it, or refused and never valid.
        guard let end = acknowledged[number] else { return .staleRead }
        return end < mark.frontier ? .staleRead : .ok
    }
}
