import Primitives
import Testing

@testable import Partitioning

@Suite struct LeaseCheckpointTests {
    init() { MutationUnderTest.set() }

    private func at(_ seconds: UInt64) -> Instant { Instant(nanoseconds: (seconds + 1) * 1_000_000_000) }

    private func state(_ bodies: [EntryBody]) -> PartitionState {
        var state = PartitionState(
            group: GroupID(keyspace: .standard, partition: PartitionID(1)))
        var changes: [StoreChange] = []
        for (i, body) in bodies.enumerated() {
            let slot = Slot(UInt64(i + 1))
            let entry = LogEntry(
                term: Term(round: 1, node: NodeID(1)), number: UInt64(i + 1), kind: .normal,
                payload: body.encoded())
            _ = state.apply(slot, entry, skipped: false, into: &changes)
        }
        return state
    }

    private static let lease = LeaseID(7)
    private static let grant = EntryBody.leaseGrant(lease, ttlSeconds: 60)
    private static func checkpoint(_ seconds: Int64?) -> EntryBody {
        .leaseCheckpoints([LeaseCheckpoint(lease: lease, remainingSeconds: seconds)])
    }

    /// A replica that has applied each entry at its second, and leads from `second` on.
    private func leader(
        _ log: [(second: UInt64, EntryBody)], restartedAt: UInt64? = nil, heardAt: UInt64? = nil,
        registeredAt second: UInt64
    ) throws -> Partition {
        let map = PartitionMap(equalPartitions: 1), id = PartitionID(1), node = NodeID(1)
        let epoch = Epoch(round: 1, node: node)
        var effects = RegionEffects()
        func partition(_ state: PartitionState) -> Partition {
            Partition(
                id: id, keyspace: .standard, range: map.entries[0].range, node: node, map: map,
                state: state)
        }
        var replica = partition(state([]))
        for (i, (second, body)) in log.enumerated() {
            let entry = LogEntry(
                term: Term(round: 1, node: node), number: UInt64(i + 1), kind: .normal,
                payload: body.encoded())
            replica.decided(Slot(UInt64(i + 1)), entry, skipped: false, at: at(second), into: &effects)
        }
        if let restartedAt {
            replica = partition(replica.state)
            replica.onFrontier(.initial, tail: .zero, epoch: .zero, at: at(restartedAt), into: &effects)
        }
        replica.onFrontier(.initial, tail: .zero, epoch: .zero, at: at(heardAt ?? second), into: &effects)
        let term = Term(round: 2, node: node)
        replica.heard(epoch: epoch, at: at(second), into: &effects)
        let begin = LogEntry(
            term: term, number: 0, kind: .begin, payload: EntryBody.begin(epoch: epoch).encoded())
        replica.decided(
            Slot(UInt64(log.count + 1)), begin, skipped: false, at: at(second), into: &effects)
        replica.becameLeader(term, at: at(second), into: &effects)
        replica.onRegistered(epoch, term, fence: 0, at: at(second), into: &effects)
        return replica
    }

    private func left(_ partition: Partition, at second: UInt64) -> Int64? {
        partition.lead.leaseClock.remainingSeconds(Self.lease, at: at(second))
    }

    @Test func `a new leader counts from when it applied the checkpoint, without one from the whole`() throws {
        var new = try leader([(0, Self.grant)], registeredAt: 30)
        #expect(left(new, at: 30) == 60)
        new = try leader([(0, Self.grant), (1, Self.checkpoint(59))], registeredAt: 30)
        #expect(left(new, at: 30) == 30)
        new = try leader(
            [(0, Self.grant), (1, Self.checkpoint(59)), (20, Self.checkpoint(60))], registeredAt: 30)
        #expect(left(new, at: 30) == 50, "a renewal that was logged")
        new = try leader(
            [(0, Self.grant), (1, Self.checkpoint(59)), (20, Self.checkpoint(nil))], registeredAt: 30)
        #expect(left(new, at: 30) == 60, "renewals are not logged any more")
        #expect(left(try leader([(0, Self.grant), (1, Self.checkpoint(2))], registeredAt: 30), at: 30) == 1)
    }

    @Test func `a replica that was not there counts from its start`() throws {
        let new = try leader(
            [(0, Self.grant), (1, Self.checkpoint(59))], restartedAt: 10, registeredAt: 30)
        #expect(left(new, at: 30) == 39)
    }

    @Test func `time in which nobody could renew is given back`() throws {
        let new = try leader(
            [(0, Self.grant), (1, Self.checkpoint(59))], heardAt: 10, registeredAt: 30)
        #expect(left(new, at: 30) == 50)
    }

    @Test func `a leader that goes on keeps its own time`() throws {
        var leader = try leader([(0, Self.grant)], registeredAt: 0)
        leader.startLeases(at: at(50))
        #expect(left(leader, at: 50) == 10)
    }

    @Test func `renewals are logged, unless they are many`() throws {
        var leader = try leader([(0, Self.grant), (0, Self.checkpoint(60))], registeredAt: 0)
        var effects = RegionEffects()
        func logged() throws -> Int64?? {
            leader.flush(at: at(1), into: &effects)
            defer { effects = RegionEffects() }
            guard let (_, payload) = effects.proposals.last else { return nil }
            guard case .leaseCheckpoints(let list) = try EntryBody.decode(payload).body else { return nil }
            return list.first?.remainingSeconds
        }
        leader.request(
            RequestID(node: NodeID(1), token: 1), .leaseKeepAlive(Self.lease), nil, deadline: at(5),
            at: at(1), into: &effects)
        #expect(try logged() == 60)
        leader.lead.renewals = Partition.loggedRenewalsMax + 1
        leader.request(
            RequestID(node: NodeID(1), token: 2), .leaseKeepAlive(Self.lease), nil, deadline: at(5),
            at: at(1), into: &effects)
        #expect(try logged() == .some(.none))
    }

    @Test func `what is left is rounded up, and not told of a lease that is being renewed`() {
        var clock = LeaseClock()
        clock.start(LeaseID(7), ttlSeconds: 10, at: at(0))
        let later = at(4).advanced(by: .milliseconds(1))
        #expect(clock.remaining(at: later).map(\.seconds) == [6])
        clock.renewSoon(LeaseID(7))
        #expect(clock.remaining(at: later).isEmpty)
        clock.start(LeaseID(7), ttlSeconds: 10, at: later)
        #expect(clock.remaining(at: later).map(\.seconds) == [10])
    }

    @Test func `a checkpoint survives the store`() throws {
        let lease = PartitionState.Lease(ttlSeconds: 60, known: [PartitionID(2)], remainingSeconds: 9)
        var reader = ByteReader(lease.encoded())
        #expect(try PartitionState.Lease(&reader) == lease)
        let plain = PartitionState.Lease(ttlSeconds: 60, known: [])
        reader = ByteReader(plain.encoded())
        #expect(try PartitionState.Lease(&reader) == plain)
    }
}
