import DequeModule
package import Primitives

/// Hands out revisions, knows which are resolved, and publishes the frontier. Soft state on the node
/// that leads the directory, one value for each leadership (epoch): it is rebuilt from the partitions'
/// seals, never logged (protocol.md "Sequencer failover", protocol-rules.md S2, S4, S7, S8, L1).
package struct Sequencer: Sendable {
    package let epoch: Epoch
    let region: RegionID
    /// Who hears the timeline.
    private(set) var nodes: [NodeID]
    let limits: Limits

    package struct Limits: Sendable {
        /// Revisions that may be open at once; more requests wait at their leaders.
        package var openMax = 100_000
        /// A revision that is open for longer is recovered (L1).
        package var recoverAfter = TimeSpan.milliseconds(100)
        package var timelinePeriod = TimeSpan.milliseconds(30)
        package var openingPeriod = TimeSpan.milliseconds(20)
        package var questionsMax = 50_000
        package init() {}
    }

    /// All partitions are sealed and what was in doubt is classified: revisions are handed out.
    package private(set) var isOpen = false
    /// The old sequencer's lease has run out then (L7); nothing is answered before.
    package private(set) var answersFrom: Instant

    /// Partitions that serve. The lists below hold one more while a split is under way: its child,
    /// which counts from its registration on; until then its parent answers for it (U2).
    private var served: Int
    private var coming: PartitionSplit?
    /// Of each partition, what its registered leader knows to have been cut off from it.
    private var newest: [PartitionID]

    /// By partition, from index 0 for partition 1.
    private var registrations: [Registration?]
    package private(set) var registered: [Term]
    /// How many latches had lapsed in the registered term, as far as this sequencer has heard.
    private var lapses: [UInt64]
    private var nextNumber: [UInt64]
    package private(set) var tails: [Timeline.Tail]

    package private(set) var frontier = Revision.initial
    /// The revision of `window`'s first element. Everything below is resolved.
    private var base = Revision(2)
    private var window: Deque<Open> = []
    /// The first revision that this sequencer has given itself.
    private var firstOwn = Revision(2)
    private var lastTicks: UInt64 = 0

    package private(set) var compactRevision: Revision
    package private(set) var floor = Revision.zero

    /// Of the directory's users and roles, as far as they are decided.
    package private(set) var authVersion: UInt64
    package private(set) var authFence: UInt64
    /// By partition: the fence that its registered leader keeps.
    private var fences: [UInt64]
    /// Raised fences that are not settled, in order; the revision is known once all leaders keep it.
    private var barriers: Deque<(fence: UInt64, revision: Revision?)> = []
    /// Nothing that was checked under a lower fence takes effect after what has been told.
    package private(set) var settledFence: UInt64 = 0

    private var questions: Deque<Question> = []
    private var isDirty = true
    private var publishAt = Instant.zero
    private var askAt = Instant.zero
    private var recoverAt = Instant.never

    struct Open: Sendable {
        enum State: UInt8 { case open, committed, aborting, void }
        var state = State.open
        let stamp: Stamp
        let issuedAt: Instant
        /// A single-partition transaction: its partition and number there.
        var partition = PartitionID.directory
        var number: UInt64 = 0
        var slot = Slot.zero
        /// A transaction over several: its writers.
        var transaction: TransactionID?
        var coordinator = NodeID.none
        var parts: [Part] = []

        struct Part: Sendable {
            enum Outcome: UInt8 { case unknown, prepared, aborted, never }
            let partition: PartitionID
            var outcome = Outcome.unknown
            var slot = Slot.zero
            var isUndone: Bool { outcome == .aborted || outcome == .never }
        }
    }

    private struct Question: Sendable {
        let from: NodeID
        let message: RegionMessage
    }

    package mutating func setNodes(_ nodes: [NodeID]) { self.nodes = nodes }

    package init(
        epoch: Epoch, region: RegionID, nodes: [NodeID], partitions: Int, compactRevision: Revision,
        answersFrom: Instant, authVersion: UInt64 = 0, authFence: UInt64 = 0,
        limits: Limits = Limits()
    ) {
        self.epoch = epoch
        self.region = region
        self.nodes = nodes
        self.limits = limits
        self.answersFrom = answersFrom
        self.compactRevision = compactRevision
        self.authVersion = authVersion
        self.authFence = authFence
        served = partitions
        newest = Array(repeating: .directory, count: partitions)
        fences = Array(repeating: 0, count: partitions)
        if authFence > 0 { barriers.append((authFence, nil)) }
        registrations = Array(repeating: nil, count: partitions)
        registered = Array(repeating: .zero, count: partitions)
        lapses = Array(repeating: 0, count: partitions)
        nextNumber = Array(repeating: 1, count: partitions)
        tails = Array(repeating: .init(term: .zero, slot: .zero), count: partitions)
    }

    // MARK: Splits

    /// The directory wants it, or wanted it when this sequencer began.
    package mutating func expect(_ split: PartitionSplit) {
        guard Int(split.child.rawValue) == registrations.count + 1 else { return }
        coming = split
        registrations.append(nil)
        registered.append(.zero)
        lapses.append(0)
        nextNumber.append(1)
        tails.append(.init(term: .zero, slot: .zero))
        fences.append(0)
        newest.append(.directory)
    }

    /// It has a leader, which is asked, and asks, for everything like any other.
    package func serves(_ partition: PartitionID) -> Bool {
        isOpen && partition.rawValue > 0 && Int(partition.rawValue) <= served
    }

    /// All whose answers are needed. A child's, if its parent's log has cut it off.
    private var isSealed: Bool {
        guard registrations.prefix(served).allSatisfy({ $0 != nil }) else { return false }
        guard let coming, registrations.count > served else { return true }
        let parent = registrations[Int(coming.parent.rawValue) - 1]
        let isDivided = (parent?.newest ?? .directory) >= coming.child
        return isDivided == (registrations[served] != nil)
    }

    /// A child counts when its parent's registered leader knows of it. An earlier one, that does not
    /// know that it was deposed, would be confirmed otherwise, and answer what is the child's.
    private mutating func admit(_ r: Registration) -> Bool {
        guard Int(r.partition.rawValue) > served else { return true }
        guard let coming, coming.child == r.partition,
            newest[Int(coming.parent.rawValue) - 1] >= r.partition
                || Mutation.childRegistersAlone.isOn
        else { return false }
        served += 1
        self.coming = nil
        // From now on the split counts in the parent's tail (S12).
        if let origin = r.origin { raiseTail(coming.parent, origin.slot) }
        return true
    }

    private var next: Revision { Revision(base.rawValue + Int64(window.count)) }

    // MARK: Messages

    /// `leaseHolds`: a quorum has promised to follow nobody else, as of `clock` (S13). Messages of other
    /// epochs are dropped by the caller.
    package mutating func step(
        _ message: RegionMessage, from node: NodeID, at clock: ClockReading, leaseHolds: Bool,
        into effects: inout RegionEffects
    ) {
        let now = clock.instant
        switch message {
        case .register(_, let registration): onRegister(registration, at: now, into: &effects)
        case .allocate(_, let p, let term, let lapses, let first, let replaced):
            guard isOpen, isRegistered(p, term) else { return }
            noteLapses(p, lapses)
            onAllocate(p, term, first: first, replaced, from: node, at: clock, into: &effects)
        case .allocateTransaction(_, let transaction, let participants, let replaced, let fence):
            guard fence >= authFence || Mutation.lowFencesTaken.isOn else {
                effects.send(.transactionFenced(epoch, transaction), to: node)
                return
            }
            onAllocate(
                transaction, participants, replaced: replaced, from: node, at: clock, into: &effects)
        case .report(_, let p, let term, let recent):
            guard isOpen, isRegistered(p, term) else { return }
            for r in recent { settle(r, of: p, into: &effects) }
            advance(into: &effects)
        case .never(_, _, let revision, let p, let term):
            guard isOpen, isRegistered(p, term) else { return }
            undo(revision, p, .never, slot: .zero, at: now, into: &effects)
            advance(into: &effects)
        case .fenced(_, let p, let term, let fence):
            guard isOpen, isRegistered(p, term) else { return }
            let i = Int(p.rawValue) - 1
            fences[i] = max(fences[i], fence)
            settleFences()
        case .abandon(_, let transaction, let revision, let by):
            guard isOpen else { return }
            if let i = index(of: revision), window[i].transaction == transaction {
                tellPrepared(i, into: &effects)
                recover(i, into: &effects)
            } else if by < epoch, revision >= firstOwn || index(of: revision) != nil {
                // An older sequencer's, and in no log when the partitions were sealed.
                effects.send(.transactionVoid(epoch, transaction, revision), to: node)
            }
        case .confirm, .confirmTransaction, .readQuestion:
            if isOpen && leaseHolds {
                answer(message, to: node, into: &effects)
            } else if questions.count < limits.questionsMax {
                questions.append(Question(from: node, message: message))
            }
        default: break
        }
    }

    private func isRegistered(_ p: PartitionID, _ term: Term) -> Bool {
        let i = Int(p.rawValue) - 1
        return i >= 0 && i < registered.count && registered[i] == term
    }

    /// Whoever evaluates under latches that have lapsed may have missed a write. Every write after a
    /// lapse comes here with a higher count, whatever message was lost on the way (S6, L2).
    private func isLatched(_ p: Participant) -> Bool {
        isRegistered(p.partition, p.term)
            && (p.lapses >= lapses[Int(p.partition.rawValue) - 1] || Mutation.lapsesIgnored.isOn)
    }

    private mutating func noteLapses(_ p: PartitionID, _ count: UInt64) {
        let i = Int(p.rawValue) - 1
        lapses[i] = max(lapses[i], count)
    }

    /// What a question of a read would be answered with, if the lease holds; nil: it would wait.
    package var readsNow:
        (epoch: Epoch, frontier: Revision, compactRevision: Revision, authVersion: UInt64)?
    { isOpen ? (epoch, frontier, compactRevision, authVersion) : nil }

    private func answer(_ message: RegionMessage, to node: NodeID, into effects: inout RegionEffects) {
        switch message {
        case .confirm(_, let p, let term, let question):
            // A leader with a lower ballot gets no answer: consensus will tell it that it was deposed.
            guard isRegistered(p, term) || Mutation.confirmUnregistered.isOn else { return }
            effects.send(
                .confirmed(
                    epoch, p, term, question: question, frontier: frontier, compact: compactRevision,
                    fence: authFence),
                to: node)
        case .confirmTransaction(_, let transaction, let participants, let fence):
            guard fence >= authFence || Mutation.lowFencesTaken.isOn else {
                effects.send(.transactionFenced(epoch, transaction), to: node)
                return
            }
            let holds = participants.allSatisfy { isLatched($0) }
            effects.send(
                .confirmedTransaction(epoch, transaction, frontier: holds ? frontier : nil), to: node)
        case .readQuestion(_, let question):
            effects.send(
                .readAnswer(
                    epoch, question: question, frontier: frontier, compact: compactRevision,
                    authVersion: authVersion),
                to: node)
        default: break
        }
    }

    package mutating func compacted(_ revision: Revision) {
        compactRevision = max(compactRevision, revision)
        isDirty = true
    }

    // MARK: Fences

    /// Users, roles or permissions have changed in the directory's log.
    package mutating func authChanged(version: UInt64, fence: UInt64) {
        authVersion = max(authVersion, version)
        if fence > authFence {
            authFence = fence
            barriers.append((fence, nil))
        }
        isDirty = true
    }

    /// A fence is settled when all leaders keep it and what they had asked for before is resolved.
    private mutating func settleFences() {
        while let first = barriers.first {
            if first.revision == nil {
                guard fences.prefix(served).allSatisfy({ $0 >= first.fence }) else { return }
                barriers[0].revision = next.previous
            }
            guard let revision = barriers[0].revision, base > revision else { return }
            settledFence = first.fence
            barriers.removeFirst()
        }
    }

    package mutating func setFloor(_ revision: Revision) {
        guard revision > floor else { return }
        floor = revision
        isDirty = true
    }

    // MARK: Handing out

    private mutating func stamp(above replaced: Stamp, wall: UInt64) -> Stamp {
        lastTicks = max(wall, lastTicks + 1, replaced.ticks + 1)
        if Mutation.stampFromClock.isOn { return Stamp(ticks: wall, region: region) }
        return Stamp(ticks: lastTicks, region: region)
    }

    private mutating func onAllocate(
        _ p: PartitionID, _ term: Term, first: UInt64, _ replaced: [Stamp], from node: NodeID,
        at clock: ClockReading, into effects: inout RegionEffects
    ) {
        guard window.count < limits.openMax else { return }
        let i = Int(p.rawValue) - 1
        guard first <= nextNumber[i] else { return }  // A gap: the leader asks again from the first.
        var allocations: [Allocation] = []
        allocations.reserveCapacity(replaced.count)
        for (k, above) in replaced.enumerated() {
            let number = first + UInt64(k)
            if number < nextNumber[i] {
                // Asked before: the same answer.
                guard
                    let j = window.firstIndex(where: { $0.partition == p && $0.number == number })
                else { return }
                allocations.append(
                    Allocation(revision: Revision(base.rawValue + Int64(j)), stamp: window[j].stamp))
                continue
            }
            let stamp = stamp(above: above, wall: clock.wallMicroseconds)
            allocations.append(Allocation(revision: next, stamp: stamp))
            window.append(Open(stamp: stamp, issuedAt: clock.instant, partition: p, number: number))
            nextNumber[i] += 1
        }
        effects.send(.allocated(epoch, p, term, first: first, allocations), to: node)
    }

    private mutating func onAllocate(
        _ transaction: TransactionID, _ participants: [Participant], replaced: Stamp,
        from node: NodeID, at clock: ClockReading, into effects: inout RegionEffects
    ) {
        guard isOpen, window.count < limits.openMax else { return }
        if let j = window.firstIndex(where: { $0.transaction == transaction }) {
            let allocation = Allocation(
                revision: Revision(base.rawValue + Int64(j)), stamp: window[j].stamp)
            effects.send(.allocatedTransaction(epoch, transaction, allocation), to: node)
            return
        }
        guard participants.allSatisfy({ isLatched($0) }) else {
            effects.send(.allocatedTransaction(epoch, transaction, nil), to: node)
            return
        }
        for p in participants { noteLapses(p.partition, p.lapses) }
        let stamp = stamp(above: replaced, wall: clock.wallMicroseconds)
        let allocation = Allocation(revision: next, stamp: stamp)
        var open = Open(stamp: stamp, issuedAt: clock.instant)
        open.transaction = transaction
        open.coordinator = node
        open.parts = participants.filter(\.writes).map { Open.Part(partition: $0.partition) }
        invariant(!open.parts.isEmpty, "a revision for a transaction that writes nothing")
        window.append(open)
        effects.wake(at: clock.instant.advanced(by: limits.recoverAfter))
        effects.send(.allocatedTransaction(epoch, transaction, allocation), to: node)
    }

    // MARK: Settling

    private func index(of revision: Revision) -> Int? {
        let i = Int(revision.rawValue - base.rawValue)
        return i >= 0 && i < window.count ? i : nil
    }

    private mutating func settle(
        _ recent: PartitionState.Recent, of p: PartitionID, into effects: inout RegionEffects
    ) {
        guard let i = index(of: recent.revision) else { return }
        switch recent.kind {
        case .committed:
            guard window[i].partition == p, window[i].state == .open else { return }
            window[i].state = .committed
            window[i].slot = recent.slot
        case .prepared:
            guard let j = window[i].parts.firstIndex(where: { $0.partition == p }),
                window[i].parts[j].outcome == .unknown
            else { return }
            window[i].parts[j].outcome = .prepared
            window[i].parts[j].slot = recent.slot
            if window[i].state == .open, window[i].parts.allSatisfy({ $0.outcome == .prepared }) {
                window[i].state = .committed
            }
        case .aborted:
            undo(recent.revision, p, .aborted, slot: recent.slot, at: nil, into: &effects)
        }
    }

    private mutating func undo(
        _ revision: Revision, _ p: PartitionID, _ outcome: Open.Part.Outcome, slot: Slot,
        at now: Instant?, into effects: inout RegionEffects
    ) {
        guard let i = index(of: revision), window[i].state == .open || window[i].state == .aborting,
            let j = window[i].parts.firstIndex(where: { $0.partition == p }),
            !window[i].parts[j].isUndone
        else { return }
        // A "never" that crossed with its own prepared report is late: what was decided stands, and is
        // undone by an entry in the log only.
        if outcome == .never && window[i].parts[j].outcome == .prepared { return }
        window[i].parts[j].outcome = outcome
        window[i].parts[j].slot = slot
        let wasOpen = window[i].state == .open
        window[i].state = .aborting
        finishUndo(i, into: &effects)
        if wasOpen && window[i].state == .aborting { recover(i, into: &effects) }
    }

    private mutating func finishUndo(_ i: Int, into effects: inout RegionEffects) {
        guard window[i].state == .aborting, window[i].parts.allSatisfy(\.isUndone) else { return }
        window[i].state = .void
        let revision = Revision(base.rawValue + Int64(i))
        effects.voids.append(revision)
        if let transaction = window[i].transaction, window[i].coordinator != .none {
            effects.send(.transactionVoid(epoch, transaction, revision), to: window[i].coordinator)
        }
    }

    /// Moves the frontier over what is resolved: it rests on committed revisions only (S7).
    private mutating func advance(into effects: inout RegionEffects) {
        while let first = window.first, first.state == .committed || first.state == .void {
            window.removeFirst()
            if first.transaction == nil {
                if first.state == .committed { raiseTail(first.partition, first.slot) }
            } else {
                for part in first.parts { raiseTail(part.partition, part.slot) }
            }
            if first.state == .committed || Mutation.voidFrontier.isOn { frontier = base }
            base = base.next
            isDirty = true
        }
    }

    private mutating func raiseTail(_ p: PartitionID, _ slot: Slot) {
        let i = Int(p.rawValue) - 1
        guard slot > tails[i].slot || Mutation.tailsAsRevisions.isOn else { return }
        tails[i] = .init(term: registered[i], slot: slot)
    }

    // MARK: Registration, opening

    private mutating func onRegister(
        _ r: Registration, at now: Instant, into effects: inout RegionEffects
    ) {
        let i = Int(r.partition.rawValue) - 1
        guard i >= 0, i < registrations.count else { return }
        guard isOpen else {
            if let known = registrations[i], known.term > r.term { return }
            registrations[i] = r
            tryToOpen(at: now, into: &effects)
            return
        }
        if r.term < registered[i] { return }
        guard admit(r) else { return }
        newest[i] = r.newest
        if r.term > registered[i] {
            registered[i] = r.term
            lapses[i] = r.lapses
            nextNumber[i] = 1
            fences[i] = 0
            reconcile(r, at: now, into: &effects)
        } else {
            noteLapses(r.partition, r.lapses)
            for recent in r.recent { settle(recent, of: r.partition, into: &effects) }
        }
        raiseTail(r.partition, r.sealSlot)
        isDirty = true
        advance(into: &effects)
        effects.send(.registered(epoch, r.partition, r.term, fence: authFence), to: r.term.node)
    }

    /// A new leader of a partition: what its log does not hold will never be there (S1, S8).
    private mutating func reconcile(
        _ r: Registration, at now: Instant, into effects: inout RegionEffects
    ) {
        for recent in r.recent {
            settle(recent, of: r.partition, into: &effects)
            if let i = index(of: recent.revision) { tellPrepared(i, into: &effects) }
        }
        let held = Set(r.recent.map(\.revision))
        for i in window.indices {
            let revision = Revision(base.rawValue + Int64(i))
            // Numbers count anew in the new term: a repeated request must not find an older term's.
            if window[i].partition == r.partition { window[i].number = 0 }
            if held.contains(revision) { continue }
            if window[i].transaction == nil {
                if window[i].partition == r.partition && window[i].state == .open {
                    window[i].state = .void
                    effects.voids.append(revision)
                }
            } else {
                undo(revision, r.partition, .never, slot: .zero, at: now, into: &effects)
            }
        }
    }

    private mutating func tryToOpen(at now: Instant, into effects: inout RegionEffects) {
        guard !isOpen, isSealed else { return }
        guard now >= answersFrom || Mutation.noLeaseWait.isOn else {
            effects.wake(at: answersFrom)
            return
        }
        let all = registrations.compactMap { $0 }
        isOpen = true
        for (i, r) in all.enumerated() { newest[i] = r.newest }
        if let child = registrations.dropFirst(served).first ?? nil { _ = admit(child) }
        let heard = max(Revision.initial, all.map(\.heardFrontier).max() ?? .initial)
        let highest = max(heard, all.map(\.highestRevision).max() ?? .initial)
        lastTicks = max(lastTicks, all.map(\.highestStamp.ticks).max() ?? 0)
        frontier = heard
        base = heard.next
        for (i, r) in all.enumerated() {
            registered[i] = r.term
            lapses[i] = r.lapses
            tails[i] = .init(term: r.term, slot: max(r.sealSlot, tails[i].slot))
        }
        // Everything above the highest heard frontier, by what the seals say of it (S4).
        var revision = base
        while revision <= highest {
            window.append(classify(revision, all, at: now))
            revision = revision.next
        }
        firstOwn = revision
        for i in window.indices where window[i].state == .aborting { recover(i, into: &effects) }
        for i in window.indices where window[i].state == .committed { tellPrepared(i, into: &effects) }
        advance(into: &effects)
        for r in all {
            effects.send(.registered(epoch, r.partition, r.term, fence: authFence), to: r.term.node)
        }
        registrations = Array(repeating: nil, count: registrations.count)
    }

    private func classify(_ revision: Revision, _ all: [Registration], at now: Instant) -> Open {
        var open = Open(stamp: .zero, issuedAt: now)
        for r in all {
            if let undecided = r.undecided.first(where: { $0.revision == revision }) {
                open.transaction = undecided.transaction
                open.coordinator = undecided.transaction.name.node
                open.parts = undecided.participants.map { Open.Part(partition: $0) }
                break
            }
        }
        for r in all {
            guard let recent = r.recent.first(where: { $0.revision == revision }) else { continue }
            if recent.kind == .committed {
                invariant(open.transaction == nil && open.partition == .directory, "\(revision) twice")
                open.partition = r.partition
                open.slot = recent.slot
                open.state = .committed
            } else if let j = open.parts.firstIndex(where: { $0.partition == r.partition }) {
                open.parts[j].outcome = recent.kind == .prepared ? .prepared : .aborted
                open.parts[j].slot = recent.slot
            }
        }
        if open.state == .committed { return open }
        guard open.transaction != nil else {
            // In no log, or undone wherever it was.
            open.state = .void
            return open
        }
        open.state = open.parts.allSatisfy { $0.outcome == .prepared } ? .committed : .aborting
        if open.state == .aborting {
            // After its seal nobody can prepare it any more: where it is not, it will never be.
            for j in open.parts.indices where open.parts[j].outcome == .unknown {
                open.parts[j].outcome = .never
            }
        }
        return open
    }

    // MARK: Recovery

    /// Asks (or orders) the registered leaders about a transaction whose outcome is open.
    private func recover(_ i: Int, into effects: inout RegionEffects) {
        guard let transaction = window[i].transaction else { return }
        if Mutation.noRecovery.isOn, window[i].state == .open { return }
        let revision = Revision(base.rawValue + Int64(i))
        for part in window[i].parts {
            let leader = registered[Int(part.partition.rawValue) - 1].node
            switch (window[i].state, part.outcome) {
            case (.open, .unknown):
                effects.send(.recover(epoch, transaction, revision, part.partition), to: leader)
            case (.aborting, .unknown), (.aborting, .prepared):
                effects.send(.abort(epoch, transaction, revision, part.partition), to: leader)
            default: break
            }
        }
    }

    /// To a coordinator whose participant has lost its leader: nobody else can answer it any more.
    private func tellPrepared(_ i: Int, into effects: inout RegionEffects) {
        guard let transaction = window[i].transaction, window[i].coordinator != .none else { return }
        for part in window[i].parts where part.outcome == .prepared {
            effects.send(.prepared(transaction, part.partition), to: window[i].coordinator)
        }
    }

    // MARK: Time

    /// Once a turn: publishes, asks again, recovers, answers what waited for the lease.
    /// `along`: something leaves in this turn anyway, and a timeline that is due soon goes with it.
    package mutating func flush(
        at now: Instant, leaseHolds: Bool, along: Bool = false, into effects: inout RegionEffects
    ) {
        if !isOpen {
            tryToOpen(at: now, into: &effects)
            if now >= askAt {
                for node in nodes { effects.send(.opening(epoch), to: node) }
                askAt = now.advanced(by: limits.openingPeriod)
            }
            effects.wake(at: askAt)
            if !isOpen { return }
        }
        if leaseHolds {
            while let question = questions.popFirst() {
                answer(question.message, to: question.from, into: &effects)
            }
        }
        if !barriers.isEmpty { settleFences() }
        // Alone, a node only reminds itself that it is there: often enough for the clocks of leases.
        let period = limits.timelinePeriod
        if isDirty || now >= publishAt || along && now.advanced(by: period / 2) >= publishAt {
            isDirty = false
            publishAt = now.advanced(by: nodes.count > 1 ? period : period * 6)
            var timeline = Timeline(
                epoch: epoch, frontier: frontier, compactRevision: compactRevision, floor: floor,
                tails: tails.count == served ? tails : Array(tails.prefix(served)))
            timeline.authVersion = authVersion
            timeline.authFence = authFence
            timeline.authFenced = fences.prefix(served).min() ?? 0
            for node in nodes { effects.send(.timeline(timeline), to: node) }
        }
        effects.wake(at: publishAt)
        guard let first = window.first else { return }
        let due = max(recoverAt == .never ? .zero : recoverAt, first.issuedAt.advanced(by: limits.recoverAfter))
        if now >= due {
            recoverAt = now.advanced(by: limits.recoverAfter)
            for i in window.indices
            where window[i].transaction != nil
                && (window[i].state == .aborting
                    || now >= window[i].issuedAt.advanced(by: limits.recoverAfter))
            {
                recover(i, into: &effects)
            }
            effects.wake(at: recoverAt)
        } else {
            effects.wake(at: due)
        }
    }

    /// There is news for the nodes: without another flush it waits for the next period.
    package var wantsFlush: Bool { isDirty && isOpen }

    // MARK: For status and checkers

    package var openRevisions: Int { window.count }
    package var oldestOpen: (revision: Revision, partitions: [PartitionID])? {
        guard let first = window.first else { return nil }
        return (base, first.transaction == nil ? [first.partition] : first.parts.map(\.partition))
    }
}
