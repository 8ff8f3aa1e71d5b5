import EtcdAPI
import EtcdFacade
import Foundation
import Glibc
import Primitives
import SwiftProtobuf
import TLS

extension FuzzTarget {
    nonisolated(unsafe) static let simpleTokens = tokens(
        "simple-tokens", AuthSettings(), repair: { token in
            guard var body = Base64.decode(token), body.count > 16 else { return token }
            body.removeLast(16)
            let mac = FakeCrypto().mac(of: body, secret: Secrets.shared)
            return Base64.encode(body + mac.prefix(16), forURL: true)
        })

    nonisolated(unsafe) static let webTokens = {
        var settings = AuthSettings()
        settings.tokens = .web(algorithm: "RS256", timeToLive: .seconds(300))
        return tokens(
            "web-tokens", settings, repair: { token in
                let parts = token.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
                guard parts.count == 3 else { return token }
                let text = Array(parts[0]) + [UInt8(ascii: ".")] + parts[1]
                let mac = FakeCrypto().mac(of: text, secret: "key")
                return text + [UInt8(ascii: ".")] + Base64.encode(mac, forURL: true)
            })
    }()

    private enum Secrets {
        /// Of the region that the servers below belong to; set when the first one is made.
        nonisolated(unsafe) static var shared = Bytes.empty
    }

    /// Nobody gets in whose token is not signed.
    private static func tokens(
        _ name: String, _ settings: AuthSettings, repair: @escaping ([UInt8]) -> [UInt8]
    ) -> FuzzTarget {
        FuzzTarget(
            name: name, what: "tokens that a client shows", grammar: .text, bytesMax: 20_000,
            repair: repair
        ) {
            var (server, samples) = try authenticated(settings)
            Secrets.shared = server.node.authState.secret
            // As parts are within base64, damage there is damage to what is read.
            let decoded = samples.flatMap { token -> [[UInt8]] in
                token.split(separator: UInt8(ascii: ".")).compactMap { Base64.decode(Array($0)) }
            }
            for claims in decoded where claims.first == UInt8(ascii: "{") {
                let header = Array(#"{"alg":"RS256","typ":"JWT"}"#.utf8)
                let more = Array(String(decoding: claims, as: UTF8.self).dropLast().utf8)
                for extra in [#","nbf":1,"x":[1,{"y":null}]}"#, #","exp":9e15}"#, #","username":"bob"}"#] {
                    samples.append(
                        repair(
                            Base64.encode(header, forURL: true) + [UInt8(ascii: ".")]
                                + Base64.encode(more + extra.utf8, forURL: true) + Array(".x".utf8)))
                }
            }
            let known = samples
            return Prepared(samples: Array(samples.prefix(1)), others: Array(samples.dropFirst())) { input in
                if server.isWorn {
                    (server, _) = try authenticated(settings)
                    Secrets.shared = server.node.authState.secret
                }
                let token = String(decoding: input, as: UTF8.self)
                let answers = server.call(.range, .with { $0.key = Data("a".utf8) } as Etcdserverpb_RangeRequest, token: token)
                guard answers.status == .ok else {
                    throw CodecError.malformed("\(answers.status.map { "\($0)" } ?? "") \(answers.text)")
                }
                if known.contains(input) { return }
                guard isSigned(Array(token.utf8), settings) else { throw Finding("an unsigned token is taken") }
            }
        }
    }

    private static func isSigned(_ token: [UInt8], _ settings: AuthSettings) -> Bool {
        switch settings.tokens {
        case .simple:
            guard let body = Base64.decode(token), body.count > 16 else { return false }
            let mac = FakeCrypto().mac(of: body.dropLast(16), secret: Secrets.shared)
            return mac.prefix(16).elementsEqual(body.suffix(16))
        case .web:
            let parts = token.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
            guard parts.count == 3, let signature = Base64.decode(Array(parts[2])) else { return false }
            let text = Array(parts[0]) + [UInt8(ascii: ".")] + parts[1]
            return FakeCrypto().mac(of: text, secret: "key") == signature
        }
    }

    private static func authenticated(
        _ settings: AuthSettings
    ) throws -> (FuzzServer, [[UInt8]]) {
        let server = FuzzServer(auth: settings)
        for name in ["root", "ann"] {
            server.call(.userAdd, .with { $0.name = name; $0.password = "pw" } as Etcdserverpb_AuthUserAddRequest)
        }
        server.call(.userGrantRole, .with { $0.user = "root"; $0.role = "root" } as Etcdserverpb_AuthUserGrantRoleRequest)
        server.call(.authEnable, Etcdserverpb_AuthEnableRequest())
        let login = server.call(
            .authenticate, .with { $0.name = "root"; $0.password = "pw" } as Etcdserverpb_AuthenticateRequest)
        guard let message = login.messages.first else { throw Finding("no token: \(login.text)") }
        let answer = try Etcdserverpb_AuthenticateResponse(serializedBytes: message.array)
        return (server, [Array(answer.token.utf8)])
    }

    /// The same bytes as certificate, key, authority, list of revocations, and key of tokens.
    nonisolated(unsafe) static let certificates = FuzzTarget(
        name: "certificates", what: "PEM files: certificates, keys, authorities, CRLs, token keys",
        grammar: .pem
    ) {
        let folder = try Scratch()
        let authority = try CertificateAuthority.create(name: "fuzz")
        try authority.write(certificate: folder + "/ca.pem", key: folder + "/ca.key")
        try authority.issue(commonName: "server", dnsNames: ["localhost", "*.a.b"])
            .write(certificate: folder + "/good.pem", key: folder + "/good.key")
        var samples = try ["ca.pem", "ca.key", "good.pem", "good.key"].map { try folder.read($0) }
        samples.append(samples[2] + samples[0])
        samples += try opensslSamples(folder)
        let path = folder + "/fuzz.pem"
        return Prepared(samples: samples) { input in
            try folder.write("fuzz.pem", input)
            func context(_ change: (inout TLSConfiguration) -> Void) throws {
                var configuration = TLSConfiguration(
                    ca: folder + "/ca.pem", certificate: folder + "/good.pem", key: folder + "/good.key")
                change(&configuration)
                _ = try TLSContext(configuration)
            }
            var taken = 0
            var refusal: (any Error)?
            let tries: [() throws -> Void] = [
                { try context { $0.certificate = path } }, { try context { $0.key = path } },
                { try context { $0.ca = path } }, { try context { $0.revocations = path } },
                { try context { ($0.certificate, $0.key) = (path, path) } },
                { _ = try CertificateAuthority.inspect(path) },
                { _ = try CertificateAuthority.load(certificate: path, key: folder + "/ca.key") },
            ]
            for attempt in tries {
                do {
                    try attempt()
                    taken += 1
                } catch { refusal = error }
            }
            for algorithm in ["RS256", "ES256", "EdDSA", "PS384", "HS256"] {
                for (open, secret) in [(path as String?, nil as String?), (nil, path)] {
                    guard let key = try? TokenKey(
                        algorithm: algorithm, publicKeyFile: open, privateKeyFile: secret)
                    else { continue }
                    taken += 1
                    guard let signature = key.sign([1, 2, 3]) else { continue }
                    guard key.verify([1, 2, 3], signature: signature) else {
                        throw Finding("\(algorithm): what it signs it does not know")
                    }
                    guard !key.verify([1, 2, 4], signature: signature) else {
                        throw Finding("\(algorithm): it takes a signature of something else")
                    }
                }
            }
            if taken == 0, let refusal { throw refusal }
        }
    }
}

/// What our own authority does not make, by the system's `openssl`; nothing without one.
private func opensslSamples(_ folder: Scratch) throws -> [[UInt8]] {
    let script = #"""
        set -e
        openssl genpkey -algorithm rsa -pkeyopt rsa_keygen_bits:1024 -out rsa.pem
        openssl rsa -in rsa.pem -traditional -out rsa-old.pem
        openssl pkey -in rsa.pem -pubout -out rsa-pub.pem
        openssl genpkey -algorithm ed25519 -out ed.pem
        openssl pkey -in ed.pem -pubout -out ed-pub.pem
        openssl ecparam -genkey -name prime256v1 -out ec.pem
        openssl ec -in ec.pem -pubout -out ec-pub.pem
        openssl req -x509 -key rsa.pem -out rsa-ca.pem -days 9999 -subj /CN=r \
            -addext subjectAltName=DNS:a.b,IP:127.0.0.1,IP:::1,email:a@b,URI:http://a
        touch index
        echo 01 >number
        printf '[ca]\ndefault_ca=d\n[d]\ndatabase=index\ncrlnumber=number\ndefault_md=sha256\n' >conf
        openssl ca -config conf -gencrl -crldays 9999 -keyfile rsa.pem -cert rsa-ca.pem -out crl.pem
        """#
    let process = Process()
    process.executableURL = URL(filePath: "/bin/sh")
    process.arguments = ["-c", script]
    process.currentDirectoryURL = URL(filePath: folder.path)
    process.standardOutput = nil
    process.standardError = nil
    try process.run()
    process.waitUntilExit()
    return ["rsa", "rsa-old", "rsa-pub", "ed", "ed-pub", "ec", "ec-pub", "rsa-ca", "crl"]
        .compactMap { try? folder.read($0 + ".pem") }
}

/// A directory in memory, gone with the process's end of interest.
final class Scratch {
    let path: String
    init() throws {
        let base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"
        var template = Array("\(base)/polder-fuzz-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Finding("no directory in \(base)") }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        Scratch.made.append(path)
    }

    nonisolated(unsafe) private static var made: [String] = []
    static func removeAll() {
        for path in made { try? FileManager.default.removeItem(atPath: path) }
    }

    static func + (scratch: Scratch, rest: String) -> String { scratch.path + rest }

    func write(_ name: String, _ bytes: [UInt8]) throws {
        guard let file = fopen(path + "/" + name, "w") else { throw Finding("cannot write \(name)") }
        fwrite(bytes, 1, bytes.count, file)
        fclose(file)
    }

    func read(_ name: String) throws -> [UInt8] {
        Array(try Data(contentsOf: URL(filePath: path + "/" + name)))
    }
}
