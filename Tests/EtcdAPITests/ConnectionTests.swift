import NIOCore
import NIOEmbedded
import Primitives
import Testing

@testable import EtcdAPI

@Suite struct ConnectionTests {
    @Test func `a flood of pings ends the connection`() throws {
        let wire = try Wire()
        _ = wire.client.call("/etcdserverpb.Watch/Watch", ["x"], ends: false)
        try wire.pump()
        for i in 0..<5 {
            wire.client.session.ping(UInt64(i))
            try wire.pump()
        }
        #expect(wire.client.goAways.map(\.code) == [11])
        #expect(wire.handler.cancelled == 1)
    }

    /// As the bound on what nobody reads does, while the one who asks is being read.
    @Test func `a connection may be closed while it is being read`() throws {
        let wire = try Wire()
        // What closing a socket's channel does at once; an embedded one's only does it later.
        wire.handler.onMessage = { [channel = wire.channel] _, _ in
            channel.pipeline.syncOperations.fireChannelInactive()
        }
        var read = ByteBuffer()
        for _ in 0..<3 {
            _ = wire.client.call("/etcdserverpb.KV/Range", ["x"])
            var bytes = wire.client.bytes()
            read.writeBuffer(&bytes)
        }
        try wire.channel.writeInbound(read)
        wire.loop.run()
        #expect(!wire.handler.calls.isEmpty)
        #expect(wire.handler.cancelled == wire.handler.calls.count)
    }

    @Test func `pings every half minute are welcome`() throws {
        let wire = try Wire()
        _ = wire.client.call("/etcdserverpb.Watch/Watch", ["x"], ends: false)
        try wire.pump()
        for i in 0..<20 {
            wire.loop.advanceTime(by: .seconds(30))
            wire.client.session.ping(UInt64(i))
            try wire.pump()
        }
        #expect(wire.client.pongs.count == 20)
        #expect(wire.client.goAways.isEmpty)
    }

    @Test func `pings between answers are measurements, not strikes`() throws {
        let wire = try Wire()
        _ = wire.client.call("/etcdserverpb.Watch/Watch", ["x"], ends: false)
        try wire.pump()
        for i in 0..<20 {
            wire.server.send("event", to: wire.handler.calls[0])
            wire.client.session.ping(UInt64(i))
            try wire.pump()
        }
        #expect(wire.client.goAways.isEmpty)
    }

    /// What grpc-go's client does: a ping with the first data after the answer to the last one.
    @Test func `pings while one large answer flows are measurements too`() throws {
        var settings = HTTP2Settings()
        settings.streamWindowBytes = 65_535
        let wire = try Wire(client: settings)
        wire.handler.onMessage = { [server = wire.server] call, _ in
            server.send(Bytes([UInt8](repeating: 1, count: 5_000_000)), to: call)
            server.finish(call)
        }
        let stream = wire.client.call("/etcdserverpb.KV/Range", ["x"])
        for i in 0..<400 where wire.client.answers[stream]?.status == nil {
            wire.client.session.ping(UInt64(i))
            try wire.channel.writeInbound(wire.client.bytes())
            wire.loop.run()
            _ = try wire.fromServer().withUnsafeReadableBytes { wire.client.session.feed($0) }
        }
        #expect(wire.client.goAways.isEmpty)
        #expect(wire.client.answers[stream]?.messages.map(\.count) == [5_000_000])
        #expect(wire.client.pongs.count > 10)
    }

    @Test(arguments: [200_000, 1_048_700, 5_000_000])
    func `a socket that takes everything at once is given all there is`(size: Int) throws {
        var settings = HTTP2Settings()
        settings.streamWindowBytes = 16 << 20
        settings.connectionWindowBytes = 16 << 20
        let wire = try Wire(client: settings)
        try wire.channel.pipeline.syncOperations.addHandler(
            QuickSocket(wire.channel), position: .first)
        wire.handler.onMessage = { [server = wire.server] call, _ in
            server.send(Bytes([UInt8](repeating: 1, count: size)), to: call)
            server.finish(call)
        }
        let stream = wire.client.call("/etcdserverpb.KV/Range", ["x"])
        // The client says no more: nothing but the server's own doing brings the rest.
        try wire.channel.writeInbound(wire.client.bytes())
        wire.loop.run()
        _ = try wire.fromServer().withUnsafeReadableBytes { wire.client.session.feed($0) }
        #expect(wire.client.answers[stream]?.messages.map(\.count) == [size])
        #expect(wire.client.answers[stream]?.status == 0)
    }

    @Test func `a silent client is asked, and dropped if it does not answer`() throws {
        let wire = try Wire()
        _ = wire.client.call("/etcdserverpb.Watch/Watch", ["x"], ends: false)
        try wire.pump()
        wire.loop.advanceTime(by: .seconds(7201))
        try wire.pump()
        wire.loop.advanceTime(by: .seconds(21))
        #expect(wire.handler.cancelled == 0)
        wire.loop.advanceTime(by: .seconds(7201))
        #expect(try wire.fromServer().readableBytes > 0)
        wire.loop.advanceTime(by: .seconds(21))
        wire.loop.run()
        #expect(wire.handler.cancelled == 1)
        #expect(wire.server.openConnections == 0)
    }

    @Test func `headers above the limit reset their stream only`() throws {
        var limits = RPCLimits()
        limits.headerBytesMax = 4096
        let wire = try Wire(limits)
        wire.echo()
        // A client that has not read our settings yet.
        let stream = wire.client.call(
            "/etcdserverpb.KV/Range", ["x"],
            extra: (0..<50).map { ("x-\($0)", String(repeating: "v", count: 100)) })
        try wire.pump()
        #expect(wire.client.answers[stream]?.closed == 11)
        #expect(wire.handler.events.isEmpty)
        let next = wire.client.call("/etcdserverpb.KV/Range", ["x"])
        try wire.pump()
        #expect(wire.client.answers[next]?.status == 0)
        #expect(wire.server.openCalls == 0)
    }

    @Test func `half-sent messages of one connection are bounded together`() throws {
        var limits = RPCLimits()
        limits.halfSentBytesMax = 100_000
        let wire = try Wire(limits)
        for _ in 0..<12 {
            let stream = wire.client.call("/etcdserverpb.KV/Put", [], ends: false)
            wire.client.session.send(
                stream, Bytes([0, 0, 1, 0, 0] + [UInt8](repeating: 1, count: 10_000)), isMessage: false)
        }
        try wire.pump()
        #expect(wire.client.answers.values.count { $0.status == 8 } == 2)
        #expect(wire.handler.cancelled == 2)
    }

    @Test func `rubbish after the preface ends the connection`() throws {
        let wire = try Wire()
        try wire.channel.writeInbound(
            ByteBuffer(string: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + String(repeating: "x", count: 100)))
        wire.loop.run()
        #expect(!wire.channel.isActive)
        #expect(wire.server.openConnections == 0)
    }

    @Test func `damaged bytes never trap, and every call that began also ends`() throws {
        var random = SplitMix(seed: 0xBAD)
        for _ in 0..<300 {
            let wire = try Wire()
            wire.handler.onMessage = { [server = wire.server] call, message in
                server.send(message, to: call)
                if message.count % 2 == 0 { server.finish(call) }
            }
            for _ in 0..<(1 + random.below(5)) {
                let message = Bytes([UInt8](repeating: 1, count: Int(random.below(50))))
                _ = wire.client.call("/etcdserverpb.Watch/Watch", [message], ends: random.below(2) == 0)
            }
            var bytes = Array(wire.client.bytes().readableBytesView)
            for _ in 0..<random.below(4) {
                // Mostly behind the preface, or there would be nothing to see.
                let at = 24 + Int(random.below(UInt64(bytes.count - 24)))
                switch random.below(3) {
                case 0: bytes[at] = UInt8(random.below(256))
                case 1: bytes.remove(at: at)
                default: bytes.insert(UInt8(random.below(256)), at: at)
                }
            }
            let half = Int(random.below(UInt64(bytes.count)))
            try wire.channel.writeInbound(ByteBuffer(bytes: bytes[..<half]))
            if wire.channel.isActive { try wire.channel.writeInbound(ByteBuffer(bytes: bytes[half...])) }
            wire.loop.run()
            _ = try wire.channel.finish(acceptAlreadyClosed: true)
            #expect(wire.server.openCalls == 0)
            #expect(wire.handler.calls.allSatisfy { !wire.server.isOpen($0) })
        }
    }

    @Test func `a broken rule is answered with GOAWAY before the end`() throws {
        let wire = try Wire()
        _ = wire.client.call("/etcdserverpb.Watch/Watch", ["x"], ends: false)
        try wire.pump()
        // DATA on stream 0.
        try wire.channel.writeInbound(ByteBuffer(bytes: [0, 0, 1, 0, 0, 0, 0, 0, 0, 9]))
        wire.loop.run()
        let bytes = try wire.fromServer()
        _ = bytes.withUnsafeReadableBytes { wire.client.session.feed($0) }
        wire.loop.run()
        #expect(wire.client.goAways.map(\.code) == [1])
        #expect(!wire.channel.isActive)
        #expect(wire.handler.cancelled == 1)
    }

    @Test func `HTTP/1 and HTTP/2 share a port`() throws {
        let wire = try Wire()
        wire.handler.onHTTP = { request, responder in
            responder.respond(
                HTTPResponse(
                    status: 200, contentType: "text/plain", "\(request.target) \(request.body)"))
        }
        let other = EmbeddedChannel(loop: wire.loop)
        try wire.server.configure(other)
        try other.connect(to: SocketAddress(unixDomainSocketPath: "/other")).wait()
        for byte in "POST /v3/kv/range HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}".utf8 {
            try other.writeInbound(ByteBuffer(bytes: [byte]))
        }
        try other.writeInbound(ByteBuffer(string: "GET /health HTTP/1.1\r\nhost: a\r\n\r\n"))
        var text = ""
        while let part = try other.readOutbound(as: ByteBuffer.self) { text += String(buffer: part) }
        #expect(text.contains("HTTP/1.1 200 OK"))
        #expect(text.contains("/v3/kv/range {}"))
        #expect(text.contains("/health "))
        #expect(other.isActive)

        let stream = wire.client.session.open(
            HTTP2Fields([
                (":method", "GET"), (":scheme", "http"), (":path", "/version"), (":authority", "a"),
            ]), context: 0, hasBody: false)
        let id = try #require(stream)
        wire.client.answers[id] = .init()
        try wire.pump()
        #expect(wire.client.answers[id]?.fields[":status"] == "200")
        #expect(wire.client.answers[id]?.data == Array("/version ".utf8))
        #expect(
            wire.handler.events == [
                .http("POST /v3/kv/range"), .http("GET /health"), .http("GET /version"),
            ])
        _ = try other.finish()
    }

    @Test func `an HTTP/1 body above the limit is refused`() throws {
        var limits = RPCLimits()
        limits.httpBodyBytesMax = 10
        let wire = try Wire(limits)
        try wire.channel.writeInbound(
            ByteBuffer(string: "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\n\r\n12345678901"))
        let text = String(buffer: try wire.fromServer())
        #expect(text.hasPrefix("HTTP/1.1 413"))
        #expect(!wire.channel.isActive)
        #expect(wire.handler.events.isEmpty)
    }

    @Test(arguments: ["", "connection: close\r\n"])
    func `a large answer of HTTP/1 leaves piece by piece, whole and before what follows`(header: String) throws {
        let wire = try Wire()
        let large = [UInt8](repeating: 0x61, count: 700_000)
        var pieces: [Int] = []
        wire.handler.onHTTP = { request, responder in
            responder.start(status: 200, headers: [], bodyBytes: 700_003)
            responder.write(Bytes(large))
            responder.write("end")
            responder.end()
            pieces.append(wire.server.unread.count)
        }
        try wire.channel.writeInbound(ByteBuffer(string: "GET /x HTTP/1.1\r\nhost: a\r\n\(header)\r\n"))
        #expect(pieces.count == 1 && pieces[0] > 400_000)
        var text = ""
        for _ in 0..<20 {
            text += String(buffer: try wire.fromServer())
            wire.loop.advanceTime(by: .milliseconds(1))
        }
        #expect(text.hasSuffix(String(repeating: "a", count: 700_000) + "end"))
        #expect(wire.channel.isActive == header.isEmpty)
        #expect(wire.server.unread.count == 0)
        _ = try? wire.channel.finish()
    }

    @Test func `who goes before a large answer of HTTP/1 has left leaves no bytes behind`() throws {
        let wire = try Wire()
        var kept: HTTPResponder?
        wire.handler.onHTTP = { _, responder in
            responder.respond(HTTPResponse(status: 200, body: Bytes([UInt8](repeating: 1, count: 700_000))))
            kept = responder
        }
        try wire.channel.writeInbound(ByteBuffer(string: "GET /x HTTP/1.1\r\nhost: a\r\n\r\n"))
        #expect(wire.server.unread.count > 0)
        _ = try wire.channel.finish()
        wire.loop.run()
        #expect(wire.server.unread.count == 0)
        #expect(kept?.isClosed == true)
    }

    @Test func `a streamed answer goes on until the client leaves`() throws {
        let wire = try Wire()
        var kept: HTTPResponder?
        var left = 0
        wire.handler.onHTTP = { _, responder in
            responder.start(status: 200, headers: [("content-type", "application/json")])
            responder.write("one\n")
            responder.onClosed = { left += 1 }
            kept = responder
        }
        try wire.channel.writeInbound(ByteBuffer(string: "GET /v3/watch HTTP/1.1\r\nhost: a\r\n\r\n"))
        kept?.write("two\n")
        let text = String(buffer: try wire.fromServer())
        #expect(text.contains("one\n") && text.contains("two\n"))
        _ = try wire.channel.finish()
        #expect(left == 1)
        #expect(kept?.isClosed == true)
        kept?.write("three\n")
    }
}

/// Unwritable from the first big write on, until the flush has put everything into the kernel: the news
/// of that comes from within the flush.
private final class QuickSocket: ChannelOutboundHandler {
    typealias OutboundIn = ByteBuffer
    private let channel: EmbeddedChannel
    private var waiting = 0

    init(_ channel: EmbeddedChannel) { self.channel = channel }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        waiting += unwrapOutboundIn(data).readableBytes
        if waiting >= 1 << 20 { channel.isWritable = false }
        context.write(data, promise: promise)
    }

    func flush(context: ChannelHandlerContext) {
        context.flush()
        waiting = 0
        guard !channel.isWritable else { return }
        channel.isWritable = true
        context.fireChannelWritabilityChanged()
    }
}
