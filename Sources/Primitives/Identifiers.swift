/// Lookalike integers are types: a slot is not a revision, a node is not a region.
package protocol Identifier: Hashable, Comparable, Sendable, CustomStringConvertible {
    associatedtype RawValue: FixedWidthInteger & Sendable
    var rawValue: RawValue { get }
    init(rawValue: RawValue)
}

extension Identifier {
    @inlinable package static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
    @inlinable package init(_ rawValue: RawValue) { self.init(rawValue: rawValue) }
    package var description: String { "\(rawValue)" }
}

/// What a client calls "the etcd": own partitions, revisions, leases. `default` is 1.
package struct KeyspaceID: Identifier {
    package let rawValue: UInt32
    @inlinable package init(rawValue: UInt32) { self.rawValue = rawValue }
    package static let standard = KeyspaceID(rawValue: 1)
}

/// One hash range of a keyspace; 0 is the keyspace's directory group.
package struct PartitionID: Identifier {
    package let rawValue: UInt32
    @inlinable package init(rawValue: UInt32) { self.rawValue = rawValue }
    package static let directory = PartitionID(rawValue: 0)
}

/// A multi-Paxos group: one partition (or the directory) of one keyspace.
package struct GroupID: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let keyspace: KeyspaceID
    package let partition: PartitionID
    @inlinable package init(keyspace: KeyspaceID, partition: PartitionID) {
        self.keyspace = keyspace
        self.partition = partition
    }
    @inlinable package static func < (a: Self, b: Self) -> Bool {
        (a.keyspace, a.partition) < (b.keyspace, b.partition)
    }
    package var description: String { "\(keyspace)/\(partition)" }
}

/// A node within its region, from 1. 0 is "nobody" (`NodeID.none`).
package struct NodeID: Identifier {
    package let rawValue: UInt16
    @inlinable package init(rawValue: UInt16) { self.rawValue = rawValue }
    package static let none = NodeID(rawValue: 0)
}

package struct RegionID: Identifier {
    package let rawValue: UInt16
    @inlinable package init(rawValue: UInt16) { self.rawValue = rawValue }
}

/// A place in a group's log, from 1; 0 is "before the first".
package struct Slot: Identifier {
    package let rawValue: UInt64
    @inlinable package init(rawValue: UInt64) { self.rawValue = rawValue }
    package static let zero = Slot(rawValue: 0)
    @inlinable package var next: Slot { Slot(rawValue: rawValue + 1) }
    @inlinable package var previous: Slot { Slot(rawValue: rawValue == 0 ? 0 : rawValue - 1) }
}

/// etcd's `int64` store revision. Every transaction that writes gets exactly one.
package struct Revision: Identifier {
    package let rawValue: Int64
    @inlinable package init(rawValue: Int64) { self.rawValue = rawValue }
    package static let zero = Revision(rawValue: 0)
    /// An empty store is at revision 1, as in etcd (protocol-rules.md U8).
    package static let initial = Revision(rawValue: 1)
    @inlinable package var next: Revision { Revision(rawValue: rawValue + 1) }
    @inlinable package var previous: Revision { Revision(rawValue: rawValue - 1) }
}

/// 0 is "no lease".
package struct LeaseID: Identifier {
    package let rawValue: Int64
    @inlinable package init(rawValue: Int64) { self.rawValue = rawValue }
    package static let none = LeaseID(rawValue: 0)
}

/// One leadership of a group. A group's `Term` and a sequencer's `Epoch` are ballots.
package struct Ballot: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let round: UInt64
    package let node: NodeID
    @inlinable package init(round: UInt64, node: NodeID) {
        self.round = round
        self.node = node
    }
    package static let zero = Ballot(round: 0, node: .none)
    @inlinable package static func < (a: Self, b: Self) -> Bool {
        a.round != b.round ? a.round < b.round : a.node < b.node
    }
    package var description: String { "\(round).\(node)" }
}

package typealias Term = Ballot
package typealias Epoch = Ballot

/// Names a client request through retries and leader changes (protocol-rules.md S16).
/// `boot` is drawn at the start of the node's process, so a restarted node never reuses a name.
package struct RequestName: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let node: NodeID
    package let boot: UInt64
    package let sequence: UInt64
    @inlinable package init(node: NodeID, boot: UInt64, sequence: UInt64) {
        self.node = node
        self.boot = boot
        self.sequence = sequence
    }
    package static func < (a: Self, b: Self) -> Bool {
        (a.node, a.boot, a.sequence) < (b.node, b.boot, b.sequence)
    }
    package var description: String { "\(node):\(boot):\(sequence)" }
}

/// Ties a request for durability to its completion.
package struct Ticket: Identifier {
    package let rawValue: UInt64
    @inlinable package init(rawValue: UInt64) { self.rawValue = rawValue }
}
