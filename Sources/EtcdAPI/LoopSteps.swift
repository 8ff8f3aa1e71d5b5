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
    private static let stretch = TimeAmount.microseconds(400)
    /// The same while there are others (`isHurried`).
    private static let stretchHurried = TimeAmount.microseconds(50)
    /// How long somebody who asks for little is remembered.
    private static let presence = TimeAmount.milliseconds(10)
    /// Long enough to be in the future when the loop looks what else there is to do. That the loop sleeps for a
    /// moment lets clients go on that share its processor: the kernel takes it from nobody who uses it without
    /// a pause before its next tick, in 4 ms.
    private static let pause = TimeAmount.microseconds(10)

    private let loop: any EventLoop
    private let ticks: LoopTicks?
    private var queue: CircularBuffer<(owner: Int, step: () -> Void)> = []
    private var isScheduled = false
    /// The tick that had its stretch.
    private var lastTick = UInt64.max
    private var end = NIODeadline.uptimeNanoseconds(0)
    /// The connection that asked last, of those that take little of the loop's time; and the one before it that
    /// was another.
    @exclusivity(unchecked) private var guest: (owner: Int, at: NIODeadline)?
    @exclusivity(unchecked) private var guestBefore: (owner: Int, at: NIODeadline)?
    /// The clock as it was read last.
    @exclusivity(unchecked) private var seen = NIODeadline.uptimeNanoseconds(0)

    /// Without `ticks` (a loop that is not ours) pauses have to do.
    package init(loop: any EventLoop, ticks: LoopTicks? = nil) {
        self.loop = loop
        self.ticks = ticks
    }

    /// Runs `step` soon, after those that came before. `owner` is the connection that it is for, if it is for one.
    package func later(for owner: Int = -1, _ step: @escaping () -> Void) {
        queue.append((owner, step))
        guard !isScheduled else { return }
        isScheduled = true
        if hasHadItsStretch {
            wait()
        } else {
            loop.assumeIsolated().execute { self.run() }
        }
    }

    /// The stretch that is under way is over: a step that can stop here does.
    package var isOver: Bool { loop.now >= end }

    /// A connection has asked for something that takes little of the loop's time.
    package func noteGuest(_ owner: Int, at now: NIODeadline) {
        if let guest, guest.owner != owner { guestBefore = guest }
        guest = (owner, now)
        seen = now
    }

    /// There are such connections beside this one: stretches and steps for it are to be short. Without others short
    /// ones would only cost more.
    package func isHurried(for owner: Int) -> Bool {
        guard let guest else { return false }
        if guest.owner != owner { return seen - guest.at <= Self.presence }
        guard let guestBefore else { return false }
        return seen - guestBefore.at <= Self.presence
    }

    private var hasHadItsStretch: Bool { ticks.map { $0.count == lastTick } ?? false }

    private func wait() {
        loop.assumeIsolated().scheduleTask(in: Self.pause) {
            if self.hasHadItsStretch { self.wait() } else { self.run() }
        }
    }

    private func run() {
        if let ticks { lastTick = ticks.count }
        let start = loop.now
        seen = start
        end = start + Self.stretch
        while let (owner, step) = queue.popFirst() {
            if isHurried(for: owner) { end = min(end, start + Self.stretchHurried) }
            step()
            if isOver { break }
        }
        if queue.isEmpty { isScheduled = false } else { wait() }
    }
}
