package import BoltFile
package import Primitives

/// Users and roles, between etcd's messages (authpb.User, authpb.Role) and a region's.
package enum EtcdAuth {
    package static func file(_ auth: AuthState) -> EtcdState.Auth {
        var file = EtcdState.Auth()
        file.isEnabled = auth.isEnabled
        file.revision = auth.revision
        file.users = auth.users.sorted { $0.key < $1.key }.map { ($0.key, message(of: $0.value, named: $0.key)) }
        file.roles = auth.roles.sorted { $0.key < $1.key }.map { ($0.key, message(of: $0.value, named: $0.key)) }
        return file
    }

    private static func message(of user: AuthState.User, named name: Bytes) -> Bytes {
        var w = ByteWriter(capacity: 128)
        w.protobuf(1, name)
        if let hash = user.hash { w.protobuf(2, hash) }
        for role in user.roles { w.protobuf(3, role) }
        // Options: no password.
        if user.hash == nil { w.protobuf(4, Bytes([8, 1])) }
        return Bytes(w.bytes)
    }

    private static func message(of permissions: [Permission], named name: Bytes) -> Bytes {
        var w = ByteWriter(capacity: 64)
        w.protobuf(1, name)
        for permission in permissions {
            var inner = ByteWriter(capacity: 64)
            inner.protobuf(1, Int64(permission.kind.rawValue))
            inner.protobuf(2, permission.range.key)
            inner.protobuf(3, permission.range.end)
            w.protobuf(2, Bytes(inner.bytes))
        }
        return Bytes(w.bytes)
    }

    /// As if the file's users and roles had been made one after the other. `secret` signs simple tokens.
    package static func state(of file: EtcdState.Auth, secret: Bytes) throws(BoltError) -> AuthState {
        var state = AuthState()
        var changed: [AuthState.Change] = []
        func apply(_ command: AuthCommand, _ what: @autoclosure () -> String) throws(BoltError) {
            changed.removeAll(keepingCapacity: true)
            do throws(AuthError) {
                try state.apply(command, by: nil, changed: &changed)
            } catch {
                throw .damaged("\(what()): \(error)")
            }
        }
        for (name, message) in file.roles {
            try apply(.roleAdd(name), "role \(name)")
            for permission in try permissions(message, of: name) {
                try apply(.roleGrantPermission(name, permission), "role \(name)")
            }
        }
        for (name, message) in file.users {
            let (hash, roles) = try user(message, named: name)
            try apply(.userAdd(name, hash: hash), "user \(name)")
            for role in roles { try apply(.userGrantRole(name, role: role), "user \(name)") }
        }
        if file.isEnabled { try apply(.enable(secret: secret), "authentication") }
        return state
    }

    private static func user(
        _ message: Bytes, named name: Bytes
    ) throws(BoltError) -> (hash: Bytes?, roles: [Bytes]) {
        var hash = Bytes.empty, roles: [Bytes] = [], hasNoPassword = false
        do throws(DecodingError) {
            var fields = ProtobufFields(message)
            while let (field, value) = try fields.next() {
                switch (field, value) {
                case (2, .bytes(let bytes)): hash = bytes
                case (3, .bytes(let bytes)): roles.append(bytes)
                case (4, .bytes(let options)):
                    var inner = ProtobufFields(options)
                    while let (field, value) = try inner.next() {
                        if field == 1, case .number(let n) = value { hasNoPassword = n != 0 }
                    }
                default: break
                }
            }
        } catch {
            throw .damaged("user \(name): \(error.what)")
        }
        return (hasNoPassword ? nil : hash, roles)
    }

    private static func permissions(_ message: Bytes, of role: Bytes) throws(BoltError) -> [Permission] {
        var found: [Permission] = []
        do throws(DecodingError) {
            var fields = ProtobufFields(message)
            while let (field, value) = try fields.next() {
                guard field == 2, case .bytes(let permission) = value else { continue }
                var kind: UInt64 = 0, key = Bytes.empty, end = Bytes.empty
                var inner = ProtobufFields(permission)
                while let (field, value) = try inner.next() {
                    switch (field, value) {
                    case (1, .number(let n)): kind = n
                    case (2, .bytes(let bytes)): key = bytes
                    case (3, .bytes(let bytes)): end = bytes
                    default: break
                    }
                }
                guard let kind = UInt8(exactly: kind).flatMap(Permission.Kind.init(rawValue:)) else {
                    throw DecodingError("permission of kind \(kind)")
                }
                found.append(Permission(kind, KeyRange(key: key, end: end)))
            }
        } catch {
            throw .damaged("role \(role): \(error.what)")
        }
        return found
    }
}
