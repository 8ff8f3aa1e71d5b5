import EtcdAPI
import Primitives

/// Evaluates a transaction that can write nothing, all of it at one revision, in steps: each of its ranges
/// may be everything there is, and there may be a hundred of them.
struct TransactionReader {
    private let node: any NodeAccess
    private let index: ReadIndex
    private let output: any CallOutput
    /// The transaction, and those nested in it that are under way.
    private var levels: [Level] = []
    private var part: Part?
    /// Of all that was found.
    private var bytes = 0

    private struct Level {
        let operations: [Operation]
        var next = 0
        var result: TransactionResult
    }

    /// A range that is being read.
    private struct Part {
        let query: RangeQuery
        let revision: Revision
        var rest: KeyRange
        var rows: [Row] = []
        var counter: RangeCounter?
    }

    /// What one step may read.
    struct Budget {
        var rows: Int
        var bytes: Int
        /// Of rows that are only looked at.
        var looked: Int
        var isSpent: Bool { rows <= 0 || bytes <= 0 || looked <= 0 }

        init(_ piece: PieceSize) {
            rows = piece.rows
            bytes = piece.bytes
            looked = piece.looked
        }
    }

    init(
        _ transaction: Transaction, node: any NodeAccess, index: ReadIndex, output: any CallOutput
    ) throws(RequestError) {
        self.node = node
        self.index = index
        self.output = output
        try begin(transaction)
    }

    /// Nil: there is more to read.
    mutating func step(_ piece: PieceSize) throws(RequestError) -> TransactionResult? {
        var budget = Budget(piece)
        while let level = levels.last {
            guard level.next < level.operations.count else {
                levels.removeLast()
                if levels.isEmpty { return level.result }
                levels[levels.count - 1].result.results.append(.transaction(level.result))
                continue
            }
            if budget.isSpent { return nil }
            switch level.operations[level.next] {
            case .range(let query):
                guard let found = try read(query, &budget) else { continue }
                levels[levels.count - 1].next += 1
                levels[levels.count - 1].result.results.append(.range(found))
            case .transaction(let nested):
                levels[levels.count - 1].next += 1
                try begin(nested)
            case .put, .delete: invariant(false, "a write in a transaction that only reads")
            }
        }
        invariant(false, "a transaction that has ended goes on")
        return nil
    }

    private mutating func begin(_ transaction: Transaction) throws(RequestError) {
        var succeeded = true
        for compare in transaction.compares where try !holds(compare) {
            succeeded = false
            break
        }
        let operations = succeeded ? transaction.success : transaction.failure
        levels.append(
            Level(
                operations: operations, result: TransactionResult(succeeded: succeeded, results: [])))
    }

    private func holds(_ compare: Compare) throws(RequestError) -> Bool {
        let rows = try node.range(RangeQuery(range: compare.range), at: index.revision).rows
        return compare.holds(of: rows)
    }

    // MARK: Ranges

    /// Nil: not all of it was read, and the budget is spent.
    private mutating func read(
        _ query: RangeQuery, _ budget: inout Budget
    ) throws(RequestError) -> RangeResult? {
        var current: Part
        if let part {
            current = part
        } else {
            let at = try revision(of: query, index)
            if query.range.isSingle {
                let found = try node.range(query, at: at)
                budget.rows -= 1
                try take(found.rows.reduce(0) { $0 + $1.key.count + $1.value.count }, &budget)
                return found
            }
            current = Part(query: query, revision: at, rest: query.range)
        }
        // One owner, so that nothing is copied.
        part = nil
        let found = try read(&current, &budget)
        if found == nil { part = current }
        return found
    }

    private mutating func read(
        _ part: inout Part, _ budget: inout Budget
    ) throws(RequestError) -> RangeResult? {
        let query = part.query
        let sorts = query.isSorted && !query.countOnly
        if part.counter == nil, !query.countOnly {
            let limit = query.limit > 0 && !sorts ? Int(clamping: query.limit) : Int.max
            let keepsValue = !query.keysOnly || query.target == .value
            var rows = part.rows, next: Bytes?, size = 0, isFull = false
            part.rows = []
            let rowsMax = rows.count + budget.rows, bytesMax = budget.bytes, lookMax = budget.looked
            var looked = 0
            let stop = try node.visit(part.rest, at: part.revision) { row in
                isFull = rows.count == limit
                if isFull || rows.count >= rowsMax || size >= bytesMax || looked >= lookMax {
                    next = Bytes(row.key)
                    return false
                }
                looked += row.value.count
                let kept = Row(row, withValue: keepsValue)
                size += kept.key.count + kept.value.count
                rows.append(kept)
                return true
            }
            if stop != nil { throw .elsewhere }
            budget.rows -= rows.count - (rowsMax - budget.rows)
            budget.looked -= looked
            part.rows = rows
            try take(size, &budget)
            guard let next else {
                if sorts { return query.answer(fromAll: part.rows) }
                return RangeResult(rows: part.rows, more: false, count: Int64(part.rows.count))
            }
            part.rest = KeyRange(key: next, end: part.rest.end)
            guard isFull else {
                budget.rows = 0
                return nil
            }
        }
        var counter: RangeCounter
        if let begun = part.counter {
            counter = begun
        } else {
            counter = try RangeCounter(
                query.range, at: part.revision, after: Int64(part.rows.count), rest: part.rest, node)
        }
        let before = counter.looked
        let isKnown = try counter.step(
            node, rowsMax: max(1, budget.rows), bytesMax: max(1, budget.looked))
        budget.rows -= max(1, Int(counter.looked - before))
        part.counter = counter
        guard isKnown else {
            budget.rows = 0
            return nil
        }
        // What was walked by is only known in rows.
        if counter.looked > before { budget.looked = 0 }
        return RangeResult(rows: part.rows, more: !query.countOnly, count: counter.count)
    }

    private mutating func take(_ size: Int, _ budget: inout Budget) throws(RequestError) {
        budget.bytes -= size
        bytes += size
        guard bytes <= Int(Int32.max) else { throw .requestTooLarge }
        guard bytes <= Self.atEase || output.hasRoom(for: bytes) else { throw .tooManyRequests }
    }

    /// No room is needed for so much.
    private static let atEase = 64 << 10
}
