import Consensus
import DequeModule
import Partitioning
import Primitives

// Between the groups of consensus and the partitions whose logs they keep.
extension Node {
    mutating func stepGroup(
        _ i: Int, _ input: Consensus.Input, into effects: inout NodeEffects
    ) {
        guard i >= 0, i < groups.count, i == 0 || isPresent[i - 1] else { return }
        groups[i].step(input, at: now, into: &groupEffects)
        touched[i] = true
        perform(i, into: &effects)
    }

    mutating func onMessage(
        _ message: PeerMessage, from peer: NodeID, into effects: inout NodeEffects
    ) {
        guard peer != node else {
            effects.events.append(.ignored("message of a stranger", from: peer))
            return
        }
        switch message {
        case .heartbeat: break
        case .hears(let e): if e >= epoch { hearers[peer] = now }
        case .follows(let partition, let list): onFollows(partition, list: list)
        case .group(let partition, let message):
            stepGroup(Int(partition.rawValue), .message(from: peer, message), into: &effects)
        case .region(let message): onRegion(message, from: peer, into: &effects)
        }
    }

    /// Carries out what group `i` asked for.
    mutating func perform(_ i: Int, into effects: inout NodeEffects) {
        while !groupEffects.isEmpty {
            let all = groupEffects.exchange(for: &spares.groupEffects)
            for effect in all { perform(effect, i, into: &effects) }
            spares.groupEffects.recycle(consume all)
        }
    }

    private mutating func perform(
        _ effect: Consensus.Effect, _ i: Int, into effects: inout NodeEffects
    ) {
        let id = groups[i].id
        switch effect {
        case .send(let to, let message):
            effects.sends.append((to, .group(id.partition, message)))
        case .persist(let record):
            persisted[i] += 1
            effects.persist.append(record)
        case .elected(let term):
            // The directory's leader is the new epoch. A partition names the one that this node is about
            // to open, so that its begin is that epoch's seal (L7), or else the one it has heard of.
            let body = EntryBody.begin(epoch: i == 0 ? term : max(epoch, groups[0].term ?? .zero))
            groups[i].step(.begin(payload: body.encoded()), at: now, into: &groupEffects)
        case .leading(let term):
            membershipAt = now
            effects.events.append(.becameLeader(id, term))
            unproposed[i].removeAll()
            if i == 0 {
                openSequencer(term, into: &effects)
            } else {
                partitionDirty[i - 1] = true
                partitions[i - 1].becameLeader(term, at: now, into: &region)
            }
            parkedUntil = now
            admitArrivals(i)
        case .deposed(let term):
            effects.events.append(.lostLeadership(id, term))
            unproposed[i].removeAll()
            if i == 0 {
                closeSequencer(into: &effects)
            } else {
                partitions[i - 1].stoppedLeading(into: &region)
            }
            refuseArrivals(i)
        case .followed(let leader):
            parkedUntil = now
            if let leader { giveUp(i, unlessAt: leader) }
        case .decided(let slot, let entry, let skipped):
            if i == 0 {
                decidedInDirectory(slot, entry, skipped: skipped, into: &effects)
            } else {
                partitionDirty[i - 1] = true
                let before = region.applied.count, changed = region.changes.count
                partitions[i - 1].decided(slot, entry, skipped: skipped, at: now, into: &region)
                if !overlaid.isEmpty, let taken = overlaid[i - 1] {
                    leaveAlone(taken, in: &region.changes, from: changed)
                }
                // Whoever shows these rows has them from where they are served.
                if !isServed[i - 1] { region.applied.removeSubrange(before...) }
            }
        case .snapshotWanted(let peer): effects.snapshotsWanted.append((id, peer))
        case .configured(let configuration):
            onConfigured(i, configuration, into: &effects)
        case .gone:
            effects.events.append(.gone(id))
            if i == 0 { membershipEnded() }
            membershipAt = now
        case .note(let event):
            if i > 0, case .handOverFailed = event { partitions[i - 1].keepLeadership() }
            effects.events.append(.consensus(id, event))
        }
    }

    /// Payloads go into the pipeline in order; a full one takes the rest when there is room.
    mutating func propose(_ i: Int, _ payload: Bytes, into effects: inout NodeEffects) {
        touched[i] = true
        if unproposed[i].isEmpty, groups[i].propose(payload, at: now, into: &groupEffects) != nil {
            return
        }
        if groups[i].isLeading { unproposed[i].append(payload) }
    }

    mutating func proposeWaiting(into effects: inout NodeEffects) {
        for i in unproposed.indices where !unproposed[i].isEmpty {
            while let first = unproposed[i].first,
                groups[i].propose(first, at: now, into: &groupEffects) != nil
            {
                unproposed[i].removeFirst()
                touched[i] = true
            }
            perform(i, into: &effects)
        }
    }

    // MARK: Handing over

    /// All that this node leads, to `wanted` as far as he votes there.
    mutating func onHandOver(to wanted: NodeID?) {
        guard handOver == nil, leadsAnything else { return }
        func votes(_ i: Int, _ other: NodeID) -> Bool {
            groups[i].configuration.voters.contains(other)
        }
        if let wanted {
            guard wanted != node, groups.indices.contains(where: { votes($0, wanted) }),
                !detector.suspects(wanted)
            else { return }
        }
        var successors: [Int: NodeID] = [:]
        for i in groups.indices where groups[i].term != nil {
            if let wanted, votes(i, wanted) {
                successors[i] = wanted
            } else {
                successors[i] = successor(of: i, besides: false)
            }
        }
        beginHandOver(successors)
    }

    /// One partition, to who is fit for it at once.
    mutating func onHandOver(_ partition: PartitionID, to wanted: NodeID) {
        guard let i = groups.firstIndex(where: { $0.id.partition == partition }), i > 0,
            groups[i].term != nil, wanted != node, groups[i].configuration.voters.contains(wanted),
            !detector.suspects(wanted), groups[i].isInSync(wanted)
        else { return }
        beginHandOver([i: wanted])
    }

    mutating func beginHandOver(_ successors: [Int: NodeID]) {
        guard handOver == nil, !successors.isEmpty else { return }
        handOver = HandOver(
            successors: successors, drainUntil: now.advanced(by: .milliseconds(50)))
        for i in partitions.indices where successors[i + 1] != nil {
            partitions[i].yieldLeadership(into: &region)
        }
    }

    /// All at once, so that a successor's elections share their messages and their syncs: one group that
    /// goes later has its own, behind the others' in the successor's log, and no sequencer opens before
    /// it has come. Until then reads go on.
    mutating func finishHandOver(into effects: inout NodeEffects) {
        guard let handOver else { return }
        let isDrained = partitions.indices.allSatisfy {
            handOver.successors[$0 + 1] == nil || partitions[$0].isDrained
        }
        guard now >= handOver.drainUntil
            || isDrained
                && handOver.successors.allSatisfy({ groups[$0.key].isReady(for: $0.value, at: now) })
        else { return }
        self.handOver = nil
        for i in groups.indices where groups[i].isLeading {
            guard let successor = handOver.successors[i] else { continue }
            stepGroup(i, .transfer(to: successor), into: &effects)
        }
        // Where that is not possible the leader goes on.
        for i in partitions.indices where groups[i + 1].term != nil && !groups[i + 1].isHandingOver {
            partitions[i].keepLeadership()
        }
        drain(into: &effects)
    }

    /// A leader that does not hear the sequencer, though others do, stops its whole keyspace (L3).
    mutating func handOverIfStranded() {
        let silence = configuration.limits.detector.silence
        guard epoch > .zero, epoch.node != node, handOver == nil, now >= strandedAt,
            now.since(heardAt) >= silence, detector.suspects(epoch.node),
            partitions.contains(where: \.isLeading)
        else { return }
        let hearer = knownNodes.first { other in
            other != node && !detector.suspects(other)
                && hearers[other].map { now.since($0) < silence } ?? false
        }
        guard let hearer else { return }
        // The next one may lose sight of it, too: not to and fro without a pause.
        strandedAt = now.advanced(by: .milliseconds(500))
        onHandOver(to: hearer)
    }

    package var leadsAnything: Bool { groups.contains { $0.term != nil } }

    // MARK: Directory

    private mutating func openSequencer(_ term: Term, into effects: inout NodeEffects) {
        var limits = configuration.limits.sequencer
        limits.timelinePeriod = configuration.limits.timelinePeriod
        sequencer = Sequencer(
            epoch: term, region: configuration.region, nodes: [node] + knownNodes,
            partitions: configuration.partitions + directory.splits.done.count,
            compactRevision: directory.compactRevision,
            answersFrom: max(now, groups[0].mayAnswerFrom), authVersion: directory.auth.version,
            authFence: directory.auth.fence, limits: limits)
        if let split = directory.splits.pending { sequencer?.expect(split) }
        heard(epoch: term)
        openLinks()
    }

    private mutating func closeSequencer(into effects: inout NodeEffects) {
        guard let sequencer else { return }
        effects.events.append(.sequencerClosed(sequencer.epoch))
        self.sequencer = nil
        senders.removeAll()
        closeMembership()
        closeSplits()
        for compaction in compactions { region.abandoned.append(compaction.token) }
        compactions.removeAll()
        abandonAuthChanges()
    }

    private mutating func decidedInDirectory(
        _ slot: Slot, _ entry: LogEntry, skipped: Bool, into effects: inout NodeEffects
    ) {
        let applied = directory.apply(slot, entry, skipped: skipped, into: &effects.store)
        if case .auth(let nonce, let error) = applied {
            authDecided(nonce, error, into: &effects)
            return
        }
        if case .members = applied { membersChanged(into: &effects) }
        if case .rehearsed = applied {
            invariant(
                configuration.featureLevel > FeatureLevel.own,
                "an entry of a later feature level reached a build of level "
                    + "\(configuration.featureLevel)")
        }
        if case .splitIntended(let split) = applied { splitIntended(split, into: &effects) }
        if case .splitPublished(let split) = applied { splitPublished(split, into: &effects) }
        guard case .compacted(let revision) = applied else { return }
        compactRevision = max(compactRevision, revision)
        sequencer?.compacted(revision)
        let frontier = sequencer?.frontier ?? heardFrontier
        for compaction in compactions where compaction.revision == revision {
            region.answers.append((compaction.token, .compacted(revision: frontier)))
        }
        compactions.removeAll { $0.revision == revision }
    }

    /// Compaction, at the sequencer's node. etcd's checks: not again, not ahead.
    mutating func compact(_ id: RequestID, _ revision: Revision, isRetry: Bool) {
        guard let sequencer, sequencer.isOpen else {
            region.redirects.append(id)
            return
        }
        if revision > sequencer.frontier {
            region.answers.append((id, .failed(.futureRevision)))
        } else if isRetry, revision == compactRevision {
            region.answers.append((id, .compacted(revision: sequencer.frontier)))
        } else if revision <= compactRevision {
            region.answers.append((id, .failed(.compacted)))
        } else {
            compactions.append((id, revision))
            if compactions.contains(where: { $0.revision == revision && $0.token != id }) { return }
            region.proposals.append((.directory, EntryBody.compact(revision).encoded()))
        }
    }

    mutating func onSnapshot(
        _ group: GroupID, _ records: [(key: Bytes, value: Bytes)], into effects: inout NodeEffects
    ) {
        let i = Int(group.partition.rawValue)
        grow(to: i)
        if installing.removeValue(forKey: group.partition) != nil { noticeOverlaid() }
        guard i < groups.count,
            let state = try? PartitionState(group: group, records: records),
            let configuration = try? Self.decode(state.configuration)
                ?? (groups[i].configuration.voters.isEmpty && self.configuration.isFounder
                    ? Configuration(voters: self.configuration.nodes) : groups[i].configuration)
        else {
            effects.events.append(.ignored("unreadable snapshot of \(group)", from: node))
            return
        }
        // The log may have overtaken it in this very turn.
        guard state.applied > (i == 0 ? directory : partitions[i - 1].state).applied else {
            return replaceRecords(of: group, records, into: &effects)
        }
        if i == 0 {
            let list = directory.members.version
            directory = state
            if state.members.version > list { membersChanged(into: &effects) }
            noticeAuth(into: &effects)
            compactRevision = max(compactRevision, state.compactRevision)
            for split in state.splits.done { learn(split) }
            openWanted(into: &effects)
        } else {
            // Of what this node is not to have it takes nothing.
            let range = state.place?.range ?? partitions[i - 1].range
            let isWanted = isPresent[i - 1] || shallHold(group.partition)
            if !isWanted || !droppedNow.isEmpty && isLostAgain(group, range, effects) {
                return takeBack(i, range, into: &effects)
            }
            if !isPresent[i - 1] { open(i, into: &effects) }
            partitions[i - 1].install(state, into: &region)
            wasOverlaid.remove(group.partition)
            childrenWanted.remove(group.partition)
            noticeOverlaid()
            if overlaid.values.contains(where: { $0.missing(from: range) != [range] }) {
                // What its parent wrote in this turn would come to lie over what the snapshot has brought.
                leaveAlone(HashRanges([range]), in: &region.changes)
                leaveAlone(HashRanges([range]), in: &effects.store)
            }
            if let origin = state.place?.origin { learn(origin.split) }
            merge.lose(through: state.highestRevision)
            if isPartial { noticeServed() }
        }
        stepGroup(
            i,
            .installed(
                AppliedPosition(
                    slot: state.applied, term: state.appliedTerm, number: state.appliedNumber),
                configuration),
            into: &effects)
        openOrphans(into: &effects)
        noticeGaps()
        effects.events.append(.snapshotInstalled(group, state.applied))
    }
}
