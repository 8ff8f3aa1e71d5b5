package import Primitives

extension Revision {
    /// Stands for "the revision that this transaction will get" until the sequencer has answered.
    /// It is above every real one, so sorting and filtering by revision come out right.
    package static let pending = Revision(.max)
}

/// What a transaction does: the one evaluator, run by partition leaders and by coordinators alike
/// (protocol-rules.md U3).
package struct Evaluation: Equatable, Sendable {
    package var result: TransactionResult
    /// In the executed order; `sub` numbers them. `modRevision` (and `createRevision` of new keys) is
    /// `.pending`, and so is their origin.
    package var effects: [Row] = []
    /// The highest stamp among the versions that the effects replace (G2).
    package var replacedStamp = Stamp.zero
}

package struct Evaluator {
    private var table: RowTable
    private let plan: ReadPlan
    private let historic: [ReadAnswer.Historic]
    private var effects: [Row] = []
    private var replacedStamp = Stamp.zero
    private let leaseIsAlive: (LeaseID) -> Bool

    /// Evaluates `transaction` on `table`. Throws what etcd answers instead of executing.
    /// Nested compares look at the state before the transaction, as in etcd (compareToPath).
    package static func evaluate(
        _ transaction: Transaction, on table: RowTable, plan: ReadPlan,
        historic: [ReadAnswer.Historic], leaseIsAlive: @escaping (LeaseID) -> Bool
    ) throws(RequestError) -> Evaluation {
        var evaluator = Evaluator(
            table: table, plan: plan, historic: historic, leaseIsAlive: leaseIsAlive)
        var path: [Bool] = []
        evaluator.choosePath(transaction, into: &path)
        // As in etcd: what is wrong with a put comes before what is wrong with a range.
        var next = 0
        try evaluator.checkPuts(transaction, path: path, next: &next)
        next = 0
        try evaluator.checkRanges(transaction, path: path, next: &next)
        next = 0
        let result = try evaluator.execute(transaction, path: path, next: &next)
        return Evaluation(
            result: result, effects: evaluator.effects, replacedStamp: evaluator.replacedStamp)
    }

    /// The same for a transaction that is about one key (`Transaction.onlyKey`) and takes a branch with one
    /// put and nothing else. Nil: this is another one.
    static func writeOne(_ transaction: Transaction, on before: Row?) -> Evaluation? {
        let live = before?.isDeletion == false ? before : nil
        let succeeded = transaction.compares.allSatisfy { $0.holds(ofKey: live) }
        let operations = succeeded ? transaction.success : transaction.failure
        guard operations.count == 1, case .put(let put) = operations[0],
            live != nil || !(put.keepsValue || put.keepsLease)
        else { return nil }
        let row = Row(put, on: live, sub: 0)
        return Evaluation(
            result: TransactionResult(
                succeeded: succeeded, results: put.wantsPrevious ? [.put(previous: live)] : Self.putOne),
            effects: [row], replacedStamp: before?.origin.stamp ?? .zero)
    }

    private static let putOne: [OperationResult] = [.put(previous: nil)]

    private init(
        table: RowTable, plan: ReadPlan, historic: [ReadAnswer.Historic],
        leaseIsAlive: @escaping (LeaseID) -> Bool
    ) {
        self.table = table
        self.plan = plan
        self.historic = historic
        self.leaseIsAlive = leaseIsAlive
    }

    // MARK: Compares

    private func choosePath(_ transaction: Transaction, into path: inout [Bool]) {
        let succeeded = transaction.compares.allSatisfy {
            $0.holds(of: table.live(in: $0.range))
        }
        path.append(succeeded)
        for case .transaction(let nested) in succeeded ? transaction.success : transaction.failure {
            choosePath(nested, into: &path)
        }
    }

    // MARK: Checks before anything is executed

    private func checkPuts(
        _ transaction: Transaction, path: [Bool], next: inout Int
    ) throws(RequestError) {
        let succeeded = path[next]
        next += 1
        for operation in succeeded ? transaction.success : transaction.failure {
            switch operation {
            case .put(let put):
                if put.keepsValue || put.keepsLease, table.live(put.key) == nil { throw .keyNotFound }
                if put.lease != .none, !leaseIsAlive(put.lease) { throw .leaseNotFound }
            case .range, .delete: break
            case .transaction(let nested): try checkPuts(nested, path: path, next: &next)
            }
        }
    }

    private func checkRanges(
        _ transaction: Transaction, path: [Bool], next: inout Int
    ) throws(RequestError) {
        let succeeded = path[next]
        next += 1
        for operation in succeeded ? transaction.success : transaction.failure {
            switch operation {
            case .range(let query):
                if query.revision > .zero, case .failed(let error) = answer(toHistoric: query) {
                    throw error
                }
            case .put, .delete: break
            case .transaction(let nested): try checkRanges(nested, path: path, next: &next)
            }
        }
    }

    private func answer(toHistoric query: RangeQuery) -> ReadAnswer.Historic {
        guard let i = plan.historic.firstIndex(of: query), i < historic.count else {
            return .failed(.futureRevision)
        }
        return historic[i]
    }

    // MARK: Execution

    private mutating func execute(
        _ transaction: Transaction, path: [Bool], next: inout Int
    ) throws(RequestError) -> TransactionResult {
        let succeeded = path[next]
        next += 1
        let operations = succeeded ? transaction.success : transaction.failure
        var results: [OperationResult] = []
        results.reserveCapacity(operations.count)
        for operation in operations {
            switch operation {
            case .put(let put): results.append(execute(put))
            case .delete(let delete): results.append(execute(delete))
            case .range(let query):
                if query.revision > .zero {
                    switch answer(toHistoric: query) {
                    case .result(let result): results.append(.range(result))
                    case .failed(let error): throw error
                    }
                } else {
                    results.append(.range(query.answer(fromAll: table.live(in: query.range))))
                }
            case .transaction(let nested):
                results.append(.transaction(try execute(nested, path: path, next: &next)))
            }
        }
        return TransactionResult(succeeded: succeeded, results: results)
    }

    private mutating func execute(_ put: Put) -> OperationResult {
        let before = table[put.key]
        let live = before.flatMap { $0.isDeletion ? nil : $0 }
        replace(before, with: Row(put, on: live, sub: UInt32(effects.count)))
        return .put(previous: put.wantsPrevious ? live : nil)
    }

    private mutating func execute(_ delete: Delete) -> OperationResult {
        let victims = table.live(in: delete.range)
        for victim in victims { replace(victim, with: victim.deletion(sub: UInt32(effects.count))) }
        return .delete(deleted: Int64(victims.count), previous: delete.wantsPrevious ? victims : [])
    }

    private mutating func replace(_ before: Row?, with row: Row) {
        if let before { replacedStamp = max(replacedStamp, before.origin.stamp) }
        table.set(row)
        effects.append(row)
    }
}

extension Transaction {
    /// Whether no compare depends on which revision above `known` a pending version gets: it equals
    /// none that is known and is greater than all of them (protocol-rules.md S20).
    func isDecided(knowing known: Revision) -> Bool {
        compares.allSatisfy { compare in
            switch compare.target {
            case .modRevision(let n), .createRevision(let n): n <= known.rawValue
            case .version, .value, .lease: true
            }
        } && (success + failure).allSatisfy { if case .transaction = $0 { false } else { true } }
    }
}

extension Evaluation {
    /// Whether neither the answer nor the rows hold another transaction's revision: then it does not
    /// matter that one of those it was evaluated on is not known yet.
    var needsNoOtherRevision: Bool {
        result.results.allSatisfy { result in
            switch result {
            case .put(let previous): previous == nil
            case .delete(_, let previous): previous.isEmpty
            case .range, .transaction: false
            }
        }
            // A row that goes on from a pending first version would need that one's revision.
            && effects.allSatisfy {
                $0.isDeletion || $0.version == 1 || $0.createRevision != .pending
            }
    }
}

extension Origin {
    static let pending = Origin(region: RegionID(0), revision: .pending, stamp: .zero)
}

extension Row {
    /// What a put makes of the version that lives, its revision still to come.
    fileprivate init(_ put: Put, on live: Row?, sub: UInt32) {
        self.init(
            key: put.key, value: put.keepsValue ? live?.value ?? .empty : put.value,
            createRevision: live?.createRevision ?? .pending, modRevision: .pending,
            version: (live?.version ?? 0) + 1, lease: put.keepsLease ? live?.lease ?? .none : put.lease,
            sub: sub, origin: .pending)
    }

    /// The row that deletes this one, its revision still to come.
    package func deletion(sub: UInt32) -> Row {
        Row(
            key: key, value: .empty, createRevision: .zero, modRevision: .pending, version: 0,
            lease: .none, sub: sub, origin: .pending)
    }

    /// With the revision and stamp that the sequencer gave. A row that came from another region keeps
    /// where it was first written.
    package func settled(at revision: Revision, stamp: Stamp) -> Row {
        var row = self
        row.settle(at: revision, stamp: stamp)
        return row
    }

    mutating func settle(at revision: Revision, stamp: Stamp) {
        modRevision = revision
        if createRevision == .pending { createRevision = revision }
        if origin.revision == .pending {
            origin = Origin(region: stamp.region, revision: revision, stamp: stamp)
        }
    }
}

extension TransactionResult {
    /// Ranges may have read rows that this transaction wrote: they too get the revision.
    package mutating func settle(at revision: Revision, stamp: Stamp) {
        if results.contains(where: \.mayHoldPending) { self = settled(at: revision, stamp: stamp) }
    }

    package func settled(at revision: Revision, stamp: Stamp) -> TransactionResult {
        guard results.contains(where: \.mayHoldPending) else { return self }
        var copy = self
        for i in copy.results.indices {
            switch copy.results[i] {
            case .put(let previous): copy.results[i] = .put(previous: previous?.settledIfPending(revision, stamp))
            case .range(var range):
                for j in range.rows.indices {
                    range.rows[j] = range.rows[j].settledIfPending(revision, stamp)
                }
                copy.results[i] = .range(range)
            case .delete(let deleted, let previous):
                copy.results[i] = .delete(
                    deleted: deleted, previous: previous.map { $0.settledIfPending(revision, stamp) })
            case .transaction(let nested):
                copy.results[i] = .transaction(nested.settled(at: revision, stamp: stamp))
            }
        }
        return copy
    }
}

extension Row {
    fileprivate func settledIfPending(_ revision: Revision, _ stamp: Stamp) -> Row {
        modRevision == .pending ? settled(at: revision, stamp: stamp) : self
    }
}

extension OperationResult {
    fileprivate var mayHoldPending: Bool {
        switch self {
        case .put(let previous): previous?.modRevision == .pending
        case .range(let range): range.rows.contains { $0.modRevision == .pending }
        case .delete(_, let previous): previous.contains { $0.modRevision == .pending }
        case .transaction: true
        }
    }
}
