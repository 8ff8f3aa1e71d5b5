import Primitives
import Testing

@testable import NodeHost

@Suite struct EtcdStartTests {
    private func arguments(
        _ words: [String], _ environment: [String: String] = [:], file: String = ""
    ) throws(ConfigurationError) -> EtcdArguments {
        try EtcdArguments(words, environment: environment, readFile: { _ in file })
    }

    private func plan(
        _ words: [String], _ environment: [String: String] = [:], file: String = "",
        restored: EtcdMembers? = nil
    ) throws(ConfigurationError) -> EtcdPlan {
        try EtcdPlan(try arguments(words, environment, file: file), restored: restored)
    }

    private func refusal(
        _ words: [String], _ environment: [String: String] = [:], file: String = ""
    ) -> String {
        do throws(ConfigurationError) {
            _ = try plan(words, environment, file: file)
            return "accepted"
        } catch {
            return error.description
        }
    }

    private let three = ["--initial-cluster", "c=http://h3:2380,a=http://h1:2380,b=http://h2:2380/"]

    // MARK: What is made of the flags

    @Test func `without flags it is etcd's single node`() throws {
        let plan = try plan([])
        let made = plan.configuration
        #expect(plan.warnings.isEmpty)
        #expect(made.nodeName == "default" && made.dataDirectory.hasSuffix("/default.etcd"))
        #expect(made.allListeners.map { "\($0.address)" } == ["127.0.0.1:2379"])
        #expect("\(made.peerAddress)" == "127.0.0.1:2380")
        #expect(made.members.count == 1 && made.members[0].clientURLs == ["http://localhost:2379"])
        #expect("\(made.members[0].peer)" == "localhost:2380")
        #expect(made.partitions == 8 && made.remoteRegions.isEmpty && made.regionName == "r1")
        #expect(made.clientTLS == nil && made.peerTLS == nil && made.logFormat == .json)
    }

    @Test func `node ids follow the names, whatever the order of the list`() throws {
        let b = try plan(three + ["--name", "b"])
        let other = "a=http://h1:2380,b=http://h2:2380,c=http://h3:2380"
        let a = try plan(["--initial-cluster", other, "--name=a"])
        #expect(a.configuration.members.map(\.name) == ["a", "b", "c"])
        #expect(a.configuration.members.map(\.id) == b.configuration.members.map(\.id))
        #expect(a.configuration.clusterID == b.configuration.clusterID)
        #expect(a.configuration.nodeID == NodeID(1) && b.configuration.nodeID == NodeID(2))
        #expect(b.warnings.map(\.message) == ["peers talk without TLS; this is strongly discouraged"])
        let token = try plan(three + ["--name", "b", "--initial-cluster-token", "x"])
        #expect(token.configuration.clusterID != b.configuration.clusterID)
    }

    @Test func `TLS files go where etcd puts them`() throws {
        let made = try plan([
            "--listen-client-urls", "https://0.0.0.0:2379,http://127.0.0.1:2378",
            "--advertise-client-urls", "https://h1:2379", "--listen-metrics-urls=http://[::]:2381",
            "--cert-file=c", "--key-file=k", "--tls-min-version", "TLS1.3",
            "--listen-peer-urls", "https://:2380", "--initial-advertise-peer-urls", "https://h1:2380",
            "--peer-cert-file=pc", "--peer-key-file=pk", "--peer-trusted-ca-file=pa",
            "--peer-client-cert-auth",
        ]).configuration
        #expect(made.clientTLS?.ca == nil && made.clientTLS?.requiresClientCertificate == false)
        #expect(made.clientTLS?.isTLS13Required == true && made.clientTLS?.isTLS13Refused == false)
        #expect(made.peerTLS?.ca == "pa" && made.peerTLS?.requiresClientCertificate == true)
        #expect(made.listeners.map(\.isSecure) == [true, false, false])
        #expect(made.listeners.map(\.servesOnlyMetrics) == [false, false, true])
        #expect(made.listeners.map { "\($0.address)" }
            == ["0.0.0.0:2379", "127.0.0.1:2378", "[::]:2381"])
        #expect("\(made.peerAddress)" == "0.0.0.0:2380")
    }

    @Test func `an authority for clients means that they need certificates`() throws {
        let made = try plan([
            "--listen-client-urls=https://127.0.0.1:1", "--advertise-client-urls=https://127.0.0.1:1",
            "--cert-file=c", "--key-file=k", "--trusted-ca-file=a",
        ]).configuration
        #expect(made.clientTLS?.requiresClientCertificate == true)
    }

    @Test func `limits are taken over, or brought into range with a warning`() throws {
        let made = try plan([
            "--max-txn-ops", "500", "--max-request-bytes=999999999", "--max-concurrent-streams=9",
            "--experimental-watch-progress-notify-interval=1m30s", "-log-level=warn",
            "-log-format", "console",
        ])
        #expect(made.configuration.limits.transactionOperationsMax == 500)
        #expect(made.configuration.limits.requestBytesMax == 64 << 20)
        #expect(made.configuration.limits.concurrentStreamsMax == 9)
        #expect(made.configuration.limits.watchProgressInterval == .seconds(90))
        #expect(made.configuration.logLevel == .warning && made.configuration.logFormat == .text)
        #expect(made.warnings.map { $0.metadata["flag"] } == ["--max-request-bytes", "--max-request-bytes"])
    }

    // MARK: Precedence

    @Test func `flags win over the environment, which says so`() throws {
        let found = try arguments(
            ["--name", "flag"], ["ETCD_NAME": "variable", "ETCD_MAX_TXN_OPS": "7", "ETCD_DATA_DIR": ""])
        #expect(found.text("name") == "flag" && found.number("max-txn-ops") == 7)
        #expect(!found.isGiven("data-dir"))
        #expect(found.warnings.map(\.metadata) == [["variable": "ETCD_NAME"]])
    }

    @Test func `a configuration file stands alone`() throws {
        let file = "name: filed\ndata-dir:\nlisten-client-urls: [http://127.0.0.1:1, 'http://127.0.0.1:2']\n"
        let found = try arguments(
            ["--config-file", "f", "--data-dir", "d"], ["ETCD_MAX_TXN_OPS": "7"], file: file)
        #expect(found.text("name") == "filed" && !found.isGiven("data-dir"))
        #expect(found.number("max-txn-ops") == 128)
        #expect(found.list("listen-client-urls").count == 2)
        #expect(found.warnings.map(\.metadata) == [["flags": "--data-dir"]])
        let named = try arguments([], ["ETCD_CONFIG_FILE": "f", "ETCD_NAME": "x"], file: file)
        #expect(named.text("name") == "filed")
    }

    @Test func `the TLS groups of a configuration file`() throws {
        let found = try arguments(["--config-file=f"], file: """
            client-transport-security:
              cert-file: c
              key-file: k
              client-cert-auth: true
              trusted-ca-file: a
              auto-tls: false
              allowed-cn: [ann, bob]
            peer-transport-security:
              cert-file: pc
              client-cert-auth: true
              allowed-hostname: [h]
            quota-backend-bytes: 0
            strict-reconfig-check: true
            some-day: soon
            """)
        #expect(found.text("cert-file") == "c" && found.text("peer-cert-file") == "pc")
        #expect(found.isOn("client-cert-auth") && found.isOn("peer-client-cert-auth"))
        #expect(found.warnings.map { $0.metadata["key"] } == ["some-day"])
        #expect(found.list("client-cert-allowed-cn") == ["ann", "bob"] && found.list("peer-cert-allowed-cn") == [])
        #expect(found.list("peer-cert-allowed-hostname") == ["h"] && found.list("client-cert-allowed-hostname") == [])
    }

    @Test func `times in a configuration file are nanoseconds, or say what they are`() throws {
        let found = try plan(["--config-file=f"], file: """
            grpc-keepalive-min-time: 7000000000
            grpc-keepalive-timeout: 30s
            watch-progress-notify-interval: 250000000
            experimental-corrupt-check-time: 0
            experimental-snapshot-catch-up-entries: 5000
            """)
        let limits = found.configuration.limits
        #expect(limits.pingInterval == .seconds(7) && limits.keepAliveTimeout == .seconds(30))
        #expect(limits.watchProgressInterval == .milliseconds(250))
        #expect(found.warnings.isEmpty)
    }

    @Test func `what has no meaning here is warned about, unless it is etcd's default`() throws {
        let found = try arguments(
            ["--snapshot-count=10000", "--log-outputs=stderr", "--backend-batch-limit", "250", "--memory-mlock",
                "--pre-vote=true"],
            ["ETCD_MAX_SNAPSHOTS": "7", "ETCD_DATA_DRI": "d", "ETCDCTL_API": "3"])
        #expect(found.warnings.compactMap { $0.metadata["flag"] }
            == ["--max-snapshots", "--backend-batch-limit", "--memory-mlock"])
        #expect(found.warnings[0].metadata
            == ["variable": "ETCD_DATA_DRI", "suggestion": "ETCD_DATA_DIR"])
    }

    @Test func `profiles are for those who ask for them, or log everything`() throws {
        #expect(try !plan([]).configuration.access.profiles)
        #expect(try plan(["--enable-pprof"]).configuration.access.profiles)
        #expect(try plan(["--log-level", "debug"]).configuration.access.profiles)
    }

    @Test func `history, quota and sockets are as the flags say`() throws {
        func made(_ words: String...) throws -> HostConfiguration { try plan(words).configuration }
        #expect(try made().autoCompaction == .off)
        #expect(try made("--auto-compaction-retention=1").autoCompaction == .periodic(.seconds(3600)))
        #expect(try made("--auto-compaction-retention=90s").autoCompaction == .periodic(.seconds(90)))
        #expect(try made("--auto-compaction-retention=0").autoCompaction == .off)
        #expect(
            try made("--auto-compaction-mode=revision", "--auto-compaction-retention=1000")
                .autoCompaction == .revision(1000))
        #expect(try made("--quota-backend-bytes=-1").quotaBytes == 0)
        #expect(try made("--quota-backend-bytes=8589934592").quotaBytes == 8_589_934_592)
        let url = "unix:///run/etcd.sock"
        let sockets = try made("--listen-client-urls=\(url)", "--advertise-client-urls=\(url)")
        #expect(sockets.listeners.map(\.unixPath) == ["/run/etcd.sock"])
        #expect(sockets.members[0].clientURLs == [url])
    }

    @Test func `names, suites and patience of connections are as the flags say`() throws {
        let secure = [
            "--listen-client-urls=https://127.0.0.1:1", "--advertise-client-urls=https://h:1",
            "--cert-file=c", "--key-file=k", "--trusted-ca-file=a",
        ]
        let made = try plan(
            secure + [
                "--client-cert-allowed-hostname=a.b,c.d", "--grpc-keepalive-min-time=1s",
                "--grpc-keepalive-interval=30s", "--grpc-keepalive-timeout=3s", "--cipher-suites",
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_AES_128_GCM_SHA256",
            ])
        let tls = try #require(made.configuration.clientTLS)
        #expect(made.warnings.isEmpty)
        #expect(tls.allowedHosts == ["a.b", "c.d"] && tls.allowedCommonNames.isEmpty)
        let older = try plan(secure + ["--tls-max-version=TLS1.2"])
        #expect(older.configuration.clientTLS?.isTLS13Refused == true && older.warnings.isEmpty)
        let byName = try plan(secure + ["--client-cert-allowed-cn=ann"])
        #expect(byName.configuration.clientTLS?.allowedCommonNames == ["ann"])
        #expect(
            refusal(secure + ["--client-cert-allowed-cn=ann", "--client-cert-allowed-hostname=h"])
                == "etcd: --client-cert-allowed-cn: and --client-cert-allowed-hostname are mutually exclusive")
        #expect(tls.ciphers == "ECDHE-RSA-AES128-GCM-SHA256")
        #expect(tls.cipherSuites == "TLS_AES_128_GCM_SHA256")
        let limits = made.configuration.limits
        #expect(limits.pingInterval == .seconds(1) && limits.keepAliveTimeout == .seconds(3))
        #expect(limits.keepAliveInterval == .seconds(30))
        #expect(
            refusal(secure + ["--cipher-suites=TLS_NONE"])
                == "etcd: --cipher-suites: unexpected TLS cipher suite \"TLS_NONE\"")
    }

    @Test func `certificates of its own, where no others are given`() throws {
        let listen = [
            "--data-dir", "/d", "--listen-client-urls", "https://localhost:1,https://127.0.0.1:2",
            "--advertise-client-urls", "https://localhost:1", "--listen-peer-urls", "https://10.0.0.1:3",
            "--initial-advertise-peer-urls", "https://10.0.0.1:3", "--initial-cluster",
            "default=https://10.0.0.1:3",
        ]
        let made = try plan(
            listen + ["--auto-tls", "--peer-auto-tls", "--self-signed-cert-validity", "3"])
        #expect(
            made.selfSigned == [
                SelfSignedFiles(
                    directory: "/d/fixtures/client", hosts: ["localhost", "127.0.0.1"], years: 3),
                SelfSignedFiles(directory: "/d/fixtures/peer", hosts: ["10.0.0.1"], years: 3),
            ])
        let client = made.configuration.clientTLS, peer = made.configuration.peerTLS
        #expect(client?.certificate == "/d/fixtures/client/cert.pem" && client?.ca == nil)
        #expect(client?.requiresClientCertificate == false && peer?.isSelfSigned == true)
        #expect(peer?.requiresClientCertificate == false)

        let given = try plan(
            listen + [
                "--auto-tls", "--cert-file", "c", "--key-file", "k", "--peer-auto-tls",
            ])
        #expect(given.configuration.clientTLS?.isSelfSigned == false && given.selfSigned.count == 1)
        #expect(given.warnings.contains { $0.message == "ignoring client auto TLS since certs given" })
        // Without https there is nothing to make them for.
        #expect(try plan(["--auto-tls", "--peer-auto-tls"]).selfSigned.isEmpty)
    }

    @Test func `patience and warnings`() throws {
        let limits = try plan([
            "--heartbeat-interval", "500", "--election-timeout", "5000", "--warning-apply-duration",
            "1s", "--experimental-warning-unary-request-duration", "2s", "--metrics", "extensive",
        ]).configuration.limits
        #expect(limits.electionTimeout == .seconds(5) && limits.slowApply == .seconds(1))
        #expect(limits.slowCall == .seconds(2) && limits.measuresCalls)
        let usual = try plan([]).configuration.limits
        #expect(usual == HostConfiguration.Limits())
    }

    // MARK: Discovery

    /// An answer of DNS: its question, then a record for each target, whose end is the question's.
    private func dns(_ targets: [(String, UInt16)], domain: String = "example.com") -> [UInt8] {
        func name(_ text: String) -> [UInt8] {
            text.split(separator: ".").flatMap { [UInt8($0.utf8.count)] + Array($0.utf8) }
        }
        var out: [UInt8] = [0, 1, 0x81, 0x80, 0, 1, 0, UInt8(targets.count), 0, 0, 0, 0]
        out += name("_etcd-server._tcp")
        let end = UInt8(out.count)
        out += name(domain) + [0, 0, 33, 0, 1]
        for (target, port) in targets {
            let data: [UInt8] =
                [0, 0, 0, 0, UInt8(port >> 8), UInt8(port & 0xFF)] + name(target) + [0xC0, end]
            out += [0xC0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, UInt8(data.count)] + data
        }
        return out
    }

    private func discovered(
        _ words: [String], secure: [UInt8]? = nil, plain: [UInt8]? = nil
    ) throws -> EtcdPlan {
        try EtcdPlan(
            try arguments(["--discovery-srv", "example.com"] + words),
            resolver: EtcdResolver(
                services: { name in
                    switch name {
                    case "_etcd-server-ssl._tcp.example.com": secure
                    case "_etcd-server._tcp.example.com", "_etcd-server-blue._tcp.example.com": plain
                    default: nil
                    }
                },
                address: { host in
                    ["a.example.com": "10.0.0.1", "b.example.com": "10.0.0.2"][host] ?? host
                }))
    }

    @Test func `the members are those of DNS, and every node counts them alike`() throws {
        let answer = dns([("b", 2380), ("a", 2380)])
        #expect(
            ServiceRecord.parse(answer) == [
                ServiceRecord(target: "b.example.com", port: 2380),
                ServiceRecord(target: "a.example.com", port: 2380),
            ])
        func node(_ name: String, _ address: String, _ more: [String] = []) throws -> EtcdPlan {
            let peer = "http://\(address):2380"
            return try discovered(
                ["--name", name, "--initial-advertise-peer-urls", peer, "--listen-peer-urls",
                    "http://0.0.0.0:2380"] + more, plain: answer)
        }
        let one = try node("one", "10.0.0.1"), two = try node("two", "10.0.0.2")
        #expect(one.configuration.clusterID == two.configuration.clusterID)
        #expect(one.configuration.nodeID == NodeID(1) && two.configuration.nodeID == NodeID(2))
        #expect(one.configuration.members.map(\.name) == ["one", "b.example.com:2380"])
        #expect(one.configuration.members.map(\.peer) == two.configuration.members.map(\.peer))
        #expect(try node("one", "10.0.0.1", ["--discovery-srv-name", "blue"]).members.members.count == 2)
        #expect(throws: ConfigurationError.self) { try node("three", "10.0.0.3") }
        #expect(throws: ConfigurationError.self) { try discovered([]) }
        #expect(throws: ConfigurationError.self) {
            try discovered(
                ["--initial-advertise-peer-urls", "http://10.0.0.1:2380"], secure: answer)
        }
        for length in 0..<answer.count { _ = ServiceRecord.parse(Array(answer.prefix(length))) }
        // Names that end where they begin.
        var loop = answer
        loop[answer.count - 1] = UInt8(answer.count - 2)
        #expect(ServiceRecord.parse(loop) == nil)
    }

    // MARK: Errors

    @Test(arguments: [
        (["--nmae", "x"], "etcd: --nmae: flag provided but not defined; did you mean --name?"),
        (["--qqqqqqqqqq"], "etcd: --qqqqqqqqqq: flag provided but not defined"),
        (["--name"], "etcd: --name: flag needs an argument"),
        (["serve"], "etcd: \"serve\" is not a valid flag"),
        (["--max-txn-ops", "many"], "etcd: --max-txn-ops: \"many\" is not a whole number"),
        (["--client-cert-auth=maybe"], "etcd: --client-cert-auth: \"maybe\" is not true or false"),
        (["--discovery", "https://discovery.example/1"],
            "etcd: --discovery: there is no discovery service: name the members with --initial-cluster, "
                + "or by SRV records with --discovery-srv"),
        (["--listen-peer-urls", "https://127.0.0.1:2380", "--initial-advertise-peer-urls",
            "https://127.0.0.1:2380", "--initial-cluster", "default=https://127.0.0.1:2380",
            "--peer-cert-file", "c", "--peer-key-file", "k", "--peer-trusted-ca-file", "a",
            "--peer-client-cert-file", "d"],
            "etcd: --peer-client-key-file: certificate and key go together"),
        (["--discovery-srv", "example.com", "--initial-cluster", "default=http://h:1"],
            "etcd: --discovery-srv: multiple discovery or bootstrap flags are set. Choose one of "
                + "\"initial-cluster\" or \"discovery-srv\""),
        (["--heartbeat-interval", "300"],
            "etcd: --election-timeout: [1000ms] should be at least as 5 times as "
                + "--heartbeat-interval[300ms]"),
        (["--election-timeout", "60000"],
            "etcd: --election-timeout: [60000ms] is too long, and should be set less than 50000ms"),
        (["--heartbeat-interval", "0"], "etcd: --heartbeat-interval: must be >0 (set to 0ms)"),
        (["--metrics", "all"], "etcd: --metrics: \"all\" is not basic or extensive"),
        (["--listen-client-urls", "unix://"],
            "etcd: --listen-client-urls: unix://: a socket needs a path of at most 107 bytes"),
        (["--listen-peer-urls", "unix://p"],
            "etcd: --listen-peer-urls: unix://p: peers talk over the network"),
        (["--auto-compaction-retention", "soon"],
            "etcd: --auto-compaction-retention: \"soon\" is not a time such as 5m, or hours"),
        (["--auto-compaction-mode", "revision", "--auto-compaction-retention", "5m"],
            "etcd: --auto-compaction-retention: \"5m\" is not a number of revisions"),
        (["--auto-compaction-mode", "never"],
            "etcd: --auto-compaction-mode: \"never\" is not periodic or revision"),
        (["--quota-backend-bytes", "much"],
            "etcd: --quota-backend-bytes: \"much\" is not a whole number"),
        (["--listen-client-urls", "http://127.0.0.1:1"],
            "etcd: --advertise-client-urls: is required when --listen-client-urls is set explicitly"),
        (["--listen-peer-urls", "http://example.com:1"],
            "etcd: --listen-peer-urls: expected IP in URL for binding (http://example.com:1)"),
        (["--listen-peer-urls", "http://127.0.0.1:2379"],
            "etcd: --listen-peer-urls: an address is used for two purposes"),
        (["--listen-peer-urls", "https://127.0.0.1:1"],
            "etcd: --listen-peer-urls: https://127.0.0.1:1 is https, but the members' advertised peer "
                + "URLs are http"),
        (["--initial-cluster", "a=http://h:1,b=https://i:1", "--name", "a"],
            "etcd: --initial-cluster: http and https must not be mixed between peers"),
        (["--initial-cluster", "a=http://h:1,b=http://h:1", "--name", "a"],
            "etcd: --initial-cluster: http://h:1 is given twice"),
        (["--initial-cluster", "a=http://h:1"],
            "etcd: --initial-cluster: couldn't find local name \"default\" in the initial cluster "
                + "configuration"),
        (["--initial-cluster-state", "existing"],
            "etcd: --initial-cluster: names no member of the cluster that is to be joined"),
        (["--cert-file", "c"], "etcd: --key-file: certificate and key go together"),
        (["--tls-min-version", "TLS1.3", "--tls-max-version", "TLS1.2"],
            "etcd: --tls-min-version: min version (TLS1.3) is greater than max version (TLS1.2)"),
        (["--log-level", "loud"], "etcd: --log-level: unrecognized level: \"loud\""),
    ])
    func `errors name the flag`(words: [String], message: String) {
        #expect(refusal(words) == message)
    }

    @Test func `errors of the environment and of the file name their place`() {
        #expect(
            refusal([], ["ETCD_MAX_TXN_OPS": "x"])
                == "environment: ETCD_MAX_TXN_OPS: \"x\" is not a whole number")
        #expect(
            refusal(["--config-file=f"], file: "name: a\nmax-txn-ops: x\n")
                == "f:2: max-txn-ops: \"x\" is not a whole number")
        #expect(
            refusal(["--config-file=f"], file: "nmae: a\n")
                == "f:1: nmae: unknown key; did you mean name?")
        #expect(refusal(["--config-file=f"], file: "- a\n") == "f:1: expected keys and values")
    }

    @Test func `version and help are answered whatever else is there`() throws {
        #expect(try arguments(["--version"], ["ETCD_MAX_TXN_OPS": "x"]).request == .version)
        #expect(try arguments(["-h"]).request == .help)
        #expect(try arguments(["--version=false"]).request == .start)
    }

    // MARK: Later starts

    @Test func `the members are kept, and win over the flags`() throws {
        let first = try plan(three + ["--name", "b"])
        let kept = try EtcdMembers(yaml: first.members.yaml, file: "members.yaml")
        #expect(kept == first.members)
        let again = try plan(["--initial-cluster-state", "existing"], restored: kept)
        #expect(again.configuration.clusterID == first.configuration.clusterID)
        #expect(again.configuration.nodeName == "b" && again.configuration.nodeID == NodeID(2))
        #expect(again.configuration.members.map(\.name) == ["a", "b", "c"])
        let same = try plan(three + ["--name", "b"], restored: kept)
        #expect(same.warnings == first.warnings)
        let other = try plan(
            ["--name", "z", "--initial-cluster", "z=http://h9:1"], restored: kept)
        #expect(other.configuration.nodeName == "b")
        #expect(other.warnings.compactMap { $0.metadata["flag"] } == ["--name", "--initial-cluster"])
    }

    @Test func `Go's times`() {
        #expect(EtcdArguments.duration("1h30m") == .seconds(5400))
        #expect(EtcdArguments.duration("1.5s") == .milliseconds(1500))
        #expect(EtcdArguments.duration("0") == .zero)
        for text in ["", "5", "s", "5 s", "-1s", "1.2.3s", "9999999999h"] {
            #expect(EtcdArguments.duration(text) == nil)
        }
    }
}
