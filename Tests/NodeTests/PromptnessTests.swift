import Node
import Partitioning
import Primitives
import Testing

/// A node alone, with a disk and a store that answer at once and a clock that the test moves.
private struct Lonely {
    var node: Node
    var clock = ClockReading(instant: Instant(nanoseconds: 1_000_000_000), wallMicroseconds: 1_000_000)
    var effects = NodeEffects()
    var applied: [GroupID: Slot] = [:]
    var records: [GroupID: [Bytes: Bytes]] = [:]
    /// Whose records are not all there yet.
    var late: Set<GroupID> = []
    var promised: [GroupID: Ballot] = [:]
    var responses: [(token: UInt64, response: Response)] = []
    /// What watchers were told: changes through, or lost through.
    var told: [(revision: Revision, isLost: Bool)] = []

    init(after earlier: Lonely? = nil, boot: UInt64 = 7) throws {
        if var earlier {
            earlier.record()
            (records, applied, clock) = (earlier.records, earlier.applied, earlier.clock)
            promised = earlier.promised
        }
        let configuration = NodeConfiguration(
            region: RegionID(1), node: NodeID(1), nodes: [NodeID(1)], partitions: 2, boot: boot)
        var restored = RestoredNode()
        restored.records = records.mapValues { $0.map { ($0.key, $0.value) } }
        for (group, ballot) in promised {
            // Its log is cut through what the store holds.
            restored.logs[group] = RestoredLog(
                promised: ballot, truncatedThrough: applied[group] ?? .zero, accepted: [],
                decidedThrough: applied[group] ?? .zero)
        }
        node = try Node(configuration: configuration, restored: restored, at: clock)
    }

    /// As before the store is made durable.
    private mutating func record() {
        var changes: [StoreChange] = []
        node.record(late.sorted(), into: &changes)
        for change in changes {
            switch change {
            case .putRecord(let group, let key, let value): records[group, default: [:]][key] = value
            case .removeRecord(let group, let key): records[group]?[key] = nil
            case .putRow, .removeRow, .applied, .position, .drop: break
            }
        }
    }

    /// Turns at one moment, until nothing is left to do in it.
    mutating func run(_ inputs: [NodeInput]) {
        var inputs = inputs
        while !inputs.isEmpty {
            for input in inputs { node.step(input, at: clock, into: &effects) }
            node.finishTurn(at: clock, into: &effects)
            inputs = []
            for change in effects.store {
                switch change {
                case .applied(let group, let slot): applied[group] = slot
                case .position(let group, let slot):
                    applied[group] = slot
                    late.insert(group)
                case .putRecord(let group, let key, let value): records[group, default: [:]][key] = value
                case .removeRecord(let group, let key): records[group]?[key] = nil
                case .putRow, .removeRow, .drop: break
                }
            }
            for record in effects.persist {
                switch record {
                case .promise(let group, let ballot), .accept(let group, _, let ballot, _):
                    promised[group] = max(promised[group] ?? .zero, ballot)
                case .truncate, .decided: break
                }
            }
            if let lost = effects.changesLost { told.append((lost, true)) }
            if let through = effects.changesThrough { told.append((through, false)) }
            if !effects.persist.isEmpty { inputs.append(.durable(effects.ticket)) }
            for read in effects.reads {
                let answer = ReadAnswer(applied: applied[read.group] ?? .zero, rows: [])
                inputs.append(.read(token: read.token, answer))
            }
            responses += effects.responses
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
}

@Suite struct PromptnessTests {
    @Test func `a node that hears beats and nothing else has no turn`() throws {
        let configuration = NodeConfiguration(
            region: RegionID(1), node: NodeID(1), nodes: [1, 2, 3].map { NodeID($0) }, partitions: 2,
            boot: 7)
        var clock = ClockReading(instant: Instant(nanoseconds: 1_000_000_000), wallMicroseconds: 1)
        var node = try Node(configuration: configuration, restored: RestoredNode(), at: clock)
        var effects = NodeEffects()
        func turn(_ input: NodeInput, after span: TimeSpan) {
            clock = ClockReading(instant: clock.instant.advanced(by: span), wallMicroseconds: 1)
            effects.removeAll()
            node.step(input, at: clock, into: &effects)
            node.finishTurn(at: clock, into: &effects)
        }
        turn(.wake, after: .zero)
        turn(.message(from: NodeID(2), .heartbeat), after: .zero)
        let due = effects.nextWake
        #expect(due > clock.instant)
        turn(.message(from: NodeID(3), .hears(.zero)), after: .milliseconds(1))
        #expect(effects.sends.isEmpty && effects.events.isEmpty)
        #expect(effects.nextWake <= due)
        // What is due is done nevertheless, by whichever input it comes to that: its own beats, and when a
        // peer has been silent for long enough. His return is news.
        var beats = 0
        for _ in 0..<40 {
            turn(.message(from: NodeID(3), .heartbeat), after: .milliseconds(10))
            beats += effects.sends.count { $0.to == NodeID(2) && $0.message == .heartbeat }
        }
        #expect((10...20).contains(beats), "\(beats)")
        let isSuspected = node.suspects(NodeID(2))
        #expect(isSuspected)
        turn(.message(from: NodeID(2), .heartbeat), after: .milliseconds(1))
        #expect(effects.events.contains(.trusted(NodeID(2))))
    }

    /// What waits for a period costs a client that writes one thing after the other that period every
    /// time (bugs-found.md, "a lone put").
    @Test func `a lone put is answered when it is on the disk and at no later time`() throws {
        var lonely = try Lonely()
        lonely.run([.wake])
        for _ in 0..<1000 { lonely.advance(.milliseconds(10)) }
        for i in 1...20 {
            let put = Operation.put(Put(key: Bytes("k\(i % 3)"), value: "v"))
            lonely.advance(.milliseconds(7))
            lonely.responses = []
            lonely.run([
                .request(
                    .transaction(Transaction(success: [put])), token: UInt64(i),
                    deadline: lonely.clock.instant.advanced(by: .seconds(5)))
            ])
            #expect(lonely.responses.map(\.token) == [UInt64(i)])
        }
    }
}

@Suite struct RestartTests {
    /// A client that has followed another node and comes to one that has just started may be behind what
    /// that one has in its store: it must be sent there (bugs-found.md, "a watch resumed at a node that
    /// has just started").
    @Test func `watchers are told first that all before the start is in the store only`() throws {
        var before = try Lonely()
        before.run([.wake])
        for i in 1...40 {
            before.advance(.milliseconds(30))
            before.run([
                .request(
                    .transaction(
                        Transaction(success: [.put(Put(key: Bytes("k\(i % 5)"), value: "v"))])),
                    token: UInt64(i), deadline: before.clock.instant.advanced(by: .seconds(5)))
            ])
        }
        for _ in 0..<100 { before.advance(.milliseconds(30)) }
        #expect(before.told.last?.revision == Revision(41))

        var after = try Lonely(after: before, boot: 8)
        after.run([.wake])
        for _ in 0..<100 { after.advance(.milliseconds(30)) }
        after.run([
            .request(
                .transaction(Transaction(success: [.put(Put(key: "k", value: "v"))])), token: 1,
                deadline: after.clock.instant.advanced(by: .seconds(5)))
        ])
        for _ in 0..<10 { after.advance(.milliseconds(30)) }
        #expect(after.told.first?.isLost == true)
        #expect(after.told.first.map { $0.revision >= Revision(41) } == true)
        #expect(after.told.last?.revision == Revision(42))
    }
}
