import Primitives

extension Transaction {
    /// TxnRequest with all of etcd's checks: empty keys, unknown orders, empty operations, the limit on
    /// the lists (which shrinks inside nested transactions), keys written twice.
    init(message: Bytes, operationsMax: Int) throws(CallFailure) {
        let (transaction, issue) = try unmarshalling { () throws(Malformed) in
            try Transaction.decode(message, budget: operationsMax)
        }
        if let issue { throw issue.failure }
        guard WrittenKeys.areDistinct(in: transaction) else { throw EtcdError.duplicateKey.failure }
        self = transaction
    }

    /// The first issue in etcd's order: the size of the lists, the compares, success, failure.
    private static func decode(
        _ message: Bytes, budget: Int
    ) throws(Malformed) -> (Transaction, EtcdError?) {
        let longest = try longestList(message)
        let isTooLong = longest > budget
        var transaction = Transaction(success: [])
        var compareIssue: EtcdError?
        var successIssue: EtcdError?
        var failureIssue: EtcdError?
        var reader = WireReader(message)
        while let field = try reader.next() {
            switch field {
            case 1:
                let compare = try Compare.decode(try reader.bytes())
                if compare.range.key.isEmpty { compareIssue = .emptyKey }
                transaction.compares.append(compare)
            case 2, 3:
                let bytes = try reader.bytes()
                // What is refused for its length anyway is not taken apart any further: nesting is
                // bounded by the budget.
                if isTooLong { continue }
                let (operation, issue) = try Operation.decode(bytes, budget: budget - longest)
                if field == 2 {
                    transaction.success.append(operation)
                    successIssue = successIssue ?? issue
                } else {
                    transaction.failure.append(operation)
                    failureIssue = failureIssue ?? issue
                }
            default: try reader.skip()
            }
        }
        let issue = isTooLong ? .tooManyOperations : compareIssue ?? successIssue ?? failureIssue
        return (transaction, issue)
    }

    private static func longestList(_ message: Bytes) throws(Malformed) -> Int {
        var compares = 0, success = 0, failure = 0
        var reader = WireReader(message)
        while let field = try reader.next() {
            switch field {
            case 1: compares += 1
            case 2: success += 1
            case 3: failure += 1
            default: break
            }
            try reader.skip()
        }
        return max(compares, success, failure)
    }

    fileprivate static func decodeNested(
        _ message: Bytes, budget: Int
    ) throws(Malformed) -> (Transaction, EtcdError?) {
        try decode(message, budget: budget)
    }
}

extension Operation {
    fileprivate static func decode(
        _ message: Bytes, budget: Int
    ) throws(Malformed) -> (Operation, EtcdError?) {
        // etcd's answer to an operation that names nothing to do.
        var decoded: (Operation, EtcdError?) = (
            .range(RangeQuery(range: KeyRange(key: .empty))), .keyNotFound
        )
        var reader = WireReader(message)
        while let field = try reader.next() {
            switch field {
            case 1:
                var inner = try reader.message()
                let (query, issue) = try RangeQuery.decode(&inner)
                decoded = (.range(query), issue)
            case 2:
                var inner = try reader.message()
                let put = try Put.decode(&inner)
                decoded = (.put(put), put.issue)
            case 3:
                var inner = try reader.message()
                let delete = try Delete.decode(&inner)
                decoded = (.delete(delete), delete.range.key.isEmpty ? .emptyKey : nil)
            case 4:
                let (nested, issue) = try Transaction.decodeNested(
                    try reader.bytes(), budget: budget)
                decoded = (.transaction(nested), issue)
            default: try reader.skip()
            }
        }
        return decoded
    }
}

extension Compare {
    /// etcd compares with zero (or the empty value) if the operand that the target needs is not the one
    /// that was sent, and holds to be true what it does not know how to relate.
    fileprivate static func decode(_ message: Bytes) throws(Malformed) -> Compare {
        enum Operand {
            case none
            case number(field: Int, Int64)
            case value(Bytes)
            func number(_ field: Int) -> Int64 {
                if case .number(field, let value) = self { value } else { 0 }
            }
        }
        var relation: Int32 = 0, target: Int32 = 0
        var key = Bytes.empty, end = Bytes.empty
        var operand = Operand.none
        var reader = WireReader(message)
        while let field = try reader.next() {
            switch field {
            case 1: relation = try reader.int32()
            case 2: target = try reader.int32()
            case 3: key = try reader.bytes()
            case 4, 5, 6, 8: operand = .number(field: field, try reader.int64())
            case 7: operand = .value(try reader.bytes())
            case 64: end = try reader.bytes()
            default: try reader.skip()
            }
        }
        let range = KeyRange(key: key, end: end)
        let wanted: Target
        switch target {
        case 0: wanted = .version(operand.number(4))
        case 1: wanted = .createRevision(operand.number(5))
        case 2: wanted = .modRevision(operand.number(6))
        case 3:
            if case .value(let value) = operand {
                wanted = .value(value)
            } else {
                wanted = .value(.empty)
            }
        case 4: wanted = .lease(operand.number(8))
        default:
            // All are equal in what is not known; versions are never negative.
            let isTrue = relation == 0 || !(0...3).contains(relation)
            return Compare(range: range, relation: isTrue ? .greater : .less, target: .version(-1))
        }
        guard let relation = UInt8(exactly: relation).flatMap(Relation.init(rawValue:)) else {
            return Compare(range: range, relation: .greater, target: .version(-1))
        }
        return Compare(range: range, relation: relation, target: wanted)
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
