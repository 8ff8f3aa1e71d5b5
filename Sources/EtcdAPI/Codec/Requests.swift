package import Primitives

/// What comes in on a watch stream.
package enum WatchCommand: Equatable, Sendable {
    case create(WatchCreation)
    case cancel(Int64)
    case progress
    /// A message without content: passed over, as in etcd.
    case nothing
}

package struct WatchCreation: Equatable, Sendable {
    package var range = KeyRange(key: .empty)
    package var startRevision: Int64 = 0
    package var progressNotify = false
    package var withoutPuts = false
    package var withoutDeletes = false
    package var wantsPrevious = false
    package var watchID: Int64 = 0
    package var fragment = false
    package init() {}
}

/// The frequent requests, straight from the wire into the domain's values: keys and values are windows
/// on the message. Fields are those of proto/rpc.proto; SwiftProtobuf is the oracle in the tests.
package enum RequestCodec {
    package static func range(_ message: Bytes) throws(CodecError) -> RangeQuery {
        try range(ProtoReader(message))
    }
    package static func put(_ message: Bytes) throws(CodecError) -> Put {
        try put(ProtoReader(message))
    }
    package static func delete(_ message: Bytes) throws(CodecError) -> Delete {
        try delete(ProtoReader(message))
    }
    package static func transaction(_ message: Bytes) throws(CodecError) -> Transaction {
        try transaction(ProtoReader(message), depth: 0)
    }

    /// LeaseKeepAliveRequest.
    package static func keepAlive(_ message: Bytes) throws(CodecError) -> LeaseID {
        LeaseID(rawValue: try onlyInt64(ProtoReader(message)))
    }

    /// WatchRequest.
    package static func watch(_ message: Bytes) throws(CodecError) -> WatchCommand {
        var reader = ProtoReader(message)
        var command = WatchCommand.nothing
        while let tag = try reader.tag() {
            switch tag {
            case 0x0A: command = .create(try creation(try reader.message()))
            case 0x12: command = .cancel(try onlyInt64(try reader.message()))
            case 0x1A:
                try skipAll(try reader.message())
                command = .progress
            default: try reader.skip(tag)
            }
        }
        return command
    }

    private static func range(_ message: ProtoReader) throws(CodecError) -> RangeQuery {
        var reader = message
        var key = Bytes.empty, end = Bytes.empty
        var order: Int32 = 0, target: Int32 = 0
        var query = RangeQuery(range: KeyRange(key: .empty))
        while let tag = try reader.tag() {
            switch tag {
            case 0x0A: key = try reader.bytes()
            case 0x12: end = try reader.bytes()
            case 0x18: query.limit = try reader.int64()
            case 0x20: query.revision = Revision(rawValue: try reader.int64())
            case 0x28: order = try reader.number()
            case 0x30: target = try reader.number()
            case 0x38: query.serializable = try reader.bool()
            case 0x40: query.keysOnly = try reader.bool()
            case 0x48: query.countOnly = try reader.bool()
            case 0x50: query.minModRevision = try reader.int64()
            case 0x58: query.maxModRevision = try reader.int64()
            case 0x60: query.minCreateRevision = try reader.int64()
            case 0x68: query.maxCreateRevision = try reader.int64()
            default: try reader.skip(tag)
            }
        }
        query.range = KeyRange(key: key, end: end)
        guard order != 0 || target != 0 else { return query }
        let known = (
            UInt8(exactly: order).flatMap(RangeQuery.Order.init(rawValue:)),
            UInt8(exactly: target).flatMap(RangeQuery.Target.init(rawValue:))
        )
        guard case (let order?, let target?) = known else {
            // An empty key is the error that comes first, and the caller's to find.
            if key.isEmpty { return query }
            throw .invalidSortOption
        }
        query.order = order
        query.target = target
        return query
    }

    private static func put(_ message: ProtoReader) throws(CodecError) -> Put {
        var reader = message
        var put = Put(key: .empty, value: .empty)
        while let tag = try reader.tag() {
            switch tag {
            case 0x0A: put.key = try reader.bytes()
            case 0x12: put.value = try reader.bytes()
            case 0x18: put.lease = LeaseID(rawValue: try reader.int64())
            case 0x20: put.wantsPrevious = try reader.bool()
            case 0x28: put.keepsValue = try reader.bool()
            case 0x30: put.keepsLease = try reader.bool()
            default: try reader.skip(tag)
            }
        }
        return put
    }

    private static func delete(_ message: ProtoReader) throws(CodecError) -> Delete {
        var reader = message
        var key = Bytes.empty, end = Bytes.empty, wantsPrevious = false
        while let tag = try reader.tag() {
            switch tag {
            case 0x0A: key = try reader.bytes()
            case 0x12: end = try reader.bytes()
            case 0x18: wantsPrevious = try reader.bool()
            default: try reader.skip(tag)
            }
        }
        return Delete(range: KeyRange(key: key, end: end), wantsPrevious: wantsPrevious)
    }

    private static func transaction(
        _ message: ProtoReader, depth: Int
    ) throws(CodecError) -> Transaction {
        guard depth < 50 else { throw .tooDeep }
        var reader = message
        var transaction = Transaction(success: [])
        while let tag = try reader.tag() {
            switch tag {
            case 0x0A: transaction.compares.append(try compare(try reader.message()))
            case 0x12:
                transaction.success.append(try operation(try reader.message(), depth: depth))
            case 0x1A:
                transaction.failure.append(try operation(try reader.message(), depth: depth))
            default: try reader.skip(tag)
            }
        }
        return transaction
    }

    private static func operation(
        _ message: ProtoReader, depth: Int
    ) throws(CodecError) -> Operation {
        var reader = message
        var operation: Operation?
        while let tag = try reader.tag() {
            switch tag {
            case 0x0A: operation = .range(try range(try reader.message()))
            case 0x12: operation = .put(try put(try reader.message()))
            case 0x1A: operation = .delete(try delete(try reader.message()))
            case 0x22:
                operation = .transaction(try transaction(try reader.message(), depth: depth + 1))
            default: try reader.skip(tag)
            }
        }
        guard let operation else { throw .emptyOperation }
        return operation
    }

    /// etcd compares with zero (or the empty value) if the operand that the target needs is not the one
    /// that was sent, and has an answer even to a target or a relation that it does not know.
    package static func compare(_ message: ProtoReader) throws(CodecError) -> Compare {
        var relation: Int32 = 0, target: Int32 = 0
        var key = Bytes.empty, end = Bytes.empty
        // The union's value, and which of its fields it was.
        var number: Int64 = 0, value = Bytes.empty, field: UInt32 = 0
        var reader = message
        while let tag = try reader.tag() {
            switch tag {
            case 0x08: relation = try reader.number()
            case 0x10: target = try reader.number()
            case 0x1A: key = try reader.bytes()
            case 0x20, 0x28, 0x30, 0x40:
                number = try reader.int64()
                field = tag >> 3
            case 0x3A:
                value = try reader.bytes()
                field = tag >> 3
            case 0x202: end = try reader.bytes()
            default: try reader.skip(tag)
            }
        }
        let range = KeyRange(key: key, end: end)
        let wanted: Compare.Target
        switch target {
        case 0: wanted = .version(field == 4 ? number : 0)
        case 1: wanted = .createRevision(field == 5 ? number : 0)
        case 2: wanted = .modRevision(field == 6 ? number : 0)
        case 3: wanted = .value(field == 7 ? value : .empty)
        case 4: wanted = .lease(field == 8 ? number : 0)
        default:
            // All are equal in what is not known; versions are never negative.
            let isTrue = relation == 0 || !(0...3).contains(relation)
            return Compare(range: range, relation: isTrue ? .greater : .less, target: .version(-1))
        }
        let known = UInt8(exactly: relation).flatMap(Compare.Relation.init(rawValue:))
        guard let known else {
            return Compare(range: range, relation: .greater, target: .version(-1))
        }
        return Compare(range: range, relation: known, target: wanted)
    }

    private static func creation(_ message: ProtoReader) throws(CodecError) -> WatchCreation {
        var reader = message
        var creation = WatchCreation()
        var key = Bytes.empty, end = Bytes.empty
        func filter(_ number: Int32) {
            if number == 0 { creation.withoutPuts = true }
            if number == 1 { creation.withoutDeletes = true }
        }
        while let tag = try reader.tag() {
            switch tag {
            case 0x0A: key = try reader.bytes()
            case 0x12: end = try reader.bytes()
            case 0x18: creation.startRevision = try reader.int64()
            case 0x20: creation.progressNotify = try reader.bool()
            case 0x28: filter(try reader.number())
            case 0x2A:
                var packed = try reader.message()
                while !packed.isAtEnd { filter(try packed.number()) }
            case 0x30: creation.wantsPrevious = try reader.bool()
            case 0x38: creation.watchID = try reader.int64()
            case 0x40: creation.fragment = try reader.bool()
            default: try reader.skip(tag)
            }
        }
        creation.range = KeyRange(key: key, end: end)
        return creation
    }

    /// A message whose one field is number 1, an int64.
    private static func onlyInt64(_ message: ProtoReader) throws(CodecError) -> Int64 {
        var reader = message
        var value: Int64 = 0
        while let tag = try reader.tag() {
            if tag == 0x08 { value = try reader.int64() } else { try reader.skip(tag) }
        }
        return value
    }

    private static func skipAll(_ message: ProtoReader) throws(CodecError) {
        var reader = message
        while let tag = try reader.tag() { try reader.skip(tag) }
    }
}
