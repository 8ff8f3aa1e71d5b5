import EtcdAPI
import Primitives

/// A range of many keys that is read and encoded piece by piece: each piece straight from the store into
/// the bytes of the answer, and between pieces the loop serves others. The answer's length comes first
/// on the wire, so nothing leaves before the last piece is there. In another order than the keys', rows
/// are sorted before they are read (`Sorting`).
final class List {
    let call: CallReference
    let query: RangeQuery
    /// Read at this revision; the header says the index's.
    let revision: Revision
    let index: Revision
    /// What is still to be read.
    var rest: KeyRange
    var rows: Int64 = 0
    var more = false
    /// The answer's `kvs`.
    var parts: [Bytes] = []
    var bytes = 0 {
        didSet { allBytes.count += bytes - oldValue }
    }
    /// Of what is known of rows that are not in `parts`.
    var heldBytes = 0 {
        didSet { allBytes.count += heldBytes - oldValue }
    }
    /// Of all lists that are being read.
    let allBytes: UnreadBytes
    /// Nil: the rows come as the store has them.
    var sorting: Sorting?
    /// Rows of the range, whether they pass the filter or not; only while sorting.
    var seen: Int64 = 0
    let isSorted: Bool
    /// All rows are there, or none are wanted; how many the range has is still to be found out.
    var counter: RangeCounter?
    /// The last row within the limit.
    var lastKey: Bytes?
    var isClosed = false
    /// While sorting, the row that could not be read yet.
    var pendingKey: Bytes?
    /// In bytes that are read, of a row that is only looked at.
    static let lookCost = 32

    init(
        _ call: CallReference, _ query: RangeQuery, at revision: Revision, index: Revision,
        counting allBytes: UnreadBytes
    ) {
        self.allBytes = allBytes
        self.call = call
        self.query = query
        self.revision = revision
        self.index = index
        rest = query.range
        isSorted = query.isSorted && !query.countOnly
        sorting = isSorted ? Sorting(query) : nil
    }

    deinit { allBytes.count -= bytes + heldBytes }
}

/// How a step of long work ends.
enum StepOutcome {
    case isDone
    case hasMore
    /// What comes next has been asked of other nodes (`NodeAccess.whenFetched`).
    case waits
}

extension RangeQuery {
    /// All rows must be looked at, however few are wanted.
    var isSorted: Bool { hasFilter || target != .key || order == .descending }
}

extension Facade {
    /// What a range counts as, at least, of what is read at once: to walk is more than to copy.
    private static let rangeCost = 4 << 10
    /// A list that begins at once is read at once so far: what is small is whole then.
    private static let eagerListBytes = 16 << 10

    func beginList(
        _ call: CallReference, _ query: RangeQuery, _ index: ReadIndex
    ) throws(RequestError) {
        let list = List(
            call, query, at: try revision(of: query, index), index: index.revision,
            counting: listBytes)
        if eager.isOpen {
            var size = piece(for: call)
            size.bytes = min(size.bytes, max(Self.eagerListBytes, eager.left))
            let outcome: StepOutcome
            do throws(RequestError) {
                outcome = try read(list, size)
            } catch {
                guard error == .elsewhere else { throw error }
                outcome = .waits
            }
            let looked = Int(list.seen + (list.counter?.looked ?? 0))
            spend(max(Self.rangeCost, list.bytes + list.heldBytes + looked * List.lookCost))
            if case .isDone = outcome { return answer(list) }
            guard var open = calls[call] else { return }
            open.state = .list(list)
            calls[call] = open
            return proceed(list, after: outcome)
        }
        guard var open = calls[call] else { return }
        open.state = .list(list)
        calls[call] = open
        proceed(list, after: .hasMore)
    }

    private func proceed(_ list: List, after outcome: StepOutcome) {
        switch outcome {
        case .isDone: answer(list)
        case .hasMore: steps.later(for: output.owner(of: list.call)) { [self] in step(list) }
        case .waits: node.whenFetched { [weak self] in self?.step(list) }
        }
    }

    private func step(_ list: List) {
        guard !list.isClosed else { return }
        guard let open = calls[list.call], node.now < open.deadline else {
            return fail(list.call, RequestError.timedOut.failure)
        }
        do throws(RequestError) {
            proceed(list, after: try read(list, piece(for: list.call)))
        } catch {
            if error == .elsewhere { return proceed(list, after: .waits) }
            fail(list, error)
        }
    }

    /// The size of the next one.
    func piece(for call: CallReference) -> PieceSize {
        limits.piece(isHurried: steps.isHurried(for: output.owner(of: call)))
    }

    /// One piece.
    private func read(_ list: List, _ piece: PieceSize) throws(RequestError) -> StepOutcome {
        if list.isSorted { return try readSorted(list, piece) }
        if list.counter != nil || list.query.countOnly { return try count(list, piece) }
        if list.rest.isEmpty { return .isDone }
        let rowsMax = list.rows + Int64(piece.rows)
        let limit = list.query.limit > 0 ? list.query.limit : Int64.max
        let withValue = !list.query.keysOnly
        var part: [UInt8] = []
        part.reserveCapacity(list.parts.isEmpty ? 4096 : piece.bytes + 4096)
        var next: Bytes?, looked = 0
        let stop = try node.visit(list.rest, at: list.revision) { row in
            if list.rows == limit {
                list.more = true
                next = Bytes(row.key)
                return false
            }
            if part.count >= piece.bytes || list.rows == rowsMax || looked >= piece.looked {
                next = Bytes(row.key)
                return false
            }
            list.rows += 1
            looked += row.value.count
            if list.rows == limit { list.lastKey = Bytes(row.key) }
            ResponseCodec.appendRow(row, withValue: withValue, to: &part)
            return true
        }
        try take(part, into: list)
        guard let next = next ?? stop else { return .isDone }
        list.rest = KeyRange(key: next, end: list.rest.end)
        if list.more { return try count(list, piece) }
        return stop == nil ? .hasMore : .waits
    }

    /// How many keys there are beyond the limit.
    private func count(_ list: List, _ piece: PieceSize) throws(RequestError) -> StepOutcome {
        var counter: RangeCounter
        if let begun = list.counter {
            counter = begun
        } else {
            counter = try RangeCounter(
                list.query.range, at: list.revision, after: list.rows, rest: list.rest, node)
        }
        defer { list.counter = counter }
        guard try counter.step(node, rowsMax: piece.rows, bytesMax: piece.looked) else {
            return .hasMore
        }
        if let last = list.lastKey {
            node.turned(list.query.range, at: list.revision, rows: list.rows, last: last)
        }
        return .isDone
    }

    func take(_ part: [UInt8], into list: List) throws(RequestError) {
        list.bytes += part.count
        // The length of a gRPC message has 32 bits; etcd's clients take less.
        guard list.bytes <= Int(Int32.max) else { throw .requestTooLarge }
        // Lists wait in memory until they are whole, and then until they are read.
        guard output.hasRoom(for: listBytes.count) else { throw .tooManyRequests }
        if !part.isEmpty { list.parts.append(Bytes(part)) }
    }

    private func answer(_ list: List) {
        let count = list.counter?.count ?? (list.isSorted ? list.seen : list.rows)
        guard let open = calls.remove(list.call) else { return }
        metrics.count(open.method, .ok)
        let (head, tail) = ResponseCodec.rangeEnds(
            headers.at(list.index), rowsBytes: list.bytes, more: list.more, count: count)
        output.sendParts([head] + list.parts + [tail], to: list.call)
        output.finish(list.call, .ok, message: "")
        ended(open, .ok, answerBytes: head.count + list.bytes + tail.count)
    }

    /// A compaction has overtaken the list. Of the newest revision there is always a list: it begins anew
    /// there.
    private func fail(_ list: List, _ error: RequestError) {
        guard error == .compacted, list.query.revision == .zero else {
            return fail(list.call, error.failure)
        }
        list.isClosed = true
        readIndex(
            list.call, linearizable: !list.query.serializable, as: .range(list.query))
    }
}
