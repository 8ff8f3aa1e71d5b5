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
        case fault
        case heal(NodeAddress, NodeAddress)
        case healGroup(GroupCut)
        case clientNext(Int)
        case clientTimeout(Int, operation: Int)
        case readerNext(NodeAddress)
    }

    let options: Simulation.Options
    let map: PartitionMap
    let plan: FaultPlan
    let workload: Workload
    let regions: [RegionID]
    let nodesPerRegion: Int
    let addresses: [NodeAddress]

    var queue = EventQueue<Event>()
    var random: SplitMix
    var network: Network
    var nodes: [NodeAddress: SimulatedNode] = [:]
    var clients: [Client] = []
    var operations: [Operation] = []
    /// Of requests under way: the operation of a token is its index plus one.
    var timelines: [RegionID: RegionTimeline] = [:]
    /// The highest revision that anybody has been told of.
    var told: [RegionID: Revision] = [:]
    var streams: [WatchStream] = []
    /// The newest version of every key, as the timelines have it.
    var latest: [RegionID: [Bytes: Row]] = [:]
    /// The highest frontier that each epoch's sequencer has published.
    var published: [RegionID: [Epoch: Revision]] = [:]
    var digests: [DigestKey: Digest] = [:]
    var trace = TraceHash()
    var violations: [Violation] = []
    var faultsAreOn = true
    /// Requests sent after this are answered within their deadline.
    var faultsEndedAt = Instant.never
    var counts = Simulation.Counts()

    struct GroupCut: Equatable {
        let node: NodeAddress
        let partition: PartitionID
    }
    var groupCuts: [GroupCut] = []

    struct DigestKey: Hashable {
        let region: RegionID
        let group: GroupID
        let slot: Slot
    }
    struct Digest {
        let value: UInt64
        let from: NodeAddress
    }

    init(options: Simulation.Options) {
        self.options = options
        var random = SplitMix(seed: options.seed)
        plan = FaultPlan(random: &random, only: options.faults)
        workload = Workload(random: &random, compaction: plan.has(.compaction))
        nodesPerRegion = options.nodes ?? random.pick([1, 3, 3, 3, 3, 3, 5])
        let regionCount = options.regions ?? random.pick([1, 1, 1, 2, 2])
        map = PartitionMap(equalPartitions: options.partitions ?? random.pick([1, 2, 4, 8]))
        regions = (1...regionCount).map { RegionID(UInt16($0)) }
        var addresses: [NodeAddress] = []
        for region in regions {
            for node in 1...nodesPerRegion {
                addresses.append(NodeAddress(region: region, node: NodeID(UInt16(node))))
            }
        }
        self.addresses = addresses
        network = Network(
            wideDelay: .milliseconds(5 + random.below(80)), random: random.split())
        network.faults = plan.network
        for region in regions {
            timelines[region] = RegionTimeline()
            told[region] = .initial
        }
        for address in addresses {
            let clock = NodeClock(
                random: &random, driftPPMMax: plan.driftPPMMax, wallSkewMax: plan.clockSkewMax)
            nodes[address] = SimulatedNode(address: address, clock: clock)
        }
        for region in regions {
            for _ in 0..<workload.clientsPerRegion {
                clients.append(
                    Client(
                        number: clients.count, region: region,
                        node: NodeID(UInt16(1 + random.below(UInt64(nodesPerRegion)))),
                        random: random.split()))
            }
        }
        self.random = random.split()
    }

    func fail(_ violation: Violation) {
        if violations.count < 20, !violations.contains(violation) { violations.append(violation) }
    }

    func say(_ text: @autoclosure () -> String) {
        if options.isVerbose { print("\(queue.now.nanoseconds / 1_000)us \(text())") }
    }

    // MARK: Running

    func start() {
        for address in addresses {
            queue.schedule(.boot(address), after: .microseconds(random.below(20_000)))
        }
        for client in clients {
            queue.schedule(
                .clientNext(client.number), after: .milliseconds(100 + random.below(300)))
        }
        for address in addresses {
            queue.schedule(.readerNext(address), after: .milliseconds(100 + random.below(300)))
        }
        if !plan.momentary.isEmpty {
            queue.schedule(.fault, after: .milliseconds(500 + random.below(1_000)))
        }
    }

    /// Until `end`, or until something is broken.
    func run(until end: Instant) {
        while violations.isEmpty, queue.nextDue <= end, let event = queue.next() {
            counts.events += 1
            handle(event)
        }
        queue.moveTime(to: end)
    }

    private func handle(_ event: Event) {
        switch event {
        case .packet(let packet): onPacket(packet)
        case .turn(let address, let life):
            guard nodes[address]?.life == life else { return }
            takeTurn(address)
        case .wake(let address, let life):
            guard let node = nodes[address], node.life == life, node.isUp,
                queue.now >= node.wakeDue
            else { return }
            nodes[address]?.wakeDue = .never
            deliver(.wake, to: address)
        case .synced(let address, let life, let ticket):
            guard nodes[address]?.life == life else { return }
            onSynced(address, ticket)
        case .input(let address, let life, let input):
            guard nodes[address]?.life == life else { return }
            deliver(input, to: address)
        case .read(let address, let life, let request):
            guard nodes[address]?.life == life else { return }
            answer(request, at: address)
        case .flush(let address, let life):
            guard nodes[address]?.life == life else { return }
            beginFlush(address)
        case .flushed(let address, let life, let store, let digests):
            guard nodes[address]?.life == life else { return }
            endFlush(address, store, digests)
        case .connect(let pair): connect(pair)
        case .boot(let address): boot(address)
        case .unfreeze(let address): unfreeze(address)
        case .fault:
            guard faultsAreOn else { return }
            injectFault()
            queue.schedule(
                .fault,
                after: TimeSpan(nanoseconds: 1 + random.below(2 * plan.period.nanoseconds)))
        case .heal(let a, let b): network.unblock(from: a, to: b)
        case .healGroup(let cut):
            if let i = groupCuts.firstIndex(of: cut) { groupCuts.remove(at: i) }
        case .clientNext(let client): clientNext(client)
        case .clientTimeout(let client, let operation): clientTimeout(client, operation)
        case .readerNext(let address): readerNext(address)
        }
    }

    // MARK: Inputs

    func deliver(_ input: NodeInput, to address: NodeAddress) {
        guard nodes[address]?.isUp == true else { return }
        nodes[address]?.inbox.append(input)
        scheduleTurn(address)
    }

    func scheduleTurn(_ address: NodeAddress) {
        guard let node = nodes[address], !node.isTurnScheduled, !node.isFrozen else { return }
        nodes[address]?.isTurnScheduled = true
        var delay = TimeSpan.microseconds(5 + random.below(40))
        if faultsAreOn, plan.has(.slowNode), random.chance(1, in: 200) {
            delay = delay + .milliseconds(random.below(80))
        }
        queue.schedule(.turn(address, life: node.life), after: delay)
    }

    private func onPacket(_ packet: Packet) {
        guard network[Pair(packet.from, packet.to)].generation == packet.generation,
            nodes[packet.to]?.isUp == true
        else { return }
        trace.add(queue.now.nanoseconds)
        trace.add(UInt64(packet.to.region.rawValue) << 16 | UInt64(packet.to.node.rawValue))
        counts.messages += 1
        switch packet.payload {
        case .peer(let bytes):
            trace.add(bytes)
            do {
                let (_, messages) = try PeerFrame.decode(bytes)
                for message in messages {
                    deliver(.message(from: packet.from.node, message), to: packet.to)
                }
            } catch {
                fail(Violation("messages survive their encoding", error.what))
            }
        case .link(let bytes):
            trace.add(bytes)
            do {
                let message = try LinkMessage(decoding: bytes)
                deliver(
                    .linkMessage(packet.from.region, packet.from.node, message), to: packet.to)
            } catch {
                fail(Violation("messages survive their encoding", error.what))
            }
        case .snapshot(let snapshot): install(snapshot, at: packet.to)
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
        nodes[address]?.isSyncing = true
        var delay = TimeSpan.microseconds(80 + random.below(400))
        if faultsAreOn, plan.has(.slowDisk), random.chance(1, in: 30) {
            delay = delay + .milliseconds(random.below(120))
        }
        queue.schedule(.synced(address, life: node.life, ticket), after: delay)
    }
}
