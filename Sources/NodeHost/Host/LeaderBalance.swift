import Primitives

/// Which of the partitions that this node leads would be better led elsewhere: one node leads them all,
/// with the sequencer, while it has the CPU for it (fewest messages), and gives some away once it does not.
/// A value that decides; `Host+Balance` does it. Fed once a second.
///
/// Loads are thousandths of a second's CPU that the node's loop has used. To and fro is not possible
/// while nothing changes: who gets something is idler by `margin`, and what comes back fits below `quiet`.
struct LeaderBalance {
    struct Rule: Equatable, Sendable {
        var isOn = true
        /// A loop that is busy for so much of its time gives something away...
        var busy: UInt64 = 850
        /// ... and what others lead comes back to the sequencer's node when both loops together are not.
        var quiet: UInt64 = 400
        /// How much idler another has to be.
        var margin: UInt64 { busy * 7 / 20 }
    }

    /// A partition that this node leads, and whose leader nobody has wished for.
    struct Led: Equatable {
        var partition: PartitionID
        /// Since the process began.
        var writes: UInt64
        /// Who votes, and may lead; without this node.
        var others: [NodeID]
    }

    static let busySeconds = 5, quietSeconds = 30
    /// Between one partition that comes back and the next.
    static let pauseSeconds = 5
    /// What others say counts for so long; they say it again before (`tellAfter`).
    private static let freshness = TimeSpan.seconds(10)
    static let tellAfter = TimeSpan.seconds(4)
    /// Smaller changes can wait.
    static let tellStep: UInt64 = 50

    private var others: [NodeID: (load: UInt64, at: Instant)] = [:]
    private var writes: [PartitionID: UInt64] = [:]
    private var secondsBusy = 0, secondsQuiet = 0
    private var told: (load: UInt64, at: Instant)?

    /// By its seat.
    mutating func heard(_ seat: NodeID, load: UInt64, at now: Instant) { others[seat] = (load, now) }

    /// Whether others should hear of it.
    mutating func tells(_ load: UInt64, at now: Instant) -> Bool {
        if let told, now.since(told.at) < Self.tellAfter,
            max(told.load, load) - min(told.load, load) < Self.tellStep
        {
            return false
        }
        told = (load, now)
        return true
    }

    private func load(of node: NodeID, at now: Instant) -> UInt64? {
        others[node.seat].flatMap { now.since($0.at) <= Self.freshness ? $0.load : nil }
    }

    /// What to hand over, and to whom. `sequencer`: its node, if that is another.
    mutating func step(
        _ rule: Rule, own: UInt64, led: [Led], sequencer: NodeID?, at now: Instant
    ) -> (partition: PartitionID, to: NodeID)? {
        let before = writes
        writes = Dictionary(led.map { ($0.partition, $0.writes) }, uniquingKeysWith: max)
        secondsBusy = own >= rule.busy ? secondsBusy + 1 : 0
        let together = sequencer.flatMap { load(of: $0, at: now) }.map { $0 + own }
        secondsQuiet = (together ?? .max) <= rule.quiet ? secondsQuiet + 1 : 0
        guard rule.isOn else { return nil }
        if secondsBusy >= Self.busySeconds, led.count > 1 {
            func rate(_ one: Led) -> UInt64 { one.writes - min(one.writes, before[one.partition] ?? 0) }
            // The busiest that somebody can take.
            for one in led.sorted(by: { (rate($1), $0.partition) < (rate($0), $1.partition) }) {
                let idlest = one.others.compactMap { node in load(of: node, at: now).map { ($0, node) } }
                    .min { $0 < $1 }
                guard let idlest, idlest.0 + rule.margin <= own else { continue }
                secondsBusy = 0
                return (one.partition, idlest.1)
            }
        }
        if secondsQuiet >= Self.quietSeconds, let sequencer {
            guard let one = led.first(where: { $0.others.contains(sequencer) }) else { return nil }
            secondsQuiet -= Self.pauseSeconds
            return (one.partition, sequencer)
        }
        return nil
    }
}
