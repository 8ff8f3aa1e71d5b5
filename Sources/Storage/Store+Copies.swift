package import Primitives

/// What is left of the history below the floor, in order of revisions: for a region that needs more than
/// there is (protocol-rules.md G5). A compaction leaves the versions and takes their places in the index of
/// revisions; they are put back when somebody asks, and go with the next compaction, which does not come
/// before that region has what it needs.
struct IndexRebuild {
    var position: [UInt8]
}

extension Store {
    /// `changes` may be asked for what is left below the floor.
    package func isIndexWhole(_ keyspace: KeyspaceID) -> Bool { wholeIndexes.contains(keyspace) }

    /// Looks at up to `budget` rows. True: the index is whole. While a compaction is under way nothing
    /// happens.
    package func completeIndexStep(budget: Int, in keyspace: KeyspaceID) throws(StorageError) -> Bool {
        if wholeIndexes.contains(keyspace) { return true }
        guard passes[keyspace] == nil else { return false }
        var rebuild = rebuilds[keyspace] ?? IndexRebuild(position: StoreFormat.rowsStart(keyspace))
        let floor = floor(of: keyspace)
        let batch = WriteBatch()
        let cursor = database.cursor(until: StoreFormat.rowsEnd(keyspace), fillsCache: false)
        cursor.seek(rebuild.position)
        var rest = budget
        while cursor.isValid && rest > 0 {
            rest -= 1
            let revision = StoreFormat.revision(ofRowKey: cursor.key)
            if revision <= floor {
                guard let fields = StoreFormat.rowFields(cursor.value) else {
                    throw .corrupt("a row has no valid form")
                }
                var entry = [cursor.value[0]]
                StoreFormat.unescape(rowKey: cursor.key, into: &entry)
                batch.put(StoreFormat.indexKey(keyspace, revision, fields.sub), entry)
            }
            cursor.next()
        }
        try cursor.check()
        let isDone = !cursor.isValid
        if !isDone { rebuild.position = Array(cursor.key) }
        try write(batch)
        rebuilds[keyspace] = isDone ? nil : rebuild
        if isDone { wholeIndexes.insert(keyspace) }
        return isDone
    }

    func forgetWholeIndex(_ keyspace: KeyspaceID) {
        rebuilds[keyspace] = nil
        wholeIndexes.remove(keyspace)
    }
}
