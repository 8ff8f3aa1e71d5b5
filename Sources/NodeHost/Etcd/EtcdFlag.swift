/// One of etcd's flags: `--name` on the command line, `ETCD_NAME` in the environment, `name` in the file.
struct EtcdFlag: Sendable {
    enum Kind: Sendable { case text, number, boolean, duration }

    enum Use: Sendable {
        /// Means here what it means to etcd.
        case honoured
        /// Harmless to leave out: a warning says so if it differs from etcd's default.
        case ignored(String)
        /// Leaving it out would be unsafe or surprising: an error if it differs from etcd's default.
        case refused(String)
    }

    let name: String
    let kind: Kind
    let standard: String
    let use: Use

    /// Values that are not etcd's default and mean what happens anyway.
    static let harmless: [String: Set<String>] = [
        "log-outputs": ["stderr"], "log-output": ["stderr"],
    ]

    static func named(_ name: String) -> EtcdFlag? { byName[name] }

    var environmentName: String {
        "ETCD_" + String(name.uppercased().map { $0 == "-" ? "_" : $0 })
    }

    /// The known name that `text` most likely was meant to be.
    static func suggestion(for text: String) -> String? {
        // No slip of the pen.
        guard text.utf8.count <= 64 else { return nil }
        var best: (name: String, distance: Int)?
        for flag in all {
            let distance = editDistance(text, flag.name)
            if distance < best?.distance ?? Int.max { best = (flag.name, distance) }
        }
        guard let best, best.distance <= max(1, min(3, text.count / 3)) else { return nil }
        return best.name
    }

    /// Single letters added, removed, changed, or swapped with their neighbour.
    private static func editDistance(_ a: String, _ b: String) -> Int {
        let a = Array(a.utf8), b = Array(b.utf8)
        var older: [Int] = [], previous = Array(0...b.count)
        for i in a.indices {
            var row = [i + 1]
            for j in b.indices {
                var cost = min(previous[j] + (a[i] == b[j] ? 0 : 1), previous[j + 1] + 1, row[j] + 1)
                if i > 0, j > 0, a[i] == b[j - 1], a[i - 1] == b[j] { cost = min(cost, older[j - 1] + 1) }
                row.append(cost)
            }
            older = previous
            previous = row
        }
        return previous[b.count]
    }

    // MARK: The table

    private static let byName = Dictionary(
        all.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })

    private static func flags(
        _ use: Use, _ kind: Kind, _ rows: [(String, String)]
    ) -> [EtcdFlag] {
        rows.map { EtcdFlag(name: $0.0, kind: kind, standard: $0.1, use: use) }
    }

    static let all: [EtcdFlag] = honoured + refused + ignored

    private static let honoured: [EtcdFlag] =
        flags(.honoured, .text, [
            ("name", "default"), ("data-dir", ""), ("config-file", ""),
            ("listen-client-urls", "http://localhost:2379"), ("listen-client-http-urls", ""),
            ("listen-metrics-urls", ""), ("listen-peer-urls", "http://localhost:2380"),
            ("advertise-client-urls", "http://localhost:2379"),
            ("initial-advertise-peer-urls", "http://localhost:2380"),
            ("initial-cluster", "default=http://localhost:2380"),
            ("initial-cluster-token", "etcd-cluster"), ("initial-cluster-state", "new"),
            ("cert-file", ""), ("key-file", ""), ("trusted-ca-file", ""), ("client-crl-file", ""),
            ("peer-cert-file", ""), ("peer-key-file", ""), ("peer-trusted-ca-file", ""),
            ("peer-client-cert-file", ""), ("peer-client-key-file", ""),
            ("peer-crl-file", ""), ("tls-min-version", "TLS1.2"), ("tls-max-version", ""), ("log-level", "info"),
            ("log-format", "json"), ("cors", "*"), ("host-whitelist", "*"), ("auth-token", "simple"),
            ("auto-compaction-retention", "0"), ("auto-compaction-mode", "periodic"),
            ("quota-backend-bytes", "0"), ("cipher-suites", ""),
            ("client-cert-allowed-cn", ""), ("client-cert-allowed-hostname", ""),
            ("peer-cert-allowed-cn", ""), ("peer-cert-allowed-hostname", ""), ("metrics", "basic"),
            ("discovery-srv", ""), ("discovery-srv-name", ""),
        ])
        + flags(.honoured, .boolean, [
            ("enable-grpc-gateway", "true"), ("client-cert-auth", "false"),
            ("peer-client-cert-auth", "false"), ("version", "false"), ("auto-tls", "false"),
            ("peer-auto-tls", "false"), ("enable-pprof", "false"),
            ("force-new-cluster", "false"),
        ])
        + flags(.honoured, .number, [
            ("max-txn-ops", "128"), ("max-request-bytes", "1572864"),
            ("max-concurrent-streams", "4294967295"), ("bcrypt-cost", "10"),
            ("auth-token-ttl", "300"), ("self-signed-cert-validity", "1"),
            ("heartbeat-interval", "100"), ("election-timeout", "1000"),
        ])
        + flags(.honoured, .duration, [
            ("grpc-keepalive-min-time", "5s"), ("grpc-keepalive-interval", "2h"),
            ("grpc-keepalive-timeout", "20s"), ("watch-progress-notify-interval", "10m"),
            ("experimental-watch-progress-notify-interval", "10m"),
            ("warning-apply-duration", "100ms"), ("warning-unary-request-duration", "300ms"),
            ("experimental-warning-apply-duration", "100ms"),
            ("experimental-warning-unary-request-duration", "300ms"),
        ])

    private static let refused: [EtcdFlag] =
        flags(
            .refused(
                "there is no discovery service: name the members with --initial-cluster, or by SRV "
                    + "records with --discovery-srv"),
            .text, [("discovery", ""), ("discovery-token", ""), ("discovery-endpoints", "")])
        + flags(.refused("there are no proxies: every node serves every client"), .text, [
            ("proxy", "off"),
        ])

    private static let ignored: [EtcdFlag] =
        flags(.ignored("the log lies in the data directory"), .text, [("wal-dir", "")])
        + flags(.ignored("the log goes to standard error"), .text, [
            ("log-outputs", "default"), ("log-output", "default"), ("logger", "zap"),
            ("log-package-levels", ""), ("log-rotation-config-json", rotation),
        ])
        + flags(.ignored("the log goes to standard error"), .boolean, [
            ("enable-log-rotation", "false"), ("debug", "false"),
        ])
        + flags(.ignored("the gateway asks its node without a connection"), .text, [
            ("client-cert-file", ""), ("client-key-file", ""),
        ])
        + flags(.ignored("there is no such thing here"), .text, [
            ("experimental-backend-bbolt-freelist-type", "array"),
            ("discovery-fallback", "proxy"), ("discovery-proxy", ""),
            ("discovery-cert", ""), ("discovery-key", ""), ("discovery-cacert", ""),
            ("discovery-user", ""), ("discovery-password", ""), ("local-address", ""),
            ("backend-bbolt-freelist-type", "map"), ("v2-deprecation", "not-yet"),
            ("feature-gates", ""), ("distributed-tracing-address", "localhost:4317"),
            ("distributed-tracing-service-name", "etcd"), ("distributed-tracing-instance-id", ""),
            ("experimental-distributed-tracing-address", "localhost:4317"),
            ("experimental-distributed-tracing-service-name", "etcd"),
            ("experimental-distributed-tracing-instance-id", ""), ("experimental-enable-v2v3", ""),
        ])
        + flags(.ignored("there is no such thing here"), .number, [
            ("snapshot-count", "10000"), ("max-snapshots", "5"), ("max-wals", "5"), ("backend-batch-limit", "0"),
            ("snapshot-catchup-entries", "5000"),
            ("max-learners", "1"), ("compaction-batch-limit", "1000"),
            ("bootstrap-defrag-threshold-megabytes", "0"),
            ("distributed-tracing-sampling-rate", "0"), ("proxy-failure-wait", "5000"),
            ("proxy-refresh-interval", "30000"), ("proxy-dial-timeout", "1000"),
            ("proxy-write-timeout", "5000"), ("proxy-read-timeout", "0"),
            ("experimental-distributed-tracing-sampling-rate", "0"),
            ("experimental-compaction-batch-limit", "1000"), ("experimental-max-learners", "1"),
            ("experimental-bootstrap-defrag-threshold-megabytes", "0"),
            ("experimental-snapshot-catchup-entries", "5000"),
            // So it is called in files.
            ("experimental-snapshot-catch-up-entries", "5000"),
        ])
        + flags(.ignored("there is no such thing here"), .boolean, [
            ("initial-election-tick-advance", "true"), ("socket-reuse-port", "false"),
            ("socket-reuse-address", "false"), ("strict-reconfig-check", "true"),
            ("pre-vote", "true"), ("enable-v2", "false"),
            ("unsafe-no-fsync", "false"),
            ("discovery-insecure-transport", "true"), ("discovery-insecure-skip-tls-verify", "false"),
            ("memory-mlock", "false"), ("peer-skip-client-san-verification", "false"),
            ("next-cluster-version-compatible", "false"),
            ("enable-distributed-tracing", "false"),
            ("experimental-enable-distributed-tracing", "false"),
            ("experimental-initial-corrupt-check", "false"),
            ("experimental-compact-hash-check-enabled", "false"),
            ("experimental-enable-lease-checkpoint", "false"),
            ("experimental-enable-lease-checkpoint-persist", "false"),
            ("experimental-peer-skip-client-san-verification", "false"),
            ("experimental-memory-mlock", "false"),
            ("experimental-txn-mode-write-with-shared-buffer", "true"),
            ("experimental-stop-grpc-service-on-defrag", "false"),
        ])
        + flags(.ignored("there is no such thing here"), .duration, [
            ("backend-batch-interval", ""), ("raft-read-timeout", "5s"), ("raft-write-timeout", "5s"), ("corrupt-check-time", "0s"),
            ("compact-hash-check-time", "1m"), ("compaction-sleep-interval", "10ms"),
            ("downgrade-check-time", "5s"), ("discovery-dial-timeout", "2s"),
            ("discovery-request-timeout", "5s"), ("discovery-keepalive-time", "2s"),
            ("discovery-keepalive-timeout", "6s"), ("experimental-corrupt-check-time", "0s"),
            ("experimental-compact-hash-check-time", "1m"),
            ("experimental-compaction-sleep-interval", "10ms"),
            ("experimental-downgrade-check-time", "5s"),
        ])

    private static let rotation = """
        {"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}
        """
}
