import BoltFile
import EtcdSnapshot
import Partitioning
package import Primitives
import Storage

/// Makes a data directory whose node begins with what a snapshot of etcd holds: keys with their
/// revisions and versions, history since the compaction, leases. The same file and options give the
/// same state on every node of the region (docs/decisions/0007).
package struct SnapshotImport {
    package struct Options: Equatable, Sendable {
        /// Added to the revision, for clients that may have seen later ones than the file has.
        package var bumpRevision: Int64 = 0
        /// Everything through the revision counts as compacted: clients that hold one list anew.
        package var markCompacted = false
        /// Users and roles stay behind.
        package var leavesAuth = false
        /// Signs simple tokens, if authentication is enabled: the same on every node, and nobody else's.
        package var authSecret: Bytes?
        package init() {}
    }

    package struct Report: Equatable, Sendable {
        package var revision: Int64 = 0
        package var compactRevision: Int64 = 0
        package var versions = 0
        package var leases = 0
        package var keysWithoutLease = 0
        package var users = 0
        package var roles = 0
        package var isAuthEnabled = false
    }

    /// Rows are handed to the store in batches.
    private static let batchRows = 1000
    private static let batchBytes = 4 << 20
    private static let keyspace = KeyspaceID.standard

    private let file: SnapshotFile
    private let options: Options
    private let configuration: HostConfiguration

    package init(
        _ file: SnapshotFile, _ options: Options, configuration: HostConfiguration
    ) {
        self.file = file
        self.options = options
        self.configuration = configuration
    }

    /// `beside`: written before the identity, which makes the directory a node's.
    package func run(
        beside write: (_ directory: String) throws(HostFailure) -> Void = { _ in }
    ) throws(HostFailure) -> Report {
        let identity = NodeIdentity(
            cluster: configuration.clusterID, region: configuration.regionID,
            regionName: configuration.regionName, node: configuration.nodeID)
        var report = Report()
        var failure: HostFailure?
        do throws(StorageError) {
            try DataDirectory.create(configuration.dataDirectory, identity: identity) {
                (storePath) throws(StorageError) in
                do throws(HostFailure) {
                    report = try fill(storePath)
                    try write(configuration.dataDirectory)
                } catch {
                    failure = error
                    // Nothing of it is of use.
                    try? Files.removeTree(storePath)
                    throw StorageError.io(error.message)
                }
            }
        } catch {
            throw failure ?? HostFailure(error)
        }
        return report
    }

    private func fill(_ storePath: String) throws(HostFailure) -> Report {
        do {
            return try fillStore(storePath)
        } catch let failure as HostFailure {
            throw failure
        } catch let error as StorageError {
            throw HostFailure(error)
        } catch {
            throw HostFailure(code: 5, "\(file.path): \(error)")
        }
    }

    private func fillStore(_ storePath: String) throws -> Report {
        let state = try file.reader.state()
        var report = Report()
        let auth = try auth(state.auth, &report)
        let store = try Store.open(storePath)
        defer { store.close() }
        let map = PartitionMap(equalPartitions: configuration.partitions)
        var imported = ImportedState(keyspace: Self.keyspace, map: map)
        imported.auth = auth
        for lease in state.leases {
            imported.add(LeaseID(lease.id), ttlSeconds: lease.ttlSeconds)
        }
        report.leases = state.leases.count
        try copyRows(into: store, &imported, &report)
        // As etcd counts on: from the last key, or from the compaction that took it.
        report.revision = max(report.revision, state.compactRevision, Revision.initial.rawValue)
        let (revision, overflow) = report.revision.addingReportingOverflow(options.bumpRevision)
        guard options.bumpRevision >= 0, !overflow, revision < Int64.max / 2 else {
            throw HostFailure(code: 2, "--bump-revision \(options.bumpRevision) goes too far")
        }
        report.revision = revision
        report.compactRevision = options.markCompacted ? revision : state.compactRevision
        try store.apply(
            imported.changes(
                revision: Revision(report.revision), compacted: Revision(report.compactRevision),
                region: configuration.regionID))
        report.keysWithoutLease = imported.keysWithoutLease
        // A compaction that etcd had only begun is done here, and so is the one of `markCompacted`.
        if report.compactRevision > 0 {
            try store.compact(floor: Revision(report.compactRevision), in: Self.keyspace)
            while try !store.compactStep(budget: 20_000, in: Self.keyspace) {}
        }
        _ = try store.flush()
        return report
    }

    private func auth(
        _ auth: EtcdState.Auth, _ report: inout Report
    ) throws -> AuthState? {
        if auth.isEmpty || options.leavesAuth { return nil }
        if auth.isEnabled, options.authSecret == nil {
            throw HostFailure(
                code: 3,
                "authentication is enabled in \(file.path), and a secret must sign the tokens here: give "
                    + "every node the same --auth-secret FILE (head -c 32 /dev/urandom > FILE), or leave "
                    + "users and roles out with --without-auth")
        }
        report.users = auth.users.count
        report.roles = auth.roles.count
        report.isAuthEnabled = auth.isEnabled
        return try EtcdAuth.state(of: auth, secret: options.authSecret ?? .empty)
    }

    private func copyRows(
        into store: Store, _ imported: inout ImportedState, _ report: inout Report
    ) throws {
        var batch: [StoreChange] = []
        var bytes = 0
        let versions = try file.reader.versions()
        while let version = try versions.next() {
            report.revision = max(report.revision, version.revision)
            guard !version.key.isEmpty else { continue }
            let row = row(version)
            imported.note(row)
            batch.append(.putRow(Self.keyspace, row))
            bytes += row.key.count + row.value.count
            report.versions += 1
            if batch.count >= Self.batchRows || bytes >= Self.batchBytes {
                try store.apply(batch)
                batch.removeAll(keepingCapacity: true)
                bytes = 0
            }
        }
        try store.apply(batch)
    }

    private func row(_ version: EtcdVersion) -> Row {
        let revision = Revision(version.revision)
        return Row(
            key: version.key, value: version.value,
            createRevision: Revision(version.isDeletion ? 0 : version.createRevision),
            modRevision: revision, version: version.isDeletion ? 0 : version.version,
            lease: LeaseID(version.lease), sub: UInt32(truncatingIfNeeded: version.sub),
            origin: Origin(
                region: configuration.regionID, revision: revision,
                stamp: ImportedState.stamp(revision, configuration.regionID)))
    }
}

extension SnapshotImport {
    /// With etcd's flags, as `etcdctl snapshot restore` takes them: who the node is, and its cluster. The
    /// cluster's id depends on what was imported, so that nodes which were not given the same, or
    /// nothing, do not take part.
    package static func run(
        _ file: SnapshotFile, _ options: Options, etcdFlags: [String]
    ) throws(HostFailure) -> (report: Report, directory: String) {
        var plan: EtcdPlan
        do throws(ConfigurationError) {
            let arguments = try EtcdArguments(etcdFlags, environment: [:]) {
                (path) throws(ConfigurationError) in
                throw ConfigurationError(
                    file: path, line: nil, path: "", message: "is not read here")
            }
            plan = try EtcdPlan(arguments)
        } catch {
            throw HostFailure(code: 2, "\(error)")
        }
        let bump = "bump \(options.bumpRevision) marked \(options.markCompacted)"
        let id = HostConfiguration.clusterID(
            named: "\(plan.members.clusterID)\nsnapshot \(file.digest) \(bump)")
        plan.members.clusterID = id
        plan.configuration.clusterID = id
        let members = plan.members.yaml
        let report = try SnapshotImport(file, options, configuration: plan.configuration).run {
            (directory) throws(HostFailure) in
            do throws(SystemError) {
                try Files.writeAtomically(members, to: directory + "/" + EtcdMembers.fileName)
            } catch {
                throw HostFailure(code: 6, "\(error)")
            }
        }
        return (report, plan.configuration.dataDirectory)
    }
}
