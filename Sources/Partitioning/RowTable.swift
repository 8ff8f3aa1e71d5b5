package import Primitives

/// The newest version of each key that a transaction names, in key order, deletions included (their
/// stamps count, protocol-rules.md G2). What evaluation reads and writes.
package struct RowTable: Equatable, Sendable {
    package private(set) var rows: [Row]

    package init() { rows = [] }

    /// `rows` in any order, at most one a key.
    package init(_ rows: [Row]) { self.rows = Self.sorted(rows) }

    /// Most are in order already. Else their places are sorted: a row is large and counts three references.
    private static func sorted(_ rows: [Row]) -> [Row] {
        let isInOrder = rows.withUnsafeBufferPointer { rows in
            var i = 1
            while i < rows.count, rows[i - 1].key < rows[i].key { i += 1 }
            return i >= rows.count
        }
        if isInOrder { return rows }
        var places = (0..<UInt32(rows.count)).map { $0 }
        rows.withUnsafeBufferPointer { rows in
            places.sort { rows[Int($0)].key < rows[Int($1)].key }
        }
        return places.map { rows[Int($0)] }
    }

    package subscript(key: Bytes) -> Row? {
        let i = index(of: key)
        return i < rows.count && rows[i].key == key ? rows[i] : nil
    }

    package func live(_ key: Bytes) -> Row? {
        guard let row = self[key], !row.isDeletion else { return nil }
        return row
    }

    package mutating func set(_ row: Row) {
        let i = index(of: row.key)
        if i < rows.count && rows[i].key == row.key { rows[i] = row } else { rows.insert(row, at: i) }
    }

    /// Live rows of a range, in key order.
    package func live(in range: KeyRange) -> [Row] {
        if range.isSingle { return live(range.key).map { [$0] } ?? [] }
        if range.isEmpty { return [] }
        var i = index(of: range.key)
        var found: [Row] = []
        while i < rows.count, range.contains(rows[i].key) {
            if !rows[i].isDeletion { found.append(rows[i]) }
            i += 1
        }
        return found
    }

    private func index(of key: Bytes) -> Int {
        var low = 0, high = rows.count
        while low < high {
            let middle = (low + high) / 2
            if rows[middle].key < key { low = middle + 1 } else { high = middle }
        }
        return low
    }
}

/// What must be read before a transaction can be evaluated: asked of the host, never done here.
package struct ReadPlan: Hashable, Sendable {
    /// Newest stored versions, deletions included.
    package var keys: [Bytes] = []
    package var ranges: [KeyRange] = []
    /// Ranges that name a revision: their answer is history and cannot change.
    package var historic: [RangeQuery] = []

    package init() {}

    package var isEmpty: Bool { keys.isEmpty && ranges.isEmpty && historic.isEmpty }

    package mutating func add(_ range: KeyRange) {
        if range.isEmpty { return }
        if range.isSingle {
            if !keys.contains(range.key) { keys.append(range.key) }
        } else if !ranges.contains(range) {
            ranges.append(range)
        }
    }

    /// Of keys that are in it nowhere yet.
    mutating func addNew(_ keys: [Bytes]) { self.keys.append(contentsOf: keys) }

    package mutating func add(_ transaction: Transaction) {
        // A search through the keys so far for each of many would be quadratic.
        let operations = transaction.success.count + transaction.failure.count
        var seen: Set<Bytes>? = operations > 8 ? Set(keys) : nil
        add(transaction, &seen)
    }

    private mutating func add(_ transaction: Transaction, _ seen: inout Set<Bytes>?) {
        for c in transaction.compares { add(c.range, &seen) }
        for o in transaction.success { add(o, &seen) }
        for o in transaction.failure { add(o, &seen) }
    }

    private mutating func add(_ range: KeyRange, _ seen: inout Set<Bytes>?) {
        if seen == nil || !range.isSingle {
            add(range)
        } else if seen?.insert(range.key).inserted == true {
            keys.append(range.key)
        }
    }

    private mutating func add(_ operation: Operation, _ seen: inout Set<Bytes>?) {
        switch operation {
        case .put(let put): add(KeyRange(key: put.key), &seen)
        case .delete(let delete): add(delete.range, &seen)
        case .range(let query):
            if query.revision > .zero { historic.append(query) } else { add(query.range, &seen) }
        case .transaction(let nested): add(nested, &seen)
        }
    }
}

/// What the host read. `applied` is the partition's applied slot *in the same store snapshot*.
package struct ReadAnswer: Hashable, Sendable {
    package var applied: Slot
    /// At most one a key; keys outside the partition are left out.
    package var rows: [Row]
    package var historic: [Historic]
    package enum Historic: Hashable, Sendable {
        case result(RangeResult)
        case failed(RequestError)
    }
    package init(applied: Slot, rows: [Row], historic: [Historic] = []) {
        self.applied = applied
        self.rows = rows
        self.historic = historic
    }
}
