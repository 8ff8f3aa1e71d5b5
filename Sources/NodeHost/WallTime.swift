import Glibc

package enum WallTime {
    /// `2026-11-25T19:49:18Z`.
    package static func text(secondsSince1970 seconds: Int64, microseconds: Int? = nil) -> String {
        var time = time_t(seconds), parts = tm()
        gmtime_r(&time, &parts)
        func two(_ n: Int32) -> String { n < 10 ? "0\(n)" : "\(n)" }
        var out = "\(parts.tm_year + 1900)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday))"
        out += "T\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec))"
        if let microseconds {
            let digits = "\(microseconds)"
            out += "." + String(repeating: "0", count: max(0, 6 - digits.count)) + digits
        }
        return out + "Z"
    }

    package static func now() -> String {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        return text(secondsSince1970: Int64(now.tv_sec), microseconds: now.tv_nsec / 1_000)
    }
}
