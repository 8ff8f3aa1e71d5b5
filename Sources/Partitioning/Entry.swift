package import Primitives

/// Names a transaction over several partitions through its attempts: coordinator's node, its boot and
/// a number. `attempt` rises with every retry.
package struct TransactionID: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let name: RequestName
    package let attempt: UInt32
    package init(name: RequestName, attempt: UInt32) {
        self.name = name
        self.attempt = attempt
    }
    package static func < (a: Self, b: Self) -> Bool { (a.name, a.attempt) < (b.name, b.attempt) }
    package var description: String { "\(name)#\(attempt)" }
}

/// What one revision does to one partition.
package struct Effects: Hashable, Sendable {
    package var revision: Revision
    package var epoch: Epoch
    package var stamp: Stamp
    package var rows: [Row] = []
    /// Leases that become known here (C4): from now on attaching to them is a matter of this partition.
    package var leasesKnown: [LeaseID] = []
    /// Home only: these leases are known in that partition too.
    package var leasesSpread: [LeaseSpread] = []
    /// Leases that end: forgotten here, and at home removed.
    package var leasesEnded: [LeaseID] = []
    /// How far another region's stream is applied (geo.md); homed in one partition.
    package var cursor: ReplicationBatch.Cursor?
    /// Losers of conflicts, in the form that GeoReplication keeps.
    package var conflicts: [Bytes] = []

    package init(revision: Revision, epoch: Epoch, stamp: Stamp, rows: [Row] = []) {
        self.revision = revision
        self.epoch = epoch
        self.stamp = stamp
        self.rows = rows
    }

    package var isEmpty: Bool {
        rows.isEmpty && leasesKnown.isEmpty && leasesSpread.isEmpty && leasesEnded.isEmpty
            && cursor == nil && conflicts.isEmpty
    }
}

package struct LeaseSpread: Hashable, Sendable {
    package let lease: LeaseID
    package let partition: PartitionID
    package init(lease: LeaseID, partition: PartitionID) {
        self.lease = lease
        self.partition = partition
    }
}

package struct LeaseCheckpoint: Hashable, Sendable {
    package let lease: LeaseID
    /// Nil: it is about to be renewed, what was logged before no longer counts.
    package let remainingSeconds: Int64?
    package init(lease: LeaseID, remainingSeconds: Int64?) {
        self.lease = lease
        self.remainingSeconds = remainingSeconds
    }
}

/// A transaction's part in one partition's log (protocol.md, step 4). `lowered` is what an abort must
/// put back: the leases that the rows' keys were attached to before.
package struct Prepared: Hashable, Sendable {
    package let transaction: TransactionID
    package let participants: [PartitionID]
    package let effects: Effects
    package init(transaction: TransactionID, participants: [PartitionID], effects: Effects) {
        self.transaction = transaction
        self.participants = participants
        self.effects = effects
    }
}

/// The payload of a log entry. Version 1; the first byte is the kind.
package enum EntryBody: Hashable, Sendable {
    case begin(epoch: Epoch)
    case seal(epoch: Epoch)
    case effects(Effects)
    case prepared(Prepared)
    case aborted(TransactionID, Revision)
    case leaseGrant(LeaseID, ttlSeconds: Int64)
    /// A lease that no partition holds keys of any more.
    case leaseRevoked(LeaseID)
    /// This partition no longer knows the lease; nothing was attached to it here.
    case leaseForgotten(LeaseID)
    /// So much was left of these leases when this was logged, and nobody has renewed them since.
    case leaseCheckpoints([LeaseCheckpoint])
    /// Directory: history at and below this revision may be dropped.
    case compact(Revision)
    /// Directory: a change of users, roles or permissions. `nonce` lets whoever proposed it know it again.
    case auth(nonce: UInt64, by: Bytes?, AuthCommand)
    /// Directory: the region's members. Counts only if it follows the version before it.
    case members(RegionMembers)
    /// Directory: has no effect. Stands for whatever the next feature level brings
    /// (`NodeConfiguration.featureLevel`).
    case rehearsal
    /// From here on this log refuses what hashes at or above the cut: that is the child's (U2).
    case split(PartitionSplit)
    /// Directory: this split shall come about. Counts only if no other is under way.
    case splitIntended(PartitionSplit)
    /// Directory: it has, and the child serves.
    case splitPublished(PartitionSplit)

    /// `request`: a client's, which this entry carries out.
    package func encoded(for request: RequestMark? = nil) -> Bytes {
        var writer = ByteWriter(capacity: encodedSize)
        if let request {
            writer.byte(Self.namedTag)
            writer.name(request.name)
            writer.varint(request.mark)
        }
        writer.entryBody(self)
        return Bytes(writer.bytes)
    }

    /// About: what grows is copied.
    private var encodedSize: Int {
        switch self {
        case .effects(let effects): return Self.size(of: effects)
        case .prepared(let prepared): return Self.size(of: prepared.effects) + 2 * prepared.participants.count
        default: return 192
        }
    }
    private static func size(of effects: Effects) -> Int {
        var size = 96
        for row in effects.rows { size += row.key.count + row.value.count + 56 }
        return size
    }

    package static func decode(
        _ bytes: Bytes
    ) throws(DecodingError) -> (body: EntryBody, request: RequestMark?) {
        var reader = ByteReader(bytes)
        var request: RequestMark?
        if bytes.count > 0, bytes[0] == namedTag {
            _ = try reader.byte()
            request = RequestMark(name: try reader.name(), mark: try reader.varint())
        }
        let body = try reader.entryBody()
        try reader.expectEnd()
        return (body, request)
    }

    private static let namedTag: UInt8 = 12
}

extension ByteWriter {
    package mutating func transactionID(_ id: TransactionID) {
        name(id.name)
        varint(UInt64(id.attempt))
    }

    package mutating func partitions(_ list: [PartitionID]) {
        varint(list.count)
        for p in list { id(p) }
    }

    package mutating func effects(_ e: Effects) {
        id(e.revision)
        ballot(e.epoch)
        stamp(e.stamp)
        rows(e.rows)
        varint(e.leasesKnown.count)
        for l in e.leasesKnown { signed(l.rawValue) }
        varint(e.leasesSpread.count)
        for s in e.leasesSpread {
            signed(s.lease.rawValue)
            id(s.partition)
        }
        varint(e.leasesEnded.count)
        for l in e.leasesEnded { signed(l.rawValue) }
        bool(e.cursor != nil)
        if let cursor = e.cursor {
            id(cursor.region)
            id(cursor.revision)
        }
        varint(e.conflicts.count)
        for c in e.conflicts { bytes(c) }
    }

    package mutating func entryBody(_ body: EntryBody) {
        switch body {
        case .begin(let epoch):
            byte(1)
            ballot(epoch)
        case .seal(let epoch):
            byte(2)
            ballot(epoch)
        case .effects(let e):
            byte(3)
            effects(e)
        case .prepared(let p):
            byte(4)
            transactionID(p.transaction)
            partitions(p.participants)
            effects(p.effects)
        case .aborted(let transaction, let revision):
            byte(5)
            transactionID(transaction)
            id(revision)
        case .leaseGrant(let lease, let ttl):
            byte(6)
            signed(lease.rawValue)
            signed(ttl)
        case .leaseRevoked(let lease):
            byte(7)
            signed(lease.rawValue)
        case .leaseForgotten(let lease):
            byte(8)
            signed(lease.rawValue)
        case .compact(let revision):
            byte(9)
            id(revision)
        case .auth(let nonce, let by, let command):
            byte(10)
            fixed64(nonce)
            bool(by != nil)
            if let by { bytes(by) }
            authCommand(command)
        case .leaseCheckpoints(let list):
            byte(11)
            varint(list.count)
            for checkpoint in list {
                signed(checkpoint.lease.rawValue)
                signed(checkpoint.remainingSeconds ?? -1)
            }
        case .members(let list):
            byte(64)
            members(list)
        case .rehearsal: byte(127)
        case .split(let split):
            byte(65)
            self.split(split)
        case .splitIntended(let split):
            byte(66)
            self.split(split)
        case .splitPublished(let split):
            byte(67)
            self.split(split)
        }
    }
}

extension ByteReader {
    package mutating func transactionID() throws(DecodingError) -> TransactionID {
        TransactionID(name: try name(), attempt: try uint32())
    }

    package mutating func partitions() throws(DecodingError) -> [PartitionID] {
        var list: [PartitionID] = []
        for _ in 0..<(try count()) { list.append(try id()) }
        return list
    }

    package mutating func effects() throws(DecodingError) -> Effects {
        var e = Effects(revision: try id(), epoch: try ballot(), stamp: try stamp(), rows: try rows())
        for _ in 0..<(try count()) { e.leasesKnown.append(LeaseID(try signed())) }
        for _ in 0..<(try count(atLeast: 2)) {
            e.leasesSpread.append(LeaseSpread(lease: LeaseID(try signed()), partition: try id()))
        }
        for _ in 0..<(try count()) { e.leasesEnded.append(LeaseID(try signed())) }
        if try bool() { e.cursor = ReplicationBatch.Cursor(region: try id(), revision: try id()) }
        for _ in 0..<(try count()) { e.conflicts.append(try bytes()) }
        return e
    }

    package mutating func entryBody() throws(DecodingError) -> EntryBody {
        switch try byte() {
        case 1: return .begin(epoch: try ballot())
        case 2: return .seal(epoch: try ballot())
        case 3: return .effects(try effects())
        case 4:
            return .prepared(
                Prepared(
                    transaction: try transactionID(), participants: try partitions(),
                    effects: try effects()))
        case 5: return .aborted(try transactionID(), try id())
        case 6: return .leaseGrant(LeaseID(try signed()), ttlSeconds: try signed())
        case 7: return .leaseRevoked(LeaseID(try signed()))
        case 8: return .leaseForgotten(LeaseID(try signed()))
        case 9: return .compact(try id())
        case 10:
            let nonce = try fixed64(), by = try bool() ? try bytes() : nil
            return .auth(nonce: nonce, by: by, try authCommand())
        case 11:
            var list: [LeaseCheckpoint] = []
            for _ in 0..<(try count(atLeast: 2)) {
                let lease = LeaseID(try signed()), seconds = try signed()
                list.append(
                    LeaseCheckpoint(lease: lease, remainingSeconds: seconds < 0 ? nil : seconds))
            }
            return .leaseCheckpoints(list)
        case 64: return .members(try members())
        case 127: return .rehearsal
        case 65: return .split(try split())
        case 66: return .splitIntended(try split())
        case 67: return .splitPublished(try split())
        case let tag: throw DecodingError("entry \(tag)")
        }
    }
}
