import Primitives

/// What etcd is, on one page: written from its rules, not from our evaluator, so that the two can be
/// told apart. Answers carry etcd's fields only; `sub` and `origin` are zero.
struct ReferenceModel {
    private(set) var state: [Bytes: Row] = [:]
    private(set) var revision = Revision.initial

    /// A committed revision as the timeline tells it.
    mutating func apply(_ rows: [Row], at revision: Revision) {
        for row in rows { state[row.key] = row.isDeletion ? nil : row.visible }
        self.revision = revision
    }

    func live(in range: KeyRange) -> [Row] {
        if range.isSingle { return state[range.key].map { [$0] } ?? [] }
        return state.keys.filter(range.contains).sorted().compactMap { state[$0] }
    }

    func answer(_ query: RangeQuery) -> RangeResult {
        var result = RangeResult(count: Int64(live(in: query.range).count))
        if query.countOnly { return result }
        var rows = live(in: query.range)
        if query.minModRevision > 0 { rows.removeAll { $0.modRevision.rawValue < query.minModRevision } }
        if query.maxModRevision > 0 { rows.removeAll { $0.modRevision.rawValue > query.maxModRevision } }
        if query.minCreateRevision > 0 {
            rows.removeAll { $0.createRevision.rawValue < query.minCreateRevision }
        }
        if query.maxCreateRevision > 0 {
            rows.removeAll { $0.createRevision.rawValue > query.maxCreateRevision }
        }
        // etcd's rule: without an order, what is sorted by another target than the key are the first
        // keys up to the limit, and one more.
        if query.order == .none, query.target != .key, query.limit > 0, !query.hasFilter {
            rows = Array(rows.prefix(Int(query.limit) + 1))
        }
        Self.sort(&rows, by: query)
        if query.limit > 0, rows.count > Int(query.limit) {
            rows = Array(rows.prefix(Int(query.limit)))
            result.more = true
        }
        if query.keysOnly {
            rows = rows.map { row in
                var row = row
                row.value = .empty
                return row
            }
        }
        result.rows = rows
        return result
    }

    /// By insertion, so that equal ones stay in the order of their keys.
    private static func sort(_ rows: inout [Row], by query: RangeQuery) {
        func precedes(_ a: Row, _ b: Row) -> Bool {
            switch query.target {
            case .key: a.key < b.key
            case .version: a.version < b.version
            case .createRevision: a.createRevision < b.createRevision
            case .modRevision: a.modRevision < b.modRevision
            case .value: a.value < b.value
            }
        }
        var sorted: [Row] = []
        for row in rows {
            var at = sorted.count
            while at > 0,
                query.order == .descending
                    ? precedes(sorted[at - 1], row) : precedes(row, sorted[at - 1])
            { at -= 1 }
            sorted.insert(row, at: at)
        }
        rows = sorted
    }

    /// What `transaction` answers and changes if it is executed now, as revision `next`.
    func execute(_ transaction: Transaction, as next: Revision) -> (TransactionResult, [Row]) {
        var after = self
        var changes: [Row] = []
        let result = after.execute(transaction, as: next, comparing: self, changes: &changes)
        return (result, changes)
    }

    private mutating func execute(
        _ transaction: Transaction, as next: Revision, comparing before: ReferenceModel,
        changes: inout [Row]
    ) -> TransactionResult {
        let succeeded = transaction.compares.allSatisfy(before.holds)
        var results: [OperationResult] = []
        for operation in succeeded ? transaction.success : transaction.failure {
            switch operation {
            case .put(let put):
                let old = state[put.key]
                let row = Row(
                    key: put.key, value: put.keepsValue ? old?.value ?? .empty : put.value,
                    createRevision: old?.createRevision ?? next, modRevision: next,
                    version: (old?.version ?? 0) + 1,
                    lease: put.keepsLease ? old?.lease ?? .none : put.lease, sub: 0, origin: .none)
                state[put.key] = row
                changes.append(row)
                results.append(.put(previous: put.wantsPrevious ? old : nil))
            case .delete(let delete):
                let victims = live(in: delete.range)
                for victim in victims {
                    state[victim.key] = nil
                    changes.append(victim.tombstone(at: next))
                }
                results.append(
                    .delete(
                        deleted: Int64(victims.count),
                        previous: delete.wantsPrevious ? victims : []))
            case .range(let query): results.append(.range(answer(query)))
            case .transaction(let nested):
                results.append(
                    .transaction(
                        execute(nested, as: next, comparing: before, changes: &changes)))
            }
        }
        return TransactionResult(succeeded: succeeded, results: results)
    }

    private func holds(_ compare: Compare) -> Bool {
        let rows = live(in: compare.range)
        if rows.isEmpty {
            switch compare.target {
            case .value: return false
            case .version(let n), .createRevision(let n), .modRevision(let n), .lease(let n):
                return Self.relate(0, compare.relation, n)
            }
        }
        return rows.allSatisfy { row in
            switch compare.target {
            case .version(let n): Self.relate(row.version, compare.relation, n)
            case .createRevision(let n):
                Self.relate(row.createRevision.rawValue, compare.relation, n)
            case .modRevision(let n): Self.relate(row.modRevision.rawValue, compare.relation, n)
            case .lease(let n): Self.relate(row.lease.rawValue, compare.relation, n)
            case .value(let value): Self.relate(row.value, compare.relation, value)
            }
        }
    }

    private static func relate<T: Comparable>(_ a: T, _ relation: Compare.Relation, _ b: T) -> Bool {
        switch relation {
        case .equal: a == b
        case .notEqual: a != b
        case .greater: a > b
        case .less: a < b
        }
    }
}

extension Origin {
    static let none = Origin(region: RegionID(0), revision: .zero, stamp: .zero)
}

extension Row {
    /// What a client sees of it.
    var visible: Row {
        var row = self
        row.sub = 0
        row.origin = .none
        return row
    }

    func tombstone(at revision: Revision) -> Row {
        Row(
            key: key, value: .empty, createRevision: .zero, modRevision: revision, version: 0,
            lease: .none, sub: 0, origin: .none)
    }
}

extension TransactionResult {
    /// What a client sees of it.
    var visible: TransactionResult {
        TransactionResult(
            succeeded: succeeded,
            results: results.map { result in
                switch result {
                case .put(let previous): .put(previous: previous?.visible)
                case .range(let range): .range(range.visible)
                case .delete(let deleted, let previous):
                    .delete(deleted: deleted, previous: previous.map(\.visible))
                case .transaction(let nested): .transaction(nested.visible)
                }
            })
    }
}

extension RangeResult {
    var visible: RangeResult {
        RangeResult(rows: rows.map(\.visible), more: more, count: count)
    }
}
