package import Primitives

/// What travels between two regions about one stream. `hello`, `acknowledge` and `resume` go from the
/// destination to the origin, `batch` and `idle` from the origin to the destination.
package enum LinkMessage: Hashable, Sendable {
    /// The destination's durable cursor for the stream: everything through it is applied.
    /// `incarnation` is the one of the origin that the cursor belongs to (protocol-rules.md G9).
    case hello(origin: RegionID, cursor: Revision, incarnation: UInt64)
    /// `frontier` and `wallMicroseconds` are the origin's at sending: lag is measured from them.
    case batch(ReplicationBatch, frontier: Revision, wallMicroseconds: UInt64)
    case acknowledge(origin: RegionID, through: Revision)
    /// Nothing of the origin's own up to `frontier` is unsent; the last batch sent ended at `sent`
    /// (protocol-rules.md G10: bounded staleness needs it). A frontier of zero: the sender is new and
    /// asks for the hello.
    case idle(origin: RegionID, sent: Revision, frontier: Revision, wallMicroseconds: UInt64)
    /// The destination misses something: the origin sends again from here.
    case resume(origin: RegionID, cursor: Revision)

    /// The region whose stream the message is about.
    package var origin: RegionID {
        switch self {
        case .hello(let origin, _, _), .acknowledge(let origin, _), .idle(let origin, _, _, _),
            .resume(let origin, _):
            origin
        case .batch(let batch, _, _): batch.origin
        }
    }
}

extension LinkMessage {
    private static let version: UInt8 = 1

    package func encoded() -> Bytes {
        var writer = ByteWriter(capacity: 64)
        writer.linkMessage(self)
        return Bytes(writer.bytes)
    }

    package init(decoding bytes: Bytes) throws(DecodingError) {
        var reader = ByteReader(bytes)
        self = try reader.linkMessage()
        try reader.expectEnd()
    }

    fileprivate static func check(version: UInt8) throws(DecodingError) {
        guard version == Self.version else { throw DecodingError("link message version \(version)") }
    }

    fileprivate static func write(version writer: inout ByteWriter) { writer.byte(version) }
}

extension ByteWriter {
    package mutating func linkMessage(_ message: LinkMessage) {
        LinkMessage.write(version: &self)
        switch message {
        case .hello(let origin, let cursor, let incarnation):
            byte(1)
            id(origin)
            id(cursor)
            varint(incarnation)
        case .batch(let batch, let frontier, let wall):
            byte(2)
            id(frontier)
            varint(wall)
            replicationBatch(batch)
        case .acknowledge(let origin, let through):
            byte(3)
            id(origin)
            id(through)
        case .idle(let origin, let sent, let frontier, let wall):
            byte(4)
            id(origin)
            id(sent)
            id(frontier)
            varint(wall)
        case .resume(let origin, let cursor):
            byte(5)
            id(origin)
            id(cursor)
        }
    }
}

extension ByteReader {
    package mutating func linkMessage() throws(DecodingError) -> LinkMessage {
        try LinkMessage.check(version: try byte())
        switch try byte() {
        case 1:
            return .hello(origin: try id(), cursor: try id(), incarnation: try varint())
        case 2:
            let frontier: Revision = try id(), wall = try varint()
            let batch = try replicationBatch()
            guard batch.from < batch.through else { throw DecodingError("batch without extent") }
            return .batch(batch, frontier: frontier, wallMicroseconds: wall)
        case 3: return .acknowledge(origin: try id(), through: try id())
        case 4:
            return .idle(
                origin: try id(), sent: try id(), frontier: try id(), wallMicroseconds: try varint())
        case 5: return .resume(origin: try id(), cursor: try id())
        case let tag: throw DecodingError("link message \(tag)")
        }
    }
}
