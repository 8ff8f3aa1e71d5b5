import Primitives
import Testing

@testable import Partitioning

/// Transactions over several partitions, step by step; participants and the sequencer are the test.
@Suite struct CoordinatorTests {
    init() { MutationUnderTest.set() }

    private let me = NodeID(1), map = PartitionMap(equalPartitions: 2)
    private let epoch = Epoch(round: 1, node: NodeID(1))
    private let p1 = PartitionID(1), p2 = PartitionID(2)
    private var leaders: [NodeID] { [NodeID(1), NodeID(2)] }

    private struct Run {
        var coordinator: Coordinator
        var effects = RegionEffects()
        var milliseconds: UInt64 = 1
        var clock: ClockReading {
            ClockReading(
                instant: .zero.advanced(by: .milliseconds(milliseconds)),
                wallMicroseconds: 1_000_000 + milliseconds * 1_000)
        }
        mutating func take() -> [RegionMessage] {
            defer { effects.messages.removeAll() }
            return effects.messages.map(\.message)
        }
    }

    private func start(_ request: Request) -> Run {
        var run = Run(coordinator: Coordinator(node: me, boot: 7, map: map))
        run.coordinator.onTimeline(epoch, .initial, into: &run.effects)
        run.coordinator.start(
            RequestID(node: me, token: 1), request, nil,
            deadline: run.clock.instant.advanced(by: .seconds(5)), at: run.clock, leaders: leaders, into: &run.effects)
        return run
    }

    private func step(_ run: inout Run, _ message: RegionMessage, from node: NodeID = NodeID(1)) {
        run.coordinator.step(
            message, from: node, at: run.clock.instant, leaders: leaders,
            resolve: { batch, _ in
                Coordinator.Resolved(rows: batch.changes, conflicts: [], replacedStamp: .zero)
            }, into: &run.effects)
    }

    private func locks(_ messages: [RegionMessage]) -> [LockRequest] {
        messages.compactMap { if case .lock(let request) = $0 { request } else { nil } }
    }

    /// Keys of both partitions.
    private var keys: (Bytes, Bytes) {
        var first: Bytes?, second: Bytes?
        for i in 0..<100 {
            let key = Bytes("k\(i)")
            if map.partition(of: key) == p1 { first = first ?? key } else { second = second ?? key }
        }
        return (first ?? .empty, second ?? .empty)
    }

    private var both: Request {
        .transaction(
            Transaction(success: [
                .put(Put(key: keys.0, value: "1")), .put(Put(key: keys.1, value: "2")),
            ]))
    }

    /// Both have granted their latches; the question for a revision.
    private func locked(_ run: inout Run) throws -> TransactionID {
        let requests = locks(run.take())
        #expect(requests.map(\.partition) == [p1, p2])
        let transaction = try #require(requests.first).transaction
        step(&run, .locked(transaction, p1, Term(round: 1, node: NodeID(1)), LockedRows()))
        step(&run, .locked(transaction, p2, Term(round: 1, node: NodeID(2)), LockedRows()), from: NodeID(2))
        return transaction
    }

    @Test func `a revision is asked for once all have granted, and names every term`() throws {
        var run = start(both)
        let transaction = try locked(&run)
        let asked = run.take().compactMap { message -> [Participant]? in
            if case .allocateTransaction(epoch, transaction, let participants, _, _) = message {
                return participants
            }
            return nil
        }
        #expect(asked.first?.map(\.term.node) == [NodeID(1), NodeID(2)])
        #expect(asked.first?.map(\.writes) == [true, true])
    }

    @Test func `it is told when all have prepared and the frontier has reached it, not before`() throws {
        var run = start(both)
        let transaction = try locked(&run)
        let allocation = Allocation(
            revision: Revision(2), stamp: Stamp(ticks: 5, region: RegionID(1)))
        step(&run, .allocatedTransaction(epoch, transaction, allocation))
        step(&run, .prepared(transaction, p1))
        run.coordinator.onTimeline(epoch, Revision(2), into: &run.effects)
        #expect(run.effects.answers.isEmpty)
        step(&run, .prepared(transaction, p2), from: NodeID(2))
        #expect(run.effects.answers.map(\.0.token) == [1])
    }

    @Test func `after a refusal it is tried again only once its revision is known to be void`() throws {
        var run = start(both)
        let transaction = try locked(&run)
        let allocation = Allocation(
            revision: Revision(2), stamp: Stamp(ticks: 5, region: RegionID(1)))
        step(&run, .allocatedTransaction(epoch, transaction, allocation))
        _ = run.take()
        step(&run, .refused(transaction, p2), from: NodeID(2))
        #expect(run.take() == [.abandon(epoch, transaction, Revision(2), by: epoch)])
        run.milliseconds += 20
        run.coordinator.flush(at: run.clock.instant, leaders: leaders, into: &run.effects)
        #expect(locks(run.take()).isEmpty)
        step(&run, .transactionVoid(epoch, transaction, Revision(2)))
        run.milliseconds += 100
        run.coordinator.flush(at: run.clock.instant, leaders: leaders, into: &run.effects)
        let again = locks(run.take())
        #expect(again.map(\.transaction.attempt) == [2, 2])
        // The stamp survives: it grows old, and wins in the end (L9).
        #expect(Set(again.map(\.start.name)) == [transaction.name])
    }

    @Test func `what was checked under a lower fence ends, and lets its latches go`() throws {
        var run = start(both)
        let transaction = try locked(&run)
        _ = run.take()
        step(&run, .transactionFenced(epoch, transaction))
        #expect(run.effects.answers.map(\.1) == [.failed(.authChanged)])
        let sent = run.take()
        #expect(sent.contains(.release(transaction, p1)) && sent.contains(.release(transaction, p2)))
        // Late: it is over.
        step(&run, .transactionFenced(epoch, transaction))
        #expect(run.take().isEmpty)
    }

    @Test func `a revision that comes too late is given back`() throws {
        var run = start(both)
        let transaction = try locked(&run)
        step(&run, .allocatedTransaction(epoch, transaction, nil))
        _ = run.take()
        let allocation = Allocation(
            revision: Revision(2), stamp: Stamp(ticks: 5, region: RegionID(1)))
        step(&run, .allocatedTransaction(epoch, transaction, allocation))
        #expect(run.take() == [.abandon(epoch, transaction, Revision(2), by: epoch)])
    }

    @Test func `a batch of another region is applied only where the cursor stands`() throws {
        let row = Row(
            key: keys.1, value: "x", createRevision: Revision(9), modRevision: Revision(9), version: 1,
            lease: .none, sub: 0,
            origin: Origin(
                region: RegionID(2), revision: Revision(9), stamp: Stamp(ticks: 9, region: RegionID(2))))
        let batch = ReplicationBatch(
            origin: RegionID(2), from: Revision(5), through: Revision(9), seen: [], changes: [row])
        var run = start(.replicate(batch))
        let transaction = try #require(locks(run.take()).first).transaction
        var elsewhere = LockedRows()
        elsewhere.cursor = Revision(4)
        step(&run, .locked(transaction, p1, Term(round: 1, node: NodeID(1)), elsewhere))
        step(&run, .locked(transaction, p2, Term(round: 1, node: NodeID(2)), LockedRows()), from: NodeID(2))
        let asked = run.take()
        #expect(
            !asked.contains { message in
                if case .allocateTransaction = message { return true }
                return false
            })
        step(&run, .confirmedTransaction(epoch, transaction, frontier: .initial))
        #expect(run.effects.answers.map(\.1) == [.failed(.cursorMismatch)])
    }
}
