import EtcdAPI
import Primitives

extension Transaction {
    /// TxnRequest with all of etcd's checks: empty keys, unknown orders, empty operations, the limit
    /// on the lists (which shrinks inside nested transactions), keys written twice.
    init(message: Bytes, operationsMax: Int) throws(CallFailure) {
        let (transaction, issue) = try decoding { () throws(CodecError) in
            try Transaction.decode(message, budget: operationsMax)
        }
        if let issue { throw issue.failure }
        guard WrittenKeys.areDistinct(in: transaction) else { throw EtcdError.duplicateKey.failure }
        self = transaction
    }

    /// With the first issue in etcd's order: the size of the lists, the compares, success, failure.
    fileprivate static func decode(
        _ message: Bytes, budget: Int
    ) throws(CodecError) -> (Transaction, EtcdError?) {
        let longest = try longestList(message)
        let isTooLong = longest > budget
        var transaction = Transaction(success: [])
        var compareIssue: EtcdError?
        var successIssue: EtcdError?
        var failureIssue: EtcdError?
        var reader = ProtoReader(message)
        while let tag = try reader.tag() {
            switch tag {
            case 0x0A:
                let compare = try RequestCodec.compare(try reader.message())
                if compare.range.key.isEmpty { compareIssue = .emptyKey }
                transaction.compares.append(compare)
            case 0x12, 0x1A:
                let bytes = try reader.bytes()
                // What is refused for its length anyway is not taken apart any further: nesting is
                // bounded by the budget.
                if isTooLong { continue }
                let (operation, issue) = try Operation.decode(bytes, budget: budget - longest)
                if tag == 0x12 {
                    transaction.success.append(operation)
                    successIssue = successIssue ?? issue
                } else {
                    transaction.failure.append(operation)
                    failureIssue = failureIssue ?? issue
                }
            default: try reader.skip(tag)
            }
        }
        let issue = isTooLong ? .tooManyOperations : compareIssue ?? successIssue ?? failureIssue
        return (transaction, issue)
    }

    private static func longestList(_ message: Bytes) throws(CodecError) -> Int {
        var compares = 0, success = 0, failure = 0
        var reader = ProtoReader(message)
        while let tag = try reader.tag() {
            switch tag {
            case 0x0A: compares += 1
            case 0x12: success += 1
            case 0x1A: failure += 1
            default: break
            }
            try reader.skip(tag)
        }
        return max(compares, success, failure)
    }
}

extension Operation {
    fileprivate static func decode(
        _ message: Bytes, budget: Int
    ) throws(CodecError) -> (Operation, EtcdError?) {
        // etcd's answer to an operation that names nothing to do.
        var decoded: (Operation, EtcdError?) = (
            .range(RangeQuery(range: KeyRange(key: .empty))), .keyNotFound
        )
        var reader = ProtoReader(message)
        while let tag = try reader.tag() {
            switch tag {
            case 0x0A:
                do throws(CodecError) {
                    var query = try RequestCodec.range(try reader.bytes())
                    query.normalizeInside()
                    decoded = (.range(query), query.issue)
                } catch {
                    guard error == .invalidSortOption else { throw error }
                    decoded.1 = .invalidSortOption
                }
            case 0x12:
                let put = try RequestCodec.put(try reader.bytes())
                decoded = (.put(put), put.issue)
            case 0x1A:
                let delete = try RequestCodec.delete(try reader.bytes())
                decoded = (.delete(delete), delete.issue)
            case 0x22:
                let (nested, issue) = try Transaction.decode(try reader.bytes(), budget: budget)
                decoded = (.transaction(nested), issue)
            default: try reader.skip(tag)
            }
        }
        return decoded
    }
}

/// No key is written twice on one path of a transaction (etcd's checkIntervals): two puts, or a put
/// under a deleted range. The two arms of a nested transaction exclude each other and may repeat puts.
struct WrittenKeys {
    private var puts: Set<Bytes> = []
    private var deletes = IntervalTree<Void>()

    static func areDistinct(in transaction: Transaction) -> Bool {
        collect(transaction.success) != nil && collect(transaction.failure) != nil
    }

    /// nil: a key is written twice.
    private static func collect(_ operations: [Operation]) -> WrittenKeys? {
        if operations.count == 1, case .transaction = operations[0] {
        } else if operations.count <= 1 {
            return collectOne(operations.first)
        }
        var keys = WrittenKeys()
        for case .delete(let delete) in operations { keys.add(delete.range) }
        for case .transaction(let nested) in operations {
            guard let then = collect(nested.success), let otherwise = collect(nested.failure) else {
                return nil
            }
            for key in then.puts {
                guard !keys.puts.contains(key), !keys.isDeleted(key) else { return nil }
                keys.puts.insert(key)
            }
            for key in otherwise.puts {
                if keys.puts.contains(key), !then.puts.contains(key) { return nil }
                if keys.isDeleted(key) { return nil }
                keys.puts.insert(key)
            }
            then.deletes.forEach { (range: KeyRange, _: Void) in keys.add(range) }
            otherwise.deletes.forEach { (range: KeyRange, _: Void) in keys.add(range) }
        }
        for case .put(let put) in operations {
            guard !keys.isDeleted(put.key), keys.puts.insert(put.key).inserted else { return nil }
        }
        return keys
    }

    private static func collectOne(_ operation: Operation?) -> WrittenKeys {
        var keys = WrittenKeys()
        switch operation {
        case .put(let put): keys.puts.insert(put.key)
        case .delete(let delete): keys.add(delete.range)
        case .range, .transaction, nil: break
        }
        return keys
    }

    private mutating func add(_ range: KeyRange) { deletes.insert(range, ()) }
    private func isDeleted(_ key: Bytes) -> Bool { deletes.contains(key) }
}
