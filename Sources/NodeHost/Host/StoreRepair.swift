import Logging
import NIOCore
import Primitives
import Storage
import Synchronization
import Transport

/// A node whose store is damaged takes no part until it has another's: it listens where the node will
/// listen, asks the others in turn for a copy, and puts that in the damaged one's place. Its log, with
/// what it has promised and accepted, is intact: the node then goes on from the copy as after any start.
final class StoreRepair: @unchecked Sendable {
    private static let patience = TimeSpan.seconds(5)
    private static let tellEvery = TimeSpan.seconds(5)
    private static let window = StoreCopier.window

    private let configuration: HostConfiguration
    private let peers: [PeerID: PeerAddress]
    private let needs: [GroupID: Slot]
    private let loop: any EventLoop
    private let logger: Logger
    private let options: Store.Options
    private var transport: PeerTransport?
    private var tick: RepeatedTask?

    private var connected: Set<PeerID> = []
    private var asked: PeerID?
    private var number: UInt64
    private var target: StoreCopyImport?
    private var progressAt = Instant.zero
    private var toldAt = Instant.zero
    private var refusals: [PeerID: String] = [:]
    /// Read by the thread that waits.
    let outcome = Mutex<Result<Void, HostFailure>?>(nil)
    /// For /metrics.
    private(set) var bytes = 0

    init(
        _ configuration: HostConfiguration, peers: [PeerID: PeerAddress], needs: [GroupID: Slot],
        loop: any EventLoop, logger: Logger
    ) {
        self.configuration = configuration
        self.peers = peers
        self.needs = needs
        self.loop = loop
        self.logger = logger
        options = Host.options(configuration.limits)
        number = UInt64.random(in: 1...(1 << 48))
    }

    func start(_ transport: PeerTransport) -> EventLoopFuture<Void> {
        self.transport = transport
        return transport.start().flatMapErrorThrowing { error in
            throw HostFailure(
                code: 3, "cannot listen on \(self.configuration.peerAddress) for peers: \(error)")
        }.map { _ in
            transport.setPeers(self.peers)
            self.toldAt = Clocks.instant()
            self.tick = self.loop.scheduleRepeatedTask(
                initialDelay: .milliseconds(100), delay: .milliseconds(200)
            ) { _ in self.look() }
        }
    }

    func stop() -> EventLoopFuture<Void> {
        tick?.cancel()
        target?.discard()
        target = nil
        return transport?.shutdown() ?? loop.makeSucceededVoidFuture()
    }

    // MARK: Whom to ask

    private func look() {
        let now = Clocks.instant()
        if asked != nil, now.since(progressAt) >= Self.patience { giveUp("no progress") }
        if asked == nil { ask(at: now) }
        guard now.since(toldAt) >= Self.tellEvery else { return }
        toldAt = now
        if let asked {
            logger.notice(
                "the store is being fetched", metadata: ["from": "\(asked)", "bytes": "\(bytes)"])
        } else {
            let reasons = refusals.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }
            logger.warning(
                "no other node can give its store yet",
                metadata: ["reasons": "\(reasons.joined(separator: "; "))"])
        }
    }

    /// The next one after the one that was asked last, round and round.
    private func ask(at now: Instant) {
        let known = connected.sorted()
        guard !known.isEmpty, outcome.withLock({ $0 == nil }) else { return }
        number += 1
        let peer = known[Int(number % UInt64(known.count))]
        asked = peer
        progressAt = now
        bytes = 0
        send(.wanted(number: number, needs: needs))
    }

    private func giveUp(_ reason: String) {
        if let asked { refusals[asked] = reason }
        asked = nil
        target?.discard()
        target = nil
    }

    private func send(_ message: StoreCopyMessage) {
        guard let asked, let transport else { return }
        transport.send(message.encoded(), to: asked)
        transport.flush()
    }

    // MARK: What comes

    func onConnected(_ peer: PeerID) { connected.insert(peer) }

    func onDisconnected(_ peer: PeerID) {
        connected.remove(peer)
        if peer == asked { giveUp("disconnected") }
    }

    /// Of a node that takes part, everything else goes past us.
    func onFrame(_ peer: PeerID, _ frame: Bytes) {
        guard peer == asked else { return }
        var reader = ByteReader(frame)
        do throws(DecodingError) {
            guard try HostFrame.kind(&reader) == .storeCopy else { return }
            onMessage(try StoreCopyMessage(&reader))
        } catch {
            giveUp("nonsense: \(error.what)")
        }
    }

    private func onMessage(_ message: StoreCopyMessage) {
        do throws(StorageError) {
            switch message {
            case .next(number, next: 0):
                target = try StoreCopyImport(in: configuration.dataDirectory, options: options)
                progressAt = Clocks.instant()
                send(.next(number: number, next: 0))
            case .chunk(number, let index, let chunk):
                guard let target, target.chunks == index else { return }
                try target.add(chunk)
                bytes = target.bytes
                progressAt = Clocks.instant()
                send(.next(number: number, next: index + 1))
            case .end(number, let chunks):
                guard let target, target.chunks == chunks else { return }
                try install(target)
            case .refused(number, let reason): giveUp(reason)
            case .spread(number):
                let text = "the store is damaged, and no other node has all that was in it"
                outcome.withLock { $0 = .failure(HostFailure(code: 5, text, cure: .anew(text))) }
            // Of an earlier attempt, or for those who give.
            case .wanted, .chunk, .end, .next, .refused, .spread: break
            }
        } catch {
            fail(error)
        }
    }

    private func install(_ target: StoreCopyImport) throws(StorageError) {
        guard try target.install(needs: needs, in: configuration.dataDirectory) else {
            return giveUp("behind")
        }
        logger.warning(
            "the damaged store has been replaced",
            metadata: ["from": "\(asked.map { "\($0)" } ?? "-")", "bytes": "\(bytes)"])
        outcome.withLock { $0 = .success(()) }
    }

    private func fail(_ error: StorageError) {
        switch error {
        // What came was wrong, or this disk has no room for it now: again, from somebody else.
        case .damaged, .noSpace: giveUp("\(error)")
        case .io, .foreign, .newer, .locked, .database, .corrupt:
            outcome.withLock { $0 = .failure(HostFailure(error)) }
        }
    }
}

/// The transport wants its delegate before the repair is whole.
final class RepairDelegate: PeerTransportDelegate, @unchecked Sendable {
    weak var repair: StoreRepair?
    func onConnected(_ peer: PeerID, boot: UInt64) { repair?.onConnected(peer) }
    func onDisconnected(_ peer: PeerID, lost: Bool) { repair?.onDisconnected(peer) }
    func onFrame(_ peer: PeerID, _ frame: Bytes) { repair?.onFrame(peer, frame) }
}

extension StoreRepair {
    /// Before there is a host. False: told to stop.
    static func run(
        _ configuration: HostConfiguration, identity: NodeIdentity, loop: any EventLoop, logger: Logger,
        isStopped: () -> Bool
    ) throws -> Bool {
        let directory = configuration.dataDirectory
        let mark: StoreDamage.Mark
        let needs: [GroupID: Slot]
        let held: DataDirectory
        do throws(StorageError) {
            guard let found = try StoreDamage.mark(in: directory) else {
                try StoreDamage.clean(directory)
                return true
            }
            mark = found
            held = try DataDirectory.open(directory, identity: identity)
            needs = try StoreDamage.needs(logDirectory: held.logPath, identity: identity)
        } catch {
            throw HostFailure(error)
        }
        defer { held.close() }
        let reason = mark.reason, peers = peers(of: mark, configuration)
        guard !peers.isEmpty else {
            throw HostFailure(
                code: 5,
                "the store is damaged (\(reason)), and no other node holds this data: restore it from a "
                    + "backup; see docs/runbook.md, damaged data")
        }
        logger.error(
            "the store is damaged: fetching it from another node", metadata: ["reason": "\(reason)"])
        let text = "the store is damaged and is being fetched from another node (\(reason))"
        let door = try WaitingDoor.open(configuration, reason: text, loop: loop)
        defer { door.close() }
        let (repair, delegate) = try loop.submit {
            let repair = StoreRepair(
                configuration, peers: peers, needs: needs, loop: loop, logger: logger)
            let delegate = RepairDelegate()
            delegate.repair = repair
            door.figures = { [("polder_store_repair_bytes", repair.bytes)] }
            return (repair, delegate)
        }.wait()
        let transport = try loop.submit {
            try Host.repairTransport(configuration, loop: loop, delegate: delegate)
        }.wait()
        try loop.flatSubmit { repair.start(transport) }.wait()
        var outcome: Result<Void, HostFailure>?
        while outcome == nil, !isStopped() { outcome = repair.outcome.withLock { $0 } }
        try loop.flatSubmit { repair.stop() }.wait()
        withExtendedLifetime(delegate) {}
        guard let outcome else { return false }
        try outcome.get()
        return true
    }
}

// The mark's lines of peers: region, node, host and port.
extension StoreRepair {
    static func lines(of peers: [PeerID: PeerAddress], _ configuration: HostConfiguration) -> [String] {
        peers.keys.sorted().filter { $0.region == configuration.regionID }.compactMap { peer in
            peers[peer].map { "\(peer.region) \(peer.node) \($0.host) \($0.port)" }
        }
    }

    /// As the node knew them last, and else as it is told in its configuration.
    static func peers(
        of mark: StoreDamage.Mark, _ configuration: HostConfiguration
    ) -> [PeerID: PeerAddress] {
        var found: [PeerID: PeerAddress] = [:]
        for line in mark.peers {
            let words = line.split(separator: " ").map(String.init)
            guard words.count == 4, let region = UInt16(words[0]), let node = UInt16(words[1]),
                let port = Int(words[3])
            else { continue }
            found[PeerID(region: RegionID(region), node: NodeID(node))] = PeerAddress(
                host: words[2], port: port)
        }
        if !found.isEmpty { return found }
        return configuration.peers.filter { $0.key.region == configuration.regionID }
    }
}
