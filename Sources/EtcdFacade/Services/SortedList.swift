import EtcdAPI
import Glibc
import Primitives

/// What a list in another order than its keys', or with a filter, knows of its rows before it answers: what
/// they are sorted by, and their keys. Read in pieces, each of them sorted; then the pieces are merged, and
/// the rows are read one by one in their new order. So the values of the answer are in memory once, and
/// between pieces the loop serves others.
struct Sorting {
    private struct Entry {
        /// What numbers are sorted by.
        var number: Int64
        /// In the bytes of its run; the value follows the key.
        var start: Int
        var keyCount: Int
        var valueCount: Int
    }

    private struct Run {
        var entries: [Entry] = []
        var bytes: [UInt8] = []
        var next = 0
    }

    private let target: RangeQuery.Target
    private let isDescending: Bool
    private var runs: [Run] = []
    /// Runs that are not at their end, a heap by their next entries. Empty until `merge()`.
    private var heap: [Int] = []
    private(set) var count: Int64 = 0
    /// Everything that is held.
    private(set) var bytes = 0
    var isMerging = false

    /// The rest would be cut off in any case: above so many, what is beyond the limit is thrown away.
    private static let prunedFrom = 2_000

    init(_ query: RangeQuery) {
        target = query.target
        isDescending = query.order == .descending
    }

    // MARK: Reading

    mutating func begin() { runs.append(Run()) }

    /// To the run that was begun last.
    mutating func add(_ row: RowView) {
        let last = runs.count - 1
        let number: Int64
        switch target {
        case .key, .value: number = 0
        case .version: number = row.version
        case .createRevision: number = row.createRevision.rawValue
        case .modRevision: number = row.modRevision.rawValue
        }
        let start = runs[last].bytes.count
        runs[last].bytes.append(contentsOf: row.key)
        if target == .value { runs[last].bytes.append(contentsOf: row.value) }
        runs[last].entries.append(
            Entry(
                number: number, start: start, keyCount: row.key.count,
                valueCount: target == .value ? row.value.count : 0))
        count += 1
    }

    /// The run is whole. `limit`: only so many are wanted in the end.
    mutating func end(limit: Int64) {
        let last = runs.count - 1
        sort(&runs[last])
        weigh()
        guard limit > 0, limit <= Self.prunedFrom / 2 else { return }
        if runs.reduce(0, { $0 + $1.entries.count }) > Self.prunedFrom { prune(to: Int(limit)) }
    }

    private func sort(_ run: inout Run) {
        // Already in the order of keys.
        if target == .key, !isDescending { return }
        let entries = run.bytes.withUnsafeBytes { bytes in
            run.entries.sorted { precedes($0, bytes, $1, bytes) }
        }
        run.entries = entries
    }

    /// All runs become one, of the first `limit`.
    private mutating func prune(to limit: Int) {
        merge()
        var kept = Run()
        while kept.entries.count < limit, let (run, entry) = pop() {
            var moved = entry
            moved.start = kept.bytes.count
            let end = entry.start + entry.keyCount + entry.valueCount
            kept.bytes.append(contentsOf: runs[run].bytes[entry.start..<end])
            kept.entries.append(moved)
        }
        runs = [kept]
        heap = []
        isMerging = false
        weigh()
    }

    private mutating func weigh() {
        bytes = runs.reduce(0) {
            $0 + $1.bytes.count + $1.entries.count * MemoryLayout<Entry>.stride
        }
    }

    // MARK: Order

    /// Equal ones in the order of their keys, whichever way the list goes.
    private func precedes(
        _ a: Entry, _ aBytes: UnsafeRawBufferPointer, _ b: Entry, _ bBytes: UnsafeRawBufferPointer
    ) -> Bool {
        func compare(_ from: Int, _ count: Int, _ other: Int, _ otherCount: Int) -> Int {
            let shared = min(count, otherCount)
            if shared > 0, let x = aBytes.baseAddress, let y = bBytes.baseAddress {
                let order = memcmp(x + from, y + other, shared)
                if order != 0 { return Int(order) }
            }
            return count - otherCount
        }
        if target != .key {
            if a.number != b.number { return isDescending ? a.number > b.number : a.number < b.number }
            let order = compare(
                a.start + a.keyCount, a.valueCount, b.start + b.keyCount, b.valueCount)
            if order != 0 { return isDescending ? order > 0 : order < 0 }
        }
        let order = compare(a.start, a.keyCount, b.start, b.keyCount)
        return target == .key && isDescending ? order > 0 : order < 0
    }

    private func precedes(_ a: Int, _ b: Int) -> Bool {
        let left = runs[a], right = runs[b]
        return left.bytes.withUnsafeBytes { x in
            right.bytes.withUnsafeBytes { y in
                precedes(left.entries[left.next], x, right.entries[right.next], y)
            }
        }
    }

    // MARK: Merging

    mutating func merge() {
        isMerging = true
        heap = runs.indices.filter { !runs[$0].entries.isEmpty }
        for i in stride(from: heap.count / 2 - 1, through: 0, by: -1) { sink(i) }
    }

    /// The next key in the list's order; nil: that was the last.
    mutating func nextKey() -> Bytes? {
        guard let (run, entry) = pop() else { return nil }
        return Bytes(runs[run].bytes[entry.start..<entry.start + entry.keyCount])
    }

    private mutating func pop() -> (run: Int, entry: Entry)? {
        guard let run = heap.first else { return nil }
        let entry = runs[run].entries[runs[run].next]
        runs[run].next += 1
        if runs[run].next == runs[run].entries.count {
            heap[0] = heap[heap.count - 1]
            heap.removeLast()
        }
        sink(0)
        return (run, entry)
    }

    private mutating func sink(_ from: Int) {
        var at = from
        while true {
            var first = at
            for child in [2 * at + 1, 2 * at + 2]
            where child < heap.count && precedes(heap[child], heap[first]) {
                first = child
            }
            if first == at { return }
            heap.swapAt(at, first)
            at = first
        }
    }
}

extension RangeQuery {
    /// The rows that may be in the answer: without an order etcd counts the limit before it sorts by the
    /// target, so what is sorted are the first keys, and one more.
    fileprivate var candidatesMax: Int64 {
        order == .none && target != .key && limit > 0 && !hasFilter ? limit + 1 : .max
    }

    fileprivate func passesFilter(_ row: RowView) -> Bool {
        !hasFilter
            || passesFilter(
                Row(
                    key: .empty, value: .empty, createRevision: row.createRevision,
                    modRevision: row.modRevision, version: row.version, lease: row.lease, sub: 0,
                    origin: Origin(region: RegionID(0), revision: .zero, stamp: .zero)))
    }
}

extension Facade {
    /// One piece.
    func readSorted(_ list: List, _ piece: PieceSize) throws(RequestError) -> StepOutcome {
        guard let sorting = list.sorting else { return .isDone }
        return sorting.isMerging ? try emit(list, piece) : try gather(list, piece)
    }

    private func gather(_ list: List, _ piece: PieceSize) throws(RequestError) -> StepOutcome {
        guard var sorting = list.sorting else { return .isDone }
        // One owner, so that nothing is copied.
        list.sorting = nil
        let query = list.query
        var looked = 0, bytes = 0, next: Bytes?, stop: Bytes?
        sorting.begin()
        if !list.rest.isEmpty {
            stop = try node.visit(list.rest, at: list.revision) { row in
                if looked == piece.rows || bytes >= piece.looked {
                    next = Bytes(row.key)
                    return false
                }
                looked += 1
                bytes += row.value.count
                if query.passesFilter(row), sorting.count < query.candidatesMax { sorting.add(row) }
                return true
            }
        }
        list.seen += Int64(looked)
        sorting.end(limit: query.limit)
        list.heldBytes = sorting.bytes
        next = next ?? stop
        if let next {
            list.rest = KeyRange(key: next, end: list.rest.end)
        } else {
            list.more = query.limit > 0 && sorting.count > query.limit
            sorting.merge()
        }
        list.sorting = sorting
        guard output.hasRoom(for: listBytes.count) else { throw .tooManyRequests }
        if stop != nil { return .waits }
        return next == nil ? try emit(list, piece) : .hasMore
    }

    private func emit(_ list: List, _ piece: PieceSize) throws(RequestError) -> StepOutcome {
        guard var sorting = list.sorting else { return .isDone }
        list.sorting = nil
        let limit = list.query.limit > 0 ? list.query.limit : Int64.max
        // Each row is looked for on its own, which takes longer than to walk by it.
        let rowsMax = list.rows + Int64(max(1, piece.rows / 8))
        var part: [UInt8] = []
        var isLast = false, waits = false
        while part.count < piece.bytes, list.rows < rowsMax {
            guard list.rows < limit, let key = list.pendingKey ?? sorting.nextKey() else {
                isLast = true
                break
            }
            list.pendingKey = key
            let found: Row?
            do throws(RequestError) {
                found = try node.row(key, at: list.revision)
            } catch {
                guard error == .elsewhere else { throw error }
                waits = true
                break
            }
            list.pendingKey = nil
            guard let row = found else { continue }
            list.rows += 1
            ResponseCodec.appendRow(row, withValue: !list.query.keysOnly, to: &part)
        }
        if isLast { list.heldBytes = 0 } else { list.sorting = sorting }
        try take(part, into: list)
        if waits { return .waits }
        return isLast ? .isDone : .hasMore
    }
}

extension ResponseCodec {
    fileprivate static func appendRow(_ row: Row, withValue: Bool, to out: inout [UInt8]) {
        row.key.withUnsafeBytes { key in
            row.value.withUnsafeBytes { value in
                appendRow(
                    RowView(
                        key: key, value: value, createRevision: row.createRevision,
                        modRevision: row.modRevision, version: row.version, lease: row.lease),
                    withValue: withValue, to: &out)
            }
        }
    }
}
