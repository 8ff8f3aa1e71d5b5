import EtcdAPI
import NIOCore
import NIOEmbedded
import Testing

@testable import EtcdFacade

/// RFC 6455 by hand: what a browser sends, and what it gets.
@Suite struct WebSocketTests {
    private func handshake(_ path: String, _ extra: [String] = []) -> String {
        ([
            "GET \(path) HTTP/1.1", "host: node:2379", "connection: keep-alive, Upgrade",
            "upgrade: websocket", "sec-websocket-version: 13",
            "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        ] + extra + ["", ""]).joined(separator: "\r\n")
    }

    private func frame(_ payload: String, opcode: UInt8 = 1, masked: Bool = true) -> ByteBuffer {
        var buffer = ByteBuffer()
        let bytes = Array(payload.utf8)
        precondition(bytes.count < 126)
        buffer.writeInteger(0x80 | opcode)
        buffer.writeInteger(UInt8(bytes.count) | (masked ? 0x80 : 0))
        let mask: [UInt8] = [1, 2, 3, 4]
        if masked { buffer.writeBytes(mask) }
        buffer.writeBytes(bytes.enumerated().map { masked ? $1 ^ mask[$0 % 4] : $1 })
        return buffer
    }

    /// Opcode and payload of each frame.
    private func frames(_ channel: EmbeddedChannel) throws -> [String] {
        var all = ByteBuffer()
        while var part = try channel.readOutbound(as: ByteBuffer.self) { all.writeBuffer(&part) }
        var found: [String] = []
        while let first = all.readInteger(as: UInt8.self),
            let short = all.readInteger(as: UInt8.self)
        {
            let count = short == 126 ? Int(all.readInteger(as: UInt16.self) ?? 0) : Int(short)
            let payload = all.readSlice(length: count) ?? ByteBuffer()
            if first & 15 == 8 {
                found.append("8 \(payload.getInteger(at: payload.readerIndex, as: UInt16.self) ?? 0)")
            } else {
                found.append("\(first & 15) \(String(buffer: payload))")
            }
        }
        return found
    }

    private func open(_ browser: Browser, _ path: String) throws -> EmbeddedChannel {
        let channel = try browser.connect()
        try browser.send(channel, handshake(path))
        let answer = try browser.received(channel)
        #expect(answer.hasPrefix("HTTP/1.1 101 "))
        // RFC 6455 section 1.3.
        #expect(
            answer.lowercased().contains(
                "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="))
        return channel
    }

    private func send(_ browser: Browser, _ channel: EmbeddedChannel, _ frame: ByteBuffer) throws {
        try channel.writeInbound(frame)
        browser.loop.run()
    }

    @Test func `a watch over a WebSocket goes both ways`() throws {
        let browser = Browser()
        let channel = try open(browser, "/v3/watch")
        try send(browser, channel, frame(#"{"create_request":{"key":"YQ=="}}"#))
        #expect(try frames(channel).map { $0.contains(#""created":true"#) } == [true])
        _ = try browser.post("/v3/kv/put", #"{"key":"YQ==","value":"dg=="}"#)
        let events = try frames(channel)
        #expect(events.count == 1 && events[0].hasPrefix(#"1 {"result":{"header""#))
        #expect(events[0].contains(#""events":[{"kv":{"key":"YQ==""#))
        try send(browser, channel, frame("are you there?", opcode: 9))
        #expect(try frames(channel) == ["10 are you there?"])
        try send(browser, channel, frame(#"{"cancel_request":{"watch_id":"0"}}"#))
        #expect(try frames(channel).map { $0.contains(#""canceled":true"#) } == [true])
        try send(browser, channel, frame("\u{3}\u{e8}", opcode: 8))
        #expect(try frames(channel) == ["8 1000"])
        #expect(browser.server.openCalls == 0)
        #expect(browser.facade.watches.streamsCount == 0)
    }

    @Test func `a unary method answers its first message and closes`() throws {
        let browser = Browser()
        let channel = try open(browser, "/v3/kv/put?method=POST")
        try send(browser, channel, frame(#"{"key":"YQ=="}"#))
        let answer = try frames(channel)
        #expect(answer.count == 2 && answer[0].hasPrefix(#"1 {"header":"#) && answer[1] == "8 1000")
        #expect(!channel.isActive)
    }

    @Test func `what breaks the rules ends it`() throws {
        let browser = Browser()
        let unmasked = try open(browser, "/v3/watch")
        try send(browser, unmasked, frame("{}", masked: false))
        #expect(try frames(unmasked).last == "8 1002")
        let garbage = try open(browser, "/v3/watch")
        try send(browser, garbage, frame("garbage"))
        #expect(try frames(garbage).last == "8 1000")
        #expect(browser.server.openCalls == 0)
    }

    @Test func `elsewhere, or where names are refused, there is none`() throws {
        let browser = Browser()
        let nowhere = try browser.connect()
        try browser.send(nowhere, handshake("/v3/nowhere"))
        #expect(try browser.received(nowhere).hasPrefix("HTTP/1.1 404"))
        browser.facade.access.hosts = ["other"]
        let misdirected = try browser.connect()
        try browser.send(misdirected, handshake("/v3/watch"))
        #expect(try browser.received(misdirected).hasPrefix("HTTP/1.1 421"))
    }

    /// Bytes behind it, which the parser of HTTP/1 reads as a request, must not reach the handlers of frames.
    @Test(arguments: [
        ["Qpgrade"], ["keep-alive"], ["Upgraded"], ["keep-alive Upgrade"], ["x\tUpgrade"], [",\tupgrade"], [""], [],
    ])
    func `without the word in connection it is a request like any other`(connection: [String]) throws {
        let browser = Browser()
        let channel = try browser.connect()
        let plain = handshake("/v3/watch", connection.map { "connection: \($0)" })
            .replacing("connection: keep-alive, Upgrade\r\n", with: "")
        try browser.send(channel, plain + "HEAD /version HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        let answer = try browser.received(channel)
        #expect(!answer.hasPrefix("HTTP/1.1 101") && answer.lowercased().contains("connection: close"), "\(answer)")
        #expect(!channel.isActive)
    }

    @Test(arguments: ["GET /v3/watch HTTP/1.0", "HEAD /v3/watch HTTP/1.1", "POST /v3/watch HTTP/1.1"])
    func `nor is it one with another method or version`(line: String) throws {
        let browser = Browser()
        let channel = try browser.connect()
        try browser.send(channel, handshake("/v3/watch").replacing("GET /v3/watch HTTP/1.1", with: line))
        #expect(try !browser.received(channel).hasPrefix("HTTP/1.1 101"))
    }

    @Test(arguments: ["upgrade", "keep-alive, UPGRADE", "keep-alive ,  Upgrade "])
    func `the word may stand anywhere in the list`(connection: String) throws {
        let browser = Browser()
        let channel = try browser.connect()
        try browser.send(channel, handshake("/v3/watch").replacing("keep-alive, Upgrade", with: connection))
        #expect(try browser.received(channel).hasPrefix("HTTP/1.1 101"))
        try send(browser, channel, frame("are you there?", opcode: 9))
        #expect(try frames(channel) == ["10 are you there?"])
    }

    /// The parser has stopped behind it: the client must not wait for a second answer (curl --http2 asks for h2c).
    @Test func `whoever asks for another protocol is answered and sent away`() throws {
        let browser = Browser()
        let answer = try browser.ask(
            "/version", "", method: "GET", ["connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABk"])
        #expect(answer.hasPrefix("HTTP/1.1 200") && answer.lowercased().contains("connection: close"))
    }
}
