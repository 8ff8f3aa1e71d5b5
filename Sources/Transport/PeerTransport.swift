package import NIOCore
import NIOPosix
package import Primitives
import TLS

/// Frames between the nodes of a cluster. Lives on one event loop: every member is used there only,
/// which is why it may claim to be `Sendable`.
package final class PeerTransport: @unchecked Sendable {
    package let configuration: TransportConfiguration
    let loop: any EventLoop
    private(set) weak var delegate: (any PeerTransportDelegate)?

    private var links: [PeerID: PeerLink] = [:]
    private var regionLevel = FeatureLevel.first
    /// Links with something in this turn's batch.
    private var dirty: [PeerLink] = []
    private var accepted: [ObjectIdentifier: PeerConnection] = [:]
    private var listener: (any Channel)?
    private var ticker: RepeatedTask?
    private var lastTick = NIODeadline.now()
    private var luck: SplitMix
    private var isStopped = false

    /// Connections that have not said who they are, at most: strangers cannot use up our memory.
    private static let strangersMax = 256

    package init(
        configuration: TransportConfiguration, loop: any EventLoop,
        delegate: any PeerTransportDelegate
    ) {
        self.configuration = configuration
        self.loop = loop
        self.delegate = delegate
        luck = SplitMix(seed: configuration.boot)
    }

    var usesTLS: Bool { configuration.tls != nil }
    /// TLS protects the bytes already.
    var checksums: Bool { !usesTLS }
    var greetingTimeout: TimeAmount { configuration.silenceMax * 2 }

    // MARK: Life

    /// Listens, and keeps dialling the peers. Answers with the port. Fails if the address is taken.
    package func start() -> EventLoopFuture<Int> {
        loop.preconditionInEventLoop()
        startTicking()
        return ServerBootstrap(group: loop)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelOption(.backlog, value: 256)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try self.welcomeStranger(channel) }
            }
            .bind(host: configuration.listen.host, port: configuration.listen.port)
            .map { channel in
                self.listener = channel
                if self.isStopped { channel.close(promise: nil) }
                return channel.localAddress?.port ?? 0
            }
    }

    private func welcomeStranger(_ channel: any Channel) throws {
        let strangers = accepted.values.reduce(0) { $0 + ($1.isGreeted ? 0 : 1) }
        guard !isStopped, strangers < Self.strangersMax else {
            throw ChannelError.ioOnClosedChannel
        }
        try configure(channel)
        if let tls = configuration.tls {
            try channel.pipeline.syncOperations.addHandler(
                TLSHandler(context: tls, role: .server, handshakeTimeout: greetingTimeout))
        }
        let connection = PeerConnection(side: .accepted, transport: self)
        accepted[ObjectIdentifier(connection)] = connection
        try channel.pipeline.syncOperations.addHandler(connection)
    }

    /// Options of every connection, either side.
    func configure(_ channel: any Channel) throws {
        guard let options = channel.syncOptions else { return }
        try options.setOption(.tcpOption(.tcp_nodelay), value: 1)
        try options.setOption(.socketOption(.so_keepalive), value: 1)
        // TCP_USER_TIMEOUT: sent bytes that nobody acknowledges end the connection.
        let userTimeout = ChannelOptions.Types.SocketOption(
            level: .tcp, name: NIOBSDSocket.Option(rawValue: 18))
        try options.setOption(
            userTimeout, value: Int(configuration.silenceMax.nanoseconds / 1_000_000))
    }

    /// The feature level of our own region: it is told to every peer before anything else.
    package func setRegionLevel(_ level: UInt16) {
        loop.preconditionInEventLoop()
        regionLevel = level
    }

    /// Whom to talk to; others who dial us are refused. Known peers keep their connections.
    package func setPeers(_ peers: [PeerID: PeerAddress]) {
        loop.preconditionInEventLoop()
        for (peer, link) in links where peers[peer] != link.address {
            links[peer] = nil
            let wasConnected = link.isConnected
            link.stop(orderly: false)
            if wasConnected { delegate?.onDisconnected(peer, lost: false) }
            if peers[peer] == nil { abortAccepted(from: peer, reason: "no longer a peer") }
        }
        for (peer, address) in peers.sorted(by: { $0.key < $1.key })
        where links[peer] == nil && peer != configuration.own {
            let link = PeerLink(peer: peer, address: address, transport: self)
            links[peer] = link
            if !isStopped { link.dial() }
        }
    }

    /// Sends what is queued (for a second at most), closes everything, delivers nothing any more.
    package func shutdown() -> EventLoopFuture<Void> {
        loop.preconditionInEventLoop()
        isStopped = true
        delegate = nil
        ticker?.cancel()
        ticker = nil
        dirty = []
        let open =
            links.values.compactMap { $0.currentChannel }
            + accepted.values.compactMap { $0.channel }
        for link in links.values { link.stop(orderly: true) }
        for connection in accepted.values { connection.abort(reason: "shutdown") }
        var ends = open.map { $0.closeFuture }
        if let listener {
            ends.append(listener.closeFuture)
            listener.close(promise: nil)
        }
        return EventLoopFuture.andAllComplete(ends, on: loop)
    }

    // MARK: Sending

    /// Puts a frame into the turn's batch for a peer; `false`: dropped (no connection, or full).
    @discardableResult
    package func send(_ frame: Bytes, to peer: PeerID) -> Bool {
        guard let link = links[peer] else { return false }
        let isFirst = !link.hasBatch
        let taken = link.send(frame)
        if isFirst, link.hasBatch { dirty.append(link) }
        return taken
    }

    /// Ends a turn: what was sent since the last flush leaves, with one write per peer.
    package func flush() {
        guard !dirty.isEmpty else { return }
        for link in dirty { link.flush() }
        dirty.removeAll(keepingCapacity: true)
    }

    package func isConnected(_ peer: PeerID) -> Bool { links[peer]?.isConnected ?? false }

    package func setFault(_ fault: Fault?, for peer: PeerID) {
        guard configuration.faultInjection, let link = links[peer] else { return }
        note(.faultSet(peer, fault))
        link.setFault(fault)
    }

    package var statistics: [PeerID: PeerStatistics] { links.mapValues(\.statistics) }

    // MARK: Questions

    /// Asks whoever listens there, peer or not, member or not; both sides still check certificates.
    package func ask(
        _ question: Bytes, of address: PeerAddress, as peer: PeerID
    ) -> EventLoopFuture<Bytes> {
        loop.preconditionInEventLoop()
        let promise = loop.makePromise(of: Bytes.self)
        let connection = PeerConnection(side: .asking, transport: self)
        connection.question = (question, promise)
        let name = configuration.namesPeersByHost ? address.host : certificateName(of: peer)
        ClientBootstrap(group: loop).connectTimeout(.seconds(1))
            .connect(host: address.host, port: address.port)
            .assumeIsolated().whenComplete { result in
                do {
                    let channel = try result.get()
                    try self.configure(channel)
                    let pipeline = channel.pipeline.syncOperations
                    if let tls = self.configuration.tls {
                        try pipeline.addHandler(
                            TLSHandler(
                                context: tls, role: .client(expectedName: name),
                                handshakeTimeout: self.greetingTimeout))
                    }
                    try pipeline.addHandler(connection)
                } catch {
                    self.ended(connection, reason: PeerLink.text(error))
                }
            }
        loop.scheduleTask(in: .seconds(4)) { connection.abort(reason: "no answer") }
        return promise.futureResult
    }

    func question(_ question: Bytes, answer: @escaping (Bytes?) -> Void) {
        guard let delegate, !isStopped else { return answer(nil) }
        delegate.onQuestion(question, answer: answer)
    }

    // MARK: For the connections

    func hello(to peer: PeerID) -> Hello {
        var hello = Hello(
            cluster: configuration.cluster, from: configuration.own, boot: configuration.boot,
            to: peer)
        hello.level = configuration.featureLevel
        hello.regionLevel = regionLevel
        return hello
    }

    /// Why somebody may not come in; `nil`: he may.
    func objection(to hello: Hello, certificate: TLSPeer?) -> String? {
        guard hello.version == Hello.protocolVersion else {
            return "protocol version \(hello.version), not \(Hello.protocolVersion)"
        }
        guard hello.cluster == configuration.cluster else {
            return "cluster \(hello.cluster), not \(configuration.cluster)"
        }
        guard hello.to == configuration.own else {
            return "looks for \(hello.to), but this is \(configuration.own)"
        }
        guard links[hello.from] != nil else { return "\(hello.from) is not a peer" }
        if let reason = misfit(of: hello) { return reason }
        if usesTLS, configuration.checksCertificates {
            let name = certificateName(of: hello.from)
            guard let certificate, certificate.carries(name) || certificate.covers(name) else {
                return "no certificate for \(name)"
            }
        }
        return nil
    }

    /// Within a region: nothing may reach a build that could not read it.
    func misfit(of hello: Hello) -> String? {
        guard hello.from.region == configuration.own.region else { return nil }
        if hello.regionLevel > configuration.featureLevel {
            note(.isOutdated(regionLevel: hello.regionLevel))
            return "this build knows feature level \(configuration.featureLevel), the region is at "
                + "\(hello.regionLevel)"
        }
        guard hello.level >= regionLevel else {
            return "the region is at feature level \(regionLevel), that build knows \(hello.level)"
        }
        return nil
    }

    func certificateName(of peer: PeerID) -> String {
        if configuration.namesPeersByHost, let link = links[peer] { return link.address.host }
        var name = ""
        var rest = Substring(configuration.certificateName)
        let fields = [("{region}", "\(peer.region)"), ("{node}", "\(peer.node)")]
        while let first = rest.first {
            if let (field, value) = fields.first(where: { rest.hasPrefix($0.0) }) {
                name += value
                rest = rest.dropFirst(field.count)
            } else {
                name.append(first)
                rest = rest.dropFirst()
            }
        }
        return name
    }

    func accepted(_ connection: PeerConnection, _ hello: Hello) {
        // The newest counts: bytes of an older one must not come after its own.
        for other in accepted.values where other !== connection && other.peer == hello.from {
            other.abort(reason: "replaced")
        }
        links[hello.from]?.seen(boot: hello.boot)
    }

    func welcomed(_ connection: PeerConnection, by peer: PeerID) {
        guard let link = links[peer], link.welcomed(connection) else {
            return connection.abort(reason: "no longer wanted")
        }
    }

    func received(_ frame: Frame, from peer: PeerID) {
        guard let link = links[peer] else { return }
        if link.isBlocked {
            link.counters.framesDropped += 1
            link.markSwallowed()
            return
        }
        link.counters.framesReceived += 1
        link.counters.bytesReceived += UInt64(frame.wireBytes)
        link.counters.uncompressedBytesReceived += UInt64(FrameHeader.size + frame.payload.count)
        delegate?.onFrame(peer, frame.payload)
    }

    func ended(_ connection: PeerConnection, reason: String) {
        switch connection.side {
        case .dialled(let peer):
            links[peer]?.ended(connection, reason: reason)
        case .asking:
            connection.question?.answer.fail(FrameError(reason))
            connection.question = nil
        case .accepted:
            accepted[ObjectIdentifier(connection)] = nil
            if !connection.isGreeted, !connection.wasRefused {
                note(.refusedInbound(from: connection.remote, reason: reason))
            }
        }
    }

    func abortAccepted(from peer: PeerID, reason: String) {
        for connection in accepted.values where connection.peer == peer {
            connection.abort(reason: reason)
        }
    }

    func countMalformed(from peer: PeerID) { links[peer]?.counters.malformed += 1 }

    func roundTrip(_ span: TimeAmount, of peer: PeerID) {
        links[peer]?.counters.note(roundTrip: UInt64(max(0, span.nanoseconds)))
    }

    func isBlocked(_ peer: PeerID) -> Bool { links[peer]?.isBlocked ?? false }
    func framesDelivered() { delegate?.onFramesDelivered() }
    func note(_ note: TransportNote) { delegate?.onNote(note) }
    func random(below bound: UInt64) -> UInt64 { luck.below(bound) }

    // MARK: Time

    private func startTicking() {
        let period = TimeAmount.nanoseconds(configuration.silenceMax.nanoseconds / 2)
        lastTick = .now()
        ticker = loop.scheduleRepeatedTask(initialDelay: period, delay: period) { _ in self.tick() }
    }

    private func tick() {
        let now = NIODeadline.now()
        let late = lastTick + configuration.silenceMax < now
        lastTick = now
        for link in links.values { link.tick(now, late: late) }
        for connection in accepted.values {
            if late { connection.heardAt = now }
            // The dialler pings all the time: its silence is a dead wire or a frozen process.
            let patience =
                connection.isGreeted ? configuration.silenceMax * 3 : greetingTimeout
            if connection.heardAt + patience < now { connection.abort(reason: "silent") }
        }
    }
}
