package import Primitives

/// Who of the region's nodes is there. One per node, for all of its groups: heartbeats are per node
/// pair, and any frame counts as one.
package struct FailureDetector: Sendable {
    package enum Input: Equatable, Sendable {
        /// Any frame arrived.
        case heard(NodeID)
        case connected(NodeID)
        /// `lost`: the connection was reset and a new one refused, so the process is gone.
        case disconnected(NodeID, lost: Bool)
        case wake
    }
    package enum Effect: Hashable, Sendable {
        case heartbeat(to: NodeID)
        case suspect(NodeID)
        case trust(NodeID)
    }

    private struct Peer {
        let node: NodeID
        var heardAt: Instant
        var suspected = false
    }

    package let node: NodeID
    private let limits: DetectorLimits
    private var peers: [Peer]
    private var beatAt: Instant
    private var beatenAt: Instant
    private var steppedAt: Instant

    /// A peer that was never heard gets twice the usual silence: nodes do not start together.
    package init(node: NodeID, peers: [NodeID], limits: DetectorLimits, at now: Instant) {
        self.node = node
        self.limits = limits
        self.peers = peers.filter { $0 != node }
            .map { Peer(node: $0, heardAt: now.advanced(by: limits.silence)) }
        beatAt = now
        beatenAt = now
        steppedAt = now
    }

    /// Who is there to be watched has changed. Who stays keeps what is known of him.
    package mutating func setPeers(_ nodes: [NodeID], at now: Instant) {
        let before = peers
        peers = nodes.filter { $0 != node }.map { other in
            before.first { $0.node == other }
                ?? Peer(node: other, heardAt: now.advanced(by: limits.silence))
        }
        beatAt = min(beatAt, now)
    }

    package func suspects(_ node: NodeID) -> Bool {
        peers.contains { $0.node == node && $0.suspected }
    }

    package var nextWake: Instant {
        var next = peers.isEmpty ? Instant.never : beatAt
        for peer in peers where !peer.suspected {
            next = min(next, peer.heardAt.advanced(by: limits.silence))
        }
        return next
    }

    package mutating func step(_ input: Input, at now: Instant, into effects: inout [Effect]) {
        // We were stopped ourselves: the silence is ours, not theirs. What they sent meanwhile is
        // in the queue behind this input.
        if now.since(steppedAt) >= limits.silence {
            for i in peers.indices { peers[i].heardAt = max(peers[i].heardAt, now) }
        }
        steppedAt = max(steppedAt, now)
        switch input {
        case .heard(let node), .connected(let node):
            guard let i = peers.firstIndex(where: { $0.node == node }) else { return }
            peers[i].heardAt = max(peers[i].heardAt, now)
            if peers[i].suspected {
                peers[i].suspected = false
                effects.append(.trust(node))
            }
        case .disconnected(let node, let lost):
            guard lost, let i = peers.firstIndex(where: { $0.node == node }) else { return }
            suspect(i, into: &effects)
        case .wake:
            if now >= beatAt {
                beat(at: now, into: &effects)
                beatAt = now.advanced(by: limits.heartbeat)
            }
            for i in peers.indices where now >= peers[i].heardAt.advanced(by: limits.silence) {
                suspect(i, into: &effects)
            }
        }
    }

    /// Something leaves in this turn anyway: a beat that is due soon goes along. Whoever answers somebody
    /// else's beats comes into step with them, and his own clock (half a beat later) finds nothing to do:
    /// an idle node is woken by what it hears, and not by its own timer as well.
    package mutating func beatAlong(at now: Instant, into effects: inout [Effect]) {
        guard now >= beatenAt.advanced(by: limits.heartbeat / 2), !peers.isEmpty else { return }
        beat(at: now, into: &effects)
        beatAt = now.advanced(by: limits.heartbeat + limits.heartbeat / 2)
    }

    private mutating func beat(at now: Instant, into effects: inout [Effect]) {
        for peer in peers { effects.append(.heartbeat(to: peer.node)) }
        beatenAt = now
    }

    private mutating func suspect(_ i: Int, into effects: inout [Effect]) {
        guard !peers[i].suspected else { return }
        peers[i].suspected = true
        effects.append(.suspect(peers[i].node))
    }
}
