import EtcdAPI
import Primitives

/// A caller that has shown who it is: what a token or a certificate stands for. What its user may do
/// is looked up once for each version of the users and roles.
final class Session {
    enum Kind {
        /// Slides with every use, on each node for itself.
        case simple(since: UInt64, enabledSince: UInt64)
        /// Made at this auth revision; valid until then (seconds since 1970).
        case web(revision: UInt64, expires: Int64)
        case certificate
    }

    /// nil: it has shown a certificate.
    let token: String?
    let user: Bytes
    let kind: Kind
    var usedAt: Instant
    /// Version of the users and roles at which it was found to be valid, but for its age. It stays so
    /// while they stay as they are, and nothing needs to be looked up.
    var validVersion = UInt64.max
    private var version = UInt64.max
    /// Of nobody while `isKnown` says so: not an optional, which would be copied for every question.
    private var grants = Grants.none
    private var isKnown = false

    init(token: String?, user: Bytes, kind: Kind, usedAt: Instant) {
        self.token = token
        self.user = user
        self.kind = kind
        self.usedAt = usedAt
    }

    /// nil: there is no such user.
    func grants(in state: AuthState) -> Grants? {
        if version != state.version {
            version = state.version
            let found = state.users[user].map { Grants(of: $0, in: state) }
            isKnown = found != nil
            grants = found ?? .none
        }
        return isKnown ? grants : nil
    }

    /// By what was found at this version; nil: look again.
    func mayRead(_ range: KeyRange, at version: UInt64) -> Bool? {
        version == self.version && isKnown ? grants.mayRead(range) : nil
    }

    func permits(_ transaction: Transaction, at version: UInt64) -> Bool? {
        version == self.version && isKnown ? grants.permits(transaction) : nil
    }
}

/// Beside an open call: how its caller shows who it is. Only while authentication is on, and of streams.
/// Kept in the place of the call (`OpenCalls`), and used again by the next one there: unary calls come
/// and go by the hundred thousand a second.
final class Caller {
    /// nil: it has ended.
    private(set) var call: CallReference?
    /// Of the last call, once it has ended: most calls of a connection bring the same.
    private(set) var token: String?
    private(set) var certificateName: String?
    /// Whom a stream belongs to: known from its first message on, its token may run out.
    var session: Session?
    /// Of a unary call, for a second look with newer permissions.
    var message: Bytes?
    /// Looked at with permissions that are no older than the call.
    var isFresh = false
    var refusals = 0

    func begin(_ call: CallReference, token: String?, certificateName: String?) {
        self.call = call
        // To compare what is the same costs less than to let go of one and hold the other.
        if self.token != token { self.token = token }
        if self.certificateName != certificateName { self.certificateName = certificateName }
        isFresh = false
        refusals = 0
    }

    func end() {
        call = nil
        if session != nil { session = nil }
        if message != nil { message = nil }
    }
}
