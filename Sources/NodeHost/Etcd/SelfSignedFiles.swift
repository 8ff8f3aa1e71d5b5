import Glibc
import TLS

/// Where etcd keeps the certificates that it makes for itself: `fixtures/client` and `fixtures/peer` of
/// the data directory.
struct SelfSignedFiles: Equatable, Sendable {
    var directory: String
    /// Of the URLs to listen on: addresses and names.
    var hosts: [String]
    var years: Int

    var certificate: String { directory + "/cert.pem" }
    var key: String { directory + "/key.pem" }

    /// False: they were there, and hold for another day. (etcd goes on with expired ones.)
    func make() throws(HostFailure) -> Bool {
        if Files.exists(certificate), Files.exists(key), isYoung { return false }
        do {
            try Files.makeDirectory(directory)
            let made = try CertificateAuthority.selfSigned(
                commonName: hosts.first ?? "", dnsNames: hosts.filter { !Self.isAddress($0) },
                ipAddresses: hosts.filter(Self.isAddress), days: years * 365)
            try made.write(certificate: certificate, key: key)
            return true
        } catch {
            throw HostFailure(code: 3, "\(directory): cannot make a certificate: \(error)")
        }
    }

    private var isYoung: Bool {
        guard let found = try? CertificateAuthority.inspect(certificate) else { return false }
        return found.expires > Int64(time(nil)) + 86_400
    }

    private static func isAddress(_ host: String) -> Bool {
        host.contains(":") || host.allSatisfy { $0.isNumber || $0 == "." }
    }
}
