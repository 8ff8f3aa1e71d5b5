import Consensus
import Partitioning
package import Primitives

// What a replica owes to the children of its partition (docs/decisions/0021). A child begins with what its
// parent's log had come to, and each of its first voters makes it from that log. So nobody gives up a log
// of before the split from which a child may still have to be made: a snapshot of the parent from behind it is
// taken, and a replica of the parent goes, only where the child is here with its rows, or its
// group has let go of this node. Until then the child is open and empty: it answers, and its leader sends it.
//
// So a child may be here while its parent's replica still lies before the split. That one goes on by its log,
// or by the snapshot that was refused, and leaves the child's rows alone (`overlaid`).
extension Node {
    /// Whether a snapshot of the group may replace what is stored of these hashes: it is to be here, takes
    /// nothing from a child that came before, is not of before an earlier replica's end, and no child
    /// is lost with the log that it replaces. What stands in its way is opened.
    package mutating func mayInstall(_ group: GroupID, _ hashes: HashRange, applied: Slot) -> Bool {
        guard group.partition != .directory else { return true }
        noticeHappened(group.partition, hashes)
        let own = index(group.partition)
        // Another node knows of a split of which the directory will tell this one.
        guard own < partitions.count, shallHold(group.partition) || isPresent[own],
            applied >= partitions[own].state.lostThrough
        else { return false }
        let behind = ancestors(of: group.partition)
        guard unheld(hashes, besides: own, or: behind).ranges == [hashes] else { return false }
        if Mutation.childrenLostWithParents.isOn { return true }
        guard let unmade = unmadeChildren(of: own, leaving: hashes) else { return false }
        if unmade.isEmpty { return true }
        want(unmade)
        return false
    }

    /// Called when it may, right before the store takes it; `.snapshotInstalled` follows. What this node's log
    /// says of the group in between comes too late.
    package mutating func willInstall(_ group: GroupID, _ hashes: HashRange) {
        guard group.partition != .directory else { return }
        installing[group.partition] = hashes
        noticeOverlaid()
    }

    /// Nothing that may have to be made from this replica's log would go with it.
    mutating func mayLeave(_ p: Int) -> Bool {
        if Mutation.childrenLostWithParents.isOn { return true }
        let id = partitions[p].id, newest = partitions[p].state.newest
        let unmade = knownSplits(of: id).filter { $0.child > newest && !isMade($0.child) }.map(\.child)
        want(unmade)
        // A list that still wants the replica may be older than the splits of a group that does without it.
        return unmade.isEmpty
            && (!shallHold(id) || directory.members.version > groups[p + 1].configuration.version)
    }

    private mutating func want(_ children: [PartitionID]) {
        guard !childrenWanted.isSuperset(of: children) else { return }
        childrenWanted.formUnion(children)
        membershipAt = now
    }

    /// The split that the directory's log has announced has come about: somebody has what it leaves of its
    /// parent, or its child.
    private mutating func noticeHappened(_ partition: PartitionID, _ hashes: HashRange) {
        guard let split = directory.splits.pending, split.child > map.newest,
            partition == split.child || partition == split.parent && hashes.last == split.cut - 1
        else { return }
        learn(split)
    }

    private func knownSplits(of parent: PartitionID) -> [PartitionSplit] {
        let pending = directory.splits.pending.flatMap { $0.child > map.newest ? $0 : nil }
        return (map.splits + (pending.map { [$0] } ?? [])).filter { $0.parent == parent }
    }

    /// Cut off between what partition `p` has applied here and where a replica of it has only `hashes` left.
    /// Nil: this node does not know all of these splits yet.
    private func unmadeChildren(of p: Int, leaving hashes: HashRange) -> [PartitionID]? {
        let id = partitions[p].id, state = partitions[p].state
        let isEmpty = state.applied == .zero
        guard let held = isEmpty ? map.rangeAtBirth(of: id) : state.place?.range ?? partitions[p].range
        else { return nil }
        var last = held.last
        var unmade: [PartitionID] = []
        for split in knownSplits(of: id) where split.child > state.newest && split.cut > hashes.last {
            last = min(last, split.cut - 1)
            // Who has neither a state nor a log of the parent has nothing to make a child from.
            let isNothing = isEmpty && groups[p + 1].configuration.voters.isEmpty
            if !isMade(split.child), !isNothing || shallHold(split.child) { unmade.append(split.child) }
        }
        return last == hashes.last ? unmade : nil
    }

    /// It is here, whoever made it, or was and is not wanted any more.
    private func isMade(_ child: PartitionID) -> Bool {
        let c = index(child)
        guard c < partitions.count else { return false }
        if installing[child] != nil { return true }
        return partitions[c].state.isDropped || hasContents(c)
    }

    /// It is here, and something of it has come.
    func hasContents(_ p: Int) -> Bool { isPresent[p] && partitions[p].state.applied > .zero }

    /// Open, and nothing of it has come yet.
    func isEmpty(_ p: Int) -> Bool {
        isPresent[p] && installing[partitions[p].id] == nil && partitions[p].state.applied == .zero
            && !partitions[p].state.isDropped
    }

    private func ancestors(of partition: PartitionID) -> Set<PartitionID> {
        var found: Set<PartitionID> = []
        var next = partition
        while let parent = map.parent(of: next), found.insert(parent).inserted { next = parent }
        return found
    }

    // MARK: Rows of children that came before

    /// After every change of who is here: whose hashes another replica counts as its own.
    mutating func noticeOverlaid() {
        if overlaid.isEmpty, map.splits.isEmpty { return }
        overlaid.removeAll(keepingCapacity: true)
        let filled = partitions.indices.filter { hasContents($0) }
        var held: [(id: PartitionID, range: HashRange)] = installing.map { ($0.key, $0.value) }
        for p in filled { held.append((partitions[p].id, partitions[p].range)) }
        held.sort { $0.range.first < $1.range.first }
        for p in filled {
            let id = partitions[p].id, range = partitions[p].range
            var begin = 0, end = held.count
            while begin < end {
                let middle = (begin + end) / 2
                if held[middle].range.first > range.first { end = middle } else { begin = middle + 1 }
            }
            let inside = held[begin...].prefix { $0.range.first <= range.last }.filter { $0.id > id }
            if inside.isEmpty { continue }
            overlaid[p] = HashRanges(inside.map(\.range))
            wasOverlaid.insert(id)
        }
    }

    /// This replica writes its rows only where no child that came before it has them.
    func leaveAlone(_ taken: HashRanges, in changes: inout [StoreChange], from start: Int = 0) {
        let rest = changes[start...].filter { change in
            switch change {
            case .putRow(_, let row): !taken.contains(KeyHash.hash(row.key))
            case .removeRow(_, let key, _, _): !taken.contains(KeyHash.hash(key))
            default: true
            }
        }
        changes.replaceSubrange(start..., with: rest)
    }

    /// Some of its rows are of a later slot than its own.
    package func isOverlaid(_ partition: PartitionID) -> Bool { overlaid[index(partition)] != nil }
    /// Or were, since it came here or this process began: not every change of its log was written here.
    package func wasOverlaid(_ partition: PartitionID) -> Bool { wasOverlaid.contains(partition) }
}
