package import Primitives

// The sequencer's lease (protocol-rules.md S13, L7). Directory group only.
extension Group {
    /// A quorum has promised, counted from the sending of the heartbeat, less the drift.
    package func leaseHolds(at now: Instant) -> Bool {
        guard let leaseLimits, isLeading, !leadership.campaignSent,
            now >= answersFrom || Mutation.noLeaseWait.isOn
        else { return false }
        // A promise given to a heartbeat counts for all earlier ones.
        return isMajority {
            $0.leaseFrom > .zero
                && now.advanced(by: leaseLimits.drift)
                    < $0.leaseFrom.advanced(by: leaseLimits.duration)
        }
    }

    /// The same, asked of one that is not to be copied for it: a getter's receiver of another module is.
    package mutating func checkLease(at now: Instant) -> Bool { leaseHolds(at: now) }

    /// Somebody asks what it answers: it is renewed often from the last renewal on. True: that was not
    /// known, so the next renewal may be due sooner than it was.
    package mutating func useLease() -> Bool {
        guard role == .leading, let leaseLimits, !leadership.leaseIsUsed else { return false }
        leadership.leaseIsUsed = true
        guard leadership.renewAt != .never else { return false }
        leadership.renewAt = min(
            leadership.renewAt, leadership.renewedAt.advanced(by: leaseLimits.renewal))
        return true
    }

    /// A quorum still followed this leader at some time after `instant`: the round that stands in
    /// for the lease. Started by `Input.confirm`, after what it is to cover has arrived.
    package func isConfirmed(since instant: Instant) -> Bool {
        isLeading && isMajority { $0.leaseFrom >= instant }
    }

    /// Before this a predecessor may still hold its lease. `.never` unless phase 1 is won.
    package var mayAnswerFrom: Instant { role == .leading ? answersFrom : .never }

    /// Not for a leader that has released its lease to us, and not for ourselves. Both had waited
    /// out *their* predecessors: the former before it handed over, we in `answersFrom`, which is
    /// kept. A restarted voter does not know whom it promised, so it is always waited for.
    func waits(for holder: Ballot) -> Bool {
        holder == .zero || (holder != releasedBallot && holder != lastLed)
    }
}
