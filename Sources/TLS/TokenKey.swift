import COpenSSL

/// Keyed codes over messages.
package enum MessageCode {
    package static func sha256(_ message: [UInt8], key: [UInt8]) -> [UInt8] {
        code(256, message, key: key)
    }

    static func code(_ bits: Int32, _ message: [UInt8], key: [UInt8]) -> [UInt8] {
        var out = [UInt8](repeating: 0, count: 64)
        let count = polder_hmac(bits, key, Int32(key.count), message, message.count, &out)
        precondition(count > 0, "OpenSSL has no HMAC with SHA-\(bits)")
        return Array(out.prefix(Int(count)))
    }
}

/// The key of JSON web tokens (RFC 7518): signs, or only verifies if there is just a public key.
package final class TokenKey {
    private enum Scheme: Equatable {
        case hmac(bits: Int32)
        case rsa(bits: Int32, pss: Bool)
        /// `half`: bytes of each of the signature's two numbers.
        case curve(bits: Int32, curveBits: Int32, half: Int)
        case edwards
    }

    package let algorithm: String
    private let scheme: Scheme
    private let secret: [UInt8]
    private let key: OpaquePointer?
    package let canSign: Bool

    private static let schemes: [String: Scheme] = [
        "HS256": .hmac(bits: 256), "HS384": .hmac(bits: 384), "HS512": .hmac(bits: 512),
        "RS256": .rsa(bits: 256, pss: false), "RS384": .rsa(bits: 384, pss: false),
        "RS512": .rsa(bits: 512, pss: false), "PS256": .rsa(bits: 256, pss: true),
        "PS384": .rsa(bits: 384, pss: true), "PS512": .rsa(bits: 512, pss: true),
        "ES256": .curve(bits: 256, curveBits: 256, half: 32),
        "ES384": .curve(bits: 384, curveBits: 384, half: 48),
        "ES512": .curve(bits: 512, curveBits: 521, half: 66), "EdDSA": .edwards,
    ]

    package static var algorithms: [String] { schemes.keys.sorted() }

    /// PEM files; of HS... the private "key" is a file of any bytes. With both, they must belong together.
    package init(
        algorithm: String, publicKeyFile: String?, privateKeyFile: String?
    ) throws(TLSError) {
        guard let scheme = Self.schemes[algorithm] else {
            throw .file(
                path: algorithm,
                reason: "not a signing method; known are \(Self.algorithms.joined(separator: ", "))")
        }
        self.algorithm = algorithm
        self.scheme = scheme
        if case .hmac = scheme {
            guard let privateKeyFile else {
                throw .file(path: algorithm, reason: "needs priv-key: a file with the secret")
            }
            secret = try Self.bytes(at: privateKeyFile)
            key = nil
            canSign = true
            return
        }
        secret = []
        let own = try privateKeyFile.map { path throws(TLSError) in try OpenSSL.key(at: path) }
        let other = try publicKeyFile.map { path throws(TLSError) in try Self.publicKey(at: path) }
        defer { if own != nil, let other { EVP_PKEY_free(other) } }
        guard let used = own ?? other else {
            throw .file(path: algorithm, reason: "needs priv-key, or pub-key to verify only")
        }
        let path = privateKeyFile ?? publicKeyFile ?? ""
        if let own, let other, EVP_PKEY_eq(own, other) != 1 {
            EVP_PKEY_free(own)
            throw .file(path: path, reason: "private and public key do not belong together")
        }
        guard Self.fits(used, scheme) else {
            EVP_PKEY_free(used)
            throw .file(path: path, reason: "is not a key for \(algorithm)")
        }
        key = used
        canSign = own != nil
        // A damaged key is read without complaint, and signs what nobody can verify.
        if canSign, !(sign([0]).map { verify([0], signature: $0) } ?? false) {
            throw .file(path: path, reason: "the private key is damaged: what it signs it does not verify")
        }
    }

    deinit { if let key { EVP_PKEY_free(key) } }

    private static func fits(_ key: OpaquePointer, _ scheme: Scheme) -> Bool {
        switch scheme {
        case .hmac: false
        case .rsa: EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA
        case .curve(_, let curveBits, _):
            EVP_PKEY_get_base_id(key) == EVP_PKEY_EC && EVP_PKEY_get_bits(key) == curveBits
        case .edwards: EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519
        }
    }

    private static func publicKey(at path: String) throws(TLSError) -> OpaquePointer {
        if let error = OpenSSL.unreadable(path) { throw error }
        ERR_clear_error()
        guard let bio = BIO_new_file(path, "r") else {
            throw .file(path: path, reason: OpenSSL.takeErrors())
        }
        defer { BIO_free(bio) }
        if let key = polder_read_public_key(bio) { return key }
        ERR_clear_error()
        // A certificate stands for its key.
        let certificate = try OpenSSL.certificate(at: path)
        defer { X509_free(certificate) }
        guard let key = X509_get_pubkey(certificate) else {
            throw .file(path: path, reason: OpenSSL.takeErrors())
        }
        return key
    }

    private static func bytes(at path: String) throws(TLSError) -> [UInt8] {
        if let error = OpenSSL.unreadable(path) { throw error }
        guard let bio = BIO_new_file(path, "r") else {
            throw .file(path: path, reason: OpenSSL.takeErrors())
        }
        defer { BIO_free(bio) }
        var bytes: [UInt8] = [], chunk = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = BIO_read(bio, &chunk, Int32(chunk.count))
            if count <= 0 { break }
            bytes.append(contentsOf: chunk.prefix(Int(count)))
            guard bytes.count <= 1 << 20 else {
                throw .file(path: path, reason: "is larger than a secret can be")
            }
        }
        guard !bytes.isEmpty else { throw .file(path: path, reason: "is empty") }
        return bytes
    }

    // MARK: Signatures

    package func sign(_ message: [UInt8]) -> [UInt8]? {
        guard canSign else { return nil }
        switch scheme {
        case .hmac(let bits): return MessageCode.code(bits, message, key: secret)
        case .rsa(let bits, let pss): return sign(message, bits, pss)
        case .edwards: return sign(message, 0, false)
        case .curve(let bits, _, let half):
            guard let der = sign(message, bits, false) else { return nil }
            var raw = [UInt8](repeating: 0, count: 2 * half)
            let isRaw = polder_ecdsa_to_raw(der, der.count, &raw, Int32(half)) == 1
            return isRaw ? raw : nil
        }
    }

    private func sign(_ message: [UInt8], _ bits: Int32, _ pss: Bool) -> [UInt8]? {
        guard let key else { return nil }
        var out = [UInt8](repeating: 0, count: Int(EVP_PKEY_get_size(key)))
        let count = polder_sign(key, bits, pss ? 1 : 0, message, message.count, &out, out.count)
        if count < 0 { ERR_clear_error() }
        return count < 0 ? nil : Array(out.prefix(count))
    }

    package func verify(_ message: [UInt8], signature: [UInt8]) -> Bool {
        switch scheme {
        case .hmac(let bits):
            let code = MessageCode.code(bits, message, key: secret)
            return code.count == signature.count
                && CRYPTO_memcmp(code, signature, code.count) == 0
        case .rsa(let bits, let pss): return verify(message, signature, bits, pss)
        case .edwards: return verify(message, signature, 0, false)
        case .curve(let bits, _, let half):
            guard signature.count == 2 * half else { return false }
            var der = [UInt8](repeating: 0, count: 2 * half + 16)
            let count = polder_ecdsa_from_raw(signature, Int32(half), &der, Int32(der.count))
            return count > 0 && verify(message, Array(der.prefix(Int(count))), bits, false)
        }
    }

    private func verify(
        _ message: [UInt8], _ signature: [UInt8], _ bits: Int32, _ pss: Bool
    ) -> Bool {
        guard let key else { return false }
        let isRight = polder_verify(
            key, bits, pss ? 1 : 0, message, message.count, signature, signature.count) == 1
        // What a stranger sends must not stand in the queue for the next TLS call.
        if !isRight { ERR_clear_error() }
        return isRight
    }
}
