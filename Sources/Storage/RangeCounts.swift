import Primitives

/// How many keys some ranges hold at any revision since they were first counted, so that the `count`
/// that every answer to a range carries (all keys of it, whatever the limit) does not cost a walk over
/// the whole range each time. Every page of a Kubernetes list asks for it.
///
/// Invariant: for each range and every revision R >= `base`, `baseCount` and the deltas through R sum to
/// the number of keys of the range that are alive at R. What cannot be followed (an aborted
/// transaction's rows, a snapshot) makes the range be forgotten, and counted again.
struct RangeCounts {
    struct Delta {
        let revision: Revision
        /// Of all deltas through this one.
        var sum: Int64
    }
    /// A page ended here: how many keys of the range come before `key` at `revision`.
    private struct Mark {
        let key: Bytes
        let revision: Revision
        let before: Int64
    }
    private struct Range {
        let keyspace: KeyspaceID
        let range: KeyRange
        var base: Revision
        var baseCount: Int64
        /// False: it is being counted, and only what changes is known.
        var isCounted = true
        var deltas: [Delta] = []
        var marks: [Mark] = []
        var usedAt: UInt64
    }

    private static let rangesMax = 64
    private static let marksMax = 16
    /// Older revisions than the deltas reach are counted by a walk.
    private static let deltasMax = 16_384

    private var ranges: [Range] = []
    private var clock: UInt64 = 0

    var isEmpty: Bool { ranges.isEmpty }

    func follows(_ key: Bytes, _ keyspace: KeyspaceID) -> Bool {
        ranges.contains { $0.keyspace == keyspace && $0.range.contains(key) }
    }

    /// Keys of `range` at `revision`; nil: not known. `range` is one that was counted, or what follows a
    /// page of one.
    mutating func count(_ range: KeyRange, at revision: Revision, _ keyspace: KeyspaceID) -> Int64? {
        for i in ranges.indices
        where ranges[i].isCounted && ranges[i].keyspace == keyspace
            && ranges[i].range.end == range.end && revision >= ranges[i].base
        {
            if ranges[i].range.key == range.key {
                use(i)
                return Self.total(ranges[i], at: revision)
            }
            if let mark = Self.mark(in: ranges[i], range.key, revision) {
                use(i)
                return Self.total(ranges[i], at: revision) - mark.before
            }
        }
        return nil
    }

    /// `range` was counted at `revision`, or (without a count) somebody begins to; `later` are the changes
    /// above it that are stored already, in any order.
    mutating func follow(
        _ range: KeyRange, at revision: Revision, _ keyspace: KeyspaceID, count: Int64?,
        later: [(revision: Revision, delta: Int64)]
    ) {
        ranges.removeAll { $0.keyspace == keyspace && $0.range == range }
        let oldest = ranges.indices.min { ranges[$0].usedAt < ranges[$1].usedAt }
        if ranges.count >= Self.rangesMax, let oldest { ranges.remove(at: oldest) }
        clock += 1
        ranges.append(
            Range(
                keyspace: keyspace, range: KeyRange(key: range.key.compact(), end: range.end.compact()),
                base: revision, baseCount: count ?? 0, isCounted: count != nil, usedAt: clock))
        let last = ranges.count - 1
        for change in later { Self.add(change.delta, at: change.revision, to: &ranges[last]) }
    }

    /// Whether it is followed from this revision on, and somebody may be counting it: whoever comes to an end
    /// first tells all.
    func isFollowed(_ range: KeyRange, at revision: Revision, _ keyspace: KeyspaceID) -> Bool {
        ranges.contains { $0.keyspace == keyspace && $0.range == range && $0.base <= revision }
    }

    /// `range` has so many keys at `revision`: for one that is followed, and that nobody has counted before.
    mutating func counted(
        _ range: KeyRange, at revision: Revision, _ keyspace: KeyspaceID, count: Int64
    ) {
        for i in ranges.indices
        where !ranges[i].isCounted && ranges[i].keyspace == keyspace && ranges[i].range == range
            && ranges[i].base <= revision
        {
            ranges[i].isCounted = true
            ranges[i].baseCount += count - Self.total(ranges[i], at: revision)
        }
    }

    /// A page of `range` (a range that was counted, or what follows a page of one) had `rows` keys, the
    /// last of them `last`.
    mutating func turned(
        _ range: KeyRange, at revision: Revision, _ keyspace: KeyspaceID, rows: Int64, last: Bytes
    ) {
        for i in ranges.indices
        where ranges[i].isCounted && ranges[i].keyspace == keyspace && ranges[i].range.end == range.end {
            var before = rows
            if ranges[i].range.key != range.key {
                guard let mark = Self.mark(in: ranges[i], range.key, revision) else { continue }
                before += mark.before
            }
            // Clients go on from the least key above the last one (as etcd's and Kubernetes' do).
            var next: [UInt8] = []
            for i in 0..<last.count { next.append(last[i]) }
            next.append(0)
            if ranges[i].marks.count >= Self.marksMax { ranges[i].marks.removeFirst() }
            ranges[i].marks.append(Mark(key: Bytes(next), revision: revision, before: before))
            return
        }
    }

    /// A key of the keyspace came to life (1) or died (-1) at `revision`.
    mutating func changed(_ key: Bytes, _ keyspace: KeyspaceID, at revision: Revision, by delta: Int64) {
        for i in ranges.indices where ranges[i].keyspace == keyspace && ranges[i].range.contains(key) {
            Self.add(delta, at: revision, to: &ranges[i])
        }
    }

    mutating func forget(_ key: Bytes, _ keyspace: KeyspaceID) {
        ranges.removeAll { $0.keyspace == keyspace && $0.range.contains(key) }
    }

    mutating func forgetAll() { ranges.removeAll() }

    // MARK: Parts

    private mutating func use(_ i: Int) {
        clock += 1
        ranges[i].usedAt = clock
    }

    private static func mark(in range: Range, _ key: Bytes, _ revision: Revision) -> Mark? {
        range.marks.last { $0.revision == revision && $0.key == key }
    }

    /// Index of the first delta above `revision`.
    private static func end(of deltas: [Delta], through revision: Revision) -> Int {
        var low = 0, high = deltas.count
        while low < high {
            let middle = (low + high) / 2
            if deltas[middle].revision <= revision { low = middle + 1 } else { high = middle }
        }
        return low
    }

    private static func total(_ range: Range, at revision: Revision) -> Int64 {
        let end = end(of: range.deltas, through: revision)
        return range.baseCount + (end == 0 ? 0 : range.deltas[end - 1].sum)
    }

    /// Partitions apply their revisions one before the other, so an earlier one may come a little late.
    private static func add(_ delta: Int64, at revision: Revision, to range: inout Range) {
        if revision <= range.base {
            range.baseCount += delta
            return
        }
        let at = end(of: range.deltas, through: revision)
        let before = at == 0 ? 0 : range.deltas[at - 1].sum
        range.deltas.insert(Delta(revision: revision, sum: before), at: at)
        for i in at..<range.deltas.count { range.deltas[i].sum += delta }
        guard range.deltas.count > deltasMax else { return }
        let half = deltasMax / 2
        let through = range.deltas[half - 1]
        range.base = through.revision
        range.baseCount += through.sum
        // Others of the same revision would otherwise count twice, or too late.
        let cut = end(of: range.deltas, through: through.revision)
        if cut > half { range.baseCount += range.deltas[cut - 1].sum - through.sum }
        let gone = range.deltas[cut - 1].sum
        range.deltas.removeFirst(cut)
        for i in range.deltas.indices { range.deltas[i].sum -= gone }
    }
}
