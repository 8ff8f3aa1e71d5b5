package import FoundationEssentials
package import Primitives
package import SwiftProtobuf

/// The calls that people make most, typed. Keys and values are text or bytes alike.
extension EtcdClient {
    package func call<Answer: SwiftProtobuf.Message>(
        _ method: RPCMethod, _ request: some SwiftProtobuf.Message,
        answer: Answer.Type = Answer.self,
        timeout: TimeSpan
    ) async throws(EtcdClientError) -> Answer {
        let bytes: [UInt8]
        do {
            bytes = try request.serializedBytes()
        } catch {
            throw EtcdClientError(
                kind: .refused, status: .invalidArgument, message: "\(error)", wasSent: false)
        }
        let reply = try await unary(method, bytes, timeout: timeout).get()
        do {
            return try Answer(serializedBytes: reply)
        } catch {
            throw .answered(.internal, "the answer is not what \(method.path) returns: \(error)")
        }
    }

    /// A client of the same endpoint as this user; as nobody, if authentication is off there.
    package func signedIn(
        as user: String, password: String, timeout: TimeSpan = .seconds(10)
    ) async throws(EtcdClientError) -> EtcdClient {
        var request = Etcdserverpb_AuthenticateRequest()
        request.name = user
        request.password = password
        do throws(EtcdClientError) {
            let answer = try await call(
                .authenticate, request, answer: Etcdserverpb_AuthenticateResponse.self,
                timeout: timeout)
            return again(token: answer.token)
        } catch {
            guard error.message.hasSuffix("authentication is not enabled") else { throw error }
            return again()
        }
    }

    /// One key, linearizable unless told otherwise; `nil` if it is not there.
    package func get(
        _ key: String, isSerializable: Bool = false, timeout: TimeSpan = .seconds(5)
    ) async throws(EtcdClientError) -> (kv: Mvccpb_KeyValue?, header: Etcdserverpb_ResponseHeader) {
        var request = Etcdserverpb_RangeRequest()
        request.key = Data(key.utf8)
        request.serializable = isSerializable
        let answer = try await call(
            .range, request, answer: Etcdserverpb_RangeResponse.self, timeout: timeout)
        return (answer.kvs.first, answer.header)
    }

    /// Every key that starts with `prefix`, page by page, all at one revision.
    package func list(
        prefix: String, pageSize: Int64 = 1000, timeout: TimeSpan = .seconds(5)
    ) async throws(EtcdClientError) -> (kvs: [Mvccpb_KeyValue], revision: Int64) {
        var request = Etcdserverpb_RangeRequest()
        request.key = Data(prefix.utf8)
        request.rangeEnd = Self.prefixEnd(request.key)
        request.limit = pageSize
        var all: [Mvccpb_KeyValue] = []
        while true {
            let answer = try await call(
                .range, request, answer: Etcdserverpb_RangeResponse.self, timeout: timeout)
            all += answer.kvs
            if request.revision == 0 { request.revision = answer.header.revision }
            guard answer.more, let last = answer.kvs.last else { return (all, request.revision) }
            request.key = last.key + [0]
        }
    }

    @discardableResult
    package func put(
        _ key: String, _ value: String, lease: Int64 = 0, timeout: TimeSpan = .seconds(5)
    ) async throws(EtcdClientError) -> Etcdserverpb_PutResponse {
        var request = Etcdserverpb_PutRequest()
        request.key = Data(key.utf8)
        request.value = Data(value.utf8)
        request.lease = lease
        return try await call(.put, request, timeout: timeout)
    }

    @discardableResult
    package func delete(
        _ key: String, isPrefix: Bool = false, timeout: TimeSpan = .seconds(5)
    ) async throws(EtcdClientError) -> Etcdserverpb_DeleteRangeResponse {
        var request = Etcdserverpb_DeleteRangeRequest()
        request.key = Data(key.utf8)
        if isPrefix { request.rangeEnd = Self.prefixEnd(request.key) }
        return try await call(.deleteRange, request, timeout: timeout)
    }

    package func txn(
        _ request: Etcdserverpb_TxnRequest, timeout: TimeSpan = .seconds(5)
    ) async throws(EtcdClientError) -> Etcdserverpb_TxnResponse {
        try await call(.txn, request, timeout: timeout)
    }

    package func status(
        timeout: TimeSpan = .seconds(5)
    ) async throws(EtcdClientError) -> Etcdserverpb_StatusResponse {
        try await call(.status, Etcdserverpb_StatusRequest(), timeout: timeout)
    }

    /// Watches a key, or everything under a prefix, from `revision` (0: from now).
    package func watch(
        _ key: String, isPrefix: Bool = false, from revision: Int64 = 0
    ) -> EtcdWatch {
        var create = Etcdserverpb_WatchCreateRequest()
        create.key = Data(key.utf8)
        if isPrefix { create.rangeEnd = Self.prefixEnd(create.key) }
        create.startRevision = revision
        var request = Etcdserverpb_WatchRequest()
        request.createRequest = create
        return EtcdWatch(stream: stream(.watch), request: request)
    }

    /// The first key after all that start with `prefix`; etcd's way to say "to the end" is a zero
    /// byte.
    package static func prefixEnd(_ prefix: Data) -> Data {
        var end = Array(prefix)
        while let last = end.popLast() {
            if last < 0xFF { return Data(end + [last + 1]) }
        }
        return Data([0])
    }
}

/// A running watch: iterate it for its answers (the first says `created`).
package struct EtcdWatch: AsyncSequence, Sendable {
    package typealias Element = Etcdserverpb_WatchResponse
    private let stream: EtcdStream

    init(stream: EtcdStream, request: Etcdserverpb_WatchRequest) {
        self.stream = stream
        send(request)
    }

    package func send(_ request: Etcdserverpb_WatchRequest) {
        // A message without required fields always serializes; if not, the server says what it
        // misses.
        stream.send((try? request.serializedBytes()) ?? [])
    }
    package func cancel() { stream.cancel() }

    package func makeAsyncIterator() -> Iterator {
        Iterator(base: stream.messages.makeAsyncIterator())
    }

    package struct Iterator: AsyncIteratorProtocol {
        fileprivate var base: AsyncThrowingStream<[UInt8], any Error>.Iterator
        package mutating func next() async throws -> Etcdserverpb_WatchResponse? {
            guard let bytes = try await base.next() else { return nil }
            return try Etcdserverpb_WatchResponse(serializedBytes: bytes)
        }
    }
}
