import Glibc
import NIOCore
import Primitives

/// One HTTP/2 connection of the server: turns the session's events into calls.
final class RPCConnection: HTTP2ConnectionDelegate {
    private let server: RPCServer
    private(set) var slot = -1
    @exclusivity(unchecked) private(set) var channel: HTTP2ChannelHandler?
    private let peerName: String?
    private let isSecure: Bool
    /// Waits in the server's list for a flush.
    @exclusivity(unchecked) var isDirty = false

    @exclusivity(unchecked) private var head = RequestHead()
    /// Of the block that is arriving. Trailers of a client say nothing that we want to know.
    @exclusivity(unchecked) private var takesHead = false
    private var exchanges: [Int32: HTTP2Exchange] = [:]
    /// Of all its calls: see `RPCServer.halfSent`.
    @exclusivity(unchecked) var halfSentBytes = 0
    private var resets: ResetBudget
    private var isFlooded = false

    private var lastPing: NIODeadline?
    private var pingStrikes = 0
    private var keepAlive: Scheduled<Void>?
    private var awaitsPong = false

    init(server: RPCServer, peerName: String?, isSecure: Bool) {
        self.server = server
        self.peerName = peerName
        self.isSecure = isSecure
        resets = ResetBudget(server.limits, now: server.loop.now)
    }

    var session: HTTP2Session {
        guard let channel else { fatalError("invariant broken: a connection without its channel") }
        return channel.session
    }

    func onConnected(_ handler: HTTP2ChannelHandler) {
        channel = handler
        slot = server.add(self)
        handler.owner = slot
        watchOver(after: server.limits.keepAliveInterval)
        if server.isShuttingDown { onShutdown() }
    }

    func onReadEnd() -> Bool {
        server.armTimer()
        server.handler?.onReadEnd()
        server.flushLater(self)
        return true
    }

    func onDisconnected() {
        keepAlive?.cancel()
        keepAlive = nil
        if slot >= 0 { server.remove(self) }
        channel = nil
    }

    // MARK: Requests

    func onOpen(_ stream: Int32) -> Int {
        head.reset()
        takesHead = true
        return server.takeCall(connection: slot, stream: stream)
    }

    func onField(
        _ stream: Int32, _ context: Int, name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer
    ) {
        guard takesHead else { return }
        head.take(name, value, server)
    }

    func onFieldsEnd(_ stream: Int32, _ context: Int) {
        takesHead = false
        guard server.state(context) == .headers else { return }
        guard head.isComplete else {
            server.setState(context, .ended)
            return session.reset(stream, code: 1)
        }
        guard session.bufferedBytes < bufferedBytesMax, server.openCalls <= server.limits.openCallsMax
        else {
            // Asks and asks, and reads no answer, or there are too many: REFUSED_STREAM, which may be tried
            // again.
            server.counters.callsRefused &+= 1
            server.setState(context, .ended)
            return session.reset(stream, code: 7)
        }
        guard head.isGRPC else { return beginExchange(stream, context) }
        guard head.isPost else {
            return server.end(
                context, .internal,
                "Received a HEADERS frame with :method \"\(head.otherMethod)\" which should be POST",
                httpStatus: 405)
        }
        guard let method = head.method else {
            server.counters.callsRefused &+= 1
            return server.end(context, .unimplemented, RPCMethod.unknown(head.path))
        }
        guard !head.hasBadTimeout else {
            return server.end(context, .internal, "malformed grpc-timeout", httpStatus: 400)
        }
        head.metadata.peerName = peerName
        server.beginCall(
            context, method, head.metadata, encoding: head.encoding,
            now: channel?.lastRead ?? server.loop.now)
    }

    func onData(_ stream: Int32, _ context: Int, _ data: UnsafeRawBufferPointer) {
        switch server.state(context) {
        case .open:
            server.receive(context, data)
            guard halfSentBytes > server.limits.halfSentBytesMax, server.state(context) == .open else {
                return
            }
            server.abort(context, .resourceExhausted, "too many half-sent messages on one connection")
        case .http:
            guard let exchange = exchanges[stream] else { return }
            exchange.receive(data, limit: server.limits.httpBodyBytesMax)
            server.halfSent(context, is: exchange.bodyBytes)
            if halfSentBytes > server.limits.halfSentBytesMax { session.reset(stream, code: 11) }
        case .free, .headers, .ended: break
        }
    }

    /// All requests together have come to too much, and this one is among the worst.
    func refuseHalfSent(_ stream: Int32) { exchanges[stream]?.refuse(503, "too many half-sent requests\n") }

    /// It gets no new calls above this.
    private var bufferedBytesMax: Int {
        server.unread.isFull ? server.limits.bufferedBytesPressed : server.limits.unreadBytesMax
    }

    func onEnd(_ stream: Int32, _ context: Int) {
        switch server.state(context) {
        case .open: server.halfClose(context)
        case .http:
            guard let exchange = exchanges[stream], !exchange.isClosed else { return }
            server.halfSent(context, is: 0)
            server.handler?.onHTTP(exchange.takeRequest(), exchange)
        case .free, .headers, .ended: break
        }
    }

    func onWritable(_ stream: Int32, _ context: Int) {
        if server.state(context) == .http { exchanges[stream]?.onWritable?() }
        server.writable(context)
    }

    func onClose(_ stream: Int32, _ context: Int, code: UInt32) {
        if server.state(context) == .http, let exchange = exchanges.removeValue(forKey: stream) {
            exchange.closed()
        } else if server.state(context) == .open, code != HTTP2Session.connectionLost {
            countReset()
        }
        server.closeCall(context)
    }

    /// The client gave up a call that nobody has answered yet. Every client does that now and then, and many at once
    /// when it ends; who makes a business of it costs others time.
    private func countReset() {
        guard !isFlooded, !resets.take(server.limits, now: channel?.lastRead ?? server.loop.now) else { return }
        isFlooded = true
        server.counters.resetFloods &+= 1
        session.goAway(code: 11, debug: "too_many_resets")
        channel?.closeAfterFlush()
    }

    /// Messages of it that are being inflated: nothing more is taken from it meanwhile.
    private var inflatingCount = 0

    func hold() {
        inflatingCount += 1
        channel?.isHeld = true
    }

    func release() {
        inflatingCount -= 1
        if inflatingCount == 0 { channel?.isHeld = false }
    }

    // MARK: Without gRPC

    private func beginExchange(_ stream: Int32, _ context: Int) {
        if head.method != nil, head.isPost {
            server.counters.callsRefused &+= 1
            return server.end(
                context, .invalidArgument,
                "invalid gRPC request content-type \"\(head.contentType)\"", httpStatus: 415)
        }
        server.setState(context, .http)
        let request = HTTPRequest(
            method: head.isPost ? "POST" : head.otherMethod, target: head.path, headers: head.fields,
            authority: head.metadata.authority, peerName: peerName, isSecure: isSecure)
        exchanges[stream] = HTTP2Exchange(self, stream, request)
    }

    func respond(_ stream: Int32, _ fields: [(name: String, value: String)], hasBody: Bool) {
        guard channel != nil else { return }
        session.respond(stream, HTTP2Fields(fields), hasBody: hasBody)
        server.wrote(self)
    }

    func write(_ stream: Int32, _ body: Bytes) {
        guard channel != nil else { return }
        session.send(stream, body, isMessage: false)
        server.wrote(self)
    }

    func bufferedBytes(of stream: Int32) -> Int {
        channel == nil ? 0 : session.bufferedBytes(of: stream)
    }

    func end(_ stream: Int32) {
        guard channel != nil else { return }
        session.end(stream)
        server.wrote(self)
    }

    // MARK: Pings

    /// grpc-go's enforcement: a ping soon after another is a strike, unless headers or data went out in
    /// between (then the client measures the line); the third too many ends the connection.
    func onPing() {
        let now = channel?.lastRead ?? server.loop.now
        defer { lastPing = now }
        if session.hasSentFrames {
            session.hasSentFrames = false
            pingStrikes = 0
            return
        }
        let interval = TimeAmount.nanoseconds(Int64(server.limits.pingInterval.nanoseconds))
        guard let lastPing, lastPing + interval > now else { return }
        pingStrikes += 1
        guard pingStrikes > 2 else { return }
        session.goAway(code: 11, debug: "too_many_pings")
        channel?.closeAfterFlush()
    }

    private static let keepAlivePing: UInt64 = 0x6b65_6570
    private static let shutdownPing: UInt64 = 0x676f_2121

    func onPong(_ payload: UInt64) {
        if payload == Self.shutdownPing { finishShutdown() }
    }

    func onGoAway(lastStream: Int32, code: UInt32) {}

    /// A silent client is asked whether it is still there; one that does not answer is dropped.
    private func watchOver(after span: TimeSpan) {
        let delay = TimeAmount.nanoseconds(Int64(min(span.nanoseconds, 1 << 60)))
        keepAlive = server.loop.assumeIsolated().scheduleTask(in: delay) { self.keepAliveIsDue() }
    }

    private func keepAliveIsDue() {
        guard let channel else { return }
        let now = server.loop.now
        let silence = TimeSpan(nanoseconds: UInt64(max(0, (now - channel.lastRead).nanoseconds)))
        let interval = server.limits.keepAliveInterval, timeout = server.limits.keepAliveTimeout
        if silence < interval {
            awaitsPong = false
            watchOver(after: TimeSpan(nanoseconds: interval.nanoseconds - silence.nanoseconds))
        } else if awaitsPong {
            channel.close()
        } else {
            awaitsPong = true
            session.ping(Self.keepAlivePing)
            channel.flush()
            watchOver(after: timeout)
        }
    }

    // MARK: Graceful end

    /// GOAWAY for streams to come, a ping to learn when the client has read it, then the real one.
    func onShutdown() {
        guard let channel else { return }
        session.announceShutdown()
        session.ping(Self.shutdownPing)
        channel.flush()
        server.loop.assumeIsolated().scheduleTask(in: .seconds(1)) { self.finishShutdown() }
    }

    private func finishShutdown() {
        guard let channel, !channel.isLeaving else { return }
        channel.isLeaving = true
        session.goAway()
        channel.flush()
    }
}

extension RPCConnection: AnswerHolder {
    var unreadBytes: Int { channel.map { $0.session.bufferedBytes + $0.pendingBytes } ?? 0 }
    var takenBytes: UInt64 { channel?.takenBytes ?? 0 }
    func drop() { channel?.close() }
}

/// How many calls a client may give up: so many at once, and so many a second.
struct ResetBudget {
    private var left: Int
    private var filledAt: NIODeadline

    init(_ limits: RPCLimits, now: NIODeadline) {
        left = limits.resetsAtOnceMax
        filledAt = now
    }

    mutating func take(_ limits: RPCLimits, now: NIODeadline) -> Bool {
        let milliseconds = (now - filledAt).nanoseconds / 1_000_000
        let earned = Int(min(milliseconds, 1 << 30)) * limits.resetsPerSecond / 1000
        if earned > 0 {
            left = min(limits.resetsAtOnceMax, left + earned)
            filledAt = now
        }
        left -= 1
        return left >= 0
    }
}

/// The header block of a request, as it arrives. One for a connection, used again and again: what the
/// calls of one client have in common (authority, token) is made into a string once.
struct RequestHead {
    private(set) var method: RPCMethod?
    private(set) var isPost = false
    private(set) var isGRPC = false
    private(set) var hasBadTimeout = false
    private(set) var otherMethod = ""
    private(set) var path = ""
    private(set) var contentType = ""
    private(set) var encoding: String?
    /// Only of requests whose path names no method of ours.
    private(set) var fields: [(name: String, value: String)] = []
    var metadata = CallMetadata()

    private var authority = CachedText()
    private var token = CachedText()
    private var version = CachedText()

    var isComplete: Bool { (isPost || !otherMethod.isEmpty) && (method != nil || !path.isEmpty) }

    mutating func reset() {
        method = nil
        isPost = false
        isGRPC = false
        hasBadTimeout = false
        if !otherMethod.isEmpty { otherMethod = "" }
        if !path.isEmpty { path = "" }
        if !contentType.isEmpty { contentType = "" }
        encoding = nil
        if !fields.isEmpty { fields = [] }
        metadata = CallMetadata()
    }

    mutating func take(
        _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, _ server: RPCServer
    ) {
        switch name.count {
        case 5 where name.matches(":path"):
            method = server.methods.find(value)
            if method == nil { path = text(value) }
        case 5 where name.matches("token"):
            metadata.token = token.text(value)
        case 7 where name.matches(":method"):
            isPost = value.matches("POST")
            if !isPost { otherMethod = text(value) }
        case 7 where name.matches(":scheme"): break
        case 9 where name.matches("hasleader"):
            metadata.requiresLeader = value.matches("true")
        case 10 where name.matches(":authority"):
            metadata.authority = authority.text(value)
        case 12 where name.matches("content-type"):
            isGRPC = GRPCText.isGRPC(value)
            if !isGRPC { contentType = text(value) }
        case 12 where name.matches("grpc-timeout"):
            metadata.timeout = GRPCText.timeout(value)
            hasBadTimeout = metadata.timeout == nil
        case 13 where name.matches("authorization"):
            if metadata.token == nil { metadata.token = token.text(value) }
        case 13 where name.matches("grpc-encoding"):
            encoding = text(value)
        case 18 where name.matches("client-api-version"):
            metadata.clientAPIVersion = version.text(value)
        default: break
        }
        guard method == nil, name.first != UInt8(ascii: ":") else { return }
        fields.append((text(name), text(value)))
    }

    private func text(_ bytes: UnsafeRawBufferPointer) -> String { String(decoding: bytes, as: UTF8.self) }
}

/// A string that is likely to be the same as last time.
struct CachedText {
    private var bytes: [UInt8] = []
    private var string = ""

    mutating func text(_ value: UnsafeRawBufferPointer) -> String {
        let isSame = bytes.withUnsafeBytes { $0.count == value.count && value.isEqual(to: $0) }
        if !isSame {
            bytes = Array(value)
            string = String(decoding: value, as: UTF8.self)
        }
        return string
    }
}

extension UnsafeRawBufferPointer {
    func matches(_ text: StaticString) -> Bool {
        text.withUTF8Buffer { $0.count == count && isEqual(to: UnsafeRawBufferPointer($0)) }
    }

    /// Of the same length. Not byte by byte: every header of every call comes through here.
    func isEqual(to other: UnsafeRawBufferPointer) -> Bool {
        guard let own = baseAddress, let theirs = other.baseAddress else { return count == 0 }
        return memcmp(own, theirs, count) == 0
    }
}

/// A request and its answer on an HTTP/2 stream that is not gRPC.
final class HTTP2Exchange: HTTPResponder {
    private weak var connection: RPCConnection?
    private let stream: Int32
    private var request: HTTPRequest
    private var body: [UInt8] = []
    private var isStarted = false

    init(_ connection: RPCConnection, _ stream: Int32, _ request: HTTPRequest) {
        self.connection = connection
        self.stream = stream
        self.request = request
        super.init()
    }

    var bodyBytes: Int { body.count }

    func receive(_ data: UnsafeRawBufferPointer, limit: Int) {
        guard !isClosed else { return }
        guard body.count + data.count <= limit else { return refuse(413, "request too large\n") }
        body.grow(by: data.count, limit: limit)
        body.append(contentsOf: data)
    }

    /// What is wrong with a request that is still being sent. The rest of it is passed over.
    func refuse(_ status: Int, _ text: String) {
        guard !isClosed else { return }
        body = []
        respond(HTTPResponse(status: status, contentType: "text/plain", text))
    }

    func takeRequest() -> HTTPRequest {
        request.body = Bytes(body)
        body = []
        return request
    }

    override func start(
        status: Int, headers: [(name: String, value: String)], bodyBytes: Int? = nil
    ) {
        guard !isClosed, !isStarted else { return }
        isStarted = true
        var fields: [(name: String, value: String)] = [(":status", "\(status)")]
        fields += (extraHeaders + headers).map { ($0.name.lowercased(), $0.value) }
        if let bodyBytes { fields.append(("content-length", "\(bodyBytes)")) }
        let isHead = request.method == "HEAD"
        connection?.respond(stream, fields, hasBody: !isHead)
        if isHead { isClosed = true }
    }

    override func write(_ body: Bytes) {
        guard !isClosed, isStarted else { return }
        connection?.write(stream, body)
    }

    override func end() {
        guard !isClosed, isStarted else { return }
        isClosed = true
        onClosed = nil
        onWritable = nil
        connection?.end(stream)
    }

    override var bufferedBytes: Int { connection?.bufferedBytes(of: stream) ?? 0 }
}
