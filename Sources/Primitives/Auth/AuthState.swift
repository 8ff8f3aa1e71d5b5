/// A region's users, roles and permissions: a function of the directory's log, the same on every node.
/// Changes are those of etcd's auth store, in its order of checks; none of them takes a revision of
/// the keys.
public struct AuthState: Equatable, Sendable {
    public struct User: Equatable, Sendable {
        /// nil: no password; an empty one fits no password.
        public var hash: Bytes?
        /// In order.
        public var roles: [Bytes] = []
        /// The auth revision at which the user or the password came: older tokens are void.
        public var since: UInt64

        public init(hash: Bytes?, roles: [Bytes] = [], since: UInt64) {
            self.hash = hash
            self.roles = roles
            self.since = since
        }
        public var isRoot: Bool { roles.contains(AuthState.root) }
    }

    /// The user who must be there before authentication is enabled, and the role that may do everything.
    public static let root = Bytes("root")

    public internal(set) var isEnabled = false
    /// etcd's revision of the auth store.
    public internal(set) var revision: UInt64 = 1
    /// Rises with every entry that changed anything, enabling included.
    public internal(set) var version: UInt64 = 0
    /// Rises with every entry after which something may be forbidden that was allowed: requests carry the
    /// one that they were checked under, and leaders refuse lower ones than they have heard of.
    public internal(set) var fence: UInt64 = 0
    /// `revision` when authentication was last enabled: tokens of earlier periods are void.
    public internal(set) var enabledSince: UInt64 = 0
    public internal(set) var secret = Bytes.empty
    public internal(set) var users: [Bytes: User] = [:]
    /// Permissions in order of their keys; those of one key in the order in which they came.
    public internal(set) var roles: [Bytes: [Permission]] = [:]

    public init() {}

    /// What an applied command has changed, for the store.
    public enum Change: Hashable, Sendable {
        case scalars
        case user(Bytes)
        case role(Bytes)
    }

    /// `by`: who asks; nil: nobody in particular, as is right while authentication is off. Checked
    /// here once more, where all changes have one order.
    public mutating func apply(
        _ command: AuthCommand, by: Bytes?, changed: inout [Change]
    ) throws(AuthError) {
        if isEnabled {
            guard let by, !by.isEmpty else { throw .userEmpty }
            guard let user = users[by] else { throw .userNotFound }
            guard user.isRoot else { throw .permissionDenied }
        }
        let countBefore = changed.count
        switch command {
        case .enable(let secret): try enable(secret, &changed)
        case .disable:
            if isEnabled {
                isEnabled = false
                secret = .empty
                commit(&changed)
            }
        case .userAdd(let name, let hash): try addUser(name, hash, &changed)
        case .userDelete(let name):
            if isEnabled, name == Self.root { throw .invalidManagement }
            guard users.removeValue(forKey: name) != nil else { throw .userNotFound }
            changed.append(.user(name))
            commit(&changed)
        case .userChangePassword(let name, let hash):
            guard let user = users[name] else { throw .userNotFound }
            commit(&changed)
            users[name] = User(
                hash: user.hash == nil ? nil : hash, roles: user.roles, since: revision)
            changed.append(.user(name))
        case .userGrantRole(let name, let role): try grantRole(name, role, &changed)
        case .userRevokeRole(let name, let role): try revokeRole(name, role, &changed)
        case .roleAdd(let name):
            if name.isEmpty { throw .roleEmpty }
            if roles[name] != nil { throw .roleExists }
            guard roles.count < AuthLimits.rolesMax, name.count <= AuthLimits.nameBytesMax else {
                throw .tooMany
            }
            roles[name.compact()] = []
            changed.append(.role(name))
            commit(&changed)
        case .roleDelete(let name): try deleteRole(name, &changed)
        case .roleGrantPermission(let name, let permission):
            try grantPermission(name, permission, &changed)
        case .roleRevokePermission(let name, let range):
            guard var permissions = roles[name] else { throw .roleNotFound }
            guard let i = permissions.firstIndex(where: { $0.range == range }) else {
                throw .permissionNotGranted
            }
            permissions.remove(at: i)
            roles[name] = permissions
            changed.append(.role(name))
            commit(&changed)
        }
        guard changed.count > countBefore else { return }
        version += 1
        if isEnabled, command.restricts { fence += 1 }
    }

    private mutating func commit(_ changed: inout [Change]) {
        revision += 1
        changed.append(.scalars)
    }

    /// Takes no auth revision, as in etcd; a second time changes nothing.
    private mutating func enable(_ secret: Bytes, _ changed: inout [Change]) throws(AuthError) {
        if isEnabled { return }
        guard let user = users[Self.root] else { throw .rootUserMissing }
        guard user.isRoot else { throw .rootRoleMissing }
        isEnabled = true
        enabledSince = revision
        self.secret = secret.compact()
        changed.append(.scalars)
    }

    private mutating func addUser(
        _ name: Bytes, _ hash: Bytes?, _ changed: inout [Change]
    ) throws(AuthError) {
        if name.isEmpty { throw .userEmpty }
        if users[name] != nil { throw .userExists }
        guard users.count < AuthLimits.usersMax, name.count <= AuthLimits.nameBytesMax else {
            throw .tooMany
        }
        commit(&changed)
        users[name.compact()] = User(hash: hash?.compact(), since: revision)
        changed.append(.user(name))
    }

    private mutating func grantRole(
        _ name: Bytes, _ role: Bytes, _ changed: inout [Change]
    ) throws(AuthError) {
        guard var user = users[name] else { throw .userNotFound }
        // The role root need not have been added.
        if role != Self.root, roles[role] == nil { throw .roleNotFound }
        if user.roles.contains(role) { return }
        guard user.roles.count < AuthLimits.rolesOfUserMax else { throw .tooMany }
        let at = user.roles.firstIndex { $0 > role } ?? user.roles.count
        user.roles.insert(role.compact(), at: at)
        users[name] = user
        changed.append(.user(name))
        commit(&changed)
    }

    private mutating func revokeRole(
        _ name: Bytes, _ role: Bytes, _ changed: inout [Change]
    ) throws(AuthError) {
        if isEnabled, name == Self.root, role == Self.root { throw .invalidManagement }
        guard var user = users[name] else { throw .userNotFound }
        guard let i = user.roles.firstIndex(of: role) else { throw .roleNotGranted }
        user.roles.remove(at: i)
        users[name] = user
        changed.append(.user(name))
        commit(&changed)
    }

    private mutating func deleteRole(_ name: Bytes, _ changed: inout [Change]) throws(AuthError) {
        if isEnabled, name == Self.root { throw .invalidManagement }
        guard roles.removeValue(forKey: name) != nil else { throw .roleNotFound }
        changed.append(.role(name))
        for user in users.keys.sorted() {
            guard let i = users[user]?.roles.firstIndex(of: name) else { continue }
            users[user]?.roles.remove(at: i)
            changed.append(.user(user))
        }
        commit(&changed)
    }

    private mutating func grantPermission(
        _ name: Bytes, _ permission: Permission, _ changed: inout [Change]
    ) throws(AuthError) {
        guard var permissions = roles[name] else { throw .roleNotFound }
        guard !permission.range.key.isEmpty, !permission.range.isEmpty else {
            throw .invalidManagement
        }
        if let i = permissions.firstIndex(where: { $0.range == permission.range }) {
            permissions[i].kind = permission.kind
        } else {
            guard permissions.count < AuthLimits.permissionsMax else { throw .tooMany }
            let own = Permission(
                permission.kind,
                KeyRange(key: permission.range.key.compact(), end: permission.range.end.compact()))
            let at = permissions.firstIndex { $0.range.key > own.range.key } ?? permissions.count
            permissions.insert(own, at: at)
        }
        roles[name] = permissions
        changed.append(.role(name))
        commit(&changed)
    }
}

// MARK: - Records

extension AuthState {
    public func encodedScalars() -> Bytes {
        var writer = ByteWriter(capacity: 64)
        writer.byte(1)
        writer.bool(isEnabled)
        writer.varint(revision)
        writer.varint(version)
        writer.varint(fence)
        writer.varint(enabledSince)
        writer.bytes(secret)
        return Bytes(writer.bytes)
    }

    public mutating func restoreScalars(_ r: inout ByteReader) throws(DecodingError) {
        let format = try r.byte()
        guard format == 1 else { throw DecodingError("auth record version \(format)") }
        isEnabled = try r.bool()
        revision = try r.varint()
        version = try r.varint()
        fence = try r.varint()
        enabledSince = try r.varint()
        secret = try r.bytes().compact()
    }

    /// nil: there is no such user.
    public func encodedUser(_ name: Bytes) -> Bytes? {
        guard let user = users[name] else { return nil }
        var writer = ByteWriter(capacity: 96)
        writer.bool(user.hash != nil)
        if let hash = user.hash { writer.bytes(hash) }
        writer.varint(user.since)
        writer.varint(user.roles.count)
        for role in user.roles { writer.bytes(role) }
        return Bytes(writer.bytes)
    }

    public mutating func restoreUser(_ name: Bytes, _ r: inout ByteReader) throws(DecodingError) {
        let hash = try r.bool() ? try r.bytes().compact() : nil
        var user = User(hash: hash, since: try r.varint())
        for _ in 0..<(try r.count()) { user.roles.append(try r.bytes().compact()) }
        users[name.compact()] = user
    }

    /// nil: there is no such role.
    public func encodedRole(_ name: Bytes) -> Bytes? {
        guard let permissions = roles[name] else { return nil }
        var writer = ByteWriter(capacity: 64)
        writer.varint(permissions.count)
        for permission in permissions { writer.permission(permission) }
        return Bytes(writer.bytes)
    }

    public mutating func restoreRole(_ name: Bytes, _ r: inout ByteReader) throws(DecodingError) {
        var permissions: [Permission] = []
        for _ in 0..<(try r.count(atLeast: 3)) {
            let permission = try r.permission()
            permissions.append(
                Permission(
                    permission.kind,
                    KeyRange(
                        key: permission.range.key.compact(), end: permission.range.end.compact())))
        }
        roles[name.compact()] = permissions
    }
}
