import Primitives

// A planned change of leaders: nothing is lost, and nothing new is begun that the change would undo.
extension Partition {
    /// What has no effect yet goes back to its node, which asks the next leader.
    package mutating func yieldLeadership(into effects: inout RegionEffects) {
        guard isLeading, !lead.isYielding else { return }
        lead.isYielding = true
        let unbegun = lead.items.tokens {
            $0.stage != .allocating && $0.stage != .proposed && $0.number == 0
        }
        for token in unbegun {
            guard let item = lead.items.removeValue(forKey: token) else { continue }
            finishRead(token)
            effects.redirects.append(item.id)
        }
        releaseHeld(into: &effects)
        // One that is in the pipeline holds even if the change does not come about: nothing above its cut
        // may follow it.
        if !lead.splitting.isProposed { lead.splitting = Splitting() }
        lead.blocked.removeAll()
        lead.awaitingRevision.removeAll()
        lead.awaitingRoom.removeAll()
    }

    /// The change did not come about.
    package mutating func keepLeadership() { lead.isYielding = false }

    /// Everything that was begun is decided here.
    package var isDrained: Bool { !isLeading || (lead.asked.isEmpty && lead.proposals.isEmpty) }
}
