/// Where a version was first written: its region, that region's revision, its stamp (geo.md).
package struct Origin: Hashable, Sendable {
    package let region: RegionID
    package let revision: Revision
    package let stamp: Stamp
    package init(region: RegionID, revision: Revision, stamp: Stamp) {
        self.region = region
        self.revision = revision
        self.stamp = stamp
    }
}

/// One version of one key. The first seven fields are etcd's KeyValue; a deletion has `version` 0,
/// as in etcd's delete events, and its `modRevision` is the revision that deleted.
package struct Row: Hashable, Sendable {
    package var key: Bytes
    package var value: Bytes
    package var createRevision: Revision
    package var modRevision: Revision
    package var version: Int64
    package var lease: LeaseID
    /// Position of the change inside its revision: order of operations, then key order (S18).
    package var sub: UInt32
    package var origin: Origin

    package init(
        key: Bytes, value: Bytes, createRevision: Revision, modRevision: Revision, version: Int64,
        lease: LeaseID, sub: UInt32, origin: Origin
    ) {
        self.key = key
        self.value = value
        self.createRevision = createRevision
        self.modRevision = modRevision
        self.version = version
        self.lease = lease
        self.sub = sub
        self.origin = origin
    }

    package var isDeletion: Bool { version == 0 }
}

/// etcd's pair (key, range_end): empty end = that one key; a single zero byte = every key from `key` on;
/// otherwise `[key, end)`.
package struct KeyRange: Hashable, Sendable {
    package let key: Bytes
    package let end: Bytes

    package init(key: Bytes, end: Bytes = .empty) {
        self.key = key
        self.end = end
    }

    package static let everything = KeyRange(key: Bytes([0]), end: Bytes([0]))

    package var isSingle: Bool { end.isEmpty }
    package var isFromKey: Bool { end.count == 1 && end[0] == 0 }
    /// A range whose end is not above its start holds nothing.
    package var isEmpty: Bool { !isSingle && !isFromKey && end <= key }

    package func contains(_ other: Bytes) -> Bool {
        if isSingle { return other == key }
        return key <= other && (isFromKey || other < end)
    }

    package func overlaps(_ other: KeyRange) -> Bool {
        if isEmpty || other.isEmpty { return false }
        if isSingle { return other.contains(key) }
        if other.isSingle { return contains(other.key) }
        return (isFromKey || other.key < end) && (other.isFromKey || key < other.end)
    }
}

/// All changes of one revision, in order of `sub`: what watchers and links are fed with.
package struct RevisionChanges: Equatable, Sendable {
    package let revision: Revision
    package let rows: [Row]
    package init(revision: Revision, rows: [Row]) {
        self.revision = revision
        self.rows = rows
    }
}

extension ByteWriter {
    package mutating func row(_ row: Row) {
        bytes(row.key)
        bytes(row.value)
        id(row.createRevision)
        id(row.modRevision)
        varint(UInt64(bitPattern: row.version))
        signed(row.lease.rawValue)
        varint(UInt64(row.sub))
        origin(row.origin)
    }
    package mutating func origin(_ origin: Origin) {
        id(origin.region)
        id(origin.revision)
        stamp(origin.stamp)
    }
    package mutating func keyRange(_ range: KeyRange) {
        bytes(range.key)
        bytes(range.end)
    }
}

extension ByteReader {
    package mutating func row() throws(DecodingError) -> Row {
        Row(
            key: try bytes(), value: try bytes(), createRevision: try id(), modRevision: try id(),
            version: Int64(bitPattern: try varint()), lease: LeaseID(try signed()),
            sub: try uint32(), origin: try origin())
    }
    package mutating func origin() throws(DecodingError) -> Origin {
        Origin(region: try id(), revision: try id(), stamp: try stamp())
    }
    package mutating func keyRange() throws(DecodingError) -> KeyRange {
        KeyRange(key: try bytes(), end: try bytes())
    }
    package mutating func uint32() throws(DecodingError) -> UInt32 {
        guard let value = UInt32(exactly: try varint()) else { throw DecodingError("over 32 bits") }
        return value
    }
}
