import Primitives

/// WatchCreateRequest.
struct WatchCreation: Equatable {
    var range = KeyRange.everything
    var startRevision = Revision.zero
    var skipsPuts = false
    var skipsDeletions = false
    var wantsPrevious = false
    var wantsProgress = false
    var wantsFragments = false
    /// 0: the server chooses.
    var id: Int64 = 0
}

enum WatchRequest: Equatable {
    case create(WatchCreation)
    case cancel(id: Int64)
    case progress
    /// Nothing that this version knows: passed over, as in etcd.
    case unknown

    init(message: Bytes) throws(CallFailure) {
        self = try unmarshalling { () throws(Malformed) in try WatchRequest.decode(message) }
    }

    private static func decode(_ message: Bytes) throws(Malformed) -> WatchRequest {
        var request = WatchRequest.unknown
        var reader = WireReader(message)
        while let field = try reader.next() {
            switch field {
            case 1: request = .create(try WatchCreation.decode(try reader.bytes()))
            case 2:
                var inner = try reader.message()
                var id: Int64 = 0
                while let field = try inner.next() {
                    if field == 1 { id = try inner.int64() } else { try inner.skip() }
                }
                request = .cancel(id: id)
            case 3:
                _ = try reader.bytes()
                request = .progress
            default: try reader.skip()
            }
        }
        return request
    }
}

extension WatchCreation {
    fileprivate static func decode(_ message: Bytes) throws(Malformed) -> WatchCreation {
        var creation = WatchCreation()
        var key = Bytes.empty, end = Bytes.empty
        var reader = WireReader(message)
        while let field = try reader.next() {
            switch field {
            case 1: key = try reader.bytes()
            case 2: end = try reader.bytes()
            case 3: creation.startRevision = Revision(try reader.int64())
            case 4: creation.wantsProgress = try reader.bool()
            case 5:
                // Repeated enum: packed by new clients, one by one by old ones.
                if reader.kind == .varint {
                    creation.filter(try reader.uint64())
                } else {
                    var packed = PackedVarints(try reader.bytes())
                    while let value = try packed.next() { creation.filter(value) }
                }
            case 6: creation.wantsPrevious = try reader.bool()
            case 7: creation.id = try reader.int64()
            case 8: creation.wantsFragments = try reader.bool()
            default: try reader.skip()
            }
        }
        // A watch outlives its request: its key must not keep the message alive.
        let first = key.isEmpty ? Bytes([0]) : key.compact()
        creation.range = KeyRange(key: first, end: end.compact())
        return creation
    }

    private mutating func filter(_ value: UInt64) {
        if value == 0 { skipsPuts = true } else if value == 1 { skipsDeletions = true }
    }
}

private struct PackedVarints {
    private let source: Bytes
    private var at = 0
    init(_ source: Bytes) { self.source = source }

    mutating func next() throws(Malformed) -> UInt64? {
        guard at < source.count else { return nil }
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while at < source.count, shift <= 63 {
            let byte = source[at]
            at += 1
            value |= UInt64(byte & 0x7F) << shift
            if byte < 0x80 { return value }
            shift += 7
        }
        throw Malformed()
    }
}

/// WatchResponse without its events.
struct WatchResponse {
    var header: ResponseHeader
    var id: Int64
    var isCreated = false
    var isCancelled = false
    var compactRevision = Revision.zero
    var cancelReason = ""
    var isFragment = false

    init(_ header: ResponseHeader, id: Int64) {
        self.header = header
        self.id = id
    }

    private var sizeWithoutEvents: Int {
        header.fieldSize + WireSize.field(id) + WireSize.field(isCreated)
            + WireSize.field(isCancelled)
            + WireSize.field(compactRevision.rawValue) + WireSize.field(cancelReason)
            + WireSize.field(isFragment)
    }
    func size(eventBytes: Int) -> Int { sizeWithoutEvents + eventBytes }

    /// `events` are whole fields, encoded once for all watchers that they go to.
    func message(eventBytes: Int = 0, events: some Sequence<[UInt8]> = []) -> [UInt8] {
        WireWriter.message(size(eventBytes: eventBytes)) { writer in
            header.writeField(&writer)
            writer.field(2, id)
            writer.field(3, isCreated)
            writer.field(4, isCancelled)
            writer.field(5, compactRevision.rawValue)
            writer.field(6, cancelReason)
            writer.field(7, isFragment)
            for event in events { writer.raw(event) }
        }
    }
}

/// One Event as a field of a WatchResponse.
enum EventMessage {
    static func field(_ row: Row, previous: Row?) -> [UInt8] {
        // A deletion's KeyValue holds the key and the revision only, as in etcd.
        let size =
            (row.isDeletion ? 2 : 0) + row.eventFieldSize + (previous?.fieldSize ?? 0)
        return WireWriter.message(WireSize.message(size)) { writer in
            writer.header(11, size)
            if row.isDeletion { writer.field(1, UInt64(1)) }
            row.writeEventField(&writer)
            previous?.writeField(3, &writer)
        }
    }
}

extension Row {
    fileprivate var tombstoneSize: Int {
        WireSize.field(key) + WireSize.field(modRevision.rawValue)
    }
    fileprivate var eventFieldSize: Int { isDeletion ? WireSize.message(tombstoneSize) : fieldSize }

    fileprivate func writeEventField(_ writer: inout WireWriter) {
        guard isDeletion else { return writeField(2, &writer) }
        writer.header(2, tombstoneSize)
        writer.field(1, key)
        writer.field(3, modRevision.rawValue)
    }
}
