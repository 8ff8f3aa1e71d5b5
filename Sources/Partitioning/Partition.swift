import DequeModule
package import Primitives

/// One replica of one partition on this node: the replicated state, and while this node leads the
/// group, the pipeline of what is being executed.
///
/// A transaction of this partition alone goes: latches -> read -> evaluate on what was read and the
/// overlay -> revision from the sequencer -> log -> decided -> frontier -> answer
/// (protocol.md "A write on one partition"). Transactions over several partitions come as lock and
/// prepare requests of their coordinator (`Partition+Locks.swift`).
package struct Partition: Sendable {
    package let id: PartitionID
    package let group: GroupID
    package let node: NodeID
    /// As this node knows it; never older than a split that this replica has applied.
    package var map: PartitionMap
    let limits: Limits

    package var state: PartitionState
    /// The highest epoch that this node has heard of.
    var epoch = Epoch.zero
    /// The highest that this node has heard of: what was checked under a lower one is refused.
    private(set) var fence: UInt64 = 0
    package private(set) var isLeading = false
    /// Means something only while `isLeading`. In place, never copied: what it holds is large.
    package internal(set) var lead = Leadership(term: .zero, overlay: Overlay())
    /// What this log has carried out, for requests that come again (S16).
    package internal(set) var requests: RequestTable
    /// Decided in the log, told to the client once the frontier covers them; and the revisions of
    /// these, because a look at one of them copies it.
    var settled: Deque<Settled> = []
    var settledRevisions: Deque<Revision> = []
    /// Answers that wrote nothing, waiting for the frontier.
    var readers: [Settled] = []
    /// Never reused within the process, so that a late read of an earlier leadership finds nobody.
    var nextItem: UInt64 = 1
    /// Of leases that the parent's leader on this node has just handed over. It counts for the first
    /// leadership of this log only: nobody else can have renewed one before.
    var inheritedClock: LeaseClock?
    /// When leases with a checkpoint run out, counted from the moment at which this replica applied it.
    var counted: [LeaseID: Instant] = [:]
    /// Also of those checkpoints that the state began with.
    var countsLeases = false
    /// The sequencer's last timeline.
    var heardAt = Instant.zero
    private var begins = 0
    /// Entries that wrote something, since the process began: what its load is.
    package private(set) var writesApplied: UInt64 = 0

    package struct Limits: Sendable {
        /// Transactions evaluated and not yet decided.
        package var inFlightMax = 4096
        /// Requests that wait for latches, reads or confirmations.
        package var itemsMax = 20_000
        package var retryAfter = TimeSpan.milliseconds(40)
        package var latchMax = TimeSpan.seconds(1)
        /// Beyond this silence of the sequencer the clocks of leases stand still (S11).
        package var contactMax = TimeSpan.milliseconds(500)
        /// What is above a cut waits no longer for what is under way there; the split comes later.
        package var splitDrainMax = TimeSpan.milliseconds(200)
        package var splitPause = TimeSpan.milliseconds(500)
        package init() {}
    }

    struct Settled: Sendable {
        let revision: Revision
        let id: RequestID
        let response: Response
        /// For answers that wrote nothing: the proposal of this leadership that they rest on.
        var number: UInt64 = 0
    }

    package init(
        id: PartitionID, keyspace: KeyspaceID, range: HashRange, node: NodeID, map: PartitionMap,
        state: PartitionState, limits: Limits = Limits()
    ) {
        self.id = id
        self.node = node
        self.map = map
        self.state = state
        self.state.lies(in: range)
        self.limits = limits
        requests = RequestTable(completeFrom: state.applied)
        group = GroupID(keyspace: keyspace, partition: id)
    }

    package var range: HashRange { state.place?.range ?? .all }

    // MARK: Leadership

    /// A leadership of this node, from its decided `begin` on.
    package struct Leadership: Sendable {
        package let term: Term
        /// The sequencer that knows of this term.
        package internal(set) var registeredWith = Epoch.zero
        var sealProposed = Epoch.zero
        var registerAt = Instant.zero

        var items = ItemTable()
        var overlay: Overlay
        /// Reads under way, in order, with the slot applied when each was asked for.
        var reads: Deque<(token: UInt64, applied: Slot)> = []
        /// Of `reads`, those whose answer is still in use.
        var readsOpen: Set<UInt64> = []
        var blocked: [UInt64] = []
        var awaitingRevision: [UInt64] = []
        var awaitingRoom: Deque<UInt64> = []

        /// Numbers of allocation requests count from 1 for each epoch and term.
        var asked: Deque<UInt64> = []
        var askedBase: UInt64 = 1
        var askedSent = 0
        var askAt = Instant.never

        /// Items that want a confirmation asked after now; and those whose question is under way.
        var confirmWanted: [UInt64] = []
        var confirmAsked: Deque<(question: UInt64, items: [UInt64])> = []
        var nextQuestion: UInt64 = 1
        var confirmAt = Instant.never

        var proposed: UInt64 = 0
        var decidedNumber: UInt64 = 0
        var proposals: Deque<Proposed> = []
        var unreported: [PartitionState.Recent] = []
        var reportAt = Instant.never

        var latches: [Latch] = []
        /// Single transactions that latches have held up, and whose turn it is.
        var turns: [UInt64] = []
        /// How many have fallen in this term although their coordinators may still count on them.
        var lapses: UInt64 = 0
        var ended = EndedAttempts()
        /// Of these, those that were prepared and that the frontier has covered: a repeated question
        /// gets the same answer.
        var committed = EndedAttempts()

        /// About to hand over: nothing new is taken.
        var isYielding = false
        var splitting = Splitting()
        /// Attempts that follow others: of those, only the newest may lock here.
        var attempts = AttemptMemory()
        /// Of this turn: items by request, once a retry has asked for it.
        var itemsByName: [RequestName: UInt64]?

        var leaseClock = LeaseClock()
        var granting: Set<LeaseID> = []
        /// The newest checkpoint or renewal of each lease that is not decided yet.
        var checkpointing: [LeaseID: (number: UInt64, isRenewal: Bool)] = [:]
        /// Since the last sweep; and whether they were too many to be logged in the second before.
        var renewals = 0
        var wasBusyWithRenewals = false
        var sweepAt = Instant.zero
        /// What the sequencer was told last.
        var fenceTold: UInt64 = 0
        /// Their revocation is in the log's pipeline: nothing can be attached any more.
        var revoking: Set<LeaseID> = []
    }

    /// In the log's pipeline; of effects also what was proposed, so that nobody decodes what was just
    /// encoded.
    struct Proposed: Sendable {
        let what: Proposal
        let body: EntryBody?
        let request: RequestMark?
    }

    enum Proposal: Sendable {
        case item(UInt64)
        case prepared(TransactionID)
        case aborted(TransactionID)
        case other
    }

    struct Item: Sendable {
        enum Stage: UInt8 { case arrived, blocked, reading, waiting, confirming, allocating, proposed }
        var id: RequestID
        let request: Request
        let tag: RequestTag?
        let deadline: Instant
        /// Of the permissions that it was checked under.
        let fence: UInt64
        let plan: ReadPlan
        var stage = Stage.arrived
        var answer: ReadAnswer?
        var evaluation: Evaluation?
        var revision = Revision.zero
        var number: UInt64 = 0
        /// An earlier attempt did it: only the answer is missing.
        var isExecuted = false
        var mark: RequestMark? { tag.map { RequestMark(name: $0.name, mark: $0.mark) } }
        /// Asked while something is latched, or to be split.
        var footprint: Footprint { Footprint(request) }

        mutating func evaluated(_ evaluation: consuming Evaluation) {
            self.evaluation = evaluation
            stage = .allocating
            answer = nil
        }
        mutating func wasProposed(number: UInt64) {
            self.number = number
            stage = .proposed
        }
    }

    package mutating func becameLeader(_ term: Term, at now: Instant, into effects: inout RegionEffects) {
        stoppedLeading(into: &effects)
        var lead = Leadership(term: term, overlay: Overlay(completeFrom: state.applied))
        // What is prepared and undecided keeps its keys latched: nobody evaluates on it (C1).
        for record in state.prepared { lead.latches.append(Latch(restoring: record, at: now)) }
        if begins == 1, let inheritedClock { lead.leaseClock = inheritedClock }
        inheritedClock = nil
        self.lead = lead
        isLeading = true
        // The number of the last decided entry counts from the begin, which has 0.
        seal(at: now, into: &effects)
    }

    /// What was not proposed never happens; what was proposed is decided by the log alone, and the
    /// next leader knows it.
    package mutating func stoppedLeading(into effects: inout RegionEffects) {
        guard isLeading else { return }
        isLeading = false
        let lead = self.lead
        self.lead = Leadership(term: .zero, overlay: Overlay())
        for token in lead.items.tokens {
            guard let item = lead.items[token] else { continue }
            if item.number > 0 {
                effects.abandoned.append(item.id)
            } else {
                effects.redirects.append(item.id)
            }
        }
        for reader in readers { effects.redirects.append(reader.id) }
        readers.removeAll()
        effects.redirects.append(contentsOf: lead.splitting.held)
    }

    /// A sequencer of a higher epoch was heard of: seal the log for it (S2).
    package mutating func heard(epoch: Epoch, at now: Instant, into effects: inout RegionEffects) {
        guard epoch > self.epoch else { return }
        self.epoch = epoch
        seal(at: now, into: &effects)
    }

    private mutating func seal(at now: Instant, into effects: inout RegionEffects) {
        guard isLeading, epoch > .zero else { return }
        lead.registeredWith = .zero
        if state.sealedEpoch >= epoch || Mutation.sealFromMemory.isOn {
            register(at: now, into: &effects)
        } else if lead.sealProposed != epoch {
            lead.sealProposed = epoch
            propose(.seal(epoch: epoch), .other, into: &effects)
        }
    }

    /// The log is, as far as it is decided, for the newest epoch that was heard of.
    var isSealed: Bool { state.sealedEpoch == epoch || Mutation.sealFromMemory.isOn }

    mutating func register(at now: Instant, into effects: inout RegionEffects) {
        guard isLeading, isSealed else { return }
        sendRegistration(into: &effects)
        lead.registerAt = now.advanced(by: limits.retryAfter)
        effects.wake(at: now.advanced(by: limits.retryAfter))
    }

    func sendRegistration(into effects: inout RegionEffects) {
        let term = lead.term
        let registration = Registration(
            partition: id, term: term, sealSlot: state.sealSlot, applied: state.applied,
            highestRevision: state.highestRevision, heardFrontier: state.heardFrontier,
            highestStamp: state.highestStamp, recent: state.recent,
            undecided: state.prepared.map {
                .init(transaction: $0.transaction, revision: $0.revision, participants: $0.participants)
            },
            lapses: lead.lapses, newest: state.newest, origin: state.place?.origin)
        effects.send(.register(epoch, registration), to: epoch.node)
    }

    /// `fence` before all else: from its registration on a leader asks for nothing below it.
    package mutating func onRegistered(
        _ epoch: Epoch, _ term: Term, fence: UInt64, at now: Instant,
        into effects: inout RegionEffects
    ) {
        heard(fence: fence)
        guard isLeading, epoch == self.epoch, lead.term == term, lead.registeredWith != epoch,
            isSealed
        else { return }
        lead.registeredWith = epoch
        lead.fenceTold = 0
        lead.askedBase = 1
        lead.askedSent = 0
        lead.askAt = now
        // Questions asked of an older sequencer are asked again.
        for (_, items) in lead.confirmAsked { lead.confirmWanted.append(contentsOf: items) }
        lead.confirmAsked.removeAll()
        lead.unreported.removeAll()
        lead.reportAt = now.advanced(by: limits.retryAfter)
        // One whose expiry is under way does not come back.
        // In a term that goes on its clock knows better; a new one begins with what the log knows.
        startLeases(at: now)
        lead.leaseClock.contact(at: now, stoppedBeyond: limits.contactMax)
    }

    package mutating func heard(fence: UInt64) { self.fence = max(self.fence, fence) }

    /// From a timeline: `told` is what the sequencer knows of all leaders.
    package mutating func heard(fence: UInt64, told: UInt64) {
        heard(fence: fence)
        if told < fence { lead.fenceTold = 0 }
    }

    mutating func propose(
        _ body: consuming EntryBody, _ what: Proposal, for request: RequestMark? = nil,
        into effects: inout RegionEffects
    ) {
        guard isLeading else { return }
        lead.proposed += 1
        effects.proposals.append((id, body.encoded(for: request)))
        switch body {
        case .effects, .prepared: lead.proposals.append(Proposed(what: what, body: body, request: request))
        default: lead.proposals.append(Proposed(what: what, body: nil, request: request))
        }
    }

    // MARK: The log

    /// The next entry of the log is decided. `skipped` by consensus's rule (S1).
    package mutating func decided(
        _ slot: Slot, _ entry: LogEntry, skipped: Bool, at now: Instant,
        into effects: inout RegionEffects
    ) {
        let isOwn = !skipped && isLeading && lead.term == entry.term && entry.number > 0
        let own = isOwn ? lead.proposals.popFirst() : nil
        if isOwn { lead.decidedNumber = entry.number }
        let proposal = own?.what
        let applied = state.apply(
            slot, entry, skipped: skipped, known: own?.body, for: own?.request, into: &effects.changes)
        if skipped { return }
        if let request = state.lastRequest { note(request, applied, slot) }
        switch applied {
        case .nothing: break
        case .begin:
            begins += 1
            if begins > 1 { inheritedClock = nil }
        case .sealed:
            if isOwn { register(at: now, into: &effects) }
        case .effects(let e):
            writesApplied &+= 1
            effects.applied.append(.init(revision: e.revision, rows: e.rows, aborted: false))
            report(e.revision, slot, .committed)
            if case .item(let token) = proposal { onDecided(token, slot: slot, into: &effects) }
        case .prepared(let p):
            writesApplied &+= 1
            effects.applied.append(.init(revision: p.effects.revision, rows: p.effects.rows, aborted: false))
            report(p.effects.revision, slot, .prepared)
            for lease in p.effects.leasesEnded { lead.leaseClock.stop(lease) }
            if isOwn { onPrepared(p, slot: slot, number: entry.number, at: now, into: &effects) }
        case .aborted(let transaction, let revision):
            requests.undo(revision)
            effects.applied.append(.init(revision: revision, rows: [], aborted: true))
            report(revision, slot, .aborted)
            if isLeading { startLeases(at: now) }
            onAborted(transaction, revision, slot: slot, at: now, into: &effects)
        case .leaseGranted(let lease):
            if isLeading, let ttl = state.leases[lease]?.ttlSeconds {
                lead.leaseClock.start(lease, ttlSeconds: ttl, at: now)
            }
            lead.granting.remove(lease)
            if case .item(let token) = proposal { wantConfirm(token) }
        case .leaseRevoked(let lease):
            lead.leaseClock.stop(lease)
            counted[lease] = nil
            lead.revoking.remove(lease)
            if case .item(let token) = proposal {
                wantConfirm(token)
                overlapDecided(token, into: &effects)
            }
            unblock(into: &effects)
        case .leaseCheckpoints(let list):
            count(list, at: now)
            if isOwn {
                for checkpoint in list
                where lead.checkpointing[checkpoint.lease]?.number == entry.number {
                    lead.checkpointing[checkpoint.lease] = nil
                }
            }
            if case .item(let token) = proposal {
                wantConfirm(token)
                overlapDecided(token, into: &effects)
            }
        case .split(let split): onDivided(split, into: &effects)
        case .leaseForgotten, .compacted, .members, .rehearsed, .auth, .splitIntended,
            .splitPublished:
            break
        }
        prune()
    }

    private mutating func report(
        _ revision: Revision, _ slot: Slot, _ kind: PartitionState.Recent.Kind
    ) {
        if isLeading { lead.unreported.append(.init(revision: revision, slot: slot, kind: kind)) }
    }

    private mutating func note(
        _ request: RequestMark, _ applied: PartitionState.Applied, _ slot: Slot
    ) {
        var revision = Revision.zero
        var isPrepared = false
        switch applied {
        case .effects(let e): revision = e.revision
        case .prepared(let p):
            revision = p.effects.revision
            isPrepared = true
        case .nothing, .begin, .sealed, .aborted, .leaseGranted, .leaseRevoked, .leaseForgotten,
            .leaseCheckpoints, .compacted, .auth, .members, .rehearsed, .split, .splitIntended,
            .splitPublished:
            break
        }
        requests.insert(request, revision: revision, slot: slot, isPrepared: isPrepared)
    }

    private mutating func onDecided(
        _ token: UInt64, slot: Slot, into effects: inout RegionEffects
    ) {
        guard let item = lead.items.removeValue(forKey: token), let evaluation = item.evaluation else {
            return
        }
        lead.overlay.decide(evaluation.effects, number: item.number, slot: slot)
        settle(
            Settled(
                revision: item.revision, id: item.id,
                response: .transaction(evaluation.result, revision: item.revision)))
        overlapDecided(token, into: &effects)
        admitWaiting(into: &effects)
    }

    /// In order of revision, nearly always at the end.
    private mutating func settle(_ entry: Settled) {
        var i = settledRevisions.count
        while i > 0, settledRevisions[i - 1] > entry.revision { i -= 1 }
        settledRevisions.insert(entry.revision, at: i)
        settled.insert(entry, at: i)
    }

    mutating func prune() {
        guard isLeading else { return }
        while let first = lead.reads.first, !lead.readsOpen.contains(first.token) {
            lead.reads.removeFirst()
        }
        let oldest = lead.reads.first?.applied ?? state.applied
        lead.overlay.prune(through: oldest)
    }

    /// A snapshot has replaced the replicated state. Only a follower takes one.
    package mutating func install(_ state: PartitionState, into effects: inout RegionEffects) {
        stoppedLeading(into: &effects)
        let range = range
        self.state = state
        self.state.lies(in: range)
        requests = RequestTable(completeFrom: state.applied)
        counted.removeAll()
        countsLeases = false
    }

    /// Of what was here, or would have been, there is nothing but a mark in the store.
    package mutating func isLost() { state.lostThrough = max(state.lostThrough, Slot(1)) }

    package mutating func tellStore(waiting most: Int, into changes: inout [StoreChange]) {
        state.tellStore(waiting: most, into: &changes)
    }

    package mutating func record(into changes: inout [StoreChange]) { state.record(into: &changes) }

    // MARK: The frontier

    /// The frontier has reached `frontier`, of the sequencer `epoch`; this log holds what is at or below
    /// it through `tail`.
    package mutating func onFrontier(
        _ frontier: Revision, tail: Slot, epoch: Epoch, at now: Instant,
        into effects: inout RegionEffects
    ) {
        if state.applied >= tail || Mutation.outcomesForgottenEarly.isOn { covered(through: frontier) }
        while let first = settledRevisions.first, first <= frontier {
            settledRevisions.removeFirst()
            let done = settled.removeFirst()
            effects.answers.append((done.id, done.response))
        }
        if !readers.isEmpty { answerReaders(frontier, into: &effects) }
        heardAt = now
        if !countsLeases { countLeases(at: now) }
        guard isLeading else { return }
        if lead.registeredWith == epoch {
            lead.leaseClock.contact(at: now, stoppedBeyond: limits.contactMax)
        }
        if !lead.latches.isEmpty { releaseCommitted(through: frontier, at: now, into: &effects) }
    }

    /// Everything at or below `frontier` is applied here. Not before then are outcomes forgotten: the
    /// entry that undoes a transaction may lie between the applied slot and the tail.
    package mutating func covered(through frontier: Revision) {
        state.heard(frontier: frontier)
        requests.covered(through: frontier)
    }

    private mutating func answerReaders(_ frontier: Revision, into effects: inout RegionEffects) {
        let decided = lead.decidedNumber
        readers.removeAll { reader in
            guard reader.revision <= frontier, reader.number <= decided else { return false }
            effects.answers.append((reader.id, reader.response))
            return true
        }
    }

    /// No commit of its own: told once the frontier covers it and what it read is decided here (S9).
    mutating func answerLater(
        _ id: RequestID, _ response: Response, revision: Revision, number: UInt64,
        into effects: inout RegionEffects
    ) {
        if revision <= state.heardFrontier, number <= lead.decidedNumber {
            effects.answers.append((id, response))
        } else {
            readers.append(Settled(revision: revision, id: id, response: response, number: number))
        }
    }
}

/// Attempts of transactions that are over at this participant: granted at most once in a term (S6).
struct EndedAttempts: Sendable {
    private var known: Set<TransactionID> = []
    private var order: Deque<TransactionID> = []
    private let max = 8192

    func contains(_ transaction: TransactionID) -> Bool { known.contains(transaction) }

    mutating func insert(_ transaction: TransactionID) {
        guard known.insert(transaction).inserted else { return }
        order.append(transaction)
        if order.count > max, let oldest = order.popFirst() { known.remove(oldest) }
    }
}
