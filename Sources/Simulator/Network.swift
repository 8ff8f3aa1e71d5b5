import GeoReplication
import Node
import Primitives

struct NodeAddress: Hashable, Comparable, CustomStringConvertible {
    let region: RegionID
    let node: NodeID
    static func < (a: Self, b: Self) -> Bool { (a.region, a.node) < (b.region, b.node) }
    var description: String { "\(region)/\(node)" }

    static let nodesMax = 8
    static let regionsMax = 4
    static let placesMax = nodesMax * regionsMax
    /// Its place in tables of all nodes.
    @inline(__always) var place: Int {
        (Int(region.rawValue) - 1) * Self.nodesMax + Int(node.rawValue) - 1
    }
}

/// All machines, by address.
struct Machines {
    private var list: ContiguousArray<SimulatedNode?> = .init(
        repeating: nil, count: NodeAddress.placesMax)
    subscript(address: NodeAddress) -> SimulatedNode? { list[address.place] }
    mutating func add(_ node: SimulatedNode) { list[node.address.place] = node }
}

/// Two nodes, without direction.
struct Pair: Hashable, Comparable {
    let low: NodeAddress
    let high: NodeAddress
    init(_ a: NodeAddress, _ b: NodeAddress) {
        low = min(a, b)
        high = max(a, b)
    }
    static func < (a: Self, b: Self) -> Bool { (a.low, a.high) < (b.low, b.high) }
    var isWide: Bool { low.region != high.region }
}

struct Packet {
    enum Payload {
        case peer([PeerMessage], from: NodeID, to: NodeID)
        case link(LinkMessage)
        case snapshot(SimulatedStore.Snapshot)
        case snapshotRefused(GroupID)
    }
    let from: NodeAddress
    let to: NodeAddress
    /// Of the connection that it travels on: what is under way when one breaks is lost.
    let generation: UInt64
    let payload: Payload
}

/// What the network does to a message, apart from carrying it.
struct NetworkFaults: Equatable {
    var lossPerMille: UInt64 = 0
    var duplicationPerMille: UInt64 = 0
    var reorderingPerMille: UInt64 = 0
    /// Now and then a message takes much longer, and all behind it on its connection.
    var stallPerMille: UInt64 = 0
    /// Stretches stalls and detours.
    var pace: UInt64 = 1
}

/// Connections between nodes. In order within a connection, unless a fault says otherwise.
struct Network {
    struct Connection {
        var isUp = false
        var generation: UInt64 = 0
    }

    var faults = NetworkFaults()
    private static let size = NodeAddress.placesMax
    private var connections = ContiguousArray(repeating: Connection(), count: size * size)
    /// How many faults block a direction at the moment.
    private var blocked = ContiguousArray(repeating: 0, count: size * size)
    /// What a direction takes longer than usual, for a while.
    private var detours = ContiguousArray(repeating: TimeSpan.zero, count: size * size)
    private var lastDue = ContiguousArray(repeating: Instant.zero, count: size * size)
    private let wideDelay: TimeSpan
    private var random: SplitMix

    init(wideDelay: TimeSpan, random: SplitMix) {
        self.wideDelay = wideDelay
        self.random = random
    }

    private func place(_ from: NodeAddress, _ to: NodeAddress) -> Int {
        from.place * Self.size + to.place
    }

    subscript(pair: Pair) -> Connection {
        get { connections[place(pair.low, pair.high)] }
        set { connections[place(pair.low, pair.high)] = newValue }
    }

    mutating func block(from: NodeAddress, to: NodeAddress) { blocked[place(from, to)] += 1 }
    mutating func unblock(from: NodeAddress, to: NodeAddress) {
        blocked[place(from, to)] = max(0, blocked[place(from, to)] - 1)
    }
    mutating func unblockAll() {
        for i in blocked.indices {
            blocked[i] = 0
            detours[i] = .zero
        }
    }

    mutating func detour(from: NodeAddress, to: NodeAddress, _ span: TimeSpan) {
        detours[place(from, to)] = span
    }

    func isBlocked(from: NodeAddress, to: NodeAddress) -> Bool { blocked[place(from, to)] > 0 }

    /// When copies of a message sent now arrive: never, once, or twice.
    mutating func arrivals(
        from: NodeAddress, to: NodeAddress, at now: Instant
    ) -> (first: Instant?, second: Instant?) {
        let place = place(from, to)
        if blocked[place] > 0 || isStruck(faults.lossPerMille) { return (nil, nil) }
        var delay = TimeSpan.microseconds(30 + random.below(150)) + detours[place]
        if from.region != to.region { delay = delay + wideDelay + .microseconds(random.below(2_000)) }
        if isStruck(faults.stallPerMille) { delay = delay + .milliseconds(5 + random.below(60)) * faults.pace }
        var due = now.advanced(by: delay)
        if isStruck(faults.reorderingPerMille) {
            due = due.advanced(by: .microseconds(random.below(5_000)) * faults.pace)
        } else {
            due = max(due, lastDue[place])
            lastDue[place] = due
        }
        guard isStruck(faults.duplicationPerMille) else { return (due, nil) }
        return (due, due.advanced(by: .microseconds(random.below(20_000)) * faults.pace))
    }

    private mutating func isStruck(_ perMille: UInt64) -> Bool {
        perMille > 0 && random.chance(perMille, in: 1_000)
    }
}
