import ArgumentParser
import EtcdSnapshot
import Foundation
import Glibc
import NodeHost
import Primitives

struct SnapshotCommandLine: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "snapshot",
        abstract: "etcd's own snapshot files, both ways.",
        discussion: """
            `etcdctl snapshot save` works on Polder too, and what it writes is restored by
            etcd; a file that etcd wrote becomes a new region here.
            """,
        subcommands: [SaveCommand.self, StatusCommand.self, ImportCommand.self])

    struct StatusCommand: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "status",
            abstract: "What a file holds, and whether it is whole.",
            discussion: """
                Reads all of it. The hash is the one that `etcdctl snapshot status` prints.

                  polder snapshot status backup.db -o json
                """)

        @Argument(help: "A file of `etcdctl snapshot save`, or a copy of etcd's member/snap/db.")
        var file: String
        @Option(name: .shortAndLong, help: "table or json.")
        var output = "table"

        func run() throws {
            guard output == "table" || output == "json" else {
                throw Outcome.badFlags("-o \(output): expected table or json")
            }
            let opened = try SnapshotCommandLine.open(file)
            let summary = try SnapshotCommandLine.reading(file) { try opened.reader.summary() }
            let state = try SnapshotCommandLine.reading(file) { try opened.reader.state() }
            if output == "json" {
                let figures = Figures(
                    hash: summary.hash, revision: summary.revision, totalKey: summary.keys,
                    totalSize: summary.bytes, compactRevision: state.compactRevision,
                    leases: state.leases.count, users: state.auth.users.count,
                    digest: opened.integrity == .whole ? opened.digest : nil)
                let encoder = JSONEncoder()
                encoder.outputFormatting = [.sortedKeys]
                print(String(decoding: try encoder.encode(figures), as: UTF8.self))
                return
            }
            let row = [
                String(summary.hash, radix: 16), "\(summary.revision)", "\(summary.keys)",
                "\(summary.bytes)", "\(state.compactRevision)", "\(state.leases.count)",
                "\(state.auth.users.count)", opened.integrity == .whole ? "right" : "none",
            ]
            print(
                StatusTable.table(
                    ["HASH", "REVISION", "KEYS", "BYTES", "COMPACTED", "LEASES", "USERS", "DIGEST"],
                    [row]), terminator: "")
        }

        /// The first four are etcdctl's.
        private struct Figures: Encodable {
            let hash: UInt32
            let revision: Int64
            let totalKey: Int64
            let totalSize: UInt64
            let compactRevision: Int64
            let leases: Int
            let users: Int
            let digest: String?
        }
    }

    struct ImportCommand: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "import",
            abstract: "Makes a new region's data directory from a snapshot of etcd.",
            discussion: """
                Run it for every node of the region with the same file and options, before the
                first start. Keys keep their revisions, versions and leases.

                With etcd's flags, as `etcdctl snapshot restore` takes them:
                  polder snapshot import backup.db --data-dir /var/lib/n1 --name n1 \\
                    --initial-cluster n1=http://a:2380,n2=http://b:2380,n3=http://c:2380 \\
                    --initial-advertise-peer-urls http://a:2380
                  polder etcd --data-dir /var/lib/n1 --name n1 ...

                For nodes that are started with `polder serve`:
                  polder snapshot import backup.db -c node.yaml

                Clients may have seen revisions later than the file's: by default the region's revision is
                lifted above them (--bump-revision 1000000000 --mark-compacted), so that they list anew.
                If nothing was written after the snapshot, --keep-revision goes on where the file ends,
                with its history.
                """)

        @Argument(help: "A file of `etcdctl snapshot save`, or a copy of etcd's member/snap/db.")
        var file: String
        @Option(name: [.customShort("c"), .long], help: "The configuration of a node of `polder serve`.")
        var config: String?
        @Option(help: "Where the node's data goes. (default: NAME.etcd)")
        var dataDir: String?
        @Option(help: "The node's name in --initial-cluster.")
        var name: String?
        @Option(help: "All nodes of the new region: NAME=URL,NAME=URL.")
        var initialCluster: String?
        @Option(help: "Tells clusters with the same nodes apart.")
        var initialClusterToken: String?
        @Option(help: "This node's URL for its peers.")
        var initialAdvertisePeerUrls: String?
        @Option(help: "Added to the revision. (default: 1000000000, and --mark-compacted)")
        var bumpRevision: Int64?
        @Flag(help: "The region goes on at the file's revision: nothing was written after it.")
        var keepRevision = false
        @Flag(help: "History through the revision counts as compacted: watchers list anew.")
        var markCompacted = false
        @Flag(help: "Take a file whose digest is wrong or missing.")
        var skipHashCheck = false
        @Option(help: "A file of 32 random bytes, the same for every node: signs tokens, if authentication is on.")
        var authSecret: String?
        @Flag(help: "Leave users and roles out.")
        var withoutAuth = false

        func run() throws {
            let opened = try SnapshotCommandLine.open(file, checksDigest: !skipHashCheck)
            if opened.integrity == .unknown, !skipHashCheck {
                throw Outcome.inTheWay(
                    "\(file) has no digest, so nothing says that it is whole; if it is a copy of "
                        + "member/snap/db, add --skip-hash-check")
            }
            var options = SnapshotImport.Options()
            guard !keepRevision || (bumpRevision == nil && !markCompacted) else {
                throw Outcome(
                    code: 2, message: "--keep-revision goes with neither --bump-revision nor --mark-compacted")
            }
            if !keepRevision {
                options.bumpRevision = bumpRevision ?? (markCompacted ? 0 : 1_000_000_000)
                options.markCompacted = markCompacted || bumpRevision == nil
            }
            options.leavesAuth = withoutAuth
            options.authSecret = try secret()
            do throws(HostFailure) {
                let (report, directory) = try imported(opened, options)
                print("imported \(report.versions) versions and \(report.leases) leases into \(directory)")
                print("revision \(report.revision), compacted through \(report.compactRevision)")
                if report.keysWithoutLease > 0 {
                    print("\(report.keysWithoutLease) keys name a lease that the file does not hold")
                }
                if report.users + report.roles > 0 {
                    let isOn = report.isAuthEnabled ? "on" : "off"
                    print("\(report.users) users and \(report.roles) roles; authentication is \(isOn)")
                }
            } catch {
                throw Outcome(code: error.code, message: error.message)
            }
        }

        private func secret() throws -> Bytes? {
            guard let authSecret else { return nil }
            guard let bytes = FileManager.default.contents(atPath: authSecret) else {
                throw Outcome.inTheWay("cannot read \(authSecret)")
            }
            guard bytes.count == AuthLimits.secretBytes else {
                throw Outcome.badFlags(
                    "--auth-secret \(authSecret) has \(bytes.count) bytes; expected "
                        + "\(AuthLimits.secretBytes) random ones")
            }
            return Bytes(bytes)
        }

        private func imported(
            _ opened: SnapshotFile, _ options: SnapshotImport.Options
        ) throws(HostFailure) -> (report: SnapshotImport.Report, directory: String) {
            let flags: [(String, String?)] = [
                ("--data-dir", dataDir), ("--name", name), ("--initial-cluster", initialCluster),
                ("--initial-cluster-token", initialClusterToken),
                ("--initial-advertise-peer-urls", initialAdvertisePeerUrls),
            ]
            let given = flags.compactMap { flag, value in value.map { "\(flag)=\($0)" } }
            guard let config else {
                return try SnapshotImport.run(opened, options, etcdFlags: given)
            }
            guard given.isEmpty else {
                throw HostFailure(code: 2, "-c says who the node is; \(given[0]) does not go with it")
            }
            let configuration: HostConfiguration
            do {
                configuration = try HostConfiguration(yaml: try Files.read(config), file: config)
            } catch {
                throw HostFailure(code: 2, "\(error)")
            }
            let report = try SnapshotImport(opened, options, configuration: configuration).run()
            return (report, configuration.dataDirectory)
        }
    }

    // MARK: Files

    static func open(_ path: String, checksDigest: Bool = true) throws -> SnapshotFile {
        do throws(HostFailure) {
            return try SnapshotFile(path, checksDigest: checksDigest)
        } catch {
            throw Outcome(code: error.code == 5 ? 1 : error.code, message: error.message)
        }
    }

    static func reading<R>(_ path: String, _ body: () throws -> R) throws -> R {
        do {
            return try body()
        } catch {
            throw Outcome.checkFailed("\(path): \(error)")
        }
    }
}
