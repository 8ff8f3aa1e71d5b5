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
    /// All that was wanted has been sent; how many keys the range has is still to be found out.
    var counter: RangeCounter?
    var lastPart = RangeResult()
    var count: Int64 = 0

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
        guard var open = calls[call] else { return }
        let stream = RangeStream(call: call, query: query, revision: at, index: index.revision)
        open.state = .rangeStream(stream)
        calls[call] = open
        guard eager.isOpen else { return steps.later(for: output.owner(of: call)) { [self] in proceed(stream) } }
        spend(limits.streamPartBytes)
        proceed(stream)
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
            guard error == .elsewhere else { return fail(stream.call, error.failure) }
            node.whenFetched { [weak self] in self?.proceed(stream) }
        }
    }

    /// The last message has the count.
    private func finish(_ stream: RangeStream) throws(RequestError) {
        var last = stream.lastPart
        last.count = stream.count
        if stream.counter != nil {
            let piece = self.piece(for: stream.call)
            guard try stream.counter?.step(
                node, rowsMax: piece.rows, bytesMax: piece.looked) == true else {
                return steps.later { [self] in proceed(stream) }
            }
            last.count += stream.counter?.count ?? 0
        }
        answer(stream.call, ResponseCodec.rangePart(last, headers.at(stream.index)))
    }

    private func advance(_ stream: RangeStream) throws(RequestError) {
        guard output.hasRoom(for: limits.smallAnswerBytes) else { throw .tooManyRequests }
        if stream.rest.countOnly, stream.counter == nil {
            stream.counter = try RangeCounter(stream.rest.range, at: stream.revision, node)
        }
        if stream.counter != nil { return try finish(stream) }
        var query = stream.rest
        query.limit = min(stream.partRows, stream.wanted ?? .max)
        let owner = output.owner(of: stream.call)
        let bytes = limits.streamPartBytes / (steps.isHurried(for: owner) ? limits.hurriedPart : 1)
        var part = try node.part(query, at: stream.revision, maxBytes: max(1, bytes))
        let rows = Int64(part.rows.count)
        let next = part.rows.last.map { $0.key.successor }
        let isLast = !part.more || stream.wanted == rows
        var counter: RangeCounter?
        if isLast, part.more, let next {
            let left = KeyRange(key: next, end: stream.rest.range.end)
            counter = try RangeCounter(left, at: stream.revision, node)
        }
        stream.sent += rows
        stream.wanted = stream.wanted.map { $0 - rows }
        part.count = 0
        if isLast {
            stream.lastPart = part
            stream.count = stream.sent
            stream.counter = counter
            return try finish(stream)
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
