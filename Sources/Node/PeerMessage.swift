package import Consensus
package import Partitioning
package import Primitives

/// Between the nodes of a region.
package enum PeerMessage: Hashable, Sendable {
    /// "I am here": any message says so, this one says nothing else.
    case heartbeat
    /// The same, from a node that hears the sequencer of that epoch.
    case hears(Epoch)
    case group(PartitionID, GroupMessage)
    case region(RegionMessage)
    /// The group has the voters and learners that this version of the list of members wants.
    case follows(PartitionID, list: UInt64)

    var isSignOfLife: Bool {
        switch self {
        case .heartbeat, .hears: true
        case .group, .region, .follows: false
        }
    }
}

/// A frame holds what one node has for another after one turn.
package enum PeerFrame {
    static let version: UInt8 = 2

    package static func encode(
        _ messages: [PeerMessage], keyspace: KeyspaceID, from: NodeID, to: NodeID, into writer: inout ByteWriter
    ) {
        writer.byte(version)
        writer.id(keyspace)
        // Between incarnations, not seats: what was meant for another is not for us.
        writer.id(from)
        writer.id(to)
        writer.varint(messages.count)
        for message in messages {
            switch message {
            case .heartbeat: writer.byte(0)
            case .hears(let epoch):
                writer.byte(3)
                writer.ballot(epoch)
            case .group(let partition, let message):
                writer.byte(1)
                writer.id(partition)
                writer.groupMessage(message)
            case .region(let message):
                writer.byte(2)
                writer.regionMessage(message)
            case .follows(let partition, let list):
                writer.byte(4)
                writer.id(partition)
                writer.varint(list)
            }
        }
    }

    package struct Decoded {
        package let keyspace: KeyspaceID
        package let from: NodeID
        package let to: NodeID
        package let messages: [PeerMessage]
    }

    package static func decode(_ frame: Bytes) throws(DecodingError) -> Decoded {
        var reader = ByteReader(frame)
        let version = try reader.byte()
        guard version == Self.version else { throw DecodingError("frame version \(version)") }
        let keyspace: KeyspaceID = try reader.id(), from: NodeID = try reader.id()
        let to: NodeID = try reader.id()
        let count = try reader.count()
        var messages: [PeerMessage] = []
        messages.reserveCapacity(count)
        for _ in 0..<count {
            switch try reader.byte() {
            case 0: messages.append(.heartbeat)
            case 1: messages.append(.group(try reader.id(), try reader.groupMessage()))
            case 2: messages.append(.region(try reader.regionMessage()))
            case 3: messages.append(.hears(try reader.ballot()))
            case 4: messages.append(.follows(try reader.id(), list: try reader.varint()))
            case let tag: throw DecodingError("peer message \(tag)")
            }
        }
        try reader.expectEnd()
        return Decoded(keyspace: keyspace, from: from, to: to, messages: messages)
    }
}
