import Consensus
import DequeModule
import Partitioning
package import Primitives

// Partitions that are cut in two (protocol-rules.md U2). The directory's log says that it shall happen
// and, later, that it has; in between whoever leads the parent works at it, and the parent's log says
// from which slot on the child is there. Every node is a replica of everything: it makes the child when it
// applies that slot, from what it holds, and knows where to send requests from then on.
extension Node {
    struct SplitRequest: Sendable {
        let id: RequestID
        let partition: PartitionID
        let cut: UInt64?
        let deadline: Instant
    }

    // MARK: What this node knows

    /// The map grows in the order of the partitions' numbers, whatever is heard of first.
    mutating func learn(_ split: PartitionSplit) {
        guard split.child > map.newest else { return }
        knownSplits[split.child] = split
        let before = map.count
        while let next = knownSplits.removeValue(forKey: PartitionID(map.newest.rawValue + 1)) {
            let isNext = map.apply(next)
            invariant(isNext, "\(next) does not follow \(map.splits)")
        }
        guard map.count > before else { return }
        grow(to: map.count)
        for i in partitions.indices { partitions[i].map = map }
        coordinator.map = map
        // Whoever waits for a partition that it did not find may find it now.
        parkedUntil = now
        // It may have to be here, and nothing here makes it: see openWanted.
        if isPartial { membershipAt = now }
    }

    /// Room for partitions that are known to exist, and of which nothing is here yet.
    mutating func grow(to count: Int) {
        while partitions.count < min(count, PartitionMap.partitionsMax) {
            let id = PartitionID(UInt32(partitions.count + 1))
            let group = GroupID(keyspace: configuration.keyspace, partition: id)
            groups.append(Self.absentGroup(group, configuration, at: now))
            partitions.append(
                Partition(
                    id: id, keyspace: configuration.keyspace, range: HashRange(first: .max, last: .max),
                    node: node, map: map, state: PartitionState(group: group),
                    limits: configuration.limits.partition))
            isPresent.append(false)
            isServed.append(!isPartial)
            heardTails.append(Timeline.Tail(term: .zero, slot: .zero))
            touched.append(false)
            groupWake.append(.never)
            groupWakeIsOld.append(true)
            persisted.append(0)
            ticketed.append(0)
            durable.append(0)
            unproposed.append([])
            partitionWake.append(.never)
            partitionDirty.append(false)
        }
        if isPartial { noticeServed() }
    }

    /// It votes for nobody and elects nobody: it answers, and a leader sends it a snapshot.
    static func absentGroup(
        _ id: GroupID, _ configuration: NodeConfiguration, restored: RestoredLog = RestoredLog(),
        lostThrough: Slot = .zero, at now: Instant
    ) -> Group {
        var log = restored
        // What is left of a log that is gone is of no use; the promises are.
        if lostThrough > .zero {
            log = RestoredLog(promised: log.accepted.reduce(log.promised) { max($0, $1.ballot) })
        }
        // Of what lies before the split there is nothing in it. That was cut off (`Group.onTruncate`) when
        // the child was here, whose state a crash has taken back to before the split.
        log.truncatedThrough = .zero
        return Group(
            id: id, node: configuration.node, configuration: .unknown, restored: log,
            applied: AppliedPosition(), lostThrough: lostThrough, lease: nil,
            limits: configuration.limits.consensus, at: now)
    }

    /// The parent's log has cut it off.
    mutating func adopt(_ newborn: RegionEffects.Newborn, into effects: inout NodeEffects) {
        let split = newborn.split
        let i = Int(split.child.rawValue), parent = Int(split.parent.rawValue)
        grow(to: i)
        guard i < groups.count else { return }
        effects.events.append(.divided(split, newborn.state.applied))
        // It may have come before, as a snapshot: then it is ahead of what its parent has to give.
        if isPartial { noticeServed() }
        guard !isPresent[i - 1] && installing[split.child] == nil || isEmpty(i - 1) else {
            noticeOverlaid()
            return learn(split)
        }
        // It was here, and was let go of: what it accepted then is forgotten, so it is nobody's voter. What its
        // parent had of it, from before the split, goes.
        if partitions[i - 1].state.isDropped {
            if let range = newborn.state.place?.range {
                dropRows(of: newborn.state.group, in: range, into: &effects)
            }
            learn(split)
            return openWanted(into: &effects)
        }
        newborn.state.recordAll(into: &effects.store)
        let isCandidate = groups[parent].term != nil
        let founding =
            configuration.isFounder ? Configuration(voters: configuration.nodes) : .unknown
        let id = newborn.state.group
        let voters = newborn.state.configuration.flatMap { try? Configuration(decoding: $0) } ?? founding
        let position = AppliedPosition(slot: newborn.state.applied, term: .zero, number: 0)
        let wasOpen = isPresent[i - 1]
        if !wasOpen {
            groups[i] = Group(
                id: id, node: node, configuration: voters,
                // What it has promised and accepted before a restart that took it back to before the split.
                restored: absentLogs.removeValue(forKey: id) ?? RestoredLog(), applied: position,
                isFlushed: false, lease: nil, limits: configuration.limits.consensus,
                electAfter: isCandidate ? .zero : configuration.limits.consensus.electionPeriod, at: now)
        }
        partitions[i - 1] = Partition(
            newborn, node: node, map: map, limits: configuration.limits.partition)
        isPresent[i - 1] = true
        childrenWanted.remove(split.child)
        noticeOverlaid()
        if wasOpen { stepGroup(i, .founded(position, voters), into: &effects) }
        isServed[i - 1] = isServed[parent - 1]
        if isPartial { noticeServed() }
        groupWakeIsOld[i] = true
        partitionDirty[i - 1] = true
        if !isWhole { noticeGaps() }
        learn(split)
        noticeOverlaid()
        if alone != nil {
            // With the voters of before: they are lost, too.
            groups[i].standAlone(at: now)
            alone?.groups.insert(i)
        }
        greet(i, into: &effects)
        guard isCandidate else { return }
        // The others hear that the split is decided before they are asked for their votes.
        stepGroup(parent, .confirm, into: &effects)
        stepGroup(i, .campaign, into: &effects)
    }

    private mutating func greet(_ i: Int, into effects: inout NodeEffects) {
        for peer in knownNodes where detector.suspects(peer) {
            stepGroup(i, .suspect(peer), into: &effects)
        }
        if epoch > .zero { partitions[i - 1].heard(epoch: epoch, at: now, into: &region) }
    }

    /// The parent's replica here is past the split and has not made the child: it came as a snapshot.
    /// Now the child's leader must be answered, who will send another.
    mutating func openOrphans(into effects: inout NodeEffects) {
        for split in map.splits {
            let i = Int(split.child.rawValue), parent = Int(split.parent.rawValue)
            if !isPresent[i - 1], isPresent[parent - 1], shallHold(split.child),
                partitions[parent - 1].state.newest >= split.child
            {
                open(i, into: &effects)
            }
        }
    }

    mutating func noticeGaps() {
        let ranges = partitions.indices.filter { isHere($0) }.map { partitions[$0].range }
            .sorted { $0.first < $1.first }
        var next: UInt64? = 0
        for range in ranges {
            guard let from = next, range.first <= from else { break }
            if range.last >= from { next = range.last == .max ? nil : range.last + 1 }
        }
        isWhole = next == nil
    }

    /// Not only known to exist, or open and empty.
    private func isHere(_ i: Int) -> Bool {
        isPresent[i] && !partitions[i].state.isDropped
            && (i < configuration.partitions || partitions[i].state.place?.origin != nil)
    }

    mutating func open(_ i: Int, into effects: inout NodeEffects) {
        let id = groups[i].id
        groups[i] = Self.absentGroup(
            id, configuration, restored: absentLogs.removeValue(forKey: id) ?? RestoredLog(),
            lostThrough: partitions[i - 1].state.lostThrough, at: now)
        groups[i].isReluctant = !isWantedLeader
        isPresent[i - 1] = true
        groupWakeIsOld[i] = true
        greet(i, into: &effects)
    }

    /// Every member's build knows what a split writes and sends (docs/decisions/0011). Until one has
    /// been asked for, nothing of it is written or sent.
    package var mayTellOfSplits: Bool { directory.members.level >= FeatureLevel.splits }

    // MARK: At the directory's leader

    mutating func serveSplits() {
        guard let sequencer, groups[0].isLeading else { return }
        if let split = directory.splits.pending {
            if sequencer.serves(split.child), splitProposed != .published(split) {
                splitProposed = .published(split)
                region.proposals.append(
                    (.directory, EntryBody.splitPublished(split).encoded()))
            }
        }
        while let request = splitRequests.popFirst() {
            guard request.deadline > now else {
                region.answers.append((request.id, .failed(.timedOut)))
                continue
            }
            guard mayTellOfSplits else {
                region.answers.append((request.id, .failed(.regionTooOld)))
                continue
            }
            guard !isSplitUnderWay, holdsAllPartitions else {
                region.answers.append((request.id, .failed(.splitUnderWay)))
                continue
            }
            guard areMembersSettled else {
                region.answers.append((request.id, .failed(.membersChanging)))
                continue
            }
            let range = map.range(of: request.partition)
            let split = PartitionSplit(
                parent: request.partition, child: PartitionID(map.newest.rawValue + 1),
                cut: request.cut ?? range?.middle ?? 0)
            if let refusal = map.refusal(of: split) {
                region.answers.append((request.id, .failed(refusal)))
                continue
            }
            splitProposed = .intended(split)
            splitWaits.append((request.id, split))
            region.proposals.append((.directory, EntryBody.splitIntended(split).encoded()))
        }
    }

    var isSplitUnderWay: Bool { directory.splits.pending != nil || splitProposed.isIntent }

    enum SplitProposed: Equatable, Sendable {
        case nothing
        case intended(PartitionSplit)
        case published(PartitionSplit)
        var isIntent: Bool { if case .intended = self { true } else { false } }
    }

    mutating func splitIntended(_ split: PartitionSplit, into effects: inout NodeEffects) {
        effects.events.append(.splitIntended(split))
        if splitProposed == .intended(split) { splitProposed = .nothing }
        sequencer?.expect(split)
    }

    mutating func splitPublished(_ split: PartitionSplit, into effects: inout NodeEffects) {
        effects.events.append(.splitPublished(split))
        splitProposed = .nothing
        learn(split)
        openOrphans(into: &effects)
        partitions[Int(split.parent.rawValue) - 1].endSplit(into: &region)
        for (id, waited) in splitWaits where waited == split {
            region.answers.append((id, .split(split)))
        }
        splitWaits.removeAll { $0.split == split }
    }

    /// This node leads the directory no more. What was intended comes about all the same.
    mutating func closeSplits() {
        for request in splitRequests { region.redirects.append(request.id) }
        splitRequests.removeAll()
        for (id, _) in splitWaits { region.abandoned.append(id) }
        splitWaits.removeAll()
        splitProposed = .nothing
    }

    // MARK: At the parent's leader

    mutating func driveSplit() {
        guard let split = directory.splits.pending else { return }
        let parent = Int(split.parent.rawValue) - 1, child = Int(split.child.rawValue) - 1
        guard partitions[parent].isLeading else { return }
        partitions[parent].beginSplit(split, at: now, into: &region)
        if child < partitions.count, leader(of: child) != .none {
            partitions[parent].releaseHeld(into: &region)
        }
        partitionDirty[parent] = true
    }

    // MARK: For whoever wants to know

    /// Of a partition that is here, as far as its log is applied.
    package func range(of partition: PartitionID) -> HashRange? {
        let i = Int(partition.rawValue) - 1
        return i >= 0 && i < partitions.count && isPresent[i] ? partitions[i].range : nil
    }
    /// What this node leads in that term.
    package func range(of partition: PartitionID, ledIn term: Term) -> HashRange? {
        let i = Int(partition.rawValue) - 1
        guard i >= 0, i < partitions.count, partitions[i].isLeading, partitions[i].lead.term == term
        else { return nil }
        return partitions[i].range
    }
    /// At the sequencer's node: the leaders that count, by partition.
    package var servingTerms: [Term] {
        sequencer.map { sequencer in
            sequencer.registered.enumerated().map {
                sequencer.serves(PartitionID(UInt32($0.offset + 1))) ? $0.element : .zero
            }
        } ?? []
    }
    /// That it is to hold.
    package var holdsAllPartitions: Bool {
        partitions.count == map.count
            && partitions.indices.allSatisfy { isHere($0) || !shallHold(partitions[$0].id) }
    }

    /// That this node is to hold and does not yet.
    package var lackedPartitions: [PartitionID] {
        partitions.indices.filter { !isHere($0) && shallHold(partitions[$0].id) }.map { partitions[$0].id }
    }

    /// The split that is under way.
    package var pendingSplit: PartitionSplit? { directory.splits.pending }
    /// Of each partition, entries that wrote something, since the process began.
    package var partitionWrites: [UInt64] { partitions.map(\.writesApplied) }
}
