import BoltFile
import Foundation
import Glibc
import Primitives
import Testing

@testable import EtcdSnapshot

private func scratch() -> Int32 {
    var name = Array("/tmp/polder-snapshot-XXXXXX".utf8CString)
    let descriptor = mkstemp(&name)
    unlink(name)
    return descriptor
}

private func golden(_ name: String) throws -> (descriptor: Int32, bytes: Int) {
    let url = try #require(Bundle.module.url(forResource: "Golden/\(name)", withExtension: "snapshot"))
    let descriptor = open(url.path, O_RDONLY)
    #expect(descriptor >= 0)
    var status = stat()
    fstat(descriptor, &status)
    return (descriptor, Int(status.st_size))
}

private func versions(_ reader: EtcdBackendReader) throws -> [EtcdVersion] {
    var all: [EtcdVersion] = []
    let cursor = try reader.versions()
    while let version = try cursor.next() { all.append(version) }
    return all
}

@Suite struct EtcdSnapshotTests {
    /// Made with etcdctl 3.4.23 and 3.5.1; hashes, revisions and counts are what their
    /// `snapshot status` says.
    @Test(arguments: [("etcd-3.4", UInt32(1_448_300_496), Int64(23), UInt64(24_576)), ("etcd-3.5", 3_086_009_887, 25, 20_480)])
    func `real etcd's files are read as etcdctl reads them`(
        name: String, hash: UInt32, keys: Int64, size: UInt64
    ) throws {
        let (descriptor, bytes) = try golden(name)
        defer { close(descriptor) }
        let bolt = try BoltReader(descriptor: descriptor, limit: UInt64(bytes - 32))
        let reader = try EtcdBackendReader(bolt)
        #expect(
            try reader.summary()
                == EtcdBackendReader.Summary(hash: hash, revision: 15, keys: keys, bytes: size))
        let state = try reader.state()
        #expect(state.compactRevision == 9)
        #expect(state.leases.map(\.ttlSeconds).sorted() == [600, 3000])
        #expect(state.auth.users.map { "\($0.name)" } == ["root"])
        #expect(state.auth.roles.map { "\($0.name)" } == ["root"])
        #expect(!state.auth.isEnabled)
        let all = try versions(reader)
        #expect(all.last?.revision == 15 && all.last?.isDeletion == true && all.last?.key == "a/3")
        let third = try #require(all.last { $0.key == "a/1" })
        #expect(third.value == "third" && third.version == 3 && third.createRevision == 2)
        #expect(third.revision == 10)
        let leased = all.filter { $0.lease != 0 }
        #expect(leased.map { "\($0.key)" } == ["leased/x", "leased/y"])
        #expect(Set(leased.map(\.lease)).isSubset(of: state.leases.map(\.id)))
    }

    @Test func `what is written is read back`() throws {
        let file = scratch()
        defer { close(file) }
        var state = EtcdState()
        state.revision = 500
        state.compactRevision = 7
        state.leases = [.init(id: 77, ttlSeconds: 60), .init(id: 5, ttlSeconds: 10, remainingSeconds: 3)]
        state.members = [.init(id: 0xABC, name: "n\"1\u{1}", peerURLs: ["http://a:1"], clientURLs: [])]
        state.auth.users = [("alice", "x")]
        var all: [EtcdVersion] = []
        for i in 1...400 {
            let revision = Int64(i + 1)
            all.append(
                EtcdVersion(
                    revision: revision, sub: 0, isDeletion: i % 7 == 0, key: Bytes("key/\(i % 50)"),
                    value: i % 7 == 0 ? .empty : Bytes("value \(i)"),
                    createRevision: i % 7 == 0 ? 0 : 2, version: i % 7 == 0 ? 0 : Int64(i),
                    lease: i % 5 == 0 && i % 7 != 0 ? 77 : 0))
        }
        var writer = try EtcdBackendWriter(BoltWriter(descriptor: file), auth: state.auth)
        for version in all {
            try writer.put(
                revision: version.revision, sub: version.sub, isDeletion: version.isDeletion,
                message: Bytes(version.encoded()))
        }
        _ = try writer.finish(state)

        let reader = try EtcdBackendReader(try BoltReader(descriptor: file))
        let found = try versions(reader)
        #expect(Array(found.dropLast()) == all)
        // Revisions 402 to 500 changed no key.
        #expect(found.last?.revision == 500 && found.last?.key == .empty)
        let back = try reader.state()
        #expect(back.compactRevision == 7)
        #expect(back.leases == state.leases.sorted { $0.id < $1.id })
        #expect(back.auth == state.auth)
        #expect(try reader.summary().revision == 500)
    }

    @Test func `versions that contradict themselves are refused`() throws {
        let right = EtcdVersion(
            revision: 5, sub: 0, isDeletion: false, key: "k", value: "v", createRevision: 5, version: 1)
        var wrong: [(Int64, Bytes)] = [(6, Bytes(right.encoded())), (5, Bytes([0xFF])), (5, Bytes([0x0A, 0x7F]))]
        for change in [{ $0.createRevision = 6 }, { $0.version = 0 }, { $0.createRevision = 0 }]
            as [(inout EtcdVersion) -> Void]
        {
            var version = right
            change(&version)
            wrong.append((5, Bytes(version.encoded())))
        }
        for (revision, message) in wrong {
            let file = scratch()
            defer { close(file) }
            var writer = try EtcdBackendWriter(BoltWriter(descriptor: file), auth: .init())
            try writer.put(revision: revision, sub: 0, isDeletion: false, message: message)
            _ = try writer.finish(EtcdState())
            let reader = try EtcdBackendReader(try BoltReader(descriptor: file))
            #expect(throws: BoltError.self) { _ = try versions(reader) }
        }
    }

    @Test func `whatever bytes change in a file of etcd's, reading ends`() throws {
        let (original, bytes) = try golden("etcd-3.5")
        defer { close(original) }
        var whole = [UInt8](repeating: 0, count: bytes)
        #expect(pread(original, &whole, bytes, 0) == bytes)
        let file = scratch()
        defer { close(file) }
        var luck = SplitMix(seed: 17), refused = 0
        for _ in 0..<300 {
            var damaged = whole
            for _ in 0...Int(luck.next() % 3) {
                damaged[Int(luck.next() % UInt64(bytes))] = UInt8(truncatingIfNeeded: luck.next())
            }
            #expect(pwrite(file, damaged, bytes, 0) == bytes)
            do {
                let reader = try EtcdBackendReader(BoltReader(descriptor: file, limit: UInt64(bytes - 32)))
                _ = try reader.state()
                #expect(try versions(reader).count < 100)
                _ = try reader.summary()
            } catch is BoltError {
                refused += 1
            }
        }
        #expect(refused > 3)
    }

    @Test(arguments: [1 << 20, 2000]) func `the sorter gives revisions in order, in memory or in runs`(
        bytesMax: Int
    ) throws {
        var files = 0
        let sorter = RevisionSorter(bytesMax: bytesMax) {
            files += 1
            return scratch()
        }
        var luck = SplitMix(seed: 3)
        var wanted: [(Int64, Int64, Bytes)] = []
        for revision in 1...1000 {
            for sub in 0...Int64(luck.next() % 3) {
                let length = luck.next() % 100 == 0 ? 200_000 : Int(luck.next() % 40)
                wanted.append((Int64(revision), sub, Bytes([UInt8](repeating: UInt8(revision % 256), count: length))))
            }
        }
        var mixed = wanted
        for i in mixed.indices.dropFirst().reversed() { mixed.swapAt(i, Int(luck.next() % UInt64(i + 1))) }
        for (revision, sub, payload) in mixed { try sorter.add(revision: revision, sub: sub, payload.array) }
        var index = 0
        while let record = try sorter.next() {
            #expect(record.revision == wanted[index].0 && record.sub == wanted[index].1)
            #expect(record.payload == wanted[index].2)
            index += 1
        }
        #expect(index == wanted.count)
        #expect(files == (bytesMax < 10_000 ? 1 : 0) || sorter.temporaryBytes > 0)
    }
}
