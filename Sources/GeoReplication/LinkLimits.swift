package import Primitives

/// Bounds of a link between two regions.
package struct LinkLimits: Equatable, Sendable {
    /// Batches and bytes sent and not yet acknowledged. Round trip times bytes per second must fit.
    package var windowBatches = 48
    package var windowBytes = 4 << 20
    /// A batch holds latches on all of its keys for a log round: larger ones hurt the foreground's
    /// p99 (protocol-rules.md G10). One revision is never torn, however large it is.
    package var batchKeys = 500
    package var batchBytes = 256 << 10
    /// Rows asked of the store at once.
    package var readRows = 500
    /// How often a quiet link tells the frontier and the clock.
    package var idleInterval = TimeSpan.milliseconds(100)
    /// No progress of the acknowledgements for so long: send again from the last one.
    package var resendInterval = TimeSpan.milliseconds(2_000)
    /// A stretch of so many revisions without own changes advances the cursor by an empty batch. Each
    /// costs the destination a revision, which is in turn a stretch for its own stream: far above one,
    /// or two quiet regions keep each other busy.
    package var emptyStretch: Int64 = 1_000
    /// Batches that wait at the destination; the sender's window is smaller.
    package var queuedBatches = 64
    package var retryInterval = TimeSpan.milliseconds(50)
    /// A stamp further ahead of this region's clock than this holds the link (G10).
    package var clockAheadMax = TimeSpan.milliseconds(500)

    package init() {}
}

/// What happened on a link, for log lines and metrics.
package enum LinkEvent: Hashable, Sendable {
    /// The destination's cursor is of another incarnation of this region: it needs a copy (G9).
    case foreignIncarnation(UInt64)
    /// The history that the destination needs is compacted, and what is left cannot be had here (a spread
    /// region): it needs a copy (G5).
    case compactedPast(Revision)
    case resent(after: Revision)
    case gap(expected: Revision, got: Revision)
    case overflowed
    case cursorMismatch(Revision)
    case applyFailed(RequestError)
    /// The origin's clock is ahead beyond the bound: held until this region's clock has caught up.
    case held(aheadMicroseconds: UInt64)
    case released
}
