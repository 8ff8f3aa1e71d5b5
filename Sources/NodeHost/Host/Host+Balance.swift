import EtcdFacade
import Logging
import Node
import Primitives
import Storage
import Transport

// Leaders that go where there is CPU for them (LeaderBalance).
extension Host {
    /// Once a second.
    func lookAtLeaders(at now: Instant) {
        let used = Clocks.threadCPU(), since = cpuSeen
        cpuSeen = (used, now)
        guard let since, now > since.at, memberStatus.count > 1 else { return }
        let load = (used - since.used) * 1_000 / now.since(since.at).nanoseconds
        if balance.tells(load, at: now) { tellLoad(load) }
        guard !isStopping, node.isReady else { return }
        let list = members
        let able = memberStatus.filter { $0.isHealthy && !$0.isLearner && !$0.isDrained }
            .map(\.node).filter { $0.seat != identity.node.seat }
        let writes = node.partitionWrites
        var led: [LeaderBalance.Led] = []
        for status in node.partitionStatus where status.leader == identity.node {
            let i = Int(status.id.rawValue) - 1
            guard list.placement.wish(for: status.id) == nil, i < writes.count else { continue }
            led.append(
                .init(
                    partition: status.id, writes: writes[i],
                    others: able.filter { status.voters.contains($0) }))
        }
        let sequencer = node.sequencerNode(at: now).flatMap { $0 == identity.node ? nil : $0 }
        let move = balance.step(
            configuration.leaders, own: load, led: led, sequencer: sequencer, at: now)
        guard let move else { return }
        logger.notice(
            "a partition is to be led elsewhere",
            metadata: ["partition": "\(move.partition)", "to": "\(move.to)", "load": "\(load)"])
        enqueue(.handOverPartition(move.partition, to: move.to))
    }

    private func tellLoad(_ load: UInt64) {
        var writer = HostFrame.begin(.load)
        writer.varint(load)
        tellRegion(Bytes(writer.bytes))
    }

    func onLoad(_ reader: inout ByteReader, from peer: PeerID) throws(DecodingError) {
        balance.heard(peer.node, load: min(try reader.varint(), 1 << 20), at: Clocks.instant())
    }
}
