import CLinux
import EtcdFacade
import Glibc
import NIOCore
import NIOPosix
import Primitives
import TLS

/// The slow and the secret parts of authentication. bcrypt runs on one thread of its own, nicer than the
/// others, so that guessing passwords costs nobody but those who guess; its queue is bounded. Not by much,
/// since on a machine that is busy with other things nobody could log in within a client's five seconds.
/// The rest takes microseconds and runs on the loop.
final class PasswordWorker: AuthCrypto, @unchecked Sendable {
    private let loop: any EventLoop
    private let pool: NIOThreadPool
    private let cost: Int
    private let key: TokenKey?
    /// On the loop.
    private var queued = 0
    static let queuedMax = 256

    init(_ configuration: AuthConfiguration, loop: any EventLoop) throws(TLSError) {
        self.loop = loop
        cost = configuration.bcryptCost
        switch configuration.tokens {
        case .simple: key = nil
        case .web(let algorithm, let publicKey, let privateKey, _):
            key = try TokenKey(
                algorithm: algorithm, publicKeyFile: publicKey, privateKeyFile: privateKey)
        }
        pool = NIOThreadPool(numberOfThreads: 1)
        pool.start()
        pool.submit { _ in _ = polder_lower_priority(4) }
    }

    func close() { pool.shutdownGracefully { _ in } }

    // MARK: bcrypt

    func hash(_ password: Bytes, _ done: @escaping (Bytes?) -> Void) -> Bool {
        let salt = random(16), cost = cost
        return work({
            var setting = [CChar](repeating: 0, count: 64)
            guard polder_bcrypt_setting(Int32(cost), salt, &setting, Int32(setting.count)) == 0 else {
                return nil
            }
            return Self.bcrypt(password, Self.bytes(setting))
        }, { done($0.map(Self.etcdForm)) })
    }

    func check(_ password: Bytes, against hash: Bytes, _ done: @escaping (Bool) -> Void) -> Bool {
        work({ Self.bcrypt(password, Self.libraryForm(hash)) }, {
            done($0.map { Self.isEqual(Self.etcdForm($0), Self.etcdForm(hash)) } ?? false)
        })
    }

    private func work(
        _ body: @escaping @Sendable () -> Bytes?, _ done: @escaping (Bytes?) -> Void
    ) -> Bool {
        guard queued < Self.queuedMax else { return false }
        queued += 1
        nonisolated(unsafe) let done = done
        pool.submit { state in
            let result = state == .active ? body() : nil
            self.loop.execute {
                self.queued -= 1
                done(result)
            }
        }
        return true
    }

    private static func bcrypt(_ password: Bytes, _ setting: Bytes) -> Bytes? {
        var phrase = password.array.map { CChar(bitPattern: $0) } + [0]
        defer { explicit_bzero(&phrase, phrase.count) }
        let setting = setting.array.map { CChar(bitPattern: $0) } + [0]
        var out = [CChar](repeating: 0, count: 128)
        guard polder_bcrypt(phrase, setting, &out, Int32(out.count)) == 60 else { return nil }
        return bytes(out)
    }

    private static func bytes(_ text: [CChar]) -> Bytes {
        Bytes(text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) })
    }

    /// What etcd calls 2a is what this library calls 2b; its own 2a differs for some passwords.
    private static func libraryForm(_ hash: Bytes) -> Bytes { renamed(hash, to: "b") }
    private static func etcdForm(_ hash: Bytes) -> Bytes { renamed(hash, to: "a") }

    private static func renamed(_ hash: Bytes, to letter: Unicode.Scalar) -> Bytes {
        var bytes = hash.array
        guard bytes.count > 3, bytes[0] == UInt8(ascii: "$"), bytes[1] == UInt8(ascii: "2"),
            bytes[3] == UInt8(ascii: "$"), [UInt8(ascii: "a"), UInt8(ascii: "b")].contains(bytes[2])
        else { return hash }
        bytes[2] = UInt8(ascii: letter)
        return Bytes(bytes)
    }

    private static func isEqual(_ a: Bytes, _ b: Bytes) -> Bool {
        guard a.count == b.count else { return false }
        var difference: UInt8 = 0
        for i in 0..<a.count { difference |= a[i] ^ b[i] }
        return difference == 0
    }

    // MARK: Tokens

    func random(_ count: Int) -> [UInt8] {
        var generator = SystemRandomNumberGenerator()
        return (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
    }

    var wallSeconds: Int64 { Int64(time(nil)) }

    func mac(of message: [UInt8], secret: Bytes) -> [UInt8] {
        MessageCode.sha256(message, key: secret.array)
    }

    func sign(_ message: [UInt8]) -> [UInt8]? { key?.sign(message) }
    func verify(_ message: [UInt8], signature: [UInt8]) -> Bool {
        key?.verify(message, signature: signature) ?? false
    }
}
