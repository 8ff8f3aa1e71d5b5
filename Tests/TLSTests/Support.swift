import Glibc
import NIOCore
import NIOEmbedded

@testable import TLS

/// A folder with an authority and certificates, removed with its owner.
final class Workshop {
    let folder: String
    let authority: CertificateAuthority

    init() throws {
        var template = Array("/tmp/polder-tls-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw TLSError.crypto("mkdtemp") }
        folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        authority = try CertificateAuthority.create(name: "test authority")
        try authority.write(certificate: path("ca.pem"), key: path("ca-key.pem"))
    }

    deinit {
        for name in names { unlink(path(name)) }
        rmdir(folder)
    }

    private var names: Set<String> = ["ca.pem", "ca-key.pem"]

    func path(_ name: String) -> String { "\(folder)/\(name)" }

    @discardableResult
    func issue(
        _ name: String, dns: [String] = [], ip: [String] = [], days: Int = 30,
        by other: CertificateAuthority? = nil
    ) throws -> TLSConfiguration {
        let pair = try (other ?? authority).issue(
            commonName: name, dnsNames: dns, ipAddresses: ip, days: days)
        try pair.write(certificate: path("\(name).pem"), key: path("\(name)-key.pem"))
        names.formUnion(["\(name).pem", "\(name)-key.pem"])
        return TLSConfiguration(
            ca: path("ca.pem"), certificate: path("\(name).pem"), key: path("\(name)-key.pem"),
            requireClientCertificate: true, alpn: ["h2", "http/1.1"])
    }

    func keep(_ name: String, _ bytes: [UInt8]) throws {
        names.insert(name)
        guard let file = fopen(path(name), "w") else { throw TLSError.crypto("fopen") }
        fwrite(bytes, 1, bytes.count, file)
        fclose(file)
    }
}

/// Notes what comes out of a `TLSHandler`.
final class Recorder: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    var events: [TLSEvent] = []
    var errors: [TLSError] = []
    var received: [UInt8] = []
    var reads = 0
    var isInactive = false
    /// Lengths of `received` when the event came: must be 0.
    var receivedAtEvent: [Int] = []

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        reads += 1
        received.append(contentsOf: unwrapInboundIn(data).readableBytesView)
    }
    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if let event = event as? TLSEvent {
            events.append(event)
            receivedAtEvent.append(received.count)
        }
    }
    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if let error = error as? TLSError { errors.append(error) }
    }
    func channelInactive(context: ChannelHandlerContext) { isInactive = true }
}

/// A client and a server whose wires end in one another; bytes move when `pump` is called.
final class Pair {
    let client = EmbeddedChannel(), server = EmbeddedChannel()
    let atClient = Recorder(), atServer = Recorder()
    /// Most bytes handed over at once; small values cut records to pieces.
    var pieceMax = Int.max

    init(
        client clientContext: TLSContext, server serverContext: TLSContext,
        name: String = "localhost"
    ) throws {
        try client.pipeline.syncOperations.addHandlers(
            [TLSHandler(context: clientContext, role: .client(expectedName: name)), atClient])
        try server.pipeline.syncOperations.addHandlers(
            [TLSHandler(context: serverContext, role: .server), atServer])
        let address = try SocketAddress(ipAddress: "127.0.0.1", port: 1)
        server.connect(to: address, promise: nil)
        client.connect(to: address, promise: nil)
    }

    func pump() throws {
        var moved = true
        while moved {
            moved = false
            for (from, to) in [(client, server), (server, client)] {
                while var buffer = try from.readOutbound(as: ByteBuffer.self) {
                    moved = true
                    while let piece = buffer.readSlice(
                        length: min(pieceMax, buffer.readableBytes)), piece.readableBytes > 0
                    {
                        if to.isActive { _ = try? to.writeInbound(piece) }
                    }
                }
                from.embeddedEventLoop.run()
            }
        }
    }

    func finish() {
        _ = try? client.finish(acceptAlreadyClosed: true)
        _ = try? server.finish(acceptAlreadyClosed: true)
    }
}
