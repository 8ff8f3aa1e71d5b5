import EtcdAPI
import Primitives

/// The events of one delivery, each encoded at most twice (with and without the previous version),
/// however many watchers it goes to; and those of one watcher put together once for all who see the same.
struct EventBatch {
    private(set) var rows: [Row] = []
    private var previous: [Row?] = []
    private var plain: [Bytes] = []
    private var full: [Bytes] = []
    private var bodies: [Body] = []
    private var nextBody = 0

    /// The events of a response, or of the fragments of one.
    private struct Body {
        let hits: [Int32]
        let withPrevious: Bool
        let limit: Int
        let pieces: [SharedBytes]
    }
    /// Most watchers of a delivery see the same, or one of a few selections.
    private static let bodiesMax = 4

    init() {}

    var isEmpty: Bool { rows.isEmpty }

    mutating func append(_ row: Row, previous before: Row?) {
        rows.append(row)
        previous.append(before)
        plain.append(.empty)
        full.append(.empty)
    }

    /// Of an event that was appended without.
    mutating func setPrevious(_ before: Row?, of index: Int) { previous[index] = before }

    mutating func bytes(of hits: [Int32], withPrevious: Bool) -> Int {
        hits.reduce(0) { $0 + field($1, withPrevious: withPrevious).count }
    }

    /// In pieces of at most `limit` bytes, but for events that are larger.
    mutating func body(
        of hits: [Int32], withPrevious: Bool, limit: Int, _ share: (Bytes) -> SharedBytes
    ) -> [SharedBytes] {
        for body in bodies
        where body.withPrevious == withPrevious && body.limit == limit && body.hits == hits {
            return body.pieces
        }
        var pieces: [SharedBytes] = []
        var start = 0
        while start < hits.count {
            let first = field(hits[start], withPrevious: withPrevious)
            var bytes = first.count
            var end = start + 1
            while end < hits.count {
                let next = field(hits[end], withPrevious: withPrevious).count
                guard bytes + next <= limit else { break }
                bytes += next
                end += 1
            }
            if end == start + 1 {
                pieces.append(share(first))
            } else {
                var joined: [UInt8] = []
                joined.reserveCapacity(bytes)
                for hit in hits[start..<end] {
                    field(hit, withPrevious: withPrevious).withUnsafeBytes { joined.append(contentsOf: $0) }
                }
                pieces.append(share(Bytes(joined)))
            }
            start = end
        }
        let made = Body(hits: hits, withPrevious: withPrevious, limit: limit, pieces: pieces)
        if bodies.count < Self.bodiesMax {
            bodies.append(made)
        } else {
            bodies[nextBody] = made
            nextBody = (nextBody + 1) % Self.bodiesMax
        }
        return pieces
    }

    mutating func field(_ index: Int32, withPrevious: Bool) -> Bytes {
        let i = Int(index)
        if withPrevious, let before = previous[i] {
            if full[i].isEmpty { full[i] = ResponseCodec.event(rows[i], previous: before) }
            return full[i]
        }
        if plain[i].isEmpty { plain[i] = ResponseCodec.event(rows[i]) }
        return plain[i]
    }
}

/// The newest versions of keys that were changed lately and are watched with `prev_kv`: the next event
/// of such a key needs no read. Holds exactly what is current at the emitted revision.
struct PreviousRows {
    private var rows: [Bytes: Row] = [:]
    private var bytes = 0
    private let bytesMax: Int

    init(bytesMax: Int) { self.bytesMax = bytesMax }

    /// nil: not known here. A deletion is known: there is no previous version.
    func current(_ key: Bytes) -> Row? { rows[key] }

    /// Every emitted row passes here; `isWanted`: it had a watcher with `prev_kv`.
    mutating func pass(_ row: Row, isWanted: Bool) {
        guard !rows.isEmpty || isWanted else { return }
        if let old = rows[row.key] {
            bytes -= old.value.count
        } else if isWanted {
            bytes += row.key.count
        } else {
            return
        }
        bytes += row.value.count
        rows[row.key] = row
        if bytes > bytesMax { clear() }
    }

    /// Rare and whole: an order of eviction would cost more than filling up again.
    mutating func clear() {
        rows.removeAll(keepingCapacity: true)
        bytes = 0
    }
}
