import Primitives
import Testing

@testable import Storage

/// Replicas that the region does without (docs/decisions/0016).
@Suite struct DropTests {
    private let all = KeyRange.everything
    private func hash(_ key: Bytes) -> UInt64 { KeyHash.hash(key) }

    /// Half of the hash space is each group's.
    private let low = HashRange(first: 0, last: .max / 2), high = HashRange(first: .max / 2 + 1, last: .max)

    private func filled(_ path: String) throws -> (store: Store, low: Set<Bytes>, high: Set<Bytes>) {
        let store = try Store.open(path)
        var lows: Set<Bytes> = [], highs: Set<Bytes> = []
        for i in 0..<200 {
            let key = Bytes("k\(i)")
            let isLow = low.contains(hash(key))
            if isLow { lows.insert(key) } else { highs.insert(key) }
            try store.apply([
                .putRow(ks, row(key, "v", at: Int64(i + 2))),
                .putRecord(group(isLow ? 1 : 2), key: Bytes("l\(i)"), value: "x"),
                .applied(group(isLow ? 1 : 2), Slot(UInt64(i + 1))),
            ])
        }
        return (store, lows, highs)
    }

    private func keys(_ store: Store) throws -> Set<Bytes> {
        Set(try store.range(RangeQuery(range: all), at: Revision(1_000), in: ks).rows.map(\.key))
    }

    @Test func `rows and records of a dropped group go, little by little, and nobody else's`() throws {
        let scratch = Scratch()
        let (store, _, highs) = try filled(scratch.path)
        try store.apply([.drop(group(1), HashRanges([low]), lostThrough: Slot(9))])
        #expect(store.isDropped(group(1)) && !store.isDropped(group(2)))
        #expect(store.appliedSlot(of: group(1)) == .zero && store.appliedSlot(of: group(2)) > .zero)
        #expect(try store.records(of: group(1)).map(\.key) == ["z"])
        #expect(try store.records(of: group(2)).count == highs.count)
        #expect(store.isDropping)
        var steps = 0
        while try !store.dropStep(budget: 16, in: ks) { steps += 1 }
        #expect(steps > 5 && !store.isDropping)
        #expect(try keys(store) == highs)
        let changes = try store.changes(after: Revision(1), through: Revision(500), in: ks, maxRows: 1_000)
        #expect(Set(changes.changes.flatMap(\.rows).map(\.key)) == highs)
        store.close()
    }

    @Test func `what a crash has cut short goes on`() throws {
        let scratch = Scratch()
        var (store, _, highs) = try filled(scratch.path)
        try store.apply([.drop(group(1), HashRanges([low]), lostThrough: Slot(9))])
        #expect(try !store.dropStep(budget: 16, in: ks))
        _ = try store.flush()
        store.close()
        store = try Store.open(scratch.path)
        #expect(store.isDropping)
        #expect(store.isDropped(group(1)))
        while try !store.dropStep(budget: 64, in: ks) {}
        #expect(try keys(store) == highs)
        store.close()
    }

    @Test func `a group that comes back keeps what comes, whatever was still to be removed`() throws {
        let scratch = Scratch(), other = Scratch()
        let (store, lows, highs) = try filled(scratch.path)
        let (source, _, _) = try filled(other.path)
        try store.apply([.drop(group(1), HashRanges([low]), lostThrough: Slot(9))])
        _ = try store.dropStep(budget: 16, in: ks)
        let export = try source.exportSnapshot(of: group(1), hashes: low)
        let coming = try store.importSnapshot(of: group(1), hashes: low)
        while try !coming.clear(budget: 50) {}
        while let chunk = try export.next(bytesMax: 1 << 10) { try coming.add(chunk) }
        _ = try coming.finish()
        #expect(!store.isDropping)
        #expect(try store.dropStep(budget: 1_000, in: ks))
        #expect(try keys(store) == lows.union(highs))
        #expect(!store.isDropped(group(1)))
        store.close()
        source.close()
    }

    @Test func `hashes of parts sum to that of all, and rows are found by hashes`() throws {
        let scratch = Scratch()
        let (store, lows, _) = try filled(scratch.path)
        func sum(_ hashes: HashFilter) -> UInt32 {
            let box = Box()
            store.hashInBackground(
                at: Revision(1_000), compacted: .zero, in: ks, hashes: hashes, isSummed: true
            ) { box.set((try? $0.get()) ?? 0) }
            return box.wait()
        }
        let whole = sum(.all)
        #expect(whole == sum(.one(low)) &+ sum(.some(HashRanges([high]))))
        #expect(whole != sum(.one(low)))
        let found = try store.range(
            RangeQuery(range: all), at: Revision(1_000), in: ks, hashes: .some(HashRanges([low])))
        #expect(Set(found.rows.map(\.key)) == lows && found.count == Int64(lows.count))
        store.close()
    }

    private final class Box: @unchecked Sendable {
        private let monitor = Monitor()
        private var value: UInt32?
        func set(_ new: UInt32) {
            monitor.lock()
            value = new
            monitor.unlock()
            monitor.signal()
        }
        func wait() -> UInt32 {
            monitor.lock()
            defer { monitor.unlock() }
            while value == nil { monitor.wait() }
            return value ?? 0
        }
    }
}
