package import Primitives

/// Names a call of a client. Never reused within a server's life in practice (the generation has 32
/// bits), so an answer that comes after its call has ended finds nothing and is dropped.
package struct CallReference: Hashable, Sendable, CustomStringConvertible {
    package let slot: UInt32
    package let generation: UInt32

    package init(slot: UInt32, generation: UInt32) {
        self.slot = slot
        self.generation = generation
    }

    package var description: String { "call \(slot).\(generation)" }
}

/// What a client said beside its message.
package struct CallMetadata: Sendable {
    /// From `grpc-timeout`, counted from the arrival of the headers. The server itself ends the call
    /// when it has passed (`onCancelled`); it is here for what waits outside of the server.
    package var timeout: TimeSpan?
    /// etcd's `token` (or, as the gateway sends it, `authorization`).
    package var token: String?
    /// `hasleader: true`: rather an error than waiting for a leader.
    package var requiresLeader = false
    package var clientAPIVersion: String?
    package var authority = ""
    /// Common name of the client's certificate, if it had to show one.
    package var peerName: String?

    package init() {}
}

/// The server's user: answers calls. All on the loop that the server was given.
package protocol RPCHandler: AnyObject {
    /// The headers of a call of a known method have arrived.
    func onCall(_ call: CallReference, method: RPCMethod, metadata: CallMetadata)
    /// One whole message, size checked. Of a unary call exactly one comes before `onHalfClose`,
    /// unless the client breaks the rules: none or several are the handler's to refuse.
    func onMessage(_ call: CallReference, _ message: Bytes)
    /// The client sends no more. Not after `finish`.
    func onHalfClose(_ call: CallReference)
    /// Reset, connection gone, deadline passed, or the server answered an error by itself: free the
    /// call's work. Comes at most once, and never after `finish`. Answering later is harmless.
    func onCancelled(_ call: CallReference)
    /// `bufferedBytes` was above the high mark and is now below the low mark.
    func onWritable(_ call: CallReference)
    /// HTTP/1.1, or HTTP/2 that is not gRPC.
    func onHTTP(_ request: HTTPRequest, _ responder: HTTPResponder)
    /// One connection has delivered what one wake of its socket brought; others may follow in the same
    /// tick of the loop. A handler that gathers work may do what it has, before it is too much.
    func onReadEnd()
    /// A client wants to make a WebSocket of its request. Nil: no, it is answered like any other.
    /// Otherwise: what the handshake's answer says beside the usual.
    func onUpgrade(_ request: HTTPRequest) -> [(name: String, value: String)]?
    /// After `onUpgrade` agreed.
    func onWebSocket(_ request: HTTPRequest, _ socket: WebSocket)
}

extension RPCHandler {
    package func onReadEnd() {}
    package func onUpgrade(_ request: HTTPRequest) -> [(name: String, value: String)]? { nil }
    package func onWebSocket(_ request: HTTPRequest, _ socket: WebSocket) { socket.close() }
}

/// gRPC's status codes.
package enum GRPCStatus: UInt8, Sendable, CaseIterable {
    case ok = 0
    case cancelled
    case unknown
    case invalidArgument
    case deadlineExceeded
    case notFound
    case alreadyExists
    case permissionDenied
    case resourceExhausted
    case failedPrecondition
    case aborted
    case outOfRange
    case unimplemented
    case `internal`
    case unavailable
    case dataLoss
    case unauthenticated
}

/// A request without gRPC. Header names are in lower case.
package struct HTTPRequest: Sendable {
    package var method: String
    /// Path and query as sent.
    package var target: String
    package var headers: [(name: String, value: String)]
    package var body: Bytes
    package var authority: String
    package var peerName: String?
    /// It came over TLS.
    package var isSecure: Bool

    package init(
        method: String, target: String, headers: [(name: String, value: String)] = [],
        body: Bytes = .empty, authority: String = "", peerName: String? = nil,
        isSecure: Bool = false
    ) {
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.authority = authority
        self.peerName = peerName
        self.isSecure = isSecure
    }

    package func header(_ name: String) -> String? {
        headers.first { $0.name == name }?.value
    }
}

package struct HTTPResponse: Sendable {
    package var status: Int
    package var headers: [(name: String, value: String)]
    package var body: Bytes

    package init(
        status: Int, headers: [(name: String, value: String)] = [], body: Bytes = .empty
    ) {
        self.status = status
        self.headers = headers
        self.body = body
    }

    package init(status: Int, contentType: String, _ text: String) {
        self.init(status: status, headers: [("content-type", contentType)], body: Bytes(text))
    }
}

/// Where the answer to an `HTTPRequest` goes: `respond` once, or `start`, any number of `write`, then
/// `end`. On the server's loop. What comes after the client has gone is dropped.
package class HTTPResponder {
    /// The client has gone, or the answer is complete.
    package internal(set) var isClosed = false
    /// Called at most once, when the client goes before `end`.
    package var onClosed: (() -> Void)?
    /// `bufferedBytes` were above the high mark and are below the low one.
    package var onWritable: (() -> Void)?
    /// Said with every answer, before its own headers.
    package var extraHeaders: [(name: String, value: String)] = []
    /// Written and not yet handed to the socket.
    package var bufferedBytes: Int { 0 }

    init() {}

    package func respond(_ response: HTTPResponse) {
        start(status: response.status, headers: response.headers, bodyBytes: response.body.count)
        if !response.body.isEmpty { write(response.body) }
        end()
    }

    /// `bodyBytes` is given if the whole length is known.
    package func start(
        status: Int, headers: [(name: String, value: String)], bodyBytes: Int? = nil
    ) {}
    package func write(_ body: Bytes) {}
    package func end() {}

    func closed() {
        guard !isClosed else { return }
        isClosed = true
        let notify = onClosed
        onClosed = nil
        onWritable = nil
        notify?()
    }
}

/// What a server allows its clients.
package struct RPCLimits: Sendable {
    /// Of one message: etcd's --max-request-bytes (1.5 MiB) and its allowance of 512 KiB.
    package var messageBytesMax = 1_572_864 + 524_288
    /// etcd's --max-concurrent-streams; `.max` advertises no limit.
    package var concurrentStreamsMax = UInt32.max
    /// Calls of all connections that are open at once: each takes about a kilobyte. Above it they are
    /// refused, to be tried again.
    package var openCallsMax = 500_000
    /// Names and values of one header block, 32 bytes extra for each field (RFC 9113 section 6.5.2).
    package var headerBytesMax = 256 << 10
    /// Half-sent messages and bodies of one connection, together.
    package var halfSentBytesMax = 64 << 20
    /// Half-sent requests of all connections, together. Above it those go that hold the most for the
    /// longest.
    package var halfSentBytesTotalMax = 256 << 20
    /// Answers of all connections that are not read, together. From half of it on, streams hold less,
    /// and who holds much and reads slowly is let go of; above it there are no new large ones.
    package var unreadBytesTotalMax = 384 << 20
    /// Answers of one connection that it has not read: above this it gets no new calls. Generous, since
    /// one list may be large, and there is only one connection for all that a client does.
    package var unreadBytesMax = 1 << 30
    /// `onWritable` comes when a call's buffered bytes fall below `low` after they were above `high`.
    package var bufferedBytesHigh = 1 << 20
    package var bufferedBytesLow = 256 << 10
    /// Takes the place of `high` while answers take more than half of the memory that there is for them.
    package var bufferedBytesPressed = 64 << 10
    /// Bytes handed to the socket and not yet taken by it, above which a connection waits. The kernel
    /// holds some megabytes before: more would only be memory.
    package var socketBytesHigh = 256 << 10
    /// Calls that the client of a connection gives up before they are answered: so many at once, and so
    /// many a second; then GOAWAY (ENHANCE_YOUR_CALM).
    package var resetsAtOnceMax = 20_000
    package var resetsPerSecond = 2_000
    /// Of an HTTP request that is not gRPC.
    package var httpBodyBytesMax = 2 << 20
    /// Pings that come faster are counted; the third too many ends the connection.
    package var pingInterval = TimeSpan.seconds(5)
    /// A silent connection is asked after this time, and dropped if nothing comes within the other.
    package var keepAliveInterval = TimeSpan.seconds(7200)
    package var keepAliveTimeout = TimeSpan.seconds(20)

    package init() {}
}
