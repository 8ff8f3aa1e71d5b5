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
        package init(
            onDurable: @escaping @Sendable (Ticket) -> Void,
            onFailure: @escaping @Sendable (StorageError) -> Void,
            onReserve: @escaping @Sendable (Bool) -> Void = { _ in }
        ) {
            self.onDurable = onDurable
            self.onFailure = onFailure
            self.onReserve = onReserve
        }
    }

    /// Reads all segments, cuts a torn tail, and starts a new segment. Throws `damaged`, `foreign`,
    /// `newer`, `noSpace` or `io`.
    package static func open(
        directory: String, identity: NodeIdentity, options: Options = Options(), handlers: Handlers
    ) throws(StorageError) -> (log: WriteAheadLog, groups: [GroupID: RestoredLog]) { fatalError() }

    /// Tickets must ascend. A `.truncate` record also frees segments, once it is durable.
    package func append(_ records: [LogRecord], ticket: Ticket) { fatalError() }

    package func metrics() -> Metrics { fatalError() }

    /// Writes what is queued, syncs, and ends the thread.
    package func close() { fatalError() }

    private init() {}
}
