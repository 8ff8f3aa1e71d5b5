import COpenSSL
import Testing

@testable import TLS

@Suite struct TokenKeyTests {
    private let message = Array("header.claims".utf8)

    /// Keys made on the spot: their kind, and the methods that they are good for.
    private func check(_ methods: [String], _ key: OpaquePointer?, _ workshop: Workshop) throws {
        let key = try #require(key)
        defer { EVP_PKEY_free(key) }
        try workshop.keep("key.pem", pem { PEM_write_bio_PrivateKey($0, key, nil, nil, 0, nil, nil) })
        try workshop.keep("pub.pem", pem { PEM_write_bio_PUBKEY($0, key) })
        for method in methods {
            let signer = try TokenKey(
                algorithm: method, publicKeyFile: workshop.path("pub.pem"),
                privateKeyFile: workshop.path("key.pem"))
            let verifier = try TokenKey(
                algorithm: method, publicKeyFile: workshop.path("pub.pem"), privateKeyFile: nil)
            let signature = try #require(signer.sign(message))
            #expect(verifier.verify(message, signature: signature), "\(method)")
            #expect(!verifier.verify(message + [0], signature: signature), "\(method)")
            #expect(!verifier.verify(message, signature: Array(signature.dropLast())), "\(method)")
            #expect(!verifier.verify(message, signature: []), "\(method)")
            #expect(!verifier.canSign && verifier.sign(message) == nil)
        }
    }

    private func pem(_ write: (OpaquePointer?) -> Int32) -> [UInt8] {
        let bio = polder_bio_memory()
        defer { BIO_free(bio) }
        #expect(write(bio) == 1)
        var data: UnsafeMutablePointer<CChar>?
        let count = polder_bio_memory_data(bio, &data)
        guard let data else { return [] }
        return (0..<count).map { UInt8(bitPattern: data[$0]) }
    }

    @Test func `every method signs what it verifies and nothing else`() throws {
        let workshop = try Workshop()
        try check(["ES256"], polder_p256_key(), workshop)
        try check(["ES384"], polder_curve_key("P-384"), workshop)
        try check(["ES512"], polder_curve_key("P-521"), workshop)
        try check(["EdDSA"], polder_ed25519_key(), workshop)
        try check(["RS256", "RS384", "RS512", "PS256", "PS512"], polder_rsa_key(2048), workshop)
    }

    /// Found by fuzzing.
    @Test func `a damaged private key is refused`() throws {
        let workshop = try Workshop()
        let key = try #require(polder_rsa_key(2048))
        defer { EVP_PKEY_free(key) }
        let text = pem { PEM_write_bio_PrivateKey($0, key, nil, nil, 0, nil, nil) }
        var lines = text.split(separator: UInt8(ascii: "\n")).map { Array($0) }
        // Within the modulus.
        lines[2][10] = lines[2][10] == UInt8(ascii: "A") ? UInt8(ascii: "B") : UInt8(ascii: "A")
        try workshop.keep("key.pem", Array(lines.joined(separator: [UInt8(ascii: "\n")])) + [0x0A])
        #expect(throws: TLSError.self) {
            try TokenKey(
                algorithm: "RS256", publicKeyFile: nil, privateKeyFile: workshop.path("key.pem"))
        }
    }

    @Test func `a shared secret is RFC 4231's`() throws {
        let workshop = try Workshop()
        try workshop.keep("secret", Array("Jefe".utf8))
        let key = try TokenKey(
            algorithm: "HS256", publicKeyFile: nil, privateKeyFile: workshop.path("secret"))
        let code = key.sign(Array("what do ya want for nothing?".utf8)) ?? []
        #expect(
            code.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
                == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
        #expect(key.verify(Array("what do ya want for nothing?".utf8), signature: code))
    }

    @Test func `keys of another kind, unknown methods and missing files are refused`() throws {
        let workshop = try Workshop()
        let key = polder_p256_key()
        defer { EVP_PKEY_free(key) }
        try workshop.keep("key.pem", pem { PEM_write_bio_PrivateKey($0, key, nil, nil, 0, nil, nil) })
        for method in ["RS256", "ES384", "EdDSA", "none", ""] {
            #expect(throws: TLSError.self) {
                try TokenKey(
                    algorithm: method, publicKeyFile: nil, privateKeyFile: workshop.path("key.pem"))
            }
        }
        #expect(throws: TLSError.self) {
            try TokenKey(algorithm: "ES256", publicKeyFile: nil, privateKeyFile: "/nowhere")
        }
        #expect(throws: TLSError.self) {
            try TokenKey(algorithm: "HS256", publicKeyFile: nil, privateKeyFile: nil)
        }
    }
}
