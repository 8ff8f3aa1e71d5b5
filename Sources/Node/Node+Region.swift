import Consensus
import DequeModule
import GeoReplication
import Partitioning
import Primitives

// Between the partitions, the sequencer and the coordinator: of this node and of the others.
extension Node {
    func leaders() -> [NodeID] { partitions.indices.map { leader(of: $0) } }

    func leader(of i: Int) -> NodeID {
        if isHeardOnly(i) { return absentLeader(of: i) }
        return partitions[i].isLeading ? node : groups[i + 1].leaderHint.map { $0 == node ? .none : $0 } ?? .none
    }

    /// Carries out what the region's parts asked for, until nothing is left between parts of this
    /// node.
    mutating func drain(into effects: inout NodeEffects) {
        while true {
            if !region.messages.isEmpty {
                let messages = region.messages.exchange(for: &spares.messages)
                for (to, message) in messages {
                    if to == node {
                        inbox.append(message)
                    } else {
                        effects.sends.append((to, .region(message)))
                    }
                }
                spares.messages.recycle(consume messages)
            }
            if !region.proposals.isEmpty {
                let proposals = region.proposals.exchange(for: &spares.proposals)
                for (partition, payload) in proposals {
                    propose(Int(partition.rawValue), payload, into: &effects)
                    perform(Int(partition.rawValue), into: &effects)
                }
                spares.proposals.recycle(consume proposals)
            }
            takeChanges(into: &effects)
            adoptNewborns(into: &effects)
            if !region.reads.isEmpty {
                if region.reads.count == 1 {
                    // Moved: a copy counts four references.
                    effects.reads.append(region.reads.removeLast())
                } else {
                    effects.reads.append(contentsOf: region.reads)
                    region.reads.removeAll(keepingCapacity: true)
                }
            }
            if !region.applied.isEmpty { advanceLocalFrontier(into: &effects) }
            if !region.voids.isEmpty {
                for revision in region.voids { effects.events.append(.revisionVoid(revision)) }
                region.voids.removeAll(keepingCapacity: true)
            }
            if !region.answers.isEmpty || !region.redirects.isEmpty || !region.abandoned.isEmpty
                || !region.executed.isEmpty
            {
                drainAnswers(into: &effects)
            }
            if !region.escalations.isEmpty {
                let escalations = region.escalations
                region.escalations.removeAll(keepingCapacity: true)
                for (id, request, tag, deadline, fence) in escalations {
                    coordinate(id, request, tag, deadline: deadline, fence: fence)
                }
            }
            if !region.leaseReadings.isEmpty { answerLeaseReadings() }
            if !region.expired.isEmpty {
                let expired = region.expired
                region.expired.removeAll(keepingCapacity: true)
                for lease in expired { expire(lease) }
            }
            guard let message = inbox.popFirst() else {
                if region.isEmpty { return }
                continue
            }
            onRegion(message, from: node, into: &effects)
        }
    }

    mutating func onRegion(
        _ message: RegionMessage, from peer: NodeID, into effects: inout NodeEffects
    ) {
        switch message {
        case .allocate(let e, _, _, _, _, _), .allocateTransaction(let e, _, _, _, _),
            .report(let e, _, _, _), .register(let e, _), .confirm(let e, _, _, _),
            .confirmTransaction(let e, _, _, _), .readQuestion(let e, _), .never(let e, _, _, _, _),
            .abandon(let e, _, _, _), .fenced(let e, _, _, _):
            guard sequencer?.epoch == e else { return }
            switch message {
            case .confirm, .confirmTransaction, .readQuestion: useLease()
            default: break
            }
            let wasOpen = sequencer?.isOpen == true
            let clock = clock, leaseHolds = groups[0].checkLease(at: now)
            sequencer?.step(message, from: peer, at: clock, leaseHolds: leaseHolds, into: &region)
            if case .fenced = message { answerAuthChanges() }
            if !wasOpen, let sequencer, sequencer.isOpen {
                effects.events.append(.sequencerOpened(sequencer.epoch, frontier: sequencer.frontier))
            }
        case .opening(let e):
            if e >= epoch { heard(epoch: e) }
        case .registered(let e, let p, let term, let fence):
            onPartition(p) { $0.onRegistered(e, term, fence: fence, at: $1, into: &$2) }
        case .allocated(let e, let p, let term, let first, let allocations):
            onPartition(p) {
                $0.onAllocated(e, term, first: first, allocations, at: $1, into: &$2)
            }
        case .confirmed(let e, let p, let term, let question, let frontier, let compact, let fence):
            compactRevision = max(compactRevision, compact)
            onPartition(p) {
                $0.onConfirmed(
                    e, term, question: question, frontier: frontier, fence: fence, at: $1, into: &$2)
            }
        case .readAnswer(let e, let question, let frontier, let compact, let authVersion):
            guard e == epoch else { return }
            onReadAnswer(question, frontier, compact, authVersion: authVersion, into: &effects)
        case .timeline(let timeline): onTimeline(timeline, into: &effects)
        case .recover(let e, let transaction, let revision, let p):
            guard e == epoch else { return }
            onPartition(p) {
                $0.recover(transaction, revision, aborting: false, from: peer, at: $1, into: &$2)
            }
        case .abort(let e, let transaction, let revision, let p):
            guard e == epoch else { return }
            onPartition(p) {
                $0.recover(transaction, revision, aborting: true, from: peer, at: $1, into: &$2)
            }
        case .lock(let request):
            onPartition(request.partition) { $0.lock(request, from: peer, at: $1, into: &$2) }
        case .prepare(let transaction, let p, let term, let participants, let e):
            onPartition(p) {
                $0.prepare(
                    transaction, term: term, participants: participants, e, from: peer, at: $1,
                    into: &$2)
            }
        case .release(let transaction, let p):
            onPartition(p) { $0.release(transaction, at: $1, into: &$2) }
        case .locked, .died, .overtaken, .executedBefore, .allocatedTransaction,
            .confirmedTransaction, .prepared, .refused, .transactionVoid, .transactionFenced:
            coordinator.step(
                message, from: peer, at: now, leaders: leaders(), resolve: Self.resolve, into: &region)
        case .forward(let token, let request, let within, let fence, let tag):
            onForward(
                RequestID(node: peer, token: token), request, tag, within: within, fence: fence)
        case .forwarded(let number, let response):
            if let token = forwarded(number, by: peer) { finish(token, response, into: &effects) }
        case .executed(let number, let revision):
            if let token = forwarded(number, by: peer) { rebuild(token, revision, into: &effects) }
        case .redirect(let number, let isCertain):
            if let token = forwarded(number, by: peer) { reroute(token, isCertain: isCertain) }
        case .cancelForward(let token): cancelRemote(RequestID(node: peer, token: token))
        }
    }

    private mutating func onPartition(
        _ p: PartitionID, _ body: (inout Partition, Instant, inout RegionEffects) -> Void
    ) {
        let i = Int(p.rawValue) - 1
        guard i >= 0, i < partitions.count else { return }
        partitionDirty[i] = true
        body(&partitions[i], now, &region)
    }

    /// GeoReplication decides, Partitioning executes: they meet here.
    static func resolve(_ batch: ReplicationBatch, _ held: [Row]) -> Coordinator.Resolved {
        let resolution = ConflictResolver.resolve(batch, held: held)
        return Coordinator.Resolved(
            rows: resolution.rows, conflicts: resolution.conflicts,
            replacedStamp: resolution.replacedStamp)
    }

    // MARK: Epoch, timeline, frontier

    mutating func heard(epoch: Epoch) {
        guard epoch >= self.epoch else { return }
        self.epoch = epoch
        for i in partitions.indices {
            partitionDirty[i] = true
            partitions[i].heard(epoch: epoch, at: now, into: &region)
        }
        coordinator.onTimeline(epoch, .zero, into: &region)
        askReadsAt = readsAsked.isEmpty && readsWanted.isEmpty ? .never : now
    }

    private mutating func onTimeline(_ timeline: Timeline, into effects: inout NodeEffects) {
        guard timeline.epoch >= epoch, timeline.tails.count <= PartitionMap.partitionsMax else { return }
        // There are partitions that this node has not heard of: it shows nothing that needs them (S12).
        grow(to: timeline.tails.count)
        if timeline.epoch > epoch { heard(epoch: timeline.epoch) }
        heardAt = now
        compactRevision = max(compactRevision, timeline.compactRevision)
        floorWanted = max(floorWanted, timeline.floor)
        // The timeline is the commit notice (L8).
        for (i, tail) in timeline.tails.enumerated()
        where tail.slot > groups[i + 1].position.slot && tail.term > .zero {
            stepGroup(i + 1, .commitNotice(tail.term, tail.slot), into: &effects)
        }
        noticeTails(timeline.tails)
        heardFrontier = max(heardFrontier, timeline.frontier)
        if timeline.frontier == localFrontier { shownTails = timeline.tails }
        if timeline.frontier > localFrontier {
            // Under a burst only the newest of those that wait matters.
            if pendingTimelines.count >= 64 { pendingTimelines.removeLast() }
            pendingTimelines.append((timeline.frontier, timeline.tails, timeline.authVersion))
        }
        advanceLocalFrontier(into: &effects)
        raiseFloor(into: &effects)
        for i in partitions.indices {
            if timeline.authFence > timeline.authFenced {
                partitions[i].heard(fence: timeline.authFence, told: timeline.authFenced)
            }
            // One that has not registered yet has nothing at or below the frontier.
            let tail = i < timeline.tails.count ? timeline.tails[i].slot : .zero
            partitions[i].onFrontier(
                timeline.frontier, tail: tail, epoch: timeline.epoch, at: now, into: &region)
            if partitions[i].isLeading { partitionDirty[i] = true }
        }
        coordinator.onTimeline(timeline.epoch, timeline.frontier, into: &region)
        if let sequencer {
            let shipped = senders.values.map(\.link.acknowledged).min() ?? .zero
            let floor =
                configuration.otherRegions.isEmpty ? compactRevision : min(compactRevision, shipped)
            if floor > sequencer.floor { self.sequencer?.setFloor(floor) }
        }
    }

    private mutating func takeChanges(into effects: inout NodeEffects) {
        if region.changes.isEmpty { return }
        if effects.store.isEmpty {
            swap(&effects.store, &region.changes)
        } else {
            effects.store.append(contentsOf: region.changes)
            region.changes.removeAll(keepingCapacity: true)
        }
    }

    /// What their parents have written comes before.
    private mutating func adoptNewborns(into effects: inout NodeEffects) {
        if region.newborns.isEmpty { return }
        let newborns = region.newborns
        region.newborns.removeAll()
        for newborn in newborns { adopt(newborn, into: &effects) }
    }

    /// Everything at or below the local frontier is applied here: it can be read and watched.
    mutating func advanceLocalFrontier(into effects: inout NodeEffects) {
        // Where the region is spread nobody waits for a child before it is adopted, and its parent, that has
        // just applied the split, does not hold the frontier any more: what the child is to bring would be
        // missing (S12).
        if isPartial, !region.newborns.isEmpty {
            takeChanges(into: &effects)
            adoptNewborns(into: &effects)
        }
        // What the partitions have applied counts as applied from now on: it must be in the merge first.
        for applied in region.applied { merge.add(applied) }
        region.applied.removeAll(keepingCapacity: true)
        let before = localFrontier
        while let first = pendingTimelines.first, isWhole || isPartial || Mutation.unknownTailsIgnored.isOn {
            for (i, tail) in first.tails.enumerated()
            where isServed[i] && partitions[i].state.applied < tail.slot && !Mutation.frontierBeforeTails.isOn
                && (isPresent[i] || !Mutation.unknownTailsIgnored.isOn)
            {
                if stopServing(i) { continue }
                if localFrontier > before { reached(into: &effects) }
                return
            }
            // Who may no longer see it must not be shown it: users and roles are as of then, at least.
            guard first.authVersion <= directory.auth.version || Mutation.frontierBeforeUsers.isOn else {
                if localFrontier > before { reached(into: &effects) }
                return
            }
            pendingTimelines.removeFirst()
            localFrontier = max(localFrontier, first.frontier)
            shownTails = first.tails
        }
        serveMore()
        if localFrontier > before { reached(into: &effects) }
    }

    /// History goes only where everything at or below it is decided and applied here (S17): a node that
    /// lags still serves its older frontier, and what it applies later must not come in below the floor.
    private mutating func raiseFloor(into effects: inout NodeEffects) {
        let due = Mutation.floorIsCompaction.isOn ? compactRevision : min(floorWanted, localFrontier)
        guard due > floor else { return }
        floor = due
        effects.floor = due
    }

    private mutating func reached(into effects: inout NodeEffects) {
        raiseFloor(into: &effects)
        switch merge.advance(to: localFrontier) {
        case .changes(let changes):
            effects.changes.append(contentsOf: changes)
            effects.changesThrough = localFrontier
        case .lost:
            effects.changes.removeAll()
            effects.changesThrough = nil
            effects.changesLost = localFrontier
        case nil: break
        }
        // Of what is not served the tails may not be applied here.
        for i in partitions.indices where isServed[i] {
            partitions[i].covered(through: localFrontier)
        }
        answerReads(into: &effects)
        if !leaseReadings.isEmpty { answerLeaseReadings() }
        releaseHeld(into: &effects)
        startRebuilds(into: &effects)
        for region in senders.keys.sorted() { stepSender(region, .frontier(localFrontier), into: &effects) }
        if !receivers.isEmpty { tellCursors(into: &effects) }
    }
}
