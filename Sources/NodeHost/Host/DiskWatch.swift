import Primitives

/// Whether this node's disk is so much slower than another's that what it leads is better led there. A
/// value that decides; `Host+Disk` does it. Fed once a second.
///
/// To and fro is not possible while nothing changes: who takes over is at least `factor` times as fast.
struct DiskWatch {
    /// Slower than the fastest other by this much...
    static let factor: UInt64 = 10
    /// ... and slower than this at all: below it nobody waits for the disk...
    static let slowMicroseconds: UInt64 = 50_000
    /// ... in so many seconds, one after the other, in which anything was written.
    static let secondsInARow = 3
    /// What others say of their disks counts for so long.
    private static let freshness = TimeSpan.seconds(5)
    /// Between two hand-overs; twice as long each time, until the disk has been well for as long.
    private static let pauseFirst = TimeSpan.seconds(30), pauseMax = TimeSpan.seconds(1800)

    /// After so long without a write nobody knows any more how fast the disk is.
    private static let memory = TimeSpan.seconds(30)

    /// For others to see: slow for so many seconds, and not well since.
    private(set) var isSlow = false
    private var others: [NodeID: (microseconds: UInt64, at: Instant)] = [:]
    private var slowSeconds = 0
    private var pause = pauseFirst
    private var restsUntil = Instant.zero
    private var slowAt = Instant.zero

    /// Another node's syncs of a second took so long, typically.
    mutating func heard(_ node: NodeID, microseconds: UInt64, at now: Instant) {
        others[node] = (microseconds, now)
    }

    /// `own`: nil if nothing was synced in this second. `candidates`: who may lead, as far as we know.
    /// Whom to hand over to, if anybody.
    mutating func step(
        own: UInt64?, leads: Bool, candidates: [NodeID], at now: Instant
    ) -> NodeID? {
        guard let own else {
            if now.since(slowAt) >= Self.memory { isSlow = false }
            return nil
        }
        let fastest = candidates.compactMap { node in
            others[node].flatMap { now.since($0.at) <= Self.freshness ? (node, $0.microseconds) : nil }
        }.min { ($0.1, $0.0) < ($1.1, $1.0) }
        guard let fastest, own >= Self.slowMicroseconds, own >= fastest.1 &* Self.factor else {
            slowSeconds = 0
            isSlow = false
            if now.since(slowAt) >= pause { pause = Self.pauseFirst }
            return nil
        }
        slowAt = now
        slowSeconds += 1
        if slowSeconds >= Self.secondsInARow { isSlow = true }
        guard leads, slowSeconds >= Self.secondsInARow, now >= restsUntil else { return nil }
        restsUntil = now.advanced(by: pause)
        pause = min(pause * 2, Self.pauseMax)
        slowSeconds = 0
        return fastest.0
    }

    /// Of the syncs between two looks at the log's histogram (2^i microseconds), in microseconds; nil: there
    /// were none.
    static func median(_ before: [UInt64], _ after: [UInt64]) -> UInt64? {
        let fresh = zip(before, after).map { $1 &- $0 }
        let total = fresh.reduce(0, &+)
        guard total > 0 else { return nil }
        var seen: UInt64 = 0
        for (i, count) in fresh.enumerated() {
            seen += count
            if seen * 2 >= total { return 1 << UInt64(i) }
        }
        return nil
    }
}
