import Glibc
package import Primitives

/// A snapshot that comes in, on the disk before any of it replaces what the store has: an installation
/// that a crash cuts short is repeated at the next start, before the node takes part in anything.
///
/// The file: parts, each behind its length (four bytes). The first is a header: "PLDSTAGE", a version
/// byte, the group, its hash range, CRC32C; the others are chunks, with their own checksums and numbers.
package final class StagedSnapshot {
    private static let magic = Array("PLDSTAGE".utf8)
    private static let version: UInt8 = 1
    private static let folder = "/incoming"
    private static let chunkBytesMax = 64 << 20

    package let group: GroupID
    package private(set) var bytes = 0
    package private(set) var chunks: UInt64 = 0
    private let directory: String
    private var descriptor: Int32

    /// What was staged of this group before is gone.
    package init(
        of group: GroupID, hashes: HashRange?, in dataDirectory: String
    ) throws(StorageError) {
        self.group = group
        directory = dataDirectory + Self.folder
        try Posix.makeDirectory(directory)
        unlink(Self.path(directory, group))
        descriptor = try Posix.open(
            Self.path(directory, group) + ".part", O_WRONLY | O_CREAT | O_TRUNC)
        var writer = ByteWriter(capacity: 64)
        writer.raw(Self.magic)
        writer.byte(Self.version)
        writer.group(group)
        writer.bool(hashes != nil)
        if let hashes {
            writer.fixed64(hashes.first)
            writer.fixed64(hashes.last)
        }
        writer.fixed32(CRC32C.checksum(writer.bytes))
        try write(part: Bytes(writer.bytes))
    }

    deinit { close() }

    private static func path(_ directory: String, _ group: GroupID) -> String {
        "\(directory)/\(group.keyspace)-\(group.partition).snapshot"
    }

    /// The next chunk of an export; `damaged` if it is not. The store has not been touched.
    package func add(_ chunk: Bytes) throws(StorageError) {
        do throws(DecodingError) {
            _ = try SnapshotFormat.items(of: chunk, number: chunks)
        } catch {
            throw .damaged(
                file: "snapshot of \(group)", offset: Int(truncatingIfNeeded: chunks),
                reason: error.what)
        }
        chunks += 1
        try write(part: chunk)
    }

    private func write(part: Bytes) throws(StorageError) {
        var writer = ByteWriter(capacity: 8)
        writer.fixed32(UInt32(part.count))
        try append(writer.bytes)
        try append(part.array)
    }

    private func append(_ part: [UInt8]) throws(StorageError) {
        try Posix.write(part, to: descriptor, at: bytes, path: Self.path(directory, group))
        bytes += part.count
    }

    private func close() {
        if descriptor >= 0 { Glibc.close(descriptor) }
        descriptor = -1
    }

    package func discard() {
        close()
        unlink(Self.path(directory, group) + ".part")
        unlink(Self.path(directory, group))
    }

    /// Replaces what the store has of the group. From the first removal on there is no way back, only
    /// this file: it goes when the store has flushed.
    package func install(into store: Store) throws(StorageError) -> Slot {
        try seal()
        return try Self.install(Self.path(directory, group), into: store)
    }

    /// Whole and durable.
    func seal() throws(StorageError) {
        let path = Self.path(directory, group)
        guard fsync(descriptor) == 0 else { throw Posix.failure("cannot sync", path) }
        close()
        guard rename(path + ".part", path) == 0 else { throw Posix.failure("cannot rename", path) }
        try Posix.syncDirectory(directory)
    }

    /// At the start, before the store is looked at: what was cut short is done from its beginning.
    package static func resume(
        _ store: Store, in dataDirectory: String
    ) throws(StorageError) -> [GroupID] {
        let directory = dataDirectory + folder
        var resumed: [GroupID] = []
        for group in store.incompleteImports where Posix.exists(path(directory, group)) {
            _ = try install(path(directory, group), into: store)
            resumed.append(group)
        }
        guard Posix.exists(directory) else { return resumed }
        // Not begun, or not whole: the others send it again.
        for name in try Posix.names(in: directory) { unlink(directory + "/" + name) }
        return resumed
    }

    private static func install(_ path: String, into store: Store) throws(StorageError) -> Slot {
        let descriptor = try Posix.open(path, O_RDONLY)
        defer { Glibc.close(descriptor) }
        var offset = 0
        func next() throws(StorageError) -> Bytes? {
            let size = try Posix.read(4, from: descriptor, at: offset, path: path)
            if size.isEmpty { return nil }
            let count = size.reversed().reduce(0) { $0 << 8 | Int($1) }
            guard size.count == 4, count <= chunkBytesMax else {
                throw .damaged(file: path, offset: offset, reason: "no length of a part")
            }
            let part = try Posix.read(count, from: descriptor, at: offset + 4, path: path)
            guard part.count == count else {
                throw .damaged(file: path, offset: offset, reason: "ends in the middle of a part")
            }
            offset += 4 + count
            return Bytes(part)
        }
        let first = try next() ?? .empty
        let group: GroupID, hashes: HashRange?
        do throws(DecodingError) {
            (group, hashes) = try header(first)
        } catch {
            throw .damaged(file: path, offset: 0, reason: error.what)
        }
        let target = try store.importSnapshot(of: group, hashes: hashes)
        while try !target.clear(budget: 10_000) {}
        while let chunk = try next() { try target.add(chunk) }
        let applied = try target.finish()
        _ = try store.flush()
        unlink(path)
        return applied
    }

    private static func header(
        _ part: Bytes
    ) throws(DecodingError) -> (group: GroupID, hashes: HashRange?) {
        guard part.count > 4 else { throw DecodingError("no header") }
        let body = part[0..<(part.count - 4)]
        var tail = ByteReader(part[(part.count - 4)..<part.count])
        guard try tail.fixed32() == body.withUnsafeBytes({ CRC32C.checksum($0) }) else {
            throw DecodingError("the header's checksum")
        }
        var reader = ByteReader(body)
        guard try reader.raw(magic.count) == Bytes(magic) else { throw DecodingError("no snapshot") }
        let found = try reader.byte()
        guard found == version else { throw DecodingError("version \(found)") }
        let group = try reader.group()
        guard try reader.bool() else { return (group, nil) }
        let first = try reader.fixed64(), last = try reader.fixed64()
        guard first <= last else { throw DecodingError("hash range") }
        return (group, HashRange(first: first, last: last))
    }
}
