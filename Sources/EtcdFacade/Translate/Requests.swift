import EtcdAPI
import Primitives

// KV's requests: `RequestCodec` reads them, here they are checked as etcd checks them
// (v3rpc/key.go). Bytes that are no message come first, as in etcd.

extension CodecError {
    var failure: CallFailure {
        switch self {
        case .malformed(let text):
            CallFailure(status: .internal, text: "grpc: error unmarshalling request: " + text)
        case .invalidSortOption: EtcdError.invalidSortOption.failure
        case .emptyOperation: EtcdError.keyNotFound.failure
        }
    }
}

/// Runs a decoder and makes its failure a call's.
func decoding<T>(_ decode: () throws(CodecError) -> T) throws(CallFailure) -> T {
    do throws(CodecError) {
        return try decode()
    } catch {
        throw error.failure
    }
}

extension RangeQuery {
    init(message: Bytes) throws(CallFailure) {
        self = try decoding { () throws(CodecError) in try RequestCodec.range(message) }
        if let issue { throw issue.failure }
        normalize()
    }

    var issue: EtcdError? { range.key.isEmpty ? .emptyKey : nil }

    /// etcd takes a limit or a revision below zero for none.
    mutating func normalize() {
        normalizeLimit()
        if revision < .zero { revision = .zero }
    }

    /// Inside a transaction a revision below zero has been compacted.
    mutating func normalizeInside() {
        normalizeLimit()
        if revision < .zero { revision = Self.compactedRevision }
    }

    private mutating func normalizeLimit() {
        if limit < 0 { limit = 0 }
        // Not to be taken for the marks of revisions that cannot be read.
        if revision >= Self.futureRevision { revision = Self.futureRevision }
    }
}

extension Put {
    init(message: Bytes) throws(CallFailure) {
        self = try decoding { () throws(CodecError) in try RequestCodec.put(message) }
        if let issue { throw issue.failure }
    }

    var issue: EtcdError? {
        if key.isEmpty { return .emptyKey }
        if keepsValue, !value.isEmpty { return .valueProvided }
        if keepsLease, lease != .none { return .leaseProvided }
        return nil
    }
}

extension Delete {
    init(message: Bytes) throws(CallFailure) {
        self = try decoding { () throws(CodecError) in try RequestCodec.delete(message) }
        if let issue { throw issue.failure }
    }

    var issue: EtcdError? { range.key.isEmpty ? .emptyKey : nil }
}

/// The number fields 1 to 7 of a small request; others are passed over.
struct NumberFields {
    private let values: [Int64]

    init(_ message: Bytes) throws(CallFailure) {
        values = try decoding { () throws(CodecError) in
            var values: [Int64] = [0, 0, 0, 0, 0, 0, 0, 0]
            var reader = ProtoReader(message)
            while let tag = try reader.tag() {
                if tag & 7 == 0, tag >> 3 < 8 {
                    values[Int(tag >> 3)] = try reader.int64()
                } else {
                    try reader.skip(tag)
                }
            }
            return values
        }
    }
    subscript(field: Int) -> Int64 { values[field] }
}
