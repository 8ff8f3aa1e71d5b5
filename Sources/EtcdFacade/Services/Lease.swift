import EtcdAPI
import Primitives

extension Facade {
    func onLeaseGrant(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        let numbers = try NumberFields(message)
        let ttl = numbers[1]
        guard ttl <= limits.leaseSecondsMax else { throw EtcdError.leaseTTLTooLarge.failure }
        let id = numbers[2] == 0 ? node.randomLeaseID() : LeaseID(numbers[2])
        metrics.leasesGranted += 1
        metrics.leaseTTLs.note(max(ttl, limits.leaseSecondsMin))
        submit(
            .leaseGrant(id, ttlSeconds: max(ttl, limits.leaseSecondsMin)), call, as: .leaseGrant)
    }

    func onLeaseRevoke(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        let id = LeaseID(try NumberFields(message)[1])
        guard id != .none else { throw EtcdError.leaseNotFound.failure }
        metrics.leasesRevoked += 1
        submit(.leaseRevoke(id), call, as: .leaseRevoke)
    }

    func onLeaseTimeToLive(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        let numbers = try NumberFields(message)
        submit(
            .leaseTimeToLive(LeaseID(numbers[1]), wantsKeys: numbers[2] != 0), call,
            as: .leaseTimeToLive)
    }

    // MARK: Keep-alive: a stream of renewals, asked in parallel, answered in order

    func onKeepAlive(_ message: Bytes, on stream: KeepAliveStream) throws(CallFailure) {
        let id = LeaseID(try NumberFields(message)[1])
        guard stream.entries.count < limits.keepAlivesMax else {
            throw EtcdError.tooManyRequests.failure
        }
        metrics.leasesRenewed += 1
        let position = stream.first + UInt64(stream.entries.count)
        stream.entries.append(.init(lease: id))
        keepAlive(stream, position)
    }

    private func keepAlive(_ stream: KeepAliveStream, _ position: UInt64) {
        let at = Int(position - stream.first), lease = stream.entries[at].lease
        if authState.isEnabled {
            do throws(CallFailure) {
                try checkPermission(.leaseKeepAlive(lease), stream.call)
            } catch {
                if stream.entries[at].refusals > 0 { return fail(stream.call, error) }
                return refresh(stream, position)
            }
        }
        let token = pending.add(
            Pending(call: stream.call, kind: .keepAlive(stream, position: position)))
        stream.entries[at].token = token
        // The stream lives on; each message has the whole time.
        let deadline = node.now.advanced(by: limits.requestTimeout)
        node.submit(.leaseKeepAlive(lease), deadline: deadline, token: token)
    }

    /// Permissions are another, or may be: once more under those of now.
    private func refresh(_ stream: KeepAliveStream, _ position: UInt64) {
        let at = Int(position - stream.first)
        stream.entries[at].refusals += 1
        let token = pending.add(
            Pending(call: stream.call, kind: .keepAlive(stream, position: position)))
        stream.entries[at].token = token
        let deadline = node.now.advanced(by: limits.requestTimeout)
        node.readIndex(linearizable: true, deadline: deadline, token: token)
    }

    func onReadIndex(
        _ answered: Result<ReadIndex, RequestError>, on stream: KeepAliveStream, _ position: UInt64
    ) {
        guard calls[stream.call] != nil, position >= stream.first else { return }
        switch answered {
        case .failure(let error): fail(stream.call, error.failure)
        case .success: keepAlive(stream, position)
        }
    }

    func onKeptAlive(_ response: Response, on stream: KeepAliveStream, _ position: UInt64) {
        guard calls[stream.call] != nil, position >= stream.first else { return }
        switch response {
        case .failed(.authChanged)
        where stream.entries[Int(position - stream.first)].refusals < KeepAliveStream.refusalsMax:
            // Not executed: asked under permissions that a leader knew to be old.
            return refresh(stream, position)
        case .leaseKeptAlive(let id, let ttl, let revision):
            stream.entries[Int(position - stream.first)].answer =
                ResponseCodec.keepAlive(id, ttlSeconds: ttl, headers.at(revision))
        case .failed(let error): return fail(stream.call, error.failure)
        default:
            return fail(
                stream.call,
                CallFailure(status: .internal, text: "polder: the node answered something else"))
        }
        var ready = 0
        while ready < stream.entries.count, let answer = stream.entries[ready].answer {
            sendOnStream(answer, to: stream.call, .leaseKeepAlive)
            ready += 1
        }
        stream.entries.removeFirst(ready)
        stream.first += UInt64(ready)
        if stream.isHalfClosed, stream.isIdle { complete(stream.call) }
    }

    func cancelAll(of stream: KeepAliveStream) {
        for entry in stream.entries where pending.take(entry.token) != nil {
            node.cancel(token: entry.token)
        }
        stream.entries.removeAll()
    }
}

final class KeepAliveStream {
    struct Entry {
        let lease: LeaseID
        var token: UInt64 = 0
        var answer: [UInt8]?
        var refusals = 0

        init(lease: LeaseID) { self.lease = lease }
    }
    static let refusalsMax = 16
    let call: CallReference
    /// Position of the first entry since the stream began.
    var first: UInt64 = 0
    var entries: [Entry] = []
    var isHalfClosed = false
    var isIdle: Bool { entries.isEmpty }

    init(call: CallReference) { self.call = call }
}
