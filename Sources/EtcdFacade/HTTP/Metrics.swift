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
    var readIndexesSlow: UInt64 = 0
    var slowApplies: UInt64 = 0
    var clients = ClientCounts()
    var leaseTTLs = SecondCounts()
    /// Of answers to Hash, HashKV and Snapshot.
    var hashes = DurationCounts()
    var revisionHashes = DurationCounts()
    var snapshots = DurationCounts()
    /// By the reason in etcd's words: there are three.
    var promotionsRefused: [String: UInt64] = [:]
    var checks: [Check: CheckCounts] = [:]
    private var receivedTotals = [UInt64](repeating: 0, count: RPCMethod.allCases.count)
    /// Of streams, but for watches, and for what ends a call.
    private var sentTotals = [UInt64](repeating: 0, count: RPCMethod.allCases.count)
    /// By method; empty unless somebody wants to know.
    private var durations: [DurationCounts] = []

    /// One of the checks of /livez and /readyz.
    struct Check: Hashable {
        let type: String
        let name: String
    }
    struct CheckCounts {
        var isFine = true
        var successes: UInt64 = 0
        var failures: UInt64 = 0
    }

    mutating func count(_ check: Check, isFine: Bool) {
        var counts = checks[check] ?? CheckCounts()
        counts.isFine = isFine
        if isFine { counts.successes += 1 } else { counts.failures += 1 }
        checks[check] = counts
    }

    /// What a transaction turned out to do.
    mutating func count(_ result: TransactionResult) {
        for operation in result.results {
            switch operation {
            case .put: puts += 1
            case .delete: deletes += 1
            case .range: ranges += 1
            case .transaction(let nested): count(nested)
            }
        }
    }

    mutating func count(_ error: RequestError, of kind: Pending.Kind) {
        guard case .members(.memberPromote) = kind else { return }
        let reason =
            switch error {
            case .learnerNotReady: "learner not ready"
            case .memberNotLearner: "not a learner"
            case .memberNotFound: "member not found"
            default: "other"
            }
        promotionsRefused[reason, default: 0] += 1
    }

    mutating func received(_ method: RPCMethod) { receivedTotals[Int(method.rawValue)] += 1 }
    mutating func sent(_ method: RPCMethod) { sentTotals[Int(method.rawValue)] += 1 }
    func messagesReceived(of method: RPCMethod) -> UInt64 { receivedTotals[Int(method.rawValue)] }
    func messagesSent(of method: RPCMethod) -> UInt64 {
        switch method.shape {
        case .unary: handled(of: method, .ok)
        case .serverStream, .bothStream:
            // The last part of a list is its answer.
            sentTotals[Int(method.rawValue)]
                + (method == .rangeStream ? handled(of: method, .ok) : 0)
        }
    }

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
        writeDisk(status, &out)
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
            "Whether or not this member is a learner. 1 if is, 0 otherwise.",
            status.isLearner ? 1 : 0)
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
        // Alerts divide by it: without a quota the disk is the limit.
        let capacity = status.quotaBytes > 0 ? status.quotaBytes : status.capacityBytes
        if capacity > 0 {
            out.gauge(
                "etcd_server_quota_backend_bytes", "Current backend storage quota size in bytes.",
                capacity)
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
        // Of a cluster etcd names two numbers.
        let cluster = versions.etcdCluster.split(separator: ".").prefix(2).joined(separator: ".")
        out.sample("etcd_cluster_version", [("cluster_version", cluster)], "1")
        out.counter(
            "etcd_debugging_lease_granted_total", "The total number of granted leases.",
            metrics.leasesGranted)
        out.counter(
            "etcd_debugging_lease_revoked_total", "The total number of revoked leases.",
            metrics.leasesRevoked + status.leasesExpiredTotal)
        out.counter(
            "etcd_debugging_server_lease_expired_total", "The total number of expired leases.",
            status.leasesExpiredTotal)
        out.counter(
            "etcd_debugging_lease_renewed_total",
            "The number of renewed leases seen by the leader.", metrics.leasesRenewed)
        metrics.leaseTTLs.write(
            "etcd_debugging_lease_ttl_total", "Bucketed histogram of lease TTLs.", &out)
        writeChecks(&out)
        out.counter(
            "etcd_server_slow_read_indexes_total",
            "The total number of pending read indexes not in sync with leader's or timed out read "
                + "index requests.", metrics.readIndexesSlow)
        out.counter(
            "etcd_server_heartbeat_send_failures_total",
            "The total number of leader heartbeat send failures (likely overloaded from slow disk).",
            status.lateHeartbeatsTotal)
        out.counter(
            "etcd_server_learner_promote_successes",
            "The total number of successful learner promotions while this member is leader.",
            metrics.handled(of: .memberPromote, .ok))
        out.family(
            "etcd_server_learner_promote_failures", "counter",
            "The total number of failed learner promotions (likely learner not ready) while this "
                + "member is leader.")
        for (reason, count) in metrics.promotionsRefused.sorted(by: { $0.key < $1.key }) {
            out.sample("etcd_server_learner_promote_failures", [("Reason", reason)], "\(count)")
        }
        out.family(
            "etcd_debugging_server_alarms", "gauge",
            "Alarms for every member in cluster. 1 for 'server_id' label with current ID. 2 for "
                + "'alarm_type' label with type of this alarm")
        for alarm in status.alarms {
            out.sample(
                "etcd_debugging_server_alarms",
                [
                    ("alarm_type", alarm.kind.etcdName),
                    ("server_id", String(alarm.memberID, radix: 16)),
                ], "1")
        }
    }

    private func writeChecks(_ out: inout MetricsText) {
        let checks = metrics.checks.sorted { ($0.key.type, $0.key.name) < ($1.key.type, $1.key.name) }
        guard !checks.isEmpty else { return }
        out.family("etcd_server_healthcheck", "gauge", "The result of each kind of healthcheck.")
        for (check, counts) in checks {
            out.sample(
                "etcd_server_healthcheck", [("name", check.name), ("type", check.type)],
                counts.isFine ? "1" : "0")
        }
        out.family(
            "etcd_server_healthchecks_total", "counter",
            "The total number of each kind of healthcheck.")
        for (check, counts) in checks {
            for (status, count) in [("error", counts.failures), ("success", counts.successes)]
            where count > 0 {
                out.sample(
                    "etcd_server_healthchecks_total",
                    [("name", check.name), ("status", status), ("type", check.type)], "\(count)")
            }
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
        // The second name is that of etcd's earlier versions; dashboards ask for either.
        for prefix in ["etcd_mvcc", "etcd_debugging_mvcc"] {
            out.counter(
                "\(prefix)_range_total", "Total number of ranges seen by this member.",
                metrics.ranges)
            out.counter(
                "\(prefix)_put_total", "Total number of puts seen by this member.", metrics.puts)
            out.counter(
                "\(prefix)_delete_total", "Total number of deletes seen by this member.",
                metrics.deletes)
            out.counter(
                "\(prefix)_txn_total", "Total number of txns seen by this member.",
                metrics.transactions)
        }
        out.gauge(
            "etcd_debugging_mvcc_total_put_size_in_bytes",
            "The total size of put kv pairs seen by this member.", status.putBytesTotal)
        out.gauge(
            "etcd_mvcc_db_open_read_transactions", "The number of currently open read transactions",
            calls.all.count(where: \.state.readsStore))
        out.gauge(
            "etcd_debugging_mvcc_current_revision", "The current revision of store.",
            status.revision.rawValue)
        out.gauge(
            "etcd_debugging_mvcc_compact_revision", "The revision of the last compaction in store.",
            status.compactRevision.rawValue)
        keysTotal.isWanted(by: self)
        if let keys = keysTotal.count {
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
        // None waits in memory: watchers that are behind read from the store.
        out.gauge(
            "etcd_debugging_mvcc_pending_events_total",
            "Total number of pending events to be sent.", 0)
    }
}
