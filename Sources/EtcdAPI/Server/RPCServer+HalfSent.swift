import NIOCore
import Primitives

/// Requests of which a part has come: their clients may never send the rest. All together they may take
/// so much memory; then the ones that have held the most of it for the longest make room, whoever
/// is sending just now.
///
/// A request's age is counted in bytes that came for all half-sent requests since it began: of two equal
/// uploads the older one goes, a quick one goes before nobody, and no clock is read.
extension RPCServer {
    /// Rows of the table of calls that are looked at in one go.
    private static let rowsAtOnce = 65_536

    /// So much of a call's message (or body) has come now. Afterwards the call may have been ended.
    func halfSent(_ slot: Int, is bytes: Int) {
        let before = calls[slot].halfSentBytes
        guard bytes != before, calls[slot].connection >= 0,
            let connection = connections[calls[slot].connection]
        else { return }
        // Less: another message has begun.
        if before == 0 || bytes < before { calls[slot].halfSentSince = halfSentClock }
        calls[slot].halfSentBytes = bytes
        connection.halfSentBytes += bytes - before
        halfSent(growBy: bytes - before)
    }

    /// The same of an HTTP/1.1 body, whose connection keeps its own account.
    func halfSent(growBy growth: Int) {
        halfSentBytes += growth
        guard growth > 0 else { return }
        halfSentClock &+= UInt64(growth)
        if halfSentBytes > limits.halfSentBytesTotalMax { makeRoomForHalfSent() }
    }

    private enum Holder {
        case call(Int)
        case http1(HTTP1Handler)
    }

    /// Down to well below the limit, so that it does not begin again with the next bytes.
    private func makeRoomForHalfSent() {
        let target = limits.halfSentBytesTotalMax / 8 * 7
        var found: [(score: Double, holder: Holder)] = []
        func consider(_ bytes: Int, since: UInt64, _ holder: Holder) {
            found.append((Double(bytes) * Double(halfSentClock &- since), holder))
        }
        for _ in 0..<min(calls.count, Self.rowsAtOnce) {
            halfSentHand = halfSentHand + 1 < calls.count ? halfSentHand + 1 : 0
            let bytes = calls[halfSentHand].halfSentBytes
            guard bytes > 0 else { continue }
            consider(bytes, since: calls[halfSentHand].halfSentSince, .call(halfSentHand))
        }
        for handler in http1.values where handler.halfSentBytes > 0 {
            consider(handler.halfSentBytes, since: handler.halfSentSince, .http1(handler))
        }
        found.sort { $0.score > $1.score }
        for candidate in found {
            guard halfSentBytes > target else { return }
            counters.halfSentDropped &+= 1
            switch candidate.holder {
            case .call(let slot): dropHalfSent(slot)
            case .http1(let handler): handler.refuseHalfSent()
            }
        }
    }

    private func dropHalfSent(_ slot: Int) {
        switch calls[slot].state {
        case .open: abort(slot, .resourceExhausted, "too many half-sent messages")
        case .http:
            let stream = calls[slot].stream
            if let connection = connections[calls[slot].connection] { connection.refuseHalfSent(stream) }
            halfSent(slot, is: 0)
        case .free, .headers, .ended: break
        }
    }
}
