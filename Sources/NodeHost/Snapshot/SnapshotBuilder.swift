import BoltFile
import EtcdFacade
import EtcdSnapshot
import Glibc
import Partitioning
import Primitives
import Storage

/// Makes etcd's database file of one moment of the store, on whichever thread calls it. Takes memory
/// for the sorter and a few pages, and on the disk a nameless file for what does not fit, and the result.
final class SnapshotBuilder: @unchecked Sendable {
    // Unchecked: made on the loop, then used by one thread at a time.

    struct Content {
        var revision: Revision
        var members: [EtcdState.Member]
        var auth: EtcdState.Auth
        var groups: [GroupID]
    }

    /// Written between two looks at the disk.
    private static let bytesBetweenLooks: UInt64 = 16 << 20

    /// Nil: rows are gathered from several nodes (`add`): what is visible at the revision, nothing of before.
    private let history: HistoryExport?
    private let content: Content
    private let sorter: RevisionSorter
    private var ending: Set<LeaseID> = []
    private var brought: UInt32 = 0
    private var ttls: [LeaseID: Int64] = [:]
    private let directory: String
    /// The disk keeps so much free for the node itself.
    private let reserveBytes: UInt64
    private let isWanted: @Sendable () -> Bool
    private var lookAtBytes: UInt64 = 0

    init(
        history: HistoryExport?, content: Content, directory: String, reserveBytes: UInt64,
        isWanted: @escaping @Sendable () -> Bool
    ) {
        sorter = RevisionSorter { () throws(BoltError) in try Self.temporaryFile(in: directory) }
        self.history = history
        self.content = content
        self.directory = directory
        self.reserveBytes = reserveBytes
        self.isWanted = isWanted
    }

    /// The descriptor is the caller's to close; the file has no name and goes with it.
    func build() throws(SnapshotFailure) -> (descriptor: Int32, bytes: UInt64) {
        defer { history?.close() }
        return try checked { try write() }
    }

    /// Rows that are visible at the content's revision, each key's once; before `build`.
    func add(_ rows: [Row]) throws(SnapshotFailure) {
        try checked {
            for row in rows {
                if row.lease != .none { ending.insert(row.lease) }
                // In which order a revision has changed its keys is of before the snapshot.
                brought &+= 1
                try sorter.add(revision: row.modRevision.rawValue, sub: Int64(brought), Self.payload(row))
                try look(sorter.temporaryBytes)
            }
        }
    }

    /// The leases of all homes; before `build`.
    func add(leases: [LeaseID: Int64]) { ttls.merge(leases) { max($0, $1) } }

    private func checked<T>(_ body: () throws -> T) throws(SnapshotFailure) -> T {
        do {
            return try body()
        } catch let failure as SnapshotFailure {
            throw failure
        } catch let error as BoltError {
            if case .noSpace(let text) = error { throw .noSpace(text) }
            throw .failed("\(error)")
        } catch {
            throw .failed("\(error)")
        }
    }

    private func write() throws -> (descriptor: Int32, bytes: UInt64) {
        var state = EtcdState()
        state.revision = content.revision.rawValue
        state.compactRevision = (history?.compacted ?? content.revision).rawValue
        state.members = content.members
        state.auth = content.auth
        while let entry = try history?.next() {
            let row = entry.row
            if entry.isNewest, entry.isChanging, row.lease != .none { ending.insert(row.lease) }
            try sorter.add(
                revision: row.modRevision.rawValue, sub: Int64(row.sub), Self.payload(row))
            try look(sorter.temporaryBytes)
        }
        state.leases = try leases(ending)
        // The store need not keep this moment any longer.
        history?.close()

        let descriptor = try Self.temporaryFile(in: directory)
        do {
            let bolt = BoltWriter(descriptor: descriptor)
            var writer = try EtcdBackendWriter(bolt, auth: state.auth)
            var place: (revision: Int64, sub: Int64) = (0, -1)
            while let record = try sorter.next() {
                place = (record.revision, history == nil && place.revision == record.revision ? place.sub + 1 : 0)
                try writer.put(
                    revision: record.revision, sub: history == nil ? place.sub : record.sub,
                    isDeletion: record.payload[0] == 1, message: record.payload[1..<record.payload.count])
                try look(sorter.temporaryBytes + bolt.bytesSoFar)
            }
            return (descriptor, try writer.finish(state))
        } catch {
            close(descriptor)
            throw error
        }
    }

    private static func payload(_ row: Row) -> [UInt8] {
        let version = EtcdVersion(
            revision: row.modRevision.rawValue, sub: Int64(row.sub), isDeletion: row.isDeletion,
            key: row.key, value: row.value, createRevision: row.createRevision.rawValue,
            version: row.version, lease: row.lease.rawValue)
        return [row.isDeletion ? 1 : 0] + version.encoded()
    }

    /// The leases of this moment. One whose end is above `revision` has no record any more, but still has
    /// keys: it gets a second, so that they end in the copy too.
    private func leases(_ ending: Set<LeaseID>) throws -> [EtcdState.Lease] {
        var found = ttls
        for group in content.groups {
            for record in try history?.records(of: group, startingWith: PartitionState.leaseLetter) ?? [] {
                let lease = try PartitionState.lease(key: record.key, value: record.value)
                found[lease.id] = lease.ttlSeconds
            }
        }
        for lease in ending where found[lease] == nil { found[lease] = 1 }
        return found.map { .init(id: $0.key.rawValue, ttlSeconds: max(1, $0.value)) }
    }

    /// After every row, since one may be large.
    private func look(_ bytes: UInt64) throws(SnapshotFailure) {
        guard isWanted() else { throw .failed("nobody wants it any more") }
        guard bytes >= lookAtBytes else { return }
        lookAtBytes = bytes + Self.bytesBetweenLooks
        var status = statvfs()
        guard statvfs(directory, &status) == 0 else { return }
        let free = UInt64(status.f_bavail) * UInt64(status.f_frsize)
        guard free > reserveBytes + Self.bytesBetweenLooks else {
            throw .noSpace("a snapshot needs more space on the disk than the \(free >> 20) MiB left")
        }
    }

    private static func temporaryFile(in directory: String) throws(BoltError) -> Int32 {
        var name = Array("\(directory)/snapshot-XXXXXX".utf8CString)
        let descriptor = mkstemp(&name)
        guard descriptor >= 0 else {
            throw .io("cannot create a file in \(directory): \(String(cString: strerror(errno)))")
        }
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        unlink(name)
        return descriptor
    }
}
