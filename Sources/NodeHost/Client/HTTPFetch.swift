import NIOCore
import NIOHTTP1
import NIOPosix
package import Primitives
package import TLS

/// `http://host:port` or `https://host:port`: what `--endpoints` takes.
package struct Endpoint: Hashable, Sendable, CustomStringConvertible {
    package let isSecure: Bool
    package let address: NetworkAddress

    /// Without a scheme it is plain, as etcdctl has it.
    package init?(_ text: String) {
        var rest = Substring(text)
        if rest.hasPrefix("https://") {
            isSecure = true
            rest = rest.dropFirst(8)
        } else {
            isSecure = false
            if rest.hasPrefix("http://") { rest = rest.dropFirst(7) }
        }
        if rest.hasSuffix("/") { rest = rest.dropLast() }
        guard let address = NetworkAddress(String(rest)) else { return nil }
        self.address = address
    }

    package var description: String { (isSecure ? "https://" : "http://") + "\(address)" }
}

/// One HTTP request on a connection of its own: for commands, which ask a node a few things.
package struct HTTPFetch {
    package struct Answer: Sendable, Equatable {
        package let status: Int
        package let body: String
    }
    package struct Failure: Error, CustomStringConvertible {
        package let description: String
        /// The node may have had the request, and done it.
        package var wasSent = true
    }

    private let group: any EventLoopGroup
    private let tls: TLSContext?

    package init(tls: TLSContext? = nil) {
        group = MultiThreadedEventLoopGroup.singleton
        self.tls = tls
    }

    /// Blocks; not for event loops.
    package func get(
        _ path: String, from endpoint: Endpoint, timeout: TimeSpan = .seconds(5)
    ) throws(Failure) -> Answer {
        try send(.GET, path, body: "", to: endpoint, timeout: timeout)
    }

    package func post(
        _ path: String, body: String, to endpoint: Endpoint, timeout: TimeSpan = .seconds(5)
    ) throws(Failure) -> Answer {
        try send(.POST, path, body: body, to: endpoint, timeout: timeout)
    }

    private func send(
        _ method: HTTPMethod, _ path: String, body: String, to endpoint: Endpoint,
        timeout: TimeSpan
    ) throws(Failure) -> Answer {
        if endpoint.isSecure, tls == nil {
            throw Failure(
                description: "\(endpoint): https needs --cacert, and --cert and --key if the server "
                    + "asks for a client certificate")
        }
        let loop = group.next()
        let promise = loop.makePromise(of: Answer.self)
        let tls = endpoint.isSecure ? tls : nil
        let host = endpoint.address.host
        let limit = TimeAmount.nanoseconds(Int64(clamping: timeout.nanoseconds))
        let bootstrap = ClientBootstrap(group: loop).connectTimeout(limit).channelInitializer {
            channel in
            channel.eventLoop.makeCompletedFuture {
                if let tls {
                    try channel.pipeline.syncOperations.addHandler(
                        TLSHandler(context: tls, role: .client(expectedName: host)))
                }
                try channel.pipeline.syncOperations.addHTTPClientHandlers()
                try channel.pipeline.syncOperations.addHandler(
                    FetchHandler(
                        method: method, path: path, host: "\(endpoint.address)", body: body,
                        secure: tls != nil, promise: promise))
            }
        }
        bootstrap.connect(host: host, port: endpoint.address.port).whenComplete { result in
            switch result {
            case .failure(let error):
                promise.fail(Failure(description: "\(error)", wasSent: false))
            case .success(let channel):
                let timer = loop.scheduleTask(in: limit) {
                    promise.fail(Failure(description: "no answer in time"))
                    channel.close(promise: nil)
                }
                promise.futureResult.whenComplete { _ in timer.cancel() }
            }
        }
        do {
            return try promise.futureResult.wait()
        } catch {
            let wasSent = (error as? Failure)?.wasSent ?? true
            throw Failure(description: "\(endpoint): \(error)", wasSent: wasSent)
        }
    }
}

private final class FetchHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPClientResponsePart
    typealias OutboundOut = HTTPClientRequestPart

    private let head: HTTPRequestHead
    private let body: String
    private let secure: Bool
    private var promise: EventLoopPromise<HTTPFetch.Answer>?
    private var status = 0
    private var received: [UInt8] = []

    init(
        method: HTTPMethod, path: String, host: String, body: String, secure: Bool,
        promise: EventLoopPromise<HTTPFetch.Answer>
    ) {
        var headers = HTTPHeaders([("host", host), ("connection", "close")])
        if method == .POST {
            headers.add(name: "content-length", value: "\(body.utf8.count)")
            headers.add(name: "content-type", value: "application/json")
        }
        head = HTTPRequestHead(version: .http1_1, method: method, uri: path, headers: headers)
        self.body = body
        self.secure = secure
        self.promise = promise
    }

    func channelActive(context: ChannelHandlerContext) {
        // Plain: at once. TLS keeps what is written until its handshake is done.
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        if !body.isEmpty {
            let buffer = context.channel.allocator.buffer(string: body)
            context.write(wrapOutboundOut(.body(.byteBuffer(buffer))), promise: nil)
        }
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        context.fireChannelActive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): status = Int(head.status.code)
        case .body(let buffer):
            received.append(contentsOf: buffer.readableBytesView)
            if received.count > 64 << 20 { context.close(promise: nil) }
        case .end:
            promise?.succeed(
                HTTPFetch.Answer(status: status, body: String(decoding: received, as: UTF8.self)))
            promise = nil
            context.close(promise: nil)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        fail(error)
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        fail(HTTPFetch.Failure(description: "the connection was closed"))
        context.fireChannelInactive()
    }

    private func fail(_ error: any Error) {
        promise?.fail(error)
        promise = nil
    }
}
