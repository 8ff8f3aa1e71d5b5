import Primitives
import Testing

@testable import Storage

@Suite struct HistoryExportTests {
    @Test func `an export is what is visible at its floor, and all history up to its end`() throws {
        let dir = Scratch()
        let store = try Store.open(dir.path + "/s", options: StoreTests.options())
        defer { store.close() }
        var history = History(dice: Dice(state: 11))
        while history.frontier < 400 || !history.prepared.isEmpty { try store.apply(history.step()) }
        let through = Revision(history.frontier - 100), floor = Revision(150)
        let export = store.history(of: ks, after: floor, through: through)
        // What happens later, compactions too, does not show.
        while history.frontier < 500 || !history.prepared.isEmpty { try store.apply(history.step()) }
        try store.compact(floor: Revision(500), in: ks)
        while !(try store.compactStep(budget: 1000, in: ks)) {}

        var found: [Row] = [], newest: [Row] = []
        while let entry = try export.next() {
            found.append(entry.row)
            if entry.isNewest { newest.append(entry.row) }
        }
        let visible = history.model.newest(.everything, at: floor, .all).filter { !$0.isDeletion }
        let between = history.model.rows.filter { $0.modRevision > floor && $0.modRevision <= through }
        #expect(Set(found) == Set(visible + between))
        #expect(found.count == visible.count + between.count)
        #expect(zip(found, found.dropFirst()).allSatisfy { $0.key <= $1.key })
        let last = history.model.newest(.everything, at: through, .all)
            .filter { !$0.isDeletion || $0.modRevision > floor }
        #expect(Set(newest) == Set(last))
        export.close()
    }

    @Test func `records of one kind come with the export`() throws {
        let dir = Scratch()
        let store = try Store.open(dir.path + "/s", options: StoreTests.options())
        defer { store.close() }
        for key in ["k1", "l1", "l2", "m1"] as [Bytes] {
            try store.apply([.putRecord(group(1), key: key, value: key)])
        }
        let export = store.history(of: ks, after: .zero, through: Revision(1))
        try store.apply([.removeRecord(group(1), key: "l1")])
        #expect(
            try export.records(of: group(1), startingWith: UInt8(ascii: "l")).map(\.key)
                == ["l1", "l2"])
        export.close()
    }

    @Test func `an interrupted creation leaves no node, a finished one does`() throws {
        let dir = Scratch()
        let path = dir.path + "/d"
        #expect(throws: StorageError.io("cut")) {
            try DataDirectory.create(path, identity: identity) { (store) throws(StorageError) in
                try Posix.makeDirectory(store)
                throw StorageError.io("cut")
            }
        }
        #expect(throws: StorageError.self) { try DataDirectory.open(path, identity: identity) }
        #expect(throws: StorageError.self) {
            try DataDirectory.create(path, identity: identity) { _ in }
        }
        Scratch.remove(path + "/store")
        try DataDirectory.create(path, identity: identity) { (store) throws(StorageError) in
            try Store.open(store, options: StoreTests.options()).close()
        }
        try DataDirectory.open(path, identity: identity).close()
        #expect(throws: StorageError.self) {
            try DataDirectory.create(path, identity: identity) { _ in }
        }
    }
}
