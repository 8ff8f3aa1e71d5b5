import EtcdAPI
import EtcdFacade
import Foundation
import NIOCore
import NIOEmbedded
import Primitives
import SwiftProtobuf

/// A whole front door without sockets: `RPCServer`, the facade, and a node that is a map in memory.
final class FuzzServer {
    let loop = EmbeddedEventLoop()
    let server: RPCServer
    let facade: Facade
    let node = FakeNode()
    let crypto = FakeCrypto()
    private(set) var inputs = 0

    init(auth: AuthSettings = AuthSettings()) {
        server = RPCServer(loop: loop)
        facade = Facade(
            node: node, server: server, auth: AuthServices(crypto: crypto, settings: auth))
        node.client = facade
        server.handler = facade
        for i in 0..<4 {
            _ = call(.put, .with { $0.key = Bytes("key\(i)").data; $0.value = Bytes("value").data } as Etcdserverpb_PutRequest)
        }
    }

    deinit { server.handler = nil }

    /// The node remembers everything: after some inputs a new one is due.
    var isWorn: Bool {
        inputs += 1
        return inputs > 500
    }

    /// A call without a connection.
    @discardableResult
    func call(_ method: RPCMethod, _ message: some Message, token: String? = nil) -> Answers {
        call(method, Bytes((try? message.serializedBytes() as [UInt8]) ?? []), token: token)
    }

    @discardableResult
    func call(_ method: RPCMethod, _ message: Bytes, token: String? = nil) -> Answers {
        let answers = Answers()
        var metadata = CallMetadata()
        metadata.token = token
        let call = server.begin(method, metadata, sink: answers)
        answers.call = call
        server.receive(message, on: call)
        server.halfClose(call)
        loop.run()
        return answers
    }

    /// Bytes of one connection, in pieces; then its end. The server must have forgotten it all.
    func connection(_ bytes: [UInt8], pieceBytes: Int) throws {
        let channel = EmbeddedChannel(loop: loop)
        try server.configure(channel)
        channel.connect(to: try SocketAddress(unixDomainSocketPath: "/fuzz"), promise: nil)
        var at = 0
        while at < bytes.count, channel.isActive {
            let end = min(bytes.count, at + max(1, pieceBytes))
            try? channel.writeInbound(ByteBuffer(bytes: bytes[at..<end]))
            at = end
            drain(channel)
        }
        loop.run()
        drain(channel)
        _ = try? channel.finish(acceptAlreadyClosed: true)
        loop.run()
        guard server.openCalls == 0 else { throw Finding("\(server.openCalls) calls outlive the connection") }
        guard server.openConnections == 0 else { throw Finding("the connection outlives its end") }
    }

    private func drain(_ channel: EmbeddedChannel) {
        while (try? channel.readOutbound(as: ByteBuffer.self)) ?? nil != nil {}
    }
}

/// What a call was answered.
final class Answers: LocalCallSink {
    var call: CallReference?
    private(set) var messages: [Bytes] = []
    private(set) var status: GRPCStatus?
    private(set) var text = ""
    private(set) var bytes = 0
    var bufferedBytes: Int { 0 }

    func onAnswer(_ message: Bytes) {
        bytes += message.count
        if messages.count < 64 { messages.append(message) }
    }
    func onFinish(_ status: GRPCStatus, _ message: String) {
        self.status = status
        text = message
    }
}

extension Bytes {
    var data: Data { Data(array) }
}
