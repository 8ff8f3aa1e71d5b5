import EtcdAPI
import Primitives

extension Facade {
    func onLeaseGrant(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        let numbers = try NumberFields(message)
        let ttl = numbers[1]
        guard ttl <= limits.leaseSecondsMax else { throw EtcdError.leaseTTLTooLarge.failure }
        let id = numbers[2] == 0 ? node.randomLeaseID() : LeaseID(numbers[2])
        metrics.leasesGranted += 1
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
        if authState.isEnabled { try checkPermission(.leaseKeepAlive(id), stream.call) }
        metrics.leasesRenewed += 1
        let position = stream.first + UInt64(stream.entries.count)
        let token = pending.add(
            Pending(call: stream.call, kind: .keepAlive(stream, position: position)))
        stream.entries.append(.init(token: token, answer: nil))
        // The stream lives on; each message has the whole time.
        let deadline = node.now.advanced(by: limits.requestTimeout)
        node.submit(.leaseKeepAlive(id), deadline: deadline, token: token)
    }

    func onKeptAlive(_ response: Response, on stream: KeepAliveStream, _ position: UInt64) {
        guard calls[stream.call] != nil, position >= stream.first else { return }
        switch response {
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
            output.send(answer, to: stream.call)
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
        let token: UInt64
        var answer: [UInt8]?
    }
    let call: CallReference
    /// Position of the first entry since the stream began.
    var first: UInt64 = 0
    var entries: [Entry] = []
    var isHalfClosed = false
    var isIdle: Bool { entries.isEmpty }

    init(call: CallReference) { self.call = call }
}
