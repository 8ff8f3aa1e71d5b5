import Foundation
import NIOCore
import NIOEmbedded
import Primitives
import TLS
import Testing

@testable import EtcdAPI

@Suite struct SecureConnectionTests {
    @Test func `a call over TLS carries the name of the client's certificate`() throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "polder-\(UUID())").path()
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let authority = try CertificateAuthority.create(name: "test")
        try authority.write(certificate: "\(folder)/ca.pem", key: "\(folder)/ca.key")
        for name in ["server", "alice"] {
            try authority.issue(commonName: name, dnsNames: ["localhost"])
                .write(certificate: "\(folder)/\(name).pem", key: "\(folder)/\(name).key")
        }
        func context(_ name: String) throws -> TLSContext {
            try TLSContext(
                TLSConfiguration(
                    ca: "\(folder)/ca.pem", certificate: "\(folder)/\(name).pem",
                    key: "\(folder)/\(name).key", requireClientCertificate: true, alpn: ["h2"]))
        }

        let loop = EmbeddedEventLoop()
        let server = RPCServer(loop: loop)
        let handler = RecordingHandler()
        server.handler = handler
        let serving = EmbeddedChannel(loop: loop)
        try server.configure(serving, tls: context("server"))
        let asking = EmbeddedChannel(
            handler: TLSHandler(context: try context("alice"), role: .client(expectedName: "localhost")),
            loop: loop)
        try serving.connect(to: SocketAddress(unixDomainSocketPath: "/s")).wait()
        try asking.connect(to: SocketAddress(unixDomainSocketPath: "/c")).wait()
        let client = RecordingClient()
        defer { client.session.close() }

        func pump() throws {
            var moved = true
            while moved {
                moved = false
                loop.run()
                let sent = client.bytes()
                if sent.readableBytes > 0 { asking.writeAndFlush(sent, promise: nil) }
                while let part = try asking.readOutbound(as: ByteBuffer.self) {
                    try serving.writeInbound(part)
                    moved = true
                }
                loop.run()
                while let part = try serving.readOutbound(as: ByteBuffer.self) {
                    try asking.writeInbound(part)
                    moved = true
                }
                while let part = try asking.readInbound(as: ByteBuffer.self) {
                    _ = part.withUnsafeReadableBytes { client.session.feed($0) }
                    moved = true
                }
            }
        }
        let stream = client.call("/etcdserverpb.KV/Range", ["secret"])
        try pump()
        #expect(handler.metadata.first?.peerName == "alice")
        #expect(handler.messages == ["secret"])
        let call = try #require(handler.calls.first)
        server.send("answer", to: call)
        server.finish(call)
        try pump()
        #expect(client.answers[stream]?.messages == ["answer"])
        #expect(client.answers[stream]?.status == 0)
        asking.close(promise: nil)
        try pump()
        serving.close(promise: nil)
        loop.advanceTime(by: .seconds(10))
        #expect(server.openConnections == 0)
    }
}
