import NIOCore
package import Primitives

/// Where the answers to a call go that did not come as gRPC. On the server's loop.
package protocol LocalCallSink: AnyObject {
    func onAnswer(_ message: Bytes)
    /// The last that comes, once, unless `cancel` was called first.
    func onFinish(_ status: GRPCStatus, _ message: String)
    /// Written and not yet taken by the client's connection.
    var bufferedBytes: Int { get }
}

/// Calls that come in by another door (the JSON gateway, in this process) and are otherwise like any
/// call: one table, the same deadlines, the same handler.
extension RPCServer {
    static let localConnection = -1

    /// Opens a call. The handler may have ended it when this returns.
    package func begin(
        _ method: RPCMethod, _ metadata: CallMetadata, sink: any LocalCallSink
    ) -> CallReference {
        let slot = takeCall(connection: Self.localConnection, stream: 0)
        sinks[slot] = sink
        let call = reference(slot)
        beginCall(slot, method, metadata, encoding: nil, now: loop.now)
        armTimer()
        return call
    }

    package func receive(_ message: Bytes, on call: CallReference) {
        guard let slot = resolve(call) else { return }
        guard message.count <= limits.messageBytesMax else {
            return abort(
                slot, .resourceExhausted,
                "grpc: received message larger than max (\(message.count) vs. "
                    + "\(limits.messageBytesMax))")
        }
        counters.messageBytesReceived &+= UInt64(message.length)
        handler?.onMessage(call, message)
    }

    package func halfClose(_ call: CallReference) {
        guard resolve(call) != nil else { return }
        handler?.onHalfClose(call)
    }

    /// The client has gone: nothing more is said to the sink.
    package func cancel(_ call: CallReference) {
        guard let slot = resolve(call) else { return }
        sinks[slot] = nil
        closeCall(slot)
    }

    /// The sink's `bufferedBytes` were above the high mark and are below the low one.
    package func drained(_ call: CallReference) {
        guard resolve(call) != nil else { return }
        handler?.onWritable(call)
    }

    func sendLocally(_ slot: Int, _ message: Bytes) {
        counters.messageBytesSent &+= UInt64(message.length)
        sinks[slot]?.onAnswer(message)
    }

    func sendLocally(_ slot: Int, framed messages: Bytes) {
        var at = 0
        while at + 5 <= messages.count {
            let size = (1...4).reduce(0) { $0 << 8 | Int(messages[at + $1]) }
            sendLocally(slot, messages[(at + 5)..<(at + 5 + size)])
            at += 5 + size
        }
    }

    /// The row is free before the sink hears of it: it may begin another call.
    func endLocally(_ slot: Int, _ status: GRPCStatus, _ message: String) {
        let sink = sinks.removeValue(forKey: slot)
        closeCall(slot)
        sink?.onFinish(status, message)
    }
}
