package import Primitives

extension Store {
    /// Groups whose import was cut short by a crash: they have no state here and need a snapshot.
    package var incompleteImports: [GroupID] { imports.sorted() }

    /// Of this moment; stays valid while the store goes on. May be read on another thread. `hashes`
    /// nil: no rows (the directory group has only records).
    package func exportSnapshot(
        of group: GroupID, hashes: HashRange?
    ) throws(StorageError) -> SnapshotExport {
        try recordPositions()
        return SnapshotExport(
            database.snapshot(), group, hashes, applied: appliedSlot(of: group),
            floor: floor(of: group.keyspace))
    }

    /// Begins to replace the group's rows and records; see `SnapshotImport`.
    package func importSnapshot(
        of group: GroupID, hashes: HashRange?
    ) throws(StorageError) -> SnapshotImport {
        let batch = WriteBatch()
        // The mark comes before the first removal, as the store's flushes keep the order of its writes.
        batch.put(StoreFormat.importKey(group), [])
        batch.delete(StoreFormat.appliedKey(group))
        let records = StoreFormat.recordPrefix(group)
        batch.deleteRange(records, StoreFormat.end(ofPrefix: records))
        // What comes is not to be removed with what went.
        if let hashes { keep(hashes, batch) }
        if droppedGroups.remove(group) != nil { batch.delete(StoreFormat.droppedKey(group)) }
        try write(batch)
        imports.insert(group)
        setApplied(group, nil)
        return SnapshotImport(self, group, hashes)
    }
}

package final class SnapshotExport: @unchecked Sendable {
    /// The group's applied slot in this snapshot.
    package let applied: Slot
    private let group: GroupID
    private let hashes: HashRange?
    private let floor: Revision
    private var snapshot: RocksDatabase.Snapshot?
    private var cursor: Cursor?
    private var stage = Stage.head
    private var number: UInt64 = 0
    private enum Stage { case head, records, rows, end, over }

    /// Rows looked at in one call, whichever partition they belong to.
    private static let rowsMax = 20_000

    init(
        _ snapshot: RocksDatabase.Snapshot, _ group: GroupID, _ hashes: HashRange?, applied: Slot,
        floor: Revision
    ) {
        self.snapshot = snapshot
        self.group = group
        self.hashes = hashes
        self.applied = applied
        self.floor = floor
    }

    /// The next chunk, about `bytesMax` long (longer only for one large row); nil after the last. A
    /// chunk may be nearly empty: one call looks at a bounded number of rows.
    package func next(bytesMax: Int) throws(StorageError) -> Bytes? {
        guard let snapshot, stage != .over else { return nil }
        var writer = ByteWriter(capacity: min(bytesMax, 1 << 20))
        SnapshotFormat.begin(number, &writer)
        number += 1
        var looked = 0
        while writer.count < bytesMax && looked < Self.rowsMax && stage != .over {
            switch stage {
            case .head:
                SnapshotFormat.append(.head(group, applied: applied, floor: floor), &writer)
                let prefix = StoreFormat.recordPrefix(group)
                move(to: .records, snapshot, prefix, StoreFormat.end(ofPrefix: prefix))
            case .records:
                if let cursor, cursor.isValid {
                    let key = cursor.key.dropFirst(StoreFormat.recordPrefix(group).count)
                    SnapshotFormat.append(
                        .record(key: Bytes(UnsafeRawBufferPointer(rebasing: key)), value: Bytes(cursor.value)),
                        &writer)
                    cursor.next()
                } else {
                    try cursor?.check()
                    if hashes == nil { stage = .end } else {
                        move(
                            to: .rows, snapshot, StoreFormat.rowsStart(group.keyspace),
                            StoreFormat.rowsEnd(group.keyspace))
                    }
                }
            case .rows:
                if let cursor, cursor.isValid {
                    try copyRow(cursor, &writer)
                    cursor.next()
                } else {
                    try cursor?.check()
                    stage = .end
                }
            case .end:
                SnapshotFormat.append(.end, &writer)
                stage = .over
            case .over: break
            }
            looked += 1
        }
        if stage == .over { close() }
        return SnapshotFormat.finish(&writer)
    }

    private func copyRow(_ cursor: Cursor, _ writer: inout ByteWriter) throws(StorageError) {
        var key: [UInt8] = []
        StoreFormat.unescape(rowKey: cursor.key, into: &key)
        guard let hashes, hashes.contains(key.withUnsafeBytes { KeyHash.hash($0) }) else { return }
        let revision = StoreFormat.revision(ofRowKey: cursor.key)
        SnapshotFormat.append(.row(try Store.row(Bytes(key), revision, cursor.value)), &writer)
    }

    private func move(
        to stage: Stage, _ snapshot: RocksDatabase.Snapshot, _ first: [UInt8], _ end: [UInt8]
    ) {
        cursor = snapshot.cursor(until: end)
        cursor?.seek(first)
        self.stage = stage
    }

    /// Lets the store remove what only this snapshot still needs.
    package func close() {
        stage = .over
        cursor = nil
        snapshot = nil
    }
}

/// While it is not finished the group has no state here; a crash in between leaves a mark.
/// Order of calls: `clear` until true, `add` each chunk, `finish`. Beginning again is always possible.
package final class SnapshotImport {
    private let store: Store
    private let group: GroupID
    private let hashes: HashRange?
    private var position: [UInt8]
    private var isCleared: Bool
    private var nextChunk: UInt64 = 0
    private var applied = Slot.zero
    private var isComplete = false

    init(_ store: Store, _ group: GroupID, _ hashes: HashRange?) {
        self.store = store
        self.group = group
        self.hashes = hashes
        position = StoreFormat.rowsStart(group.keyspace)
        isCleared = hashes == nil
    }

    /// Removes old rows, a bounded number per call. true: done, chunks may be added.
    package func clear(budget: Int) throws(StorageError) -> Bool {
        guard !isCleared, let hashes else { return true }
        let batch = WriteBatch()
        let cursor = store.database.cursor(
            until: StoreFormat.rowsEnd(group.keyspace), fillsCache: false)
        cursor.seek(position)
        try cursor.deleteRows(of: group.keyspace, budget: budget, from: batch) { hashes.contains($0) }
        isCleared = !cursor.isValid
        if !isCleared { position = Array(cursor.key) }
        try write(batch)
        return isCleared
    }

    /// Chunks in the order of the export. Throws `damaged` for bytes that are not the next chunk.
    package func add(_ chunk: Bytes) throws(StorageError) {
        invariant(isCleared, "chunk before the old rows are gone")
        let items: [SnapshotFormat.Item]
        do throws(DecodingError) {
            items = try SnapshotFormat.items(of: chunk, number: nextChunk)
        } catch {
            throw damaged(error.what)
        }
        let batch = WriteBatch()
        for (i, item) in items.enumerated() {
            let isFirst = nextChunk == 0 && i == 0
            guard !isComplete else { throw damaged("more after the end") }
            switch item {
            case .head(let group, let applied, let floor):
                guard isFirst, group == self.group else { throw damaged("head of group \(group)") }
                self.applied = applied
                // Below it the sender has removed history, so there is none here either.
                try store.raiseFloor(floor, group.keyspace)
            case .record(let key, let value):
                guard !isFirst else { throw damaged("no head") }
                batch.put(StoreFormat.recordKey(group, key), value)
            case .row(let row):
                guard !isFirst, let hashes, hashes.contains(KeyHash.hash(row.key)) else {
                    throw damaged("a row outside the hash range")
                }
                store.put(row, group.keyspace, into: batch)
            case .end:
                guard !isFirst else { throw damaged("no head") }
                isComplete = true
            }
        }
        nextChunk += 1
        try write(batch)
    }

    /// After the last chunk: the group's applied slot. Call `Store.flush` before telling anybody.
    package func finish() throws(StorageError) -> Slot {
        guard isComplete else { throw damaged("ended before its end") }
        let batch = WriteBatch()
        batch.put(StoreFormat.appliedKey(group), StoreFormat.number(applied.rawValue))
        batch.delete(StoreFormat.importKey(group))
        try write(batch)
        store.imports.remove(group)
        store.setApplied(group, applied)
        return applied
    }

    private func write(_ batch: WriteBatch) throws(StorageError) {
        store.cache.removeAll()
        store.counts.forgetAll()
        store.passes[group.keyspace]?.restarts = true
        try store.write(batch)
    }

    private func damaged(_ reason: String) -> StorageError {
        .damaged(file: "snapshot of \(group)", offset: Int(truncatingIfNeeded: nextChunk), reason: reason)
    }
}
