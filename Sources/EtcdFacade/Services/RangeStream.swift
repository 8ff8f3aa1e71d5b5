import EtcdAPI
import NIOCore
import Primitives

/// A list that leaves in parts, all of one revision. Between parts the loop serves others, and nothing is
/// read for a client that does not take what it was sent.
final class RangeStream {
    let call: CallReference
    /// What is still to come.
    var rest: RangeQuery
    let revision: Revision
    /// The header's revision: that of the read index, also when the list is of an older one.
    let index: Revision
    /// How many rows the client still wants; nil: all.
    var wanted: Int64?
    var sent: Int64 = 0
    /// As etcd: the first part is small, and then they grow towards the size of a request.
    var partRows: Int64 = 10
    var isBlocked = false
    var isClosed = false

    init(call: CallReference, query: RangeQuery, revision: Revision, index: Revision) {
        self.call = call
        rest = query
        self.revision = revision
        self.index = index
        wanted = query.limit > 0 ? query.limit : nil
    }
}

extension Facade {
    func onRangeStream(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        let query = try RangeQuery(message: message)
        guard query.target == .key, query.order != .descending else {
            throw CallFailure(
                status: .unimplemented, text: "RangeStream does not support custom sort orders")
        }
        guard !query.hasFilter else {
            throw CallFailure(
                status: .unimplemented, text: "RangeStream does not support revision filters")
        }
        metrics.ranges += 1
        readIndex(call, linearizable: !query.serializable, as: .rangeStream(query))
    }

    /// The revision is known.
    func beginRangeStream(
        _ call: CallReference, _ query: RangeQuery, _ index: ReadIndex
    ) throws(RequestError) {
        let at = try revision(of: query, index)
        if query.countOnly {
            let result = try node.range(query, at: at)
            return answer(call, ResponseCodec.rangePart(result, headers.at(index.revision)))
        }
        guard var open = calls[call] else { return }
        let stream = RangeStream(call: call, query: query, revision: at, index: index.revision)
        open.state = .rangeStream(stream)
        calls[call] = open
        try advance(stream)
    }

    func resume(_ stream: RangeStream) {
        guard stream.isBlocked, !stream.isClosed else { return }
        stream.isBlocked = false
        proceed(stream)
    }

    private func proceed(_ stream: RangeStream) {
        guard !stream.isClosed, !stream.isBlocked else { return }
        do throws(RequestError) {
            try advance(stream)
        } catch {
            fail(stream.call, error.failure)
        }
    }

    private func advance(_ stream: RangeStream) throws(RequestError) {
        guard output.hasRoom(for: limits.smallAnswerBytes) else { throw .tooManyRequests }
        var query = stream.rest
        query.limit = min(stream.partRows, stream.wanted ?? .max)
        var part = try node.part(query, at: stream.revision)
        let rows = Int64(part.rows.count)
        stream.sent += rows
        stream.wanted = stream.wanted.map { $0 - rows }
        let next = part.rows.last.map { $0.key.successor }
        let isLast = !part.more || stream.wanted == 0
        part.count = 0
        if isLast {
            part.count = stream.sent
            if part.more, let next {
                var left = RangeQuery(range: KeyRange(key: next, end: stream.rest.range.end))
                left.countOnly = true
                part.count += try node.range(left, at: stream.revision).count
            }
            return answer(stream.call, ResponseCodec.rangePart(part, headers.at(stream.index)))
        }
        part.more = false
        let message = ResponseCodec.rangePart(part, nil)
        sendOnStream(message, to: stream.call, .rangeStream)
        if let next { stream.rest.range = KeyRange(key: next, end: stream.rest.range.end) }
        if message.count < limits.requestBytesMax / 2 {
            stream.partRows = min(stream.partRows * 2, 1 << 20)
        } else if message.count > limits.requestBytesMax * 2 {
            stream.partRows = max(1, stream.partRows / 2)
        }
        let high = output.isPressed ? limits.bufferedBytesPressed : limits.bufferedBytesHigh
        if output.bufferedBytes(of: stream.call) > high {
            stream.isBlocked = true
        } else {
            steps.later { [self] in proceed(stream) }
        }
    }
}
