import Glibc
import Primitives
import Testing

@testable import Storage

private func filled(_ path: String, rows: Int, compact: Bool = false) throws -> Store {
    let store = try Store.open(path)
    let value = String(repeating: "polder", count: 100)
    for i in 0..<rows {
        try store.apply([
            .putRow(ks, row(Bytes("key/\(i % 500)"), "\(i) \(value)", at: Int64(i + 2))),
            .putRecord(group(1), key: Bytes("r\(i % 7)"), value: Bytes("\(i)")),
            .applied(group(1), Slot(UInt64(i + 1))),
        ])
    }
    _ = try store.flush()
    return store
}

/// Bytes in the middle of every table file, which checksums notice when they are read.
func damageTables(_ store: String) throws -> Int {
    var damaged = 0
    for name in try Posix.names(in: store) where name.hasSuffix(".sst") {
        var bytes = try Posix.readFile(store + "/" + name)
        for i in stride(from: 100, to: min(bytes.count, 40_000), by: 500) { bytes[i] ^= 0xFF }
        try Scratch.write(bytes, store + "/" + name)
        damaged += 1
    }
    return damaged
}

private func copy(_ store: Store, into directory: String) throws -> StoreCopyImport {
    let export = try #require(try store.exportCopy())
    let target = try StoreCopyImport(in: directory)
    while let chunk = try export.next(bytesMax: 10_000) { try target.add(chunk) }
    return target
}

@Suite struct StoreCopyTests {
    @Test func `a copy in a damaged store's place holds the same, and the mark is gone`() throws {
        let a = Scratch(), b = Scratch()
        let source = try filled(a.path + "/store", rows: 2000)
        try source.compact(floor: Revision(1000), in: ks)
        while try !source.compactStep(budget: 100, in: ks) {}
        try filled(b.path + "/store", rows: 10).close()
        let mark = StoreDamage.Mark(reason: "block checksum\nmismatch", peers: ["1 3 host 2380"])
        try StoreDamage.mark(mark, in: b.path)
        #expect(try StoreDamage.mark(in: b.path) == mark)
        #expect(mark.reason == "block checksum mismatch")

        let target = try copy(source, into: b.path)
        // What happens meanwhile is not in it, and does no harm.
        try source.apply([.applied(group(1), Slot(5000))])
        #expect(try target.install(needs: [group(1): Slot(2000)], in: b.path))

        let store = try Store.open(b.path + "/store")
        #expect(store.appliedSlot(of: group(1)) == Slot(2000))
        #expect(store.floor(of: ks) == Revision(1000))
        #expect(try store.records(of: group(1)).map(\.value) == source.records(of: group(1)).map(\.value))
        let all = Revision(2001), compacted = Revision(1000)
        #expect(
            try store.hash(at: all, compacted: compacted, in: ks)
                == source.hash(at: all, compacted: compacted, in: ks))
        #expect(try StoreDamage.mark(in: b.path) == nil)
        #expect(try Posix.names(in: b.path) == ["store"])
        store.close()
        source.close()
    }

    @Test func `a copy that lacks what the log was cut for is refused, and the damaged store stays`() throws {
        let a = Scratch(), b = Scratch()
        let source = try filled(a.path + "/store", rows: 20)
        try filled(b.path + "/store", rows: 10).close()
        try StoreDamage.mark(.init(reason: "x"), in: b.path)
        let target = try copy(source, into: b.path)
        #expect(try !target.install(needs: [group(1): Slot(21)], in: b.path))
        #expect(try StoreDamage.mark(in: b.path)?.reason == "x")
        let old = try Store.open(b.path + "/store")
        #expect(old.appliedSlot(of: group(1)) == Slot(10))
        old.close()
        // And the next one begins from nothing.
        #expect(try copy(source, into: b.path).install(needs: [group(1): Slot(20)], in: b.path))
        source.close()
    }

    @Test func `damaged, doubled and missing chunks are refused`() throws {
        let a = Scratch(), b = Scratch()
        let source = try filled(a.path + "/store", rows: 300)
        let export = try #require(try source.exportCopy())
        var chunks: [Bytes] = []
        while let chunk = try export.next(bytesMax: 5000) { chunks.append(chunk) }
        #expect(chunks.count > 3)
        let target = try StoreCopyImport(in: b.path)
        try target.add(chunks[0])
        #expect(throws: StorageError.self) { try target.add(chunks[0]) }
        #expect(throws: StorageError.self) { try target.add(chunks[2]) }
        var wrong = chunks[1].array
        wrong[wrong.count / 2] ^= 1
        #expect(throws: StorageError.self) { try target.add(Bytes(wrong)) }
        #expect(throws: StorageError.self) { _ = try target.install(needs: [:], in: b.path) }
        for chunk in chunks.dropFirst() { try target.add(chunk) }
        #expect(throws: StorageError.self) { try target.add(chunks[1]) }
        #expect(try target.install(needs: [:], in: b.path))
        source.close()
    }

    @Test func `a checksum that does not fit is told as damage of the store, wherever it is met`() throws {
        let a = Scratch()
        let path = a.path + "/store"
        try filled(path, rows: 2000).close()
        #expect(try damageTables(path) > 0)
        func isDamage(_ error: StorageError?) -> Bool {
            if case .corrupt = error { true } else { false }
        }
        let store: Store
        do throws(StorageError) {
            store = try Store.open(path)
        } catch {
            #expect(isDamage(error))
            return
        }
        let told = Told()
        store.onFailure = { told.error = $0 }
        // One key, a range, the history, a hash, a copy.
        #expect(throws: RequestError.stopped) { _ = try store.row("key/7", at: Revision(1900), in: ks) }
        #expect(isDamage(told.error))
        told.error = nil
        #expect(throws: RequestError.stopped) {
            _ = try store.range(
                RangeQuery(range: KeyRange(key: "key/", end: "key0")), at: Revision(1900), in: ks)
        }
        #expect(isDamage(told.error))
        told.error = nil
        #expect(throws: RequestError.stopped) {
            _ = try store.hash(at: Revision(1900), compacted: .zero, in: ks)
        }
        #expect(isDamage(told.error))
        told.error = nil
        let history = store.history(of: ks, after: .zero, through: Revision(2000))
        #expect(throws: StorageError.self) { while try history.next() != nil {} }
        #expect(isDamage(told.error))
        let export = try #require(try store.exportCopy())
        #expect(throws: StorageError.self) { while try export.next(bytesMax: 10_000) != nil {} }
        history.close()
        export.close()
        store.close()
    }

    @Test func `a damaged table that a compaction meets is told by the next flush`() throws {
        let a = Scratch()
        let path = a.path + "/store"
        try filled(path, rows: 2000).close()
        #expect(try damageTables(path) > 0)
        guard let store = try? Store.open(path) else { return }
        #expect(store.backgroundErrors == 0)
        #expect(store.reclaimInBackground())
        let end = Posix.monotonicNanoseconds() + 20_000_000_000
        while store.backgroundErrors == 0, Posix.monotonicNanoseconds() < end { usleep(1000) }
        #expect(store.backgroundErrors > 0)
        do throws(StorageError) {
            try store.apply([.applied(group(1), Slot(9000))])
            _ = try store.flush()
            Issue.record("the store goes on as if nothing had happened")
        } catch {
            guard case .corrupt = error else {
                Issue.record("\(error)")
                return
            }
        }
        store.close()
    }
}
