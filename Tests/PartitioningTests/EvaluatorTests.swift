import Primitives
import Testing

@testable import Partitioning

@Suite struct EvaluatorTests {
    private func row(_ key: Bytes, _ value: Bytes, mod: Int64, version: Int64 = 1) -> Row {
        Row(
            key: key, value: value, createRevision: Revision(mod), modRevision: Revision(mod),
            version: version, lease: .none, sub: 0,
            origin: Origin(
                region: RegionID(1), revision: Revision(mod),
                stamp: Stamp(ticks: UInt64(mod), region: RegionID(1))))
    }

    private func evaluate(
        _ transaction: Transaction, _ rows: [Row], alive: Set<LeaseID> = []
    ) throws(RequestError) -> Evaluation {
        var plan = ReadPlan()
        plan.add(transaction)
        return try Evaluator.evaluate(
            transaction, on: RowTable(rows), plan: plan, historic: [], leaseIsAlive: alive.contains)
    }

    @Test func `one put is evaluated as any transaction is`() throws {
        var draw = SplitMix(seed: 11), taken = 0
        func compare() -> Compare {
            let n = Int64(draw.next() % 4)
            let target: [Compare.Target] = [
                .version(n), .createRevision(n), .modRevision(n), .value(draw.next() % 2 == 0 ? "v" : "w"),
                .lease(n),
            ]
            return Compare(
                range: KeyRange(key: "k"),
                relation: Compare.Relation(rawValue: UInt8(draw.next() % 4)) ?? .equal,
                target: target[Int(draw.next() % 5)])
        }
        func operation() -> Primitives.Operation {
            switch draw.next() % 5 {
            case 0: return .range(RangeQuery(range: KeyRange(key: "k")))
            case 1: return .delete(Delete(range: KeyRange(key: "k")))
            default:
                let keepsValue = draw.next() % 4 == 0
                return .put(
                    Put(
                        key: "k", value: keepsValue ? .empty : "new", wantsPrevious: draw.next() % 2 == 0,
                        keepsValue: keepsValue, keepsLease: draw.next() % 4 == 0))
            }
        }
        for _ in 0..<2000 {
            let transaction = Transaction(
                compares: (0..<draw.next() % 3).map { _ in compare() },
                success: (0..<draw.next() % 3).map { _ in operation() },
                failure: (0..<draw.next() % 3).map { _ in operation() })
            var before: Row?
            switch draw.next() % 4 {
            case 0: break
            case 1: before = row("k", "v", mod: 3).deletion(sub: 0)
            default:
                before = row("k", "v", mod: Int64(draw.next() % 3) + 1)
                before?.lease = LeaseID(Int64(draw.next() % 3))
            }
            let isAboutOne =
                !(transaction.compares.isEmpty && transaction.success.isEmpty && transaction.failure.isEmpty)
            #expect((transaction.onlyKey != nil) == isAboutOne)
            guard let evaluation = Evaluator.writeOne(transaction, on: before) else { continue }
            taken += 1
            #expect(try evaluation == evaluate(transaction, before.map { [$0] } ?? []))
        }
        #expect(taken > 300)
    }

    @Test func `what is about more than one key, or about a lease or the past, is not about one`() {
        let put = Primitives.Operation.put(Put(key: "k", value: "v"))
        #expect(Transaction(success: [put]).onlyKey == "k")
        #expect(Transaction(success: [put, .put(Put(key: "l", value: "v"))]).onlyKey == nil)
        #expect(Transaction(success: [put], failure: [.range(RangeQuery(range: KeyRange(key: "l")))]).onlyKey == nil)
        #expect(
            Transaction(
                compares: [Compare(range: KeyRange(key: "k", end: "l"), relation: .equal, target: .version(0))],
                success: [put]
            ).onlyKey == nil)
        #expect(Transaction(success: [.put(Put(key: "k", value: "v", lease: LeaseID(7)))]).onlyKey == nil)
        #expect(Transaction(success: [put, .delete(Delete(range: KeyRange(key: "k", end: "z")))]).onlyKey == nil)
        #expect(
            Transaction(success: [put, .range(RangeQuery(range: KeyRange(key: "k"), revision: Revision(2)))])
                .onlyKey == nil)
        #expect(Transaction(success: [put, .transaction(Transaction(success: [put]))]).onlyKey == nil)
    }

    @Test func `a put on a deleted key begins a new life at version 1`() throws {
        let gone = row("k", "old", mod: 5, version: 3).deletion(sub: 0)
        let result = try evaluate(Transaction(success: [.put(Put(key: "k", value: "new"))]), [gone])
        #expect(result.effects.first?.version == 1)
        #expect(result.effects.first?.createRevision == .pending)
    }

    @Test func `later operations see earlier ones, and the effects are numbered in order`() throws {
        let result = try evaluate(
            Transaction(success: [
                .put(Put(key: "a", value: "1")),
                .range(RangeQuery(range: KeyRange(key: "a", end: "c"))),
                .delete(Delete(range: KeyRange(key: "a", end: "c"), wantsPrevious: true)),
            ]), [row("b", "2", mod: 3)])
        #expect(result.effects.map(\.sub) == [0, 1, 2])
        guard case .range(let range) = result.result.results[1],
            case .delete(let deleted, let previous) = result.result.results[2]
        else {
            Issue.record("\(result.result)")
            return
        }
        #expect(range.rows.map(\.key) == ["a", "b"])
        #expect(deleted == 2 && previous.map(\.value) == ["1", "2"])
    }

    @Test func `what was read of one's own writes gets the transaction's revision`() throws {
        let result = try evaluate(
            Transaction(success: [
                .put(Put(key: "a", value: "1")), .range(RangeQuery(range: KeyRange(key: "a"))),
            ]), [])
        let settled = result.result.settled(
            at: Revision(9), stamp: Stamp(ticks: 1, region: RegionID(1)))
        guard case .range(let range) = settled.results[1] else {
            Issue.record("\(settled)")
            return
        }
        #expect(range.rows.first?.modRevision == Revision(9))
        #expect(range.rows.first?.createRevision == Revision(9))
    }

    @Test func `nothing happens when a lease or a key is missing, wherever it is named`() {
        let first = Operation.put(Put(key: "a", value: "1"))
        #expect(throws: RequestError.leaseNotFound) {
            try evaluate(
                Transaction(success: [first, .put(Put(key: "b", value: "2", lease: LeaseID(7)))]), [])
        }
        #expect(throws: RequestError.keyNotFound) {
            try evaluate(
                Transaction(success: [first, .put(Put(key: "b", value: "", keepsValue: true))]), [])
        }
    }

    @Test func `a value is compared only where there is one, numbers are zero where there is none`() throws {
        func holds(_ target: Compare.Target, _ relation: Compare.Relation) throws -> Bool {
            try evaluate(
                Transaction(
                    compares: [Compare(range: KeyRange(key: "none"), relation: relation, target: target)],
                    success: [], failure: []), []
            ).result.succeeded
        }
        #expect(try holds(.modRevision(0), .equal))
        #expect(try holds(.version(0), .equal))
        #expect(try !holds(.value(""), .equal))
        #expect(try !holds(.value("x"), .notEqual))
    }

    @Test func `a compare over a range holds only if it holds of every key`() throws {
        let rows = [row("a", "1", mod: 2), row("b", "2", mod: 9)]
        func holds(below limit: Int64) throws -> Bool {
            try evaluate(
                Transaction(
                    compares: [
                        Compare(
                            range: KeyRange(key: "a", end: "z"), relation: .less,
                            target: .modRevision(limit))
                    ], success: []), rows
            ).result.succeeded
        }
        #expect(try !holds(below: 5))
        #expect(try holds(below: 10))
    }
}

extension EvaluatorTests {
    @Test func `a compare is decided by what is known, above it by nothing`() {
        func transaction(_ target: Compare.Target) -> Transaction {
            Transaction(
                compares: [Compare(range: KeyRange(key: "k"), relation: .equal, target: target)],
                success: [.put(Put(key: "k", value: "v"))])
        }
        #expect(transaction(.modRevision(7)).isDecided(knowing: Revision(7)))
        #expect(!transaction(.modRevision(8)).isDecided(knowing: Revision(7)))
        #expect(transaction(.version(80)).isDecided(knowing: Revision(7)))
    }

    @Test func `only what holds no other's revision may be written on a pending row`() throws {
        func pending(create: Revision) -> Row {
            Row(
                key: "k", value: "v", createRevision: create, modRevision: .pending, version: 4,
                lease: .none, sub: 0, origin: .pending)
        }
        func passes(_ operation: Primitives.Operation, on row: Row) throws -> Bool {
            try evaluate(Transaction(success: [operation]), [row]).needsNoOtherRevision
        }
        let old = pending(create: Revision(2)), new = pending(create: .pending)
        #expect(try passes(.put(Put(key: "k", value: "w")), on: old))
        #expect(try !passes(.put(Put(key: "k", value: "w")), on: new))
        #expect(try !passes(.put(Put(key: "k", value: "w", wantsPrevious: true)), on: old))
        #expect(try !passes(.range(RangeQuery(range: KeyRange(key: "k"))), on: old))
        #expect(try passes(.delete(Delete(range: KeyRange(key: "k"))), on: new))
    }
}

@Suite struct OverlayTests {
    private func row(_ key: Bytes, _ value: Bytes, mod: Revision, create: Revision) -> Row {
        Row(
            key: key, value: value, createRevision: create, modRevision: mod, version: 1, lease: .none,
            sub: 0, origin: Origin(region: RegionID(1), revision: mod, stamp: .zero))
    }

    private var plan: ReadPlan {
        var plan = ReadPlan()
        plan.add(KeyRange(key: "k"))
        return plan
    }

    @Test func `a pending row hides what was read, until every read shows it`() {
        var overlay = Overlay()
        let new = row("k", "new", mod: Revision(5), create: Revision(2))
        overlay.put(new, writer: 1, number: 1)
        let old = row("k", "old", mod: Revision(2), create: Revision(2))
        #expect(overlay.lay(on: [old], plan: plan).table["k"]?.value == "new")
        overlay.decide([new], number: 1, slot: Slot(4))
        overlay.prune(through: Slot(3))
        #expect(overlay["k"] != nil)
        overlay.prune(through: Slot(4))
        #expect(overlay["k"] == nil)
        #expect(overlay.completeFrom == Slot(4))
    }

    @Test func `rows whose revision is not known yet are told`() {
        var overlay = Overlay()
        overlay.put(row("k", "v", mod: .pending, create: Revision(2)), writer: 1)
        #expect(overlay.lay(on: [], plan: plan).hasUnknown)
        overlay.settle([row("k", "v", mod: Revision(5), create: Revision(2))], writer: 1, number: 1)
        #expect(!overlay.lay(on: [], plan: plan).hasUnknown)
    }

    @Test func `the later of two writers of a key stays on top when the earlier is settled`() {
        var overlay = Overlay()
        overlay.put(row("k", "1", mod: .pending, create: Revision(2)), writer: 1)
        overlay.put(row("k", "2", mod: .pending, create: Revision(2)), writer: 2)
        overlay.settle([row("k", "1", mod: Revision(5), create: Revision(2))], writer: 1, number: 1)
        #expect(overlay["k"]?.row.value == "2")
    }

    @Test func `reads that may have seen an aborted row are not used`() {
        var overlay = Overlay()
        overlay.put(row("k", "v", mod: Revision(5), create: Revision(5)), writer: 0, number: 1)
        overlay.abort(["k"], revision: Revision(5), at: Slot(8))
        #expect(overlay["k"] == nil)
        #expect(overlay.completeFrom == Slot(8))
    }
}

@Suite struct TimelineMergeTests {
    private func applied(_ revision: Int64, _ key: Bytes, sub: UInt32 = 0) -> RegionEffects.AppliedRows {
        let row = Row(
            key: key, value: "v", createRevision: Revision(revision), modRevision: Revision(revision),
            version: 1, lease: .none, sub: sub,
            origin: Origin(region: RegionID(1), revision: Revision(revision), stamp: .zero))
        return .init(revision: Revision(revision), rows: [row], aborted: false)
    }

    @Test func `revisions come whole, in order, and only up to the frontier`() {
        var merge = TimelineMerge(emitted: Revision(1), lostThrough: Revision(1), rowsMax: 100)
        merge.add(applied(3, "c"))
        merge.add(applied(2, "b", sub: 1))
        merge.add(applied(2, "a", sub: 0))
        merge.add(applied(4, "d"))
        guard case .changes(let changes) = merge.advance(to: Revision(3)) else {
            Issue.record("lost")
            return
        }
        #expect(changes.map(\.revision) == [Revision(2), Revision(3)])
        #expect(changes[0].rows.map(\.key) == ["a", "b"])
        #expect(merge.advance(to: Revision(3)) == nil)
    }

    @Test func `what was applied before a restart is said to be lost, not left out`() {
        var merge = TimelineMerge(emitted: Revision(8), lostThrough: Revision(10), rowsMax: 100)
        #expect(merge.advance(to: Revision(9)) == .lost)
        merge.add(applied(11, "k"))
        #expect(merge.advance(to: Revision(11)) == .lost)
        merge.add(applied(12, "k"))
        #expect(merge.advance(to: Revision(12)) != .lost)
    }

    @Test func `more than there is room for is lost, and the next ones are not`() {
        var merge = TimelineMerge(emitted: Revision(1), lostThrough: Revision(1), rowsMax: 3)
        for revision in 2...6 as ClosedRange<Int64> { merge.add(applied(revision, "k")) }
        #expect(merge.advance(to: Revision(6)) == .lost)
        merge.add(applied(7, "k"))
        guard case .changes(let changes) = merge.advance(to: Revision(7)) else {
            Issue.record("lost")
            return
        }
        #expect(changes.map(\.revision) == [Revision(7)])
    }
}

@Suite struct LeaseClockTests {
    private func at(_ milliseconds: UInt64) -> Instant { .zero.advanced(by: .milliseconds(milliseconds)) }
    private let silence = TimeSpan.milliseconds(500)

    @Test func `a lease ends after its time, once, until it is renewed`() {
        var clock = LeaseClock()
        clock.contact(at: at(1), stoppedBeyond: silence)
        clock.start(LeaseID(1), ttlSeconds: 1, at: at(1))
        clock.contact(at: at(1_000), stoppedBeyond: .seconds(10))
        #expect(clock.expired(at: at(1_000), contactMax: silence).isEmpty)
        clock.contact(at: at(1_001), stoppedBeyond: silence)
        #expect(clock.expired(at: at(1_001), contactMax: silence) == [LeaseID(1)])
        #expect(clock.expired(at: at(1_200), contactMax: silence).isEmpty)
    }

    @Test func `the clock stands still while nobody could renew`() {
        var clock = LeaseClock()
        clock.contact(at: at(1), stoppedBeyond: silence)
        clock.start(LeaseID(1), ttlSeconds: 1, at: at(1))
        // Nothing was heard for a minute.
        #expect(clock.expired(at: at(60_000), contactMax: silence).isEmpty)
        clock.contact(at: at(60_001), stoppedBeyond: silence)
        #expect(clock.expired(at: at(60_200), contactMax: silence).isEmpty)
        #expect((clock.remainingSeconds(LeaseID(1), at: at(60_200)) ?? 0) <= 1)
    }
}
