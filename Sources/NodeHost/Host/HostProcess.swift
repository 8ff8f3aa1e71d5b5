import CLinux
import EtcdAPI
import Glibc
import Logging
import NIOCore
import NIOPosix
import Primitives
import Synchronization
import Transport

/// `polder serve`: one node as one process. The main thread only waits for signals; everything happens
/// on the core's event loop.
package enum HostProcess {
    package struct Outcome: Equatable, Sendable {
        package let code: Int32
        package let message: String
    }

    /// For the threads that requests wait for. A sync is a sleep, and who has slept stands behind whoever uses the
    /// processor at that moment, for milliseconds, unless the kernel knows that it would be short
    /// (docs/performance.md, "The kernel's scheduler").
    package static func askForShortSlices() { polder_ask_for_slices(500_000) }

    /// For a start, which takes a tenth of a second at a stretch: other nodes of the machine go first.
    private static func askForLongSlices() { polder_ask_for_slices(20_000_000) }

    static var processorChecksum: CRC32C.Step? { polder_crc32c() }

    /// Returns when the node has stopped, or cannot go on.
    package static func run(
        _ configuration: HostConfiguration, onStarted: (HostConfiguration) throws -> Void = { _ in }
    ) -> Outcome {
        CRC32C.processor = processorChecksum
        askForLongSlices()
        let logger = configuration.makeLogger()
        guard let signals = Signals.make() else {
            return Outcome(code: 3, message: "cannot receive signals")
        }
        let end = HostEnd()
        // One loop: on a small machine everything but syncing happens on it (architecture.md, Threads).
        let ticks = LoopTicks()
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1, metricsDelegate: ticks)
        let loop = group.next()
        var started: Host?
        let host: Host
        var configuration = configuration
        do {
            guard
                try SpaceWait.run(
                    configuration, loop: loop, logger: logger, isStopped: { Signals.stops(signals) })
            else { return Outcome(code: 0, message: "") }
            guard
                let identity = try Entrance.identity(
                    of: &configuration, loop: loop, logger: logger,
                    isStopped: { Signals.stops(signals) })
            else { return Outcome(code: 0, message: "") }
            guard
                try StoreRepair.run(
                    configuration, identity: identity, loop: loop, logger: logger,
                    isStopped: { Signals.stops(signals) })
            else { return Outcome(code: 0, message: "") }
            let whole = configuration
            host = try loop.submit {
                try Host(whole, identity: identity, loop: loop, ticks: ticks, logger: logger, end: end)
            }.wait()
            started = host
            // After `Host`, which starts the store's threads: those have time.
            loop.execute { askForShortSlices() }
            try loop.flatSubmit { host.start() }.wait()
            try onStarted(whole)
            // From now on this thread waits for a signal.
            askForShortSlices()
        } catch {
            let failure = error as? HostFailure ?? HostFailure(code: 3, "\(error)")
            logger.critical("cannot start", metadata: ["reason": "\(failure.message)"])
            recover(from: failure, configuration, peers: peers(of: started, loop), logger: logger)
            return Outcome(code: failure.code, message: failure.message)
        }
        while true {
            switch end.wait(orSignal: signals) {
            case .failed(let failure):
                recover(from: failure, configuration, peers: peers(of: host, loop), logger: logger)
                return Outcome(code: failure.code, message: failure.message)
            case .signal(SIGHUP):
                loop.execute { host.reload() }
            case .signal(let number):
                logger.notice("stopping", metadata: ["signal": "\(number)"])
                do {
                    try loop.flatSubmit { host.stop() }.wait()
                } catch {
                    return Outcome(code: 6, message: "\(error)")
                }
                logger.notice("stopped")
                return Outcome(code: 0, message: "")
            }
        }
    }

    private static func peers(of host: Host?, _ loop: any EventLoop) -> [PeerID: PeerAddress] {
        guard let host else { return [:] }
        // A loop that has stopped answering is not worth waiting for: then the configuration has to do.
        return (try? loop.submit { host.dialled.addresses }.wait()) ?? [:]
    }

    private enum Signals {
        static func make() -> Int32? {
            let descriptor = polder_receive_signals([SIGINT, SIGTERM, SIGHUP], 3)
            return descriptor >= 0 ? descriptor : nil
        }

        /// Waits a little; true: the process is to end.
        static func stops(_ signals: Int32) -> Bool {
            var ready = [pollfd(fd: signals, events: Int16(POLLIN), revents: 0)]
            _ = poll(&ready, 1, 20)
            let number = polder_take_signal(signals)
            return number == SIGINT || number == SIGTERM
        }
    }
}

/// Where any thread says that the node cannot go on; the first reason counts.
final class HostEnd: Sendable {
    enum Event {
        case failed(HostFailure)
        case signal(Int32)
    }

    private let failure = Mutex<HostFailure?>(nil)
    private let readable: Int32
    private let writable: Int32

    init() {
        var ends: [Int32] = [-1, -1]
        _ = pipe(&ends)
        readable = ends[0]
        writable = ends[1]
    }

    func fail(_ reason: HostFailure) {
        let isFirst = failure.withLock { held in
            guard held == nil else { return false }
            held = reason
            return true
        }
        if isFirst { ControlSocket.write("!", to: writable) }
    }

    var hasFailed: Bool { failure.withLock { $0 != nil } }

    func wait(orSignal signals: Int32) -> Event {
        while true {
            var ready = [
                pollfd(fd: readable, events: Int16(POLLIN), revents: 0),
                pollfd(fd: signals, events: Int16(POLLIN), revents: 0),
            ]
            _ = poll(&ready, 2, -1)
            if let reason = failure.withLock({ $0 }) { return .failed(reason) }
            let number = polder_take_signal(signals)
            if number != 0 { return .signal(number) }
        }
    }
}
