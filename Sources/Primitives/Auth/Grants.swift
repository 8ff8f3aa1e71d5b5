/// What one user may do, computed once for each version of the auth state.
public struct Grants: Equatable, Sendable {
    public let isRoot: Bool
    public let read: KeyIntervals
    public let write: KeyIntervals

    public init(of user: AuthState.User, in state: AuthState) {
        isRoot = user.isRoot
        var reads: [KeyRange] = [], writes: [KeyRange] = []
        if !isRoot {
            for role in user.roles {
                for permission in state.roles[role] ?? [] {
                    if permission.reads { reads.append(permission.range) }
                    if permission.writes { writes.append(permission.range) }
                }
            }
        }
        read = KeyIntervals(reads)
        write = KeyIntervals(writes)
    }

    private init() {
        isRoot = false
        read = KeyIntervals([])
        write = KeyIntervals([])
    }

    /// Nothing at all.
    public static let none = Grants()

    public func mayRead(_ range: KeyRange) -> Bool { isRoot || read.contains(range) }
    public func mayWrite(_ range: KeyRange) -> Bool { isRoot || write.contains(range) }

    /// Both branches, nested transactions, compares, and what is told of earlier values: whoever may
    /// not see one of them could learn of it from which branch was taken.
    public func permits(_ transaction: Transaction) -> Bool {
        if isRoot { return true }
        return transaction.compares.allSatisfy { read.contains($0.range) }
            && transaction.success.allSatisfy(permits) && transaction.failure.allSatisfy(permits)
    }

    private func permits(_ operation: Operation) -> Bool {
        switch operation {
        case .range(let query): read.contains(query.range)
        case .put(let put):
            write.contains(put.key) && (!put.wantsPrevious || read.contains(put.key))
        case .delete(let delete):
            write.contains(delete.range) && (!delete.wantsPrevious || read.contains(delete.range))
        case .transaction(let nested): permits(nested)
        }
    }
}

extension Transaction {
    /// The leases that its puts attach to, on any branch.
    public func forEachLease<E: Error>(_ body: (LeaseID) throws(E) -> Void) throws(E) {
        try Self.forEachLease(in: success, body)
        try Self.forEachLease(in: failure, body)
    }

    private static func forEachLease<E: Error>(
        in operations: [Operation], _ body: (LeaseID) throws(E) -> Void
    ) throws(E) {
        for operation in operations {
            switch operation {
            case .put(let put): if put.lease != .none { try body(put.lease) }
            case .range, .delete: break
            case .transaction(let nested): try nested.forEachLease(body)
            }
        }
    }
}
