import EtcdAPI
import Primitives

/// Ranges are read as soon as they are asked for, but only so many bytes before the loop gets round to
/// others. Beyond that a read waits for its turn among the steps of long work: a client that asks for
/// hundreds at once does not hold up the rest, and one that gives them up as soon as they are
/// made (CVE-2023-44487) has nothing done for them.
struct EagerReads {
    private let limit: Int
    private(set) var left: Int

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

/// A transaction that only reads, in steps.
final class DelayedRead {
    var isClosed = false
    fileprivate let transaction: Transaction
    fileprivate let index: ReadIndex
    fileprivate var reader: TransactionReader?

    /// Whatever it is, it waits for other nodes (`Facade.suspend`).
    init() {
        transaction = Transaction(success: [])
        index = ReadIndex(revision: .zero, compactRevision: .zero)
    }

    fileprivate init(_ transaction: Transaction, _ index: ReadIndex) {
        self.transaction = transaction
        self.index = index
    }
}

extension Facade {
    /// What a transaction counts as, at least: more is looked at than is shown.
    private static let transactionCost = 1 << 10

    /// So much was read at once.
    func spend(_ bytes: Int) {
        guard eager.spend(bytes) else { return }
        // Among the steps: as long as there is much to do, little is done at once.
        steps.later { [weak self] in self?.eager.renew() }
    }

    func readTransaction(
        _ call: CallReference, _ transaction: Transaction, _ index: ReadIndex
    ) throws(RequestError) {
        let read = DelayedRead(transaction, index)
        if eager.isOpen, transaction.readsKeysOnly, let result = try step(read, call) {
            let message = encode(result, index)
            spend(max(message.count, Self.transactionCost))
            return answer(call, message)
        }
        guard var open = calls[call] else { return }
        open.state = .page(read)
        calls[call] = open
        readOn(read, call)
    }

    private func readOn(_ read: DelayedRead, _ call: CallReference) {
        steps.later(for: output.owner(of: call)) { [self] in
            guard !read.isClosed else { return }
            do throws(RequestError) {
                guard let result = try step(read, call) else { return readOn(read, call) }
                answer(call, encode(result, read.index))
            } catch {
                // From its beginning: what it had read is at hand.
                if error == .elsewhere {
                    return node.whenFetched { [weak self] in self?.readOn(read, call) }
                }
                // A compaction came in between. Of the newest revision there is always an answer.
                guard error == .compacted, !read.transaction.namesRevision else {
                    return fail(call, error.failure)
                }
                readIndex(
                    call, linearizable: !read.transaction.isSerializable,
                    as: .readOnlyTransaction(read.transaction))
            }
        }
    }

    private func step(_ read: DelayedRead, _ call: CallReference) throws(RequestError) -> TransactionResult? {
        var reader: TransactionReader
        if let begun = read.reader {
            reader = begun
        } else {
            reader = try TransactionReader(
                read.transaction, node: node, index: read.index, output: output)
        }
        // One owner, so that nothing is copied.
        read.reader = nil
        let result = try reader.step(piece(for: call))
        if result == nil { read.reader = reader }
        return result
    }

    private func encode(_ result: TransactionResult, _ index: ReadIndex) -> [UInt8] {
        metrics.count(result)
        return ResponseCodec.transaction(result, headers.at(index.revision))
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
