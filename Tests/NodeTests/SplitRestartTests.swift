import Node
import Partitioning
import Primitives
import Testing

/// A node alone, its log, and a store that a crash takes back to what was flushed last.
private struct Machine {
    var node: Node
    var clock = ClockReading(instant: Instant(nanoseconds: 1_000_000_000), wallMicroseconds: 1_000_000)
    var effects = NodeEffects()
    var disk = Disk()
    var flushed = Disk()
    /// Groups whose records are not all there yet.
    var unrecorded: Set<GroupID> = []
    var log: [GroupID: RestoredLog] = [:]
    var turns = 0
    /// The store is flushed at the end of this turn.
    var flushAt = Int.max
    var answers: [UInt64: Response] = [:]
    private var nextToken: UInt64 = 1
    private var boot: UInt64 = 7

    struct Disk {
        var records: [GroupID: [Bytes: Bytes]] = [:]
        var applied: [GroupID: Slot] = [:]
        var rows: [Bytes: Row] = [:]
    }

    private static func configuration(boot: UInt64) -> NodeConfiguration {
        var configuration = NodeConfiguration(
            region: RegionID(1), node: NodeID(1), nodes: [NodeID(1)], partitions: 1, boot: boot)
        configuration.founding = RegionMembers(
            members: [
                .init(
                    id: 1, node: NodeID(1), token: 1, name: "n1", peerURLs: ["http://n1"],
                    level: FeatureLevel.own)
            ], used: [NodeID(1)], level: FeatureLevel.own)
        return configuration
    }

    init() throws {
        node = try Node(
            configuration: Self.configuration(boot: boot), restored: RestoredNode(), at: clock)
    }

    /// Turns at one moment, until nothing is left to do in it.
    mutating func run(_ first: [NodeInput]) {
        var inputs = first
        while !inputs.isEmpty {
            for input in inputs { node.step(input, at: clock, into: &effects) }
            node.finishTurn(at: clock, into: &effects)
            inputs = []
            turns += 1
            for change in effects.store { store(change) }
            for record in effects.persist { write(record) }
            if !effects.persist.isEmpty { inputs.append(.durable(effects.ticket)) }
            for read in effects.reads {
                let rows = read.plan.keys.compactMap { disk.rows[$0] }.sorted { $0.key < $1.key }
                inputs.append(
                    .read(
                        token: read.token,
                        ReadAnswer(applied: disk.applied[read.group] ?? .zero, rows: rows)))
            }
            for (token, response) in effects.responses { answers[token] = response }
            if turns == flushAt {
                var late: [StoreChange] = []
                node.record(unrecorded.sorted(), into: &late)
                for change in late { store(change) }
                flushed = disk
                inputs.append(.flushed(disk.applied.map { ($0.key, $0.value) }.sorted { $0.0 < $1.0 }))
            }
            let next = effects.nextWake
            effects.removeAll()
            if inputs.isEmpty, next <= clock.instant { inputs.append(.wake) }
        }
    }

    mutating func advance(_ span: TimeSpan) {
        clock = ClockReading(
            instant: clock.instant.advanced(by: span),
            wallMicroseconds: clock.wallMicroseconds + UInt64(span.nanoseconds / 1000))
        run([.wake])
    }

    mutating func settle() { for _ in 0..<40 { advance(.milliseconds(20)) } }

    mutating func ask(_ request: Request) -> UInt64 {
        nextToken += 1
        run([
            .request(
                request, token: nextToken, deadline: clock.instant.advanced(by: .seconds(5)))
        ])
        return nextToken
    }

    mutating func put(_ key: String) -> UInt64 {
        ask(.transaction(Transaction(success: [.put(Put(key: Bytes(key), value: "v"))])))
    }

    /// Killed, and started again from what was flushed and the whole log.
    mutating func restart() throws {
        boot += 1
        disk = flushed
        unrecorded = []
        answers = [:]
        effects = NodeEffects()
        node = try Node(
            configuration: Self.configuration(boot: boot), restored: restored, at: clock)
        run([.wake])
    }

    var restored: RestoredNode {
        RestoredNode(
            logs: log,
            records: disk.records.mapValues { records in
                records.sorted { $0.key < $1.key }.map { (key: $0.key, value: $0.value) }
            })
    }

    private mutating func store(_ change: StoreChange) {
        switch change {
        case .putRow(_, let row): disk.rows[row.key] = row
        case .removeRow(_, let key, _, _): disk.rows[key] = nil
        case .putRecord(let group, let key, let value):
            disk.records[group, default: [:]][key] = value
        case .removeRecord(let group, let key): disk.records[group]?[key] = nil
        case .applied(let group, let slot):
            disk.applied[group] = slot
            unrecorded.remove(group)
        case .position(let group, let slot):
            disk.applied[group] = slot
            unrecorded.insert(group)
        case .drop: break
        }
    }

    private mutating func write(_ record: LogRecord) {
        switch record {
        case .promise(let id, let ballot):
            log[id, default: RestoredLog()].promised = max(log[id]?.promised ?? .zero, ballot)
        case .truncate(let id, let slot):
            log[id, default: RestoredLog()].truncatedThrough = slot
            log[id]?.accepted.removeAll { $0.slot <= slot }
        case .decided(let id, let slot): log[id, default: RestoredLog()].decidedThrough = slot
        case .accept(let id, let slot, let ballot, let entry):
            log[id, default: RestoredLog()].accepted.removeAll { $0.slot == slot }
            log[id]?.accepted.append(.init(slot: slot, ballot: ballot, entry: entry))
            log[id]?.accepted.sort { $0.slot < $1.slot }
        }
    }
}

@Suite struct SplitRestartTests {
    init() { MutationUnderTest.set() }

    /// Two splits among writes, the store flushed once, at the end of the turn `flushAt`.
    private static func history(flushAt: Int) throws -> (machine: Machine, acknowledged: Int) {
        var machine = try Machine()
        machine.flushAt = flushAt
        machine.run([.wake])
        machine.settle()
        var puts: [UInt64] = []
        for i in 0..<8 { puts.append(machine.put("k\(i)")) }
        for parent in [PartitionID(1), PartitionID(2)] {
            let asked = machine.ask(.split(parent, at: nil))
            for i in 0..<8 { puts.append(machine.put("k\(i)")) }
            machine.settle()
            guard case .split? = machine.answers[asked] else {
                Issue.record("not split: \(String(describing: machine.answers[asked]))")
                break
            }
            for i in 0..<8 { puts.append(machine.put("k\(i)")) }
        }
        machine.settle()
        let done = puts.filter {
            if case .transaction? = machine.answers[$0] { true } else { false }
        }
        return (machine, done.count)
    }

    /// The store may have been flushed at any moment, also while the splits were under way.
    @Test func `a node that was split starts from every state in which a crash can leave its store`()
        throws
    {
        let (whole, all) = try Self.history(flushAt: .max)
        #expect(whole.node.map.count == 3 && all == 40)
        // All of them take half a minute in a debug build.
        for turn in stride(from: 0, through: whole.turns, by: 7) {
            var (machine, acknowledged) = try Self.history(flushAt: turn)
            #expect(acknowledged == 40)
            for _ in 0..<2 {
                try machine.restart()
                machine.settle()
                #expect(machine.node.map.count == 3 && machine.node.holdsAllPartitions)
                #expect(machine.disk.rows.values.map(\.version).reduce(0, +) == acknowledged)
                let again = machine.put("k0")
                machine.settle()
                guard case .transaction? = machine.answers[again] else {
                    Issue.record("flushed after turn \(turn): no answer")
                    return
                }
                acknowledged += 1
                machine.flushAt = machine.turns + 1
                machine.advance(.milliseconds(20))
            }
        }
    }

    private static let child = GroupID(keyspace: .standard, partition: PartitionID(2))

    /// What is known to exist, and not here, has frontiers like all others. It once had a record of them:
    /// a store that was flushed then had a child without a state, whose log had been cut off at the split.
    @Test func `of a partition that is not here yet nothing is written`() throws {
        var machine = try Machine()
        machine.run([.wake])
        machine.settle()
        let epoch = machine.node.sequencerEpoch
        var timeline = Timeline(
            epoch: Epoch(round: epoch.round + 1, node: NodeID(2)), frontier: Revision(9),
            compactRevision: .zero, floor: .zero, tails: [])
        timeline.tails = (1...2).map { _ in .init(term: .zero, slot: .zero) }
        machine.run([.message(from: NodeID(2), .region(.timeline(timeline)))])
        machine.settle()
        #expect(machine.node.partitionStatus.count == 2 && !machine.node.holdsAllPartitions)
        #expect(machine.disk.records[Self.child] == nil && machine.disk.applied[Self.child] == nil)
    }

    /// S12, where a snapshot brings the split: the child is in no timeline yet.
    @Test func `a parent of after the split, without its child, is not all that there was`() throws {
        let whole = try Self.history(flushAt: .max).machine
        let sizes = whole.disk.records.mapValues { $0.sorted { $0.key < $1.key } }
        func records(_ n: UInt32) -> (GroupID, records: [(key: Bytes, value: Bytes)]) {
            let group = GroupID(keyspace: .standard, partition: PartitionID(n))
            return (group, (sizes[group] ?? []).map { (key: $0.key, value: $0.value) })
        }
        var configuration = NodeConfiguration(
            region: RegionID(1), node: NodeID(2), nodes: [NodeID(1), NodeID(2)], partitions: 1, boot: 3)
        configuration.isFounder = false
        var node = try Node(
            configuration: configuration, restored: RestoredNode(), at: whole.clock)
        var effects = NodeEffects()
        var timeline = Timeline(
            epoch: whole.node.sequencerEpoch, frontier: Revision(9), compactRevision: .zero,
            floor: .zero, tails: [.init(term: .zero, slot: Slot(3))])
        func turn(_ input: NodeInput) {
            node.step(input, at: whole.clock, into: &effects)
            timeline.frontier = Revision(timeline.frontier.rawValue + 1)
            node.step(.message(from: NodeID(1), .region(.timeline(timeline))), at: whole.clock, into: &effects)
            node.finishTurn(at: whole.clock, into: &effects)
        }
        for n in [UInt32(1), 3, 2] {
            #expect(node.revision == .initial, "shown before partition \(n) came")
            let (group, records) = records(n)
            turn(.snapshotInstalled(group, records: records))
        }
        #expect(node.revision == timeline.frontier)
    }

    /// Otherwise the last log from which a child could be made may go (docs/decisions/0021).
    @Test func `a parent of after the splits is taken when its children are here`() throws {
        let whole = try Self.history(flushAt: .max).machine
        var early = try Machine()
        early.run([.wake])
        early.settle()
        _ = early.put("k0")
        early.settle()
        func records(_ n: UInt32) -> [(key: Bytes, value: Bytes)] {
            (whole.disk.records[Self.group(n)] ?? [:]).sorted { $0.key < $1.key }
                .map { (key: $0.key, value: $0.value) }
        }
        var configuration = NodeConfiguration(
            region: RegionID(1), node: NodeID(1), nodes: [NodeID(1), NodeID(2)], partitions: 1, boot: 3)
        configuration.isFounder = true
        var node = try Node(configuration: configuration, restored: early.restored, at: whole.clock)
        var effects = NodeEffects()
        func turn(_ input: NodeInput) {
            node.step(input, at: whole.clock, into: &effects)
            node.finishTurn(at: whole.clock, into: &effects)
        }
        func isTaken(_ n: UInt32) -> Bool {
            guard let range = whole.node.range(of: PartitionID(n)) else { return false }
            let applied = whole.disk.applied[Self.group(n)] ?? .zero
            let taken = node.mayInstall(Self.group(n), range, applied: applied)
            turn(.wake)
            if taken { turn(.snapshotInstalled(Self.group(n), records: records(n))) }
            return taken
        }
        #expect(!isTaken(1), "it does not know of the splits")
        turn(.snapshotInstalled(Self.group(0), records: records(0)))
        #expect(!isTaken(1) && !isTaken(2), "their children are not here")
        #expect(isTaken(3))
        #expect(node.isOverlaid(PartitionID(1)), "it still has the hashes of both")
        #expect(!isTaken(1))
        #expect(isTaken(2) && isTaken(1))
        #expect(!node.isOverlaid(PartitionID(1)) && !node.isOverlaid(PartitionID(2)))
        #expect(node.holdsAllPartitions)
    }

    private static func group(_ n: UInt32) -> GroupID {
        GroupID(keyspace: .standard, partition: PartitionID(n))
    }

    @Test func `a log that was cut off at a split is no obstacle where the child's state is lost`() throws {
        var machine = try Machine()
        machine.run([.wake])
        machine.settle()
        // As an earlier build has left it: numbers, and no place among the hashes.
        let parent = GroupID(keyspace: .standard, partition: PartitionID(1))
        machine.disk.records[Self.child] = machine.disk.records[parent]?.filter { $0.key == "s" }
        let ballot = Ballot(round: 1, node: NodeID(1))
        machine.log[Self.child] = RestoredLog(
            promised: ballot, truncatedThrough: Slot(50),
            accepted: [
                .init(
                    slot: Slot(51), ballot: ballot,
                    entry: LogEntry(term: ballot, number: 0, kind: .filler, payload: .empty))
            ])
        machine.flushed = machine.disk
        try machine.restart()
        machine.settle()
        let put = machine.put("k")
        machine.settle()
        guard case .transaction? = machine.answers[put] else {
            Issue.record("it does not serve")
            return
        }
    }
}
