import Primitives

// A planned change of leaders: nothing is lost, and nothing new is begun that the change would undo.
extension Partition {
    /// What has no effect yet goes back to its node, which asks the next leader.
    package mutating func yieldLeadership(into effects: inout RegionEffects) {
        guard isLeading, !lead.isYielding else { return }
        lead.isYielding = true
        for (token, item) in lead.items.sorted(by: { $0.key < $1.key })
        where item.stage != .allocating && item.stage != .proposed && item.number == 0 {
            lead.items[token] = nil
            finishRead(token)
            effects.redirects.append(item.id)
        }
        lead.blocked.removeAll()
        lead.awaitingRevision.removeAll()
        lead.awaitingRoom.removeAll()
    }

    /// The change did not come about.
    package mutating func keepLeadership() { lead.isYielding = false }

    /// Everything that was begun is decided here.
    package var isDrained: Bool { !isLeading || (lead.asked.isEmpty && lead.proposals.isEmpty) }
}
