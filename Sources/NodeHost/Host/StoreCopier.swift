import Logging
import Primitives
import Storage
import Transport

/// Gives copies of this node's store to others whose own are damaged (`StoreRepair`). On the loop.
final class StoreCopier {
    private struct Sending {
        let number: UInt64
        let export: StoreCopyExport
        var sent: UInt64 = 0
        var isWholeSent = false
        var progressAt: Instant
    }

    static let chunkBytes = 256 << 10
    /// Chunks on their way to one peer.
    static let window: UInt64 = 8
    /// A copy keeps the store from freeing what it has replaced meanwhile.
    static let patience = TimeSpan.seconds(10)
    private static let copiesMax = 2

    private let store: Store
    private let logger: Logger
    private let isSpread: () -> Bool
    private let send: (PeerID, Bytes) -> Void
    private var sending: [PeerID: Sending] = [:]

    init(
        store: Store, logger: Logger, isSpread: @escaping () -> Bool, send: @escaping (PeerID, Bytes) -> Void
    ) {
        self.store = store
        self.logger = logger
        self.isSpread = isSpread
        self.send = send
    }

    func onMessage(
        _ message: StoreCopyMessage, from peer: PeerID, at now: Instant
    ) throws(StorageError) {
        switch message {
        case .wanted(let number, let needs): try begin(number, needs, for: peer, at: now)
        case .next(let number, let next): try goOn(number, next: next, to: peer, at: now)
        // Answers to what only a node without a store asks.
        case .chunk, .end, .refused, .spread: break
        }
    }

    private func begin(
        _ number: UInt64, _ needs: [GroupID: Slot], for peer: PeerID, at now: Instant
    ) throws(StorageError) {
        func refuse(_ reason: String) {
            send(peer, StoreCopyMessage.refused(number: number, reason: reason).encoded())
        }
        sending.removeValue(forKey: peer)?.export.close()
        // This node's replicas and marks are not the asker's: its log would be voted with over another's rows.
        if isSpread() { return send(peer, StoreCopyMessage.spread(number: number).encoded()) }
        for (other, current) in sending where now.since(current.progressAt) >= Self.patience {
            current.export.close()
            sending[other] = nil
        }
        guard sending.count < Self.copiesMax else { return refuse("busy with copies for others") }
        if let group = StoreDamage.missing(needs, in: store.appliedSlots()) {
            return refuse("behind in \(group)")
        }
        guard let export = try store.exportCopy() else { return refuse("installing a snapshot") }
        logger.notice("sending a copy of the store", metadata: ["to": "\(peer)"])
        sending[peer] = Sending(number: number, export: export, progressAt: now)
        // The asker says when it is ready for the first chunk; this tells it that there is one.
        send(peer, StoreCopyMessage.next(number: number, next: 0).encoded())
    }

    private func goOn(
        _ number: UInt64, next: UInt64, to peer: PeerID, at now: Instant
    ) throws(StorageError) {
        guard var current = sending[peer], current.number == number else { return }
        current.progressAt = now
        while !current.isWholeSent, current.sent < next + Self.window {
            if let chunk = try current.export.next(bytesMax: Self.chunkBytes) {
                send(
                    peer,
                    StoreCopyMessage.chunk(number: number, index: current.sent, chunk).encoded())
                current.sent += 1
            } else {
                current.isWholeSent = true
                send(peer, StoreCopyMessage.end(number: number, chunks: current.sent).encoded())
            }
        }
        sending[peer] = current
        if current.isWholeSent, next >= current.sent {
            sending[peer] = nil
            logger.info(
                "sent a copy of the store",
                metadata: ["to": "\(peer)", "chunks": "\(current.sent)"])
        }
    }

    func onDisconnected(_ peer: PeerID) { sending.removeValue(forKey: peer)?.export.close() }

    func close() {
        for current in sending.values { current.export.close() }
        sending = [:]
    }
}
