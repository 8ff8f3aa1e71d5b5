import Consensus
import DequeModule
import Partitioning
package import Primitives

// Where the region is spread a node has replicas of some partitions only (docs/decisions/0016). What it
// *has* (`isPresent`) follows the list of members: it opens what it is to hold and gets a snapshot of it,
// and drops what the group does without it. What it *serves* (`isServed`) follows from what it has applied:
// a replica serves once it shows the local frontier, and no longer once it falls behind a group
// that has let go of it. The rest is read at other nodes, by the same hashes.
extension Node {
    /// The hashes whose rows this node's replicas hold at the local frontier, in order; nil: all.
    package var served: HashRanges? { servedRanges }
    /// Nothing else lies in the store, but what is being removed from it.
    package var servesAllPresent: Bool {
        partitions.indices.allSatisfy { isServed[$0] || !isPresent[$0] }
    }

    /// Some of the region lies, or may lie, elsewhere.
    var isPartial: Bool { directory.members.isSpread || servedRanges != nil }

    package struct Piece: Sendable {
        package let hashes: HashRange
        /// Who leads it, and who has it by the list.
        package let holders: [NodeID]
        /// Who may have it still.
        package let others: [NodeID]
    }

    /// Of what is not served here: by whom it is, the likeliest first.
    package func elsewhere() -> [Piece] {
        guard let served = servedRanges else { return [] }
        var found: [Piece] = []
        for entry in map.entries {
            let missing = served.missing(from: entry.range)
            if missing.isEmpty { continue }
            let i = index(entry.partition)
            var holders: [NodeID] = []
            func add(_ other: NodeID) {
                if other != node, other != .none, !holders.contains(other), !detector.suspects(other) {
                    holders.append(other)
                }
            }
            if i < partitions.count { add(leader(of: i)) }
            for other in directory.members.holders(of: entry.partition) { add(other) }
            let others = knownNodes.filter { !holders.contains($0) && !detector.suspects($0) }
            for hashes in missing { found.append(Piece(hashes: hashes, holders: holders, others: others)) }
        }
        return found
    }

    /// This node's list says that it is to have a replica.
    package func shallHold(_ partition: PartitionID) -> Bool {
        let list = directory.members
        return !list.isSpread || list.holders(of: partition).contains(node)
    }

    package func hasDropped(_ partition: PartitionID) -> Bool { !isPresent[index(partition)] }

    mutating func noticeServed() {
        let isAll = isServed.allSatisfy { $0 }
        let next = isAll ? nil : HashRanges(partitions.indices.filter { isServed[$0] }.map { partitions[$0].range })
        guard next != servedRanges else { return }
        servedRanges = next
        servedVersion += 1
    }

    // MARK: Coming

    /// What this node is to hold and has not: whoever leads it is answered from now on, and sends it.
    mutating func openWanted(into effects: inout NodeEffects) {
        for i in partitions.indices where !isPresent[i] && wantsReplica(i) { open(i + 1, into: &effects) }
    }

    private func wantsReplica(_ i: Int) -> Bool {
        let id = partitions[i].id
        if childrenWanted.contains(id) { return true }
        guard map.range(of: id) != nil, shallHold(id) else { return false }
        // A child of what is here is made from it, unless that was cut in two before it came here.
        if let split = map.splits.first(where: { $0.child == id }) {
            let parent = index(split.parent)
            // A parent without a state is to get a snapshot, and is not given it before its children are here.
            let hasState = partitions[parent].state.applied > .zero || configuration.isFounder
            if isPresent[parent], hasState { return partitions[parent].state.newest >= id }
        }
        // Without a word about who holds what nothing is opened but what was here before.
        return directory.members.isSpread || partitions[i].state.isDropped
    }

    /// Those that came as snapshots, or fell behind, and show the local frontier now.
    mutating func serveMore() {
        guard servedRanges != nil, localFrontier > .zero else { return }
        var isNew = false
        for i in partitions.indices
        where !isServed[i] && hasContents(i) && i < shownTails.count
            && partitions[i].state.applied >= shownTails[i].slot
        {
            // An earlier part of its log may have passed while it was not counted.
            merge.lose(through: partitions[i].state.highestRevision)
            isServed[i] = true
            isNew = true
        }
        if isNew { noticeServed() }
    }

    // MARK: Going

    /// Nobody sends its log any more, by the list, and it is behind: the frontier does not wait for it.
    mutating func stopServing(_ i: Int) -> Bool {
        guard directory.members.isSpread, !shallHold(partitions[i].id), groups[i + 1].term == nil else {
            return false
        }
        isServed[i] = false
        noticeServed()
        membershipAt = now
        return true
    }

    /// What the region's list and the group do without.
    mutating func dropUnwanted(into effects: inout NodeEffects) {
        let list = directory.members
        guard list.isSpread, list.nodes.contains(node) else { return }
        for i in 1..<groups.count where isPresent[i - 1] && groups[i].term == nil {
            // Gone and wanted again: its group takes it back as it is, or lets it begin anew.
            guard groups[i].isGone || !shallHold(groups[i].id.partition) else { continue }
            if let through = groups[i].releasedThrough {
                guard mayLeave(i - 1) else {
                    membershipAt = min(membershipAt, now.advanced(by: .seconds(1)))
                    continue
                }
                drop(i, lostThrough: through, into: &effects)
            } else {
                // Its leader says when nothing depends on this copy of the log any more.
                let leader = absentLeader(of: i - 1)
                if leader != .none {
                    effects.sends.append((leader, .group(groups[i].id.partition, groups[i].askRelease())))
                }
                membershipAt = min(membershipAt, now.advanced(by: .seconds(1)))
            }
        }
        openWanted(into: &effects)
    }

    /// Its promise stays, and through which slot what it had accepted is lost.
    private mutating func drop(_ i: Int, lostThrough: Slot, into effects: inout NodeEffects) {
        let id = groups[i].id, p = i - 1
        let range = partitions[p].range
        droppedLogs[i] = (groups[i].decided, 0)
        close(i)
        let state = PartitionState(group: id, lostThrough: max(lostThrough, Slot(1)))
        partitions[p] = Partition(
            id: id.partition, keyspace: configuration.keyspace,
            range: i <= configuration.partitions
                ? PartitionMap(equalPartitions: configuration.partitions).range(of: id.partition) ?? range
                : HashRange(first: .max, last: .max),
            node: node, map: map, state: state, limits: configuration.limits.partition)
        partitionWake[p] = .never
        partitionDirty[p] = false
        isServed[p] = false
        childrenWanted.remove(id.partition)
        noticeServed()
        noticeOverlaid()
        dropRows(of: id, in: range, into: &effects)
        effects.events.append(.dropped(id))
    }

    private mutating func close(_ i: Int) {
        let id = groups[i].id
        absentLogs[id] = RestoredLog(promised: groups[i].ballot)
        groups[i] = Self.absentGroup(id, configuration, at: now)
        isPresent[i - 1] = false
        // Its writes to the log are no longer waited for, and are not the next replica's.
        persisted[i] = 0
        ticketed[i] = 0
        durable[i] = 0
        for t in tickets.indices { tickets[t].writes.removeAll { $0.group == i } }
        touched[i] = false
        groupWakeIsOld[i] = true
        unproposed[i].removeAll()
    }

    /// A snapshot that is in the store and is not to be, or not whole: all of it goes.
    mutating func takeBack(_ i: Int, _ range: HashRange, into effects: inout NodeEffects) {
        let id = groups[i].id
        invariant(!isPresent[i - 1] || groups[i].decided == .zero, "\(id) is in use")
        partitions[i - 1].isLost()
        dropRows(of: id, in: range, into: &effects)
        guard isPresent[i - 1] else { return }
        close(i)
        openWanted(into: &effects)
    }

    /// What of these hashes no other replica here holds: one that lags behind a split still counts its child's.
    func unheld(_ range: HashRange, besides own: Int, or behind: Set<PartitionID> = []) -> HashRanges {
        let others = partitions.indices.filter {
            $0 != own && hasContents($0) && !behind.contains(partitions[$0].id)
        }
        return HashRanges(HashRanges(others.map { partitions[$0].range }).missing(from: range))
    }

    /// The group's records, and what no other replica here holds of these hashes.
    mutating func dropRows(of group: GroupID, in range: HashRange, into effects: inout NodeEffects) {
        let hashes = unheld(range, besides: index(group.partition))
        droppedNow.append(hashes)
        effects.store.append(
            .drop(group, hashes, lostThrough: partitions[index(group.partition)].state.lostThrough))
    }

    /// Some of what this snapshot has brought goes out of the store again at the end of the turn.
    func isLostAgain(_ group: GroupID, _ range: HashRange, _ effects: NodeEffects) -> Bool {
        effects.store.contains { if case .drop(group, _, _) = $0 { true } else { false } }
            || droppedNow.contains { $0.missing(from: range) != [range] }
    }

    /// The store has flushed that the group is gone; before, a restart must find it as it was.
    mutating func truncateDropped(_ flushed: [(GroupID, Slot)], into effects: inout NodeEffects) {
        guard !droppedLogs.isEmpty else { return }
        for (i, (through, flushes)) in droppedLogs where !flushed.contains(where: { $0.0 == groups[i].id }) {
            // The first may have begun before the replica had come to be: the one after it has not.
            if flushes == 0 {
                droppedLogs[i] = (through, 1)
                continue
            }
            droppedLogs[i] = nil
            // Back already: its own flushes say what its log may lose.
            if !isPresent[i - 1], through > .zero { effects.persist.append(.truncate(groups[i].id, through)) }
        }
    }

    // MARK: Who has followed

    /// To the directory's leader, which may have no replica to look at.
    mutating func tellFollowed(_ i: Int, into effects: inout NodeEffects) {
        let list = directory.members
        guard i > 0, list.isSpread, epoch > .zero, epoch.node != node,
            toldFollowed[i].map({ $0.epoch != epoch || $0.version != list.version }) ?? true
        else { return }
        toldFollowed[i] = (epoch, list.version)
        effects.sends.append((epoch.node, .follows(groups[i].id.partition, list: list.version)))
    }

    mutating func onFollows(_ partition: PartitionID, list: UInt64) {
        let i = Int(partition.rawValue)
        guard i > 0, i <= PartitionMap.partitionsMax else { return }
        followed[i] = max(followed[i] ?? 0, list)
        membershipAt = now
    }

    // MARK: Leaders and logs that do not come here

    /// Its log does not come here, or no longer: the timeline knows more of it.
    func isHeardOnly(_ i: Int) -> Bool {
        !isPresent[i] || !isServed[i] && heardTails[i].term > groups[i + 1].promised
    }

    func absentLeader(of i: Int) -> NodeID {
        let term = heardTails[i].term
        return term == .zero || term.node == node ? .none : term.node
    }

    /// For which leadership of the group a request is sent now.
    func gate(_ i: Int) -> Ballot { isHeardOnly(i) ? heardTails[i].term : groups[i + 1].promised }

    /// No later than where its log stands now: what is sent from now on is not in it before.
    func logPosition(_ i: Int) -> Slot { isHeardOnly(i) ? heardTails[i].slot : groups[i + 1].position.slot }

    mutating func noticeTails(_ tails: [Timeline.Tail]) {
        for (i, tail) in tails.enumerated() where i < heardTails.count && tail.term > .zero {
            let isNew = tail.term != heardTails[i].term
            heardTails[i] = tail
            guard isNew, servedRanges != nil, isHeardOnly(i) else { continue }
            giveUp(i + 1, unlessAt: tail.term.node)
            parkedUntil = now
        }
    }

    // MARK: Reads of others

    /// The keys attached to the lease in what is served here.
    package func servedKeys(of lease: LeaseID) -> [Bytes] {
        partitions.indices.flatMap { isServed[$0] ? Array(partitions[$0].state.leaseKeys[lease] ?? []) : [] }
    }
    package var servedLeaseTimes: [LeaseID: Int64] {
        var found: [LeaseID: Int64] = [:]
        for i in partitions.indices where isServed[i] {
            for (id, lease) in partitions[i].state.leases { found[id] = lease.ttlSeconds }
        }
        return found
    }
    package var servedLeases: [LeaseID] {
        partitions.indices.flatMap { isServed[$0] ? Array(partitions[$0].state.leases.keys) : [] }
    }

    /// The answer to `NodeEffects.leaseReads`: the keys that lie elsewhere. Nil: nobody has answered.
    mutating func onLeaseKeys(_ number: UInt64, _ keys: [Bytes]?) {
        guard let reading = leaseReadsAsked.removeValue(forKey: number) else { return }
        guard let keys else {
            region.answers.append((reading.id, .failed(.timedOut)))
            return
        }
        answer(reading, keys: keys + servedKeys(of: reading.lease))
    }
}
