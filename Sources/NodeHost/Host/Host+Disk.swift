import EtcdFacade
import Logging
import Node
import Primitives
import Storage
import Transport

/// A slow disk costs the clients of whatever its node leads: it leads less than others can.
extension Host {
    /// Once a second.
    func lookAtDisk(at now: Instant) {
        let histogram = log.metrics().syncHistogram
        let before = syncsSeen
        syncsSeen = histogram
        guard before.count == histogram.count else { return }
        var own = DiskWatch.median(before, histogram)
        // One that hangs is in no histogram.
        let age = UInt64(clamping: log.syncAge.nanoseconds / 1000)
        if age > max(own ?? 0, DiskWatch.slowMicroseconds) { own = age }
        if let own { tellDisk(own) }
        guard memberStatus.count > 1, !isStopping else { return }
        let candidates = memberStatus.filter {
            $0.node.seat != identity.node.seat && $0.isHealthy && !$0.isLearner && !$0.isDrained
        }.map(\.node)
        let seats = candidates.map(\.seat)
        let target = diskWatch.step(
            own: own, leads: node.leadsAnything, candidates: seats, at: now)
        guard let target, let node = candidates.first(where: { $0.seat == target }) else { return }
        logger.warning(
            "this node's disk is slow: what it leads goes to another",
            metadata: ["sync": "\(own ?? 0)us", "to": "\(node)"])
        enqueue(.handOver(to: node))
    }

    private func tellDisk(_ microseconds: UInt64) {
        var writer = HostFrame.begin(.disk)
        writer.varint(microseconds)
        tellRegion(Bytes(writer.bytes))
    }

    func onDisk(_ reader: inout ByteReader, from peer: PeerID) throws(DecodingError) {
        diskWatch.heard(peer.node, microseconds: try reader.varint(), at: Clocks.instant())
    }
}
