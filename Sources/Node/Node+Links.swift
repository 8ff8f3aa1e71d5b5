import DequeModule
import GeoReplication
import Partitioning
import Primitives

// Streams to and from other regions. This region's stream is sent by the sequencer's node; another
// region's is received by whichever node its sender talks to.
extension Node {
    mutating func openLinks() {
        senders.removeAll()
        // The cursors may be of revisions above the local frontier: no change before has seen them (G4).
        let home = Int(Coordinator.cursorHome(map).rawValue) - 1
        let at = max(localFrontier, partitions[home].state.highestRevision)
        for other in configuration.otherRegions {
            var link = LinkSender(
                region: configuration.region, destination: other.region,
                limits: configuration.limits.link)
            var ignored: [LinkSender.Effect] = []
            link.step(.frontier(localFrontier), at: clock, into: &ignored)
            link.step(.seen(cursors(), at: at), at: clock, into: &ignored)
            senders[other.region] = Sender(link: link, peer: .none)
        }
    }

    private func cursors() -> [ReplicationBatch.Cursor] {
        let home = Int(Coordinator.cursorHome(map).rawValue) - 1
        let state = partitions[home].state
        return state.cursors.keys.sorted().map {
            ReplicationBatch.Cursor(region: $0, revision: state.decidedCursor(of: $0))
        }
    }

    mutating func onLink(
        _ region: RegionID, _ peer: NodeID, up: Bool, into effects: inout NodeEffects
    ) {
        var peers = linkPeers[region] ?? []
        peers.removeAll { $0 == peer }
        if up {
            peers.append(peer)
            peers.sort()
        }
        linkPeers[region] = peers
        // It may have been heard before our own way to it was open: then our hello got lost.
        if up, receivers[region]?.peer == peer { stepReceiver(region, .connected, into: &effects) }
        if !up {
            if senders[region]?.peer == peer {
                senders[region]?.peer = .none
                stepSender(region, .disconnected, into: &effects)
            }
            if receivers[region]?.peer == peer {
                receivers[region]?.peer = .none
                stepReceiver(region, .disconnected, into: &effects)
            }
        }
    }

    mutating func onLinkMessage(
        _ region: RegionID, _ peer: NodeID, _ message: LinkMessage, into effects: inout NodeEffects
    ) {
        guard configuration.otherRegions.contains(where: { $0.region == region }) else { return }
        switch message {
        case .hello, .acknowledge, .resume:
            guard senders[region]?.peer == peer else { return }
            stepSender(region, .message(message), into: &effects)
        case .batch, .idle:
            // Where the region is spread: whoever sends turns to another node, if he hears nothing.
            guard holdsCursors else {
                if receivers[region]?.peer == peer {
                    receivers[region]?.peer = .none
                    stepReceiver(region, .disconnected, into: &effects)
                }
                return
            }
            if receivers[region]?.peer != peer {
                // Another sender: the origin's sequencer has moved, or the link is new.
                let link =
                    receivers[region]?.link
                    ?? LinkReceiver(
                        region: configuration.region, origin: region, cursor: .zero,
                        limits: configuration.limits.link)
                receivers[region] = Receiver(link: link, peer: peer)
                // It may go on with a batch that waited for its time: nothing that it asks is dropped.
                stepReceiver(region, .cursor(cursor(of: region)), into: &effects)
                stepReceiver(region, .connected, into: &effects)
            }
            stepReceiver(region, .message(message), into: &effects)
        }
    }

    /// Others say how far a stream is applied, and what comes next must begin there.
    private var holdsCursors: Bool {
        let home = Int(Coordinator.cursorHome(map).rawValue) - 1
        return !isPartial || isPresent[home] && isServed[home]
    }

    private func cursor(of region: RegionID) -> Revision {
        partitions[Int(Coordinator.cursorHome(map).rawValue) - 1].state.decidedCursor(of: region)
    }

    mutating func tellCursors(into effects: inout NodeEffects) {
        for region in receivers.keys.sorted() {
            let known = cursor(of: region)
            if let link = receivers[region]?.link, known > link.cursor {
                stepReceiver(region, .cursor(known), into: &effects)
            }
        }
    }

    mutating func onChangesRead(
        _ region: RegionID, after: Revision, _ changes: [RevisionChanges]?, through: Revision,
        into effects: inout NodeEffects
    ) {
        if let changes {
            stepSender(region, .changes(after: after, through: through, changes), into: &effects)
        } else {
            stepSender(region, .compacted(after: after), into: &effects)
        }
    }

    // MARK: Steps

    mutating func stepSender(
        _ region: RegionID, _ input: LinkSender.Input, into effects: inout NodeEffects
    ) {
        guard senders[region] != nil else { return }
        let clock = clock
        senders[region]?.link.step(input, at: clock, into: &senderEffects)
        let all = senderEffects
        senderEffects.removeAll(keepingCapacity: true)
        let peer = senders[region]?.peer ?? .none
        for effect in all {
            switch effect {
            case .send(let message):
                if peer != .none { effects.linkSends.append((region, peer, message)) }
            case .readChanges(let after, let through, let maxRows):
                effects.changeReads.append(
                    ChangeRead(region: region, after: after, through: through, maxRows: maxRows))
            case .note(let event): effects.events.append(.link(region, event))
            }
        }
    }

    mutating func stepReceiver(
        _ region: RegionID, _ input: LinkReceiver.Input, into effects: inout NodeEffects
    ) {
        guard receivers[region] != nil else { return }
        let clock = clock
        receivers[region]?.link.step(input, at: clock, into: &receiverEffects)
        let all = receiverEffects
        receiverEffects.removeAll(keepingCapacity: true)
        let peer = receivers[region]?.peer ?? .none
        for effect in all {
            switch effect {
            case .send(let message):
                if peer != .none { effects.linkSends.append((region, peer, message)) }
            case .apply(let batch): submit(.replicate(batch), .replicate(region), within: .seconds(5))
            case .readCursor: stepReceiver(region, .cursor(cursor(of: region)), into: &effects)
            case .note(let event): effects.events.append(.link(region, event))
            }
        }
    }

    mutating func wakeLinks(into effects: inout NodeEffects) {
        for region in senders.keys.sorted() {
            if senders[region]?.peer == NodeID.none, let peer = linkPeers[region]?.first {
                senders[region]?.peer = peer
                stepSender(region, .connected, into: &effects)
                let now = now
                senders[region]?.pokeAt = now
            }
            turnAway(region, into: &effects)
            guard let sender = senders[region] else { continue }
            if sender.link.nextWake <= now { stepSender(region, .wake, into: &effects) }
            // The other side learns of a new sender by hearing from it; it answers with its cursor.
            if sender.peer != .none, !sender.link.isReady, now >= sender.pokeAt {
                let next = now.advanced(by: .milliseconds(200))
                senders[region]?.pokeAt = next
                senders[region]?.pokes += 1
                effects.linkSends.append(
                    (
                        region, sender.peer,
                        .idle(
                            origin: configuration.region, sent: .zero, frontier: .zero,
                            wallMicroseconds: clock.wallMicroseconds)
                    ))
            } else if sender.link.isReady || sender.peer == .none {
                senders[region]?.pokeAt = .never
            }
        }
        for region in receivers.keys.sorted() {
            if let link = receivers[region]?.link, link.nextWake <= now {
                stepReceiver(region, .wake, into: &effects)
            }
        }
    }

    /// From a node that is there and takes nothing, to the next.
    private mutating func turnAway(_ region: RegionID, into effects: inout NodeEffects) {
        guard let sender = senders[region], let peers = linkPeers[region], peers.count > 1,
            let at = peers.firstIndex(of: sender.peer)
        else { return }
        let now = now
        if sender.link.acknowledged != sender.acknowledged || sender.link.lagRevisions == 0 {
            senders[region]?.acknowledged = sender.link.acknowledged
            senders[region]?.progressAt = now
        }
        if sender.link.isReady { senders[region]?.pokes = 0 }
        let isDeaf = sender.link.isReady
            ? sender.link.lagRevisions > 0 && now >= sender.progressAt.advanced(by: .seconds(10))
            : sender.pokes > 10
        guard isDeaf else { return }
        stepSender(region, .disconnected, into: &effects)
        senders[region]?.peer = peers[(at + 1) % peers.count]
        senders[region]?.pokes = 0
        senders[region]?.progressAt = now
        senders[region]?.pokeAt = now
        stepSender(region, .connected, into: &effects)
    }
}
