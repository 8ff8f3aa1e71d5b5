import COpenSSL
import Glibc

/// Small helpers around OpenSSL's conventions, shared by this module's files.
enum OpenSSL {
    /// What the thread's error queue says, and empties it: the reasons, oldest first.
    static func takeErrors() -> String {
        var reasons: [String] = []
        while true {
            let code = ERR_get_error()
            if code == 0 { break }
            if let text = ERR_reason_error_string(code) {
                let reason = String(cString: text)
                if reasons.last != reason { reasons.append(reason) }
            } else {
                reasons.append("error \(code)")
            }
        }
        return reasons.isEmpty ? "no reason given" : reasons.joined(separator: ", ")
    }

    static func isReadable(_ path: String) -> Bool { access(path, R_OK) == 0 }

    /// Why `path` cannot be opened, in the operating system's words; `nil` if it can.
    static func unreadable(_ path: String) -> TLSError? {
        if isReadable(path) { return nil }
        return .file(path: path, reason: String(cString: strerror(errno)))
    }

    /// Seconds since 1970; `nil` for a time that OpenSSL cannot read.
    static func seconds(_ time: OpaqueTime?) -> Int64? {
        guard let time else { return nil }
        var broken = tm()
        guard ASN1_TIME_to_tm(time, &broken) == 1 else { return nil }
        return Int64(timegm(&broken))
    }
    typealias OpaqueTime = UnsafePointer<ASN1_TIME>

    static func commonName(of certificate: OpaquePointer) -> String? {
        guard let subject = X509_get_subject_name(certificate) else { return nil }
        let index = X509_NAME_get_index_by_NID(subject, NID_commonName, -1)
        guard index >= 0, let entry = X509_NAME_get_entry(subject, index),
            let text = X509_NAME_ENTRY_get_data(entry)
        else { return nil }
        var utf8: UnsafeMutablePointer<UInt8>?
        let length = ASN1_STRING_to_UTF8(&utf8, text)
        guard length >= 0, let utf8 else { return nil }
        defer { CRYPTO_free(utf8, #file, 0) }
        let bytes = UnsafeBufferPointer(start: utf8, count: Int(length))
        // A zero byte inside a name is an old trick to look like a shorter one.
        return bytes.contains(0) ? nil : String(decoding: bytes, as: UTF8.self)
    }

    static func details(of certificate: OpaquePointer) -> TLSPeer {
        var peer = TLSPeer(
            commonName: commonName(of: certificate),
            expires: seconds(X509_get0_notAfter(certificate)) ?? 0)
        guard let names = polder_subject_names(certificate) else { return peer }
        defer { polder_names_free(names) }
        for i in 0..<polder_name_count(names) {
            var data: UnsafePointer<UInt8>?
            var length: Int32 = 0
            let kind = polder_name_at(names, i, &data, &length)
            guard let data else { continue }
            let bytes = UnsafeBufferPointer(start: data, count: Int(length))
            if kind == GEN_DNS, !bytes.contains(0) {
                peer.dnsNames.append(String(decoding: bytes, as: UTF8.self))
            } else if kind == GEN_IPADD, let text = addressText(bytes) {
                peer.ipAddresses.append(text)
            }
        }
        return peer
    }

    private static func addressText(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        guard bytes.count == 4 || bytes.count == 16 else { return nil }
        var text = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
        let family = bytes.count == 4 ? AF_INET : AF_INET6
        guard inet_ntop(family, bytes.baseAddress, &text, socklen_t(text.count)) != nil else {
            return nil
        }
        return text.withUnsafeBufferPointer { $0.baseAddress.map { String(cString: $0) } }
    }

    /// The first certificate of a PEM file. The caller frees it.
    static func certificate(at path: String) throws(TLSError) -> OpaquePointer {
        if let error = unreadable(path) { throw error }
        ERR_clear_error()
        guard let bio = BIO_new_file(path, "r") else {
            throw .file(path: path, reason: takeErrors())
        }
        defer { BIO_free(bio) }
        guard let certificate = PEM_read_bio_X509(bio, nil, nil, nil) else {
            throw .file(path: path, reason: "no PEM certificate in it (\(takeErrors()))")
        }
        return certificate
    }

    static func key(at path: String) throws(TLSError) -> OpaquePointer {
        if let error = unreadable(path) { throw error }
        ERR_clear_error()
        guard let bio = BIO_new_file(path, "r") else {
            throw .file(path: path, reason: takeErrors())
        }
        defer { BIO_free(bio) }
        guard let key = polder_read_key(bio) else {
            throw .file(
                path: path, reason: "no PEM private key without passphrase in it (\(takeErrors()))")
        }
        return key
    }
}
