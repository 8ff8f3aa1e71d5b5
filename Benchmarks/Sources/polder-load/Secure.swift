import COpenSSL
import Glibc

/// TLS as etcd's clients do it: ALPN h2, the server checked against one authority, a certificate of our
/// own if the server wants to know who we are.
final class Secure {
    private let context: OpaquePointer
    private let isInsecure: Bool

    init(_ options: Options) throws(OptionError) {
        guard let context = SSL_CTX_new(TLS_client_method()) else { throw OptionError("no TLS context") }
        self.context = context
        isInsecure = options.isInsecure
        polder_ssl_ctx_defaults(context)
        _ = polder_ssl_ctx_min_version(context, TLS1_2_VERSION)
        let protocols: [UInt8] = [2, 0x68, 0x32]
        SSL_CTX_set_alpn_protos(context, protocols, 3)
        if isInsecure {
            SSL_CTX_set_verify(context, SSL_VERIFY_NONE, nil)
        } else {
            SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nil)
            let loaded =
                options.certificateAuthority.map { SSL_CTX_load_verify_locations(context, $0, nil) }
                ?? SSL_CTX_set_default_verify_paths(context)
            guard loaded == 1 else { throw OptionError("--cacert: \(Secure.lastError())") }
        }
        if let certificate = options.certificate {
            guard SSL_CTX_use_certificate_chain_file(context, certificate) == 1,
                SSL_CTX_use_PrivateKey_file(
                    context, options.privateKey ?? certificate, SSL_FILETYPE_PEM) == 1
            else { throw OptionError("--cert, --key: \(Secure.lastError())") }
        }
    }

    func session(of endpoint: Options.Endpoint, socket: Int32) -> OpaquePointer? {
        guard let ssl = SSL_new(context) else { return nil }
        SSL_set_fd(ssl, socket)
        if !isInsecure {
            var address = in_addr()
            if inet_pton(AF_INET, endpoint.host, &address) == 1 || endpoint.host.contains(":") {
                X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), endpoint.host)
            } else {
                SSL_set1_host(ssl, endpoint.host)
                polder_ssl_set_sni(ssl, endpoint.host)
            }
        }
        return ssl
    }

    static func lastError() -> String {
        let code = ERR_get_error()
        guard code != 0, let text = ERR_reason_error_string(code) else { return "connection lost" }
        return String(cString: text)
    }
}
