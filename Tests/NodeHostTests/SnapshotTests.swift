import BoltFile
import EtcdFacade
import EtcdSnapshot
import Glibc
import Node
import Partitioning
import Primitives
import Storage
import TLS
import Testing

@testable import NodeHost

/// A directory of its own under /tmp.
private final class Folder {
    let path: String
    init() {
        var name = Array("/tmp/polder-snapshot-XXXXXX".utf8CString)
        path = mkdtemp(&name).map { String(cString: $0) } ?? "/tmp"
    }
    deinit { try? Files.removeTree(path) }
}

@Suite struct SnapshotTests {
    private let folder = Folder()
    private static let lease: Int64 = 77

    private static func version(
        _ revision: Int64, _ key: Bytes, _ value: Bytes, create: Int64, _ version: Int64, lease: Int64 = 0,
        sub: Int64 = 0
    ) -> EtcdVersion {
        EtcdVersion(
            revision: revision, sub: sub, isDeletion: false, key: key, value: value,
            createRevision: create, version: version, lease: lease)
    }

    /// As etcd would have written it, with its digest.
    private func writeFile(compacted: Int64 = 4) throws -> String {
        let path = folder.path + "/etcd.db"
        let descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC, 0o600)
        defer { close(descriptor) }
        var state = EtcdState()
        state.revision = 9
        state.compactRevision = compacted
        state.leases = [.init(id: Self.lease, ttlSeconds: 600), .init(id: 5, ttlSeconds: 60)]
        var writer = try EtcdBackendWriter(BoltWriter(descriptor: descriptor), auth: .init())
        let versions = [
            // A compaction that etcd had not finished: the first must go.
            Self.version(2, "a", "1", create: 2, 1), Self.version(3, "a", "2", create: 2, 2),
            Self.version(5, "a", "3", create: 2, 3), Self.version(6, "x", "leased", create: 6, 1, lease: Self.lease),
            Self.version(7, "b", "4", create: 7, 1), Self.version(7, "c", "5", create: 7, 1, sub: 1),
            EtcdVersion(revision: 8, sub: 0, isDeletion: true, key: "b"),
            Self.version(9, "orphan", "", create: 9, 1, lease: 1234),
        ]
        for version in versions {
            try writer.put(
                revision: version.revision, sub: version.sub, isDeletion: version.isDeletion,
                message: Bytes(version.encoded()))
        }
        let bytes = try writer.finish(state)
        let digest = SHA256Digest()
        var content = [UInt8](repeating: 0, count: Int(bytes))
        #expect(pread(descriptor, &content, content.count, 0) == content.count)
        digest.update(content)
        let trailer = digest.finish()
        #expect(pwrite(descriptor, trailer, trailer.count, off_t(bytes)) == trailer.count)
        return path
    }

    private func configuration(_ name: String) -> HostConfiguration {
        var configuration = HostConfiguration()
        configuration.clusterID = 0xC1
        configuration.partitions = 4
        configuration.dataDirectory = folder.path + "/" + name
        configuration.members = [
            .init(id: NodeID(1), name: "n1", peer: NetworkAddress(host: "a", port: 1), clientURLs: [])
        ]
        return configuration
    }

    @Test func `an imported store holds etcd's versions, and partitions begin at its revision`() throws {
        let file = try SnapshotFile(try writeFile())
        #expect(file.integrity == .whole)
        let configuration = configuration("n1")
        let report = try SnapshotImport(file, .init(), configuration: configuration).run()
        #expect(report.revision == 9 && report.compactRevision == 4)
        #expect(report.versions == 8 && report.leases == 2 && report.keysWithoutLease == 1)

        let store = try Store.open(configuration.dataDirectory + "/store")
        defer { store.close() }
        #expect(store.floor(of: .standard) == Revision(4))
        let rows = try store.range(RangeQuery(range: .everything), at: Revision(9), in: .standard).rows
        #expect(rows.map(\.key) == ["a", "c", "orphan", "x"])
        let a = try #require(rows.first)
        #expect(a.value == "3" && a.createRevision == Revision(2) && a.modRevision == Revision(5))
        #expect(a.version == 3)
        #expect(try store.row("a", at: Revision(4), in: .standard)?.value == "2")
        let changes = try store.changes(
            after: Revision(4), through: Revision(9), in: .standard, maxRows: 100
        ).changes
        #expect(changes.map(\.revision.rawValue) == [5, 6, 7, 8, 9])
        #expect(changes[2].rows.map(\.key) == ["b", "c"])

        let map = PartitionMap(equalPartitions: 4)
        let lease = LeaseID(Self.lease)
        for number in 0...4 {
            let group = GroupID(keyspace: .standard, partition: PartitionID(UInt32(number)))
            let state = try PartitionState(group: group, records: try store.records(of: group))
            #expect(state.heardFrontier == Revision(9) && state.highestRevision == Revision(9))
            #expect(state.applied == ImportedState.slot && store.appliedSlot(of: group) == state.applied)
            #expect(state.compactRevision == Revision(4))
            let isHome = map.home(of: lease) == group.partition
            let holdsKey = number > 0 && map.partition(of: "x") == group.partition
            #expect(state.leases[lease]?.ttlSeconds == (isHome ? 600 : nil))
            #expect(state.leaseOfKey["x"]?.lease == (holdsKey ? lease : nil))
            #expect(state.knownLeases.contains(lease) == (holdsKey && !isHome))
            #expect(state.leaseOfKey["orphan"] == nil)
        }
    }

    @Test func `two imports of one file are alike, and a bump lifts everything`() throws {
        let file = try SnapshotFile(try writeFile())
        var hashes: [UInt32] = []
        for name in ["n1", "n2"] {
            let configuration = configuration(name)
            _ = try SnapshotImport(file, .init(), configuration: configuration).run()
            let store = try Store.open(configuration.dataDirectory + "/store")
            hashes.append(try store.hash(at: Revision(9), compacted: Revision(4), in: .standard))
            store.close()
        }
        #expect(hashes[0] == hashes[1])

        var options = SnapshotImport.Options()
        options.bumpRevision = 1000
        options.markCompacted = true
        let configuration = configuration("n3")
        let report = try SnapshotImport(file, options, configuration: configuration).run()
        #expect(report.revision == 1009 && report.compactRevision == 1009)
        let store = try Store.open(configuration.dataDirectory + "/store")
        defer { store.close() }
        #expect(store.floor(of: .standard) == Revision(1009))
        #expect(try store.row("a", at: Revision(1009), in: .standard)?.modRevision == Revision(5))
        #expect(throws: RequestError.compacted) { try store.row("a", at: Revision(9), in: .standard) }
        options.bumpRevision = -1
        #expect(throws: HostFailure.self) {
            _ = try SnapshotImport(file, options, configuration: self.configuration("n4")).run()
        }
    }

    @Test func `a used directory, a damaged file and a short one are refused`() throws {
        let path = try writeFile()
        let file = try SnapshotFile(path)
        _ = try SnapshotImport(file, .init(), configuration: configuration("n1")).run()
        #expect(throws: HostFailure.self) {
            _ = try SnapshotImport(file, .init(), configuration: self.configuration("n1")).run()
        }
        let descriptor = open(path, O_RDWR)
        defer { close(descriptor) }
        #expect(pwrite(descriptor, [UInt8(1)], 1, 9000) == 1)
        #expect(throws: HostFailure.self) { _ = try SnapshotFile(path) }
        ftruncate(descriptor, 10_000)
        #expect(throws: HostFailure.self) { _ = try SnapshotFile(path, checksDigest: false) }
        #expect(throws: HostFailure.self) { _ = try SnapshotFile(folder.path) }
    }

    @Test func `a store is written as a file that imports to the same`() throws {
        let configuration = configuration("n1")
        let file = try SnapshotFile(try writeFile())
        _ = try SnapshotImport(file, .init(), configuration: configuration).run()
        let store = try Store.open(configuration.dataDirectory + "/store")
        defer { store.close() }
        let groups = (1...4).map {
            GroupID(keyspace: .standard, partition: PartitionID(UInt32($0)))
        }
        let builder = SnapshotBuilder(
            history: store.history(of: .standard, after: Revision(4), through: Revision(9)),
            content: .init(revision: Revision(9), members: [], auth: .init(), groups: groups),
            directory: folder.path, reserveBytes: 0, isWanted: { true })
        let (descriptor, bytes) = try builder.build()
        defer { close(descriptor) }
        #expect(bytes % 4096 == 0)
        let reader = try EtcdBackendReader(BoltReader(descriptor: descriptor))
        let state = try reader.state()
        #expect(state.compactRevision == 4)
        #expect(state.leases.map(\.id) == [5, Self.lease])
        #expect(state.leases.map(\.ttlSeconds) == [60, 600])
        var found: [String] = []
        let versions = try reader.versions()
        while let version = try versions.next() {
            found.append("\(version.revision).\(version.sub) \(version.key)\(version.isDeletion ? " gone" : "")")
        }
        #expect(
            found == ["3.0 a", "5.0 a", "6.0 x", "7.0 b", "7.1 c", "8.0 b gone", "9.0 orphan"])
    }

    @Test func `a snapshot that would fill the disk, or that nobody wants, is given up`() throws {
        let configuration = configuration("n1")
        let file = try SnapshotFile(try writeFile())
        _ = try SnapshotImport(file, .init(), configuration: configuration).run()
        let store = try Store.open(configuration.dataDirectory + "/store")
        defer { store.close() }
        func build(reserve: UInt64, wanted: Bool) -> SnapshotFailure? {
            let builder = SnapshotBuilder(
                history: store.history(of: .standard, after: .zero, through: Revision(9)),
                content: .init(revision: Revision(9), members: [], auth: .init(), groups: []),
                directory: folder.path, reserveBytes: reserve, isWanted: { wanted })
            do throws(SnapshotFailure) {
                close(try builder.build().descriptor)
                return nil
            } catch {
                return error
            }
        }
        #expect(build(reserve: 0, wanted: true) == nil)
        #expect(build(reserve: 0, wanted: false) == .failed("nobody wants it any more"))
        guard case .noSpace = build(reserve: .max / 2, wanted: true) else {
            Issue.record("the disk's reserve was not kept")
            return
        }
        #expect(Files.entries(of: folder.path) == ["etcd.db", "n1"])
    }

    @Test func `users and roles come along, enabled only with a secret`() throws {
        let path = folder.path + "/auth.db"
        let descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC, 0o600)
        var commands: [AuthCommand] = [
            .roleAdd("root"), .roleAdd("reader"),
            .roleGrantPermission("reader", Permission(.read, KeyRange(key: "a", end: "b"))),
            .userAdd("root", hash: "$2a$hash"), .userGrantRole("root", role: "root"),
            .userAdd("eve", hash: nil), .userGrantRole("eve", role: "reader"),
        ]
        commands.append(.enable(secret: "x"))
        var auth = AuthState(), changed: [AuthState.Change] = []
        for command in commands { try auth.apply(command, by: nil, changed: &changed) }
        let writer = try EtcdBackendWriter(
            BoltWriter(descriptor: descriptor), auth: EtcdAuth.file(auth))
        _ = try writer.finish(EtcdState())
        close(descriptor)
        let file = try SnapshotFile(path)
        let configuration = configuration("n1")
        #expect(throws: HostFailure.self) {
            _ = try SnapshotImport(file, .init(), configuration: configuration).run()
        }
        var options = SnapshotImport.Options()
        options.authSecret = Bytes([UInt8](repeating: 7, count: 32))
        let report = try SnapshotImport(file, options, configuration: configuration).run()
        #expect(report.users == 2 && report.roles == 2 && report.isAuthEnabled)
        let store = try Store.open(configuration.dataDirectory + "/store")
        defer { store.close() }
        let group = GroupID(keyspace: .standard, partition: .directory)
        let state = try PartitionState(group: group, records: try store.records(of: group)).auth
        #expect(state.isEnabled && state.secret == options.authSecret)
        #expect(state.users.keys.sorted() == ["eve", "root"] && state.users["root"]?.isRoot == true)
        #expect(state.roles["reader"] == auth.roles["reader"])

        options.leavesAuth = true
        let without = self.configuration("n2")
        let second = try SnapshotImport(file, options, configuration: without).run()
        #expect(second.users == 0 && !second.isAuthEnabled)
    }
}
