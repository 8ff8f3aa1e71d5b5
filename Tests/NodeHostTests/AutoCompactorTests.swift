import EtcdFacade
import Primitives
import Testing

@testable import NodeHost

@Suite struct AutoCompactorTests {
    private let start = Instant(nanoseconds: 1_000_000_000)

    /// What was compacted, by the number of the step, when the revision rises by ten between steps.
    private func run(
        _ mode: AutoCompaction, steps: Int, isPaused: (Int) -> Bool = { _ in false },
        works: (Int) -> Bool = { _ in true }
    ) throws -> [Int: Int64] {
        var compactor = try #require(AutoCompactor(mode, at: start))
        compactor.begin(at: Revision(10))
        var found: [Int: Int64] = [:]
        var now = start
        for step in 1...steps {
            now = now.advanced(by: compactor.interval)
            let revision = Revision(Int64(10 + 10 * step))
            guard let due = compactor.step(at: now, revision: revision, isPaused: isPaused(step))
            else { continue }
            found[step] = due.rawValue
            if works(step) { compactor.done(due, at: now) }
        }
        return found
    }

    @Test func `periodic: nothing goes before a whole period, then all that is older`() throws {
        // Noted ten times in each period; kept are eleven notes: the first is a period old.
        #expect(try run(.periodic(.seconds(5)), steps: 31) == [10: 10, 20: 100, 30: 200])
        let compactor = try #require(AutoCompactor(.periodic(.seconds(5)), at: start))
        #expect(compactor.interval == .milliseconds(500))
    }

    @Test func `periods above an hour compact every hour, after a first whole period`() throws {
        let compactor = try #require(AutoCompactor(.periodic(.seconds(7200)), at: start))
        #expect(compactor.interval == .seconds(360))
        let found = try run(.periodic(.seconds(7200)), steps: 41)
        #expect(found.keys.sorted() == [20, 30, 40])
        #expect(found[20] == 10 && found[30] == 100)
    }

    @Test func `what did not work is tried again at the next step`() throws {
        let found = try run(.periodic(.seconds(5)), steps: 12, works: { $0 > 10 })
        #expect(found == [10: 10, 11: 10])
    }

    @Test func `only the leader compacts, and goes on where it is when it becomes one`() throws {
        let found = try run(.periodic(.seconds(5)), steps: 24, isPaused: { $0 < 15 })
        #expect(found == [15: 50])
    }

    @Test func `revision: all but the newest revisions go, every five minutes`() throws {
        #expect(try run(.revision(25), steps: 4) == [2: 5, 3: 15, 4: 25])
        #expect(try #require(AutoCompactor(.revision(25), at: start)).interval == .seconds(300))
    }

    @Test func `off is off`() {
        #expect(AutoCompactor(.off, at: start) == nil)
        #expect(AutoCompactor(.periodic(.zero), at: start) == nil)
        #expect(AutoCompactor(.revision(0), at: start) == nil)
    }
}

@Suite struct AlarmBookTests {
    private let full = Alarm(memberID: 7, kind: .noSpace)

    private func tell(_ from: AlarmBook, as member: UInt64, to book: inout AlarmBook) throws -> Bool {
        var reader = ByteReader(from.frame)
        #expect(try HostFrame.kind(&reader) == .alarms)
        return try book.merge(&reader, from: member)
    }

    @Test func `a member's own alarms hold everywhere until it takes them back or goes`() throws {
        var one = AlarmBook(me: 1), two = AlarmBook(me: 2)
        one.setOwn([.noSpace])
        #expect(try tell(one, as: 1, to: &two))
        #expect(two.all == [Alarm(memberID: 1, kind: .noSpace)] && two.hasNoSpace)
        #expect(try !tell(one, as: 1, to: &two))
        one.setOwn([])
        #expect(try tell(one, as: 1, to: &two))
        #expect(two.all.isEmpty)
        one.setOwn([.noSpace])
        _ = try tell(one, as: 1, to: &two)
        two.forget(1)
        #expect(!two.hasNoSpace)
    }

    @Test func `a full disk holds up its own node, and the others once they are too few`() throws {
        var books = (1...3).map { AlarmBook(me: $0) }
        for i in books.indices { books[i].voters = 3 }
        books[0].setOwn([.noSpace], isDiskFull: true)
        #expect(books[0].hasNoSpace && books[0].othersHaveSpace && books[0].harmless.isEmpty)
        _ = try tell(books[0], as: 1, to: &books[1])
        #expect(!books[1].hasNoSpace && !books[1].othersHaveSpace)
        #expect(books[1].all == [Alarm(memberID: 1, kind: .noSpace)] && books[1].harmless == books[1].all)
        // It has left, and its disk is still full.
        books[1].forget(1)
        #expect(books[1].all.count == 1)
        // A second one: what is left is no majority.
        books[1].setOwn([.noSpace], isDiskFull: true)
        #expect(books[1].hasNoSpace && !books[1].othersHaveSpace)
        _ = try tell(books[0], as: 1, to: &books[2])
        _ = try tell(books[1], as: 2, to: &books[2])
        #expect(books[2].hasNoSpace && books[2].harmless.isEmpty)
        books[0].setOwn([])
        _ = try tell(books[0], as: 1, to: &books[2])
        #expect(!books[2].hasNoSpace && books[2].all.count == 1)
        books[2].keep(only: [1, 3])
        #expect(books[2].all.isEmpty)
        // A quota is everybody's, as with etcd.
        books[0].setOwn([.noSpace])
        _ = try tell(books[0], as: 1, to: &books[2])
        #expect(books[2].hasNoSpace && books[2].harmless.isEmpty)
    }

    @Test func `by hand the later word wins, in whatever order it is heard`() throws {
        var one = AlarmBook(me: 1), two = AlarmBook(me: 2)
        let first = one.set(full, isRaised: true, stamp: 10)
        let again = one.set(full, isRaised: true, stamp: 11)
        #expect(first && !again)
        let raised = one
        _ = try tell(one, as: 1, to: &two)
        #expect(two.hasNoSpace)
        // Its clock is behind: what it says comes later all the same.
        let taken = two.set(full, isRaised: false, stamp: 3)
        #expect(taken)
        _ = try tell(two, as: 2, to: &one)
        #expect(one.all.isEmpty)
        _ = try tell(raised, as: 1, to: &two)
        #expect(two.all.isEmpty)
        let nothing = two.set(full, isRaised: false, stamp: 99)
        #expect(!nothing)
    }

    @Test func `what was done by hand is kept, taken back or not`() {
        var book = AlarmBook(me: 1)
        _ = book.set(full, isRaised: true, stamp: 5)
        _ = book.set(Alarm(memberID: 255, kind: .corrupt), isRaised: true, stamp: 6)
        _ = book.set(full, isRaised: false, stamp: 7)
        book.setOwn([.noSpace])
        #expect(book.file == "polder-alarms 1\n7 1 0 7\nff 2 1 6\n")
        var again = AlarmBook(me: 1)
        let isRead = again.read(file: book.file)
        #expect(isRead && again.all == [Alarm(memberID: 255, kind: .corrupt)])
        #expect(again.isCorrupt && !again.hasNoSpace && again.file == book.file)
        for damaged in ["", "polder-alarms 2\n", "polder-alarms 1\n7 1 2 7\n", "polder-alarms 1\nx"] {
            let isTaken = again.read(file: damaged)
            #expect(!isTaken && again.file == book.file)
        }
    }

    @Test func `so many by hand and no more`() {
        var book = AlarmBook(me: 1)
        for member in 0..<UInt64(AlarmBook.byHandMax) {
            let isNew = book.set(Alarm(memberID: member, kind: .noSpace), isRaised: true, stamp: 1)
            #expect(isNew)
        }
        let tooMany = book.set(Alarm(memberID: 99_999, kind: .noSpace), isRaised: true, stamp: 1)
        #expect(!tooMany)
    }
}
