import COpenSSL
import Glibc
import NIOCore
import NIOEmbedded

@testable import TLS

/// A folder with an authority and certificates, removed with its owner.
final class Workshop {
    let folder: String
    let authority: CertificateAuthority

    init(authority name: String = "test authority") throws {
        var template = Array("/tmp/polder-tls-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw TLSError.crypto("mkdtemp") }
        folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        authority = try CertificateAuthority.create(name: name)
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

    /// A list of the authority that takes these certificates back; it is good for a day.
    func revoke(
        _ revoked: [String], in name: String, isDER: Bool = false, madeDaysAgo days: Int = 0
    ) throws {
        let issuer = try OpenSSL.certificate(at: path("ca.pem"))
        let key = try OpenSSL.key(at: path("ca-key.pem"))
        defer {
            X509_free(issuer)
            EVP_PKEY_free(key)
        }
        guard let list = X509_CRL_new(), let time = ASN1_TIME_new(), let bio = polder_bio_memory() else {
            throw TLSError.crypto(OpenSSL.takeErrors())
        }
        defer {
            X509_CRL_free(list)
            ASN1_TIME_free(time)
            BIO_free(bio)
        }
        X509_CRL_set_version(list, 1)
        X509_CRL_set_issuer_name(list, X509_get_subject_name(issuer))
        X509_time_adj_ex(time, Int32(-days), -60, nil)
        X509_CRL_set1_lastUpdate(list, time)
        for certificate in revoked {
            let taken = try OpenSSL.certificate(at: path("\(certificate).pem"))
            defer { X509_free(taken) }
            guard let entry = X509_REVOKED_new() else { throw TLSError.crypto(OpenSSL.takeErrors()) }
            X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(taken))
            X509_REVOKED_set_revocationDate(entry, time)
            X509_CRL_add0_revoked(list, entry)
        }
        X509_time_adj_ex(time, Int32(1 - days), -60, nil)
        X509_CRL_set1_nextUpdate(list, time)
        X509_CRL_sign(list, key, EVP_sha256())
        guard (isDER ? i2d_X509_CRL_bio(bio, list) : PEM_write_bio_X509_CRL(bio, list)) == 1 else {
            throw TLSError.crypto(OpenSSL.takeErrors())
        }
        var data: UnsafeMutablePointer<CChar>?
        let length = polder_bio_memory_data(bio, &data)
        try keep(name, Array(UnsafeRawBufferPointer(start: data, count: length)))
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
