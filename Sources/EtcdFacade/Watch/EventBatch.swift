import EtcdAPI
import Primitives

/// The events of one delivery, each encoded at most twice (with and without the previous version),
/// however many watchers it goes to.
struct EventBatch {
    private(set) var rows: [Row] = []
    private var previous: [Row?] = []
    private var plain: [Bytes] = []
    private var full: [Bytes] = []

    init() {}

    var isEmpty: Bool { rows.isEmpty }

    mutating func append(_ row: Row, previous before: Row?) {
        rows.append(row)
        previous.append(before)
        plain.append(.empty)
        full.append(.empty)
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
