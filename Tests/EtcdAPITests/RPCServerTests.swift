import NIOCore
import NIOEmbedded
import Primitives
import Testing

@testable import EtcdAPI

@Suite struct RPCServerTests {
    @Test func `a unary call is answered with its message and status 0`() throws {
        let wire = try Wire()
        wire.echo()
        let stream = wire.client.call("/etcdserverpb.KV/Range", ["hello"])
        try wire.pump()
        let answer = try #require(wire.client.answers[stream])
        #expect(answer.fields[":status"] == "200")
        #expect(answer.fields["content-type"] == "application/grpc")
        #expect(answer.messages == ["hello"])
        #expect(answer.status == 0)
        #expect(answer.closed == 0)
        #expect(wire.handler.events == [.call(.range), .message("hello")])
        #expect(wire.server.openCalls == 0)
    }

    @Test func `every method is found by its path`() throws {
        let wire = try Wire()
        wire.echo()
        for method in RPCMethod.allCases {
            _ = wire.client.call("\(method.path)", ["x"])
            try wire.pump()
            #expect(wire.handler.events.contains(.call(method)))
        }
        #expect(wire.handler.calls.count == RPCMethod.allCases.count)
    }

    @Test func `bytes may arrive one at a time`() throws {
        let wire = try Wire()
        let messages: [Bytes] = ["", "a", Bytes([UInt8](repeating: 7, count: 300))]
        let stream = wire.client.call("/etcdserverpb.Watch/Watch", messages)
        for byte in wire.client.bytes().readableBytesView {
            try wire.channel.writeInbound(ByteBuffer(bytes: [byte]))
        }
        #expect(wire.handler.messages == messages)
        #expect(wire.handler.events.last == .halfClose)
        wire.server.finish(wire.handler.calls[0])
        try wire.pump()
        #expect(wire.client.answers[stream]?.status == 0)
    }

    @Test func `a message above the limit is refused with grpc-go's words`() throws {
        var limits = RPCLimits()
        limits.messageBytesMax = 100
        let wire = try Wire(limits)
        wire.echo()
        let large = wire.client.call("/etcdserverpb.KV/Put", [Bytes([UInt8](repeating: 1, count: 101))])
        let fits = wire.client.call("/etcdserverpb.KV/Put", [Bytes([UInt8](repeating: 1, count: 100))])
        try wire.pump()
        #expect(wire.client.answers[large]?.status == 8)
        #expect(
            wire.client.answers[large]?.message == "grpc: received message larger than max (101 vs. 100)")
        #expect(wire.client.answers[fits]?.status == 0)
        #expect(wire.handler.cancelled == 1)
    }

    @Test(arguments: [
        ("/etcdserverpb.KV/Nope", "unknown method Nope for service etcdserverpb.KV"),
        ("/nope.KV/Range", "unknown service nope.KV"),
        ("/Range", "malformed method name: \"/Range\""),
    ])
    func `an unknown method is unimplemented and the connection lives on`(
        path: String, text: String
    ) throws {
        let wire = try Wire()
        wire.echo()
        let unknown = wire.client.call(path, ["x"])
        try wire.pump()
        #expect(wire.client.answers[unknown]?.status == 12)
        #expect(wire.client.answers[unknown]?.message == text)
        let known = wire.client.call("/etcdserverpb.KV/Range", ["x"])
        try wire.pump()
        #expect(wire.client.answers[known]?.status == 0)
    }

    @Test func `a wrong content type is 415`() throws {
        let wire = try Wire()
        let stream = wire.client.call("/etcdserverpb.KV/Range", ["x"], contentType: "application/json")
        try wire.pump()
        #expect(wire.client.answers[stream]?.fields[":status"] == "415")
        #expect(wire.handler.events.isEmpty)
    }

    /// Made by Python's gzip.
    private static let compressedBytes: [UInt8] = [
        31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 171, 168, 24, 5, 196, 2, 0, 19, 45, 67, 27, 44, 1, 0, 0,
    ]

    @Test func `messages compressed with gzip are taken, beside others, in pieces`() throws {
        let wire = try Wire()
        var received: [Bytes] = []
        wire.handler.onMessage = { _, message in received.append(message) }
        let stream = wire.client.call(
            "/etcdserverpb.Watch/Watch", [], ends: false, extra: [("grpc-encoding", "gzip")])
        let whole: [UInt8] = [1, 0, 0, 0, UInt8(Self.compressedBytes.count)] + Self.compressedBytes
        for piece in [whole[..<3], whole[3..<12], whole[12...], [0, 0, 0, 0, 1, 9], whole[...]] {
            wire.client.session.send(stream, Bytes(Array(piece)), isMessage: false)
            try wire.pump()
        }
        let text = Bytes([UInt8](repeating: UInt8(ascii: "x"), count: 300))
        #expect(received == [text, Bytes([9]), text])
    }

    @Test func `a message that is inflated in steps comes whole, with what follows, and leaves nothing`() throws {
        let wire = try Wire()
        var received: [Int] = []
        wire.handler.onMessage = { _, message in received.append(message.length) }
        let stored = Self.stored(bytes: 400_000)
        let first = wire.client.call(
            "/etcdserverpb.Watch/Watch", [], ends: false, extra: [("grpc-encoding", "gzip")])
        let length = UInt32(stored.count).bigEndian
        let whole = [1] + withUnsafeBytes(of: length) { Array($0) } + stored
        wire.client.session.send(first, Bytes(whole + [0, 0, 0, 0, 1, 9] + whole + [0, 0, 0, 0, 0]), isMessage: false)
        wire.client.session.end(first)
        let second = wire.client.call("/etcdserverpb.KV/Range", ["x"])
        try wire.pump()
        for _ in 0..<1000 where wire.handler.events.last != .halfClose || received.count < 5 {
            wire.channel.embeddedEventLoop.advanceTime(by: .milliseconds(1))
            try wire.pump()
        }
        #expect(received.sorted() == [0, 1, 1, 400_000, 400_000])
        #expect(wire.server.halfSentBytes == 0)
        _ = second
        // Given up meanwhile: nothing is left of it.
        let given = wire.client.call(
            "/etcdserverpb.Watch/Watch", [], ends: false, extra: [("grpc-encoding", "gzip")])
        wire.client.session.send(given, Bytes(whole), isMessage: false)
        try wire.pump()
        wire.client.session.reset(given, code: 8)
        try wire.pump()
        for _ in 0..<100 {
            wire.channel.embeddedEventLoop.advanceTime(by: .milliseconds(1))
            try wire.pump()
        }
        #expect(received.count <= 6)
        #expect(wire.server.inflating.isEmpty)
        let last = wire.client.call("/etcdserverpb.KV/Range", ["x"])
        try wire.pump()
        #expect(received.last == 1)
        _ = last
    }

    /// gzip without any compression: blocks of deflate's that are stored (RFC 1951, 3.2.4).
    private static func stored(bytes: Int) -> [UInt8] {
        var out: [UInt8] = [31, 139, 8, 0, 0, 0, 0, 0, 2, 3]
        var left = bytes
        while left > 0 {
            let count = min(left, 65_535)
            left -= count
            let length = UInt16(count)
            out.append(left == 0 ? 1 : 0)
            for value in [length, ~length] { withUnsafeBytes(of: value.littleEndian) { out += Array($0) } }
            out += [UInt8](repeating: 0, count: count)
        }
        for value in [crc32(zeros: bytes), UInt32(bytes)] {
            withUnsafeBytes(of: value.littleEndian) { out += Array($0) }
        }
        return out
    }

    private static func crc32(zeros: Int) -> UInt32 {
        var crc = UInt32.max
        for _ in 0..<zeros { for _ in 0..<8 { crc = crc >> 1 ^ (crc & 1 == 1 ? 0xEDB8_8320 : 0) } }
        return ~crc
    }

    @Test func `a compressed message is bounded by what it is, whatever it says`() throws {
        func inflate(_ bytes: [UInt8], limit: Int = 300) -> Result<Bytes, MessageReader.Failure> {
            Result { () throws(MessageReader.Failure) in
                let inflation = try Inflation(Bytes(bytes), limit: limit)
                while true { if let whole = try inflation.step() { return whole } }
            }
        }
        let whole = Self.compressedBytes
        #expect(try inflate(whole).get().count == 300)
        #expect(inflate(whole, limit: 299) == .failure(.tooLarge(300)))
        // Two members are one message; only the last one says its size.
        #expect(try inflate(whole + whole, limit: 600).get().count == 600)
        #expect(inflate(whole + whole, limit: 599) == .failure(.tooLarge(600)))
        #expect(inflate([]) == .failure(.damaged("EOF")))
        #expect(inflate([31, 139, 8, 4, 0, 0, 0, 0, 2, 3, 10, 0, 0, 0, 0, 0]) == .failure(.damaged("unexpected EOF")))
        #expect(inflate([1, 2] + whole) == .failure(.damaged("gzip: invalid header")))
        #expect(inflate(whole + [7, 7, 7, 7, 0, 0, 0, 0]) == .failure(.damaged("gzip: invalid header")))
        var other = whole
        other[other.count - 7] ^= 1
        #expect(inflate(other) == .failure(.damaged("gzip: invalid checksum")))
        other = whole
        other[10] = 255
        guard case .failure(.damaged(let text)) = inflate(other) else { return #expect(Bool(false)) }
        #expect(text.hasPrefix("flate: corrupt input before offset"))
    }

    @Test func `messages that are compressed otherwise, or odd, are refused`() throws {
        let wire = try Wire()
        let identity = wire.client.call("/etcdserverpb.KV/Range", [], ends: false)
        wire.client.session.send(identity, Bytes([1, 0, 0, 0, 1, 9]), isMessage: false)
        let gzip = wire.client.call(
            "/etcdserverpb.KV/Range", [], ends: false, extra: [("grpc-encoding", "gzip")])
        wire.client.session.send(gzip, Bytes([1, 0, 0, 0, 1, 9]), isMessage: false)
        let deflate = wire.client.call(
            "/etcdserverpb.KV/Range", [], ends: false, extra: [("grpc-encoding", "deflate")])
        wire.client.session.send(deflate, Bytes([1, 0, 0, 0, 1, 9]), isMessage: false)
        let odd = wire.client.call("/etcdserverpb.KV/Range", [], ends: false)
        wire.client.session.send(odd, Bytes([7, 0, 0, 0, 1, 9]), isMessage: false)
        let cut = wire.client.call("/etcdserverpb.KV/Range", [], ends: false)
        wire.client.session.send(cut, Bytes([0, 0, 0, 0, 9, 9]), isMessage: false)
        wire.client.session.end(cut)
        try wire.pump()
        #expect(wire.client.answers[identity]?.status == 13)
        #expect(wire.client.answers[gzip]?.status == 13)
        #expect(
            wire.client.answers[gzip]?.message
                == "grpc: failed to decompress the received message unexpected EOF")
        #expect(wire.client.answers[deflate]?.status == 12)
        #expect(
            wire.client.answers[deflate]?.message
                == "grpc: Decompressor is not installed for grpc-encoding \"deflate\"")
        #expect(wire.client.answers[odd]?.status == 13)
        #expect(wire.client.answers[cut]?.message == "unexpected EOF")
        #expect(wire.server.openCalls == 0)
    }

    @Test func `what the client says in its headers reaches the handler`() throws {
        let wire = try Wire()
        _ = wire.client.call(
            "/etcdserverpb.KV/Range", ["x"],
            extra: [
                ("grpc-timeout", "1500m"), ("token", "abc.12"), ("hasleader", "true"),
                ("client-api-version", "3.5.21"),
            ], authority: "http://127.0.0.1:2379#initially=[1]")
        try wire.pump()
        let metadata = try #require(wire.handler.metadata.first)
        #expect(metadata.timeout == .milliseconds(1500))
        #expect(metadata.token == "abc.12")
        #expect(metadata.requiresLeader)
        #expect(metadata.clientAPIVersion == "3.5.21")
        #expect(metadata.authority == "http://127.0.0.1:2379#initially=[1]")
    }

    @Test func `a reset by the client cancels its call, and late answers are dropped`() throws {
        let wire = try Wire()
        let stream = wire.client.call("/etcdserverpb.KV/Range", ["x"])
        try wire.pump()
        wire.client.session.reset(stream, code: 8)
        try wire.pump()
        #expect(wire.handler.cancelled == 1)
        wire.server.send([1], to: wire.handler.calls[0])
        wire.server.finish(wire.handler.calls[0])
        #expect(!wire.server.isOpen(wire.handler.calls[0]))
        try wire.pump()
        #expect(wire.handler.cancelled == 1)
    }

    @Test func `a lost connection cancels each open call`() throws {
        let wire = try Wire()
        for _ in 0..<5 { _ = wire.client.call("/etcdserverpb.Watch/Watch", ["x"], ends: false) }
        try wire.pump()
        wire.server.finish(wire.handler.calls[0])
        try wire.pump()
        _ = try wire.channel.finish()
        #expect(wire.handler.cancelled == 4)
        #expect(wire.server.openCalls == 0)
        #expect(wire.server.openConnections == 0)
    }

    @Test func `a deadline ends a call that is still open, and only that`() throws {
        let wire = try Wire()
        let slow = wire.client.call(
            "/etcdserverpb.KV/Range", ["slow"], extra: [("grpc-timeout", "200m")])
        let patient = wire.client.call(
            "/etcdserverpb.KV/Range", ["patient"], extra: [("grpc-timeout", "20S")])
        let quick = wire.client.call(
            "/etcdserverpb.KV/Range", ["quick"], extra: [("grpc-timeout", "100m")])
        try wire.pump()
        wire.server.finish(wire.handler.calls[2])
        wire.loop.advanceTime(by: .milliseconds(199))
        try wire.pump()
        #expect(wire.handler.cancelled == 0)
        wire.loop.advanceTime(by: .milliseconds(31))
        try wire.pump()
        #expect(wire.handler.cancelled == 1)
        #expect(wire.client.answers[slow]?.status == 4)
        #expect(wire.client.answers[slow]?.message == "context deadline exceeded")
        #expect(wire.client.answers[quick]?.status == 0)
        #expect(wire.client.answers[patient]?.status == nil)
        wire.loop.advanceTime(by: .seconds(20))
        try wire.pump()
        #expect(wire.client.answers[patient]?.status == 4)
    }

    @Test func `a thousand streams at once`() throws {
        let wire = try Wire()
        var streams: [Int32] = []
        for i in 0..<1000 {
            streams.append(wire.client.call("/etcdserverpb.KV/Range", [Bytes("\(i)")]))
        }
        try wire.pump()
        #expect(wire.handler.calls.count == 1000)
        for (i, call) in wire.handler.calls.enumerated().reversed() {
            wire.server.send(Bytes("answer \(i)"), to: call)
            wire.server.finish(call)
        }
        try wire.pump()
        for (i, stream) in streams.enumerated() {
            #expect(wire.client.answers[stream]?.messages == [Bytes("answer \(i)")])
            #expect(wire.client.answers[stream]?.status == 0)
        }
        #expect(wire.server.openCalls == 0)
    }

    @Test func `a slow reader holds up its stream, and hears when it may go on`() throws {
        var small = HTTP2Settings()
        small.streamWindowBytes = 65535
        var limits = RPCLimits()
        limits.bufferedBytesHigh = 100_000
        limits.bufferedBytesLow = 50_000
        let wire = try Wire(limits, client: small)
        let stream = wire.client.call("/etcdserverpb.Watch/Watch", ["x"], ends: false)
        let other = wire.client.call("/etcdserverpb.KV/Range", ["y"])
        try wire.pump()
        let watch = wire.handler.calls[0]
        let part = Bytes([UInt8](repeating: 3, count: 10_000))
        for _ in 0..<20 { wire.server.send(part, to: watch) }
        #expect(wire.server.bufferedBytes(of: watch) == 20 * 10_005)
        wire.server.send("y", to: wire.handler.calls[1])
        wire.server.finish(wire.handler.calls[1])
        // One way only: the client's window updates do not arrive yet.
        wire.loop.run()
        let first = try wire.fromServer()
        #expect(wire.server.bufferedBytes(of: watch) == 20 * 10_005 - 65535)
        #expect(!wire.handler.events.contains(.writable))
        _ = first.withUnsafeReadableBytes { wire.client.session.feed($0) }
        #expect(wire.client.answers[other]?.status == 0)
        try wire.pump()
        #expect(wire.handler.events.filter { $0 == .writable }.count == 1)
        #expect(wire.server.bufferedBytes(of: watch) == 0)
        #expect(wire.client.answers[stream]?.messages == [Bytes](repeating: part, count: 20))
    }

    @Test func `a large answer does not hold up the small ones behind it`() throws {
        let wire = try Wire()
        let large = wire.client.call("/etcdserverpb.KV/Range", ["large"])
        let small = wire.client.call("/etcdserverpb.KV/Range", ["small"])
        try wire.pump()
        wire.server.send([UInt8](repeating: 1, count: 900_000), to: wire.handler.calls[0])
        wire.server.send("x", to: wire.handler.calls[1])
        for call in wire.handler.calls { wire.server.finish(call) }
        wire.loop.run()
        let bytes = try wire.fromServer()
        let start = try #require(bytes.getSlice(at: 0, length: 40_000))
        _ = start.withUnsafeReadableBytes { wire.client.session.feed($0) }
        #expect(wire.client.answers[small]?.status == 0)
        #expect(wire.client.answers[large]?.status == nil)
        let rest = try #require(bytes.getSlice(at: 40_000, length: bytes.readableBytes - 40_000))
        _ = rest.withUnsafeReadableBytes { wire.client.session.feed($0) }
        #expect(wire.client.answers[large]?.messages.first?.count == 900_000)
    }

    @Test func `a connection may be flushed from another's callback`() throws {
        var small = HTTP2Settings()
        small.streamWindowBytes = 65535
        var limits = RPCLimits()
        limits.bufferedBytesHigh = 70_000
        limits.bufferedBytesLow = 60_000
        let wire = try Wire(limits, client: small)
        let other = EmbeddedChannel(loop: wire.loop)
        try wire.server.configure(other)
        try other.connect(to: SocketAddress(unixDomainSocketPath: "/other")).wait()
        let second = RecordingClient()
        let stream = second.call("/etcdserverpb.Watch/Watch", ["y"], ends: false)
        try other.writeInbound(second.bytes())
        _ = wire.client.call("/etcdserverpb.Watch/Watch", ["x"], ends: false)
        try wire.pump()
        wire.handler.onWritable = { [handler = wire.handler, server = wire.server] _ in
            server.send("told", to: handler.calls[0])
            server.flush()
        }
        wire.server.send([UInt8](repeating: 1, count: 100_000), to: wire.handler.calls[1])
        try wire.pump()
        while let part = try other.readOutbound(as: ByteBuffer.self) {
            _ = part.withUnsafeReadableBytes { second.session.feed($0) }
        }
        #expect(second.answers[stream]?.messages == ["told"])
        _ = try other.finish()
        second.session.close()
    }

    @Test func `a full socket is not written to`() throws {
        let wire = try Wire()
        _ = wire.client.call("/etcdserverpb.Watch/Watch", ["x"], ends: false)
        try wire.pump()
        wire.channel.isWritable = false
        wire.server.send([UInt8](repeating: 1, count: 5000), to: wire.handler.calls[0])
        wire.server.flush()
        #expect(try wire.fromServer().readableBytes == 0)
        #expect(wire.server.bufferedBytes(of: wire.handler.calls[0]) == 5005)
        wire.channel.isWritable = true
        wire.channel.pipeline.fireChannelWritabilityChanged()
        #expect(try wire.fromServer().readableBytes > 5000)
    }

    @Test func `a shutdown refuses new streams, finishes open calls and then closes`() throws {
        let wire = try Wire()
        let stream = wire.client.call("/etcdserverpb.KV/Range", ["x"])
        try wire.pump()
        var isDown = false
        wire.server.shutdown(within: .seconds(10)).assumeIsolated().whenSuccess { isDown = true }
        try wire.pump()
        #expect(wire.client.goAways.map(\.last) == [.max, stream])
        #expect(wire.client.session.open(HTTP2Fields([]), context: 0) == nil)
        #expect(!isDown)
        wire.server.send("late", to: wire.handler.calls[0])
        wire.server.finish(wire.handler.calls[0])
        try wire.pump()
        #expect(wire.client.answers[stream]?.messages == ["late"])
        #expect(isDown)
        #expect(wire.handler.cancelled == 0)
    }

    @Test func `a shutdown closes what does not end in time`() throws {
        let wire = try Wire()
        _ = wire.client.call("/etcdserverpb.Watch/Watch", ["x"], ends: false)
        try wire.pump()
        var isDown = false
        wire.server.shutdown(within: .seconds(3)).assumeIsolated().whenSuccess { isDown = true }
        try wire.pump()
        wire.loop.advanceTime(by: .seconds(4))
        wire.loop.run()
        #expect(wire.handler.cancelled == 1)
        #expect(isDown)
    }
}
