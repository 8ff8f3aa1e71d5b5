package import Primitives

/// What a region's nodes have said of its users and roles, version by version, and which changes were
/// told as done: what must be true of them (docs/protocol.md "Users and permissions").
package struct UserHistory {
    /// A change that was told as done: nothing checked before it may show from then on, nor above `revision`.
    private struct Settled {
        let version: UInt64
        let revision: Revision
        let at: Instant
    }

    private var states: [UInt64: AuthState] = [0: AuthState()]
    /// When somebody knew of a version first; both rise.
    private var reached: [(at: Instant, version: UInt64)] = []
    /// In order of time.
    private var settled: [Settled] = []

    package init() {}

    package mutating func note(_ state: AuthState, at now: Instant) throws(Violation) {
        if let known = states[state.version] {
            guard known == state else {
                throw Violation("one history of users", "version \(state.version) is not the same everywhere")
            }
        } else {
            states[state.version] = state
        }
        if state.version > newest { reached.append((now, state.version)) }
    }

    package var newest: UInt64 { reached.last?.version ?? 0 }

    private func newest(at instant: Instant) -> UInt64 {
        reached.last { $0.at <= instant }?.version ?? 0
    }

    /// The answer of a change that was asked for at `invoked`.
    package mutating func settle(
        _ command: AuthCommand, revision: Revision, invoked: Instant, at now: Instant
    ) {
        // What anybody knew before it was asked for came before it: its own version is above.
        let before = newest(at: invoked)
        guard newest > before else { return }
        if command.mayChangeNothing {
            guard newest == before + 1, var state = states[before] else { return }
            var changed: [AuthState.Change] = []
            do throws(AuthError) {
                try state.apply(command, by: AuthState.root, changed: &changed)
            } catch {
                return
            }
            guard state == states[newest] else { return }
        }
        settled.append(Settled(version: before + 1, revision: revision, at: now))
    }

    package var settledVersion: UInt64 { settled.last?.version ?? 0 }

    /// What was told as done before `invoked`, or with a frontier below `revision`.
    private func lowest(_ invoked: Instant, _ revision: Revision) -> UInt64 {
        settled.last { $0.at < invoked || $0.revision < revision }?.version ?? 0
    }

    /// The version that a node has which shows this frontier.
    package func lowest(shown frontier: Revision) -> UInt64 { lowest(.zero, frontier) }

    // MARK: Checks of the whole

    package func check(_ operations: [Operation], timeline: RegionTimeline, region: RegionID) -> [Violation] {
        var violations: [Violation] = []
        for operation in operations {
            guard let user = operation.user else { continue }
            switch operation.outcome {
            case .nothing, .unknown: break
            case .failed(.authChanged):
                let low = lowest(operation.invokedAt, .zero), high = newest(at: operation.returnedAt)
                if !exists(low, high, { !$0.permits(operation.call, to: user) }) {
                    violations.append(
                        Violation(
                            "nobody is refused what he may do",
                            "\(operation.brief) by \(user), versions \(low) to \(high)"))
                }
            case .failed: break
            case .range, .response:
                let revision = operation.revision ?? .zero
                // One that asks nobody is checked with what its node knows, and shows what that may show.
                let low = lowest(operation.isSerializable ? .zero : operation.invokedAt, revision)
                if let violation = check(operation, user, low, newest(at: operation.returnedAt)) {
                    violations.append(violation)
                }
                // Stronger, and whatever the change was: what restricts raises the fence.
                if case .request = operation.call, let fence = states[low]?.fence, operation.fence < fence {
                    violations.append(
                        Violation(
                            "a settled fence holds",
                            "\(operation.brief): checked under \(operation.fence), settled \(fence)"))
                }
            }
        }
        return violations + checkShown(operations, timeline, region)
    }

    private func check(_ operation: Operation, _ user: Bytes, _ low: UInt64, _ high: UInt64) -> Violation? {
        if exists(low, high, { $0.permits(operation.call, to: user) }) { return nil }
        return Violation(
            "nothing is done without permission", "\(operation.brief) by \(user), versions \(low) to \(high)")
    }

    /// What nobody was answered may show all the same; every put's value names its request.
    private func checkShown(
        _ operations: [Operation], _ timeline: RegionTimeline, _ region: RegionID
    ) -> [Violation] {
        var byNumber: [Int: Operation] = [:]
        for operation in operations where operation.user != nil { byNumber[operation.number] = operation }
        var violations: [Violation] = []
        for revision in timeline.revisions {
            for row in timeline.changes[revision] ?? [] where row.origin.region == region {
                // A value that a later put keeps is the earlier one's.
                guard let number = Self.number(in: row.value), let operation = byNumber.removeValue(forKey: number),
                    let user = operation.user
                else { continue }
                let low = lowest(operation.invokedAt, revision)
                let high = newest(at: timeline.firstSeen[revision] ?? .never)
                if let violation = check(operation, user, low, high) { violations.append(violation) }
            }
        }
        return violations
    }

    /// "v12", "w12.3".
    private static func number(in value: Bytes) -> Int? {
        guard value.count > 1, [0x76, 0x77, 0x6E].contains(value[0]) else { return nil }
        var number = 0
        for i in 1..<value.count {
            guard value[i] >= 48, value[i] < 58 else { return i > 1 && value[i] == 46 ? number : nil }
            number = number * 10 + Int(value[i] - 48)
        }
        return number
    }

    /// A version that nobody has told of may be anything.
    private func exists(_ low: UInt64, _ high: UInt64, _ holds: (AuthState) -> Bool) -> Bool {
        guard low <= high else { return true }
        return (low...high).contains { states[$0].map(holds) ?? true }
    }
}

extension AuthState {
    /// As the facade decides; of leases anybody may ask here.
    package func permits(_ call: Operation.Call, to user: Bytes) -> Bool {
        guard isEnabled else { return true }
        guard let found = users[user] else { return false }
        let grants = Grants(of: found, in: self)
        switch call {
        case .read(let query): return grants.mayRead(query.range)
        case .request(.transaction(let transaction)): return grants.permits(transaction)
        case .request(.compact): return grants.mayWrite(.everything)
        case .request(.auth): return grants.isRoot
        case .request: return true
        }
    }
}

extension AuthCommand {
    /// Done a second time it is no error, and nothing has changed.
    fileprivate var mayChangeNothing: Bool {
        switch self {
        case .enable, .disable, .userGrantRole: true
        case .userAdd, .userDelete, .userChangePassword, .userRevokeRole, .roleAdd, .roleDelete,
            .roleGrantPermission, .roleRevokePermission:
            false
        }
    }
}
