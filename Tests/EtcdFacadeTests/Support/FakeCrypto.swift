import EtcdFacade
import Primitives

/// Arithmetic that is easy to follow, and a queue that the test empties.
final class FakeCrypto: AuthCrypto {
    var wallSeconds: Int64 = 1_000_000
    var canSign = true
    /// Passwords wait until `release`.
    var holdsWork = false
    var isFull = false
    private var held: [() -> Void] = []
    private(set) var hashes = 0
    private var random = SplitMix(seed: 3)

    func random(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) } }

    func mac(of message: [UInt8], secret: Bytes) -> [UInt8] {
        var sum: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in secret.array + message { sum = (sum ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return (0..<32).map { UInt8(truncatingIfNeeded: sum >> UInt64($0 % 8 * 8)) }
    }

    func hash(_ password: Bytes, _ done: @escaping (Bytes?) -> Void) -> Bool {
        hashes += 1
        return work { done(Bytes(Array("#".utf8) + password.array)) }
    }
    func check(_ password: Bytes, against hash: Bytes, _ done: @escaping (Bool) -> Void) -> Bool {
        hashes += 1
        return work { done(hash == Bytes(Array("#".utf8) + password.array)) }
    }
    private func work(_ body: @escaping () -> Void) -> Bool {
        if isFull { return false }
        if holdsWork { held.append(body) } else { body() }
        return true
    }
    func release() {
        holdsWork = false
        let all = held
        held = []
        for body in all { body() }
    }

    func sign(_ message: [UInt8]) -> [UInt8]? { canSign ? mac(of: message, secret: "key") : nil }
    func verify(_ message: [UInt8], signature: [UInt8]) -> Bool {
        signature == mac(of: message, secret: "key")
    }
}
