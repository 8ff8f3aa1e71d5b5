import Dispatch
import Foundation
import Glibc
import Primitives

/// `polder probe`.
package enum ProbeCommand {
    /// Probes until the time is up, or until SIGINT or SIGTERM: both end it in order.
    package static func run(
        _ options: ProbeOptions, progress: @escaping @Sendable (String) -> Void = { _ in }
    ) async throws {
        let runner = try ProbeRunner(options)
        let work = Task { try await runner.run() }
        let signals = Interrupt { work.cancel() }
        let started = SystemClock.now()
        let lines = Task {
            while !Task.isCancelled {
                try await Task.sleep(for: .seconds(5))
                // What is not recorded is not worth sending; `run` throws the reason.
                if runner.isLogBroken { work.cancel() }
                let now = runner.progress
                let seconds = SystemClock.now().since(started).nanoseconds / 1_000_000_000
                progress("\(seconds) s: \(now.probes) probes, \(now.failures) failed")
            }
        }
        defer {
            lines.cancel()
            signals.cancel()
        }
        try await work.value
        let total = runner.progress
        progress("\(total.probes) probes, \(total.failures) failed, in \(options.out)")
    }
}

/// Calls `body` on the first SIGINT or SIGTERM; a second one ends the process as usual.
package final class Interrupt: @unchecked Sendable {
    // Unchecked: the sources are set up here and cancelled once; libdispatch locks them.
    private let sources: [any DispatchSourceSignal]

    package init(_ body: @escaping @Sendable () -> Void) {
        sources = [SIGINT, SIGTERM].map { number in
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler {
                signal(number, SIG_DFL)
                body()
            }
            source.resume()
            return source
        }
    }

    package func cancel() {
        for source in sources { source.cancel() }
        signal(SIGINT, SIG_DFL)
        signal(SIGTERM, SIG_DFL)
    }
}

enum Host {
    static func name() -> String {
        let name = ProcessInfo.processInfo.hostName
        return name.isEmpty ? "prober" : name
    }
}
