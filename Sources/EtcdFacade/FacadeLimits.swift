package import Primitives

/// What a client may ask, and how much of it is held for a client that does not read.
package struct FacadeLimits: Sendable {
    /// etcd's --max-txn-ops: of compares, success and failure, each.
    package var transactionOperationsMax = 128
    /// etcd's --max-request-bytes.
    package var requestBytesMax = 1_572_864
    /// etcd's request timeout: 5 s and two election timeouts.
    package var requestTimeout = TimeSpan.seconds(7)
    /// A shorter TTL is raised to this, as etcd does (its election timeout and a half, rounded up).
    package var leaseSecondsMin: Int64 = 2
    package var leaseSecondsMax: Int64 = 9_000_000_000
    /// etcd's --warning-apply-duration, here of requests for keys as a whole, and
    /// --warning-unary-request-duration.
    package var slowApply = TimeSpan.milliseconds(100)
    package var slowCall = TimeSpan.milliseconds(300)
    /// etcd's `--metrics extensive`: histograms of how long calls took.
    package var measuresCalls = false
    /// Streams with `hasleader` are ended when there has been no leader for so long.
    package var leaderlessMax = TimeSpan.seconds(3)
    /// etcd's --watch-progress-notify-interval.
    package var progressInterval = TimeSpan.seconds(600)
    /// A response above this is cut if its watcher asked for fragments.
    package var fragmentBytes = 1_572_864 + 524_288
    /// A watch stream with more bytes waiting is not sent to until it has drained. The server's
    /// `bufferedBytesHigh`, since it says when a stream has drained.
    package var bufferedBytesHigh = 1 << 20
    /// The same while all streams together hold as much as there is memory for.
    package var bufferedBytesPressed = 64 << 10
    /// An answer above this needs memory to be there.
    package var smallAnswerBytes = 64 << 10
    /// A client that goes on asking for watches without reading loses its stream here.
    package var bufferedBytesMax = 64 << 20
    /// Of one step of catching up, between which the loop serves others: rows and bytes that are read,
    /// events that are shown to somebody, and watchers that are sent to.
    package var catchUpRowsMax = 512
    package var catchUpBytes = 64 << 10
    package var catchUpEvents = 2_000
    package var catchUpWatchers = 50
    /// Watchers of a node. A hundred thousand of them take some 50 MB.
    package var watchersMax = 1_000_000
    /// Of ranges that are read as soon as they are asked for. What goes beyond that waits for its turn, and
    /// costs nothing if its client gives it up before.
    package var eagerBytes = 64 << 10
    /// Of one piece of a list, of a count or of a transaction that only reads, between which the loop serves
    /// others: some 100 us.
    package var listPartRows = 500
    package var listPartBytes = 256 << 10
    /// The same of values that are walked by: the store reads them all the same.
    package var lookBytes = 2 << 20
    /// Parts of that are a piece while there are others, who wait for it.
    package var hurriedPart = 3
    /// Of one message of a range that is streamed.
    package var streamPartBytes = 256 << 10
    /// Kept for `prev_kv`.
    package var previousRowsBytes = 16 << 20
    /// Keep-alives of one stream that may wait for the core.
    package var keepAlivesMax = 10_000
    package init() {}

    /// One piece of long work.
    func piece(isHurried: Bool) -> PieceSize {
        let part = isHurried ? hurriedPart : 1
        return PieceSize(
            rows: max(1, listPartRows / part), bytes: max(1, listPartBytes / part),
            looked: max(1, lookBytes / part))
    }

    /// etcd's --election-timeout: what else follows from it there.
    package mutating func setElectionTimeout(_ span: TimeSpan) {
        requestTimeout = .seconds(5) + span * 2
        leaseSecondsMin = Int64((span.nanoseconds * 3 / 2 + 999_999_999) / 1_000_000_000)
        leaderlessMax = span * 3
    }
}

/// What a step of long work may read: rows, bytes of what is kept, and of what is walked by.
struct PieceSize {
    var rows: Int
    var bytes: Int
    var looked: Int
}
