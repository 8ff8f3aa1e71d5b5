import EtcdAPI
import Foundation
import NIOCore
import NIOEmbedded
import Primitives
import Testing

@testable import EtcdFacade

/// A server without sockets, and HTTP/1.1 as text.
final class Browser {
    let node = FakeNode()
    let loop = EmbeddedEventLoop()
    let server: RPCServer
    let facade: Facade

    init(_ limits: RPCLimits = RPCLimits()) {
        server = RPCServer(loop: loop, limits: limits)
        facade = Facade(node: node, server: server)
        node.client = facade
        server.handler = facade
    }

    func connect() throws -> EmbeddedChannel {
        let channel = EmbeddedChannel(loop: loop)
        try server.configure(channel)
        try channel.connect(to: SocketAddress(unixDomainSocketPath: "/browser")).wait()
        return channel
    }

    func send(_ channel: EmbeddedChannel, _ text: String) throws {
        try channel.writeInbound(ByteBuffer(string: text))
        loop.run()
    }

    func received(_ channel: EmbeddedChannel) throws -> String {
        loop.run()
        var text = ""
        while let part = try channel.readOutbound(as: ByteBuffer.self) {
            text += String(buffer: part)
        }
        return text
    }

    func request(
        _ path: String, _ body: String, method: String = "POST", _ headers: [String] = []
    ) -> String {
        (["\(method) \(path) HTTP/1.1", "host: node:2379", "content-length: \(body.utf8.count)"]
            + headers + ["", body]).joined(separator: "\r\n")
    }

    /// The whole answer, status line first.
    func ask(
        _ path: String, _ body: String, method: String = "POST", _ headers: [String] = []
    ) throws -> String {
        let channel = try connect()
        try send(channel, request(path, body, method: method, headers))
        let answer = try received(channel)
        if channel.isActive { _ = try channel.finish() }
        return answer
    }

    /// Status and body of an answer of known length.
    func post(_ path: String, _ body: String) throws -> String {
        let answer = try ask(path, body)
        let status = answer.split(separator: " ")[1]
        let parts = answer.components(separatedBy: "\r\n\r\n")
        return "\(status) \(parts.dropFirst().joined())"
    }

    /// The chunks of a streamed answer.
    func lines(_ answer: String) -> [String] {
        answer.components(separatedBy: "\r\n").filter { $0.hasPrefix("{") }.map {
            $0.trimmingCharacters(in: .newlines)
        }
    }
}

@Suite struct GatewayTests {
    private let header = #""header":{"cluster_id":"193","member_id":"161","revision":""#
    private func header(_ revision: Int) -> String { header + #"\#(revision)","raft_term":"3"}"# }

    // The texts are etcd's (3.5), with only ids changed.

    @Test func `put, range and delete speak etcd's JSON`() throws {
        let browser = Browser()
        #expect(
            try browser.post("/v3/kv/put", #"{"key":"Zm9v","value":"YmFy","nonsense":1}"#)
                == "200 {\(header(2))}")
        #expect(
            try browser.post("/v3/kv/range", #"{"key":"Zm9v"} trailing"#)
                == "200 {\(header(2)),"
                + #""kvs":[{"key":"Zm9v","create_revision":"2","mod_revision":"2","version":"1","#
                + #""value":"YmFy"}],"count":"1"}"#)
        #expect(
            try browser.post("/v3beta/kv/deleterange", #"{"key":"Zm9v","prevKv":true}"#)
                == "200 {\(header(3)),"
                + #""deleted":"1","prev_kvs":[{"key":"Zm9v","create_revision":"2","#
                + #""mod_revision":"2","version":"1","value":"YmFy"}]}"#)
        #expect(try browser.post("/v3/kv/range", #"{"key":"Zm9v"}"#) == "200 {\(header(3))}")
    }

    @Test func `names in either spelling, numbers as text or not, orders by name or number`() throws {
        let browser = Browser()
        for key in ["YQ==", "Yg=="] { _ = try browser.post("/v3/kv/put", #"{"key":"\#(key)"}"#) }
        for (order, end) in [(#""DESCEND""#, "range_end"), ("2", "rangeEnd")] {
            let answer = try browser.post(
                "/v3/kv/range",
                #"{"key":"YQ==","\#(end)":"AA==","sort_order":\#(order),"limit":"1"}"#)
            #expect(answer.contains(#""kvs":[{"key":"Yg==""#))
            #expect(answer.hasSuffix(#""more":true,"count":"2"}"#))
        }
    }

    @Test func `a transaction with its branches`() throws {
        let browser = Browser()
        _ = try browser.post("/v3/kv/put", #"{"key":"Zm9v","value":"YmFy"}"#)
        let answer = try browser.post(
            "/v3/kv/txn",
            #"{"compare":[{"target":"CREATE","key":"Zm9v","createRevision":"2"}],"success":"#
                + #"[{"requestPut":{"key":"Zm9v","value":"YmFy"}},"#
                + #"{"request_range":{"key":"Zm9v"}}]}"#)
        #expect(
            answer
                == "200 {\(header(3)),"
                + #""succeeded":true,"responses":[{"response_put":{"header":{"revision":"3"}}},"#
                + #"{"response_range":{"header":{"revision":"3"},"kvs":[{"key":"Zm9v","#
                + #""create_revision":"2","mod_revision":"3","version":"2","value":"YmFy"}],"#
                + #""count":"1"}}]}"#)
    }

    @Test(arguments: [
        ("/v3/kv/put", "", 400, 3, "etcdserver: key is not provided"),
        ("/v3/kv/put", "{}", 400, 3, "etcdserver: key is not provided"),
        ("/v3/kv/put", "null", 400, 3, "etcdserver: key is not provided"),
        ("/v3/kv/put", #"{"key":"YQ==","lease":"123"}"#, 404, 5,
            "etcdserver: requested lease not found"),
        ("/v3/kv/compaction", #"{"revision":"99"}"#, 400, 11,
            "etcdserver: mvcc: required revision is a future revision"),
        ("/v3/election/leader", "{}", 500, 2, "election: no leader"),
        ("/v3/election/proclaim", "{}", 500, 2, "\\\"leader\\\" field must be provided"),
        ("/v3/nowhere", "{}", 404, 5, "Not Found"),
    ])
    func `errors have gRPC's code and HTTP's`(
        path: String, body: String, http: Int, code: Int, text: String
    ) throws {
        #expect(
            try Browser().post(path, body)
                == #"\#(http) {"error":"\#(text)","code":\#(code),"message":"\#(text)"}"#)
    }

    @Test(arguments: ["garbage", #"{"key":1}"#, #"{"key":"#, "[]", "\"x\"", #"{"lease":"y"}"#])
    func `what is not the request's JSON is refused`(body: String) throws {
        let answer = try Browser().post("/v3/kv/put", body)
        #expect(answer.hasPrefix(#"400 {"error":""#) && answer.contains(#""code":3"#))
    }

    @Test func `other methods, timeouts and bodies that are too large are refused`() throws {
        var limits = RPCLimits()
        limits.messageBytesMax = 100
        limits.httpBodyBytesMax = 1000
        let browser = Browser(limits)
        #expect(try browser.ask("/v3/kv/range", "", method: "GET").hasPrefix("HTTP/1.1 405"))
        #expect(
            try browser.ask("/v3/kv/range", "{}", ["grpc-timeout: 200q"])
                .contains("invalid grpc-timeout: 200q"))
        let value = String(repeating: "AAAA", count: 50)
        #expect(
            try browser.post("/v3/kv/put", #"{"key":"YQ==","value":"\#(value)"}"#)
                .hasPrefix(#"429 {"error":"grpc: received message larger than max (156 vs. 100)"#))
        let huge = String(repeating: " ", count: 1001)
        #expect(try browser.ask("/v3/kv/put", huge).hasPrefix("HTTP/1.1 413"))
    }

    @Test func `a timeout ends the call behind it`() throws {
        let browser = Browser()
        browser.node.holdsAnswers = true
        let channel = try browser.connect()
        try browser.send(
            channel, browser.request("/v3/kv/put", #"{"key":"YQ=="}"#, ["grpc-timeout: 100m"]))
        #expect(try browser.received(channel).isEmpty)
        browser.loop.advanceTime(by: .seconds(1))
        #expect(
            try browser.received(channel).hasSuffix(
                #"{"error":"context deadline exceeded","code":4,"#
                    + #""message":"context deadline exceeded"}"#))
        #expect(browser.node.cancelled.count == 1)
        #expect(browser.server.openCalls == 0)
        _ = try channel.finish()
    }

    @Test func `a watch streams a line for each answer until its client leaves`() throws {
        let browser = Browser()
        let channel = try browser.connect()
        try browser.send(
            channel, browser.request("/v3/watch", #"{"create_request":{"key":"Zm9v"}}"#))
        let head = try browser.received(channel)
        #expect(head.lowercased().contains("transfer-encoding: chunked"))
        #expect(browser.lines(head) == ["{\"result\":{\(header(1)),\"created\":true}}"])
        _ = try browser.post("/v3/kv/put", #"{"key":"Zm9v","value":"YmFy"}"#)
        #expect(
            browser.lines(try browser.received(channel))
                == [
                    "{\"result\":{\(header(2)),"
                        + #""events":[{"kv":{"key":"Zm9v","create_revision":"2","#
                        + #""mod_revision":"2","version":"1","value":"YmFy"}}]}}"#
                ])
        #expect(browser.server.openCalls == 1)
        _ = try channel.finish()
        #expect(browser.server.openCalls == 0)
        #expect(browser.facade.watches.streamsCount == 0)
    }

    @Test func `several watches of one body each have their line`() throws {
        let browser = Browser()
        let channel = try browser.connect()
        let creation = #"{"create_request":{"key":"Zm9v"}}"#
        try browser.send(channel, browser.request("/v3/watch", creation + creation + creation))
        #expect(browser.lines(try browser.received(channel)).count == 3)
        _ = try browser.post("/v3/kv/put", #"{"key":"Zm9v","value":"YmFy"}"#)
        let events = browser.lines(try browser.received(channel))
        #expect(events.count == 3 && events.allSatisfy { $0.contains(#""value":"YmFy""#) })
        _ = try channel.finish()
    }

    @Test func `keep-alive answers each value of its body, then ends`() throws {
        let browser = Browser()
        let answer = try browser.ask("/v3/lease/keepalive", #"{"ID":"5"} {"ID":"6"}"#)
        #expect(
            browser.lines(answer) == [
                "{\"result\":{\(header(1)),\"ID\":\"5\"}}",
                "{\"result\":{\(header(1)),\"ID\":\"6\"}}",
            ])
        #expect(answer.hasSuffix("0\r\n\r\n"))
        let refused = try browser.ask("/v3/lease/keepalive", "x")
        #expect(refused.hasPrefix("HTTP/1.1 500") && refused.contains(#""code":2"#))
    }

    @Test func `locks are taken and let go`() throws {
        let browser = Browser()
        let first = try browser.post("/v3/lock/lock", #"{"name":"bA=="}"#)
        #expect(first.hasPrefix("200 {\(header(2)),\"key\":\""))
        let channel = try browser.connect()
        try browser.send(channel, browser.request("/v3/lock/lock", #"{"name":"bA=="}"#))
        #expect(try browser.received(channel).isEmpty)
        // It leaves: its key goes too.
        _ = try channel.finish()
        #expect(
            try browser.post("/v3/kv/range", #"{"key":"bC8=","range_end":"bDA="}"#)
                .hasSuffix(#""count":"1"}"#))
    }

    @Test func `a client that does not read is not sent to until it does`() throws {
        let browser = Browser()
        let channel = try browser.connect()
        try browser.send(
            channel, browser.request("/v3/watch", #"{"create_request":{"key":"Zm9v"}}"#))
        _ = try browser.received(channel)
        // The socket is full.
        channel.isWritable = false
        for _ in 0..<5 { _ = try browser.post("/v3/kv/put", #"{"key":"Zm9v","value":"YmFy"}"#) }
        #expect(browser.lines(try browser.received(channel)).count == 1)
        channel.isWritable = true
        channel.pipeline.fireChannelWritabilityChanged()
        let rest = try browser.received(channel)
        #expect(rest.components(separatedBy: #""mod_revision""#).count == 5)
        _ = try channel.finish()
    }

    // MARK: Who may

    @Test func `pages of other origins are told that they may read, unless the list says otherwise`()
        throws
    {
        let browser = Browser()
        #expect(
            try browser.ask("/v3/kv/range", "", method: "OPTIONS").lowercased()
                .contains("access-control-allow-origin: *\r\n"))
        #expect(
            try browser.ask("/health", "", method: "GET").lowercased()
                .contains("access-control-allow-origin: *\r\n"))
        browser.facade.access.origins = ["https://one"]
        let allowed = try browser.ask("/version", "", method: "GET", ["origin: https://one"])
        #expect(allowed.lowercased().contains("access-control-allow-origin: https://one\r\n"))
        let other = try browser.ask("/version", "", method: "GET", ["origin: https://two"])
        #expect(!other.lowercased().contains("access-control"))
    }

    @Test func `names that are not on the list are misdirected`() throws {
        let browser = Browser()
        browser.facade.access.hosts = ["node", "::1"]
        #expect(try browser.post("/v3/kv/range", #"{"key":"YQ=="}"#).hasPrefix("200"))
        browser.facade.access.hosts = ["other"]
        #expect(try browser.post("/v3/kv/range", #"{"key":"YQ=="}"#).hasPrefix("421"))
        #expect(try browser.ask("/health", "", method: "GET").hasPrefix("HTTP/1.1 421"))
    }

    @Test func `without the gateway there is none`() throws {
        let browser = Browser()
        browser.facade.access.isGatewayEnabled = false
        #expect(try browser.post("/v3/kv/range", "{}").hasPrefix("404"))
        #expect(try browser.ask("/v3/kv/range", "", method: "GET").hasPrefix("HTTP/1.1 404"))
    }

    @Test(arguments: 0..<8)
    func `damaged JSON is refused or understood, and nothing worse`(seed: UInt64) throws {
        var random = SplitMix(seed: seed)
        let bodies = [
            #"{"key":"Zm9v","range_end":"AA==","sort_order":"DESCEND","limit":"1"}"#,
            #"{"compare":[{"target":"CREATE","key":"Zm9v","createRevision":"2"}],"success":[{}]}"#,
            #"{"create_request":{"key":"Zm9v","filters":["NOPUT"]}}{"progress_request":{}}"#,
            #"{"leader":{"name":"bA==","rev":"-5","lease":9e3},"value":null,"x":[[{"y":1.5e9}]]}"#,
        ]
        let routes = GatewayRoute.all.keys.sorted()
        for round in 0..<200 {
            var bytes = Array(bodies[round % bodies.count].utf8)
            for _ in 0..<3 {
                let at = Int(random.next() % UInt64(bytes.count))
                switch random.next() % 3 {
                case 0: bytes[at] = UInt8(truncatingIfNeeded: random.next())
                case 1: bytes.insert(bytes[Int(random.next() % UInt64(bytes.count))], at: at)
                default: bytes.remove(at: at)
                }
            }
            var values = JSONValues(Bytes(bytes))
            let route = try #require(GatewayRoute.all[routes[round % routes.count]])
            while let value = values.next() { _ = try? route.request(value) }
        }
    }

    // MARK: Tables

    @Test func `every method but gRPC's own has a path`() {
        let reached = Set(GatewayRoute.all.values.map(\.method))
        let without = RPCMethod.allCases.filter { !reached.contains($0) }
        #expect(
            without == [
                .rangeStream, .healthCheck, .healthList, .healthWatch, .reflection,
                .reflectionAlpha,
            ])
        #expect(GatewayRoute.all.count == 51)
    }

    @Test func `values are cut where they end`() {
        func cut(_ text: String) -> [String] {
            var values = JSONValues(Bytes(text))
            var found: [String] = []
            while let value = values.next() { found.append(value.description) }
            return found
        }
        #expect(cut("") == [] && cut(" \n\t ") == [])
        #expect(cut(#"{"a":"}"}{"b":[{}]} "#) == [#"{"a":"}"}"#, #"{"b":[{}]}"#])
        #expect(cut(#"{"a":"\"}\\"} x 1"#) == [#"{"a":"\"}\\"}"#, "x", "1"])
        #expect(cut(#""a b""c" {"#) == [#""a b""#, #""c""#, "{"])
        #expect(cut(#"{"open"#) == [#"{"open"#] && cut(#""\"#) == [#""\"#])
    }
}
