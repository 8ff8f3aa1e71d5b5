package import Primitives

/// Why a message is refused before anybody looks at its meaning.
package enum CodecError: Error, Equatable {
    /// No protobuf message. etcd answers INTERNAL, "grpc: error unmarshalling request: " and the text.
    case malformed(String)
    /// "etcdserver: invalid sort option".
    case invalidSortOption
    /// An operation of a transaction that says nothing; etcd: "etcdserver: key not found".
    case emptyOperation

    static let truncated = CodecError.malformed("unexpected EOF")
    static let overflow = CodecError.malformed("proto: integer overflow")
    static let tooDeep = CodecError.malformed("proto: message nested too deeply")
}

/// Reads the wire format of protobuf from a message. Byte strings and inner messages come out as
/// windows on it. A tag is the field's number and its wire type in one, as on the wire.
package struct ProtoReader {
    private let storage: [UInt8]
    private var at: Int
    private let end: Int

    package init(_ bytes: Bytes) {
        storage = bytes.storage
        at = Int(bytes.start)
        end = Int(bytes.end)
    }

    private init(storage: [UInt8], at: Int, end: Int) {
        self.storage = storage
        self.at = at
        self.end = end
    }

    package var isAtEnd: Bool { at >= end }

    /// Nil at the end of the message.
    package mutating func tag() throws(CodecError) -> UInt32? {
        guard at < end else { return nil }
        let raw = try varint()
        guard let tag = UInt32(exactly: raw), tag >> 3 != 0 else {
            throw CodecError.malformed("proto: illegal tag \(raw >> 3) (wire type \(raw & 7))")
        }
        return tag
    }

    package mutating func varint() throws(CodecError) -> UInt64 {
        guard at < end else { throw .truncated }
        let first = storage[at]
        at &+= 1
        if first < 0x80 { return UInt64(first) }
        var value = UInt64(first & 0x7F)
        var shift: UInt64 = 7
        while true {
            guard at < end else { throw .truncated }
            let next = storage[at]
            at &+= 1
            value |= UInt64(next & 0x7F) << shift
            // What a tenth byte has beyond 64 bits is dropped, by etcd as by everybody.
            if next < 0x80 { return value }
            shift += 7
            if shift > 63 { throw .overflow }
        }
    }

    package mutating func int64() throws(CodecError) -> Int64 { Int64(bitPattern: try varint()) }
    package mutating func bool() throws(CodecError) -> Bool { try varint() != 0 }
    /// An enum's number: 32 bits, the rest is dropped, as everywhere.
    package mutating func number() throws(CodecError) -> Int32 {
        Int32(truncatingIfNeeded: try varint())
    }

    package mutating func bytes() throws(CodecError) -> Bytes {
        let count = try length()
        defer { at += count }
        return Bytes(storage: storage, start: at, end: at + count)
    }

    package mutating func message() throws(CodecError) -> ProtoReader {
        let count = try length()
        defer { at += count }
        return ProtoReader(storage: storage, at: at, end: at + count)
    }

    private mutating func length() throws(CodecError) -> Int {
        let count = try varint()
        guard count <= UInt64(end - at) else { throw .truncated }
        return Int(count)
    }

    /// Passes over the value of a field that the reader does not know.
    package mutating func skip(_ tag: UInt32) throws(CodecError) { try skip(tag, depth: 0) }

    private mutating func skip(_ tag: UInt32, depth: Int) throws(CodecError) {
        switch tag & 7 {
        case 0: _ = try varint()
        case 1: try skip(bytes: 8)
        case 2: at += try length()
        case 3:
            guard depth < 64 else { throw .tooDeep }
            while true {
                guard let inner = try self.tag() else { throw .truncated }
                if inner & 7 == 4 {
                    guard inner >> 3 == tag >> 3 else { throw CodecError.malformed("proto: unexpected end of group") }
                    return
                }
                try skip(inner, depth: depth + 1)
            }
        case 4: throw CodecError.malformed("proto: unexpected end of group")
        case 5: try skip(bytes: 4)
        case let other: throw CodecError.malformed("proto: illegal wireType \(other)")
        }
    }

    private mutating func skip(bytes count: Int) throws(CodecError) {
        guard end - at >= count else { throw .truncated }
        at += count
    }
}
