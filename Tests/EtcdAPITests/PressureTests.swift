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
        // Such blocks make its client wait.
        loop.advanceTime(by: .seconds(1))
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

    private static let callOfPut: [UInt8] = {
        let path = Array("/etcdserverpb.KV/Put".utf8)
        return [0x83, 0x86, 0x04, UInt8(path.count)] + path + [0x0F, 0x10, 0x10]
            + Array("application/grpc".utf8)
    }()

    /// A put of `whole` bytes, of which `bytes` come.
    private func put(
        _ channel: EmbeddedChannel, _ stream: UInt32, _ bytes: Int, of whole: UInt32 = 1 << 20
    ) throws {
        try channel.writeInbound(ByteBuffer(bytes: Self.frame(1, 4, stream, Self.callOfPut)))
        var body: [UInt8] = [0] + (0..<4).map { UInt8(truncatingIfNeeded: whole >> UInt32(24 - 8 * $0)) }
        body += [UInt8](repeating: 1, count: bytes)
        while !body.isEmpty {
            let part = Array(body.prefix(16000))
            body.removeFirst(part.count)
            try channel.writeInbound(ByteBuffer(bytes: Self.frame(0, 0, stream, part)))
        }
    }

    @Test func `half-sent messages of all connections have a limit, and the largest go`() throws {
        var limits = RPCLimits()
        limits.halfSentBytesTotalMax = 100_000
        let (server, handler, loop) = server(limits)
        let greedy = try connect(server, loop), modest = try connect(server, loop)
        for i in 0..<10 as Range<UInt32> { try put(greedy, 1 + 2 * i, 15_000) }
        try put(modest, 1, 1000)
        loop.run()
        #expect(server.halfSentBytes <= 100_000)
        #expect(handler.cancelled > 0)
        #expect(server.openCalls >= 1)
        #expect(handler.cancelled < 10)
        greedy.close(promise: nil)
        loop.run()
        #expect(server.halfSentBytes == 1000)
        modest.close(promise: nil)
        loop.run()
        #expect(server.halfSentBytes == 0)
    }

    /// As many connections as one likes, each with as much as the others: the limit is of all.
    @Test func `connections that hold equally much of half-sent messages have a limit too`() throws {
        var limits = RPCLimits()
        limits.halfSentBytesTotalMax = 100_000
        let (server, handler, loop) = server(limits)
        var channels: [EmbeddedChannel] = []
        for _ in 0..<20 {
            let channel = try connect(server, loop)
            channels.append(channel)
            for i in 0..<3 as Range<UInt32> {
                try put(channel, 1 + 2 * i, 15_000)
                #expect(server.halfSentBytes <= 100_000 + 16_000)
            }
        }
        loop.run()
        #expect(handler.cancelled >= 50)
        // Who sends and comes to an end is served meanwhile, small or large.
        let honest = try connect(server, loop)
        for (stream, size) in [(1, 300), (3, 40_000), (5, 30_000)] as [(UInt32, Int)] {
            try put(honest, stream, size, of: UInt32(size))
        }
        #expect(handler.messages.map(\.count) == [300, 40_000, 30_000])
        for channel in channels + [honest] { channel.close(promise: nil) }
        loop.run()
        #expect(server.halfSentBytes == 0)
    }

    @Test func `half-sent bodies of HTTP have the same limit`() throws {
        var limits = RPCLimits()
        limits.halfSentBytesTotalMax = 100_000
        let (server, _, loop) = server(limits)
        var channels: [EmbeddedChannel] = []
        for _ in 0..<20 {
            let channel = EmbeddedChannel(loop: loop)
            try server.configure(channel)
            try channel.connect(to: SocketAddress(unixDomainSocketPath: "/client")).wait()
            let head = "POST /v3/kv/put HTTP/1.1\r\nhost: h\r\ncontent-length: 30000\r\n\r\n"
            try channel.writeInbound(ByteBuffer(string: head + String(repeating: " ", count: 25_000)))
            channels.append(channel)
            #expect(server.halfSentBytes <= 100_000 + 25_000)
        }
        loop.run()
        #expect(channels.count(where: \.isActive) <= 4)
        for channel in channels where channel.isActive { channel.close(promise: nil) }
        loop.run()
        #expect(server.halfSentBytes == 0)
    }

    @Test func `a message that is still coming takes no more memory than it will have`() throws {
        var reader = MessageReader()
        let prefix: [UInt8] = [0, 0, 0x16, 0xE3, 0x60]
        var part = prefix + [UInt8](repeating: 1, count: 16_000)
        for _ in 0..<90 {
            let isWhole = try part.withUnsafeBytes { raw in
                var offset = 0
                return try reader.next(raw, &offset, limit: 2 << 20) != nil
            }
            #expect(!isWhole)
            part = [UInt8](repeating: 1, count: 16_000)
        }
        #expect(reader.partialBytes == 90 * 16_000)
        // And what fills its last page.
        #expect(reader.partialCapacity <= 1_500_000 + 4096)
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
        loop.advanceTime(by: .milliseconds(500))
        #expect(reads.count == before + 1)
        channel.close(promise: nil)
        loop.run()
    }

    @Test func `work of nothing counts together, in however many reads it comes`() throws {
        let (server, _, loop) = server()
        let channel = try connect(server, loop)
        let reads = Reads()
        try channel.pipeline.syncOperations.addHandler(reads, position: .first)
        func giveUpFour(from first: UInt32) throws -> Bool {
            try channel.writeInbound(ByteBuffer(bytes: Self.givenUp(first..<(first + 4))))
            let before = reads.count
            channel.read()
            return reads.count > before
        }
        // A little now and then is everybody's right.
        for i in UInt32(0)..<20 {
            #expect(try giveUpFour(from: 4 * i))
            loop.advanceTime(by: .milliseconds(5))
        }
        var isRead = true
        for i in UInt32(20)..<25 { isRead = try giveUpFour(from: 4 * i) }
        #expect(!isRead)
        channel.close(promise: nil)
        loop.run()
    }

    /// What one read brought behind much work of nothing is not done at once either, but none of it is lost.
    @Test func `what comes behind work of nothing waits with it`() throws {
        let (server, handler, loop) = server()
        let channel = try connect(server, loop)
        let last = Self.frame(1, 4, 401, Self.callOfPut)
        try channel.writeInbound(ByteBuffer(bytes: Self.givenUp(0..<200) + last))
        #expect(handler.cancelled < 200)
        #expect(server.openCalls == 0)
        loop.advanceTime(by: .milliseconds(1))
        let part = handler.cancelled
        #expect(part < 200)
        // More arrives meanwhile: in its order.
        try channel.writeInbound(ByteBuffer(bytes: Self.frame(1, 4, 403, Self.callOfPut)))
        #expect(handler.cancelled == part)
        loop.advanceTime(by: .milliseconds(500))
        #expect(handler.cancelled == 200)
        #expect(handler.calls.count == 202)
        #expect(server.openCalls == 2)
        channel.close(promise: nil)
        loop.run()
        #expect(server.openCalls == 0)
    }

    @Test func `who goes while what he sent waits leaves nothing behind`() throws {
        let (server, handler, loop) = server()
        let channel = try connect(server, loop)
        try channel.writeInbound(ByteBuffer(bytes: Self.givenUp(0..<200)))
        let before = handler.calls.count
        channel.close(promise: nil)
        loop.advanceTime(by: .seconds(1))
        #expect(handler.calls.count == before)
        #expect(server.openCalls == 0 && server.openConnections == 0)
    }

    /// Headers that are named again and again, in one block: the pause does not wait for its end.
    @Test func `a large header block makes its client wait while it arrives`() throws {
        let (server, handler, loop) = server()
        let channel = try connect(server, loop)
        let fields = (0..<4000).flatMap { _ in [0x00, 0x01, 0x78, 0x01, 0x79] as [UInt8] }
        let whole = Self.callOfPut + fields
        var sent: [UInt8] = []
        for (i, at) in stride(from: 0, to: whole.count, by: 16_000).enumerated() {
            let end = min(at + 16_000, whole.count)
            sent += Self.frame(i == 0 ? 1 : 9, end == whole.count ? 4 : 0, 1, Array(whole[at..<end]))
        }
        try channel.writeInbound(ByteBuffer(bytes: sent))
        #expect(handler.calls.isEmpty)
        loop.advanceTime(by: .milliseconds(200))
        #expect(handler.calls.count == 1)
        channel.close(promise: nil)
        loop.run()
    }

    private static func givenUp(_ calls: Range<UInt32>) -> [UInt8] {
        calls.flatMap { frame(1, 4, 1 + 2 * $0, callOfPut) + frame(3, 0, 1 + 2 * $0, [0, 0, 0, 8]) }
    }

    /// A hundred connections that do it must not cost a hundred times as much.
    @Test func `the more make work of nothing, the longer each of them waits`() throws {
        let (server, _, loop) = server()
        var all: [(channel: EmbeddedChannel, reads: Reads)] = []
        for _ in 0..<3 {
            let channel = try connect(server, loop), reads = Reads()
            try channel.pipeline.syncOperations.addHandler(reads, position: .first)
            try channel.writeInbound(ByteBuffer(bytes: Self.givenUp(0..<200)))
            reads.count = 0
            channel.read()
            all.append((channel, reads))
        }
        // In pieces, with a pause after each: twelve milliseconds for one alone.
        var waited = [0, 0, 0]
        for _ in 0..<200 {
            for i in all.indices where all[i].reads.count == 0 { waited[i] += 1 }
            loop.advanceTime(by: .milliseconds(1))
        }
        #expect(all.map(\.reads.count) == [1, 1, 1])
        #expect(waited[0] >= 10 && waited[0] < waited[1] && waited[1] < waited[2])
        for one in all { one.channel.close(promise: nil) }
        loop.run()
    }

    @Test func `who makes a business of giving up calls is sent away`() throws {
        var limits = RPCLimits()
        limits.resetsAtOnceMax = 500
        limits.resetsPerSecond = 100
        let (server, handler, loop) = server(limits)
        let channel = try connect(server, loop)
        try channel.writeInbound(ByteBuffer(bytes: Self.givenUp(0..<500)))
        loop.advanceTime(by: .seconds(1))
        #expect(channel.isActive)
        try channel.writeInbound(ByteBuffer(bytes: Self.givenUp(500..<600)))
        loop.advanceTime(by: .milliseconds(500))
        #expect(channel.isActive)
        #expect(handler.cancelled == 600)
        try channel.writeInbound(ByteBuffer(bytes: Self.givenUp(600..<651)))
        loop.advanceTime(by: .milliseconds(500))
        #expect(!channel.isActive)
        #expect(server.counters.resetFloods == 1)
        #expect(handler.cancelled == 651)
        #expect(server.openCalls == 0)
        // GOAWAY, ENHANCE_YOUR_CALM.
        var said: [UInt8] = []
        while let part = try channel.readOutbound(as: ByteBuffer.self) { said += part.readableBytesView }
        let words = Array("too_many_resets".utf8)
        let at = said.indices.first { said[$0...].starts(with: words) }
        #expect(at.map { Array(said[($0 - 4)..<$0]) } == [0, 0, 0, 11])
    }

    @Test func `what many are sent is in memory once`() throws {
        var wide = HTTP2Settings()
        wide.streamWindowBytes = 8 << 20
        let wire = try Wire(client: wide)
        let streams = (0..<5).map { _ in wire.client.call("/etcdserverpb.Watch/Watch", ["x"], ends: false) }
        try wire.pump()
        let rest = [UInt8](repeating: 7, count: 100_000)
        do {
            let shared = wire.server.share(Bytes(rest))
            for (i, call) in wire.handler.calls.enumerated() {
                wire.server.send([0, 0, 1, 0x86, 0xA1, UInt8(i)], shared, to: call)
                #expect(wire.server.bufferedBytes(of: call) == 100_006)
            }
        }
        #expect(wire.server.unread.count == 100_000 + 5 * 6)
        try wire.pump()
        #expect(wire.server.unread.count == 0)
        for (i, stream) in streams.enumerated() {
            #expect(wire.client.answers[stream]?.messages == [Bytes([UInt8(i)] + rest)])
        }
        // Whoever goes leaves it to the others.
        let shared = wire.server.share(Bytes(rest))
        for call in wire.handler.calls { wire.server.send([0, 0, 1, 0x86, 0xA0], shared, to: call) }
        wire.client.session.reset(streams[0], code: 8)
        try wire.channel.writeInbound(wire.client.bytes())
        #expect(wire.server.unread.count == 100_000 + 4 * 5)
    }

    @Test func `who has much to write does it by turns, and begins at once`() throws {
        var wide = HTTP2Settings()
        wide.streamWindowBytes = 8 << 20
        let wire = try Wire(client: wide)
        let large = wire.client.call("/etcdserverpb.KV/Range", ["x"])
        let small = wire.client.call("/etcdserverpb.KV/Range", ["y"])
        try wire.pump()
        let calls = wire.handler.calls
        wire.server.send(Bytes([UInt8](repeating: 1, count: 2 << 20)), to: calls[0])
        wire.server.finish(calls[0])
        wire.server.send("short", to: calls[1])
        wire.server.finish(calls[1])
        wire.server.flush()
        let first = try wire.fromServer()
        #expect((1000...40_000).contains(first.readableBytes))
        _ = first.withUnsafeReadableBytes { wire.client.session.feed($0) }
        #expect(wire.client.answers[small]?.messages == ["short"])
        try wire.pump()
        #expect(wire.client.answers[large]?.messages.map(\.count) == [2 << 20])
        #expect(wire.client.answers[large]?.status == 0)
    }

    /// A socket that takes nothing until it is told to.
    private final class Clog: ChannelOutboundHandler {
        typealias OutboundIn = ByteBuffer
        var isOpen = false
        func flush(context: ChannelHandlerContext) { if isOpen { context.flush() } }
    }

    @Test func `what a socket does not take counts as unread, and is little when memory is short`() throws {
        var wide = HTTP2Settings()
        wide.streamWindowBytes = 8 << 20
        var limits = RPCLimits()
        limits.unreadBytesTotalMax = 1 << 20
        let wire = try Wire(limits, client: wide)
        _ = wire.client.call("/etcdserverpb.KV/Range", ["x"])
        try wire.pump()
        let call = try #require(wire.handler.calls.first)
        let clog = Clog()
        try wire.channel.pipeline.syncOperations.addHandler(clog, position: .first)
        wire.server.send(Bytes([UInt8](repeating: 1, count: 2 << 20)), to: call)
        for _ in 0..<20 {
            wire.server.flush()
            wire.loop.advanceTime(by: .milliseconds(1))
        }
        let buffered = wire.server.bufferedBytes(of: call)
        #expect(buffered > (2 << 20) - 100_000)
        #expect(wire.server.unread.count > 2 << 20)
        clog.isOpen = true
        wire.channel.flush()
        try wire.pump()
        #expect(wire.server.unread.count == 0)
        #expect(wire.server.bufferedBytes(of: call) == 0)
    }

    @Test func `small answers are no way around the memory for answers`() throws {
        var limits = RPCLimits()
        limits.unreadBytesTotalMax = 1 << 20
        let wire = try Wire(limits)
        for _ in 0..<40 { _ = wire.client.call("/etcdserverpb.KV/Range", ["x"]) }
        try wire.pump()
        let calls = wire.handler.calls
        // More than the client's window takes.
        for call in calls where wire.server.hasRoom(forSmall: 60_000, to: call) {
            wire.server.send(Bytes([UInt8](repeating: 1, count: 60_000)), to: call)
        }
        #expect(wire.server.unread.count <= (1 << 20) + 60_100)
        // New calls of it are not taken; others are served.
        let late = wire.client.call("/etcdserverpb.KV/Range", ["x"])
        try wire.channel.writeInbound(wire.client.bytes())
        #expect(wire.handler.calls.count == 40)
        #expect(late > 0)
        let (other, loop) = (EmbeddedChannel(loop: wire.loop), wire.loop)
        try wire.server.configure(other)
        try other.connect(to: SocketAddress(unixDomainSocketPath: "/client")).wait()
        try other.writeInbound(
            ByteBuffer(bytes: Self.preface + Self.frame(4, 0, 0, []) + Self.frame(1, 4, 1, Self.callOfPut)))
        #expect(wire.handler.calls.count == 41)
        #expect(wire.server.hasRoom(forSmall: 60_000, to: try #require(wire.handler.calls.last)))
        other.close(promise: nil)
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

    @Test func `who uses an eighth of the loop's time has used much, who uses less has not`() {
        let start = NIODeadline.uptimeNanoseconds(1_000_000_000)
        var greedy = LoopUse(), modest = LoopUse()
        for i in Int64(0)..<1000 {
            let now = start + .milliseconds(i)
            greedy.add(.microseconds(150), at: now)
            modest.add(.microseconds(100), at: now)
            let isMuch = modest.isMuch(at: now)
            #expect(!isMuch)
        }
        let end = start + .milliseconds(999)
        let atOnce = greedy.isMuch(at: end), later = greedy.isMuch(at: end + .seconds(1))
        #expect(atOnce)
        #expect(!later)
        modest.fill(at: end)
        let stillMuch = modest.isMuch(at: end + .milliseconds(300))
        let muchNoMore = !modest.isMuch(at: end + .milliseconds(400))
        #expect(stillMuch)
        #expect(muchNoMore)
    }

    @Test func `long work hurries while others are about, and for a moment afterwards`() {
        let loop = EmbeddedEventLoop()
        let steps = LoopSteps(loop: loop)
        #expect(!steps.isHurried(for: 1))
        steps.noteGuest(1, at: loop.now)
        #expect(!steps.isHurried(for: 1))
        #expect(steps.isHurried(for: 2))
        steps.noteGuest(3, at: loop.now)
        #expect(steps.isHurried(for: 1))
        #expect(steps.isHurried(for: 3))
        loop.advanceTime(by: .milliseconds(8))
        steps.noteGuest(3, at: loop.now)
        loop.advanceTime(by: .milliseconds(8))
        steps.later {}
        loop.run()
        #expect(steps.isHurried(for: 1))
        #expect(!steps.isHurried(for: 3))
        loop.advanceTime(by: .milliseconds(8))
        steps.later {}
        loop.run()
        #expect(!steps.isHurried(for: 1))
    }

    /// `execute` alone would go on for as long as there are steps: NIO runs tasks until there are none.
    @Test(arguments: [false, true])
    func `sockets are served between the steps of long work`(counts: Bool) async throws {
        final class Seen: ChannelInboundHandler, @unchecked Sendable {
            typealias InboundIn = ByteBuffer
            var hasRead = false
            var steps = 0
            func channelRead(context: ChannelHandlerContext, data: NIOAny) { hasRead = true }
        }
        let ticks = LoopTicks()
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1, metricsDelegate: ticks)
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
            let steps = LoopSteps(loop: loop, ticks: counts ? ticks : nil)
            func next() {
                seen.steps += 1
                // Tasks that take longer than any pause between steps.
                if counts {
                    loop.execute {
                        let end = NIODeadline.now() + .microseconds(300)
                        while NIODeadline.now() < end {}
                    }
                }
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
