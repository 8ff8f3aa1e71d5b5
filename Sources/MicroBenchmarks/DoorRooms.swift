import EtcdAPI
import EtcdFacade
import NIOCore
import NIOEmbedded
import Primitives

// The front door: bytes of a client's connection in, bytes out; behind it a node that has the answer.

extension Room {
    static var doorRooms: [Room] {
        [
            Room("front door, put", per: "unary request", budget: .doorPut) {
                try unary(Door.putFields, Door.putRequest)
            },
            Room("front door, get", per: "unary request", budget: .doorGet) {
                try unary(Door.getFields, Door.getRequest)
            },
            Room("watch fan-out", per: "event; 1,000 watchers on 100 streams", units: 1000, warmUp: 10,
                operations: 50, budget: .fanOut, prepare: fanOut),
        ]
    }

    private static func unary(_ fields: HTTP2Fields, _ message: Bytes) throws -> Step {
        let door = try Door()
        // Made beforehand, so that the client is not measured.
        var requests = door.record(fields, message, count: 12_000)[...]
        return Step(run: {
            guard let request = requests.popFirst() else { throw BenchmarkError("no requests are left") }
            guard try door.exchange(request) > 0 else { throw BenchmarkError("no answer") }
        })
    }

    private static func fanOut() throws -> Step {
        let door = try Door()
        for stream in 0..<100 { try door.watch(key(1), times: 10, stream: stream) }
        var revision = door.node.revision.rawValue
        let first = row(1, revision: 1)
        return Step(run: {
            revision += 1
            var changed = first
            changed.modRevision = Revision(revision)
            let bytes = try door.deliver(
                RevisionChanges(revision: Revision(revision), rows: [changed]))
            guard bytes > 1000 * 256 else { throw BenchmarkError("only \(bytes) bytes of events") }
        })
    }
}

/// A server, its facade and one connection in memory.
private final class Door {
    let node = AnsweringNode()
    private let loop = EmbeddedEventLoop()
    private let server: RPCServer
    private let facade: Facade
    private let channel: EmbeddedChannel
    private let client: HTTP2Session
    private let delegate = SilentClient()

    // Shared: the connection's table knows the fields after the first request, as every client's does.
    static let putFields = fields("/etcdserverpb.KV/Put")
    static let getFields = fields("/etcdserverpb.KV/Range")
    static let watchFields = fields("/etcdserverpb.Watch/Watch")

    private static func fields(_ path: String) -> HTTP2Fields {
        .shared([
            (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost:2379"),
            ("content-type", "application/grpc"), ("te", "trailers"),
        ])
    }

    static let putRequest: Bytes = {
        let key = Room.key(1)
        var bytes: [UInt8] = [0x0A, UInt8(key.count)]
        bytes += key.array
        // Field 2, 256 bytes.
        bytes += [0x12, 0x80, 0x02] + Room.value.array
        return Bytes(bytes)
    }()
    static let getRequest: Bytes = {
        let key = Room.key(1)
        return Bytes([0x0A, UInt8(key.count)] + key.array)
    }()

    init() throws {
        server = RPCServer(loop: loop)
        facade = Facade(node: node, server: server)
        server.handler = facade
        node.client = facade
        var settings = HTTP2Settings()
        settings.connectionWindowBytes = 1 << 30
        settings.streamWindowBytes = 1 << 30
        client = HTTP2Session(role: .client, settings: settings, delegate: delegate)
        channel = EmbeddedChannel(loop: loop)
        try server.configure(channel)
        try channel.connect(to: SocketAddress(unixDomainSocketPath: "/client")).wait()
        // The settings of both sides, so that the number of streams has no limit.
        for _ in 0..<2 { try pass(drained()) }
    }

    deinit {
        client.close()
        _ = try? channel.finish(acceptAlreadyClosed: true)
    }

    private func drained() -> ByteBuffer {
        var buffer = ByteBuffer()
        _ = client.drain(into: &buffer, limit: .max)
        return buffer
    }

    /// To the server, and what it says back to the client.
    private func pass(_ bytes: ByteBuffer) throws {
        if bytes.readableBytes > 0 { try channel.writeInbound(bytes) }
        loop.run()
        while let answer = try channel.readOutbound(as: ByteBuffer.self) {
            _ = answer.withUnsafeReadableBytes { client.feed($0) }
        }
    }

    private func open(_ fields: HTTP2Fields) throws -> Int32 {
        guard let stream = client.open(fields, context: 0) else { throw BenchmarkError("no stream") }
        return stream
    }

    func record(_ fields: HTTP2Fields, _ message: Bytes, count: Int) -> [ByteBuffer] {
        (0..<count).compactMap { _ in
            guard let stream = try? open(fields) else { return nil }
            client.send(stream, message, isMessage: true)
            client.end(stream)
            return drained()
        }
    }

    /// Bytes that the server has answered with.
    func exchange(_ request: ByteBuffer) throws -> Int {
        try channel.writeInbound(request)
        return try take()
    }

    private func take() throws -> Int {
        loop.run()
        var bytes = 0
        while let answer = try channel.readOutbound(as: ByteBuffer.self) { bytes += answer.readableBytes }
        return bytes
    }

    func watch(_ key: Bytes, times: Int, stream: Int) throws {
        let call = try open(Door.watchFields)
        let creation = [0x0A, UInt8(key.count)] + key.array
        let request = Bytes([0x0A, UInt8(creation.count)] + creation)
        for _ in 0..<times { client.send(call, request, isMessage: true) }
        try pass(drained())
    }

    func deliver(_ change: RevisionChanges) throws -> Int {
        facade.onChanges([change], through: change.revision)
        return try take()
    }
}

private final class SilentClient: HTTP2SessionDelegate {
    func onOpen(_ stream: Int32) -> Int { 0 }
    func onField(
        _ stream: Int32, _ context: Int, name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer
    ) {}
    func onFieldsEnd(_ stream: Int32, _ context: Int) {}
    func onData(_ stream: Int32, _ context: Int, _ data: UnsafeRawBufferPointer) {}
    func onEnd(_ stream: Int32, _ context: Int) {}
    func onWritable(_ stream: Int32, _ context: Int) {}
    func onClose(_ stream: Int32, _ context: Int, code: UInt32) {}
    func onPing() {}
    func onPong(_ payload: UInt64) {}
    func onGoAway(lastStream: Int32, code: UInt32) {}
}

/// A node that answers at once: every put succeeds, every get finds the same row. It is not measured.
private final class AnsweringNode: NodeAccess {
    weak var client: (any NodeClient)?
    private(set) var revision = Revision(2)
    private let row = Room.row(1, revision: 2)
    private let result = TransactionResult(succeeded: true, results: [.put(previous: nil)])
    private let picture: NodeStatus = {
        var picture = NodeStatus()
        picture.clusterID = 1
        picture.memberID = 1
        picture.sequencer = NodeID(1)
        picture.epochRound = 1
        picture.revision = Revision(2)
        picture.isReady = true
        return picture
    }()

    func submit(_ request: Request, deadline: Instant, token: UInt64) {
        revision = revision.next
        client?.onResponse(.transaction(result, revision: revision), token: token)
    }
    func readIndex(linearizable: Bool, deadline: Instant, token: UInt64) {
        client?.onReadIndex(
            .success(ReadIndex(revision: revision, compactRevision: .zero)), token: token)
    }
    func range(_ query: RangeQuery, at revision: Revision) throws(RequestError) -> RangeResult {
        RangeResult(rows: [row], more: false, count: 1)
    }
    func row(_ key: Bytes, at revision: Revision) throws(RequestError) -> Row? { row }

    var status: NodeStatus { picture }
    var epochRound: UInt64 { 1 }
    var compactRevision: Revision { .zero }
    var now: Instant { Instant(nanoseconds: 1_000_000_000) }

    // What no room asks for.
    func moveLeader(to: NodeID, deadline: Instant, token: UInt64) {}
    func cancel(token: UInt64) {}
    func changes(
        after: Revision, through: Revision, maxRows: Int, maxBytes: Int
    ) throws(RequestError) -> [RevisionChanges] { [] }
    func hash(
        at revision: Revision, _ done: @escaping (Result<UInt32, RequestError>) -> Void
    ) { done(.failure(.stopped)) }
    func openSnapshot() throws(SnapshotFailure) -> any SnapshotSource { throw .tooMany }
    func reclaimSpace() {}
    func setAlarm(_ alarm: Alarm, isRaised: Bool) -> Bool { false }
    func randomLeaseID() -> LeaseID { LeaseID(1) }
}
