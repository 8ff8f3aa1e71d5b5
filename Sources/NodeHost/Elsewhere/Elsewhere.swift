import DequeModule
import Primitives
import Transport

/// What this node has asked others for and still remembers, by revision: rows do not change any more at a
/// revision that has been shown. A read that finds something missing asks for it and is made again when it
/// is there (`Host+Elsewhere`). On the loop.
final class Elsewhere {
    /// One piece of what a read needs: the hashes are those that one holder was asked for.
    struct Want: Hashable {
        let revision: Revision
        let hashes: HashRanges
        let question: RowsQuestion
    }
    /// Of pages that belong together.
    private struct RowsKey: Hashable {
        let revision: Revision
        let hashes: HashRanges
        let end: Bytes
        let keysOnly: Bool
    }
    private struct ChangesKey: Hashable {
        let hashes: HashRanges
        let after: Revision
    }
    private struct Answered {
        let answer: RowsAnswer
        let bytes: Int
        let at: Instant
    }
    private struct Asked {
        let want: Want
        let peer: NodeID
        let deadline: Instant
    }
    /// Somebody who goes on when all that was missing has been answered.
    private final class Waiter {
        var left: Int
        let body: () -> Void
        init(_ left: Int, _ body: @escaping () -> Void) {
            self.left = left
            self.body = body
        }
    }

    static let patience = TimeSpan.seconds(2)
    /// Reads everything.
    private static let hashPatience = TimeSpan.seconds(60)
    /// Who has refused or was silent is not asked again so soon.
    private static let avoidance = TimeSpan.milliseconds(200)
    private static let keeping = TimeSpan.seconds(10)
    private static let bytesMax = 64 << 20
    private static let askedMax = 4_096

    private let send: (NodeID, RowsMessage) -> Void
    private var answers: [Want: Answered] = [:]
    private var order: Deque<Want> = []
    private var pages: [RowsKey: [Want]] = [:]
    private var history: [ChangesKey: Want] = [:]
    private var bytes = 0
    private var asked: [UInt64: Asked] = [:]
    private var numbers: [Want: UInt64] = [:]
    private var waiters: [Want: [Waiter]] = [:]
    private var nextNumber: UInt64
    private var avoided: [NodeID: Instant] = [:]
    /// What the read that is being made has found missing.
    private var missing: Set<Want> = []
    private(set) var questionsTotal: UInt64 = 0

    init(first: UInt64, send: @escaping (NodeID, RowsMessage) -> Void) {
        nextNumber = first
        self.send = send
    }

    /// Nobody is asked anything.
    var isIdle: Bool { asked.isEmpty }

    func avoids(_ peer: NodeID, at now: Instant) -> Bool { avoided[peer].map { $0 > now } ?? false }

    // MARK: A read

    func beginRead() { missing.removeAll(keepingCapacity: true) }

    /// The answer if it is here. Otherwise it is asked for, unless it has been.
    func answer(_ want: Want, of peer: NodeID, at now: Instant) throws(RequestError) -> RowsAnswer? {
        if let found = answers[want] {
            if case .refused(let error) = found.answer { throw error }
            return found.answer
        }
        missing.insert(want)
        if numbers[want] == nil {
            guard asked.count < Self.askedMax else { throw .tooManyRequests }
            let number = nextNumber
            nextNumber &+= 1
            var patience = Self.patience
            if case .hash = want.question { patience = Self.hashPatience }
            asked[number] = Asked(want: want, peer: peer, deadline: now.advanced(by: patience))
            numbers[want] = number
            questionsTotal &+= 1
            send(peer, .ask(number: number, at: want.revision, want.hashes, want.question))
        }
        return nil
    }

    /// Live rows from the range's first key on, as far as one page goes.
    func page(
        _ range: KeyRange, limit: Int, keysOnly: Bool, at revision: Revision, _ hashes: HashRanges,
        of peer: NodeID, now: Instant
    ) throws(RequestError) -> (rows: [Row], isWhole: Bool)? {
        if let known = known(range, keysOnly: keysOnly, at: revision, hashes) { return known }
        let want = Want(
            revision: revision, hashes: hashes, question: .rows(range, limit: limit, keysOnly: keysOnly))
        guard case .rows(let rows, let isWhole)? = try answer(want, of: peer, at: now) else { return nil }
        return (rows, isWhole)
    }

    /// In a page that began earlier.
    private func known(
        _ range: KeyRange, keysOnly: Bool, at revision: Revision, _ hashes: HashRanges
    ) -> (rows: [Row], isWhole: Bool)? {
        guard !range.isSingle else { return nil }
        let key = RowsKey(revision: revision, hashes: hashes, end: range.end, keysOnly: keysOnly)
        for want in (pages[key] ?? []).suffix(16).reversed() {
            guard case .rows(let asked, _, _) = want.question, asked.key <= range.key,
                case .rows(let rows, let isWhole)? = answers[want]?.answer
            else { continue }
            if asked.key == range.key { return (rows, isWhole) }
            guard isWhole || rows.last.map({ $0.key >= range.key }) ?? false else { continue }
            return (Array(rows[place(of: range.key, in: rows)...]), isWhole)
        }
        return nil
    }

    private func place(of key: Bytes, in rows: [Row]) -> Int {
        var low = 0, high = rows.count
        while low < high {
            let middle = (low + high) / 2
            if rows[middle].key < key { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// A row of a page with values, whatever range it was read for.
    func row(_ key: Bytes, at revision: Revision) -> Row? {
        for (pagesKey, wants) in pages where pagesKey.revision == revision && !pagesKey.keysOnly {
            for want in wants {
                guard case .rows(let rows, _)? = answers[want]?.answer else { continue }
                let at = place(of: key, in: rows)
                if at < rows.count, rows[at].key == key { return rows[at] }
            }
        }
        return nil
    }

    /// Whole revisions above `after`, as far as one page goes, or an earlier question went.
    func changes(
        after: Revision, through: Revision, _ hashes: HashRanges, of peer: NodeID, at now: Instant
    ) throws(RequestError) -> (changes: [RevisionChanges], through: Revision, previous: [Row])? {
        var want = Want(
            revision: through, hashes: hashes, question: .changes(after: after, withPrevious: true))
        if let earlier = history[ChangesKey(hashes: hashes, after: after)] { want = earlier }
        guard case .changes(let changes, let theirs, let previous)? = try answer(want, of: peer, at: now)
        else { return nil }
        if theirs <= through { return (changes, theirs, previous) }
        return (changes.filter { $0.revision <= through }, through, previous)
    }

    /// Calls `body` when the last read's missing pieces have been answered, or cannot be. At most once.
    func whenFetched(_ body: @escaping () -> Void) -> Bool {
        let open = missing.filter { numbers[$0] != nil }
        guard !open.isEmpty else { return false }
        let waiter = Waiter(open.count, body)
        for want in open { waiters[want, default: []].append(waiter) }
        return true
    }

    // MARK: Answers

    func on(_ answer: RowsAnswer, number: UInt64, from peer: NodeID, bytes: Int, at now: Instant) {
        guard let question = asked[number], question.peer == peer else { return }
        asked[number] = nil
        switch answer {
        case .refused(.compacted), .refused(.futureRevision): keep(answer, question.want, bytes, now)
        case .refused:
            avoided[peer] = now.advanced(by: Self.avoidance)
        default: keep(answer, question.want, bytes, now)
        }
        finish(question.want)
    }

    func onDisconnected(_ peer: NodeID, at now: Instant) {
        for (number, question) in asked where question.peer == peer { giveUp(number, question, at: now) }
    }

    /// Once a second, and sooner if somebody waits.
    func expire(at now: Instant) {
        for (number, question) in asked where question.deadline <= now { giveUp(number, question, at: now) }
        avoided = avoided.filter { $0.value > now }
        while let first = order.first, let kept = answers[first], now.since(kept.at) > Self.keeping { forget(first) }
    }

    private func giveUp(_ number: UInt64, _ question: Asked, at now: Instant) {
        asked[number] = nil
        avoided[question.peer] = now.advanced(by: Self.avoidance)
        finish(question.want)
    }

    private func finish(_ want: Want) {
        numbers[want] = nil
        for waiter in waiters.removeValue(forKey: want) ?? [] {
            waiter.left -= 1
            if waiter.left == 0 { waiter.body() }
        }
    }

    private func keep(_ answer: RowsAnswer, _ want: Want, _ count: Int, _ now: Instant) {
        if answers[want] == nil {
            order.append(want)
            switch (want.question, answer) {
            case (.rows(let range, _, let keysOnly), .rows):
                pages[
                    RowsKey(revision: want.revision, hashes: want.hashes, end: range.end, keysOnly: keysOnly),
                    default: []
                ].append(want)
            case (.changes(let after, _), .changes):
                history[ChangesKey(hashes: want.hashes, after: after)] = want
            default: break
            }
        }
        bytes += count + 256 - (answers[want]?.bytes ?? 0)
        answers[want] = Answered(answer: answer, bytes: count + 256, at: now)
        while bytes > Self.bytesMax, let first = order.first, first != want { forget(first) }
    }

    private func forget(_ want: Want) {
        order.removeFirst()
        if let gone = answers.removeValue(forKey: want) { bytes -= gone.bytes }
        switch want.question {
        case .rows(let range, _, let keysOnly):
            let key = RowsKey(
                revision: want.revision, hashes: want.hashes, end: range.end, keysOnly: keysOnly)
            pages[key]?.removeAll { $0 == want }
            if pages[key]?.isEmpty == true { pages[key] = nil }
        case .changes(let after, _):
            let key = ChangesKey(hashes: want.hashes, after: after)
            if history[key] == want { history[key] = nil }
        case .count, .hash, .leases, .leaseTimes, .keys: break
        }
    }
}
