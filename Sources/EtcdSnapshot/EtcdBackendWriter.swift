package import BoltFile
package import Primitives

/// Writes etcd's database file: first `begin`, then every version in order of revision and
/// sub-revision, then `finish` with what the versions are not.
///
/// The file has the schema of etcd 3.5; 3.4 passes over what it does not know. `etcdctl snapshot
/// restore` replaces members and consensus's numbers.
package struct EtcdBackendWriter: ~Copyable {
    private let bolt: BoltWriter
    private var last: (main: Int64, sub: Int64) = (0, -1)

    /// What comes before the keys, which is auth.
    package init(_ bolt: BoltWriter, auth: EtcdState.Auth) throws(BoltError) {
        self.bolt = bolt
        try bolt.begin(EtcdBackend.alarm)
        try bolt.begin(EtcdBackend.auth)
        try bolt.put(EtcdBackend.authEnabled, Bytes([auth.isEnabled ? 1 : 0]))
        try bolt.put(EtcdBackend.authRevision, Bytes(EtcdBackend.big(auth.revision)))
        try bolt.begin(EtcdBackend.authRoles)
        for role in auth.roles { try bolt.put(role.name, role.message) }
        try bolt.begin(EtcdBackend.authUsers)
        for user in auth.users { try bolt.put(user.name, user.message) }
        try bolt.begin(EtcdBackend.cluster)
        try bolt.put(EtcdBackend.clusterVersion, Bytes("3.5.0"))
        try bolt.begin(EtcdBackend.key)
    }

    /// `message`: of a KeyValue (`EtcdVersion.encoded`).
    package mutating func put(
        revision: Int64, sub: Int64, isDeletion: Bool, message: Bytes
    ) throws(BoltError) {
        last = (revision, sub)
        try bolt.put(
            Bytes(EtcdBackend.revisionKey(revision, sub, isDeletion: isDeletion)), message)
    }

    /// Returns the file's size, which is a whole number of pages.
    package consuming func finish(_ state: EtcdState) throws(BoltError) -> UInt64 {
        // etcd counts on from the last key or from the compaction. A revision that changed no key is
        // remembered by a deletion of nothing.
        if state.revision > max(last.main, state.compactRevision), state.revision > 1 {
            try bolt.put(
                Bytes(EtcdBackend.revisionKey(state.revision, 0, isDeletion: true)), .empty)
        }
        try bolt.begin(EtcdBackend.lease)
        for lease in state.leases.sorted(by: { UInt64(bitPattern: $0.id) < UInt64(bitPattern: $1.id) }) {
            var message = ByteWriter(capacity: 24)
            message.protobuf(1, lease.id)
            message.protobuf(2, lease.ttlSeconds)
            message.protobuf(3, lease.remainingSeconds)
            try bolt.put(
                Bytes(EtcdBackend.big(UInt64(bitPattern: lease.id))), Bytes(message.bytes))
        }
        try bolt.begin(EtcdBackend.members)
        let members = state.members.map { (name: Self.hex($0.id), member: $0) }
        for (name, member) in members.sorted(by: { $0.name < $1.name }) {
            try bolt.put(Bytes(name), Bytes(Self.json(member)))
        }
        try bolt.begin(EtcdBackend.membersRemoved)
        try bolt.begin(EtcdBackend.meta)
        let voters = state.members.map { "\($0.id)" }.joined(separator: ",")
        try bolt.put(
            EtcdBackend.configuration, Bytes("{\"voters\":[\(voters)],\"auto_leave\":false}"))
        // No log goes with the file: the least numbers, which any restored log exceeds.
        try bolt.put(EtcdBackend.consistentIndex, Bytes(EtcdBackend.big(1)))
        if state.compactRevision > 0 {
            let revision = Bytes(EtcdBackend.revisionKey(state.compactRevision, 0))
            try bolt.put(EtcdBackend.finishedCompaction, revision)
            try bolt.put(EtcdBackend.scheduledCompaction, revision)
        }
        try bolt.put(EtcdBackend.term, Bytes(EtcdBackend.big(1)))
        return try bolt.finish()
    }

    /// As etcd names members: hexadecimal, no zeros before.
    private static func hex(_ id: UInt64) -> String { String(id, radix: 16) }

    private static func json(_ member: EtcdState.Member) -> String {
        func list(_ texts: [String]) -> String { "[" + texts.map(quoted).joined(separator: ",") + "]" }
        return "{\"id\":\(member.id),\"peerURLs\":\(list(member.peerURLs)),"
            + "\"name\":\(quoted(member.name)),\"clientURLs\":\(list(member.clientURLs))}"
    }

    private static func quoted(_ text: String) -> String {
        var out = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": out += "\\\(scalar)"
            case "\u{0}"..<"\u{20}":
                let digits = String(scalar.value, radix: 16)
                out += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out + "\""
    }
}
