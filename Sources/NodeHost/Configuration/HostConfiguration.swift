package import Primitives

/// Everything that one node is told at its start, validated. Written as YAML (`node.yaml`); see
/// deploy/examples/node.yaml for every key with its meaning.
package struct HostConfiguration: Equatable, Sendable {
    package struct TLSFiles: Equatable, Sendable {
        /// Nil only for clients that are not asked for certificates.
        package var ca: String?
        package var certificate: String
        package var key: String
        /// For those that this node dials; nil: the same two.
        package var clientCertificate: String?
        package var clientKey: String?
        /// Refuse clients without a certificate that `ca` signed (etcd: --client-cert-auth).
        /// Between nodes always on.
        package var requiresClientCertificate: Bool
        /// Certificates that the authority has taken back.
        package var revocations: String?
        package var isTLS13Required = false
        package var isTLS13Refused = false
        /// Peers whose certificates carry none of these names are refused. Empty: no such rule.
        package var allowedCommonNames: [String] = []
        package var allowedHosts: [String] = []
        /// OpenSSL's names, for TLS 1.2 and 1.3; nil: OpenSSL's own choice.
        package var ciphers: String?
        package var cipherSuites: String?
        /// etcd's --auto-tls and --peer-auto-tls: encrypted, and nobody knows to whom.
        package var isSelfSigned = false
        package init(
            ca: String?, certificate: String, key: String, requiresClientCertificate: Bool = true
        ) {
            self.ca = ca
            self.certificate = certificate
            self.key = key
            self.requiresClientCertificate = requiresClientCertificate
        }
    }

    /// An address where clients are served.
    package struct Listener: Equatable, Sendable {
        package var address: NetworkAddress
        package var isSecure: Bool
        /// Only what watches over nodes: /metrics, /health and their like.
        package var servesOnlyMetrics: Bool
        /// Of a socket in the file system; then `address` means nothing.
        package var unixPath: String?
        package var name: String { unixPath ?? "\(address)" }
        package init(
            address: NetworkAddress, isSecure: Bool, servesOnlyMetrics: Bool = false,
            unixPath: String? = nil
        ) {
            self.unixPath = unixPath
            self.address = address
            self.isSecure = isSecure
            self.servesOnlyMetrics = servesOnlyMetrics
        }
    }

    /// A node of this region, this one included.
    package struct Member: Equatable, Sendable {
        package var id: NodeID
        package var name: String
        package var peer: NetworkAddress
        package var clientURLs: [String]
        package init(id: NodeID, name: String, peer: NetworkAddress, clientURLs: [String]) {
            self.id = id
            self.name = name
            self.peer = peer
            self.clientURLs = clientURLs
        }
    }

    package struct RemoteRegion: Equatable, Sendable {
        package struct Node: Equatable, Sendable {
            package var id: NodeID
            package var name: String
            package var peer: NetworkAddress
            package init(id: NodeID, name: String, peer: NetworkAddress) {
                self.id = id
                self.name = name
                self.peer = peer
            }
        }
        package var id: RegionID
        package var name: String
        package var nodes: [Node]
        package init(id: RegionID, name: String, nodes: [Node]) {
            self.id = id
            self.name = name
            self.nodes = nodes
        }
    }

    package struct Limits: Equatable, Sendable {
        /// etcd's defaults (etcd-surface.md).
        package var requestBytesMax = 1_572_864
        package var transactionOperationsMax = 128
        /// Of the store's memory: blocks of its files with their indexes and filters, what is not in files
        /// yet (at most four times as much, while files are written), and keys' newest versions.
        package var blockCacheBytes = 64 << 20
        package var memtableBytes = 64 << 20
        package var currentCacheBytes = 64 << 20
        package var openFilesMax = 1024
        /// Threads that write the store's files anew.
        package var backgroundJobs = 2
        /// The store is flushed, and the log cut, after so much was written.
        package var logBytesBeforeFlush = 16 << 20
        /// What clients may hold of this process' memory, all together: answers that they do not read, and
        /// requests of which they have sent a part (RPCLimits).
        package var unreadAnswerBytes = 384 << 20
        package var halfSentRequestBytes = 256 << 20
        /// These two are set by etcd's flags only.
        package var concurrentStreamsMax = UInt32.max
        package var watchProgressInterval = TimeSpan.seconds(600)
        /// etcd's --grpc-keepalive-min-time, -interval and -timeout.
        package var pingInterval = TimeSpan.seconds(5)
        package var keepAliveInterval = TimeSpan.seconds(7200)
        package var keepAliveTimeout = TimeSpan.seconds(20)
        /// etcd's --election-timeout; what is noticed sooner here stays so.
        package var electionTimeout = TimeSpan.seconds(1)
        /// etcd's --warning-apply-duration, --warning-unary-request-duration and --metrics extensive.
        package var slowApply = TimeSpan.milliseconds(100)
        package var slowCall = TimeSpan.milliseconds(300)
        package var measuresCalls = false
        package init() {}
    }

    /// Of HTTP that is not gRPC (etcd: --enable-grpc-gateway, --cors, --host-whitelist).
    package struct Access: Equatable, Sendable {
        package var isGatewayEnabled = true
        /// Origins whose pages may read answers; empty or with "*": all.
        package var origins: Set<String> = []
        /// Names by which clients without TLS may call this node; empty or with "*": all.
        package var hosts: Set<String> = []
        /// etcd's --enable-pprof: profiles of the running process, for whoever may connect.
        package var profiles = false
        package init() {}
    }

    /// Splits that nobody asks for; off unless a bound is given. See Host+Splits.
    package struct Splits: Equatable, Sendable {
        /// A partition that holds more is cut in two. 0: however much.
        package var bytes = 0
        /// A partition with more writes a second, over the period. 0: however many.
        package var writesPerSecond = 0
        package var period = TimeSpan.seconds(10)
        /// No more than so many partitions come to be by themselves.
        package var partitionsMax = 64
        package init() {}
        package var isOn: Bool { bytes > 0 || writesPerSecond > 0 }
    }

    package enum LogLevel: String, CaseIterable, Sendable {
        case trace, debug, info, notice, warning, error, critical
    }
    package enum LogFormat: String, CaseIterable, Sendable { case text, json }

    package var clusterName = "polder"
    package var clusterID: UInt64 = 0
    package var regionID = RegionID(1)
    package var regionName = "r1"
    package var nodeID = NodeID(1)
    package var nodeName = ""
    package var dataDirectory = ""
    package var clientAddress = NetworkAddress(host: "127.0.0.1", port: 2379)
    package var peerAddress = NetworkAddress(host: "127.0.0.1", port: 2380)
    /// All addresses for clients, if there are several (etcd's flags only). Empty: `clientAddress`.
    package var listeners: [Listener] = []
    package var members: [Member] = []
    /// `members` are only whom to ask: this node has been added to a region that exists, and learns
    /// there which it is (etcd's flags: --initial-cluster-state existing).
    package var isJoining = false
    /// All other members are lost for good: this one goes on alone (etcd's --force-new-cluster).
    package var isForcedAlone = false
    package var remoteRegions: [RemoteRegion] = []
    /// With which the region is founded.
    package var partitions = 8
    /// How many nodes vote in a group, said once, when the region is new. 0: `Placement` says.
    package var replicas = 0
    /// Rows lie only with who votes in their partition; said once, when the region is new.
    package var isSpread = false
    /// Where this node may fail together with others. Empty: nobody has said.
    package var zone = ""
    package var splits = Splits()
    var leaders = LeaderBalance.Rule()
    package var clientTLS: TLSFiles?
    package var peerTLS: TLSFiles?
    /// etcd's rule for peers' certificates: they carry the host of the peer's URL. Otherwise they
    /// carry `r<region>-n<node>`. Set by etcd's flags only.
    package var namesPeersByHost = false
    package var limits = Limits()
    package var access = Access()
    package var auth = AuthConfiguration()
    /// Set by etcd's flags only. 0: the disk is the limit.
    package var quotaBytes: Int64 = 0
    package var autoCompaction = AutoCompaction.off
    package var logLevel = LogLevel.info
    package var logFormat = LogFormat.text
    package var faultInjection = false
    /// Other than the build's own only with `faultInjection`: it then pretends to be the next build, or
    /// one of before, as far as what it says of itself goes.
    package var featureLevel = FeatureLevel.own
    /// Added to what goes to other regions, to try distance on one machine.
    package var wanDelay = TimeSpan.zero

    package init() {}

    package var allListeners: [Listener] {
        listeners.isEmpty
            ? [Listener(address: clientAddress, isSecure: clientTLS != nil)] : listeners
    }

    package var me: Member? { members.first { $0.id == nodeID } }

    /// etcd's member id: told apart across regions, never 0, the same for everybody who computes it.
    package static func memberID(cluster: UInt64, region: RegionID, node: NodeID) -> UInt64 {
        var mix = SplitMix(
            seed: cluster ^ UInt64(region.rawValue) << 48 ^ UInt64(node.rawValue) << 32)
        let id = mix.next()
        return id == 0 ? 1 : id
    }
    package func memberID(of node: NodeID) -> UInt64 {
        HostConfiguration.memberID(cluster: clusterID, region: regionID, node: node)
    }

    /// A cluster that names no id gets one from its name, the same on every node.
    package static func clusterID(named name: String) -> UInt64 {
        let hash = KeyHash.hash(Bytes(name))
        return hash == 0 ? 1 : hash
    }
}
