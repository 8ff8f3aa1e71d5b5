import Primitives

struct NodeAddress: Hashable, Comparable, CustomStringConvertible {
    let region: RegionID
    let node: NodeID
    static func < (a: Self, b: Self) -> Bool { (a.region, a.node) < (b.region, b.node) }
    var description: String { "\(region)/\(node)" }
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
        case peer(Bytes)
        case link(Bytes)
        case snapshot(SimulatedStore.Snapshot)
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
}

/// Connections between nodes. In order within a connection, unless a fault says otherwise.
struct Network {
    private struct Direction: Hashable {
        let from: NodeAddress
        let to: NodeAddress
    }
    struct Connection {
        var isUp = false
        var generation: UInt64 = 0
    }

    var faults = NetworkFaults()
    private var connections: [Pair: Connection] = [:]
    private var blocked: Set<Direction> = []
    private var lastDue: [Direction: Instant] = [:]
    private let wideDelay: TimeSpan
    private var random: SplitMix

    init(wideDelay: TimeSpan, random: SplitMix) {
        self.wideDelay = wideDelay
        self.random = random
    }

    subscript(pair: Pair) -> Connection {
        get { connections[pair] ?? Connection() }
        set { connections[pair] = newValue }
    }

    mutating func block(from: NodeAddress, to: NodeAddress) {
        blocked.insert(Direction(from: from, to: to))
    }
    mutating func unblock(from: NodeAddress, to: NodeAddress) {
        blocked.remove(Direction(from: from, to: to))
    }
    mutating func unblockAll() { blocked.removeAll() }

    func isBlocked(from: NodeAddress, to: NodeAddress) -> Bool {
        blocked.contains(Direction(from: from, to: to))
    }

    /// When copies of a message sent now arrive: none, one, or two times.
    mutating func arrivals(from: NodeAddress, to: NodeAddress, at now: Instant) -> [Instant] {
        let direction = Direction(from: from, to: to)
        if blocked.contains(direction) || random.chance(faults.lossPerMille, in: 1_000) { return [] }
        var delay = TimeSpan.microseconds(30 + random.below(150))
        if from.region != to.region { delay = delay + wideDelay + .microseconds(random.below(2_000)) }
        if random.chance(faults.stallPerMille, in: 1_000) {
            delay = delay + .milliseconds(5 + random.below(60))
        }
        var due = now.advanced(by: delay)
        if random.chance(faults.reorderingPerMille, in: 1_000) {
            due = due.advanced(by: .microseconds(random.below(5_000)))
        } else {
            due = max(due, lastDue[direction] ?? .zero)
            lastDue[direction] = due
        }
        var list = [due]
        if random.chance(faults.duplicationPerMille, in: 1_000) {
            list.append(due.advanced(by: .microseconds(random.below(20_000))))
        }
        return list
    }
}
