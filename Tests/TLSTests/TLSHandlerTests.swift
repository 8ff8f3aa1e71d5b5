import NIOCore
import NIOEmbedded
import Testing

@testable import TLS

struct TLSHandlerTests {
    let shop: Workshop
    let server: TLSContext
    let client: TLSContext

    init() throws {
        shop = try Workshop()
        server = try TLSContext(
            shop.issue("server", dns: ["localhost", "r1-n1"], ip: ["127.0.0.1"]))
        client = try TLSContext(shop.issue("client", dns: ["r1-n2"]))
    }

    func bytes(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31) } }

    @Test func `Both sides learn protocol and certificate before the first byte`() throws {
        let pair = try Pair(client: client, server: server)
        pair.client.writeAndFlush(ByteBuffer(string: "early"), promise: nil)
        try pair.pump()
        guard case .handshakeCompleted(let alpn, let peer)? = pair.atServer.events.first else {
            Issue.record("no event: \(pair.atServer.errors) \(pair.atClient.errors)")
            return
        }
        #expect(alpn == "h2")
        #expect(peer?.commonName == "client" && peer?.dnsNames == ["r1-n2"])
        #expect(pair.atServer.receivedAtEvent == [0])
        #expect(pair.atServer.received == Array("early".utf8))
        guard case .handshakeCompleted(let alpnToo, let serverPeer)? = pair.atClient.events.first
        else {
            Issue.record("no event at the client")
            return
        }
        #expect(alpnToo == "h2" && serverPeer?.ipAddresses == ["127.0.0.1"])
        pair.finish()
    }

    @Test(arguments: [1, 7, 1000, Int.max])
    func `Bytes arrive whole and in order however the network cuts them`(piece: Int) throws {
        let pair = try Pair(client: client, server: server)
        pair.pieceMax = piece
        try pair.pump()
        let sizes = piece == 1 ? [0, 1, 20_000] : [0, 1, 5, 16_384, 16_385, 1_000_000, 3]
        var expected: [UInt8] = []
        for size in sizes {
            let part = bytes(size)
            expected += part
            pair.server.write(ByteBuffer(bytes: part), promise: nil)
            pair.client.write(ByteBuffer(bytes: part), promise: nil)
        }
        pair.server.flush()
        pair.client.flush()
        try pair.pump()
        #expect(pair.atClient.received == expected)
        #expect(pair.atServer.received == expected)
        pair.finish()
    }

    @Test func `Write promises complete, and exactly one record carries small writes`() throws {
        let pair = try Pair(client: client, server: server)
        try pair.pump()
        var done = 0
        for _ in 0..<10 {
            let promise = pair.client.eventLoop.makePromise(of: Void.self)
            promise.futureResult.assumeIsolated().whenSuccess { done += 1 }
            pair.client.write(ByteBuffer(string: "0123456789"), promise: promise)
        }
        pair.client.flush()
        let first = try pair.client.readOutbound(as: ByteBuffer.self)
        #expect((first?.readableBytes ?? 0) < 150)
        #expect(try pair.client.readOutbound(as: ByteBuffer.self) == nil)
        pair.client.embeddedEventLoop.run()
        #expect(done == 10)
        pair.finish()
    }

    @Test func `Who dials may show another certificate than who listens, also after a reload`() throws {
        var both = server.configuration
        let other = try shop.issue("dialler", dns: ["r1-n3"])
        both.clientCertificate = other.certificate
        both.clientKey = other.key
        let context = try TLSContext(both)
        for _ in 0..<2 {
            let out = try Pair(client: context, server: server)
            try out.pump()
            guard case .handshakeCompleted(_, let shown)? = out.atServer.events.first else {
                Issue.record("no event: \(out.atServer.errors) \(out.atClient.errors)")
                return
            }
            #expect(shown?.commonName == "dialler")
            out.finish()
            let incoming = try Pair(client: client, server: context)
            try incoming.pump()
            guard case .handshakeCompleted(_, let served)? = incoming.atClient.events.first else {
                Issue.record("no event: \(incoming.atServer.errors) \(incoming.atClient.errors)")
                return
            }
            #expect(served?.commonName == "server")
            incoming.finish()
            try context.reload()
        }
        both.clientKey = nil
        #expect(throws: TLSError.self) { try TLSContext(both) }
    }

    @Test func `What was flushed before a close arrives before the end`() throws {
        let pair = try Pair(client: client, server: server)
        try pair.pump()
        let data = bytes(300_000)
        pair.server.writeAndFlush(ByteBuffer(bytes: data), promise: nil)
        pair.server.close(promise: nil)
        try pair.pump()
        #expect(pair.atClient.received == data)
        #expect(pair.atClient.errors.isEmpty)
        #expect(pair.atClient.isInactive && pair.atServer.isInactive)
    }

    @Test func `A certificate of another authority is refused on either side`() throws {
        let foreign = try CertificateAuthority.create(name: "foreign")
        let stranger = try TLSContext(shop.issue("stranger", dns: ["localhost"], by: foreign))
        let asClient = try Pair(client: stranger, server: server)
        try asClient.pump()
        #expect(asClient.atServer.events.isEmpty)
        #expect("\(asClient.atServer.errors)".contains("certificate verify failed"))
        #expect("\(asClient.atClient.errors)".contains("unknown ca"))
        let asServer = try Pair(client: client, server: stranger)
        try asServer.pump()
        #expect(asServer.atClient.events.isEmpty)
        #expect("\(asServer.atClient.errors)".contains("unable to get local issuer"))
    }

    @Test func `A client without certificate is refused, unless the server asks for none`() throws {
        var without = client.configuration
        without.certificate = nil
        without.key = nil
        let refused = try Pair(client: TLSContext(without), server: server)
        try refused.pump()
        #expect("\(refused.atServer.errors)".contains("did not return a certificate"))
        #expect(refused.atServer.events.isEmpty && refused.atServer.received.isEmpty)
        var open = server.configuration
        open.requireClientCertificate = false
        let taken = try Pair(client: TLSContext(without), server: TLSContext(open))
        try taken.pump()
        #expect(taken.atServer.events == [.handshakeCompleted(alpn: "h2", peer: nil)])
        taken.finish()
    }

    @Test(arguments: [
        ("localhost", true), ("127.0.0.1", true), ("r1-n1", true), ("r1-n2", false),
        ("127.0.0.2", false), ("example.org", false),
    ])
    func `A client insists on the server's name`(name: String, taken: Bool) throws {
        let pair = try Pair(client: client, server: server, name: name)
        try pair.pump()
        #expect(pair.atClient.events.count == (taken ? 1 : 0))
        #expect(pair.atClient.errors.isEmpty == taken)
        if !taken { #expect("\(pair.atClient.errors)".contains("mismatch")) }
        pair.finish()
    }

    @Test func `Only allowed names get in where there is a list`() throws {
        var choosy = server.configuration
        choosy.allowedHosts = ["r1-n3", "client"]
        let refused = try Pair(client: client, server: TLSContext(choosy))
        try refused.pump()
        #expect("\(refused.atServer.errors)".contains("not allowed"))
        choosy.allowedHosts = ["r1-n3", "r1-n2"]
        let taken = try Pair(client: client, server: TLSContext(choosy))
        try taken.pump()
        #expect(taken.atServer.events.count == 1)
        taken.finish()
    }

    /// Whether the server takes the client now.
    private func takes(_ server: TLSConfiguration, _ client: TLSContext) throws -> Bool {
        let pair = try Pair(client: client, server: try TLSContext(server))
        try pair.pump()
        defer { pair.finish() }
        return pair.atServer.events.count == 1
    }

    @Test func `Who is on a revocation list is refused, whatever form and age it has`() throws {
        let other = try TLSContext(shop.issue("other", dns: ["r1-n9"]))
        var wary = server.configuration
        wary.revocations = shop.path("list")
        for isDER in [false, true] {
            for days in [0, 30] {
                try shop.revoke(["other"], in: "list", isDER: isDER, madeDaysAgo: days)
                #expect(try !takes(wary, other), "DER \(isDER), \(days) days")
                #expect(try takes(wary, client), "DER \(isDER), \(days) days")
            }
        }
        try shop.revoke([], in: "list")
        #expect(try takes(wary, other))
        // A certificate of an authority that has no list there.
        let stranger = try Workshop(authority: "another authority")
        try stranger.revoke([], in: "list")
        wary.revocations = stranger.path("list")
        #expect(try takes(wary, client))
        for rubbish in [Array("rubbish".utf8), [], Array("-----BEGIN X509 CRL-----\nAAAA\n".utf8)] {
            try shop.keep("broken", rubbish)
            wary.revocations = shop.path("broken")
            #expect(throws: TLSError.self) { try TLSContext(wary) }
        }
    }

    @Test func `What is newer than the last version that is wanted is not spoken`() throws {
        var old = server.configuration
        old.maximumVersion = .tls12
        #expect(try takes(old, client))
        var modern = client.configuration
        modern.minimumVersion = .tls13
        #expect(try !takes(old, TLSContext(modern)))
        #expect(try takes(server.configuration, TLSContext(modern)))
    }

    @Test func `Old protocol versions and plain text are refused with OpenSSL's reason`() throws {
        var modern = server.configuration
        modern.minimumVersion = .tls13
        let old = EmbeddedChannel()
        let recorder = Recorder()
        try old.pipeline.syncOperations.addHandlers(
            [TLSHandler(context: try TLSContext(modern), role: .server), recorder])
        old.connect(to: try SocketAddress(ipAddress: "127.0.0.1", port: 1), promise: nil)
        _ = try? old.writeInbound(ByteBuffer(string: "GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
        #expect("\(recorder.errors)".contains("http request"))
        #expect(recorder.isInactive)
    }

    @Test func `A damaged record ends the session and nothing of it is delivered`() throws {
        let pair = try Pair(client: client, server: server)
        try pair.pump()
        pair.client.writeAndFlush(ByteBuffer(string: "secret"), promise: nil)
        var record = try #require(try pair.client.readOutbound(as: ByteBuffer.self))
        let last = record.writerIndex - 1
        record.setInteger(
            (record.getInteger(at: last, as: UInt8.self) ?? 0) ^ 1, at: last)
        _ = try? pair.server.writeInbound(record)
        #expect(pair.atServer.received.isEmpty)
        #expect(pair.atServer.errors.count == 1)
        #expect("\(pair.atServer.errors)".contains("bad record mac"))
        #expect(pair.atServer.isInactive)
    }

    @Test func `A silent client is dropped when its time is over`() throws {
        let channel = EmbeddedChannel()
        let recorder = Recorder()
        try channel.pipeline.syncOperations.addHandlers([
            TLSHandler(context: server, role: .server, handshakeTimeout: .seconds(3)), recorder,
        ])
        channel.connect(to: try SocketAddress(ipAddress: "127.0.0.1", port: 1), promise: nil)
        channel.embeddedEventLoop.advanceTime(by: .seconds(2))
        #expect(channel.isActive)
        channel.embeddedEventLoop.advanceTime(by: .seconds(2))
        #expect(recorder.errors == [.handshakeTimedOut])
        #expect(!channel.isActive)
    }

    @Test func `Writes before the handshake are bounded`() throws {
        let channel = EmbeddedChannel()
        let recorder = Recorder()
        try channel.pipeline.syncOperations.addHandlers([
            TLSHandler(context: server, role: .server, bufferedBytesMax: 1000), recorder,
        ])
        channel.connect(to: try SocketAddress(ipAddress: "127.0.0.1", port: 1), promise: nil)
        channel.write(ByteBuffer(repeating: 0, count: 1001), promise: nil)
        #expect(recorder.errors == [.tooMuchBuffered(1001)])
        #expect(!channel.isActive)
    }

    @Test func `Reload takes new files for new sessions; a failed reload changes nothing`() throws {
        let before = try Pair(client: client, server: server)
        try before.pump()
        try shop.issue("server", dns: ["localhost", "renewed"])
        try server.reload()
        #expect(server.certificate?.dnsNames == ["localhost", "renewed"])
        let after = try Pair(client: client, server: server, name: "renewed")
        try after.pump()
        #expect(after.atClient.events.count == 1)
        before.client.writeAndFlush(ByteBuffer(string: "still here"), promise: nil)
        try before.pump()
        #expect(before.atServer.received == Array("still here".utf8))
        try shop.keep("server.pem", Array("rubbish".utf8))
        #expect(throws: TLSError.self) { try server.reload() }
        let still = try Pair(client: client, server: server, name: "renewed")
        try still.pump()
        #expect(still.atClient.events.count == 1)
        for pair in [before, after, still] { pair.finish() }
    }
}
