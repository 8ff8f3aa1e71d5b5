import EtcdFacade
import NIOCore
import Node
import Partitioning
import Primitives
import Storage
import Transport

/// Reads in a region that is spread: this node's rows, and those of others beside them, in one order. What is
/// missing is asked for, and the read says `.elsewhere`, or where it has stopped; it is made again when
/// the answers are there. A node that serves everything comes by none of this.
extension Host {
    /// Whose rows are asked for: all that is not served here, each of the others once.
    struct Remote {
        let node: NodeID
        let hashes: HashRanges
    }

    var isPartial: Bool { servedHere != nil }

    /// What of the local store counts.
    var ownRows: HashFilter {
        guard let servedHere else { return .all }
        // While nothing else lies there the store's counts of ranges are those of what is served.
        return isStoreClean ? .all : HashFilter(servedHere)
    }

    /// After each turn: which part of the region this node's replicas show.
    func noticeServed() {
        let isChanged = effects.servedVersion != servedVersion
        guard isChanged || effects.servesAllPresent != servesAllPresent else { return }
        servesAllPresent = effects.servesAllPresent
        if isChanged {
            servedVersion = effects.servedVersion
            servedHere = node.served
        }
        lookAtStoreRows()
    }

    func lookAtStoreRows() {
        // Before this turn's effects are in the store, and after.
        let drops = effects.store.contains { if case .drop = $0 { true } else { false } }
        let isClean = !store.isDropping && !drops && servesAllPresent
        if isClean != isStoreClean, isClean { store.forgetCounts() }
        isStoreClean = isClean
    }

    /// As few others as can be, whoever has the most first. `.elsewhere`, with nobody asked, while there is
    /// nobody for something.
    func remotes(of hash: UInt64? = nil) throws(RequestError) -> [Remote] {
        let now = Clocks.instant()
        func reached(_ nodes: [NodeID]) -> [NodeID] {
            nodes.filter { other in
                !elsewhere.avoids(other, at: now)
                    && transport.isConnected(PeerID(region: configuration.regionID, node: other.seat))
            }
        }
        var left: [(hashes: HashRange, holders: [NodeID])] = []
        for piece in node.elsewhere() where hash.map(piece.hashes.contains) ?? true {
            let holders = reached(piece.holders)
            left.append((piece.hashes, holders.isEmpty ? reached(piece.others) : holders))
        }
        var found: [Remote] = []
        while !left.isEmpty {
            var counts: [NodeID: Int] = [:]
            // Whoever leads it has it for certain; of the others that is believed.
            for piece in left {
                for (i, holder) in piece.holders.prefix(3).enumerated() {
                    counts[holder, default: 0] += i == 0 ? 3 : 2
                }
            }
            guard let best = counts.max(by: { ($0.value, $1.key.rawValue) < ($1.value, $0.key.rawValue) })?.key else {
                throw .elsewhere
            }
            let taken = left.filter { $0.holders.prefix(3).contains(best) }
            found.append(Remote(node: best, hashes: HashRanges(taken.map(\.hashes))))
            left.removeAll { $0.holders.prefix(3).contains(best) }
        }
        return found
    }

    /// Calls `body` later, when what the last read lacked may be here.
    func whenFetched(_ body: @escaping () -> Void) {
        if elsewhere.whenFetched(body) {
            transport.flush()
            armElsewhere()
            return
        }
        // Nobody could be asked: a little later there may be somebody.
        let later = Later(body: body)
        loop.scheduleTask(in: .milliseconds(20)) { [weak self] in
            guard let self, !isStopped else { return }
            later.body()
        }
    }

    /// Questions have deadlines.
    private func armElsewhere() {
        guard !isElsewhereArmed else { return }
        isElsewhereArmed = true
        loop.scheduleTask(in: .milliseconds(100)) { [weak self] in
            guard let self, !isStopped else { return }
            isElsewhereArmed = false
            elsewhere.expire(at: Clocks.instant())
            if !elsewhere.isIdle { armElsewhere() }
        }
    }

    // MARK: Rows

    /// A holder's rows, page after page.
    private struct Stream {
        let remote: Remote
        var rows: [Row]
        var next = 0
        var isWhole: Bool
        var from: Bytes
    }

    /// As `NodeAccess.visit`: the result is where to go on once more is here.
    func visitAll(
        _ range: KeyRange, at revision: Revision, limit: Int, keysOnly: Bool, _ visit: (RowView) -> Bool
    ) throws(RequestError) -> Bytes? {
        elsewhere.beginRead()
        if range.isEmpty { return nil }
        let now = Clocks.instant()
        let page = min(max(1, limit), RowsMessage.rowsMax)
        var streams: [Stream] = []
        var isMissing = false
        for remote in try remotes(for: range) {
            guard let found = try elsewhere.page(
                range, limit: page, keysOnly: keysOnly, at: revision, remote.hashes, of: remote.node, now: now)
            else {
                isMissing = true
                continue
            }
            streams.append(Stream(remote: remote, rows: found.rows, isWhole: found.isWhole, from: range.key))
        }
        // From the beginning: whoever is to go on must have seen nothing yet.
        if isMissing { return range.key }
        var stop: Bytes?
        var isEnded = false
        var failure: RequestError?
        /// The rows of others before `key`, or all of them. False: no more.
        func pass(before key: UnsafeRawBufferPointer?) -> Bool {
            while true {
                var best: Int?
                for i in streams.indices {
                    if streams[i].next == streams[i].rows.count, !streams[i].isWhole {
                        let from = (streams[i].rows.last?.key ?? streams[i].from).successor
                        do throws(RequestError) {
                            let found = try elsewhere.page(
                                KeyRange(key: from, end: range.end), limit: page, keysOnly: keysOnly,
                                at: revision, streams[i].remote.hashes, of: streams[i].remote.node, now: now)
                            guard let found else {
                                // Nobody's rows from here on can be told of.
                                stop = stop.map { min($0, from) } ?? from
                                return false
                            }
                            streams[i].rows = found.rows
                            streams[i].isWhole = found.isWhole
                            streams[i].next = 0
                            streams[i].from = from
                        } catch {
                            failure = error
                            return false
                        }
                    }
                    guard streams[i].next < streams[i].rows.count else { continue }
                    let row = streams[i].rows[streams[i].next]
                    if let key, !row.key.precedes(key) { continue }
                    if let b = best, streams[b].rows[streams[b].next].key <= row.key { continue }
                    best = i
                }
                guard let best else { return true }
                let row = streams[best].rows[streams[best].next]
                streams[best].next += 1
                if !row.shown(to: visit) {
                    isEnded = true
                    return false
                }
            }
        }
        try store.visit(range, at: revision, in: .standard, hashes: ownRows) { row in
            guard pass(before: row.key) else { return false }
            if visit(row) { return true }
            isEnded = true
            return false
        }
        if stop == nil, !isEnded, failure == nil { _ = pass(before: nil) }
        if let failure { throw failure }
        return isEnded ? nil : stop
    }

    /// Of a single key only one node has it.
    private func remotes(for range: KeyRange) throws(RequestError) -> [Remote] {
        guard range.isSingle else { return try remotes() }
        let hash = KeyHash.hash(range.key)
        if servedHere?.contains(hash) != false { return [] }
        return try remotes(of: hash)
    }

    func rangeAll(
        _ query: RangeQuery, at revision: Revision, countsAll: Bool, maxBytes: Int = .max
    ) throws(RequestError) -> RangeResult {
        if query.range.isSingle, servedHere?.contains(KeyHash.hash(query.range.key)) != false {
            return try store.range(query, at: revision, in: .standard)
        }
        if query.countOnly, !query.hasFilter {
            return RangeResult(rows: [], more: false, count: try countAll(query.range, at: revision))
        }
        let isPlain = query.target == .key && query.order != .descending && !query.hasFilter
        let limit = query.limit > 0 ? Int(clamping: query.limit) : Int.max
        var rows: [Row] = []
        var more = false, bytes = 0
        let stop = try visitAll(
            query.range, at: revision, limit: isPlain ? min(limit, RowsMessage.rowsMax - 1) + 1 : .max,
            keysOnly: query.keysOnly && query.target != .value
        ) { row in
            if isPlain, rows.count == limit || bytes >= maxBytes {
                more = true
                return false
            }
            bytes += row.key.count + row.value.count
            rows.append(Row(row, withValue: !query.keysOnly || query.target == .value))
            return true
        }
        if stop != nil { throw .elsewhere }
        guard isPlain else { return query.answer(fromAll: rows) }
        var result = RangeResult(rows: rows, more: more, count: Int64(rows.count))
        if more, countsAll { result.count = try countAll(query.range, at: revision) }
        return result
    }

    func countAll(_ range: KeyRange, at revision: Revision) throws(RequestError) -> Int64 {
        elsewhere.beginRead()
        var query = RangeQuery(range: range)
        query.countOnly = true
        var sum: Int64 = 0, isMissing = false
        let now = Clocks.instant()
        for remote in try remotes(for: range) {
            let want = Elsewhere.Want(revision: revision, hashes: remote.hashes, question: .count(range))
            if case .count(let count)? = try elsewhere.answer(want, of: remote.node, at: now) {
                sum += count
            } else {
                isMissing = true
            }
        }
        if isMissing { throw .elsewhere }
        return sum + (try store.range(query, at: revision, in: .standard, hashes: ownRows).count)
    }

    func rowAnywhere(_ key: Bytes, at revision: Revision) throws(RequestError) -> Row? {
        if servedHere?.contains(KeyHash.hash(key)) != false {
            return try store.row(key, at: revision, in: .standard)
        }
        if let known = joined.previous(key, at: revision) { return known }
        if let known = elsewhere.row(key, at: revision) { return known }
        let query = RangeQuery(range: KeyRange(key: key))
        return try rangeAll(query, at: revision, countsAll: false).rows.first
    }

    // MARK: History

    /// Whole revisions, from here and everywhere: as far as all have told.
    func changesAll(
        after: Revision, through: Revision, maxRows: Int, maxBytes: Int
    ) throws(RequestError) -> (changes: [RevisionChanges], through: Revision) {
        elsewhere.beginRead()
        guard after < through else { return ([], through) }
        let own = try store.changes(
            after: after, through: through, in: .standard, maxRows: maxRows, maxBytes: maxBytes, hashes: ownRows)
        return try join(own.changes, through: own.through, after: after, asked: through)
    }

    /// What is served here, through `ownReached`, with what the others have told of the same revisions.
    func join(
        _ own: [RevisionChanges], through ownReached: Revision, after: Revision, asked through: Revision
    ) throws(RequestError) -> (changes: [RevisionChanges], through: Revision) {
        var parts = [own], reached = ownReached, isMissing = false
        let now = Clocks.instant()
        for remote in try remotes() {
            if let (changes, theirs, previous) = try elsewhere.changes(
                after: after, through: through, remote.hashes, of: remote.node, at: now)
            {
                parts.append(changes)
                reached = min(reached, theirs)
                joined.know(previous, before: changes)
            } else {
                isMissing = true
            }
        }
        if isMissing { throw .elsewhere }
        return (JoinedChanges.merge(parts, through: reached), reached)
    }

    /// The keys attached to a lease that lie elsewhere, for the core.
    func readLeaseKeys(_ number: UInt64, _ lease: LeaseID, _ revision: Revision, until: Instant) {
        do throws(RequestError) {
            enqueue(.leaseKeys(number: number, try remoteKeys(of: lease, at: revision)))
        } catch {
            guard error == .elsewhere, Clocks.instant() < until else {
                return enqueue(.leaseKeys(number: number, nil))
            }
            whenFetched { [weak self] in self?.readLeaseKeys(number, lease, revision, until: until) }
        }
    }

    func remoteKeys(of lease: LeaseID, at revision: Revision) throws(RequestError) -> [Bytes] {
        elsewhere.beginRead()
        var keys: [Bytes] = [], isMissing = false
        let now = Clocks.instant()
        for remote in try remotes() {
            let want = Elsewhere.Want(revision: revision, hashes: remote.hashes, question: .keys(of: lease))
            if case .keys(let found)? = try elsewhere.answer(want, of: remote.node, at: now) {
                keys += found
            } else {
                isMissing = true
            }
        }
        if isMissing { throw .elsewhere }
        return keys
    }

    /// LeaseLeases: those of all homes.
    func leasesAll(at revision: Revision) throws(RequestError) -> [LeaseID] {
        elsewhere.beginRead()
        var leases = Set(node.servedLeases), isMissing = false
        let now = Clocks.instant()
        for remote in try remotes() {
            let want = Elsewhere.Want(revision: revision, hashes: remote.hashes, question: .leases)
            if case .leases(let found)? = try elsewhere.answer(want, of: remote.node, at: now) {
                leases.formUnion(found)
            } else {
                isMissing = true
            }
        }
        if isMissing { throw .elsewhere }
        return leases.sorted()
    }

    func leaseTimesAll(at revision: Revision) throws(RequestError) -> [LeaseID: Int64] {
        elsewhere.beginRead()
        var times = node.servedLeaseTimes, isMissing = false
        let now = Clocks.instant()
        for remote in try remotes() {
            let want = Elsewhere.Want(revision: revision, hashes: remote.hashes, question: .leaseTimes)
            if case .leaseTimes(let found)? = try elsewhere.answer(want, of: remote.node, at: now) {
                times.merge(found) { max($0, $1) }
            } else {
                isMissing = true
            }
        }
        if isMissing { throw .elsewhere }
        return times
    }

    /// HashKV's share of the others.
    func remoteHashes(at revision: Revision, compacted: Revision) throws(RequestError) -> UInt32 {
        elsewhere.beginRead()
        var sum: UInt32 = 0, isMissing = false
        let now = Clocks.instant()
        for remote in try remotes() {
            let want = Elsewhere.Want(
                revision: revision, hashes: remote.hashes, question: .hash(compacted: compacted))
            if case .hash(let hash)? = try elsewhere.answer(want, of: remote.node, at: now) {
                sum &+= hash
            } else {
                isMissing = true
            }
        }
        if isMissing { throw .elsewhere }
        return sum
    }
}

/// Only the loop calls it.
private struct Later: @unchecked Sendable {
    let body: () -> Void
}

extension Bytes {
    fileprivate func precedes(_ other: UnsafeRawBufferPointer) -> Bool {
        withUnsafeBytes { own in
            let shared = Swift.min(own.count, other.count)
            for i in 0..<shared where own[i] != other[i] { return own[i] < other[i] }
            return own.count < other.count
        }
    }
}

extension Row {
    fileprivate func shown(to visit: (RowView) -> Bool) -> Bool {
        key.withUnsafeBytes { key in
            value.withUnsafeBytes { value in
                visit(
                    RowView(
                        key: key, value: value, createRevision: createRevision,
                        modRevision: modRevision, version: version, lease: lease))
            }
        }
    }
}
