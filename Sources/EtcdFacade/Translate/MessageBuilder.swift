import EtcdAPI
import Primitives

/// Builds the rare and small answers, growing as it goes; `ResponseCodec` writes the frequent ones.
struct MessageBuilder {
    private(set) var bytes: [UInt8] = []

    init() {}
    /// Every answer of etcd begins with its header.
    init(_ header: HeaderFields) {
        message(1) { inner in
            inner.field(1, header.clusterID)
            inner.field(2, header.memberID)
            inner.field(3, header.revision.rawValue)
            inner.field(4, header.raftTerm)
        }
    }

    private mutating func varint(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(truncatingIfNeeded: rest))
    }
    private mutating func tag(_ number: UInt8, _ kind: UInt8) {
        varint(UInt64(number) << 3 | UInt64(kind))
    }
    mutating func field(_ number: UInt8, _ value: UInt64) {
        guard value != 0 else { return }
        tag(number, 0)
        varint(value)
    }
    mutating func field(_ number: UInt8, _ value: Int64) {
        field(number, UInt64(bitPattern: value))
    }
    mutating func field(_ number: UInt8, _ value: String) {
        guard !value.isEmpty else { return }
        message(number, Array(value.utf8))
    }
    /// Written even when empty: messages, and elements of repeated fields.
    mutating func message(_ number: UInt8, _ value: [UInt8]) {
        tag(number, 2)
        varint(UInt64(value.count))
        bytes.append(contentsOf: value)
    }
    mutating func message(_ number: UInt8, _ build: (inout MessageBuilder) -> Void) {
        var inner = MessageBuilder()
        build(&inner)
        message(number, inner.bytes)
    }
}

enum LeaseResponse {
    static func timeToLive(
        _ id: LeaseID, granted: Int64, remaining: Int64, keys: [Bytes], _ header: HeaderFields
    ) -> [UInt8] {
        var builder = MessageBuilder(header)
        builder.field(2, id.rawValue)
        builder.field(3, remaining)
        builder.field(4, granted)
        for key in keys { builder.message(5, key.array) }
        return builder.bytes
    }

    static func leases(_ ids: [LeaseID], _ header: HeaderFields) -> [UInt8] {
        var builder = MessageBuilder(header)
        for id in ids { builder.message(2) { $0.field(1, id.rawValue) } }
        return builder.bytes
    }
}
