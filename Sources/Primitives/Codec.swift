/// Appends values to a byte array: fixed integers little-endian, lengths and counts as LEB128 varints.
public struct ByteWriter: Sendable {
    public private(set) var bytes: [UInt8]

    @inlinable public init(capacity: Int = 64) {
        self.init(reserving: capacity)
    }
    public init(reserving capacity: Int) {
        bytes = []
        bytes.reserveCapacity(capacity)
    }

    public var count: Int { bytes.count }
    public mutating func reset() { bytes.removeAll(keepingCapacity: true) }

    public mutating func byte(_ value: UInt8) { bytes.append(value) }
    public mutating func bool(_ value: Bool) { bytes.append(value ? 1 : 0) }
    public mutating func fixed16(_ value: UInt16) { little(value) }
    public mutating func fixed32(_ value: UInt32) { little(value) }
    public mutating func fixed64(_ value: UInt64) { little(value) }

    public mutating func varint(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(truncatingIfNeeded: rest))
    }
    public mutating func varint(_ value: Int) { varint(UInt64(value)) }

    /// Zigzag, so that small negative numbers stay short.
    public mutating func signed(_ value: Int64) {
        varint(UInt64(bitPattern: (value << 1) ^ (value >> 63)))
    }

    /// Length, then the bytes.
    public mutating func bytes(_ value: Bytes) {
        varint(UInt64(value.count))
        value.withUnsafeBytes { bytes.append(contentsOf: $0) }
    }
    public mutating func bytes(_ value: [UInt8]) {
        varint(UInt64(value.count))
        bytes.append(contentsOf: value)
    }
    public mutating func string(_ value: String) { bytes(Array(value.utf8)) }
    /// Without a length.
    public mutating func raw(_ value: Bytes) {
        value.withUnsafeBytes { bytes.append(contentsOf: $0) }
    }
    public mutating func raw(_ value: [UInt8]) { bytes.append(contentsOf: value) }

    public mutating func patch32(at offset: Int, _ value: UInt32) {
        for i in 0..<4 { bytes[offset + i] = UInt8(truncatingIfNeeded: value >> (8 * UInt32(i))) }
    }

    private mutating func little<T: FixedWidthInteger>(_ value: T) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }

    public mutating func id<I: Identifier>(_ id: I) {
        varint(UInt64(truncatingIfNeeded: id.rawValue))
    }
    public mutating func ballot(_ b: Ballot) {
        varint(b.round)
        varint(UInt64(b.node.rawValue))
    }
    public mutating func group(_ g: GroupID) {
        id(g.keyspace)
        id(g.partition)
    }
    public mutating func stamp(_ s: Stamp) {
        varint(s.ticks)
        id(s.region)
    }
    public mutating func name(_ n: RequestName) {
        id(n.node)
        fixed64(n.boot)
        varint(n.sequence)
    }
}

/// Damaged or foreign bytes. Whoever reads from a peer or a disk turns it into that place's error.
public struct DecodingError: Error, Equatable {
    public let what: String
    public init(_ what: String) { self.what = what }
}

/// Takes values from bytes, never past their end; byte strings come out as windows, not copies.
public struct ByteReader: Sendable {
    public let source: Bytes
    public private(set) var offset = 0

    public init(_ source: Bytes) { self.source = source }

    public var remaining: Int { source.count - offset }
    public var isAtEnd: Bool { remaining == 0 }

    public mutating func byte() throws(DecodingError) -> UInt8 {
        guard remaining >= 1 else { throw DecodingError("unexpected end") }
        offset += 1
        return source[offset - 1]
    }
    public mutating func bool() throws(DecodingError) -> Bool {
        switch try byte() {
        case 0: return false
        case 1: return true
        case let other: throw DecodingError("bool \(other)")
        }
    }
    public mutating func fixed16() throws(DecodingError) -> UInt16 { try little() }
    public mutating func fixed32() throws(DecodingError) -> UInt32 { try little() }
    public mutating func fixed64() throws(DecodingError) -> UInt64 { try little() }

    public mutating func varint() throws(DecodingError) -> UInt64 {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while true {
            let next = try byte()
            if shift == 63 && next > 1 { throw DecodingError("varint over 64 bits") }
            value |= UInt64(next & 0x7F) << shift
            if next < 0x80 { return value }
            shift += 7
            if shift > 63 { throw DecodingError("varint over 64 bits") }
        }
    }

    /// A count of things that take at least `atLeast` bytes each: more than fit is damage, so a
    /// reader never reserves memory that the bytes do not back.
    public mutating func count(atLeast: Int = 1) throws(DecodingError) -> Int {
        let n = try varint()
        guard n <= UInt64(remaining / max(1, atLeast)) else { throw DecodingError("count \(n)") }
        return Int(n)
    }

    public mutating func signed() throws(DecodingError) -> Int64 {
        let z = try varint()
        return Int64(bitPattern: (z >> 1) ^ (0 &- (z & 1)))
    }

    public mutating func bytes() throws(DecodingError) -> Bytes {
        let n = try varint()
        guard n <= UInt64(remaining) else { throw DecodingError("length \(n) of \(remaining)") }
        return try raw(Int(n))
    }
    public mutating func raw(_ n: Int) throws(DecodingError) -> Bytes {
        guard n >= 0, n <= remaining else { throw DecodingError("length \(n) of \(remaining)") }
        offset += n
        return source[(offset - n)..<offset]
    }
    public mutating func string() throws(DecodingError) -> String {
        String(decoding: try bytes().slice, as: UTF8.self)
    }

    private mutating func little<T: FixedWidthInteger>() throws(DecodingError) -> T {
        let size = MemoryLayout<T>.size
        guard remaining >= size else { throw DecodingError("unexpected end") }
        let at = offset
        offset += size
        return source.withUnsafeBytes { T(littleEndian: $0.loadUnaligned(fromByteOffset: at, as: T.self)) }
    }

    public mutating func id<I: Identifier>() throws(DecodingError) -> I {
        let raw = try varint()
        let value = I.RawValue(truncatingIfNeeded: raw)
        guard UInt64(truncatingIfNeeded: value) == raw else { throw DecodingError("id \(raw)") }
        return I(rawValue: value)
    }
    public mutating func ballot() throws(DecodingError) -> Ballot {
        Ballot(round: try varint(), node: try id())
    }
    public mutating func group() throws(DecodingError) -> GroupID {
        GroupID(keyspace: try id(), partition: try id())
    }
    public mutating func stamp() throws(DecodingError) -> Stamp {
        Stamp(ticks: try varint(), region: try id())
    }
    public mutating func name() throws(DecodingError) -> RequestName {
        RequestName(node: try id(), boot: try fixed64(), sequence: try varint())
    }
    public func expectEnd() throws(DecodingError) {
        guard isAtEnd else { throw DecodingError("\(remaining) bytes too many") }
    }
}
