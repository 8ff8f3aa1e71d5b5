package import Primitives

/// When leases homed in a partition run out, at its registered leader. Soft state: a new leader counts
/// full TTLs (protocol-rules.md S11). The clock stands still while the sequencer is silent, since
/// nobody could renew then.
package struct LeaseClock: Sendable {
    private var deadlines: [LeaseID: Instant] = [:]
    /// No lease ends before.
    private var lookAt = Instant.never
    private var lastContact = Instant.zero
    private var revoking: [LeaseID: Instant] = [:]

    package init() {}

    package mutating func start(_ lease: LeaseID, ttlSeconds: Int64, at now: Instant) {
        let deadline = now.advanced(by: .seconds(UInt64(max(0, ttlSeconds))))
        deadlines[lease] = deadline
        revoking[lease] = nil
        lookAt = min(lookAt, deadline)
    }

    /// An undone revocation: the lease stands again.
    package mutating func startMissing(_ lease: LeaseID, ttlSeconds: Int64, at now: Instant) {
        if deadlines[lease] == nil { start(lease, ttlSeconds: ttlSeconds, at: now) }
    }

    package mutating func stop(_ lease: LeaseID) {
        deadlines[lease] = nil
        revoking[lease] = nil
    }

    /// It was reported as expired and is about to be revoked: as in etcd, too late to renew.
    package func isEnding(_ lease: LeaseID) -> Bool { revoking[lease] != nil }

    /// nil: no such lease here.
    package func remainingSeconds(_ lease: LeaseID, at now: Instant) -> Int64? {
        deadlines[lease].map { Int64($0.since(now).nanoseconds / 1_000_000_000) }
    }

    /// The sequencer was heard. A silence longer than `stoppedBeyond` did not count for anybody.
    package mutating func contact(at now: Instant, stoppedBeyond: TimeSpan) {
        let silence = now.since(lastContact)
        if lastContact > .zero, silence > stoppedBeyond {
            for (lease, deadline) in deadlines { deadlines[lease] = deadline.advanced(by: silence) }
        }
        lastContact = now
    }

    /// Leases whose time is up, in order; each again after two seconds if it still stands.
    package mutating func expired(at now: Instant, contactMax: TimeSpan) -> [LeaseID] {
        guard now >= lookAt else { return [] }
        guard now.since(lastContact) <= contactMax else {
            lookAt = now.advanced(by: .milliseconds(100))
            return []
        }
        var found: [LeaseID] = []
        var next = Instant.never
        for (lease, deadline) in deadlines {
            if deadline > now {
                next = min(next, deadline)
                continue
            }
            let again = revoking[lease] ?? .zero
            if again <= now {
                found.append(lease)
                revoking[lease] = now.advanced(by: .seconds(2))
            }
            next = min(next, now.advanced(by: .seconds(2)))
        }
        // A scan looks at every lease: never more often than ten times a second.
        lookAt = max(next, now.advanced(by: .milliseconds(100)))
        return found.sorted()
    }

    package var nextLook: Instant { lookAt }
    package var count: Int { deadlines.count }
}
