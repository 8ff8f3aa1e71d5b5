import Glibc
import Primitives

/// The files of the log. Confined to the log's thread once that runs.
final class LogWriter {
    struct Calls: Sendable {
        /// Replaced by tests of failing disks.
        var sync: @Sendable (Int32) -> Int32 = { fdatasync($0) }
    }

    private let directory: String
    private let identity: NodeIdentity
    private let options: WriteAheadLog.Options
    private let calls: Calls
    /// Oldest first; the last one is written to.
    private var segments: [LogRecovery.Segment]
    private var promised: [GroupID: Ballot]
    private var truncated: [GroupID: Slot]
    private var file: Int32 = -1
    /// Nanoseconds, a mean that forgets; a disk counts as slow until it has shown otherwise.
    private var recentSync = LogWriter.quickSync
    private static let quickSync: UInt64 = 400_000
    private static let quickBytes = 64 << 10
    private var synced = LogFormat.Position(segment: 0, offset: 0)
    private var buffer = ByteWriter(capacity: 1 << 20)
    private let pool: SegmentPool
    let watch = SyncWatch()
    private(set) var metrics = WriteAheadLog.Metrics()

    /// The spare's blocks are allocated: while there is one, a roll cannot meet a full disk.
    var hasReserve: Bool { pool.hasReserve }
    private var current: Int { segments.count - 1 }

    init(
        _ directory: String, identity: NodeIdentity, options: WriteAheadLog.Options, calls: Calls,
        recovery: LogRecovery
    ) throws(StorageError) {
        self.directory = directory
        self.identity = identity
        self.options = options
        self.calls = calls
        segments = recovery.segments
        promised = recovery.groups.mapValues(\.promised)
        truncated = recovery.groups.mapValues(\.truncated)
        // Without a segment nobody can say which numbers a spare has had.
        pool = try SegmentPool(
            directory, segmentBytes: options.segmentBytes, keepsSpares: !recovery.segments.isEmpty)
        do throws(StorageError) {
            try cutTail()
            try roll()
            try freeSegments()
        } catch {
            pool.close()
            throw error
        }
    }

    /// The bytes after the last valid batch go, so that a later reader cannot take them for anything.
    private func cutTail() throws(StorageError) {
        guard let last = segments.last, last.fileBytes != last.end else { return }
        let path = path(of: last.number)
        let fd = try Posix.open(path, O_RDWR)
        defer { Glibc.close(fd) }
        guard ftruncate(fd, off_t(last.end)) == 0, fsync(fd) == 0 else {
            throw Posix.failure("cannot cut", path)
        }
        segments[current].fileBytes = last.end
    }

    // MARK: Appending

    /// Writes and syncs. After it throws, nothing more may be written (protocol-rules.md S21: a
    /// failed sync says nothing about which bytes are on the disk, nor does the next one).
    func append(_ records: [LogRecord]) throws(StorageError) {
        if segments[current].end >= options.segmentBytes { try roll() }
        encode(records, segments[current])
        if segments[current].end + buffer.count > options.segmentBytes,
            segments[current].end > LogFormat.headerBytes, !segments[current].highest.isEmpty
        {
            try roll()
            encode(records, segments[current])
        }
        let path = path(of: segments[current].number)
        try Posix.write(buffer.bytes, to: file, at: segments[current].end, path: path)
        try sync(file, path)
        segments[current].end += buffer.count
        segments[current].fileBytes = max(segments[current].fileBytes, segments[current].end)
        synced = .init(segment: segments[current].number, offset: segments[current].end)
        metrics.appendedBytes += UInt64(buffer.count)
        var truncates = false
        for record in records { note(record, &truncates) }
        if truncates { try freeSegments() }
    }

    /// `append` would be one write into this segment and one sync, and syncs have been fast lately: a
    /// thread that waits for it loses less than it costs to wake another one and to be woken again.
    func isQuick(_ records: [LogRecord]) -> Bool {
        guard recentSync < Self.quickSync, hasReserve else { return false }
        var bytes = 4096
        for record in records {
            if case .truncate = record { return false }
            bytes += record.roughBytes
        }
        return bytes < Self.quickBytes && segments[current].end + bytes < options.segmentBytes
    }

    private func encode(_ records: [LogRecord], _ segment: LogRecovery.Segment) {
        buffer.reset()
        var first = 0
        while first < records.count {
            var bytes = 0, next = first
            repeat {
                bytes += records[next].roughBytes
                next += 1
            } while next < records.count && bytes + records[next].roughBytes <= options.batchBytesMax
            let at = LogFormat.Position(segment: segment.number, offset: segment.end + buffer.count)
            LogFormat.append(records[first..<next], at: at, synced: synced, to: &buffer)
            first = next
        }
    }

    private func note(_ record: LogRecord, _ truncates: inout Bool) {
        switch record {
        case .promise(let group, let ballot): promised[group, default: .zero].raise(to: ballot)
        case .truncate(let group, let slot):
            truncated[group, default: .zero].raise(to: slot)
            truncates = true
        case .decided: break
        case .accept(let group, let slot, let ballot, _):
            promised[group, default: .zero].raise(to: ballot)
            segments[current].highest[group, default: .zero].raise(to: slot)
        }
    }

    private func sync(_ fd: Int32, _ path: String) throws(StorageError) {
        let before = Posix.monotonicNanoseconds()
        watch.began(at: before)
        defer { watch.ended() }
        let delay = watch.delayNanoseconds
        if delay > 0 { usleep(UInt32(clamping: delay / 1000)) }
        guard calls.sync(fd) == 0 else { throw Posix.failure("cannot sync", path) }
        let spent = Posix.monotonicNanoseconds() - before
        recentSync = (recentSync * 7 + spent) / 8
        metrics.syncs += 1
        metrics.syncNanoseconds += spent
        let bucket = UInt64.bitWidth - (spent / 1000).leadingZeroBitCount
        metrics.syncHistogram[min(bucket, metrics.syncHistogram.count - 1)] += 1
    }

    // MARK: Segments

    private func path(of segment: UInt64) -> String { directory + "/" + LogFormat.name(of: segment) }

    /// Begins a segment. It is written as the spare and gets its name when header and checkpoint are
    /// synced: a segment with a name and without a valid beginning is damage, never a crash.
    private func roll() throws(StorageError) {
        let number = (segments.last?.number ?? 0) + 1
        let sparePath = try pool.take()
        let fd = try Posix.open(sparePath, O_RDWR)
        let header = LogFormat.Header(
            segment: number, cluster: identity.cluster, region: identity.region,
            node: identity.node, previousEnd: segments.last?.end ?? 0)
        var writer = ByteWriter(capacity: 4096)
        writer.raw(LogFormat.encode(header))
        // Promises and truncation points again, so that no older segment is needed for them (S21).
        let known = Set(promised.keys).union(truncated.keys).sorted()
        let records = known.flatMap { group -> [LogRecord] in
            [.promise(group, promised[group] ?? .zero), .truncate(group, truncated[group] ?? .zero)]
        }
        LogFormat.append(
            records[...], at: .init(segment: number, offset: LogFormat.headerBytes), synced: synced,
            to: &writer)
        try Posix.write(writer.bytes, to: fd, at: 0, path: sparePath)
        try sync(fd, sparePath)
        guard rename(sparePath, path(of: number)) == 0 else {
            throw Posix.failure("cannot rename", sparePath)
        }
        try Posix.syncDirectory(directory)
        if file >= 0 { Glibc.close(file) }
        file = fd
        segments.append(
            .init(
                number: number, end: writer.count, fileBytes: max(options.segmentBytes, writer.count)))
        synced = .init(segment: number, offset: writer.count)
    }

    /// Whether there is space again for a spare segment.
    func retryReserve() { pool.retry() }

    /// Oldest first, and only those: the numbers of the segments have no gaps. The checkpoint of the
    /// current segment is synced, so promises and truncation points of the freed ones stay.
    private func freeSegments() throws(StorageError) {
        while segments.count > 1, isDead(segments[0]) {
            try pool.give(path(of: segments[0].number), bytes: segments[0].fileBytes)
            segments.removeFirst()
        }
    }

    private func isDead(_ segment: LogRecovery.Segment) -> Bool {
        segment.highest.allSatisfy { $0.value <= truncated[$0.key] ?? .zero }
    }

    func currentMetrics() -> WriteAheadLog.Metrics {
        var result = metrics
        result.segments = segments.count
        result.bytes = segments.reduce(0) { $0 + UInt64($1.fileBytes) }
        result.bytes += pool.readyBytes
        return result
    }

    func close() {
        if file >= 0 { Glibc.close(file) }
        file = -1
        pool.close()
    }
}

extension LogRecord {
    var roughBytes: Int {
        if case .accept(_, _, _, let entry) = self { return 64 + entry.payload.count }
        return 32
    }
}
