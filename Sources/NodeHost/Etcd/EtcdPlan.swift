import Primitives

/// etcd's flags as the configuration of one node of region `r1`, with nothing outside that region.
package struct EtcdPlan: Equatable, Sendable {
    package var configuration: HostConfiguration
    package var warnings: [EtcdWarning]
    package var members: EtcdMembers
    /// What --auto-tls and --peer-auto-tls ask for: made before the start, if not there yet.
    var selfSigned: [SelfSignedFiles]

    /// `etcd`'s default is NAME.etcd in the working directory.
    package static func dataDirectory(_ arguments: EtcdArguments) -> String {
        arguments.nonempty("data-dir") ?? arguments.text("name") + ".etcd"
    }

    /// `restored`: what the data directory knows already; it wins over the flags, as with etcd.
    package init(
        _ arguments: EtcdArguments, restored: EtcdMembers? = nil,
        resolver: EtcdResolver = .system
    ) throws(ConfigurationError) {
        var builder = Builder(arguments: arguments, resolver: resolver)
        try builder.readMembers(restored)
        try builder.readListeners()
        try builder.readPeers()
        try builder.readTLS()
        try builder.readLimits()
        builder.readAccess()
        try builder.readAuth()
        try builder.readLog()
        configuration = builder.configuration
        warnings = builder.arguments.warnings
        members = builder.members
        selfSigned = builder.selfSigned
    }
}

private struct Builder {
    var arguments: EtcdArguments
    let resolver: EtcdResolver
    var configuration = HostConfiguration()
    var selfSigned: [SelfSignedFiles] = []
    /// Of the https URLs to listen on, as they were given.
    var secureHosts: [String] = []
    var members = EtcdMembers(
        clusterName: "", clusterID: 0, node: NodeID(1), partitions: 8, isPeerSecure: false, members: [])

    // MARK: Who

    mutating func readMembers(_ restored: EtcdMembers?) throws(ConfigurationError) {
        let state = arguments.text("initial-cluster-state")
        guard state == "new" || state == "existing" else {
            throw arguments.refuse("initial-cluster-state", "\"\(state)\" is not new or existing")
        }
        guard !arguments.text("name").isEmpty else {
            throw arguments.refuse("name", "a member needs a name")
        }
        configuration.isForcedAlone = arguments.isOn("force-new-cluster")
        if let restored {
            members = restored
            noteIgnored(restored)
            if configuration.isForcedAlone { members.members.removeAll { $0.id != restored.node } }
        } else if configuration.isForcedAlone {
            throw arguments.refuse(
                "force-new-cluster",
                "there is no member's data in \(EtcdPlan.dataDirectory(arguments)) to make a cluster of")
        } else if state == "existing" {
            members = try newMembers()
            guard members.members.count > 1 else {
                throw arguments.refuse(
                    "initial-cluster", "names no member of the cluster that is to be joined")
            }
            configuration.isJoining = true
        } else {
            members = try newMembers()
        }
        configuration.clusterName = members.clusterName
        configuration.clusterID = members.clusterID
        configuration.partitions = members.partitions
        configuration.nodeID = members.node
        configuration.nodeName = members.me?.name ?? arguments.text("name")
        configuration.dataDirectory = Files.absolute(EtcdPlan.dataDirectory(arguments))
        configuration.members = members.members.map {
            HostConfiguration.Member(id: $0.id, name: $0.name, peer: $0.peer, clientURLs: [])
        }
    }

    private mutating func noteIgnored(_ restored: EtcdMembers) {
        if arguments.isGiven("name"), let name = restored.me?.name, name != arguments.text("name") {
            arguments.warn(
                "flag is ignored: the data directory has been initialized",
                ["flag": "--name", "name": name])
        }
        guard arguments.isGiven("initial-cluster") else { return }
        // A list that cannot be read is ignored like any other, with the same warning.
        let given = try? arguments.initialCluster().compactMap { member in
            member.urls.first.map { "\(member.name)=\($0.address)" }
        }
        if given != restored.members.map({ "\($0.name)=\($0.peer)" }) {
            arguments.warn(
                "flag is ignored: the data directory has been initialized",
                ["flag": "--initial-cluster"])
        }
    }

    private mutating func newMembers() throws(ConfigurationError) -> EtcdMembers {
        let name = arguments.text("name"), flag = "initial-cluster"
        let advertised = try arguments.urls("initial-advertise-peer-urls")
        var cluster: [(name: String, urls: [EtcdURL])] = [(name: name, urls: advertised)]
        if arguments.nonempty("discovery-srv") != nil {
            cluster = try arguments.discoveredCluster(advertised, resolver)
        } else if arguments.isGiven(flag) {
            cluster = try arguments.initialCluster()
            guard let me = cluster.first(where: { $0.name == name }) else {
                throw arguments.refuse(
                    flag, "couldn't find local name \"\(name)\" in the initial cluster configuration")
            }
            if arguments.isGiven("initial-advertise-peer-urls"), Set(me.urls) != Set(advertised) {
                throw arguments.refuse(
                    flag, "has \(name)=\(me.urls[0]), but --initial-advertise-peer-urls is "
                        + "\(arguments.text("initial-advertise-peer-urls"))")
            }
        }
        guard cluster.count <= 9 else {
            throw arguments.refuse(flag, "\(cluster.count) members; at most 9")
        }
        let schemes = Set(cluster.flatMap { $0.urls.map(\.isSecure) })
        guard schemes.count == 1, let isSecure = schemes.first else {
            throw arguments.refuse(
                cluster.count > 1 ? flag : "initial-advertise-peer-urls",
                schemes.isEmpty ? "no URL is given" : "http and https must not be mixed between peers")
        }
        var found: [EtcdMembers.Member] = [], number: UInt16 = 0
        for (name, urls) in cluster {
            number += 1
            if urls.count > 1 {
                arguments.warn(
                    "member has several peer URLs: only the first is used",
                    ["member": name, "url": "\(urls[0])"])
            }
            found.append(.init(id: NodeID(number), name: name, peer: urls[0].address))
        }
        let token = arguments.text("initial-cluster-token")
        // What DNS names, every node names by its own name: they agree on the rest.
        var named = found
        if arguments.nonempty("discovery-srv") != nil {
            for index in named.indices { named[index].name = "" }
        }
        return EtcdMembers(
            clusterName: token.isEmpty ? "etcd-cluster" : token,
            clusterID: EtcdMembers.clusterID(token: token, members: named),
            node: found.first { $0.name == name }?.id ?? NodeID(1),
            partitions: HostConfiguration().partitions, isPeerSecure: isSecure, members: found)
    }

    // MARK: Where

    mutating func readListeners() throws(ConfigurationError) {
        let client = try arguments.listenURLs("listen-client-urls")
        guard let first = client.first else {
            throw arguments.refuse("listen-client-urls", "no URL is given")
        }
        if arguments.isGiven("listen-client-urls"), !arguments.isGiven("advertise-client-urls") {
            throw arguments.refuse(
                "advertise-client-urls", "is required when --listen-client-urls is set explicitly")
        }
        let plain = try arguments.listenURLs("listen-client-http-urls")
        let metrics = try arguments.listenURLs("listen-metrics-urls")
        for url in client + plain + metrics where url.isSecure && url.unixPath == nil {
            if !secureHosts.contains(url.address.host) { secureHosts.append(url.address.host) }
        }
        configuration.clientAddress = first.listenAddress
        configuration.listeners =
            (client + plain).map {
                .init(address: $0.listenAddress, isSecure: $0.isSecure, unixPath: $0.unixPath)
            }
            + metrics.map {
                .init(
                    address: $0.listenAddress, isSecure: $0.isSecure, servesOnlyMetrics: true,
                    unixPath: $0.unixPath)
            }
        let advertised = try arguments.urls("advertise-client-urls").map { "\($0)" }
        guard !advertised.isEmpty else {
            throw arguments.refuse("advertise-client-urls", "no URL is given")
        }
        for index in configuration.members.indices
        where configuration.members[index].id == configuration.nodeID {
            configuration.members[index].clientURLs = advertised
        }
    }

    mutating func readPeers() throws(ConfigurationError) {
        let flag = "listen-peer-urls"
        let peer = try arguments.listenURLs(flag)
        guard let first = peer.first else { throw arguments.refuse(flag, "no URL is given") }
        guard peer.count == 1 else {
            throw arguments.refuse(flag, "several addresses for peers are not supported yet")
        }
        guard first.unixPath == nil else {
            throw arguments.refuse(flag, "\(first): peers talk over the network")
        }
        guard first.isSecure == members.isPeerSecure else {
            let (here, there) = first.isSecure ? ("https", "http") : ("http", "https")
            throw arguments.refuse(
                flag, "\(first) is \(here), but the members' advertised peer URLs are \(there)")
        }
        configuration.peerAddress = first.listenAddress
        let taken = configuration.listeners.map(\.address) + [first.listenAddress]
        guard Set(taken).count == taken.count else {
            throw arguments.refuse(flag, "an address is used for two purposes")
        }
    }

    // MARK: TLS

    mutating func readTLS() throws(ConfigurationError) {
        for flag in ["tls-min-version", "tls-max-version"] {
            let version = arguments.text(flag)
            guard ["", "TLS1.2", "TLS1.3"].contains(version) else {
                throw arguments.refuse(flag, "\"\(version)\" is not TLS1.2 or TLS1.3")
            }
        }
        let isTLS13Required = arguments.text("tls-min-version") == "TLS1.3"
        guard !isTLS13Required || arguments.text("tls-max-version") != "TLS1.2" else {
            throw arguments.refuse(
                "tls-min-version", "min version (TLS1.3) is greater than max version (TLS1.2)")
        }
        let secure = configuration.listeners.filter(\.isSecure)
        var client = try files(prefix: "", revocations: "client-crl-file")
        if client == nil {
            client = try selfSigned(prefix: "", for: secureHosts)
        }
        if let listener = secure.first, client == nil {
            throw arguments.refuse(
                listener.servesOnlyMetrics ? "listen-metrics-urls" : "listen-client-urls",
                "TLS key/cert must be provided for https://\(listener.address) "
                    + "(--cert-file and --key-file, or --auto-tls)")
        }
        if secure.isEmpty, client != nil {
            arguments.warn(
                "scheme is http while key and cert files are present; ignoring key and cert files",
                ["flag": "--listen-client-urls"])
        }
        configuration.clientTLS = secure.isEmpty ? nil : client
        configuration.peerTLS = try peerFiles()
        configuration.namesPeersByHost = true
    }

    private mutating func peerFiles() throws(ConfigurationError) -> HostConfiguration.TLSFiles? {
        var peer = try files(prefix: "peer-", revocations: "peer-crl-file")
        if peer == nil, members.isPeerSecure {
            let own = try selfSigned(prefix: "peer-", for: [configuration.peerAddress.host])
            if let own { return own }
        }
        if !members.isPeerSecure {
            if peer != nil {
                arguments.warn(
                    "scheme is http while key and cert files are present; ignoring key and cert files",
                    ["flag": "--listen-peer-urls"])
            } else if members.members.count > 1 {
                arguments.warn(
                    "peers talk without TLS; this is strongly discouraged",
                    ["address": "\(configuration.peerAddress)"])
            }
            return nil
        }
        guard peer != nil else {
            throw arguments.refuse(
                "listen-peer-urls",
                "TLS key/cert must be provided for https (--peer-cert-file and --peer-key-file, or "
                    + "--peer-auto-tls)")
        }
        guard peer?.ca != nil else {
            throw arguments.refuse(
                "peer-trusted-ca-file", "is required: peers always check each other's certificates")
        }
        peer?.requiresClientCertificate = true
        return peer
    }

    /// --auto-tls: nil if it is not asked for, or of no use.
    private mutating func selfSigned(
        prefix: String, for hosts: [String]
    ) throws(ConfigurationError) -> HostConfiguration.TLSFiles? {
        guard arguments.isOn(prefix + "auto-tls"), !hosts.isEmpty else { return nil }
        let years = arguments.number("self-signed-cert-validity")
        guard (1...100).contains(years) else {
            throw arguments.refuse("self-signed-cert-validity", "must be of 1 to 100 years")
        }
        let made = SelfSignedFiles(
            directory: configuration.dataDirectory + "/fixtures/"
                + (prefix.isEmpty ? "client" : "peer"),
            hosts: hosts, years: years)
        selfSigned.append(made)
        var files = HostConfiguration.TLSFiles(
            ca: nil, certificate: made.certificate, key: made.key, requiresClientCertificate: false)
        files.isSelfSigned = true
        readVersions(into: &files)
        try readCiphers(into: &files)
        return files
    }

    /// etcd asks clients for certificates as soon as it is told an authority for them.
    private mutating func files(
        prefix: String, revocations: String
    ) throws(ConfigurationError) -> HostConfiguration.TLSFiles? {
        let certificate = arguments.nonempty(prefix + "cert-file")
        let key = arguments.nonempty(prefix + "key-file")
        guard let certificate, let key else {
            if certificate == nil, key == nil { return nil }
            throw arguments.refuse(
                prefix + (certificate == nil ? "cert-file" : "key-file"),
                "certificate and key go together")
        }
        if arguments.isOn(prefix + "auto-tls") {
            arguments.warn(
                "ignoring \(prefix.isEmpty ? "client" : "peer") auto TLS since certs given",
                ["flag": "--\(prefix)auto-tls"])
        }
        let ca = arguments.nonempty(prefix + "trusted-ca-file")
        let asks = arguments.isOn(prefix + "client-cert-auth")
        if asks, ca == nil {
            throw arguments.refuse(
                prefix + "client-cert-auth", "needs --\(prefix)trusted-ca-file")
        }
        var files = HostConfiguration.TLSFiles(
            ca: ca, certificate: certificate, key: key, requiresClientCertificate: ca != nil)
        if !prefix.isEmpty {
            files.clientCertificate = arguments.nonempty(prefix + "client-cert-file")
            files.clientKey = arguments.nonempty(prefix + "client-key-file")
            if (files.clientCertificate == nil) != (files.clientKey == nil) {
                throw arguments.refuse(
                    prefix + (files.clientKey == nil ? "client-key-file" : "client-cert-file"),
                    "certificate and key go together")
            }
        }
        files.revocations = arguments.nonempty(revocations)
        readVersions(into: &files)
        try readAllowedNames(into: &files, prefix.isEmpty ? "client" : "peer", needs: prefix + "trusted-ca-file")
        try readCiphers(into: &files)
        return files
    }

    private func readVersions(into files: inout HostConfiguration.TLSFiles) {
        files.isTLS13Required = arguments.text("tls-min-version") == "TLS1.3"
        files.isTLS13Refused = arguments.text("tls-max-version") == "TLS1.2"
    }

    private func readAllowedNames(
        into files: inout HostConfiguration.TLSFiles, _ whose: String, needs authority: String
    ) throws(ConfigurationError) {
        let byName = whose + "-cert-allowed-cn", byHost = whose + "-cert-allowed-hostname"
        files.allowedCommonNames = arguments.list(byName)
        files.allowedHosts = arguments.list(byHost)
        for (flag, names) in [(byName, files.allowedCommonNames), (byHost, files.allowedHosts)]
        where files.ca == nil && !names.isEmpty {
            throw arguments.refuse(flag, "needs --\(authority)")
        }
        guard files.allowedCommonNames.isEmpty || files.allowedHosts.isEmpty else {
            throw arguments.refuse(byName, "and --\(byHost) are mutually exclusive")
        }
    }

    /// Go's names of suites are IANA's; OpenSSL has its own for those before TLS 1.3.
    private func readCiphers(
        into files: inout HostConfiguration.TLSFiles
    ) throws(ConfigurationError) {
        let flag = "cipher-suites"
        var older: [String] = [], newer: [String] = []
        for name in arguments.list(flag) {
            if let openSSL = Self.ciphers[name] {
                older.append(openSSL)
            } else if Self.ciphersOfTLS13.contains(name) {
                newer.append(name)
            } else {
                throw arguments.refuse(flag, "unexpected TLS cipher suite \"\(name)\"")
            }
        }
        if !older.isEmpty { files.ciphers = older.joined(separator: ":") }
        if !newer.isEmpty { files.cipherSuites = newer.joined(separator: ":") }
    }

    private static let ciphersOfTLS13: Set<String> = [
        "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256",
    ]
    private static let ciphers = [
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305": "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305": "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
        "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
        "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
        "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
        "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
        "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
        "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA", "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
    ]

    // MARK: The rest

    mutating func readLimits() throws(ConfigurationError) {
        configuration.limits.requestBytesMax = bounded("max-request-bytes", 1_024...(64 << 20))
        if configuration.limits.requestBytesMax > 10 << 20 {
            arguments.warn(
                "exceeded recommended request limit",
                ["flag": "--max-request-bytes", "recommended-request-limit-bytes": "\(10 << 20)"])
        }
        configuration.limits.transactionOperationsMax = bounded("max-txn-ops", 1...10_000)
        configuration.limits.concurrentStreamsMax =
            UInt32(bounded("max-concurrent-streams", 1...Int(UInt32.max)))
        let flag = "watch-progress-notify-interval"
        let older = "experimental-" + flag
        let chosen = arguments.isGiven(flag) ? flag : older
        guard let interval = EtcdArguments.duration(arguments.text(chosen)),
            interval >= .milliseconds(100)
        else { throw arguments.refuse(chosen, "must be at least 100ms") }
        configuration.limits.watchProgressInterval = interval
        try readKeepAlive()
        try readTicks()
        try readWarnings()
        try readSpace()
    }

    /// Here nothing beats once in --heartbeat-interval; that the two fit together is checked as in etcd.
    private mutating func readTicks() throws(ConfigurationError) {
        let beat = arguments.number("heartbeat-interval")
        let timeout = arguments.number("election-timeout")
        guard beat > 0 else {
            throw arguments.refuse("heartbeat-interval", "must be >0 (set to \(beat)ms)")
        }
        guard timeout >= beat * 5 else {
            throw arguments.refuse(
                "election-timeout",
                "[\(timeout)ms] should be at least as 5 times as --heartbeat-interval[\(beat)ms]")
        }
        guard timeout <= 50_000 else {
            throw arguments.refuse(
                "election-timeout", "[\(timeout)ms] is too long, and should be set less than 50000ms")
        }
        configuration.limits.electionTimeout = .milliseconds(UInt64(timeout))
    }

    private mutating func readWarnings() throws(ConfigurationError) {
        func span(_ flag: String, _ fallback: TimeSpan) -> TimeSpan {
            let older = "experimental-" + flag
            return EtcdArguments.duration(arguments.text(arguments.isGiven(flag) ? flag : older))
                ?? fallback
        }
        configuration.limits.slowApply = span("warning-apply-duration", .milliseconds(100))
        configuration.limits.slowCall = span("warning-unary-request-duration", .milliseconds(300))
        switch arguments.text("metrics") {
        case "basic", "": configuration.limits.measuresCalls = false
        case "extensive": configuration.limits.measuresCalls = true
        case let other:
            throw arguments.refuse("metrics", "\"\(other)\" is not basic or extensive")
        }
    }

    private mutating func readKeepAlive() throws(ConfigurationError) {
        func span(_ name: String, atLeast least: TimeSpan) throws(ConfigurationError) -> TimeSpan {
            guard let span = EtcdArguments.duration(arguments.text(name)), span >= least else {
                throw arguments.refuse(name, "must be a time of at least \(least)")
            }
            return span
        }
        configuration.limits.pingInterval = try span("grpc-keepalive-min-time", atLeast: .zero)
        configuration.limits.keepAliveInterval = try span(
            "grpc-keepalive-interval", atLeast: .seconds(1))
        configuration.limits.keepAliveTimeout = try span(
            "grpc-keepalive-timeout", atLeast: .seconds(1))
    }

    /// etcd's default quota guards a file that must fit into memory; here 0 leaves it to the disk.
    private mutating func readSpace() throws(ConfigurationError) {
        let quota = "quota-backend-bytes"
        guard let bytes = Int64(arguments.text(quota)) else {
            throw arguments.refuse(quota, "\"\(arguments.text(quota))\" is not a whole number")
        }
        configuration.quotaBytes = max(0, bytes)
        let flag = "auto-compaction-retention"
        let text = arguments.text(flag), mode = arguments.text("auto-compaction-mode")
        let number = Int64(text.isEmpty ? "0" : text)
        switch mode {
        case "periodic", "":
            // A bare number is of hours.
            let period = number.map { TimeSpan.seconds(UInt64(max(0, $0)) * 3600) }
            guard let period = period ?? EtcdArguments.duration(text) else {
                throw arguments.refuse(flag, "\"\(text)\" is not a time such as 5m, or hours")
            }
            configuration.autoCompaction = period == .zero ? .off : .periodic(period)
        case "revision":
            guard let number else {
                throw arguments.refuse(flag, "\"\(text)\" is not a number of revisions")
            }
            configuration.autoCompaction = number > 0 ? .revision(number) : .off
        default:
            throw arguments.refuse("auto-compaction-mode", "\"\(mode)\" is not periodic or revision")
        }
    }

    mutating func readAccess() {
        configuration.access.isGatewayEnabled = arguments.isOn("enable-grpc-gateway")
        configuration.access.origins = Set(arguments.list("cors"))
        configuration.access.hosts = Set(arguments.list("host-whitelist"))
        // As etcd: also when everything is logged.
        configuration.access.profiles =
            arguments.isOn("enable-pprof") || arguments.text("log-level") == "debug"
    }

    private mutating func bounded(_ name: String, _ range: ClosedRange<Int>) -> Int {
        let value = arguments.number(name)
        let used = min(max(value, range.lowerBound), range.upperBound)
        if used != value {
            arguments.warn(
                "flag is out of range: the nearest value is used",
                ["flag": "--" + name, "value": "\(value)", "used": "\(used)"])
        }
        return used
    }

    mutating func readAuth() throws(ConfigurationError) {
        configuration.auth.usesCertificateNames = arguments.isOn("client-cert-auth")
        let seconds = bounded("auth-token-ttl", 1...(365 * 86_400))
        do throws(AuthTokenError) {
            let read = try AuthConfiguration.tokens(
                arguments.text("auth-token"), simpleTimeToLive: .seconds(UInt64(seconds)))
            configuration.auth.tokens = read.tokens
            if !read.unknown.isEmpty {
                arguments.warn(
                    "unknown token options",
                    ["flag": "--auth-token", "options": read.unknown.joined(separator: " ")])
            }
        } catch {
            throw arguments.refuse("auth-token", error.text)
        }
        let cost = arguments.number("bcrypt-cost")
        if AuthConfiguration.costs.contains(cost) {
            configuration.auth.bcryptCost = cost
        } else {
            arguments.warn(
                "use default bcrypt cost instead of the invalid given cost",
                ["flag": "--bcrypt-cost", "value": "\(cost)"])
        }
    }

    mutating func readLog() throws(ConfigurationError) {
        switch arguments.text("log-level") {
        case "debug": configuration.logLevel = .debug
        case "info", "": configuration.logLevel = .info
        case "warn": configuration.logLevel = .warning
        case "error": configuration.logLevel = .error
        case "dpanic", "panic", "fatal": configuration.logLevel = .critical
        case let other: throw arguments.refuse("log-level", "unrecognized level: \"\(other)\"")
        }
        switch arguments.text("log-format") {
        case "json", "": configuration.logFormat = .json
        case "console": configuration.logFormat = .text
        case let other: throw arguments.refuse("log-format", "unknown log format: \"\(other)\"")
        }
    }
}
