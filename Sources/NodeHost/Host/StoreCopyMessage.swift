package import Primitives

/// How a whole store travels to a node whose own is damaged: the receiver asks, and paces the sender chunk
/// by chunk. Numbers tell attempts apart.
package enum StoreCopyMessage: Equatable {
    /// `needs`: how far the asker's log was cut, group by group. What does not reach that is of no use.
    case wanted(number: UInt64, needs: [GroupID: Slot])
    case chunk(number: UInt64, index: UInt64, Bytes)
    case end(number: UInt64, chunks: UInt64)
    /// Ready for everything below `next` plus the window.
    case next(number: UInt64, next: UInt64)
    case refused(number: UInt64, reason: String)
    /// Nobody has what the asker had: rows lie with who votes (docs/decisions/0016).
    case spread(number: UInt64)

    private static let groupsMax: UInt64 = 100_000

    package func encoded() -> Bytes {
        var writer = HostFrame.begin(.storeCopy)
        switch self {
        case .wanted(let number, let needs):
            writer.byte(1)
            writer.varint(number)
            writer.varint(UInt64(needs.count))
            for (group, slot) in needs.sorted(by: { $0.key < $1.key }) {
                writer.group(group)
                writer.id(slot)
            }
        case .chunk(let number, let index, let bytes):
            writer.byte(2)
            writer.varint(number)
            writer.varint(index)
            writer.bytes(bytes)
        case .end(let number, let chunks):
            writer.byte(3)
            writer.varint(number)
            writer.varint(chunks)
        case .next(let number, let next):
            writer.byte(4)
            writer.varint(number)
            writer.varint(next)
        case .refused(let number, let reason):
            writer.byte(5)
            writer.varint(number)
            writer.string(reason)
        case .spread(let number):
            writer.byte(6)
            writer.varint(number)
        }
        return Bytes(writer.bytes)
    }

    package init(_ reader: inout ByteReader) throws(DecodingError) {
        let tag = try reader.byte(), number = try reader.varint()
        switch tag {
        case 1:
            let count = try reader.varint()
            guard count <= Self.groupsMax else { throw DecodingError("\(count) groups") }
            var needs: [GroupID: Slot] = [:]
            for _ in 0..<count {
                let group = try reader.group()
                needs[group] = try reader.id()
            }
            self = .wanted(number: number, needs: needs)
        case 2: self = .chunk(number: number, index: try reader.varint(), try reader.bytes())
        case 3: self = .end(number: number, chunks: try reader.varint())
        case 4: self = .next(number: number, next: try reader.varint())
        case 5: self = .refused(number: number, reason: String(try reader.string().prefix(256)))
        case 6: self = .spread(number: number)
        default: throw DecodingError("message \(tag) about a copy of a store")
        }
        try reader.expectEnd()
    }
}
