import Primitives

// Checkpoints of leases: a new leader goes on from there, and not from the whole again (S11). Leases that
// are renewed in time have none; a renewal of one that has logs its removal before it is answered.
extension Partition {
    /// Of one entry; the rest waits for the next second.
    private static let checkpointsMax = 1_000

    mutating func checkpointLeases(at now: Instant, into effects: inout RegionEffects) {
        guard !lead.isYielding else { return }
        var due: [LeaseCheckpoint] = []
        for (lease, left) in lead.leaseClock.remaining(at: now) {
            guard let held = state.leases[lease], !lead.leaseClock.isEnding(lease),
                lead.checkpointing[lease] == nil,
                Self.isDue(left, held)
            else { continue }
            due.append(LeaseCheckpoint(lease: lease, remainingSeconds: left))
        }
        if due.isEmpty { return }
        due.sort { $0.lease < $1.lease }
        if due.count > Self.checkpointsMax { due.removeSubrange(Self.checkpointsMax...) }
        propose(.leaseCheckpoints(due), .other, into: &effects)
        for checkpoint in due { lead.checkpointing[checkpoint.lease] = (lead.proposed, false) }
    }

    /// First at half of its time, which a client that renews at a third never reaches; then in steps.
    private static func isDue(_ left: Int64, _ lease: PartitionState.Lease) -> Bool {
        guard left * 2 <= lease.ttlSeconds else { return false }
        guard let known = lease.remainingSeconds else { return true }
        return left + max(1, lease.ttlSeconds / 16) <= known
    }

    /// Before a renewal is answered. `isRemoved`: it has logged a removal itself.
    func mustRemoveCheckpoint(of lease: LeaseID, isRemoved: Bool) -> Bool {
        guard let held = state.leases[lease], !lead.revoking.contains(lease),
            !lead.leaseClock.isEnding(lease)
        else { return false }
        if Mutation.renewedOverCheckpoint.isOn { return false }
        if held.remainingSeconds != nil { return true }
        guard let pending = lead.checkpointing[lease] else { return false }
        return !(isRemoved && pending.isRemoval)
    }

    /// Only when this is decided is the renewal confirmed and answered. The clock is set again at once,
    /// so that no other checkpoint of the old time follows.
    mutating func removeCheckpoint(
        _ token: UInt64, _ lease: LeaseID, into effects: inout RegionEffects
    ) {
        propose(
            .leaseCheckpoints([LeaseCheckpoint(lease: lease, remainingSeconds: nil)]), .item(token),
            into: &effects)
        lead.checkpointing[lease] = (lead.proposed, true)
        lead.leaseClock.renewSoon(lease)
        let number = lead.proposed
        lead.items.change(token) { $0.wasProposed(number: number) }
    }
}
