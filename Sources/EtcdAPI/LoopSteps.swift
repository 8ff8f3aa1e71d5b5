package import NIOCore
package import NIOPosix

/// How often a loop has been through its sockets. For the group that the loop is made in.
package final class LoopTicks: NIOEventLoopMetricsDelegate, @unchecked Sendable {
    /// Of the ticks that have ended. On the loop only.
    @exclusivity(unchecked) fileprivate(set) var count: UInt64 = 0

    package init() {}
    package func processedTick(info: NIOEventLoopTickInfo) { count &+= 1 }
}

/// Long work in short steps, between which the loop serves its sockets.
///
/// `execute` alone does not do that: NIO runs tasks until there are none, so a task that adds the next
/// one keeps the loop from its sockets until the whole work is done. Nor does a short pause: it has passed when
/// the other tasks of a tick took longer. Here the steps of all long works of a loop take turns, one stretch of
/// them in a tick.
package final class LoopSteps {
    /// Work at a stretch. What others wait for it, at most, but for the length of one step.
    private static let stretch = TimeAmount.microseconds(200)
    /// Long enough to be in the future when the loop looks what else there is to do.
    private static let pause = TimeAmount.microseconds(10)

    private let loop: any EventLoop
    private let ticks: LoopTicks?
    private var queue: CircularBuffer<() -> Void> = []
    private var isScheduled = false
    /// The tick that had its stretch.
    private var lastTick = UInt64.max

    /// Without `ticks` (a loop that is not ours) pauses have to do.
    package init(loop: any EventLoop, ticks: LoopTicks? = nil) {
        self.loop = loop
        self.ticks = ticks
    }

    /// Runs `step` soon, after those that came before.
    package func later(_ step: @escaping () -> Void) {
        queue.append(step)
        guard !isScheduled else { return }
        isScheduled = true
        if hasHadItsStretch {
            wait()
        } else {
            loop.assumeIsolated().execute { self.run() }
        }
    }

    private var hasHadItsStretch: Bool { ticks.map { $0.count == lastTick } ?? false }

    private func wait() {
        loop.assumeIsolated().scheduleTask(in: Self.pause) {
            if self.hasHadItsStretch { self.wait() } else { self.run() }
        }
    }

    private func run() {
        if let ticks { lastTick = ticks.count }
        let end = loop.now + Self.stretch
        while let step = queue.popFirst() {
            step()
            if loop.now >= end { break }
        }
        if queue.isEmpty { isScheduled = false } else { wait() }
    }
}
