import COpenSSL
import Glibc
import Synchronization

/// The files of a `TLSConfiguration`, read and checked: what sessions are made from.
///
/// May be shared by threads. `reload()` reads the files again; sessions that exist keep what they
/// were made with, new ones get the new. A reload that fails changes nothing.
package final class TLSContext: Sendable {
    package let configuration: TLSConfiguration
    private let current: Mutex<Loaded>

    private struct Loaded: @unchecked Sendable {
        var context: OpaquePointer
        /// Of whom we dial; nil: the same.
        var client: OpaquePointer?
        var certificate: TLSPeer?

        func free() {
            SSL_CTX_free(context)
            if let client { SSL_CTX_free(client) }
        }
    }

    package init(_ configuration: TLSConfiguration) throws(TLSError) {
        self.configuration = configuration
        current = Mutex(try Self.load(configuration))
    }

    deinit { current.withLock { $0.free() } }

    package func reload() throws(TLSError) {
        let fresh = try Self.load(configuration)
        let old = current.withLock { loaded in
            let old = loaded
            loaded = fresh
            return old
        }
        old.free()
    }

    /// Our own certificate as loaded last (its expiry is a metric).
    package var certificate: TLSPeer? { current.withLock { $0.certificate } }

    /// A new session, owned by the caller.
    func makeSession(_ role: TLSRole) -> OpaquePointer? {
        current.withLock { loaded in
            switch role {
            case .server: SSL_new(loaded.context)
            case .client: SSL_new(loaded.client ?? loaded.context)
            }
        }
    }

    // MARK: Reading the files

    private static let alpnIndex = polder_alpn_index()

    private static func load(_ configuration: TLSConfiguration) throws(TLSError) -> Loaded {
        let own = try loadContext(configuration)
        guard let certificate = configuration.clientCertificate else {
            return Loaded(context: own.context, client: nil, certificate: own.certificate)
        }
        var other = configuration
        other.certificate = certificate
        other.key = configuration.clientKey
        do throws(TLSError) {
            let client = try loadContext(other)
            return Loaded(
                context: own.context, client: client.context, certificate: own.certificate)
        } catch {
            SSL_CTX_free(own.context)
            throw error
        }
    }

    private static func loadContext(
        _ configuration: TLSConfiguration
    ) throws(TLSError) -> (context: OpaquePointer, certificate: TLSPeer?) {
        ERR_clear_error()
        guard let context = SSL_CTX_new(TLS_method()) else { throw .crypto(OpenSSL.takeErrors()) }
        var done = false
        defer { if !done { SSL_CTX_free(context) } }
        polder_ssl_ctx_defaults(context)
        polder_ssl_ctx_no_passphrase(context)
        try loadRules(configuration, context)
        try loadAuthorities(configuration, context)
        let certificate = try loadIdentity(configuration, context)
        done = true
        return (context, certificate)
    }

    private static func loadRules(
        _ configuration: TLSConfiguration, _ context: OpaquePointer
    ) throws(TLSError) {
        let minimum = configuration.minimumVersion == .tls13 ? TLS1_3_VERSION : TLS1_2_VERSION
        guard polder_ssl_ctx_min_version(context, minimum) == 1 else {
            throw .configuration("minimum version: \(OpenSSL.takeErrors())")
        }
        if configuration.maximumVersion == .tls12 {
            guard polder_ssl_ctx_max_version(context, TLS1_2_VERSION) == 1 else {
                throw .configuration("maximum version: \(OpenSSL.takeErrors())")
            }
        }
        if let ciphers = configuration.ciphers, SSL_CTX_set_cipher_list(context, ciphers) != 1 {
            throw .configuration("ciphers \(ciphers): \(OpenSSL.takeErrors())")
        }
        if let suites = configuration.cipherSuites, SSL_CTX_set_ciphersuites(context, suites) != 1 {
            throw .configuration("cipher suites \(suites): \(OpenSSL.takeErrors())")
        }
        guard !configuration.alpn.isEmpty else { return }
        var list: [UInt8] = []
        for name in configuration.alpn {
            guard (1...255).contains(name.utf8.count) else {
                throw .configuration("application protocol '\(name)'")
            }
            list.append(UInt8(name.utf8.count))
            list.append(contentsOf: name.utf8)
        }
        guard polder_ssl_ctx_set_alpn(context, alpnIndex, list, UInt32(list.count)) == 1 else {
            throw .configuration("application protocols \(configuration.alpn)")
        }
    }

    private static func loadAuthorities(
        _ configuration: TLSConfiguration, _ context: OpaquePointer
    ) throws(TLSError) {
        if let ca = configuration.ca {
            if let error = OpenSSL.unreadable(ca) { throw error }
            guard SSL_CTX_load_verify_file(context, ca) == 1 else {
                throw .file(path: ca, reason: "no PEM certificates in it (\(OpenSSL.takeErrors()))")
            }
            // Tells clients whose certificates we take, so that they can choose one.
            if let names = SSL_load_client_CA_file(ca) {
                SSL_CTX_set_client_CA_list(context, names)
            }
        } else if configuration.requireClientCertificate {
            throw .configuration("client certificates are required, but no trusted CA is given")
        } else {
            SSL_CTX_set_default_verify_paths(context)
        }
        if let path = configuration.revocations { try loadRevocations(path, context) }
    }

    private static func loadRevocations(_ path: String, _ context: OpaquePointer) throws(TLSError) {
        if let error = OpenSSL.unreadable(path) { throw error }
        guard let file = BIO_new_file(path, "r") else {
            throw .file(path: path, reason: OpenSSL.takeErrors())
        }
        defer { BIO_free(file) }
        let store = SSL_CTX_get_cert_store(context)
        guard polder_add_revocations(store, file) > 0 else {
            throw .file(
                path: path, reason: "no revocation list in it, in PEM or DER (\(OpenSSL.takeErrors()))")
        }
        X509_STORE_set_flags(store, UInt(X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL))
    }

    private static func loadIdentity(
        _ configuration: TLSConfiguration, _ context: OpaquePointer
    ) throws(TLSError) -> TLSPeer? {
        guard let path = configuration.certificate else {
            if configuration.key != nil {
                throw .configuration("a key is given, but no certificate")
            }
            return nil
        }
        guard let keyPath = configuration.key else {
            throw .configuration("a certificate is given, but no key")
        }
        let certificate = try OpenSSL.certificate(at: path)
        defer { X509_free(certificate) }
        let key = try OpenSSL.key(at: keyPath)
        defer { EVP_PKEY_free(key) }
        guard X509_check_private_key(certificate, key) == 1 else {
            ERR_clear_error()
            throw .file(path: keyPath, reason: "the key does not belong to the certificate \(path)")
        }
        // -1: before now. (0 is "cannot tell".)
        if X509_cmp_current_time(X509_get0_notAfter(certificate)) == -1 {
            throw .file(path: path, reason: "the certificate has expired")
        }
        if X509_cmp_current_time(X509_get0_notBefore(certificate)) == 1 {
            throw .file(path: path, reason: "the certificate is not valid yet; is the clock right?")
        }
        guard SSL_CTX_use_certificate_chain_file(context, path) == 1,
            SSL_CTX_use_PrivateKey(context, key) == 1
        else { throw .file(path: path, reason: OpenSSL.takeErrors()) }
        return OpenSSL.details(of: certificate)
    }
}
