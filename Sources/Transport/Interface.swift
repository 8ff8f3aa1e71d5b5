package import NIOCore
package import Primitives
package import TLS

/// A node of the whole cluster.
package struct PeerID: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let region: RegionID
    package let node: NodeID
    package init(region: RegionID, node: NodeID) {
        self.region = region
        self.node = node
    }
    package static func < (a: Self, b: Self) -> Bool { (a.region, a.node) < (b.region, b.node) }
    /// `r1-n2`: also the name that its certificate carries.
    package var description: String { "r\(region)-n\(node)" }
}

package struct PeerAddress: Hashable, Sendable, CustomStringConvertible {
    /// Name or IP address; names are looked up again at each dial.
    package let host: String
    package let port: Int
    package init(host: String, port: Int) {
        self.host = host
        self.port = port
    }
    package var description: String { "\(host):\(port)" }
}

package struct TransportConfiguration: Sendable {
    /// Nodes of other clusters are refused.
    package var cluster: UInt64
    package var own: PeerID
    /// Drawn at the start of the process.
    package var boot: UInt64
    /// Where to listen; port 0: any.
    package var listen: PeerAddress
    /// `nil`: plain TCP. Otherwise both sides must show a certificate that carries their name.
    package var tls: TLSContext?
    /// The name that a peer's certificate must carry, `{region}` and `{node}` filled in.
    package var certificateName = "r{region}-n{node}"
    /// etcd's rule instead: a peer's certificate carries the host of the peer's address.
    package var namesPeersByHost = false
    /// False: any certificate will do, and none; TLS only hides what is said (etcd's --peer-auto-tls).
    package var checksCertificates = true
    /// More than this waiting for one peer: the connection is dropped, and what waited with it.
    package var queuedBytesMax = 64 << 20
    /// Frames from this size on are compressed, if that makes them smaller: within the region,
    /// where the network is fast, and to other regions.
    package var compressFromBytes = 16 << 10
    package var compressRemoteFromBytes = 256
    /// Simulated one-way delay of frames to other regions.
    package var wanDelay = TimeAmount.zero
    /// `setFault` is ignored without it.
    package var faultInjection = false
    /// What this build knows.
    package var featureLevel = FeatureLevel.own
    /// Nothing heard on a connection for this long although asked: it is dead.
    package var silenceMax = TimeAmount.seconds(2)
    package var redialFirst = TimeAmount.milliseconds(10)
    package var redialMax = TimeAmount.seconds(1)

    package init(
        cluster: UInt64, own: PeerID, boot: UInt64, listen: PeerAddress, tls: TLSContext? = nil
    ) {
        self.cluster = cluster
        self.own = own
        self.boot = boot
        self.listen = listen
        self.tls = tls
    }
}

/// What happens on the transport. All calls come on its loop.
///
/// A pair of nodes has two connections: each sends on the one it dialled. `onConnected` and
/// `onDisconnected` speak of ours, so of whether the peer can hear us; that we hear the peer is
/// told by its frames, which may come before `onConnected`.
package protocol PeerTransportDelegate: AnyObject {
    /// The peer has answered our hello: frames sent from now on arrive in order, until
    /// `onDisconnected`. Another `boot` than before means another process.
    func onConnected(_ peer: PeerID, boot: UInt64)
    /// `lost: false`: the connection is gone, and with it perhaps frames; the peer may live. Once
    /// per `onConnected`. `lost: true`: the peer's machine answered a dial that nobody listens
    /// there, so the *process* is gone. Once per outage: after a `lost: false` (within some
    /// milliseconds when a process was killed), or without one if there never was a connection.
    func onDisconnected(_ peer: PeerID, lost: Bool)
    func onFrame(_ peer: PeerID, _ frame: Bytes)
    /// All that one read of a socket brought has been delivered: a good moment for a turn.
    func onFramesDelivered()
    func onNote(_ note: TransportNote)
    /// Somebody asks who need not be a peer. `answer` with nil: none.
    func onQuestion(_ question: Bytes, answer: @escaping (Bytes?) -> Void)
}

extension PeerTransportDelegate {
    package func onFramesDelivered() {}
    package func onNote(_ note: TransportNote) {}
    package func onQuestion(_ question: Bytes, answer: @escaping (Bytes?) -> Void) { answer(nil) }
}

/// For the log and the counters; nothing depends on them.
package enum TransportNote: Sendable, Equatable, CustomStringConvertible {
    /// Somebody who dialled us was turned away.
    case refusedInbound(from: String, reason: String)
    /// A peer that we dialled turned us away, or is not whom we expected.
    case refusedByPeer(PeerID, reason: String)
    /// Dial, handshake or connection failed; told once per reason and outage.
    case connectionFailed(PeerID, reason: String)
    /// What arrived is not our protocol, or damaged.
    case malformed(from: String, reason: String)
    case queueOverflow(PeerID, bytes: Int)
    case faultSet(PeerID, Fault?)
    /// The region uses what this build does not know: it can take no part any more.
    case isOutdated(regionLevel: UInt16)

    package var description: String {
        switch self {
        case .refusedInbound(let from, let reason): "refused a connection from \(from): \(reason)"
        case .refusedByPeer(let peer, let reason): "refused by \(peer): \(reason)"
        case .connectionFailed(let peer, let reason): "connection to \(peer) failed: \(reason)"
        case .malformed(let from, let reason): "malformed bytes from \(from): \(reason)"
        case .queueOverflow(let peer, let bytes):
            "dropped the connection to \(peer): \(bytes) bytes waiting"
        case .isOutdated(let level): "the region is at feature level \(level)"
        case .faultSet(let peer, let fault): "fault for \(peer): \(String(describing: fault))"
        }
    }
}

/// A drill's disturbance of the traffic with one peer.
package struct Fault: Sendable, Equatable {
    /// Nothing passes, in either direction, and no new connection is made or taken.
    package var block: Bool
    /// On top of `wanDelay`, for frames that we send.
    package var delay: TimeAmount
    package init(block: Bool = false, delay: TimeAmount = .zero) {
        self.block = block
        self.delay = delay
    }
}

package struct PeerStatistics: Sendable, Equatable {
    package var connected = false
    package var framesSent: UInt64 = 0
    package var framesReceived: UInt64 = 0
    /// Not sent: no connection, a fault, or the queue was full.
    package var framesDropped: UInt64 = 0
    /// On the wire, headers included, before TLS; and what it would have been without compression.
    package var bytesSent: UInt64 = 0
    package var bytesReceived: UInt64 = 0
    package var uncompressedBytesSent: UInt64 = 0
    package var uncompressedBytesReceived: UInt64 = 0
    package var connects: UInt64 = 0
    package var disconnects: UInt64 = 0
    package var overflows: UInt64 = 0
    package var queuedBytes = 0
    /// Frames that could not be read: the connection was given up.
    package var malformed: UInt64 = 0
    /// Of pings: how many, how long together, and how many took less than 2^i microseconds (and not less
    /// than 2^(i-1)).
    package var roundTrips: UInt64 = 0
    package var roundTripNanoseconds: UInt64 = 0
    package var roundTripHistogram = [UInt64](repeating: 0, count: 24)

    mutating func note(roundTrip nanoseconds: UInt64) {
        roundTrips += 1
        roundTripNanoseconds += nanoseconds
        let at = UInt64.bitWidth - (nanoseconds / 1000).leadingZeroBitCount
        roundTripHistogram[min(at, roundTripHistogram.count - 1)] += 1
    }

    /// 1 means nothing gained; 3 means a third of the bytes on the wire.
    package var compressionRatio: Double {
        bytesSent == 0 ? 1 : Double(uncompressedBytesSent) / Double(bytesSent)
    }
}
