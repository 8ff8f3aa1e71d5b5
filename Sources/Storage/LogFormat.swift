import Primitives

/// Bytes of a log segment (docs/formats.md). Pure.
enum LogFormat {
    static let version: UInt32 = 1
    static let headerBytes = 64, batchHeaderBytes = 32
    static let headerMagic = Array("POLDERWL".utf8)
    static let batchMagic: UInt32 = 0x4244_4C50  // "PLDB"

    /// A place in the log. Everything before it has been synced, where it stands as "synced".
    struct Position: Hashable, Comparable {
        var segment: UInt64
        var offset: Int
        static func < (a: Self, b: Self) -> Bool { (a.segment, a.offset) < (b.segment, b.offset) }
    }

    struct Header: Equatable {
        var segment: UInt64
        var cluster: UInt64
        var region: RegionID
        var node: NodeID
        /// Where the segment before this one ended: it had been synced so far when this one began.
        var previousEnd: Int
    }

    struct Batch: Equatable {
        var synced: Position
        var count: Int
        var payload: Bytes
        /// Offset of the first byte after it.
        var end: Int
    }

    static func name(of segment: UInt64) -> String {
        let digits = String(segment, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits + ".wal"
    }
    static func segment(ofName name: String) -> UInt64? {
        guard name.count == 20, name.hasSuffix(".wal") else { return nil }
        return UInt64(name.dropLast(4), radix: 16)
    }

    // MARK: Header

    static func encode(_ header: Header) -> [UInt8] {
        var w = ByteWriter(capacity: headerBytes)
        w.raw(headerMagic)
        w.fixed32(version)
        w.fixed32(0)
        w.fixed64(header.segment)
        w.fixed64(header.cluster)
        w.fixed16(header.region.rawValue)
        w.fixed16(header.node.rawValue)
        w.fixed32(0)
        w.fixed64(UInt64(header.previousEnd))
        w.fixed64(0)
        w.fixed64(0)
        w.patch32(at: 12, CRC32C.checksum(w.bytes))
        return w.bytes
    }

    enum HeaderFault: Error { case damaged(String), newer(UInt32) }

    static func header(_ bytes: [UInt8]) throws(HeaderFault) -> Header {
        guard bytes.count >= headerBytes else { throw .damaged("too short for a header") }
        guard Array(bytes[..<8]) == headerMagic else { throw .damaged("not a log segment") }
        func number<T: FixedWidthInteger>(_ at: Int) -> T {
            bytes.withUnsafeBytes { T(littleEndian: $0.loadUnaligned(fromByteOffset: at, as: T.self)) }
        }
        // The version's number stands where it does in every version; what follows need not.
        let version: UInt32 = number(8)
        guard version <= Self.version else { throw .newer(version) }
        var covered = Array(bytes[..<headerBytes])
        for i in 12..<16 { covered[i] = 0 }
        guard CRC32C.checksum(covered) == number(12) else { throw .damaged("header checksum") }
        return Header(
            segment: number(16), cluster: number(24), region: RegionID(number(32)),
            node: NodeID(number(34)), previousEnd: Int(truncatingIfNeeded: number(40) as UInt64))
    }

    // MARK: Batch

    /// Appends a batch that will stand at `at`. `buffer` begins at an 8-aligned file offset.
    static func append(
        _ records: ArraySlice<LogRecord>, at: Position, synced: Position, to w: inout ByteWriter
    ) {
        let start = w.count
        w.fixed32(batchMagic)
        w.fixed32(0)
        w.fixed32(0)
        w.fixed32(UInt32(records.count))
        w.fixed64(synced.segment)
        w.fixed64(UInt64(synced.offset))
        for record in records { w.logRecord(record) }
        w.patch32(at: start + 8, UInt32(w.count - start - batchHeaderBytes))
        let crc = w.bytes.withUnsafeBytes {
            checksum(UnsafeRawBufferPointer(rebasing: $0[(start + 8)...]), at: at)
        }
        w.patch32(at: start + 4, crc)
        while (w.count - start) % 8 != 0 { w.byte(0) }
    }

    /// The place is part of the checksum, so what a recycled file held before is never taken for ours.
    private static func checksum(_ bytes: UnsafeRawBufferPointer, at: Position) -> UInt32 {
        let place = (at.segment.littleEndian, UInt64(at.offset).littleEndian)
        let seed = withUnsafeBytes(of: place) { CRC32C.checksum($0) }
        return CRC32C.checksum(bytes, seed: seed)
    }

    /// The first offset at or after `from`, in steps of 8, where a batch may begin and its header is whole.
    static func batchMagic(in file: [UInt8], from: Int) -> Int? {
        file.withUnsafeBytes { raw in
            var offset = from
            while offset + batchHeaderBytes <= raw.count {
                if raw.loadUnaligned(fromByteOffset: offset, as: UInt32.self) == batchMagic.littleEndian {
                    return offset
                }
                offset += 8
            }
            return nil
        }
    }

    /// Where the batch at `offset` ends by its own account, padding included.
    static func endOfBatch(in file: [UInt8], at offset: Int) -> Int? {
        guard offset >= 0, offset + batchHeaderBytes <= file.count else { return nil }
        return file.withUnsafeBytes { raw in
            func u32(_ at: Int) -> UInt32 {
                UInt32(littleEndian: raw.loadUnaligned(fromByteOffset: offset + at, as: UInt32.self))
            }
            guard u32(0) == batchMagic else { return nil }
            return (offset + batchHeaderBytes + Int(u32(8)) + 7) / 8 * 8
        }
    }

    /// The batch at `offset`, if there is a whole and valid one.
    static func batch(in file: [UInt8], at offset: Int, segment: UInt64) -> Batch? {
        guard offset >= 0, offset + batchHeaderBytes <= file.count else { return nil }
        return file.withUnsafeBytes { raw -> Batch? in
            func u32(_ at: Int) -> UInt32 {
                UInt32(littleEndian: raw.loadUnaligned(fromByteOffset: offset + at, as: UInt32.self))
            }
            func u64(_ at: Int) -> UInt64 {
                UInt64(littleEndian: raw.loadUnaligned(fromByteOffset: offset + at, as: UInt64.self))
            }
            guard u32(0) == batchMagic else { return nil }
            let length = Int(u32(8)), payload = offset + batchHeaderBytes
            guard length <= file.count - payload else { return nil }
            let end = (payload + length + 7) / 8 * 8
            guard raw[(payload + length)..<min(end, file.count)].allSatisfy({ $0 == 0 }) else { return nil }
            let covered = UnsafeRawBufferPointer(rebasing: raw[(offset + 8)..<(payload + length)])
            let place = Position(segment: segment, offset: offset)
            guard checksum(covered, at: place) == u32(4) else { return nil }
            return Batch(
                synced: Position(segment: u64(16), offset: Int(truncatingIfNeeded: u64(24))),
                count: Int(u32(12)),
                payload: Bytes(storage: file, start: payload, end: payload + length),
                end: end)
        }
    }
}
