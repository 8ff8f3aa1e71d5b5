import Primitives
import Testing

@testable import Storage

@Suite struct StagedSnapshotTests {
    private let half = HashRange(first: 0, last: .max / 2)

    private func filled(_ path: String, _ state: UInt64, steps: Int) throws -> Store {
        let store = try Store.open(path, options: StoreTests.options())
        var history = History(dice: Dice(state: state))
        for _ in 0..<steps { try store.apply(history.step()) }
        return store
    }

    private func stage(_ from: Store, in path: String) throws -> (StagedSnapshot, Slot) {
        let export = try from.exportSnapshot(of: group(1), hashes: half)
        let staged = try StagedSnapshot(of: group(1), hashes: half, in: path)
        while let chunk = try export.next(bytesMax: 500) {
            var bad = chunk.array
            bad[bad.count / 2] ^= 1
            #expect(throws: StorageError.self) { try staged.add(Bytes(bad)) }
            try staged.add(chunk)
        }
        return (staged, export.applied)
    }

    private func rows(_ store: Store) throws -> Set<Row> {
        try StoreTests().storedRows(store).filter { half.contains(KeyHash.hash($0.key)) }
    }

    @Test func `an installation that a crash cuts short is repeated at the next start`() throws {
        let dir = Scratch()
        let from = try filled(dir.path + "/from", 8, steps: 400)
        let to = try filled(dir.path + "/to", 9, steps: 100)
        let (staged, applied) = try stage(from, in: dir.path)
        try staged.seal()
        // The process ends when half of the old rows are gone.
        let target = try to.importSnapshot(of: group(1), hashes: half)
        _ = try target.clear(budget: 10)
        _ = try to.flush()
        to.close()

        let again = try Store.open(dir.path + "/to", options: StoreTests.options())
        #expect(again.incompleteImports == [group(1)])
        #expect(try StagedSnapshot.resume(again, in: dir.path) == [group(1)])
        #expect(again.incompleteImports.isEmpty && again.appliedSlot(of: group(1)) == applied)
        #expect(try rows(again) == rows(from))
        #expect(try StagedSnapshot.resume(again, in: dir.path) == [])
        again.close()
        from.close()
    }

    @Test func `what is not whole, or not begun, is forgotten, and the store is as it was`() throws {
        let dir = Scratch()
        let from = try filled(dir.path + "/from", 8, steps: 100)
        let to = try filled(dir.path + "/to", 9, steps: 100)
        let before = try rows(to)
        let half = try stage(from, in: dir.path).0
        #expect(half.chunks > 1)
        #expect(try StagedSnapshot.resume(to, in: dir.path) == [])
        let (whole, _) = try stage(from, in: dir.path)
        try whole.seal()
        #expect(try StagedSnapshot.resume(to, in: dir.path) == [])
        #expect(try Posix.names(in: dir.path + "/incoming") == [])
        #expect(try rows(to) == before)
        let (last, applied) = try stage(from, in: dir.path)
        #expect(try last.install(into: to) == applied)
        #expect(try rows(to) == rows(from))
        #expect(try Posix.names(in: dir.path + "/incoming") == [])
        from.close()
        to.close()
    }

    @Test func `a staged file that is damaged stops the start`() throws {
        let dir = Scratch()
        let from = try filled(dir.path + "/from", 8, steps: 100)
        let to = try filled(dir.path + "/to", 9, steps: 100)
        let (staged, _) = try stage(from, in: dir.path)
        try staged.seal()
        _ = try to.importSnapshot(of: group(1), hashes: half)
        let name = try #require(try Posix.names(in: dir.path + "/incoming").first)
        var bytes = try Posix.readFile(dir.path + "/incoming/" + name)
        bytes[bytes.count / 2] ^= 1
        try Posix.replaceFile(dir.path + "/incoming", name, bytes)
        #expect(throws: StorageError.self) { try StagedSnapshot.resume(to, in: dir.path) }
        #expect(to.incompleteImports == [group(1)])
        from.close()
        to.close()
    }
}
