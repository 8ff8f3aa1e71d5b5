import NIOCore
package import Primitives

/// Answers of all connections of a server that their clients have not read yet, summed up: what waits in
/// the streams, and what the sockets have not taken.
package final class UnreadBytes {
    @exclusivity(unchecked) package var count = 0
    /// What there should be at most.
    package let limit: Int
    /// Where what was held is given back to memory when it is very much.
    var steps: LoopSteps?

    package init(limit: Int = .max) { self.limit = limit }

    /// From here on everybody holds less: half of the limit is left for what is under way.
    package var isPressed: Bool { count > limit / 2 }
    package var isFull: Bool { count > limit }
}

/// One encoding for many readers: counted once, from when it is made until the last of them has it.
package final class SharedBytes {
    package let bytes: Bytes
    private let unread: UnreadBytes

    package init(_ bytes: Bytes, counting unread: UnreadBytes) {
        self.bytes = bytes
        self.unread = unread
        unread.count += bytes.count
    }

    deinit { unread.count -= bytes.count }
}

/// A connection that may hold answers back: both of HTTP/2 and of HTTP/1.1.
protocol AnswerHolder: AnyObject {
    var unreadBytes: Int { get }
    /// Handed to the socket since the connection began.
    var takenBytes: UInt64 { get }
    func drop()
}

/// Memory for answers is short: who is slow to read them, and holds much, makes room.
struct SlowReaders {
    /// Holding less, nobody is worth it, unless there are so many that little is much.
    private static let bytesMin = 1 << 20
    /// A client that takes less than this in a second is slow.
    private static let bytesPerSecond: UInt64 = 256 << 10
    private static let period = TimeAmount.seconds(5)

    private struct Sample {
        var taken: UInt64
        var at: NIODeadline
    }
    private var samples: [ObjectIdentifier: Sample] = [:]
    private var lastLook = NIODeadline.uptimeNanoseconds(0)

    /// The slow ones, the largest first. The first look only takes down how far everybody is.
    mutating func find(
        _ holders: [any AnswerHolder], limit: Int, now: NIODeadline
    ) -> [any AnswerHolder] {
        guard now - lastLook >= .milliseconds(100) else { return [] }
        lastLook = now
        let bytesMin = min(Self.bytesMin, limit / 2 / max(1, holders.count))
        var fresh: [ObjectIdentifier: Sample] = [:]
        var slow: [any AnswerHolder] = []
        for holder in holders where holder.unreadBytes >= bytesMin {
            let id = ObjectIdentifier(holder)
            guard let before = samples[id], before.taken <= holder.takenBytes else {
                fresh[id] = Sample(taken: holder.takenBytes, at: now)
                continue
            }
            let span = now - before.at
            guard span >= Self.period else {
                fresh[id] = before
                continue
            }
            let seconds = UInt64(max(1, span.nanoseconds / 1_000_000_000))
            if (holder.takenBytes - before.taken) / seconds < Self.bytesPerSecond {
                slow.append(holder)
            } else {
                fresh[id] = Sample(taken: holder.takenBytes, at: now)
            }
        }
        samples = fresh
        return slow.sorted { $0.unreadBytes > $1.unreadBytes }
    }
}

extension RPCServer {
    /// Whether an answer of this size may be made. If not, slow readers are let go of where there are
    /// any; whoever asks is told to come again.
    package func hasRoom(for bytes: Int) -> Bool {
        if unread.count + bytes <= unread.limit { return true }
        dropSlowReaders { self.unread.count + bytes <= self.unread.limit }
        return unread.count + bytes <= unread.limit
    }

    /// The same for one of the answers that need no room as a rule, being small: without limit they would
    /// be too many for who asks on and on and reads none of them.
    package func hasRoom(forSmall bytes: Int, to call: CallReference) -> Bool {
        guard unread.isFull, connectionBytes(of: call) > limits.bufferedBytesPressed else { return true }
        return hasRoom(for: bytes)
    }

    package var isPressed: Bool { unread.isPressed }

    /// Now and then: slow readers go before there is no room left.
    package func relievePressure() {
        guard unread.isPressed else { return }
        dropSlowReaders { !self.unread.isPressed }
    }

    private func dropSlowReaders(until isEnough: () -> Bool) {
        for holder in slowReaders.find(answerHolders, limit: unread.limit, now: loop.now) {
            counters.slowReadersDropped &+= 1
            holder.drop()
            if isEnough() { break }
        }
    }
}
