package import Primitives

/// A whole store, as it is at one moment, byte by byte, for a node whose own files are damaged: what the
/// replicas of one node hold together is consistent, whatever partitions there are.
///
/// Chunks (docs/formats.md): a version byte, a number (varint, from 0, without gaps), items, and four bytes
/// of CRC32C over what stands before. Items: `1 bytes(key) bytes(value)`; `2`, the last of the last chunk.
enum StoreCopyFormat {
    static let version: UInt8 = 1
    static let pairTag: UInt8 = 1, endTag: UInt8 = 2
}

/// Stays valid while the store goes on. May be read on another thread, by one at a time.
package final class StoreCopyExport: @unchecked Sendable {
    private var snapshot: RocksDatabase.Snapshot?
    private var cursor: Cursor?
    private var number: UInt64 = 0

    init(_ snapshot: RocksDatabase.Snapshot) {
        let cursor = snapshot.cursor(until: [.max])
        cursor.seek([0])
        self.snapshot = snapshot
        self.cursor = cursor
    }

    /// The next chunk, about `bytesMax` long (longer only for one large value); nil after the last.
    package func next(bytesMax: Int) throws(StorageError) -> Bytes? {
        guard let cursor else { return nil }
        var writer = ByteWriter(capacity: bytesMax + bytesMax / 8)
        writer.byte(StoreCopyFormat.version)
        writer.varint(number)
        number += 1
        while cursor.isValid, writer.count < bytesMax {
            writer.byte(StoreCopyFormat.pairTag)
            writer.bytes(Bytes(cursor.key))
            writer.bytes(Bytes(cursor.value))
            cursor.next()
        }
        if !cursor.isValid {
            try cursor.check()
            writer.byte(StoreCopyFormat.endTag)
            close()
        }
        writer.fixed32(CRC32C.checksum(writer.bytes))
        return Bytes(writer.bytes)
    }

    package func close() {
        cursor = nil
        snapshot = nil
    }
}

extension Store {
    /// Between turns: then the replicas' records and rows are of one moment. Nil: a snapshot's
    /// installation has been cut short here, so that there is nothing worth having.
    package func exportCopy() throws(StorageError) -> StoreCopyExport? {
        guard imports.isEmpty else { return nil }
        try recordPositions()
        return StoreCopyExport(database.snapshot())
    }
}

/// A copy that comes in, beside the store that it is to replace. Until `install` nothing of that one is
/// touched, and what a crash leaves is begun again.
package final class StoreCopyImport {
    private let path: String
    private var database: RocksDatabase?
    private let options: Store.Options
    private var nextChunk: UInt64 = 0
    private var isComplete = false
    package private(set) var bytes = 0

    package init(
        in dataDirectory: String, options: Store.Options = Store.Options()
    ) throws(StorageError) {
        path = StoreDamage.incoming(dataDirectory)
        self.options = options
        try Posix.removeDirectory(path)
        try Posix.makeDirectory(path)
        database = try RocksDatabase(path, options)
    }

    package var chunks: UInt64 { nextChunk }

    /// `damaged` for bytes that are not the next chunk: begin again.
    package func add(_ chunk: Bytes) throws(StorageError) {
        guard let database, !isComplete else { throw damaged("more after the end") }
        let batch = WriteBatch()
        do throws(DecodingError) {
            try decode(chunk, into: batch)
        } catch {
            throw damaged(error.what)
        }
        nextChunk += 1
        bytes += chunk.count
        if batch.count > 0 { try database.write(batch) }
    }

    private func decode(_ chunk: Bytes, into batch: WriteBatch) throws(DecodingError) {
        guard chunk.count >= 6 else { throw DecodingError("too short for a chunk") }
        let body = chunk[0..<(chunk.count - 4)]
        var tail = ByteReader(chunk[(chunk.count - 4)..<chunk.count])
        guard try tail.fixed32() == body.withUnsafeBytes({ CRC32C.checksum($0) }) else {
            throw DecodingError("checksum")
        }
        var reader = ByteReader(body)
        let version = try reader.byte()
        guard version == StoreCopyFormat.version else { throw DecodingError("chunk version \(version)") }
        let number = try reader.varint()
        guard number == nextChunk else { throw DecodingError("chunk \(number) for \(nextChunk)") }
        while !reader.isAtEnd {
            guard !isComplete else { throw DecodingError("more after the end") }
            switch try reader.byte() {
            case StoreCopyFormat.pairTag:
                let key = try reader.bytes(), value = try reader.bytes()
                guard key.count > 0 else { throw DecodingError("an empty key") }
                key.withUnsafeBytes { k in value.withUnsafeBytes { v in batch.put(k, v) } }
            case StoreCopyFormat.endTag: isComplete = true
            case let tag: throw DecodingError("item \(tag)")
            }
        }
    }

    /// After the last chunk: puts it in the store's place. False: it does not reach what the log says that
    /// this node has had (`needs`: how far it was cut), so another one is needed.
    package func install(
        needs: [GroupID: Slot], in dataDirectory: String
    ) throws(StorageError) -> Bool {
        guard isComplete, let database else { throw damaged("ended before its end") }
        guard try database.get(StoreFormat.versionKey) != nil else { throw damaged("no format version") }
        try database.flush()
        database.close()
        self.database = nil
        let store = try Store.open(path, options: options)
        let reaches = StoreDamage.missing(needs, in: store.appliedSlots()) == nil
        store.close()
        guard reaches else { return false }
        try StoreDamage.replaceStore(dataDirectory)
        return true
    }

    package func discard() {
        database?.close()
        database = nil
    }

    private func damaged(_ reason: String) -> StorageError {
        .damaged(file: "copy of a store", offset: Int(truncatingIfNeeded: nextChunk), reason: reason)
    }
}

/// The mark in a data directory whose store must not be used any more, and what stands beside it.
package enum StoreDamage {
    static let markName = "store-damaged"
    static func incoming(_ directory: String) -> String { directory + "/store-incoming" }
    static func old(_ directory: String) -> String { directory + "/store-old" }

    /// A file of lines: the reason, then whom to ask for a copy (the list of members is in the store).
    package struct Mark: Equatable, Sendable {
        package var reason: String
        package var peers: [String]
        package init(reason: String, peers: [String] = []) {
            self.reason = reason.split(separator: "\n").joined(separator: " ")
            self.peers = peers
        }
    }

    /// Nil: nobody has found the store damaged.
    package static func mark(in directory: String) throws(StorageError) -> Mark? {
        let path = directory + "/" + markName
        guard Posix.exists(path) else { return nil }
        let lines = String(decoding: try Posix.readFile(path), as: UTF8.self).split(separator: "\n")
        return Mark(
            reason: lines.first.map(String.init) ?? "no reason is given",
            peers: lines.dropFirst().map(String.init))
    }

    package static func mark(_ mark: Mark, in directory: String) throws(StorageError) {
        let lines = [mark.reason] + mark.peers
        try Posix.replaceFile(directory, markName, Array((lines.joined(separator: "\n") + "\n").utf8))
    }

    /// What the log says that the store holds, because it was cut there, and the store does not hold.
    package static func missing(_ needs: [GroupID: Slot], in applied: [GroupID: Slot]) -> GroupID? {
        needs.filter { applied[$0.key] ?? .zero < $0.value }.keys.min()
    }

    /// How far each group's log was cut: what a store beside it must have applied.
    package static func needs(
        logDirectory: String, identity: NodeIdentity
    ) throws(StorageError) -> [GroupID: Slot] {
        guard Posix.exists(logDirectory) else { return [:] }
        let numbers = try Posix.names(in: logDirectory).compactMap(LogFormat.segment(ofName:)).sorted()
        let log = try LogRecovery.read(logDirectory, numbers, identity: identity)
        return log.groups.mapValues(\.truncated).filter { $0.value > .zero }
    }

    /// The damaged one is kept until its successor is in its place, and the mark until then too: a crash
    /// anywhere in here makes the whole repair begin again.
    static func replaceStore(_ directory: String) throws(StorageError) {
        let store = directory + "/store"
        try Posix.removeDirectory(old(directory))
        if Posix.exists(store) { try Posix.rename(store, old(directory)) }
        try Posix.rename(incoming(directory), store)
        try Posix.syncDirectory(directory)
        try Posix.remove(directory + "/" + markName)
        try Posix.syncDirectory(directory)
        try Posix.removeDirectory(old(directory))
    }

    /// What an interrupted repair has left, once there is no mark any more.
    package static func clean(_ directory: String) throws(StorageError) {
        for path in [incoming(directory), old(directory)] { try Posix.removeDirectory(path) }
    }
}
