import Primitives
import Testing

@testable import Consensus

func ms(_ n: UInt64) -> Instant { Instant(nanoseconds: (1000 + n) * 1_000_000) }
func node(_ n: UInt16) -> NodeID { NodeID(n) }
func ballot(_ round: UInt64, _ n: UInt16) -> Ballot { Ballot(round: round, node: node(n)) }
let groupID = GroupID(keyspace: .standard, partition: PartitionID(1))
func entry(_ term: Ballot, _ n: UInt64, _ kind: LogEntry.Kind = .normal) -> LogEntry {
    LogEntry(term: term, number: n, kind: kind, payload: "x")
}

/// One group, whose writes become durable when the test says so.
struct Bench {
    var group: Group
    var effects: Effects = []
    var writes: UInt64 = 0

    init(
        _ me: UInt16 = 1, voters: [UInt16] = [1, 2, 3], learners: [UInt16] = [],
        restored: RestoredLog = .init(), lostThrough: UInt64 = 0,
        applied: AppliedPosition = .init(), lease: LeaseLimits? = nil, limits: Limits = .init()
    ) {
        group = Group(
            id: groupID, node: node(me),
            configuration: .init(voters: voters.map(node), learners: learners.map(node)),
            restored: restored, applied: applied, lostThrough: Slot(lostThrough), lease: lease,
            limits: limits, at: ms(0))
        group.verify = true
    }

    /// The effects of one input and of the flush behind it.
    @discardableResult
    mutating func step(_ input: Input, at now: Instant = ms(1)) -> Effects {
        effects = []
        group.step(input, at: now, into: &effects)
        if effects.contains(where: { if case .elected = $0 { true } else { false } }) {
            group.step(.begin(payload: "b"), at: now, into: &effects)
        }
        group.flush(at: now, into: &effects)
        writes += UInt64(effects.count { if case .persist = $0 { true } else { false } })
        return effects
    }
    @discardableResult
    mutating func hear(_ from: UInt16, _ message: GroupMessage, at now: Instant = ms(1)) -> Effects {
        step(.message(from: node(from), message), at: now)
    }
    @discardableResult
    mutating func sync(at now: Instant = ms(1)) -> Effects { step(.durable(writes: writes), at: now) }

    mutating func propose(_ count: Int = 1, at now: Instant = ms(1)) -> [UInt64] {
        effects = []
        var numbers: [UInt64] = []
        for _ in 0..<count {
            guard let place = group.propose("x", at: now, into: &effects) else { break }
            numbers.append(place.number)
        }
        group.flush(at: now, into: &effects)
        writes += UInt64(numbers.count)
        return numbers
    }

    /// Node 1 leads with node 2's help: `begin` is slot `after + 1`, everything acknowledged.
    mutating func lead(
        after: UInt64 = 0, found: [GroupMessage.Found] = [], at now: Instant = ms(1)
    ) {
        step(.campaign, at: now)
        sync(at: now)
        hear(2, promise(found: found), at: now)
        sync(at: now)
        hear(2, ack(group.lastSlot.rawValue), at: now)
    }
    func promise(
        decided: UInt64 = 0, keptAfter: UInt64 = 0, found: [GroupMessage.Found] = [],
        lease: TimeSpan = .zero, leaseBallot: Ballot = .zero
    ) -> GroupMessage {
        .promise(
            .init(
                ballot: group.promised, after: group.decided, through: nil, accepted: found,
                decided: Slot(decided), keptAfter: Slot(keptAfter), lease: lease,
                leaseBallot: leaseBallot))
    }
    func ack(
        _ through: UInt64, resendFrom: Slot? = nil, flushed: UInt64 = 0, sentAt: Instant = .zero
    ) -> GroupMessage {
        .accepted(
            .init(
                ballot: group.promised, through: Slot(through), resendFrom: resendFrom,
                decided: .zero, flushed: Slot(flushed), sentAt: sentAt))
    }
    var sent: [GroupMessage] {
        effects.compactMap { if case .send(_, let message) = $0 { message } else { nil } }
    }
    var accepts: [GroupMessage.Accept] {
        sent.compactMap { if case .accept(let accept) = $0 { accept } else { nil } }
    }
    var acks: [GroupMessage.Accepted] {
        sent.compactMap { if case .accepted(let accepted) = $0 { accepted } else { nil } }
    }
    var promises: [GroupMessage.Promise] {
        sent.compactMap { if case .promise(let promise) = $0 { promise } else { nil } }
    }
    var decided: [String] {
        effects.compactMap {
            if case .decided(let slot, let entry, let skipped) = $0 {
                "\(slot):\(entry.term)/\(entry.number)\(skipped ? " skipped" : "")"
            } else {
                nil
            }
        }
    }
}

func accept(
    _ b: Ballot, first: UInt64, _ entries: [LogEntry], decided: UInt64 = 0, begun: Bool = true,
    probe: Bool = false, sentAt: Instant = .zero, configuration: UInt64 = 0
) -> GroupMessage {
    .accept(
        .init(
            ballot: b, first: Slot(first), entries: entries, decided: Slot(decided), settled: .zero,
            begun: begun, probe: probe, sentAt: sentAt, configuration: configuration))
}
func prepare(_ b: Ballot, after: UInt64 = 0, configuration: UInt64 = 0) -> GroupMessage {
    .prepare(
        .init(
            ballot: b, after: Slot(after), same: .zero, sameThrough: .zero,
            configuration: configuration))
}

@Suite struct AcceptorTests {
    init() { MutationUnderTest.set() }

    let b1 = ballot(1, 2), b2 = ballot(2, 3)

    @Test func `a promise is answered when it is durable, with what was accepted`() {
        var bench = Bench()
        bench.hear(2, accept(b1, first: 1, [entry(b1, 0, .begin), entry(b1, 1)]))
        bench.hear(3, prepare(b2))
        #expect(bench.sent.isEmpty)
        bench.sync()
        #expect(bench.promises.first?.accepted.map(\.slot) == [Slot(1), Slot(2)])
        #expect(bench.promises.first?.through == nil)
        bench.hear(2, prepare(b1))
        #expect(bench.sent == [.refuse(promised: b2)])
        bench.hear(2, accept(b1, first: 3, [entry(b1, 2)]))
        #expect(bench.sent == [.refuse(promised: b2)])
    }

    @Test func `a long promise comes in pieces`() {
        var limits = Limits()
        limits.batchEntriesMax = 2
        var bench = Bench(limits: limits)
        bench.hear(2, accept(b1, first: 1, [entry(b1, 0, .begin), entry(b1, 1), entry(b1, 2)]))
        bench.hear(3, prepare(b2))
        bench.sync()
        #expect(bench.promises.first?.through == Slot(2))
        bench.hear(3, prepare(b2, after: 2))
        #expect(bench.promises.first?.accepted.map(\.slot) == [Slot(3)])
        #expect(bench.promises.first?.through == nil)
    }

    @Test func `accepts are in order and acknowledged when durable, cumulatively`() {
        var bench = Bench()
        bench.hear(2, accept(b1, first: 1, [entry(b1, 0, .begin)]))
        bench.hear(2, accept(b1, first: 3, [entry(b1, 2)]))
        #expect(bench.acks.first?.through == .zero)
        #expect(bench.acks.first?.resendFrom == Slot(2))
        bench.hear(2, accept(b1, first: 4, [entry(b1, 3)]))
        #expect(bench.acks.isEmpty, "one question per gap")
        bench.hear(2, accept(b1, first: 2, [entry(b1, 1), entry(b1, 2)]))
        #expect(bench.acks.isEmpty, "nothing durable yet")
        bench.step(.durable(writes: 1))
        #expect(bench.acks.first?.through == Slot(1))
        bench.sync()
        #expect(bench.acks.first?.through == Slot(3))
        bench.hear(2, accept(b1, first: 2, [entry(b1, 1)]))
        #expect(bench.acks.first?.through == Slot(3), "the answer to a repetition")
    }

    @Test func `what is chosen before it is on this disk is acknowledged when it is`() {
        var bench = Bench()
        bench.hear(2, accept(b1, first: 1, [entry(b1, 0, .begin)]))
        bench.sync()
        #expect(bench.acks.first?.through == Slot(1))
        bench.hear(2, accept(b1, first: 2, [entry(b1, 1)]))
        // The others were faster: the news comes along with the frontier.
        bench.step(.commitNotice(b1, Slot(2)))
        #expect(bench.decided.count == 2 && bench.acks.isEmpty)
        bench.hear(2, accept(b1, first: 3, [], probe: true))
        #expect(bench.acks.first?.through == Slot(1), "not on this disk yet")
        bench.sync()
        #expect(bench.acks.first?.through == Slot(2), "a leader that hands over waits for it")
        bench.sync()
        #expect(bench.acks.isEmpty, "once")
    }

    @Test func `a commit notice is good for its own ballot only`() {
        var bench = Bench()
        bench.hear(2, accept(b1, first: 1, [entry(b1, 0, .begin), entry(b1, 1)]))
        bench.hear(3, accept(b2, first: 2, [], decided: 2))
        #expect(bench.decided.isEmpty)
        bench.step(.commitNotice(b2, Slot(2)))
        #expect(bench.decided.isEmpty)
        #expect(bench.group.nextWake <= ms(60), "it asks for what it misses")
        bench.hear(3, accept(b2, first: 1, [entry(b1, 0, .begin)]))
        #expect(bench.decided == ["1:1.2/0"])
        bench.hear(3, accept(b2, first: 2, [entry(b2, 0, .filler)]))
        #expect(bench.decided == ["2:2.3/0"])
        bench.step(.commitNotice(b1, Slot(9)))
        #expect(bench.decided.isEmpty)
    }

    @Test func `entries of lower terms and with gaps in their numbers are skipped`() {
        let old = ballot(1, 1)
        let log = [
            entry(b1, 0, .begin), entry(b1, 1), entry(old, 4), entry(b1, 3), entry(b2, 0, .filler),
            entry(b1, 2), entry(b2, 0, .begin), entry(b2, 1),
        ]
        var bench = Bench()
        bench.hear(3, accept(b2, first: 1, log, decided: 8))
        let expected = [
            "1:1.2/0", "2:1.2/1", "3:1.1/4 skipped", "4:1.2/3 skipped", "5:2.3/0",
            "6:1.2/2 skipped", "7:2.3/0", "8:2.3/1",
        ]
        #expect(bench.decided == expected)
        #if DEBUG
            var broken = Bench()
            broken.group.sabotage = .numbersIgnored
            broken.hear(3, accept(b2, first: 1, log, decided: 8))
            #expect(broken.decided != expected, "the n of an entry must matter here")
        #endif
    }

    @Test func `a restarted replica keeps its promise and repeats nothing`() {
        let restored = RestoredLog(
            promised: b1,
            accepted: (1...4).map {
                .init(slot: Slot($0), ballot: b1, entry: entry(b1, $0 - 1, $0 == 1 ? .begin : .normal))
            })
        var bench = Bench(
            restored: restored, applied: AppliedPosition(slot: Slot(2), term: b1, number: 1))
        #expect(bench.group.keptAfter == .zero, "its log is the one that was applied")
        bench.hear(3, prepare(ballot(1, 1)))
        #expect(bench.promises.isEmpty)
        bench.hear(2, accept(b1, first: 5, [], decided: 4, probe: true))
        #expect(bench.decided == ["3:1.2/2", "4:1.2/3"])
        #expect(bench.acks.first?.through == Slot(4))

        let foreign = Bench(
            restored: restored, applied: AppliedPosition(slot: Slot(2), term: b2, number: 1))
        #expect(foreign.group.keptAfter == Slot(2), "what lies below may not be what was chosen")
    }

    @Test func `a snapshot replaces the log below it`() {
        var bench = Bench()
        bench.hear(2, accept(b1, first: 1, [entry(b1, 0, .begin)]))
        bench.step(.installed(
                AppliedPosition(slot: Slot(7), term: b2, number: 3), bench.group.configuration))
        #expect(bench.effects.contains(.persist(.truncate(groupID, Slot(7)))))
        bench.hear(3, accept(b2, first: 8, [entry(b2, 4)], decided: 8))
        #expect(bench.decided == ["8:2.3/4"])
    }

    @Test func `who gets a snapshot of a group that nobody has changed is its voter from then on`() {
        var bench = Bench(voters: [])
        bench.hear(2, accept(b1, first: 8, [entry(b1, 4)], decided: 7))
        bench.step(.installed(
                AppliedPosition(slot: Slot(7), term: b1, number: 3),
                Configuration(voters: [node(1), node(2), node(3)])))
        bench.step(.suspect(node(2)))
        bench.step(.wake, at: ms(100_000))
        #expect(
            bench.effects.contains {
                if case .send(_, .askVote) = $0 { true } else { false }
            })
    }

    @Test func `a leader that gets a snapshot it asked for before its election stands down`() {
        var bench = Bench()
        bench.step(.campaign)
        bench.sync()
        bench.hear(2, bench.promise())
        let mine = bench.group.ballot
        #expect(bench.group.term == mine)
        bench.step(.installed(
                AppliedPosition(slot: Slot(7), term: b2, number: 3), bench.group.configuration))
        #expect(bench.effects.contains(.deposed(mine)))
        #expect(bench.group.term == nil && bench.group.decided == Slot(7))
        bench.hear(3, accept(ballot(5, 3), first: 8, [entry(b2, 4)], decided: 8))
        #expect(bench.decided == ["8:2.3/4"])
    }
}

@Suite struct LeaderTests {
    init() { MutationUnderTest.set() }

    @Test func `a single voter elects itself and decides when durable`() {
        var bench = Bench(voters: [1])
        bench.step(.wake)
        #expect(!bench.effects.contains(.elected(ballot(1, 1))))
        bench.sync()
        #expect(bench.effects.contains(.elected(ballot(1, 1))))
        #expect(!bench.group.isLeading)
        bench.sync()
        #expect(bench.effects.contains(.leading(ballot(1, 1))))
        #expect(bench.propose(2) == [1, 2])
        bench.sync()
        #expect(bench.decided == ["2:1.1/1", "3:1.1/2"])
        #expect(bench.group.nextWake == .never)
    }

    @Test func `what phase 1 finds is proposed unchanged, holes are filled, then begin`() {
        let old = ballot(1, 3), older = ballot(1, 2)
        var bench = Bench(restored: RestoredLog(promised: old))
        bench.step(.campaign)
        bench.sync()
        let mine = bench.group.promised
        bench.hear(
            2,
            bench.promise(found: [
                .init(slot: Slot(1), ballot: old, entry: entry(older, 0, .begin)),
                .init(slot: Slot(3), ballot: old, entry: entry(older, 2)),
            ]))
        #expect(
            bench.accepts.first?.entries == [
                entry(older, 0, .begin),
                LogEntry(term: mine, number: 0, kind: .filler, payload: .empty), entry(older, 2),
                LogEntry(term: mine, number: 0, kind: .begin, payload: "b"),
            ])
        bench.hear(2, bench.ack(4))
        #expect(bench.decided.isEmpty, "one durable copy is no quorum")
        bench.sync()
        #expect(bench.decided == ["1:1.2/0", "2:\(mine)/0", "3:1.2/2 skipped", "4:\(mine)/0"])
        #expect(bench.effects.last == .leading(mine) || bench.effects.contains(.leading(mine)))
    }

    /// An answer that no revision brings waits at its node until that has applied it (bugs-found.md, "a lease was
    /// granted after 22 ms").
    @Test func `who waits for what is decided hears of it with this turn, and nobody else does`() {
        var bench = Bench()
        bench.lead()
        _ = bench.propose()
        bench.sync()
        bench.hear(2, bench.ack(2))
        #expect(bench.decided == ["2:1.1/1"] && bench.accepts.isEmpty)
        let isNews = bench.group.announce(to: node(3)), isAsked = bench.group.announce(to: node(3))
        #expect(isNews && !isAsked)
        bench.effects = []
        bench.group.flush(at: ms(1), into: &bench.effects)
        #expect(bench.effects.count == 1)
        guard case .send(node(3), .accept(let notice)) = bench.effects.first else {
            Issue.record("\(bench.effects)")
            return
        }
        #expect(notice.decided == Slot(2) && notice.entries.isEmpty)
        let isTold = bench.group.announce(to: node(3)), isStranger = bench.group.announce(to: node(9))
        #expect(!isTold && !isStranger)
    }

    @Test func `proposals of a turn travel in one message, and a full pipeline refuses`() {
        var limits = Limits()
        limits.pipelineEntriesMax = 3
        var bench = Bench(limits: limits)
        bench.lead()
        #expect(bench.propose(5) == [1, 2, 3])
        #expect(bench.accepts.count == 2)
        #expect(bench.accepts.allSatisfy { $0.first == Slot(2) || $0.first == Slot(1) })
        #expect(bench.accepts.first?.entries.count == 3)
        bench.sync()
        bench.hear(2, bench.ack(3))
        #expect(bench.decided == ["2:1.1/1", "3:1.1/2"])
        #expect(bench.propose(5) == [4, 5])
    }

    @Test func `a lost batch is sent again from the gap`() {
        var bench = Bench()
        bench.lead()
        _ = bench.propose(3)
        bench.hear(2, bench.ack(1, resendFrom: Slot(3)))
        #expect(bench.accepts.first?.first == Slot(3))
        #expect(bench.accepts.first?.entries.map(\.number) == [2, 3])
    }

    @Test func `a silent follower is probed, a new commit is announced once`() {
        var bench = Bench()
        bench.lead()
        _ = bench.propose()
        bench.sync()
        bench.hear(2, bench.ack(2))
        bench.step(.wake, at: ms(30))
        #expect(bench.accepts.first?.decided == Slot(2))
        #expect(bench.accepts.first?.begun == true)
        bench.step(.wake, at: ms(90))
        #expect(bench.accepts.contains { $0.probe })
    }

    @Test func `a leader without answers from a majority stands down`() {
        var bench = Bench()
        bench.lead()
        bench.step(.suspect(node(2)), at: ms(10))
        bench.step(.suspect(node(3)), at: ms(10))
        bench.step(.wake, at: ms(211))
        #expect(bench.effects.contains(.deposed(ballot(1, 1))))
        #expect(bench.group.nextWake < .never, "and tries again")
    }

    /// The followers answer what is asked, and never get anything onto their disks.
    private func isLeadingAfter(
        _ milliseconds: UInt64, _ bench: inout Bench, answers: Bool = true
    ) -> Bool {
        for t in stride(from: UInt64(10), through: milliseconds, by: 10) {
            _ = bench.propose(at: ms(t))
            for _ in 0..<2 {
                let asks = bench.accepts.contains { $0.probe }
                if asks, answers { for peer: UInt16 in [2, 3] { bench.hear(peer, bench.ack(1), at: ms(t)) } }
                bench.step(.wake, at: ms(t))
            }
            if !bench.group.isLeading { return false }
        }
        return true
    }

    @Test func `followers whose disks are slow are not silent`() {
        var bench = Bench()
        bench.lead()
        #expect(isLeadingAfter(3_000, &bench))
    }

    @Test func `a leader whose questions a majority leaves open stands down`() {
        var bench = Bench()
        bench.lead()
        #expect(isLeadingAfter(200, &bench, answers: false))
        bench = Bench()
        bench.lead()
        #expect(!isLeadingAfter(300, &bench, answers: false))
    }

    @Test func `a leader that was stopped itself asks once more`() {
        var bench = Bench(voters: [1, 2, 3, 4, 5])
        bench.step(.campaign)
        bench.sync()
        for peer: UInt16 in [2, 3] { bench.hear(peer, bench.promise()) }
        bench.sync()
        for peer: UInt16 in [2, 3] { bench.hear(peer, bench.ack(1)) }
        _ = bench.propose(at: ms(10))
        bench.step(.wake, at: ms(70))
        #expect(bench.accepts.count { $0.probe } == 4)
        // Their answers are in the queue: this is the first of them.
        bench.hear(2, bench.ack(1), at: ms(1_000))
        #expect(bench.group.isLeading)
        #expect(bench.accepts.count { $0.probe } >= 3)
        bench.step(.wake, at: ms(1_201))
        #expect(!bench.group.isLeading, "nobody else has answered")
    }

    @Test func `candidacies that come to nothing take longer each time`() {
        var bench = Bench()
        var ends: [UInt64] = [], t: UInt64 = 1
        for _ in 0..<6 {
            bench.step(.campaign, at: ms(t))
            let began = t
            while bench.group.role == .preparing {
                t += 10
                bench.step(.wake, at: ms(t))
            }
            ends.append((t - began) / 100)
        }
        #expect(ends == [4, 8, 16, 32, 32, 32])
        bench.hear(2, accept(ballot(90, 2), first: 1, [], begun: true), at: ms(t))
        bench.step(.campaign, at: ms(t))
        bench.step(.wake, at: ms(t + 410))
        #expect(bench.group.role == .follower)
    }

    @Test func `a follower behind the kept log gets a snapshot`() {
        var limits = Limits()
        limits.keptBytesMax = 4
        var bench = Bench(limits: limits)
        bench.lead()
        for _ in 0..<10 {
            _ = bench.propose()
            bench.sync()
            bench.hear(2, bench.ack(bench.group.lastSlot.rawValue))
        }
        #expect(bench.group.keptBytes <= 4)
        bench.hear(3, bench.ack(0, resendFrom: Slot(1)))
        #expect(bench.effects.contains(.snapshotWanted(by: node(3))))
        bench.hear(3, bench.ack(11))
        _ = bench.propose()
        #expect(bench.accepts.count == 2)
    }

    @Test func `the log is kept until all have flushed, but not for ever`() {
        var bench = Bench()
        bench.lead()
        _ = bench.propose(3)
        bench.sync()
        bench.hear(2, bench.ack(4))
        bench.step(.truncate(through: Slot(4)), at: ms(20))
        #expect(bench.group.truncatedThrough == .zero)
        bench.hear(2, bench.ack(4, flushed: 4), at: ms(21))
        #expect(bench.group.truncatedThrough == .zero)
        var late = bench
        bench.hear(3, bench.ack(4, flushed: 3), at: ms(22))
        #expect(bench.effects.contains(.persist(.truncate(groupID, Slot(3)))))
        #expect(bench.group.keptAfter == Slot(3))

        late.step(.truncate(through: Slot(4)), at: ms(30_030))
        late.step(.truncate(through: Slot(4)), at: ms(60_060))
        #expect(late.group.truncatedThrough == Slot(4))
        #expect(late.group.keptAfter == .zero, "memory still serves who comes back")
    }

    @Test func `a hand-over waits for nobody's word once the leader's own disk has decided`() {
        var bench = Bench()
        bench.lead()
        _ = bench.propose()
        #expect(!bench.group.isReady(for: node(2), at: ms(1)))
        bench.step(.transfer(to: node(2)))
        bench.hear(2, bench.ack(2))
        #expect(!bench.sent.contains(.campaign(ballot(1, 1))), "nobody else has it durably")
        bench.sync()
        #expect(bench.group.isReady(for: node(2), at: ms(1)))
        #expect(!bench.group.isReady(for: node(3), at: ms(1)))
        #expect(bench.sent.contains(.campaign(ballot(1, 1))))
    }

    @Test func `hand-over waits for the pipeline and stops proposals`() {
        var bench = Bench()
        bench.lead()
        _ = bench.propose()
        bench.step(.transfer(to: node(2)))
        #expect(bench.propose() == [])
        bench.sync()
        #expect(!bench.sent.contains(.campaign(ballot(1, 1))))
        bench.hear(2, bench.ack(2))
        #expect(bench.sent.contains(.campaign(ballot(1, 1))))
    }
}

@Suite struct ElectionTests {
    init() { MutationUnderTest.set() }

    let b = ballot(1, 2)

    private func answer(_ bench: Bench) -> GroupMessage.Vote.Answer? {
        for case .vote(let vote) in bench.sent { return vote.answer }
        return nil
    }

    @Test func `who hears a working leader does not vote, who suspects it does`() {
        var bench = Bench()
        bench.hear(2, accept(b, first: 1, [entry(b, 0, .begin)]))
        #expect(bench.group.nextWake == .never, "idle groups have no timer")
        bench.hear(3, .askVote(ballot(2, 3), decided: .zero, configuration: 0), at: ms(900))
        #expect(answer(bench) == .hearsLeader)
        bench.step(.suspect(node(2)), at: ms(901))
        bench.hear(3, .askVote(ballot(2, 3), decided: .zero, configuration: 0), at: ms(901))
        #expect(answer(bench) == .agreed)
    }

    @Test func `a promise without a begin keeps a timer`() {
        var bench = Bench()
        bench.hear(2, prepare(b))
        bench.sync()
        bench.hear(3, .askVote(ballot(2, 3), decided: .zero, configuration: 0), at: ms(20))
        #expect(answer(bench) == .hearsLeader)
        bench.hear(3, .askVote(ballot(2, 3), decided: .zero, configuration: 0), at: ms(300))
        #expect(answer(bench) == .agreed)
        #expect(bench.sent.contains(.askVote(ballot(2, 1), decided: .zero, configuration: 0)), "its own time has come")
    }

    @Test func `the preferred node goes first and at once`() {
        var first = Bench(1), second = Bench(3)
        for bench in [first, second] { #expect(bench.group.leaderHint == nil) }
        first.hear(2, accept(b, first: 1, [entry(b, 0, .begin)]))
        second.hear(2, accept(b, first: 1, [entry(b, 0, .begin)]))
        first.step(.suspect(node(2)), at: ms(5))
        second.step(.suspect(node(2)), at: ms(5))
        #expect(first.sent.contains(.askVote(ballot(2, 1), decided: .zero, configuration: 0)))
        #expect(second.sent.isEmpty)
        #expect(second.group.nextWake == ms(5 + 30))
    }

    @Test func `a candidate behind the others' log steps back`() {
        var bench = Bench()
        bench.step(.campaign)
        bench.sync()
        bench.hear(2, bench.promise(decided: 9, keptAfter: 5))
        #expect(bench.group.term == nil)
        #expect(bench.effects.contains(.note(.candidateBehind(decided: .zero, others: Slot(9)))))
    }
}

@Suite struct LeaseTests {
    init() { MutationUnderTest.set() }

    @Test func `the lease counts from sending, less the drift, over a quorum`() {
        var bench = Bench(lease: LeaseLimits())
        bench.lead(at: ms(200))
        #expect(!bench.group.leaseHolds(at: ms(200)))
        bench.step(.wake, at: ms(230))
        #expect(bench.accepts.contains { $0.sentAt == ms(230) })
        bench.hear(3, bench.ack(1, sentAt: ms(230)), at: ms(290))
        #expect(bench.group.leaseHolds(at: ms(327)))
        #expect(!bench.group.leaseHolds(at: ms(328)))
        #expect(bench.group.isConfirmed(since: ms(230)))
        #expect(!bench.group.isConfirmed(since: ms(231)))
    }

    @Test func `a lease that nobody asks is renewed less often, and often again from a question on`() {
        var bench = Bench(lease: LeaseLimits())
        bench.lead(at: ms(200))
        bench.step(.wake, at: ms(230))
        #expect(bench.group.nextWake <= ms(290), "once more at the usual pace: it has just begun")
        var sent: [UInt64] = []
        var now = UInt64(230)
        while now < 500 {
            bench.step(.wake, at: ms(now))
            if bench.accepts.contains(where: { $0.sentAt == ms(now) }) { sent.append(now) }
            bench.hear(3, bench.ack(1, sentAt: ms(now)), at: ms(now))
            bench.hear(2, bench.ack(1, sentAt: ms(now)), at: ms(now))
            #expect(bench.group.leaseHolds(at: ms(now)))
            now += 10
        }
        #expect(zip(sent, sent.dropFirst()).allSatisfy { $1 - $0 == 60 }, "\(sent)")
        let last = sent.last ?? 0
        let isNews = bench.group.useLease(), isNewsAgain = bench.group.useLease()
        #expect(isNews && !isNewsAgain)
        #expect(bench.group.nextWake == ms(last + 30))
    }

    @Test func `a successor waits for the longest promise it hears of`() {
        var bench = Bench(lease: LeaseLimits())
        bench.step(.campaign)
        bench.sync()
        bench.hear(2, bench.promise(lease: .milliseconds(70), leaseBallot: ballot(1, 3)), at: ms(10))
        #expect(bench.group.mayAnswerFrom == ms(100), "its own counts, too: it has just started")
        bench = Bench(lease: LeaseLimits())
        bench.step(.campaign, at: ms(60))
        bench.sync(at: ms(60))
        bench.hear(2, bench.promise(lease: .milliseconds(70), leaseBallot: ballot(1, 3)), at: ms(61))
        #expect(bench.group.mayAnswerFrom == ms(131))
    }

    @Test func `a restarted voter reports a full promise`() {
        var bench = Bench(lease: LeaseLimits())
        bench.hear(3, prepare(ballot(2, 3)))
        bench.sync(at: ms(30))
        #expect(bench.promises.first?.lease == .milliseconds(70))
        #expect(bench.promises.first?.leaseBallot == .zero)
    }

    @Test func `a hand-over releases the lease, and only that one`() {
        let b = ballot(1, 2)
        var bench = Bench(lease: LeaseLimits())
        bench.hear(2, accept(b, first: 1, [entry(b, 0, .begin)], sentAt: ms(1)))
        bench.hear(2, .campaign(b), at: ms(150))
        bench.sync(at: ms(150))
        bench.hear(2, bench.promise(lease: .milliseconds(70), leaseBallot: b), at: ms(151))
        #expect(bench.group.mayAnswerFrom <= ms(151))

        var other = Bench(lease: LeaseLimits())
        other.hear(2, accept(b, first: 1, [entry(b, 0, .begin)], sentAt: ms(1)))
        other.hear(2, .campaign(b), at: ms(150))
        other.sync(at: ms(150))
        other.hear(2, other.promise(lease: .milliseconds(70)), at: ms(151))
        #expect(other.group.mayAnswerFrom == ms(221), "nobody knows whom that was promised to")
    }
}

@Suite struct FailureDetectorTests {
    private func detector() -> FailureDetector {
        FailureDetector(node: node(1), peers: [1, 2, 3].map { node($0) }, limits: .init(), at: ms(0))
    }

    @Test func `a lost process is suspected at once and trusted when heard`() {
        var detector = detector()
        var effects: [FailureDetector.Effect] = []
        detector.step(.disconnected(node(2), lost: false), at: ms(5), into: &effects)
        #expect(effects.isEmpty)
        detector.step(.disconnected(node(2), lost: true), at: ms(6), into: &effects)
        detector.step(.disconnected(node(2), lost: true), at: ms(7), into: &effects)
        #expect(effects == [.suspect(node(2))])
        detector.step(.heard(node(2)), at: ms(9), into: &effects)
        #expect(effects == [.suspect(node(2)), .trust(node(2))])
    }

    @Test func `a beat goes along with what leaves anyway, and the timer then has nothing to do`() {
        var detector = detector()
        var effects: [FailureDetector.Effect] = []
        detector.step(.wake, at: ms(0), into: &effects)
        #expect(effects == [.heartbeat(to: node(2)), .heartbeat(to: node(3))])
        for t in stride(from: UInt64(10), through: 1000, by: 10) {
            effects = []
            for peer in [2, 3] as [UInt16] {
                detector.step(.heard(node(peer)), at: ms(t), into: &effects)
            }
            detector.beatAlong(at: ms(t), into: &effects)
            #expect(effects.count == (t % 20 == 0 ? 2 : 0), "at \(t)")
            #expect(detector.nextWake > ms(t))
        }
        // Nothing leaves any more: its own clock goes on, well within what others take for silence.
        #expect(detector.nextWake == ms(1045))
    }

    @Test func `silence is suspicion, but not after our own pause`() {
        var detector = detector()
        var effects: [FailureDetector.Effect] = []
        for t in stride(from: UInt64(0), through: 300, by: 30) {
            detector.step(.heard(node(3)), at: ms(t), into: &effects)
            detector.step(.wake, at: ms(t), into: &effects)
        }
        #expect(effects.contains(.suspect(node(2))))
        #expect(!effects.contains(.suspect(node(3))))
        #expect(effects.count { $0 == .heartbeat(to: node(2)) } == 11)
        effects = []
        detector.step(.wake, at: ms(5000), into: &effects)
        #expect(!effects.contains(.suspect(node(3))))
        #expect(detector.nextWake < ms(5200))
    }
}
