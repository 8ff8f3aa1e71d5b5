import Node
import Primitives

/// Users: the door of each node, which checks with the node's own copy as the facade does, and an operator
/// for each region who changes what they may do.
extension World {
    /// The question about newer permissions has a token of its own.
    static let looks: UInt64 = 1 << 58
    static let userNames: [Bytes] = ["root", "u1", "u2"]

    /// False: it waits for another look, or is refused.
    func admits(_ i: Int, at address: NodeAddress) -> Bool {
        guard let copy = nodes[address]?.users else { return true }
        operations[i].usersVersion = copy.version
        guard let user = operations[i].user else { return true }
        operations[i].fence = copy.fence
        if copy.permits(operations[i].call, to: user) { return true }
        if operations[i].isFresh {
            finish(UInt64(i) + 1, .failed(.authChanged), at: address)
        } else {
            lookAgain(i, at: address)
        }
        return false
    }

    /// What an old copy denies may be allowed by now; what a leader refuses was checked too early.
    func lookAgain(_ i: Int, at address: NodeAddress) {
        guard let node = nodes[address] else { return }
        operations[i].isFresh = true
        say("\(operations[i].brief): another look, after version \(operations[i].usersVersion)")
        let deadline = node.clock.instant(at: operations[i].invokedAt.advanced(by: patience))
        deliver(
            .readIndex(linearizable: true, token: Self.looks | (UInt64(i) + 1), deadline: deadline),
            to: address)
    }

    func onLook(_ token: UInt64, _ answer: Result<ReadPoint, RequestError>, at address: NodeAddress) {
        guard let i = index(of: token), operations[i].returnedAt == .never else { return }
        switch answer {
        case .failure(let error): finish(token, .failed(error), at: address)
        case .success: send(i, to: address)
        }
    }

    func learn(_ users: AuthState, at address: NodeAddress) {
        if let known = nodes[address]?.users.version, known != users.version {
            say("\(address) knows version \(users.version) of the users, fence \(users.fence)")
        }
        nodes[address]?.users = users
        check { () throws(Violation) in try self.users[address.region]?.note(users, at: queue.now) }
    }

    /// After its outcome is known.
    func checkUsers(_ operation: Operation, at address: NodeAddress) {
        switch (operation.call, operation.outcome) {
        case (.request(.auth(let command, _)), .response(.auth(nil, let revision))):
            users[address.region]?.settle(
                command, revision: revision, invoked: operation.invokedAt, at: queue.now)
            let version = users[address.region]?.settledVersion ?? 0
            say("version \(version) of the users is settled")
            usersTold[address.region] = max(usersTold[address.region] ?? 0, version)
        // A change that nobody was told of yet may be known here and not there, in turn (docs/protocol.md).
        case (.read(let query), .range) where !query.serializable:
            if operation.usersVersion < operation.usersToldBefore {
                fail(
                    Violation(
                        "what was told as done is not undone",
                        "\(operation.brief): \(operation.usersVersion), told before \(operation.usersToldBefore)"))
            }
        default: break
        }
    }

    /// Who may no longer see it must not be shown it.
    func checkUsers(shown frontier: Revision, at address: NodeAddress) {
        guard workload.hasUsers, let node = nodes[address] else { return }
        let due = users[address.region]?.lowest(shown: frontier) ?? 0
        if node.users.version < due {
            fail(
                Violation(
                    "a frontier is shown with the users of its time",
                    "\(address) shows \(frontier) with version \(node.users.version), settled \(due)"))
        }
    }
}

extension Operation {
    var changesUsers: Bool {
        if case .request(.auth) = call { return true }
        return false
    }
}

/// Makes users and roles, enables authentication, and goes on changing what they may do.
struct UserOperator {
    private var step = 0
    private var granted: [(role: Bytes, range: KeyRange)] = []
    private var believesEnabled = false
    private var last: AuthCommand?

    private static let roles: [Bytes] = ["r1", "r2"]
    private static let users: [Bytes] = ["u1", "u2"]
    private static let secret = Bytes("secret")
    private static let beginning: [AuthCommand] = [
        .userAdd(AuthState.root, hash: nil), .userGrantRole(AuthState.root, role: AuthState.root),
        .roleAdd("r1"), .roleAdd("r2"), .userAdd("u1", hash: nil), .userAdd("u2", hash: nil),
        .userGrantRole("u1", role: "r1"), .userGrantRole("u2", role: "r2"),
        .roleGrantPermission("r1", Permission(.readWrite, Workload.allKeys)),
        .roleGrantPermission("r2", Permission(.readWrite, Workload.allKeys)), .enable(secret: secret),
    ]

    mutating func next(_ workload: Workload, _ random: inout SplitMix) -> AuthCommand {
        let command = step < Self.beginning.count ? Self.beginning[step] : change(workload, &random)
        last = command
        return command
    }

    private mutating func change(_ workload: Workload, _ random: inout SplitMix) -> AuthCommand {
        if !believesEnabled, random.chance(1, in: 2) { return .enable(secret: Self.secret) }
        let role = random.pick(Self.roles), user = random.pick(Self.users)
        switch random.below(20) {
        case 0..<5:
            let key = workload.key(&random)
            let range = random.pick([
                Workload.allKeys, KeyRange(key: key), KeyRange(key: "k/", end: key.successor),
                KeyRange(key: key, end: "k0"),
            ])
            granted.append((role, range))
            if granted.count > 16 { granted.removeFirst() }
            return .roleGrantPermission(role, Permission(random.pick(Permission.Kind.allCases), range))
        case 5..<9:
            let other = granted.isEmpty ? (role: role, range: Workload.allKeys) : random.pick(granted)
            return .roleRevokePermission(other.role, other.range)
        case 9..<13: return .userGrantRole(user, role: role)
        case 13..<16: return .userRevokeRole(user, role: role)
        case 16: return random.chance(1, in: 3) ? .userDelete(user) : .userAdd(user, hash: nil)
        case 17: return random.chance(1, in: 3) ? .roleDelete(role) : .roleAdd(role)
        case 18: return .userAdd(user, hash: nil)
        default: return random.chance(1, in: 3) ? .disable : .userChangePassword(user, hash: "hash")
        }
    }

    mutating func learn(from outcome: Operation.Outcome) {
        guard case .response(.auth(let error, _)) = outcome else { return }
        step += 1
        guard error == nil, let last else { return }
        if case .enable = last { believesEnabled = true }
        if case .disable = last { believesEnabled = false }
    }
}
