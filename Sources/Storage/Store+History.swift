package import Primitives

extension Store {
    /// All that is visible at `through`, and how it came about since `compacted`; of this moment, and
    /// unchanged while the store goes on. May be read on another thread, by one at a time.
    package func history(
        of keyspace: KeyspaceID, after compacted: Revision, through: Revision
    ) -> HistoryExport {
        do throws(StorageError) {
            try recordPositions()
        } catch {
            onFailure(error)
        }
        return HistoryExport(
            database.snapshot(), keyspace, after: compacted, through: through, onFailure: onFailure)
    }

    /// Rewrites what deletions and compactions have left, on a thread of its own, which takes as long as
    /// there is data. One at a time: false if one runs.
    @discardableResult
    package func reclaimInBackground() -> Bool { database.compactInBackground() }

    /// What one compaction of RocksDB's writes at most (25 of its files).
    package static let rewriteBytesMax: UInt64 = 25 * 64 << 20

    /// Whether RocksDB may begin to rewrite files. One that meets the end of the disk ends the store.
    package func mayRewrite(_ may: Bool) throws(StorageError) { try database.compactsByItself(may) }
    package var isReclaiming: Bool { database.isCompactingInBackground }
}

package final class HistoryExport: @unchecked Sendable {
    package struct Entry {
        package let row: Row
        /// No newer version of its key is exported.
        package let isNewest: Bool
        /// There is a newer version already, above what is exported.
        package let isChanging: Bool
    }

    /// Nothing below it is exported but what is visible at it.
    package let compacted: Revision
    package let through: Revision
    private let keyspace: KeyspaceID
    private let onFailure: @Sendable (StorageError) -> Void
    private var snapshot: RocksDatabase.Snapshot?
    private var cursor: Cursor?
    private var prefix: [UInt8] = []
    private var key = Bytes.empty
    private var hasNewest = false
    private var isChanging = false
    /// The version visible at `compacted` has been met: what follows of this key is history.
    private var isBelow = false

    init(
        _ snapshot: RocksDatabase.Snapshot, _ keyspace: KeyspaceID, after compacted: Revision,
        through: Revision, onFailure: @escaping @Sendable (StorageError) -> Void
    ) {
        self.onFailure = onFailure
        self.snapshot = snapshot
        self.keyspace = keyspace
        self.compacted = compacted
        self.through = through
    }

    /// In the order of the keys, the newest version of each first. nil: that was all.
    package func next() throws(StorageError) -> Entry? {
        do throws(StorageError) {
            return try step()
        } catch {
            onFailure(error)
            throw error
        }
    }

    private func step() throws(StorageError) -> Entry? {
        guard let snapshot else { return nil }
        let cursor: Cursor
        if let open = self.cursor {
            cursor = open
        } else {
            cursor = snapshot.cursor(until: StoreFormat.rowsEnd(keyspace))
            cursor.seek(StoreFormat.rowsStart(keyspace))
            self.cursor = cursor
        }
        while cursor.isValid {
            if let row = try look(at: cursor) {
                let isNewest = !hasNewest
                hasNewest = true
                cursor.next()
                return Entry(row: row, isNewest: isNewest, isChanging: isChanging)
            }
            cursor.next()
        }
        try cursor.check()
        return nil
    }

    private func look(at cursor: Cursor) throws(StorageError) -> Row? {
        let version = StoredVersion(key: cursor.key, value: cursor.value)
        let prefixCount = version.key.count - StoreFormat.revisionBytes
        if prefix.count != prefixCount || !version.key.elementsEqual(prefixOf: prefix, count: prefixCount) {
            prefix = Array(version.key[..<prefixCount])
            var user: [UInt8] = []
            StoreFormat.unescape(rowKey: version.key, into: &user)
            key = Bytes(user)
            isBelow = false
            hasNewest = false
            isChanging = false
        }
        let revision = version.revision
        if revision > through { isChanging = true }
        if isBelow || revision > through { return nil }
        if revision <= compacted {
            isBelow = true
            // A compaction takes such a deletion with it.
            if version.isDeletion { return nil }
        }
        return try Store.row(key, revision, version.value)
    }

    /// Of the same moment.
    package func records(
        of group: GroupID, startingWith letter: UInt8
    ) throws(StorageError) -> [(key: Bytes, value: Bytes)] {
        guard let snapshot else { return [] }
        let group = StoreFormat.recordPrefix(group), prefix = group + [letter]
        let cursor = snapshot.cursor(until: StoreFormat.end(ofPrefix: prefix))
        cursor.seek(prefix)
        var found: [(key: Bytes, value: Bytes)] = []
        while cursor.isValid {
            let key = Bytes(UnsafeRawBufferPointer(rebasing: cursor.key[group.count...]))
            found.append((key, Bytes(cursor.value)))
            cursor.next()
        }
        try cursor.check()
        return found
    }

    /// Lets the store remove what only this needs.
    package func close() {
        cursor = nil
        snapshot = nil
    }
}
