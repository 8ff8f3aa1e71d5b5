import Primitives

/// A stored version under a cursor: valid until the cursor moves.
struct StoredVersion {
    let key: UnsafeRawBufferPointer
    let value: UnsafeRawBufferPointer
    var revision: Revision { StoreFormat.revision(ofRowKey: key) }
    var isDeletion: Bool { value.count > 0 && value[0] == StoreFormat.deletionKind }
}

extension Store {
    /// Steps taken before a seek (some 3 us) is the shorter way past a key's other versions.
    private static let stepsMax = 6

    /// In key order, the version of each key of the range that is visible at `revision`, deletions
    /// included. `visit` returns false to end the walk.
    func walk(
        _ range: KeyRange, at revision: Revision, in keyspace: KeyspaceID, hashes: HashFilter,
        _ visit: (StoredVersion) -> Bool
    ) throws(StorageError) {
        if range.isEmpty { return }
        let bounds = StoreFormat.rowBounds(range, keyspace)
        let cursor = database.cursor(until: bounds.end)
        // The least user key is no reason to seek past keys that hash elsewhere: they are stepped over.
        cursor.seek(bounds.first)
        var prefix: [UInt8] = []
        var user: [UInt8] = []
        var needsSkip = false
        while cursor.isValid {
            let key = cursor.key, prefixCount = key.count - StoreFormat.revisionBytes
            if needsSkip && prefix.count == prefixCount && key.elementsEqual(prefixOf: prefix, count: prefixCount) {
                Self.pass(cursor, prefix)
                needsSkip = false
                continue
            }
            prefix.removeAll(keepingCapacity: true)
            prefix.append(contentsOf: UnsafeRawBufferPointer(rebasing: key[..<prefixCount]))
            if !hashes.isAll {
                user.removeAll(keepingCapacity: true)
                StoreFormat.unescape(rowKey: key, into: &user)
                if !hashes.contains(user.withUnsafeBytes { KeyHash.hash($0) }) {
                    Self.pass(cursor, prefix)
                    continue
                }
            }
            if StoreFormat.revision(ofRowKey: key) > revision {
                guard Self.descend(cursor, prefix, to: revision) else { continue }
            }
            if !visit(StoredVersion(key: cursor.key, value: cursor.value)) { return }
            cursor.next()
            needsSkip = true
        }
        try cursor.check()
    }

    /// To the first key that is not a version of this one.
    private static func pass(_ cursor: Cursor, _ prefix: [UInt8]) {
        for _ in 0..<stepsMax {
            cursor.next()
            guard cursor.isValid else { return }
            let key = cursor.key
            if key.count != prefix.count + StoreFormat.revisionBytes
                || !key.elementsEqual(prefixOf: prefix, count: prefix.count)
            { return }
        }
        cursor.seek(StoreFormat.after(prefix))
    }

    /// To this key's newest version not above `revision`; false: there is none, and the cursor stands
    /// on another key or at the end.
    private static func descend(_ cursor: Cursor, _ prefix: [UInt8], to revision: Revision) -> Bool {
        var steps = 0
        while true {
            if steps == stepsMax {
                var target = prefix
                StoreFormat.appendRevision(revision, to: &target)
                cursor.seek(target)
            } else {
                cursor.next()
            }
            steps += 1
            guard cursor.isValid else { return false }
            let key = cursor.key
            guard key.count == prefix.count + StoreFormat.revisionBytes,
                key.elementsEqual(prefixOf: prefix, count: prefix.count)
            else { return false }
            if StoreFormat.revision(ofRowKey: key) <= revision { return true }
        }
    }
}

/// Rows whose keys and values share one allocation.
struct RowBuffer {
    private struct Place {
        var key: Int
        var value: Int
        var end: Int
        var revision: Revision
        var fields: StoreFormat.RowFields
    }
    private var bytes: [UInt8] = []
    private var places: [Place] = []
    private var isDamaged = false

    var count: Int { places.count }
    var byteCount: Int { bytes.count }

    mutating func append(_ version: StoredVersion, withValue: Bool) {
        guard let fields = StoreFormat.rowFields(version.value) else {
            isDamaged = true
            return
        }
        append(version, fields, withValue: withValue)
    }

    mutating func append(_ version: StoredVersion, _ fields: StoreFormat.RowFields, withValue: Bool) {
        let key = bytes.count
        StoreFormat.unescape(rowKey: version.key, into: &bytes)
        let value = bytes.count
        if withValue {
            bytes.append(
                contentsOf: UnsafeRawBufferPointer(rebasing: version.value[fields.valueStart...]))
        }
        places.append(
            Place(key: key, value: value, end: bytes.count, revision: version.revision, fields: fields))
    }

    func rows() throws(StorageError) -> [Row] {
        if isDamaged { throw .corrupt("a row has no valid form") }
        // Offsets in `Bytes` are 32 bits; a range of that size is refused long before.
        guard bytes.count <= UInt32.max else { throw .database("a range of \(bytes.count) bytes") }
        return places.map { place in
            Row(
                key: Bytes(storage: bytes, start: place.key, end: place.value),
                value: Bytes(storage: bytes, start: place.value, end: place.end),
                createRevision: place.fields.createRevision, modRevision: place.revision,
                version: place.fields.version, lease: place.fields.lease, sub: place.fields.sub,
                origin: place.fields.origin)
        }
    }
}
