import Consensus
import GeoReplication
import Node
import Partitioning
import Primitives

/// Everything there is: regions of nodes, their machines, the network between them, clients, and a plan
/// of what goes wrong. One event after the other; the only source of luck is the seed.
final class World {
    enum Event {
        case packet(Packet)
        case turn(NodeAddress, life: UInt64)
        case wake(NodeAddress, life: UInt64)
        case synced(NodeAddress, life: UInt64, Ticket)
        case input(NodeAddress, life: UInt64, NodeInput)
        /// A read of the store, done when this comes.
        case read(NodeAddress, life: UInt64, ReadRequest)
        case flush(NodeAddress, life: UInt64)
        case flushed(NodeAddress, life: UInt64, SimulatedStore, [GroupID: UInt64])
        case connect(Pair)
        case boot(NodeAddress)
        case unfreeze(NodeAddress)
        case fault(FaultPlan.Fault, tries: Int)
        case act(Action)
        case clientNext(Int)
        case clientTimeout(Int, operation: Int)
        case readerNext(NodeAddress)
        /// A node with an empty disk asks to take part, and is answered.
        case ask(NodeAddress, RegionMembers.Asker)
        case admitted(NodeAddress, RegionMembers)
        case retire(NodeAddress)
        case again(NodeAddress, life: UInt64, Again)
    }

    /// A later part of a fault.
    enum Action {
        case heal(NodeAddress, NodeAddress)
        case healGroup(GroupCut)
        case cut(GroupCut)
        case campaign(PartitionID, NodeAddress)
        case kill(NodeAddress, restartAfter: TimeSpan)
        case block(NodeAddress, NodeAddress, TimeSpan)
        case addRegion
        case detour(NodeAddress, NodeAddress, TimeSpan)
    }

    let options: Simulation.Options
    /// With which the regions are founded.
    let map: PartitionMap
    var maps: [RegionID: RegionMap] = [:]
    let plan: FaultPlan
    let workload: Workload
    let regions: [RegionID]
    let nodesPerRegion: Int
    /// Nobody has heard of it yet; its machines are off.
    var awaitedRegion: RegionID?
    /// The machines that there are now, in order.
    var addresses: [NodeAddress]
    /// All periods and time-outs of nodes, clients and faults are so many times longer; the network and the
    /// disks are not. More of simulated time for as many events.
    let pace: UInt64

    var queue = EventQueue<Event>()
    var random: SplitMix
    var network: Network
    var nodes = Machines()
    var clients: [Client] = []
    /// The operation of a token is its index plus one.
    var operations: [Operation] = []
    /// Those that wait for an answer, in order.
    var underWay: [Int] = []
    var timelines: [RegionID: RegionTimeline] = [:]
    /// The highest revision that anybody has been told of.
    var told: [RegionID: Revision] = [:]
    var streams: [WatchStream] = []
    var users: [RegionID: UserHistory] = [:]
    /// The highest version of the users that anybody has been told of.
    var usersTold: [RegionID: UInt64] = [:]
    /// The newest version of every key, as the timelines have it.
    var latest: [RegionID: [Bytes: Row]] = [:]
    /// The highest frontier that each epoch's sequencer has published.
    var published: [RegionID: [Epoch: Revision]] = [:]
    var newestEpoch: [RegionID: Epoch] = [:]
    var digests: [DigestKey: Digest] = [:]
    var configurations: [ConfigurationKey: Configuration] = [:]
    var trace = TraceHash()
    var violations: [Violation] = []
    var brokenAt = Instant.never
    var faultsAreOn = true
    /// Requests sent after this are answered within their deadline.
    var faultsEndedAt = Instant.never
    var counts = Simulation.Counts()

    struct GroupCut: Equatable {
        let node: NodeAddress
        let partition: PartitionID
    }
    var groupCuts: [GroupCut] = []
    var frames = 0
    /// What went over the wire and to the disks, for who wants samples.
    var samples: [ParserFuzzer.Target: [Bytes]]?

    func sample(_ target: ParserFuzzer.Target, _ bytes: @autoclosure () -> Bytes) {
        guard let count = samples?[target, default: []].count, count < 2_000 else { return }
        samples?[target, default: []].append(bytes())
    }

    struct DigestKey: Hashable {
        let region: RegionID
        let group: GroupID
        let slot: Slot
    }
    struct Digest {
        let value: UInt64
        let from: NodeAddress
    }

    static let warmUp = TimeSpan.milliseconds(500)
    let duration: TimeSpan

    init(options: Simulation.Options) {
        self.options = options
        // Each part has luck of its own, so that an option that fixes one leaves the others as they are.
        var seed = SplitMix(seed: options.seed)
        var shape = seed.split(), planning = seed.split(), working = seed.split()
        var clocks = seed.split(), clientLuck = seed.split(), network = seed.split()
        random = seed.split()
        if options.salt > 0 { random = SplitMix(seed: random.next() ^ options.salt) }
        let drawnPace = shape.pick(Simulation.Options.paces)
        let drawnNodes = shape.pick([1, 3, 3, 3, 3, 3, 5])
        let drawnRegions = shape.pick([1, 1, 1, 1, 2, 2, 3])
        let drawnPartitions = shape.pick([1, 2, 4, 8])
        pace = max(1, options.pace ?? drawnPace)
        nodesPerRegion = min(options.nodes ?? drawnNodes, NodeAddress.nodesMax)
        let regionCount = min(options.regions ?? drawnRegions, NodeAddress.regionsMax)
        map = PartitionMap(equalPartitions: options.partitions ?? drawnPartitions)
        duration = options.duration * Simulation.stretch(pace)
        plan = FaultPlan(
            random: &planning, only: options.faults, kept: options.keptFaults,
            from: .zero.advanced(by: Self.warmUp * pace), duration: duration, pace: pace)
        // Drawn after all others.
        var luckOfUsers = seed.split()
        workload = Workload(
            random: &working, compaction: plan.has(.compaction), pace: pace, only: options.work,
            clients: options.clients, users: luckOfUsers.chance(1, in: 4))
        regions = (1...regionCount).map { RegionID(UInt16($0)) }
        var addresses: [NodeAddress] = []
        for region in regions {
            for node in 1...nodesPerRegion {
                addresses.append(NodeAddress(region: region, node: NodeID(UInt16(node))))
            }
        }
        self.addresses = addresses
        if regions.count > 1, plan.has(.newRegion) { awaitedRegion = regions.last }
        let wideDelay = TimeSpan.milliseconds(5 + network.below(80))
        self.network = Network(wideDelay: wideDelay, random: network)
        self.network.faults = plan.network
        for region in regions {
            timelines[region] = RegionTimeline()
            maps[region] = RegionMap(map)
            told[region] = .initial
            users[region] = UserHistory()
        }
        for address in addresses {
            let clock = NodeClock(
                random: &clocks, driftPPMMax: plan.driftPPMMax, wallSkewMax: plan.clockSkewMax)
            nodes.add(SimulatedNode(address: address, clock: clock))
        }
        for region in regions {
            for _ in 0..<workload.clientsPerRegion {
                clients.append(
                    Client(
                        number: clients.count, region: region,
                        node: NodeID(UInt16(1 + clientLuck.below(UInt64(nodesPerRegion)))),
                        random: clientLuck.split()))
            }
        }
        if workload.hasUsers {
            for i in clients.indices { clients[i].user = Self.userNames[i % Self.userNames.count] }
            for region in regions {
                let node = NodeID(UInt16(1 + luckOfUsers.below(UInt64(nodesPerRegion))))
                var client = Client(
                    number: clients.count, region: region, node: node, random: luckOfUsers.split())
                client.user = AuthState.root
                client.changes = UserOperator()
                clients.append(client)
            }
        }
    }

    func fail(_ violation: Violation) {
        if violations.isEmpty { brokenAt = queue.now }
        if violations.count < 20, !violations.contains(violation) { violations.append(violation) }
    }

    @inline(__always) func say(_ text: @autoclosure () -> String) {
        if options.isVerbose { print("\(queue.now.nanoseconds / 1_000)us \(text())") }
    }

    /// A time that belongs to the protocol's own: stretched with it.
    func paced(_ milliseconds: UInt64) -> TimeSpan { .milliseconds(milliseconds) * pace }

    // MARK: Running

    func start() {
        for address in addresses where address.region != awaitedRegion {
            queue.schedule(.boot(address), after: .microseconds(random.below(20_000)))
        }
        if awaitedRegion != nil {
            // Nothing else is drawn for it: a half of the time is over.
            let half = TimeSpan(nanoseconds: duration.nanoseconds / 2)
            queue.schedule(.act(.addRegion), at: .zero.advanced(by: Self.warmUp * pace + half))
        }
        for client in clients {
            queue.schedule(.clientNext(client.number), after: paced(100 + random.below(300)))
        }
        for address in addresses {
            queue.schedule(.readerNext(address), after: paced(100 + random.below(300)))
        }
        for fault in plan.schedule { queue.schedule(.fault(fault, tries: 0), at: fault.at) }
    }

    /// Until `end`, or until something is broken.
    func run(until end: Instant) {
        while violations.isEmpty, queue.nextDue <= end, let event = queue.next() {
            counts.events += 1
            handle(event)
        }
        if violations.isEmpty { queue.moveTime(to: end) }
    }

    private func handle(_ event: Event) {
        switch event {
        case .packet(let packet): onPacket(packet)
        case .turn(let address, let life):
            if nodes[address]?.life == life { takeTurn(address) }
        case .wake(let address, let life):
            guard let node = nodes[address], node.life == life, node.isUp, queue.now >= node.wakeDue
            else { return }
            node.wakeDue = .never
            deliver(.wake, to: address)
        case .synced(let address, let life, let ticket):
            if nodes[address]?.life == life { onSynced(address, ticket) }
        case .input(let address, let life, let input):
            if nodes[address]?.life == life { deliver(input, to: address) }
        case .read(let address, let life, let request):
            if nodes[address]?.life == life { answer(request, at: address) }
        case .flush(let address, let life):
            if nodes[address]?.life == life { beginFlush(address) }
        case .flushed(let address, let life, let store, let digests):
            if nodes[address]?.life == life { endFlush(address, store, digests) }
        case .connect(let pair): connect(pair)
        case .boot(let address): boot(address)
        case .unfreeze(let address): unfreeze(address)
        case .fault(let fault, let tries): if faultsAreOn { inject(fault, tries: tries) }
        case .act(let action): if faultsAreOn { act(action) }
        case .clientNext(let client): clientNext(client)
        case .clientTimeout(let client, let operation): clientTimeout(client, operation)
        case .readerNext(let address): readerNext(address)
        case .ask(let address, let asker):
            deliver(
                .request(
                    .members(.admit(asker)), token: Self.admissions | UInt64(asker.seat.rawValue),
                    deadline: nodes[address]?.clock.reading(at: queue.now).instant
                        .advanced(by: paced(3_000)) ?? .never), to: address)
        case .admitted(let address, let list): admitted(list, at: address)
        case .retire(let address): retire(address)
        case .again(let address, let life, let again):
            if nodes[address]?.life == life, nodes[address]?.isUp == true { on(again, at: address) }
        }
    }

    // MARK: Inputs

    func deliver(_ input: NodeInput, to address: NodeAddress) {
        guard let node = nodes[address], node.isUp else { return }
        node.inbox.append(input)
        scheduleTurn(address)
    }

    func scheduleTurn(_ address: NodeAddress) {
        guard let node = nodes[address], !node.isTurnScheduled, !node.isFrozen else { return }
        node.isTurnScheduled = true
        var delay = TimeSpan.microseconds(5 + random.below(40))
        if faultsAreOn, plan.has(.slowNode), random.chance(1, in: 200) {
            delay = delay + paced(random.below(80))
        }
        queue.schedule(.turn(address, life: node.life), after: delay)
    }

    private func onPacket(_ packet: Packet) {
        guard network[Pair(packet.from, packet.to)].generation == packet.generation,
            nodes[packet.to]?.isUp == true
        else { return }
        trace.add(queue.now.nanoseconds)
        trace.add(UInt64(packet.to.place))
        counts.messages += 1
        switch packet.payload {
        case .peer(let messages, let from, let to):
            // As the host does: what was meant for another incarnation is no more than a sign of life.
            guard nodes[packet.to]?.identity.node == to else {
                return deliver(.message(from: from, .heartbeat), to: packet.to)
            }
            for message in messages { deliver(.message(from: from, message), to: packet.to) }
        case .link(let message):
            deliver(.linkMessage(packet.from.region, packet.from.node, message), to: packet.to)
        case .snapshot(let snapshot): install(snapshot, at: packet.to, from: packet.from)
        case .snapshotRefused(let group):
            deliver(.snapshotRefused(group, by: packet.from.node), to: packet.to)
        }
    }

    private func onSynced(_ address: NodeAddress, _ ticket: Ticket) {
        nodes[address]?.log.sync(through: ticket)
        nodes[address]?.isSyncing = false
        deliver(.durable(ticket), to: address)
        beginSync(address)
    }

    func beginSync(_ address: NodeAddress) {
        guard let node = nodes[address], !node.isSyncing, let ticket = node.log.newestPending
        else { return }
        node.isSyncing = true
        var delay = TimeSpan.microseconds(80 + random.below(400))
        if faultsAreOn, plan.has(.slowDisk), random.chance(1, in: 20) {
            delay = delay + paced(random.below(120))
        }
        if node.busy.until > queue.now { delay = delay + node.busy.sync }
        queue.schedule(.synced(address, life: node.life, ticket), after: delay)
    }
}
