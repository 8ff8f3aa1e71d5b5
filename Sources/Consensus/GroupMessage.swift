package import Primitives

/// Between the replicas of one group. May be lost, delayed, doubled and reordered.
package enum GroupMessage: Hashable, Sendable {
    /// Would you let go of your leader? (L4). The ballot only names the question.
    case askVote(Ballot, decided: Slot, configuration: UInt64)
    case vote(Vote)
    case prepare(Prepare)
    case promise(Promise)
    /// "I have promised `promised`", to a prepare or accept of a lower ballot.
    case refuse(promised: Ballot)
    /// New entries, commit notice, probe and heartbeat in one; any of them may be absent.
    case accept(Accept)
    case accepted(Accepted)
    /// The leader of this ballot hands over: run phase 1 at once. It has given up its lease.
    case campaign(Ballot)
    /// To whoever campaigns or leads by an older configuration and is not in the one of this number.
    case gone(UInt64)
    /// To the leader: may this replica go, and forget its log? See Group+Release.
    case askRelease(AskRelease)
    case released(Release)

    package struct AskRelease: Hashable, Sendable {
        package var question: UInt64
        package var promised: Ballot
    }

    /// The configuration of this number does without the asker, and a majority of its voters hold the log
    /// through the slot in which it took effect.
    package struct Release: Hashable, Sendable {
        package var question: UInt64
        package var ballot: Ballot
        package var configuration: UInt64
        package var through: Slot
    }

    package struct Vote: Hashable, Sendable {
        package enum Answer: UInt8, Sendable {
            case agreed = 0
            case hearsLeader = 1
            case candidateBehind = 2
        }
        package var question: Ballot
        package var answer: Answer
        package var promised: Ballot
        package var decided: Slot
    }

    /// Phase 1 over all slots above `after`. Repeated with a higher `after` until the answer says
    /// that nothing follows.
    package struct Prepare: Hashable, Sendable {
        package var ballot: Ballot
        package var after: Slot
        /// The candidate's own run: what the voter accepted in `same` at slots through
        /// `sameThrough` is the same entry and need not travel.
        package var same: Ballot
        package var sameThrough: Slot
        /// By which the candidate counts (S15).
        package var configuration: UInt64
    }

    /// What an acceptor holds at a slot.
    package struct Found: Hashable, Sendable {
        package var slot: Slot
        package var ballot: Ballot
        package var entry: LogEntry
    }

    package struct Promise: Hashable, Sendable {
        package var ballot: Ballot
        package var after: Slot
        /// The answer covers `after+1...through`; nil: everything above `after`.
        package var through: Slot?
        package var accepted: [Found]
        package var decided: Slot
        /// Slots through this one are chosen and no longer in the voter's memory.
        package var keptAfter: Slot
        /// What is left of the lease that this voter promised, and to whom (zero: unknown).
        package var lease: TimeSpan
        package var leaseBallot: Ballot
    }

    package struct Accept: Hashable, Sendable {
        package var ballot: Ballot
        /// Slot of the first entry; without entries the slot after the last one sent.
        package var first: Slot
        package var entries: [LogEntry]
        /// Commit notice, good for what was accepted in `ballot` only (S14).
        package var decided: Slot
        /// Every voter's store has flushed through here: nobody will ask for it.
        package var settled: Slot
        /// `begin` of this ballot is decided: no election timer is needed.
        package var begun: Bool
        /// Asks for an answer even if nothing is new.
        package var probe: Bool
        /// The leader's clock at sending, asking for a lease; zero: no lease is asked for.
        package var sentAt: Instant
        /// Number of the leader's configuration (S15).
        package var configuration: UInt64
    }

    package struct Accepted: Hashable, Sendable {
        package var ballot: Ballot
        /// Durable here, accepted in this ballot or known as chosen, without a gap.
        package var through: Slot
        /// Set if something is missing: send again from here on.
        package var resendFrom: Slot?
        package var decided: Slot
        /// Its store has flushed through here.
        package var flushed: Slot
        /// Returns the `sentAt` of the accept it answers: the lease is promised from its arrival.
        package var sentAt: Instant
    }
}
