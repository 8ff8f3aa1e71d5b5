package import Primitives

/// What travels in one frame between two hosts. Kind, version, body.
enum HostFrame {
    static let version: UInt8 = 1

    enum Kind: UInt8 {
        /// A turn's messages to one node of the region, one after another.
        case messages = 1
        /// One message of a link between regions.
        case link = 2
        case snapshot = 3
        /// Who we are, for people: the version of our program.
        case greeting = 4
        /// The alarms that a node raises itself, and those that clients have raised or taken back.
        case alarms = 16
        /// A whole store for a node whose own is damaged.
        case storeCopy = 17
        /// How long the syncs of a node's log took in the last second.
        case disk = 18
        /// Rows of replicas that the asker does not have.
        case rows = 19
        /// Where the members of regions are.
        case neighbours = 20
        /// How much of a CPU a node's loop has used in the last second.
        case load = 21
    }

    static func begin(_ kind: Kind, capacity: Int = 256) -> ByteWriter {
        var writer = ByteWriter(capacity: capacity)
        writer.byte(kind.rawValue)
        writer.byte(version)
        return writer
    }

    /// Nil: a kind or version that this build does not know.
    static func kind(_ reader: inout ByteReader) throws(DecodingError) -> Kind? {
        guard let kind = Kind(rawValue: try reader.byte()), try reader.byte() == version else {
            return nil
        }
        return kind
    }
}

/// How a partition's snapshot travels: the receiver paces the sender, chunk by chunk.
package enum SnapshotMessage: Equatable {
    /// `number` tells attempts apart.
    /// `hashes`: where the group lies as of `applied`. Nil, and written as level 1 does, while there has
    /// been no split: where it was founded.
    case offer(GroupID, number: UInt64, applied: Slot, hashes: HashRange? = nil)
    case chunk(GroupID, number: UInt64, index: UInt64, Bytes)
    case end(GroupID, number: UInt64, chunks: UInt64)
    /// Ready for everything below `next` plus the window.
    case next(GroupID, number: UInt64, next: UInt64)
    case refused(GroupID, number: UInt64)

    package func encoded() -> Bytes {
        var writer = HostFrame.begin(.snapshot)
        switch self {
        case .offer(let group, let number, let applied, let hashes):
            writer.byte(hashes == nil ? 1 : 6)
            writer.group(group)
            writer.varint(number)
            writer.id(applied)
            if let hashes { writer.hashRange(hashes) }
        case .chunk(let group, let number, let index, let bytes):
            writer.byte(2)
            writer.group(group)
            writer.varint(number)
            writer.varint(index)
            writer.bytes(bytes)
        case .end(let group, let number, let chunks):
            writer.byte(3)
            writer.group(group)
            writer.varint(number)
            writer.varint(chunks)
        case .next(let group, let number, let next):
            writer.byte(4)
            writer.group(group)
            writer.varint(number)
            writer.varint(next)
        case .refused(let group, let number):
            writer.byte(5)
            writer.group(group)
            writer.varint(number)
        }
        return Bytes(writer.bytes)
    }

    package init(_ reader: inout ByteReader) throws(DecodingError) {
        let tag = try reader.byte()
        let group = try reader.group(), number = try reader.varint()
        switch tag {
        case 1: self = .offer(group, number: number, applied: try reader.id())
        case 6:
            self = .offer(
                group, number: number, applied: try reader.id(), hashes: try reader.hashRange())
        case 2:
            self = .chunk(group, number: number, index: try reader.varint(), try reader.bytes())
        case 3: self = .end(group, number: number, chunks: try reader.varint())
        case 4: self = .next(group, number: number, next: try reader.varint())
        case 5: self = .refused(group, number: number)
        default: throw DecodingError("snapshot message \(tag)")
        }
        try reader.expectEnd()
    }
}
