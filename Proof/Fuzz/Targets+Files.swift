import BoltFile
import EtcdSnapshot
import Foundation
import Glibc
import NodeHost
import Primitives
import Simulator
import Storage

extension FuzzTarget {
    // MARK: Configuration

    /// What is accepted can be written down and read again as the same.
    nonisolated(unsafe) static let config = FuzzTarget(
        name: "config", what: "Polder's configuration file", grammar: .text, bytesMax: 16 << 10
    ) {
        Prepared(samples: ConfigSamples.host.map { Array($0.utf8) }) { input in
            let text = String(decoding: input, as: UTF8.self)
            let read = try HostConfiguration(yaml: text, file: "f")
            let again: HostConfiguration
            do {
                again = try HostConfiguration(yaml: read.yaml, file: "g")
            } catch {
                throw Finding("what it writes is refused: \(error)")
            }
            guard again == read else { throw Finding("\(read) became \(again)") }
        }
    }

    nonisolated(unsafe) static let etcdConfig = FuzzTarget(
        name: "etcd-config", what: "etcd's configuration file", grammar: .text, bytesMax: 16 << 10
    ) {
        Prepared(samples: ConfigSamples.etcd.map { Array($0.utf8) }) { input in
            let text = String(decoding: input, as: UTF8.self)
            let arguments = try EtcdArguments(["--config-file=f"], environment: [:]) {
                _ throws(ConfigurationError) in text
            }
            _ = try EtcdPlan(arguments)
        }
    }

    /// A line each: `NAME=value` is the environment, everything else an argument.
    nonisolated(unsafe) static let etcdFlags = FuzzTarget(
        name: "etcd-flags", what: "etcd's flags and environment", grammar: .text, bytesMax: 16 << 10
    ) {
        Prepared(samples: ConfigSamples.flags.map { Array($0.utf8) }) { input in
            var environment: [String: String] = [:]
            var arguments: [String] = []
            for line in String(decoding: input, as: UTF8.self).split(separator: "\n").prefix(200) {
                if line.hasPrefix("ETCD_"), let equals = line.firstIndex(of: "=") {
                    environment[String(line[..<equals])] = String(line[line.index(after: equals)...])
                } else {
                    arguments.append(String(line))
                }
            }
            let read = try EtcdArguments(arguments, environment: environment) {
                name throws(ConfigurationError) in
                throw ConfigurationError(file: name, line: nil, path: "", message: "no such file")
            }
            _ = try EtcdPlan(read)
        }
    }

    nonisolated(unsafe) static let etcdMembers = FuzzTarget(
        name: "etcd-members", what: "the data directory's list of members", grammar: .text,
        bytesMax: 16 << 10
    ) {
        Prepared(samples: ConfigSamples.members.map { Array($0.utf8) }) { input in
            _ = try EtcdMembers(yaml: String(decoding: input, as: UTF8.self), file: "f")
        }
    }

    // MARK: Snapshots of etcd

    nonisolated(unsafe) static let snapshotFile = FuzzTarget(
        name: "snapshot-file", what: "etcd's database files", bytesMax: 256 << 10,
        repair: repairMeta
    ) {
        let folder = try Scratch()
        let path = folder + "/db"
        return Prepared(samples: try boltSamples(folder)) { input in
            try folder.write("db", input)
            let file = try SnapshotFile(path, checksDigest: false)
            let versions = try file.reader.versions()
            var rows = 0
            while let version = try versions.next() {
                rows += 1
                _ = version.encoded()
                guard rows < 1 << 20 else { throw Finding("\(rows) versions in \(input.count) bytes") }
            }
            _ = try file.reader.summary()
            let state = try file.reader.state()
            _ = try EtcdAuth.state(of: state.auth, secret: "secret")
        }
    }

    /// Both metas' checksums; the size is made whole pages.
    private static func repairMeta(_ input: [UInt8]) -> [UInt8] {
        var bytes = input
        while bytes.count % 512 != 0 { bytes.append(0) }
        for size in [0, 4096] where bytes.count >= size + 80 {
            var hash: UInt64 = 0xCBF2_9CE4_8422_2325
            for byte in bytes[(size + 16)..<(size + 72)] {
                hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3
            }
            withUnsafeBytes(of: hash.littleEndian) { raw in
                for i in 0..<8 { bytes[size + 72 + i] = raw[i] }
            }
        }
        return bytes
    }

    private static func boltSamples(_ folder: Scratch) throws -> [[UInt8]] {
        var samples: [[UInt8]] = []
        for rows in [1, 40] {
            let path = folder + "/sample"
            let descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC, 0o600)
            defer { close(descriptor) }
            var auth = EtcdState.Auth()
            auth.users = [("ann", Bytes([10, 3, 97, 110, 110, 18, 1, 35, 26, 1, 114]))]
            auth.roles = [("r", Bytes([10, 1, 114, 18, 7, 8, 2, 18, 1, 97, 26, 0]))]
            var writer = try EtcdBackendWriter(BoltWriter(descriptor: descriptor), auth: auth)
            for i in 0..<rows {
                let version = EtcdVersion(
                    revision: Int64(i + 2), sub: 0, isDeletion: i % 5 == 4, key: Bytes("k\(i % 7)"),
                    value: Bytes("value \(i)"), createRevision: Int64(i + 2), version: 1,
                    lease: i % 3 == 0 ? 7 : 0)
                try writer.put(
                    revision: version.revision, sub: 0, isDeletion: version.isDeletion,
                    message: Bytes(version.encoded()))
            }
            var state = EtcdState()
            state.revision = Int64(rows + 1)
            state.leases = [.init(id: 7, ttlSeconds: 60)]
            state.members = [.init(id: 1, name: "m", peerURLs: ["http://a:1"], clientURLs: ["http://a:2"])]
            _ = try writer.finish(state)
            samples.append(try folder.read("sample"))
        }
        // Made by etcd itself; beside the sources, where there are sources.
        for name in ["etcd-3.4", "etcd-3.5"] {
            let path = "Tests/EtcdSnapshotTests/Golden/\(name).snapshot"
            if let data = FileManager.default.contents(atPath: path) {
                samples.append(Array(data))
            }
        }
        return samples
    }

    // MARK: Storage

    private static let identity = NodeIdentity(
        cluster: 0xC1, region: RegionID(1), regionName: "r1", node: NodeID(1))

    /// One segment of a write-ahead log.
    nonisolated(unsafe) static let logSegment = FuzzTarget(
        name: "log-segment", what: "segments of the write-ahead log", repair: repairSegment
    ) {
        let folder = try Scratch()
        let name = String(repeating: "0", count: 15) + "1.wal"
        return Prepared(samples: try segmentSamples(folder)) { input in
            try folder.write(name, input)
            _ = try LogRecovery.read(folder.path, [1], identity: identity).restored
        }
    }

    private static func segmentSamples(_ folder: Scratch) throws -> [[UInt8]] {
        let records = ParserFuzzer(seed: 1).samples(of: .logRecord)
        var samples: [[UInt8]] = []
        for count in [3, 40, 400] {
            let path = folder + "/wal-\(count)"
            var options = WriteAheadLog.Options()
            options.segmentBytes = 1 << 20
            let handlers = WriteAheadLog.Handlers(onDurable: { _ in }, onFailure: { _ in })
            let (log, _) = try WriteAheadLog.open(
                directory: path, identity: identity, options: options, handlers: handlers)
            var ticket: UInt64 = 0
            for start in stride(from: 0, to: min(count, records.count), by: 7) {
                ticket += 1
                let some = records[start..<min(start + 7, records.count)].compactMap { bytes in
                    var reader = ByteReader(bytes)
                    return try? reader.logRecord()
                }
                log.append(some, ticket: Ticket(ticket))
            }
            log.close()
            let files = try FileManager.default.contentsOfDirectory(atPath: path).sorted()
            guard let segment = files.first(where: { $0.hasSuffix("1.wal") }) else {
                throw Finding("no segment in \(files)")
            }
            var bytes = try folder.read("wal-\(count)/\(segment)")
            while bytes.count > 64, bytes.last == 0 { bytes.removeLast() }
            while bytes.count % 8 != 0 { bytes.append(0) }
            samples.append(Array(bytes.prefix(48 << 10)))
        }
        return samples
    }

    /// The header's checksum, and each batch's as far as their lengths lead.
    private static func repairSegment(_ input: [UInt8]) -> [UInt8] {
        var bytes = input
        guard bytes.count >= 64 else { return bytes }
        func set32(_ value: UInt32, _ at: Int) {
            for i in 0..<4 { bytes[at + i] = UInt8(truncatingIfNeeded: value >> UInt32(8 * i)) }
        }
        set32(0, 12)
        set32(CRC32C.checksum(Array(bytes[..<64])), 12)
        var at = 64
        while at + 32 <= bytes.count {
            let length = (0..<4).reduce(0) { $0 | Int(bytes[at + 8 + $1]) << (8 * $1) }
            let end = at + 32 + length
            guard end <= bytes.count else { break }
            // The segment's number, little-endian, then the place.
            var place = [UInt8](repeating: 0, count: 16)
            for i in 0..<8 {
                place[i] = bytes[16 + i]
                place[8 + i] = UInt8(truncatingIfNeeded: at >> (8 * i))
            }
            let seed = CRC32C.checksum(place)
            set32(bytes[(at + 8)..<end].withUnsafeBytes { CRC32C.checksum($0, seed: seed) }, at + 4)
            at = (end + 7) / 8 * 8
        }
        return bytes
    }

    /// A chunk of the snapshot that a node sends to another.
    nonisolated(unsafe) static let snapshotChunk = FuzzTarget(
        name: "snapshot-chunk", what: "chunks of a partition's snapshot",
        repair: { input in
            guard input.count >= 6 else { return input }
            var writer = ByteWriter()
            writer.raw(Array(input.dropLast(4)))
            return SnapshotFormat.finish(&writer).array
        }
    ) {
        let group = GroupID(keyspace: .standard, partition: PartitionID(1))
        let row = Row(
            key: "key", value: "value", createRevision: Revision(2), modRevision: Revision(3), version: 2,
            lease: LeaseID(7), sub: 1,
            origin: Origin(
                region: RegionID(1), revision: Revision(3), stamp: Stamp(ticks: 9, region: RegionID(1))))
        let parts: [[SnapshotFormat.Item]] = [
            [.head(group, applied: Slot(5), floor: Revision(1)), .record(key: "a", value: "b")],
            [.row(row), .row(row), .end], [.end],
        ]
        let samples = parts.map { items in
            var writer = ByteWriter()
            SnapshotFormat.begin(0, &writer)
            for item in items { SnapshotFormat.append(item, &writer) }
            return SnapshotFormat.finish(&writer).array
        }
        return Prepared(samples: samples) { input in
            let items = try SnapshotFormat.items(of: Bytes(input), number: 0)
            var writer = ByteWriter()
            SnapshotFormat.begin(0, &writer)
            for item in items { SnapshotFormat.append(item, &writer) }
            let again = try SnapshotFormat.items(of: SnapshotFormat.finish(&writer), number: 0)
            guard again == items else { throw Finding("\(items) became \(again)") }
        }
    }
}

enum ConfigSamples {
    static let host = [
        """
        region: {id: 1, name: r1}
        node: {id: 1, name: n1}
        dataDir: /var/lib/polder
        nodes:
          - {id: 1, name: n1, peer: "127.0.0.1:2380", client: ["http://127.0.0.1:2379"]}

        """,
        (try? String(contentsOfFile: "deploy/examples/node.yaml", encoding: .utf8)) ?? "",
        written,
    ].filter { !$0.isEmpty }

    /// Everything that can be said.
    private static var written: String {
        var all = HostConfiguration()
        all.clusterName = "c"
        all.clusterID = 7
        all.nodeName = "n1"
        all.dataDirectory = "/var/lib/polder"
        all.members = [
            .init(id: NodeID(1), name: "n1", peer: NetworkAddress(host: "10.0.0.1", port: 2380), clientURLs: ["https://10.0.0.1:2379"]),
            .init(id: NodeID(2), name: "n2", peer: NetworkAddress(host: "::1", port: 2380), clientURLs: []),
        ]
        all.remoteRegions = [
            .init(id: RegionID(2), name: "r2", nodes: [.init(id: NodeID(1), name: "m1", peer: NetworkAddress(host: "h.example", port: 1))])
        ]
        var tls = HostConfiguration.TLSFiles(
            ca: "/a", certificate: "/b", key: "/c", requiresClientCertificate: true)
        tls.revocations = "/d"
        tls.allowedCommonNames = ["x", "y"]
        tls.allowedHosts = ["h.example"]
        all.clientTLS = tls
        all.peerTLS = tls
        all.listeners = [.init(address: NetworkAddress(host: "0.0.0.0", port: 1), isSecure: false, servesOnlyMetrics: true)]
        all.access.origins = ["*"]
        all.access.hosts = ["a", "b"]
        all.quotaBytes = 1 << 30
        all.wanDelay = .milliseconds(80)
        all.faultInjection = true
        return all.yaml
    }

    static let etcd = [
        """
        name: 'm1'
        data-dir: /tmp/m1
        wal-dir:
        snapshot-count: 10000
        heartbeat-interval: 100
        election-timeout: 1000
        quota-backend-bytes: 0
        listen-peer-urls: http://localhost:2380
        listen-client-urls: http://localhost:2379,http://10.0.0.1:2379
        max-snapshots: 5
        cors: '*'
        initial-advertise-peer-urls: http://localhost:2380
        advertise-client-urls: http://localhost:2379
        initial-cluster: m1=http://localhost:2380
        initial-cluster-token: 'etcd-cluster'
        initial-cluster-state: 'new'
        strict-reconfig-check: false
        enable-pprof: true
        client-transport-security:
          cert-file: /c
          key-file: /k
          client-cert-auth: true
          trusted-ca-file: /ca
          auto-tls: false
          allowed-hostnames: [a, b]
        peer-transport-security:
          cert-file:
          client-cert-auth: false
          allowed-cn: x
        log-level: debug
        logger: zap
        log-outputs: [stderr]
        auto-compaction-mode: periodic
        auto-compaction-retention: "1h"
        auth-token: 'jwt,pub-key=/p,priv-key=/q,sign-method=RS256,ttl=10m'
        bcrypt-cost: 4
        tls-min-version: 'TLS1.2'
        cipher-suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]

        """, "name: a\n",
    ]

    static let flags = [
        """
        --name=m1
        --data-dir
        /tmp/m1
        --listen-client-urls=http://127.0.0.1:2379,unix://localhost:m1
        --advertise-client-urls
        http://127.0.0.1:2379
        --listen-peer-urls=https://10.0.0.1:2380
        --peer-cert-file=/p.crt
        --peer-trusted-ca-file=/ca.crt
        --peer-key-file
        /p.key
        --initial-advertise-peer-urls=https://10.0.0.1:2380
        --initial-cluster=m1=https://10.0.0.1:2380,m2=https://10.0.0.2:2380
        --initial-cluster-state=new
        -enable-grpc-gateway=false
        ETCD_INITIAL_CLUSTER_TOKEN=t
        ETCD_QUOTA_BACKEND_BYTES=1073741824
        ETCD_AUTO_COMPACTION_RETENTION=10m
        """,
        "--version", "--help", "ETCD_NAME=y\n--name=x",
        "--listen-metrics-urls=http://[::1]:9\n--max-txn-ops=9\n--max-request-bytes=99\n--heartbeat-interval=5\n--election-timeout=50000",
    ]

    static let members = [
        """
        cluster: {name: c, id: 0xfedcba9876543210}
        node: 1
        partitions: 8
        peerScheme: http
        members:
          - {id: 1, name: m1, peer: "127.0.0.1:2380"}
          - {id: 2, name: m2, peer: "[::1]:2380"}

        """
    ]
}
