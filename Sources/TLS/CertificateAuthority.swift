import COpenSSL
import Glibc

/// A small certificate authority of our own, for `polder dev` and `polder certs`.
/// Everything is ECDSA on P-256, in PEM files; keys are readable by their owner only.
package final class CertificateAuthority {
    private let certificate: OpaquePointer
    private let key: OpaquePointer

    private init(certificate: OpaquePointer, key: OpaquePointer) {
        self.certificate = certificate
        self.key = key
    }

    deinit {
        X509_free(certificate)
        EVP_PKEY_free(key)
    }

    /// A new authority, valid from an hour ago (clocks differ) for ten years.
    package static func create(name: String, days: Int = 3650) throws(TLSError) -> CertificateAuthority {
        throw .crypto("not yet")
    }
    package static func load(certificate: String, key: String) throws(TLSError) -> CertificateAuthority {
        throw .crypto("not yet")
    }
    package func write(certificate: String, key: String) throws(TLSError) {}
    /// A certificate for servers and clients alike: every node is both.
    package func issue(
        commonName: String, dnsNames: [String] = [], ipAddresses: [String] = [], days: Int = 825
    ) throws(TLSError) -> IssuedCertificate {
        throw .crypto("not yet")
    }
    /// What the first certificate of a PEM file says, expiry included.
    package static func inspect(_ path: String) throws(TLSError) -> TLSPeer {
        throw .crypto("not yet")
    }
}

package struct IssuedCertificate: Sendable {
    package let certificatePEM: [UInt8]
    package let keyPEM: [UInt8]
    package func write(certificate: String, key: String) throws(TLSError) {}
}
