import Consensus
import GeoReplication
import Partitioning
import Primitives

// The rooms of the pure core: decisions, no effects.

extension Room {
    static var pureRooms: [Room] {
        [
            Room("put evaluation", per: "put", budget: .evaluation, prepare: evaluation),
            Room("Paxos step", per: "entry of a group of three", budget: .paxos, prepare: paxos),
            Room("range merge", per: "row of 500, 50 of them pending", units: 500, warmUp: 10,
                operations: 50, budget: .overlay, prepare: rangeMerge),
            Room("timeline merge", per: "revision", units: 100, warmUp: 10, operations: 100,
                budget: .timeline, prepare: timelineMerge),
            Room("geo batch", per: "row of 500, shipped and received", units: 500, warmUp: 10,
                operations: 50, budget: .geo, prepare: geoBatch),
        ]
    }

    static let value = Bytes([UInt8](repeating: 0x78, count: 256))

    static func key(_ n: Int) -> Bytes { Bytes("bench/\(n + 10_000_000)") }

    static func row(_ n: Int, revision: Int64, sub: UInt32 = 0) -> Row {
        Row(
            key: key(n), value: value, createRevision: Revision(revision), modRevision: Revision(revision),
            version: 1, lease: .none, sub: sub,
            origin: Origin(
                region: RegionID(1), revision: Revision(revision),
                stamp: Stamp(ticks: UInt64(revision), region: RegionID(1))))
    }

    /// The plan, the stored row, the new one: what the partition's leader does with a put.
    private static func evaluation() -> Step {
        let stored = row(1, revision: 7)
        let put = Put(key: stored.key, value: value)
        let overlay = Overlay()
        return Step(run: {
            let transaction = Transaction(success: [.put(put)])
            var plan = ReadPlan()
            plan.add(transaction)
            let laid = overlay.lay(on: [stored], plan: plan)
            let evaluation = try Evaluator.evaluate(
                transaction, on: laid.table, plan: plan, historic: [], leaseIsAlive: { _ in false })
            guard evaluation.effects.count == 1 else { throw BenchmarkError("no effect") }
        })
    }

    /// One entry: proposed, sent to two, accepted, durable on all three, decided.
    private static func paxos() throws -> Step {
        let cluster = try PaxosCluster()
        return Step(run: { try cluster.decideOne(value) })
    }

    private static func rangeMerge() -> Step {
        let rows = (0..<500).map { row($0, revision: 7) }
        var overlay = Overlay()
        for n in stride(from: 0, to: 500, by: 10) { overlay.put(row(n, revision: 9), writer: UInt64(n)) }
        let range = KeyRange(key: "bench/", end: "bench0")
        var plan = ReadPlan()
        plan.add(range)
        return Step(run: { [overlay, plan] in
            let laid = overlay.lay(on: rows, plan: plan)
            guard laid.table.live(in: range).count == 500 else { throw BenchmarkError("rows are missing") }
        })
    }

    private static func timelineMerge() -> Step {
        var merge = TimelineMerge(emitted: Revision(1), lostThrough: Revision(1), rowsMax: 10_000)
        var revision: Int64 = 1
        let rows = (0..<100).map { row($0, revision: 1) }
        return Step(run: {
            for n in 0..<100 {
                revision += 1
                merge.add(
                    RegionEffects.AppliedRows(revision: Revision(revision), rows: [rows[n]], aborted: false))
            }
            guard case .changes(let changes) = merge.advance(to: Revision(revision)), changes.count == 100
            else { throw BenchmarkError("changes are missing") }
        })
    }

    /// 500 revisions read, shipped as one batch, encoded, decoded, received, acknowledged.
    private static func geoBatch() throws -> Step {
        let link = GeoLink()
        try link.begin()
        return Step(run: { try link.shipBatch(of: 500) })
    }
}

struct BenchmarkError: Error {
    let text: String
    init(_ text: String) { self.text = text }
}

/// Three replicas joined by memory, whose writes are durable at once.
private final class PaxosCluster {
    private var groups: [Group]
    private var writes: [UInt64]
    private var effects: Consensus.Effects = []
    private var queue: [(from: Int, to: Int, message: GroupMessage)] = []
    private var decided = 0
    private let now = Instant(nanoseconds: 1_000_000_000)

    init() throws {
        let nodes = (1...3).map { NodeID(UInt16($0)) }
        groups = nodes.map { [now] node in
            Group(
                id: GroupID(keyspace: .standard, partition: PartitionID(1)), node: node,
                configuration: Configuration(voters: nodes), restored: RestoredLog(),
                applied: AppliedPosition(), lease: nil, limits: Limits(), at: now)
        }
        writes = [0, 0, 0]
        step(0, .campaign)
        drain()
        guard groups[0].isLeading else { throw BenchmarkError("nobody leads") }
    }

    func decideOne(_ payload: Bytes) throws {
        let before = decided
        effects.removeAll(keepingCapacity: true)
        guard groups[0].propose(payload, at: now, into: &effects) != nil else {
            throw BenchmarkError("the leader takes no proposal")
        }
        finish(0)
        drain()
        guard decided > before else { throw BenchmarkError("nothing was decided") }
    }

    private func step(_ i: Int, _ input: Input) {
        effects.removeAll(keepingCapacity: true)
        groups[i].step(input, at: now, into: &effects)
        finish(i)
    }

    /// The turn's end, and what its effects ask for.
    private func finish(_ i: Int) {
        groups[i].flush(at: now, into: &effects)
        var isElected = false
        var persisted = false
        for effect in effects {
            switch effect {
            case .send(let to, let message): queue.append((i, Int(to.rawValue) - 1, message))
            case .persist:
                writes[i] += 1
                persisted = true
            case .elected: isElected = true
            case .decided: if i == 0 { decided += 1 }
            case .leading, .deposed, .followed, .snapshotWanted, .configured, .gone, .note: break
            }
        }
        if isElected { step(i, .begin(payload: "b")) }
        if persisted { step(i, .durable(writes: writes[i])) }
    }

    private func drain() {
        var next = 0
        while next < queue.count {
            let (from, to, message) = queue[next]
            next += 1
            step(to, .message(from: NodeID(UInt16(from + 1)), message))
        }
        queue.removeAll(keepingCapacity: true)
    }
}

/// A link between two regions without a network.
private final class GeoLink {
    private var sender = LinkSender(region: RegionID(1), destination: RegionID(2))
    private var receiver = LinkReceiver(region: RegionID(2), origin: RegionID(1), cursor: .zero)
    private var revision: Int64 = 0
    private var toSender: [LinkSender.Effect] = []
    private var toReceiver: [LinkReceiver.Effect] = []
    private let rows = (0..<500).map { Room.row($0, revision: 1) }
    private var now = ClockReading(instant: Instant(nanoseconds: 1), wallMicroseconds: 1_000_000_000)

    func begin() throws {
        receiver.step(.connected, at: now, into: &toReceiver)
        sender.step(.connected, at: now, into: &toSender)
        try exchange([])
    }

    func shipBatch(of count: Int) throws {
        var changes: [RevisionChanges] = []
        changes.reserveCapacity(count)
        for n in 0..<count {
            revision += 1
            var row = rows[n]
            row.modRevision = Revision(revision)
            changes.append(RevisionChanges(revision: Revision(revision), rows: [row]))
        }
        sender.step(.frontier(Revision(revision)), at: now, into: &toSender)
        try exchange(changes)
        guard sender.acknowledged == Revision(revision) else { throw BenchmarkError("not acknowledged") }
    }

    /// Until neither has anything to say.
    private func exchange(_ changes: [RevisionChanges]) throws {
        while !toSender.isEmpty || !toReceiver.isEmpty {
            let sent = toSender, received = toReceiver
            toSender.removeAll(keepingCapacity: true)
            toReceiver.removeAll(keepingCapacity: true)
            for effect in sent {
                switch effect {
                case .send(let message):
                    let arrived = try LinkMessage(decoding: message.encoded())
                    receiver.step(.message(arrived), at: now, into: &toReceiver)
                case .readChanges(let after, let through, _):
                    sender.step(.changes(after: after, through: through, changes), at: now, into: &toSender)
                case .note: break
                }
            }
            for effect in received {
                switch effect {
                case .send(let message): sender.step(.message(message), at: now, into: &toSender)
                case .apply(let batch):
                    receiver.step(.applied(.replicated(cursor: batch.through)), at: now, into: &toReceiver)
                case .readCursor: receiver.step(.cursor(receiver.cursor), at: now, into: &toReceiver)
                case .note: break
                }
            }
        }
    }
}
