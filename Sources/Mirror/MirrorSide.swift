import EtcdAPI
import FoundationEssentials
import Primitives
import SwiftProtobuf

/// Why a migration cannot go on.
package enum MirrorError: Error, Equatable, Sendable, CustomStringConvertible {
    /// One side has not answered for so long that waiting is no longer sensible.
    case unreachable(String)
    /// One side said no, and would again.
    case refused(String)
    /// The destination holds what the source does not have.
    case notEmpty(String)
    /// The two sides are not alike, or not quiet.
    case notVerified(String)
    case state(String)

    package var description: String {
        switch self {
        case .unreachable(let text), .refused(let text), .notEmpty(let text), .notVerified(let text),
            .state(let text):
            text
        }
    }
}

/// One side: its endpoints, and patience with them. Every call here may be repeated without harm.
struct MirrorSide {
    typealias KeyValue = Mvccpb_KeyValue

    let name: String
    let clients: [EtcdClient]
    let patience: TimeSpan
    private let current: Chosen

    private final class Chosen: @unchecked Sendable {
        // Unchecked: only the mirror's own task uses it, and a stale value does no harm.
        var index = 0
    }

    init(name: String, clients: [EtcdClient], patience: TimeSpan) {
        self.name = name
        self.clients = clients
        self.patience = patience
        current = Chosen()
    }

    var client: EtcdClient { clients[current.index % clients.count] }

    /// The next endpoint, for who has been let down by this one.
    func turn() { current.index += 1 }

    func call<Answer: SwiftProtobuf.Message & Sendable>(
        _ method: RPCMethod, _ request: some SwiftProtobuf.Message & Sendable,
        as answer: Answer.Type = Answer.self
    ) async throws -> Answer {
        let start = ContinuousClock.now
        var delay = Duration.milliseconds(50)
        while true {
            do throws(EtcdClientError) {
                return try await client.call(
                    method, request, answer: Answer.self, timeout: .seconds(10))
            } catch {
                if error.kind == .refused || error.isTooLarge { throw error }
                turn()
                guard ContinuousClock.now - start < .nanoseconds(Int64(clamping: patience.nanoseconds))
                else { throw MirrorError.unreachable("the \(name) has not answered for long: \(error.message)") }
                try await Task.sleep(for: delay)
                delay = min(delay * 2, .seconds(2))
            }
        }
    }

    // MARK: What is asked of it

    func header() async throws -> Etcdserverpb_ResponseHeader {
        var request = Etcdserverpb_RangeRequest()
        request.key = Data([0])
        request.limit = 1
        request.keysOnly = true
        return try await call(.range, request, as: Etcdserverpb_RangeResponse.self).header
    }

    /// Some keys of `[from, end)`, the least first; at `revision` if it is not 0.
    func page(
        from: Data, end: Data, _ sizes: inout PageSizer, revision: Int64 = 0
    ) async throws -> Etcdserverpb_RangeResponse {
        while true {
            var request = Etcdserverpb_RangeRequest()
            request.key = from
            request.rangeEnd = end
            request.limit = sizes.limit
            request.revision = revision
            do {
                let page = try await call(.range, request, as: Etcdserverpb_RangeResponse.self)
                sizes.saw(bytes: page.kvs.reduce(0) { $0 + $1.bytes }, keys: page.kvs.count)
                return page
            } catch let error as EtcdClientError where error.isTooLarge && sizes.limit > 1 {
                sizes.shrink()
            }
        }
    }

    func count(from: Data, end: Data) async throws -> Int64 {
        var request = Etcdserverpb_RangeRequest()
        request.key = from
        request.rangeEnd = end
        request.countOnly = true
        return try await call(.range, request, as: Etcdserverpb_RangeResponse.self).count
    }

    /// Remaining and granted seconds; nil: there is no such lease.
    func timeToLive(_ lease: Int64) async throws -> (remaining: Int64, granted: Int64)? {
        var request = Etcdserverpb_LeaseTimeToLiveRequest()
        request.id = lease
        do {
            let answer = try await call(
                .leaseTimeToLive, request, as: Etcdserverpb_LeaseTimeToLiveResponse.self)
            return answer.ttl < 0 ? nil : (answer.ttl, answer.grantedTtl)
        } catch let error as EtcdClientError where error.status == .notFound {
            return nil
        }
    }
}

/// Sizes pages so that they stay near a byte count, whatever the values' sizes.
struct PageSizer {
    private(set) var limit: Int64 = 64
    private static let bytesWanted = 2 << 20

    mutating func saw(bytes: Int, keys: Int) {
        if bytes > Self.bytesWanted { limit = max(1, limit / 2) }
        if bytes < Self.bytesWanted / 4, Int64(keys) == limit { limit = min(1000, limit * 2) }
    }
    /// A page was refused or too large for a message.
    mutating func shrink() { limit = max(1, limit / 8) }
}

extension EtcdClientError {
    /// The answer does not fit into a message that this client takes, or that the server sends.
    var isTooLarge: Bool {
        message.hasPrefix("message of ") || message.contains("larger than max")
    }
}

extension Mvccpb_KeyValue {
    var bytes: Int { key.count + value.count + 64 }
}
