import Glibc
import Primitives

/// A node's directory: one process at a time, one node for ever.
package final class DataDirectory {
    package static let formatVersion = 2
    static let identityName = "identity", lockName = "lock"

    package let path: String
    package let identity: NodeIdentity
    package var logPath: String { path + "/wal" }
    package var storePath: String { path + "/store" }
    /// -1 once closed.
    private var lock: Int32

    /// Creates the directory (mode 0700) and its identity, or checks them; holds the lock until
    /// `close()` or the end of the process.
    package static func open(
        _ path: String, identity: NodeIdentity
    ) throws(StorageError) -> DataDirectory {
        try Posix.makeDirectory(path)
        let lock = try takeLock(path)
        do throws(StorageError) {
            if let found = try Self.identity(at: path) {
                try check(found, identity, path)
                if found != identity { try Posix.replaceFile(path, identityName, encode(identity)) }
            } else {
                // Data without an identity is somebody else's, or half of a copy: never adopted.
                for name in ["wal", "store"] where Posix.exists(path + "/" + name) {
                    throw StorageError.foreign("\(path) holds data but no identity file")
                }
                try Posix.replaceFile(path, identityName, encode(identity))
            }
        } catch {
            Glibc.close(lock)
            throw error
        }
        return DataDirectory(path: path, identity: identity, lock: lock)
    }

    /// A directory that begins with data from elsewhere, which `fill` puts into the store's path. The
    /// identity comes last: without it, what an interrupted `fill` has left is never taken for a node's.
    package static func create(
        _ path: String, identity: NodeIdentity, fill: (_ storePath: String) throws(StorageError) -> Void
    ) throws(StorageError) {
        try Posix.makeDirectory(path)
        let lock = try takeLock(path)
        defer { Glibc.close(lock) }
        for name in [identityName, "wal", "store"] where Posix.exists(path + "/" + name) {
            throw StorageError.foreign("\(path) holds data already")
        }
        try fill(path + "/store")
        try Posix.replaceFile(path, identityName, encode(identity))
    }

    /// What the identity file says; nil: there is none (a new directory).
    package static func identity(at path: String) throws(StorageError) -> NodeIdentity? {
        let file = path + "/" + identityName
        guard Posix.exists(file) else { return nil }
        return try decode(String(decoding: try Posix.readFile(file), as: UTF8.self), file)
    }

    /// A small file beside the data, replaced as a whole; nil: there is none.
    package func file(_ name: String) throws(StorageError) -> [UInt8]? {
        let file = path + "/" + name
        return Posix.exists(file) ? try Posix.readFile(file) : nil
    }

    package func replaceFile(_ name: String, _ bytes: [UInt8]) throws(StorageError) {
        try Posix.replaceFile(path, name, bytes)
    }

    package func close() {
        if lock >= 0 { Glibc.close(lock) }
        lock = -1
    }

    /// Bytes that this user may still write on the file system.
    package func freeBytes() throws(StorageError) -> UInt64 { try Self.freeBytes(path) }

    package static func freeBytes(_ path: String) throws(StorageError) -> UInt64 {
        var status = statvfs()
        guard statvfs(path, &status) == 0 else { throw Posix.failure("cannot look at", path) }
        return UInt64(status.f_bavail) * UInt64(status.f_frsize)
    }

    private init(path: String, identity: NodeIdentity, lock: Int32) {
        self.path = path
        self.identity = identity
        self.lock = lock
    }
    deinit { close() }

    private static func takeLock(_ path: String) throws(StorageError) -> Int32 {
        let file = path + "/" + lockName
        let fd = try Posix.open(file, O_RDWR | O_CREAT)
        if flock(fd, LOCK_EX | LOCK_NB) != 0 {
            let code = errno
            let holder = String(decoding: (try? Posix.readFile(file)) ?? [], as: UTF8.self)
            Glibc.close(fd)
            guard code == EWOULDBLOCK else { throw Posix.failure("cannot lock", file, code) }
            let who = holder.split(separator: "\n").first.map { " (pid \($0))" } ?? ""
            throw .locked("data directory \(path) is used by another process\(who)")
        }
        ftruncate(fd, 0)
        do throws(StorageError) {
            try Posix.write(Array("\(getpid())\n".utf8), to: fd, at: 0, path: file)
        } catch {
            Glibc.close(fd)
            throw error
        }
        return fd
    }

    private static func check(
        _ found: NodeIdentity, _ wanted: NodeIdentity, _ path: String
    ) throws(StorageError) {
        func refuse(_ what: String, _ found: String, _ wanted: String) throws(StorageError) {
            if found == wanted { return }
            throw .foreign("\(path) belongs to \(what) \(found), not to \(what) \(wanted)")
        }
        try refuse("cluster", hex(found.cluster), hex(wanted.cluster))
        try refuse(
            "region", "\(found.regionName) (\(found.region))", "\(wanted.regionName) (\(wanted.region))")
        try refuse("node", "\(found.node.seat)", "\(wanted.node.seat)")
        guard found.isNew || found.node == wanted.node else {
            throw .foreign("\(path) belongs to another incarnation of node \(wanted.node.seat)")
        }
    }

    private static func hex(_ number: UInt64) -> String {
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    static func encode(_ identity: NodeIdentity) -> [UInt8] {
        let founders = identity.founders.map { "\($0.seat):\(hex($0.token))" }
        let lines = """
            polder-data-directory \(formatVersion)
            cluster \(hex(identity.cluster))
            region-id \(identity.region)
            region \(identity.regionName)
            node \(identity.node)
            state \(identity.isNew ? "new" : "member")
            token \(hex(identity.token))
            founders \(founders.isEmpty ? "-" : founders.joined(separator: " "))

            """
        return Array(lines.utf8)
    }

    static func decode(_ text: String, _ file: String) throws(StorageError) -> NodeIdentity {
        let lines = text.split(separator: "\n").map {
            $0.split(separator: " ", maxSplits: 1).map(String.init)
        }
        func value(_ line: Int, _ name: String) throws(StorageError) -> String {
            guard line < lines.count, lines[line].count == 2, lines[line][0] == name else {
                throw .damaged(file: file, offset: 0, reason: "no line '\(name)'")
            }
            return lines[line][1]
        }
        guard let version = Int(try value(0, "polder-data-directory")) else {
            throw .damaged(file: file, offset: 0, reason: "no format version")
        }
        guard version <= formatVersion else {
            throw .newer("\(file) has format \(version); this build knows \(formatVersion)")
        }
        guard let cluster = UInt64(try value(1, "cluster"), radix: 16),
            let region = UInt16(try value(2, "region-id")), let node = UInt16(try value(4, "node"))
        else { throw .damaged(file: file, offset: 0, reason: "not a number where one belongs") }
        var identity = NodeIdentity(
            cluster: cluster, region: RegionID(region), regionName: try value(3, "region"),
            node: NodeID(node))
        guard version >= 2 else { return identity }
        identity.isNew = try value(5, "state") == "new"
        identity.token = UInt64(try value(6, "token"), radix: 16) ?? 0
        for pair in try value(7, "founders").split(separator: " ") where pair != "-" {
            let sides = pair.split(separator: ":")
            guard sides.count == 2, let seat = UInt16(sides[0]),
                let token = UInt64(sides[1], radix: 16)
            else { throw .damaged(file: file, offset: 0, reason: "founders: \(pair)") }
            identity.founders.append(.init(seat: NodeID(seat), token: token))
        }
        return identity
    }
}
