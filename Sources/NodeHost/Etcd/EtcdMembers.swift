import Primitives

/// What the first start settled for good: who the members are, their order, the cluster's id. Kept in
/// the data directory, so that later starts need no `--initial-cluster`, and are not misled by another.
package struct EtcdMembers: Equatable, Sendable {
    struct Member: Equatable, Sendable {
        var id: NodeID
        var name: String
        /// The address for peers, and whether it is `https`.
        var peer: NetworkAddress
    }

    static let fileName = "members.yaml"

    var clusterName: String
    var clusterID: UInt64
    var node: NodeID
    var partitions: Int
    var isPeerSecure: Bool
    var members: [Member]

    /// The id that everybody computes who was told the same token and members.
    static func clusterID(token: String, members: [Member]) -> UInt64 {
        let all = members.map { "\($0.name)=\($0.peer)" }.joined(separator: ",")
        return HostConfiguration.clusterID(named: "\(token)\n\(all)")
    }

    var me: Member? { members.first { $0.id == node } }

    /// Who joined has learnt from the region what it is.
    func taking(_ configuration: HostConfiguration) -> EtcdMembers {
        var whole = self
        whole.clusterID = configuration.clusterID
        whole.node = configuration.nodeID
        whole.partitions = configuration.partitions
        whole.members = configuration.members.map {
            Member(id: $0.id, name: $0.name, peer: $0.peer)
        }
        return whole
    }

    // MARK: The file

    var yaml: String {
        func quoted(_ text: String) -> String { JSON.string(text).text }
        var out = """
            # Written by the first start with etcd's flags. It decides who the members are from then on.
            cluster: {name: \(quoted(clusterName)), id: \(clusterID)}
            node: \(node)
            partitions: \(partitions)
            peerScheme: \(isPeerSecure ? "https" : "http")
            members:

            """
        for member in members {
            out += "  - {id: \(member.id), name: \(quoted(member.name)), "
            out += "peer: \(quoted("\(member.peer)"))}\n"
        }
        return out
    }

    init(
        clusterName: String, clusterID: UInt64, node: NodeID, partitions: Int, isPeerSecure: Bool,
        members: [Member]
    ) {
        self.clusterName = clusterName
        self.clusterID = clusterID
        self.node = node
        self.partitions = partitions
        self.isPeerSecure = isPeerSecure
        self.members = members
    }

    package init(yaml: String, file: String) throws(ConfigurationError) {
        var root = try YAMLReader(text: yaml, file: file)
        var cluster: YAMLReader = try root.required("cluster", try root.mapping("cluster"))
        clusterName = try cluster.required("name", try cluster.string("name"))
        clusterID = try cluster.required("id", try cluster.id64("id"))
        try cluster.finish()
        node = NodeID(UInt16(try root.required("node", try root.integer("node", in: 1...65535))))
        partitions = try root.required("partitions", try root.integer("partitions", in: 1...4096))
        let scheme: String = try root.required("peerScheme", try root.string("peerScheme"))
        guard scheme == "http" || scheme == "https" else {
            throw root.fail("peerScheme: expected http or https")
        }
        isPeerSecure = scheme == "https"
        members = []
        for var item in try root.required("members", try root.mappings("members")) {
            members.append(
                Member(
                    id: NodeID(
                        UInt16(try item.required("id", try item.integer("id", in: 1...65535)))),
                    name: try item.required("name", try item.string("name")),
                    peer: try item.required("peer", try item.parsed(
                        "peer", expected: "an address such as 10.0.0.1:2380", { NetworkAddress($0) }))))
            try item.finish()
        }
        try root.finish()
        guard me != nil else { throw root.fail("node \(node) is not among the members") }
    }
}
