import DequeModule
package import Primitives

// The pipeline of a leader: requests that concern this partition alone.
extension Partition {
    /// A request for this partition. Answered through `effects.answers`, or sent back through
    /// `redirects` when this node does not lead (or no longer does).
    package mutating func request(
        _ id: RequestID, _ request: Request, _ tag: RequestTag?, deadline: Instant,
        fence: UInt64 = .max, at now: Instant, into effects: inout RegionEffects
    ) {
        // An attempt is for one leadership: it must not come back in a later one (S16).
        guard isLeading, !lead.isYielding,
            tag == nil || tag?.gate == lead.term || Mutation.attemptsOutliveLeaders.isOn
        else {
            effects.redirects.append(id)
            return
        }
        if tag?.isRetry == true, let tag {
            overtake(tag, at: now, into: &effects)
            if takeOver(tag.name, by: id) { return }
        }
        // One that may have been carried out is looked for first (`admit`).
        guard fence >= self.fence || tag?.isRetry == true || Mutation.lowFencesTaken.isOn else {
            effects.answers.append((id, .failed(.authChanged)))
            return
        }
        guard lead.items.count < limits.itemsMax else {
            effects.answers.append((id, .failed(.tooManyRequests)))
            return
        }
        var plan = ReadPlan()
        switch request {
        case .transaction(let transaction):
            if let key = transaction.onlyKey {
                plan.keys = [key]
            } else {
                plan.add(transaction)
            }
        case .leaseKeepAlive, .leaseRevoke, .leaseExpire, .leaseGrant, .leaseTimeToLive: break
        case .leaseList, .compact, .members, .replicate, .auth, .split:
            invariant(false, "\(request) is not for one partition")
        }
        if let split = lead.splitting.split, reaches(request, Footprint(request), above: split.cut) {
            hold(id, into: &effects)
            return
        }
        guard isAtHome(request) else {
            // Found by a map of before a split.
            effects.redirects.append(id)
            return
        }
        let token = lead.items.insert(
            Item(
                id: id, request: request, tag: tag, deadline: deadline, fence: fence, plan: plan),
            number: nextItem)
        nextItem += 1
        admit(token, into: &effects)
    }

    /// It is being executed already: the answer goes to whoever asks now.
    private mutating func takeOver(_ name: RequestName, by id: RequestID) -> Bool {
        var known = lead.itemsByName ?? [:]
        if lead.itemsByName == nil {
            for token in lead.items.tokens {
                if let tag = lead.items.tag(token) { known[tag.name] = token }
            }
            lead.itemsByName = known
        }
        guard let token = known[name], lead.items.tag(token)?.name == name else { return false }
        lead.items.change(token) { $0.id = id }
        return true
    }

    /// True: an earlier attempt has done it, or may have.
    private mutating func wasExecuted(
        _ token: UInt64, into effects: inout RegionEffects
    ) -> Bool {
        guard lead.items.isRetry(token), let item = lead.items[token],
            let tag = item.tag, let after = tag.after.first
        else { return false }
        switch requests.find(tag.name, after: after) {
        case .absent: return false
        case .unknown:
            finishRead(token)
            lead.items.remove(token)
            effects.answers.append((item.id, .failed(.timedOut)))
        case .executed(let revision):
            finishRead(token)
            if case .transaction = item.request {
                lead.items.remove(token)
                effects.executed.append((item.id, revision))
            } else {
                lead.items.change(token) { $0.isExecuted = true }
                wantConfirm(token)
            }
        }
        return true
    }

    /// The caller lost interest. What may already have an effect goes on.
    package mutating func cancel(_ id: RequestID) {
        guard isLeading, let token = lead.items.tokens(where: { $0.id == id }).first,
            let stage = lead.items.stage(token), stage != .allocating, stage != .proposed
        else { return }
        lead.items.remove(token)
        finishRead(token)
    }

    mutating func admit(_ token: UInt64, into effects: inout RegionEffects) {
        // Field by field: to copy an item counts a dozen references up and down.
        guard let itemFence = lead.items.fence(token), let request = lead.items.request(token),
            let number = lead.items.number(token)
        else { return }
        if isLatched(token) {
            block(token)
            return
        }
        if wasExecuted(token, into: &effects) { return }
        // Only now: of one that was carried out nobody must think that it was refused.
        guard itemFence >= fence || Mutation.lowFencesTaken.isOn else {
            refuse(token, into: &effects)
            return
        }
        if case .leaseGrant(let lease, let ttl) = request {
            grant(token, lease, ttl, into: &effects)
        } else if case .leaseRevoke(let lease) = request {
            revoke(token, lease, into: &effects)
        } else if case .leaseExpire(let lease) = request {
            expire(token, lease, into: &effects)
        } else if case .leaseKeepAlive(let lease) = request,
            mustLogRenewal(of: lease, isLogged: number > 0)
        {
            logRenewal(token, lease, into: &effects)
        } else if let plan = lead.items.plan(token), !plan.isEmpty {
            read(token, plan, into: &effects)
            lead.items.change(token) { $0.stage = .reading }
        } else {
            let nothing = ReadAnswer(applied: state.applied, rows: [])
            lead.items.change(token) { $0.answer = nothing }
            evaluate(token, into: &effects)
        }
    }

    private func isLatched(_ token: UInt64) -> Bool {
        if lead.latches.isEmpty { return false }
        return isLatched(lead.items.footprint(token) ?? Footprint())
    }

    func isLatched(_ footprint: Footprint) -> Bool {
        return lead.latches.contains { $0.isHeld && $0.footprint.conflicts(with: footprint) }
    }

    private mutating func block(_ token: UInt64) {
        finishRead(token)
        lead.items.change(token) { $0.answer = nil }
        lead.items.change(token) { $0.stage = .blocked }
        lead.blocked.append(token)
    }

    /// Latches fell: whoever waited tries again, in order of arrival.
    mutating func unblock(into effects: inout RegionEffects) {
        let waiting = lead.blocked
        if waiting.isEmpty { return }
        lead.blocked = []
        for token in waiting {
            admit(token, into: &effects)
            if lead.items.stage(token) != .blocked { lead.turns.append(token) }
        }
    }

    // MARK: Reading

    mutating func read(_ token: UInt64, _ plan: ReadPlan, into effects: inout RegionEffects) {
        lead.reads.append((token, state.applied))
        lead.readsOpen.insert(token)
        effects.reads.append(ReadRequest(token: wireToken(token), group: group, range: range, plan: plan))
    }

    /// Reads are answered by a number that names the partition as well.
    private func wireToken(_ token: UInt64) -> UInt64 { UInt64(id.rawValue) << 44 | token }
    package static func partition(ofToken token: UInt64) -> PartitionID {
        PartitionID(UInt32(truncatingIfNeeded: token >> 44))
    }

    package mutating func onRead(
        token wire: UInt64, _ answer: ReadAnswer, at now: Instant, into effects: inout RegionEffects
    ) {
        let token = wire & (1 << 44 - 1)
        guard isLeading else { return }
        if let i = lead.latches.firstIndex(where: { $0.readToken == token }) {
            onLockRead(i, answer, at: now, into: &effects)
            return
        }
        guard lead.items.stage(token) == .reading else {
            finishRead(token)
            return
        }
        guard answer.applied >= lead.overlay.completeFrom || Mutation.staleReadsTrusted.isOn else {
            finishRead(token)
            read(token, lead.items.plan(token) ?? ReadPlan(), into: &effects)
            return
        }
        if writeOne(token, answer) { return }
        lead.items.change(token) { $0.answer = answer }
        evaluate(token, into: &effects)
    }

    /// What `evaluate` does, for the most frequent of all: one put, perhaps behind compares of its key.
    /// False: there is more to it, and nothing has happened.
    private mutating func writeOne(_ token: UInt64, _ answer: ReadAnswer) -> Bool {
        guard lead.latches.isEmpty, let itemFence = lead.items.fence(token),
            itemFence >= fence || Mutation.lowFencesTaken.isOn,
            case .transaction(let transaction)? = lead.items.request(token),
            let key = transaction.onlyKey, hasRoom
        else { return false }
        let before = lead.overlay[key]?.row ?? answer.rows.first
        let isUnknown = before?.modRevision == .pending
        if isUnknown, !transaction.isDecided(knowing: state.highestRevision) { return false }
        guard let evaluation = Evaluator.writeOne(transaction, on: before),
            !isUnknown || evaluation.needsNoOtherRevision
        else { return false }
        allocate(token, evaluation)
        return true
    }

    /// For one more that is under way, with a sequencer that knows of this leadership, and has told it which
    /// permissions count. (Who has just started knows of none.)
    private var hasRoom: Bool {
        lead.registeredWith == epoch && epoch > .zero
            && lead.asked.count + lead.proposals.count < limits.inFlightMax
    }

    /// What this read saw is no longer needed: the overlay need not cover it any more.
    mutating func finishRead(_ token: UInt64) {
        if lead.readsOpen.remove(token) != nil { prune() }
    }

    // MARK: Evaluating

    mutating func evaluate(_ token: UInt64, into effects: inout RegionEffects) {
        guard let itemFence = lead.items.fence(token), let request = lead.items.request(token),
            let plan = lead.items.plan(token), let answer = lead.items.answer(token)
        else { return }
        guard itemFence >= fence || Mutation.lowFencesTaken.isOn else {
            refuse(token, into: &effects)
            return
        }
        if isLatched(token) {
            block(token)
            return
        }
        guard case .transaction(let transaction) = request else {
            if Mutation.keepAliveWithoutConfirm.isOn, case .leaseKeepAlive(let lease) = request {
                guard let item = lead.items.removeValue(forKey: token) else { return }
                let ttl = state.leases[lease]?.ttlSeconds ?? 0
                effects.answers.append(
                    (item.id, .leaseKeptAlive(lease, ttlSeconds: ttl, revision: state.heardFrontier)))
                return
            }
            wantConfirm(token)
            return
        }
        guard answer.applied >= lead.overlay.completeFrom || Mutation.staleReadsTrusted.isOn else {
            finishRead(token)
            read(token, plan, into: &effects)
            lead.items.change(token) { $0.stage = .reading }
            return
        }
        for lease in transaction.namesLeases ? Footprint(transaction).sharedLeases : []
        where !isAlive(lease) && map.home(of: lease) != id {
            finishRead(token)
            guard let item = lead.items.removeValue(forKey: token) else { return }
            effects.escalations.append(
                (item.id, item.request, item.tag, deadline: item.deadline, fence: item.fence))
            return
        }
        let (table, _, hasUnknown) = lead.overlay.lay(on: answer.rows, plan: plan)
        // A pending version without a revision decides nothing that depends on it (S20).
        let mayPass = !hasUnknown || transaction.isDecided(knowing: state.highestRevision)
        do {
            guard mayPass else {
                waitForRevision(token)
                return
            }
            let evaluation = try Evaluator.evaluate(
                transaction, on: table, plan: plan, historic: answer.historic,
                leaseIsAlive: aliveLeases(for: transaction))
            if hasUnknown && (evaluation.effects.isEmpty || !evaluation.needsNoOtherRevision) {
                waitForRevision(token)
            } else if evaluation.effects.isEmpty {
                if Mutation.answerWithoutConfirm.isOn {
                    lead.items.change(token) { $0.stage = .confirming }
                    guard let item = lead.items[token] else { return }
                    concludeTransaction(token, item, transaction, state.heardFrontier, into: &effects)
                    return
                }
                wantConfirm(token)
            } else {
                allocate(token, evaluation)
            }
        } catch {
            if hasUnknown { waitForRevision(token) } else { wantConfirm(token) }
        }
    }

    /// Permissions were restricted while it waited.
    private mutating func refuse(_ token: UInt64, into effects: inout RegionEffects) {
        finishRead(token)
        guard let item = lead.items.removeValue(forKey: token) else { return }
        effects.answers.append((item.id, .failed(.authChanged)))
    }

    private mutating func waitForRevision(_ token: UInt64) {
        lead.items.change(token) { $0.stage = .waiting }
        lead.awaitingRevision.append(token)
    }

    /// Can a key of this partition be attached to it without asking anybody else (C4)?
    func isAlive(_ lease: LeaseID) -> Bool {
        (state.knownLeases.contains(lease) || state.leases[lease] != nil)
            && !lead.revoking.contains(lease)
    }

    /// For the evaluator. Not `isAlive` itself, which would take a copy of the whole partition along.
    private func aliveLeases(for transaction: Transaction) -> (LeaseID) -> Bool {
        guard transaction.namesLeases else { return { _ in false } }
        let known = state.knownLeases, leases = state.leases, revoking = lead.revoking
        return { (known.contains($0) || leases[$0] != nil) && !revoking.contains($0) }
    }

    private mutating func allocate(_ token: UInt64, _ evaluation: Evaluation) {
        guard isLeading else { return }
        guard hasRoom else {
            // Evaluated again when there is room and the registration has told the fence; the read stays
            // registered.
            lead.items.change(token) { $0.stage = .waiting }
            lead.awaitingRoom.append(token)
            return
        }
        for i in evaluation.effects.indices { lead.overlay.put(evaluation.effects[i], writer: token) }
        lead.items.change(token) { $0.evaluated(evaluation) }
        lead.asked.append(token)
        finishRead(token)
    }

    mutating func admitWaiting(into effects: inout RegionEffects) {
        while let token = lead.awaitingRoom.first,
            lead.asked.count + lead.proposals.count < limits.inFlightMax
        {
            lead.awaitingRoom.removeFirst()
            evaluate(token, into: &effects)
        }
    }

    // MARK: Revisions

    /// The sequencer's answer: settle, log, in the order asked (U4).
    package mutating func onAllocated(
        _ epoch: Epoch, _ term: Term, first: UInt64, _ allocations: [Allocation], at now: Instant,
        into effects: inout RegionEffects
    ) {
        guard isLeading, epoch == lead.registeredWith, term == lead.term else { return }
        for (k, allocation) in allocations.enumerated() {
            let number = first + UInt64(k)
            guard number == lead.askedBase, let token = lead.asked.first else { continue }
            lead.asked.removeFirst()
            lead.askedBase += 1
            lead.askedSent = max(0, lead.askedSent - 1)
            log(token, allocation, epoch: epoch, into: &effects)
        }
        lead.askAt = now.advanced(by: limits.retryAfter)
        let waiting = lead.awaitingRevision
        if waiting.isEmpty { return }
        lead.awaitingRevision = []
        for token in waiting { evaluate(token, into: &effects) }
    }

    private mutating func log(
        _ token: UInt64, _ allocation: Allocation, epoch: Epoch, into effects: inout RegionEffects
    ) {
        guard var evaluation = lead.items.takeEvaluation(token) else { return }
        for i in evaluation.effects.indices {
            evaluation.effects[i].settle(at: allocation.revision, stamp: allocation.stamp)
        }
        evaluation.result.settle(at: allocation.revision, stamp: allocation.stamp)
        propose(
            .effects(
                Effects(
                    revision: allocation.revision, epoch: epoch, stamp: allocation.stamp,
                    rows: evaluation.effects)),
            .item(token), for: lead.items.mark(token), into: &effects)
        let number = lead.proposed
        lead.overlay.settle(evaluation.effects, writer: token, number: number)
        lead.items.propose(token, evaluation, at: allocation.revision, number: number)
    }

    // MARK: Answers without a commit

    mutating func wantConfirm(_ token: UInt64) {
        guard lead.items.contains(token) else { return }
        lead.items.change(token) { $0.stage = .confirming }
        lead.confirmWanted.append(token)
    }

    /// The sequencer knows this term as the current one, asked after these requests had arrived: they
    /// are evaluated now (S9).
    package mutating func onConfirmed(
        _ epoch: Epoch, _ term: Term, question: UInt64, frontier: Revision, fence: UInt64,
        at now: Instant, into effects: inout RegionEffects
    ) {
        heard(fence: fence)
        guard isLeading, epoch == lead.registeredWith, term == lead.term else { return }
        var tokens: [UInt64] = []
        while let first = lead.confirmAsked.first, first.question <= question {
            tokens.append(contentsOf: first.items)
            lead.confirmAsked.removeFirst()
        }
        for token in tokens { conclude(token, frontier, at: now, into: &effects) }
    }

    private mutating func conclude(
        _ token: UInt64, _ frontier: Revision, at now: Instant, into effects: inout RegionEffects
    ) {
        guard let item = lead.items[token], item.stage == .confirming else { return }
        guard item.fence >= fence || Mutation.lowFencesTaken.isOn else {
            refuse(token, into: &effects)
            return
        }
        switch item.request {
        case .transaction(let transaction):
            concludeTransaction(token, item, transaction, frontier, into: &effects)
            return
        case .leaseGrant(let lease, let ttl):
            let isGranted = item.isExecuted || (state.leases[lease] != nil && item.number > 0)
            let response: Response =
                isGranted
                ? .leaseGranted(lease, ttlSeconds: ttl, revision: frontier) : .failed(.leaseExists)
            effects.answers.append((item.id, response))
        case .leaseRevoke, .leaseExpire:
            let response: Response =
                item.number > 0 || item.isExecuted
                ? .leaseRevoked(revision: frontier) : .failed(.leaseNotFound)
            effects.answers.append((item.id, response))
        case .leaseKeepAlive(let lease):
            // Told only once it is certain that no revocation on its way takes the lease after all.
            if isLatched(item.footprint) || lead.revoking.contains(lease)
                || lead.leaseClock.isEnding(lease)
            {
                block(token)
                return
            }
            // One may have been logged while the confirmation was under way.
            if mustLogRenewal(of: lease, isLogged: item.number > 0) {
                logRenewal(token, lease, into: &effects)
                return
            }
            let ttl = state.leases[lease]?.ttlSeconds ?? 0
            lead.renewals += 1
            if ttl > 0 { lead.leaseClock.start(lease, ttlSeconds: ttl, at: now) }
            effects.answers.append((item.id, .leaseKeptAlive(lease, ttlSeconds: ttl, revision: frontier)))
        case .leaseTimeToLive(let lease, let wantsKeys):
            let granted = state.leases[lease]?.ttlSeconds
            let remaining = lead.leaseClock.remainingSeconds(lease, at: now)
            if let granted, let remaining, wantsKeys {
                effects.leaseReadings.append(
                    .init(
                        id: item.id, lease: lease, grantedSeconds: granted, remainingSeconds: remaining,
                        revision: frontier))
            } else {
                effects.answers.append(
                    (
                        item.id,
                        .leaseTimeToLive(
                            lease, grantedSeconds: granted ?? 0,
                            remainingSeconds: granted == nil ? -1 : remaining ?? -1, keys: [],
                            revision: frontier)
                    ))
            }
        case .leaseList, .compact, .members, .replicate, .auth, .split: break
        }
        lead.items.remove(token)
    }

    private mutating func concludeTransaction(
        _ token: UInt64, _ item: Item, _ transaction: Transaction, _ frontier: Revision,
        into effects: inout RegionEffects
    ) {
        guard let answer = item.answer, !isLatched(item.footprint),
            answer.applied >= lead.overlay.completeFrom,
            case let (table, number, hasUnknown) = lead.overlay.lay(on: answer.rows, plan: item.plan),
            !hasUnknown
        else {
            // Something moved meanwhile: evaluate afresh, and ask again if it still writes nothing.
            evaluate(token, into: &effects)
            return
        }
        let read = table.rows.map(\.modRevision).max() ?? .zero
        let revision = max(frontier, read)
        let response: Response
        do {
            let evaluation = try Evaluator.evaluate(
                transaction, on: table, plan: item.plan, historic: answer.historic,
                leaseIsAlive: aliveLeases(for: transaction))
            guard evaluation.effects.isEmpty else {
                allocate(token, evaluation)
                return
            }
            response = .transaction(evaluation.result, revision: revision)
        } catch {
            response = .failed(error)
        }
        lead.items.remove(token)
        finishRead(token)
        answerLater(item.id, response, revision: revision, number: number, into: &effects)
    }

    // MARK: Leases

    private mutating func grant(
        _ token: UInt64, _ lease: LeaseID, _ ttl: Int64, into effects: inout RegionEffects
    ) {
        guard state.leases[lease] == nil, !lead.granting.contains(lease) else {
            wantConfirm(token)
            return
        }
        lead.granting.insert(lease)
        propose(
            .leaseGrant(lease, ttlSeconds: ttl), .item(token), for: lead.items.mark(token),
            into: &effects)
        let number = lead.proposed
        lead.items.change(token) { $0.wasProposed(number: number) }
    }

    /// An expiry that an earlier leader of the home began is not this leader's: its clock has started
    /// anew, and the lease may have been renewed since (S11).
    private mutating func expire(
        _ token: UInt64, _ lease: LeaseID, into effects: inout RegionEffects
    ) {
        guard lead.leaseClock.isEnding(lease) || Mutation.expiryOutlivesLeader.isOn else {
            guard let item = lead.items.removeValue(forKey: token) else { return }
            effects.answers.append((item.id, .failed(.leaseNotFound)))
            return
        }
        revoke(token, lease, into: &effects)
    }

    /// A lease without keys ends in this log alone and takes no revision (U8); any other is a
    /// transaction over all partitions that know it.
    private mutating func revoke(
        _ token: UInt64, _ lease: LeaseID, into effects: inout RegionEffects
    ) {
        guard let held = state.leases[lease], !lead.revoking.contains(lease) else {
            wantConfirm(token)
            return
        }
        let isShared = !lead.items.tokens {
            ($0.stage == .allocating || $0.stage == .proposed)
                && $0.footprint.sharedLeases.contains(lease)
        }.isEmpty
        guard held.known.isEmpty, state.leaseKeys[lease] == nil, !isShared,
            !lead.latches.contains(where: { $0.footprint.sharedLeases.contains(lease) })
        else {
            guard let item = lead.items.removeValue(forKey: token) else { return }
            effects.escalations.append(
                (item.id, item.request, item.tag, deadline: item.deadline, fence: item.fence))
            return
        }
        lead.revoking.insert(lease)
        propose(.leaseRevoked(lease), .item(token), for: lead.items.mark(token), into: &effects)
        let number = lead.proposed
        lead.items.change(token) { $0.wasProposed(number: number) }
    }

    // MARK: Once a turn

    /// Sends what has gathered: allocation requests, questions, reports; repeats what was not answered.
    package mutating func flush(at now: Instant, into effects: inout RegionEffects) {
        guard isLeading else { return }
        lead.itemsByName = nil
        guard lead.registeredWith == epoch, epoch > .zero else {
            if epoch > .zero, isSealed, now >= lead.registerAt {
                register(at: now, into: &effects)
            }
            if epoch > .zero, isSealed { effects.wake(at: lead.registerAt) }
            return
        }
        let retry = now.advanced(by: limits.retryAfter)
        if lead.splitting.split != nil { advanceSplit(at: now, into: &effects) }
        if !lead.awaitingRoom.isEmpty { admitWaiting(into: &effects) }
        askForRevisions(at: now, retry: retry, into: &effects)
        if lead.fenceTold < fence { tellFence(into: &effects) }
        askForConfirmation(at: now, retry: retry, into: &effects)
        report(at: now, retry: retry, into: &effects)
        endTurns(at: now, into: &effects)
        tickLatches(at: now, into: &effects)
        if now >= lead.sweepAt {
            lead.sweepAt = now.advanced(by: .seconds(1))
            sweep(at: now)
            checkpointLeases(at: now, into: &effects)
        }
        if lead.leaseClock.count > 0 { effects.wake(at: lead.sweepAt) }
        for lease in lead.leaseClock.expired(at: now, contactMax: limits.contactMax) {
            effects.expired.append(lease)
        }
        effects.wake(at: lead.leaseClock.nextLook)
    }

    /// What is being asked for is let through: the sequencer waits for it before the change of
    /// permissions is told as done.
    private mutating func tellFence(into effects: inout RegionEffects) {
        guard lead.asked.allSatisfy({ lead.items.fence($0).map { $0 >= fence } ?? true }) else {
            return
        }
        lead.fenceTold = fence
        effects.send(.fenced(epoch, id, lead.term, fence: fence), to: epoch.node)
    }

    /// Requests whose callers have been told that time is up are not executed any more, as long as
    /// they have no effect yet.
    private mutating func sweep(at now: Instant) {
        let late = lead.items.tokens {
            $0.deadline <= now && $0.stage != .allocating && $0.stage != .proposed
        }
        for token in late {
            lead.items.remove(token)
            finishRead(token)
        }
    }

    private mutating func askForRevisions(
        at now: Instant, retry: Instant, into effects: inout RegionEffects
    ) {
        guard !lead.asked.isEmpty else { return }
        let isDue = now >= lead.askAt
        let from = isDue ? 0 : lead.askedSent
        if from < lead.asked.count {
            let stamps = lead.asked.dropFirst(from).map { lead.items.replacedStamp($0) }
            effects.send(
                .allocate(
                    epoch, id, lead.term, lapses: lead.lapses, first: lead.askedBase + UInt64(from),
                    replaced: Array(stamps)),
                to: epoch.node)
            // Progress moves the time of repetition, more questions do not: a lost one is noticed.
            if isDue || lead.askedSent == 0 { lead.askAt = retry }
            lead.askedSent = lead.asked.count
        }
        effects.wake(at: lead.askAt)
    }

    private mutating func askForConfirmation(
        at now: Instant, retry: Instant, into effects: inout RegionEffects
    ) {
        if lead.confirmWanted.isEmpty && lead.confirmAsked.isEmpty { return }
        if !lead.confirmWanted.isEmpty {
            let question = lead.nextQuestion
            lead.nextQuestion += 1
            if lead.confirmAsked.isEmpty { lead.confirmAt = retry }
            lead.confirmAsked.append((question, lead.confirmWanted))
            lead.confirmWanted = []
            effects.send(.confirm(epoch, id, lead.term, question: question), to: epoch.node)
        } else if now >= lead.confirmAt, let last = lead.confirmAsked.last {
            lead.confirmAt = retry
            effects.send(.confirm(epoch, id, lead.term, question: last.question), to: epoch.node)
        }
        effects.wake(at: lead.confirmAt)
    }

    private mutating func report(
        at now: Instant, retry: Instant, into effects: inout RegionEffects
    ) {
        if !lead.unreported.isEmpty {
            effects.send(.report(epoch, id, lead.term, lead.unreported), to: epoch.node)
            lead.unreported.removeAll(keepingCapacity: true)
            lead.reportAt = retry
        } else if !state.recent.isEmpty, now >= lead.reportAt {
            effects.send(.report(epoch, id, lead.term, state.recent), to: epoch.node)
            lead.reportAt = retry
        }
        if !state.recent.isEmpty { effects.wake(at: lead.reportAt) }
    }
}
