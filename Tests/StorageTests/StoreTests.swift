import Primitives
import Testing

@testable import Storage

/// What the store holds, as simply as it can be said.
struct Model {
    /// Oldest first.
    private var versions: [Bytes: [Row]] = [:]
    var floor = Revision.zero
    var records: [GroupID: [Bytes: Bytes]] = [:]
    var rows: [Row] { versions.values.flatMap { $0 } }

    mutating func apply(_ change: StoreChange) {
        switch change {
        case .putRow(_, let row): versions[row.key, default: []].append(row)
        case .removeRow(_, let key, let revision, _):
            versions[key]?.removeAll { $0.modRevision == revision }
        case .putRecord(let group, let key, let value): records[group, default: [:]][key] = value
        case .removeRecord(let group, let key): records[group]?[key] = nil
        case .applied, .position, .drop: break
        }
    }

    func newest(_ range: KeyRange, at revision: Revision = Revision(.max), _ hashes: HashRange) -> [Row] {
        if range.isSingle {
            return versions[range.key]?.last { $0.modRevision <= revision }.map { [$0] } ?? []
        }
        let keys = versions.keys.filter { range.contains($0) && hashes.contains(KeyHash.hash($0)) }
        return keys.sorted().compactMap { versions[$0]?.last { $0.modRevision <= revision } }
    }
    func answer(_ query: RangeQuery, at revision: Revision, _ hashes: HashRange) -> RangeResult {
        let isElsewhere = query.range.isSingle && !hashes.contains(KeyHash.hash(query.range.key))
        if query.range.isEmpty || isElsewhere { return query.answer(fromAll: []) }
        return query.answer(
            fromAll: newest(query.range, at: revision, hashes).filter { !$0.isDeletion })
    }
}

/// Random history over a few awkward keys, in revision order, as partitions produce it.
struct History {
    var dice: Dice
    var model = Model()
    var revision: Int64 = 1
    /// The frontier: rows above it are prepared and may yet be removed.
    var frontier: Int64 = 1
    var prepared: [[StoreChange]] = []

    static let keys: [Bytes] = [
        "a", "ab", "b", "c", "key", Bytes([0]), Bytes([0, 0]), Bytes([0, 1]), Bytes([0, 255]),
        Bytes([97, 0]), Bytes([97, 0, 0]), Bytes([97, 0, 1]), Bytes([97, 1]), Bytes([97, 255]),
        Bytes([255]), Bytes([255, 255, 0]), "k/1", "k/10", "k/2", "k/3",
    ]

    mutating func key() -> Bytes { Self.keys.randomElement(using: &dice) ?? "a" }

    mutating func step() -> [StoreChange] {
        revision += 1
        var changes: [StoreChange] = [], undo: [StoreChange] = []
        var touched: Set<Bytes> = []
        for sub in 0..<UInt32.random(in: 1...3, using: &dice) {
            let key = key()
            guard touched.insert(key).inserted else { continue }
            let previous = model.newest(KeyRange(key: key), .all).first
            let isDeletion = previous != nil && previous?.isDeletion == false && dice.next() % 4 == 0
            let next = row(
                key, String(repeating: "v\(revision)", count: .random(in: 0...4, using: &dice)),
                at: revision, sub: sub,
                create: previous.flatMap { $0.isDeletion ? nil : $0.createRevision.rawValue },
                version: isDeletion ? 0 : (previous?.version ?? 0) + 1,
                lease: .random(in: -3...3, using: &dice))
            changes.append(.putRow(ks, next))
            undo.append(.removeRow(ks, key: key, revision: Revision(revision), sub: sub))
        }
        if dice.next() % 3 == 0 {
            changes.append(.putRecord(group(1), key: key(), value: Bytes("r\(revision)")))
        }
        if dice.next() % 5 == 0 { changes.append(.removeRecord(group(1), key: key())) }
        if prepared.isEmpty && dice.next() % 5 == 0 {
            prepared.append(undo)
        } else {
            if let undone = prepared.popLast() {
                if dice.next() % 2 == 0 && !undone.contains(where: { touches($0, touched) }) {
                    changes += undone
                }
            }
            frontier = revision
        }
        changes.append(.applied(group(1), Slot(UInt64(revision))))
        for change in changes { model.apply(change) }
        return changes
    }
    private func touches(_ change: StoreChange, _ keys: Set<Bytes>) -> Bool {
        if case .removeRow(_, let key, _, _) = change { keys.contains(key) } else { true }
    }

    mutating func range() -> KeyRange {
        switch dice.next() % 4 {
        case 0: return KeyRange(key: key())
        case 1: return KeyRange(key: key(), end: Bytes([0]))
        case 2: return .everything
        default: return KeyRange(key: key(), end: key())
        }
    }
    mutating func query() -> RangeQuery {
        var query = RangeQuery(range: range())
        if dice.next() % 2 == 0 { query.limit = .random(in: 1...6, using: &dice) }
        query.order = [.none, .ascending, .descending].randomElement(using: &dice) ?? .none
        query.target =
            [.key, .key, .version, .createRevision, .modRevision, .value].randomElement(using: &dice) ?? .key
        query.keysOnly = dice.next() % 4 == 0
        query.countOnly = dice.next() % 6 == 0
        if dice.next() % 3 == 0 { query.minModRevision = .random(in: 0...revision, using: &dice) }
        if dice.next() % 5 == 0 { query.maxCreateRevision = .random(in: 0...revision, using: &dice) }
        return query
    }
    mutating func hashes() -> HashRange {
        dice.next() % 2 == 0 ? .all : HashRange(first: 0, last: .max / 2)
    }
}

extension Origin {
    fileprivate static let none = Origin(region: RegionID(0), revision: .zero, stamp: .zero)
}

@Suite struct StoreTests {
    static func options(cache: Int = 8 << 10) -> Store.Options {
        var options = Store.Options()
        options.blockCacheBytes = 1 << 20
        options.memtableBytes = 256 << 10
        options.currentCacheBytes = cache
        options.countedMin = 0
        return options
    }

    /// As Kubernetes lists: the counts of later pages are known without a walk.
    func page(_ store: Store, _ history: inout History, at revision: Revision) throws {
        let whole = history.range()
        guard !whole.isSingle else { return }
        let all = history.model.answer(RangeQuery(range: whole), at: revision, .all)
        var range = whole, seen = 0
        while true {
            let page = try store.range(RangeQuery(range: range, limit: 3), at: revision, in: ks)
            #expect(page.count == all.count - Int64(seen), "\(whole) from \(range.key) at \(revision)")
            #expect(page.rows == Array(all.rows.dropFirst(seen).prefix(3)))
            seen += page.rows.count
            #expect(page.more == (seen < all.rows.count))
            guard page.more, let last = page.rows.last else { return }
            range = KeyRange(key: Bytes((0..<last.key.count).map { last.key[$0] } + [0]), end: whole.end)
        }
    }

    @Test func `what several changes of a key in one revision come to is counted once`() throws {
        let dir = Scratch()
        let store = try Store.open(dir.path + "/s", options: Self.options())
        let range = KeyRange(key: "k", end: "l")
        func count(_ revision: Int64) throws -> Int64 {
            try store.range(RangeQuery(range: range, countOnly: true), at: Revision(revision), in: ks).count
        }
        try store.apply((0..<5).map { .putRow(ks, row(Bytes("k\($0)"), "v", at: 2, sub: $0)) })
        #expect(try count(2) == 5)
        // Another region's batch: born and gone, gone and born, gone without having been.
        try store.apply([
            .putRow(ks, row("k7", "v", at: 3, sub: 0)), .putRow(ks, row("k7", "", at: 3, sub: 1, version: 0)),
            .putRow(ks, row("k1", "", at: 3, sub: 2, version: 0)), .putRow(ks, row("k1", "v", at: 3, sub: 3)),
            .putRow(ks, row("k9", "", at: 3, sub: 4, version: 0)), .putRow(ks, row("k3", "", at: 3, sub: 5, version: 0)),
        ])
        // A later partition is first.
        try store.apply([.putRow(ks, row("k8", "v", at: 5))])
        try store.apply([.putRow(ks, row("k0", "", at: 4, version: 0))])
        #expect(try [2, 3, 4, 5].map(count) == [5, 4, 3, 4])
        store.close()
    }

    /// A count that goes on while others write, as the facade counts.
    @Test func `what changes while somebody counts is in the count`() throws {
        let dir = Scratch()
        let store = try Store.open(dir.path + "/s", options: Self.options())
        let range = KeyRange(key: "k", end: "l")
        func known(_ revision: Int64) throws -> Int64? {
            try store.knownCount(range, at: Revision(revision), in: ks)
        }
        try store.apply((0..<5).map { .putRow(ks, row(Bytes("k\($0)"), "v", at: 2, sub: $0)) })
        #expect(try known(2) == nil)
        try store.willCount(range, at: Revision(2), in: ks)
        try store.apply([.putRow(ks, row("k7", "v", at: 3))])
        #expect(try known(2) == nil && known(3) == nil)
        // Another who begins meanwhile, and is done first.
        try store.willCount(range, at: Revision(3), in: ks)
        store.counted(range, at: Revision(3), in: ks, count: 6)
        try store.apply([.putRow(ks, row("k1", "", at: 4, version: 0))])
        store.counted(range, at: Revision(2), in: ks, count: 5)
        #expect(try [2, 3, 4].map(known) == [5, 6, 5])
        // What follows a page is known as well.
        store.turned(range, at: Revision(4), in: ks, rows: 2, last: "k2")
        #expect(
            try store.knownCount(KeyRange(key: Bytes("k2\u{0}"), end: "l"), at: Revision(4), in: ks) == 3)
        #expect(throws: Never.self) { try store.willCount(range, at: Revision(4), in: ks) }
        store.close()
    }

    @Test func `a count that was given up is brought to its end by the next`() throws {
        let dir = Scratch()
        let store = try Store.open(dir.path + "/s", options: Self.options())
        let range = KeyRange(key: "k", end: "l")
        func known(_ revision: Int64) throws -> Int64? {
            try store.knownCount(range, at: Revision(revision), in: ks)
        }
        try store.apply((0..<5).map { .putRow(ks, row(Bytes("k\($0)"), "v", at: 2, sub: $0)) })
        try store.willCount(range, at: Revision(2), in: ks)
        try store.apply([.putRow(ks, row("k7", "v", at: 3))])
        try store.apply([.putRow(ks, row("k8", "v", at: 4))])
        try store.willCount(range, at: Revision(3), in: ks)
        #expect(try known(3) == nil)
        store.counted(range, at: Revision(3), in: ks, count: 6)
        #expect(try [2, 3, 4].map(known) == [5, 6, 7])
        store.close()
    }

    @Test func `a part ends after so many bytes`() throws {
        let dir = Scratch()
        let store = try Store.open(dir.path + "/s", options: Self.options())
        let value = String(repeating: "v", count: 1000)
        try store.apply((0..<9).map { .putRow(ks, row(Bytes("k\($0)"), value, at: 2, sub: $0)) })
        let query = RangeQuery(range: KeyRange(key: "k", end: "l"), limit: 7)
        func part(_ bytes: Int) throws -> RangeResult {
            try store.range(query, at: Revision(2), in: ks, countsAll: false, maxBytes: bytes)
        }
        #expect(try part(2500).rows.count == 3 && part(2500).more)
        #expect(try part(1).rows.count == 1)
        #expect(try part(.max).rows.count == 7)
        store.close()
    }

    func compare(_ store: Store, _ history: inout History) throws {
        let floor = history.model.floor.rawValue
        let at = Revision(.random(in: min(floor, history.frontier)...history.frontier, using: &history.dice))
        let query = history.query(), hashes = history.hashes()
        if at.rawValue < floor {
            #expect(throws: RequestError.compacted) { try store.range(query, at: at, in: ks) }
            return
        }
        #expect(
            try store.range(query, at: at, in: ks, hashes: HashFilter(hashes))
                == history.model.answer(query, at: at, hashes),
            "\(query) at \(at)")
        try page(store, &history, at: at)
        var visited: [Row] = []
        try store.visit(query.range, at: at, in: ks) { view in
            visited.append(
                Row(
                    key: Bytes(view.key), value: Bytes(view.value),
                    createRevision: view.createRevision, modRevision: view.modRevision,
                    version: view.version, lease: view.lease, sub: 0, origin: .none))
            return visited.count < 7
        }
        let all = history.model.answer(RangeQuery(range: query.range), at: at, .all).rows
        #expect(
            visited == all.prefix(7).map { row in
                var bare = row
                bare.sub = 0
                bare.origin = .none
                return bare
            })
        // A pass may have removed deletions at and below the floor, or not yet.
        func kept(_ rows: [Row]) -> [Row] {
            rows.filter { !$0.isDeletion || $0.modRevision.rawValue > floor }.sorted { $0.key < $1.key }
        }
        let key = history.key()
        let newest = try store.newest(key, in: ks).map { [$0] } ?? []
        #expect(kept(newest) == kept(history.model.newest(KeyRange(key: key), .all)))
        let visible = history.model.newest(KeyRange(key: key), at: at, .all).first
        #expect(try store.row(key, at: at, in: ks) == visible.flatMap { $0.isDeletion ? nil : $0 })
        let ranges = [history.range(), history.range()].filter { !$0.isEmpty && !$0.isSingle }
        let keys = [history.key()]
        let read = try store.newest(keys: keys, ranges: ranges, of: group(1), hashes: hashes)
        let expected = history.model.newest(.everything, hashes).filter { row in
            keys.contains(row.key) || ranges.contains { $0.contains(row.key) }
        }
        #expect(kept(read.rows) == kept(expected))
        #expect(read.applied == Slot(UInt64(history.revision)))
    }

    @Test(arguments: [1, 2, 3] as [UInt64])
    func `random histories read like the model`(seed: UInt64) throws {
        let dir = Scratch()
        var store = try Store.open(dir.path + "/s", options: Self.options())
        var history = History(dice: Dice(state: seed &* 0x9E37_79B9_7F4A_7C15))
        for round in 0..<500 {
            try store.apply(history.step())
            for _ in 0..<2 { try compare(store, &history) }
            if round % 100 == 50 { _ = try store.flush() }
            if round % 60 == 40 {
                let lowest = history.model.floor.rawValue
                let floor = Revision(.random(in: lowest...history.frontier, using: &history.dice))
                if history.prepared.isEmpty { try store.compact(floor: floor, in: ks) }
                if history.prepared.isEmpty { history.model.floor = max(floor, history.model.floor) }
            }
            _ = try store.compactStep(budget: 7, in: ks)
            if round % 170 == 169 {
                store.close()
                store = try Store.open(dir.path + "/s", options: Self.options())
                #expect(store.floor(of: ks) == history.model.floor)
            }
            if round % 50 == 0 {
                let found = try store.records(of: group(1)).map { [$0.key, $0.value] }
                let expected = (history.model.records[group(1)] ?? [:]).sorted { $0.key < $1.key }
                #expect(found == expected.map { [$0.key, $0.value] })
            }
        }
        store.close()
    }

    @Test func `changes come by revision in order of sub, in whole revisions`() throws {
        let dir = Scratch()
        let store = try Store.open(dir.path + "/s", options: Self.options())
        var history = History(dice: Dice(state: 99))
        for _ in 0..<300 { try store.apply(history.step()) }
        let all = Dictionary(grouping: history.model.rows, by: \.modRevision).sorted { $0.key < $1.key }
            .map { RevisionChanges(revision: $0.key, rows: $0.value.sorted { $0.sub < $1.sub }) }
        var after = Revision(20), found: [RevisionChanges] = []
        let through = Revision(history.revision)
        while after < through {
            let page = try store.changes(after: after, through: through, in: ks, maxRows: 7)
            #expect(page.through > after)
            #expect(page.changes.dropLast().reduce(0) { $0 + $1.rows.count } < 7)
            found += page.changes
            after = page.through
        }
        #expect(found == all.filter { $0.revision > Revision(20) })
        try store.compact(floor: Revision(100), in: ks)
        #expect(throws: RequestError.compacted) {
            try store.changes(after: Revision(99), through: through, in: ks, maxRows: 7)
        }
        while !(try store.compactStep(budget: 10, in: ks)) {}
        let rest = try store.changes(after: Revision(100), through: through, in: ks, maxRows: .max)
        #expect(rest.changes == all.filter { $0.revision > Revision(100) })
        store.close()
    }

    @Test func `compaction leaves exactly what is visible at the floor and above it`() throws {
        let dir = Scratch()
        let store = try Store.open(dir.path + "/s", options: Self.options())
        var history = History(dice: Dice(state: 5))
        for floor in [200, 350, 351, 600] as [Int64] {
            while history.frontier < floor || !history.prepared.isEmpty { try store.apply(history.step()) }
            try store.compact(floor: Revision(floor), in: ks)
            while !(try store.compactStep(budget: 13, in: ks)) {}
            let visible = history.model.newest(.everything, at: Revision(floor), .all)
                .filter { !$0.isDeletion }
            let above = history.model.rows.filter { $0.modRevision > Revision(floor) }
            #expect(try storedRows(store) == Set(visible + above))
        }
        store.close()
    }

    /// Another region may still send what they beat (protocol-rules.md G3).
    @Test func `young deletions stay through compactions, and go when they are old`() throws {
        let dir = Scratch()
        let store = try Store.open(dir.path + "/s", options: Self.options())
        var history = History(dice: Dice(state: 5))
        let steps: [(Int64, UInt64)] = [
            (200, 150_000), (350, 150_000), (351, 150_000), (600, 400_000), (610, 600_000), (800, 700_000),
            (1_000, .max),
        ]
        for (floor, limit) in steps {
            while history.frontier < floor || !history.prepared.isEmpty { try store.apply(history.step()) }
            try store.compact(floor: Revision(floor), deletionsBefore: limit, in: ks)
            while !(try store.compactStep(budget: 13, in: ks)) {}
            let visible = history.model.newest(.everything, at: Revision(floor), .all)
                .filter { !$0.isDeletion || $0.origin.stamp.ticks >= limit }
            let above = history.model.rows.filter { $0.modRevision > Revision(floor) }
            #expect(try storedRows(store) == Set(visible + above))
        }
        store.close()
    }

    /// For a region that needs more than there is (protocol-rules.md G5).
    @Test func `what is left of compacted history can be had in order of revisions`() throws {
        let dir = Scratch()
        let store = try Store.open(dir.path + "/s", options: Self.options())
        var history = History(dice: Dice(state: 5))
        for (floor, limit) in [(200, UInt64.max), (350, 250_000)] as [(Int64, UInt64)] {
            while history.frontier < floor || !history.prepared.isEmpty { try store.apply(history.step()) }
            try store.compact(floor: Revision(floor), deletionsBefore: limit, in: ks)
            #expect(try !store.completeIndexStep(budget: 10, in: ks), "not while a compaction is under way")
            while !(try store.compactStep(budget: 13, in: ks)) {}
            let through = Revision(history.revision)
            #expect(throws: RequestError.compacted) {
                try store.changes(after: .zero, through: through, in: ks, maxRows: 7, takesRest: true)
            }
            while !(try store.completeIndexStep(budget: 11, in: ks)) {}
            var after = Revision.zero, found: [RevisionChanges] = []
            while after < through {
                let page = try store.changes(
                    after: after, through: through, in: ks, maxRows: 7, takesRest: true)
                found += page.changes
                after = page.through
            }
            let left = Dictionary(grouping: try storedRows(store)) { $0.modRevision }.sorted { $0.key < $1.key }
                .map { RevisionChanges(revision: $0.key, rows: $0.value.sorted { $0.sub < $1.sub }) }
            #expect(found == left)
            #expect(throws: RequestError.compacted) {
                try store.changes(after: .zero, through: through, in: ks, maxRows: 7)
            }
        }
        store.close()
    }

    func storedRows(_ store: Store) throws -> Set<Row> {
        var rows: Set<Row> = []
        try store.scan(StoreFormat.rowsStart(ks)) { key, value in
            var user: [UInt8] = []
            StoreFormat.unescape(rowKey: key, into: &user)
            if let row = try? Store.row(Bytes(user), StoreFormat.revision(ofRowKey: key), value) {
                rows.insert(row)
            }
        }
        return rows
    }

    @Test func `the hash does not depend on what has been removed, and depends on the rest`() throws {
        let dir = Scratch()
        let a = try Store.open(dir.path + "/a", options: Self.options())
        let b = try Store.open(dir.path + "/b", options: Self.options())
        var history = History(dice: Dice(state: 41))
        while history.frontier < 300 || !history.prepared.isEmpty {
            let changes = history.step()
            try a.apply(changes)
            try b.apply(changes)
        }
        let at = Revision(history.frontier - 5)
        try b.compact(floor: Revision(150), in: ks)
        while !(try b.compactStep(budget: 50, in: ks)) {}
        let hash = try a.hash(at: at, compacted: Revision(150), in: ks)
        #expect(try b.hash(at: at, compacted: Revision(150), in: ks) == hash)
        #expect(throws: RequestError.compacted) { try b.hash(at: at, compacted: Revision(149), in: ks) }
        try b.apply([.putRow(ks, row("a", "other", at: at.rawValue))])
        #expect(try b.hash(at: at, compacted: Revision(150), in: ks) != hash)
        a.close()
        b.close()
    }

    @Test func `after a crash the store is as of its last flush, applied slots and all`() throws {
        let dir = Scratch()
        let store = try Store.open(dir.path + "/s", options: Self.options())
        var history = History(dice: Dice(state: 12))
        for _ in 0..<200 { try store.apply(history.step()) }
        let durable = try store.flush()
        let then = history
        for _ in 0..<200 { try store.apply(history.step()) }
        try Scratch.copy(dir.path + "/s", dir.path + "/copy")
        store.close()
        let copy = try Store.open(dir.path + "/copy", options: Self.options())
        #expect(copy.appliedSlots() == durable)
        #expect(durable == [group(1): Slot(UInt64(then.revision))])
        #expect(try storedRows(copy) == Set(then.model.rows))
        copy.close()
    }

    private func position(_ slot: UInt64) -> StoreChange { .position(group(1), Slot(slot)) }
    /// Whoever writes says when it is asked what it has come to.
    private func record(_ slot: UInt64) -> (([GroupID]) -> [StoreChange]?) {
        { groups in
            groups.flatMap { group -> [StoreChange] in
                [.putRecord(group, key: "s", value: Bytes("through \(slot)")), .applied(group, Slot(slot))]
            }
        }
    }
    private func recorded(_ store: Store) throws -> [Bytes] { try store.records(of: group(1)).map(\.value) }

    @Test func `an applied slot that was not written at once is, before the store is flushed, copied or compacted`()
        throws
    {
        let dir = Scratch()
        let store = try Store.open(dir.path + "/s", options: Self.options())
        try store.apply([
            .putRow(ks, row("a", "1", at: 2)), .putRecord(group(1), key: "s", value: "through 5"),
            .applied(group(1), Slot(5)),
        ])
        try store.apply([.putRow(ks, row("a", "2", at: 3)), position(6)])
        #expect(store.appliedSlot(of: group(1)) == Slot(6))
        #expect(try recorded(store) == ["through 5"])
        // A flush that comes while it cannot be said makes durable what was recorded before.
        store.recorder = { _ in nil }
        #expect(try store.flush() == [group(1): Slot(5)])
        store.recorder = record(6)
        let export = try store.exportSnapshot(of: group(1), hashes: .all)
        #expect(export.applied == Slot(6))
        #expect(try recorded(store) == ["through 6"])
        export.close()
        try store.apply([position(7)])
        store.recorder = record(7)
        _ = try store.exportCopy()
        #expect(try recorded(store) == ["through 7"])
        try store.apply([position(8)])
        store.recorder = record(8)
        #expect(try store.flush() == [group(1): Slot(8)])
        #expect(try recorded(store) == ["through 8"])
        try store.apply([position(9)])
        store.recorder = record(9)
        try store.compact(floor: Revision(3), in: ks)
        #expect(try recorded(store) == ["through 9"])
        // What is written at once counts, not what waited.
        try store.apply([position(10)])
        try store.apply([.putRecord(group(1), key: "s", value: "through 11"), .applied(group(1), Slot(11))])
        #expect(try store.flush() == [group(1): Slot(11)])
        #expect(try recorded(store) == ["through 11"])
        try store.apply([position(12)])
        store.recorder = record(12)
        let history = store.history(of: ks, after: Revision(3), through: Revision(3))
        #expect(try history.records(of: group(1), startingWith: UInt8(ascii: "s")).map(\.value) == ["through 12"])
        history.close()
        try store.apply([position(13)])
        store.recorder = record(13)
        store.close()
        let again = try Store.open(dir.path + "/s", options: Self.options())
        #expect(again.appliedSlots() == [group(1): Slot(13)])
        #expect(try recorded(again) == ["through 13"])
        again.close()
    }

    @Test func `rows of after the recorded slot, which a flush of the database's own leaves, are put once more`()
        throws
    {
        let dir = Scratch()
        let store = try Store.open(dir.path + "/s", options: Self.options())
        try store.apply([
            .putRow(ks, row("a", "1", at: 2)), .putRecord(group(1), key: "s", value: "through 5"),
            .applied(group(1), Slot(5)),
        ])
        let later: [[StoreChange]] = [
            [.putRow(ks, row("a", "2", at: 3, create: 2, version: 2)), position(6)],
            [.putRow(ks, row("b", "1", at: 4)), position(7)],
            [.putRow(ks, row("a", "", at: 5, version: 0)), position(8)],
        ]
        for changes in later { try store.apply(changes) }
        let whole = try storedRows(store)
        try store.database.flush()
        try Scratch.copy(dir.path + "/s", dir.path + "/copy")
        store.close()
        let copy = try Store.open(dir.path + "/copy", options: Self.options())
        #expect(copy.appliedSlots() == [group(1): Slot(5)])
        #expect(try recorded(copy) == ["through 5"])
        #expect(try storedRows(copy) == whole)
        for changes in later { try copy.apply(changes) }
        #expect(try storedRows(copy) == whole)
        copy.recorder = record(8)
        #expect(try copy.flush() == [group(1): Slot(8)])
        copy.close()
    }

    @Test func `a snapshot that is still read outlives the store's end`() throws {
        let dir = Scratch()
        let store = try Store.open(dir.path + "/s", options: Self.options())
        try store.apply([.putRow(ks, row("a", "1", at: 2)), .applied(group(1), Slot(7))])
        let export = try store.exportSnapshot(of: group(1), hashes: .all)
        store.close()
        while try export.next(bytesMax: 10) != nil {}
        let again = try Store.open(dir.path + "/s", options: Self.options())
        #expect(again.appliedSlot(of: group(1)) == Slot(7))
        again.close()
    }

    @Test func `a flush in the background reports the slots of its beginning`() async throws {
        let dir = Scratch()
        let store = try Store.open(dir.path + "/s", options: Self.options())
        try store.apply([.putRow(ks, row("a", "1", at: 2)), .applied(group(1), Slot(7))])
        let slots = try await withCheckedThrowingContinuation { continuation in
            store.flushInBackground { continuation.resume(with: $0) }
        }
        #expect(slots == [group(1): Slot(7)])
        store.close()
    }

    @Test func `a snapshot carries a hash range and a group's records, and replaces what was there`() throws {
        let dir = Scratch()
        let from = try Store.open(dir.path + "/from", options: Self.options())
        let to = try Store.open(dir.path + "/to", options: Self.options())
        var history = History(dice: Dice(state: 8)), old = History(dice: Dice(state: 9))
        for _ in 0..<400 { try from.apply(history.step()) }
        for _ in 0..<100 { try to.apply(old.step()) }
        try to.apply([.putRecord(group(2), key: "other", value: "stays")])
        let half = HashRange(first: 0, last: .max / 2)
        for mode in [0, 1] {
            let export = try from.exportSnapshot(of: group(1), hashes: half)
            try from.apply(history.step())
            let incoming = try to.importSnapshot(of: group(1), hashes: half)
            #expect(to.appliedSlot(of: group(1)) == .zero)
            while !(try incoming.clear(budget: 10)) {}
            var chunks = 0
            while let chunk = try export.next(bytesMax: 500) {
                var bad = chunk.array
                bad[bad.count / 2] ^= 1
                #expect(throws: StorageError.self) { try incoming.add(Bytes(bad)) }
                try incoming.add(chunk)
                chunks += 1
            }
            #expect(chunks > 5)
            #expect(to.incompleteImports == [group(1)])
            if mode == 0 {
                // The crash before `finish`.
                _ = try to.flush()
                try Scratch.copy(dir.path + "/to", dir.path + "/copy")
                let copy = try Store.open(dir.path + "/copy", options: Self.options())
                #expect(copy.incompleteImports == [group(1)])
                #expect(copy.appliedSlots()[group(1)] == nil)
                copy.close()
            }
            #expect(try incoming.finish() == export.applied)
            #expect(to.incompleteImports.isEmpty)
            let mine = try storedRows(to), hash = { (row: Row) in half.contains(KeyHash.hash(row.key)) }
            // One step was made after the export: above it nothing came over.
            let then = Revision(Int64(export.applied.rawValue))
            let removedLater = try storedRows(from)
            #expect(
                mine.filter(hash).subtracting(removedLater).allSatisfy { $0.modRevision <= then })
            #expect(
                removedLater.filter { hash($0) && $0.modRevision <= then }.isSubset(of: mine))
            #expect(mine.filter { !hash($0) } == Set(old.model.rows.filter { !hash($0) }))
            #expect(try to.records(of: group(2)).map(\.value) == ["stays"])
        }
        from.close()
        to.close()
    }

    @Test func `a damaged file is reported with the text of RocksDB`() throws {
        let dir = Scratch(), path = dir.path + "/s"
        let store = try Store.open(path, options: Self.options())
        for i in 0..<500 { try store.apply([.putRow(ks, row(Bytes("k\(i)"), "value", at: Int64(i + 2)))]) }
        store.close()
        for name in try Posix.names(in: path) where name.hasSuffix(".sst") {
            var bytes = try Posix.readFile(path + "/" + name)
            for i in 0..<min(bytes.count, 4000) { bytes[i] ^= 0x55 }
            try Scratch.write(bytes, path + "/" + name)
        }
        let told = Told()
        do {
            let damaged = try Store.open(path, options: Self.options())
            damaged.onFailure = { told.error = $0 }
            #expect(throws: RequestError.stopped) {
                try damaged.range(RangeQuery(range: .everything), at: Revision(900), in: ks)
            }
            damaged.close()
        } catch { told.error = error }
        #expect("\(try #require(told.error))".contains("Corruption"))
    }
}

@Suite struct DataDirectoryTests {
    @Test func `one process at a time, and one node for ever`() throws {
        let dir = Scratch(), path = dir.path + "/data"
        let first = try DataDirectory.open(path, identity: identity)
        #expect(try first.freeBytes() > 0)
        #expect {
            try DataDirectory.open(path, identity: identity)
        } throws: { "\($0)".contains("pid ") }
        first.close()
        try DataDirectory.open(path, identity: identity).close()
        #expect(try DataDirectory.identity(at: path) == identity)
        var stranger = identity
        stranger.cluster = 7
        #expect {
            try DataDirectory.open(path, identity: stranger)
        } throws: { "\($0)".contains("belongs to cluster 00000000000000c1") }
        var other = identity
        other.node = NodeID(9)
        #expect(throws: StorageError.self) { try DataDirectory.open(path, identity: other) }
        try Scratch.write(Array("polder-data-directory 3\n".utf8), path + "/identity")
        #expect {
            try DataDirectory.open(path, identity: identity)
        } throws: { "\($0)".contains("format 3") }
    }

    @Test func `the identity file reads like this`() throws {
        var whole = identity
        whole.token = 0xAB
        whole.founders = [.init(seat: NodeID(1), token: 0xCD), .init(seat: NodeID(2), token: 0xAB)]
        let text = String(decoding: DataDirectory.encode(whole), as: UTF8.self)
        #expect(
            text == """
                polder-data-directory 2
                cluster 00000000000000c1
                region-id 1
                region eu
                node 2
                state member
                token 00000000000000ab
                founders 1:00000000000000cd 2:00000000000000ab

                """)
        #expect(try DataDirectory.decode(text, "identity") == whole)
        var joined = identity
        joined.isNew = true
        joined.node = NodeID(259)
        let other = String(decoding: DataDirectory.encode(joined), as: UTF8.self)
        #expect(try DataDirectory.decode(other, "identity") == joined)
    }

    @Test func `an identity file of version 1 is read, and written again`() throws {
        let dir = Scratch()
        let old = """
            polder-data-directory 1
            cluster 00000000000000c1
            region-id 1
            region eu
            node 2

            """
        try Scratch.write(Array(old.utf8), dir.path + "/identity")
        #expect(try DataDirectory.identity(at: dir.path) == identity)
        try DataDirectory.open(dir.path, identity: identity).close()
        #expect(try DataDirectory.identity(at: dir.path) == identity)
    }

    @Test func `a directory that is not admitted yet takes the name that it is given, once`() throws {
        let dir = Scratch(), path = dir.path + "/data"
        var new = identity
        new.isNew = true
        try DataDirectory.open(path, identity: new).close()
        var admitted = identity
        admitted.node = NodeID(seat: identity.node, incarnation: 3)
        try DataDirectory.open(path, identity: admitted).close()
        #expect(try DataDirectory.identity(at: path) == admitted)
        #expect(throws: StorageError.self) { try DataDirectory.open(path, identity: identity) }
    }

    @Test func `data without an identity is not adopted`() throws {
        let dir = Scratch()
        try Posix.makeDirectory(dir.path + "/wal")
        #expect(throws: StorageError.self) { try DataDirectory.open(dir.path, identity: identity) }
    }
}
