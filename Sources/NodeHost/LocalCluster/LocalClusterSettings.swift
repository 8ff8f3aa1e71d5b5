package import Primitives

/// What `polder dev` was asked for. The part that shapes data (regions, nodes, partitions) is kept in
/// `DIR/cluster.yaml` and must be the same when the directory is used again.
package struct LocalClusterSettings: Equatable, Sendable {
    package struct Shape: Equatable, Sendable {
        package var regions: Int
        package var nodes: Int
        package var partitions: Int
        package init(regions: Int = 2, nodes: Int = 3, partitions: Int = 8) {
            self.regions = regions
            self.nodes = nodes
            self.partitions = partitions
        }
    }
    package var directory: String
    package var shape: Shape
    package var basePort = 2379
    package var tls = true
    package var wanDelay = TimeSpan.zero
    package var faultInjection = false
    package var logLevel = HostConfiguration.LogLevel.warning

    package init(directory: String, shape: Shape = Shape()) {
        self.directory = directory
        self.shape = shape
    }

    /// Nil: fine. Otherwise what is wrong, for the person who typed it.
    package var problem: String? {
        if !(1...8).contains(shape.regions) { return "--regions must be between 1 and 8" }
        if !(1...9).contains(shape.nodes) { return "--nodes must be between 1 and 9" }
        if !(1...4096).contains(shape.partitions) { return "--partitions must be between 1 and 4096" }
        let last = basePort + 10 * (shape.regions * shape.nodes - 1) + 1
        if basePort < 1 || last > 65535 {
            return "--base-port \(basePort): ports \(basePort) to \(last) would be used"
        }
        return nil
    }
}

/// One process of a local cluster: names, places, ports.
package struct LocalNode: Equatable, Sendable {
    package let name: String
    package let region: RegionID
    package let node: NodeID
    package let directory: String
    package let clientPort: Int
    package let peerPort: Int

    package var configurationFile: String { "\(directory)/node.yaml" }
    package var dataDirectory: String { "\(directory)/data" }
    package var log: String { "\(directory)/log" }
    package var client: NetworkAddress { NetworkAddress(host: "127.0.0.1", port: clientPort) }
    package var peer: NetworkAddress { NetworkAddress(host: "127.0.0.1", port: peerPort) }
    package func clientURL(tls: Bool) -> String { (tls ? "https://" : "http://") + "\(client)" }
}

/// The whole cluster as values: everything that is written into files before a process starts.
package struct LocalClusterPlan: Equatable, Sendable {
    package let settings: LocalClusterSettings
    package let nodes: [LocalNode]

    package init(_ settings: LocalClusterSettings) {
        self.settings = settings
        var nodes: [LocalNode] = []
        for region in 1...settings.shape.regions {
            for node in 1...settings.shape.nodes {
                let port = settings.basePort + 10 * nodes.count
                let name = "r\(region)-n\(node)"
                nodes.append(
                    LocalNode(
                        name: name, region: RegionID(UInt16(region)), node: NodeID(UInt16(node)),
                        directory: "\(settings.directory)/\(name)", clientPort: port,
                        peerPort: port + 1))
            }
        }
        self.nodes = nodes
    }

    package static func regionName(_ id: RegionID) -> String { "r\(id)" }

    package var regions: [RegionID] {
        (1...settings.shape.regions).map { RegionID(UInt16($0)) }
    }

    package func nodes(of region: RegionID) -> [LocalNode] { nodes.filter { $0.region == region } }

    // MARK: Files

    package var certificates: String { "\(settings.directory)/certs" }
    package var certificateAuthority: String { "\(certificates)/ca.crt" }
    package var certificateAuthorityKey: String { "\(certificates)/ca.key" }
    package var clientCertificate: String { "\(certificates)/client.crt" }
    package var clientKey: String { "\(certificates)/client.key" }
    package func certificate(of node: LocalNode) -> String { "\(certificates)/\(node.name).crt" }
    package func key(of node: LocalNode) -> String { "\(certificates)/\(node.name).key" }
    package var controlSocket: String { "\(settings.directory)/control.sock" }
    package var description: String { "\(settings.directory)/dev.json" }
    package var shapeFile: String { "\(settings.directory)/cluster.yaml" }
    package var lockFile: String { "\(settings.directory)/lock" }

    package func configuration(of node: LocalNode, clusterID: UInt64) -> HostConfiguration {
        var configuration = HostConfiguration()
        configuration.clusterName = "dev"
        configuration.clusterID = clusterID
        configuration.regionID = node.region
        configuration.regionName = LocalClusterPlan.regionName(node.region)
        configuration.nodeID = node.node
        configuration.nodeName = node.name
        configuration.dataDirectory = node.dataDirectory
        configuration.clientAddress = node.client
        configuration.peerAddress = node.peer
        configuration.members = nodes(of: node.region).map {
            .init(
                id: $0.node, name: $0.name, peer: $0.peer,
                clientURLs: [$0.clientURL(tls: settings.tls)])
        }
        configuration.remoteRegions = regions.filter { $0 != node.region }.map { region in
            .init(
                id: region, name: LocalClusterPlan.regionName(region),
                nodes: nodes(of: region).map { .init(id: $0.node, name: $0.name, peer: $0.peer) })
        }
        configuration.partitions = settings.shape.partitions
        if settings.tls {
            let files = HostConfiguration.TLSFiles(
                ca: certificateAuthority, certificate: certificate(of: node), key: key(of: node))
            configuration.clientTLS = files
            configuration.peerTLS = files
        }
        configuration.logLevel = settings.logLevel
        configuration.faultInjection = settings.faultInjection
        configuration.wanDelay = settings.wanDelay
        return configuration
    }

    /// `dev.json` of the contract with scripts (docs/dev-contract.md). A node that is not running has
    /// `pid` null: 0 would be a script's own process group.
    package func json(pids: [String: Int32]) -> String {
        let tls = settings.tls
        var regionsJSON: [JSON] = []
        for region in regions {
            let members = nodes(of: region)
            let nodesJSON = members.map { node in
                JSON.object([
                    ("name", .string(node.name)),
                    ("client", .string(node.clientURL(tls: tls))),
                    ("peer", .string("\(node.peer)")),
                    ("pid", pids[node.name].map { .integer(Int64($0)) } ?? .null),
                    ("dataDir", .string(node.dataDirectory)),
                ])
            }
            regionsJSON.append(
                .object([
                    ("name", .string(LocalClusterPlan.regionName(region))),
                    ("console", .string(members[0].clientURL(tls: tls) + "/")),
                    ("nodes", .array(nodesJSON)),
                ]))
        }
        let files: JSON =
            tls
            ? .object([
                ("ca", .string(certificateAuthority)), ("cert", .string(clientCertificate)),
                ("key", .string(clientKey)),
            ]) : .null
        return JSON.object([("regions", .array(regionsJSON)), ("tls", files)]).text + "\n"
    }

    /// The line that `polder dev` prints: it works when pasted.
    package func etcdctlLine(region: RegionID) -> String {
        let endpoints = nodes(of: region).map { $0.clientURL(tls: settings.tls) }
        var words = ["ETCDCTL_API=3 etcdctl", "--endpoints=" + endpoints.joined(separator: ",")]
        if settings.tls {
            words.append("--cacert=" + shellQuoted(certificateAuthority))
            words.append("--cert=" + shellQuoted(clientCertificate))
            words.append("--key=" + shellQuoted(clientKey))
        }
        return words.joined(separator: " ")
    }
}

func shellQuoted(_ text: String) -> String {
    let plain = text.utf8.allSatisfy {
        switch $0 {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "/"), UInt8(ascii: "."),
            UInt8(ascii: "_"), UInt8(ascii: "-"), UInt8(ascii: "+"):
            true
        default: false
        }
    }
    return plain && !text.isEmpty ? text : "'" + text.split(separator: "'", omittingEmptySubsequences: false)
        .joined(separator: "'\\''") + "'"
}
