import Glibc

/// What the operating system says about this process, for metrics.
package struct ProcessFigures: Sendable, Equatable {
    package var cpuSeconds = 0.0
    package var residentBytes = 0
    package var openDescriptors = 0
    package var startSecondsSince1970 = 0.0

    package static func read() -> ProcessFigures {
        var figures = ProcessFigures()
        var usage = rusage()
        if getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage) == 0 {
            figures.cpuSeconds =
                Double(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
                + Double(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6
        }
        if let text = try? Files.read("/proc/self/statm") {
            let words = text.split(separator: " ")
            if words.count > 1, let pages = Int(words[1]) {
                figures.residentBytes = pages * Int(sysconf(Int32(_SC_PAGESIZE)))
            }
        }
        figures.openDescriptors = Files.entries(of: "/proc/self/fd").count
        figures.startSecondsSince1970 = ProcessFigures.started
        return figures
    }

    private static let started: Double = {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        return Double(now.tv_sec)
    }()
}
