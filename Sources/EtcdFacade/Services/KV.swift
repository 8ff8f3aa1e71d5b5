import EtcdAPI
import Primitives

extension Facade {
    func onRange(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        let query = try RangeQuery(message: message)
        metrics.ranges += 1
        // The most frequent call of all: nothing is made of it that would only be taken apart again.
        if query.range.isSingle, let index = node.readIndexNow(linearizable: !query.serializable) {
            keysRead &+= 1
            if authState.isEnabled {
                // With permissions that are as new as the index, as in `serve`.
                do throws(CallFailure) {
                    try checkReading(query.range, call)
                } catch {
                    return fail(call, error)
                }
            }
            do throws(RequestError) {
                answer(call, try read(query, index))
            } catch {
                guard error == .elsewhere else { return fail(call, error.failure) }
                suspend(call) { self.serve(.range(query), .success(index), call) }
            }
            return
        }
        readIndex(call, linearizable: !query.serializable, as: .range(query))
    }

    func onPut(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        let put = try Put(message: message)
        try checkSize(message)
        metrics.puts += 1
        submit(.transaction(Transaction(success: [.put(put)])), call, as: .put)
    }

    func onDeleteRange(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        let delete = try Delete(message: message)
        try checkSize(message)
        metrics.deletes += 1
        submit(.transaction(Transaction(success: [.delete(delete)])), call, as: .delete)
    }

    func onTransaction(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        let transaction = try Transaction(
            message: message, operationsMax: limits.transactionOperationsMax)
        metrics.transactions += 1
        if transaction.isReadOnly {
            // protocol-rules.md C3: a read, at one revision, without a leader.
            readIndex(
                call, linearizable: !transaction.isSerializable,
                as: .readOnlyTransaction(transaction))
        } else {
            try checkSize(message)
            submit(.transaction(transaction), call, as: .transaction)
        }
    }

    func onCompact(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        // `physical` asks to wait until the space is free; compaction here never blocks anybody, and
        // its answer is the same.
        let revision = Revision(try NumberFields(message)[1])
        guard revision >= .zero else { throw EtcdError.compacted.failure }
        submit(.compact(revision), call, as: .compaction)
    }

    /// What would not fit a log entry of etcd. Reads may be larger, up to the server's message limit.
    func checkSize(_ message: Bytes) throws(CallFailure) {
        guard message.count + Self.envelopeBytes <= limits.requestBytesMax else {
            throw EtcdError.requestTooLarge.failure
        }
    }

    /// What etcd's log adds to a request, whose limit is of both: an id, and the fields around it.
    private static let envelopeBytes = 18

    /// The answer to what was submitted; nil: the node answered something else.
    func encode(_ response: Response, for kind: Pending.Kind) -> [UInt8]? {
        switch (kind, response) {
        case (.put, .transaction(let result, let revision)):
            guard case .put(let previous)? = result.results.first else { return nil }
            return ResponseCodec.put(previous: previous, headers.at(revision))
        case (.delete, .transaction(let result, let revision)):
            guard case .delete(let deleted, let previous)? = result.results.first else {
                return nil
            }
            return ResponseCodec.delete(deleted: deleted, previous: previous, headers.at(revision))
        case (.transaction, .transaction(let result, let revision)):
            metrics.count(result)
            return ResponseCodec.transaction(result, headers.at(revision))
        case (.headerOnly, .transaction(_, let revision)),
            (.proclaim, .transaction(_, let revision)):
            return MessageBuilder(headers.at(revision)).bytes
        case (.compaction, .compacted(let revision)):
            return MessageBuilder(headers.at(revision)).bytes
        // LeaseGrantResponse and LeaseKeepAliveResponse are alike.
        case (.leaseGrant, .leaseGranted(let id, let ttl, let revision)):
            return ResponseCodec.keepAlive(id, ttlSeconds: ttl, headers.at(revision))
        case (.leaseRevoke, .leaseRevoked(let revision)):
            return MessageBuilder(headers.at(revision)).bytes
        case (
            .leaseTimeToLive,
            .leaseTimeToLive(let id, let granted, let remaining, let keys, let revision)
        ):
            return LeaseResponse.timeToLive(
                id, granted: granted, remaining: remaining, keys: keys, headers.at(revision))
        case (.auth, .auth(_, let revision)): return MessageBuilder(headers.at(revision)).bytes
        case (.leaseList, .leases(let ids, let revision)):
            return LeaseResponse.leases(ids, headers.at(revision))
        case (.members(let method), .members(let list, let subject)):
            return members(list, subject: subject, for: method)
        default: return nil
        }
    }

    func read(_ query: RangeQuery, _ index: ReadIndex) throws(RequestError) -> [UInt8] {
        let revision = try revision(of: query, index)
        if query.range.isSingle, !query.hasFilter {
            // Neither order nor limit matters.
            let row = try node.row(query.range.key, at: revision)
            return ResponseCodec.key(
                row, withRow: !query.countOnly, withValue: !query.keysOnly, headers.at(index.revision))
        }
        let result = try node.range(query, at: revision)
        return ResponseCodec.range(result, headers.at(index.revision))
    }
}

/// Where a query reads: at the index, or in the past if it names a revision that is still there.
func revision(of query: RangeQuery, _ index: ReadIndex) throws(RequestError) -> Revision {
    if let refusal = query.refusal { throw refusal }
    if query.revision == .zero { return index.revision }
    if query.revision > index.revision { throw .futureRevision }
    if query.revision < index.compactRevision { throw .compacted }
    return query.revision
}

extension Transaction {
    /// etcd's IsTxnSerializable: every range on both branches says so.
    var isSerializable: Bool {
        (success + failure).allSatisfy { operation in
            if case .range(let query) = operation { query.serializable } else { false }
        }
    }
}
