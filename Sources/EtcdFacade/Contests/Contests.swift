import Primitives

/// Who waits for which key to go, and who follows which election: an index on the node's timeline, so
/// that a deletion wakes its successor and nobody else.
struct Contests {
    /// Contenders and followers of one node; more are refused.
    static let membersMax = 100_000

    private var waiting: [Bytes: [Contender]] = [:]
    private var followers: [Bytes: [LeaderFollower]] = [:]
    private(set) var count = 0

    var isFull: Bool { count >= Contests.membersMax }
    var isEmpty: Bool { waiting.isEmpty && followers.isEmpty }

    static func prefix(of name: Bytes) -> Bytes { Bytes(name.array + [UInt8(ascii: "/")]) }

    /// Everything that begins with `prefix`, which ends with a slash.
    static func range(_ prefix: Bytes) -> KeyRange {
        var end = prefix.array
        end[end.count - 1] += 1
        return KeyRange(key: prefix, end: Bytes(end))
    }

    /// The oldest key under a prefix: the lock's holder, the election's leader.
    static func first(_ prefix: Bytes) -> RangeQuery {
        RangeQuery(range: range(prefix), limit: 1, order: .ascending, target: .createRevision)
    }

    // MARK: Contenders

    mutating func add(_ contender: Contender, waitingFor key: Bytes) {
        contender.step = .waiting(for: key)
        waiting[key, default: []].append(contender)
        waiting[contender.key, default: []].append(contender)
        count += 1
    }

    mutating func remove(_ contender: Contender) {
        guard case .waiting(let key) = contender.step else { return }
        contender.step = .done
        count -= 1
        for key in [key, contender.key] {
            waiting[key]?.removeAll { $0 === contender }
            if waiting[key]?.isEmpty == true { waiting[key] = nil }
        }
    }

    /// Takes out those that waited for one of the keys that went.
    mutating func take(deletedIn changes: [RevisionChanges]) -> [Contender] {
        guard !waiting.isEmpty else { return [] }
        var woken: [Contender] = []
        for change in changes {
            for row in change.rows where row.isDeletion {
                for contender in waiting[row.key] ?? [] {
                    remove(contender)
                    woken.append(contender)
                }
            }
        }
        return woken
    }

    mutating func takeAll() -> [Contender] {
        var all: [Contender] = []
        for key in waiting.keys.sorted() {
            for contender in waiting[key] ?? [] {
                remove(contender)
                all.append(contender)
            }
        }
        return all
    }

    // MARK: Followers

    mutating func add(_ follower: LeaderFollower) {
        followers[follower.prefix, default: []].append(follower)
        count += 1
    }

    mutating func remove(_ follower: LeaderFollower) {
        guard let all = followers[follower.prefix] else { return }
        let rest = all.filter { $0 !== follower }
        count -= all.count - rest.count
        followers[follower.prefix] = rest.isEmpty ? nil : rest
    }

    var allFollowers: [LeaderFollower] { followers.keys.sorted().flatMap { followers[$0] ?? [] } }

    /// Of every election whose keys `key` may be one of: a prefix ends with a slash.
    func forEachFollower(of key: Bytes, _ body: (LeaderFollower) -> Void) {
        guard !followers.isEmpty else { return }
        for end in 0..<key.count where key[end] == UInt8(ascii: "/") {
            for follower in followers[key[0..<(end + 1)]] ?? [] { body(follower) }
        }
    }
}
