/// One entry of a group's log. `term` is the ballot of the leadership that *first* proposed it and
/// `number` its number in that leadership; a later leader re-proposes both unchanged
/// (protocol-rules.md S1). Fillers and `begin` have number 0, everything after counts from 1.
public struct LogEntry: Hashable, Sendable {
    public enum Kind: UInt8, Sendable {
        /// Fills a hole that phase 1 found.
        case filler = 0
        /// First entry of a leadership; its payload belongs to the partition (it names the epoch).
        case begin = 1
        case normal = 2
        /// A new configuration of the group. Its payload is consensus's own, its number 0: the numbers
        /// are those of the proposer's entries.
        case configuration = 3
    }
    public let term: Term
    public let number: UInt64
    public let kind: Kind
    public let payload: Bytes
    public init(term: Term, number: UInt64, kind: Kind, payload: Bytes) {
        self.term = term
        self.number = number
        self.kind = kind
        self.payload = payload
    }
}

/// What a node's write-ahead log holds, for all of its groups.
public enum LogRecord: Hashable, Sendable {
    /// This acceptor follows no lower ballot any more.
    case promise(GroupID, Ballot)
    /// Accepted at `slot` in `ballot` (which may be above the entry's own term). Replaces what was
    /// recorded for that slot before.
    case accept(GroupID, Slot, Ballot, LogEntry)
    /// Everything through `slot` is in the flushed store and needed no longer.
    case truncate(GroupID, Slot)
    /// What is recorded for the slots through this one is chosen: a configuration among them counts
    /// after a restart, whatever the store has flushed (S15).
    case decided(GroupID, Slot)

    public var group: GroupID {
        switch self {
        case .promise(let g, _), .accept(let g, _, _, _), .truncate(let g, _), .decided(let g, _): g
        }
    }
}

/// One group's part of a write-ahead log, read back at start.
public struct RestoredLog: Equatable, Sendable {
    public struct Accepted: Equatable, Sendable {
        public let slot: Slot
        public let ballot: Ballot
        public let entry: LogEntry
        public init(slot: Slot, ballot: Ballot, entry: LogEntry) {
            self.slot = slot
            self.ballot = ballot
            self.entry = entry
        }
    }
    public var promised: Ballot
    public var truncatedThrough: Slot
    /// In slot order, above `truncatedThrough`; slots may be missing.
    public var accepted: [Accepted]
    public var decidedThrough: Slot
    public init(
        promised: Ballot = .zero, truncatedThrough: Slot = .zero, accepted: [Accepted] = [],
        decidedThrough: Slot = .zero
    ) {
        self.promised = promised
        self.truncatedThrough = truncatedThrough
        self.accepted = accepted
        self.decidedThrough = decidedThrough
    }
}

/// A change of the state store. The changes of one turn are applied in order and atomically.
public enum StoreChange: Hashable, Sendable {
    case putRow(KeyspaceID, Row)
    /// An aborted transaction's row goes, with its index entry (protocol-rules.md C1).
    case removeRow(KeyspaceID, key: Bytes, revision: Revision, sub: UInt32)
    /// A group's own record (leases, request table, prepared transactions, scalars): opaque here.
    case putRecord(GroupID, key: Bytes, value: Bytes)
    case removeRecord(GroupID, key: Bytes)
    /// The group's log is applied through `slot`.
    case applied(GroupID, Slot)
    /// The same, and since the last `applied` nothing has been written for the group but rows that its log
    /// puts again as they are: its records need not be written at once, but before the store is made durable,
    /// copied, or its floor is raised. Until then the store holds them as they were at the last `applied`.
    case position(GroupID, Slot)
    /// The node has no replica of the group any more: its records go, and its rows, which are these hashes'.
    /// What is left says through which slot its log is lost.
    case drop(GroupID, HashRanges, lostThrough: Slot)
}

extension ByteWriter {
    public mutating func logEntry(_ entry: LogEntry) {
        ballot(entry.term)
        varint(entry.number)
        byte(entry.kind.rawValue)
        bytes(entry.payload)
    }
    public mutating func logRecord(_ record: LogRecord) {
        switch record {
        case .promise(let g, let b):
            byte(1)
            group(g)
            ballot(b)
        case .accept(let g, let slot, let b, let entry):
            byte(2)
            group(g)
            id(slot)
            ballot(b)
            logEntry(entry)
        case .truncate(let g, let slot):
            byte(3)
            group(g)
            id(slot)
        case .decided(let g, let slot):
            byte(4)
            group(g)
            id(slot)
        }
    }
}

extension ByteReader {
    public mutating func logEntry() throws(DecodingError) -> LogEntry {
        let term = try ballot(), number = try varint(), tag = try byte()
        guard let kind = LogEntry.Kind(rawValue: tag) else { throw DecodingError("entry kind \(tag)") }
        return LogEntry(term: term, number: number, kind: kind, payload: try bytes())
    }
    public mutating func logRecord() throws(DecodingError) -> LogRecord {
        switch try byte() {
        case 1: return .promise(try group(), try ballot())
        case 2: return .accept(try group(), try id(), try ballot(), try logEntry())
        case 3: return .truncate(try group(), try id())
        case 4: return .decided(try group(), try id())
        case let tag: throw DecodingError("log record \(tag)")
        }
    }
}
