import CLinux
import Glibc

/// Starting and signalling a process; never waits.
package struct ChildProcess: Equatable, Sendable {
    package let pid: Int32

    /// In a process group of its own, so that Ctrl-C at the terminal reaches only the supervisor, which
    /// then stops its nodes in order. Output is appended to `log`.
    package static func start(
        _ executable: String, _ arguments: [String], log: String
    ) throws(SystemError) -> ChildProcess {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0o644)
        posix_spawn_file_actions_adddup2(&actions, 1, 2)

        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP))

        var words = ([executable] + arguments).map { strdup($0) }
        words.append(nil)
        defer { for word in words { free(word) } }
        var pid: pid_t = 0
        let code = posix_spawn(&pid, executable, &actions, &attributes, words, environ)
        guard code == 0 else { throw SystemError("cannot start \(executable)", code: code) }
        return ChildProcess(pid: pid)
    }

    package func signal(_ number: Int32) { _ = kill(pid, number) }

    /// For `polder serve` under `polder dev`: ends when the supervisor ends, however it ends.
    /// False: it has ended already.
    package static func endWithParent(_ parent: Int32) -> Bool {
        _ = polder_die_with_parent(SIGKILL)
        return getppid() == parent
    }

    package struct Ended: Equatable, Sendable {
        package let pid: Int32
        package let exitCode: Int32?
        package let signal: Int32?
        package var description: String {
            if let exitCode { return "exit code \(exitCode)" }
            return "signal \(signal ?? 0)"
        }
    }

    /// Children that have ended since the last call.
    package static func reap() -> [Ended] {
        var ended: [Ended] = []
        while true {
            var status: Int32 = 0
            let pid = waitpid(-1, &status, WNOHANG)
            guard pid > 0 else { return ended }
            let signal = status & 0x7F
            ended.append(
                Ended(
                    pid: pid, exitCode: signal == 0 ? (status >> 8) & 0xFF : nil,
                    signal: signal == 0 ? nil : signal))
        }
    }
}
