package import Primitives

/// Bytes of a snapshot's chunks (docs/formats.md). Pure.
package enum SnapshotFormat {
    static let version: UInt8 = 1

    package enum Item: Equatable {
        /// First of the first chunk.
        case head(GroupID, applied: Slot, floor: Revision)
        case record(key: Bytes, value: Bytes)
        case row(Row)
        /// Last of the last chunk.
        case end
    }

    package static func begin(_ number: UInt64, _ w: inout ByteWriter) {
        w.byte(version)
        w.varint(number)
    }

    package static func append(_ item: Item, _ w: inout ByteWriter) {
        switch item {
        case .head(let group, let applied, let floor):
            w.byte(1)
            w.group(group)
            w.id(applied)
            w.id(floor)
        case .record(let key, let value):
            w.byte(2)
            w.bytes(key)
            w.bytes(value)
        case .row(let row):
            w.byte(3)
            w.row(row)
        case .end: w.byte(4)
        }
    }

    package static func finish(_ w: inout ByteWriter) -> Bytes {
        w.fixed32(CRC32C.checksum(w.bytes))
        return Bytes(w.bytes)
    }

    package static func items(of chunk: Bytes, number: UInt64) throws(DecodingError) -> [Item] {
        guard chunk.count >= 6 else { throw DecodingError("too short for a chunk") }
        let body = chunk[0..<(chunk.count - 4)]
        var tail = ByteReader(chunk[(chunk.count - 4)..<chunk.count])
        guard try tail.fixed32() == body.withUnsafeBytes({ CRC32C.checksum($0) }) else {
            throw DecodingError("checksum")
        }
        var r = ByteReader(body)
        let version = try r.byte()
        guard version == Self.version else { throw DecodingError("chunk version \(version)") }
        let found = try r.varint()
        guard found == number else { throw DecodingError("chunk \(found) where \(number) belongs") }
        var items: [Item] = []
        while !r.isAtEnd {
            switch try r.byte() {
            case 1: items.append(.head(try r.group(), applied: try r.id(), floor: try r.id()))
            case 2: items.append(.record(key: try r.bytes(), value: try r.bytes()))
            case 3: items.append(.row(try r.row()))
            case 4: items.append(.end)
            case let tag: throw DecodingError("snapshot item \(tag)")
            }
        }
        return items
    }
}
