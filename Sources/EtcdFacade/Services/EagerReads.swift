import EtcdAPI
import Primitives

/// Ranges are read as soon as they are asked for, but only so many bytes before the loop gets round to
/// others. Beyond that a read waits for its turn among the steps of long work: a client that asks for
/// hundreds at once does not hold up the rest, and one that gives them up as soon as they are
/// made (CVE-2023-44487) has nothing done for them.
struct EagerReads {
    private let limit: Int
    private var left: Int

    init(bytes: Int) {
        limit = bytes
        left = bytes
    }

    var isOpen: Bool { left > 0 }

    /// True: somebody must see to it that `renew` is called.
    mutating func spend(_ bytes: Int) -> Bool {
        defer { left -= max(1, bytes) }
        return left == limit
    }
    mutating func renew() { left = limit }
}

/// A page, or a transaction that only reads, which waits for its turn.
final class DelayedRead {
    var isClosed = false
}

extension Facade {
    /// What a page counts as, at least, and what a count does: more is looked at than is shown.
    private static let pageCost = 1 << 10
    private static let countCost = 8 << 10

    /// So much was read at once.
    func spend(_ bytes: Int) {
        guard eager.spend(bytes) else { return }
        // Among the steps: as long as there is much to do, little is done at once.
        steps.later { [weak self] in self?.eager.renew() }
    }

    func readPage(
        _ call: CallReference, _ query: RangeQuery, _ index: ReadIndex
    ) throws(RequestError) {
        guard eager.isOpen else { return readLater(call, .range(query), index) }
        let message = try read(query, index)
        spend(max(message.count, query.countOnly ? Self.countCost : Self.pageCost))
        answer(call, message)
    }

    func readTransaction(
        _ call: CallReference, _ transaction: Transaction, _ index: ReadIndex
    ) throws(RequestError) {
        guard eager.isOpen, transaction.readsKeysOnly else {
            return readLater(call, .readOnlyTransaction(transaction), index)
        }
        let message = try read(transaction, index)
        spend(max(message.count, Self.pageCost))
        answer(call, message)
    }

    private func readLater(_ call: CallReference, _ kind: Pending.Kind, _ index: ReadIndex) {
        guard var open = calls[call] else { return }
        let page = DelayedRead()
        open.state = .page(page)
        calls[call] = open
        steps.later { [self] in
            guard !page.isClosed else { return }
            do throws(RequestError) {
                switch kind {
                case .range(let query): answer(call, try read(query, index))
                case .readOnlyTransaction(let transaction): answer(call, try read(transaction, index))
                default: invariant(false, "what does not read was to be read later")
                }
            } catch {
                // A compaction came in between. Of the newest revision there is always an answer.
                guard error == .compacted, !kind.namesRevision else { return fail(call, error.failure) }
                readIndex(call, linearizable: kind.isLinearizable, as: kind)
            }
        }
    }
}

extension Pending.Kind {
    fileprivate var isLinearizable: Bool {
        switch self {
        case .range(let query): !query.serializable
        case .readOnlyTransaction(let transaction): !transaction.isSerializable
        default: true
        }
    }

    /// A revision of the client's choosing, which may be compacted.
    fileprivate var namesRevision: Bool {
        switch self {
        case .range(let query): query.revision != .zero
        case .readOnlyTransaction(let transaction): transaction.namesRevision
        default: false
        }
    }
}

extension Transaction {
    /// Single keys, nothing of unknown size.
    fileprivate var readsKeysOnly: Bool {
        compares.allSatisfy(\.range.isSingle)
            && (success + failure).allSatisfy { operation in
                switch operation {
                case .range(let query): query.range.isSingle
                case .transaction(let nested): nested.readsKeysOnly
                case .put, .delete: true
                }
            }
    }

    fileprivate var namesRevision: Bool {
        (success + failure).contains { operation in
            switch operation {
            case .range(let query): query.revision != .zero
            case .transaction(let nested): nested.namesRevision
            case .put, .delete: false
            }
        }
    }
}
