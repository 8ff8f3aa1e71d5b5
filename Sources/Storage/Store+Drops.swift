package import Primitives

/// Which rows of a keyspace are meant: those whose keys hash there.
package enum HashFilter: Sendable {
    case all
    case one(HashRange)
    case some(HashRanges)

    package init(_ range: HashRange) { self = range == .all ? .all : .one(range) }
    package init(_ ranges: HashRanges) { self = ranges.isAll ? .all : .some(ranges) }

    package var isAll: Bool { if case .all = self { true } else { false } }
    package func contains(_ hash: UInt64) -> Bool {
        switch self {
        case .all: true
        case .one(let range): range.contains(hash)
        case .some(let ranges): ranges.contains(hash)
        }
    }
}

/// Replicas that the region does without (`StoreChange.drop`): their records go at once, their rows little by
/// little. A mark says through every crash what is still to go.
extension Store {
    package var isDropping: Bool { !drops.isEmpty }

    func drop(_ group: GroupID, _ hashes: HashRanges, lostThrough: Slot) throws(StorageError) {
        let batch = WriteBatch()
        let records = StoreFormat.recordPrefix(group)
        batch.deleteRange(records, StoreFormat.end(ofPrefix: records))
        batch.delete(StoreFormat.appliedKey(group))
        for range in hashes.ranges { batch.put(StoreFormat.dropKey(range), []) }
        // Behind the removal of the others, and with it: what tells a start that nothing is here.
        var mark = ByteWriter(capacity: 8)
        mark.id(lostThrough)
        batch.put(StoreFormat.recordKey(group, PartitionRecords.dropped), Bytes(mark.bytes))
        batch.put(StoreFormat.droppedKey(group), [])
        try write(batch)
        setApplied(group, nil)
        droppedGroups.insert(group)
        cache.removeAll()
        counts.forgetAll()
        drops += hashes.ranges
        dropPosition = []
    }

    /// Nothing of it is here by an order of the region's, not by damage.
    package func isDropped(_ group: GroupID) -> Bool { droppedGroups.contains(group) }

    /// What is in the store is what is served, from now on or no longer.
    package func forgetCounts() { counts.forgetAll() }

    /// Looks at up to `budget` rows. true: nothing is left to be removed.
    package func dropStep(budget: Int, in keyspace: KeyspaceID) throws(StorageError) -> Bool {
        guard !drops.isEmpty else { return true }
        let hashes = HashRanges(drops)
        if dropPosition.isEmpty { dropPosition = StoreFormat.rowsStart(keyspace) }
        let batch = WriteBatch()
        let cursor = database.cursor(until: StoreFormat.rowsEnd(keyspace), fillsCache: false)
        cursor.seek(dropPosition)
        try cursor.deleteRows(of: keyspace, budget: budget, from: batch) { hashes.contains($0) }
        let isDone = !cursor.isValid
        if isDone {
            for range in drops { batch.delete(StoreFormat.dropKey(range)) }
        } else {
            dropPosition = Array(cursor.key)
        }
        cache.removeAll()
        counts.forgetAll()
        try write(batch)
        if isDone {
            drops = []
            dropPosition = []
        }
        return isDone
    }

    /// Of what is to be removed `hashes` comes back, and is cleared by whoever brings it.
    func keep(_ hashes: HashRange, _ batch: WriteBatch) {
        guard drops.contains(where: { $0.first <= hashes.last && hashes.first <= $0.last }) else { return }
        let before = drops
        drops = before.flatMap { HashRanges([hashes]).missing(from: $0) }
        for range in before { batch.delete(StoreFormat.dropKey(range)) }
        for range in drops { batch.put(StoreFormat.dropKey(range), []) }
    }
}

extension Cursor {
    /// Rows, from here on, whose key's hash is among those, with their places in the index of revisions.
    /// Looks at `budget` rows at most.
    func deleteRows(
        of keyspace: KeyspaceID, budget: Int, from batch: WriteBatch, where isToGo: (UInt64) -> Bool
    ) throws(StorageError) {
        var rest = budget
        var unescaped: [UInt8] = []
        while isValid && rest > 0 {
            rest -= 1
            unescaped.removeAll(keepingCapacity: true)
            StoreFormat.unescape(rowKey: key, into: &unescaped)
            if isToGo(unescaped.withUnsafeBytes { KeyHash.hash($0) }) {
                batch.delete(Array(key))
                if let fields = StoreFormat.rowFields(value) {
                    let revision = StoreFormat.revision(ofRowKey: key)
                    batch.delete(StoreFormat.indexKey(keyspace, revision, fields.sub))
                }
            }
            next()
        }
        try check()
    }
}

/// What the store knows of the groups' records.
enum PartitionRecords {
    /// Of a group that was dropped (docs/formats.md).
    static let dropped = Bytes("z")
}
