import Primitives

/// The number fields 1 to 7 of a small request; others are passed over.
struct NumberFields {
    private var values: [Int64] = [0, 0, 0, 0, 0, 0, 0, 0]

    init(_ message: Bytes) throws(CallFailure) {
        values = try unmarshalling { () throws(Malformed) in
            var values: [Int64] = [0, 0, 0, 0, 0, 0, 0, 0]
            var reader = WireReader(message)
            while let field = try reader.next() {
                if field < values.count, reader.kind == .varint {
                    values[field] = try reader.int64()
                } else {
                    try reader.skip()
                }
            }
            return values
        }
    }
    subscript(field: Int) -> Int64 { values[field] }
}

extension ResponseHeader {
    var message: [UInt8] { WireWriter.message(size) { write(&$0) } }
}

enum LeaseResponse {
    static func grant(_ id: LeaseID, ttlSeconds: Int64, _ header: ResponseHeader) -> [UInt8] {
        keepAlive(id, ttlSeconds: ttlSeconds, header)
    }

    /// LeaseGrantResponse and LeaseKeepAliveResponse are alike.
    static func keepAlive(_ id: LeaseID, ttlSeconds: Int64, _ header: ResponseHeader) -> [UInt8] {
        let size =
            header.fieldSize + WireSize.field(id.rawValue) + WireSize.field(ttlSeconds)
        return WireWriter.message(size) { writer in
            header.writeField(&writer)
            writer.field(2, id.rawValue)
            writer.field(3, ttlSeconds)
        }
    }

    static func timeToLive(
        _ id: LeaseID, granted: Int64, remaining: Int64, keys: [Bytes], _ header: ResponseHeader
    ) -> [UInt8] {
        var size =
            header.fieldSize + WireSize.field(id.rawValue) + WireSize.field(remaining)
            + WireSize.field(granted)
        for key in keys { size += WireSize.message(key.count) }
        return WireWriter.message(size) { writer in
            header.writeField(&writer)
            writer.field(2, id.rawValue)
            writer.field(3, remaining)
            writer.field(4, granted)
            for key in keys {
                writer.header(5, key.count)
                key.withUnsafeBytes { writer.raw($0) }
            }
        }
    }

    static func leases(_ ids: [LeaseID], _ header: ResponseHeader) -> [UInt8] {
        var size = header.fieldSize
        for id in ids { size += WireSize.message(WireSize.field(id.rawValue)) }
        return WireWriter.message(size) { writer in
            header.writeField(&writer)
            for id in ids {
                writer.header(2, WireSize.field(id.rawValue))
                writer.field(1, id.rawValue)
            }
        }
    }
}
