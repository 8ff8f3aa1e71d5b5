import NIOCore
import NIOHTTP1
import NIOWebSocket
package import Primitives

/// One WebSocket (RFC 6455) as its user sees it: whole messages, on the server's loop. NIO's handlers
/// in front frame, unmask and put fragments together.
package final class WebSocket {
    package var onMessage: ((Bytes) -> Void)?
    /// `bufferedBytes` were above the high mark and are below the low one.
    package var onWritable: (() -> Void)?
    /// Called at most once, when the client goes before `close`.
    package var onClosed: (() -> Void)?
    package fileprivate(set) var isClosed = false
    fileprivate weak var handler: WebSocketHandler?

    fileprivate init() {}

    package var bufferedBytes: Int { handler?.bufferedBytes ?? 0 }

    package func send(text: Bytes) {
        guard !isClosed else { return }
        handler?.send(.text, text)
    }

    package func close() { close(code: .normalClosure) }

    fileprivate func close(code: WebSocketErrorCode) {
        guard !isClosed else { return }
        forget()
        handler?.sayGoodbye(code)
    }

    /// Nobody is told of anything any more.
    private func forget() {
        isClosed = true
        onMessage = nil
        onWritable = nil
        onClosed = nil
    }

    fileprivate func closed() {
        guard !isClosed else { return }
        let notify = onClosed
        forget()
        notify?()
    }
}

final class WebSocketHandler: ChannelInboundHandler {
    typealias InboundIn = WebSocketFrame
    typealias OutboundOut = WebSocketFrame

    private let server: RPCServer
    private let request: HTTPRequest
    private let socket = WebSocket()
    private var context: ChannelHandlerContext?
    private var hasSaidGoodbye = false

    private init(server: RPCServer, request: HTTPRequest) {
        self.server = server
        self.request = request
        socket.handler = self
    }

    /// For the pipeline of a new HTTP/1.1 connection, whose first request may be a handshake.
    static func upgrade(
        server: RPCServer, peerName: String?, isSecure: Bool, replacing http: HTTP1Handler,
        on loop: any EventLoop
    ) -> NIOHTTPServerUpgradeConfiguration {
        let http = NIOLoopBound(http, eventLoop: loop)
        let upgrader = NIOWebSocketServerUpgrader(
            maxFrameSize: server.limits.httpBodyBytesMax,
            shouldUpgrade: { channel, head in
                guard head.endsHTTP else { return channel.eventLoop.makeSucceededFuture(nil) }
                let request = HTTPRequest(head, peerName: peerName, isSecure: isSecure)
                let headers = server.handler?.onUpgrade(request)
                return channel.eventLoop.makeSucceededFuture(
                    headers.map { HTTPHeaders($0.map { ($0.name, $0.value) }) })
            },
            upgradePipelineHandler: { channel, head in
                channel.eventLoop.makeCompletedFuture {
                    let request = HTTPRequest(head, peerName: peerName, isSecure: isSecure)
                    let pipeline = channel.pipeline.syncOperations
                    try pipeline.addHandler(
                        NIOWebSocketFrameAggregator(
                            minNonFinalFragmentSize: 0, maxAccumulatedFrameCount: 1024,
                            maxAccumulatedFrameSize: server.limits.httpBodyBytesMax))
                    try pipeline.addHandler(WebSocketHandler(server: server, request: request))
                }
            })
        return (
            upgraders: [upgrader],
            completionHandler: { context in
                context.pipeline.syncOperations.removeHandler(http.value, promise: nil)
            }
        )
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        guard let handler = server.handler, !server.isShuttingDown else {
            return socket.close(code: .goingAway)
        }
        handler.onWebSocket(request, socket)
    }

    func handlerRemoved(context: ChannelHandlerContext) { disconnected() }

    func channelInactive(context: ChannelHandlerContext) {
        disconnected()
        context.fireChannelInactive()
    }

    private func disconnected() {
        context = nil
        socket.closed()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let frame = unwrapInboundIn(data)
        // RFC 6455 section 5.1: what a client sends is masked.
        guard frame.maskKey != nil else { return fail(.protocolError) }
        switch frame.opcode {
        case .text, .binary, .continuation:
            socket.onMessage?(Bytes(frame.unmaskedData.readableBytesView))
        case .ping: send(.pong, Bytes(frame.unmaskedData.readableBytesView))
        case .connectionClose:
            socket.closed()
            sayGoodbye(.normalClosure)
        default: break
        }
    }

    private func fail(_ code: WebSocketErrorCode) {
        socket.closed()
        sayGoodbye(code)
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        // Not at once: the news may come from within a write.
        if context.channel.isWritable, socket.onWritable != nil {
            context.eventLoop.assumeIsolated().execute { self.socket.onWritable?() }
        }
        context.fireChannelWritabilityChanged()
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is ShutdownEvent {
            fail(.goingAway)
        }
        context.fireUserInboundEventTriggered(event)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { fail(.protocolError) }

    // MARK: Called by the socket

    var bufferedBytes: Int {
        context?.channel.bufferedBytes(high: server.limits.bufferedBytesHigh) ?? 0
    }

    func send(_ opcode: WebSocketOpcode, _ payload: Bytes) {
        guard let context, !hasSaidGoodbye else { return }
        let data = payload.withUnsafeBytes { ByteBuffer(bytes: $0) }
        let frame = WebSocketFrame(fin: true, opcode: opcode, data: data)
        context.writeAndFlush(wrapOutboundOut(frame), promise: nil)
    }

    /// The close frame, then the connection's end: a client that wants more makes a new one.
    func sayGoodbye(_ code: WebSocketErrorCode) {
        guard let context, !hasSaidGoodbye else { return }
        hasSaidGoodbye = true
        var data = ByteBuffer()
        data.write(webSocketErrorCode: code)
        let frame = WebSocketFrame(fin: true, opcode: .connectionClose, data: data)
        context.writeAndFlush(wrapOutboundOut(frame), promise: nil)
        context.close(promise: nil)
    }
}

extension HTTPRequestHead {
    /// The parser takes what follows for something else than HTTP. It must, where it is replaced: requests
    /// that it has read already would be handed to handlers of frames, and that ends the process. NIO asks
    /// for the header `upgrade` only; the parser (llhttp) for the word in `connection` too, as RFC 6455,
    /// section 4.2.1, does. Nothing counts here that does not count there: of white space, the blank.
    fileprivate var endsHTTP: Bool {
        method == .GET && version == .http1_1
            && headers["connection"].contains { value in
                value.split(separator: ",").contains { part in
                    let word = part.drop { $0 == " " }
                    return word.prefix(7).lowercased() == "upgrade" && word.dropFirst(7).allSatisfy { $0 == " " }
                }
            }
    }

    /// The parser may have stopped behind it, and reads no other request of this connection.
    var mayEndHTTP: Bool { method == .CONNECT || headers.contains(name: "upgrade") }
}
