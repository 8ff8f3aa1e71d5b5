import Primitives
import Testing

@testable import Partitioning

/// A split as its parent's leader, its child and the sequencer see it (protocol-rules.md U2, S12).
@Suite struct SplitTests {
    init() { MutationUnderTest.set() }

    private static let me = NodeID(1)
    private static let epoch = Epoch(round: 1, node: me)
    private static let term = Term(round: 1, node: me)
    private static let cut = HashRange.all.middle
    private static let split = PartitionSplit(
        parent: PartitionID(1), child: PartitionID(2), cut: cut)

    /// A key, or a lease, on either side of the cut.
    private static func key(above: Bool, _ n: Int = 0) -> Bytes {
        let found = (0...).lazy.map { Bytes("k\($0)") }.filter { (KeyHash.hash($0) >= cut) == above }
        return Array(found.prefix(n + 1))[n]
    }
    private static func lease(above: Bool) -> LeaseID {
        let found = (1...).lazy.map { LeaseID($0) }.first { (KeyHash.hash($0) >= cut) == above }
        return found ?? .none
    }

    private struct Leader {
        var partition: Partition
        var effects = RegionEffects()
        var log: [Bytes] = []
        var number: UInt64 = 0
        var milliseconds: UInt64 = 1
        var nextRevision: Int64 = 2
        var rows: [Bytes: Row] = [:]
        var now: Instant { .zero.advanced(by: .milliseconds(milliseconds)) }

        init() {
            let map = PartitionMap(equalPartitions: 1)
            partition = Partition(
                id: PartitionID(1), keyspace: .standard, range: .all, node: me, map: map,
                state: PartitionState(group: GroupID(keyspace: .standard, partition: PartitionID(1))))
            partition.heard(epoch: epoch, at: now, into: &effects)
            apply(.begin, 0, EntryBody.begin(epoch: epoch).encoded())
            partition.becameLeader(term, at: now, into: &effects)
            partition.onRegistered(epoch, term, fence: 0, at: now, into: &effects)
            effects = RegionEffects()
        }

        mutating func apply(_ kind: LogEntry.Kind, _ number: UInt64, _ payload: Bytes) {
            partition.decided(
                partition.state.applied.next,
                LogEntry(term: term, number: number, kind: kind, payload: payload), skipped: false,
                at: now, into: &effects)
            for case .putRow(_, let row) in effects.changes { rows[row.key] = row }
            effects.changes.removeAll()
        }

        /// Everything that is not the log's: reads, revisions, repeated timers.
        mutating func work() {
            for read in effects.reads {
                let found = rows.values.filter { read.plan.keys.contains($0.key) }
                partition.onRead(
                    token: read.token,
                    ReadAnswer(
                        applied: partition.state.applied, rows: found.sorted { $0.key < $1.key }),
                    at: now, into: &effects)
            }
            effects.reads.removeAll()
            milliseconds += 1
            partition.flush(at: now, into: &effects)
            for case .allocate(_, _, _, _, let first, let replaced) in effects.messages.map(\.message) {
                var given: [Allocation] = []
                for _ in replaced {
                    given.append(
                        Allocation(
                            revision: Revision(nextRevision),
                            stamp: Stamp(ticks: UInt64(nextRevision), region: RegionID(1))))
                    nextRevision += 1
                }
                partition.onAllocated(epoch, term, first: first, given, at: now, into: &effects)
            }
            for case .confirm(_, _, _, let question) in effects.messages.map(\.message) {
                partition.onConfirmed(
                    epoch, term, question: question, frontier: Revision(1), fence: 0, at: now,
                    into: &effects)
            }
            effects.messages.removeAll()
            partition.flush(at: now, into: &effects)
            log += effects.proposals.map(\.payload)
            effects.proposals.removeAll()
        }

        mutating func decide() {
            let payloads = log
            log.removeAll()
            for payload in payloads {
                number += 1
                apply(.normal, number, payload)
            }
        }

        mutating func request(_ token: UInt64, _ request: Request, _ tag: RequestTag? = nil) {
            partition.request(
                RequestID(node: me, token: token), request, tag, deadline: now.advanced(by: .seconds(5)),
                at: now, into: &effects)
        }
        mutating func put(_ token: UInt64, _ key: Bytes, lease: LeaseID = .none) {
            request(
                token,
                .transaction(Transaction(success: [.put(Put(key: key, value: "v", lease: lease))])))
        }
        mutating func begin() { partition.beginSplit(split, at: now, into: &effects) }
        mutating func frontier(_ revision: Int64) {
            partition.onFrontier(
                Revision(revision), tail: partition.state.applied, epoch: epoch, at: now,
                into: &effects)
        }
        /// Of what the log is about to be told.
        var bodies: [EntryBody] { log.compactMap { try? EntryBody.decode($0).body } }

        mutating func lock(_ number: UInt64, _ key: Bytes, newest: PartitionID = .directory) {
            var footprint = Footprint()
            footprint.writes = [KeyRange(key: key)]
            let name = RequestName(node: me, boot: 7, sequence: number)
            var request = LockRequest(
                transaction: TransactionID(name: name, attempt: 1),
                start: StartStamp(micros: number, name: name), partition: partition.id,
                footprint: footprint, plan: ReadPlan(), leasesEnding: [], cursorOf: nil)
            request.newest = newest
            partition.lock(request, from: me, at: now, into: &effects)
        }
    }

    private func divided(_ prepare: (inout Leader) -> Void = { _ in }) throws -> (
        Leader, RegionEffects.Newborn
    ) {
        var leader = Leader()
        prepare(&leader)
        leader.begin()
        leader.work()
        leader.decide()
        let newborn = try #require(leader.effects.newborns.first)
        return (leader, newborn)
    }

    @Test func `what is under way above the cut ends before the log is told, and the rest goes on`() {
        var leader = Leader()
        leader.put(1, Self.key(above: true))
        leader.work()
        #expect(leader.bodies.count == 1)
        leader.begin()
        leader.put(2, Self.key(above: true, 1))
        leader.put(3, Self.key(above: false))
        leader.work()
        #expect(!leader.bodies.contains(.split(Self.split)), "the first put is not decided")
        #expect(leader.bodies.count == 2, "below the cut nothing waits")
        leader.decide()
        leader.work()
        #expect(leader.bodies == [.split(Self.split)])
        #expect(leader.effects.redirects.isEmpty)
        leader.decide()
        leader.partition.releaseHeld(into: &leader.effects)
        #expect(leader.effects.redirects.map(\.token) == [2])
    }

    @Test func `a split in the pipeline outlasts a change of leaders that does not come about`() {
        var leader = Leader()
        leader.begin()
        leader.work()
        #expect(leader.bodies == [.split(Self.split)])
        leader.partition.yieldLeadership(into: &leader.effects)
        leader.partition.keepLeadership()
        leader.put(1, Self.key(above: true))
        leader.work()
        #expect(leader.bodies == [.split(Self.split)], "nothing above the cut may follow")
        leader.decide()
        leader.partition.endSplit(into: &leader.effects)
        #expect(leader.effects.redirects.map(\.token) == [1])
    }

    @Test func `a parent takes nothing of its child's any more`() throws {
        var (leader, _) = try divided()
        leader.partition.endSplit(into: &leader.effects)
        leader.put(1, Self.key(above: true))
        leader.request(2, .leaseGrant(Self.lease(above: true), ttlSeconds: 9))
        #expect(leader.effects.redirects.map(\.token) == [1, 2])
        leader.put(3, Self.key(above: false))
        leader.work()
        #expect(leader.bodies.count == 1)
    }

    @Test func `latches above the cut hold the split back until the frontier covers them`() throws {
        var leader = Leader()
        leader.lock(1, Self.key(above: true))
        leader.begin()
        leader.work()
        #expect(leader.bodies.isEmpty)
        leader.lock(2, Self.key(above: true, 1))
        let died = leader.effects.messages.contains { to, message in
            if case .died = message { return true }
            return false
        }
        #expect(died, "nothing new is latched there")
        let name = RequestName(node: Self.me, boot: 7, sequence: 1)
        var effects = Effects(
            revision: Revision(2), epoch: Self.epoch, stamp: Stamp(ticks: 2, region: RegionID(1)))
        effects.rows = [
            Row(
                key: Self.key(above: true), value: "v", createRevision: Revision(2),
                modRevision: Revision(2), version: 1, lease: .none, sub: 0,
                origin: Origin(
                    region: RegionID(1), revision: Revision(2),
                    stamp: Stamp(ticks: 2, region: RegionID(1))))
        ]
        leader.partition.prepare(
            TransactionID(name: name, attempt: 1), term: Self.term, participants: [PartitionID(1)],
            effects, from: Self.me, at: leader.now, into: &leader.effects)
        leader.work()
        leader.decide()
        leader.work()
        #expect(leader.bodies.isEmpty, "it may still be undone")
        leader.frontier(2)
        leader.work()
        #expect(leader.bodies == [.split(Self.split)])
    }

    @Test func `a split that cannot come about soon lets go of what waits, and tries again`() {
        var leader = Leader()
        leader.lock(1, Self.key(above: true))
        leader.begin()
        leader.put(2, Self.key(above: true, 1))
        leader.milliseconds += 300
        leader.work()
        #expect(leader.effects.redirects.map(\.token) == [2])
        leader.begin()
        leader.work()
        #expect(leader.bodies.isEmpty)
    }

    @Test func `whoever counts with the map of before gets no latches`() throws {
        var (leader, _) = try divided()
        leader.effects.messages.removeAll()
        leader.lock(1, Self.key(above: false))
        let answers = leader.effects.messages.map(\.message)
        #expect(answers.count == 1)
        guard case .died = answers.first else { return #expect(Bool(false), "\(answers)") }
        leader.effects.messages.removeAll()
        leader.lock(2, Self.key(above: false), newest: PartitionID(2))
        let later = leader.effects.messages.map(\.message)
        guard case .locked = later.first else { return #expect(Bool(false), "\(later)") }
    }

    @Test func `leases and keys go where their hashes are, and know of one another`() throws {
        let low = Self.lease(above: false), high = Self.lease(above: true)
        let (leader, newborn) = try divided { leader in
            leader.request(1, .leaseGrant(low, ttlSeconds: 60))
            leader.request(2, .leaseGrant(high, ttlSeconds: 60))
            leader.work()
            leader.decide()
            leader.work()
            leader.put(3, Self.key(above: true), lease: low)
            leader.put(4, Self.key(above: false), lease: high)
            leader.work()
            leader.decide()
        }
        let parent = leader.partition.state, child = newborn.state
        #expect(Set(parent.leases.keys) == [low] && Set(child.leases.keys) == [high])
        #expect(parent.leases[low]?.known == [PartitionID(2)])
        #expect(child.leases[high]?.known == [PartitionID(1)])
        #expect(parent.knownLeases == [high] && child.knownLeases == [low])
        #expect(parent.leaseKeys[high] == [Self.key(above: false)])
        #expect(child.leaseKeys[low] == [Self.key(above: true)])
        #expect(newborn.leaseClock?.remainingSeconds(high, at: leader.now) ?? 0 > 0)
        #expect(leader.partition.lead.leaseClock.remainingSeconds(high, at: leader.now) == nil)
    }

    @Test func `a child goes on where its parent's log was, and is written whole`() throws {
        let (leader, newborn) = try divided { leader in
            leader.put(1, Self.key(above: true))
            leader.work()
            leader.decide()
        }
        #expect(newborn.state.applied == leader.partition.state.applied)
        #expect(newborn.state.highestRevision == Revision(2))
        #expect(newborn.state.recent.isEmpty, "the parent's log holds it, and reports it")
        #expect(leader.partition.state.recent.map(\.revision) == [Revision(2)])
        var changes: [StoreChange] = []
        newborn.state.recordAll(into: &changes)
        var records: [(key: Bytes, value: Bytes)] = []
        for case .putRecord(_, let key, let value) in changes { records.append((key, value)) }
        let back = try PartitionState(group: newborn.state.group, records: records)
        #expect(back.place == newborn.state.place && back.applied == newborn.state.applied)
        #expect(back.place?.range == HashRange.all.from(Self.cut))
    }

    @Test func `a child knows what its parent has carried out`() throws {
        let name = RequestName(node: Self.me, boot: 9, sequence: 4)
        let (_, newborn) = try divided { leader in
            leader.request(
                1,
                .transaction(
                    Transaction(success: [.put(Put(key: Self.key(above: true), value: "v"))])),
                RequestTag(name: name, attempt: 1, mark: 4, gate: Self.term))
            leader.work()
            leader.decide()
        }
        #expect(newborn.requests.find(name, after: .zero) == .executed(Revision(2)))
    }

    // MARK: The sequencer

    private func registration(
        _ p: UInt32, round: UInt64 = 1, newest: UInt32 = 0, origin: PartitionState.Origin? = nil
    ) -> Registration {
        var r = Registration(
            partition: PartitionID(p), term: Term(round: round, node: Self.me), sealSlot: Slot(9),
            applied: Slot(9), highestRevision: .zero, heardFrontier: .zero, highestStamp: .zero,
            recent: [], undecided: [], lapses: 0)
        r.newest = PartitionID(newest)
        r.origin = origin
        return r
    }
    private let origin = PartitionState.Origin(split: split, slot: Slot(30), revision: .zero)

    private func sequencer() -> Sequencer {
        var sequencer = Sequencer(
            epoch: Self.epoch, region: RegionID(1), nodes: [Self.me], partitions: 1,
            compactRevision: .zero, answersFrom: .zero)
        sequencer.expect(Self.split)
        return sequencer
    }
    private func tell(_ sequencer: inout Sequencer, _ r: Registration) {
        var effects = RegionEffects()
        sequencer.step(
            .register(Self.epoch, r), from: Self.me,
            at: ClockReading(instant: Instant(nanoseconds: 1_000), wallMicroseconds: 1), leaseHolds: true,
            into: &effects)
    }

    @Test func `a child counts when its parent's registered leader knows of it, not before`() {
        var sequencer = sequencer()
        tell(&sequencer, registration(1))
        #expect(sequencer.isOpen, "until the split is in the parent's log nobody waits for the child")
        tell(&sequencer, registration(2, newest: 2, origin: origin))
        #expect(!sequencer.serves(PartitionID(2)), "a deposed leader could answer for it")
        tell(&sequencer, registration(1, newest: 2))
        tell(&sequencer, registration(2, newest: 2, origin: origin))
        #expect(sequencer.serves(PartitionID(2)))
        #expect(sequencer.tails.map(\.slot) == [Slot(30), Slot(9)], "the split counts in its tail")
    }

    @Test func `a new sequencer waits for a child that the parent's log has cut off`() {
        var sequencer = sequencer()
        tell(&sequencer, registration(1, newest: 2))
        #expect(!sequencer.isOpen)
        tell(&sequencer, registration(2, newest: 2, origin: origin))
        #expect(sequencer.isOpen && sequencer.serves(PartitionID(2)))
    }

    // MARK: Transactions over several partitions

    @Test func `rows that were latched by the map of before are not divided by that of after`() throws {
        let before = PartitionMap(equalPartitions: 2)
        var after = before
        let split = PartitionSplit(
            parent: PartitionID(1), child: PartitionID(3),
            cut: before.entries[0].range.middle)
        after.apply(split)
        var coordinator = Coordinator(node: Self.me, boot: 1, map: before)
        var effects = RegionEffects()
        let leaders = [Self.me, Self.me, Self.me]
        let all = KeyRange(key: Bytes([0]), end: Bytes([0]))
        let clock = ClockReading(instant: Instant(nanoseconds: 1_000_000), wallMicroseconds: 1)
        coordinator.start(
            RequestID(node: Self.me, token: 1),
            .transaction(Transaction(success: [.delete(Delete(range: all))])), nil,
            deadline: clock.instant.advanced(by: .seconds(5)), at: clock, leaders: leaders,
            into: &effects)
        var locks: [LockRequest] = []
        for case .lock(let lock) in effects.messages.map(\.message) { locks.append(lock) }
        #expect(locks.map(\.partition) == [PartitionID(1), PartitionID(2)])
        coordinator.map = after
        effects.messages.removeAll()
        for lock in locks {
            coordinator.step(
                .locked(lock.transaction, lock.partition, Self.term, LockedRows()), from: Self.me,
                at: clock.instant, leaders: leaders,
                resolve: { _, _ in .init(rows: [], conflicts: [], replacedStamp: .zero) },
                into: &effects)
        }
        let released = effects.messages.filter { if case .release = $0.message { true } else { false } }
        #expect(released.count == 2 && effects.messages.count == 2)
        coordinator.flush(
            at: clock.instant.advanced(by: .milliseconds(100)), leaders: leaders, into: &effects)
        var again: [PartitionID] = []
        for case .lock(let lock) in effects.messages.map(\.message) { again.append(lock.partition) }
        #expect(again == [PartitionID(1), PartitionID(2), PartitionID(3)])
    }
}
