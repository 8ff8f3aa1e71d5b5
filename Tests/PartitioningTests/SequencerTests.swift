import Primitives
import Testing

@testable import Partitioning

/// Each test is a schedule of the rules: what a weaker sequencer would do is in its name.
@Suite struct SequencerTests {
    init() { MutationUnderTest.set() }

    private let n1 = NodeID(1), n2 = NodeID(2)
    private let epoch = Epoch(round: 1, node: NodeID(1))
    private let p1 = PartitionID(1), p2 = PartitionID(2)

    private func clock(_ milliseconds: UInt64) -> ClockReading {
        ClockReading(
            instant: .zero.advanced(by: .milliseconds(milliseconds)),
            wallMicroseconds: 1_000_000 + milliseconds * 1_000)
    }

    private func registration(
        _ p: PartitionID, round: UInt64 = 1, node: NodeID? = nil, highest: Int64 = 0, heard: Int64 = 0,
        recent: [PartitionState.Recent] = [], undecided: [Registration.Undecided] = []
    ) -> Registration {
        Registration(
            partition: p, term: Term(round: round, node: node ?? n1), sealSlot: Slot(round),
            applied: Slot(round), highestRevision: Revision(highest), heardFrontier: Revision(heard),
            highestStamp: .zero, recent: recent, undecided: undecided, lapses: 0)
    }

    private func term(_ round: UInt64, _ node: NodeID? = nil) -> Term {
        Term(round: round, node: node ?? n1)
    }

    private struct Run {
        var sequencer: Sequencer
        var effects = RegionEffects()
        mutating func step(_ message: RegionMessage, _ clock: ClockReading, leaseHolds: Bool = true) {
            sequencer.step(
                message, from: NodeID(1), at: clock, leaseHolds: leaseHolds, into: &effects)
        }
        mutating func take() -> [RegionMessage] {
            defer { effects = RegionEffects() }
            return effects.messages.map(\.message)
        }
    }

    private func run(answersFrom: Instant = .zero) -> Run {
        Run(
            sequencer: Sequencer(
                epoch: epoch, region: RegionID(1), nodes: [n1], partitions: 2, compactRevision: .zero,
                answersFrom: answersFrom))
    }

    private func opened(_ a: Registration, _ b: Registration) -> Run {
        var run = run()
        run.step(.register(epoch, a), clock(1))
        run.step(.register(epoch, b), clock(1))
        return run
    }

    private func allocate(
        _ run: inout Run, _ p: PartitionID, _ term: Term, first: UInt64, at: UInt64 = 2
    ) -> Allocation? {
        _ = run.take()
        run.step(.allocate(epoch, p, term, lapses: 0, first: first, replaced: [.zero]), clock(at))
        for case .allocated(_, _, _, _, let allocations) in run.take() { return allocations.first }
        return nil
    }

    @Test func `an empty region opens at revision 1, when all partitions are sealed`() {
        var run = run()
        run.step(.register(epoch, registration(p1)), clock(1))
        #expect(!run.sequencer.isOpen)
        run.step(.register(epoch, registration(p2)), clock(1))
        #expect(run.sequencer.isOpen)
        #expect(run.sequencer.frontier == .initial)
        #expect(allocate(&run, p1, term(1), first: 1)?.revision == Revision(2))
    }

    @Test func `nothing opens before the old sequencer's lease has run out`() {
        var run = run(answersFrom: clock(100).instant)
        run.step(.register(epoch, registration(p1)), clock(1))
        run.step(.register(epoch, registration(p2)), clock(1))
        #expect(!run.sequencer.isOpen)
        run.sequencer.flush(at: clock(100).instant, leaseHolds: true, into: &run.effects)
        #expect(run.sequencer.isOpen)
    }

    @Test func `the frontier waits for the lower revision and then takes both`() throws {
        var run = opened(registration(p1), registration(p2))
        let a = try #require(allocate(&run, p1, term(1), first: 1))
        let b = try #require(allocate(&run, p2, term(1), first: 1))
        #expect(b.stamp > a.stamp)
        run.step(
            .report(epoch, p2, term(1), [.init(revision: b.revision, slot: Slot(2), kind: .committed)]),
            clock(3))
        #expect(run.sequencer.frontier == .initial)
        run.step(
            .report(epoch, p1, term(1), [.init(revision: a.revision, slot: Slot(2), kind: .committed)]),
            clock(3))
        #expect(run.sequencer.frontier == b.revision)
        #expect(run.sequencer.tails.map(\.slot) == [Slot(2), Slot(2)])
    }

    @Test func `a repeated request is answered alike, one with a gap not at all`() throws {
        var run = opened(registration(p1), registration(p2))
        let first = try #require(allocate(&run, p1, term(1), first: 1))
        #expect(allocate(&run, p1, term(1), first: 1) == first)
        #expect(allocate(&run, p1, term(1), first: 3) == nil)
    }

    @Test func `a new term's first request does not get the old term's revision`() throws {
        var run = opened(registration(p1), registration(p2))
        _ = allocate(&run, p2, term(1), first: 1)  // Open: the window stays.
        let old = try #require(allocate(&run, p1, term(1), first: 1))
        let committed = PartitionState.Recent(revision: old.revision, slot: Slot(2), kind: .committed)
        run.step(.report(epoch, p1, term(1), [committed]), clock(3))
        run.step(
            .register(epoch, registration(p1, round: 2, highest: 3, recent: [committed])), clock(4))
        let new = try #require(allocate(&run, p1, term(2), first: 1))
        #expect(new.revision > old.revision)
        #expect(allocate(&run, p1, term(2), first: 1) == new)
    }

    @Test func `a new leader's registration voids what its log does not hold, and only that`() throws {
        var run = opened(registration(p1), registration(p2))
        let lost = try #require(allocate(&run, p1, term(1), first: 1))
        let kept = try #require(allocate(&run, p1, term(1), first: 2))
        run.step(
            .register(
                epoch,
                registration(
                    p1, round: 2, highest: kept.revision.rawValue,
                    recent: [.init(revision: kept.revision, slot: Slot(5), kind: .committed)])),
            clock(3))
        #expect(run.effects.voids == [lost.revision])
        #expect(run.sequencer.frontier == kept.revision)
        // The old term is refused everything from now on.
        #expect(allocate(&run, p1, term(1), first: 3) == nil)
    }

    @Test func `the frontier never rests on a void revision`() throws {
        var run = opened(registration(p1), registration(p2))
        let lost = try #require(allocate(&run, p1, term(1), first: 1))
        run.step(.register(epoch, registration(p1, round: 2)), clock(3))
        #expect(run.effects.voids == [lost.revision])
        #expect(run.sequencer.frontier == .initial)
    }

    @Test func `after a failover what is prepared everywhere is committed`() {
        let transaction = TransactionID(
            name: RequestName(node: n2, boot: 1, sequence: 1), attempt: 1)
        func prepared(_ p: PartitionID) -> Registration {
            registration(
                p, highest: 7, heard: 6,
                recent: [.init(revision: Revision(7), slot: Slot(9), kind: .prepared)],
                undecided: [
                    .init(transaction: transaction, revision: Revision(7), participants: [p1, p2])
                ])
        }
        var run = opened(prepared(p1), prepared(p2))
        #expect(run.sequencer.frontier == Revision(7))
        #expect(allocate(&run, p1, term(1), first: 1)?.revision == Revision(8))
    }

    @Test func `after a failover what is prepared in part is undone before the frontier passes it`() {
        let transaction = TransactionID(
            name: RequestName(node: n2, boot: 1, sequence: 1), attempt: 1)
        let half = registration(
            p1, highest: 7, heard: 6,
            recent: [.init(revision: Revision(7), slot: Slot(9), kind: .prepared)],
            undecided: [.init(transaction: transaction, revision: Revision(7), participants: [p1, p2])])
        let other = registration(
            p2, highest: 8, heard: 5,
            recent: [.init(revision: Revision(8), slot: Slot(4), kind: .committed)])
        var run = opened(half, other)
        #expect(run.sequencer.frontier == Revision(6))
        #expect(run.take().contains(.abort(epoch, transaction, Revision(7), p1)))
        run.step(
            .report(epoch, p1, term(1), [.init(revision: Revision(7), slot: Slot(10), kind: .aborted)]),
            clock(3))
        #expect(run.sequencer.frontier == Revision(8))
        #expect(run.sequencer.tails[0].slot == Slot(10))
    }

    private func transaction(
        _ run: inout Run, _ name: UInt64, lapses: UInt64 = 0
    ) -> (TransactionID, Allocation?) {
        let transaction = TransactionID(
            name: RequestName(node: n2, boot: 1, sequence: name), attempt: 1)
        let participants = [p1, p2].map {
            Participant(partition: $0, term: term(1), writes: true, lapses: lapses)
        }
        _ = run.take()
        run.step(
            .allocateTransaction(epoch, transaction, participants, replaced: .zero, fence: 0), clock(2))
        for case .allocatedTransaction(_, _, let allocation) in run.take() {
            return (transaction, allocation)
        }
        return (transaction, nil)
    }

    @Test func `a tail is the highest slot at or below the frontier, not that of the last revision`() throws {
        var run = opened(registration(p1), registration(p2))
        let first = try #require(allocate(&run, p1, term(1), first: 1))
        let second = try #require(allocate(&run, p1, term(1), first: 2))
        // The first lies further on in the log: it was obtained by a coordinator, say.
        run.step(
            .report(
                epoch, p1, term(1),
                [
                    .init(revision: second.revision, slot: Slot(5), kind: .committed),
                    .init(revision: first.revision, slot: Slot(6), kind: .committed),
                ]), clock(3))
        #expect(run.sequencer.frontier == second.revision)
        #expect(run.sequencer.tails[0].slot == Slot(6))
    }

    @Test func `a transaction that nobody prepares is recovered, and void once one says never`() throws {
        var run = opened(registration(p1), registration(p2))
        let (name, allocation) = transaction(&run, 1)
        let revision = try #require(allocation).revision
        run.sequencer.flush(at: clock(50).instant, leaseHolds: true, into: &run.effects)
        #expect(!run.take().contains(.recover(epoch, name, revision, p1)))
        run.sequencer.flush(at: clock(120).instant, leaseHolds: true, into: &run.effects)
        let asked = run.take()
        #expect(asked.contains(.recover(epoch, name, revision, p1)))
        #expect(asked.contains(.recover(epoch, name, revision, p2)))
        run.step(.never(epoch, name, revision, p1, term(1)), clock(121))
        run.step(.never(epoch, name, revision, p2, term(1)), clock(121))
        #expect(run.effects.voids == [revision])
        #expect(run.take().contains(.transactionVoid(epoch, name, revision)))
    }

    @Test func `who evaluated under latches that have lapsed since gets no revision`() throws {
        var run = opened(registration(p1), registration(p2))
        run.step(
            .allocate(epoch, p1, term(1), lapses: 1, first: 1, replaced: [.zero]), clock(2))
        #expect(transaction(&run, 1).1 == nil)
        #expect(transaction(&run, 2, lapses: 1).1 != nil)
    }

    @Test func `without the lease no read is answered, with it all that waited are`() {
        var run = opened(registration(p1), registration(p2))
        _ = run.take()
        run.step(.readQuestion(epoch, question: 9), clock(2), leaseHolds: false)
        #expect(run.take().isEmpty)
        run.sequencer.flush(at: clock(3).instant, leaseHolds: true, into: &run.effects)
        #expect(
            run.take().contains(
                .readAnswer(epoch, question: 9, frontier: .initial, compact: .zero, authVersion: 0)))
    }

    @Test func `a leader of an older term is confirmed nothing`() {
        var run = opened(registration(p1), registration(p2))
        run.step(.register(epoch, registration(p1, round: 2)), clock(2))
        _ = run.take()
        run.step(.confirm(epoch, p1, term(1), question: 1), clock(3))
        #expect(run.take().isEmpty)
        run.step(.confirm(epoch, p1, term(2), question: 1), clock(3))
        #expect(!run.take().isEmpty)
    }

    // MARK: Fences

    private func settled(_ run: inout Run, _ at: UInt64) -> UInt64 {
        run.sequencer.flush(at: clock(at).instant, leaseHolds: true, into: &run.effects)
        return run.sequencer.settledFence
    }

    @Test func `a fence is settled once all leaders keep it and what was asked before is resolved`() {
        var run = opened(registration(p1), registration(p2))
        let first = allocate(&run, p1, term(1), first: 1)
        run.sequencer.authChanged(version: 5, fence: 3)
        #expect(settled(&run, 3) == 0)
        run.step(.fenced(epoch, p1, term(1), fence: 3), clock(4))
        #expect(settled(&run, 4) == 0)
        // The other may still ask for what was checked before.
        _ = allocate(&run, p2, term(1), first: 1, at: 5)
        run.step(.fenced(epoch, p2, term(1), fence: 3), clock(6))
        #expect(settled(&run, 6) == 0)
        run.step(
            .report(epoch, p1, term(1), [.init(revision: first?.revision ?? .zero, slot: Slot(3), kind: .committed)]),
            clock(7))
        #expect(settled(&run, 7) == 0)
        run.step(
            .report(epoch, p2, term(1), [.init(revision: Revision(3), slot: Slot(3), kind: .committed)]),
            clock(8))
        #expect(settled(&run, 8) == 3)
    }

    @Test func `a new leader is told the fence and counts from then on`() {
        var run = opened(registration(p1), registration(p2))
        run.sequencer.authChanged(version: 1, fence: 1)
        run.step(.fenced(epoch, p1, term(1), fence: 1), clock(2))
        run.step(.register(epoch, registration(p1, round: 2)), clock(3))
        run.step(.fenced(epoch, p2, term(1), fence: 1), clock(4))
        // What the deposed leader has said counts no more.
        run.step(.fenced(epoch, p1, term(1), fence: 1), clock(4))
        #expect(settled(&run, 4) == 0)
        let told = run.take()
        #expect(told.contains(.registered(epoch, p1, term(2), fence: 1)))
        run.step(.fenced(epoch, p1, term(2), fence: 1), clock(5))
        #expect(settled(&run, 5) == 1)
    }

    @Test func `a transaction over several partitions that was checked too early gets no revision`() {
        var run = opened(registration(p1), registration(p2))
        run.sequencer.authChanged(version: 1, fence: 2)
        let name = TransactionID(name: RequestName(node: n1, boot: 1, sequence: 1), attempt: 1)
        let both = [p1, p2].map { Participant(partition: $0, term: term(1), writes: true, lapses: 0) }
        _ = run.take()
        run.step(.allocateTransaction(epoch, name, both, replaced: .zero, fence: 1), clock(2))
        #expect(run.take() == [.transactionFenced(epoch, name)])
        run.step(.confirmTransaction(epoch, name, both, fence: 1), clock(2))
        #expect(run.take() == [.transactionFenced(epoch, name)])
        run.step(.allocateTransaction(epoch, name, both, replaced: .zero, fence: 2), clock(3))
        let granted = run.take().contains { if case .allocatedTransaction(_, _, .some) = $0 { true } else { false } }
        #expect(granted)
    }

    @Test func `a sequencer that takes over settles the fence of its directory anew`() {
        var run = Run(
            sequencer: Sequencer(
                epoch: epoch, region: RegionID(1), nodes: [n1], partitions: 1, compactRevision: .zero,
                answersFrom: .zero, authVersion: 9, authFence: 4))
        run.step(.register(epoch, registration(p1)), clock(1))
        #expect(settled(&run, 1) == 0)
        run.step(.fenced(epoch, p1, term(1), fence: 4), clock(2))
        #expect(settled(&run, 2) == 4)
    }
}
