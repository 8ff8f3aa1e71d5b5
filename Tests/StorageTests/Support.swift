import Glibc
import Primitives

@testable import Storage

/// A directory of its own under /tmp, removed with the value.
final class Scratch {
    let path: String
    init() {
        var template = Array("/tmp/polder-storage-XXXXXX".utf8CString)
        path = template.withUnsafeMutableBufferPointer { buffer in
            buffer.baseAddress.flatMap { mkdtemp($0) }.map { String(cString: $0) } ?? "/tmp"
        }
    }
    deinit { Scratch.remove(path) }

    static func remove(_ path: String) {
        for name in (try? Posix.names(in: path)) ?? [] {
            let child = path + "/" + name
            if unlink(child) != 0 { remove(child) }
        }
        rmdir(path)
    }
    /// A file that the log's own thread removes or renames meanwhile (see `SegmentPool`) is not copied.
    static func copy(_ from: String, _ to: String) throws {
        try Posix.makeDirectory(to)
        for name in try Posix.names(in: from) {
            let path = from + "/" + name
            if (try? Posix.names(in: path)) != nil {
                try copy(path, to + "/" + name)
                continue
            }
            do {
                try write(Posix.readFile(path), to + "/" + name)
            } catch {
                let isOfPool = name.hasPrefix("dead-") || name.hasPrefix("spare")
                guard isOfPool, access(path, F_OK) != 0 else { throw error }
            }
        }
    }
    static func write(_ bytes: [UInt8], _ path: String) throws {
        let fd = try Posix.open(path, O_WRONLY | O_CREAT | O_TRUNC)
        defer { close(fd) }
        if !bytes.isEmpty { try Posix.write(bytes, to: fd, at: 0, path: path) }
    }
}

let identity = NodeIdentity(
    cluster: 0xC1, region: RegionID(1), regionName: "eu", node: NodeID(2))
let ks = KeyspaceID.standard
func group(_ n: UInt32) -> GroupID { GroupID(keyspace: ks, partition: PartitionID(n)) }

func row(
    _ key: Bytes, _ value: String, at revision: Int64, sub: UInt32 = 0, create: Int64? = nil,
    version: Int64 = 1, lease: Int64 = 0
) -> Row {
    Row(
        key: key, value: version == 0 ? .empty : Bytes(value),
        createRevision: version == 0 ? .zero : Revision(create ?? revision),
        modRevision: Revision(revision), version: version, lease: LeaseID(lease), sub: sub,
        origin: Origin(
            region: RegionID(1), revision: Revision(revision),
            stamp: Stamp(ticks: UInt64(revision) * 1000, region: RegionID(1))))
}

/// xorshift: the same every time.
struct Dice: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return state
    }
}

/// What a store has told of its failure.
final class Told: @unchecked Sendable { var error: StorageError? }
