import EtcdAPI
import EtcdFacade
import Glibc
import Logging
import NIOCore
import NIOPosix
import Node
import Primitives
import Storage
import Synchronization
import TLS
import Transport

/// The shell around one pure node. Everything happens on one event loop: sockets, the core, the store;
/// only the write-ahead log has a thread of its own (architecture.md, "Threads").
///
/// A turn takes all inputs that have come, reads the clocks, steps the core, and carries out its
/// effects in the order that `NodeEffects` prescribes. See `Host+Turn.swift`.
final class Host: @unchecked Sendable {
    let configuration: HostConfiguration
    let loop: any EventLoop
    let logger: Logger
    let end: HostEnd

    let directory: DataDirectory
    let log: WriteAheadLog
    let store: Store
    let transport: PeerTransport
    let server: RPCServer
    /// For listeners that serve metrics only.
    let metricsServer: RPCServer
    let peers: PeerDelegate
    let courier: SnapshotCourier
    let copier: StoreCopier
    /// Set at the end of `init`; nil only within it.
    private(set) var facade: Facade?
    private let relay: LoopRelay
    private let passwords: PasswordWorker
    /// Of the permissions that the facade knows: what it submits was checked under it.
    var fence: UInt64 = 0
    private let clientTLS: TLSContext?
    private let peerTLS: TLSContext?

    // The core and its turn.
    var node: Node
    var effects = NodeEffects()
    var inputs: [NodeInput] = []
    var taken: [NodeInput] = []
    var isTurnDue = false
    var isInTurn = false
    /// What the core has done in this turn has not come to the store yet.
    var isStoreBehind = false
    var isStopped = false
    var wakeAt = Instant.never
    var wakeTask: Scheduled<Void>?
    /// Highest ticket that the log's thread has reported and the loop has not seen.
    let durable: DurableMark
    /// What the core has been told of it.
    var durableTaken: UInt64 = 0

    /// This turn's messages, by the peer's number, and the order in which peers came up.
    var outgoing: [[PeerMessage]] = []
    var outgoingOrder: [NodeID] = []

    /// As of this turn. Every answer carries it, and to ask `node` copies all of it.
    var epochRound: UInt64 = 0
    var hasSequencer = false
    /// Calls that wait for a read index and then list leases.
    var leaseLists: Set<UInt64> = []
    /// Calls that wait until the sequencer is at that node.
    var leaderMoves: [(token: UInt64, to: NodeID, deadline: Instant)] = []

    /// For what reads the whole store; started when first needed.
    let threads = NIOThreadPool(numberOfThreads: 2)
    var areThreadsStarted = false
    var snapshotsOpen = 0
    var hashesRunning = 0

    // Housekeeping.
    var flushedAtBytes: UInt64 = 0
    var flushedAt = Instant.zero
    var isFlushing = false
    var isCompacting = false
    /// Too little space for the store to rewrite its files, unless there is something to be gained.
    var isRewritingHeld = false
    var rewritingWantedUntil = Instant.zero
    /// Links that wait for what is left of compacted history; one for a region.
    var restsWanted: [ChangeRead] = []
    /// Changes of history in a piece of a compaction.
    var compactionBudget = 64
    var acceptsWrites = true
    var alarms: AlarmBook
    /// As in the data directory.
    var alarmsKept = ""
    var isOverQuota = false
    /// What clients have asked to write since the store's size was last looked at.
    var grownBytes: Int64 = 0
    var reclaimedAt = Instant.zero
    var isReclaimWanted = false
    /// Of the files that the certificates in use were read from, and as they were seen last.
    var certificatesUsed: [FileStamp] = []
    var certificatesSeen: [FileStamp] = []
    var autoCompactor: AutoCompactor?
    var compactorTick: RepeatedTask?
    var fullSince: Instant?
    var diskWatch = DiskWatch()
    var balance = LeaderBalance()
    /// What the loop's thread had used of a CPU, in nanoseconds, at the last look.
    var cpuSeen: (used: UInt64, at: Instant)?
    /// The log's histogram, as of the last second.
    var syncsSeen: [UInt64] = []
    var logHasSpace = true
    var storeHasSpace = true
    var hasLeader = false
    var hasServed = false
    var splitWatch = SplitWatch()
    var isSplitAsked = false
    var tick: RepeatedTask?
    var spaceLook: Scheduled<Void>?
    var figures = HostFigures()
    /// What the other nodes of the cluster say that they run.
    var versions: [PeerID: String] = [:]
    // Where the region is spread: see Elsewhere/.
    let elsewhere: Elsewhere
    var joined = JoinedChanges()
    var servedHere: HashRanges?
    var servedVersion: UInt64 = 0
    var servesAllPresent = true
    var isStoreClean = true
    /// There may be something that is of no use once this node has everything again.
    var hasSetAside = true
    var isElsewhereArmed = false
    var isDropping = false
    var lending: [UInt64: Lent] = [:]
    /// At which revision a lease's keys were asked for, so that the answer is found again.
    var leaseKeysAt: [LeaseID: (revision: Revision, until: Instant)] = [:]
    // Members: see Host+Members.
    let identity: NodeIdentity
    var hostCalls: [UInt64: (Response) -> Void] = [:]
    var nextHostCall: UInt64 = 1 << 62
    var isPublishing = false
    var hasPublished = false
    /// What `isForcedAlone` asks for has been written.
    var isAlone = false
    var dialled = DialledPeers()
    var farewell: Scheduled<Void>?
    var neighbours: NeighbourBook
    /// Where they say that clients find them: asked only if the configuration does not know.
    var advertised: [PeerID: [String]] = [:]

    init(
        _ configuration: HostConfiguration, identity: NodeIdentity, loop: any EventLoop,
        ticks: LoopTicks, logger: Logger, end: HostEnd
    ) throws(HostFailure) {
        self.configuration = configuration
        self.identity = identity
        self.loop = loop
        self.logger = logger
        self.end = end
        alarms = AlarmBook(me: configuration.memberID(of: configuration.nodeID))
        neighbours = NeighbourBook(configuration.remotePeers)
        let boot = UInt64.random(in: 1...UInt64.max)
        let mark = DurableMark()
        durable = mark

        clientTLS = try Host.tls(configuration.clientTLS, alpn: ["h2", "http/1.1"])
        peerTLS = try Host.tls(configuration.peerTLS, alpn: [])
        do throws(TLSError) {
            passwords = try PasswordWorker(configuration.auth, loop: loop)
        } catch {
            throw HostFailure(code: 3, "auth token: \(error)")
        }

        let restored: RestoredNode
        do throws(StorageError) {
            directory = try DataDirectory.open(configuration.dataDirectory, identity: identity)
            let relay = LoopRelay(loop: loop, mark: mark, end: end)
            let opened = try WriteAheadLog.open(
                directory: directory.logPath, identity: identity, handlers: relay.handlers)
            log = opened.log
            store = try Store.open(directory.storePath, options: Host.options(configuration.limits))
            for group in try StagedSnapshot.resume(store, in: directory.path) {
                logger.notice(
                    "installed a snapshot whose installation had been cut short",
                    metadata: ["group": "\(group)"])
            }
            // A store that lacks what the log was cut for is not the one that belongs here.
            var cut = opened.groups.mapValues(\.truncatedThrough)
            for group in store.droppedGroups { cut[group] = nil }
            if let group = StoreDamage.missing(cut, in: store.appliedSlots()) {
                throw .corrupt("the log of group \(group) was cut for more than the store holds")
            }
            restored = try Host.restore(store, logs: opened.groups, partitions: configuration.partitions)
            self.relay = relay
        } catch {
            throw HostFailure(error)
        }
        // Such a group has no state, and its log is cut: it must not vote. Only if somebody has removed
        // what was staged.
        guard store.incompleteImports.isEmpty else {
            let groups = store.incompleteImports.map { "\($0)" }.joined(separator: ", ")
            throw HostFailure(
                code: 5,
                "the process ended while snapshots of \(groups) were being installed; see "
                    + "docs/runbook.md, damaged data", cure: .anew("half of a snapshot of \(groups) is in the store"))
        }
        store.onFailure = { error in end.fail(HostFailure(error)) }

        let peers = PeerDelegate()
        self.peers = peers
        transport = PeerTransport(
            configuration: Host.transport(configuration, boot: boot, tls: peerTLS), loop: loop,
            delegate: peers)
        var limits = RPCLimits()
        limits.messageBytesMax = configuration.limits.requestBytesMax + 524_288
        // In JSON a message's bytes are base64.
        limits.httpBodyBytesMax = limits.messageBytesMax / 3 * 4 + 65_536
        limits.concurrentStreamsMax = configuration.limits.concurrentStreamsMax
        limits.unreadBytesTotalMax = configuration.limits.unreadAnswerBytes
        limits.halfSentBytesTotalMax = configuration.limits.halfSentRequestBytes
        limits.halfSentBytesMax = min(limits.halfSentBytesMax, limits.halfSentBytesTotalMax / 2)
        limits.pingInterval = configuration.limits.pingInterval
        limits.keepAliveInterval = configuration.limits.keepAliveInterval
        limits.keepAliveTimeout = configuration.limits.keepAliveTimeout
        server = RPCServer(loop: loop, limits: limits, ticks: ticks)
        metricsServer = RPCServer(loop: loop, limits: limits, ticks: ticks)
        guard !restored.isAhead(of: configuration.featureLevel, in: .standard) else {
            throw HostFailure(
                code: 3,
                "the data directory was written at a feature level that this build does not know (it knows "
                    + "\(configuration.featureLevel)): install the newer build again")
        }
        do throws(DecodingError) {
            node = try Node(
                configuration: configuration.node(boot: boot, identity: identity),
                restored: restored, at: Clocks.read())
        } catch {
            throw HostFailure(code: 5, "damaged records in the store: \(error.what)")
        }
        let transport = transport
        courier = SnapshotCourier(
            store: store, directory: directory.path, logger: logger, hashes: { peers.host?.hashes(of: $0) },
            hasSplits: {
                guard let node = peers.host?.node else { return false }
                return node.map.newestChild != .directory || node.members.isSpread
            },
            isWanted: { peers.host?.node.mayInstall($0, $1, applied: $2) ?? true },
            send: { _ = transport.send($1, to: $0) },
            beginInstall: { peers.host?.node.willInstall($0, $1) },
            install: { peers.host?.onSnapshotInstalled($0) },
            refused: { peers.host?.enqueue(.snapshotRefused($0, by: $1.node)) })

        let regionID = configuration.regionID
        elsewhere = Elsewhere(first: boot >> 1) { node, message in
            _ = transport.send(message.encoded(), to: PeerID(region: regionID, node: node.seat))
        }
        copier = StoreCopier(
            store: store, logger: logger,
            isSpread: { peers.host.map { $0.node.members.isSpread || $0.isPartial } ?? true },
            send: { _ = transport.send($1, to: $0) })

        peers.host = self
        store.recorder = { peers.host?.records(of: $0) }
        relay.host = self
        var facadeLimits = FacadeLimits()
        facadeLimits.requestBytesMax = configuration.limits.requestBytesMax
        facadeLimits.transactionOperationsMax = configuration.limits.transactionOperationsMax
        facadeLimits.progressInterval = configuration.limits.watchProgressInterval
        facadeLimits.slowApply = configuration.limits.slowApply
        facadeLimits.slowCall = configuration.limits.slowCall
        facadeLimits.measuresCalls = configuration.limits.measuresCalls
        facadeLimits.setElectionTimeout(configuration.limits.electionTimeout)
        var versions = ServedVersions()
        versions.polder = PolderVersion.text
        fence = node.authState.fence
        let facade = Facade(
            node: self, server: server, limits: facadeLimits, versions: versions,
            auth: AuthServices(crypto: passwords, settings: configuration.auth.settings))
        facade.access = HTTPAccess(
            configuration.access, isDebugging: [.trace, .debug].contains(configuration.logLevel))
        facade.onSlowCall = { [logger] in Host.note($0, logger) }
        self.facade = facade
        servedHere = node.served
        servedVersion = node.servedVersion
        servesAllPresent = node.servesAllPresent
        isStoreClean = !store.isDropping && servesAllPresent
        joined.pass(node.revision)
        server.handler = ClientDoor(host: self, facade: facade)
        metricsServer.handler = MetricsDoor(server: metricsServer, facade: facade)
        restoreAlarms()
        restoreNeighbours()
    }

    // MARK: Parts

    static func tls(
        _ files: HostConfiguration.TLSFiles?, alpn: [String]
    ) throws(HostFailure) -> TLSContext? {
        guard let files else { return nil }
        var made = TLSConfiguration(
            ca: files.ca, certificate: files.certificate, key: files.key,
            requireClientCertificate: files.requiresClientCertificate, alpn: alpn)
        made.clientCertificate = files.clientCertificate
        made.clientKey = files.clientKey
        made.revocations = files.revocations
        made.verifyServer = !files.isSelfSigned
        if files.isTLS13Required { made.minimumVersion = .tls13 }
        if files.isTLS13Refused { made.maximumVersion = .tls12 }
        made.allowedCommonNames = files.allowedCommonNames
        made.allowedHosts = files.allowedHosts
        made.ciphers = files.ciphers
        made.cipherSuites = files.cipherSuites
        do {
            return try TLSContext(made)
        } catch {
            throw HostFailure(code: 3, "\(error)")
        }
    }

    static func options(_ limits: HostConfiguration.Limits) -> Store.Options {
        var options = Store.Options()
        options.blockCacheBytes = limits.blockCacheBytes
        options.memtableBytes = limits.memtableBytes
        options.currentCacheBytes = limits.currentCacheBytes
        options.openFilesMax = limits.openFilesMax
        options.backgroundJobs = limits.backgroundJobs
        return options
    }

    private static func restore(
        _ store: Store, logs: [GroupID: RestoredLog], partitions: Int
    ) throws(StorageError) -> RestoredNode {
        var records: [GroupID: [(key: Bytes, value: Bytes)]] = [:]
        // Those of the founding, and whatever splits have made since.
        let founding = (0...partitions).map {
            GroupID(keyspace: .standard, partition: PartitionID(UInt32($0)))
        }
        // Of one that was dropped there is a mark.
        let known = Set(founding).union(store.appliedSlots().keys).union(store.droppedGroups)
        for group in known.sorted() {
            records[group] = try store.records(of: group)
        }
        return RestoredNode(logs: logs, records: records)
    }

    /// For the time before there is a node.
    static func entranceTransport(
        _ configuration: HostConfiguration, loop: any EventLoop
    ) throws(HostFailure) -> EntranceTransport {
        let delegate = EntranceDelegate()
        let tls = try Host.tls(configuration.peerTLS, alpn: [])
        return EntranceTransport(
            transport: PeerTransport(
                configuration: Host.transport(
                    configuration, boot: UInt64.random(in: 1...UInt64.max), tls: tls),
                loop: loop, delegate: delegate),
            delegate: delegate)
    }

    /// For a node whose store is damaged.
    static func repairTransport(
        _ configuration: HostConfiguration, loop: any EventLoop, delegate: RepairDelegate
    ) throws(HostFailure) -> PeerTransport {
        PeerTransport(
            configuration: Host.transport(
                configuration, boot: UInt64.random(in: 1...UInt64.max),
                tls: try Host.tls(configuration.peerTLS, alpn: [])),
            loop: loop, delegate: delegate)
    }

    private static func transport(
        _ configuration: HostConfiguration, boot: UInt64, tls: TLSContext?
    ) -> TransportConfiguration {
        var made = TransportConfiguration(
            cluster: configuration.clusterID,
            own: PeerID(region: configuration.regionID, node: configuration.nodeID), boot: boot,
            listen: PeerAddress(
                host: configuration.peerAddress.host, port: configuration.peerAddress.port),
            tls: tls)
        made.wanDelay = .nanoseconds(Int64(clamping: configuration.wanDelay.nanoseconds))
        made.faultInjection = configuration.faultInjection
        made.featureLevel = configuration.featureLevel
        made.namesPeersByHost = configuration.namesPeersByHost
        made.checksCertificates = configuration.peerTLS?.isSelfSigned != true
        return made
    }

    // MARK: Life

    func start() -> EventLoopFuture<Void> {
        if configuration.isForcedAlone { standAlone() }
        if node.isRemoved { end.fail(Self.removed) }
        endIfOutdated(members.level)
        transport.setRegionLevel(members.level)
        alarms.rename(memberID(of: identity.node))
        alarms.voters = memberStatus.count { !$0.isLearner }
        followPeers()
        return transport.start().flatMapErrorThrowing { error in
            throw HostFailure(
                code: 3,
                "cannot listen on \(self.configuration.peerAddress) for peers: \(Host.text(error))")
        }.flatMap { _ in
            Host.listen(self.configuration.allListeners[...], tls: self.clientTLS, on: self.loop) {
                $0.servesOnlyMetrics ? self.metricsServer : self.server
            }
        }.map {
            self.facade?.start()
            self.enqueue(.wake)
            self.startHousekeeping()
            self.startAutoCompaction()
        }
    }

    /// On the loop. `door` says who serves a listener.
    static func listen(
        _ listeners: ArraySlice<HostConfiguration.Listener>, tls: TLSContext?, on loop: any EventLoop,
        _ door: @escaping (HostConfiguration.Listener) -> RPCServer
    ) -> EventLoopFuture<Void> {
        guard let listener = listeners.first else { return loop.makeSucceededVoidFuture() }
        let address: SocketAddress
        do {
            if let path = listener.unixPath {
                Host.removeSocket(path)
                address = try SocketAddress(unixDomainSocketPath: path)
            } else {
                address = try SocketAddress.makeAddressResolvingHost(
                    listener.address.host, port: listener.address.port)
            }
        } catch {
            return loop.makeFailedFuture(
                HostFailure(
                    code: 3, "listen.client: cannot resolve \(listener.address.host): \(error)"))
        }
        return door(listener).bind(to: address, tls: listener.isSecure ? tls : nil)
            .flatMapErrorThrowing { error in
                throw HostFailure(
                    code: 3,
                    "cannot listen on \(listener.name) for clients: \(Host.text(error))")
            }.assumeIsolated().flatMap { _ in Host.listen(listeners.dropFirst(), tls: tls, on: loop, door) }
            .nonisolated()
    }

    /// The system's words, without NIO's around them.
    private static func text(_ error: any Error) -> String {
        guard let error = error as? IOError else { return "\(error)" }
        return String(cString: strerror(error.errnoCode))
    }

    /// SIGHUP, or files that have changed: new certificates for new connections. False: as before.
    @discardableResult
    func reload() -> Bool {
        for context in [clientTLS, peerTLS] {
            do {
                try context?.reload()
            } catch {
                logger.error("certificates not reloaded", metadata: ["reason": "\(error)"])
                return false
            }
        }
        logger.notice("certificates reloaded")
        return true
    }

    /// Lets open calls finish for a moment, then closes everything in an order in which nothing that
    /// was acknowledged can be lost: the log holds it all already.
    func stop() -> EventLoopFuture<Void> {
        isStopping = true
        ServiceManager.tell("STOPPING=1")
        return handOver()
            .flatMap { self.server.shutdown(within: .milliseconds(500)) }
            .flatMap { self.metricsServer.shutdown(within: .milliseconds(100)) }
            .flatMap { self.transport.shutdown() }
            .flatMapThrowing {
                self.isStopped = true
                self.facade?.stop()
                self.tick?.cancel()
                self.spaceLook?.cancel()
                self.farewell?.cancel()
                self.compactorTick?.cancel()
                self.removeSockets()
                self.wakeTask?.cancel()
                if self.areThreadsStarted { self.threads.shutdownGracefully { _ in } }
                self.courier.close()
                self.copier.close()
                self.passwords.close()
                self.log.close()
                do throws(StorageError) {
                    _ = try self.store.flush()
                } catch {
                    throw HostFailure(error)
                }
                self.store.close()
                self.directory.close()
            }
    }
    var isStopping = false
}

extension HTTPAccess {
    init(_ access: HostConfiguration.Access, isDebugging: Bool) {
        self.init()
        isGatewayEnabled = access.isGatewayEnabled
        showsRequests = isDebugging
        origins = access.origins
        hosts = access.hosts
    }
}

/// The highest durable ticket, handed from the log's thread to the loop with one wake at a time.
final class DurableMark: Sendable {
    private let ticket = Atomic<UInt64>(0)
    private let isTold = Atomic<Bool>(false)

    /// True: the loop must be woken.
    func raise(_ value: UInt64) -> Bool {
        ticket.store(value, ordering: .releasing)
        return !isTold.exchange(true, ordering: .acquiringAndReleasing)
    }

    /// The highest ticket, with the wake still to come.
    func peek() -> UInt64 { ticket.load(ordering: .acquiring) }

    func take() -> UInt64 {
        // Cleared first: a ticket raised after the load wakes the loop again.
        isTold.store(false, ordering: .sequentiallyConsistent)
        return ticket.load(ordering: .sequentiallyConsistent)
    }
}

/// What the log's thread may do: wake the loop, or end the process.
final class LoopRelay: @unchecked Sendable {
    private let loop: any EventLoop
    private let mark: DurableMark
    private let end: HostEnd
    /// Used on the loop only.
    weak var host: Host?

    init(loop: any EventLoop, mark: DurableMark, end: HostEnd) {
        self.loop = loop
        self.mark = mark
        self.end = end
    }

    var handlers: WriteAheadLog.Handlers {
        WriteAheadLog.Handlers(
            onDurable: { ticket in
                guard self.mark.raise(ticket.rawValue) else { return }
                self.loop.execute { self.host?.onDurable() }
            },
            onFailure: { error in self.end.fail(HostFailure(error)) },
            onReserve: { hasSpace in
                self.loop.execute { self.host?.onReserve(hasSpace: hasSpace) }
            },
            onStart: { HostProcess.askForShortSlices() })
    }
}
