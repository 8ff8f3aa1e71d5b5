package import NIOCore
package import Primitives

/// gRPC and HTTP for one loop: listens, keeps the table of calls, their deadlines and connections.
///
/// Everything happens on `loop`; the class is `Sendable` only so that NIO's closures can carry it back
/// to that loop. As in `HTTP2Session`, access to hot properties is not checked for exclusivity: nothing
/// of theirs is held while the handler is called.
package final class RPCServer: @unchecked Sendable {
    package let loop: any EventLoop
    package let limits: RPCLimits
    /// Set before `bind`. Held until the server has shut down.
    @exclusivity(unchecked) package var handler: (any RPCHandler)?

    let methods = RPCMethodTable()
    package let steps: LoopSteps
    let scratch: HTTP2Scratch
    package let unread: UnreadBytes
    var slowReaders = SlowReaders()
    /// Connections of HTTP/1.1; those of HTTP/2 are in `connections`.
    var http1: [ObjectIdentifier: HTTP1Handler] = [:]
    /// Half-sent requests of all connections (`RPCServer+HalfSent`), and how many bytes ever came for such.
    @exclusivity(unchecked) package var halfSentBytes = 0
    @exclusivity(unchecked) var halfSentClock: UInt64 = 0
    /// The row that was looked at last.
    var halfSentHand = 0
    @exclusivity(unchecked) var calls: ContiguousArray<ServerCall> = []
    /// Of calls whose message is being inflated, by slot.
    var inflating: [Int: Inflating] = [:]
    /// Of calls without a connection, by slot.
    var sinks: [Int: any LocalCallSink] = [:]
    @exclusivity(unchecked) private var freeCall: Int32 = -1
    @exclusivity(unchecked) private(set) var connections: ContiguousArray<RPCConnection?> = []
    private var freeConnections: [Int] = []
    @exclusivity(unchecked) private var dirty: [Int] = []
    private var flushIsDue = false

    @exclusivity(unchecked) private var wheel: DeadlineWheel
    private var timer: (task: Scheduled<Void>, at: UInt64)?
    @exclusivity(unchecked) private var earliest: UInt64?
    private var expired: [Int] = []

    private var listeners: [any Channel] = []
    private var channels: [ObjectIdentifier: any Channel] = [:]
    private(set) var isShuttingDown = false
    private var shutDown: EventLoopPromise<Void>?

    /// What a dashboard wants to know of the front door.
    package struct Counters: Sendable {
        package var connectionsOpened: UInt64 = 0
        package var callsStarted: UInt64 = 0
        package var callsCancelled: UInt64 = 0
        package var deadlinesExceeded: UInt64 = 0
        package var callsRefused: UInt64 = 0
        package var messageBytesReceived: UInt64 = 0
        package var messageBytesSent: UInt64 = 0
        package var slowReadersDropped: UInt64 = 0
        package var halfSentDropped: UInt64 = 0
        /// Connections whose clients gave up too many calls.
        package var resetFloods: UInt64 = 0
    }
    @exclusivity(unchecked) package internal(set) var counters = Counters()
    @exclusivity(unchecked) package private(set) var openCalls = 0
    package var openConnections: Int { channels.count }

    package init(loop: any EventLoop, limits: RPCLimits = RPCLimits(), ticks: LoopTicks? = nil) {
        self.loop = loop
        self.limits = limits
        unread = UnreadBytes(limit: limits.unreadBytesTotalMax)
        steps = LoopSteps(loop: loop, ticks: ticks)
        unread.steps = steps
        scratch = HTTP2Scratch(steps: steps)
        wheel = DeadlineWheel(now: loop.now.uptimeNanoseconds)
    }

    // MARK: What the handler does

    /// One message. The bytes are kept until they have left, not copied.
    package func send(_ message: Bytes, to call: CallReference) {
        guard let slot = resolve(call) else { return }
        let at = calls[slot].connection
        guard at >= 0 else { return sendLocally(slot, message) }
        guard let connection = connections[at] else { return }
        let stream = calls[slot].stream
        if !calls[slot].hasAnswered {
            calls[slot].hasAnswered = true
            connection.session.respond(stream, Self.answer, hasBody: true)
        }
        connection.session.send(stream, message, isMessage: true)
        counters.messageBytesSent &+= UInt64(message.length)
        wrote(connection)
    }

    package func send(_ message: [UInt8], to call: CallReference) { send(Bytes(message), to: call) }

    /// Several messages at once, each behind its five bytes already.
    package func sendFramed(_ messages: [UInt8], to call: CallReference) {
        guard let slot = resolve(call) else { return }
        let at = calls[slot].connection
        guard at >= 0 else { return sendLocally(slot, framed: Bytes(messages)) }
        guard let connection = connections[at] else { return }
        let stream = calls[slot].stream
        if !calls[slot].hasAnswered {
            calls[slot].hasAnswered = true
            connection.session.respond(stream, Self.answer, hasBody: true)
        }
        connection.session.send(stream, Bytes(messages), isMessage: false)
        counters.messageBytesSent &+= UInt64(messages.count)
        wrote(connection)
    }

    /// One message whose `head` is this call's (and begins with gRPC's five bytes), and whose rest is
    /// everybody's.
    package func send(_ head: [UInt8], _ rest: SharedBytes, to call: CallReference) {
        guard let slot = resolve(call) else { return }
        let at = calls[slot].connection
        guard at >= 0 else { return sendLocally(slot, framed: Bytes(head + rest.bytes.array)) }
        guard let connection = connections[at] else { return }
        let stream = calls[slot].stream
        if !calls[slot].hasAnswered {
            calls[slot].hasAnswered = true
            connection.session.respond(stream, Self.answer, hasBody: true)
        }
        connection.session.send(stream, Bytes(head), isMessage: false)
        connection.session.send(stream, shared: rest)
        counters.messageBytesSent &+= UInt64(head.count + rest.bytes.length)
        wrote(connection)
    }

    /// For those who encode once for many.
    package func share(_ bytes: Bytes) -> SharedBytes { SharedBytes(bytes, counting: unread) }

    /// One message in parts, the first of which begins with gRPC's five bytes. Kept, not copied.
    package func sendParts(_ parts: [Bytes], to call: CallReference) {
        guard let slot = resolve(call) else { return }
        let at = calls[slot].connection
        guard at >= 0 else { return sendLocally(slot, framed: Bytes(parts.flatMap(\.array))) }
        guard let connection = connections[at] else { return }
        let stream = calls[slot].stream
        if !calls[slot].hasAnswered {
            calls[slot].hasAnswered = true
            connection.session.respond(stream, Self.answer, hasBody: true)
        }
        for part in parts {
            connection.session.send(stream, part, isMessage: false)
            counters.messageBytesSent &+= UInt64(part.length)
        }
        wrote(connection)
    }

    /// Sends the response's headers before there is a message, so that a client's stream counts as open.
    package func accept(_ call: CallReference) {
        guard let slot = resolve(call), !calls[slot].hasAnswered, calls[slot].connection >= 0,
            let connection = connections[calls[slot].connection]
        else { return }
        calls[slot].hasAnswered = true
        connection.session.respond(calls[slot].stream, Self.answer, hasBody: true)
        wrote(connection)
    }

    /// Ends the call. What was sent before leaves first.
    package func finish(_ call: CallReference, _ status: GRPCStatus = .ok, message: String = "") {
        guard let slot = resolve(call) else { return }
        end(slot, status, message)
    }

    /// Sent and not yet handed to the socket, for streams that must not fall behind without bound.
    package func bufferedBytes(of call: CallReference) -> Int {
        guard let slot = resolve(call) else { return 0 }
        let at = calls[slot].connection
        guard at >= 0 else { return sinks[slot]?.bufferedBytes ?? 0 }
        guard let connection = connections[at] else { return 0 }
        return connection.session.bufferedBytes(of: calls[slot].stream)
    }

    /// The same of all calls of this one's connection.
    package func connectionBytes(of call: CallReference) -> Int {
        guard let slot = resolve(call) else { return 0 }
        let at = calls[slot].connection
        guard at >= 0 else { return sinks[slot]?.bufferedBytes ?? 0 }
        return connections[at]?.unreadBytes ?? 0
    }

    /// The connection of a call, as `LoopSteps` knows it.
    package func owner(of call: CallReference) -> Int {
        resolve(call).map { calls[$0].connection } ?? -1
    }

    package func isOpen(_ call: CallReference) -> Bool { resolve(call) != nil }

    /// Writes now what the calls since the last read have left to write. Not necessary (it happens at
    /// the end of the loop's tick by itself), but earlier and cheaper at the end of a turn.
    package func flush() {
        var i = 0
        while i < dirty.count {
            if let connection = connections[dirty[i]] {
                connection.isDirty = false
                connection.channel?.flush()
            }
            i += 1
        }
        dirty.removeAll(keepingCapacity: true)
    }

    // MARK: Calls

    static let answer = HTTP2Fields.shared([
        (":status", "200"), ("content-type", "application/grpc"),
    ])
    private static let okTrailers = HTTP2Fields.shared([("grpc-status", "0"), ("grpc-message", "")])

    func resolve(_ call: CallReference) -> Int? {
        let slot = Int(call.slot)
        guard slot < calls.count, calls[slot].generation == call.generation,
            calls[slot].state == .open
        else { return nil }
        return slot
    }

    func reference(_ slot: Int) -> CallReference {
        CallReference(slot: UInt32(slot), generation: calls[slot].generation)
    }

    func takeCall(connection: Int, stream: Int32) -> Int {
        let slot: Int
        if freeCall >= 0 {
            slot = Int(freeCall)
            freeCall = calls[slot].nextFree
        } else {
            slot = calls.count
            calls.append(ServerCall())
        }
        calls[slot].connection = connection
        calls[slot].stream = stream
        calls[slot].state = .headers
        openCalls += 1
        return slot
    }

    /// The stream is gone.
    func closeCall(_ slot: Int) {
        stopInflating(slot)
        halfSent(slot, is: 0)
        let wasOpen = calls[slot].state == .open
        let call = reference(slot)
        wheel.clear(slot)
        let generation = calls[slot].generation &+ 1
        calls[slot] = ServerCall()
        calls[slot].generation = generation
        calls[slot].nextFree = freeCall
        freeCall = Int32(slot)
        openCalls -= 1
        guard wasOpen else { return }
        counters.callsCancelled &+= 1
        handler?.onCancelled(call)
    }

    func state(_ slot: Int) -> ServerCall.State { calls[slot].state }

    func setState(_ slot: Int, _ state: ServerCall.State) { calls[slot].state = state }

    func beginCall(_ slot: Int, _ method: RPCMethod, _ metadata: CallMetadata, encoding: String?, now: NIODeadline) {
        calls[slot].state = .open
        calls[slot].encoding = encoding
        calls[slot].reader.takesCompressed = encoding == "gzip"
        counters.callsStarted &+= 1
        if let timeout = metadata.timeout {
            let deadline = now.uptimeNanoseconds &+ min(timeout.nanoseconds, 1 << 62)
            wheel.set(slot, deadline: deadline)
            earliest = min(earliest ?? .max, deadline)
        }
        handler?.onCall(reference(slot), method: method, metadata: metadata)
    }

    /// Cuts `data` into messages and hands them over.
    func receive(_ slot: Int, _ data: UnsafeRawBufferPointer) {
        if calls[slot].isInflating {
            inflating[slot]?.rest.append(contentsOf: data)
            return
        }
        let call = reference(slot)
        var offset = 0
        while offset < data.count, calls[slot].state == .open {
            do throws(MessageReader.Failure) {
                let next = try calls[slot].reader.next(data, &offset, limit: limits.messageBytesMax)
                guard var message = next else { break }
                if calls[slot].reader.isCompressed {
                    let rest = UnsafeRawBufferPointer(rebasing: data[offset...])
                    guard let whole = try inflate(slot, message, rest) else { return }
                    message = whole
                }
                counters.messageBytesReceived &+= UInt64(message.length)
                handler?.onMessage(call, message)
            } catch {
                refuse(slot, error)
            }
        }
        halfSent(slot, is: calls[slot].reader.partialBytes)
    }

    func refuse(_ slot: Int, _ failure: MessageReader.Failure) {
        calls[slot].reader = MessageReader()
        switch failure {
        case .tooLarge(let count):
            abort(
                slot, .resourceExhausted,
                "grpc: received message larger than max (\(count) vs. \(limits.messageBytesMax))")
        case .compressed:
            if let encoding = calls[slot].encoding, encoding != "identity" {
                abort(
                    slot, .unimplemented,
                    "grpc: Decompressor is not installed for grpc-encoding \"\(encoding)\"")
            } else {
                abort(slot, .internal, "grpc: compressed flag set with identity or empty encoding")
            }
        case .damaged(let text):
            abort(slot, .internal, "grpc: failed to decompress the received message \(text)")
        case .badFlag(let flag):
            abort(slot, .internal, "grpc: received unexpected payload format \(flag)")
        }
    }

    func halfClose(_ slot: Int) {
        guard calls[slot].state == .open else { return }
        if calls[slot].isInflating {
            inflating[slot]?.hasEnded = true
        } else if calls[slot].reader.isEmpty {
            handler?.onHalfClose(reference(slot))
        } else {
            abort(slot, .internal, "unexpected EOF")
        }
    }

    func writable(_ slot: Int) {
        guard calls[slot].state == .open else { return }
        handler?.onWritable(reference(slot))
    }

    /// Ends a call that the handler knows, without its doing.
    func abort(_ slot: Int, _ status: GRPCStatus, _ message: String) {
        let call = reference(slot)
        end(slot, status, message)
        counters.callsCancelled &+= 1
        handler?.onCancelled(call)
    }

    /// Also for calls that the handler never heard of.
    func end(_ slot: Int, _ status: GRPCStatus, _ message: String, httpStatus: Int = 200) {
        calls[slot].state = .ended
        wheel.clear(slot)
        stopInflating(slot)
        if calls[slot].halfSentBytes > 0 {
            // Now: the stream may live on until its client has read of it.
            calls[slot].reader = MessageReader()
            halfSent(slot, is: 0)
        }
        guard calls[slot].connection >= 0 else { return endLocally(slot, status, message) }
        guard let connection = connections[calls[slot].connection] else { return }
        let stream = calls[slot].stream
        if calls[slot].hasAnswered {
            connection.session.end(
                stream, trailers: status == .ok ? Self.okTrailers : HTTP2Fields(fields(status, message)))
        } else {
            let head = [(":status", "\(httpStatus)"), ("content-type", "application/grpc")]
            connection.session.respond(
                stream, HTTP2Fields(head + fields(status, message)), hasBody: false)
        }
        wrote(connection)
    }

    private func fields(_ status: GRPCStatus, _ message: String) -> [(String, String)] {
        [
            ("grpc-status", "\(status.rawValue)"),
            ("grpc-message", GRPCText.encodeMessage(message)),
        ]
    }

    // MARK: Connections

    func add(_ connection: RPCConnection) -> Int {
        counters.connectionsOpened &+= 1
        if let slot = freeConnections.popLast() {
            connections[slot] = connection
            return slot
        }
        connections.append(connection)
        return connections.count - 1
    }

    func remove(_ connection: RPCConnection) {
        connections[connection.slot] = nil
        freeConnections.append(connection.slot)
    }

    /// Something waits to be written.
    func wrote(_ connection: RPCConnection) {
        flushLater(connection)
    }

    /// At the end of the loop's tick, with all others that have been read from in it: answers that left one
    /// by one would wake their clients one by one, and bring their next requests one by one.
    func flushLater(_ connection: RPCConnection) {
        guard !connection.isDirty, connection.slot >= 0 else { return }
        connection.isDirty = true
        dirty.append(connection.slot)
        guard !flushIsDue else { return }
        flushIsDue = true
        loop.assumeIsolated().execute {
            self.flushIsDue = false
            self.flush()
        }
    }

    /// All connections that may hold unread answers.
    var answerHolders: [any AnswerHolder] {
        var holders: [any AnswerHolder] = []
        for connection in connections { if let connection { holders.append(connection) } }
        for handler in http1.values { holders.append(handler) }
        return holders
    }

    // MARK: Deadlines

    /// After a read: calls that are still open now are worth a timer.
    func armTimer() {
        guard let deadline = earliest else { return }
        earliest = nil
        guard wheel.count > 0, deadline < timer?.at ?? .max else { return }
        arm(at: deadline + 2 * DeadlineWheel.tickNanoseconds)
    }

    private func arm(at deadline: UInt64) {
        timer?.task.cancel()
        let task = loop.assumeIsolated().scheduleTask(
            deadline: .uptimeNanoseconds(min(deadline, UInt64(Int64.max)))
        ) {
            self.timer = nil
            self.expire()
        }
        timer = (task, deadline)
    }

    private func expire() {
        wheel.expire(now: loop.now.uptimeNanoseconds, into: &expired)
        let slots = expired
        expired.removeAll(keepingCapacity: true)
        for slot in slots where calls[slot].state == .open {
            counters.deadlinesExceeded &+= 1
            abort(slot, .deadlineExceeded, "context deadline exceeded")
        }
        if let next = wheel.nextWake { arm(at: next) }
    }

    // MARK: Listening and its end

    func adopt(_ channel: any Channel) {
        let id = ObjectIdentifier(channel)
        channels[id] = channel
        channel.closeFuture.assumeIsolated().whenComplete { _ in
            self.channels[id] = nil
            self.finishShutdownIfDone()
        }
    }

    func listening(_ channel: any Channel) { listeners.append(channel) }

    /// Tells the clients to go (GOAWAY), lets open calls finish, and closes what is left when
    /// `within` has passed.
    package func shutdown(within: TimeAmount) -> EventLoopFuture<Void> {
        if let shutDown { return shutDown.futureResult }
        isShuttingDown = true
        let promise = loop.makePromise(of: Void.self)
        shutDown = promise
        for listener in listeners { listener.close(promise: nil) }
        listeners = []
        for channel in channels.values {
            channel.pipeline.fireUserInboundEventTriggered(ShutdownEvent())
        }
        let task = loop.assumeIsolated().scheduleTask(in: within) {
            for channel in self.channels.values { channel.close(promise: nil) }
        }
        promise.futureResult.assumeIsolated().whenComplete { _ in
            task.cancel()
            self.timer?.task.cancel()
            self.timer = nil
            self.handler = nil
        }
        finishShutdownIfDone()
        return promise.futureResult
    }

    private func finishShutdownIfDone() {
        guard isShuttingDown, channels.isEmpty else { return }
        shutDown?.succeed()
    }
}

/// Fired into the pipelines of all connections when the server is told to end.
struct ShutdownEvent: Sendable {}

/// A row of the table of calls.
struct ServerCall {
    enum State: UInt8 {
        case free
        /// Headers are arriving.
        case headers
        /// Known to the handler.
        case open
        /// HTTP without gRPC: the connection has its exchange.
        case http
        /// Answered; the stream lives until the last byte has left.
        case ended
    }
    var generation: UInt32 = 0
    var state = State.free
    var hasAnswered = false
    var isInflating = false
    /// Below zero: the call came through `begin`, and its answers go to a sink.
    var connection = 0
    var stream: Int32 = 0
    var nextFree: Int32 = -1
    var reader = MessageReader()
    /// Of a message or body that is still coming, as accounted for; and since when (`halfSentClock`).
    var halfSentBytes = 0
    var halfSentSince: UInt64 = 0
    var encoding: String?
}
