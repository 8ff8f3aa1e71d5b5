package import Primitives

// Disaster recovery: all other voters are lost for good, and somebody has said so.
extension Group {
    /// Far above the changes that the log may still hold: those settle nothing any more.
    private static let aloneNumberStep: UInt64 = 1 << 20

    /// From now on this replica is the only voter, as if all that it has accepted had been chosen; the
    /// next election proposes that anew. Before the first step only. It breaks S15 on purpose: what
    /// others had chosen without this replica is lost, and if they live there are two groups. In memory
    /// only: whoever asks for it has an entry written that says the same (`Node+Alone`), and until that
    /// is decided a restart knows nothing of it.
    package mutating func standAlone(at now: Instant) {
        configuration.number += Self.aloneNumberStep
        configuration.voters = [node]
        configuration.learners = []
        peers = []
        isGone = false
        leaderLost = true
        leaderBegun = false
        electAt = min(electAt, now)
    }
}
