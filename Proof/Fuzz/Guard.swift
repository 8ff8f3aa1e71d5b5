import Glibc

/// What a crash or a hang leaves behind: the input that did it, as a file. The signal handlers read only
/// memory that was set up before, and call only what may be called there.
enum Guard {
    nonisolated(unsafe) private static var input = UnsafeMutablePointer<UInt8>.allocate(capacity: 1)
    nonisolated(unsafe) private static var capacity = 1
    nonisolated(unsafe) private static var count = 0
    /// Of inputs that have begun.
    nonisolated(unsafe) private static var executions: UInt64 = 0
    nonisolated(unsafe) private static var seenByTimer: UInt64 = 0
    nonisolated(unsafe) private static var ticksWithoutProgress = 0
    nonisolated(unsafe) private static var path: UnsafeMutablePointer<CChar>?
    nonisolated(unsafe) private static var ticksMax = 20

    /// `path`: where the input goes. `deadlineSeconds`: of CPU, for one input.
    static func install(path: String, deadlineSeconds: Int) {
        Self.path = strdup(path)
        ticksMax = deadlineSeconds
        for number in [SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGABRT, SIGFPE] {
            handle(number) { number in
                Guard.save()
                Guard.say("\nBROKEN: a crash; its input is at ")
                signal(number, SIG_DFL)
                raise(number)
            }
        }
        handle(SIGPROF) { _ in
            if Guard.seenByTimer != Guard.executions {
                Guard.seenByTimer = Guard.executions
                Guard.ticksWithoutProgress = 0
                return
            }
            Guard.ticksWithoutProgress += 1
            guard Guard.ticksWithoutProgress >= Guard.ticksMax else { return }
            Guard.save()
            Guard.say("\nBROKEN: a hang; its input is at ")
            _exit(3)
        }
        // CPU time, not the wall's: the machine may be busy with others.
        var timer = itimerval()
        timer.it_interval.tv_sec = 1
        timer.it_value.tv_sec = 1
        setitimer(__itimer_which_t(ITIMER_PROF.rawValue), &timer, nil)
    }

    private static func handle(_ number: Int32, _ handler: @escaping @convention(c) (Int32) -> Void) {
        var action = sigaction()
        action.__sigaction_handler.sa_handler = handler
        action.sa_flags = SA_RESTART | Int32(bitPattern: UInt32(SA_NODEFER))
        sigaction(number, &action, nil)
    }

    static func begin(_ bytes: [UInt8]) {
        if bytes.count > capacity {
            input.deallocate()
            capacity = bytes.count * 2
            input = .allocate(capacity: capacity)
        }
        bytes.withUnsafeBufferPointer { source in
            if let base = source.baseAddress { input.update(from: base, count: source.count) }
        }
        count = bytes.count
        executions &+= 1
    }

    private static func save() {
        guard let path else { return }
        let file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o644)
        guard file >= 0 else { return }
        var done = 0
        while done < count {
            let n = write(file, input + done, count - done)
            guard n > 0 else { break }
            done += n
        }
        close(file)
    }

    private static func say(_ text: StaticString) {
        _ = text.withUTF8Buffer { write(2, $0.baseAddress, $0.count) }
        if let path { _ = write(2, path, strlen(path)) }
        _ = write(2, "\n", 1)
    }

    // MARK: What an input costs

    /// CPU of this thread.
    static func cpuNanoseconds() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// The most that the process has had in memory so far.
    static func peakBytes() -> Int {
        var usage = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        return Int(usage.ru_maxrss) * 1024
    }

    static func residentBytes() -> Int {
        guard let file = fopen("/proc/self/statm", "r") else { return 0 }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 128)
        guard fgets(&line, 128, file) != nil else { return 0 }
        let fields = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            .split(separator: " ")
        return fields.count > 1 ? (Int(fields[1]) ?? 0) * Int(getpagesize()) : 0
    }
}
