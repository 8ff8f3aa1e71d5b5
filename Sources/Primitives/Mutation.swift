/// A rule of the protocol that is broken on purpose, one at a time, to see that the simulator's checkers
/// notice (`make mutations`, docs/testing.md). Named after what goes wrong; the comment names the rule.
///
/// In a normal build `isOn` is the constant false, so that neither the question nor the code behind it is
/// there. `-D POLDER_MUTATIONS` makes it a variable of the process.
public enum Mutation: String, CaseIterable, Sendable {
    // Consensus.
    /// S1: leaderships begin without an entry of their own.
    case noBegin
    /// S3, C7: acceptors leave gaps, and entries have no numbers.
    case outOfOrder
    /// S1: entries that a new leader finds become its own.
    case reproposedTerm
    /// S14: what was accepted in any ballot is taken as chosen.
    case noticeWithoutBallot
    /// S15: entries are proposed behind a configuration that is not chosen yet.
    case pipelinePastConfiguration
    /// S21: a replica goes although its copy of the log may be one of few.
    case releasedEarly
    /// S21: whose log was forgotten counts at once.
    case forgottenLogsCount
    /// S13 a: who restarts has forgotten its promise.
    case restartForgetsLease
    /// S13 d: a lease counts from the arrival of the answer.
    case leaseFromArrival
    /// A follower acknowledges what is not on its disk yet.
    case ackBeforeDurable
    /// A promise is given before it is on the disk.
    case promiseBeforeDurable
    /// What is applied counts as flushed, and is cut off the log.
    case appliedIsFlushed

    // Sequencer.
    /// S2: a seal is answered from memory.
    case sealFromMemory
    /// S7: the frontier rests on void revisions.
    case voidFrontier
    /// S5: a tail is the slot of the highest revision, not the highest slot.
    case tailsAsRevisions
    /// S8: any term is confirmed.
    case confirmUnregistered
    /// S6, L2: latches that lapsed are trusted.
    case lapsesIgnored
    /// L1: a transaction that nobody prepares is not recovered.
    case noRecovery
    /// L7: a new sequencer does not wait for the old one's lease.
    case noLeaseWait
    /// G2: stamps are the clock of the node that hands them out.
    case stampFromClock

    // Partitions.
    /// S6: latches are granted over what is not decided yet.
    case latchOverOverlaps
    /// S6: what was granted in one term is prepared in another.
    case prepareInAnotherTerm
    /// S6: an attempt that is over wins latches again.
    case attemptsGrantedAgain
    /// S4, S10: what is prepared is forgotten at once.
    case outcomesForgotten
    /// S10: what is prepared is forgotten when the frontier is heard of, before its tail is applied.
    case outcomesForgottenEarly
    /// S9: what writes nothing is answered at the frontier that was heard last.
    case answerWithoutConfirm
    /// S20: what was read is trusted however old it is.
    case staleReadsTrusted
    /// S16: a new leader does not know what its log has carried out.
    case requestsForgotten
    /// S16: an attempt that was given up is executed by a later leadership.
    case attemptsOutliveLeaders
    /// S11 b: a renewal is answered while a checkpoint of the old time stands.
    case renewedOverCheckpoint
    /// A new leader gives every lease the whole of its time, whatever its log says.
    case leasesCountAnew
    /// S11: keep-alives are answered by whoever believes to lead.
    case keepAliveWithoutConfirm
    /// S11: an expiry that an earlier leader began goes on.
    case expiryOutlivesLeader

    /// U2: a partition is split over what is still under way above the cut.
    case splitWithoutDrain
    /// U2, S16: what has been cut off does not know what was carried out before.
    case childForgetsRequests
    /// U2: a child counts before its parent's registered leader knows of it.
    case childRegistersAlone
    /// S12: whoever counts with the map of before a split is believed.
    case oldMapsTrusted

    // Users.
    /// U5: leaders do what was checked under permissions that have been restricted since.
    case lowFencesTaken
    /// U5: a change is told as done as soon as it is decided.
    case changesToldAtOnce
    /// U5: reads are checked with whatever permissions are here.
    case readsBeforeUsers
    /// U5: a frontier is shown to whom it may no longer be shown.
    case frontierBeforeUsers

    // Nodes.
    /// S12: a frontier is shown without the partitions that are not known here yet.
    case unknownTailsIgnored
    /// Snapshots and releases take a parent's log from which a child may still have to be made.
    case childrenLostWithParents
    /// S13 e: a read shares a question that is already under way.
    case sharedQuestion
    /// S16: two lives of a node use the same names.
    case bootReused
    /// S16: a request that is delivered twice is executed twice.
    case forwardsRepeated
    /// S17: history goes as soon as it is compacted.
    case floorIsCompaction
    /// S19: what is heard of counts as applied.
    case frontierBeforeTails

    // Between regions.
    /// G1: each pair of versions is decided by the rank of their regions.
    case pairwisePriority
    /// G3: a deletion is forgotten when the others have acknowledged it.
    case tombstonesByAcknowledgement
    /// G10: a batch is applied wherever the cursor is.
    case cursorNotCompared

    @inlinable @inline(__always)
    public var isOn: Bool {
        #if POLDER_MUTATIONS
            Mutation.current == self
        #else
            false
        #endif
    }

    #if POLDER_MUTATIONS
        /// Set once, before anything runs.
        nonisolated(unsafe) public static var current: Mutation?
    #endif
}
