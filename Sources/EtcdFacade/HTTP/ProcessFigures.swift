import Glibc

/// What the operating system counts for this process, under Prometheus' usual names. The one place of
/// this module that asks the system anything.
struct ProcessFigures {
    var cpuSeconds = 0.0
    var residentBytes: Int64 = 0
    var virtualBytes: Int64 = 0
    /// Nil: as much as there is.
    var virtualBytesMax: UInt64?
    var openFiles = 0
    var openFilesMax: UInt64 = 0

    static func now() -> ProcessFigures {
        var figures = ProcessFigures()
        var used = timespec()
        if clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used) == 0 {
            figures.cpuSeconds = Double(used.tv_sec) + Double(used.tv_nsec) / 1e9
        }
        // Pages: total, resident, ...
        let pages = firstLine(of: "/proc/self/statm").split(separator: " ").compactMap { Int64($0) }
        let pageBytes = Int64(sysconf(Int32(_SC_PAGESIZE)))
        if pages.count > 1 {
            figures.virtualBytes = pages[0] * pageBytes
            figures.residentBytes = pages[1] * pageBytes
        }
        if let folder = opendir("/proc/self/fd") {
            while readdir(folder) != nil { figures.openFiles += 1 }
            closedir(folder)
            // Not ".", "..", and the folder itself.
            figures.openFiles = max(0, figures.openFiles - 3)
        }
        var limit = rlimit()
        if getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 {
            figures.openFilesMax = UInt64(limit.rlim_cur)
        }
        if getrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit) == 0,
            limit.rlim_cur != rlim_t.max
        {
            figures.virtualBytesMax = UInt64(limit.rlim_cur)
        }
        return figures
    }

    func write(_ out: inout MetricsText) {
        out.counter(
            "process_cpu_seconds_total", "Total user and system CPU time spent in seconds.",
            cpuSeconds)
        out.gauge(
            "process_resident_memory_bytes", "Resident memory size in bytes.", residentBytes)
        out.gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", virtualBytes)
        // As the Go client writes "no limit".
        out.gauge(
            "process_virtual_memory_max_bytes",
            "Maximum amount of virtual memory available in bytes.",
            Double(virtualBytesMax ?? .max))
        out.gauge("process_open_fds", "Number of open file descriptors.", openFiles)
        out.gauge("process_max_fds", "Maximum number of open file descriptors.", openFilesMax)
        // etcd's own names for the two.
        out.gauge("os_fd_used", "The number of used file descriptors.", openFiles)
        out.gauge("os_fd_limit", "The file descriptor limit.", openFilesMax)
        if let startedAt = Self.startedAt {
            out.gauge(
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.", startedAt)
        }
    }

    /// Seconds since 1970; the 22nd field of the process's line counts clock ticks since the boot. The
    /// second one, a name in parentheses, may contain anything.
    private static let startedAt: Double? = {
        let own = firstLine(of: "/proc/self/stat").split(separator: ")").last ?? ""
        let fields = own.split(separator: " ")
        guard fields.count > 19, let ticks = Double(fields[19]) else { return nil }
        var boot = timespec(), now = timespec()
        guard clock_gettime(CLOCK_BOOTTIME, &boot) == 0, clock_gettime(CLOCK_REALTIME, &now) == 0
        else { return nil }
        let booted = Double(now.tv_sec - boot.tv_sec)
        return booted + (ticks / Double(sysconf(Int32(_SC_CLK_TCK)))).rounded()
    }()

    private static func firstLine(of path: String) -> String {
        guard let file = fopen(path, "r") else { return "" }
        defer { fclose(file) }
        var buffer = [UInt8](repeating: 0, count: 1024)
        let count = fread(&buffer, 1, buffer.count, file)
        return String(decoding: buffer.prefix(count), as: UTF8.self)
            .split(separator: "\n").first.map(String.init) ?? ""
    }
}
