import Primitives

/// How much longer than its time a lease may live: what has gone wrong meanwhile, and a little.
package struct LeaseAllowance: Sendable {
    /// What each fault may cost, and when it happened.
    let faults: [(at: Instant, cost: TimeSpan)]
    /// Until when a request that nobody answered may still be carried out.
    let patience: TimeSpan
    /// Checkpoints are in whole seconds, an expiry that failed is tried again after two.
    private static let always = TimeSpan.milliseconds(5_000)

    init(faults: [(at: Instant, cost: TimeSpan)], patience: TimeSpan) {
        self.faults = faults
        self.patience = patience
    }

    /// In [from, to].
    func granted(from: Instant, to: Instant) -> TimeSpan {
        faults.reduce(Self.always) { sum, fault in
            fault.at <= to && fault.at.advanced(by: fault.cost) >= from ? sum + fault.cost : sum
        }
    }
}

/// Leases in one region's history: an acknowledged keep-alive (or grant) at `t` implies no expiry before
/// `t + TTL`, and the end comes soon after the time is up; and what may fail does so only for a reason.
struct LeaseChecker {
    private struct Touch {
        let invokedAt: Instant
        let ttlSeconds: Int64
    }
    /// Without one nobody says how late an end may be.
    private let allowance: LeaseAllowance?
    /// When it was last renewed, at the latest.
    private var lastTouch: [LeaseID: Instant] = [:]
    private var touches: [LeaseID: [Touch]] = [:]
    /// A revocation that may have happened: from then on the lease's end says nothing.
    private var revokedFrom: [LeaseID: Instant] = [:]

    init(_ operations: [Operation], allowance: LeaseAllowance? = nil) {
        self.allowance = allowance
        for operation in operations {
            noteTouch(operation)
            switch (operation.call, operation.outcome) {
            case (.request(.leaseGrant), .response(.leaseGranted(let lease, let ttl, _))),
                (.request(.leaseKeepAlive), .response(.leaseKeptAlive(let lease, let ttl, _))):
                if ttl > 0 {
                    touches[lease, default: []].append(
                        Touch(invokedAt: operation.invokedAt, ttlSeconds: ttl))
                }
            case (.request(.leaseRevoke(let lease)), let outcome):
                if case .nothing = outcome { continue }
                revokedFrom[lease] = min(revokedFrom[lease] ?? .never, operation.invokedAt)
            default: continue
            }
        }
    }

    private mutating func noteTouch(_ operation: Operation) {
        guard let allowance else { return }
        let touched: LeaseID
        switch operation.call {
        case .request(.leaseGrant(let lease, _)), .request(.leaseKeepAlive(let lease)): touched = lease
        case .request, .read: return
        }
        var at = operation.returnedAt
        switch operation.outcome {
        case .nothing, .failed(.leaseNotFound), .failed(.leaseExists): return
        case .unknown, .failed: at = operation.invokedAt.advanced(by: allowance.patience)
        case .response, .range: break
        }
        lastTouch[touched] = max(lastTouch[touched] ?? .zero, at)
    }

    private func checkEnd(of lease: LeaseID, _ ttlSeconds: Int64, seen: Instant) -> Violation? {
        // Clocks may run wrong by as much as the protocol allows for.
        let ttl = TimeSpan(nanoseconds: UInt64(ttlSeconds) * 1_010_000_000)
        guard let allowance, let last = lastTouch[lease], last < seen else { return nil }
        let late = seen.since(last.advanced(by: ttl))
        let granted = allowance.granted(from: last, to: seen)
        if late <= granted { return nil }
        return Violation(
            "a lease ends when its time is up",
            "lease \(lease) touched at \(last) for \(ttlSeconds) s, gone at \(seen): \(late) late, may be \(granted)")
    }

    /// The keys of `lease` were deleted by nobody's request, and that was first seen at `seen`.
    func check(expiryOf lease: LeaseID, seen: Instant, at revision: Revision) -> Violation? {
        if let revoked = revokedFrom[lease], revoked <= seen { return nil }
        guard let touched = touches[lease] else { return nil }
        for touch in touched where touch.invokedAt <= seen {
            // Clocks may run wrong by as much as the protocol allows for.
            let ttl = TimeSpan(nanoseconds: UInt64(touch.ttlSeconds) * 990_000_000)
            if touch.invokedAt.advanced(by: ttl) > seen {
                return Violation(
                    "a lease that was kept alive does not expire",
                    "lease \(lease) touched at \(touch.invokedAt) for \(touch.ttlSeconds) s, gone at \(seen) (revision \(revision))")
            }
        }
        return touched.first.flatMap { checkEnd(of: lease, $0.ttlSeconds, seen: seen) }
    }
}

/// Errors are answers too: each only where the history gives a reason for it.
struct ErrorChecker {
    /// The highest revision that anybody asked to compact.
    private let compacted: Revision
    /// From then on nothing is wrong that a client could see.
    private let healthyFrom: Instant

    init(_ operations: [Operation], healthyFrom: Instant) {
        var compacted = Revision.zero
        for operation in operations {
            if case .request(.compact(let revision)) = operation.call {
                compacted = max(compacted, revision)
            }
        }
        self.compacted = compacted
        self.healthyFrom = healthyFrom
    }

    func check(_ operation: Operation) -> Violation? {
        guard case .failed(let error) = operation.outcome else { return nil }
        if isExplained(error, operation) { return nil }
        return Violation("an error has its reason", "\(operation.brief): \(error)")
    }

    private func isExplained(_ error: RequestError, _ operation: Operation) -> Bool {
        switch error {
        case .noLeader, .timedOut, .stopped: return operation.returnedAt < healthyFrom
        case .keyNotFound:
            if case .request(.transaction(let t)) = operation.call { return Footprints.keeps(t) }
            return false
        case .tooManyRequests, .requestTooLarge, .noSpace, .leaseTTLTooLarge, .elsewhere: return false
        case .compacted:
            switch operation.call {
            case .read(let query): return query.revision > .zero && query.revision < compacted
            case .request(.compact(let revision)): return revision <= compacted
            case .request: return false
            }
        case .futureRevision:
            switch operation.call {
            case .read(let query): return query.revision > operation.toldBefore
            case .request(.compact(let revision)): return revision > operation.toldBefore
            case .request: return false
            }
        case .leaseNotFound:
            switch operation.call {
            case .request(.transaction(let t)): return !Footprints.leases(t).isEmpty
            case .request(.leaseRevoke), .request(.leaseKeepAlive), .request(.leaseTimeToLive):
                return true
            case .request, .read: return false
            }
        case .leaseExists:
            if case .request(.leaseGrant) = operation.call { return true }
            return false
        // Whether he may: `UserHistory`.
        case .authChanged: return operation.user != nil
        case .cursorMismatch, .corrupt: return false
        // Of the members: no client asks.
        case .memberNotFound, .memberURLsInvalid, .peerURLExists, .memberNotLearner, .learnerNotReady,
            .tooManyLearners, .notEnoughStarted, .memberAlive, .buildTooOld,
            .partitionNotFound, .cutOutside, .splitUnderWay, .tooManyPartitions, .regionTooOld, .replicasOutside,
            .membersChanging:
            return false
        }
    }
}

private enum Footprints {
    /// A put that needs its key to be there.
    static func keeps(_ transaction: Transaction) -> Bool {
        (transaction.success + transaction.failure).contains { operation in
            switch operation {
            case .put(let put): put.keepsValue || put.keepsLease
            case .transaction(let nested): keeps(nested)
            case .range, .delete: false
            }
        }
    }

    static func leases(_ transaction: Transaction) -> [LeaseID] {
        (transaction.success + transaction.failure).flatMap { operation -> [LeaseID] in
            switch operation {
            case .put(let put): put.lease == .none ? [] : [put.lease]
            case .transaction(let nested): leases(nested)
            case .range, .delete: []
            }
        }
    }
}
