package import Primitives

/// Walks the revision index upward to `target`. Each change there supersedes its key's version
/// before it, which is removed; a deletion goes with it. The index below `target` goes at the end, so
/// a pass costs what has changed since the last one, not what is stored.
///
/// Between regions a deletion must outlive what it beats: another region may still send an older write
/// (protocol-rules.md G3). Such a deletion stays, with its place in the index, which each pass looks at
/// again; the rest of the index goes entry by entry.
///
/// Invariant: of a key's versions at or below the pass's position at most one is left, and only that
/// one may have lost its index entry (S17 c: so a deletion's predecessor is seen, and nothing rises).
struct CompactionPass {
    var target: Revision
    /// Index key from which to go on.
    var position: [UInt8]
    /// Something at or below `target` was written meanwhile.
    var restarts = false
    /// Deletions with this stamp and higher ones stay.
    let deletionsBefore: UInt64
    /// What is left of keys met lately: spares a hot key a seek for each of its changes.
    var left: [Bytes: Revision?] = [:]

    /// Some megabytes.
    static let leftMax = 32_768

    init(target: Revision, deletionsBefore: UInt64, _ keyspace: KeyspaceID) {
        self.target = target
        self.deletionsBefore = deletionsBefore
        position = StoreFormat.indexKey(keyspace, .zero, 0)
    }
}

extension Store {
    /// Reads below it are refused.
    package func floor(of keyspace: KeyspaceID) -> Revision { floors[keyspace] ?? .zero }

    /// Raises the floor and begins a pass that removes what is superseded at it. The caller knows that
    /// every row at or below `floor` is decided and applied here (no prepared one, protocol-rules.md S17).
    /// Deletions whose stamps are `deletionsBefore` or above stay.
    package func compact(
        floor: Revision, deletionsBefore: UInt64 = .max, in keyspace: KeyspaceID
    ) throws(StorageError) {
        if let pass = passes[keyspace], pass.target >= floor { return }
        try raiseFloor(floor, keyspace)
        forgetWholeIndex(keyspace)
        passes[keyspace] = CompactionPass(target: floor, deletionsBefore: deletionsBefore, keyspace)
    }

    /// Before anything below is removed: the store's flushes keep the order of its writes.
    func raiseFloor(_ floor: Revision, _ keyspace: KeyspaceID) throws(StorageError) {
        guard floor > self.floor(of: keyspace) else { return }
        // What logs put once more is above it, always.
        try recordPositions()
        let batch = WriteBatch()
        batch.put(
            StoreFormat.floorKey(keyspace), StoreFormat.number(UInt64(bitPattern: floor.rawValue)))
        try write(batch)
        floors[keyspace] = floor
    }

    /// Looks at up to `budget` changes. true: the pass is done (also if none runs).
    package func compactStep(
        budget: Int, in keyspace: KeyspaceID
    ) throws(StorageError) -> Bool {
        guard var pass = passes[keyspace] else { return true }
        if pass.restarts {
            pass = CompactionPass(target: pass.target, deletionsBefore: pass.deletionsBefore, keyspace)
        }
        let staysPartly = pass.deletionsBefore < .max
        let batch = WriteBatch()
        let start = StoreFormat.indexKey(keyspace, .zero, 0)
        let end = StoreFormat.indexKey(keyspace, pass.target.next, 0)
        let cursor = database.cursor(until: end, fillsCache: false)
        cursor.seek(pass.position)
        var rest = budget
        while cursor.isValid && rest > 0 {
            let stays = try look(at: cursor, &pass, keyspace, batch)
            if staysPartly, !stays { batch.delete(Array(cursor.key)) }
            cursor.next()
            rest -= 1
        }
        try cursor.check()
        let isDone = !cursor.isValid
        if !isDone {
            pass.position = Array(cursor.key)
        } else if !staysPartly {
            batch.deleteRange(start, end)
        }
        try write(batch)
        passes[keyspace] = isDone ? nil : pass
        return isDone
    }

    /// True: the entry stays in the index.
    private func look(
        at cursor: Cursor, _ pass: inout CompactionPass, _ keyspace: KeyspaceID, _ batch: WriteBatch
    ) throws(StorageError) -> Bool {
        let revision = StoreFormat.revision(ofIndexKey: cursor.key), entry = cursor.value
        guard entry.count >= 1 else { throw .corrupt("an index entry has no valid form") }
        let key = Bytes(UnsafeRawBufferPointer(rebasing: entry.dropFirst()))
        let before: Revision?
        if let known = pass.left[key] {
            before = known
        } else {
            before = try stored(key, at: revision.previous, in: keyspace)?.modRevision
        }
        if let before {
            batch.delete(StoreFormat.rowKey(keyspace, key, before))
            compactedRows += 1
        }
        var isDeletion = entry[0] == StoreFormat.deletionKind
        var stays = false
        if isDeletion, pass.deletionsBefore < .max {
            // An earlier pass has let it stay, and removed it for a later version since.
            guard let stamp = try stamp(of: key, revision, keyspace) else { return false }
            stays = stamp >= pass.deletionsBefore
            isDeletion = !stays
        }
        if isDeletion {
            batch.delete(StoreFormat.rowKey(keyspace, key, revision))
            compactedRows += 1
            cache.removed(key, keyspace, revision)
        }
        if pass.left.count >= CompactionPass.leftMax { pass.left.removeAll(keepingCapacity: true) }
        if isDeletion, before == nil {
            // It found nothing, or went before: then a later version is left that has no entry.
            pass.left.removeValue(forKey: key)
        } else {
            pass.left[key] = .some(isDeletion ? nil : revision)
        }
        return stays
    }

    private func stamp(
        of key: Bytes, _ revision: Revision, _ keyspace: KeyspaceID
    ) throws(StorageError) -> UInt64? {
        try database.get(StoreFormat.rowKey(keyspace, key, revision)) { raw in
            StoreFormat.rowFields(raw)?.origin.stamp.ticks
        } ?? nil
    }

    /// A row at or below the floor: a replica that catches up after an import raised the floor. False:
    /// a newer version there already covers it, so it is never visible, and dropping it keeps the
    /// pass's invariant.
    func admitLate(
        _ row: Row, _ keyspace: KeyspaceID
    ) throws(StorageError) -> Bool {
        passes[keyspace]?.restarts = true
        guard let newest = try stored(row.key, at: floor(of: keyspace), in: keyspace) else { return true }
        return newest.modRevision <= row.modRevision
    }
}
