import EtcdAPI
import EtcdFacade
import Foundation
import NIOCore
import Primitives
import SwiftProtobuf

extension FuzzTarget {
    /// HTTP/2, from the preface on, through the session and the facade to a node and back.
    nonisolated(unsafe) static let http2 = FuzzTarget(
        name: "http2", what: "a connection's bytes, HTTP/2", grammar: .frames
    ) {
        var server = FuzzServer()
        return Prepared(samples: HTTP2Samples.all) { input in
            if server.isWorn { server = FuzzServer() }
            try server.connection(input, pieceBytes: pieceBytes(input))
        }
    }

    /// HTTP/1.1: the gateway's paths, health and metrics, WebSockets.
    nonisolated(unsafe) static let http1 = FuzzTarget(
        name: "http1", what: "a connection's bytes, HTTP/1.1 and WebSocket", grammar: .text
    ) {
        var server = FuzzServer()
        return Prepared(samples: HTTP1Samples.all) { input in
            if server.isWorn { server = FuzzServer() }
            try server.connection(input, pieceBytes: pieceBytes(input))
        }
    }

    /// The first line of an input is the path, the rest the body.
    nonisolated(unsafe) static let gateway = FuzzTarget(
        name: "gateway", what: "the JSON gateway's bodies", grammar: .text
    ) {
        var server = FuzzServer()
        return Prepared(samples: HTTP1Samples.bodies) { input in
            if server.isWorn { server = FuzzServer() }
            let end = input.firstIndex(of: 0x0A) ?? input.count
            let path = String(decoding: input[..<end].filter { $0 > 0x20 && $0 < 0x7F }, as: UTF8.self)
            let body = input[min(end + 1, input.count)...]
            let head = "POST \(path) HTTP/1.1\r\nhost: h\r\ncontent-length: \(body.count)\r\n\r\n"
            try server.connection(Array(head.utf8) + body, pieceBytes: 1 << 16)
        }
    }

    /// The prefix of five bytes and what follows, cut anywhere: as one who has all of it at once reads it.
    nonisolated(unsafe) static let grpc = FuzzTarget(name: "grpc", what: "gRPC's length-prefixed messages") {
        var server = FuzzServer()
        let samples: [[UInt8]] = [
            [0, 0, 0, 0, 0], [0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0, 3, 10, 1, 97],
            [1, 0, 0, 0, 1, 0], [0, 0, 0, 1, 0] + [UInt8](repeating: 7, count: 256),
            [0, 0, 0, 0, 5, 10, 3, 10, 1, 97, 0, 0, 0, 0, 2, 26, 0],
        ]
        return Prepared(samples: samples) { input in
            try compareMessages(input, limit: 4096)
            if server.isWorn { server = FuzzServer() }
            // The same as the body of a watch and of a put.
            for path in ["/etcdserverpb.Watch/Watch", "/etcdserverpb.KV/Put"] {
                let client = HTTP2Samples.Client()
                client.call(path, raw: [input], ends: input.first != 2)
                try server.connection(client.bytes(), pieceBytes: pieceBytes(input))
            }
        }
    }

    /// A compressed message: in bounds, and the same again.
    nonisolated(unsafe) static let gzip = FuzzTarget(name: "gzip", what: "messages compressed with gzip") {
        let ab: [UInt8] = [31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 75, 76, 2, 0, 109, 72, 131, 158, 2, 0, 0, 0]
        let many: [UInt8] = [
            31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 171, 168, 24, 5, 196, 2, 0, 19, 45, 67, 27, 44, 1, 0, 0,
        ]
        return Prepared(samples: [ab, many, ab + many]) { input in
            func inflate(limit: Int) throws -> Bytes {
                let inflation = try Inflation(Bytes(input), limit: limit)
                for _ in 0...input.count { if let whole = try inflation.step() { return whole } }
                throw Finding("more steps than bytes")
            }
            let found: Bytes
            do { found = try inflate(limit: 400) } catch is MessageReader.Failure { return }
            guard found.count <= 400, try inflate(limit: found.count) == found else {
                throw Finding("\(found.count) bytes")
            }
        }
    }

    /// Pieces of a size that depends on the input alone: the same input, the same run.
    private static func pieceBytes(_ input: [UInt8]) -> Int {
        [1 << 16, 1 << 16, 1000, 61, 7, 1][Int(input.count) % 6]
    }

    private static func compareMessages(_ input: [UInt8], limit: Int) throws {
        var wanted: [[UInt8]] = []
        var at = 0
        var isRefused = false
        while input.count - at >= 5 {
            let count = input[(at + 1)..<(at + 5)].reduce(0) { $0 << 8 | Int($1) }
            if input[at] != 0 || count > limit {
                isRefused = true
                break
            }
            guard input.count - at - 5 >= count else { break }
            wanted.append(Array(input[(at + 5)..<(at + 5 + count)]))
            at += 5 + count
        }
        for piece in [1, 3, 64, max(1, input.count)] {
            var reader = MessageReader()
            var found: [[UInt8]] = []
            var refused = false
            reading: for start in stride(from: 0, to: input.count, by: piece) {
                let part = Array(input[start..<min(input.count, start + piece)])
                var offset = 0
                while offset < part.count {
                    do {
                        let next = try part.withUnsafeBytes {
                            raw throws(MessageReader.Failure) in
                            try reader.next(raw, &offset, limit: limit)
                        }
                        guard let next else { break }
                        found.append(next.array)
                    } catch {
                        refused = true
                        break reading
                    }
                }
            }
            guard found == wanted, refused == isRefused else {
                throw Finding("in pieces of \(piece): \(found.count) messages, not \(wanted.count)")
            }
        }
    }
}

enum HTTP2Samples {
    /// A client whose bytes are taken down, not sent.
    final class Client {
        private let session = HTTP2Session(role: .client, delegate: nil)
        deinit { session.close() }

        func call(
            _ path: String, _ messages: [Bytes] = [], raw: [[UInt8]] = [], ends: Bool = true,
            method: String = "POST", extra: [(name: String, value: String)] = [],
            contentType: String = "application/grpc"
        ) {
            let fields: [(name: String, value: String)] = [
                (":method", method), (":scheme", "http"), (":path", path),
                (":authority", "localhost:2379"), ("content-type", contentType), ("te", "trailers"),
            ]
            guard let stream = session.open(HTTP2Fields(fields + extra), context: 0) else { return }
            for message in messages { session.send(stream, message, isMessage: true) }
            for bytes in raw { session.send(stream, Bytes(bytes), isMessage: false) }
            if ends { session.end(stream) }
        }

        func bytes() -> [UInt8] {
            var buffer = ByteBuffer()
            _ = session.drain(into: &buffer, limit: .max)
            return Array(buffer.readableBytesView)
        }
    }

    static var all: [[UInt8]] {
        var samples: [[UInt8]] = []
        for (method, messages) in MessageSamples.byMethod {
            let client = Client()
            for message in messages { client.call("\(method.path)", [Bytes(message)]) }
            samples.append(client.bytes())
        }
        let mixed = Client()
        mixed.call("/etcdserverpb.Watch/Watch", [Bytes(MessageSamples.watch)], ends: false)
        mixed.call("/etcdserverpb.KV/Put", [Bytes(MessageSamples.put)], extra: [("grpc-timeout", "100m"), ("token", "abc.1")])
        mixed.call("/nope/Nope", [], extra: [("hasleader", "true"), ("authorization", "Bearer x")])
        mixed.call("/health", method: "GET", contentType: "")
        mixed.call("/v3/kv/range", raw: [Array("{\"key\":\"YQ==\"}".utf8)], contentType: "application/json")
        mixed.call("/etcdserverpb.KV/Range", [Bytes(MessageSamples.range)], extra: (0..<40).map { ("x-\($0)", "value \($0)") })
        samples.append(mixed.bytes())
        samples.append(odd)
        return samples
    }

    /// What a client's library does not send by itself.
    private static var odd: [UInt8] {
        let client = Client()
        client.call("/etcdserverpb.Watch/Watch", [Bytes(MessageSamples.watch)], ends: false)
        func frame(_ type: UInt8, _ flags: UInt8, _ stream: UInt32, _ payload: [UInt8]) -> [UInt8] {
            HTTP2Frame(type: type, flags: flags, stream: stream, payload: payload).encoded
        }
        return client.bytes()
            + frame(4, 0, 0, [0, 4, 0, 0, 0, 1, 0, 5, 0, 0, 0x40, 0, 0, 1, 0, 0, 0, 0])
            + frame(4, 1, 0, []) + frame(6, 0, 0, [1, 2, 3, 4, 5, 6, 7, 8])
            + frame(8, 0, 0, [0, 0, 1, 0]) + frame(8, 0, 1, [0, 0, 0, 1]) + frame(2, 0, 1, [0, 0, 0, 3, 9])
            // Headers in two pieces: static names, a literal, and an end.
            + frame(1, 0, 3, [0x83, 0x86, 0x44, 0x04, 0x2F, 0x61, 0x62, 0x63]) + frame(9, 4, 3, [0x41, 0x01, 0x61])
            + frame(0, 8, 3, [2, 1, 0, 0]) + frame(3, 0, 3, [0, 0, 0, 8])
            + frame(0, 1, 1, [0, 0, 0, 0, 0]) + frame(7, 0, 0, [0, 0, 0, 0, 0, 0, 0, 0])
    }
}

enum HTTP1Samples {
    static var bodies: [[UInt8]] {
        let key = "\"key\":\"a2V5MA==\""
        let all: [(String, String)] = [
            ("kv/range", "{\(key),\"range_end\":\"AA==\",\"limit\":\"3\",\"sort_order\":\"DESCEND\",\"sort_target\":\"MOD\"}"),
            ("kv/put", "{\(key),\"value\":\"YQ==\",\"lease\":\"0\",\"prev_kv\":true}"),
            ("kv/deleterange", "{\(key),\"range_end\":\"eg==\",\"prev_kv\":true}"),
            ("kv/txn", "{\"compare\":[{\(key),\"target\":\"VERSION\",\"result\":\"GREATER\",\"version\":\"0\"}],"
                + "\"success\":[{\"requestPut\":{\(key),\"value\":\"eA==\"}},{\"request_range\":{\(key)}}],"
                + "\"failure\":[{\"requestTxn\":{\"success\":[{\"requestDeleteRange\":{\(key)}}]}}]}"),
            ("kv/compaction", "{\"revision\":\"2\",\"physical\":true}"),
            ("watch", "{\"create_request\":{\(key),\"filters\":[\"NOPUT\"],\"fragment\":true}}\n{\"progress_request\":{}}"),
            ("lease/grant", "{\"TTL\":60,\"ID\":\"7\"}"), ("lease/keepalive", "{\"ID\":7}{\"ID\":\"8\"}"),
            ("lease/timetolive", "{\"ID\":7,\"keys\":true}"), ("lease/revoke", "{\"ID\":7}"),
            ("lease/leases", "{}"), ("cluster/member/list", "{\"linearizable\":true}"),
            ("cluster/member/add", "{\"peerURLs\":[\"http://127.0.0.1:1\"],\"isLearner\":true}"),
            ("maintenance/alarm", "{\"action\":\"GET\",\"memberID\":0,\"alarm\":\"NONE\"}"),
            ("maintenance/status", "{}"), ("maintenance/hashkv", "{\"revision\":2}"),
            ("maintenance/transfer-leadership", "{\"targetID\":\"162\"}"),
            ("maintenance/downgrade", "{\"action\":\"VALIDATE\",\"version\":\"3.5.0\"}"),
            ("auth/user/add", "{\"name\":\"ann\",\"password\":\"pw\",\"options\":{\"no_password\":false}}"),
            ("auth/role/add", "{\"name\":\"r\"}"),
            ("auth/role/grant", "{\"name\":\"r\",\"perm\":{\"permType\":\"READWRITE\",\(key),\"range_end\":\"eg==\"}}"),
            ("auth/authenticate", "{\"name\":\"ann\",\"password\":\"pw\"}"),
            ("lock/lock", "{\"name\":\"bG9jaw==\",\"lease\":7}"), ("lock/unlock", "{\"key\":\"bG9jaw==\"}"),
            ("election/campaign", "{\"name\":\"ZQ==\",\"lease\":7,\"value\":\"dg==\"}"),
            ("election/leader", "{\"name\":\"ZQ==\"}"), ("election/observe", "{\"name\":\"ZQ==\"}"),
        ]
        return all.map { Array("/v3/\($0.0)\n\($0.1)".utf8) }
    }

    static var all: [[UInt8]] {
        var samples = bodies.prefix(12).map { body -> [UInt8] in
            let parts = body.split(separator: 0x0A, maxSplits: 1).map { Array($0) }
            let head = "POST \(String(decoding: parts[0], as: UTF8.self)) HTTP/1.1\r\nHost: h:1\r\n"
                + "Content-Length: \(parts[1].count)\r\nAuthorization: Bearer x\r\n\r\n"
            return Array(head.utf8) + parts[1]
        }
        let gets = [
            "/health", "/metrics", "/version", "/livez?verbose&exclude=serializable_read", "/readyz",
            "/health?serializable=true&exclude=NOSPACE", "/debug/vars", "/polder/status", "/",
        ]
        samples += gets.map {
            Array("GET \($0) HTTP/1.1\r\nhost: h\r\n\r\nHEAD \($0) HTTP/1.0\r\nconnection: keep-alive\r\n\r\n".utf8)
        }
        samples.append(Array("POST /v3/kv/range HTTP/1.1\r\ntransfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n5\r\n{\"key\r\na\r\n\":\"YQ==\"}\r\n0\r\n\r\n".utf8))
        samples.append(Array("OPTIONS /v3/kv/range HTTP/1.1\r\norigin: http://a\r\n\r\n".utf8))
        samples.append(webSocket)
        return samples
    }

    private static var webSocket: [UInt8] {
        let head = "GET /v3/watch HTTP/1.1\r\nhost: h\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            + "sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            + "sec-websocket-protocol: Bearer, x\r\n\r\n"
        let text = Array("{\"create_request\":{\"key\":\"YQ==\"}}".utf8)
        // Masked by zeros; a ping in between; the text's second half in a frame of its own; the end.
        let mask: [UInt8] = [0, 0, 0, 0]
        var bytes = Array(head.utf8)
        func frame(_ first: UInt8, _ payload: [UInt8]) {
            bytes.append(first)
            bytes.append(0x80 | UInt8(payload.count))
            bytes += mask
            bytes += payload
        }
        frame(0x01, Array(text[..<10]))
        frame(0x89, [])
        frame(0x80, Array(text[10...]))
        frame(0x88, [3, 0xE8])
        return bytes
    }
}
