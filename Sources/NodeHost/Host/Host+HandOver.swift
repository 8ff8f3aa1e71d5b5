import EtcdFacade
import NIOCore
import Node
import Primitives

// Leaderships that go to another node as planned: at a stop, and when a client asks for it.
extension Host {
    private static let handOverMax = TimeSpan.seconds(2)

    /// Before the node stops serving: whoever asks it is answered by the new leaders meanwhile.
    func handOver() -> EventLoopFuture<Void> {
        guard memberStatus.count > 1, node.leadsAnything else {
            return loop.makeSucceededVoidFuture()
        }
        let done = loop.makePromise(of: Void.self)
        let end = Clocks.instant().advanced(by: Self.handOverMax)
        enqueue(.handOver(to: nil))
        awaitHandOver(until: end, looks: 0, done)
        return done.futureResult
    }

    private func awaitHandOver(until end: Instant, looks: Int, _ done: EventLoopPromise<Void>) {
        loop.assumeIsolated().scheduleTask(in: .milliseconds(2)) {
            if !self.node.leadsAnything || self.end.hasFailed || Clocks.instant() >= end { return done.succeed() }
            if looks % 200 == 199 { self.enqueue(.handOver(to: nil)) }
            self.awaitHandOver(until: end, looks: looks + 1, done)
        }
    }

    func moveLeader(to target: NodeID, deadline: Instant, token: UInt64) {
        leaderMoves.append((token, target, deadline))
        let wish = members.placement.wish(for: .directory) ?? []
        let votes = node.directoryVoters.contains(target)
        if votes, wish.isEmpty { return enqueue(.handOver(to: target)) }
        // It has to vote first, and nobody must take it back.
        let others = wish.isEmpty ? members.voters(of: .directory).map { memberID(of: $0) } : wish
        let id = memberID(of: target)
        let wanted = [id] + others.filter { $0 != id }
        let change = PlacementChange.wish(
            .directory, members: Array(wanted.prefix(members.placement.voters)))
        askDirectory(.place(change), within: .seconds(5)) { _ in }
    }

    /// After every turn.
    func noticeMoves() {
        guard !leaderMoves.isEmpty else { return }
        let now = Clocks.instant()
        let sequencer = node.sequencerNode(at: now)
        let ended = leaderMoves.filter { $0.to == sequencer || $0.deadline <= now }
        leaderMoves.removeAll { $0.to == sequencer || $0.deadline <= now }
        for move in ended {
            let index = ReadIndex(
                revision: node.revision, compactRevision: node.compactedThrough)
            facade?.onReadIndex(
                move.to == sequencer ? .success(index) : .failure(.timedOut), token: move.token)
        }
    }
}
