import Glibc
package import Primitives

/// The log shared by all groups of a node. One thread of its own collects what has been appended,
/// writes it as one batch, syncs once, and reports the highest ticket that is now durable.
package final class WriteAheadLog: Sendable {
    package struct Options: Sendable {
        /// Small segments are freed sooner; each costs a checkpoint and a spare of its size.
        package var segmentBytes = 64 << 20
        /// Largest payload of one batch; more is written as several, with one sync.
        package var batchBytesMax = 8 << 20
        package init() {}
    }

    package struct Metrics: Sendable, Equatable {
        /// Of all segments, spare ones included.
        package var bytes: UInt64 = 0
        package var segments = 0
        package var appendedBytes: UInt64 = 0
        package var syncs: UInt64 = 0
        package var syncNanoseconds: UInt64 = 0
        /// Count of syncs that took less than 2^i microseconds (and not less than 2^(i-1)).
        package var syncHistogram = [UInt64](repeating: 0, count: 24)
        package init() {}
    }

    /// Called on the log's thread. After `onFailure` nothing is ever reported durable again.
    package struct Handlers: Sendable {
        package var onDurable: @Sendable (Ticket) -> Void
        package var onFailure: @Sendable (StorageError) -> Void
        /// false: the spare segment could not be made, the disk is full; what is left of the current
        /// segment is the reserve: stop taking writes. true: it could again.
        package var onReserve: @Sendable (Bool) -> Void
        /// Called once, before anything else.
        package var onStart: @Sendable () -> Void
        package init(
            onDurable: @escaping @Sendable (Ticket) -> Void,
            onFailure: @escaping @Sendable (StorageError) -> Void,
            onReserve: @escaping @Sendable (Bool) -> Void = { _ in },
            onStart: @escaping @Sendable () -> Void = {}
        ) {
            self.onDurable = onDurable
            self.onFailure = onFailure
            self.onReserve = onReserve
            self.onStart = onStart
        }
    }

    private let shared: Shared
    private let thread: pthread_t
    private let watch: SyncWatch

    /// Reads all segments, cuts a torn tail, and starts a new segment. Throws `damaged`, `foreign`,
    /// `newer`, `noSpace` or `io`.
    package static func open(
        directory: String, identity: NodeIdentity, options: Options = Options(), handlers: Handlers
    ) throws(StorageError) -> (log: WriteAheadLog, groups: [GroupID: RestoredLog]) {
        try open(
            directory: directory, identity: identity, options: options, handlers: handlers,
            calls: LogWriter.Calls())
    }

    static func open(
        directory: String, identity: NodeIdentity, options: Options, handlers: Handlers,
        calls: LogWriter.Calls
    ) throws(StorageError) -> (log: WriteAheadLog, groups: [GroupID: RestoredLog]) {
        try Posix.makeDirectory(directory)
        let numbers = try Posix.names(in: directory).compactMap(LogFormat.segment(ofName:)).sorted()
        let recovery = try LogRecovery.read(directory, numbers, identity: identity)
        let writer = try LogWriter(
            directory, identity: identity, options: options, calls: calls, recovery: recovery)
        let shared = Shared(writer: writer, handlers: handlers)
        let thread = try Posix.startThread { shared.run() }
        return (WriteAheadLog(shared, thread, writer.watch), recovery.restored)
    }

    private init(_ shared: Shared, _ thread: pthread_t, _ watch: SyncWatch) {
        self.watch = watch
        self.shared = shared
        self.thread = thread
    }

    /// Tickets must ascend. A `.truncate` record also frees segments, once it is durable.
    package func append(_ records: [LogRecord], ticket: Ticket) { shared.append(records, ticket) }

    /// Writes and syncs on the caller's thread. False, and nothing is written: the log's thread has
    /// something to do, the disk is not a fast one at the moment, or the batch takes more than a write
    /// and a sync. Otherwise the ticket is durable; `onDurable` is not called for it.
    package func appendNow(
        _ records: [LogRecord], ticket: Ticket
    ) throws(StorageError) -> Bool {
        try shared.appendNow(records, ticket)
    }

    package func metrics() -> Metrics { shared.currentMetrics() }

    /// How long the sync that is under way has taken so far; zero: none is.
    package var syncAge: TimeSpan { TimeSpan(nanoseconds: watch.age) }

    /// A slow disk, for drills; zero ends it.
    package func delaySyncs(by span: TimeSpan) { watch.setDelay(nanoseconds: span.nanoseconds) }

    /// Writes what is queued, syncs, and ends the thread. Once.
    package func close() {
        shared.stop()
        pthread_join(thread, nil)
    }
}

extension WriteAheadLog {
    /// What the loop and the log's thread share, under one lock that neither holds while it works.
    private final class Shared: @unchecked Sendable {
        private let monitor = Monitor()
        /// The thread's; the appending caller's while the thread has nothing to do.
        private let writer: LogWriter
        private let handlers: Handlers
        private var queue: [LogRecord] = []
        private var ticket = Ticket(0)
        private var queuedTicket = Ticket(0)
        /// The thread works on what it has taken.
        private var isWriting = false
        private var stopping = false
        private var metrics: Metrics

        init(writer: LogWriter, handlers: Handlers) {
            self.writer = writer
            self.handlers = handlers
            metrics = writer.currentMetrics()
        }

        func append(_ records: [LogRecord], _ ticket: Ticket) {
            monitor.lock()
            invariant(ticket > queuedTicket, "ticket \(ticket) after \(queuedTicket)")
            let wasIdle = queuedTicket == self.ticket
            queuedTicket = ticket
            if queue.isEmpty { queue = records } else { queue.append(contentsOf: records) }
            monitor.unlock()
            // Only the first of a burst wakes: a wake of a sleeper costs more than the append.
            if wasIdle { monitor.signal() }
        }

        /// Only the caller appends and stops, so that nothing wakes the thread meanwhile.
        func appendNow(_ records: [LogRecord], _ ticket: Ticket) throws(StorageError) -> Bool {
            monitor.lock()
            invariant(ticket > queuedTicket, "ticket \(ticket) after \(queuedTicket)")
            let isFree = !isWriting && queuedTicket == self.ticket && !stopping
            guard isFree, writer.isQuick(records) else {
                monitor.unlock()
                return false
            }
            (self.ticket, queuedTicket) = (ticket, ticket)
            monitor.unlock()
            try writer.append(records)
            publish()
            return true
        }

        func stop() {
            monitor.lock()
            stopping = true
            monitor.unlock()
            monitor.signal()
        }

        func currentMetrics() -> Metrics {
            monitor.lock()
            defer { monitor.unlock() }
            return metrics
        }

        func run() {
            handlers.onStart()
            var hadReserve = true
            while true {
                if writer.hasReserve != hadReserve {
                    hadReserve = writer.hasReserve
                    handlers.onReserve(hadReserve)
                }
                guard let (records, ticket) = take() else { break }
                do throws(StorageError) {
                    if !writer.hasReserve { writer.retryReserve() }
                    if !records.isEmpty { try writer.append(records) }
                } catch {
                    handlers.onFailure(error)
                    break
                }
                publish()
                if let ticket { handlers.onDurable(ticket) }
            }
            writer.close()
        }

        /// nil: stopped and nothing left. No ticket: time to look for space again.
        private func take() -> (records: [LogRecord], ticket: Ticket?)? {
            monitor.lock()
            defer { monitor.unlock() }
            isWriting = false
            while queuedTicket == ticket {
                if stopping { return nil }
                if writer.hasReserve {
                    monitor.wait()
                } else {
                    monitor.wait(nanoseconds: 1_000_000_000)
                    if queuedTicket == ticket {
                        isWriting = !stopping
                        return stopping ? nil : ([], nil)
                    }
                }
            }
            isWriting = true
            let records = queue
            queue = []
            ticket = queuedTicket
            return (records, ticket)
        }

        private func publish() {
            let fresh = writer.currentMetrics()
            monitor.lock()
            metrics = fresh
            monitor.unlock()
        }
    }
}
