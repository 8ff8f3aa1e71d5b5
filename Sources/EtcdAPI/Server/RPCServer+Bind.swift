package import NIOCore
import NIOHTTP1
import NIOPosix
package import TLS

extension RPCServer {
    /// Listens; port 0 takes a free one. The first bytes tell HTTP/2 from HTTP/1.1, with TLS too; `tls`
    /// should offer "h2" and "http/1.1" by ALPN (gRPC clients insist on it).
    package func bind(
        to address: SocketAddress, tls: TLSContext? = nil
    ) -> EventLoopFuture<SocketAddress> {
        let high = limits.socketBytesHigh
        let bootstrap = ServerBootstrap(group: loop)
            .serverChannelOption(.backlog, value: 1024)
            // In one tick: ticks are long under load, and a client that waits for its turn to be accepted waits
            // for several of them; but a hundred connections that come at once are not felt by others.
            .serverChannelOption(.maxMessagesPerRead, value: 4)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(
                .writeBufferWaterMark, value: .init(low: max(1, high / 4), high: max(2, high))
            )
            // One after the other: who sends a lot does not keep the others waiting for all of it.
            .childChannelOption(.maxMessagesPerRead, value: 1)
            // A peer that vanished without a word is found out, also by what has no pings of its own.
            .childChannelOption(.socketOption(.so_keepalive), value: 1)
            .childChannelOption(
                .recvAllocator,
                value: AdaptiveRecvByteBufferAllocator(minimum: 2048, initial: 16384, maximum: 32768)
            )
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try self.configure(channel, tls: tls) }
            }
        return bootstrap.bind(to: address).assumeIsolated().flatMapThrowing { channel in
            guard let local = channel.localAddress else { throw ChannelError.unknownLocalAddress }
            self.listening(channel)
            return local
        }.nonisolated()
    }

    /// Makes `channel` a connection of this server (also for tests, without a listener).
    package func configure(_ channel: any Channel, tls: TLSContext? = nil) throws {
        guard !isShuttingDown else { throw ChannelError.alreadyClosed }
        adopt(channel)
        if case .v4 = channel.localAddress { try noDelay(channel) }
        if case .v6 = channel.localAddress { try noDelay(channel) }
        let pipeline = channel.pipeline.syncOperations
        if let tls { try pipeline.addHandler(TLSHandler(context: tls, role: .server)) }
        try pipeline.addHandler(ProtocolSniffer(server: self, isSecure: tls != nil))
    }

    private func noDelay(_ channel: any Channel) throws {
        try channel.syncOptions?.setOption(.tcpOption(.tcp_nodelay), value: 1)
    }
}

/// Waits for enough of the first bytes to tell HTTP/2 from HTTP/1.1, then makes way for it.
final class ProtocolSniffer: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer

    private static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
    /// A connection that says nothing is not kept.
    private static let patience = TimeAmount.seconds(60)

    private let server: RPCServer
    private let isSecure: Bool
    private var seen = ByteBuffer()
    private var peerName: String?
    private var timer: Scheduled<Void>?

    init(server: RPCServer, isSecure: Bool) {
        self.server = server
        self.isSecure = isSecure
    }

    func handlerAdded(context: ChannelHandlerContext) {
        timer = context.eventLoop.assumeIsolated().scheduleTask(in: Self.patience) {
            context.close(promise: nil)
        }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        timer?.cancel()
        timer = nil
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        switch event {
        case let event as TLSEvent:
            if case .handshakeCompleted(_, let peer) = event { peerName = peer?.commonName }
        case is ShutdownEvent: context.close(promise: nil)
        default: break
        }
        context.fireUserInboundEventTriggered(event)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var part = unwrapInboundIn(data)
        seen.writeBuffer(&part)
        let known = seen.readableBytesView.prefix(Self.preface.count)
        let isHTTP2 = known.elementsEqual(Self.preface.prefix(known.count))
        // Any client of HTTP/2 sends its preface at once; a request of HTTP/1 differs in the first bytes.
        if isHTTP2, known.count < Self.preface.count { return }
        do {
            try isHTTP2 ? serveHTTP2(context) : serveHTTP1(context)
        } catch {
            return context.close(promise: nil)
        }
        context.fireChannelRead(wrapInboundOut(seen))
        context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private func serveHTTP2(_ context: ChannelHandlerContext) throws {
        var settings = HTTP2Settings()
        settings.concurrentStreamsMax = server.limits.concurrentStreamsMax
        settings.headerBytesMax = server.limits.headerBytesMax
        settings.bufferedBytesHigh = server.limits.bufferedBytesHigh
        settings.bufferedBytesLow = server.limits.bufferedBytesLow
        settings.bufferedBytesPressed = server.limits.bufferedBytesPressed
        let connection = RPCConnection(server: server, peerName: peerName, isSecure: isSecure)
        let handler = HTTP2ChannelHandler(
            role: .server, settings: settings, delegate: connection, scratch: server.scratch,
            unread: server.unread)
        try context.pipeline.syncOperations.addHandler(handler, position: .after(self))
    }

    private func serveHTTP1(_ context: ChannelHandlerContext) throws {
        let handler = HTTP1Handler(server: server, peerName: peerName, isSecure: isSecure)
        let pipeline = context.pipeline.syncOperations
        try pipeline.addHandler(handler, position: .after(self))
        let upgrade = WebSocketHandler.upgrade(
            server: server, peerName: peerName, isSecure: isSecure, replacing: handler,
            on: context.eventLoop)
        try pipeline.configureHTTPServerPipeline(
            position: .before(handler), withServerUpgrade: upgrade)
    }
}
