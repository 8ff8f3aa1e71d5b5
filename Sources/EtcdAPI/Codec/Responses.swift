package import Primitives

/// etcd's ResponseHeader.
package struct HeaderFields: Equatable, Sendable {
    package var clusterID: UInt64
    package var memberID: UInt64
    package var revision: Revision
    package var raftTerm: UInt64

    package init(clusterID: UInt64, memberID: UInt64, revision: Revision, raftTerm: UInt64) {
        self.clusterID = clusterID
        self.memberID = memberID
        self.revision = revision
        self.raftTerm = raftTerm
    }

    /// Of an answer inside a transaction's: only the revision.
    fileprivate init(inner revision: Revision) {
        self.init(clusterID: 0, memberID: 0, revision: revision, raftTerm: 0)
    }

    fileprivate var size: Int {
        ProtoSize.uint64(1, clusterID) + ProtoSize.uint64(2, memberID)
            + ProtoSize.int64(3, revision.rawValue) + ProtoSize.uint64(4, raftTerm)
    }
    fileprivate func write(_ writer: inout ProtoWriter) {
        writer.message(1, size)
        writer.uint64(1, clusterID)
        writer.uint64(2, memberID)
        writer.int64(3, revision.rawValue)
        writer.uint64(4, raftTerm)
    }
    /// As field 1 of its answer; a message is written even if it is empty.
    fileprivate var fieldSize: Int { ProtoSize.message(1, size) }
}

/// Everything of a WatchResponse but its events.
package struct WatchAnswer: Equatable, Sendable {
    package var watchID: Int64
    package var created = false
    package var cancelled = false
    package var compactRevision: Int64 = 0
    package var cancelReason = ""
    package var fragment = false

    package init(watchID: Int64) { self.watchID = watchID }
}

/// The frequent answers, straight from the domain's values onto the wire.
package enum ResponseCodec {
    package static func range(_ result: RangeResult, _ header: HeaderFields) -> [UInt8] {
        ProtoWriter.build(size(result, header)) { write(result, header, &$0) }
    }

    /// RangeStreamResponse: a part of a streamed range. Without a header, more and count where the part
    /// has none.
    package static func rangePart(_ result: RangeResult, _ header: HeaderFields?) -> [UInt8] {
        let inner = size(result, header)
        return ProtoWriter.build(ProtoSize.message(1, inner)) {
            $0.message(1, inner)
            write(result, header, &$0)
        }
    }

    /// A row as one of a RangeResponse's `kvs`, appended to `out`.
    package static func appendRow(_ row: RowView, withValue: Bool, to out: inout [UInt8]) {
        let value = withValue ? row.value : UnsafeRawBufferPointer(start: nil, count: 0)
        let head =
            ProtoSize.bytes(1, row.key.count) + ProtoSize.int64(2, row.createRevision.rawValue)
            + ProtoSize.int64(3, row.modRevision.rawValue) + ProtoSize.int64(4, row.version)
        let size =
            head + ProtoSize.bytes(5, value.count) + ProtoSize.int64(6, row.lease.rawValue)
        // Two tags and two lengths of up to ten bytes, three numbers, then what follows the key.
        withUnsafeTemporaryAllocation(byteCount: 96, alignment: 1) { small in
            var writer = ProtoWriter(into: small)
            writer.message(2, size)
            if row.key.count > 0 { writer.message(1, row.key.count) }
            out.append(contentsOf: writer.written)
            out.append(contentsOf: row.key)
            writer.restart()
            writer.int64(2, row.createRevision.rawValue)
            writer.int64(3, row.modRevision.rawValue)
            writer.int64(4, row.version)
            if value.count > 0 { writer.message(5, value.count) }
            out.append(contentsOf: writer.written)
            out.append(contentsOf: value)
            guard row.lease != .none else { return }
            writer.restart()
            writer.int64(6, row.lease.rawValue)
            out.append(contentsOf: writer.written)
        }
    }

    /// What stands before and behind a RangeResponse's `kvs` of `rowsBytes` bytes, gRPC's five bytes
    /// included.
    package static func rangeEnds(
        _ header: HeaderFields, rowsBytes: Int, more: Bool, count: Int64
    ) -> (head: Bytes, tail: Bytes) {
        let head = header.fieldSize
        let tail = ProtoSize.bool(3, more) + ProtoSize.int64(4, count)
        let start = ProtoWriter.build(5 + head) {
            $0.grpcPrefix(head + rowsBytes + tail)
            header.write(&$0)
        }
        let end = ProtoWriter.build(tail) {
            $0.bool(3, more)
            $0.int64(4, count)
        }
        return (Bytes(start), Bytes(end))
    }

    package static func put(previous: Row?, _ header: HeaderFields) -> [UInt8] {
        ProtoWriter.build(size(put: previous, header)) { write(put: previous, header, &$0) }
    }

    package static func delete(
        deleted: Int64, previous: [Row], _ header: HeaderFields
    ) -> [UInt8] {
        ProtoWriter.build(size(deleted, previous, header)) { write(deleted, previous, header, &$0) }
    }

    /// The headers of the inner answers carry the revision at which each was done, as in etcd: a range
    /// before the first write of its transaction saw the revision before.
    package static func transaction(
        _ result: TransactionResult, _ header: HeaderFields
    ) -> [UInt8] {
        var revisions: [Revision] = []
        var hasWritten = false
        if wrote(result) {
            collect(result, header.revision, &hasWritten, &revisions)
        }
        let inner = InnerRevisions(each: revisions, all: header.revision)
        var sizing = inner
        return ProtoWriter.build(size(result, header, &sizing)) {
            var writing = inner
            write(result, header, &writing, &$0)
        }
    }

    /// LeaseKeepAliveResponse.
    package static func keepAlive(
        _ lease: LeaseID, ttlSeconds: Int64, _ header: HeaderFields
    ) -> [UInt8] {
        let size =
            header.fieldSize + ProtoSize.int64(2, lease.rawValue) + ProtoSize.int64(3, ttlSeconds)
        return ProtoWriter.build(size) {
            header.write(&$0)
            $0.int64(2, lease.rawValue)
            $0.int64(3, ttlSeconds)
        }
    }

    // MARK: Watch

    /// One event as it stands in a WatchResponse, its tag included: encoded once for all watchers.
    package static func event(_ row: Row, previous: Row? = nil) -> Bytes {
        let value = size(event: row)
        let before = previous.map { ProtoSize.message(3, size($0)) } ?? 0
        let count = ProtoSize.uint64(1, row.isDeletion ? 1 : 0) + ProtoSize.message(2, value) + before
        return Bytes(
            ProtoWriter.build(ProtoSize.message(11, count)) {
                $0.message(11, count)
                $0.uint64(1, row.isDeletion ? 1 : 0)
                $0.message(2, value)
                write(event: row, &$0)
                if let previous { write(previous, 3, &$0) }
            })
    }

    package static func watch(
        _ answer: WatchAnswer, events: some Collection<Bytes> = EmptyCollection(),
        _ header: HeaderFields
    ) -> [UInt8] {
        var size = header.fieldSize + ProtoSize.int64(2, answer.watchID)
        size += ProtoSize.bool(3, answer.created) + ProtoSize.bool(4, answer.cancelled)
        size += ProtoSize.int64(5, answer.compactRevision)
        size += ProtoSize.bytes(6, answer.cancelReason.utf8.count)
        size += ProtoSize.bool(7, answer.fragment)
        for event in events { size += event.length }
        return ProtoWriter.build(size) {
            header.write(&$0)
            $0.int64(2, answer.watchID)
            $0.bool(3, answer.created)
            $0.bool(4, answer.cancelled)
            $0.int64(5, answer.compactRevision)
            $0.string(6, answer.cancelReason)
            $0.bool(7, answer.fragment)
            for event in events { $0.raw(event) }
        }
    }

    /// What comes before the events of a WatchResponse, behind the five bytes of its gRPC message:
    /// `rest` bytes of events follow.
    package static func watchHead(
        _ answer: WatchAnswer, _ header: HeaderFields, rest: Int
    ) -> [UInt8] {
        var size = header.fieldSize + ProtoSize.int64(2, answer.watchID)
        size += ProtoSize.bool(7, answer.fragment)
        return ProtoWriter.build(5 + size) {
            $0.grpcPrefix(size + rest)
            header.write(&$0)
            $0.int64(2, answer.watchID)
            $0.bool(7, answer.fragment)
        }
    }

    /// The header as it begins every answer, for those that send many with the same one.
    package static func header(_ header: HeaderFields) -> [UInt8] {
        ProtoWriter.build(header.fieldSize) { header.write(&$0) }
    }

    /// A WatchResponse with one event, behind the five bytes of its gRPC message, to `out`.
    package static func appendWatch(
        _ watchID: Int64, event: Bytes, header: [UInt8], to out: inout [UInt8]
    ) {
        let size = header.count + ProtoSize.int64(2, watchID) + event.length
        out.append(0)
        withUnsafeBytes(of: UInt32(size).bigEndian) { out.append(contentsOf: $0) }
        out.append(contentsOf: header)
        if watchID != 0 {
            out.append(2 << 3)
            var rest = UInt64(bitPattern: watchID)
            while rest >= 0x80 {
                out.append(UInt8(truncatingIfNeeded: rest) | 0x80)
                rest >>= 7
            }
            out.append(UInt8(truncatingIfNeeded: rest))
        }
        event.withUnsafeBytes { out.append(contentsOf: $0) }
    }

    // MARK: KeyValue

    package static func size(_ row: Row) -> Int {
        ProtoSize.bytes(1, row.key.length) + ProtoSize.int64(2, row.createRevision.rawValue)
            + ProtoSize.int64(3, row.modRevision.rawValue) + ProtoSize.int64(4, row.version)
            + ProtoSize.bytes(5, row.value.length) + ProtoSize.int64(6, row.lease.rawValue)
    }

    private static func write(_ row: Row, _ field: UInt32, _ writer: inout ProtoWriter) {
        writer.message(field, size(row))
        write(row, &writer)
    }

    private static func write(_ row: Row, withValue: Bool = true, _ writer: inout ProtoWriter) {
        writer.bytes(1, row.key)
        writer.int64(2, row.createRevision.rawValue)
        writer.int64(3, row.modRevision.rawValue)
        writer.int64(4, row.version)
        if withValue { writer.bytes(5, row.value) }
        writer.int64(6, row.lease.rawValue)
    }

    /// A deletion's event has only its key and the revision that deleted.
    private static func size(event row: Row) -> Int {
        guard row.isDeletion else { return size(row) }
        return ProtoSize.bytes(1, row.key.length) + ProtoSize.int64(3, row.modRevision.rawValue)
    }

    private static func write(event row: Row, _ writer: inout ProtoWriter) {
        guard row.isDeletion else { return write(row, &writer) }
        writer.bytes(1, row.key)
        writer.int64(3, row.modRevision.rawValue)
    }

    // MARK: Answers

    private static func size(_ result: RangeResult, _ header: HeaderFields?) -> Int {
        var size = (header?.fieldSize ?? 0) + ProtoSize.bool(3, result.more)
        size += ProtoSize.int64(4, result.count)
        for row in result.rows { size += ProtoSize.message(2, self.size(row)) }
        return size
    }

    private static func write(
        _ result: RangeResult, _ header: HeaderFields?, _ writer: inout ProtoWriter
    ) {
        header?.write(&writer)
        for row in result.rows { write(row, 2, &writer) }
        writer.bool(3, result.more)
        writer.int64(4, result.count)
    }

    /// RangeResponse to a question for one key.
    package static func key(
        _ row: Row?, withRow: Bool, withValue: Bool, _ header: HeaderFields
    ) -> [UInt8] {
        guard let row else { return ProtoWriter.build(header.fieldSize) { header.write(&$0) } }
        var inner = 0
        if withRow {
            inner = size(row)
            if !withValue { inner -= ProtoSize.bytes(5, row.value.length) }
        }
        let kv = withRow ? ProtoSize.message(2, inner) : 0
        return ProtoWriter.build(header.fieldSize + kv + ProtoSize.int64(4, 1)) {
            header.write(&$0)
            if withRow {
                $0.message(2, inner)
                write(row, withValue: withValue, &$0)
            }
            $0.int64(4, 1)
        }
    }

    private static func size(put previous: Row?, _ header: HeaderFields) -> Int {
        header.fieldSize + (previous.map { ProtoSize.message(2, size($0)) } ?? 0)
    }

    private static func write(put previous: Row?, _ header: HeaderFields, _ writer: inout ProtoWriter) {
        header.write(&writer)
        if let previous { write(previous, 2, &writer) }
    }

    private static func size(_ deleted: Int64, _ previous: [Row], _ header: HeaderFields) -> Int {
        previous.reduce(header.fieldSize + ProtoSize.int64(2, deleted)) {
            $0 + ProtoSize.message(3, size($1))
        }
    }

    private static func write(
        _ deleted: Int64, _ previous: [Row], _ header: HeaderFields, _ writer: inout ProtoWriter
    ) {
        header.write(&writer)
        writer.int64(2, deleted)
        for row in previous { write(row, 3, &writer) }
    }

    // MARK: Transactions

    /// Revisions of the inner answers in the order in which they are written; `all` if nothing wrote.
    private struct InnerRevisions {
        let each: [Revision]
        let all: Revision
        private var next = 0

        init(each: [Revision], all: Revision) {
            self.each = each
            self.all = all
        }
        mutating func take() -> HeaderFields {
            guard next < each.count else { return HeaderFields(inner: all) }
            next += 1
            return HeaderFields(inner: each[next - 1])
        }
    }

    private static func wrote(_ result: TransactionResult) -> Bool {
        result.results.contains { operation in
            switch operation {
            case .put: true
            case .range: false
            case .delete(let deleted, _): deleted > 0
            case .transaction(let nested): wrote(nested)
            }
        }
    }

    private static func collect(
        _ result: TransactionResult, _ revision: Revision, _ hasWritten: inout Bool,
        _ revisions: inout [Revision]
    ) {
        for operation in result.results {
            switch operation {
            case .put: hasWritten = true
            case .range: break
            case .delete(let deleted, _): if deleted > 0 { hasWritten = true }
            case .transaction(let nested):
                collect(nested, revision, &hasWritten, &revisions)
                continue
            }
            revisions.append(hasWritten ? revision : revision.previous)
        }
    }

    private static func size(
        _ result: TransactionResult, _ header: HeaderFields, _ inner: inout InnerRevisions
    ) -> Int {
        var total = header.fieldSize + ProtoSize.bool(2, result.succeeded)
        for operation in result.results {
            total += ProtoSize.message(3, size(operation, &inner).1)
        }
        return total
    }

    /// Of the answer itself, and of the ResponseOp around it.
    private static func size(
        _ operation: OperationResult, _ inner: inout InnerRevisions
    ) -> (answer: Int, whole: Int) {
        let answer =
            switch operation {
            case .range(let result): size(result, inner.take())
            case .put(let previous): size(put: previous, inner.take())
            case .delete(let deleted, let previous): size(deleted, previous, inner.take())
            case .transaction(let nested): size(nested, HeaderFields(inner: .zero), &inner)
            }
        return (answer, ProtoSize.message(1, answer))
    }

    private static func write(
        _ result: TransactionResult, _ header: HeaderFields, _ inner: inout InnerRevisions,
        _ writer: inout ProtoWriter
    ) {
        header.write(&writer)
        writer.bool(2, result.succeeded)
        for operation in result.results {
            // Sizes are counted again here: nesting is shallow, and nothing is kept between.
            var sizing = inner
            let (answer, whole) = size(operation, &sizing)
            writer.message(3, whole)
            switch operation {
            case .range(let result):
                writer.message(1, answer)
                write(result, inner.take(), &writer)
            case .put(let previous):
                writer.message(2, answer)
                write(put: previous, inner.take(), &writer)
            case .delete(let deleted, let previous):
                writer.message(3, answer)
                write(deleted, previous, inner.take(), &writer)
            case .transaction(let nested):
                writer.message(4, answer)
                write(nested, HeaderFields(inner: .zero), &inner, &writer)
            }
        }
    }
}
