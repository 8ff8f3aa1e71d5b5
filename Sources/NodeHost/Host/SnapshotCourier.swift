import EtcdFacade
import Logging
import Primitives
import Storage
import Transport

/// Sends and receives snapshots of partitions for replicas that are too far behind for the log.
///
/// A received snapshot is collected whole, on the disk, and then installed in one go, between two turns:
/// the replica may catch up by other ways meanwhile, and never reads a half-replaced partition. If the
/// process ends in the middle, the next start installs it before anything else (`StagedSnapshot`).
final class SnapshotCourier {
    private struct Sending {
        let group: GroupID
        let number: UInt64
        let export: SnapshotExport
        let beganAt: Instant
        var sent: UInt64 = 0
        var isWholeSent = false
        var progressAt: Instant
    }
    private struct Receiving {
        let from: PeerID
        let number: UInt64
        let applied: Slot
        /// What is replaced: a split may have made it less than this node's replica holds.
        let hashes: HashRange
        let staged: StagedSnapshot
        let beganAt: Instant
        var progressAt: Instant
    }
    /// What went to and came from one peer.
    struct Figures {
        var sent = NodeStatus.Snapshots()
        var received = NodeStatus.Snapshots()
    }

    static let chunkBytes = 256 << 10
    /// Chunks on their way to one peer.
    static let window: UInt64 = 8
    static let patience = TimeSpan.seconds(10)

    private let store: Store
    private let directory: String
    private let logger: Logger
    private let send: (PeerID, Bytes) -> Void
    private let beginInstall: (GroupID, HashRange) -> Void
    private let install: (GroupID) -> Void
    private let refused: (GroupID, PeerID) -> Void
    private let hashes: (GroupID) -> HashRange?
    private let hasSplits: () -> Bool
    private let isWanted: (GroupID, HashRange, Slot) -> Bool
    private var sending: [PeerID: Sending] = [:]
    /// Asked for while another goes to the same peer.
    private var waiting: [PeerID: [GroupID]] = [:]
    private var receiving: [GroupID: Receiving] = [:]
    private var nextNumber: UInt64 = 1
    private var counted: [PeerID: Figures] = [:]

    init(
        store: Store, directory: String, logger: Logger, hashes: @escaping (GroupID) -> HashRange?,
        hasSplits: @escaping () -> Bool, isWanted: @escaping (GroupID, HashRange, Slot) -> Bool,
        send: @escaping (PeerID, Bytes) -> Void,
        beginInstall: @escaping (GroupID, HashRange) -> Void, install: @escaping (GroupID) -> Void,
        refused: @escaping (GroupID, PeerID) -> Void
    ) {
        self.store = store
        self.directory = directory
        self.logger = logger
        self.hashes = hashes
        self.hasSplits = hasSplits
        self.isWanted = isWanted
        self.send = send
        self.beginInstall = beginInstall
        self.install = install
        self.refused = refused
    }

    var isBusy: Bool { !sending.isEmpty || !receiving.isEmpty }
    var isReceiving: Bool { !receiving.isEmpty }

    var figures: [PeerID: Figures] {
        var found = counted
        for peer in sending.keys { found[peer, default: Figures()].sent.underWay += 1 }
        for current in receiving.values { found[current.from, default: Figures()].received.underWay += 1 }
        return found
    }

    // MARK: Sending

    func sendSnapshot(of group: GroupID, to peer: PeerID, at now: Instant) throws(StorageError) {
        if let current = sending[peer] {
            if now.since(current.progressAt) < SnapshotCourier.patience {
                if current.group != group, waiting[peer]?.contains(group) != true {
                    waiting[peer, default: []].append(group)
                }
                return
            }
            current.export.close()
            counted[peer, default: Figures()].sent.failures += 1
        }
        guard let hashes = hashes(group) else { return }
        let export = try store.exportSnapshot(of: group, hashes: hashes)
        let number = nextNumber
        nextNumber += 1
        sending[peer] = Sending(
            group: group, number: number, export: export, beganAt: now, progressAt: now)
        logger.notice(
            "sending a snapshot",
            metadata: ["group": "\(group)", "to": "\(peer)", "applied": "\(export.applied)"])
        let offer = SnapshotMessage.offer(
            group, number: number, applied: export.applied, hashes: hasSplits() ? hashes : nil)
        send(peer, offer.encoded())
    }

    private func onNext(
        _ group: GroupID, _ number: UInt64, next: UInt64, from peer: PeerID, at now: Instant
    ) throws(StorageError) {
        guard var current = sending[peer], current.group == group, current.number == number else {
            return
        }
        current.progressAt = now
        while !current.isWholeSent, current.sent < next + SnapshotCourier.window {
            if let chunk = try current.export.next(bytesMax: SnapshotCourier.chunkBytes) {
                let message = SnapshotMessage.chunk(
                    group, number: number, index: current.sent, chunk)
                send(peer, message.encoded())
                current.sent += 1
            } else {
                current.isWholeSent = true
                send(
                    peer, SnapshotMessage.end(group, number: number, chunks: current.sent).encoded())
            }
        }
        sending[peer] = current
        if current.isWholeSent, next >= current.sent {
            counted[peer, default: Figures()].sent.durations.note(
                nanoseconds: now.since(current.beganAt).nanoseconds)
            try finishSending(to: peer, at: now)
        }
    }

    private func finishSending(to peer: PeerID, at now: Instant) throws(StorageError) {
        sending.removeValue(forKey: peer)?.export.close()
        guard var queue = waiting[peer], !queue.isEmpty else { return }
        let group = queue.removeFirst()
        waiting[peer] = queue
        try sendSnapshot(of: group, to: peer, at: now)
    }

    // MARK: Receiving

    private func onOffer(
        _ group: GroupID, _ number: UInt64, applied: Slot, hashes offered: HashRange?,
        from peer: PeerID, at now: Instant
    ) {
        if let current = receiving[group], now.since(current.progressAt) < SnapshotCourier.patience,
            current.from != peer
        {
            send(peer, SnapshotMessage.refused(group, number: number).encoded())
            return
        }
        guard store.appliedSlot(of: group) < applied, let hashes = offered ?? hashes(group),
            mayInstall(group, hashes, applied), let staged = stage(group, hashes)
        else {
            send(peer, SnapshotMessage.refused(group, number: number).encoded())
            return
        }
        receiving[group] = Receiving(
            from: peer, number: number, applied: applied, hashes: hashes, staged: staged, beganAt: now,
            progressAt: now)
        send(peer, SnapshotMessage.next(group, number: number, next: 0).encoded())
    }

    private func stage(_ group: GroupID, _ hashes: HashRange) -> StagedSnapshot? {
        receiving.removeValue(forKey: group)?.staged.discard()
        do throws(StorageError) {
            return try StagedSnapshot(of: group, hashes: hashes, in: directory)
        } catch {
            notice(error, group)
            return nil
        }
    }

    /// Nothing of the store has been touched: the others will offer it again.
    private func notice(_ error: StorageError, _ group: GroupID) {
        logger.warning(
            "a snapshot cannot be received", metadata: ["group": "\(group)", "reason": "\(error)"])
    }

    /// A partition never grows; one that is not here yet was made by a split.
    private func mayInstall(_ group: GroupID, _ offered: HashRange, _ applied: Slot) -> Bool {
        guard group.keyspace == .standard, isWanted(group, offered, applied),
            Int(group.partition.rawValue) <= PartitionMap.partitionsMax
        else { return false }
        guard let held = hashes(group), store.appliedSlot(of: group) > .zero else { return true }
        return held.first == offered.first && offered.last <= held.last
    }

    private func onChunk(
        _ group: GroupID, _ number: UInt64, index: UInt64, _ bytes: Bytes, from peer: PeerID,
        at now: Instant
    ) {
        guard var current = receiving[group], current.from == peer, current.number == number,
            current.staged.chunks == index
        else { return }
        do throws(StorageError) {
            try current.staged.add(bytes)
        } catch {
            notice(error, group)
            counted[peer, default: Figures()].received.failures += 1
            receiving[group] = nil
            current.staged.discard()
            send(peer, SnapshotMessage.refused(group, number: number).encoded())
            return
        }
        current.progressAt = now
        receiving[group] = current
        send(peer, SnapshotMessage.next(group, number: number, next: index + 1).encoded())
    }

    private func onEnd(
        _ group: GroupID, _ number: UInt64, chunks: UInt64, from peer: PeerID, at now: Instant
    ) throws(StorageError) {
        guard let current = receiving[group], current.from == peer, current.number == number,
            current.staged.chunks == chunks
        else { return }
        receiving[group] = nil
        // It may have caught up by other ways.
        guard store.appliedSlot(of: group) < current.applied,
            mayInstall(group, current.hashes, current.applied)
        else { return current.staged.discard() }
        beginInstall(group, current.hashes)
        let applied = try current.staged.install(into: store)
        counted[peer, default: Figures()].received.durations.note(
            nanoseconds: now.since(current.beganAt).nanoseconds)
        logger.notice(
            "installed a snapshot",
            metadata: [
                "group": "\(group)", "from": "\(peer)", "applied": "\(applied)",
                "bytes": "\(current.staged.bytes)",
            ])
        install(group)
    }

    // MARK: Both

    func onMessage(
        _ message: SnapshotMessage, from peer: PeerID, at now: Instant
    ) throws(StorageError) {
        switch message {
        case .offer(let group, let number, let applied, let hashes):
            onOffer(group, number, applied: applied, hashes: hashes, from: peer, at: now)
        case .chunk(let group, let number, let index, let bytes):
            onChunk(group, number, index: index, bytes, from: peer, at: now)
        case .end(let group, let number, let chunks):
            try onEnd(group, number, chunks: chunks, from: peer, at: now)
        case .next(let group, let number, let next):
            try onNext(group, number, next: next, from: peer, at: now)
        case .refused(let group, let number):
            if let current = sending[peer], current.group == group, current.number == number {
                refused(group, peer)
                try finishSending(to: peer, at: now)
            }
        }
    }

    func onDisconnected(_ peer: PeerID) {
        if let current = sending.removeValue(forKey: peer) {
            current.export.close()
            counted[peer, default: Figures()].sent.failures += 1
        }
        waiting[peer] = nil
        for (group, current) in receiving where current.from == peer {
            counted[peer, default: Figures()].received.failures += 1
            current.staged.discard()
            receiving[group] = nil
        }
    }

    func close() {
        for current in sending.values { current.export.close() }
        sending = [:]
        for current in receiving.values { current.staged.discard() }
        receiving = [:]
    }
}
