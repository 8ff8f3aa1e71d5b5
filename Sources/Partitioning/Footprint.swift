package import Primitives

/// What a transaction touches in one partition: keys and ranges read, keys and ranges that it may
/// write, leases that it relies on or ends. Two footprints conflict if one may write what the other
/// touches.
package struct Footprint: Hashable, Sendable {
    package var reads: [KeyRange] = []
    package var writes: [KeyRange] = []
    /// Attaching to a lease, or asking whether it lives.
    package var sharedLeases: [LeaseID] = []
    /// Ending a lease.
    package var exclusiveLeases: [LeaseID] = []

    package init() {}

    package init(_ transaction: Transaction) { add(transaction) }

    /// Of a request for one partition.
    init(_ request: Request) {
        switch request {
        case .transaction(let transaction): add(transaction)
        case .leaseKeepAlive(let lease): sharedLeases = [lease]
        case .leaseRevoke(let lease), .leaseExpire(let lease): exclusiveLeases = [lease]
        case .leaseGrant, .leaseTimeToLive, .leaseList, .compact, .members, .replicate, .auth, .split:
            break
        }
    }

    package mutating func add(_ transaction: Transaction) {
        for c in transaction.compares { reads.append(c.range) }
        for o in transaction.success { add(o) }
        for o in transaction.failure { add(o) }
    }

    private mutating func add(_ operation: Operation) {
        switch operation {
        case .put(let put):
            writes.append(KeyRange(key: put.key))
            if put.lease != .none, !sharedLeases.contains(put.lease) { sharedLeases.append(put.lease) }
        case .delete(let delete): writes.append(delete.range)
        case .range(let query): if query.revision == .zero { reads.append(query.range) }
        case .transaction(let nested): add(nested)
        }
    }

    package func conflicts(with other: Footprint) -> Bool {
        writes.contains { w in
            other.writes.contains { w.overlaps($0) } || other.reads.contains { w.overlaps($0) }
        }
            || reads.contains { r in other.writes.contains { r.overlaps($0) } }
            || exclusiveLeases.contains {
                other.exclusiveLeases.contains($0) || other.sharedLeases.contains($0)
            }
            || sharedLeases.contains { other.exclusiveLeases.contains($0) }
    }
}

extension Transaction {
    /// Whether any put names a lease: only then has its footprint any.
    package var namesLeases: Bool { success.contains(where: \.namesLeases) || failure.contains(where: \.namesLeases) }
    /// Those that puts name, each once.
    package var leases: [LeaseID] {
        var found: [LeaseID] = []
        collectLeases(into: &found)
        return found
    }
    private func collectLeases(into found: inout [LeaseID]) {
        for operation in success { operation.collectLeases(into: &found) }
        for operation in failure { operation.collectLeases(into: &found) }
    }
    /// Whether any range names a revision.
    package var readsHistory: Bool {
        success.contains(where: \.readsHistory) || failure.contains(where: \.readsHistory)
    }
}

extension Operation {
    fileprivate var namesLeases: Bool {
        switch self {
        case .put(let put): put.lease != .none
        case .range, .delete: false
        case .transaction(let nested): nested.namesLeases
        }
    }
    fileprivate func collectLeases(into found: inout [LeaseID]) {
        switch self {
        case .put(let put):
            if put.lease != .none, !found.contains(put.lease) { found.append(put.lease) }
        case .range, .delete: break
        case .transaction(let nested): found += nested.leases.filter { !found.contains($0) }
        }
    }
    fileprivate var readsHistory: Bool {
        switch self {
        case .range(let query): query.revision > .zero
        case .put, .delete: false
        case .transaction(let nested): nested.readsHistory
        }
    }
}

extension Transaction {
    /// The one key that all of it is about, if that is so plain that nothing needs to be collected: compares
    /// and operations of this key alone, none of them nested, no lease and no history. Most transactions are.
    package var onlyKey: Bytes? {
        var key: Bytes?
        func isOnly(_ range: KeyRange) -> Bool {
            guard range.isSingle else { return false }
            if let key { return key == range.key }
            key = range.key
            return true
        }
        func isOnly(_ operation: Operation) -> Bool {
            switch operation {
            case .put(let put): put.lease == .none && isOnly(KeyRange(key: put.key))
            case .delete(let delete): isOnly(delete.range)
            case .range(let query): query.revision == .zero && isOnly(query.range)
            case .transaction: false
            }
        }
        for compare in compares { guard isOnly(compare.range) else { return nil } }
        for operation in success { guard isOnly(operation) else { return nil } }
        for operation in failure { guard isOnly(operation) else { return nil } }
        return key
    }
}

/// Which partitions a transaction needs.
extension PartitionMap {
    package func participants(of transaction: Transaction) -> [PartitionID] {
        var found: [PartitionID] = []
        collect(transaction, into: &found)
        if found.count > 1 { found.sort() }
        return found
    }

    /// Those that a client's request names itself, in order: whoever carries it out writes in one of
    /// them. The first is the gate of its attempts (S16).
    package func named(by request: Request) -> [PartitionID] {
        switch request {
        case .transaction(let transaction): participants(of: transaction)
        case .leaseGrant(let lease, _), .leaseRevoke(let lease), .leaseExpire(let lease),
            .leaseKeepAlive(let lease), .leaseTimeToLive(let lease, _):
            [home(of: lease)]
        case .leaseList, .compact, .replicate, .auth, .members, .split: []
        }
    }

    private func collect(_ transaction: Transaction, into found: inout [PartitionID]) {
        for c in transaction.compares { collect(c.range, into: &found) }
        for operation in transaction.success { collect(operation, into: &found) }
        for operation in transaction.failure { collect(operation, into: &found) }
    }

    private func collect(_ operation: Operation, into found: inout [PartitionID]) {
        switch operation {
        case .put(let put): collect(KeyRange(key: put.key), into: &found)
        case .delete(let delete): collect(delete.range, into: &found)
        case .range(let query): if query.revision == .zero { collect(query.range, into: &found) }
        case .transaction(let nested): collect(nested, into: &found)
        }
    }

    private func collect(_ range: KeyRange, into found: inout [PartitionID]) {
        if range.isEmpty { return }
        if range.isSingle {
            let p = partition(of: range.key)
            if !found.contains(p) { found.append(p) }
        } else {
            for entry in entries where !found.contains(entry.partition) { found.append(entry.partition) }
        }
    }
}
