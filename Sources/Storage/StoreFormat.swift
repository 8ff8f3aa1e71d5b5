import Glibc
import Primitives

/// Bytes of the store's keys and values (docs/formats.md). Pure.
enum StoreFormat {
    static let version: UInt8 = 1
    static let rowTag = UInt8(ascii: "r"), indexTag = UInt8(ascii: "i")
    static let recordTag = UInt8(ascii: "g"), appliedTag = UInt8(ascii: "a")
    static let metaTag = UInt8(ascii: "m")
    static let revisionBytes = 8
    /// Tag and keyspace.
    static let rowHeadBytes = 5
    static let liveKind: UInt8 = 1, deletionKind: UInt8 = 2

    static func big<T: FixedWidthInteger>(_ value: T, into key: inout [UInt8]) {
        withUnsafeBytes(of: value.bigEndian) { key.append(contentsOf: $0) }
    }
    static func big<T: FixedWidthInteger>(_ raw: UnsafeRawBufferPointer, _ at: Int) -> T {
        T(bigEndian: raw.loadUnaligned(fromByteOffset: at, as: T.self))
    }

    // MARK: Rows: tag, keyspace, escaped key, terminator, inverted revision

    /// Zero bytes become 00 FF and the key ends with 00 01, so that no key's form is a prefix of
    /// another's and their order is the keys' order.
    static func rowPrefix(_ keyspace: KeyspaceID, _ key: Bytes, into out: inout [UInt8]) {
        out.removeAll(keepingCapacity: true)
        out.append(rowTag)
        big(keyspace.rawValue, into: &out)
        key.withUnsafeBytes { raw in
            if !raw.contains(0) { return out.append(contentsOf: raw) }
            for byte in raw {
                out.append(byte)
                if byte == 0 { out.append(0xFF) }
            }
        }
        out.append(0)
        out.append(1)
    }
    static func rowPrefix(_ keyspace: KeyspaceID, _ key: Bytes) -> [UInt8] {
        var out: [UInt8] = []
        rowPrefix(keyspace, key, into: &out)
        return out
    }
    /// Newest first: the revision is inverted.
    static func appendRevision(_ revision: Revision, to key: inout [UInt8]) {
        big(~UInt64(bitPattern: revision.rawValue), into: &key)
    }
    static func rowKey(_ keyspace: KeyspaceID, _ key: Bytes, _ revision: Revision) -> [UInt8] {
        var out: [UInt8] = []
        rowPrefix(keyspace, key, into: &out)
        appendRevision(revision, to: &out)
        return out
    }
    static func rowsEnd(_ keyspace: KeyspaceID) -> [UInt8] { end(rowTag, keyspace) }
    static func rowsStart(_ keyspace: KeyspaceID) -> [UInt8] { start(rowTag, keyspace) }
    static func rowBounds(_ range: KeyRange, _ keyspace: KeyspaceID) -> (first: [UInt8], end: [UInt8]) {
        let first = rowPrefix(keyspace, range.key)
        if range.isSingle { return (first, after(first)) }
        return (first, range.isFromKey ? rowsEnd(keyspace) : rowPrefix(keyspace, range.end))
    }
    /// The least key above all versions of the one with this prefix: its terminator 00 01 becomes 00 02.
    static func after(_ prefix: [UInt8]) -> [UInt8] {
        var end = prefix
        end[end.count - 1] = 2
        return end
    }
    static func revision(ofRowKey raw: UnsafeRawBufferPointer) -> Revision {
        Revision(Int64(bitPattern: ~(big(raw, raw.count - revisionBytes) as UInt64)))
    }
    /// The user key where it stands, if nothing in it is escaped.
    static func plainKey(ofRowKey raw: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        let key = UnsafeRawBufferPointer(rebasing: raw[rowHeadBytes..<(raw.count - revisionBytes - 2)])
        guard key.count > 0, let start = key.baseAddress else { return key }
        return memchr(start, 0, key.count) == nil ? key : nil
    }
    /// Appends the user key.
    static func unescape(rowKey raw: UnsafeRawBufferPointer, into out: inout [UInt8]) {
        let escaped = UnsafeRawBufferPointer(rebasing: raw[rowHeadBytes..<(raw.count - revisionBytes - 2)])
        if !escaped.contains(0) { return out.append(contentsOf: escaped) }
        var i = 0
        while i < escaped.count {
            out.append(escaped[i])
            i += escaped[i] == 0 ? 2 : 1
        }
    }

    /// What stands before the client's value: a kind and eight numbers.
    static func rowHead(_ row: Row, _ pen: inout Pen) {
        pen.byte(row.isDeletion ? deletionKind : liveKind)
        pen.varint(UInt64(bitPattern: row.createRevision.rawValue))
        pen.varint(UInt64(bitPattern: row.version))
        let lease = row.lease.rawValue
        pen.varint(UInt64(bitPattern: (lease << 1) ^ (lease >> 63)))
        pen.varint(UInt64(row.sub))
        pen.varint(UInt64(row.origin.region.rawValue))
        pen.varint(UInt64(bitPattern: row.origin.revision.rawValue))
        pen.varint(row.origin.stamp.ticks)
        pen.varint(UInt64(row.origin.stamp.region.rawValue))
    }
    static let rowHeadBytesMax = 1 + 8 * 10
    static let indexKeyBytes = 17

    static func zeros(in key: UnsafeRawBufferPointer) -> Int {
        guard let start = key.baseAddress, memchr(start, 0, key.count) != nil else { return 0 }
        return key.count { $0 == 0 }
    }

    struct RowFields {
        var createRevision: Revision
        var version: Int64
        var lease: LeaseID
        var sub: UInt32
        var origin: Origin
        var valueStart: Int
    }
    /// nil: not a row's value.
    static func rowFields(_ raw: UnsafeRawBufferPointer) -> RowFields? {
        guard raw.count > 0, raw[0] == liveKind || raw[0] == deletionKind else { return nil }
        var at = 1, intact = true
        func varint() -> UInt64 {
            var value: UInt64 = 0, shift: UInt64 = 0
            while at < raw.count && shift < 64 {
                let byte = raw[at]
                at &+= 1
                value |= UInt64(byte & 0x7F) << shift
                if byte < 0x80 { return value }
                shift &+= 7
            }
            intact = false
            return 0
        }
        let create = Revision(Int64(bitPattern: varint())), version = Int64(bitPattern: varint())
        let zigzag = varint()
        let lease = LeaseID(Int64(bitPattern: (zigzag >> 1) ^ (0 &- (zigzag & 1))))
        let sub = UInt32(truncatingIfNeeded: varint())
        let region = RegionID(UInt16(truncatingIfNeeded: varint()))
        let revision = Revision(Int64(bitPattern: varint()))
        let stamp = Stamp(ticks: varint(), region: RegionID(UInt16(truncatingIfNeeded: varint())))
        guard intact, (version == 0) == (raw[0] == deletionKind) else { return nil }
        return RowFields(
            createRevision: create, version: version, lease: lease, sub: sub,
            origin: Origin(region: region, revision: revision, stamp: stamp), valueStart: at)
    }

    // MARK: Revision index: tag, keyspace, revision, sub -> kind, user key

    static func indexKey(_ keyspace: KeyspaceID, _ revision: Revision, _ sub: UInt32) -> [UInt8] {
        var out: [UInt8] = []
        indexKey(keyspace, revision, sub, into: &out)
        return out
    }
    static func indexKey(
        _ keyspace: KeyspaceID, _ revision: Revision, _ sub: UInt32, into out: inout [UInt8]
    ) {
        out.append(indexTag)
        big(keyspace.rawValue, into: &out)
        big(UInt64(bitPattern: revision.rawValue), into: &out)
        big(sub, into: &out)
    }
    static func indexEnd(_ keyspace: KeyspaceID) -> [UInt8] { end(indexTag, keyspace) }
    static func revision(ofIndexKey raw: UnsafeRawBufferPointer) -> Revision {
        Revision(Int64(bitPattern: big(raw, 5) as UInt64))
    }

    // MARK: Groups and the store's own

    static func recordPrefix(_ group: GroupID) -> [UInt8] { grouped(recordTag, group) }
    static func recordKey(_ group: GroupID, _ key: Bytes) -> [UInt8] {
        var out = recordPrefix(group)
        key.withUnsafeBytes { out.append(contentsOf: $0) }
        return out
    }
    static func appliedKey(_ group: GroupID) -> [UInt8] { grouped(appliedTag, group) }
    static func group(ofKey raw: UnsafeRawBufferPointer, at: Int = 1) -> GroupID {
        GroupID(keyspace: KeyspaceID(big(raw, at)), partition: PartitionID(big(raw, at + 4)))
    }
    static let versionKey = [metaTag, UInt8(ascii: "v")]
    static let floorPrefix = [metaTag, UInt8(ascii: "f")]
    static let importPrefix = [metaTag, UInt8(ascii: "i")]
    static let dropPrefix = [metaTag, UInt8(ascii: "d")]
    static let droppedPrefix = [metaTag, UInt8(ascii: "z")]
    static func dropKey(_ hashes: HashRange) -> [UInt8] {
        var out = dropPrefix
        big(hashes.first, into: &out)
        big(hashes.last, into: &out)
        return out
    }
    static func floorKey(_ keyspace: KeyspaceID) -> [UInt8] {
        var out = floorPrefix
        big(keyspace.rawValue, into: &out)
        return out
    }
    static func importKey(_ group: GroupID) -> [UInt8] {
        var out = importPrefix
        big(group.keyspace.rawValue, into: &out)
        big(group.partition.rawValue, into: &out)
        return out
    }
    static func droppedKey(_ group: GroupID) -> [UInt8] {
        var out = droppedPrefix
        big(group.keyspace.rawValue, into: &out)
        big(group.partition.rawValue, into: &out)
        return out
    }
    static func number(_ value: UInt64) -> [UInt8] {
        var out: [UInt8] = []
        big(value, into: &out)
        return out
    }

    private static func grouped(_ tag: UInt8, _ group: GroupID) -> [UInt8] {
        var out = start(tag, group.keyspace)
        big(group.partition.rawValue, into: &out)
        return out
    }
    private static func start(_ tag: UInt8, _ keyspace: KeyspaceID) -> [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(17)
        out.append(tag)
        big(keyspace.rawValue, into: &out)
        return out
    }
    private static func end(_ tag: UInt8, _ keyspace: KeyspaceID) -> [UInt8] {
        keyspace.rawValue == .max ? [tag + 1] : start(tag, KeyspaceID(keyspace.rawValue + 1))
    }
    /// The least key above all that begin with `prefix` (whose last byte is not FF).
    static func end(ofPrefix prefix: [UInt8]) -> [UInt8] {
        var out = prefix
        while let last = out.popLast() {
            if last < .max { return out + [last + 1] }
        }
        return [.max]
    }
}
