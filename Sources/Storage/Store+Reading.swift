package import Primitives

extension Store {
    // MARK: At a revision

    /// etcd's Range at one revision (`query.revision` is not looked at). Without `countsAll` the walk may
    /// end at the limit, or after so many bytes, and the count is of no use.
    package func range(
        _ query: RangeQuery, at revision: Revision, in keyspace: KeyspaceID,
        hashes: HashFilter = .all, countsAll: Bool = true, maxBytes: Int = .max
    ) throws(RequestError) -> RangeResult {
        try checkFloor(revision, keyspace)
        let result = try reporting { () throws(StorageError) in
            if query.range.isSingle {
                if !hashes.isAll && !hashes.contains(KeyHash.hash(query.range.key)) { return RangeResult() }
                return query.answer(
                    fromAll: try visible(query.range.key, at: revision, in: keyspace).map { [$0] } ?? [])
            }
            // Order `none` sorts by any target but the key (see `RangeQuery.answer`).
            if query.countOnly || (query.target == .key && query.order != .descending) {
                return try ordered(
                    query, at: revision, in: keyspace, hashes: hashes, countsAll: countsAll,
                    maxBytes: maxBytes)
            }
            return try sorted(query, at: revision, in: keyspace, hashes: hashes)
        }
        try checkFloor(revision, keyspace)
        return result
    }

    /// The version visible at `revision`; nil: none, or deleted.
    package func row(
        _ key: Bytes, at revision: Revision, in keyspace: KeyspaceID
    ) throws(RequestError) -> Row? {
        try checkFloor(revision, keyspace)
        return try reporting { () throws(StorageError) in
            try visible(key, at: revision, in: keyspace)
        }
    }

    /// The live rows of a range at a revision in key order; `visit` returns false to end.
    package func visit(
        _ range: KeyRange, at revision: Revision, in keyspace: KeyspaceID, hashes: HashFilter = .all,
        _ visit: (RowView) -> Bool
    ) throws(RequestError) {
        try checkFloor(revision, keyspace)
        try reporting { () throws(StorageError) in
            var isDamaged = false
            var unescaped: [UInt8] = []
            try walk(range, at: revision, in: keyspace, hashes: hashes) { version in
                if version.isDeletion { return true }
                guard let fields = StoreFormat.rowFields(version.value) else {
                    isDamaged = true
                    return false
                }
                let value = UnsafeRawBufferPointer(rebasing: version.value[fields.valueStart...])
                func tell(_ key: UnsafeRawBufferPointer) -> Bool {
                    visit(
                        RowView(
                            key: key, value: value, createRevision: fields.createRevision,
                            modRevision: version.revision, version: fields.version,
                            lease: fields.lease))
                }
                if let key = StoreFormat.plainKey(ofRowKey: version.key) { return tell(key) }
                unescaped.removeAll(keepingCapacity: true)
                StoreFormat.unescape(rowKey: version.key, into: &unescaped)
                return unescaped.withUnsafeBytes { tell($0) }
            }
            if isDamaged { throw .corrupt("a row has no valid form") }
        }
        try checkFloor(revision, keyspace)
    }

    private func visible(
        _ key: Bytes, at revision: Revision, in keyspace: KeyspaceID
    ) throws(StorageError) -> Row? {
        var row = try newest(key, in: keyspace)
        // The cache holds the newest, which may lie above the frontier or above history's revision.
        if let newest = row, newest.modRevision > revision {
            row = try stored(key, at: revision, in: keyspace)
        }
        return row?.isDeletion == true ? nil : row
    }

    /// In the store's order: rows until the limit, then only counting, which copies nothing; and not
    /// even that where the count is known.
    private func ordered(
        _ query: RangeQuery, at revision: Revision, in keyspace: KeyspaceID, hashes: HashFilter,
        countsAll: Bool, maxBytes: Int
    ) throws(StorageError) -> RangeResult {
        var result = RangeResult()
        var buffer = RowBuffer()
        let limit = query.limit > 0 ? Int(clamping: query.limit) : Int.max
        let known = hashes.isAll ? counts.count(query.range, at: revision, keyspace) : nil
        if let known, query.countOnly {
            result.count = known
            return result
        }
        try walk(query.range, at: revision, in: keyspace, hashes: hashes) { version in
            if version.isDeletion { return true }
            result.count += 1
            if query.countOnly || result.more { return true }
            if query.hasFilter {
                guard let fields = StoreFormat.rowFields(version.value), query.passes(version, fields) else {
                    return true
                }
            }
            if buffer.count == limit || buffer.byteCount >= maxBytes {
                result.more = true
                return countsAll && known == nil
            }
            buffer.append(version, withValue: !query.keysOnly)
            return true
        }
        result.rows = try buffer.rows()
        guard hashes.isAll, countsAll else { return result }
        if let known {
            result.count = known
        } else if result.count > countedMin, query.countOnly || result.more {
            try follow(query.range, at: revision, keyspace, count: result.count)
        }
        if result.more, !query.hasFilter, let last = result.rows.last {
            counts.turned(
                query.range, at: revision, keyspace, rows: Int64(result.rows.count), last: last.key)
        }
        return result
    }

    // MARK: Counts

    /// How many keys there are, if that is known without a walk.
    package func knownCount(
        _ range: KeyRange, at revision: Revision, in keyspace: KeyspaceID
    ) throws(RequestError) -> Int64? {
        try checkFloor(revision, keyspace)
        return counts.count(range, at: revision, keyspace)
    }

    /// Somebody walks by all keys of the range, piece by piece, and will know their number (`counted`).
    package func willCount(
        _ range: KeyRange, at revision: Revision, in keyspace: KeyspaceID
    ) throws(RequestError) {
        if counts.isFollowed(range, at: revision, keyspace) { return }
        try reporting { () throws(StorageError) in
            try follow(range, at: revision, keyspace, count: nil)
        }
    }

    package func counted(
        _ range: KeyRange, at revision: Revision, in keyspace: KeyspaceID, count: Int64
    ) { counts.counted(range, at: revision, keyspace, count: count) }

    /// A page of the range ended so: what comes after it has a known count too.
    package func turned(
        _ range: KeyRange, at revision: Revision, in keyspace: KeyspaceID, rows: Int64, last: Bytes
    ) { counts.turned(range, at: revision, keyspace, rows: rows, last: last) }

    /// More changes than these above the revision of a query: one that reads the past.
    private static let laterMax = 256

    /// From now on the count of this range is known; without `count`, as soon as somebody has counted.
    private func follow(
        _ range: KeyRange, at revision: Revision, _ keyspace: KeyspaceID, count: Int64?
    ) throws(StorageError) {
        let cursor = database.cursor(until: StoreFormat.indexKey(keyspace, Revision(.max), .max))
        cursor.seek(StoreFormat.indexKey(keyspace, revision.next, 0))
        var seen: Set<Bytes> = [], later: [(revision: Revision, delta: Int64)] = []
        var current = revision, steps = 0
        while cursor.isValid {
            steps += 1
            guard steps <= Self.laterMax else { return }
            let at = StoreFormat.revision(ofIndexKey: cursor.key)
            if at != current {
                current = at
                seen.removeAll(keepingCapacity: true)
            }
            let key = Bytes(UnsafeRawBufferPointer(rebasing: cursor.value.dropFirst()))
            if range.contains(key), seen.insert(key).inserted {
                let before = try stored(key, at: at.previous, in: keyspace)?.isDeletion == false
                let after = try stored(key, at: at, in: keyspace)?.isDeletion == false
                if before != after { later.append((at, after ? 1 : -1)) }
            }
            cursor.next()
        }
        try cursor.check()
        counts.follow(range, at: revision, keyspace, count: count, later: later)
    }

    private func sorted(
        _ query: RangeQuery, at revision: Revision, in keyspace: KeyspaceID, hashes: HashFilter
    ) throws(StorageError) -> RangeResult {
        var buffer = RowBuffer()
        let needsValue = !query.keysOnly || query.target == .value
        try walk(query.range, at: revision, in: keyspace, hashes: hashes) { version in
            if !version.isDeletion { buffer.append(version, withValue: needsValue) }
            return true
        }
        return query.answer(fromAll: try buffer.rows())
    }

    // MARK: History

    package struct ChangesPage: Equatable, Sendable {
        package var changes: [RevisionChanges]
        /// Everything through here is in `changes`; below what was asked for if the page was full.
        package var through: Revision
    }

    /// Whole revisions of `(after, through]` in order, at least one if there is any; `.compacted` if
    /// `after` is below the floor. `takesRest`: what is left there will do, once the index is whole.
    package func changes(
        after: Revision, through: Revision, in keyspace: KeyspaceID, maxRows: Int,
        maxBytes: Int = .max, hashes: HashFilter = .all, takesRest: Bool = false
    ) throws(RequestError) -> ChangesPage {
        let takesRest = takesRest && isIndexWhole(keyspace)
        let floor = floor(of: keyspace)
        if !takesRest { try checkFloor(after, keyspace) }
        var page = ChangesPage(changes: [], through: through)
        if through <= after { return page }
        try reporting { () throws(StorageError) in
            let end = StoreFormat.indexKey(keyspace, through.next, 0)
            let cursor = database.cursor(until: end)
            cursor.seek(StoreFormat.indexKey(keyspace, after.next, 0))
            var rows: [Row] = []
            var count = 0, bytes = 0
            var current = after
            func finish() {
                if !rows.isEmpty { page.changes.append(RevisionChanges(revision: current, rows: rows)) }
                rows = []
            }
            while cursor.isValid {
                let revision = StoreFormat.revision(ofIndexKey: cursor.key), entry = cursor.value
                if revision != current {
                    finish()
                    if count >= maxRows || bytes >= maxBytes {
                        page.through = current
                        return
                    }
                    current = revision
                }
                let key = Bytes(UnsafeRawBufferPointer(rebasing: entry.dropFirst()))
                if hashes.isAll || hashes.contains(KeyHash.hash(key)) {
                    guard let row = try row(indexed: key, revision, keyspace) else {
                        guard revision <= floor else {
                            throw .corrupt("the index names a row at revision \(revision) that is not there")
                        }
                        // A deletion that stayed for a while, and has been removed for a later version.
                        cursor.next()
                        continue
                    }
                    bytes += row.key.count + row.value.count
                    rows.append(row)
                    count += 1
                }
                cursor.next()
            }
            try cursor.check()
            finish()
        }
        if !takesRest { try checkFloor(after, keyspace) }
        return page
    }

    private func row(
        indexed key: Bytes, _ revision: Revision, _ keyspace: KeyspaceID
    ) throws(StorageError) -> Row? {
        let found = try database.get(StoreFormat.rowKey(keyspace, key, revision)) {
            raw -> Result<Row, StorageError> in
            Result { () throws(StorageError) in try Self.row(key, revision, raw) }
        }
        return try found?.get()
    }

    // MARK: Hash

    /// Of the history in `(compacted, revision]` and what is visible at `compacted`: equal on all nodes
    /// that hold it, however much of what lies below each has removed. Reads everything: see the
    /// background version, which may be asked for a sum over the rows: those of parts sum to that of all.
    package func hash(
        at revision: Revision, compacted: Revision, in keyspace: KeyspaceID
    ) throws(RequestError) -> UInt32 {
        try checkFloor(compacted, keyspace)
        let snapshot = database.snapshot()
        return try reporting { () throws(StorageError) in
            try Self.hash(
                snapshot, at: revision, compacted: compacted, in: keyspace, hashes: .all, isSummed: false)
        }
    }

    /// `completion` is called on another thread.
    package func hashInBackground(
        at revision: Revision, compacted: Revision, in keyspace: KeyspaceID, hashes: HashFilter = .all,
        isSummed: Bool = false,
        _ completion: @escaping @Sendable (Result<UInt32, RequestError>) -> Void
    ) {
        if compacted < floor(of: keyspace) { return completion(.failure(.compacted)) }
        let snapshot = database.snapshot(), onFailure = self.onFailure
        let run: @Sendable () -> Void = {
            let hash = Result { () throws(StorageError) in
                try Self.hash(
                    snapshot, at: revision, compacted: compacted, in: keyspace, hashes: hashes,
                    isSummed: isSummed)
            }
            if case .failure(let error) = hash { onFailure(error) }
            completion(hash.mapError { _ in .stopped })
        }
        if (try? Posix.startDetachedThread(run)) == nil { run() }
    }

    private static func hash(
        _ snapshot: RocksDatabase.Snapshot, at revision: Revision, compacted: Revision,
        in keyspace: KeyspaceID, hashes: HashFilter, isSummed: Bool
    ) throws(StorageError) -> UInt32 {
        let cursor = snapshot.cursor(until: StoreFormat.rowsEnd(keyspace))
        cursor.seek(StoreFormat.rowsStart(keyspace))
        var crc: UInt32 = 0, sum: UInt32 = 0
        var prefix: [UInt8] = [], user: [UInt8] = []
        var isMeant = true
        /// This key's version visible at `compacted` has been seen: the rest may be gone elsewhere.
        var isBelow = false
        while cursor.isValid {
            let version = StoredVersion(key: cursor.key, value: cursor.value)
            let prefixCount = version.key.count - StoreFormat.revisionBytes
            if prefix.count != prefixCount || !version.key.elementsEqual(prefixOf: prefix, count: prefixCount) {
                prefix = Array(version.key[..<prefixCount])
                isBelow = false
                if !hashes.isAll {
                    user.removeAll(keepingCapacity: true)
                    StoreFormat.unescape(rowKey: version.key, into: &user)
                    isMeant = hashes.contains(user.withUnsafeBytes { KeyHash.hash($0) })
                }
            }
            if isMeant, version.revision <= revision && !isBelow {
                isBelow = version.revision <= compacted
                if !(isBelow && version.isDeletion) {
                    crc = CRC32C.checksum(version.key, seed: crc)
                    crc = CRC32C.checksum(version.value, seed: crc)
                    if isSummed {
                        sum &+= crc
                        crc = 0
                    }
                }
            }
            cursor.next()
        }
        try cursor.check()
        return isSummed ? sum : crc
    }

    // MARK: Sizes

    package struct Sizes: Equatable, Sendable {
        package var total: UInt64
        package var inUse: UInt64
    }

    package func sizes() -> Sizes {
        let memory = database.property("rocksdb.cur-size-all-mem-tables")
        let files = database.property("rocksdb.total-sst-files-size")
        let live = database.property("rocksdb.estimate-live-data-size")
        return Sizes(total: files + memory, inUse: min(live, files) + memory)
    }

    // MARK: Errors

    func checkFloor(_ revision: Revision, _ keyspace: KeyspaceID) throws(RequestError) {
        if revision < floor(of: keyspace) { throw .compacted }
    }

    func reporting<R>(_ body: () throws(StorageError) -> R) throws(RequestError) -> R {
        do throws(StorageError) {
            return try body()
        } catch {
            onFailure(error)
            throw .stopped
        }
    }
}

extension RangeQuery {
    fileprivate func passes(_ version: StoredVersion, _ fields: StoreFormat.RowFields) -> Bool {
        // One rule, in Primitives: the value does not take part in it.
        passesFilter(
            Row(
                key: .empty, value: .empty, createRevision: fields.createRevision,
                modRevision: version.revision, version: fields.version, lease: fields.lease,
                sub: fields.sub, origin: fields.origin))
    }
}
