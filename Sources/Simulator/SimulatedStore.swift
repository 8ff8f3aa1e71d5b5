import Partitioning
import Primitives

/// A node's state store in memory, with the reads of the real one. It has no log: a crash takes it back
/// to what was flushed last.
struct SimulatedStore {
    /// Key order; each key's versions in order of revision.
    private(set) var keys: [Bytes] = []
    private var versions: [Bytes: [Row]] = [:]
    private var index: [Revision: [Row]] = [:]
    private var revisions: [Revision] = []
    private var records: [GroupID: [Bytes: Bytes]] = [:]
    private(set) var applied: [GroupID: Slot] = [:]
    /// Groups whose records are older than their applied slots: a flush may come before they are written.
    private(set) var unrecorded: Set<GroupID> = []
    private var recorded: [GroupID: Slot] = [:]
    private(set) var floor = Revision.zero
    /// Snapshots of groups that have been put into it.
    private(set) var installs = 0

    // MARK: Writing

    mutating func apply(_ change: StoreChange) {
        switch change {
        case .putRow(_, let row): put(row)
        case .removeRow(_, let key, let revision, let sub): remove(key, revision, sub)
        case .putRecord(let group, let key, let value): records[group, default: [:]][key] = value
        case .removeRecord(let group, let key): records[group]?[key] = nil
        case .applied(let group, let slot):
            invariant(slot >= applied[group] ?? .zero, "\(group): applied \(slot) after \(applied)")
            applied[group] = slot
            recorded[group] = slot
            unrecorded.remove(group)
        case .position(let group, let slot):
            invariant(slot >= applied[group] ?? .zero, "\(group): applied \(slot) after \(applied)")
            applied[group] = slot
            unrecorded.insert(group)
        case .drop(let group, let hashes, let lostThrough):
            for range in hashes.ranges { removeRows(in: range) }
            records[group] = [PartitionState.droppedKey: PartitionState.dropped(lostThrough: lostThrough)]
            applied[group] = nil
            recorded[group] = nil
            unrecorded.remove(group)
        }
    }

    /// What is left of it after a crash, if it was flushed as it is.
    var flushed: Self {
        var left = self
        left.unrecorded.removeAll()
        left.applied = recorded
        return left
    }

    private mutating func removeRows(in hashes: HashRange) {
        for key in keys where hashes.contains(KeyHash.hash(key)) {
            for row in versions[key] ?? [] { remove(key, row.modRevision, row.sub) }
        }
    }

    private mutating func put(_ row: Row) {
        if versions[row.key] == nil { keys.insert(row.key, at: place(of: row.key)) }
        // In place: a copy of a hot key's versions for each new one would cost more than all else.
        versions[row.key, default: []].insert(version: row)
        if index[row.modRevision] == nil {
            var at = revisions.count
            while at > 0, revisions[at - 1] > row.modRevision { at -= 1 }
            revisions.insert(row.modRevision, at: at)
        }
        index[row.modRevision, default: []].insert(change: row)
    }

    private mutating func remove(_ key: Bytes, _ revision: Revision, _ sub: UInt32) {
        versions[key]?.removeAll { $0.modRevision == revision && $0.sub == sub }
        dropIfEmpty(key)
        index[revision]?.removeAll { $0.key == key && $0.sub == sub }
        dropIfEmpty(revision)
    }

    private mutating func dropIfEmpty(_ key: Bytes) {
        guard versions[key]?.isEmpty == true else { return }
        versions[key] = nil
        let at = place(of: key)
        if at < keys.count, keys[at] == key { keys.remove(at: at) }
    }

    private mutating func dropIfEmpty(_ revision: Revision) {
        guard index[revision]?.isEmpty == true else { return }
        index[revision] = nil
        revisions.removeAll { $0 == revision }
    }

    private func place(of key: Bytes) -> Int {
        var low = 0, high = keys.count
        while low < high {
            let middle = (low + high) / 2
            if keys[middle] < key { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// What is superseded at `floor` goes; the newest version of a key stays, deletions too: another
    /// region may still send an older write (protocol-rules.md G3).
    mutating func compact(floor new: Revision) {
        guard new > floor else { return }
        floor = new
        for key in keys {
            guard let list = versions[key] else { continue }
            guard let newest = list.lastIndex(where: { $0.modRevision <= new }) else { continue }
            versions[key] = Array(list[newest...])
            if Mutation.tombstonesByAcknowledgement.isOn, versions[key]?.first?.isDeletion == true {
                versions[key]?.removeFirst()
                dropIfEmpty(key)
            }
        }
        for revision in revisions where revision <= new { index[revision] = nil }
        revisions.removeAll { $0 <= new }
    }

    // MARK: Reading

    func rows(in range: KeyRange) -> [Bytes] {
        if range.isEmpty { return [] }
        var found: [Bytes] = []
        var at = place(of: range.key)
        while at < keys.count, range.contains(keys[at]) {
            found.append(keys[at])
            at += 1
        }
        return found
    }

    func newest(_ key: Bytes) -> Row? { versions[key]?.last }

    func row(_ key: Bytes, at revision: Revision) -> Row? {
        guard let row = versions[key]?.last(where: { $0.modRevision <= revision }) else { return nil }
        return row.isDeletion ? nil : row
    }

    func range(_ query: RangeQuery, at revision: Revision) throws(RequestError) -> RangeResult {
        if revision < floor { throw .compacted }
        let live = rows(in: query.range).compactMap { row($0, at: revision) }
        return query.answer(fromAll: live)
    }

    /// For a link whose other end needs more than there is: of what is compacted it gets what is left.
    func rest(after: Revision, through: Revision, maxRows: Int) -> (changes: [RevisionChanges], through: Revision) {
        var left: [Revision: [Row]] = [:]
        if after < floor {
            for list in versions.values {
                for row in list where row.modRevision > after && row.modRevision <= min(floor, through) {
                    left[row.modRevision, default: []].append(row)
                }
            }
        }
        var found: [RevisionChanges] = []
        var count = 0
        for revision in left.keys.sorted() {
            let rows = (left[revision] ?? []).sorted { $0.sub < $1.sub }
            found.append(RevisionChanges(revision: revision, rows: rows))
            count += rows.count
            if count >= maxRows { return (found, revision) }
        }
        guard through > floor,
            let above = try? changes(after: max(after, floor), through: through, maxRows: maxRows - count)
        else { return (found, through) }
        return (found + above.changes, above.through)
    }

    func changes(
        after: Revision, through: Revision, maxRows: Int
    ) throws(RequestError) -> (changes: [RevisionChanges], through: Revision) {
        if after < floor { throw .compacted }
        var found: [RevisionChanges] = []
        var count = 0
        var low = 0, high = revisions.count
        while low < high {
            let middle = (low + high) / 2
            if revisions[middle] <= after { low = middle + 1 } else { high = middle }
        }
        for revision in revisions[low...] {
            if revision > through { break }
            guard let rows = index[revision] else { continue }
            found.append(RevisionChanges(revision: revision, rows: rows))
            count += rows.count
            if count >= maxRows { return (found, revision) }
        }
        return (found, through)
    }

    func records(of group: GroupID) -> [(key: Bytes, value: Bytes)] {
        (records[group] ?? [:]).sorted { $0.key < $1.key }.map { (key: $0.key, value: $0.value) }
    }

    func isDropped(_ group: GroupID) -> Bool { records[group]?[PartitionState.droppedKey] != nil }

    var groups: [GroupID] { Set(records.keys).union(applied.keys).sorted() }

    // MARK: Snapshots of a group

    struct Snapshot {
        let group: GroupID
        let applied: Slot
        /// Where the group lay at that slot.
        let hashes: HashRange
        let rows: [Row]
        let records: [Bytes: Bytes]
        let floor: Revision
        let digest: UInt64
    }

    func snapshot(of group: GroupID, hashes: HashRange, digest: UInt64) -> Snapshot {
        let rows = keys.filter { hashes.contains(KeyHash.hash($0)) }.flatMap { versions[$0] ?? [] }
        return Snapshot(
            group: group, applied: applied[group] ?? .zero, hashes: hashes, rows: rows,
            records: records[group] ?? [:], floor: floor, digest: digest)
    }

    mutating func install(_ snapshot: Snapshot) {
        removeRows(in: snapshot.hashes)
        for row in snapshot.rows { put(row) }
        records[snapshot.group] = snapshot.records
        applied[snapshot.group] = snapshot.applied
        recorded[snapshot.group] = snapshot.applied
        unrecorded.remove(snapshot.group)
        installs += 1
    }

    // MARK: Comparing

    /// Of one group's rows above the floor and all of its records: equal on replicas that have applied
    /// the same prefix.
    func fingerprint(of group: GroupID, hashes: HashRange, above floor: Revision) -> UInt64 {
        var hash = TraceHash()
        for key in keys where hashes.contains(KeyHash.hash(key)) {
            for row in versions[key] ?? [] where row.modRevision > floor {
                var writer = ByteWriter()
                writer.row(row)
                hash.add(Bytes(writer.bytes))
            }
        }
        return hash.value
    }
}

extension [Row] {
    /// Of one key, in order of revision; nearly always the newest.
    fileprivate mutating func insert(version row: Row) {
        var at = count
        while at > 0, (self[at - 1].modRevision, self[at - 1].sub) > (row.modRevision, row.sub) { at -= 1 }
        if at > 0, self[at - 1].modRevision == row.modRevision, self[at - 1].sub == row.sub {
            self[at - 1] = row
        } else {
            insert(row, at: at)
        }
    }

    /// Of one revision, in order of its operations.
    fileprivate mutating func insert(change row: Row) {
        removeAll { $0.key == row.key && $0.sub == row.sub }
        var at = count
        while at > 0, self[at - 1].sub > row.sub { at -= 1 }
        insert(row, at: at)
    }
}
