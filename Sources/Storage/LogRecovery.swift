package import Primitives

/// What a node's log segments hold, read in order.
package struct LogRecovery {
    struct Segment {
        var number: UInt64
        /// Of its last valid batch.
        var end: Int
        var fileBytes: Int
        /// Highest accepted slot of each group in it.
        var highest: [GroupID: Slot] = [:]
    }
    struct Group {
        var promised = Ballot.zero
        var truncated = Slot.zero
        var decided = Slot.zero
        var accepted: [Slot: RestoredLog.Accepted] = [:]
    }
    private(set) var segments: [Segment] = []
    private(set) var groups: [GroupID: Group] = [:]

    package var restored: [GroupID: RestoredLog] {
        groups.mapValues { group in
            RestoredLog(
                promised: group.promised, truncatedThrough: group.truncated,
                accepted: group.accepted.values.filter { $0.slot > group.truncated }
                    .sorted { $0.slot < $1.slot }, decidedThrough: group.decided)
        }
    }

    /// `numbers` ascending.
    package static func read(
        _ directory: String, _ numbers: [UInt64], identity: NodeIdentity
    ) throws(StorageError) -> LogRecovery {
        var recovery = LogRecovery()
        for (i, number) in numbers.enumerated() {
            let path = directory + "/" + LogFormat.name(of: number)
            if i > 0 && number != numbers[i - 1] + 1 {
                let missing = LogFormat.name(of: numbers[i - 1] + 1)
                throw .damaged(file: directory + "/" + missing, offset: 0, reason: "segment is missing")
            }
            var content = try SegmentContent(path)
            try recovery.read(&content, number, path, identity, directory)
        }
        return recovery
    }

    private mutating func read(
        _ file: inout SegmentContent, _ number: UInt64, _ path: String, _ identity: NodeIdentity,
        _ directory: String
    ) throws(StorageError) {
        let header = try Self.header(file.bytes, path, identity)
        guard header.segment == number else {
            throw .damaged(file: path, offset: 16, reason: "is segment \(header.segment)")
        }
        if let previous = segments.last, previous.end < header.previousEnd {
            // This segment was begun after the one before had been synced through `previousEnd`.
            throw .damaged(
                file: directory + "/" + LogFormat.name(of: previous.number), offset: previous.end,
                reason: "no valid batch, but the log had been synced through \(header.previousEnd)")
        }
        var segment = Segment(number: number, end: LogFormat.headerBytes, fileBytes: file.fileBytes)
        while let batch = file.batch(at: segment.end, segment: number) {
            try apply(batch, to: &segment, path)
            segment.end = batch.end
        }
        // A segment gets its name when its checkpoint is synced, so it has at least that one.
        guard segment.end > LogFormat.headerBytes else {
            throw .damaged(file: path, offset: segment.end, reason: "no valid checkpoint batch")
        }
        try Self.checkTail(&file, segment, path)
        groups = groups.mapValues { group in
            var kept = group
            kept.accepted = group.accepted.filter { $0.key > group.truncated }
            return kept
        }
        segments.append(segment)
    }

    private static func header(
        _ file: [UInt8], _ path: String, _ identity: NodeIdentity
    ) throws(StorageError) -> LogFormat.Header {
        let header: LogFormat.Header
        do throws(LogFormat.HeaderFault) {
            header = try LogFormat.header(file)
        } catch {
            switch error {
            case .damaged(let reason): throw .damaged(file: path, offset: 0, reason: reason)
            case .newer(let version):
                throw .newer("\(path) has format \(version); this build knows \(LogFormat.version)")
            }
        }
        guard header.cluster == identity.cluster, header.region == identity.region,
            header.node == identity.node
        else {
            throw .foreign(
                "\(path) belongs to node \(header.node) of region \(header.region) of cluster "
                    + String(header.cluster, radix: 16))
        }
        return header
    }

    /// A torn tail is one that no later valid batch knows to have been synced; anything else is
    /// damage (protocol-rules.md S21).
    private static func checkTail(
        _ file: inout SegmentContent, _ segment: Segment, _ path: String
    ) throws(StorageError) {
        var offset = segment.end + 8
        while let next = LogFormat.batchMagic(in: file.bytes, from: offset) {
            offset = next
            if let later = file.batch(at: offset, segment: segment.number),
                later.synced > .init(segment: segment.number, offset: segment.end)
            {
                throw .damaged(
                    file: path, offset: segment.end,
                    reason: "no valid batch, but the one at \(offset) says that the log had been "
                        + "synced through \(later.synced.offset)")
            }
            offset += 8
        }
    }

    private mutating func apply(
        _ batch: LogFormat.Batch, to segment: inout Segment, _ path: String
    ) throws(StorageError) {
        var reader = ByteReader(batch.payload)
        do throws(DecodingError) {
            for _ in 0..<batch.count { apply(try reader.logRecord(), to: &segment) }
            try reader.expectEnd()
        } catch {
            // The checksum was right: a bug or a format that we do not know, not a bad disk.
            throw .damaged(file: path, offset: segment.end, reason: "undecodable: \(error.what)")
        }
    }

    private mutating func apply(_ record: LogRecord, to segment: inout Segment) {
        switch record {
        case .promise(let id, let ballot):
            groups[id, default: Group()].promised.raise(to: ballot)
        case .truncate(let id, let slot):
            groups[id, default: Group()].truncated.raise(to: slot)
        case .decided(let id, let slot):
            groups[id, default: Group()].decided.raise(to: slot)
        case .accept(let id, let slot, let ballot, let entry):
            // The payload is a window on the whole segment: keep only its own bytes.
            let own = LogEntry(
                term: entry.term, number: entry.number, kind: entry.kind,
                payload: entry.payload.compact())
            groups[id, default: Group()].accepted[slot] = .init(slot: slot, ballot: ballot, entry: own)
            groups[id]?.promised.raise(to: ballot)
            segment.highest[id, default: .zero].raise(to: slot)
        }
    }
}

/// A segment in memory, without the zeros at its end: most of a new one is zeros, and to have them in memory
/// costs a start more than to read them.
struct SegmentContent {
    private(set) var bytes: [UInt8]
    let fileBytes: Int

    private static let chunkBytes = 1 << 20

    init(_ path: String) throws(StorageError) {
        (bytes, fileBytes) = try Posix.readFile(path, withoutZerosFrom: Self.chunkBytes)
        // A header at the end is whole, and may end in zeros.
        extend(to: min(fileBytes, bytes.count + LogFormat.headerBytes))
    }

    /// See `LogFormat.batch`; one that ends in zeros gets them.
    mutating func batch(at offset: Int, segment: UInt64) -> LogFormat.Batch? {
        if let end = LogFormat.endOfBatch(in: bytes, at: offset), end > bytes.count, end <= fileBytes {
            extend(to: end)
        }
        return LogFormat.batch(in: bytes, at: offset, segment: segment)
    }

    private mutating func extend(to count: Int) {
        bytes.append(contentsOf: repeatElement(0, count: count - bytes.count))
    }
}

extension Comparable {
    mutating func raise(to other: Self) {
        if other > self { self = other }
    }
}
