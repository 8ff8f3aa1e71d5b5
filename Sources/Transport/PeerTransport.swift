package import NIOCore
package import Primitives

/// Frames between the nodes of a cluster. Lives on one event loop: every member is used there only,
/// which is why it may claim to be `Sendable`.
package final class PeerTransport: @unchecked Sendable {
    package let configuration: TransportConfiguration
    private let loop: any EventLoop
    private weak var delegate: (any PeerTransportDelegate)?

    package init(
        configuration: TransportConfiguration, loop: any EventLoop, delegate: any PeerTransportDelegate
    ) {
        self.configuration = configuration
        self.loop = loop
        self.delegate = delegate
    }

    /// Listens, then dials the peers. Answers with the port. Fails if the address is taken.
    package func start() -> EventLoopFuture<Int> { loop.makeSucceededFuture(0) }

    /// Whom to talk to; others who dial us are refused. Known peers keep their connections.
    package func setPeers(_ peers: [PeerID: PeerAddress]) {}

    /// Puts a frame into the turn's batch for a peer; `false`: dropped (no connection, or full).
    @discardableResult
    package func send(_ frame: Bytes, to peer: PeerID) -> Bool { false }

    /// Ends a turn: what was sent since the last flush leaves, with one write per peer.
    package func flush() {}

    package func isConnected(_ peer: PeerID) -> Bool { false }
    package func setFault(_ fault: Fault?, for peer: PeerID) {}
    package var statistics: [PeerID: PeerStatistics] { [:] }

    /// Sends what is queued (for a second at most), closes everything, delivers nothing any more.
    package func shutdown() -> EventLoopFuture<Void> { loop.makeSucceededVoidFuture() }
}
