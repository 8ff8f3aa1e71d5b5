package import Primitives

/// When leases homed in a partition run out, at its registered leader. Soft state: a new leader begins with
/// what its log says of each (`Partition+Leases`, protocol-rules.md S11). The clock stands still while the
/// sequencer is silent, since nobody could renew then.
package struct LeaseClock: Sendable {
    private var deadlines: [LeaseID: Instant] = [:]
    /// No lease ends before.
    private var lookAt = Instant.never
    private var lastContact = Instant.zero
    private var revoking: [LeaseID: Instant] = [:]
    private var renewing: Set<LeaseID> = []

    package init() {}

    package mutating func start(_ lease: LeaseID, ttlSeconds: Int64, at now: Instant) {
        start(lease, until: now.advanced(by: .seconds(UInt64(max(0, ttlSeconds)))))
    }

    package mutating func start(_ lease: LeaseID, until deadline: Instant) {
        deadlines[lease] = deadline
        revoking[lease] = nil
        renewing.remove(lease)
        lookAt = min(lookAt, deadline)
    }

    package func has(_ lease: LeaseID) -> Bool { deadlines[lease] != nil }

    /// A renewal is in the log's pipeline: until it is answered the lease has no checkpoints.
    package mutating func renewSoon(_ lease: LeaseID) { renewing.insert(lease) }

    /// What is left of each in whole seconds, rounded up: more than a client can count on.
    package func remaining(at now: Instant) -> [(lease: LeaseID, seconds: Int64)] {
        deadlines.compactMap { lease, deadline in
            renewing.contains(lease)
                ? nil : (lease, Int64((deadline.since(now).nanoseconds + 999_999_999) / 1_000_000_000))
        }
    }

    /// Their home has moved, and their time goes on there.
    mutating func handOver(_ moves: (LeaseID) -> Bool) -> LeaseClock {
        var other = LeaseClock()
        other.lastContact = lastContact
        for (lease, deadline) in deadlines where moves(lease) {
            other.deadlines[lease] = deadline
            other.lookAt = min(other.lookAt, deadline)
        }
        for lease in other.deadlines.keys { stop(lease) }
        return other
    }

    package mutating func stop(_ lease: LeaseID) {
        deadlines[lease] = nil
        revoking[lease] = nil
        renewing.remove(lease)
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
