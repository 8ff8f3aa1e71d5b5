import EtcdAPI
import Primitives

/// Counters of calls, by method and outcome: arrays, so that counting costs an addition.
struct CallMetrics {
    private static let codes = GRPCStatus.allCases.count
    private var startedTotals = [UInt64](repeating: 0, count: RPCMethod.allCases.count)
    private var handledTotals = [UInt64](repeating: 0, count: RPCMethod.allCases.count * codes)
    var ranges: UInt64 = 0
    var puts: UInt64 = 0
    var deletes: UInt64 = 0
    var transactions: UInt64 = 0
    var leasesGranted: UInt64 = 0
    var leasesRevoked: UInt64 = 0
    var leasesRenewed: UInt64 = 0
    var healthSuccesses: UInt64 = 0
    var healthFailures: UInt64 = 0
    var proposalsFailed: UInt64 = 0
    var readIndexesFailed: UInt64 = 0
    var slowApplies: UInt64 = 0
    /// By method; empty unless somebody wants to know.
    private var durations: [DurationCounts] = []

    mutating func started(_ method: RPCMethod) { startedTotals[Int(method.rawValue)] += 1 }
    mutating func count(_ method: RPCMethod, _ status: GRPCStatus) {
        handledTotals[Int(method.rawValue) * Self.codes + Int(status.rawValue)] += 1
    }

    mutating func note(_ method: RPCMethod, _ took: TimeSpan) {
        if durations.isEmpty {
            durations = [DurationCounts](repeating: DurationCounts(), count: RPCMethod.allCases.count)
        }
        durations[Int(method.rawValue)].note(nanoseconds: took.nanoseconds)
    }

    func durations(of method: RPCMethod) -> DurationCounts? {
        durations.isEmpty ? nil : durations[Int(method.rawValue)]
    }

    func started(of method: RPCMethod) -> UInt64 { startedTotals[Int(method.rawValue)] }
    func handled(of method: RPCMethod, _ status: GRPCStatus) -> UInt64 {
        handledTotals[Int(method.rawValue) * Self.codes + Int(status.rawValue)]
    }
}

/// Prometheus' text format.
struct MetricsText {
    private(set) var text = ""

    mutating func family(_ name: String, _ kind: String, _ help: String) {
        text += "# HELP \(name) \(help)\n# TYPE \(name) \(kind)\n"
    }
    mutating func sample(_ name: String, _ value: String) { sample(name, [], value) }
    mutating func sample(_ name: String, _ labels: [(String, String)], _ value: String) {
        text += name
        if !labels.isEmpty {
            text += "{"
            text += labels.map { "\($0.0)=\"\(Self.escaped($0.1))\"" }.joined(separator: ",")
            text += "}"
        }
        text += " \(value)\n"
    }
    mutating func gauge(_ name: String, _ help: String, _ value: some BinaryInteger) {
        family(name, "gauge", help)
        sample(name, "\(value)")
    }
    mutating func gauge(_ name: String, _ help: String, _ value: Double) {
        family(name, "gauge", help)
        sample(name, "\(value)")
    }
    mutating func counter(_ name: String, _ help: String, _ value: some BinaryInteger) {
        family(name, "counter", help)
        sample(name, "\(value)")
    }
    mutating func counter(_ name: String, _ help: String, _ value: Double) {
        family(name, "counter", help)
        sample(name, "\(value)")
    }

    private static func escaped(_ value: String) -> String {
        var out = ""
        for character in value {
            switch character {
            case "\\": out += "\\\\"
            case "\"": out += "\\\""
            case "\n": out += "\\n"
            default: out.append(character)
            }
        }
        return out
    }
}

extension Facade {
    /// etcd's names where the meaning is the same, `polder_` beside them.
    func metricsText() -> String {
        let status = node.status
        var out = MetricsText()
        writeServer(status, &out)
        writeStore(status, &out)
        writePolder(status, &out)
        writeNetwork(status, &out)
        writeCalls(&out)
        ProcessFigures.now().write(&out)
        return out.text
    }

    private func writeServer(_ status: NodeStatus, _ out: inout MetricsText) {
        let isLeader = status.sequencer != nil && status.sequencerMemberID == status.memberID
        out.gauge(
            "etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not.",
            hasLeader ? 1 : 0)
        out.gauge(
            "etcd_server_is_leader",
            "Whether or not this member is a leader. 1 if is, 0 otherwise.", isLeader ? 1 : 0)
        out.gauge(
            "etcd_server_is_learner",
            "Whether or not this member is a learner. 1 if is, 0 otherwise.", 0)
        out.gauge(
            "etcd_debugging_auth_revision", "The current revision of auth store.",
            authState.revision)
        out.counter(
            "etcd_server_leader_changes_seen_total", "The number of leader changes seen.",
            status.leaderChangesTotal)
        out.gauge(
            "etcd_server_proposals_committed_total",
            "The total number of consensus proposals committed.", status.decidedIndex)
        out.gauge(
            "etcd_server_proposals_applied_total",
            "The total number of consensus proposals applied.", status.appliedIndex)
        out.gauge(
            "etcd_server_proposals_pending", "The current number of pending proposals to commit.",
            pending.count)
        out.counter(
            "etcd_server_proposals_failed_total", "The total number of failed proposals seen.",
            metrics.proposalsFailed)
        out.counter(
            "etcd_server_read_indexes_failed_total", "The total number of failed read indexes seen.",
            metrics.readIndexesFailed)
        out.counter(
            "etcd_server_slow_apply_total",
            "The total number of slow apply requests (likely overloaded from slow disk).",
            metrics.slowApplies)
        if status.quotaBytes > 0 {
            out.gauge(
                "etcd_server_quota_backend_bytes", "Current backend storage quota size in bytes.",
                status.quotaBytes)
        }
        out.counter(
            "etcd_server_health_success", "The total number of successful health checks",
            metrics.healthSuccesses)
        out.counter(
            "etcd_server_health_failures", "The total number of failed health checks",
            metrics.healthFailures)
        out.family(
            "etcd_server_id", "gauge",
            "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.")
        out.sample("etcd_server_id", [("server_id", String(status.memberID, radix: 16))], "1")
        out.family(
            "etcd_server_version", "gauge",
            "Which version is running. 1 for 'server_version' label with current version.")
        out.sample("etcd_server_version", [("server_version", versions.etcd)], "1")
        out.family(
            "etcd_cluster_version", "gauge",
            "Which version is running. 1 for 'cluster_version' label with current cluster version")
        out.sample("etcd_cluster_version", [("cluster_version", versions.etcdCluster)], "1")
        out.counter(
            "etcd_debugging_lease_granted_total", "The total number of granted leases.",
            metrics.leasesGranted)
        out.counter(
            "etcd_debugging_lease_revoked_total", "The total number of revoked leases.",
            metrics.leasesRevoked)
        out.counter(
            "etcd_debugging_lease_renewed_total",
            "The number of renewed leases seen by the leader.", metrics.leasesRenewed)
        status.logSyncs.write(
            "etcd_disk_wal_fsync_duration_seconds",
            "The latency distributions of fsync called by WAL.", &out)
        status.storeCommits.write(
            "etcd_disk_backend_commit_duration_seconds",
            "The latency distributions of commit called by backend.", &out)
    }

    /// `--metrics extensive`, as go-grpc-prometheus shows them.
    private func writeDurations(_ used: [RPCMethod], _ out: inout MetricsText) {
        let name = "grpc_server_handling_seconds"
        let measured = used.filter { (metrics.durations(of: $0)?.count ?? 0) > 0 }
        guard !measured.isEmpty else { return }
        out.family(
            name, "histogram",
            "Histogram of response latency (seconds) of gRPC that had been application-level handled "
                + "by the server.")
        for method in measured {
            metrics.durations(of: method)?.write(name, method.labels, &out)
        }
    }

    private func writeStore(_ status: NodeStatus, _ out: inout MetricsText) {
        out.gauge(
            "etcd_mvcc_db_total_size_in_bytes",
            "Total size of the underlying database physically allocated in bytes.",
            status.storeBytes)
        out.gauge(
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "Total size of the underlying database logically in use in bytes.",
            status.storeBytesInUse)
        out.gauge(
            "etcd_debugging_mvcc_db_total_size_in_bytes",
            "Total size of the underlying database physically allocated in bytes.",
            status.storeBytes)
        out.counter(
            "etcd_mvcc_range_total", "Total number of ranges seen by this member.", metrics.ranges)
        out.counter(
            "etcd_mvcc_put_total", "Total number of puts seen by this member.", metrics.puts)
        out.counter(
            "etcd_mvcc_delete_total", "Total number of deletes seen by this member.",
            metrics.deletes)
        out.counter(
            "etcd_mvcc_txn_total", "Total number of txns seen by this member.", metrics.transactions
        )
        out.gauge(
            "etcd_debugging_mvcc_current_revision", "The current revision of store.",
            status.revision.rawValue)
        out.gauge(
            "etcd_debugging_mvcc_compact_revision", "The revision of the last compaction in store.",
            status.compactRevision.rawValue)
        if let keys = status.keysTotal {
            out.gauge("etcd_debugging_mvcc_keys_total", "Total number of keys.", keys)
        }
        out.gauge(
            "etcd_debugging_mvcc_watch_stream_total", "Total number of watch streams.",
            watches.streamsCount)
        out.gauge(
            "etcd_debugging_mvcc_watcher_total", "Total number of watchers.", watches.watchersCount)
        out.gauge(
            "etcd_debugging_mvcc_slow_watcher_total", "Total number of unsynced slow watchers.",
            watches.behindCount)
        out.counter(
            "etcd_debugging_mvcc_events_total", "Total number of events sent by this member.",
            watches.eventsTotal)
    }

    private func writePolder(_ status: NodeStatus, _ out: inout MetricsText) {
        out.gauge(
            "polder_frontier_revision",
            "The highest revision that is resolved with everything before it, as this node can serve it.",
            status.revision.rawValue)
        out.gauge(
            "polder_ready", "1 if this node can serve linearizable reads.", status.isReady ? 1 : 0)
        out.gauge(
            "polder_feature_level",
            "The features that the region uses: those which the builds of all its nodes know.",
            Int64(status.featureLevel))
        out.counter(
            "polder_void_revisions_total", "Revisions that were handed out and came to nothing.",
            status.voidRevisionsTotal)
        out.family(
            "polder_partition_leader", "gauge",
            "The node that leads the partition; 0 if none is known.")
        for partition in status.partitions {
            out.sample(
                "polder_partition_leader", [("partition", "\(partition.id)")],
                "\(partition.leader ?? .none)")
        }
        out.family(
            "polder_partition_applied_slot", "gauge",
            "The slot up to which this node has applied the partition's log.")
        for partition in status.partitions {
            out.sample(
                "polder_partition_applied_slot", [("partition", "\(partition.id)")],
                "\(partition.applied)")
        }
        out.family(
            "polder_geo_lag_seconds", "gauge",
            "How long ago the newest change of the origin that is missing here was made.")
        for link in status.geoLinks {
            guard let lag = link.lagSeconds else { continue }
            out.sample("polder_geo_lag_seconds", [("origin", link.origin)], "\(lag)")
        }
        out.family(
            "polder_geo_lag_revisions", "gauge", "Revisions of the origin that are missing here.")
        for link in status.geoLinks {
            guard let lag = link.lagRevisions else { continue }
            out.sample("polder_geo_lag_revisions", [("origin", link.origin)], "\(lag)")
        }
        out.family("polder_geo_connected", "gauge", "1 if the link from the origin is up.")
        for link in status.geoLinks {
            out.sample(
                "polder_geo_connected", [("origin", link.origin)], link.isConnected ? "1" : "0")
        }
        out.family(
            "polder_conflicts_total", "counter",
            "Conflicts between regions that were resolved here.")
        for count in status.conflicts {
            out.sample("polder_conflicts_total", [("policy", count.policy)], "\(count.total)")
        }
    }

    private func writeNetwork(_ status: NodeStatus, _ out: inout MetricsText) {
        if let counters = server?.counters {
            out.counter(
                "etcd_network_client_grpc_received_bytes_total",
                "The total number of bytes received from grpc clients.",
                counters.messageBytesReceived)
            out.counter(
                "etcd_network_client_grpc_sent_bytes_total",
                "The total number of bytes sent to grpc clients.", counters.messageBytesSent)
        }
        let local = String(status.memberID, radix: 16)
        out.family(
            "etcd_network_active_peers", "gauge", "The current number of active peer connections.")
        for peer in status.peers where peer.isConnected {
            out.sample(
                "etcd_network_active_peers",
                [("Local", local), ("Remote", String(peer.id, radix: 16))], "1")
        }
        out.family(
            "etcd_network_peer_sent_bytes_total", "counter",
            "The total number of bytes sent to peers.")
        for peer in status.peers {
            out.sample(
                "etcd_network_peer_sent_bytes_total", [("To", String(peer.id, radix: 16))],
                "\(peer.bytesSent)")
        }
        out.family(
            "etcd_network_peer_received_bytes_total", "counter",
            "The total number of bytes received from peers.")
        for peer in status.peers {
            out.sample(
                "etcd_network_peer_received_bytes_total", [("From", String(peer.id, radix: 16))],
                "\(peer.bytesReceived)")
        }
    }

    private func writeCalls(_ out: inout MetricsText) {
        let used = RPCMethod.allCases.filter { metrics.started(of: $0) > 0 }
        out.family(
            "grpc_server_started_total", "counter", "Total number of RPCs started on the server.")
        for method in used {
            out.sample("grpc_server_started_total", method.labels, "\(metrics.started(of: method))")
        }
        writeDurations(used, &out)
        out.family(
            "grpc_server_handled_total", "counter",
            "Total number of RPCs completed on the server, regardless of success or failure.")
        for method in used {
            for status in GRPCStatus.allCases {
                let total = metrics.handled(of: method, status)
                guard total > 0 else { continue }
                out.sample(
                    "grpc_server_handled_total",
                    [("grpc_code", status.prometheusName)] + method.labels, "\(total)")
            }
        }
    }
}

extension RPCMethod {
    /// As go-grpc-prometheus names them.
    fileprivate var labels: [(String, String)] {
        let parts = "\(path)".split(separator: "/").map(String.init)
        let kind: String
        switch self {
        case .watch, .leaseKeepAlive, .reflection, .reflectionAlpha: kind = "bidi_stream"
        case .rangeStream, .snapshot, .electionObserve, .healthWatch: kind = "server_stream"
        default: kind = "unary"
        }
        return [
            ("grpc_method", parts.last ?? ""), ("grpc_service", parts.first ?? ""),
            ("grpc_type", kind),
        ]
    }
}

extension GRPCStatus {
    fileprivate var prometheusName: String {
        switch self {
        case .ok: "OK"
        case .cancelled: "Canceled"
        case .unknown: "Unknown"
        case .invalidArgument: "InvalidArgument"
        case .deadlineExceeded: "DeadlineExceeded"
        case .notFound: "NotFound"
        case .alreadyExists: "AlreadyExists"
        case .permissionDenied: "PermissionDenied"
        case .resourceExhausted: "ResourceExhausted"
        case .failedPrecondition: "FailedPrecondition"
        case .aborted: "Aborted"
        case .outOfRange: "OutOfRange"
        case .unimplemented: "Unimplemented"
        case .internal: "Internal"
        case .unavailable: "Unavailable"
        case .dataLoss: "DataLoss"
        case .unauthenticated: "Unauthenticated"
        }
    }
}
