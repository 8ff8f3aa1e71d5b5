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

    let user: Bytes
    let kind: Kind
    var usedAt: Instant
    private var version = UInt64.max
    private var grants: Grants?

    init(user: Bytes, kind: Kind, usedAt: Instant) {
        self.user = user
        self.kind = kind
        self.usedAt = usedAt
    }

    /// nil: there is no such user.
    func grants(in state: AuthState) -> Grants? {
        if version != state.version {
            version = state.version
            grants = state.users[user].map { Grants(of: $0, in: state) }
        }
        return grants
    }
}

/// Beside an open call: how its caller shows who it is. Only while authentication is on, and of streams.
final class Caller {
    let token: String?
    let certificateName: String?
    /// Whom a stream belongs to: known from its first message on, its token may run out.
    var session: Session?
    /// Of a unary call, for a second look with newer permissions.
    var message: Bytes?
    /// Looked at with permissions that are no older than the call.
    var isFresh = false
    var refusals = 0

    init(token: String?, certificateName: String?) {
        self.token = token
        self.certificateName = certificateName
    }
}
