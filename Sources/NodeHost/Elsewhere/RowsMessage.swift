package import Primitives

/// What a host asks another one of its region, whose replicas hold rows that its own do not
/// (docs/decisions/0016). Everything is asked of one revision, which never changes any more.
package enum RowsQuestion: Hashable, Sendable {
    /// Live rows in the order of their keys, from the range's first key on: a page.
    case rows(KeyRange, limit: Int, keysOnly: Bool)
    /// How many live rows.
    case count(KeyRange)
    /// Whole revisions above `after`: a page. `withPrevious`: and what their rows replaced.
    case changes(after: Revision, withPrevious: Bool)
    /// Of the history above `compacted`, the replica's part of HashKV.
    case hash(compacted: Revision)
    case leases
    case keys(of: LeaseID)
    /// And for how many seconds each was granted.
    case leaseTimes
}

package enum RowsAnswer: Equatable, Sendable {
    /// `isWhole`: there are no more behind them.
    case rows([Row], isWhole: Bool)
    case count(Int64)
    /// Everything through here is in them.
    case changes([RevisionChanges], through: Revision, previous: [Row])
    case hash(UInt32)
    case leases([LeaseID])
    case keys([Bytes])
    case leaseTimes([LeaseID: Int64])
    /// `.elsewhere`: this node does not serve all of what was asked for.
    case refused(RequestError)
}

/// Frames 19 between hosts. Numbers are the asker's.
package enum RowsMessage: Equatable, Sendable {
    case ask(number: UInt64, at: Revision, HashRanges, RowsQuestion)
    case answer(number: UInt64, RowsAnswer)

    static let rowsMax = 1_000
    static let bytesMax = 256 << 10
    private static let rangesMax = PartitionMap.partitionsMax

    package func encoded() -> Bytes {
        var writer = HostFrame.begin(.rows)
        switch self {
        case .ask(let number, let revision, let hashes, let question):
            writer.byte(1)
            writer.varint(number)
            writer.id(revision)
            writer.varint(hashes.ranges.count)
            for range in hashes.ranges { writer.hashRange(range) }
            Self.encode(question, into: &writer)
        case .answer(let number, let answer):
            writer.byte(2)
            writer.varint(number)
            Self.encode(answer, into: &writer)
        }
        return Bytes(writer.bytes)
    }

    private static func encode(_ question: RowsQuestion, into writer: inout ByteWriter) {
        switch question {
        case .rows(let range, let limit, let keysOnly):
            writer.byte(1)
            writer.bytes(range.key)
            writer.bytes(range.end)
            writer.varint(limit)
            writer.bool(keysOnly)
        case .count(let range):
            writer.byte(2)
            writer.bytes(range.key)
            writer.bytes(range.end)
        case .changes(let after, let withPrevious):
            writer.byte(3)
            writer.id(after)
            writer.bool(withPrevious)
        case .hash(let compacted):
            writer.byte(4)
            writer.id(compacted)
        case .leases: writer.byte(5)
        case .keys(let lease):
            writer.byte(6)
            writer.signed(lease.rawValue)
        case .leaseTimes: writer.byte(7)
        }
    }

    private static func encode(_ answer: RowsAnswer, into writer: inout ByteWriter) {
        switch answer {
        case .rows(let rows, let isWhole):
            writer.byte(1)
            writer.rows(rows)
            writer.bool(isWhole)
        case .count(let count):
            writer.byte(2)
            writer.signed(count)
        case .changes(let changes, let through, let previous):
            writer.byte(3)
            writer.varint(changes.count)
            for change in changes {
                writer.id(change.revision)
                writer.rows(change.rows)
            }
            writer.id(through)
            writer.rows(previous)
        case .hash(let hash):
            writer.byte(4)
            writer.fixed32(hash)
        case .leases(let leases):
            writer.byte(5)
            writer.varint(leases.count)
            for lease in leases { writer.signed(lease.rawValue) }
        case .keys(let keys):
            writer.byte(6)
            writer.varint(keys.count)
            for key in keys { writer.bytes(key) }
        case .leaseTimes(let times):
            writer.byte(8)
            writer.varint(times.count)
            for (lease, seconds) in times.sorted(by: { $0.key < $1.key }) {
                writer.signed(lease.rawValue)
                writer.signed(seconds)
            }
        case .refused(let error):
            writer.byte(7)
            writer.byte(error.rawValue)
        }
    }

    package init(_ reader: inout ByteReader) throws(DecodingError) {
        switch try reader.byte() {
        case 1:
            let number = try reader.varint()
            let revision: Revision = try reader.id()
            let count = try reader.count(atLeast: 16)
            guard count <= Self.rangesMax else { throw DecodingError("\(count) ranges of hashes") }
            var ranges: [HashRange] = []
            for _ in 0..<count { ranges.append(try reader.hashRange()) }
            self = .ask(number: number, at: revision, HashRanges(ranges), try Self.question(&reader))
        case 2: self = .answer(number: try reader.varint(), try Self.answer(&reader))
        case let tag: throw DecodingError("message \(tag) about rows")
        }
        try reader.expectEnd()
    }

    private static func question(_ reader: inout ByteReader) throws(DecodingError) -> RowsQuestion {
        switch try reader.byte() {
        case 1:
            let range = KeyRange(key: try reader.bytes(), end: try reader.bytes())
            let limit = try reader.varint()
            return .rows(range, limit: Int(min(limit, UInt64(rowsMax))), keysOnly: try reader.bool())
        case 2: return .count(KeyRange(key: try reader.bytes(), end: try reader.bytes()))
        case 3: return .changes(after: try reader.id(), withPrevious: try reader.bool())
        case 4: return .hash(compacted: try reader.id())
        case 5: return .leases
        case 6: return .keys(of: LeaseID(try reader.signed()))
        case 7: return .leaseTimes
        case let tag: throw DecodingError("question \(tag) about rows")
        }
    }

    private static func answer(_ reader: inout ByteReader) throws(DecodingError) -> RowsAnswer {
        switch try reader.byte() {
        case 1: return .rows(try reader.rows(), isWhole: try reader.bool())
        case 2: return .count(try reader.signed())
        case 3:
            var changes: [RevisionChanges] = []
            for _ in 0..<(try reader.count()) {
                changes.append(RevisionChanges(revision: try reader.id(), rows: try reader.rows()))
            }
            return .changes(changes, through: try reader.id(), previous: try reader.rows())
        case 4: return .hash(try reader.fixed32())
        case 5:
            var leases: [LeaseID] = []
            for _ in 0..<(try reader.count()) { leases.append(LeaseID(try reader.signed())) }
            return .leases(leases)
        case 6:
            var keys: [Bytes] = []
            for _ in 0..<(try reader.count()) { keys.append(try reader.bytes()) }
            return .keys(keys)
        case 7:
            let code = try reader.byte()
            guard let error = RequestError(rawValue: code) else { throw DecodingError("error \(code)") }
            return .refused(error)
        case 8:
            var times: [LeaseID: Int64] = [:]
            for _ in 0..<(try reader.count(atLeast: 2)) { times[LeaseID(try reader.signed())] = try reader.signed() }
            return .leaseTimes(times)
        case let tag: throw DecodingError("answer \(tag) about rows")
        }
    }
}

extension ByteWriter {
    fileprivate mutating func rows(_ rows: [Row]) {
        varint(rows.count)
        for row in rows { self.row(row) }
    }
}

extension ByteReader {
    fileprivate mutating func rows() throws(DecodingError) -> [Row] {
        var rows: [Row] = []
        for _ in 0..<(try count()) { rows.append(try row()) }
        return rows
    }
}
