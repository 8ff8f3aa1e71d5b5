import Foundation
import Primitives
import Testing

@testable import Storage

/// Files that builds of earlier days have written, and that every build must read (docs/formats.md). A new
/// version of a format gets a folder of its own; the old ones stay. `REWRITE=1 swift test --filter
/// GoldenTests` writes the newest: only when its version has changed, or before anybody had it.
private enum Golden {
    static let newest = "1"
    static let sources = (#filePath as NSString).deletingLastPathComponent + "/Golden/" + newest
    static let isRewritten = getenv("REWRITE") != nil

    static var folder: String {
        get throws {
            if isRewritten { return sources }
            return try #require(Bundle.module.path(forResource: "Golden", ofType: nil)) + "/" + newest
        }
    }

    // What is in them.
    static let rows = [
        row("a", "one", at: 2), row("a", "two", at: 3, create: 2, version: 2, lease: 7),
        row("b\u{0}c", "with a zero", at: 4, sub: 1), row("d", "gone", at: 5), row("d", "", at: 6, version: 0),
        row("e", String(repeating: "long ", count: 60), at: 300),
    ]
    static let records: [(key: Bytes, value: Bytes)] = [("p1", "first"), ("p2", "\u{0}\u{1}")]
    static let floor = Revision(1)
    static let applied = [group(0): Slot(3), group(1): Slot(77)]
    static let entries = (1...6).map { "entry \($0) " + String(repeating: "x", count: Int($0) * 20) }
    static let ballot = Ballot(round: 3, node: NodeID(1))

    static func fill(_ store: Store) throws {
        try store.apply(rows.map { .putRow(ks, $0) })
        try store.apply(records.map { .putRecord(group(1), key: $0.key, value: $0.value) })
        try store.apply(applied.sorted { $0.key < $1.key }.map { .applied($0.key, $0.value) })
        try store.raiseFloor(floor, ks)
        _ = try store.flush()
    }

    static func check(_ store: Store) throws {
        #expect(try StoreTests().storedRows(store) == Set(rows))
        let found = try store.records(of: group(1))
        #expect(found.map(\.key) == records.map(\.key) && found.map(\.value) == records.map(\.value))
        #expect(store.appliedSlots() == applied && store.floor(of: ks) == floor)
        let changes = try store.changes(after: floor, through: Revision(400), in: ks, maxRows: 100)
        #expect(changes.changes.map(\.revision.rawValue) == [2, 3, 4, 5, 6, 300])
    }

    static func entry(_ n: Int) -> LogEntry {
        LogEntry(term: ballot, number: UInt64(n), kind: .normal, payload: Bytes(entries[n - 1]))
    }

    static func openLog(_ path: String) throws -> [GroupID: RestoredLog] {
        var options = WriteAheadLog.Options()
        options.segmentBytes = 4096
        let handlers = WriteAheadLog.Handlers(onDurable: { _ in }, onFailure: { _ in })
        let (log, restored) = try WriteAheadLog.open(
            directory: path, identity: identity, options: options, handlers: handlers)
        log.close()
        return restored
    }

    /// Length (4 bytes, little-endian) and part, again and again.
    static func parts(_ file: String) throws -> [Bytes] {
        var reader = ByteReader(Bytes(try Posix.readFile(file)))
        var parts: [Bytes] = []
        while !reader.isAtEnd { parts.append(try reader.raw(Int(try reader.fixed32()))) }
        return parts
    }
    static func write(parts: [Bytes], _ file: String) throws {
        var writer = ByteWriter(capacity: 4096)
        for part in parts {
            writer.fixed32(UInt32(part.count))
            writer.raw(part)
        }
        try Scratch.write(writer.bytes, file)
    }

    static func rewrite() throws {
        Scratch.remove(sources)
        for path in [(sources as NSString).deletingLastPathComponent, sources] {
            try Posix.makeDirectory(path)
        }
        // Two segments: the first is full when the second begins.
        try Posix.makeDirectory(sources + "/wal")
        let writer = try LogWriter(
            sources + "/wal", identity: identity, options: { () -> WriteAheadLog.Options in
                var options = WriteAheadLog.Options()
                options.segmentBytes = 700
                return options
            }(), calls: .init(),
            recovery: try LogRecovery.read(sources + "/wal", [], identity: identity))
        try writer.append([.promise(group(1), ballot), .promise(group(2), Ballot(round: 9, node: NodeID(3)))])
        for n in 1...6 {
            let slot = UInt64(n)
            try writer.append([
                .accept(group(1), Slot(slot), ballot, entry(n)), .decided(group(1), Slot(slot - 1)),
            ])
        }
        try writer.append([.truncate(group(1), Slot(1))])
        writer.close()
        for name in try Posix.names(in: sources + "/wal") where !name.hasSuffix(".wal") {
            try Posix.remove(sources + "/wal/" + name)
        }
        let store = try Store.open(sources + "/store")
        try fill(store)
        let copy = try #require(try store.exportCopy())
        var chunks: [Bytes] = []
        while let chunk = try copy.next(bytesMax: 300) { chunks.append(chunk) }
        try write(parts: chunks, sources + "/store.copy")
        let export = try store.exportSnapshot(of: group(1), hashes: .all)
        chunks = []
        while let chunk = try export.next(bytesMax: 200) { chunks.append(chunk) }
        try write(parts: chunks, sources + "/group.snapshot")
        store.close()
        for name in try Posix.names(in: sources + "/store")
        where ["LOG", "LOCK", "OPTIONS", "IDENTITY"].contains(where: { name.hasPrefix($0) }) || name.hasSuffix(".log") {
            try Posix.remove(sources + "/store/" + name)
        }
        var owner = identity
        owner.token = 0x6b8f
        owner.founders = [.init(seat: NodeID(1), token: 5), .init(seat: NodeID(2), token: 0x6b8f)]
        try Scratch.write(DataDirectory.encode(owner), sources + "/identity")
        let old = "polder-data-directory 1\ncluster 00000000000000c1\nregion-id 1\nregion eu\nnode 2\n"
        try Scratch.write(Array(old.utf8), sources + "/identity-1")
    }
}

@Suite(.serialized) struct GoldenTests {
    @Test(.enabled(if: Golden.isRewritten)) func `0: the files are written`() throws { try Golden.rewrite() }

    private let dir = Scratch()

    private func log() throws -> (path: String, segments: [String]) {
        let path = dir.path + "/wal"
        try Scratch.copy(Golden.folder + "/wal", path)
        return (path, try Posix.names(in: path).filter { $0.hasSuffix(".wal") })
    }

    /// Where the batches of a segment begin and end.
    private func batches(_ file: String, _ number: UInt64) throws -> [(start: Int, end: Int)] {
        let bytes = try Posix.readFile(file)
        var found: [(start: Int, end: Int)] = [], at = LogFormat.headerBytes
        while let batch = LogFormat.batch(in: bytes, at: at, segment: number) {
            found.append((at, batch.end))
            at = batch.end
        }
        return found
    }

    @Test func `a log of version 1 is read`() throws {
        let (path, segments) = try log()
        #expect(segments.count == 2)
        let restored = try Golden.openLog(path)
        let one = try #require(restored[group(1)])
        #expect(one.promised == Golden.ballot && one.truncatedThrough == Slot(1) && one.decidedThrough == Slot(5))
        #expect(one.accepted.map(\.slot.rawValue) == [2, 3, 4, 5, 6])
        #expect(one.accepted.map(\.entry) == (2...6).map { Golden.entry($0) })
        #expect(restored[group(2)]?.promised == Ballot(round: 9, node: NodeID(3)))
    }

    @Test func `a torn tail of a log of version 1 is cut, wherever it is torn`() throws {
        let (path, segments) = try log()
        let last = path + "/" + segments[1]
        let bytes = try Posix.readFile(last), number = try #require(LogFormat.segment(ofName: segments[1]))
        let batch = try #require(try batches(last, number).last)
        // Zeros fill up the batch: it is whole without them.
        let lastByte = try #require((batch.start..<batch.end).last { bytes[$0] != 0 })
        for cut in stride(from: batch.start, through: lastByte, by: 3) {
            let copy = dir.path + "/torn-\(cut)"
            try Scratch.copy(path, copy)
            // What follows is what a recycled file held: zeros, or anything.
            let torn = Array(bytes[..<cut]) + Array(repeating: UInt8(cut & 1) * 0xA5, count: bytes.count - cut)
            try Scratch.write(torn, copy + "/" + segments[1])
            let one = try #require(try Golden.openLog(copy)[group(1)])
            // The last batch was the truncation.
            #expect(one.truncatedThrough == .zero && one.accepted.count == 6, "cut at \(cut)")
            Scratch.remove(copy)
        }
    }

    @Test func `any damaged byte in the middle of a log of version 1 is refused with its place`() throws {
        let (path, segments) = try log()
        for name in segments {
            let file = path + "/" + name
            let bytes = try Posix.readFile(file), number = try #require(LogFormat.segment(ofName: name))
            let all = try batches(file, number)
            // The last batch of the last segment may be a torn tail, and no batch follows the one before it
            // that knows of more than its beginning.
            let known = name == segments[0] ? all : Array(all.dropLast())
            for batch in known {
                for at in stride(from: batch.start, to: batch.end, by: 7) {
                    let copy = dir.path + "/damaged"
                    try Scratch.copy(path, copy)
                    var wrong = bytes
                    wrong[at] ^= 0x10
                    try Scratch.write(wrong, copy + "/" + name)
                    do throws(StorageError) {
                        _ = try LogRecovery.read(copy, [1, 2], identity: identity)
                        Issue.record("read with a wrong byte at \(at) of \(name)")
                    } catch {
                        guard case .damaged(let place, let offset, _) = error else {
                            Issue.record("\(error)")
                            continue
                        }
                        #expect(place.hasSuffix(name) && offset <= at)
                    }
                    Scratch.remove(copy)
                }
            }
        }
    }

    @Test func `a store of version 1 is read`() throws {
        try Scratch.copy(Golden.folder + "/store", dir.path + "/store")
        let store = try Store.open(dir.path + "/store")
        try Golden.check(store)
        store.close()
    }

    @Test func `a copy of a store of version 1 is read`() throws {
        let target = try StoreCopyImport(in: dir.path)
        for chunk in try Golden.parts(Golden.folder + "/store.copy") { try target.add(chunk) }
        #expect(try target.install(needs: Golden.applied, in: dir.path))
        let store = try Store.open(dir.path + "/store")
        try Golden.check(store)
        store.close()
    }

    @Test func `a snapshot of a group of version 1 is read`() throws {
        let store = try Store.open(dir.path + "/store")
        let target = try store.importSnapshot(of: group(1), hashes: .all)
        while try !target.clear(budget: 10) {}
        for chunk in try Golden.parts(Golden.folder + "/group.snapshot") { try target.add(chunk) }
        #expect(try target.finish() == Golden.applied[group(1)])
        #expect(try StoreTests().storedRows(store) == Set(Golden.rows))
        #expect(try store.records(of: group(1)).map(\.value) == Golden.records.map(\.value))
        store.close()
    }

    @Test func `identities of versions 1 and 2 are read`() throws {
        let new = try Golden.folder + "/identity", old = try Golden.folder + "/identity-1"
        let two = try DataDirectory.decode(String(decoding: Posix.readFile(new), as: UTF8.self), new)
        #expect(two.token == 0x6b8f && two.founders.count == 2 && two.cluster == identity.cluster)
        let one = try DataDirectory.decode(String(decoding: Posix.readFile(old), as: UTF8.self), old)
        #expect(one.token == 0 && one.founders.isEmpty && one.node == identity.node)
    }
}
