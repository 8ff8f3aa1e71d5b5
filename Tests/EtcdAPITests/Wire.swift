import NIOCore
import NIOEmbedded
import Primitives
import Testing

@testable import EtcdAPI

/// What the server's handler heard, in order.
final class RecordingHandler: RPCHandler {
    enum Event: Equatable {
        case call(RPCMethod)
        case message(Bytes)
        case halfClose
        case cancelled
        case writable
        case http(String)
    }
    var events: [Event] = []
    var calls: [CallReference] = []
    var metadata: [CallMetadata] = []
    var onMessage: ((CallReference, Bytes) -> Void)?
    var onWritable: ((CallReference) -> Void)?
    var onHTTP: ((HTTPRequest, HTTPResponder) -> Void)?

    func onCall(_ call: CallReference, method: RPCMethod, metadata: CallMetadata) {
        events.append(.call(method))
        calls.append(call)
        self.metadata.append(metadata)
    }
    func onMessage(_ call: CallReference, _ message: Bytes) {
        events.append(.message(message))
        onMessage?(call, message)
    }
    func onHalfClose(_ call: CallReference) { events.append(.halfClose) }
    func onCancelled(_ call: CallReference) { events.append(.cancelled) }
    func onWritable(_ call: CallReference) {
        events.append(.writable)
        onWritable?(call)
    }
    func onHTTP(_ request: HTTPRequest, _ responder: HTTPResponder) {
        events.append(.http("\(request.method) \(request.target)"))
        onHTTP?(request, responder)
    }
    var cancelled: Int { events.count { $0 == .cancelled } }
    var messages: [Bytes] {
        events.compactMap { if case .message(let message) = $0 { message } else { nil } }
    }
}

/// A client without a socket: an `HTTP2Session` and what it heard.
final class RecordingClient: HTTP2SessionDelegate {
    struct Answer {
        var fields: [String: String] = [:]
        var data: [UInt8] = []
        var hasEnded = false
        var closed: UInt32?
        var status: Int? { fields["grpc-status"].flatMap { Int($0) } }
        var message: String? { fields["grpc-message"] }
        /// The body cut into messages.
        var messages: [Bytes] {
            var reader = MessageReader()
            var messages: [Bytes] = []
            data.withUnsafeBytes { raw in
                var offset = 0
                while let message = try? reader.next(raw, &offset, limit: .max) {
                    messages.append(message)
                }
            }
            return messages
        }
    }
    private(set) var session: HTTP2Session
    var answers: [Int32: Answer] = [:]
    var goAways: [(last: Int32, code: UInt32)] = []
    var pongs: [UInt64] = []

    init(settings: HTTP2Settings = HTTP2Settings()) {
        session = HTTP2Session(role: .client, settings: settings, delegate: nil)
        session.delegate = self
    }

    func call(
        _ path: String, _ messages: [Bytes] = [], ends: Bool = true,
        extra: [(name: String, value: String)] = [], contentType: String = "application/grpc",
        authority: String = "localhost:2379"
    ) -> Int32 {
        let fields = [
            (name: ":method", value: "POST"), (":scheme", "http"), (":path", path),
            (":authority", authority), ("content-type", contentType), ("te", "trailers"),
        ]
        guard let stream = session.open(HTTP2Fields(fields + extra), context: 0) else {
            Issue.record("no stream")
            return 0
        }
        answers[stream] = Answer()
        for message in messages { session.send(stream, message, isMessage: true) }
        if ends { session.end(stream) }
        return stream
    }

    func bytes() -> ByteBuffer {
        var buffer = ByteBuffer()
        _ = session.drain(into: &buffer, limit: .max)
        return buffer
    }

    func onOpen(_ stream: Int32) -> Int { 0 }
    func onField(
        _ stream: Int32, _ context: Int, name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer
    ) {
        answers[stream]?.fields[String(decoding: name, as: UTF8.self)] =
            String(decoding: value, as: UTF8.self)
    }
    func onFieldsEnd(_ stream: Int32, _ context: Int) {}
    func onData(_ stream: Int32, _ context: Int, _ data: UnsafeRawBufferPointer) {
        answers[stream]?.data.append(contentsOf: data)
    }
    func onEnd(_ stream: Int32, _ context: Int) { answers[stream]?.hasEnded = true }
    func onWritable(_ stream: Int32, _ context: Int) {}
    func onClose(_ stream: Int32, _ context: Int, code: UInt32) { answers[stream]?.closed = code }
    func onPing() {}
    func onPong(_ payload: UInt64) { pongs.append(payload) }
    func onGoAway(lastStream: Int32, code: UInt32) { goAways.append((lastStream, code)) }
}

/// A server and one client, joined by memory.
final class Wire {
    let loop = EmbeddedEventLoop()
    let server: RPCServer
    let handler = RecordingHandler()
    let channel: EmbeddedChannel
    let client: RecordingClient

    init(_ limits: RPCLimits = RPCLimits(), client: HTTP2Settings = HTTP2Settings()) throws {
        server = RPCServer(loop: loop, limits: limits)
        server.handler = handler
        self.client = RecordingClient(settings: client)
        channel = EmbeddedChannel(loop: loop)
        try server.configure(channel)
        try channel.connect(to: SocketAddress(unixDomainSocketPath: "/client")).wait()
    }

    deinit {
        client.session.close()
        _ = try? channel.finish(acceptAlreadyClosed: true)
    }

    /// Carries bytes to and fro until there are none.
    func pump() throws {
        while true {
            let toServer = client.bytes()
            if toServer.readableBytes > 0 { try channel.writeInbound(toServer) }
            loop.run()
            let toClient = try fromServer()
            if toClient.readableBytes > 0 {
                _ = toClient.withUnsafeReadableBytes { client.session.feed($0) }
            }
            if toServer.readableBytes == 0, toClient.readableBytes == 0 { return }
        }
    }

    func fromServer() throws -> ByteBuffer {
        var all = ByteBuffer()
        while var part = try channel.readOutbound(as: ByteBuffer.self) { all.writeBuffer(&part) }
        return all
    }

    /// Every call answers with the message it was sent.
    func echo() {
        handler.onMessage = { [server] call, message in
            server.send(message, to: call)
            server.finish(call)
        }
    }
}
