import EtcdAPI
import FoundationEssentials
import Primitives

/// What is to be done at the destination: a put or a deletion of one key.
enum MirrorOperation: Sendable {
    case put(Mvccpb_KeyValue)
    case delete(Data)

    var key: Data {
        switch self {
        case .put(let row): row.key
        case .delete(let key): key
        }
    }
    var bytes: Int {
        switch self {
        case .put(let row): row.bytes
        case .delete(let key): key.count + 64
        }
    }
}

/// Writes to the destination. Every write may be repeated: it says what is to be, not what to change.
struct MirrorWriter {
    /// etcd's limits are 128 operations and 1.5 MiB.
    static let operationsMax = 100
    static let bytesMax = 1 << 20
    private static let writesAtOnce = 4

    let destination: MirrorSide
    let leases: MirrorLeases

    /// In order, the last one of each key counting; more than one transaction only if they do not fit.
    func apply(_ operations: [MirrorOperation]) async throws {
        for batch in Self.batches(Self.lastOfEach(operations)) { try await write(batch) }
    }

    /// In any order: of different keys.
    func applyUnordered(_ operations: [MirrorOperation]) async throws {
        let batches = Self.batches(operations)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for (i, batch) in batches.enumerated() {
                if i >= Self.writesAtOnce { _ = try await group.next() }
                group.addTask { try await self.write(batch) }
            }
            try await group.waitForAll()
        }
    }

    static func lastOfEach(_ operations: [MirrorOperation]) -> [MirrorOperation] {
        var last: [Data: Int] = [:]
        for (i, operation) in operations.enumerated() { last[operation.key] = i }
        return operations.enumerated().filter { last[$0.element.key] == $0.offset }.map(\.element)
    }

    static func batches(_ operations: [MirrorOperation]) -> [[MirrorOperation]] {
        var batches: [[MirrorOperation]] = []
        var batch: [MirrorOperation] = []
        var bytes = 0
        for operation in operations {
            if !batch.isEmpty, batch.count >= operationsMax || bytes + operation.bytes > bytesMax {
                batches.append(batch)
                batch = []
                bytes = 0
            }
            batch.append(operation)
            bytes += operation.bytes
        }
        return batch.isEmpty ? batches : batches + [batch]
    }

    private func write(_ batch: [MirrorOperation]) async throws {
        var attempts = 0
        while true {
            var request = Etcdserverpb_TxnRequest()
            for operation in batch { request.success.append(try await message(operation)) }
            do {
                let _: Etcdserverpb_TxnResponse = try await destination.call(.txn, request)
                return
            } catch let error as EtcdClientError where error.status == .notFound && attempts < 10 {
                // A lease ended between its making and its use.
                attempts += 1
                for case .put(let row) in batch where row.lease != 0 { await leases.forget(row.lease) }
            } catch let error as EtcdClientError {
                throw MirrorError.refused("the destination refuses a write: \(error.message)")
            }
        }
    }

    private func message(_ operation: MirrorOperation) async throws -> Etcdserverpb_RequestOp {
        var message = Etcdserverpb_RequestOp()
        switch operation {
        case .put(let row):
            var put = Etcdserverpb_PutRequest()
            put.key = row.key
            put.value = row.value
            if row.lease != 0, try await leases.ensure(row.lease) { put.lease = row.lease }
            message.requestPut = put
        case .delete(let key):
            var delete = Etcdserverpb_DeleteRangeRequest()
            delete.key = key
            message.requestDeleteRange = delete
        }
        return message
    }
}
