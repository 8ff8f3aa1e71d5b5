import EtcdFacade
import Glibc
import Node
import Primitives
import Storage
import Transport

/// Counters of the shell.
struct HostFigures {
    var turns: UInt64 = 0
    var inputs: UInt64 = 0
    var framesUnknown: UInt64 = 0
    var framesMalformed: UInt64 = 0
    var voidRevisions: UInt64 = 0
    var splits: UInt64 = 0
    /// Epochs of sequencers that this node has heard of, wherever they run.
    var leaderChanges: UInt64 = 0
    var epochRoundSeen: UInt64 = 0
    /// When a sequencer, or this node as a leader, took another's place last.
    var leaderChangedAt = Instant.zero
    var disconnectedAt: [PeerID: Instant] = [:]
    var sizes: Store.Sizes?
    /// Failures of RocksDB's own work, as seen last.
    var storeErrors: UInt64 = 0
    /// Batches that were put into the store.
    var commits = DurationCounts()
    var compaction = WorkFigures()
    var flushes = WorkFigures()
    var reclaiming = WorkFigures()
    var lateHeartbeats: UInt64 = 0

    mutating func count(_ event: NodeEvent) {
        switch event {
        case .revisionVoid: voidRevisions += 1
        case .splitPublished: splits += 1
        case .becameLeader, .sequencerOpened: leaderChangedAt = Clocks.instant()
        case .lostLeadership, .sequencerClosed, .suspected, .trusted, .answerRebuilt,
            .snapshotInstalled, .dropped, .configured, .gone, .membersChanged, .link, .consensus, .ignored,
            .splitIntended, .divided:
            break
        }
    }
}

/// Work in the background, measured.
struct WorkFigures {
    private(set) var told = NodeStatus.Work()
    private var beganAt: Instant?

    var isUnderWay: Bool { told.isUnderWay }

    mutating func begin(at now: Instant) {
        told.isUnderWay = true
        beganAt = now
    }

    mutating func piece(_ span: TimeSpan) { told.pieces.note(nanoseconds: span.nanoseconds) }

    mutating func end(at now: Instant) {
        guard let beganAt else { return }
        told.isUnderWay = false
        self.beganAt = nil
        told.whole.note(nanoseconds: now.since(beganAt).nanoseconds)
        var wall = timespec()
        clock_gettime(CLOCK_REALTIME, &wall)
        told.endedAt = Double(wall.tv_sec)
    }
}

extension Host {
    /// A wake that came so late is a heartbeat that the others have missed (etcd's is of 100 ms).
    func noticeLateness(due: Instant) {
        guard due != .never, Clocks.instant().since(due) > .milliseconds(100), node.leadsAnything
        else { return }
        figures.lateHeartbeats += 1
    }

    /// etcd's order of suspects: a leader that was lost, a wire that was cut, and then itself.
    func causeOfDelay(since start: Instant, isRead: Bool) -> DelayCause {
        if figures.leaderChangedAt > start { return .leaderFailure }
        let sequencer = node.sequencerNode(at: Clocks.instant())
        // Nobody leads, and nobody is known to have led: that has no name.
        guard let sequencer else { return .unknown }
        let others = memberStatus.filter { $0.node != identity.node && !$0.isLearner }.map {
            PeerID(region: configuration.regionID, node: $0.node.seat)
        }
        func wasConnected(_ peer: PeerID) -> Bool {
            transport.isConnected(peer) && (figures.disconnectedAt[peer] ?? .zero) < start
        }
        let isLost: Bool
        if sequencer == identity.node {
            isLost = others.count(where: wasConnected) < (others.count + 1) / 2
        } else {
            isLost = !wasConnected(PeerID(region: configuration.regionID, node: sequencer.seat))
        }
        if isLost { return .lostConnection }
        return isRead && node.appliedIndex < node.decidedIndex ? .applying : .unknown
    }

    /// What etcd's dashboards ask beside what a node knows of itself anyway.
    func addFigures(to status: inout NodeStatus) {
        let written = log.metrics()
        status.logSyncs = DurationCounts(
            count: written.syncs, seconds: Double(written.syncNanoseconds) / 1e9,
            counts: written.syncHistogram)
        status.logBytesTotal = written.appendedBytes
        status.storeCommits = figures.commits
        status.compaction = figures.compaction.told
        status.compactedRowsTotal = store.compactedRows
        status.reclaiming = figures.reclaiming.told
        status.flushes = figures.flushes.told
        status.isInstallingSnapshot = courier.isReceiving
        status.lateHeartbeatsTotal = figures.lateHeartbeats
        status.leasesExpiredTotal = node.leasesExpiredTotal
        status.putBytesTotal = store.putBytes
        if let free = try? directory.freeBytes() {
            status.capacityBytes = Int64(clamping: UInt64(max(0, status.storeBytes)) + free)
        }
        status.peers = transport.statistics.sorted { $0.key < $1.key }.map { peer, traffic in
            var told = NodeStatus.PeerTraffic(
                id: HostConfiguration.memberID(
                    cluster: configuration.clusterID, region: peer.region, node: peer.node),
                isConnected: traffic.connected)
            told.bytesSent = traffic.bytesSent
            told.bytesReceived = traffic.bytesReceived
            told.sendFailures = traffic.framesDropped
            told.receiveFailures = traffic.malformed
            told.disconnects = traffic.disconnects
            told.roundTrips = DurationCounts(
                count: traffic.roundTrips, seconds: Double(traffic.roundTripNanoseconds) / 1e9,
                counts: traffic.roundTripHistogram)
            told.snapshotsSent = courier.figures[peer]?.sent ?? NodeStatus.Snapshots()
            told.snapshotsReceived = courier.figures[peer]?.received ?? NodeStatus.Snapshots()
            return told
        }
    }
}
