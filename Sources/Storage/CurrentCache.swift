import Primitives

/// Newest versions by key, "there is none" included, so that evaluation's reads seldom reach RocksDB.
/// Filled by reads only and then kept up to date by writes: a write of a key that is not cached says
/// nothing about which version is the newest one.
struct CurrentCache {
    private struct Key: Hashable {
        var keyspace: KeyspaceID
        var key: Bytes
        /// There is hardly ever more than one keyspace.
        func hash(into hasher: inout Hasher) { key.hash(into: &hasher) }
        func _rawHashValue(seed: Int) -> Int { key._rawHashValue(seed: seed) }
    }
    private struct Entry {
        var key: Key
        var bytes: Int
        /// Second chance (CLOCK): set by use, cleared by the hand.
        var isRecent: Bool
    }
    private let bytesMax: Int
    private var bytes = 0
    private var index: [Key: Int] = [:]
    private var entries: [Entry?] = []
    /// Of the same places. Beside the entries, since a look at an entry copies it.
    private var rows: [Row?] = []
    private var free: [Int] = []
    private var hand = 0

    init(bytesMax: Int) { self.bytesMax = bytesMax }

    /// nil: not cached; `.some(nil)`: known not to exist.
    mutating func find(_ key: Bytes, _ keyspace: KeyspaceID) -> Row?? {
        guard let i = index[Key(keyspace: keyspace, key: key)] else { return nil }
        entries[i]?.isRecent = true
        return .some(rows[i])
    }

    mutating func fill(_ key: Bytes, _ keyspace: KeyspaceID, _ row: Row?) {
        let cost = Self.cost(key, row)
        guard cost <= bytesMax / 8 else { return }
        let own = Key(keyspace: keyspace, key: key.compact())
        remove(own)
        let entry = Entry(key: own, bytes: cost, isRecent: false)
        let row = row.map { Self.own($0, own.key) }
        let i: Int
        if let reused = free.popLast() {
            i = reused
            entries[i] = entry
            rows[i] = row
        } else {
            i = entries.count
            entries.append(entry)
            rows.append(row)
        }
        index[own] = i
        bytes += cost
        evict()
    }

    mutating func wrote(_ row: Row, _ keyspace: KeyspaceID) {
        guard let i = index[Key(keyspace: keyspace, key: row.key)], let entry = entries[i] else { return }
        if let cached = rows[i]?.modRevision, cached > row.modRevision { return }
        let cost = Self.cost(row.key, row)
        guard cost <= bytesMax / 8 else { return remove(entry.key) }
        bytes += cost - entry.bytes
        rows[i] = Self.own(row, entry.key.key)
        entries[i]?.bytes = cost
        evict()
    }

    /// An aborted version went: the one below it is not known here.
    mutating func removed(_ key: Bytes, _ keyspace: KeyspaceID, _ revision: Revision) {
        let key = Key(keyspace: keyspace, key: key)
        guard let i = index[key], rows[i]?.modRevision == revision else { return }
        remove(key)
    }

    mutating func removeAll() {
        index.removeAll(keepingCapacity: true)
        entries.removeAll(keepingCapacity: true)
        rows.removeAll(keepingCapacity: true)
        free.removeAll(keepingCapacity: true)
        bytes = 0
        hand = 0
    }

    private mutating func remove(_ key: Key) {
        guard let i = index.removeValue(forKey: key) else { return }
        bytes -= entries[i]?.bytes ?? 0
        entries[i] = nil
        rows[i] = nil
        free.append(i)
    }

    private mutating func evict() {
        while bytes > bytesMax {
            if hand >= entries.count { hand = 0 }
            if let entry = entries[hand] {
                if entry.isRecent { entries[hand]?.isRecent = false } else { remove(entry.key) }
            }
            hand += 1
        }
    }

    /// Rows arrive as windows on larger buffers. A value that is most of its buffer (the log entry of one
    /// put) keeps it: that is in memory anyhow, for a while, and a copy costs more than the rest of this.
    private static func own(_ row: Row, _ key: Bytes) -> Row {
        var own = row
        own.key = key
        if row.value.storage.count > kept(row.value) { own.value = row.value.compact() }
        return own
    }
    private static func kept(_ value: Bytes) -> Int { value.count * 2 + 128 }
    private static func cost(_ key: Bytes, _ row: Row?) -> Int {
        192 + key.count + (row.map { 128 + min(kept($0.value), $0.value.storage.count) } ?? 0)
    }
}
