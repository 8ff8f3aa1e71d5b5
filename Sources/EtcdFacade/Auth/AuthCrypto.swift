package import Primitives

/// What authentication needs of the shell: chance, clocks, and arithmetic that takes time. Answers come
/// on the facade's loop.
package protocol AuthCrypto: AnyObject {
    func random(_ count: Int) -> [UInt8]
    var wallSeconds: Int64 { get }

    /// HMAC with SHA-256.
    func mac(of message: [UInt8], secret: Bytes) -> [UInt8]

    /// bcrypt, on a thread of its own; false: too many wait for it already, and `done` is never called.
    /// nil: it could not be computed.
    func hash(_ password: Bytes, _ done: @escaping (Bytes?) -> Void) -> Bool
    func check(_ password: Bytes, against hash: Bytes, _ done: @escaping (Bool) -> Void) -> Bool

    /// With the key of JSON web tokens, in their signatures' form; nil: there is no private key.
    func sign(_ message: [UInt8]) -> [UInt8]?
    func verify(_ message: [UInt8], signature: [UInt8]) -> Bool
}

package struct AuthSettings: Sendable {
    package enum Tokens: Equatable, Sendable {
        case simple(timeToLive: TimeSpan)
        /// `algorithm` as in the token's header: RS256, ES384, HS512, EdDSA, ...
        case web(algorithm: String, timeToLive: TimeSpan)
    }
    package var tokens = Tokens.simple(timeToLive: .seconds(300))
    /// A client is who its certificate says, unless it shows a token (etcd's --client-cert-auth).
    package var usesCertificateNames = false
    package init() {}
}

/// Everything that authentication is given.
package struct AuthServices {
    package let crypto: any AuthCrypto
    package let settings: AuthSettings
    package init(crypto: any AuthCrypto, settings: AuthSettings = AuthSettings()) {
        self.crypto = crypto
        self.settings = settings
    }
}

/// bcrypt looks at no more bytes of a password; etcd refuses longer ones.
let passwordBytesMax = 72
