import Dispatch
import EtcdAPI
import NIOCore
import Primitives

/// Where the calls of the gateway go in: `RPCServer`, as for those of gRPC.
protocol LocalCalls: AnyObject {
    func begin(
        _ method: RPCMethod, _ metadata: CallMetadata, sink: any LocalCallSink
    ) -> CallReference
    func receive(_ message: Bytes, on call: CallReference)
    func halfClose(_ call: CallReference)
    func cancel(_ call: CallReference)
    func drained(_ call: CallReference)
    var loop: any EventLoop { get }
    /// Counts answers that have not left.
    var unread: UnreadBytes { get }
}

extension RPCServer: LocalCalls {}

/// What the two kinds of gateway call have in common: a route, and the call that stands behind it.
class GatewayCall: LocalCallSink {
    let route: GatewayRoute
    private let calls: any LocalCalls
    private var call: CallReference?
    private var isFinished = false
    /// Answers behind one that is being made into JSON elsewhere, and the end behind them.
    private var waiting: CircularBuffer<Bytes> = []
    private var isConverting = false
    private var end: (status: GRPCStatus, message: String)?

    init(_ route: GatewayRoute, _ calls: any LocalCalls) {
        self.route = route
        self.calls = calls
    }

    func begin(_ metadata: CallMetadata) {
        let begun = calls.begin(route.method, metadata, sink: self)
        // It may have been answered within: then there is no call any more.
        if !isFinished { call = begun }
    }

    /// Asks with one JSON value. A value that is none ends the call.
    func ask(_ json: Bytes) {
        guard let call else { return }
        do throws(GatewayRoute.BadJSON) {
            // JSON's nothing is the empty message.
            calls.receive(try route.request(json == "null" ? "{}" : json), on: call)
        } catch {
            calls.cancel(call)
            guard !isFinished else { return }
            isFinished = true
            self.call = nil
            dropWaiting()
            refuse(error.text)
        }
    }

    func halfClose() {
        if let call { calls.halfClose(call) }
    }

    /// The client has gone.
    func abandon() {
        guard !isFinished else { return }
        isFinished = true
        dropWaiting()
        if let call { calls.cancel(call) }
        call = nil
    }

    func drained() {
        if let call { calls.drained(call) }
    }

    // MARK: Answers

    final func onAnswer(_ message: Bytes) {
        guard !isFinished else { return }
        if !isConverting, message.count <= Self.bytesAtOnce { return show(route.answer(message)) }
        calls.unread.count += message.count
        waiting.append(message)
        convert()
    }

    final func onFinish(_ status: GRPCStatus, _ message: String) {
        guard !isFinished else { return }
        guard !isConverting else {
            end = (status, message)
            return
        }
        isFinished = true
        call = nil
        dropWaiting()
        finish(status, message)
    }

    private func show(_ json: [UInt8]?) {
        guard !isFinished else { return }
        guard let json else {
            if let call { calls.cancel(call) }
            return onFinish(.internal, "polder: an answer that cannot be shown as JSON")
        }
        deliver(json)
    }

    // MARK: Long answers

    /// JSON of more than this is not made on the loop: a megabyte takes ten milliseconds.
    private static let bytesAtOnce = 64 << 10
    /// One after the other: it takes several times an answer's size in memory.
    private static let worker = DispatchQueue(label: "polder.gateway")

    private func convert() {
        guard !isConverting, let message = waiting.popFirst() else { return }
        isConverting = true
        let route = self.route, loop = calls.loop
        let this = NIOLoopBound(self, eventLoop: loop)
        Self.worker.async {
            let json = route.answer(message)
            loop.execute { this.value.converted(json, from: message.count) }
        }
    }

    private func converted(_ json: [UInt8]?, from count: Int) {
        calls.unread.count -= count
        isConverting = false
        show(json)
        convert()
        if !isConverting, let end {
            self.end = nil
            onFinish(end.status, end.message)
        }
    }

    private func dropWaiting() {
        for message in waiting { calls.unread.count -= message.count }
        waiting.removeAll()
        end = nil
    }

    /// What subclasses add of their own.
    var bufferedBytes: Int { 0 }
    func deliver(_ json: [UInt8]) {}
    func finish(_ status: GRPCStatus, _ message: String) {}
    /// The request is not JSON, or not its method's: as grpc-gateway answers, which finds out before
    /// the call where there is one message, and within it where there are many.
    func refuse(_ message: String) {}

    var refusalStatus: GRPCStatus { route.takesMany ? .unknown : .invalidArgument }

    /// `{"result":...}`, a line of a stream.
    static func line(_ json: [UInt8]) -> [UInt8] {
        var line: [UInt8] = []
        line.reserveCapacity(json.count + 14)
        line += Array("{\"result\":".utf8)
        line += json
        line += Array("}".utf8)
        return line
    }
}

/// A request over HTTP/1.1 or HTTP/2: one answer, or one a line until the call ends.
final class HTTPGatewayCall: GatewayCall {
    private let responder: HTTPResponder
    private var whole: [UInt8]?
    private var hasStarted = false

    init(_ route: GatewayRoute, _ calls: any LocalCalls, _ responder: HTTPResponder) {
        self.responder = responder
        super.init(route, calls)
        // The responder holds the call for as long as it is open.
        responder.onClosed = { self.abandon() }
        responder.onWritable = { self.drained() }
    }

    override var bufferedBytes: Int { responder.bufferedBytes }

    override func deliver(_ json: [UInt8]) {
        guard route.isStream else {
            whole = json
            return
        }
        start(200)
        responder.write(Bytes(Self.line(json) + [0x0A]))
    }

    override func finish(_ status: GRPCStatus, _ message: String) {
        switch (status, route.isStream) {
        case (.ok, false):
            responder.respond(
                HTTPResponse(status: 200, headers: Self.headers, body: Bytes(whole ?? [])))
        case (.ok, true):
            start(200)
            responder.end()
        case (_, false): fail(status, message)
        case (_, true):
            start(status.httpStatus)
            responder.write(Bytes(GatewayError.line(status, message) + "\n"))
            responder.end()
        }
    }

    override func refuse(_ message: String) {
        if hasStarted { return finish(refusalStatus, message) }
        fail(refusalStatus, message)
    }

    private func fail(_ status: GRPCStatus, _ message: String) {
        responder.respond(
            HTTPResponse(
                status: status.httpStatus, headers: Self.errorHeaders,
                body: Bytes(GatewayError.body(status, message))))
    }

    private func start(_ status: Int) {
        guard !hasStarted else { return }
        hasStarted = true
        responder.start(status: status, headers: Self.headers)
    }

    private static let errorHeaders = [(name: "content-type", value: "application/json")]
    private static let headers =
        errorHeaders + [(name: "grpc-metadata-content-type", value: "application/grpc")]
}

/// A request over a WebSocket: each message of the client is a value, each answer a message.
final class WebSocketGatewayCall: GatewayCall {
    private let socket: WebSocket

    init(_ route: GatewayRoute, _ calls: any LocalCalls, _ socket: WebSocket) {
        self.socket = socket
        super.init(route, calls)
        socket.onMessage = { message in
            var values = JSONValues(message)
            while let value = values.next() { self.ask(value) }
            // Who may ask once has asked.
            if !self.route.takesMany { self.halfClose() }
        }
        socket.onClosed = { self.abandon() }
        socket.onWritable = { self.drained() }
    }

    override var bufferedBytes: Int { socket.bufferedBytes }

    override func deliver(_ json: [UInt8]) {
        socket.send(text: Bytes(route.isStream ? Self.line(json) : json))
    }

    override func finish(_ status: GRPCStatus, _ message: String) {
        if status != .ok {
            socket.send(
                text: Bytes(
                    route.isStream
                        ? GatewayError.line(status, message) : GatewayError.body(status, message)))
        }
        socket.close()
    }

    override func refuse(_ message: String) {
        socket.send(text: Bytes(GatewayError.body(refusalStatus, message)))
        socket.close()
    }
}

enum GatewayError {
    /// Of an answer. Old gateways say `error`, new ones only `code` and `message`.
    static func body(_ status: GRPCStatus, _ message: String) -> String {
        var json = JSONWriter()
        json.object {
            $0.member("error", message)
            $0.member("code", status.rawValue)
            $0.member("message", message)
        }
        return json.text
    }

    /// The last line of a stream.
    static func line(_ status: GRPCStatus, _ message: String) -> String {
        var json = JSONWriter()
        json.object {
            $0.object("error") {
                $0.member("grpc_code", status.rawValue)
                $0.member("http_code", status.httpStatus)
                $0.member("message", message)
                $0.member("http_status", status.httpReason)
                $0.member("code", status.rawValue)
            }
        }
        return json.text
    }
}

extension GRPCStatus {
    /// grpc-gateway's table.
    var httpStatus: Int {
        switch self {
        case .ok: 200
        case .cancelled: 408
        case .unknown, .internal, .dataLoss: 500
        case .invalidArgument, .failedPrecondition, .outOfRange: 400
        case .deadlineExceeded: 504
        case .notFound: 404
        case .alreadyExists, .aborted: 409
        case .permissionDenied: 403
        case .resourceExhausted: 429
        case .unimplemented: 501
        case .unavailable: 503
        case .unauthenticated: 401
        }
    }

    fileprivate var httpReason: String {
        switch httpStatus {
        case 200: "OK"
        case 400: "Bad Request"
        case 401: "Unauthorized"
        case 403: "Forbidden"
        case 404: "Not Found"
        case 408: "Request Timeout"
        case 409: "Conflict"
        case 429: "Too Many Requests"
        case 501: "Not Implemented"
        case 503: "Service Unavailable"
        case 504: "Gateway Timeout"
        default: "Internal Server Error"
        }
    }
}
