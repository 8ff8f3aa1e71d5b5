import NIOCore

/// Answers of all connections of a server that their clients have not read yet, summed up.
package final class UnreadBytes {
    @exclusivity(unchecked) package var count = 0
    package init() {}
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
    /// Holding less, nobody is worth it.
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
    mutating func find(_ holders: some Sequence<any AnswerHolder>, now: NIODeadline) -> [any AnswerHolder] {
        guard now - lastLook >= .milliseconds(100) else { return [] }
        lastLook = now
        var fresh: [ObjectIdentifier: Sample] = [:]
        var slow: [any AnswerHolder] = []
        for holder in holders where holder.unreadBytes >= Self.bytesMin {
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
        if unread.count + bytes <= limits.unreadBytesTotalMax { return true }
        for holder in slowReaders.find(answerHolders, now: loop.now) {
            counters.slowReadersDropped &+= 1
            holder.drop()
            if unread.count + bytes <= limits.unreadBytesTotalMax { break }
        }
        return unread.count + bytes <= limits.unreadBytesTotalMax
    }

    /// Half-received requests have grown by so much, of a connection that now holds `own` of them.
    /// False: there are too many, and this connection has no less than its share.
    func takePartial(_ growth: Int, own: Int) -> Bool {
        partialBytes += growth
        guard growth > 0, partialBytes > limits.partialBytesTotalMax else { return true }
        return own < partialBytes / max(1, openConnections)
    }
}
