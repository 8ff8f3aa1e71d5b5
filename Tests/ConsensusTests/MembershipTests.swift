import Primitives
import Testing

@testable import Consensus

/// protocol-rules.md S15.
@Suite struct MembershipTests {
    init() { MutationUnderTest.set() }

    private func configuration(
        _ number: UInt64, _ voters: [UInt16], _ learners: [UInt16] = []
    ) -> Configuration {
        Configuration(number: number, voters: voters.map(node), learners: learners.map(node))
    }
    private func entry(_ term: Ballot, _ c: Configuration) -> LogEntry {
        LogEntry(term: term, number: 0, kind: .configuration, payload: c.encoded())
    }
    private func propose(_ c: Configuration, _ bench: inout Bench, at now: Instant = ms(1)) -> Bool {
        bench.effects = []
        let taken = bench.group.propose(c, at: now, into: &bench.effects)
        bench.group.flush(at: now, into: &bench.effects)
        bench.writes += UInt64(
            bench.effects.count { if case .persist = $0 { true } else { false } })
        return taken
    }

    @Test func `a learner receives the log and counts for nothing`() {
        var bench = Bench(learners: [4])
        bench.lead()
        _ = bench.propose()
        bench.sync()
        #expect(bench.group.decided == Slot(1))
        bench.hear(4, bench.ack(2))
        #expect(bench.group.decided == Slot(1), "one voter of three, and a learner")
        bench.hear(3, bench.ack(2))
        #expect(bench.group.decided == Slot(2))
    }

    @Test func `nothing is proposed behind a configuration entry before it is chosen`() {
        var bench = Bench()
        bench.lead()
        #expect(propose(configuration(0, [1, 2, 3], [4]), &bench))
        #expect(bench.propose().isEmpty)
        #expect(!propose(configuration(0, [1, 2], []), &bench), "one change at a time")
        bench.sync()
        bench.hear(2, bench.ack(2))
        #expect(bench.group.configuration == configuration(1, [1, 2, 3], [4]))
        #expect(bench.effects.contains(.configured(configuration(1, [1, 2, 3], [4]))))
        #expect(bench.propose() == [1])
        #expect(bench.effects.contains {
            if case .send(node(4), .accept) = $0 { true } else { false }
        })
    }

    @Test func `a learner becomes a voter when it has the log and has promised`() {
        var bench = Bench(learners: [4])
        bench.lead()
        let next = configuration(0, [1, 2, 3, 4])
        #expect(!propose(next, &bench))
        bench.hear(3, bench.promise())
        bench.hear(3, bench.ack(1))
        #expect(!propose(next, &bench), "nobody knows where it is")
        bench.hear(4, bench.ack(1))
        #expect(!propose(next, &bench, at: ms(100)))
        #expect(bench.sent.contains {
            if case .prepare(let p) = $0 { p.ballot == bench.group.promised } else { false }
        })
        bench.hear(
            4,
            .promise(
                .init(
                    ballot: bench.group.promised, after: Slot(1), through: nil, accepted: [],
                    decided: Slot(1), keptAfter: .zero, lease: .zero, leaseBallot: .zero)))
        #expect(propose(next, &bench, at: ms(101)))
        bench.sync()
        bench.hear(2, bench.ack(2))
        #expect(bench.group.configuration.voters.count == 4)
        _ = bench.propose()
        bench.sync()
        bench.hear(4, bench.ack(3))
        #expect(bench.group.decided == Slot(2), "two of four")
        bench.hear(2, bench.ack(3))
        #expect(bench.group.decided == Slot(3))
    }

    @Test func `who is to vote must have been a learner, and voters change one at a time`() {
        var bench = Bench(voters: [1, 2, 3, 4, 5], learners: [6, 7])
        bench.lead()
        bench.hear(3, bench.ack(1))
        for next in [
            configuration(0, [1, 2, 3, 4, 5, 8], [6, 7]), configuration(0, [1, 2, 3], [6, 7]),
            configuration(0, [1, 2, 3, 4, 5, 6, 7]), configuration(0, [], [6]),
            configuration(0, [1, 2, 3, 4, 5], [6, 6]),
        ] { #expect(!propose(next, &bench)) }
    }

    /// The classic bug of changes by one server: a new leader that changes the membership before an
    /// entry of its own term is decided may count by a configuration that another has replaced.
    /// (1) S1 logs D = {1..5} on 1 and 5 only. (2) S2 leads by 2, 3, 4 and chooses E = {2, 3, 4}
    /// with 2, 3. (3) S1 wins by 1, 4, 5 under D, and chooses what E's voters do not know of.
    @Test func `a configuration that was not chosen elects nobody`() {
        var bench = Bench(voters: [1, 2, 3, 4], learners: [5])
        bench.step(.campaign)
        bench.sync()
        for other in [2, 3] as [UInt16] { bench.hear(other, bench.promise()) }
        let d = configuration(0, [1, 2, 3, 4, 5])
        #expect(!propose(d, &bench), "its own `begin` is not decided")
        bench.sync()
        for other in [2, 3, 4] as [UInt16] { bench.hear(other, bench.ack(1)) }
        bench.hear(4, bench.promise())
        bench.hear(5, bench.ack(1))
        #expect(!propose(d, &bench))
        bench.hear(
            5,
            .promise(
                .init(
                    ballot: bench.group.promised, after: Slot(1), through: nil, accepted: [],
                    decided: Slot(1), keptAfter: .zero, lease: .zero, leaseBallot: .zero)))
        #expect(propose(d, &bench, at: ms(50)))
        bench.sync()
        bench.hear(5, bench.ack(2))

        let second = ballot(2, 2)
        bench.hear(2, prepare(second))
        bench.step(.campaign, at: ms(100))
        bench.sync(at: ms(100))
        for other in [4, 5] as [UInt16] {
            bench.hear(other, bench.promise(decided: 1), at: ms(101))
        }
        #expect(bench.group.term == nil, "1 and 4 are two of four; 5 does not count")

        // The voter that makes it a majority knows E.
        let e = configuration(1, [2, 3, 4], [5])
        let found: [GroupMessage.Found] = [
            .init(
                slot: Slot(2), ballot: second,
                entry: LogEntry(term: second, number: 0, kind: .begin, payload: "b")),
            .init(slot: Slot(3), ballot: second, entry: entry(second, e)),
            .init(slot: Slot(4), ballot: second, entry: .init(
                term: second, number: 1, kind: .normal, payload: "x")),
        ]
        bench.hear(3, bench.promise(decided: 1, found: found), at: ms(102))
        #expect(bench.group.term != nil)
        #expect(
            bench.accepts.flatMap(\.entries).map(\.kind).contains(.configuration)
                && bench.group.acceptedThrough == Slot(3), "E first, and nothing behind it")
        bench.sync(at: ms(103))
        for other in [3, 4] as [UInt16] { bench.hear(other, bench.ack(3), at: ms(104)) }
        #expect(bench.group.configuration == e)
        #expect(bench.group.acceptedThrough == Slot(3), "it votes no more, and proposes no more")
        #expect(!bench.group.isLeading)
    }

    @Test func `a new leader settles a found configuration before what lies behind it`() {
        var bench = Bench(voters: [1, 2, 3], learners: [4])
        let old = ballot(1, 3), next = configuration(1, [1, 2, 3, 4])
        bench.hear(3, prepare(old))
        bench.step(.campaign)
        bench.sync()
        bench.hear(2, bench.promise(found: [
            .init(slot: Slot(1), ballot: old, entry: LogEntry(
                term: old, number: 0, kind: .begin, payload: "b")),
            .init(slot: Slot(2), ballot: old, entry: entry(old, next)),
        ]))
        #expect(!bench.effects.contains { if case .elected = $0 { true } else { false } })
        bench.sync()
        bench.hear(2, bench.ack(2))
        #expect(bench.group.configuration == next)
        #expect(
            bench.group.acceptedThrough == Slot(2), "two promises of four voters are not enough")
        let asked = bench.sent.compactMap { if case .prepare(let p) = $0 { p.after } else { nil } }
        #expect(asked == [Slot(2), Slot(2)])
        // What the new voter holds behind the change is proposed, whoever else knows of it.
        bench.hear(
            4,
            .promise(
                .init(
                    ballot: bench.group.promised, after: Slot(2), through: nil,
                    accepted: [.init(slot: Slot(3), ballot: old, entry: LogEntry(
                        term: old, number: 1, kind: .normal, payload: "x"))],
                    decided: Slot(2), keptAfter: .zero, lease: .zero, leaseBallot: .zero)))
        #expect(bench.group.acceptedThrough == Slot(4), "the found one, then begin")
    }

    @Test func `a removed voter disturbs nobody and hears that it is gone`() {
        var bench = Bench(2)
        let b = ballot(1, 1), next = configuration(1, [1, 2])
        bench.hear(
            1,
            accept(
                b, first: 1,
                [LogEntry(term: b, number: 0, kind: .begin, payload: "b"), entry(b, next)]))
        bench.sync()
        bench.hear(1, accept(b, first: 3, [], decided: 2))
        #expect(bench.group.configuration == next)
        bench.hear(3, .askVote(ballot(9, 3), decided: Slot(9), configuration: 0))
        #expect(bench.sent == [.gone(1)])
        bench.hear(3, prepare(ballot(9, 3)))
        #expect(bench.sent == [.gone(1)])
        #expect(bench.group.promised == b)

        var removed = Bench(3)
        removed.step(.wake, at: ms(1000))
        removed.hear(2, .gone(1), at: ms(1001))
        #expect(removed.effects == [.gone])
        removed.step(.campaign, at: ms(1002))
        removed.step(.wake, at: ms(5000))
        #expect(removed.effects.isEmpty)
    }

    @Test func `a replica without a log takes it from whoever leads`() {
        var bench = Bench(7, voters: [])
        let b = ballot(3, 1), c = configuration(2, [1, 2, 3], [7])
        bench.step(.wake, at: ms(5000))
        #expect(bench.effects.isEmpty)
        bench.hear(
            1,
            accept(
                b, first: 1,
                [LogEntry(term: b, number: 0, kind: .begin, payload: "b"), entry(b, c)],
                decided: 2, configuration: 2), at: ms(5001))
        #expect(bench.group.configuration == c)
        bench.sync(at: ms(5002))
        #expect(bench.acks.last?.through == Slot(2))
    }

    /// A store that has not flushed knows an older configuration, whose voters may be gone.
    @Test func `a restarted voter counts by the newest configuration that it knew to be chosen`() {
        let b = ballot(1, 2), alone = configuration(1, [1])
        var bench = Bench(restored: RestoredLog(
            promised: b,
            accepted: [
                .init(slot: Slot(1), ballot: b, entry: LogEntry(
                    term: b, number: 0, kind: .begin, payload: "b")),
                .init(slot: Slot(2), ballot: b, entry: entry(b, alone)),
            ], decidedThrough: Slot(2)))
        bench.step(.wake, at: ms(1))
        #expect(bench.decided == ["1:1.2/0", "2:1.2/0"])
        #expect(bench.group.configuration == alone)
        bench.step(.campaign)
        bench.sync()
        #expect(bench.group.term != nil, "it needs nobody")
    }

    @Test func `followers of a leader that is removed elect another`() {
        var bench = Bench(2)
        let b = ballot(1, 1), next = configuration(1, [2, 3])
        bench.hear(
            1,
            accept(
                b, first: 1,
                [LogEntry(term: b, number: 0, kind: .begin, payload: "b"), entry(b, next)],
                decided: 2))
        #expect(bench.group.nextWake < ms(100))
        bench.step(.wake, at: ms(100))
        #expect(bench.sent.contains {
            if case .askVote(_, _, let number) = $0 { number == 1 } else { false }
        })
    }

    @Test func `a leader that was alone renews its lease as soon as it is not`() {
        var bench = Bench(voters: [1], lease: LeaseLimits())
        bench.step(.campaign, at: ms(200))
        bench.sync(at: ms(200))
        bench.sync(at: ms(200))
        #expect(bench.group.leaseHolds(at: ms(200)), "nobody else votes")
        #expect(propose(configuration(0, [1], [2]), &bench, at: ms(201)))
        bench.sync(at: ms(202))
        #expect(bench.group.configuration == configuration(1, [1], [2]))
        bench.step(.wake, at: ms(300))
        #expect(bench.accepts.contains { $0.sentAt == ms(300) })
    }

    /// Whoever is left decides what it has accepted, and is the only voter whatever its log says of others.
    @Test func `one that stands alone decides its log, and no configuration in it brings the others back`() {
        let old = ballot(2, 2), other = configuration(1, [1, 2, 3], [4])
        var bench = Bench(
            restored: RestoredLog(
                promised: old,
                accepted: [
                    .init(slot: Slot(1), ballot: old, entry: LogEntry(term: old, number: 0, kind: .begin, payload: "b")),
                    .init(slot: Slot(2), ballot: old, entry: LogEntry(term: old, number: 1, kind: .normal, payload: "x")),
                    .init(slot: Slot(3), ballot: old, entry: entry(old, other)),
                    .init(slot: Slot(4), ballot: old, entry: LogEntry(term: old, number: 2, kind: .normal, payload: "y")),
                ], decidedThrough: Slot(1)), lease: LeaseLimits())
        bench.group.standAlone(at: ms(1))
        var decided: [String] = []
        var now: UInt64 = 1
        for _ in 0..<40 {
            bench.step(.wake, at: ms(now))
            decided += bench.decided
            bench.sync(at: ms(now))
            decided += bench.decided
            now += 20
        }
        #expect(bench.group.isLeading && bench.group.leaseHolds(at: ms(now)))
        #expect(decided.prefix(4) == ["1:2.2/0", "2:2.2/1", "3:2.2/0", "4:2.2/2"], "\(decided)")
        #expect(bench.group.configuration.voters == [node(1)] && bench.group.configuration.learners.isEmpty)
        // Written down, so that the next start knows it.
        var next = bench.group.configuration
        next.version = 7
        #expect(propose(next, &bench, at: ms(now)))
        bench.sync(at: ms(now))
        #expect(bench.group.configuration.version == 7 && bench.group.configuration.voters == [node(1)])
        #expect(bench.group.configuration.number > 1 << 20)
    }
}
