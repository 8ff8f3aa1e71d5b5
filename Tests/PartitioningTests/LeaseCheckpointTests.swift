import Primitives
import Testing

@testable import Partitioning

@Suite struct LeaseCheckpointTests {
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

    @Test func `a new leader counts on from the checkpoint, and from the whole without one`() throws {
        let lease = LeaseID(7)
        var bodies: [EntryBody] = [.leaseGrant(lease, ttlSeconds: 60)]
        var clock = LeaseClock()
        clock.startMissing(lease, try #require(state(bodies).leases[lease]), at: at(0))
        #expect(clock.remainingSeconds(lease, at: at(10)) == 50)
        bodies.append(.leaseCheckpoints([LeaseCheckpoint(lease: lease, remainingSeconds: 20)]))
        clock = LeaseClock()
        clock.startMissing(lease, try #require(state(bodies).leases[lease]), at: at(40))
        #expect(clock.remainingSeconds(lease, at: at(50)) == 10)
        bodies.append(.leaseCheckpoints([LeaseCheckpoint(lease: lease, remainingSeconds: nil)]))
        clock = LeaseClock()
        clock.startMissing(lease, try #require(state(bodies).leases[lease]), at: at(50))
        #expect(clock.remainingSeconds(lease, at: at(50)) == 60)
    }

    @Test func `a leader that goes on keeps its own time`() {
        var clock = LeaseClock()
        clock.start(LeaseID(7), ttlSeconds: 60, at: at(0))
        clock.startMissing(LeaseID(7), .init(ttlSeconds: 60, known: []), at: at(50))
        #expect(clock.remainingSeconds(LeaseID(7), at: at(50)) == 10)
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
