import EtcdAPI
import Primitives

/// etcd's Auth service. Changes go through the directory's log; questions are answered from this
/// node's copy, after a read index, so that they are as new as the call.
extension Facade {
    /// What is asked of the users and roles.
    enum AuthQuery {
        case status
        case user(Bytes)
        case users
        case role(Bytes)
        case roles
    }

    /// A password that is being checked.
    struct Authentication {
        let name: Bytes
        let password: Bytes
        var attempts = 0
    }

    func onAuth(
        _ method: RPCMethod, _ call: CallReference, _ message: Bytes
    ) throws(CallFailure) {
        guard auth != nil else { throw .notYetSupported("authentication on this node") }
        switch method {
        case .authEnable: enable(call)
        case .authDisable: change(.disable, call)
        case .authStatus: ask(.status, call)
        case .authenticate:
            let fields = try TextFields(message)
            authenticate(Authentication(name: fields[1], password: fields[2]), call)
        case .userAdd: try onUserAdd(call, message)
        case .userGet: ask(.user(try TextFields(message)[1]), call)
        case .userList: ask(.users, call)
        case .userDelete: change(.userDelete(try TextFields(message)[1]), call)
        case .userChangePassword: try onChangePassword(call, message)
        case .userGrantRole:
            let fields = try TextFields(message)
            change(.userGrantRole(fields[1], role: fields[2]), call)
        case .userRevokeRole:
            let fields = try TextFields(message)
            change(.userRevokeRole(fields[1], role: fields[2]), call)
        case .roleAdd: change(.roleAdd(try TextFields(message)[1]), call)
        case .roleGet: ask(.role(try TextFields(message)[1]), call)
        case .roleList: ask(.roles, call)
        case .roleDelete: change(.roleDelete(try TextFields(message)[1]), call)
        case .roleGrantPermission: try onGrantPermission(call, message)
        case .roleRevokePermission:
            let fields = try TextFields(message, opaque: [2, 3])
            change(
                .roleRevokePermission(fields[1], KeyRange(key: fields[2], end: fields[3])), call)
        default: invariant(false, "\(method) is not of the Auth service")
        }
    }

    // MARK: Changes

    private func change(_ command: AuthCommand, _ call: CallReference) {
        var by: Bytes?
        if authState.isEnabled, let open = calls[call] { by = (try? identify(open))?.user }
        guard let (token, deadline) = wait(call, as: .auth) else { return }
        node.submit(.auth(command, by: by), deadline: deadline, token: token)
    }

    private func enable(_ call: CallReference) {
        guard let auth else { return }
        change(.enable(secret: Bytes(auth.crypto.random(AuthLimits.secretBytes))), call)
    }

    private func onUserAdd(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        let fields = try TextFields(message, opaque: [3])
        guard !fields[1].isEmpty else { throw EtcdError.userEmpty.failure }
        if try NumberFields(fields[3])[1] != 0 {
            return change(.userAdd(fields[1], hash: nil), call)
        }
        try hash(fields[2], call) { .userAdd(fields[1], hash: $0) }
    }

    private func onChangePassword(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        let fields = try TextFields(message)
        // As in etcd: no password fits it from now on.
        if fields[2].isEmpty { return change(.userChangePassword(fields[1], hash: .empty), call) }
        try hash(fields[2], call) { .userChangePassword(fields[1], hash: $0) }
    }

    private func onGrantPermission(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        let fields = try TextFields(message, opaque: [2])
        guard fields.has(2) else { throw EtcdError.permissionNotGiven.failure }
        let inner = try TextFields(fields[2], opaque: [2, 3])
        let number = try NumberFields(fields[2])[1]
        guard let kind = UInt8(exactly: number).flatMap(Permission.Kind.init(rawValue:)) else {
            throw EtcdError.invalidAuthManagement.failure
        }
        let range = KeyRange(key: inner[2], end: inner[3])
        change(.roleGrantPermission(fields[1], Permission(kind, range)), call)
    }

    private func hash(
        _ password: Bytes, _ call: CallReference, _ command: @escaping (Bytes) -> AuthCommand
    ) throws(CallFailure) {
        try check(password)
        guard let auth, let (token, _) = wait(call, as: .hashing) else { return }
        let isTaken = auth.crypto.hash(password) { [weak self] hash in
            guard let self, pending.take(token) != nil else { return }
            guard let hash else {
                return fail(
                    call, CallFailure(status: .internal, text: "polder: bcrypt does not work here"))
            }
            change(command(hash), call)
        }
        if !isTaken {
            _ = pending.take(token)
            throw EtcdError.tooManyRequests.failure
        }
    }

    private func check(_ password: Bytes) throws(CallFailure) {
        guard password.count <= passwordBytesMax else {
            throw CallFailure(
                status: .unknown, text: "bcrypt: password length exceeds 72 bytes")
        }
        guard !password.slice.contains(0) else {
            throw CallFailure(
                status: .invalidArgument, text: "polder: a password has no zero bytes")
        }
    }

    // MARK: Questions

    private func ask(_ query: AuthQuery, _ call: CallReference) {
        readIndex(call, linearizable: true, as: .authRead(query))
    }

    func read(
        _ query: AuthQuery, _ index: ReadIndex, _ call: CallReference
    ) throws(CallFailure) -> [UInt8] {
        var builder = MessageBuilder(headers.at(index.revision))
        switch query {
        case .status:
            builder.field(2, UInt64(authState.isEnabled ? 1 : 0))
            builder.field(3, authState.revision)
        case .user(let name):
            try require(call) { user, _ in user == name }
            guard let user = authState.users[name] else { throw EtcdError.userNotFound.failure }
            for role in user.roles { builder.message(2, role.array) }
        case .users:
            try requireRoot(call)
            for name in authState.users.keys.sorted() { builder.message(2, name.array) }
        case .role(let name):
            try require(call) { _, roles in roles.contains(name) }
            guard let permissions = authState.roles[name] else {
                throw EtcdError.roleNotFound.failure
            }
            let all =
                name == AuthState.root
                ? [Permission(.readWrite, KeyRange(key: .empty, end: Bytes([0])))] : permissions
            for permission in all {
                builder.message(2) { inner in
                    inner.field(1, UInt64(permission.kind.rawValue))
                    inner.field(2, permission.range.key)
                    inner.field(3, permission.range.end)
                }
            }
        case .roles:
            try requireRoot(call)
            for name in authState.roles.keys.sorted() { builder.message(2, name.array) }
        }
        return builder.bytes
    }

    /// Root, or somebody who asks about what is his.
    private func require(
        _ call: CallReference, _ isOwn: (_ user: Bytes, _ roles: [Bytes]) -> Bool
    ) throws(CallFailure) {
        guard authState.isEnabled, let open = calls[call] else { return }
        let session = try identify(open)
        do throws(CallFailure) {
            try requireRoot(session)
        } catch {
            guard let user = authState.users[session.user], isOwn(session.user, user.roles) else {
                throw error
            }
        }
    }

    // MARK: Authenticate

    private func authenticate(_ attempt: Authentication, _ call: CallReference) {
        readIndex(call, linearizable: true, as: .authenticate(attempt))
    }

    /// With users that are as new as the call.
    func onReadIndex(for attempt: Authentication, _ call: CallReference) throws(CallFailure) {
        guard let auth, authState.isEnabled else { throw EtcdError.authNotEnabled.failure }
        guard let hash = authState.users[attempt.name]?.hash, !hash.isEmpty,
            !attempt.password.slice.contains(0)
        else { throw EtcdError.authFailed.failure }
        guard let (token, _) = wait(call, as: .hashing) else { return }
        let isTaken = auth.crypto.check(attempt.password, against: hash) { [weak self] isRight in
            guard let self, pending.take(token) != nil else { return }
            finish(attempt, call, isRight: isRight, hash: hash)
        }
        if !isTaken {
            _ = pending.take(token)
            throw EtcdError.tooManyRequests.failure
        }
    }

    private func finish(
        _ attempt: Authentication, _ call: CallReference, isRight: Bool, hash: Bytes
    ) {
        guard isRight else { return fail(call, EtcdError.authFailed.failure) }
        // The password may have changed while it was checked.
        guard authState.isEnabled, authState.users[attempt.name]?.hash == hash else {
            var again = attempt
            again.attempts += 1
            guard again.attempts < 8 else { return fail(call, EtcdError.authFailed.failure) }
            return authenticate(again, call)
        }
        guard let token = tokens?.make(for: attempt.name, in: authState) else {
            return fail(
                call,
                CallFailure(
                    status: .unknown, text: "auth: token signing attempted with verify-only key"))
        }
        var builder = MessageBuilder(headers.at(node.status.revision))
        builder.field(2, token)
        answer(call, builder.bytes)
    }
}

/// The texts and messages among the fields 1 to 7 of a small request; others are passed over.
struct TextFields {
    private var values = [Bytes?](repeating: nil, count: 8)

    /// `opaque`: fields that are messages or any bytes. The others are texts: what is no UTF-8 would come
    /// back in lists that no client can read.
    init(_ message: Bytes, opaque: Set<UInt32> = []) throws(CallFailure) {
        values = try decoding { () throws(CodecError) in
            var values = [Bytes?](repeating: nil, count: 8)
            var reader = ProtoReader(message)
            while let tag = try reader.tag() {
                if tag & 7 == 2, tag >> 3 < 8 {
                    let value = try reader.bytes()
                    if !opaque.contains(tag >> 3), String(validating: value.slice, as: UTF8.self) == nil {
                        throw CodecError.malformed("string field contains invalid UTF-8")
                    }
                    values[Int(tag >> 3)] = value
                } else {
                    try reader.skip(tag)
                }
            }
            return values
        }
    }
    subscript(field: Int) -> Bytes { values[field] ?? .empty }
    func has(_ field: Int) -> Bool { values[field] != nil }
}
