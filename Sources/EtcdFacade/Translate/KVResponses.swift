import Primitives

/// etcd's ResponseHeader. Inside a transaction's answer only the revision is set, as in etcd.
struct ResponseHeader: Equatable {
    var clusterID: UInt64 = 0
    var memberID: UInt64 = 0
    var revision = Revision.zero
    var term: UInt64 = 0

    var size: Int {
        WireSize.field(clusterID) + WireSize.field(memberID) + WireSize.field(revision.rawValue)
            + WireSize.field(term)
    }
    func write(_ writer: inout WireWriter) {
        writer.field(1, clusterID)
        writer.field(2, memberID)
        writer.field(3, revision.rawValue)
        writer.field(4, term)
    }
    /// As field 1 of an answer.
    func writeField(_ writer: inout WireWriter) {
        writer.header(1, size)
        write(&writer)
    }
    var fieldSize: Int { WireSize.message(size) }
}

extension Row {
    /// As etcd's KeyValue.
    var wireSize: Int {
        WireSize.field(key) + WireSize.field(createRevision.rawValue)
            + WireSize.field(modRevision.rawValue) + WireSize.field(version) + WireSize.field(value)
            + WireSize.field(lease.rawValue)
    }
    func write(_ writer: inout WireWriter) {
        writer.field(1, key)
        writer.field(2, createRevision.rawValue)
        writer.field(3, modRevision.rawValue)
        writer.field(4, version)
        writer.field(5, value)
        writer.field(6, lease.rawValue)
    }
    var fieldSize: Int { WireSize.message(wireSize) }
    func writeField(_ number: UInt8, _ writer: inout WireWriter) {
        writer.header(number, wireSize)
        write(&writer)
    }
}

/// The answers of KV. Every one has a size and a way to be written into that size.
enum KVResponse {
    static func range(_ result: RangeResult, _ header: ResponseHeader) -> [UInt8] {
        WireWriter.message(size(result, header)) { write(result, header, &$0) }
    }
    static func put(previous: Row?, _ header: ResponseHeader) -> [UInt8] {
        WireWriter.message(size(previous: previous, header)) {
            write(previous: previous, header, &$0)
        }
    }
    static func delete(_ deleted: Int64, _ previous: [Row], _ header: ResponseHeader) -> [UInt8] {
        WireWriter.message(size(deleted, previous, header)) {
            write(deleted, previous, header, &$0)
        }
    }
    static func compaction(_ header: ResponseHeader) -> [UInt8] {
        WireWriter.message(header.fieldSize) { header.writeField(&$0) }
    }
    static func transaction(_ result: TransactionResult, _ header: ResponseHeader) -> [UInt8] {
        // What an operation reports as its revision: the one before, until the transaction has written.
        let plan = TransactionPlan(result, header)
        return WireWriter.message(plan.size) { plan.write(&$0) }
    }

    // MARK: Sizes and contents, alone and inside a transaction

    static func size(_ result: RangeResult, _ header: ResponseHeader) -> Int {
        var size = header.fieldSize + WireSize.field(result.more) + WireSize.field(result.count)
        for row in result.rows { size += row.fieldSize }
        return size
    }
    static func write(_ result: RangeResult, _ header: ResponseHeader, _ writer: inout WireWriter) {
        header.writeField(&writer)
        for row in result.rows { row.writeField(2, &writer) }
        writer.field(3, result.more)
        writer.field(4, result.count)
    }

    static func size(previous: Row?, _ header: ResponseHeader) -> Int {
        header.fieldSize + (previous?.fieldSize ?? 0)
    }
    static func write(previous: Row?, _ header: ResponseHeader, _ writer: inout WireWriter) {
        header.writeField(&writer)
        previous?.writeField(2, &writer)
    }

    static func size(_ deleted: Int64, _ previous: [Row], _ header: ResponseHeader) -> Int {
        previous.reduce(header.fieldSize + WireSize.field(deleted)) { $0 + $1.fieldSize }
    }
    static func write(
        _ deleted: Int64, _ previous: [Row], _ header: ResponseHeader, _ writer: inout WireWriter
    ) {
        header.writeField(&writer)
        writer.field(2, deleted)
        for row in previous { row.writeField(3, &writer) }
    }
}

/// A TxnResponse with the sizes of its nested messages worked out once, from the inside out.
private struct TransactionPlan {
    private struct Part {
        let result: OperationResult
        let header: ResponseHeader
        let size: Int
        let nested: TransactionPlan?
    }
    private let header: ResponseHeader
    private let succeeded: Bool
    private var parts: [Part] = []
    private(set) var size = 0

    init(_ result: TransactionResult, _ header: ResponseHeader) {
        let before = result.hasWritten ? header.revision.previous : header.revision
        var revision = before
        self.init(result, header, revision: &revision, after: header.revision)
    }

    private init(
        _ result: TransactionResult, _ header: ResponseHeader, revision: inout Revision,
        after: Revision
    ) {
        self.header = header
        succeeded = result.succeeded
        size = header.fieldSize + WireSize.field(succeeded)
        parts.reserveCapacity(result.results.count)
        for operation in result.results {
            if operation.hasWritten, !operation.isTransaction { revision = after }
            let inner = ResponseHeader(revision: revision)
            let part: Part
            switch operation {
            case .put(let previous):
                part = Part(
                    result: operation, header: inner,
                    size: KVResponse.size(previous: previous, inner), nested: nil)
            case .range(let range):
                part = Part(
                    result: operation, header: inner, size: KVResponse.size(range, inner),
                    nested: nil)
            case .delete(let deleted, let previous):
                part = Part(
                    result: operation, header: inner,
                    size: KVResponse.size(deleted, previous, inner), nested: nil)
            case .transaction(let result):
                // etcd leaves the header of a nested transaction empty.
                let plan = TransactionPlan(
                    result, ResponseHeader(), revision: &revision, after: after)
                part = Part(result: operation, header: inner, size: plan.size, nested: plan)
            }
            parts.append(part)
            size += WireSize.message(WireSize.message(part.size))
        }
    }

    func write(_ writer: inout WireWriter) {
        header.writeField(&writer)
        writer.field(2, succeeded)
        for part in parts {
            writer.header(3, WireSize.message(part.size))
            switch part.result {
            case .range(let range):
                writer.header(1, part.size)
                KVResponse.write(range, part.header, &writer)
            case .put(let previous):
                writer.header(2, part.size)
                KVResponse.write(previous: previous, part.header, &writer)
            case .delete(let deleted, let previous):
                writer.header(3, part.size)
                KVResponse.write(deleted, previous, part.header, &writer)
            case .transaction:
                writer.header(4, part.size)
                part.nested?.write(&writer)
            }
        }
    }
}

extension TransactionResult {
    var hasWritten: Bool { results.contains(where: \.hasWritten) }
}

extension OperationResult {
    fileprivate var isTransaction: Bool { if case .transaction = self { true } else { false } }
    /// A put always writes; a delete that found nothing does not.
    fileprivate var hasWritten: Bool {
        switch self {
        case .put: true
        case .range: false
        case .delete(let deleted, _): deleted > 0
        case .transaction(let nested): nested.hasWritten
        }
    }
}
