import COpenSSL
import Glibc

/// A small certificate authority of our own, for `polder dev` and `polder certs`.
/// Everything is ECDSA on P-256, in PEM files; keys are readable by their owner only.
package final class CertificateAuthority {
    private let certificate: OpaquePointer
    private let key: OpaquePointer

    /// Takes ownership of both.
    private init(certificate: OpaquePointer, key: OpaquePointer) {
        self.certificate = certificate
        self.key = key
    }

    deinit {
        X509_free(certificate)
        EVP_PKEY_free(key)
    }

    /// A new authority, by default for ten years.
    package static func create(
        name: String, days: Int = 3650
    ) throws(TLSError) -> CertificateAuthority {
        ERR_clear_error()
        guard let key = polder_p256_key() else { throw .crypto(OpenSSL.takeErrors()) }
        do throws(TLSError) {
            let certificate = try make(
                commonName: name, days: days, key: key, issuer: nil, signer: key,
                extensions: [
                    (NID_basic_constraints, "critical,CA:TRUE,pathlen:0"),
                    (NID_key_usage, "critical,keyCertSign,cRLSign"),
                    (NID_subject_key_identifier, "hash"),
                ])
            return CertificateAuthority(certificate: certificate, key: key)
        } catch {
            EVP_PKEY_free(key)
            throw error
        }
    }

    package static func load(
        certificate: String, key: String
    ) throws(TLSError) -> CertificateAuthority {
        let authority = CertificateAuthority(
            certificate: try OpenSSL.certificate(at: certificate), key: try OpenSSL.key(at: key))
        guard X509_check_private_key(authority.certificate, authority.key) == 1 else {
            throw .file(
                path: key, reason: "the key does not belong to the certificate \(certificate)")
        }
        guard X509_check_ca(authority.certificate) == 1 else {
            throw .file(path: certificate, reason: "not the certificate of an authority")
        }
        return authority
    }

    package var expires: Int64 { OpenSSL.details(of: certificate).expires }

    package func write(certificate: String, key: String) throws(TLSError) {
        let pair = IssuedCertificate(
            certificatePEM: try pem(certificate: self.certificate), keyPEM: try pem(key: self.key))
        try pair.write(certificate: certificate, key: key)
    }

    /// A certificate for servers and clients alike: every node is both.
    package func issue(
        commonName: String, dnsNames: [String] = [], ipAddresses: [String] = [], days: Int = 825
    ) throws(TLSError) -> IssuedCertificate {
        ERR_clear_error()
        var extensions: [(Int32, String)] = [
            (NID_basic_constraints, "critical,CA:FALSE"),
            (NID_key_usage, "critical,digitalSignature"),
            (NID_ext_key_usage, "serverAuth,clientAuth"),
            (NID_subject_key_identifier, "hash"),
            (NID_authority_key_identifier, "keyid"),
        ]
        if let names = try Self.alternativeNames(dnsNames, ipAddresses) { extensions.append(names) }
        guard let leafKey = polder_p256_key() else { throw .crypto(OpenSSL.takeErrors()) }
        defer { EVP_PKEY_free(leafKey) }
        let leaf = try Self.make(
            commonName: commonName, days: days, key: leafKey, issuer: certificate, signer: key,
            extensions: extensions)
        defer { X509_free(leaf) }
        return IssuedCertificate(
            certificatePEM: try pem(certificate: leaf), keyPEM: try pem(key: leafKey))
    }

    /// A certificate that nobody vouches for but itself (etcd's --auto-tls); clients may take it for an
    /// authority's.
    package static func selfSigned(
        commonName: String, dnsNames: [String] = [], ipAddresses: [String] = [], days: Int
    ) throws(TLSError) -> IssuedCertificate {
        ERR_clear_error()
        guard let key = polder_p256_key() else { throw .crypto(OpenSSL.takeErrors()) }
        var extensions: [(Int32, String)] = [
            (NID_basic_constraints, "critical,CA:TRUE"),
            (NID_key_usage, "critical,digitalSignature,keyEncipherment,keyCertSign"),
            (NID_ext_key_usage, "serverAuth,clientAuth"),
            (NID_subject_key_identifier, "hash"),
        ]
        let certificate: OpaquePointer
        do throws(TLSError) {
            if let names = try alternativeNames(dnsNames, ipAddresses) { extensions.append(names) }
            certificate = try make(
                commonName: commonName, days: days, key: key, issuer: nil, signer: key,
                extensions: extensions)
        } catch {
            EVP_PKEY_free(key)
            throw error
        }
        // Owns both, and frees them.
        let own = CertificateAuthority(certificate: certificate, key: key)
        return IssuedCertificate(
            certificatePEM: try own.pem(certificate: certificate), keyPEM: try own.pem(key: key))
    }

    /// The value is OpenSSL's little language: nothing of it may come in through a name.
    private static func alternativeNames(
        _ dnsNames: [String], _ ipAddresses: [String]
    ) throws(TLSError) -> (Int32, String)? {
        func isPlain(_ name: String) -> Bool {
            !name.isEmpty
                && name.utf8.allSatisfy { byte in
                    let c = Unicode.Scalar(byte)
                    return byte < 0x80
                        && (c.properties.isAlphabetic || ("0"..."9").contains(c)
                            || ".-_*:".unicodeScalars.contains(c))
                }
        }
        if let bad = (dnsNames + ipAddresses).first(where: { !isPlain($0) }) {
            throw .configuration("'\(bad)' cannot be a name in a certificate")
        }
        let names = dnsNames.map { "DNS:\($0)" } + ipAddresses.map { "IP:\($0)" }
        return names.isEmpty ? nil : (NID_subject_alt_name, names.joined(separator: ","))
    }

    /// What the first certificate of a PEM file says, expiry included.
    package static func inspect(_ path: String) throws(TLSError) -> TLSPeer {
        let certificate = try OpenSSL.certificate(at: path)
        defer { X509_free(certificate) }
        return OpenSSL.details(of: certificate)
    }

    // MARK: Making

    /// `issuer` nil: signed by itself. The caller owns the result.
    private static func make(
        commonName: String, days: Int, key: OpaquePointer, issuer: OpaquePointer?,
        signer: OpaquePointer, extensions: [(Int32, String)]
    ) throws(TLSError) -> OpaquePointer {
        guard let certificate = X509_new() else { throw .crypto(OpenSSL.takeErrors()) }
        var done = false
        defer { if !done { X509_free(certificate) } }
        func check(_ result: Int32, _ what: String) throws(TLSError) {
            guard result >= 1 else { throw .crypto("\(what): \(OpenSSL.takeErrors())") }
        }
        try check(X509_set_version(certificate, 2), "version")
        guard let serial = BN_new() else { throw .crypto(OpenSSL.takeErrors()) }
        defer { BN_free(serial) }
        try check(BN_rand(serial, 127, 0, 0), "serial number")
        guard BN_to_ASN1_INTEGER(serial, X509_get_serialNumber(certificate)) != nil else {
            throw .crypto(OpenSSL.takeErrors())
        }
        // From an hour ago: clocks differ.
        X509_gmtime_adj(X509_getm_notBefore(certificate), -3600)
        X509_time_adj_ex(X509_getm_notAfter(certificate), Int32(days), 0, nil)
        let subject = X509_get_subject_name(certificate)
        for (field, value) in [("O", "Polder"), ("CN", commonName)] {
            try check(
                X509_NAME_add_entry_by_txt(subject, field, MBSTRING_FLAG, value, -1, -1, 0),
                "name '\(value)'")
        }
        try check(
            X509_set_issuer_name(certificate, issuer.map { X509_get_subject_name($0) } ?? subject),
            "issuer")
        try check(X509_set_pubkey(certificate, key), "public key")
        for (kind, value) in extensions {
            try check(
                polder_add_extension(certificate, issuer ?? certificate, kind, value),
                "extension \(value)")
        }
        try check(X509_sign(certificate, signer, EVP_sha256()), "signature")
        done = true
        return certificate
    }

    private func pem(certificate: OpaquePointer) throws(TLSError) -> [UInt8] {
        try text { PEM_write_bio_X509($0, certificate) }
    }

    private func pem(key: OpaquePointer) throws(TLSError) -> [UInt8] {
        try text { PEM_write_bio_PrivateKey($0, key, nil, nil, 0, nil, nil) }
    }

    private func text(_ write: (OpaquePointer) -> Int32) throws(TLSError) -> [UInt8] {
        guard let bio = polder_bio_memory() else { throw .crypto(OpenSSL.takeErrors()) }
        defer { BIO_free(bio) }
        guard write(bio) == 1 else { throw .crypto(OpenSSL.takeErrors()) }
        var data: UnsafeMutablePointer<CChar>?
        let length = polder_bio_memory_data(bio, &data)
        return Array(UnsafeRawBufferPointer(start: data, count: length))
    }
}

package struct IssuedCertificate: Sendable {
    package let certificatePEM: [UInt8]
    package let keyPEM: [UInt8]

    /// The key first: a certificate whose key is not there yet would be of no use to a reader.
    package func write(certificate: String, key: String) throws(TLSError) {
        try replaceFile(key, keyPEM, mode: 0o600)
        try replaceFile(certificate, certificatePEM, mode: 0o644)
    }
}

/// Whoever reads the file meanwhile sees the old one or the new one, never half of it.
private func replaceFile(_ path: String, _ bytes: [UInt8], mode: mode_t) throws(TLSError) {
    func failure() -> TLSError { .file(path: path, reason: String(cString: strerror(errno))) }
    let draft = path + ".new"
    unlink(draft)
    let file = open(draft, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)
    guard file >= 0 else { throw failure() }
    var offset = 0
    while offset < bytes.count {
        let n = bytes.withUnsafeBytes { raw in
            let rest = UnsafeRawBufferPointer(rebasing: raw[offset...])
            return Glibc.write(file, rest.baseAddress, rest.count)
        }
        if n < 0 && errno == EINTR { continue }
        guard n > 0 else {
            let error = failure()
            close(file)
            unlink(draft)
            throw error
        }
        offset += n
    }
    let synced = fsync(file) == 0
    guard close(file) == 0, synced, rename(draft, path) == 0 else { throw failure() }
}
