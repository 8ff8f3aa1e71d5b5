import Primitives
import Simulator
import Testing

/// The checkers must bite: each is shown a history with one lie in it.
@Suite struct CheckerTests {
    // MARK: Linearizability

    private static func at(_ milliseconds: UInt64) -> Instant {
        Instant(nanoseconds: milliseconds * 1_000_000)
    }

    private static func operation(
        _ kind: RegisterOperation.Kind, _ from: UInt64, _ to: UInt64?
    ) -> RegisterOperation {
        RegisterOperation(kind, at(from), to.map(at) ?? .never)
    }

    @Test func `overlapping writes may be seen in either order`() {
        for seen in ["a", "b"] {
            let history = [
                Self.operation(.write("a"), 0, 10), Self.operation(.write("b"), 5, 15),
                Self.operation(.read(Bytes(seen)), 20, 30),
            ]
            #expect(Linearizability.check(history) == .linearizable)
        }
    }

    @Test func `a stale read is found`() {
        let history = [
            Self.operation(.write("a"), 0, 10), Self.operation(.write("b"), 20, 30),
            Self.operation(.read("a"), 40, 50),
        ]
        #expect(Linearizability.check(history) == .broken)
    }

    @Test func `reads that go back in time are found`() {
        let history = [
            Self.operation(.write("a"), 0, 10), Self.operation(.write("b"), 20, 90),
            Self.operation(.read("b"), 30, 40), Self.operation(.read("a"), 50, 60),
        ]
        #expect(Linearizability.check(history) == .broken)
    }

    @Test func `a write without an answer may take effect late or never`() {
        let early = [
            Self.operation(.write("a"), 0, 10), Self.operation(.write("b"), 20, nil),
            Self.operation(.read("a"), 30, 40), Self.operation(.read("b"), 50, 60),
        ]
        #expect(Linearizability.check(early) == .linearizable)
        let twice = early + [Self.operation(.read("a"), 70, 80)]
        #expect(Linearizability.check(twice) == .broken)
    }

    @Test func `a deletion is a write of nothing`() {
        let history = [
            Self.operation(.write("a"), 0, 10), Self.operation(.write(nil), 20, 30),
            Self.operation(.read(nil), 40, 50),
        ]
        #expect(Linearizability.check(history) == .linearizable)
        #expect(
            Linearizability.check(history + [Self.operation(.read("a"), 60, 70)]) == .broken)
    }

    @Test(arguments: UInt64(1)...20)
    func `a random register's history is linearizable, and one wrong read is not`(seed: UInt64) {
        var random = SplitMix(seed: seed)
        var history: [RegisterOperation] = []
        var value: Bytes?
        var time: UInt64 = 0
        // Each takes effect in the middle of its interval; intervals overlap.
        for i in 0..<200 {
            time += 2
            let from = time - min(time, random.below(6)), to = time + random.below(6)
            if random.chance(1, in: 2) {
                value = Bytes("\(i)")
                history.append(Self.operation(.write(value), from, to))
            } else {
                history.append(Self.operation(.read(value), from, to))
            }
        }
        #expect(Linearizability.check(history) == .linearizable)
        history.append(Self.operation(.read("never written"), time / 2, time / 2 + 3))
        #expect(Linearizability.check(history) == .broken)
    }

    // MARK: Revisions

    private static func row(
        _ key: Bytes, _ value: Bytes?, _ revision: Int64, create: Int64, version: Int64
    ) -> Row {
        Row(
            key: key, value: value ?? .empty, createRevision: Revision(create),
            modRevision: Revision(revision), version: version, lease: .none, sub: 0,
            origin: Origin(
                region: RegionID(1), revision: Revision(revision),
                stamp: Stamp(ticks: UInt64(revision), region: RegionID(1))))
    }

    /// put a=1 (2), put a=2 (3), read a.
    private static func history() throws -> (RegionTimeline, [Simulator.Operation]) {
        var timeline = RegionTimeline()
        let changes = [
            RevisionChanges(revision: Revision(2), rows: [row("a", "1", 2, create: 2, version: 1)]),
            RevisionChanges(revision: Revision(3), rows: [row("a", "2", 3, create: 2, version: 2)]),
        ]
        for change in changes { try timeline.add(change, at: at(1)) }
        timeline.reached(Revision(3))
        func put(_ number: Int, _ value: Bytes, _ revision: Int64, told: Int64) -> Simulator.Operation {
            var operation = Simulator.Operation(
                number: number, client: 0, region: RegionID(1), node: NodeID(1),
                call: .request(.transaction(Transaction(success: [.put(Put(key: "a", value: value))]))),
                invokedAt: at(UInt64(number) * 10), toldBefore: Revision(told))
            operation.returnedAt = at(UInt64(number) * 10 + 5)
            operation.outcome = .response(
                .transaction(
                    TransactionResult(succeeded: true, results: [.put(previous: nil)]),
                    revision: Revision(revision)))
            return operation
        }
        var read = Simulator.Operation(
            number: 2, client: 0, region: RegionID(1), node: NodeID(1),
            call: .read(RangeQuery(range: KeyRange(key: "a"))), invokedAt: at(20),
            toldBefore: Revision(3))
        read.returnedAt = at(25)
        read.outcome = .range(
            RangeResult(rows: [row("a", "2", 3, create: 2, version: 2)], count: 1),
            revision: Revision(3))
        return (timeline, [put(0, "1", 2, told: 1), put(1, "2", 3, told: 2), read])
    }

    private static func rules(
        _ timeline: RegionTimeline, _ operations: [Simulator.Operation]
    ) -> [String] {
        HistoryChecker.check(
            region: RegionID(1), timeline: timeline, operations: operations,
            through: timeline.through
        ).map(\.rule)
    }

    @Test func `a true history passes`() throws {
        let (timeline, operations) = try Self.history()
        #expect(Self.rules(timeline, operations) == [])
    }

    @Test func `an acknowledged write that is not in the history is found`() throws {
        let (_, operations) = try Self.history()
        var timeline = RegionTimeline()
        try timeline.add(
            RevisionChanges(
                revision: Revision(2), rows: [Self.row("a", "1", 2, create: 2, version: 1)]),
            at: .zero)
        timeline.reached(Revision(3))
        #expect(Self.rules(timeline, Array(operations.prefix(2))) == ["acknowledged writes survive"])
    }

    @Test func `an acknowledgement above the frontier is found`() throws {
        let (_, operations) = try Self.history()
        var timeline = RegionTimeline()
        try timeline.add(
            RevisionChanges(
                revision: Revision(2), rows: [Self.row("a", "1", 2, create: 2, version: 1)]),
            at: .zero)
        timeline.reached(Revision(2))
        #expect(
            Self.rules(timeline, Array(operations.prefix(2))) == ["acknowledged is visible"])
    }

    @Test func `a read below what was told is found`() throws {
        var (timeline, operations) = try Self.history()
        operations[2].outcome = .range(
            RangeResult(rows: [Self.row("a", "1", 2, create: 2, version: 1)], count: 1),
            revision: Revision(2))
        #expect(Self.rules(timeline, operations) == ["revisions follow real time"])
        timeline.reached(Revision(3))
    }

    @Test func `a read with a wrong value is found`() throws {
        var (timeline, operations) = try Self.history()
        operations[2].outcome = .range(RangeResult(), revision: Revision(3))
        #expect(Self.rules(timeline, operations) == ["an answer is the state at its revision"])
        timeline.reached(Revision(3))
    }

    @Test func `one revision for two transactions is found`() throws {
        var (timeline, operations) = try Self.history()
        let result = TransactionResult(succeeded: true, results: [.put(previous: nil)])
        operations[1].outcome = .response(.transaction(result, revision: Revision(2)))
        let rules = Self.rules(timeline, Array(operations.prefix(2)))
        #expect(rules.contains("one revision, one transaction"))
        timeline.reached(Revision(3))
    }

    @Test func `a change that nobody asked for is found`() throws {
        let (timeline, operations) = try Self.history()
        #expect(Self.rules(timeline, [operations[0]]) == ["every change was asked for"])
    }

    @Test func `two nodes that disagree about a revision are found`() throws {
        var (timeline, _) = try Self.history()
        #expect(throws: Violation.self) {
            try timeline.add(
                RevisionChanges(
                    revision: Revision(3), rows: [Self.row("a", "x", 3, create: 2, version: 2)]),
                at: .zero)
        }
        #expect(throws: Violation.self) {
            try timeline.add(RevisionChanges(revision: Revision(1), rows: []), at: .zero)
        }
    }
}
