package import NIOCore
import NIOPosix
package import Primitives
package import TLS

/// A client of one etcd (or Polder) endpoint: one HTTP/2 connection, made when it is first needed
/// and again after it broke. For probes, drills and tests; failing over between endpoints is the
/// caller's.
///
/// Calls fail at once while the endpoint refuses connections: whoever measures wants to know.
package final class EtcdClient: @unchecked Sendable {
    // Unchecked: everything mutable is touched on `loop` only.

    package struct Options: Sendable {
        package var connectTimeout = TimeSpan.milliseconds(500)
        package var tls: TLSContext?
        /// etcd's auth token, if auth is on.
        package var token: String?
        package init(tls: TLSContext? = nil) { self.tls = tls }
    }

    package let endpoint: EtcdEndpoint
    package let loop: any EventLoop
    private let options: Options

    private enum State {
        case idle
        case connecting
        case connected(ClientSession)
        case shutDown
    }
    private var state = State.idle
    private var waiting: [(Result<ClientSession, EtcdClientError>) -> Void] = []

    package init(endpoint: EtcdEndpoint, loop: any EventLoop, options: Options = Options()) {
        self.endpoint = endpoint
        self.loop = loop
        self.options = options
    }

    /// A client of the same endpoint with a connection of its own.
    package func again(token: String? = nil) -> EtcdClient {
        var options = options
        options.token = token ?? options.token
        return EtcdClient(endpoint: endpoint, loop: loop, options: options)
    }

    // MARK: Calls

    /// One message there, one back.
    package func unary(
        _ method: RPCMethod, _ message: [UInt8], timeout: TimeSpan
    ) async -> Result<[UInt8], EtcdClientError> {
        await withCheckedContinuation { continuation in
            loop.execute {
                self.startUnary(path: "\(method.path)", message, timeout: timeout) {
                    continuation.resume(returning: $0)
                }
            }
        }
    }

    /// Not gRPC: Polder's own pages on the client port.
    package func http(
        _ method: String, _ path: String, body: [UInt8] = [], timeout: TimeSpan
    ) async -> Result<(status: Int, body: [UInt8]), EtcdClientError> {
        await withCheckedContinuation { continuation in
            loop.execute {
                self.startHTTP(method, path, body, timeout: timeout) {
                    continuation.resume(returning: $0)
                }
            }
        }
    }

    /// A call whose both sides send any number of messages. The sequence ends with the server's
    /// status (throws if that is not OK), or when the connection breaks. With `heldBytesMax` the whole
    /// connection is not read while its messages wait to be taken: such a client is for one stream.
    package func stream(_ method: RPCMethod, heldBytesMax: Int = .max) -> EtcdStream {
        EtcdStream(client: self, path: "\(method.path)", heldBytesMax: heldBytesMax)
    }

    package func shutdown() async {
        await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
            loop.execute {
                if case .connected(let session) = self.state { session.close("client closed") }
                self.state = .shutDown
                continuation.resume()
            }
        }
    }

    // MARK: On the loop

    /// Calls `done` exactly once: with an answer, a failure, or when `timeout` has passed.
    private func startUnary(
        path: String, _ message: [UInt8], timeout: TimeSpan,
        _ done: @escaping (Result<[UInt8], EtcdClientError>) -> Void
    ) {
        let call = Call(done)
        call.arm(loop, timeout)
        withSession { result in
            guard !call.isOver else { return }
            switch result {
            case .failure(let error): call.finish(.failure(error))
            case .success(let session):
                call.begin(
                    on: session, shape: .grpc,
                    headers: self.headers(path: path, timeout: timeout), body: Self.framed(message)
                ) { end in Self.unaryResult(end, call.messages) }
            }
        }
    }

    private func startHTTP(
        _ method: String, _ path: String, _ body: [UInt8], timeout: TimeSpan,
        _ done: @escaping (Result<(status: Int, body: [UInt8]), EtcdClientError>) -> Void
    ) {
        let call = Call(done)
        call.arm(loop, timeout)
        withSession { result in
            guard !call.isOver else { return }
            switch result {
            case .failure(let error): call.finish(.failure(error))
            case .success(let session):
                var headers = [
                    (":method", method), (":scheme", self.endpoint.isSecure ? "https" : "http"),
                    (":path", path), (":authority", self.endpoint.authority),
                ]
                if !body.isEmpty {
                    headers.append(("content-type", "application/json"))
                    headers.append(("content-length", "\(body.count)"))
                }
                call.begin(on: session, shape: .plain, headers: headers, body: body) { end in
                    switch end {
                    case .broken(let reason): .failure(.unavailable(reason, wasSent: true))
                    case .complete(let headers):
                        .success(
                            (
                                status: headers.first { $0.name == ":status" }.flatMap {
                                    Int($0.value)
                                } ?? 0,
                                body: Array(call.messages.joined())
                            ))
                    }
                }
            }
        }
    }

    func headers(path: String, timeout: TimeSpan?) -> [(String, String)] {
        var headers = [
            (":method", "POST"), (":scheme", endpoint.isSecure ? "https" : "http"), (":path", path),
            (":authority", endpoint.authority), ("te", "trailers"),
            ("content-type", "application/grpc"), ("user-agent", "polder-client"),
        ]
        if let timeout {
            // At most eight digits (gRPC over HTTP/2): milliseconds reach a day.
            headers.append(("grpc-timeout", "\(min(99_999_999, max(1, timeout.milliseconds)))m"))
        }
        if let token = options.token { headers.append(("token", token)) }
        return headers
    }

    static func framed(_ message: [UInt8]) -> [UInt8] {
        let count = UInt32(message.count)
        return [
            0, UInt8(truncatingIfNeeded: count >> 24), UInt8(truncatingIfNeeded: count >> 16),
            UInt8(truncatingIfNeeded: count >> 8), UInt8(truncatingIfNeeded: count),
        ] + message
    }

    /// The status that a finished gRPC stream carries; `nil`: OK.
    static func failure(of end: ClientStreamEnd) -> EtcdClientError? {
        switch end {
        case .broken(let reason): return .unavailable(reason, wasSent: true)
        case .complete(let headers):
            guard
                let code = headers.last(where: { $0.name == "grpc-status" }).flatMap({
                    UInt8($0.value)
                })
            else {
                let status = headers.first { $0.name == ":status" }?.value ?? "none"
                return .unavailable("no gRPC status; HTTP status \(status)", wasSent: true)
            }
            if code == 0 { return nil }
            let message = headers.last { $0.name == "grpc-message" }?.value ?? ""
            return .answered(GRPCStatus(rawValue: code) ?? .unknown, percentDecoded(message))
        }
    }

    private static func unaryResult(
        _ end: ClientStreamEnd, _ messages: [[UInt8]]
    ) -> Result<[UInt8], EtcdClientError> {
        if let failure = failure(of: end) { return .failure(failure) }
        guard messages.count == 1 else {
            return .failure(.answered(.internal, "\(messages.count) messages in the answer"))
        }
        return .success(messages[0])
    }

    private static func percentDecoded(_ text: String) -> String {
        guard text.contains("%") else { return text }
        var out: [UInt8] = []
        let bytes = Array(text.utf8)
        var i = 0
        while i < bytes.count {
            if bytes[i] == UInt8(ascii: "%"), i + 2 < bytes.count,
                let value = UInt8(String(decoding: bytes[i + 1...i + 2], as: UTF8.self), radix: 16)
            {
                out.append(value)
                i += 3
            } else {
                out.append(bytes[i])
                i += 1
            }
        }
        return String(decoding: out, as: UTF8.self)
    }

    // MARK: Connection

    /// On the loop: the connection, or why there is none.
    func withSession(_ body: @escaping (Result<ClientSession, EtcdClientError>) -> Void) {
        switch state {
        case .shutDown: body(.failure(.unavailable("client closed", wasSent: false)))
        case .connected(let session) where !session.isClosed && !session.isGoingAway:
            body(.success(session))
        case .connecting: waiting.append(body)
        case .idle, .connected:
            state = .connecting
            waiting.append(body)
            connect()
        }
    }

    private func connect() {
        let (endpoint, options, loop) = (endpoint, options, loop)
        if endpoint.isSecure && options.tls == nil {
            return connected(.failure(.unavailable("\(endpoint) needs TLS files", wasSent: false)))
        }
        let ready = loop.makePromise(of: Void.self)
        let timeout = TimeAmount.nanoseconds(Int64(clamping: options.connectTimeout.nanoseconds))
        let timer = loop.scheduleTask(in: timeout) {
            ready.fail(EtcdClientError.unavailable("connecting timed out", wasSent: false))
        }
        let bootstrap = ClientBootstrap(group: loop)
            .connectTimeout(timeout)
            .channelOption(.socketOption(.so_reuseaddr), value: 1)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    if endpoint.isSecure, let tls = options.tls {
                        try pipeline.addHandler(
                            TLSHandler(context: tls, role: .client(expectedName: endpoint.host)))
                    }
                    try pipeline.addHandler(
                        ReadyHandler(waitsForTLS: endpoint.isSecure, ready: ready))
                    try pipeline.addHandler(ClientSession())
                }
            }
        let connecting = bootstrap.connect(host: endpoint.host, port: endpoint.port)
        connecting.whenFailure { ready.fail($0) }
        connecting.and(ready.futureResult).assumeIsolated().whenComplete { result in
            timer.cancel()
            switch result {
            case .failure(let error):
                connecting.whenSuccess { $0.close(promise: nil) }
                let known = error as? EtcdClientError
                self.connected(
                    .failure(
                        known
                            ?? .unavailable(
                                "cannot connect to \(endpoint): \(error)", wasSent: false)))
            case .success((let channel, _)):
                self.connected(
                    Result { try channel.pipeline.syncOperations.handler(type: ClientSession.self) }
                        .mapError { .unavailable("\($0)", wasSent: false) })
            }
        }
    }

    private func connected(_ result: Result<ClientSession, EtcdClientError>) {
        let calls = waiting
        waiting.removeAll()
        if case .shutDown = state {
            if case .success(let session) = result { session.close("client closed") }
            for call in calls { call(.failure(.unavailable("client closed", wasSent: false))) }
            return
        }
        switch result {
        case .success(let session) where !session.isClosed:
            state = .connected(session)
            session.onClosed = { [weak self, weak session] _ in
                guard let self, case .connected(let current) = self.state, current === session
                else { return }
                self.state = .idle
            }
        default: state = .idle
        }
        for call in calls { call(result) }
    }
}

/// One call under way: sees to it that `done` is called exactly once. On the loop.
private final class Call<Answer> {
    private var done: ((Result<Answer, EtcdClientError>) -> Void)?
    private var timer: Scheduled<Void>?
    private var session: ClientSession?
    private var stream: ClientStream?
    private let started = NIODeadline.now()
    var messages: [[UInt8]] = []
    var isOver: Bool { done == nil }

    init(_ done: @escaping (Result<Answer, EtcdClientError>) -> Void) { self.done = done }

    func arm(_ loop: any EventLoop, _ timeout: TimeSpan) {
        let after = TimeAmount.nanoseconds(Int64(clamping: timeout.nanoseconds))
        timer = loop.assumeIsolated().scheduleTask(in: after) { self.expire() }
    }

    func begin(
        on session: ClientSession, shape: ClientStream.Shape, headers: [(String, String)],
        body: [UInt8], _ result: @escaping (ClientStreamEnd) -> Result<Answer, EtcdClientError>
    ) {
        let stream = ClientStream(
            shape: shape, onMessage: { self.messages.append($0) },
            onEnd: { self.finish(result($0)) })
        self.session = session
        self.stream = stream
        session.start(stream, headers: headers, body: body, isComplete: true)
    }

    func finish(_ result: Result<Answer, EtcdClientError>) {
        guard let done else { return }
        self.done = nil
        timer?.cancel()
        stream = nil
        session = nil
        done(result)
    }

    private func expire() {
        let (session, stream) = (session, stream)
        finish(.failure(.timeout(wasSent: stream != nil)))
        guard let session, let stream else { return }
        session.cancel(stream, "deadline exceeded")
        // Nothing at all came while this call waited: the peer may have vanished without a word,
        // and TCP would take minutes to notice. A new connection tells.
        if session.lastHeard < started { session.close("nothing heard from the server") }
    }
}

/// Tells when requests may be sent.
private final class ReadyHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    private let waitsForTLS: Bool
    private let ready: EventLoopPromise<Void>

    init(waitsForTLS: Bool, ready: EventLoopPromise<Void>) {
        self.waitsForTLS = waitsForTLS
        self.ready = ready
    }
    func channelActive(context: ChannelHandlerContext) {
        if !waitsForTLS { ready.succeed() }
        context.fireChannelActive()
    }
    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .handshakeCompleted(let alpn, _)? = event as? TLSEvent {
            if alpn == nil || alpn == "h2" {
                ready.succeed()
            } else {
                ready.fail(
                    EtcdClientError.unavailable("the server speaks no HTTP/2", wasSent: false))
            }
        }
        context.fireUserInboundEventTriggered(event)
    }
    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        ready.fail(error)
        context.fireErrorCaught(error)
    }
    func channelInactive(context: ChannelHandlerContext) {
        ready.fail(EtcdClientError.unavailable("closed while connecting", wasSent: false))
        context.fireChannelInactive()
    }
}
