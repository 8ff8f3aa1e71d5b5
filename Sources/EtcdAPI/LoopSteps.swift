package import NIOCore

/// Long work in short steps, between which the loop serves its sockets.
///
/// `execute` alone does not do that: NIO runs tasks until there are none, so a task that adds the next
/// one keeps the loop from its sockets until the whole work is done. Here the steps of all long works of
/// a loop take turns, and after some of them the loop gets through to its sockets.
package final class LoopSteps {
    /// Work at a stretch. What others wait for it, at most, but for the length of one step.
    private static let stretch = TimeAmount.microseconds(500)
    /// Long enough to be in the future when the loop looks what else there is to do.
    private static let pause = TimeAmount.microseconds(20)

    private let loop: any EventLoop
    private var queue: CircularBuffer<() -> Void> = []
    private var isScheduled = false

    package init(loop: any EventLoop) { self.loop = loop }

    /// Runs `step` soon, after those that came before.
    package func later(_ step: @escaping () -> Void) {
        queue.append(step)
        guard !isScheduled else { return }
        isScheduled = true
        loop.assumeIsolated().execute { self.run() }
    }

    private func run() {
        let end = loop.now + Self.stretch
        while let step = queue.popFirst() {
            step()
            if loop.now >= end { break }
        }
        guard !queue.isEmpty else {
            isScheduled = false
            return
        }
        loop.assumeIsolated().scheduleTask(in: Self.pause) { self.run() }
    }
}
