/// Where a version was first written: its region, that region's revision, its stamp (geo.md).
public struct Origin: Hashable, Sendable {
    public let region: RegionID
    public let revision: Revision
    public let stamp: Stamp
    public init(region: RegionID, revision: Revision, stamp: Stamp) {
        self.region = region
        self.revision = revision
        self.stamp = stamp
    }
}

/// One version of one key. The first seven fields are etcd's KeyValue; a deletion has `version` 0,
/// as in etcd's delete events, and its `modRevision` is the revision that deleted.
public struct Row: Hashable, Sendable {
    public var key: Bytes
    public var value: Bytes
    public var createRevision: Revision
    public var modRevision: Revision
    public var version: Int64
    public var lease: LeaseID
    /// Position of the change inside its revision: order of operations, then key order (S18).
    public var sub: UInt32
    public var origin: Origin

    public init(
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

    public var isDeletion: Bool { version == 0 }
}

/// A version as it lies in the store, valid during the call that it is handed to.
public struct RowView {
    public let key: UnsafeRawBufferPointer
    public let value: UnsafeRawBufferPointer
    public let createRevision: Revision
    public let modRevision: Revision
    public let version: Int64
    public let lease: LeaseID
    public init(
        key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer, createRevision: Revision,
        modRevision: Revision, version: Int64, lease: LeaseID
    ) {
        self.key = key
        self.value = value
        self.createRevision = createRevision
        self.modRevision = modRevision
        self.version = version
        self.lease = lease
    }
}

extension Row {
    /// As clients see it: not which of its revision's operations wrote it, nor where.
    public init(_ view: RowView, withValue: Bool = true) {
        self.init(
            key: Bytes(view.key), value: withValue ? Bytes(view.value) : .empty,
            createRevision: view.createRevision, modRevision: view.modRevision, version: view.version,
            lease: view.lease, sub: 0,
            origin: Origin(region: RegionID(0), revision: .zero, stamp: .zero))
    }
}

/// etcd's pair (key, range_end): empty end = that one key; a single zero byte = every key from `key` on;
/// otherwise `[key, end)`.
public struct KeyRange: Hashable, Sendable {
    public let key: Bytes
    public let end: Bytes

    public init(key: Bytes, end: Bytes = .empty) {
        self.key = key
        self.end = end
    }

    public static let everything = KeyRange(key: Bytes([0]), end: Bytes([0]))

    public var isSingle: Bool { end.isEmpty }
    public var isFromKey: Bool { end.count == 1 && end[0] == 0 }
    /// A range whose end is not above its start holds nothing.
    public var isEmpty: Bool { !isSingle && !isFromKey && end <= key }

    public func contains(_ other: Bytes) -> Bool {
        if isSingle { return other == key }
        return key <= other && (isFromKey || other < end)
    }

    public func overlaps(_ other: KeyRange) -> Bool {
        if isEmpty || other.isEmpty { return false }
        if isSingle { return other.contains(key) }
        if other.isSingle { return contains(other.key) }
        return (isFromKey || other.key < end) && (other.isFromKey || key < other.end)
    }
}

/// All changes of one revision, in order of `sub`: what watchers and links are fed with.
public struct RevisionChanges: Equatable, Sendable {
    public let revision: Revision
    public let rows: [Row]
    public init(revision: Revision, rows: [Row]) {
        self.revision = revision
        self.rows = rows
    }
}

extension ByteWriter {
    public mutating func row(_ row: Row) {
        bytes(row.key)
        bytes(row.value)
        id(row.createRevision)
        id(row.modRevision)
        varint(UInt64(bitPattern: row.version))
        signed(row.lease.rawValue)
        varint(UInt64(row.sub))
        origin(row.origin)
    }
    public mutating func origin(_ origin: Origin) {
        id(origin.region)
        id(origin.revision)
        stamp(origin.stamp)
    }
    public mutating func keyRange(_ range: KeyRange) {
        bytes(range.key)
        bytes(range.end)
    }
}

extension ByteReader {
    public mutating func row() throws(DecodingError) -> Row {
        Row(
            key: try bytes(), value: try bytes(), createRevision: try id(), modRevision: try id(),
            version: Int64(bitPattern: try varint()), lease: LeaseID(try signed()),
            sub: try uint32(), origin: try origin())
    }
    public mutating func origin() throws(DecodingError) -> Origin {
        Origin(region: try id(), revision: try id(), stamp: try stamp())
    }
    public mutating func keyRange() throws(DecodingError) -> KeyRange {
        KeyRange(key: try bytes(), end: try bytes())
    }
    public mutating func uint32() throws(DecodingError) -> UInt32 {
        guard let value = UInt32(exactly: try varint()) else { throw DecodingError("over 32 bits") }
        return value
    }
}
