package import Primitives

/// What a transaction over several partitions holds (or waits for) in one of them: all its keys and
/// ranges at once, never upgraded but for the keys that a lease turns out to hold (S6, S11).
package struct Latch: Sendable {
    package enum Stage: UInt8, Sendable {
        /// Older than everything in its way: waits.
        case waiting
        /// Held; earlier transactions that overlap are not decided yet.
        case overlapping
        case reading
        /// The coordinator has the rows.
        case answered
        /// `prepared` is in the log's pipeline.
        case proposed
        /// `prepared` is decided: only the frontier or an abort ends it.
        case decided
    }
    package let transaction: TransactionID
    let coordinator: NodeID
    let start: StartStamp
    var footprint: Footprint
    package var stage: Stage
    let since: Instant
    var request: LockRequest?
    var overlaps: Set<UInt64> = []
    var readToken: UInt64 = 0
    var plan = ReadPlan()
    var answer: LockedRows?
    var number: UInt64 = 0
    var revision = Revision.zero
    var keys: [Bytes] = []
    var abortWanted = false
    var abortProposed = false

    var isHeld: Bool { stage != .waiting }
    var isPrepared: Bool { stage == .proposed || stage == .decided }

    init(_ request: LockRequest, coordinator: NodeID, at now: Instant) {
        transaction = request.transaction
        self.coordinator = coordinator
        start = request.start
        footprint = request.footprint
        stage = .waiting
        since = now
        self.request = request
    }

    /// A new leader finds it prepared in the log.
    init(restoring record: PartitionState.PreparedRecord, at now: Instant) {
        transaction = record.transaction
        coordinator = record.transaction.name.node
        start = StartStamp(micros: 0, name: record.transaction.name)
        footprint = Footprint()
        footprint.writes = record.keys.map { KeyRange(key: $0.key) }
        footprint.exclusiveLeases = record.leasesEnded.map(\.id)
        if let cursor = record.cursorBefore {
            footprint.exclusiveLeases.append(Coordinator.cursorLatch(cursor.region))
        }
        footprint.sharedLeases = record.leasesKnown + record.leasesSpread.map(\.lease)
        stage = .decided
        since = now
        revision = record.revision
        keys = record.keys.map(\.key)
    }
}

extension Partition {
    // MARK: Locking

    package mutating func lock(
        _ request: LockRequest, from coordinator: NodeID, at now: Instant,
        into effects: inout RegionEffects
    ) {
        guard isLeading, !lead.isYielding,
            !lead.ended.contains(request.transaction) || Mutation.attemptsGrantedAgain.isOn
        else {
            effects.send(.died(request.transaction, id), to: coordinator)
            return
        }
        guard mayLatch(request) else {
            effects.send(.died(request.transaction, id), to: coordinator)
            return
        }
        if let tag = request.tag {
            let isOtherTerm = tag.gate > .zero && tag.gate != lead.term
            guard !isOtherTerm, !lead.attempts.isOvertaken(tag.name, attempt: tag.attempt) else {
                effects.send(.overtaken(request.transaction, id), to: coordinator)
                return
            }
            if tag.isRetry { overtake(tag, at: now, into: &effects) }
        }
        if let latch = lead.latches.first(where: { $0.transaction == request.transaction }) {
            if let answer = latch.answer {
                effects.send(.locked(latch.transaction, id, lead.term, answer), to: coordinator)
            }
            return
        }
        let latch = Latch(request, coordinator: coordinator, at: now)
        let inTheWay = lead.latches.filter { $0.footprint.conflicts(with: request.footprint) }
        guard mayWait(request.start, for: inTheWay) else {
            effects.send(.died(request.transaction, id), to: coordinator)
            return
        }
        lead.latches.append(latch)
        if inTheWay.isEmpty, !isSomebodysTurn(request.footprint) {
            grant(lead.latches.count - 1, at: now, into: &effects)
        }
    }

    /// Wait-die: only the older waits (L9). A prepared one ends without anybody's help.
    private func mayWait(_ start: StartStamp, for inTheWay: [Latch]) -> Bool {
        inTheWay.allSatisfy { $0.isPrepared || start < $0.start }
    }

    /// Single transactions that latches have held up go first once these have fallen, or those that follow
    /// one another on a hot key would pass them for ever. They wait for nobody here, so that who waits for
    /// them is in no circle.
    private func isSomebodysTurn(_ footprint: Footprint) -> Bool {
        lead.turns.contains {
            isTurn($0) && lead.items.footprint($0)?.conflicts(with: footprint) == true
        }
    }

    /// From its read on until it is evaluated for good: then whatever overlaps waits for it anyway.
    private func isTurn(_ token: UInt64) -> Bool {
        switch lead.items.stage(token) {
        case .arrived, .reading, .waiting, .confirming: true
        case .blocked, .allocating, .proposed, nil: false
        }
    }

    /// Once a turn.
    mutating func endTurns(at now: Instant, into effects: inout RegionEffects) {
        if lead.turns.isEmpty { return }
        let left = lead.turns.filter { isTurn($0) }
        if left.count == lead.turns.count { return }
        lead.turns = left
        unlatched(at: now, into: &effects)
    }

    /// Of a client's request only the newest attempt may go on; what it has logged stands (S16).
    mutating func overtake(_ tag: RequestTag, at now: Instant, into effects: inout RegionEffects) {
        _ = lead.attempts.insert(tag.name, attempt: tag.attempt)
        let older = lead.latches.indices.filter { i in
            guard !lead.latches[i].isPrepared, let other = lead.latches[i].request?.tag else {
                return false
            }
            return other.name == tag.name && other.attempt < tag.attempt
        }
        if older.isEmpty { return }
        for i in older.reversed() {
            if lead.latches[i].stage == .answered { lead.lapses += 1 }
            drop(i, tell: true, into: &effects)
        }
        unlatched(at: now, into: &effects)
    }

    private mutating func grant(_ i: Int, at now: Instant, into effects: inout RegionEffects) {
        lead.latches[i].stage = .overlapping
        advance(i, at: now, into: &effects)
    }

    /// Held: wait until what overlaps is decided, then read. Keys attached to a lease that ends are
    /// found now, and may overlap in turn.
    private mutating func advance(_ i: Int, at now: Instant, into effects: inout RegionEffects) {
        guard let request = lead.latches[i].request else { return }
        let transaction = lead.latches[i].transaction
        var footprint = request.footprint
        var plan = request.plan
        for lease in request.leasesEnding {
            // A key has one lease.
            let keys = (state.leaseKeys[lease] ?? []).sorted()
            footprint.writes += keys.map { KeyRange(key: $0) }
            plan.addNew(keys)
        }
        if !request.leasesEnding.isEmpty {
            let inTheWay = lead.latches.filter {
                $0.transaction != transaction && $0.isHeld && $0.footprint.conflicts(with: footprint)
            }
            if !inTheWay.isEmpty {
                if mayWait(request.start, for: inTheWay) {
                    // It holds nothing until all of it is free.
                    lead.latches[i].footprint = footprint
                    lead.latches[i].stage = .waiting
                } else {
                    drop(i, tell: true, into: &effects)
                }
                unlatched(at: now, into: &effects)
                return
            }
        }
        lead.latches[i].footprint = footprint
        lead.latches[i].plan = plan
        lead.latches[i].overlaps = Set(
            lead.items.tokens {
                ($0.stage == .allocating || $0.stage == .proposed)
                    && $0.footprint.conflicts(with: footprint)
            })
        guard lead.latches[i].overlaps.isEmpty || Mutation.latchOverOverlaps.isOn else { return }
        // All that could have carried it out here is decided by now.
        if let tag = request.tag, let after = tag.after.first {
            var revision: Revision?
            switch requests.find(tag.name, after: after) {
            case .absent: break
            case .executed(let found):
                revision = found
                fallthrough
            case .unknown:
                let coordinator = lead.latches[i].coordinator
                effects.send(.executedBefore(transaction, id, revision), to: coordinator)
                drop(i, tell: false, into: &effects)
                unlatched(at: now, into: &effects)
                return
            }
        }
        if plan.isEmpty {
            answer(i, ReadAnswer(applied: state.applied, rows: []), into: &effects)
            return
        }
        lead.latches[i].stage = .reading
        let token = ItemTable.latchToken(number: nextItem)
        nextItem += 1
        lead.latches[i].readToken = token
        read(token, plan, into: &effects)
    }

    mutating func overlapDecided(_ token: UInt64, into effects: inout RegionEffects) {
        var i = 0
        while i < lead.latches.count {
            if lead.latches[i].stage == .overlapping, lead.latches[i].overlaps.remove(token) != nil,
                lead.latches[i].overlaps.isEmpty
            {
                let count = lead.latches.count
                advance(i, at: lead.latches[i].since, into: &effects)
                if lead.latches.count < count { continue }
            }
            i += 1
        }
    }

    mutating func onLockRead(
        _ i: Int, _ read: ReadAnswer, at now: Instant, into effects: inout RegionEffects
    ) {
        let token = lead.latches[i].readToken
        finishRead(token)
        guard lead.latches[i].stage == .reading else { return }
        guard read.applied >= lead.overlay.completeFrom else {
            self.read(token, lead.latches[i].plan, into: &effects)
            return
        }
        answer(i, read, into: &effects)
    }

    private mutating func answer(
        _ i: Int, _ read: ReadAnswer, into effects: inout RegionEffects
    ) {
        let latch = lead.latches[i]
        guard let request = latch.request else { return }
        let (table, _, hasUnknown) = lead.overlay.lay(on: read.rows, plan: latch.plan)
        invariant(
            !hasUnknown || Mutation.latchOverOverlaps.isOn,
            "\(group): undecided rows under a granted latch")
        var found = LockedRows()
        found.rows = table.rows
        found.historic = read.historic
        let leases = request.footprint.sharedLeases + request.footprint.exclusiveLeases
        found.leasesAlive = leases.filter {
            state.leases[$0] != nil
                && (!request.onlyExpired || lead.leaseClock.isEnding($0)
                    || Mutation.expiryOutlivesLeader.isOn)
        }
        found.leasesKnown = leases.filter { state.knownLeases.contains($0) }
        for lease in request.leasesEnding {
            for p in state.leases[lease]?.known ?? [] {
                found.leaseSpread.append(LeaseSpread(lease: lease, partition: p))
            }
        }
        found.lapses = lead.lapses
        if let region = request.cursorOf { found.cursor = state.cursors[region] ?? .zero }
        lead.latches[i].stage = .answered
        lead.latches[i].readToken = 0
        lead.latches[i].answer = found
        effects.send(.locked(latch.transaction, id, lead.term, found), to: latch.coordinator)
    }

    // MARK: Preparing

    package mutating func prepare(
        _ transaction: TransactionID, term: Term, participants: [PartitionID], _ e: Effects,
        from coordinator: NodeID, at now: Instant, into effects: inout RegionEffects
    ) {
        if isLeading, lead.committed.contains(transaction) {
            effects.send(.prepared(transaction, id), to: coordinator)
            return
        }
        if Mutation.prepareInAnotherTerm.isOn, isLeading,
            !lead.latches.contains(where: { $0.transaction == transaction })
        {
            // As if the latches of the earlier term were held here.
            var latch = Latch(
                LockRequest(
                    transaction: transaction, start: StartStamp(micros: 0, name: transaction.name),
                    partition: id, footprint: Footprint(), plan: ReadPlan(), leasesEnding: [],
                    cursorOf: nil),
                coordinator: coordinator, at: now)
            latch.footprint.writes = e.rows.map { KeyRange(key: $0.key) }
            latch.stage = .answered
            lead.latches.append(latch)
        }
        // Only under this term's latches, and only for the sequencer to which the log is sealed (S6).
        guard isLeading, let i = lead.latches.firstIndex(where: { $0.transaction == transaction }),
            lead.term == term || lead.latches[i].isPrepared || Mutation.prepareInAnotherTerm.isOn
        else {
            effects.send(.refused(transaction, id), to: coordinator)
            return
        }
        switch lead.latches[i].stage {
        case .decided:
            effects.send(.prepared(transaction, id), to: coordinator)
        case .proposed: break
        case .waiting, .overlapping, .reading: refuse(i, at: now, into: &effects)
        case .answered:
            guard e.epoch == lead.registeredWith, e.epoch == epoch else {
                refuse(i, at: now, into: &effects)
                return
            }
            propose(
                .prepared(Prepared(transaction: transaction, participants: participants, effects: e)),
                .prepared(transaction),
                for: lead.latches[i].request?.tag.map { RequestMark(name: $0.name, mark: $0.mark) },
                into: &effects)
            lead.latches[i].stage = .proposed
            lead.latches[i].number = lead.proposed
            lead.latches[i].revision = e.revision
            lead.latches[i].keys = e.rows.map(\.key)
            for row in e.rows { lead.overlay.put(row, writer: 0, number: lead.proposed) }
        }
    }

    private mutating func refuse(_ i: Int, at now: Instant, into effects: inout RegionEffects) {
        let latch = lead.latches[i]
        effects.send(.refused(latch.transaction, id), to: latch.coordinator)
        drop(i, tell: false, into: &effects)
        unlatched(at: now, into: &effects)
    }

    mutating func onPrepared(
        _ prepared: Prepared, slot: Slot, number: UInt64, at now: Instant,
        into effects: inout RegionEffects
    ) {
        lead.overlay.decide(prepared.effects.rows, number: number, slot: slot)
        guard let i = lead.latches.firstIndex(where: { $0.transaction == prepared.transaction }) else {
            invariant(false, "\(group): \(prepared.transaction) prepared without a latch")
            return
        }
        lead.latches[i].stage = .decided
        effects.send(.prepared(prepared.transaction, id), to: lead.latches[i].coordinator)
        if lead.latches[i].abortWanted { proposeAbort(i, into: &effects) }
    }

    // MARK: Ending

    /// Everything at or below the frontier is decided for good: its latches fall (C1).
    mutating func releaseCommitted(
        through frontier: Revision, at now: Instant, into effects: inout RegionEffects
    ) {
        let before = lead.latches.count
        for latch in lead.latches where latch.stage == .decided && latch.revision <= frontier {
            lead.ended.insert(latch.transaction)
            lead.committed.insert(latch.transaction)
        }
        lead.latches.removeAll { $0.stage == .decided && $0.revision <= frontier }
        if lead.latches.count < before { unlatched(at: now, into: &effects) }
    }

    package mutating func release(
        _ transaction: TransactionID, at now: Instant, into effects: inout RegionEffects
    ) {
        guard isLeading else { return }
        guard let i = lead.latches.firstIndex(where: { $0.transaction == transaction }) else {
            // The release overtook the lock request: that must not win latches any more.
            lead.ended.insert(transaction)
            return
        }
        if lead.latches[i].isPrepared { return }
        drop(i, tell: false, into: &effects)
        unlatched(at: now, into: &effects)
    }

    mutating func drop(_ i: Int, tell: Bool, into effects: inout RegionEffects) {
        let latch = lead.latches.remove(at: i)
        if latch.readToken != 0 { finishRead(latch.readToken) }
        lead.ended.insert(latch.transaction)
        if tell { effects.send(.died(latch.transaction, id), to: latch.coordinator) }
    }

    /// Something fell: first the single transactions that it held up, then whoever waits for latches, in
    /// order.
    private mutating func unlatched(at now: Instant, into effects: inout RegionEffects) {
        unblock(into: &effects)
        var i = 0
        while i < lead.latches.count {
            if lead.latches[i].stage == .waiting {
                let footprint = lead.latches[i].footprint
                let ahead = lead.latches[..<i].contains { $0.footprint.conflicts(with: footprint) }
                let held = lead.latches.contains {
                    $0.isHeld && $0.footprint.conflicts(with: footprint)
                }
                if !ahead && !held && !isSomebodysTurn(footprint) {
                    let count = lead.latches.count
                    grant(i, at: now, into: &effects)
                    if lead.latches.count < count {
                        i = 0
                        continue
                    }
                }
            }
            i += 1
        }
    }

    /// The sequencer asks whether this revision will come (L1). "Never" is final: the latches are gone,
    /// and so is every chance to prepare in this term or a later one (S10).
    package mutating func recover(
        _ transaction: TransactionID, _ revision: Revision, aborting: Bool, from sequencer: NodeID,
        at now: Instant, into effects: inout RegionEffects
    ) {
        guard isLeading, lead.registeredWith == epoch, epoch.node == sequencer else { return }
        if let i = lead.latches.firstIndex(where: { $0.transaction == transaction }) {
            switch lead.latches[i].stage {
            case .decided where aborting: proposeAbort(i, into: &effects)
            case .decided: break
            case .proposed:
                if aborting { lead.latches[i].abortWanted = true }
                return
            case .waiting, .overlapping, .reading, .answered:
                drop(i, tell: true, into: &effects)
                unlatched(at: now, into: &effects)
                effects.send(.never(epoch, transaction, revision, id, lead.term), to: sequencer)
                return
            }
        }
        if let recent = state.recent.first(where: { $0.revision == revision }) {
            effects.send(.report(epoch, id, lead.term, [recent]), to: sequencer)
        } else if !state.prepared.contains(where: { $0.transaction == transaction }),
            revision > state.heardFrontier
        {
            lead.ended.insert(transaction)
            effects.send(.never(epoch, transaction, revision, id, lead.term), to: sequencer)
        }
    }

    private mutating func proposeAbort(_ i: Int, into effects: inout RegionEffects) {
        guard !lead.latches[i].abortProposed else { return }
        lead.latches[i].abortProposed = true
        let latch = lead.latches[i]
        propose(.aborted(latch.transaction, latch.revision), .aborted(latch.transaction), into: &effects)
    }

    mutating func onAborted(
        _ transaction: TransactionID, _ revision: Revision, slot: Slot, at now: Instant,
        into effects: inout RegionEffects
    ) {
        guard isLeading, let i = lead.latches.firstIndex(where: { $0.transaction == transaction })
        else { return }
        lead.overlay.abort(lead.latches[i].keys, revision: revision, at: slot)
        drop(i, tell: false, into: &effects)
        unlatched(at: now, into: &effects)
    }

    /// Latches that never became a prepared record do not outlive their coordinator (L2).
    mutating func tickLatches(at now: Instant, into effects: inout RegionEffects) {
        guard !lead.latches.isEmpty else { return }
        var i = 0
        var fell = false
        while i < lead.latches.count {
            let latch = lead.latches[i]
            let deadline = latch.since.advanced(by: limits.latchMax)
            if !latch.isPrepared {
                if now >= deadline {
                    if latch.stage == .answered { lead.lapses += 1 }
                    drop(i, tell: true, into: &effects)
                    fell = true
                    continue
                }
                effects.wake(at: deadline)
            }
            i += 1
        }
        if fell { unlatched(at: now, into: &effects) }
    }

    package mutating func suspected(
        _ node: NodeID, at now: Instant, into effects: inout RegionEffects
    ) {
        guard isLeading else { return }
        let before = lead.latches.count
        for latch in lead.latches where latch.coordinator == node && !latch.isPrepared {
            if latch.readToken != 0 { finishRead(latch.readToken) }
            if latch.stage == .answered { lead.lapses += 1 }
            lead.ended.insert(latch.transaction)
        }
        lead.latches.removeAll { $0.coordinator == node && !$0.isPrepared }
        if lead.latches.count < before { unlatched(at: now, into: &effects) }
    }
}
