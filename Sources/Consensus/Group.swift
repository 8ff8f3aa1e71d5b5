import DequeModule
package import Primitives

/// One multi-Paxos group on one node: acceptor, and by turns follower, candidate and leader.
/// Start reading at `step`; the protocol's order is Group+Election, +Leader, +Acceptor, +Log.
package struct Group: Sendable {
    enum Role: UInt8, Sendable {
        case follower
        /// Pre-vote (L4).
        case asking
        /// Phase 1.
        case preparing
        /// Phase 2: from `elected` on.
        case leading
    }

    package let id: GroupID
    package let node: NodeID
    let limits: Limits
    let leaseLimits: LeaseLimits?

    /// By which the slots above the decided one count (S15). See Group+Membership.
    package internal(set) var configuration: Configuration
    /// Stands for election after all others: its node is to lead nothing while they can.
    package var isReluctant = false
    /// Others have told us that we are not among them any more.
    package internal(set) var isGone = false
    /// By the configuration of this number.
    var goneBy: UInt64 = 0

    /// A replica that was here has been dropped, with what it had accepted at slots through this one: until a
    /// snapshot brings them back this one counts for nobody. See Group+Release.
    let lostThrough: Slot
    /// What the region has been asked, and has answered.
    var releaseQuestion: UInt64 = 0
    var release: GroupMessage.Release?
    /// Highest number of those by which leaders and candidates have spoken to this replica.
    var heardConfiguration: UInt64 = 0
    /// Where the configuration took effect, at the latest.
    var configuredAt: Slot

    // The log: slots `keptAfter+1...lastSlot`, those through `decided` chosen and emitted.
    var log = Deque<Cell>()
    package internal(set) var keptAfter: Slot
    var keptBytes = 0
    /// `position.slot` is the decided slot.
    package internal(set) var position: AppliedPosition
    package internal(set) var truncatedThrough: Slot
    var flushedThrough: Slot
    /// Flushed through `slot` at `at`: to be truncated one `keptPeriod` later, come what may.
    var oldFlush: (slot: Slot, at: Instant)
    /// Every voter's store has flushed through here.
    var settled = Slot.zero
    /// Known to be chosen before a restart, and to be emitted with the first input.
    var restoredDecided = Slot.zero
    var writes: UInt64 = 0
    var durableWrites: UInt64 = 0

    // Acceptor.
    package internal(set) var promised: Ballot
    /// When it was promised, or its leader last made progress before its `begin`.
    var promisedAt: Instant
    /// Highest ballot with a promise record of its own, which is write number `promiseWrite`.
    var recordedPromise: Ballot
    var promiseWrite: UInt64 = 0
    /// Waits for the promise record.
    var promiseDue: GroupMessage.Prepare?
    /// Through here the log was accepted in `promised`, or is chosen; never a gap (S3, C7).
    var acceptedThrough: Slot
    /// The durable part of it.
    var durableThrough: Slot
    var ackDue = false
    /// The last word to `promised`'s leader.
    var acknowledgedThrough = Slot.zero
    var resendFrom: Slot?
    var gapAskedAt = Instant.zero
    var gapAskedFrom = Slot.zero
    /// Newest commit notice: chosen through the slot, for what was accepted in the ballot (S14).
    var noticed: (ballot: Ballot, slot: Slot)
    var fetchAt = Instant.never
    var leasePromise: (ballot: Ballot, until: Instant)
    var leaseEcho = Instant.zero

    // Following and electing.
    var role = Role.follower
    package internal(set) var leaderHint: NodeID?
    /// The leader of `promised` has shown that its `begin` is decided.
    var leaderBegun = false
    /// It has been suspected, or has stood down, since we last heard it.
    var leaderLost = false
    /// Ballots promised since a `begin` was last known to be decided.
    var fruitless: UInt64 = 0
    var electAt: Instant
    var askAt = Instant.never
    var askDelay = TimeSpan.zero
    var candidacyEndsAt = Instant.never
    var highestRound: UInt64
    var question = Ballot.zero
    var candidacy = Candidacy()
    var peers: [Peer]
    var luck: SplitMix

    // Leading; meaningless in other roles.
    var leadership = Leadership()
    /// Kept across leaderships: see `waits(for:)`.
    var answersFrom = Instant.zero
    var lastLed = Ballot.zero
    /// The leader of this ballot has released its lease to us.
    var releasedBallot = Ballot.zero

    /// Costly invariants too.
    package var verify = false
    #if DEBUG
        var sabotage = Sabotage.none
    #endif

    struct Cell: Sendable {
        /// In which it was accepted last; zero: nothing here.
        var ballot: Ballot
        /// Number of the persist effect that makes it durable.
        var write: UInt64
        var entry: LogEntry
        static let missing = Cell(
            ballot: .zero, write: 0,
            entry: LogEntry(term: .zero, number: 0, kind: .filler, payload: .empty))
    }

    struct Candidacy: Sendable {
        var after = Slot.zero
        /// The candidate's own run, which voters need not send back.
        var same = Ballot.zero
        var sameThrough = Slot.zero
        /// What voters hold at `after+1...`, by highest ballot.
        var found = Deque<Cell>()
        var answersFrom = Instant.zero
    }

    struct Leadership: Sendable {
        var beginSlot: Slot?
        var begun = false
        /// What phase 1 found is proposed, and a majority of the newest voters has promised.
        var isSettled = false
        /// The configuration entry that is not decided: nothing is proposed behind it (S15).
        var barrier: Slot?
        /// Promises are asked for again.
        var settleAt = Instant.never
        /// This leader is no voter any more and goes at the latest then.
        var retireAt = Instant.never
        var nextNumber: UInt64 = 1
        var pipelineBytes = 0
        var noticeAt = Instant.never
        var renewAt = Instant.never
        /// Since when the lease is being renewed, and whether it was of use to anybody since.
        var renewedAt = Instant.zero
        var leaseIsUsed = true
        var successor: NodeID?
        var campaignSent = false
        var handOverEndsAt = Instant.never
    }

    struct Peer: Sendable {
        let node: NodeID
        /// Otherwise a learner: it receives the log and counts for nothing.
        var isVoter = true
        var suspected = false
        // Asking and preparing.
        var agreed = false
        var promised = false
        /// How far its promise has been read.
        var progress = Slot.zero
        /// After the election; see Group+Membership.
        var promiseAskedAt = Instant.zero
        // Leading.
        var acked = Slot.zero
        var sent = Slot.zero
        var inflightBytes = 0
        var decided = Slot.zero
        var flushed = Slot.zero
        /// Decided and settled slots that it was last told.
        var told = Slot.zero
        var toldSettled = Slot.zero
        /// Since when it owes the answer to a question (a probe, a heartbeat), or is suspected.
        var silentSince: Instant?
        var probe = false
        var probeAt = Instant.never
        var probeDelay = TimeSpan.zero
        var snapshotAt = Instant.zero
        /// When the newest heartbeat that it answered was sent.
        var leaseFrom = Instant.zero
    }

    package init(
        id: GroupID, node: NodeID, configuration: Configuration, restored: RestoredLog,
        applied: AppliedPosition, isFlushed: Bool = true, lostThrough: Slot = .zero,
        lease: LeaseLimits?, limits: Limits,
        electAfter: TimeSpan = .zero, at now: Instant
    ) {
        invariant(
            applied.slot >= restored.truncatedThrough,
            "store at \(applied.slot), log truncated through \(restored.truncatedThrough)")
        self.id = id
        self.node = node
        self.configuration = configuration
        self.limits = limits
        leaseLimits = lease
        peers = configuration.members.filter { $0 != node }.map {
            Peer(node: $0, isVoter: configuration.voters.contains($0))
        }
        position = applied
        self.lostThrough = lostThrough
        configuredAt = applied.slot
        truncatedThrough = restored.truncatedThrough
        // What was read from the store at the start lies on the disk; what has just come to be does not:
        // no log may be cut off for it.
        flushedThrough = isFlushed ? applied.slot : .zero
        oldFlush = (flushedThrough, now)
        keptAfter = applied.slot
        promised = restored.accepted.reduce(restored.promised) { max($0, $1.ballot) }
        recordedPromise = restored.promised
        promisedAt = now
        highestRound = promised.round
        acceptedThrough = applied.slot
        durableThrough = applied.slot
        noticed = (.zero, .zero)
        // S13 a: whatever it promised before it stopped may still run.
        leasePromise = (
            .zero, configuration.voters != [node] ? lease.map { now.advanced(by: $0.duration) } ?? .zero : .zero
        )
        if Mutation.restartForgetsLease.isOn { leasePromise.until = .zero }
        luck = SplitMix(
            seed: UInt64(node.rawValue) << 48 ^ UInt64(id.keyspace.rawValue) << 32
                ^ UInt64(id.partition.rawValue) ^ now.nanoseconds)
        electAt = .never
        restore(restored)
        var slot = decided
        while slot < min(restored.decidedThrough, lastSlot), self[slot.next].ballot != .zero {
            slot = slot.next
        }
        restoredDecided = slot
        guard votes else { return }
        // A leader may be at work: it hears of us and tells. Nobody has ever led a fresh group, but
        // somebody may be about to (`electAfter`).
        electAt = electionTime(
            after: promised == .zero ? electAfter : limits.electionPeriod, at: now)
    }

    package var decided: Slot { position.slot }
    /// The leadership that this replica follows, or its own.
    package var ballot: Ballot { promised }
    package var lastSlot: Slot { Slot(keptAfter.rawValue + UInt64(log.count)) }
    /// This node's leadership, from phase 1 won on.
    package var term: Term? { role == .leading ? promised : nil }
    /// A successor is being brought up to date, or has been told to take over.
    package var isHandingOver: Bool { role == .leading && leadership.successor != nil }
    /// `begin` and everything before it is decided.
    package var isLeading: Bool { role == .leading && leadership.begun }

    package mutating func step(_ input: Input, at now: Instant, into effects: inout Effects) {
        if restoredDecided > decided {
            advance(to: restoredDecided, at: now, into: &effects)
            restoredDecided = .zero
        }
        switch input {
        case .message(let from, let message): onMessage(message, from: from, at: now, into: &effects)
        case .durable(let count): onDurable(count, at: now, into: &effects)
        case .begin(let payload): onBegin(payload, at: now, into: &effects)
        case .suspect(let peer): onSuspect(peer, at: now)
        case .trust(let peer): onTrust(peer)
        case .commitNotice(let ballot, let slot):
            onNotice(ballot, slot, at: now, into: &effects)
        case .wake: break
        case .campaign:
            if role == .follower || role == .asking { prepare(at: now, into: &effects) }
        case .confirm: sendHeartbeats(at: now, into: &effects)
        case .transfer(let to): onTransfer(to: to, at: now, into: &effects)
        case .truncate(let through): onTruncate(through: through, at: now, into: &effects)
        case .installed(let position, let configuration):
            onInstalled(position, configuration, at: now, into: &effects)
        case .snapshotRefused(let peer):
            if role == .leading, let i = peers.firstIndex(where: { $0.node == peer }) {
                peers[i].snapshotAt = min(peers[i].snapshotAt, now.advanced(by: limits.probePeriod * 4))
                peers[i].probe = true
            }
        case .founded(let position, let configuration):
            onInstalled(position, configuration, isFlushed: false, at: now, into: &effects)
        }
        // Any input may be late: what its time has come for is done now.
        if nextWake <= now { onWake(at: now, into: &effects) }
        checkInvariants()
    }

    private mutating func onMessage(
        _ message: GroupMessage, from: NodeID, at now: Instant, into effects: inout Effects
    ) {
        guard let peer = peers.firstIndex(where: { $0.node == from }) else {
            onStranger(message, from: from, at: now, into: &effects)
            return
        }
        peers[peer].silentSince = nil
        switch message {
        case .askVote(let question, let theirs, _):
            onAskVote(question, decided: theirs, from: from, at: now, into: &effects)
        case .vote(let vote): onVote(vote, from: peer, at: now, into: &effects)
        case .prepare(let prepare): onPrepare(prepare, from: from, at: now, into: &effects)
        case .promise(let promise): onPromise(promise, from: peer, at: now, into: &effects)
        case .refuse(let higher): onRefuse(higher, at: now, into: &effects)
        case .accept(let accept): onAccept(accept, from: from, at: now, into: &effects)
        case .accepted(let accepted): onAccepted(accepted, from: peer, at: now, into: &effects)
        case .campaign(let ballot): onCampaign(ballot, from: from, at: now, into: &effects)
        case .gone(let number): onGone(number, from: from, into: &effects)
        case .askRelease: break
        case .released(let release): onReleased(release)
        }
    }

    /// Somebody who is not in our configuration: he knows a newer one, or has been removed.
    private mutating func onStranger(
        _ message: GroupMessage, from: NodeID, at now: Instant, into effects: inout Effects
    ) {
        switch message {
        case .askVote(let question, let theirs, let number) where knowsMore(number):
            onAskVote(question, decided: theirs, from: from, at: now, into: &effects)
        case .prepare(let prepare) where knowsMore(prepare.configuration):
            onPrepare(prepare, from: from, at: now, into: &effects)
        case .accept(let accept) where knowsMore(accept.configuration):
            onAccept(accept, from: from, at: now, into: &effects)
        case .campaign(let ballot): onCampaign(ballot, from: from, at: now, into: &effects)
        case .gone(let number): onGone(number, from: from, into: &effects)
        case .askRelease(let ask): onAskRelease(ask, from: from, at: now, into: &effects)
        case .released(let release): onReleased(release)
        case .askVote, .prepare, .accept:
            effects.append(.send(to: from, .gone(configuration.number)))
        case .vote, .promise, .refuse, .accepted:
            effects.append(.note(.ignored(from: from, .zero)))
        }
    }

    /// Once per turn, after all of its steps: batched accepts, acknowledgements.
    package mutating func flush(at now: Instant, into effects: inout Effects) {
        if role == .leading {
            sendAccepts(at: now, into: &effects)
        } else if ackDue {
            acknowledge(into: &effects)
        }
    }

    // MARK: Time

    /// `nextWake`, asked of one that is not to be copied for it: a getter's receiver of another module is.
    package mutating func wakeTime() -> Instant { nextWake }

    package var nextWake: Instant {
        switch role {
        case .follower: return min(electAt, fetchAt)
        case .asking: return min(askAt, fetchAt)
        case .preparing: return min(askAt, candidacyEndsAt)
        case .leading:
            var next = min(leadership.noticeAt, leadership.renewAt, leadership.handOverEndsAt)
            next = min(next, leadership.settleAt, leadership.retireAt)
            for peer in peers { next = min(next, peer.probeAt) }
            return min(next, lonelyAt)
        }
    }

    private mutating func onWake(at now: Instant, into effects: inout Effects) {
        switch role {
        case .follower:
            guard electAt <= now else { break }
            if votes, !isGone { ask(at: now, into: &effects) } else { electAt = .never }
        case .asking:
            if askAt <= now { repeatQuestion(at: now, into: &effects) }
        case .preparing: wakeCandidate(at: now, into: &effects)
        case .leading: wakeLeader(at: now, into: &effects)
        }
        if fetchAt <= now { fetch(at: now, into: &effects) }
    }

    /// Place in the order in which candidates go first, among those not suspected.
    var rank: UInt64 {
        if isReluctant { return UInt64(configuration.voters.count) }
        var rank: UInt64 = 0
        for other in configuration.voters {
            if other == node { break }
            if !suspects(other) { rank += 1 }
        }
        return rank
    }

    /// For how long a candidate or a new leader may make no progress. What it waits for may be a slow disk, of
    /// which a duel asks for yet more: so twice as long after each ballot that came to nothing.
    var patience: TimeSpan {
        limits.electionPeriod * (1 << min(max(fruitless, 1) - 1, limits.patienceDoublingsMax))
    }

    func electionTime(after base: TimeSpan, at now: Instant) -> Instant {
        now.advanced(by: base + limits.stagger * rank)
    }

    func suspects(_ other: NodeID) -> Bool {
        for peer in peers where peer.node == other { return peer.suspected }
        return false
    }

    private mutating func onSuspect(_ other: NodeID, at now: Instant) {
        guard let i = peers.firstIndex(where: { $0.node == other }), !peers[i].suspected else {
            return
        }
        peers[i].suspected = true
        if peers[i].silentSince == nil { peers[i].silentSince = now }
        guard votes else { return }
        if promised.node == other {
            leaderLost = true
            leaderBegun = false
        }
        // Whoever was ahead of us in the order may be the one that has gone.
        if role == .follower, leaderLost { electAt = min(electAt, electionTime(after: .zero, at: now)) }
    }

    private mutating func onTrust(_ other: NodeID) {
        guard let i = peers.firstIndex(where: { $0.node == other }) else { return }
        peers[i].suspected = false
        peers[i].silentSince = nil
        // It may have restarted, or missed what was sent: it says from where on it needs more.
        peers[i].probe = role == .leading
    }
}
