package import Primitives

/// A region that begins with data from elsewhere. Every replica gets the same records, as if they were
/// what the log's first slot had done: a node that was started without them is behind, and is helped by a
/// snapshot like any other (docs/decisions/0007).
package struct ImportedState: Sendable {
    package static let slot = Slot(1)

    private let keyspace: KeyspaceID
    private let map: PartitionMap
    private var leases: [LeaseID: Int64] = [:]
    private var leaseOfKey: [Bytes: LeaseID] = [:]
    /// The directory's.
    package var auth: AuthState?

    package init(keyspace: KeyspaceID, map: PartitionMap) {
        self.keyspace = keyspace
        self.map = map
    }

    package mutating func add(_ lease: LeaseID, ttlSeconds: Int64) { leases[lease] = ttlSeconds }

    /// In the order of revisions: a key's last row counts.
    package mutating func note(_ row: Row) {
        if row.lease != .none {
            leaseOfKey[row.key.compact()] = row.lease
        } else if !leaseOfKey.isEmpty {
            leaseOfKey[row.key] = nil
        }
    }

    /// Keys whose lease was not among those added: they stay, as in etcd, and belong to none.
    package var keysWithoutLease: Int { leaseOfKey.values.count { leases[$0] == nil } }

    /// What a row's stamp is. The past: anything written in any region later is newer.
    package static func stamp(_ revision: Revision, _ region: RegionID) -> Stamp {
        Stamp(ticks: UInt64(max(0, revision.rawValue)), region: region)
    }

    /// The groups' records and applied slots. `revision` is the region's; reads below `compacted` are
    /// refused.
    package func changes(revision: Revision, compacted: Revision, region: RegionID) -> [StoreChange] {
        var changes: [StoreChange] = []
        var known: [LeaseID: Set<PartitionID>] = [:]
        for (key, lease) in leaseOfKey.sorted(by: { $0.key < $1.key }) where leases[lease] != nil {
            let partition = map.partition(of: key)
            changes.append(
                .putRecord(
                    group(partition), key: PartitionState.key(leaseOf: key),
                    value: PartitionState.value(lease)))
            // At home it need not be known: it lives there (C4).
            if partition != map.home(of: lease) { known[lease, default: []].insert(partition) }
        }
        for (lease, ttl) in leases.sorted(by: { $0.key < $1.key }) {
            let partitions = known[lease, default: []].sorted()
            for partition in partitions {
                changes.append(
                    .putRecord(group(partition), key: PartitionState.key(known: lease), value: .empty))
            }
            changes.append(
                .putRecord(
                    group(map.home(of: lease)), key: PartitionState.key(lease: lease),
                    value: PartitionState.Lease(ttlSeconds: ttl, known: partitions).encoded()))
        }
        if let auth {
            let directory = group(.directory)
            changes.append(
                .putRecord(
                    directory, key: PartitionState.authScalarsKey, value: auth.encodedScalars()))
            for name in auth.users.keys.sorted() {
                guard let value = auth.encodedUser(name) else { continue }
                changes.append(.putRecord(directory, key: PartitionState.key(user: name), value: value))
            }
            for name in auth.roles.keys.sorted() {
                guard let value = auth.encodedRole(name) else { continue }
                changes.append(.putRecord(directory, key: PartitionState.key(role: name), value: value))
            }
        }
        for partition in [.directory] + map.entries.map(\.partition) {
            let state = PartitionState(
                imported: group(partition), revision: revision, compacted: compacted,
                stamp: Self.stamp(revision, region))
            changes.append(
                .putRecord(
                    group(partition), key: PartitionState.scalarsKey, value: state.encodedScalars()))
            changes.append(.applied(group(partition), Self.slot))
        }
        return changes
    }

    private func group(_ partition: PartitionID) -> GroupID {
        GroupID(keyspace: keyspace, partition: partition)
    }
}

extension PartitionState {
    /// Of records under `leaseLetter`: a lease homed here.
    package static let leaseLetter = UInt8(ascii: "l")
    package static func lease(
        key: Bytes, value: Bytes
    ) throws(DecodingError) -> (id: LeaseID, ttlSeconds: Int64) {
        guard key.count == 9 else { throw DecodingError("a lease's record key of \(key.count) bytes") }
        var id = ByteReader(key[1..<9]), lease = ByteReader(value)
        return (LeaseID(Int64(bitPattern: try id.big64())), try Lease(&lease).ttlSeconds)
    }
}
