import Glibc
import Primitives

/// One write's changes, which go into the batch in the order of their keys: neighbours that follow each
/// other cost the memtable's skip list a few steps instead of a search from its top (a third of the CPU of
/// a large transaction). Of one key's changes the later one stays the later one.
///
/// Each change is written once, as it stands in RocksDB's form of a batch (its own log's form, which old
/// versions must be able to read): tag, length of the key, key, length of the value, value. What is left to do
/// is to put them in order, behind a head of twelve bytes: sequence number (RocksDB's to fill in) and count.
struct OrderedWrites {
    private struct Entry {
        // Small: sorting moves them about. A batch is far below 4 GiB.
        var start: UInt32
        var key: UInt32
        var keyEnd: UInt32
        var value: UInt32
        var end: UInt32
        var isDeletion: Bool { value == .max }
    }
    private let bytes = Room()
    /// Of a row's value: what stands before the client's.
    private let head = Room()
    private let batch = Room()
    /// By what their keys begin with, so that most are in order as they come.
    private var rows: [Entry] = []
    private var index: [Entry] = []
    private var records: [Entry] = []

    private static let deletionTag: UInt8 = 0, putTag: UInt8 = 1
    private static let headBytes = 12
    /// A tag and two lengths.
    private static let frameBytes = 1 + 2 * 5

    /// The row and its entry in the revision index.
    mutating func put(_ row: Row, _ keyspace: KeyspaceID) {
        row.key.withUnsafeBytes { key in
            row.value.withUnsafeBytes { value in put(row, keyspace, key, value) }
        }
    }

    private mutating func put(
        _ row: Row, _ keyspace: KeyspaceID, _ key: UnsafeRawBufferPointer,
        _ value: UnsafeRawBufferPointer
    ) {
        head.count = 0
        var pen = head.pen(for: StoreFormat.rowHeadBytesMax)
        StoreFormat.rowHead(row, &pen)
        head.took(pen)
        let zeros = StoreFormat.zeros(in: key)
        let keyCount = StoreFormat.rowHeadBytes + key.count + zeros + 2 + StoreFormat.revisionBytes
        let valueCount = head.count + value.count
        pen = bytes.pen(
            for: 2 * Self.frameBytes + keyCount + valueCount + StoreFormat.indexKeyBytes + 1 + key.count)

        var start = bytes.offset(pen)
        pen.byte(Self.putTag)
        pen.varint(UInt64(keyCount))
        var keyStart = bytes.offset(pen)
        pen.byte(StoreFormat.rowTag)
        pen.big(keyspace.rawValue)
        if zeros == 0 {
            pen.raw(key)
        } else {
            for byte in key {
                pen.byte(byte)
                if byte == 0 { pen.byte(0xFF) }
            }
        }
        pen.byte(0)
        pen.byte(1)
        pen.big(~UInt64(bitPattern: row.modRevision.rawValue))
        var keyEnd = bytes.offset(pen)
        pen.varint(UInt64(valueCount))
        var valueStart = bytes.offset(pen)
        pen.raw(head.all)
        pen.raw(value)
        rows.append(
            Entry(
                start: start, key: keyStart, keyEnd: keyEnd, value: valueStart, end: bytes.offset(pen)))

        start = bytes.offset(pen)
        pen.byte(Self.putTag)
        pen.varint(UInt64(StoreFormat.indexKeyBytes))
        keyStart = bytes.offset(pen)
        pen.byte(StoreFormat.indexTag)
        pen.big(keyspace.rawValue)
        pen.big(UInt64(bitPattern: row.modRevision.rawValue))
        pen.big(row.sub)
        keyEnd = bytes.offset(pen)
        pen.varint(UInt64(1 + key.count))
        valueStart = bytes.offset(pen)
        pen.byte(row.isDeletion ? StoreFormat.deletionKind : StoreFormat.liveKind)
        pen.raw(key)
        index.append(
            Entry(
                start: start, key: keyStart, keyEnd: keyEnd, value: valueStart, end: bytes.offset(pen)))
        bytes.took(pen)
    }

    mutating func put(_ key: [UInt8], _ value: Bytes) {
        var pen = bytes.pen(for: Self.frameBytes + key.count + value.count)
        let start = bytes.offset(pen)
        pen.byte(Self.putTag)
        pen.varint(UInt64(key.count))
        let keyStart = bytes.offset(pen)
        key.withUnsafeBytes { pen.raw($0) }
        let keyEnd = bytes.offset(pen)
        pen.varint(UInt64(value.count))
        let valueStart = bytes.offset(pen)
        value.withUnsafeBytes { pen.raw($0) }
        add(
            Entry(start: start, key: keyStart, keyEnd: keyEnd, value: valueStart, end: bytes.offset(pen)),
            key)
        bytes.took(pen)
    }

    mutating func delete(_ key: [UInt8]) {
        var pen = bytes.pen(for: Self.frameBytes + key.count)
        let start = bytes.offset(pen)
        pen.byte(Self.deletionTag)
        pen.varint(UInt64(key.count))
        let keyStart = bytes.offset(pen)
        key.withUnsafeBytes { pen.raw($0) }
        let end = bytes.offset(pen)
        add(Entry(start: start, key: keyStart, keyEnd: end, value: .max, end: end), key)
        bytes.took(pen)
    }

    /// Where its like are: what is said of one key must stay in order.
    private mutating func add(_ entry: Entry, _ key: [UInt8]) {
        switch key.first {
        case StoreFormat.rowTag: rows.append(entry)
        case StoreFormat.indexTag: index.append(entry)
        default: records.append(entry)
        }
    }

    /// The whole as RocksDB takes it; not called if there is nothing.
    mutating func assembled(
        _ body: (UnsafeRawBufferPointer) throws(StorageError) -> Void
    ) throws(StorageError) {
        let count = rows.count + index.count + records.count
        guard count > 0 else { return }
        sort()
        batch.count = 0
        var pen = batch.pen(for: Self.headBytes + bytes.count)
        pen.little(0 as UInt64)
        pen.little(UInt32(count))
        for entry in records { pen.raw(bytes[entry.start, entry.end]) }
        for entry in index { pen.raw(bytes[entry.start, entry.end]) }
        for entry in rows { pen.raw(bytes[entry.start, entry.end]) }
        batch.took(pen)
        try body(batch.all)
    }

    /// Behind what is in `batch` already.
    mutating func drain(into batch: WriteBatch) {
        sort()
        for list in [records, index, rows] {
            for entry in list {
                if entry.isDeletion {
                    batch.delete(bytes[entry.key, entry.keyEnd])
                } else {
                    batch.put(bytes[entry.key, entry.keyEnd], bytes[entry.value, entry.end])
                }
            }
        }
        clear()
    }

    private mutating func sort() {
        Self.sort(&rows, bytes)
        Self.sort(&index, bytes)
        Self.sort(&records, bytes)
    }

    private static func sort(_ entries: inout [Entry], _ bytes: Room) {
        func isBefore(_ a: Entry, _ b: Entry) -> Bool {
            let x = bytes[a.key, a.keyEnd], y = bytes[b.key, b.keyEnd]
            guard let p = x.baseAddress, let q = y.baseAddress else { return x.count < y.count }
            let order = memcmp(p, q, min(x.count, y.count))
            if order != 0 { return order < 0 }
            return x.count == y.count ? a.start < b.start : x.count < y.count
        }
        var i = 1
        while i < entries.count, isBefore(entries[i - 1], entries[i]) { i += 1 }
        if i < entries.count { entries.sort(by: isBefore) }
    }

    mutating func clear() {
        bytes.count = 0
        rows.removeAll(keepingCapacity: true)
        index.removeAll(keepingCapacity: true)
        records.removeAll(keepingCapacity: true)
    }
}

/// Memory that grows and is used again and again. An array would check at each of the many small writes
/// whether it is whose it is.
private final class Room {
    private var base: UnsafeMutablePointer<UInt8>
    private var capacity = 256
    var count = 0

    init() { base = .allocate(capacity: capacity) }
    deinit { base.deallocate() }

    /// To write up to so many bytes behind what there is.
    func pen(for more: Int) -> Pen {
        if count + more > capacity {
            capacity = max(count + more, 2 * capacity)
            let larger = UnsafeMutablePointer<UInt8>.allocate(capacity: capacity)
            larger.update(from: base, count: count)
            base.deallocate()
            base = larger
        }
        return Pen(at: base + count, end: base + capacity)
    }
    func offset(_ pen: Pen) -> UInt32 { UInt32(pen.at - base) }
    func took(_ pen: Pen) { count = pen.at - base }

    var all: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base, count: count) }
    subscript(start: UInt32, end: UInt32) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: base + Int(start), count: Int(end - start))
    }
}

/// Writes where there is room for what it is asked to write.
struct Pen {
    fileprivate(set) var at: UnsafeMutablePointer<UInt8>
    fileprivate let end: UnsafeMutablePointer<UInt8>

    mutating func byte(_ value: UInt8) {
        invariant(at < end)
        at.pointee = value
        at += 1
    }
    mutating func varint(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            byte(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        byte(UInt8(truncatingIfNeeded: rest))
    }
    mutating func big<T: FixedWidthInteger>(_ value: T) { store(value.bigEndian) }
    mutating func little<T: FixedWidthInteger>(_ value: T) { store(value.littleEndian) }
    mutating func raw(_ bytes: UnsafeRawBufferPointer) {
        guard let start = bytes.baseAddress, bytes.count > 0 else { return }
        invariant(bytes.count <= end - at)
        memcpy(at, start, bytes.count)
        at += bytes.count
    }
    private mutating func store<T: FixedWidthInteger>(_ value: T) {
        invariant(MemoryLayout<T>.size <= end - at)
        UnsafeMutableRawPointer(at).storeBytes(of: value, as: T.self)
        at += MemoryLayout<T>.size
    }
}
