import EtcdAPI
import Foundation
import NIOCore
import NIOPosix
import Primitives
import TLS
import Testing

/// The client against our own front door, with mutual TLS.
@Suite struct ClientAndServerTests {
    /// Answers every unary call with its own message, and plain HTTP with what was asked.
    private final class Echo: RPCHandler {
        let server: RPCServer
        init(_ server: RPCServer) { self.server = server }
        func onCall(_ call: CallReference, method: RPCMethod, metadata: CallMetadata) {
            if method == .compact { server.finish(call, .outOfRange, message: "50 % gone: é") }
        }
        func onMessage(_ call: CallReference, _ message: Bytes) {
            // An empty message is never answered.
            guard !message.isEmpty else { return }
            server.send(message, to: call)
        }
        func onHalfClose(_ call: CallReference) {
            if server.counters.messageBytesSent > 0 { server.finish(call) }
        }
        func onCancelled(_ call: CallReference) {}
        func onWritable(_ call: CallReference) {}
        func onHTTP(_ request: HTTPRequest, _ responder: HTTPResponder) {
            let body = "\(request.method) \(request.target) \(request.body.description)"
            responder.respond(HTTPResponse(status: 202, contentType: "text/plain", body))
        }
    }

    private struct Files {
        let directory = NSTemporaryDirectory() + "polder-tls-\(UUID().uuidString)"
        func path(_ name: String) -> String { directory + "/" + name }

        func make() throws {
            try FileManager.default.createDirectory(
                atPath: directory, withIntermediateDirectories: true)
            for name in ["ours", "theirs"] {
                let authority = try CertificateAuthority.create(name: name)
                try authority.write(certificate: path("\(name)-ca"), key: path("\(name)-ca-key"))
                let issued = try authority.issue(
                    commonName: "node", dnsNames: ["localhost"], ipAddresses: ["127.0.0.1"])
                try issued.write(certificate: path("\(name)-cert"), key: path("\(name)-key"))
            }
        }
        func context(_ name: String, ca: String = "ours", server: Bool = false) throws -> TLSContext
        {
            try TLSContext(
                TLSConfiguration(
                    ca: path("\(ca)-ca"), certificate: path("\(name)-cert"),
                    key: path("\(name)-key"),
                    requireClientCertificate: server, alpn: ["h2", "http/1.1"]))
        }
    }

    private func withServer(
        _ body: (Files, EtcdEndpoint, any EventLoop) async throws -> Void
    ) async throws {
        let files = Files()
        try files.make()
        defer { try? FileManager.default.removeItem(atPath: files.directory) }
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let context = try files.context("ours", server: true)
        let server = RPCServer(loop: loop)
        let address = try await loop.flatSubmit {
            server.handler = Echo(server)
            return loop.makeCompletedFuture { try SocketAddress(ipAddress: "127.0.0.1", port: 0) }
                .flatMap { server.bind(to: $0, tls: context) }
        }.get()
        let endpoint = EtcdEndpoint(
            host: "127.0.0.1", port: address.port ?? 0, isSecure: true)
        try await body(files, endpoint, loop)
        try await loop.flatSubmit { server.shutdown(within: .milliseconds(100)) }.get()
    }

    @Test func `calls and plain HTTP over mutual TLS`() async throws {
        try await withServer { files, endpoint, loop in
            let client = EtcdClient(
                endpoint: endpoint, loop: loop, options: .init(tls: try files.context("ours")))
            #expect(
                try await client.unary(.range, [1, 2, 3], timeout: .seconds(5)).get() == [1, 2, 3])
            let page = try await client.http(
                "POST", "/polder/fault?peer=r2", body: Array("x".utf8), timeout: .seconds(5)
            ).get()
            #expect(page.status == 202)
            #expect(String(decoding: page.body, as: UTF8.self) == "POST /polder/fault?peer=r2 x")
            let refused = await client.unary(.compact, [1], timeout: .seconds(5))
            guard case .failure(let error) = refused else {
                Issue.record("an error was expected")
                return
            }
            #expect(error.status == .outOfRange)
            #expect(error.message == "50 % gone: é")
            await client.shutdown()
        }
    }

    @Test func `strangers are not talked to, in either direction`() async throws {
        try await withServer { files, endpoint, loop in
            for context in [try files.context("theirs"), try files.context("ours", ca: "theirs")] {
                let client = EtcdClient(
                    endpoint: endpoint, loop: loop, options: .init(tls: context))
                guard
                    case .failure(let error) = await client.unary(.range, [1], timeout: .seconds(5))
                else {
                    Issue.record("the call went through")
                    continue
                }
                #expect(error.kind == .unavailable)
                await client.shutdown()
            }
        }
    }
}
