package import Primitives

/// Names and keys of etcd's database file (docs/formats.md, "etcd's database file").
enum EtcdBackend {
    static let alarm = Bytes("alarm"), auth = Bytes("auth"), authRoles = Bytes("authRoles")
    static let authUsers = Bytes("authUsers"), cluster = Bytes("cluster"), key = Bytes("key")
    static let lease = Bytes("lease"), members = Bytes("members")
    static let membersRemoved = Bytes("members_removed"), meta = Bytes("meta")

    static let consistentIndex = Bytes("consistent_index"), term = Bytes("term")
    static let scheduledCompaction = Bytes("scheduledCompactRev")
    static let finishedCompaction = Bytes("finishedCompactRev")
    static let configuration = Bytes("confState"), storageVersion = Bytes("storageVersion")
    static let clusterVersion = Bytes("clusterVersion")
    static let authEnabled = Bytes("authEnabled"), authRevision = Bytes("authRevision")

    static func big(_ value: UInt64) -> [UInt8] {
        withUnsafeBytes(of: value.bigEndian) { Array($0) }
    }

    static func number(_ bytes: Bytes) -> UInt64? {
        guard bytes.count == 8 else { return nil }
        return bytes.slice.reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// Big-endian revision, `_`, big-endian sub-revision, and `t` for a deletion.
    static func revisionKey(_ main: Int64, _ sub: Int64, isDeletion: Bool = false) -> [UInt8] {
        var key = big(UInt64(bitPattern: main))
        key.append(UInt8(ascii: "_"))
        key += big(UInt64(bitPattern: sub))
        if isDeletion { key.append(UInt8(ascii: "t")) }
        return key
    }

    static func revision(ofKey key: Bytes) -> (main: Int64, sub: Int64, isDeletion: Bool)? {
        guard key.count == 17 || (key.count == 18 && key[17] == UInt8(ascii: "t")),
            key[8] == UInt8(ascii: "_"), let main = number(key[0..<8]), let sub = number(key[9..<17]),
            main <= UInt64(Int64.max), sub <= UInt64(UInt32.max)
        else { return nil }
        return (Int64(main), Int64(sub), key.count == 18)
    }
}

/// One version of one key, as etcd's mvccpb.KeyValue has it. Of a deletion only the key counts.
package struct EtcdVersion: Equatable, Sendable {
    package var revision: Int64
    package var sub: Int64
    package var isDeletion: Bool
    package var key: Bytes
    package var value = Bytes.empty
    package var createRevision: Int64 = 0
    package var version: Int64 = 0
    package var lease: Int64 = 0

    package init(
        revision: Int64, sub: Int64, isDeletion: Bool, key: Bytes, value: Bytes = .empty,
        createRevision: Int64 = 0, version: Int64 = 0, lease: Int64 = 0
    ) {
        self.revision = revision
        self.sub = sub
        self.isDeletion = isDeletion
        self.key = key
        self.value = value
        self.createRevision = createRevision
        self.version = version
        self.lease = lease
    }

    /// The KeyValue.
    package func encoded() -> [UInt8] {
        var w = ByteWriter(capacity: key.count + value.count + 48)
        w.protobuf(1, key)
        if isDeletion { return w.bytes }
        w.protobuf(2, createRevision)
        w.protobuf(3, revision)
        w.protobuf(4, version)
        w.protobuf(5, value)
        w.protobuf(6, lease)
        return w.bytes
    }
}

/// Everything of the file that is not a version of a key.
package struct EtcdState: Equatable, Sendable {
    package struct Lease: Equatable, Sendable {
        package var id: Int64
        package var ttlSeconds: Int64
        /// What was left when etcd last wrote it down; 0: unknown.
        package var remainingSeconds: Int64
        package init(id: Int64, ttlSeconds: Int64, remainingSeconds: Int64 = 0) {
            self.id = id
            self.ttlSeconds = ttlSeconds
            self.remainingSeconds = remainingSeconds
        }
    }
    package struct Member: Equatable, Sendable {
        package var id: UInt64
        package var name: String
        package var peerURLs: [String]
        package var clientURLs: [String]
        package init(id: UInt64, name: String, peerURLs: [String], clientURLs: [String]) {
            self.id = id
            self.name = name
            self.peerURLs = peerURLs
            self.clientURLs = clientURLs
        }
    }
    /// authpb.User and authpb.Role stay as they are.
    package struct Auth: Equatable, Sendable {
        package var isEnabled = false
        package var revision: UInt64 = 0
        package var users: [(name: Bytes, message: Bytes)] = []
        package var roles: [(name: Bytes, message: Bytes)] = []
        package var isEmpty: Bool { !isEnabled && users.isEmpty && roles.isEmpty }
        package init() {}
        package static func == (a: Self, b: Self) -> Bool {
            a.isEnabled == b.isEnabled && a.revision == b.revision
                && a.users.elementsEqual(b.users, by: ==) && a.roles.elementsEqual(b.roles, by: ==)
        }
    }

    /// Of the store; at least 1.
    package var revision: Int64 = 1
    /// Below it there is no history; 0: never compacted.
    package var compactRevision: Int64 = 0
    package var leases: [Lease] = []
    package var members: [Member] = []
    package var auth = Auth()
    /// Empty: not said (before 3.6).
    package var storageVersion = ""
    package init() {}
}

extension ByteWriter {
    /// A varint field; 0 is left out, as proto3 does.
    mutating func protobuf(_ field: UInt64, _ value: Int64) {
        guard value != 0 else { return }
        varint(field << 3)
        varint(UInt64(bitPattern: value))
    }
    mutating func protobuf(_ field: UInt64, _ value: Bytes) {
        guard !value.isEmpty else { return }
        varint(field << 3 | 2)
        bytes(value)
    }
}

/// The fields of a protobuf message, one after the other.
struct ProtobufFields {
    enum Value {
        case number(UInt64)
        case bytes(Bytes)
    }
    private var reader: ByteReader
    init(_ message: Bytes) { reader = ByteReader(message) }

    mutating func next() throws(DecodingError) -> (field: UInt64, value: Value)? {
        while !reader.isAtEnd {
            let tag = try reader.varint()
            switch tag & 7 {
            case 0: return (tag >> 3, .number(try reader.varint()))
            case 1: _ = try reader.fixed64()
            case 2: return (tag >> 3, .bytes(try reader.bytes()))
            case 5: _ = try reader.fixed32()
            case let kind: throw DecodingError("wire type \(kind)")
            }
        }
        return nil
    }
}
