import Primitives

// How much of its time a lease has left is in the log (S11): checkpoints, which hold from the moment at which
// a replica applies them, and after which every renewal is logged before it is answered. So a new leader
// knows the time of every lease that has one. Where renewals are many, they are not logged: those leases
// have no checkpoint, a new leader gives them the whole of their time again, and they get one when half of
// it is over.
extension Partition {
    /// Of one entry; the rest waits for the next second.
    private static let checkpointsMax = 1_000
    /// Renewals a second that are logged. More: less throughput of renewals. Fewer: more leases that a change
    /// of leaders lengthens.
    static let loggedRenewalsMax = 200

    private var isBusyWithRenewals: Bool {
        lead.wasBusyWithRenewals || lead.renewals > Self.loggedRenewalsMax
    }

    /// Once a second.
    mutating func checkpointLeases(at now: Instant, into effects: inout RegionEffects) {
        lead.wasBusyWithRenewals = lead.renewals > Self.loggedRenewalsMax
        lead.renewals = 0
        guard !lead.isYielding else { return }
        var due: [LeaseCheckpoint] = []
        for (lease, left) in lead.leaseClock.remaining(at: now) {
            guard let held = state.leases[lease], !lead.leaseClock.isEnding(lease),
                lead.checkpointing[lease] == nil,
                isDue(left, held)
            else { continue }
            due.append(LeaseCheckpoint(lease: lease, remainingSeconds: left))
        }
        if due.isEmpty { return }
        due.sort { $0.lease < $1.lease }
        if due.count > Self.checkpointsMax { due.removeSubrange(Self.checkpointsMax...) }
        propose(.leaseCheckpoints(due), .other, into: &effects)
        for checkpoint in due { lead.checkpointing[checkpoint.lease] = (lead.proposed, false) }
    }

    /// In steps, for replicas that were not there when the last one was applied.
    private func isDue(_ left: Int64, _ lease: PartitionState.Lease) -> Bool {
        guard let known = lease.remainingSeconds else {
            return !isBusyWithRenewals || left * 2 <= lease.ttlSeconds
        }
        return left + max(1, lease.ttlSeconds / 16) <= known
    }

    /// Before a renewal is answered. `isLogged`: this one has been.
    func mustLogRenewal(of lease: LeaseID, isLogged: Bool) -> Bool {
        guard let held = state.leases[lease], !lead.revoking.contains(lease),
            !lead.leaseClock.isEnding(lease)
        else { return false }
        if Mutation.renewedOverCheckpoint.isOn { return false }
        if let known = held.remainingSeconds, !isLogged || known < held.ttlSeconds { return true }
        guard let pending = lead.checkpointing[lease] else { return false }
        return !(isLogged && pending.isRenewal)
    }

    /// Only when this is decided is the renewal confirmed and answered. The clock is set again at once,
    /// so that no other checkpoint of the old time follows.
    mutating func logRenewal(_ token: UInt64, _ lease: LeaseID, into effects: inout RegionEffects) {
        let whole = isBusyWithRenewals ? nil : state.leases[lease]?.ttlSeconds
        propose(
            .leaseCheckpoints([LeaseCheckpoint(lease: lease, remainingSeconds: whole)]), .item(token),
            into: &effects)
        lead.checkpointing[lease] = (lead.proposed, true)
        lead.leaseClock.renewSoon(lease)
        let number = lead.proposed
        lead.items.change(token) { $0.wasProposed(number: number) }
    }

    // MARK: Every replica

    mutating func count(_ checkpoints: [LeaseCheckpoint], at now: Instant) {
        for checkpoint in checkpoints {
            counted[checkpoint.lease] = checkpoint.remainingSeconds.map {
                now.advanced(by: .seconds(UInt64(max(0, $0))))
            }
        }
    }

    /// After a start, or a snapshot: checkpoints that were applied before count from now on.
    mutating func countLeases(at now: Instant) {
        countsLeases = true
        for (id, lease) in state.leases where lease.remainingSeconds != nil && counted[id] == nil {
            counted[id] = now.advanced(by: .seconds(UInt64(max(0, lease.leftSeconds))))
        }
    }

    /// A leadership begins, or a revocation is undone and its leases stand again.
    mutating func startLeases(at now: Instant) {
        for (id, lease) in state.leases where !lead.leaseClock.has(id) {
            lead.leaseClock.start(id, until: deadline(of: id, lease, at: now))
        }
    }

    /// As long as nobody heard the sequencer nobody could renew; and who could not while nobody led has at
    /// least a second.
    private func deadline(
        of id: LeaseID, _ lease: PartitionState.Lease, at now: Instant
    ) -> Instant {
        let whole = now.advanced(by: .seconds(UInt64(max(0, lease.ttlSeconds))))
        if Mutation.leasesCountAnew.isOn { return whole }
        guard lease.remainingSeconds != nil, let counted = counted[id] else {
            return now.advanced(by: .seconds(UInt64(max(0, lease.leftSeconds))))
        }
        let silence = heardAt > .zero ? now.since(heardAt) : .zero
        let stood = silence > limits.contactMax ? silence : .zero
        return min(whole, max(counted.advanced(by: stood), now.advanced(by: .seconds(1))))
    }
}
