import EtcdAPI
import Foundation
import NIOCore
import NIOEmbedded
import Primitives
import SwiftProtobuf
import Testing

@testable import EtcdFacade

/// Takes down what the facade sends. A call in `slow` is one whose client does not read.
final class Recorder: CallOutput {
    struct Outcome: Equatable {
        let status: GRPCStatus
        let text: String
    }
    private(set) var messages: [CallReference: [[UInt8]]] = [:]
    private(set) var outcomes: [CallReference: Outcome] = [:]
    private var buffered: [CallReference: Int] = [:]
    var slow: Set<CallReference> = []
    /// What is left for large answers.
    var roomBytes = Int.max
    func hasRoom(for bytes: Int) -> Bool { bytes <= roomBytes }
    var isPressed = false
    /// What was encoded once for many.
    private(set) var shared = 0
    func share(_ bytes: Bytes) -> SharedBytes {
        shared += 1
        return SharedBytes(bytes, counting: UnreadBytes())
    }

    func send(_ message: [UInt8], to call: CallReference) {
        guard outcomes[call] == nil else { return }
        messages[call, default: []].append(message)
        if slow.contains(call) { buffered[call, default: 0] += message.count }
    }
    func finish(_ call: CallReference, _ status: GRPCStatus, message: String) {
        #expect(outcomes[call] == nil, "\(call) ended twice")
        outcomes[call] = Outcome(status: status, text: message)
    }
    func bufferedBytes(of call: CallReference) -> Int { buffered[call] ?? 0 }

    func drain(_ call: CallReference) { buffered[call] = 0 }
    func take(_ call: CallReference) -> [[UInt8]] {
        defer { messages[call] = [] }
        return messages[call] ?? []
    }
}

/// A facade over a fake node, and clients that talk to it in wire bytes, encoded and decoded by
/// SwiftProtobuf: the facade's own codec is compared with it in every test.
final class Client {
    let node = FakeNode()
    let output = Recorder()
    let loop = EmbeddedEventLoop()
    let facade: Facade
    private var nextSlot: UInt32 = 0

    let crypto = FakeCrypto()
    /// Shown with every call.
    var token: String?
    var certificateName: String?

    init(_ limits: FacadeLimits = FacadeLimits(), auth: AuthSettings = AuthSettings()) {
        facade = Facade(
            node: node, output: output, loop: loop, limits: limits,
            auth: AuthServices(crypto: crypto, settings: auth))
        node.client = facade
    }

    func open(_ method: RPCMethod, requiresLeader: Bool = false, timeout: TimeSpan? = nil)
        -> CallReference
    {
        nextSlot += 1
        let call = CallReference(slot: nextSlot, generation: 1)
        var metadata = CallMetadata()
        metadata.requiresLeader = requiresLeader
        metadata.token = token
        metadata.peerName = certificateName
        metadata.timeout = timeout
        facade.onCall(call, method: method, metadata: metadata)
        return call
    }

    func send(_ message: some Message, to call: CallReference) {
        send(bytes(message), to: call)
    }
    func send(_ message: [UInt8], to call: CallReference) { facade.onMessage(call, Bytes(message)) }

    func bytes(_ message: some Message) -> [UInt8] {
        do {
            return try message.serializedBytes()
        } catch {
            Issue.record("\(error)")
            return []
        }
    }

    /// A unary call, begun; answered perhaps.
    func begin(_ method: RPCMethod, _ message: some Message) -> CallReference {
        let call = open(method)
        send(message, to: call)
        facade.onHalfClose(call)
        return call
    }

    func answer<Answer: Message>(_ call: CallReference, as type: Answer.Type = Answer.self)
        throws -> Answer
    {
        // What waits for its turn, if it does.
        if output.outcomes[call] == nil { loop.run() }
        let outcome = try #require(output.outcomes[call])
        #expect(outcome == Recorder.Outcome(status: .ok, text: ""))
        let messages = output.take(call)
        try #require(messages.count == 1)
        return try Answer(serializedBytes: messages[0])
    }

    func call<Answer: Message>(
        _ method: RPCMethod, _ message: some Message, as type: Answer.Type = Answer.self
    ) throws -> Answer {
        try answer(begin(method, message))
    }

    func failure(_ method: RPCMethod, _ message: some Message) -> Recorder.Outcome? {
        let call = begin(method, message)
        if output.outcomes[call] == nil { loop.run() }
        #expect(output.take(call).isEmpty)
        return output.outcomes[call]
    }

    // MARK: Lists

    /// Keys k<first>, k<first + 1>, ...
    func fill(_ count: Int, from first: Int, valueBytes: Int) throws {
        for i in 0..<count {
            try put("k\(first + i)", String(repeating: "v", count: valueBytes))
        }
    }

    /// Of all of them, if `change` does not say otherwise.
    func beginList(
        _ method: RPCMethod, _ change: (inout Etcdserverpb_RangeRequest) -> Void
    ) -> CallReference {
        var request = Etcdserverpb_RangeRequest.with {
            $0.key = data("k")
            $0.rangeEnd = data("l")
        }
        change(&request)
        return begin(method, request)
    }

    // MARK: Everyday requests

    @discardableResult
    func put(_ key: String, _ value: String = "v", lease: Int64 = 0) throws -> Int64 {
        let answer: Etcdserverpb_PutResponse = try call(
            .put,
            Etcdserverpb_PutRequest.with {
                $0.key = data(key)
                $0.value = data(value)
                $0.lease = lease
            })
        return answer.header.revision
    }

    @discardableResult
    func delete(_ key: String, end: String = "") throws -> Int64 {
        let answer: Etcdserverpb_DeleteRangeResponse = try call(
            .deleteRange,
            Etcdserverpb_DeleteRangeRequest.with {
                $0.key = data(key)
                $0.rangeEnd = data(end)
            })
        return answer.header.revision
    }

    func get(_ key: String, _ change: (inout Etcdserverpb_RangeRequest) -> Void = { _ in }) throws
        -> Etcdserverpb_RangeResponse
    {
        var request = Etcdserverpb_RangeRequest.with { $0.key = data(key) }
        change(&request)
        return try call(.range, request)
    }

    // MARK: Watches

    func watch(
        _ call: CallReference, _ key: String,
        _ change: (inout Etcdserverpb_WatchCreateRequest) -> Void = { _ in }
    ) {
        var creation = Etcdserverpb_WatchCreateRequest.with { $0.key = data(key) }
        change(&creation)
        send(Etcdserverpb_WatchRequest.with { $0.createRequest = creation }, to: call)
    }

    func cancelWatch(_ call: CallReference, _ id: Int64) {
        send(
            Etcdserverpb_WatchRequest.with { $0.cancelRequest = .with { $0.watchID = id } },
            to: call)
    }

    func requestProgress(_ call: CallReference) {
        send(Etcdserverpb_WatchRequest.with { $0.progressRequest = .init() }, to: call)
    }

    /// What has come on a watch call since the last asking, after the loop has done its work.
    func responses(_ call: CallReference) throws -> [Etcdserverpb_WatchResponse] {
        loop.run()
        return try output.take(call).map { try Etcdserverpb_WatchResponse(serializedBytes: $0) }
    }

    func advance(milliseconds: UInt64) {
        node.now = node.now.advanced(by: .milliseconds(milliseconds))
        loop.advanceTime(by: .milliseconds(Int64(milliseconds)))
    }
}

func text(_ data: Data) -> String { String(decoding: data, as: UTF8.self) }
func data(_ text: String) -> Data { Data(text.utf8) }

extension Etcdserverpb_WatchResponse {
    /// For comparing: `3 put a=1`, `4 delete a`, with `<before` if there is a previous version.
    var shown: [String] {
        events.map { event in
            let kv = event.kv
            let what =
                event.type == .delete
                ? "delete \(text(kv.key))" : "put \(text(kv.key))=\(text(kv.value))"
            return "\(kv.modRevision) \(what)"
                + (event.hasPrevKv ? "<\(text(event.prevKv.value))" : "")
        }
    }
}
