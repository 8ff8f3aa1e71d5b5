import EtcdAPI
import Primitives
import SwiftProtobuf

/// etcd's lock service, made of the requests that any client could make, as there; and the common part
/// of Lock and Campaign.
extension Facade {
    func onLock(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        let request: V3lockpb_LockRequest = try parsing(message)
        try contend(
            Contender(
                call: call, purpose: .lock, name: Bytes(request.name),
                lease: LeaseID(request.lease)))
    }

    func onUnlock(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        let request: V3lockpb_UnlockRequest = try parsing(message)
        guard !request.key.isEmpty else { throw EtcdError.emptyKey.failure.withoutStatus }
        let delete = Delete(range: KeyRange(key: Bytes(request.key)))
        submit(.transaction(Transaction(success: [.delete(delete)])), call, as: .headerOnly)
    }

    // MARK: Contending

    /// The TTL of a session whose client named no lease (concurrency/session.go).
    private static let sessionSeconds: Int64 = 60

    func contend(_ contender: Contender) throws(CallFailure) {
        guard var open = calls[contender.call] else { return }
        guard !contests.isFull else { throw EtcdError.tooManyRequests.failure }
        open.state = .contends(contender)
        calls[contender.call] = open
        if contender.lease == .none {
            contender.step = .granting
            metrics.leasesGranted += 1
            ask(contender, .leaseGrant(node.randomLeaseID(), ttlSeconds: Self.sessionSeconds))
        } else {
            enter(contender)
        }
    }

    private func enter(_ contender: Contender) {
        contender.step = .entering
        ask(contender, .transaction(contender.entry))
    }

    /// The way of all requests of a contender to the node: what `submit` is to the other calls.
    private func ask(_ contender: Contender, _ request: Request) {
        if authState.isEnabled {
            do throws(CallFailure) {
                try checkPermission(request, contender.call)
            } catch {
                contender.asked = request
                if contender.isFresh { return fail(contender.call, error) }
                return refresh(contender)
            }
        }
        send(request, of: contender)
    }

    private func send(_ request: Request, of contender: Contender) {
        contender.asked = request
        let token = pending.add(Pending(call: contender.call, kind: .contends(contender)))
        contender.token = token
        // Each step has the whole time; the wait in between ends with the client or the lease.
        let deadline = node.now.advanced(by: limits.requestTimeout)
        node.submit(request, deadline: deadline, token: token)
    }

    /// Permissions are another, or may be: the question is asked again under those of now.
    private func refresh(_ contender: Contender) {
        contender.isRefreshing = true
        contender.isFresh = true
        let token = pending.add(Pending(call: contender.call, kind: .contends(contender)))
        contender.token = token
        let deadline = node.now.advanced(by: limits.requestTimeout)
        node.readIndex(linearizable: true, deadline: deadline, token: token)
    }

    private func onRefreshed(_ answered: Result<ReadIndex, RequestError>, _ contender: Contender) {
        contender.isRefreshing = false
        if contender.step == .withdrawing {
            if let request = contender.asked { send(request, of: contender) }
            return
        }
        if contender.isAbandoned { return withdraw(contender) }
        switch answered {
        case .failure(let error): fail(contender.call, error.failure.withoutStatus)
        case .success:
            if let request = contender.asked { ask(contender, request) }
        }
    }

    /// Asks who is older, as of now: the answer to a contender is never older than the question.
    func look(_ contender: Contender) {
        contender.step = .looking
        let token = pending.add(Pending(call: contender.call, kind: .contends(contender)))
        contender.token = token
        let deadline = node.now.advanced(by: limits.requestTimeout)
        node.readIndex(linearizable: true, deadline: deadline, token: token)
    }

    func onResponse(_ response: Response, for contender: Contender) {
        contender.token = nil
        if case .failed(.authChanged) = response, contender.refusals < Contender.refusalsMax {
            // Not executed: asked under permissions that a leader knew to be old.
            contender.refusals += 1
            return refresh(contender)
        }
        switch (contender.step, response) {
        case (.withdrawing, _): contender.step = .done
        case (_, .failed(let error)):
            if contender.isAbandoned { return withdraw(contender) }
            fail(contender.call, error.failure.withoutStatus)
        case (.granting, .leaseGranted(let id, _, _)):
            contender.use(id)
            enter(contender)
        case (.entering, .transaction(let result, let revision)):
            contender.entered = revision
            onEntered(contender, result, revision)
        case (.proclaiming, .transaction(let result, _)):
            if contender.isAbandoned { return withdraw(contender) }
            guard result.succeeded else { return fail(contender.call, .notLeader) }
            look(contender)
        default:
            fail(
                contender.call,
                CallFailure(status: .internal, text: "polder: the node answered something else"))
        }
    }

    private func onEntered(
        _ contender: Contender, _ result: TransactionResult, _ revision: Revision
    ) {
        var isStale = false
        if result.succeeded {
            contender.createRevision = revision
        } else if case .range(let found)? = result.results.first, let row = found.rows.first {
            contender.createRevision = row.createRevision
            isStale = contender.needsProclamation(row)
        } else {
            return fail(contender.call, contender.expired)
        }
        if contender.isAbandoned { return withdraw(contender) }
        if isStale {
            contender.step = .proclaiming
            ask(contender, .transaction(contender.proclamation))
        } else {
            look(contender)
        }
    }

    func onReadIndex(_ answered: Result<ReadIndex, RequestError>, for contender: Contender) {
        contender.token = nil
        if contender.isRefreshing { return onRefreshed(answered, contender) }
        if authState.isEnabled {
            do throws(CallFailure) {
                try checkReading(Contests.range(contender.prefix), contender.call)
            } catch {
                return fail(contender.call, error)
            }
        }
        do throws(RequestError) {
            let index = try answered.get()
            // A deletion that this node has shown its watchers already wakes nobody any more.
            decide(contender, at: max(index.revision, watches.emitted))
        } catch {
            fail(contender.call, error.failure)
        }
    }

    private func decide(_ contender: Contender, at revision: Revision) {
        do throws(RequestError) {
            // Without its key a contender has no place in the queue, whoever else is there: its lease
            // has ended, and the next may hold what it waits for.
            let own = try node.row(contender.key, at: revision)
            guard own?.createRevision == contender.createRevision else {
                contender.step = .done
                return fail(contender.call, contender.expired)
            }
            if let older = try node.range(contender.older, at: revision).rows.first {
                contender.hasWaited = true
                contests.add(contender, waitingFor: older.key.compact())
            } else {
                contender.step = .done
                answer(
                    contender.call,
                    encode(contender, headers.at(contender.hasWaited ? revision : contender.entered)))
            }
        } catch {
            guard error == .elsewhere else { return fail(contender.call, error.failure) }
            node.whenFetched { [weak self] in
                guard let self, contender.step == .looking, calls.isOpen(contender.call) else { return }
                // What has been shown meanwhile may be what it waits for.
                decide(contender, at: max(revision, watches.emitted))
            }
        }
    }

    private func encode(_ contender: Contender, _ header: HeaderFields) -> [UInt8] {
        switch contender.purpose {
        case .lock: LeaderResponse.locked(contender.key, header)
        case .campaign:
            LeaderResponse.elected(
                name: contender.name, key: contender.key, contender.createRevision,
                contender.lease, headers.at(contender.entered))
        }
    }

    /// The call ends without having got what it wanted: its key must not stand in others' way.
    func abandon(_ contender: Contender) {
        if contender.isRefreshing, contender.step != .withdrawing {
            contender.isRefreshing = false
            if let token = contender.token, pending.take(token) != nil { node.cancel(token: token) }
            return withdraw(contender)
        }
        switch contender.step {
        case .granting:
            // A lease that comes nevertheless ends by itself.
            if let token = contender.token, pending.take(token) != nil { node.cancel(token: token) }
        case .entering: contender.isAbandoned = true
        case .proclaiming where contender.token != nil: contender.isAbandoned = true
        case .proclaiming: withdraw(contender)
        case .looking:
            if let token = contender.token, pending.take(token) != nil { node.cancel(token: token) }
            withdraw(contender)
        case .waiting:
            contests.remove(contender)
            withdraw(contender)
        case .withdrawing, .done: break
        }
    }

    private func withdraw(_ contender: Contender) {
        guard contender.createRevision > .zero else {
            contender.step = .done
            return
        }
        contender.step = .withdrawing
        send(.transaction(contender.withdrawal), of: contender)
    }
}

/// Decodes what comes too rarely for a decoder of our own.
func parsing<T: SwiftProtobuf.Message>(_ message: Bytes) throws(CallFailure) -> T {
    do {
        return try T(serializedBytes: message.array)
    } catch {
        throw CodecError.malformed("proto: cannot parse invalid wire-format data").failure
    }
}

/// Answers of the lock and the election service.
enum LeaderResponse {
    static func locked(_ key: Bytes, _ header: HeaderFields) -> [UInt8] {
        var builder = MessageBuilder(header)
        builder.field(2, key)
        return builder.bytes
    }

    static func elected(
        name: Bytes, key: Bytes, _ revision: Revision, _ lease: LeaseID, _ header: HeaderFields
    ) -> [UInt8] {
        var builder = MessageBuilder(header)
        builder.message(2) { inner in
            inner.field(1, name)
            inner.field(2, key)
            inner.field(3, revision.rawValue)
            inner.field(4, lease.rawValue)
        }
        return builder.bytes
    }

    static func leader(_ row: Row, _ header: HeaderFields) -> [UInt8] {
        var builder = MessageBuilder(header)
        builder.message(2) { inner in
            inner.field(1, row.key)
            inner.field(2, row.createRevision.rawValue)
            inner.field(3, row.modRevision.rawValue)
            inner.field(4, row.version)
            inner.field(5, row.value)
            inner.field(6, row.lease.rawValue)
        }
        return builder.bytes
    }
}

extension MessageBuilder {
    mutating func field(_ number: UInt8, _ value: Bytes) {
        guard !value.isEmpty else { return }
        message(number, value.array)
    }
}
