import NIOCore
import NIOHTTP1
import NIOWebSocket
import Primitives

/// HTTP/1.1 for browsers, curl and scrapers: whole requests with a bounded body; NIO's own handlers in
/// front do the parsing and keep pipelined requests apart.
final class HTTP1Handler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    fileprivate let server: RPCServer
    private let peerName: String?
    private let isSecure: Bool
    private var context: ChannelHandlerContext?
    private var request: HTTPRequest?
    private var body: [UInt8] = []
    private var keepsAlive = true
    private var responder: HTTP1Responder?
    private var isLeaving = false
    /// Written, and not taken by the socket.
    private(set) var unreadBytes = 0
    private(set) var takenBytes: UInt64 = 0
    /// Of the body that is coming; see `RPCServer.halfSent`.
    var halfSentBytes: Int { body.count }
    private(set) var halfSentSince: UInt64 = 0

    init(server: RPCServer, peerName: String?, isSecure: Bool) {
        self.server = server
        self.peerName = peerName
        self.isSecure = isSecure
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        server.http1[ObjectIdentifier(self)] = self
    }

    func handlerRemoved(context: ChannelHandlerContext) { disconnected() }

    func channelInactive(context: ChannelHandlerContext) {
        disconnected()
        context.fireChannelInactive()
    }

    private func disconnected() {
        context = nil
        server.http1[ObjectIdentifier(self)] = nil
        forgetBody()
        let gone = responder
        responder = nil
        gone?.release()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): begin(head)
        case .body(let part):
            guard request != nil else { return }
            guard body.count + part.readableBytes <= server.limits.httpBodyBytesMax else {
                return refuse(413, "request too large\n")
            }
            if body.isEmpty { halfSentSince = server.halfSentClock }
            body.grow(by: part.readableBytes, limit: server.limits.httpBodyBytesMax)
            body.append(contentsOf: part.readableBytesView)
            server.halfSent(growBy: part.readableBytes)
        case .end:
            guard var whole = request else { return }
            request = nil
            whole.body = Bytes(body)
            forgetBody()
            let responder = HTTP1Responder(self, isHead: whole.method == "HEAD")
            self.responder = responder
            server.handler?.onHTTP(whole, responder)
        }
    }

    private func begin(_ head: HTTPRequestHead) {
        keepsAlive = head.isKeepAlive && !head.mayEndHTTP
        request = HTTPRequest(head, peerName: peerName, isSecure: isSecure)
        forgetBody()
        if head.headers.first(name: "expect")?.lowercased() == "100-continue" {
            let interim = HTTPResponseHead(version: .http1_1, status: .continue)
            context?.writeAndFlush(wrapOutboundOut(.head(interim)), promise: nil)
        }
    }

    private func forgetBody() {
        server.halfSent(growBy: -body.count)
        body = []
    }

    func refuseHalfSent() { refuse(503, "too many half-sent requests\n") }

    /// What is wrong with a request that is still being sent; the connection ends with the answer.
    private func refuse(_ status: Int, _ text: String) {
        request = nil
        forgetBody()
        keepsAlive = false
        answer(HTTPResponse(status: status, contentType: "text/plain", text))
    }

    private func answer(_ response: HTTPResponse) {
        let responder = HTTP1Responder(self, isHead: false)
        self.responder = responder
        responder.respond(response)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is ShutdownEvent {
            isLeaving = true
            if responder == nil, request == nil { context.close(promise: nil) }
        }
        context.fireUserInboundEventTriggered(event)
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        // Not at once: the news may come from within a write.
        if context.channel.isWritable, responder != nil {
            context.eventLoop.assumeIsolated().execute { self.responder?.writable() }
        }
        context.fireChannelWritabilityChanged()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // Only news: the request itself follows, and is answered like any other.
        if error is NIOWebSocketUpgradeError { return }
        context.close(promise: nil)
    }

    // MARK: Called by the responder

    var isWritable: Bool { context?.channel.isWritable ?? false }

    /// So much more is to be written, and waits with the responder.
    func hold(_ count: Int) {
        unreadBytes += count
        server.unread.count += count
    }

    func write(_ part: HTTPServerResponsePart, flush: Bool) {
        guard let context else { return }
        var taken: EventLoopPromise<Void>?
        if case .body(let body) = part {
            let count = body.readableBytes
            hold(count)
            taken = context.eventLoop.makePromise()
            taken?.futureResult.assumeIsolated().whenComplete { _ in
                self.hold(-count)
                self.takenBytes &+= UInt64(count)
            }
        }
        context.write(wrapOutboundOut(part), promise: taken)
        if flush { context.flush() }
    }

    func head(_ status: Int, _ fields: [(name: String, value: String)], bodyBytes: Int?) {
        var headers = HTTPHeaders(fields)
        if let bodyBytes { headers.replaceOrAdd(name: "content-length", value: "\(bodyBytes)") }
        if !keepsAlive || isLeaving { headers.replaceOrAdd(name: "connection", value: "close") }
        write(
            .head(
                HTTPResponseHead(
                    version: .http1_1, status: HTTPResponseStatus(statusCode: status), headers: headers)),
            flush: false)
    }

    var bufferedBytes: Int {
        context?.channel.bufferedBytes(high: server.limits.bufferedBytesHigh) ?? 0
    }

    func ended() {
        responder = nil
        guard !keepsAlive || isLeaving, let context else { return write(.end(nil), flush: true) }
        // Not before the last byte has left: closing forgets what the socket has not taken.
        let left = context.eventLoop.makePromise(of: Void.self)
        left.futureResult.assumeIsolated().whenComplete { _ in self.context?.close(promise: nil) }
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: left)
    }
}

extension HTTP1Handler: AnswerHolder {
    func drop() { context?.close(promise: nil) }
}

final class HTTP1Responder: HTTPResponder {
    private weak var connection: HTTP1Handler?
    private let isHead: Bool
    private var isStarted = false
    private var isWhole = false
    /// Bodies that are not in the channel yet, the first of them as far as `offset`: what is large is copied piece
    /// by piece, as far as the socket takes it.
    private var waiting: CircularBuffer<Bytes> = []
    private var offset = 0
    private var heldBytes = 0
    private var endsAfter = false
    private var isPumpScheduled = false
    private static let pieceBytes = 128 << 10

    init(_ connection: HTTP1Handler, isHead: Bool) {
        self.connection = connection
        self.isHead = isHead
        super.init()
    }

    override func start(
        status: Int, headers: [(name: String, value: String)], bodyBytes: Int? = nil
    ) {
        guard !isClosed, !isStarted else { return }
        isStarted = true
        isWhole = bodyBytes != nil
        connection?.head(status, extraHeaders + headers, bodyBytes: bodyBytes)
    }

    override func write(_ body: Bytes) {
        guard !isClosed, isStarted, !isHead else { return }
        guard body.length > Self.pieceBytes || !waiting.isEmpty else {
            let buffer = body.withUnsafeBytes { ByteBuffer(bytes: $0) }
            connection?.write(.body(.byteBuffer(buffer)), flush: !isWhole)
            return
        }
        waiting.append(body)
        heldBytes += body.length
        connection?.hold(body.length)
        pump()
    }

    private func pump() {
        guard !isPumpScheduled, let connection, connection.isWritable, let body = waiting.first else { return }
        let end = min(offset + Self.pieceBytes, body.length)
        let buffer = body.withRaw { ByteBuffer(bytes: UnsafeRawBufferPointer(rebasing: $0[offset..<end])) }
        heldBytes -= end - offset
        connection.hold(offset - end)
        offset = end
        if end == body.length {
            waiting.removeFirst()
            offset = 0
        }
        connection.write(.body(.byteBuffer(buffer)), flush: true)
        if waiting.isEmpty { return endsAfter ? connection.ended() : () }
        isPumpScheduled = true
        connection.server.steps.later {
            self.isPumpScheduled = false
            self.pump()
        }
    }

    func writable() {
        pump()
        onWritable?()
    }

    override func end() {
        guard !isClosed, isStarted else { return }
        isClosed = true
        onClosed = nil
        onWritable = nil
        if waiting.isEmpty { connection?.ended() } else { endsAfter = true }
    }

    /// The client has gone.
    func release() {
        connection?.hold(-heldBytes)
        heldBytes = 0
        waiting.removeAll()
        closed()
    }

    override var bufferedBytes: Int { (connection?.bufferedBytes ?? 0) + heldBytes }
}

extension HTTPRequest {
    init(_ head: HTTPRequestHead, peerName: String?, isSecure: Bool) {
        self.init(
            method: head.method.rawValue, target: head.uri,
            headers: head.headers.map { (name: $0.name.lowercased(), value: $0.value) },
            authority: head.headers.first(name: "host") ?? "", peerName: peerName,
            isSecure: isSecure)
    }
}

extension Channel {
    /// What the socket has not taken yet, as users of a stream count it: above `high` exactly while the
    /// channel is not writable, so that whoever waits for less is told.
    func bufferedBytes(high: Int) -> Int {
        let bytes = (try? syncOptions?.getOption(.bufferedWritableBytes)) ?? 0
        return isWritable ? min(bytes, high - 1) : max(bytes, high + 1)
    }
}
