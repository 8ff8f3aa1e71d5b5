import Primitives

extension HostConfiguration {
    /// Reads, checks each value, then checks that the whole makes sense together.
    package init(yaml: String, file: String) throws(ConfigurationError) {
        self.init()
        var root = try YAMLReader(text: yaml, file: file)
        try readIdentity(&root)
        try readAddresses(&root)
        try readPeers(&root)
        if let n = try root.integer("partitions", in: 1...4096) { partitions = n }
        if let n = try root.integer("replicas", in: 1...Placement.replicasMax) { replicas = n }
        if let choice = try root.boolean("spread") { isSpread = choice }
        if let text = try root.parsed(
            "zone", expected: HostConfiguration.nameRule, HostConfiguration.name)
        {
            zone = text
        }
        if var reader = try root.mapping("splits") {
            if let n = try reader.integer("bytes", in: 0...(1 << 50)) { splits.bytes = n }
            if let n = try reader.integer("writesPerSecond", in: 0...100_000_000) {
                splits.writesPerSecond = n
            }
            if let span = try reader.parsed(
                "period", expected: "a time such as 10s", { TimeSpan(text: $0) }),
                span >= .seconds(1)
            {
                splits.period = span
            }
            if let n = try reader.integer("partitionsMax", in: 1...4096) { splits.partitionsMax = n }
            try reader.finish()
        }
        if var reader = try root.mapping("leaders") {
            if let on = try reader.boolean("balance") { leaders.isOn = on }
            if let n = try reader.integer("busyPercent", in: 1...100) { leaders.busy = UInt64(n) * 10 }
            if let n = try reader.integer("quietPercent", in: 0...100) { leaders.quiet = UInt64(n) * 10 }
            guard leaders.quiet < leaders.busy else {
                throw reader.fail("quietPercent must be below busyPercent")
            }
            try reader.finish()
        }
        if var tls = try root.mapping("tls") {
            clientTLS = try HostConfiguration.tlsFiles(&tls, "client", asksForClientAuth: true)
            peerTLS = try HostConfiguration.tlsFiles(&tls, "peer", asksForClientAuth: false)
            try tls.finish()
        }
        if var reader = try root.mapping("limits") { try readLimits(&reader) }
        if var http = try root.mapping("http") {
            if let on = try http.boolean("gateway") { access.isGatewayEnabled = on }
            if let on = try http.boolean("profiles") { access.profiles = on }
            if let origins = try http.strings("cors") { access.origins = Set(origins) }
            if let hosts = try http.strings("hosts") { access.hosts = Set(hosts) }
            try http.finish()
        }
        if var reader = try root.mapping("auth") { try readAuth(&reader) }
        if var log = try root.mapping("log") {
            if let level = try log.choice("level", LogLevel.self) { logLevel = level }
            if let format = try log.choice("format", LogFormat.self) { logFormat = format }
            try log.finish()
        }
        if let on = try root.boolean("faultInjection") { faultInjection = on }
        if let level = try root.integer(
            "featureLevel", in: Int(FeatureLevel.first)...Int(FeatureLevel.own) + 1)
        {
            featureLevel = UInt16(level)
        }
        if let delay = try root.parsed(
            "wanDelay", expected: "a time such as 80ms", { TimeSpan(text: $0) })
        {
            wanDelay = delay
        }
        try root.finish()
        try checkTogether(file: file)
    }

    // MARK: Parts

    private mutating func readIdentity(_ root: inout YAMLReader) throws(ConfigurationError) {
        if var cluster = try root.mapping("cluster") {
            clusterName = try cluster.required("name", try cluster.parsed(
                "name", expected: HostConfiguration.nameRule, HostConfiguration.name))
            clusterID = try cluster.id64("id") ?? HostConfiguration.clusterID(named: clusterName)
            try cluster.finish()
        } else {
            clusterID = HostConfiguration.clusterID(named: clusterName)
        }
        var region: YAMLReader = try root.required("region", try root.mapping("region"))
        regionID = RegionID(
            UInt16(try region.required("id", try region.integer("id", in: 1...65535))))
        regionName = try region.required("name", try region.parsed(
            "name", expected: HostConfiguration.nameRule, HostConfiguration.name))
        try region.finish()
        var node: YAMLReader = try root.required("node", try root.mapping("node"))
        nodeID = NodeID(UInt16(try node.required("id", try node.integer("id", in: 1...65535))))
        nodeName = try node.required("name", try node.parsed(
            "name", expected: HostConfiguration.nameRule, HostConfiguration.name))
        try node.finish()
        dataDirectory = try root.required("dataDir", try root.string("dataDir"))
    }

    private mutating func readAddresses(_ root: inout YAMLReader) throws(ConfigurationError) {
        guard var listen = try root.mapping("listen") else { return }
        if let address = try HostConfiguration.address(&listen, "client") { clientAddress = address }
        if let address = try HostConfiguration.address(&listen, "peer") { peerAddress = address }
        try listen.finish()
    }

    private mutating func readPeers(_ root: inout YAMLReader) throws(ConfigurationError) {
        for var item in try root.required("nodes", try root.mappings("nodes")) {
            let id = try HostConfiguration.nodeID(&item)
            members.append(
                Member(
                    id: id,
                    name: try item.required("name", try item.parsed(
                        "name", expected: HostConfiguration.nameRule, HostConfiguration.name)),
                    peer: try item.required("peer", try HostConfiguration.address(&item, "peer")),
                    clientURLs: try item.strings("client") ?? []))
            for url in members[members.count - 1].clientURLs
            where !url.hasPrefix("http://") && !url.hasPrefix("https://") {
                throw item.fail("client: \(url) is not an http:// or https:// address")
            }
            try item.finish()
        }
        for var item in try root.mappings("regions") ?? [] {
            var region = RemoteRegion(
                id: RegionID(
                    UInt16(try item.required("id", try item.integer("id", in: 1...65535)))),
                name: try item.required("name", try item.parsed(
                    "name", expected: HostConfiguration.nameRule, HostConfiguration.name)),
                nodes: [])
            for var node in try item.required("nodes", try item.mappings("nodes")) {
                let id = try HostConfiguration.nodeID(&node)
                region.nodes.append(
                    RemoteRegion.Node(
                        id: id, name: try node.string("name") ?? "\(region.name)-n\(id)",
                        peer: try node.required("peer", try HostConfiguration.address(&node, "peer"))))
                try node.finish()
            }
            try item.finish()
            remoteRegions.append(region)
        }
    }

    private mutating func readLimits(_ reader: inout YAMLReader) throws(ConfigurationError) {
        func set(_ field: WritableKeyPath<Limits, Int>, _ key: String, _ range: ClosedRange<Int>)
            throws(ConfigurationError)
        {
            if let value = try reader.integer(key, in: range) { limits[keyPath: field] = value }
        }
        try set(\.requestBytesMax, "requestBytesMax", 1_024...(64 << 20))
        try set(\.transactionOperationsMax, "transactionOperationsMax", 1...10_000)
        try set(\.blockCacheBytes, "blockCacheBytes", (1 << 20)...(1 << 40))
        try set(\.memtableBytes, "memtableBytes", (1 << 20)...(1 << 32))
        try set(\.currentCacheBytes, "currentCacheBytes", 0...(1 << 40))
        try set(\.openFilesMax, "openFilesMax", 16...1_000_000)
        try set(\.backgroundJobs, "backgroundJobs", 1...64)
        try set(\.logBytesBeforeFlush, "logBytesBeforeFlush", (1 << 20)...(1 << 40))
        try set(\.unreadAnswerBytes, "unreadAnswerBytes", (16 << 20)...(1 << 40))
        try set(\.halfSentRequestBytes, "halfSentRequestBytes", (16 << 20)...(1 << 40))
        try reader.finish()
    }

    private mutating func readAuth(_ reader: inout YAMLReader) throws(ConfigurationError) {
        var timeToLive = TimeSpan.seconds(300)
        if let span = try reader.parsed(
            "tokenTTL", expected: "a time such as 300s", { TimeSpan(text: $0) }), span >= .seconds(1)
        {
            timeToLive = span
        }
        auth.tokens = .simple(timeToLive: timeToLive)
        if let text = try reader.string("token") {
            do throws(AuthTokenError) {
                auth.tokens =
                    try AuthConfiguration.tokens(text, simpleTimeToLive: timeToLive).tokens
            } catch {
                throw reader.fail("token: " + error.text)
            }
        }
        if let cost = try reader.integer("bcryptCost", in: AuthConfiguration.costs) {
            auth.bcryptCost = cost
        }
        if let on = try reader.boolean("certificateNames") { auth.usesCertificateNames = on }
        try reader.finish()
    }

    private static func tlsFiles(
        _ tls: inout YAMLReader, _ key: String, asksForClientAuth: Bool
    ) throws(ConfigurationError) -> TLSFiles? {
        guard var reader = try tls.mapping(key) else { return nil }
        var files = TLSFiles(
            ca: try reader.required("ca", try reader.string("ca")),
            certificate: try reader.required("cert", try reader.string("cert")),
            key: try reader.required("key", try reader.string("key")))
        if asksForClientAuth, let required = try reader.boolean("clientCertAuth") {
            files.requiresClientCertificate = required
        }
        try reader.finish()
        return files
    }

    // MARK: Values

    static let nameRule = "a name of letters, digits, '.', '_' and '-', 64 at most"

    package static func name(_ text: String) -> String? {
        let good = text.utf8.allSatisfy {
            switch $0 {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"),
                UInt8(ascii: "-"):
                true
            default: false
            }
        }
        return good && (1...64).contains(text.utf8.count) && text != "." && text != ".." ? text : nil
    }

    private static func nodeID(_ reader: inout YAMLReader) throws(ConfigurationError) -> NodeID {
        NodeID(UInt16(try reader.required("id", try reader.integer("id", in: 1...65535))))
    }

    private static func address(
        _ reader: inout YAMLReader, _ key: String
    ) throws(ConfigurationError) -> NetworkAddress? {
        try reader.parsed(key, expected: "an address such as 10.0.0.1:2379 or [::1]:2379") {
            NetworkAddress($0)
        }
    }

    // MARK: The whole

    private func checkTogether(file: String) throws(ConfigurationError) {
        func refuse(_ path: String, _ message: String) -> ConfigurationError {
            ConfigurationError(file: file, line: nil, path: path, message: message)
        }
        guard clientAddress != peerAddress else {
            throw refuse("listen", "client and peer are the same address \(clientAddress)")
        }
        guard faultInjection || featureLevel == FeatureLevel.own else {
            throw refuse(
                "featureLevel", "only with faultInjection may a build pretend to be another one")
        }
        guard Set(members.map(\.id)).count == members.count else {
            throw refuse("nodes", "an id is given twice")
        }
        guard Set(members.map(\.name)).count == members.count else {
            throw refuse("nodes", "a name is given twice")
        }
        guard let me else { throw refuse("nodes", "node \(nodeID) (this one) is not in the list") }
        guard me.name == nodeName else {
            throw refuse("nodes", "node \(nodeID) is \(me.name) here, but node.name is \(nodeName)")
        }
        guard members.count <= 9 else {
            throw refuse("nodes", "\(members.count) nodes; at most 9 in a region")
        }
        let regions = remoteRegions.map(\.id) + [regionID]
        guard Set(regions).count == regions.count else {
            throw refuse("regions", "an id is given twice, or this region's own is listed")
        }
        for region in remoteRegions {
            guard !region.nodes.isEmpty else {
                throw refuse("regions", "\(region.name) has no nodes")
            }
            guard Set(region.nodes.map(\.id)).count == region.nodes.count else {
                throw refuse("regions", "\(region.name): an id is given twice")
            }
        }
        let peers = members.map(\.peer) + remoteRegions.flatMap { $0.nodes.map(\.peer) }
        guard Set(peers).count == peers.count else {
            throw refuse("nodes", "two nodes have the same peer address")
        }
        if members.count > 1 || !remoteRegions.isEmpty, clientTLS != nil, peerTLS == nil {
            throw refuse("tls", "client has TLS but peer has not: give both, or neither")
        }
    }
}
