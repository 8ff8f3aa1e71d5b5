import Glibc
package import Primitives

/// The machine's clocks, for everything in this module that does I/O.
package enum SystemClock {
    package static func now() -> Instant { Instant(nanoseconds: read(CLOCK_BOOTTIME)) }
    package static func wallMicroseconds() -> UInt64 { read(CLOCK_REALTIME) / 1000 }

    private static func read(_ clock: clockid_t) -> UInt64 {
        var time = timespec()
        clock_gettime(clock, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}

/// Starts `body` for every due time, whether or not earlier ones have finished, until `deadline` or
/// until the task is cancelled; returns when all have finished.
package func runOpenLoop(
    rate: Double, start: Instant = SystemClock.now(), until deadline: Instant = .never,
    _ body: @escaping @Sendable (_ number: UInt64, _ due: Instant) async -> Void
) async {
    await withDiscardingTaskGroup { group in
        var schedule = Schedule(start: start, ratePerSecond: rate)
        while !Task.isCancelled {
            let now = SystemClock.now()
            while let (number, due) = schedule.next(at: now), due < deadline {
                // Not of the group's cancellation: what was started is finished and counted.
                group.addTask { await Task { await body(number, due) }.value }
            }
            guard schedule.nextDue < deadline else { break }
            try? await Task.sleep(
                nanoseconds: schedule.nextDue.since(SystemClock.now()).nanoseconds)
        }
    }
}
