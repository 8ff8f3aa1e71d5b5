package import Primitives

// A split at the parent's leader (protocol-rules.md U2): nothing new is begun above the cut, what is
// under way there ends, and then the log is told. What waits meanwhile goes to the child.
extension Partition {
    struct Splitting: Sendable {
        var split: PartitionSplit?
        /// In the log's pipeline, or decided.
        var isProposed = false
        /// For what is above the cut.
        var held: [RequestID] = []
        var until = Instant.never
        /// Given up for now, because what is above the cut did not end in time.
        var again = Instant.zero
    }

    /// The directory wants it. Said again and again until it has come about.
    package mutating func beginSplit(
        _ split: PartitionSplit, at now: Instant, into effects: inout RegionEffects
    ) {
        guard isLeading, !lead.isYielding, lead.splitting.split == nil, state.newest < split.child,
            lead.registeredWith == epoch
        else { return }
        guard now >= lead.splitting.again else {
            effects.wake(at: lead.splitting.again)
            return
        }
        lead.splitting = Splitting()
        lead.splitting.split = split
        lead.splitting.until = now.advanced(by: limits.splitDrainMax)
        if Mutation.splitWithoutDrain.isOn { return }
        let late = lead.items.tokens {
            $0.stage != .allocating && $0.stage != .proposed && $0.number == 0
                && reaches($0.request, $0.footprint, above: split.cut)
        }
        for token in late {
            guard let item = lead.items.removeValue(forKey: token) else { continue }
            finishRead(token)
            hold(item.id, into: &effects)
        }
        let waiting = lead.latches.indices.filter {
            lead.latches[$0].stage == .waiting && reaches(lead.latches[$0], above: split.cut)
        }
        for i in waiting.reversed() { drop(i, tell: true, into: &effects) }
    }

    mutating func advanceSplit(at now: Instant, into effects: inout RegionEffects) {
        guard let split = lead.splitting.split else { return }
        if state.newest >= split.child {
            if now >= lead.registerAt {
                sendRegistration(into: &effects)
                lead.registerAt = now.advanced(by: limits.retryAfter)
            }
            effects.wake(at: lead.registerAt)
            return
        }
        guard !lead.splitting.isProposed else { return }
        if isDrained(above: split.cut) || Mutation.splitWithoutDrain.isOn {
            lead.splitting.isProposed = true
            propose(.split(split), .other, into: &effects)
        } else if now >= lead.splitting.until {
            releaseHeld(into: &effects)
            lead.splitting = Splitting()
            lead.splitting.again = now.advanced(by: limits.splitPause)
            effects.wake(at: lead.splitting.again)
        } else {
            effects.wake(at: lead.splitting.until)
        }
    }

    /// Nothing that may still be logged, or undone, is above the cut.
    private func isDrained(above cut: UInt64) -> Bool {
        let isUndecided = state.prepared.contains { record in
            record.keys.contains { KeyHash.hash($0.key) >= cut }
                || record.leasesEnded.contains { isHomed($0.id, above: cut) }
                || record.leasesSpread.contains { isHomed($0.lease, above: cut) }
        }
        return !isUndecided && !lead.latches.contains { reaches($0, above: cut) }
            && lead.items.tokens { reaches($0.request, $0.footprint, above: cut) }.isEmpty
    }

    mutating func hold(_ id: RequestID, into effects: inout RegionEffects) {
        if lead.splitting.held.count < limits.itemsMax {
            lead.splitting.held.append(id)
        } else {
            effects.answers.append((id, .failed(.tooManyRequests)))
        }
    }

    /// To their nodes, which send them to the child.
    package mutating func releaseHeld(into effects: inout RegionEffects) {
        if lead.splitting.held.isEmpty { return }
        effects.redirects.append(contentsOf: lead.splitting.held)
        lead.splitting.held.removeAll()
    }

    /// The child serves: there is nothing left to do.
    package mutating func endSplit(into effects: inout RegionEffects) {
        releaseHeld(into: &effects)
        lead.splitting = Splitting()
    }

    /// The log has it. The sequencer takes no child before it knows that this leader has let go of it:
    /// it is told until the directory says that all is done.
    mutating func onDivided(_ split: PartitionSplit, into effects: inout RegionEffects) {
        guard let child = state.newborn.first else { return }
        state.newborn = []
        if isLeading, lead.registeredWith == epoch { lead.registerAt = .zero }
        var clock: LeaseClock?
        if isLeading { clock = lead.leaseClock.handOver { KeyHash.hash($0) >= split.cut } }
        for lease in child.leases.keys {
            lead.granting.remove(lease)
            lead.checkpointing[lease] = nil
        }
        let moved = counted.filter { child.leases[$0.key] != nil }
        for lease in moved.keys { counted[lease] = nil }
        effects.newborns.append(
            .init(
                split: split, state: child,
                requests: Mutation.childForgetsRequests.isOn
                    ? RequestTable(completeFrom: .zero) : requests,
                leaseClock: clock, counted: moved))
    }

    /// What the parent's replica on this node has just cut off.
    package init(
        _ newborn: RegionEffects.Newborn, node: NodeID, map: PartitionMap, limits: Limits
    ) {
        self.init(
            id: newborn.split.child, keyspace: newborn.state.group.keyspace,
            range: newborn.state.place?.range ?? .all, node: node, map: map, state: newborn.state,
            limits: limits)
        requests = newborn.requests
        inheritedClock = newborn.leaseClock
        counted = newborn.counted
    }

    // MARK: What reaches above a cut

    /// By a map that knows how this partition lies, and not above a cut that is about to come.
    func mayLatch(_ request: LockRequest) -> Bool {
        if Mutation.oldMapsTrusted.isOn { return true }
        guard request.newest >= state.newest else { return false }
        guard let split = lead.splitting.split else { return true }
        if reaches(request.footprint, above: split.cut) { return false }
        return !request.leasesEnding.contains { lease in
            (state.leaseKeys[lease] ?? []).contains { KeyHash.hash($0) >= split.cut }
        }
    }

    private func reaches(_ latch: Latch, above cut: UInt64) -> Bool {
        reaches(latch.footprint, above: cut)
            || latch.keys.contains { KeyHash.hash($0) >= cut }
    }

    func reaches(_ request: Request, _ footprint: Footprint, above cut: UInt64) -> Bool {
        switch request {
        case .leaseGrant(let lease, _), .leaseTimeToLive(let lease, _):
            return isHomed(lease, above: cut)
        case .leaseRevoke(let lease), .leaseExpire(let lease), .leaseKeepAlive(let lease):
            return isHomed(lease, above: cut)
        case .transaction: return reaches(footprint, above: cut)
        case .leaseList, .compact, .members, .replicate, .auth, .split: return false
        }
    }

    private func reaches(_ footprint: Footprint, above cut: UInt64) -> Bool {
        func isAbove(_ range: KeyRange) -> Bool {
            if range.isEmpty { return false }
            if !range.isSingle { return true }
            let hash = KeyHash.hash(range.key)
            return hash >= cut && self.range.contains(hash)
        }
        return footprint.reads.contains(where: isAbove) || footprint.writes.contains(where: isAbove)
            || footprint.sharedLeases.contains { isHomed($0, above: cut) }
            || footprint.exclusiveLeases.contains { isHomed($0, above: cut) }
    }

    private func isHomed(_ lease: LeaseID, above cut: UInt64) -> Bool {
        let hash = KeyHash.hash(lease)
        return hash >= cut && range.contains(hash)
    }

    /// All of it lies here, as far as this replica has applied its log.
    func isAtHome(_ request: Request) -> Bool {
        if state.newest == .directory || Mutation.oldMapsTrusted.isOn { return true }
        switch request {
        case .leaseGrant(let lease, _), .leaseTimeToLive(let lease, _), .leaseRevoke(let lease),
            .leaseExpire(let lease), .leaseKeepAlive(let lease):
            return range.contains(KeyHash.hash(lease))
        case .transaction:
            // A range of keys lies everywhere, unless nothing else exists.
            let footprint = Footprint(request)
            return (footprint.reads + footprint.writes).allSatisfy {
                $0.isEmpty || ($0.isSingle ? range.contains(KeyHash.hash($0.key)) : range == .all)
            }
        case .leaseList, .compact, .members, .replicate, .auth, .split: return true
        }
    }
}
