import Foundation
import Primitives
import SwiftProtobuf
import Testing

@testable import EtcdAPI

/// SwiftProtobuf is the oracle: what it writes is read alike, and what is written it writes alike.
@Suite struct CodecTests {
    var random = SplitMix(seed: 0xC0DEC)

    @Test mutating func `random range requests are read as SwiftProtobuf wrote them`() throws {
        for _ in 0..<2000 {
            let message = rangeRequest()
            #expect(try RequestCodec.range(bytes(message)) == query(message))
        }
    }

    @Test mutating func `random puts and deletes are read as SwiftProtobuf wrote them`() throws {
        for _ in 0..<2000 {
            let put = putRequest()
            #expect(try RequestCodec.put(bytes(put)) == self.put(put))
            let delete = deleteRequest()
            #expect(try RequestCodec.delete(bytes(delete)) == self.delete(delete))
        }
    }

    @Test mutating func `random transactions are read as SwiftProtobuf wrote them`() throws {
        for _ in 0..<1000 {
            let message = txnRequest(depth: 0)
            #expect(try RequestCodec.transaction(bytes(message)) == transaction(message))
        }
    }

    @Test mutating func `random watch requests are read as SwiftProtobuf wrote them`() throws {
        for _ in 0..<2000 {
            var message = Etcdserverpb_WatchRequest()
            var expected = WatchCommand.nothing
            switch random.below(4) {
            case 0:
                let id = number()
                message.cancelRequest = .with { $0.watchID = id }
                expected = .cancel(id)
            case 1:
                message.progressRequest = .init()
                expected = .progress
            case 2: break
            default:
                var creation = WatchCreation()
                let key = blob(), end = blob()
                creation.range = KeyRange(key: Bytes(key), end: Bytes(end))
                creation.startRevision = number()
                creation.progressNotify = coin()
                creation.withoutPuts = coin()
                creation.withoutDeletes = coin()
                creation.wantsPrevious = coin()
                creation.watchID = number()
                creation.fragment = coin()
                message.createRequest = .with {
                    $0.key = key
                    $0.rangeEnd = end
                    $0.startRevision = creation.startRevision
                    $0.progressNotify = creation.progressNotify
                    $0.filters = (creation.withoutPuts ? [.noput] : []) + (creation.withoutDeletes ? [.nodelete] : [])
                    $0.prevKv = creation.wantsPrevious
                    $0.watchID = creation.watchID
                    $0.fragment = creation.fragment
                }
                expected = .create(creation)
            }
            #expect(try RequestCodec.watch(bytes(message)) == expected)
        }
    }

    @Test mutating func `keep-alives are read and answered`() throws {
        for _ in 0..<200 {
            let id = number()
            let request = Etcdserverpb_LeaseKeepAliveRequest.with { $0.id = id }
            #expect(try RequestCodec.keepAlive(bytes(request)) == LeaseID(id))
            let header = self.header()
            let ttl = number()
            let expected = Etcdserverpb_LeaseKeepAliveResponse.with {
                $0.header = self.header(header)
                $0.id = id
                $0.ttl = ttl
            }
            let written = ResponseCodec.keepAlive(LeaseID(id), ttlSeconds: ttl, header)
            #expect(try written == expected.serializedBytes())
        }
    }

    @Test mutating func `random answers are written as SwiftProtobuf writes them`() throws {
        for _ in 0..<1000 {
            let header = self.header()
            let result = rangeResult()
            #expect(
                try ResponseCodec.range(result, header)
                    == response(result, self.header(header)).serializedBytes())
            let row = coin() ? self.row() : nil
            let put = Etcdserverpb_PutResponse.with {
                $0.header = self.header(header)
                if let row { $0.prevKv = keyValue(row) }
            }
            #expect(try ResponseCodec.put(previous: row, header) == put.serializedBytes())
            let deleted = number(), rows = self.rows()
            let delete = Etcdserverpb_DeleteRangeResponse.with {
                $0.header = self.header(header)
                $0.deleted = deleted
                $0.prevKvs = rows.map(keyValue)
            }
            #expect(
                try ResponseCodec.delete(deleted: deleted, previous: rows, header)
                    == delete.serializedBytes())
        }
    }

    @Test mutating func `an answer about one key is written as one about a range is`() {
        for i in 0..<500 {
            let header = self.header()
            var row = coin() ? self.row() : nil
            // Beyond what is written on the stack.
            if i % 10 == 0 { row?.value = Bytes([UInt8](repeating: 7, count: 990 + i)) }
            let withRow = coin(), withValue = coin()
            var result = RangeResult(count: row == nil ? 0 : 1)
            if withRow, var shown = row {
                if !withValue { shown.value = .empty }
                result.rows = [shown]
            }
            #expect(
                ResponseCodec.key(row, withRow: withRow, withValue: withValue, header)
                    == ResponseCodec.range(result, header))
        }
    }

    @Test mutating func `random watch answers are written as SwiftProtobuf writes them`() throws {
        for _ in 0..<1000 {
            let header = self.header()
            var answer = WatchAnswer(watchID: number())
            answer.created = coin()
            answer.cancelled = coin()
            answer.compactRevision = number()
            answer.cancelReason = coin() ? "" : "etcdserver: é"
            answer.fragment = coin()
            var events: [Bytes] = []
            var expected = Etcdserverpb_WatchResponse.with {
                $0.header = self.header(header)
                $0.watchID = answer.watchID
                $0.created = answer.created
                $0.canceled = answer.cancelled
                $0.compactRevision = answer.compactRevision
                $0.cancelReason = answer.cancelReason
                $0.fragment = answer.fragment
            }
            for _ in 0..<random.below(4) {
                var row = self.row()
                if coin() { row.version = 0 }
                let previous = coin() ? self.row() : nil
                events.append(ResponseCodec.event(row, previous: previous))
                expected.events.append(
                    .with {
                        if row.isDeletion {
                            $0.type = .delete
                            $0.kv.key = Data(row.key.array)
                            $0.kv.modRevision = row.modRevision.rawValue
                        } else {
                            $0.kv = keyValue(row)
                        }
                        if let previous { $0.prevKv = keyValue(previous) }
                    })
            }
            #expect(
                try ResponseCodec.watch(answer, events: events, header) == expected.serializedBytes())
        }
    }

    @Test mutating func `random transaction answers are written as SwiftProtobuf writes them`() throws {
        for _ in 0..<1000 {
            let header = self.header()
            let result = transactionResult(depth: 0)
            var expected = try Etcdserverpb_TxnResponse(
                serializedBytes: ResponseCodec.transaction(result, header))
            #expect(try expected.serializedBytes() == ResponseCodec.transaction(result, header))
            #expect(expected.header == self.header(header))
            blankInnerHeaders(&expected)
            #expect(expected == response(result, self.header(header)))
        }
    }

    @Test func `inner answers carry the revision at which they were done`() throws {
        let header = HeaderFields(clusterID: 1, memberID: 2, revision: Revision(8), raftTerm: 3)
        let result = TransactionResult(
            succeeded: true,
            results: [
                .range(RangeResult()), .delete(deleted: 0, previous: []),
                .transaction(TransactionResult(succeeded: true, results: [.put(previous: nil)])),
                .range(RangeResult()),
            ])
        let answer = try Etcdserverpb_TxnResponse(
            serializedBytes: ResponseCodec.transaction(result, header))
        #expect(answer.responses[0].responseRange.header == .with { $0.revision = 7 })
        #expect(answer.responses[1].responseDeleteRange.header == .with { $0.revision = 7 })
        #expect(answer.responses[2].responseTxn.hasHeader)
        #expect(answer.responses[2].responseTxn.header == .init())
        #expect(
            answer.responses[2].responseTxn.responses[0].responsePut.header == .with { $0.revision = 8 })
        #expect(answer.responses[3].responseRange.header == .with { $0.revision = 8 })
        let read = TransactionResult(succeeded: false, results: [.range(RangeResult())])
        let only = try Etcdserverpb_TxnResponse(
            serializedBytes: ResponseCodec.transaction(read, header))
        #expect(only.responses[0].responseRange.header == .with { $0.revision = 8 })
    }

    @Test mutating func `unknown fields are passed over and cut or random bytes never trap`() throws {
        let put = Etcdserverpb_PutRequest.with { $0.key = Data("k".utf8) }
        let whole: [UInt8] = try put.serializedBytes()
        // Fields 15: varint, 64 bits, bytes, group with a varint in it, 32 bits.
        let strange: [UInt8] = [
            0x78, 0x96, 0x01, 0x79, 1, 2, 3, 4, 5, 6, 7, 8, 0x7A, 2, 9, 9, 0x7B, 0x08, 1, 0x7C, 0x7D, 1,
            2, 3, 4,
        ]
        #expect(try RequestCodec.put(Bytes(strange + whole)).key == "k")
        for _ in 0..<300 {
            let message: [UInt8] = try txnRequest(depth: 0).serializedBytes()
            let cut = Bytes(message)[0..<Int(random.below(UInt64(message.count + 1)))]
            let oracle = try? Etcdserverpb_TxnRequest(serializedBytes: cut.array)
            let ours = try? RequestCodec.transaction(cut)
            if ours != nil { #expect(oracle != nil) }
        }
        for _ in 0..<20_000 {
            let rubbish = Bytes((0..<random.below(40)).map { _ in UInt8(random.below(256)) })
            _ = try? RequestCodec.transaction(rubbish)
            _ = try? RequestCodec.range(rubbish)
            _ = try? RequestCodec.watch(rubbish)
        }
    }

    @Test func `what etcd refuses while reading is refused`() {
        let sort = Bytes([0x0A, 1, 0x61, 0x28, 9])
        #expect(throws: CodecError.invalidSortOption) { try RequestCodec.range(sort) }
        #expect(throws: CodecError.emptyOperation) { try RequestCodec.transaction(Bytes([0x12, 0])) }
        #expect(throws: CodecError.malformed("unexpected EOF")) { try RequestCodec.put(Bytes([0x0A, 5, 1])) }
        #expect(throws: CodecError.malformed("proto: illegal wireType 7")) {
            try RequestCodec.put(Bytes([0x7F]))
        }
        var deep: [UInt8] = []
        for _ in 0..<60 {
            var operation = ProtoWriter.build(ProtoSize.message(4, deep.count)) {
                $0.message(4, deep.count)
                $0.raw(Bytes(deep))
            }
            operation = ProtoWriter.build(ProtoSize.message(2, operation.count)) { [operation] in
                $0.message(2, operation.count)
                $0.raw(Bytes(operation))
            }
            deep = operation
        }
        #expect(throws: CodecError.malformed("proto: message nested too deeply")) {
            try RequestCodec.transaction(Bytes(deep))
        }
    }

    // MARK: Random values

    mutating func coin() -> Bool { random.below(2) == 0 }

    mutating func number() -> Int64 {
        switch random.below(4) {
        case 0: 0
        case 1: Int64(random.below(300))
        case 2: Int64(bitPattern: random.next())
        default: Int64(bitPattern: random.next() >> random.below(64))
        }
    }

    mutating func blob() -> Data {
        let count = random.below(4) == 0 ? 0 : random.below(coin() ? 10 : 300)
        return Data((0..<count).map { _ in UInt8(random.below(256)) })
    }

    mutating func rangeRequest() -> Etcdserverpb_RangeRequest {
        var message = Etcdserverpb_RangeRequest()
        message.key = blob()
        message.rangeEnd = blob()
        message.limit = number()
        message.revision = number()
        message.sortOrder = .init(rawValue: Int(random.below(3))) ?? .none
        message.sortTarget = .init(rawValue: Int(random.below(5))) ?? .key
        message.serializable = coin()
        message.keysOnly = coin()
        message.countOnly = coin()
        message.minModRevision = number()
        message.maxModRevision = number()
        message.minCreateRevision = number()
        message.maxCreateRevision = number()
        return message
    }

    mutating func putRequest() -> Etcdserverpb_PutRequest {
        var message = Etcdserverpb_PutRequest()
        message.key = blob()
        message.value = blob()
        message.lease = number()
        message.prevKv = coin()
        message.ignoreValue = coin()
        message.ignoreLease = coin()
        return message
    }

    mutating func deleteRequest() -> Etcdserverpb_DeleteRangeRequest {
        var message = Etcdserverpb_DeleteRangeRequest()
        message.key = blob()
        message.rangeEnd = blob()
        message.prevKv = coin()
        return message
    }

    mutating func txnRequest(depth: Int) -> Etcdserverpb_TxnRequest {
        var message = Etcdserverpb_TxnRequest()
        for _ in 0..<random.below(4) {
            var compare = Etcdserverpb_Compare()
            compare.result = .init(rawValue: Int(random.below(4))) ?? .equal
            compare.key = blob()
            compare.rangeEnd = blob()
            let target = Int(random.below(5))
            compare.target = .init(rawValue: target) ?? .version
            switch random.below(5) == 0 ? Int(random.below(6)) : target {
            case 0: compare.version = number()
            case 1: compare.createRevision = number()
            case 2: compare.modRevision = number()
            case 3: compare.value = blob()
            case 4: compare.lease = number()
            default: break
            }
            message.compare.append(compare)
        }
        message.success = operations(depth)
        message.failure = operations(depth)
        return message
    }

    mutating func operations(_ depth: Int) -> [Etcdserverpb_RequestOp] {
        var operations: [Etcdserverpb_RequestOp] = []
        for _ in 0..<random.below(4) {
            var operation = Etcdserverpb_RequestOp()
            switch random.below(depth < 3 ? 4 : 3) {
            case 0: operation.requestRange = rangeRequest()
            case 1: operation.requestPut = putRequest()
            case 2: operation.requestDeleteRange = deleteRequest()
            default: operation.requestTxn = txnRequest(depth: depth + 1)
            }
            operations.append(operation)
        }
        return operations
    }

    mutating func header() -> HeaderFields {
        HeaderFields(
            clusterID: random.next(), memberID: random.next(),
            revision: Revision(Int64(random.below(1 << 40)) + 1), raftTerm: random.below(100))
    }

    mutating func row() -> Row {
        Row(
            key: Bytes(blob()), value: Bytes(blob()), createRevision: Revision(number()),
            modRevision: Revision(number()), version: number() | 1, lease: LeaseID(number()), sub: 0,
            origin: Origin(region: RegionID(0), revision: .zero, stamp: .zero))
    }

    mutating func rows() -> [Row] { (0..<random.below(5)).map { _ in row() } }

    mutating func rangeResult() -> RangeResult {
        RangeResult(rows: rows(), more: coin(), count: number())
    }

    mutating func transactionResult(depth: Int) -> TransactionResult {
        var results: [OperationResult] = []
        for _ in 0..<random.below(5) {
            switch random.below(depth < 3 ? 4 : 3) {
            case 0: results.append(.range(rangeResult()))
            case 1: results.append(.put(previous: coin() ? row() : nil))
            case 2: results.append(.delete(deleted: Int64(random.below(3)), previous: rows()))
            default: results.append(.transaction(transactionResult(depth: depth + 1)))
            }
        }
        return TransactionResult(succeeded: coin(), results: results)
    }

    // MARK: The oracle's side

    func bytes(_ message: some SwiftProtobuf.Message) throws -> Bytes {
        // Inside of something larger, so that a wrong offset shows.
        let whole: [UInt8] = try message.serializedBytes()
        return Bytes(storage: [0xFF, 0xFF] + whole + [0xFF], start: 2, end: 2 + whole.count)
    }

    func query(_ m: Etcdserverpb_RangeRequest) -> RangeQuery {
        RangeQuery(
            range: KeyRange(key: Bytes(m.key), end: Bytes(m.rangeEnd)), limit: m.limit,
            revision: Revision(m.revision), order: .init(rawValue: UInt8(m.sortOrder.rawValue)) ?? .none,
            target: .init(rawValue: UInt8(m.sortTarget.rawValue)) ?? .key, serializable: m.serializable,
            keysOnly: m.keysOnly, countOnly: m.countOnly, minModRevision: m.minModRevision,
            maxModRevision: m.maxModRevision, minCreateRevision: m.minCreateRevision,
            maxCreateRevision: m.maxCreateRevision)
    }

    func put(_ m: Etcdserverpb_PutRequest) -> Put {
        Put(
            key: Bytes(m.key), value: Bytes(m.value), lease: LeaseID(m.lease), wantsPrevious: m.prevKv,
            keepsValue: m.ignoreValue, keepsLease: m.ignoreLease)
    }

    func delete(_ m: Etcdserverpb_DeleteRangeRequest) -> Delete {
        Delete(range: KeyRange(key: Bytes(m.key), end: Bytes(m.rangeEnd)), wantsPrevious: m.prevKv)
    }

    func transaction(_ m: Etcdserverpb_TxnRequest) -> Transaction {
        func operation(_ m: Etcdserverpb_RequestOp) -> Primitives.Operation {
            switch m.request {
            case .requestRange(let m): .range(query(m))
            case .requestPut(let m): .put(put(m))
            case .requestDeleteRange(let m): .delete(delete(m))
            case .requestTxn(let m): .transaction(transaction(m))
            case nil: .transaction(Transaction(success: []))
            }
        }
        return Transaction(
            compares: m.compare.map { m in
                let target: Compare.Target =
                    switch m.target {
                    case .create: .createRevision(m.createRevision)
                    case .mod: .modRevision(m.modRevision)
                    case .value: .value(Bytes(m.value))
                    case .lease: .lease(m.lease)
                    default: .version(m.version)
                    }
                return Compare(
                    range: KeyRange(key: Bytes(m.key), end: Bytes(m.rangeEnd)),
                    relation: .init(rawValue: UInt8(m.result.rawValue)) ?? .equal, target: target)
            }, success: m.success.map(operation), failure: m.failure.map(operation))
    }

    func header(_ header: HeaderFields) -> Etcdserverpb_ResponseHeader {
        .with {
            $0.clusterID = header.clusterID
            $0.memberID = header.memberID
            $0.revision = header.revision.rawValue
            $0.raftTerm = header.raftTerm
        }
    }

    func keyValue(_ row: Row) -> Mvccpb_KeyValue {
        .with {
            $0.key = Data(row.key.array)
            $0.value = Data(row.value.array)
            $0.createRevision = row.createRevision.rawValue
            $0.modRevision = row.modRevision.rawValue
            $0.version = row.version
            $0.lease = row.lease.rawValue
        }
    }

    func response(
        _ result: RangeResult, _ header: Etcdserverpb_ResponseHeader
    ) -> Etcdserverpb_RangeResponse {
        .with {
            $0.header = header
            $0.kvs = result.rows.map(keyValue)
            $0.more = result.more
            $0.count = result.count
        }
    }

    func response(
        _ result: TransactionResult, _ header: Etcdserverpb_ResponseHeader
    ) -> Etcdserverpb_TxnResponse {
        .with { answer in
            answer.header = header
            answer.succeeded = result.succeeded
            answer.responses = result.results.map { operation in
                .with {
                    switch operation {
                    case .range(let result): $0.responseRange = response(result, .init())
                    case .put(let previous):
                        $0.responsePut = .with {
                            $0.header = .init()
                            if let previous { $0.prevKv = keyValue(previous) }
                        }
                    case .delete(let deleted, let previous):
                        $0.responseDeleteRange = .with {
                            $0.header = .init()
                            $0.deleted = deleted
                            $0.prevKvs = previous.map(keyValue)
                        }
                    case .transaction(let nested): $0.responseTxn = response(nested, .init())
                    }
                }
            }
        }
    }

    func blankInnerHeaders(_ answer: inout Etcdserverpb_TxnResponse) {
        for i in answer.responses.indices {
            switch answer.responses[i].response {
            case .responseRange: answer.responses[i].responseRange.header = .init()
            case .responsePut: answer.responses[i].responsePut.header = .init()
            case .responseDeleteRange: answer.responses[i].responseDeleteRange.header = .init()
            case .responseTxn(var nested):
                blankInnerHeaders(&nested)
                answer.responses[i].responseTxn = nested
            case nil: break
            }
        }
    }

    /// etcd's generated readers, and everybody's: ten bytes hold 70 bits, of which 64 count.
    @Test func whatATenthByteHasTooMuchIsDropped() throws {
        let nine = [UInt8](repeating: 0xFF, count: 9)
        for (last, value) in [(0x01, UInt64.max), (0x05, .max), (0x7E, .max >> 1)] as [(UInt8, UInt64)] {
            var reader = ProtoReader(Bytes(nine + [last]))
            #expect(try reader.varint() == value)
        }
        #expect(throws: CodecError.malformed("proto: integer overflow")) {
            var reader = ProtoReader(Bytes(nine + [0x81, 0x00]))
            _ = try reader.varint()
        }
    }
}
