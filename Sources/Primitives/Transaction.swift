/// What a client wants done atomically: etcd's Txn. A lone Put or DeleteRange is a transaction with
/// no compares and one operation; the facade remembers which answer its client expects.
public struct Transaction: Hashable, Sendable {
    public var compares: [Compare]
    public var success: [Operation]
    public var failure: [Operation]

    public init(compares: [Compare] = [], success: [Operation], failure: [Operation] = []) {
        self.compares = compares
        self.success = success
        self.failure = failure
    }

    /// No put and no delete on any branch (etcd's IsTxnReadonly): a read, needs no leader (C3).
    public var isReadOnly: Bool {
        success.allSatisfy(\.isReadOnly) && failure.allSatisfy(\.isReadOnly)
    }
}

extension Transaction {
    /// Every range of both branches, the nested ones too.
    public mutating func forEachRange(_ change: (inout RangeQuery) -> Void) {
        for i in success.indices { success[i].forEachRange(change) }
        for i in failure.indices { failure[i].forEachRange(change) }
    }
}

extension Operation {
    fileprivate mutating func forEachRange(_ change: (inout RangeQuery) -> Void) {
        switch self {
        case .range(var query):
            change(&query)
            self = .range(query)
        case .transaction(var nested):
            nested.forEachRange(change)
            self = .transaction(nested)
        case .put, .delete: break
        }
    }
}

public struct Compare: Hashable, Sendable {
    public enum Relation: UInt8, Sendable { case equal = 0, greater, less, notEqual }
    public enum Target: Hashable, Sendable {
        case version(Int64)
        case createRevision(Int64)
        case modRevision(Int64)
        case value(Bytes)
        case lease(Int64)
    }
    public var range: KeyRange
    public var relation: Relation
    public var target: Target
    public init(range: KeyRange, relation: Relation, target: Target) {
        self.range = range
        self.relation = relation
        self.target = target
    }
}

extension Compare {
    /// Whether it holds of the live rows of its range. Without a row the numbers are all zero and
    /// there is no value to compare (etcd's applyCompare).
    public func holds(of rows: [Row]) -> Bool {
        if rows.isEmpty {
            if case .value = target { return false }
            return holds(of: nil)
        }
        return rows.allSatisfy { holds(of: $0) }
    }

    /// Of a single key's live row.
    public func holds(ofKey row: Row?) -> Bool {
        if row == nil, case .value = target { return false }
        return holds(of: row)
    }

    private func holds(of row: Row?) -> Bool {
        switch target {
        case .version(let n): relation.holds(row?.version ?? 0, n)
        case .createRevision(let n): relation.holds(row?.createRevision.rawValue ?? 0, n)
        case .modRevision(let n): relation.holds(row?.modRevision.rawValue ?? 0, n)
        case .value(let v): relation.holds(row?.value ?? .empty, v)
        case .lease(let n): relation.holds(row?.lease.rawValue ?? 0, n)
        }
    }
}

extension Compare.Relation {
    fileprivate func holds<T: Comparable>(_ a: T, _ b: T) -> Bool {
        switch self {
        case .equal: a == b
        case .notEqual: a != b
        case .greater: a > b
        case .less: a < b
        }
    }
}

public enum Operation: Hashable, Sendable {
    case put(Put)
    case range(RangeQuery)
    case delete(Delete)
    case transaction(Transaction)

    public var isReadOnly: Bool {
        switch self {
        case .put, .delete: false
        case .range: true
        case .transaction(let nested): nested.isReadOnly
        }
    }
}

public struct Put: Hashable, Sendable {
    public var key: Bytes
    public var value: Bytes
    public var lease: LeaseID
    public var wantsPrevious: Bool
    /// Keep the current value (etcd: ignore_value); the key must exist.
    public var keepsValue: Bool
    /// Keep the current lease (etcd: ignore_lease); the key must exist.
    public var keepsLease: Bool
    public init(
        key: Bytes, value: Bytes, lease: LeaseID = .none, wantsPrevious: Bool = false,
        keepsValue: Bool = false, keepsLease: Bool = false
    ) {
        self.key = key
        self.value = value
        self.lease = lease
        self.wantsPrevious = wantsPrevious
        self.keepsValue = keepsValue
        self.keepsLease = keepsLease
    }
}

public struct Delete: Hashable, Sendable {
    public var range: KeyRange
    public var wantsPrevious: Bool
    public init(range: KeyRange, wantsPrevious: Bool = false) {
        self.range = range
        self.wantsPrevious = wantsPrevious
    }
}

public struct RangeQuery: Hashable, Sendable {
    public enum Order: UInt8, Sendable { case none = 0, ascending, descending }
    public enum Target: UInt8, Sendable { case key = 0, version, createRevision, modRevision, value }

    public var range: KeyRange
    /// 0 = no limit.
    public var limit: Int64
    /// 0 = the newest.
    public var revision: Revision
    public var order: Order
    public var target: Target
    public var serializable: Bool
    public var keysOnly: Bool
    public var countOnly: Bool
    /// 0 = no bound, for these four.
    public var minModRevision: Int64
    public var maxModRevision: Int64
    public var minCreateRevision: Int64
    public var maxCreateRevision: Int64

    public init(
        range: KeyRange, limit: Int64 = 0, revision: Revision = .zero, order: Order = .none,
        target: Target = .key, serializable: Bool = false, keysOnly: Bool = false,
        countOnly: Bool = false, minModRevision: Int64 = 0, maxModRevision: Int64 = 0,
        minCreateRevision: Int64 = 0, maxCreateRevision: Int64 = 0
    ) {
        self.range = range
        self.limit = limit
        self.revision = revision
        self.order = order
        self.target = target
        self.serializable = serializable
        self.keysOnly = keysOnly
        self.countOnly = countOnly
        self.minModRevision = minModRevision
        self.maxModRevision = maxModRevision
        self.minCreateRevision = minCreateRevision
        self.maxCreateRevision = maxCreateRevision
    }

    /// What a revision becomes that cannot be read: inside a transaction that is an error only if its
    /// branch is taken. Whoever answers says `refusal`.
    public static let compactedRevision = Revision(.max - 1)
    public static let futureRevision = Revision(.max - 2)
    public var refusal: RequestError? {
        switch revision {
        case Self.compactedRevision: .compacted
        case Self.futureRevision: .futureRevision
        default: nil
        }
    }

    public var hasFilter: Bool {
        minModRevision != 0 || maxModRevision != 0 || minCreateRevision != 0 || maxCreateRevision != 0
    }
}

// MARK: Results

public struct TransactionResult: Hashable, Sendable {
    public var succeeded: Bool
    public var results: [OperationResult]
    public init(succeeded: Bool, results: [OperationResult]) {
        self.succeeded = succeeded
        self.results = results
    }
}

public enum OperationResult: Hashable, Sendable {
    case put(previous: Row?)
    case range(RangeResult)
    case delete(deleted: Int64, previous: [Row])
    case transaction(TransactionResult)
}

public struct RangeResult: Hashable, Sendable {
    public var rows: [Row]
    public var more: Bool
    /// Of the whole range at that revision, neither limit nor filters applied (etcd).
    public var count: Int64
    public init(rows: [Row] = [], more: Bool = false, count: Int64 = 0) {
        self.rows = rows
        self.more = more
        self.count = count
    }
}

// MARK: Range semantics, shared by the store's walk and the evaluator

extension RangeQuery {
    public func passesFilter(_ row: Row) -> Bool {
        let mod = row.modRevision.rawValue, create = row.createRevision.rawValue
        return (minModRevision == 0 || mod >= minModRevision)
            && (maxModRevision == 0 || mod <= maxModRevision)
            && (minCreateRevision == 0 || create >= minCreateRevision)
            && (maxCreateRevision == 0 || create <= maxCreateRevision)
    }

    /// The answer, given every live row of the range in key order. As in etcd: `count` is of the whole
    /// range; filters, then sort, then limit; sorting is stable; ORDER none with a target sorts nothing
    /// but the default key order.
    public func answer(fromAll rows: [Row]) -> RangeResult {
        var result = RangeResult(count: Int64(rows.count))
        if countOnly { return result }
        var kept = hasFilter ? rows.filter(passesFilter) : rows
        // Without an order etcd counts the limit before it sorts by the target: what is sorted are the
        // first keys, and one more.
        if order == .none, target != .key, limit > 0, !hasFilter, kept.count > limit {
            kept.removeSubrange((Int(limit) + 1)...)
        }
        sort(&kept)
        if limit > 0, kept.count > limit {
            kept.removeSubrange(Int(limit)...)
            result.more = true
        }
        if keysOnly { for i in kept.indices { kept[i].value = .empty } }
        result.rows = kept
        return result
    }

    private func sort(_ rows: inout [Row]) {
        // etcd: a target without an order sorts ascending, except for the key, which already is.
        let effective = order == .none && target != .key ? Order.ascending : order
        switch effective {
        case .none: return
        case .ascending: if target == .key { return } else { stableSort(&rows, descending: false) }
        case .descending: stableSort(&rows, descending: true)
        }
    }

    private func stableSort(_ rows: inout [Row], descending: Bool) {
        // The standard library's sort is stable, though its documentation does not promise it;
        // ties fall back to key order here, which is what a stable sort of key-ordered rows gives.
        func ordered(_ a: Row, _ b: Row) -> Bool {
            switch target {
            case .key: return descending ? b.key < a.key : a.key < b.key
            case .version: return pick(a.version, b.version, a, b)
            case .createRevision: return pick(a.createRevision, b.createRevision, a, b)
            case .modRevision: return pick(a.modRevision, b.modRevision, a, b)
            case .value: return pick(a.value, b.value, a, b)
            }
        }
        func pick<T: Comparable>(_ x: T, _ y: T, _ a: Row, _ b: Row) -> Bool {
            if x != y { return descending ? y < x : x < y }
            return a.key < b.key
        }
        rows.sort(by: ordered)
    }
}
