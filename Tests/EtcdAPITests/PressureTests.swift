import NIOCore
import NIOEmbedded
import NIOPosix
import Primitives
import Testing

@testable import EtcdAPI

/// What clients may do to a server, and to one another through it. `Tests/hostile` has the real ones.
@Suite struct PressureTests {
    private static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)

    private static func frame(_ type: UInt8, _ flags: UInt8, _ stream: UInt32, _ payload: [UInt8]) -> [UInt8] {
        [
            UInt8(payload.count >> 16), UInt8(payload.count >> 8 & 0xFF), UInt8(payload.count & 0xFF),
            type, flags,
        ] + (0..<4).map { UInt8(truncatingIfNeeded: stream >> UInt32(24 - 8 * $0)) } + payload
    }

    private func connect(_ server: RPCServer, _ loop: EmbeddedEventLoop) throws -> EmbeddedChannel {
        let channel = EmbeddedChannel(loop: loop)
        try server.configure(channel)
        try channel.connect(to: SocketAddress(unixDomainSocketPath: "/client")).wait()
        try channel.writeInbound(ByteBuffer(bytes: Self.preface + Self.frame(4, 0, 0, [])))
        return channel
    }

    private func server(_ limits: RPCLimits = RPCLimits()) -> (RPCServer, RecordingHandler, EmbeddedEventLoop) {
        let loop = EmbeddedEventLoop()
        let server = RPCServer(loop: loop, limits: limits)
        let handler = RecordingHandler()
        server.handler = handler
        return (server, handler, loop)
    }

    @Test func `a field that is named again and again ends the connection`() throws {
        let (server, handler, loop) = server()
        let channel = try connect(server, loop)
        // POST of a path, and a field of 3,900 bytes for the table; then a block that names it 8,000 times.
        let path: [UInt8] = [0x83, 0x86, 0x04, 0x02] + Array("/a".utf8) + [0x01, 0x01, 0x61]
        let remembered: [UInt8] = [0x40, 0x01, 0x78, 0x7F, 0xBD, 0x1D] + [UInt8](repeating: 0x7A, count: 3900)
        try channel.writeInbound(ByteBuffer(bytes: Self.frame(1, 5, 1, path + remembered)))
        #expect(channel.isActive)
        let bomb = path + [UInt8](repeating: 0xBE, count: 8000)
        try? channel.writeInbound(ByteBuffer(bytes: Self.frame(1, 5, 3, bomb)))
        loop.run()
        #expect(!channel.isActive)
        #expect(handler.calls.isEmpty)
        #expect(server.openConnections == 0)
    }

    @Test func `a header block above the limit costs its stream only`() throws {
        let (server, handler, loop) = server()
        let channel = try connect(server, loop)
        let path = Array("/etcdserverpb.KV/Range".utf8)
        let block: [UInt8] =
            [0x83, 0x86, 0x04, UInt8(path.count)] + path + [0x0F, 0x10, 0x10]
            + Array("application/grpc".utf8)
        // A field of 3,900 bytes, kept and then named seventy times: 267 KiB, where 256 are allowed.
        let kept: [UInt8] = [0x40, 0x01, 0x78, 0x7F, 0xBD, 0x1D] + [UInt8](repeating: 0x7A, count: 3900)
        try channel.writeInbound(
            ByteBuffer(
                bytes: Self.frame(1, 5, 1, block + kept)
                    + Self.frame(1, 5, 3, block + [UInt8](repeating: 0xBE, count: 70))
                    + Self.frame(1, 4, 5, block)))
        loop.run()
        #expect(channel.isActive)
        #expect(handler.calls.count == 2)
        #expect(server.openCalls <= 2)
        channel.close(promise: nil)
        loop.run()
    }

    @Test func `a client's header that no frame can hold fails its call only, and once`() throws {
        let wire = try Wire()
        wire.echo()
        let large = wire.client.call(
            "/etcdserverpb.KV/Range", ["x"], extra: [("x", String(repeating: "y", count: 300_000))])
        try wire.pump()
        #expect(wire.client.answers[large]?.closed == 7)
        let fine = wire.client.call("/etcdserverpb.KV/Range", ["x"])
        try wire.pump()
        #expect(wire.client.answers[fine]?.status == 0)
    }

    @Test func `half-sent messages of all connections have a limit, and the largest go`() throws {
        var limits = RPCLimits()
        limits.partialBytesTotalMax = 100_000
        let (server, handler, loop) = server(limits)
        func halfPut(_ channel: EmbeddedChannel, _ stream: UInt32, _ bytes: Int) throws {
            let head: [UInt8] =
                [0x83, 0x86, 0x04, 0x13] + Array("/etcdserverpb.KV/Put".utf8.prefix(19))
            // The path has 20 bytes: its last is not in the count above.
            let path = Array("/etcdserverpb.KV/Put".utf8)
            let block: [UInt8] =
                Array(head.prefix(3)) + [UInt8(path.count)] + path + [0x0F, 0x10, 0x10]
                + Array("application/grpc".utf8)
            var body: [UInt8] = [0, 0, 0x10, 0, 0] + [UInt8](repeating: 1, count: bytes)
            try channel.writeInbound(ByteBuffer(bytes: Self.frame(1, 4, stream, block)))
            while !body.isEmpty {
                let part = Array(body.prefix(16000))
                body.removeFirst(part.count)
                try channel.writeInbound(ByteBuffer(bytes: Self.frame(0, 0, stream, part)))
            }
        }
        let greedy = try connect(server, loop), modest = try connect(server, loop)
        for i in 0..<10 as Range<UInt32> { try halfPut(greedy, 1 + 2 * i, 15_000) }
        try halfPut(modest, 1, 1000)
        loop.run()
        #expect(server.partialBytes <= 120_000)
        #expect(handler.cancelled > 0)
        #expect(server.openCalls >= 1)
        #expect(handler.cancelled < 10)
        greedy.close(promise: nil)
        loop.run()
        #expect(server.partialBytes == 1000)
        modest.close(promise: nil)
        loop.run()
        #expect(server.partialBytes == 0)
    }

    /// Counts what is asked of a socket.
    private final class Reads: ChannelOutboundHandler {
        typealias OutboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        var count = 0
        func read(context: ChannelHandlerContext) {
            count += 1
            context.read()
        }
    }

    @Test func `who makes work of nothing is not read from for a while`() throws {
        let (server, _, loop) = server()
        let channel = try connect(server, loop)
        let reads = Reads()
        try channel.pipeline.syncOperations.addHandler(reads, position: .first)
        // Calls that are given up at once.
        let path = Array("/etcdserverpb.KV/Range".utf8)
        let block: [UInt8] =
            [0x83, 0x86, 0x04, UInt8(path.count)] + path + [0x0F, 0x10, 0x10]
            + Array("application/grpc".utf8)
        var flood: [UInt8] = []
        for i in 0..<200 as Range<UInt32> {
            flood += Self.frame(1, 4, 1 + 2 * i, block) + Self.frame(3, 0, 1 + 2 * i, [0, 0, 0, 8])
        }
        try channel.writeInbound(ByteBuffer(bytes: flood))
        let before = reads.count
        channel.read()
        #expect(reads.count == before)
        loop.advanceTime(by: .milliseconds(200))
        #expect(reads.count == before + 1)
        channel.close(promise: nil)
        loop.run()
    }

    @Test func `slow readers make room when memory for answers is short`() throws {
        var limits = RPCLimits()
        limits.unreadBytesTotalMax = 4 << 20
        let wire = try Wire(limits)
        let stream = wire.client.call("/etcdserverpb.KV/Range", ["x"])
        try wire.pump()
        let call = try #require(wire.handler.calls.first)
        #expect(stream > 0)
        #expect(wire.server.hasRoom(for: 3 << 20))
        // More than the client's window takes: the rest waits.
        wire.server.send(Bytes([UInt8](repeating: 1, count: 5 << 20)), to: call)
        wire.server.flush()
        #expect(wire.server.unread.count > 4 << 20)
        wire.loop.advanceTime(by: .seconds(1))
        #expect(!wire.server.hasRoom(for: 1))
        wire.loop.advanceTime(by: .seconds(2))
        #expect(!wire.server.hasRoom(for: 1))
        #expect(wire.server.openConnections == 1)
        wire.loop.advanceTime(by: .seconds(4))
        #expect(wire.server.hasRoom(for: 1))
        wire.loop.run()
        #expect(wire.server.openConnections == 0)
        #expect(wire.server.unread.count == 0)
        #expect(wire.server.counters.slowReadersDropped == 1)
    }

    /// `execute` alone would go on for as long as there are steps: NIO runs tasks until there are none.
    @Test func `sockets are served between the steps of long work`() async throws {
        final class Seen: ChannelInboundHandler, @unchecked Sendable {
            typealias InboundIn = ByteBuffer
            var hasRead = false
            var steps = 0
            func channelRead(context: ChannelHandlerContext, data: NIOAny) { hasRead = true }
        }
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let loop = group.next()
        let seen = Seen()
        let server = try await ServerBootstrap(group: group)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(seen) }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        let client = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connect(to: #require(server.localAddress)).get()
        let done = loop.makePromise(of: Int.self)
        loop.execute {
            let steps = LoopSteps(loop: loop)
            func next() {
                seen.steps += 1
                // Enough of them to take far longer than a byte's way to a socket on the same machine.
                guard !seen.hasRead, seen.steps < 200_000 else { return done.succeed(seen.steps) }
                let end = NIODeadline.now() + .microseconds(50)
                while NIODeadline.now() < end {}
                steps.later(next)
            }
            steps.later(next)
        }
        try await client.writeAndFlush(ByteBuffer(string: "x")).get()
        #expect(try await done.futureResult.get() < 200_000)
        try await client.close()
        try await server.close()
        try await group.shutdownGracefully()
    }
}
