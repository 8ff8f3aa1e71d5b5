import Primitives
import Testing

@testable import Partitioning

/// A leader's pipeline, alone with a log that decides when it is told to and a store that answers at
/// once. Each test is a schedule of protocol-rules.md; its name is what must hold.
@Suite struct PartitionTests {
    init() { MutationUnderTest.set() }

    private static let p = PartitionID(1)
    private static let epoch = Epoch(round: 1, node: NodeID(1))
    private static let me = NodeID(1), other = NodeID(2)

    private struct Replica {
        var partition: Partition
        var effects = RegionEffects()
        var rows: [Bytes: Row] = [:]
        var term: Term
        var number: UInt64 = 0
        var slot = Slot.zero
        var milliseconds: UInt64 = 1
        var nextRevision: Int64 = 2
        private var log: [Bytes] = []
        private var answered = 0

        init(term: UInt64 = 1, state: PartitionState? = nil) {
            let map = PartitionMap(equalPartitions: 1)
            let group = GroupID(keyspace: .standard, partition: p)
            partition = Partition(
                id: p, keyspace: .standard, range: map.entries[0].range, node: me, map: map,
                state: state ?? PartitionState(group: group))
            self.term = Term(round: term, node: me)
            slot = partition.state.applied
        }

        var now: Instant { .zero.advanced(by: .milliseconds(milliseconds)) }

        /// Begins to lead, and is registered.
        mutating func lead() {
            partition.heard(epoch: epoch, at: now, into: &effects)
            apply(LogEntry(term: term, number: 0, kind: .begin, payload: EntryBody.begin(epoch: epoch).encoded()))
            partition.becameLeader(term, at: now, into: &effects)
            partition.onRegistered(epoch, term, fence: 0, at: now, into: &effects)
            effects = RegionEffects()
        }

        private mutating func apply(_ entry: LogEntry) {
            slot = slot.next
            partition.decided(slot, entry, skipped: false, at: now, into: &effects)
            for change in effects.changes {
                switch change {
                case .putRow(_, let row): rows[row.key] = row
                case .removeRow(_, let key, let revision, _):
                    if rows[key]?.modRevision == revision { rows[key] = nil }
                case .putRecord, .removeRecord, .applied, .position, .drop: break
                }
            }
            effects.changes.removeAll()
        }

        mutating func flush() {
            milliseconds += 1
            partition.flush(at: now, into: &effects)
            for (_, payload) in effects.proposals { log.append(payload) }
            effects.proposals.removeAll()
        }

        /// The store answers all reads with what is applied now.
        mutating func read(at applied: Slot? = nil) {
            let reads = effects.reads
            effects.reads.removeAll()
            for read in reads {
                let found = rows.values.filter { row in
                    read.plan.keys.contains(row.key) || read.plan.ranges.contains { $0.contains(row.key) }
                }
                partition.onRead(
                    token: read.token,
                    ReadAnswer(
                        applied: applied ?? partition.state.applied,
                        rows: found.sorted { $0.key < $1.key }),
                    at: now, into: &effects)
            }
        }

        /// The sequencer answers what was asked.
        mutating func allocate() {
            flush()
            let messages = take()
            for case .allocate(_, _, _, _, let first, let replaced) in messages {
                var allocations: [Allocation] = []
                for _ in replaced {
                    allocations.append(
                        Allocation(
                            revision: Revision(nextRevision),
                            stamp: Stamp(ticks: UInt64(nextRevision), region: RegionID(1))))
                    nextRevision += 1
                }
                partition.onAllocated(epoch, term, first: first, allocations, at: now, into: &effects)
            }
        }

        /// The log decides what was proposed so far.
        mutating func decide() {
            flush()
            let payloads = log
            log.removeAll()
            for payload in payloads {
                number += 1
                apply(LogEntry(term: term, number: number, kind: .normal, payload: payload))
            }
        }

        mutating func frontier(_ revision: Int64) {
            partition.onFrontier(
                Revision(revision), tail: partition.state.applied, epoch: epoch, at: now, into: &effects)
        }

        mutating func request(_ token: UInt64, _ request: Request, _ tag: RequestTag? = nil) {
            partition.request(
                RequestID(node: me, token: token), request, tag,
                deadline: now.advanced(by: .seconds(5)), at: now, into: &effects)
        }

        mutating func put(_ key: Bytes, _ value: Bytes, token: UInt64 = 1) {
            request(token, .transaction(Transaction(success: [.put(Put(key: key, value: value))])))
        }

        mutating func take() -> [RegionMessage] {
            defer { effects.messages.removeAll() }
            return effects.messages.map(\.message)
        }

        mutating func answers() -> [UInt64: Response] {
            defer { effects.answers.removeAll() }
            return Dictionary(effects.answers.map { ($0.0.token, $0.1) }, uniquingKeysWith: { $1 })
        }

        mutating func lock(_ transaction: TransactionID, _ key: Bytes, micros: UInt64 = 5) {
            var footprint = Footprint()
            footprint.writes = [KeyRange(key: key)]
            var plan = ReadPlan()
            plan.add(KeyRange(key: key))
            partition.lock(
                LockRequest(
                    transaction: transaction, start: StartStamp(micros: micros, name: transaction.name),
                    partition: p, footprint: footprint, plan: plan, leasesEnding: []),
                from: other, at: now, into: &effects)
        }

        mutating func prepare(
            _ transaction: TransactionID, _ key: Bytes, revision: Int64, term: Term? = nil
        ) {
            let row = Row(
                key: key, value: "t", createRevision: Revision(revision), modRevision: Revision(revision),
                version: 1, lease: .none, sub: 0,
                origin: Origin(
                    region: RegionID(1), revision: Revision(revision),
                    stamp: Stamp(ticks: UInt64(revision), region: RegionID(1))))
            partition.prepare(
                transaction, term: term ?? self.term, participants: [p, PartitionID(2)],
                Effects(
                    revision: Revision(revision), epoch: epoch,
                    stamp: Stamp(ticks: UInt64(revision), region: RegionID(1)), rows: [row]),
                from: other, at: now, into: &effects)
        }
    }

    private func transaction(_ sequence: UInt64, attempt: UInt32 = 1) -> TransactionID {
        TransactionID(
            name: RequestName(node: Self.other, boot: 7, sequence: sequence), attempt: attempt)
    }

    private func locked(_ messages: [RegionMessage]) -> LockedRows? {
        for case .locked(_, _, _, let rows) in messages { return rows }
        return nil
    }

    // MARK: S8, S9

    @Test func `a put is told only when it is decided and the frontier covers it`() throws {
        var replica = Replica()
        replica.lead()
        replica.put("a", "1")
        replica.read()
        replica.allocate()
        replica.frontier(2)
        #expect(replica.answers().isEmpty)
        replica.decide()
        #expect(replica.answers().isEmpty)
        replica.frontier(2)
        guard case .transaction(_, let revision) = try #require(replica.answers()[1]) else {
            Issue.record("no answer")
            return
        }
        #expect(revision == Revision(2))
    }

    @Test func `what writes nothing is evaluated in the turn in which it is confirmed`() throws {
        var replica = Replica()
        replica.lead()
        let never = Compare(range: KeyRange(key: "a"), relation: .equal, target: .version(0))
        replica.request(
            9,
            .transaction(
                Transaction(
                    compares: [Compare(range: never.range, relation: .greater, target: .version(9))],
                    success: [.put(Put(key: "b", value: "x"))],
                    failure: [.range(RangeQuery(range: KeyRange(key: "a")))])))
        replica.read()
        replica.flush()
        var question: UInt64?
        for case .confirm(_, _, _, let number) in replica.take() { question = number }
        // Between the question and its answer a put of the same leader is decided and covered.
        replica.put("a", "new", token: 1)
        replica.read()
        replica.allocate()
        replica.decide()
        replica.frontier(2)
        #expect(replica.answers()[9] == nil)
        replica.partition.onConfirmed(
            Self.epoch, replica.term, question: try #require(question), frontier: Revision(2),
            fence: 0, at: replica.now, into: &replica.effects)
        replica.frontier(2)
        guard case .transaction(let result, let revision) = try #require(replica.answers()[9]),
            case .range(let range) = try #require(result.results.first)
        else {
            Issue.record("no answer")
            return
        }
        #expect(revision >= Revision(2))
        #expect(range.rows.map(\.value) == ["new"])
    }

    // MARK: Fairness (L9)

    @Test func `a put on a hot key is not passed again by those that follow one another there`() throws {
        var replica = Replica()
        replica.lead()
        replica.lock(transaction(1), "hot")
        replica.read()
        replica.put("hot", "mine")
        replica.read()
        replica.flush()
        #expect(replica.partition.lead.asked.isEmpty, "it waits for the latch")
        replica.partition.release(transaction(1), at: replica.now, into: &replica.effects)
        // Before the store has answered the put's read, the next one asks for the latch.
        replica.lock(transaction(2), "hot")
        _ = replica.take()
        replica.read()
        #expect(replica.partition.lead.asked.count == 1, "its turn")
        #expect(locked(replica.take()) == nil)
        replica.allocate()
        replica.decide()
        replica.read()
        #expect(locked(replica.take())?.rows.map(\.value) == ["mine"], "and then the other's")
    }

    @Test func `puts that come later do not pass a transaction that waits for the turn of one`() throws {
        var replica = Replica()
        replica.lead()
        replica.lock(transaction(1), "hot")
        replica.read()
        replica.put("hot", "first")
        replica.partition.release(transaction(1), at: replica.now, into: &replica.effects)
        replica.lock(transaction(2), "hot")
        replica.read()
        replica.allocate()
        // The transaction has its latches now: what comes from here on waits for it.
        replica.put("hot", "second", token: 2)
        replica.read()
        replica.decide()
        replica.read()
        #expect(locked(replica.take())?.rows.map(\.value) == ["first"])
        #expect(replica.partition.lead.asked.isEmpty)
    }

    @Test func `the end of a lease waits for younger transactions that hold its keys`() throws {
        var replica = Replica()
        replica.lead()
        replica.request(1, .leaseGrant(LeaseID(7), ttlSeconds: 60))
        replica.decide()
        replica.request(
            2,
            .transaction(
                Transaction(success: [.put(Put(key: "hot", value: "v", lease: LeaseID(7)))])))
        replica.read()
        replica.allocate()
        replica.decide()
        replica.frontier(2)
        replica.lock(transaction(5), "hot", micros: 9)
        replica.read()
        _ = replica.take()
        var footprint = Footprint()
        footprint.exclusiveLeases = [LeaseID(7)]
        let end = transaction(4)
        replica.partition.lock(
            LockRequest(
                transaction: end, start: StartStamp(micros: 3, name: end.name), partition: Self.p,
                footprint: footprint, plan: ReadPlan(), leasesEnding: [LeaseID(7)]),
            from: Self.other, at: replica.now, into: &replica.effects)
        #expect(replica.take().isEmpty, "older: it waits")
        replica.partition.release(transaction(5), at: replica.now, into: &replica.effects)
        replica.read()
        #expect(locked(replica.take())?.rows.map(\.key) == ["hot"])
    }

    // MARK: Fences (decision 0006)

    private func put(_ replica: inout Replica, fence: UInt64, token: UInt64) {
        replica.partition.request(
            RequestID(node: Self.me, token: token),
            .transaction(Transaction(success: [.put(Put(key: "a", value: "v"))])), nil,
            deadline: .never, fence: fence, at: replica.now, into: &replica.effects)
    }

    private func fenced(_ messages: [RegionMessage]) -> [UInt64] {
        messages.compactMap { if case .fenced(_, _, _, let fence) = $0 { fence } else { nil } }
    }

    @Test func `what was checked under a lower fence is refused, also while it waits`() {
        var replica = Replica()
        replica.lead()
        put(&replica, fence: 3, token: 1)
        replica.partition.heard(fence: 4)
        replica.read()
        put(&replica, fence: 3, token: 2)
        put(&replica, fence: 4, token: 3)
        replica.read()
        let answers = replica.answers()
        #expect(answers[1] == .failed(.authChanged) && answers[2] == .failed(.authChanged))
        #expect(answers[3] == nil)
        replica.allocate()
        replica.decide()
        replica.frontier(2)
        guard case .transaction? = replica.answers()[3] else {
            Issue.record("no answer")
            return
        }
    }

    @Test func `a leader keeps a fence once nothing below it waits for a revision`() {
        var replica = Replica()
        replica.lead()
        put(&replica, fence: 1, token: 1)
        replica.read()
        replica.flush()
        // Asked for already: it goes on, and the sequencer waits for it.
        replica.partition.heard(fence: 2, told: 0)
        replica.flush()
        let asked = replica.take()
        #expect(fenced(asked) == [])
        #expect(asked.contains { if case .allocate = $0 { true } else { false } })
        for case .allocate(_, _, _, _, let first, _) in asked {
            replica.partition.onAllocated(
                Self.epoch, replica.term, first: first,
                [Allocation(revision: Revision(2), stamp: Stamp(ticks: 2, region: RegionID(1)))],
                at: replica.now, into: &replica.effects)
        }
        replica.flush()
        #expect(fenced(replica.take()) == [2])
        replica.flush()
        #expect(fenced(replica.take()) == [])
        // The sequencer has not heard it.
        replica.partition.heard(fence: 2, told: 1)
        replica.flush()
        #expect(fenced(replica.take()) == [2])
    }

    @Test func `a leader asks for no revision before its registration has told the fence`() {
        var replica = Replica()
        replica.lead()
        let next = Term(round: 2, node: Self.me)
        replica.partition.stoppedLeading(into: &replica.effects)
        replica.partition.becameLeader(next, at: replica.now, into: &replica.effects)
        replica.effects = RegionEffects()
        put(&replica, fence: 1, token: 1)
        replica.read()
        replica.flush()
        #expect(!replica.take().contains { if case .allocate = $0 { true } else { false } })
        replica.partition.onRegistered(
            Self.epoch, next, fence: 2, at: replica.now, into: &replica.effects)
        replica.flush()
        #expect(replica.answers()[1] == .failed(.authChanged))
        #expect(!replica.take().contains { if case .allocate = $0 { true } else { false } })
    }

    /// `polder sim --seed 1058`, with users.
    @Test func `a leader that knows of no sequencer yet asks for nothing before its registration, either`() {
        var replica = Replica()
        replica.partition.becameLeader(replica.term, at: replica.now, into: &replica.effects)
        put(&replica, fence: 1, token: 1)
        replica.read()
        replica.flush()
        #expect(replica.partition.lead.asked.isEmpty)
        replica.lead()
        replica.partition.onRegistered(
            Self.epoch, replica.term, fence: 2, at: replica.now, into: &replica.effects)
        replica.flush()
        #expect(!replica.take().contains { if case .allocate = $0 { true } else { false } })
    }

    /// `polder sim --seed 1000`, with users.
    @Test func `of what was carried out nobody hears that it was refused`() {
        let request = Request.transaction(Transaction(success: [.put(Put(key: "a", value: "1"))]))
        var replica = Replica()
        replica.lead()
        let gate = replica.partition.lead.term.round
        replica.request(1, request, tag(1, gate: gate))
        replica.read()
        replica.allocate()
        replica.decide()
        replica.effects.executed.removeAll()
        func again(_ replica: inout Replica, _ token: UInt64, attempt: UInt64, sequence: UInt64 = 4) {
            var tag = tag(attempt, gate: gate, after: .zero)
            if sequence != 4 {
                tag = RequestTag(
                    name: RequestName(node: Self.me, boot: 9, sequence: sequence), attempt: attempt, mark: 4,
                    gate: tag.gate, after: tag.after)
            }
            replica.partition.request(
                RequestID(node: Self.me, token: token), request, tag, deadline: .never, fence: 3,
                at: replica.now, into: &replica.effects)
        }
        // It waits for a latch while the leader hears of the restriction.
        replica.lock(transaction(1), "a")
        replica.read()
        again(&replica, 2, attempt: 2)
        replica.partition.heard(fence: 4)
        replica.partition.release(transaction(1), at: replica.now, into: &replica.effects)
        replica.flush()
        again(&replica, 3, attempt: 3)
        again(&replica, 4, attempt: 4, sequence: 5)
        #expect(replica.effects.executed.map(\.0.token) == [2, 3])
        #expect(replica.answers() == [4: .failed(.authChanged)], "what is in no log was not done")
    }

    // MARK: S6

    @Test func `latches are granted once what overlaps is decided, and show it`() throws {
        var replica = Replica()
        replica.lead()
        replica.put("a", "1")
        replica.read()
        replica.allocate()
        _ = replica.take()
        replica.lock(transaction(1), "a")
        replica.read()
        #expect(locked(replica.take()) == nil)
        replica.decide()
        replica.read()
        let rows = try #require(locked(replica.take()))
        #expect(rows.rows.map(\.modRevision) == [Revision(2)])
    }

    @Test func `a request behind a latch waits, also to read`() {
        var replica = Replica()
        replica.lead()
        replica.lock(transaction(1), "a")
        replica.read()
        replica.put("a", "1")
        #expect(replica.effects.reads.isEmpty)
        replica.partition.release(transaction(1), at: replica.now, into: &replica.effects)
        #expect(replica.effects.reads.count == 1)
    }

    @Test func `prepared is logged only in the term that granted the latches`() {
        var replica = Replica(term: 2)
        replica.lead()
        _ = replica.take()
        replica.prepare(transaction(1), "a", revision: 2, term: Term(round: 1, node: Self.other))
        #expect(replica.take().contains(.refused(transaction(1), Self.p)))
        replica.decide()
        #expect(replica.rows.isEmpty)
    }

    @Test func `an attempt is granted latches once, whatever the network repeats`() {
        var replica = Replica()
        replica.lead()
        replica.lock(transaction(1), "a")
        replica.read()
        replica.partition.release(transaction(1), at: replica.now, into: &replica.effects)
        _ = replica.take()
        replica.lock(transaction(1), "a")
        replica.read()
        #expect(replica.take() == [.died(transaction(1), Self.p)])
        replica.prepare(transaction(1), "a", revision: 2)
        #expect(replica.take() == [.refused(transaction(1), Self.p)])
    }

    @Test func `a release that overtakes the request for latches is remembered`() {
        var replica = Replica()
        replica.lead()
        replica.partition.release(transaction(1), at: replica.now, into: &replica.effects)
        replica.lock(transaction(1), "a")
        #expect(replica.take() == [.died(transaction(1), Self.p)])
    }

    // MARK: L2, L9

    @Test func `the older waits, the younger dies`() {
        var replica = Replica()
        replica.lead()
        replica.lock(transaction(1), "a", micros: 10)
        replica.read()
        _ = replica.take()
        replica.lock(transaction(2), "a", micros: 20)
        #expect(replica.take() == [.died(transaction(2), Self.p)])
        replica.lock(transaction(3), "a", micros: 5)
        #expect(replica.take().isEmpty)
        replica.partition.release(transaction(1), at: replica.now, into: &replica.effects)
        replica.read()
        #expect(locked(replica.take()) != nil)
    }

    @Test func `latches that lapse are counted, and the count goes with every later write`() throws {
        var replica = Replica()
        replica.lead()
        replica.lock(transaction(1), "a")
        replica.read()
        #expect(try #require(locked(replica.take())).lapses == 0)
        replica.milliseconds += 1_100
        replica.flush()
        #expect(replica.take().contains(.died(transaction(1), Self.p)))
        replica.put("a", "1")
        replica.read()
        replica.flush()
        let counts = replica.take().compactMap { message -> UInt64? in
            if case .allocate(_, _, _, let lapses, _, _) = message { return lapses }
            return nil
        }
        #expect(counts == [1])
    }

    // MARK: S4, S10, C1

    private func prepared() -> Replica {
        var replica = Replica()
        replica.lead()
        replica.lock(transaction(1), "a")
        replica.read()
        replica.prepare(transaction(1), "a", revision: 2)
        replica.decide()
        _ = replica.take()
        return replica
    }

    @Test func `what is prepared is remembered until the frontier has passed it`() {
        var replica = prepared()
        #expect(replica.rows["a"]?.modRevision == Revision(2))
        #expect(replica.partition.state.prepared.map(\.revision) == [Revision(2)])
        replica.partition.recover(
            transaction(1), Revision(2), aborting: false, from: Self.me, at: replica.now,
            into: &replica.effects)
        #expect(
            !replica.take().contains { message in
                if case .never = message { return true }
                return false
            })
        replica.frontier(2)
        #expect(replica.partition.state.prepared.isEmpty)
    }

    @Test func `a frontier whose tail is not applied here makes nothing be forgotten`() {
        var replica = prepared()
        replica.partition.onFrontier(
            Revision(3), tail: Slot(replica.slot.rawValue + 5), epoch: Self.epoch, at: replica.now,
            into: &replica.effects)
        #expect(replica.partition.state.prepared.count == 1)
    }

    @Test func `an abort takes the rows away, and what was latched is free`() {
        var replica = prepared()
        replica.put("a", "1")
        #expect(replica.effects.reads.isEmpty)
        replica.partition.recover(
            transaction(1), Revision(2), aborting: true, from: Self.me, at: replica.now,
            into: &replica.effects)
        replica.decide()
        #expect(replica.rows["a"] == nil)
        #expect(replica.partition.state.recent.map(\.kind) == [.aborted])
        #expect(replica.effects.reads.count == 1)
    }

    @Test func `never is final: it cannot be prepared any more in this term`() {
        var replica = Replica()
        replica.lead()
        replica.lock(transaction(1), "a")
        replica.read()
        _ = replica.take()
        replica.partition.recover(
            transaction(1), Revision(2), aborting: false, from: Self.me, at: replica.now,
            into: &replica.effects)
        let nevers = replica.take().filter { message in
            if case .never = message { return true }
            return false
        }
        #expect(nevers.count == 1)
        replica.prepare(transaction(1), "a", revision: 2)
        #expect(replica.take() == [.refused(transaction(1), Self.p)])
    }

    @Test func `a new leader holds the latches of what it finds prepared`() {
        let old = prepared()
        var replica = Replica(term: 2, state: old.partition.state)
        replica.rows = old.rows
        replica.lead()
        replica.put("a", "1")
        #expect(replica.effects.reads.isEmpty)
        replica.frontier(2)
        #expect(replica.effects.reads.count == 1)
    }

    // MARK: S1, S16

    @Test func `what was proposed in a leadership that ends is uncertain, the rest never happened`() {
        var replica = Replica()
        replica.lead()
        replica.put("a", "1")
        replica.read()
        replica.allocate()
        replica.put("b", "1", token: 2)
        replica.partition.stoppedLeading(into: &replica.effects)
        #expect(replica.effects.abandoned.map(\.token) == [1])
        #expect(replica.effects.redirects.map(\.token) == [2])
        #expect(replica.answers().isEmpty)
    }

    private func tag(_ attempt: UInt64, gate: UInt64, after: Slot? = nil) -> RequestTag {
        RequestTag(
            name: RequestName(node: Self.me, boot: 9, sequence: 4), attempt: attempt, mark: 4,
            gate: Term(round: gate, node: Self.me), after: after.map { [$0] } ?? [])
    }

    @Test func `a new leader tells what was carried out, and does not do it again`() {
        let put = Request.transaction(Transaction(success: [.put(Put(key: "a", value: "1"))]))
        var replica = Replica()
        replica.lead()
        let gate = replica.partition.lead.term.round
        replica.request(1, put, tag(1, gate: gate))
        replica.read()
        replica.allocate()
        replica.decide()
        // Its answer is lost; the frontier has not been heard of.
        replica.effects.executed.removeAll()
        replica.request(2, put, tag(2, gate: gate, after: .zero))
        #expect(replica.effects.executed.map(\.0.token) == [2])
        #expect(replica.effects.executed.map(\.1) == [Revision(2)])
        #expect(replica.effects.reads.isEmpty)
    }

    @Test func `an attempt for another leadership is not executed`() {
        let put = Request.transaction(Transaction(success: [.put(Put(key: "a", value: "1"))]))
        var replica = Replica()
        replica.lead()
        replica.request(1, put, tag(1, gate: replica.partition.lead.term.round + 1))
        #expect(replica.effects.redirects.map(\.token) == [1])
        #expect(replica.effects.reads.isEmpty)
    }

    // MARK: S11

    @Test func `a keep-alive is answered by who is confirmed as the leader`() {
        var replica = Replica()
        replica.lead()
        replica.request(1, .leaseGrant(LeaseID(5), ttlSeconds: 10))
        replica.decide()
        replica.request(2, .leaseKeepAlive(LeaseID(5)))
        replica.read()
        replica.flush()
        #expect(replica.answers()[2] == nil)
        let asked = replica.take().contains { message in
            if case .confirm = message { return true }
            return false
        }
        #expect(asked)
    }

    @Test func `an expiry that another leader began is not this one's`() {
        var replica = Replica()
        replica.lead()
        replica.request(1, .leaseGrant(LeaseID(5), ttlSeconds: 10))
        replica.decide()
        replica.request(2, .leaseExpire(LeaseID(5)))
        replica.read()
        #expect(replica.answers()[2] == .failed(.leaseNotFound))
        #expect(replica.partition.state.leases[LeaseID(5)] != nil)
    }

    // MARK: S20

    @Test func `a read from before what has been decided since is made again`() {
        var replica = Replica()
        replica.lead()
        let before = replica.partition.state.applied
        replica.put("a", "1")
        replica.read()
        replica.allocate()
        replica.decide()
        replica.frontier(2)
        replica.put("a", "2", token: 2)
        replica.read(at: before)
        #expect(replica.effects.reads.count == 1)
    }

    // MARK: S2

    @Test func `to a newer sequencer nothing is said before the log is sealed for it`() {
        var replica = Replica()
        replica.lead()
        let newer = Epoch(round: 2, node: Self.other)
        replica.partition.heard(epoch: newer, at: replica.now, into: &replica.effects)
        replica.put("a", "1")
        replica.read()
        replica.flush()
        #expect(replica.take().isEmpty)
        replica.decide()
        let registrations = replica.take().compactMap { message -> Registration? in
            if case .register(newer, let registration) = message { return registration }
            return nil
        }
        #expect(registrations.map(\.sealSlot) == [replica.slot])
    }
}
