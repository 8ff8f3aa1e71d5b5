package import Primitives

/// What the partition has applied: the state of the skip rule (protocol-rules.md S1). Part of the
/// partition's state and of its snapshots.
package struct AppliedPosition: Hashable, Sendable {
    package var slot: Slot
    /// Highest term applied so far.
    package var term: Term
    /// Number of that term's last applied entry.
    package var number: UInt64
    package init(slot: Slot = .zero, term: Term = .zero, number: UInt64 = 0) {
        self.slot = slot
        self.term = term
        self.number = number
    }

    /// Moves over `entry`, which is chosen at the next slot. True: it is skipped, its effects never
    /// happened. An entry counts only on the log that its leader knew (protocol-rules.md S1, S3).
    package mutating func pass(_ entry: LogEntry) -> Bool {
        slot = slot.next
        // Not among the numbers, which are the proposer's: it counts in its own term only.
        if entry.kind == .configuration { return entry.term != term }
        if entry.number == 0 {
            if entry.term < term { return true }
            if entry.term > term { (term, number) = (entry.term, 0) }
            return false
        }
        if Mutation.noBegin.isOn, entry.term > term, entry.number == 1 { (term, number) = (entry.term, 0) }
        // `begin` (number 0) has raised `term`; without it no numbered entry of that term counts.
        if entry.term != term || entry.number != number + 1 { return true }
        number = entry.number
        return false
    }
}

package struct Limits: Hashable, Sendable {
    /// Proposed, not decided: above it `propose` answers nil. More hides longer syncs, costs memory.
    package var pipelineEntriesMax: UInt64 = 8192
    package var pipelineBytesMax = 64 << 20
    /// Of one message. At least one entry always travels.
    package var batchEntriesMax = 1024
    package var batchBytesMax = 1 << 20
    /// Sent to one follower and not acknowledged.
    package var windowBytesMax = 16 << 20
    /// Decided entries kept, in memory and in the write-ahead log, for replicas that lag or whose
    /// stores have not flushed them yet. Who needs older ones gets a snapshot.
    package var keptBytesMax = 32 << 20
    /// For how long (up to twice) the write-ahead log keeps for others what is flushed here. It is
    /// shared by all groups and freed from its oldest end, so that a dead node must not hold it.
    package var keptPeriod = TimeSpan.seconds(30)
    /// A leader whose questions a majority leaves open for this long stands down; a candidacy that makes
    /// no progress for twice as long is given up. Longer: a failed election costs more.
    package var electionPeriod = TimeSpan.milliseconds(200)
    /// Candidacies that come to nothing one after the other wait so many times twice as long for the
    /// next: through syncs of almost two seconds. Fewer: duels on disks as slow as that.
    package var patienceDoublingsMax: UInt64 = 3
    /// Between two candidates of neighbouring preference.
    package var stagger = TimeSpan.milliseconds(30)
    /// First repetition of an unanswered question of a candidate; doubles up to the election period.
    package var retryPeriod = TimeSpan.milliseconds(10)
    /// After which a follower with unacknowledged entries is asked where it is; doubles.
    package var probePeriod = TimeSpan.milliseconds(50)
    /// After the last commit, for followers that have not heard of it otherwise (L8).
    package var noticeDelay = TimeSpan.milliseconds(20)
    /// A snapshot that was asked for and did not arrive is asked for again.
    package var snapshotPeriod = TimeSpan.seconds(5)
    /// A candidate further behind than this steps back for a better one.
    package var behindMax: UInt64 = 4096
    /// A learner no further behind than this can be made a voter.
    package var inSyncMax: UInt64 = 256
    package init() {}
}

/// The sequencer's lease (protocol-rules.md S13, L7). For the directory group only.
package struct LeaseLimits: Hashable, Sendable {
    package var duration = TimeSpan.milliseconds(100)
    package var renewal = TimeSpan.milliseconds(30)
    /// While nobody asks what the lease answers (`Group.useLease`). A renewal that is answered so much
    /// later than it was sent that the rest of the duration is over lets the lease lapse: whoever asks
    /// then waits for the next one, which his question makes due.
    package var idleRenewal = TimeSpan.milliseconds(60)
    /// Taken off the holder's end. Covers clocks whose rates differ from real time by up to
    /// `drift / (2 * duration)`: 1 % as it stands.
    package var drift = TimeSpan.milliseconds(2)
    package init() {}
}

package struct DetectorLimits: Hashable, Sendable {
    package var heartbeat = TimeSpan.milliseconds(30)
    /// Silence after which a peer is suspected: a few heartbeats.
    package var silence = TimeSpan.milliseconds(120)
    package init() {}
}
