/// A change of a region's users, roles and permissions, as the directory's log holds it. Everything
/// that takes time or chance is done before: passwords are hashes, the secret is drawn.
///
/// Names are bytes, not strings: two spellings of one letter are two names, as in etcd.
public enum AuthCommand: Hashable, Sendable {
    /// The secret signs the simple tokens of this period.
    case enable(secret: Bytes)
    case disable
    /// nil: a user without a password, known by certificate only.
    case userAdd(Bytes, hash: Bytes?)
    case userDelete(Bytes)
    case userChangePassword(Bytes, hash: Bytes)
    case userGrantRole(Bytes, role: Bytes)
    case userRevokeRole(Bytes, role: Bytes)
    case roleAdd(Bytes)
    case roleDelete(Bytes)
    case roleGrantPermission(Bytes, Permission)
    case roleRevokePermission(Bytes, KeyRange)
}

extension AuthCommand {
    /// Can it take a permission from anybody?
    public var restricts: Bool {
        switch self {
        case .enable, .userDelete, .userChangePassword, .userRevokeRole, .roleDelete,
            .roleRevokePermission:
            true
        // May replace reading and writing by reading.
        case .roleGrantPermission: true
        case .disable, .userAdd, .userGrantRole, .roleAdd: false
        }
    }
}

/// What a role may do with a range of keys.
public struct Permission: Hashable, Sendable {
    /// etcd's numbers (authpb.Permission.Type).
    public enum Kind: UInt8, Sendable, CaseIterable { case read = 0, write, readWrite }
    public var kind: Kind
    public var range: KeyRange

    public init(_ kind: Kind, _ range: KeyRange) {
        self.kind = kind
        self.range = range
    }

    public var reads: Bool { kind != .write }
    public var writes: Bool { kind != .read }
}

/// Why a change is refused. Decided where the log is applied, so all replicas agree.
public enum AuthError: UInt8, Error, Hashable, Sendable, CaseIterable {
    case rootUserMissing = 1
    case rootRoleMissing
    case userExists
    case userEmpty
    case userNotFound
    case roleExists
    case roleEmpty
    case roleNotFound
    case roleNotGranted
    case permissionNotGranted
    case permissionDenied
    case invalidManagement
    /// More users, roles or permissions than `AuthLimits` allows.
    case tooMany
}

public enum AuthLimits {
    public static let usersMax = 100_000
    public static let rolesMax = 100_000
    /// Of one role; its record is rewritten with every change.
    public static let permissionsMax = 10_000
    public static let rolesOfUserMax = 10_000
    public static let nameBytesMax = 4_096
    public static let secretBytes = 32
}

extension ByteWriter {
    public mutating func permission(_ permission: Permission) {
        byte(permission.kind.rawValue)
        keyRange(permission.range)
    }

    public mutating func authCommand(_ command: AuthCommand) {
        switch command {
        case .enable(let secret):
            byte(1)
            bytes(secret)
        case .disable: byte(2)
        case .userAdd(let name, let hash):
            byte(3)
            bytes(name)
            bool(hash != nil)
            if let hash { bytes(hash) }
        case .userDelete(let name):
            byte(4)
            bytes(name)
        case .userChangePassword(let name, let hash):
            byte(5)
            bytes(name)
            bytes(hash)
        case .userGrantRole(let name, let role):
            byte(6)
            bytes(name)
            bytes(role)
        case .userRevokeRole(let name, let role):
            byte(7)
            bytes(name)
            bytes(role)
        case .roleAdd(let name):
            byte(8)
            bytes(name)
        case .roleDelete(let name):
            byte(9)
            bytes(name)
        case .roleGrantPermission(let name, let permission):
            byte(10)
            bytes(name)
            self.permission(permission)
        case .roleRevokePermission(let name, let range):
            byte(11)
            bytes(name)
            keyRange(range)
        }
    }
}

extension ByteReader {
    public mutating func permission() throws(DecodingError) -> Permission {
        let tag = try byte()
        guard let kind = Permission.Kind(rawValue: tag) else { throw DecodingError("permission \(tag)") }
        return Permission(kind, try keyRange())
    }

    public mutating func authCommand() throws(DecodingError) -> AuthCommand {
        switch try byte() {
        case 1: return .enable(secret: try bytes())
        case 2: return .disable
        case 3:
            let name = try bytes()
            return .userAdd(name, hash: try bool() ? try bytes() : nil)
        case 4: return .userDelete(try bytes())
        case 5: return .userChangePassword(try bytes(), hash: try bytes())
        case 6: return .userGrantRole(try bytes(), role: try bytes())
        case 7: return .userRevokeRole(try bytes(), role: try bytes())
        case 8: return .roleAdd(try bytes())
        case 9: return .roleDelete(try bytes())
        case 10: return .roleGrantPermission(try bytes(), try permission())
        case 11: return .roleRevokePermission(try bytes(), try keyRange())
        case let tag: throw DecodingError("auth command \(tag)")
        }
    }
}
