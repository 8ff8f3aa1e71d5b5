import Glibc
package import Primitives

/// The state of a node's partitions: every version of every key, the revision index, the groups'
/// records and applied slots, in one RocksDB without a log of its own (the write-ahead log is the
/// log). Confined to the core loop, except where a function says otherwise.
///
/// Functions that answer clients throw `RequestError`: `.compacted`, or `.stopped` after RocksDB
/// failed, which `onFailure` has then been told.
package final class Store {
    package struct Options: Sendable {
        package var blockCacheBytes = 256 << 20
        package var memtableBytes = 64 << 20
        /// Newest versions kept decoded, for evaluation and for single-key reads.
        package var currentCacheBytes = 64 << 20
        /// A range with more keys than this is followed once it has been counted.
        package var countedMin: Int64 = 128
        package var openFilesMax = 1024
        package var backgroundJobs = 2
        package init() {}
    }

    /// Called on whatever thread has met it.
    package var onFailure: @Sendable (StorageError) -> Void = { _ in }

    let database: RocksDatabase
    var cache: CurrentCache
    var counts = RangeCounts()
    let countedMin: Int64
    /// What records of these groups there would have to be (`StoreChange`). Nil: it cannot be said now.
    package var recorder: (([GroupID]) -> [StoreChange]?)?
    private var applied: [GroupID: Slot]
    /// As the database says.
    private var recorded: [GroupID: Slot]
    /// Groups of which it does not know all yet (`StoreChange.position`): after a crash it holds rows that
    /// their logs put once more.
    private var unrecorded: Set<GroupID> = []
    var floors: [KeyspaceID: Revision]
    var passes: [KeyspaceID: CompactionPass] = [:]
    /// Store+Copies.
    var rebuilds: [KeyspaceID: IndexRebuild] = [:]
    var wholeIndexes: Set<KeyspaceID> = []
    var imports: Set<GroupID>
    /// Of groups that are not here any more, what is still to be removed.
    var drops: [HashRange] = []
    var dropPosition: [UInt8] = []
    /// Groups that were dropped, and have not come back.
    package internal(set) var droppedGroups: Set<GroupID> = []
    /// Versions that compactions have removed since the start.
    package internal(set) var compactedRows: UInt64 = 0
    /// Keys and values that were put since the store was opened.
    package private(set) var putBytes: UInt64 = 0
    /// One per `write`: what a reused cursor or a later check may rely on.
    private let batch = WriteBatch()
    private var flushing = FlushState()
    /// Sees the store as of its creation: dropped by every write.
    private var points: Cursor?

    package static func open(
        _ path: String, options: Options = Options()
    ) throws(StorageError) -> Store {
        try Posix.makeDirectory(path)
        return try Store(RocksDatabase(path, options), options, path)
    }

    private init(
        _ database: RocksDatabase, _ options: Options, _ path: String
    ) throws(StorageError) {
        self.database = database
        cache = CurrentCache(bytesMax: options.currentCacheBytes)
        countedMin = options.countedMin
        if let version = try database.get(StoreFormat.versionKey) {
            guard version.count == 1 else { throw .database("\(path): no format version") }
            guard version[0] <= StoreFormat.version else {
                throw .newer("\(path) has format \(version[0]); this build knows \(StoreFormat.version)")
            }
        } else {
            let first = WriteBatch()
            first.put(StoreFormat.versionKey, [StoreFormat.version])
            try database.write(first)
        }
        applied = [:]
        recorded = [:]
        floors = [:]
        imports = []
        try scan([StoreFormat.appliedTag]) { key, value in
            if key.count == 9, value.count == 8 {
                applied[StoreFormat.group(ofKey: key)] = Slot(StoreFormat.big(value, 0))
            }
        }
        recorded = applied
        try scan(StoreFormat.floorPrefix) { key, value in
            if key.count == 6, value.count == 8 {
                floors[KeyspaceID(StoreFormat.big(key, 2))] =
                    Revision(Int64(bitPattern: StoreFormat.big(value, 0) as UInt64))
            }
        }
        try scan(StoreFormat.importPrefix) { key, _ in
            if key.count == 10 { imports.insert(StoreFormat.group(ofKey: key, at: 2)) }
        }
        try scan(StoreFormat.droppedPrefix) { key, _ in
            if key.count == 10 { droppedGroups.insert(StoreFormat.group(ofKey: key, at: 2)) }
        }
        try scan(StoreFormat.dropPrefix) { key, _ in
            guard key.count == 18 else { return }
            let first: UInt64 = StoreFormat.big(key, 2), last: UInt64 = StoreFormat.big(key, 10)
            if first <= last { drops.append(HashRange(first: first, last: last)) }
        }
    }

    package func close() {
        // Who wants to know that it was written flushes before.
        try? recordIfPossible()
        points = nil
        flushing.waitUntilIdle()
        database.close()
    }

    /// Every key that begins with `prefix`, with its value.
    func scan(
        _ prefix: [UInt8], _ visit: (UnsafeRawBufferPointer, UnsafeRawBufferPointer) -> Void
    ) throws(StorageError) {
        let cursor = database.cursor(until: StoreFormat.end(ofPrefix: prefix))
        cursor.seek(prefix)
        while cursor.isValid {
            visit(cursor.key, cursor.value)
            cursor.next()
        }
        try cursor.check()
    }

    // MARK: Writing

    /// In order and atomically; durable only by a flush.
    package func apply(_ changes: [StoreChange]) throws(StorageError) {
        if changes.isEmpty { return }
        batch.clear()
        var counted: Set<CountedChange> = []
        var dropped: [(GroupID, HashRanges, lostThrough: Slot)] = []
        for change in changes {
            switch change {
            case .putRow(let keyspace, let row):
                if row.modRevision <= floors[keyspace] ?? .zero {
                    counts.forgetAll()
                    guard try admitLate(row, keyspace) else { continue }
                }
                if !counts.isEmpty, row.version <= 1, counts.follows(row.key, keyspace) {
                    counted.insert(CountedChange(keyspace: keyspace, key: row.key, revision: row.modRevision))
                }
                put(row, keyspace, into: batch)
                if !row.isDeletion { putBytes &+= UInt64(row.key.count &+ row.value.count) }
                cache.wrote(row, keyspace)
            case .removeRow(let keyspace, let key, let revision, let sub):
                batch.ordered.delete(StoreFormat.rowKey(keyspace, key, revision))
                batch.ordered.delete(StoreFormat.indexKey(keyspace, revision, sub))
                cache.removed(key, keyspace, revision)
                counts.forget(key, keyspace)
                if revision <= floors[keyspace] ?? .zero { passes[keyspace]?.restarts = true }
            case .putRecord(let group, let key, let value):
                batch.ordered.put(StoreFormat.recordKey(group, key), value)
            case .removeRecord(let group, let key):
                batch.ordered.delete(StoreFormat.recordKey(group, key))
            case .applied(let group, let slot):
                batch.ordered.put(
                    StoreFormat.appliedKey(group), Bytes(StoreFormat.number(slot.rawValue)))
                setApplied(group, slot)
            case .position(let group, let slot):
                applied[group] = slot
                unrecorded.insert(group)
            case .drop(let group, let hashes, let lost): dropped.append((group, hashes, lost))
            }
        }
        try write(batch)
        for (group, hashes, lost) in dropped { try drop(group, hashes, lostThrough: lost) }
        for change in counted { try count(change) }
    }

    private struct CountedChange: Hashable {
        let keyspace: KeyspaceID
        let key: Bytes
        let revision: Revision
    }

    /// What a first version or a deletion means for the ranges that are counted: looked up, as one
    /// revision may hold several changes of a key, and a deletion from another region may find nothing.
    private func count(_ change: CountedChange) throws(StorageError) {
        func isAlive(at revision: Revision) throws(StorageError) -> Bool {
            try stored(change.key, at: revision, in: change.keyspace)?.isDeletion == false
        }
        let before = try isAlive(at: change.revision.previous)
        let after = try isAlive(at: change.revision)
        guard before != after else { return }
        counts.changed(change.key, change.keyspace, at: change.revision, by: after ? 1 : -1)
    }

    /// From here on the database says of each group what is in it, if whoever writes here can say it now.
    private func recordIfPossible() throws(StorageError) {
        if unrecorded.isEmpty { return }
        if let changes = recorder?(unrecorded.sorted()) { try apply(changes) }
    }

    /// The same, before whatever relies on it.
    func recordPositions() throws(StorageError) {
        try recordIfPossible()
        guard unrecorded.isEmpty else { throw .database("the records of \(unrecorded.sorted()) cannot be had") }
    }

    func put(_ row: Row, _ keyspace: KeyspaceID, into batch: WriteBatch) {
        batch.ordered.put(row, keyspace)
    }

    func write(_ batch: WriteBatch) throws(StorageError) {
        points = nil
        if batch.count == 0 {
            try batch.ordered.assembled { (bytes) throws(StorageError) in try database.write(bytes) }
            batch.ordered.clear()
            return
        }
        batch.drainOrdered()
        try database.write(batch)
    }

    func setApplied(_ group: GroupID, _ slot: Slot?) {
        applied[group] = slot
        recorded[group] = slot
        if !unrecorded.isEmpty { unrecorded.remove(group) }
    }

    // MARK: Flushing

    /// Makes everything applied so far durable. Returns the applied slots that are.
    package func flush() throws(StorageError) -> [GroupID: Slot] {
        try recordIfPossible()
        points = nil
        let slots = recorded
        try database.flush()
        return slots
    }

    /// The same on a thread of its own, which also calls `completion`. One at a time: false if one runs.
    @discardableResult
    package func flushInBackground(
        _ completion: @escaping @Sendable (Result<[GroupID: Slot], StorageError>) -> Void
    ) -> Bool {
        guard flushing.begin() else { return false }
        do throws(StorageError) {
            try recordIfPossible()
        } catch {
            flushing.end()
            completion(.failure(error))
            return true
        }
        points = nil
        let slots = recorded, database = self.database, flushing = self.flushing
        let run: @Sendable () -> Void = {
            let result = Result { () throws(StorageError) -> [GroupID: Slot] in
                try database.flush()
                return slots
            }
            flushing.end()
            completion(result)
        }
        // No thread to be had: late is better than never.
        if (try? Posix.startDetachedThread(run)) == nil { run() }
        return true
    }

    private final class FlushState: @unchecked Sendable {
        private let monitor = Monitor()
        private var isRunning = false
        func begin() -> Bool {
            monitor.lock()
            defer { monitor.unlock() }
            if isRunning { return false }
            isRunning = true
            return true
        }
        func end() {
            monitor.lock()
            isRunning = false
            monitor.unlock()
            monitor.signal()
        }
        func waitUntilIdle() {
            monitor.lock()
            while isRunning { monitor.wait() }
            monitor.unlock()
        }
    }

    /// Compactions and flushes of RocksDB's that have failed since the start. If one has met what cannot be
    /// mended, every write from then on throws it: see `checkWrites`.
    package var backgroundErrors: UInt64 { database.property("rocksdb.background-errors") }

    /// Writes what is there already.
    package func checkWrites() throws(StorageError) {
        let same = WriteBatch()
        same.put(StoreFormat.versionKey, [StoreFormat.version])
        try write(same)
    }

    // MARK: Newest versions

    package struct Newest: Sendable {
        package var applied: Slot
        /// At most one a key; deletions included, versions above the frontier too.
        package var rows: [Row]
    }

    package func appliedSlots() -> [GroupID: Slot] { applied }
    package func appliedSlot(of group: GroupID) -> Slot { applied[group] ?? .zero }

    package func records(
        of group: GroupID
    ) throws(StorageError) -> [(key: Bytes, value: Bytes)] {
        var found: [(key: Bytes, value: Bytes)] = []
        let prefix = StoreFormat.recordPrefix(group)
        try scan(prefix) { key, value in
            found.append((Bytes(UnsafeRawBufferPointer(rebasing: key[prefix.count...])), Bytes(value)))
        }
        return found
    }

    /// The newest stored version, deletions included.
    package func newest(
        _ key: Bytes, in keyspace: KeyspaceID
    ) throws(StorageError) -> Row? {
        if let cached = cache.find(key, keyspace) { return cached }
        let row = try stored(key, at: Revision(.max), in: keyspace)
        cache.fill(key, keyspace, row)
        return row
    }

    /// The newest version not above `revision`, deletions included.
    func stored(
        _ key: Bytes, at revision: Revision, in keyspace: KeyspaceID
    ) throws(StorageError) -> Row? {
        let cursor = points ?? database.prefixCursor()
        points = cursor
        let target = StoreFormat.rowKey(keyspace, key, revision)
        cursor.seek(target)
        guard cursor.isValid else {
            try cursor.check()
            return nil
        }
        let found = cursor.key
        guard found.count == target.count,
            found.elementsEqual(prefixOf: target, count: target.count - StoreFormat.revisionBytes)
        else { return nil }
        return try Self.row(key, StoreFormat.revision(ofRowKey: found), cursor.value)
    }

    static func row(
        _ key: Bytes, _ revision: Revision, _ value: UnsafeRawBufferPointer
    ) throws(StorageError) -> Row {
        guard let fields = StoreFormat.rowFields(value) else {
            throw .corrupt("a row at revision \(revision) has no valid form")
        }
        return Row(
            key: key, value: Bytes(UnsafeRawBufferPointer(rebasing: value[fields.valueStart...])),
            createRevision: fields.createRevision, modRevision: revision, version: fields.version,
            lease: fields.lease, sub: fields.sub, origin: fields.origin)
    }

    /// What evaluation reads before a transaction: newest versions of the keys, and of all keys in the
    /// ranges, that hash into `hashes`.
    package func newest(
        keys: [Bytes], ranges: [KeyRange], of group: GroupID, hashes: HashRange
    ) throws(StorageError) -> Newest {
        var rows: [Row] = []
        rows.reserveCapacity(keys.count)
        for key in keys where hashes == .all || hashes.contains(KeyHash.hash(key)) {
            if !ranges.isEmpty, ranges.contains(where: { $0.contains(key) }) { continue }
            if let row = try newest(key, in: group.keyspace) { rows.append(row) }
        }
        for (i, range) in ranges.enumerated() {
            var buffer = RowBuffer()
            try walk(range, at: Revision(.max), in: group.keyspace, hashes: HashFilter(hashes)) { version in
                buffer.append(version, withValue: true)
                return true
            }
            let found = try buffer.rows()
            let earlier = ranges[..<i]
            if earlier.contains(where: { $0.overlaps(range) }) {
                rows += found.filter { row in !earlier.contains { $0.contains(row.key) } }
            } else {
                rows += found
            }
        }
        return Newest(applied: appliedSlot(of: group), rows: rows)
    }
}

extension UnsafeRawBufferPointer {
    func elementsEqual(prefixOf other: [UInt8], count: Int) -> Bool {
        if self.count < count || other.count < count { return false }
        guard count > 0, let mine = baseAddress else { return true }
        return other.withUnsafeBytes { $0.baseAddress.map { memcmp(mine, $0, count) == 0 } ?? false }
    }
}
