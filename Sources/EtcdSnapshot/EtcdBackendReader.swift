package import BoltFile
import Primitives

/// Reads etcd's database file. Nothing in it is believed before it is checked.
package struct EtcdBackendReader {
    /// As many leases or users as anybody has; more is damage.
    private static let entriesMax = 5_000_000

    private let bolt: BoltReader

    package init(_ bolt: BoltReader) throws(BoltError) {
        self.bolt = bolt
        guard try bolt.bucket(EtcdBackend.key) != nil else {
            throw .damaged("it has no bucket \"key\": not etcd's")
        }
    }

    // MARK: Keys

    /// Every version, in order.
    package func versions() throws(BoltError) -> Versions {
        Versions(cursor: try bolt.bucket(EtcdBackend.key))
    }

    package struct Versions {
        let cursor: BoltCursor?

        /// nil: that was all. A version without a key only says which revision there has been.
        package func next() throws(BoltError) -> EtcdVersion? {
            guard let item = try cursor?.next() else { return nil }
            return try EtcdBackendReader.version(item)
        }
    }

    private static func version(_ item: BoltItem) throws(BoltError) -> EtcdVersion {
        guard !item.isBucket, let place = EtcdBackend.revision(ofKey: item.key) else {
            throw .damaged("a key of \(item.key.count) bytes that names no revision")
        }
        func wrong(_ what: String) -> BoltError {
            .damaged("at revision \(place.main).\(place.sub): \(what)")
        }
        var version = EtcdVersion(
            revision: place.main, sub: place.sub, isDeletion: place.isDeletion, key: .empty)
        var modRevision: Int64 = 0
        do throws(DecodingError) {
            var fields = ProtobufFields(item.value)
            while let (field, value) = try fields.next() {
                switch (field, value) {
                case (1, .bytes(let bytes)): version.key = bytes
                case (2, .number(let n)): version.createRevision = Int64(bitPattern: n)
                case (3, .number(let n)): modRevision = Int64(bitPattern: n)
                case (4, .number(let n)): version.version = Int64(bitPattern: n)
                case (5, .bytes(let bytes)): version.value = bytes
                case (6, .number(let n)): version.lease = Int64(bitPattern: n)
                default: break
                }
            }
        } catch {
            throw wrong("not a KeyValue: \(error.what)")
        }
        guard place.main >= 1 else { throw wrong("no such revision") }
        if version.isDeletion {
            return EtcdVersion(
                revision: place.main, sub: place.sub, isDeletion: true, key: version.key)
        }
        // etcdutl writes a revision without anything in it when it lifts revisions.
        if version.key.isEmpty { return version }
        guard modRevision == place.main, version.version >= 1,
            1...place.main ~= version.createRevision
        else {
            throw wrong(
                "a key created at \(version.createRevision), modified at \(modRevision), "
                    + "version \(version.version)")
        }
        return version
    }

    // MARK: The rest

    /// All but `revision`, for which every key must be read.
    package func state() throws(BoltError) -> EtcdState {
        var state = EtcdState()
        // What was to be removed is gone for clients, removed or not.
        for name in [EtcdBackend.finishedCompaction, EtcdBackend.scheduledCompaction] {
            guard let value = try value(name, in: EtcdBackend.meta) else { continue }
            guard let revision = EtcdBackend.revision(ofKey: value) else {
                throw .damaged("\(name) is no revision")
            }
            state.compactRevision = max(state.compactRevision, revision.main)
        }
        if let version = try value(EtcdBackend.storageVersion, in: EtcdBackend.meta) {
            state.storageVersion = "\(version)"
        }
        try forEach(EtcdBackend.lease) { item throws(BoltError) in
            state.leases.append(try Self.lease(item))
        }
        state.auth = try auth()
        return state
    }

    private func auth() throws(BoltError) -> EtcdState.Auth {
        var auth = EtcdState.Auth()
        if let enabled = try value(EtcdBackend.authEnabled, in: EtcdBackend.auth) {
            auth.isEnabled = enabled.count == 1 && enabled[0] == 1
        }
        if let revision = try value(EtcdBackend.authRevision, in: EtcdBackend.auth) {
            guard let number = EtcdBackend.number(revision) else {
                throw .damaged("authRevision is no number")
            }
            auth.revision = number
        }
        try forEach(EtcdBackend.authUsers) { auth.users.append(($0.key, $0.value)) }
        try forEach(EtcdBackend.authRoles) { auth.roles.append(($0.key, $0.value)) }
        return auth
    }

    private static func lease(_ item: BoltItem) throws(BoltError) -> EtcdState.Lease {
        guard let number = EtcdBackend.number(item.key), number > 0, number <= UInt64(Int64.max) else {
            throw .damaged("a lease of an id that cannot be")
        }
        var lease = EtcdState.Lease(id: Int64(number), ttlSeconds: 0)
        do throws(DecodingError) {
            var fields = ProtobufFields(item.value)
            while let (field, value) = try fields.next() {
                switch (field, value) {
                case (2, .number(let n)): lease.ttlSeconds = Int64(bitPattern: n)
                case (3, .number(let n)): lease.remainingSeconds = Int64(bitPattern: n)
                default: break
                }
            }
        } catch {
            throw .damaged("lease \(number): \(error.what)")
        }
        guard (1...9_000_000_000).contains(lease.ttlSeconds) else {
            throw .damaged("lease \(number) has a TTL of \(lease.ttlSeconds) s")
        }
        return lease
    }

    private func forEach(
        _ bucket: Bytes, _ visit: (BoltItem) throws(BoltError) -> Void
    ) throws(BoltError) {
        guard let cursor = try bolt.bucket(bucket) else { return }
        var count = 0
        while let item = try cursor.next() {
            count += 1
            guard count <= Self.entriesMax else { throw .damaged("\(bucket) has no end") }
            try visit(item)
        }
    }

    private func value(_ key: Bytes, in bucket: Bytes) throws(BoltError) -> Bytes? {
        guard let cursor = try bolt.bucket(bucket) else { return nil }
        while let item = try cursor.next() {
            if item.key == key { return item.value }
            if item.key > key { return nil }
        }
        return nil
    }

    // MARK: What etcdctl says of a file

    package struct Summary: Equatable, Sendable {
        /// CRC-32C of buckets, keys and values.
        package var hash: UInt32 = 0
        package var revision: Int64 = 0
        /// Of all buckets.
        package var keys: Int64 = 0
        package var bytes: UInt64 = 0
    }

    /// Reads everything: the whole tree has been checked when it returns.
    package func summary() throws(BoltError) -> Summary {
        var summary = Summary()
        func add(_ bytes: Bytes) {
            bytes.withUnsafeBytes { summary.hash = CRC32C.checksum($0, seed: summary.hash) }
        }
        for name in try bolt.buckets() {
            add(name)
            guard let cursor = try bolt.bucket(name) else { continue }
            while let item = try cursor.next() {
                add(item.key)
                if !item.isBucket { add(item.value) }
                summary.keys += 1
                if name == EtcdBackend.key {
                    guard let revision = EtcdBackend.revision(ofKey: item.key) else {
                        throw .damaged("a key of \(item.key.count) bytes that names no revision")
                    }
                    summary.revision = revision.main
                }
            }
        }
        summary.bytes = bolt.meta.pages * UInt64(bolt.meta.pageBytes)
        return summary
    }
}
