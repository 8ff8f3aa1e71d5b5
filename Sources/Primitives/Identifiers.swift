/// Lookalike integers are types: a slot is not a revision, a node is not a region.
public protocol Identifier: Hashable, Comparable, Sendable, CustomStringConvertible {
    associatedtype RawValue: FixedWidthInteger & Sendable
    var rawValue: RawValue { get }
    init(rawValue: RawValue)
}

extension Identifier {
    @inlinable public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
    @inlinable public init(_ rawValue: RawValue) { self.init(rawValue: rawValue) }
    public var description: String { "\(rawValue)" }

    /// Numbers of our own making need no protection from whoever would choose them so that they collide,
    /// and tables of them are asked several times a request: a multiplication instead of SipHash.
    @inlinable public func _rawHashValue(seed: Int) -> Int {
        OwnNumber.hash(UInt64(truncatingIfNeeded: rawValue), seed: seed)
    }
}

public enum OwnNumber {
    @inlinable public static func hash(_ number: UInt64, seed: Int) -> Int {
        let mixed = (number ^ UInt64(bitPattern: Int64(seed))) &* 0x9E37_79B9_7F4A_7C15
        return Int(Int64(bitPattern: mixed ^ (mixed >> 32)))
    }
}

/// What a client calls "the etcd": own partitions, revisions, leases. `default` is 1.
public struct KeyspaceID: Identifier {
    public let rawValue: UInt32
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
    public static let standard = KeyspaceID(rawValue: 1)
}

/// One hash range of a keyspace; 0 is the keyspace's directory group.
public struct PartitionID: Identifier {
    public let rawValue: UInt32
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
    public static let directory = PartitionID(rawValue: 0)
}

/// A multi-Paxos group: one partition (or the directory) of one keyspace.
public struct GroupID: Hashable, Comparable, Sendable, CustomStringConvertible {
    public let keyspace: KeyspaceID
    public let partition: PartitionID
    @inlinable public init(keyspace: KeyspaceID, partition: PartitionID) {
        self.keyspace = keyspace
        self.partition = partition
    }
    @inlinable public static func < (a: Self, b: Self) -> Bool {
        (a.keyspace, a.partition) < (b.keyspace, b.partition)
    }
    public var description: String { "\(keyspace)/\(partition)" }
    @inlinable public func _rawHashValue(seed: Int) -> Int {
        OwnNumber.hash(UInt64(keyspace.rawValue) << 32 | UInt64(partition.rawValue), seed: seed)
    }
}

/// A node within its region, from 1. 0 is "nobody" (`NodeID.none`).
public struct NodeID: Identifier {
    public let rawValue: UInt16
    @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }
    public static let none = NodeID(rawValue: 0)
}

/// The low byte is the seat, the high byte counts the data directories that have had it: a node that
/// lost its disk is another node, for it does not know what it has promised (protocol-rules.md S15).
extension NodeID {
    @inlinable public init(seat: NodeID, incarnation: UInt16) {
        self.init(rawValue: seat.rawValue & 0xFF | incarnation << 8)
    }
    @inlinable public var seat: NodeID { NodeID(rawValue: rawValue & 0xFF) }
    @inlinable public var incarnation: UInt16 { rawValue >> 8 }
    /// Nil: a seat is filled again 255 times, then the member needs another.
    @inlinable public var nextIncarnation: NodeID? {
        incarnation < 255 ? NodeID(seat: seat, incarnation: incarnation + 1) : nil
    }
}

public struct RegionID: Identifier {
    public let rawValue: UInt16
    @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }
}

/// A place in a group's log, from 1; 0 is "before the first".
public struct Slot: Identifier {
    public let rawValue: UInt64
    @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }
    public static let zero = Slot(rawValue: 0)
    @inlinable public var next: Slot { Slot(rawValue: rawValue + 1) }
    @inlinable public var previous: Slot { Slot(rawValue: rawValue == 0 ? 0 : rawValue - 1) }
}

/// etcd's `int64` store revision. Every transaction that writes gets exactly one.
public struct Revision: Identifier {
    public let rawValue: Int64
    @inlinable public init(rawValue: Int64) { self.rawValue = rawValue }
    public static let zero = Revision(rawValue: 0)
    /// An empty store is at revision 1, as in etcd (protocol-rules.md U8).
    public static let initial = Revision(rawValue: 1)
    @inlinable public var next: Revision { Revision(rawValue: rawValue + 1) }
    @inlinable public var previous: Revision { Revision(rawValue: rawValue - 1) }
}

/// 0 is "no lease".
public struct LeaseID: Identifier {
    public let rawValue: Int64
    @inlinable public init(rawValue: Int64) { self.rawValue = rawValue }
    /// Clients choose them.
    @inlinable public func _rawHashValue(seed: Int) -> Int { rawValue._rawHashValue(seed: seed) }
    public static let none = LeaseID(rawValue: 0)
}

/// One leadership of a group. A group's `Term` and a sequencer's `Epoch` are ballots.
public struct Ballot: Hashable, Comparable, Sendable, CustomStringConvertible {
    public let round: UInt64
    public let node: NodeID
    @inlinable public init(round: UInt64, node: NodeID) {
        self.round = round
        self.node = node
    }
    public static let zero = Ballot(round: 0, node: .none)
    @inlinable public static func < (a: Self, b: Self) -> Bool {
        a.round != b.round ? a.round < b.round : a.node < b.node
    }
    public var description: String { "\(round).\(node)" }
}

public typealias Term = Ballot
public typealias Epoch = Ballot

/// Names a client request through retries and leader changes (protocol-rules.md S16).
/// `boot` is drawn at the start of the node's process, so a restarted node never reuses a name.
public struct RequestName: Hashable, Comparable, Sendable, CustomStringConvertible {
    public let node: NodeID
    public let boot: UInt64
    public let sequence: UInt64
    @inlinable public init(node: NodeID, boot: UInt64, sequence: UInt64) {
        self.node = node
        self.boot = boot
        self.sequence = sequence
    }
    public static func < (a: Self, b: Self) -> Bool {
        (a.node, a.boot, a.sequence) < (b.node, b.boot, b.sequence)
    }
    public var description: String { "\(node):\(boot):\(sequence)" }
    @inlinable public func _rawHashValue(seed: Int) -> Int {
        OwnNumber.hash(sequence ^ boot ^ UInt64(node.rawValue) << 48, seed: seed)
    }
}

/// Ties a request for durability to its completion.
public struct Ticket: Identifier {
    public let rawValue: UInt64
    @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }
}
