import Primitives
import Testing

@testable import Consensus

/// A replica that forgets its log, and the one that comes after it: Group+Release.
@Suite struct ReleaseTests {
    init() { MutationUnderTest.set() }

    private let b1 = ballot(1, 2)
    private func configuration(_ number: UInt64, _ voters: [UInt16], _ learners: [UInt16] = []) -> Configuration {
        Configuration(number: number, voters: voters.map(node), learners: learners.map(node))
    }
    private func entry(_ term: Ballot, _ c: Configuration) -> LogEntry {
        LogEntry(term: term, number: 0, kind: .configuration, payload: c.encoded())
    }
    private func releases(_ bench: Bench) -> [GroupMessage] {
        bench.sent.filter { if case .released = $0 { true } else { false } }
    }
    private func ask(_ promised: Ballot) -> GroupMessage {
        .askRelease(.init(question: 7, promised: promised))
    }

    /// Node 1 leads, and node 3 has gone with slot 2, which it has made chosen itself.
    private func letGo() -> Bench {
        var bench = Bench()
        bench.lead()
        bench.effects = []
        #expect(bench.group.propose(configuration(0, [1, 2]), at: ms(1), into: &bench.effects))
        bench.group.flush(at: ms(1), into: &bench.effects)
        bench.writes += UInt64(bench.effects.count { if case .persist = $0 { true } else { false } })
        bench.sync()
        bench.hear(3, bench.ack(2))
        #expect(bench.group.configuration == configuration(1, [1, 2]))
        return bench
    }

    @Test func `a replica may go when a majority of those that stay hold the log`() {
        var bench = letGo()
        bench.hear(3, ask(ballot(1, 1)))
        #expect(releases(bench).isEmpty, "slot 2 lies here and with node 3: it would be gone with this node")
        bench.hear(2, bench.ack(2))
        bench.hear(3, ask(ballot(1, 1)))
        #expect(
            releases(bench) == [
                .released(.init(question: 7, ballot: bench.group.promised, configuration: 1, through: Slot(2)))
            ])
        bench.hear(2, ask(ballot(1, 1)))
        #expect(releases(bench).isEmpty, "who is counted on may not go")
    }

    @Test func `a leader that a replica has promised more than cannot say whether it may go`() {
        var bench = letGo()
        bench.hear(2, bench.ack(2))
        bench.hear(3, ask(ballot(9, 3)))
        #expect(releases(bench).isEmpty && bench.group.term == nil)
    }

    private func gone() -> Bench {
        var bench = Bench(3)
        let entries = [ConsensusTests.entry(b1, 0, .begin), entry(b1, configuration(1, [1, 2]))]
        bench.hear(2, accept(b1, first: 1, entries, decided: 2))
        bench.sync()
        #expect(bench.group.configuration.number == 1 && bench.group.releasedThrough == nil)
        return bench
    }
    private func answer(
        _ bench: inout Bench, _ ballot: Ballot, _ number: UInt64, same: Bool = true
    ) -> GroupMessage {
        guard case .askRelease(let ask) = bench.group.askRelease() else { return .refuse(promised: .zero) }
        return .released(
            .init(
                question: ask.question &+ (same ? 0 : 1), ballot: ballot, configuration: number,
                through: Slot(2)))
    }

    @Test func `a replica goes by an answer to its own question, of a leader that knows of all it has promised`() {
        var bench = gone()
        bench.hear(2, answer(&bench, b1, 1, same: false))
        #expect(bench.group.releasedThrough == nil)
        bench.hear(2, answer(&bench, b1, 1))
        #expect(bench.group.releasedThrough == Slot(2))
        bench.hear(1, prepare(ballot(2, 1), after: 2, configuration: 1))
        #expect(bench.group.releasedThrough == nil)
    }

    @Test func `a replica that somebody counts on again does not go`() {
        var bench = gone()
        bench.hear(2, answer(&bench, b1, 1))
        #expect(bench.group.releasedThrough == Slot(2))
        bench.hear(2, accept(b1, first: 3, [entry(b1, configuration(2, [1, 2], [3]))], configuration: 2))
        #expect(bench.group.releasedThrough == nil)
        bench.hear(2, answer(&bench, b1, 1))
        #expect(bench.group.releasedThrough == nil)
    }

    /// Seed 1057.
    @Test func `a replica whose log was forgotten promises nothing before a snapshot has brought it back`() {
        var bench = Bench(1, voters: [], lostThrough: 5)
        bench.hear(3, prepare(ballot(2, 3), after: 3, configuration: 0))
        bench.sync()
        #expect(bench.promises.isEmpty, "what it has accepted at slot 4 it does not know any more")
        bench.step(.wake, at: ms(60_000))
        #expect(bench.sent.isEmpty, "it does not stand for election")

        bench.hear(2, accept(b1, first: 1, [ConsensusTests.entry(b1, 0, .begin)], configuration: 3))
        #expect(bench.acks.last?.resendFrom == .zero && bench.group.lastSlot == .zero)
        bench.sync()
        bench.hear(2, accept(b1, first: 2, [], probe: true, configuration: 3))
        #expect(bench.acks.last?.resendFrom == .zero && bench.acks.last?.through == .zero)

        bench.step(
            .installed(
                AppliedPosition(slot: Slot(6), term: b1, number: 4), configuration(3, [1, 2, 3])))
        bench.hear(3, prepare(ballot(2, 3), after: 6, configuration: 3))
        bench.sync()
        #expect(bench.promises.first?.decided == Slot(6))
    }

    @Test func `who has forgotten its log gets a snapshot, however much of the log is kept`() {
        var bench = Bench(learners: [4])
        bench.lead()
        bench.hear(4, bench.ack(0, resendFrom: .zero))
        #expect(bench.effects.contains(.snapshotWanted(by: node(4))))
        bench.hear(4, bench.ack(0, resendFrom: .zero))
        #expect(!bench.effects.contains(.snapshotWanted(by: node(4))), "one at a time")
    }

    @Test func `questions and answers survive their encoding`() throws {
        for message in [
            ask(b1), .released(.init(question: .max, ballot: b1, configuration: 3, through: Slot(9))),
        ] {
            var writer = ByteWriter(capacity: 64)
            writer.groupMessage(message)
            var reader = ByteReader(Bytes(writer.bytes))
            let read = try reader.groupMessage()
            #expect(read == message)
        }
    }
}
