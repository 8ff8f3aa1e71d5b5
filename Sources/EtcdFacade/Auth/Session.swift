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
    /// Version of the users and roles at which it was found to be valid, but for its age. It stays so
    /// while they stay as they are, and nothing needs to be looked up.
    var validVersion = UInt64.max
    private var version = UInt64.max
    private var grants: Grants?

    init(user: Bytes, kind: Kind, usedAt: Instant) {
        self.user = user
        self.kind = kind
        self.usedAt = usedAt
    }

    /// What was found at this version; nil: look again.
    func grants(at version: UInt64) -> Grants? { version == self.version ? grants : nil }

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
    private(set) var token: String?
    private(set) var certificateName: String?
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
    /// For another call.
    func begin(token: String?, certificateName: String?) {
        self.token = token
        self.certificateName = certificateName
        session = nil
        message = nil
        isFresh = false
        refusals = 0
    }
}

/// Unary calls come and go by the hundred thousand a second: who called is written into what the last
/// ones have left.
struct SpareCallers {
    private var spare: [Caller] = []
    static let spareMax = 64

    mutating func take(token: String?, certificateName: String?) -> Caller {
        guard let caller = spare.popLast() else {
            return Caller(token: token, certificateName: certificateName)
        }
        caller.begin(token: token, certificateName: certificateName)
        return caller
    }

    /// Of a call that has ended. A stream's caller outlives it in watches.
    mutating func give(_ caller: Caller?) {
        guard let caller, caller.message != nil, spare.count < Self.spareMax else { return }
        caller.begin(token: nil, certificateName: nil)
        spare.append(caller)
    }
}
