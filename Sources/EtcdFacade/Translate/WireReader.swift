import Primitives

/// The bytes are not a protobuf message.
struct Malformed: Error {}

/// Reads one protobuf message, field by field; byte strings come out as windows, not copies.
/// (SwiftProtobuf would copy every key and value: see docs/architecture.md "Dependencies".)
struct WireReader {
    enum Kind: UInt8 { case varint = 0, fixed64 = 1, length = 2, fixed32 = 5 }

    private let source: Bytes
    private var at = 0
    /// Of the field whose number `next` returned last.
    private(set) var kind = Kind.varint

    init(_ source: Bytes) { self.source = source }

    /// The next field's number; nil at the end.
    mutating func next() throws(Malformed) -> Int? {
        guard at < source.count else { return nil }
        let tag = try rawVarint()
        guard tag <= UInt64(UInt32.max), tag >> 3 != 0, let kind = Kind(rawValue: UInt8(tag & 7))
        else {
            throw Malformed()
        }
        self.kind = kind
        return Int(tag >> 3)
    }

    mutating func uint64() throws(Malformed) -> UInt64 {
        guard kind == .varint else { throw Malformed() }
        return try rawVarint()
    }
    mutating func int64() throws(Malformed) -> Int64 { Int64(bitPattern: try uint64()) }
    mutating func int32() throws(Malformed) -> Int32 { Int32(truncatingIfNeeded: try uint64()) }
    mutating func bool() throws(Malformed) -> Bool { try uint64() != 0 }

    mutating func bytes() throws(Malformed) -> Bytes {
        guard kind == .length else { throw Malformed() }
        let count = try rawVarint()
        guard count <= UInt64(source.count - at) else { throw Malformed() }
        let lower = at
        at += Int(count)
        return source[lower..<at]
    }
    mutating func string() throws(Malformed) -> String {
        String(decoding: try bytes().slice, as: UTF8.self)
    }
    mutating func message() throws(Malformed) -> WireReader { WireReader(try bytes()) }

    /// Passes over the value of an unknown field.
    mutating func skip() throws(Malformed) {
        switch kind {
        case .varint: _ = try rawVarint()
        case .fixed64: try advance(8)
        case .fixed32: try advance(4)
        case .length: _ = try bytes()
        }
    }

    private mutating func advance(_ count: Int) throws(Malformed) {
        guard source.count - at >= count else { throw Malformed() }
        at += count
    }

    private mutating func rawVarint() throws(Malformed) -> UInt64 {
        guard at < source.count else { throw Malformed() }
        let first = source[at]
        at += 1
        if first < 0x80 { return UInt64(first) }
        var value = UInt64(first & 0x7F)
        var shift: UInt64 = 7
        while at < source.count {
            let byte = source[at]
            at += 1
            if shift == 63, byte > 1 { throw Malformed() }
            value |= UInt64(byte & 0x7F) << shift
            if byte < 0x80 { return value }
            shift += 7
            if shift > 63 { throw Malformed() }
        }
        throw Malformed()
    }
}
