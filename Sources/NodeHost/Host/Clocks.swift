import Glibc
import Primitives

enum Clocks {
    /// CLOCK_BOOTTIME goes on while the machine is suspended: a lease must not outlive a suspension
    /// (protocol-rules.md S13).
    static func instant() -> Instant {
        var time = timespec()
        clock_gettime(CLOCK_BOOTTIME, &time)
        return Instant(nanoseconds: UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec))
    }

    /// What this thread has used of a CPU, in nanoseconds.
    static func threadCPU() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// Both clocks, read after the last input of a turn was taken.
    static func read() -> ClockReading {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        let wall = UInt64(max(0, time.tv_sec)) * 1_000_000 + UInt64(time.tv_nsec / 1_000)
        return ClockReading(instant: instant(), wallMicroseconds: wall)
    }
}
