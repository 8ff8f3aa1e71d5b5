import Primitives

// KV's requests, from wire bytes to checked values of Primitives in one pass. What etcd refuses
// (v3rpc/key.go) is thrown as `CallFailure`; bytes that are no message come first, as in etcd.

extension RangeQuery {
    init(message: Bytes) throws(CallFailure) {
        var reader = WireReader(message)
        let decoded = try unmarshalling { () throws(Malformed) in try RangeQuery.decode(&reader) }
        if let issue = decoded.issue { throw issue.failure }
        self = decoded.query
    }

    static func decode(
        _ reader: inout WireReader
    ) throws(Malformed) -> (query: RangeQuery, issue: EtcdError?) {
        var key = Bytes.empty, end = Bytes.empty
        var query = RangeQuery(range: KeyRange(key: .empty))
        var order: Int32 = 0, target: Int32 = 0
        while let field = try reader.next() {
            switch field {
            case 1: key = try reader.bytes()
            case 2: end = try reader.bytes()
            case 3: query.limit = try reader.int64()
            case 4: query.revision = Revision(try reader.int64())
            case 5: order = try reader.int32()
            case 6: target = try reader.int32()
            case 7: query.serializable = try reader.bool()
            case 8: query.keysOnly = try reader.bool()
            case 9: query.countOnly = try reader.bool()
            case 10: query.minModRevision = try reader.int64()
            case 11: query.maxModRevision = try reader.int64()
            case 12: query.minCreateRevision = try reader.int64()
            case 13: query.maxCreateRevision = try reader.int64()
            default: try reader.skip()
            }
        }
        query.range = KeyRange(key: key, end: end)
        // etcd takes a limit or a revision below zero for none.
        query.limit = max(0, query.limit)
        query.revision = max(.zero, query.revision)
        if key.isEmpty { return (query, .emptyKey) }
        guard let order = UInt8(exactly: order).flatMap(Order.init(rawValue:)),
            let target = UInt8(exactly: target).flatMap(Target.init(rawValue:))
        else { return (query, .invalidSortOption) }
        query.order = order
        query.target = target
        return (query, nil)
    }
}

extension Put {
    init(message: Bytes) throws(CallFailure) {
        var reader = WireReader(message)
        let put = try unmarshalling { () throws(Malformed) in try Put.decode(&reader) }
        if let issue = put.issue { throw issue.failure }
        self = put
    }

    static func decode(_ reader: inout WireReader) throws(Malformed) -> Put {
        var put = Put(key: .empty, value: .empty)
        while let field = try reader.next() {
            switch field {
            case 1: put.key = try reader.bytes()
            case 2: put.value = try reader.bytes()
            case 3: put.lease = LeaseID(try reader.int64())
            case 4: put.wantsPrevious = try reader.bool()
            case 5: put.keepsValue = try reader.bool()
            case 6: put.keepsLease = try reader.bool()
            default: try reader.skip()
            }
        }
        return put
    }

    var issue: EtcdError? {
        if key.isEmpty { return .emptyKey }
        if keepsValue, !value.isEmpty { return .valueProvided }
        if keepsLease, lease != .none { return .leaseProvided }
        return nil
    }
}

extension Delete {
    init(message: Bytes) throws(CallFailure) {
        var reader = WireReader(message)
        let delete = try unmarshalling { () throws(Malformed) in try Delete.decode(&reader) }
        if delete.range.key.isEmpty { throw EtcdError.emptyKey.failure }
        self = delete
    }

    static func decode(_ reader: inout WireReader) throws(Malformed) -> Delete {
        var key = Bytes.empty, end = Bytes.empty
        var wantsPrevious = false
        while let field = try reader.next() {
            switch field {
            case 1: key = try reader.bytes()
            case 2: end = try reader.bytes()
            case 3: wantsPrevious = try reader.bool()
            default: try reader.skip()
            }
        }
        return Delete(range: KeyRange(key: key, end: end), wantsPrevious: wantsPrevious)
    }
}

/// CompactionRequest. `physical` asks to wait until the space is free; compaction here never blocks
/// anybody, and its answer is the same.
struct CompactionMessage {
    var revision = Revision.zero

    init(message: Bytes) throws(CallFailure) {
        var reader = WireReader(message)
        revision = Revision(
            try unmarshalling { () throws(Malformed) in
                var revision: Int64 = 0
                while let field = try reader.next() {
                    if field == 1 { revision = try reader.int64() } else { try reader.skip() }
                }
                return revision
            })
    }
}

/// Runs a decoder and makes its failure gRPC's.
func unmarshalling<T>(_ decode: () throws(Malformed) -> T) throws(CallFailure) -> T {
    do throws(Malformed) {
        return try decode()
    } catch {
        throw .malformed
    }
}
