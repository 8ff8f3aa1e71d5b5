import CNghttp2
import NIOCore
import Primitives

/// One request on a connection and what came of it. On the connection's loop.
final class ClientStream {
    /// What the answer's bytes mean.
    enum Shape { case grpc, plain }

    let shape: Shape
    /// Each gRPC message, or each piece of a plain body.
    var onMessage: ([UInt8]) -> Void
    /// Comes exactly once.
    var onEnd: (ClientStreamEnd) -> Void

    fileprivate(set) var id: Int32 = -1
    fileprivate var headers: [(name: String, value: String)] = []
    fileprivate var outgoing: [UInt8] = []
    fileprivate var outgoingStart = 0
    fileprivate var isOutgoingComplete = false
    fileprivate var incoming: [UInt8] = []
    fileprivate var isOver = false
    fileprivate var failure: String?

    init(
        shape: Shape, onMessage: @escaping ([UInt8]) -> Void,
        onEnd: @escaping (ClientStreamEnd) -> Void
    ) {
        self.shape = shape
        self.onMessage = onMessage
        self.onEnd = onEnd
    }

    fileprivate func end(_ end: ClientStreamEnd) {
        guard !isOver else { return }
        isOver = true
        let notify = onEnd
        onMessage = { _ in }
        onEnd = { _ in }
        notify(end)
    }
}

enum ClientStreamEnd: Sendable {
    /// The peer ended it: headers and trailers together.
    case complete(headers: [(name: String, value: String)])
    /// Reset, or the connection has gone.
    case broken(String)
}

/// HTTP/2, client side: nghttp2 in a NIO handler. One connection; on its loop.
final class ClientSession: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// Larger than what etcd sends in one message; a peer that sends more is cut off.
    private static let messageBytesMax = 64 << 20
    private static let streamWindow: Int32 = 4 << 20
    private static let connectionWindow: Int32 = 32 << 20

    private var session: OpaquePointer?
    private var channel: (any Channel)?
    private var streams: [Int32: ClientStream] = [:]
    private var isFeeding = false
    private var isDrainScheduled = false
    private var isPaused = false
    private(set) var isClosed = false
    private(set) var isGoingAway = false
    /// When bytes last came: tells a slow peer from one that has vanished.
    private(set) var lastHeard = NIODeadline.now()
    var onClosed: ((String) -> Void)?
    private var closeReason = "connection closed"

    deinit { if let session { nghttp2_session_del(session) } }

    func handlerAdded(context: ChannelHandlerContext) {
        channel = context.channel
        var callbacks: OpaquePointer?
        nghttp2_session_callbacks_new(&callbacks)
        defer { nghttp2_session_callbacks_del(callbacks) }
        nghttp2_session_callbacks_set_on_header_callback(callbacks) {
            _, frame, name, nameLength, value, valueLength, _, user in
            guard let user, let frame, let name, let value else { return 0 }
            ClientSession.from(user).onHeader(
                frame.pointee.hd.stream_id,
                String(
                    decoding: UnsafeBufferPointer(start: name, count: nameLength), as: UTF8.self),
                String(
                    decoding: UnsafeBufferPointer(start: value, count: valueLength), as: UTF8.self))
            return 0
        }
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks) {
            _, _, stream, data, length, user in
            guard let user, let data else { return 0 }
            ClientSession.from(user).onData(stream, UnsafeBufferPointer(start: data, count: length))
            return 0
        }
        nghttp2_session_callbacks_set_on_stream_close_callback(callbacks) { _, stream, code, user in
            guard let user else { return 0 }
            ClientSession.from(user).onStreamClose(stream, code)
            return 0
        }
        nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks) { _, frame, user in
            guard let user, let frame else { return 0 }
            if frame.pointee.hd.type == UInt8(NGHTTP2_GOAWAY.rawValue) {
                ClientSession.from(user).isGoingAway = true
            }
            return 0
        }
        nghttp2_session_client_new(
            &session, callbacks, Unmanaged.passUnretained(self).toOpaque())
        var settings = [
            nghttp2_settings_entry(
                settings_id: Int32(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE.rawValue),
                value: UInt32(Self.streamWindow)),
            nghttp2_settings_entry(
                settings_id: Int32(NGHTTP2_SETTINGS_ENABLE_PUSH.rawValue), value: 0),
        ]
        nghttp2_submit_settings(
            session, UInt8(NGHTTP2_FLAG_NONE.rawValue), &settings, settings.count)
        nghttp2_session_set_local_window_size(
            session, UInt8(NGHTTP2_FLAG_NONE.rawValue), 0, Self.connectionWindow)
    }

    private static func from(_ user: UnsafeMutableRawPointer) -> ClientSession {
        Unmanaged<ClientSession>.fromOpaque(user).takeUnretainedValue()
    }

    // MARK: Requests

    /// Starts a request. `isComplete`: no more will be sent.
    func start(
        _ stream: ClientStream, headers: [(String, String)], body: [UInt8], isComplete: Bool
    ) {
        guard let session, !isClosed else { return stream.end(.broken(closeReason)) }
        stream.outgoing = body
        stream.isOutgoingComplete = isComplete
        var flat: [UInt8] = []
        var lengths: [(Int, Int)] = []
        for (name, value) in headers {
            flat.append(contentsOf: name.utf8)
            flat.append(contentsOf: value.utf8)
            lengths.append((name.utf8.count, value.utf8.count))
        }
        let id = flat.withUnsafeMutableBufferPointer { buffer -> Int32 in
            var entries: [nghttp2_nv] = []
            var offset = 0
            for (name, value) in lengths {
                // nghttp2 copies what it is given here.
                entries.append(
                    nghttp2_nv(
                        name: buffer.baseAddress.map { $0 + offset },
                        value: buffer.baseAddress.map { $0 + offset + name }, namelen: name,
                        valuelen: value, flags: UInt8(NGHTTP2_NV_FLAG_NONE.rawValue)))
                offset += name + value
            }
            if isComplete && body.isEmpty {
                return nghttp2_submit_request(session, nil, entries, entries.count, nil, nil)
            }
            var provider = nghttp2_data_provider()
            provider.read_callback = { _, id, target, length, flags, _, user in
                guard let user, let target, let flags else { return 0 }
                return ClientSession.from(user).onRead(id, target, length, flags)
            }
            return nghttp2_submit_request(session, nil, entries, entries.count, &provider, nil)
        }
        guard id > 0 else {
            // Stream ids are used up, or the peer is going away: a new connection will do.
            isGoingAway = true
            return stream.end(.broken("no more requests on this connection"))
        }
        stream.id = id
        streams[id] = stream
        scheduleDrain()
    }

    func send(_ bytes: [UInt8], on stream: ClientStream, isLast: Bool = false) {
        guard let session, !isClosed, !stream.isOver else { return }
        stream.outgoing.append(contentsOf: bytes)
        if isLast { stream.isOutgoingComplete = true }
        nghttp2_session_resume_data(session, stream.id)
        scheduleDrain()
    }

    /// The caller lost interest: no more callbacks but `onEnd`.
    func cancel(_ stream: ClientStream, _ reason: String) {
        guard let session, !isClosed, !stream.isOver else { return }
        nghttp2_submit_rst_stream(
            session, UInt8(NGHTTP2_FLAG_NONE.rawValue), stream.id, NGHTTP2_CANCEL.rawValue)
        scheduleDrain()
        stream.end(.broken(reason))
    }

    /// Nothing more is taken from the socket: TCP holds the server back.
    func pauseReading() {
        guard !isPaused, !isClosed else { return }
        isPaused = true
        _ = channel?.setOption(.autoRead, value: false)
    }
    func resumeReading() {
        guard isPaused, !isClosed else { return }
        isPaused = false
        _ = channel?.setOption(.autoRead, value: true)
    }

    func close(_ reason: String) {
        guard !isClosed else { return }
        closeReason = reason
        channel?.close(promise: nil)
    }

    // MARK: Callbacks of nghttp2

    private func onRead(
        _ id: Int32, _ target: UnsafeMutablePointer<UInt8>, _ length: Int,
        _ flags: UnsafeMutablePointer<UInt32>
    ) -> Int {
        guard let stream = streams[id] else {
            flags.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue
            return 0
        }
        let count = min(length, stream.outgoing.count - stream.outgoingStart)
        stream.outgoing.withUnsafeBufferPointer { source in
            if count > 0, let base = source.baseAddress {
                target.update(from: base + stream.outgoingStart, count: count)
            }
        }
        stream.outgoingStart += count
        if stream.outgoingStart == stream.outgoing.count {
            stream.outgoing.removeAll(keepingCapacity: true)
            stream.outgoingStart = 0
            if stream.isOutgoingComplete {
                flags.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue
            } else if count == 0 {
                return Int(NGHTTP2_ERR_DEFERRED.rawValue)
            }
        }
        return count
    }

    private func onHeader(_ id: Int32, _ name: String, _ value: String) {
        streams[id]?.headers.append((name, value))
    }

    private func onData(_ id: Int32, _ data: UnsafeBufferPointer<UInt8>) {
        guard let stream = streams[id], !stream.isOver else { return }
        guard stream.shape == .grpc else { return stream.onMessage(Array(data)) }
        stream.incoming.append(contentsOf: data)
        var start = 0
        while stream.incoming.count - start >= 5 {
            let prefix = stream.incoming[start..<start + 5]
            let length = prefix.dropFirst().reduce(0) { $0 << 8 | Int($1) }
            guard prefix.first == 0, length <= Self.messageBytesMax else {
                stream.failure = "message of \(length) bytes, or compressed"
                stream.incoming.removeAll()
                if let session {
                    nghttp2_submit_rst_stream(
                        session, UInt8(NGHTTP2_FLAG_NONE.rawValue), id, NGHTTP2_CANCEL.rawValue)
                }
                return
            }
            guard stream.incoming.count - start >= 5 + length else { break }
            stream.onMessage(Array(stream.incoming[start + 5..<start + 5 + length]))
            start += 5 + length
        }
        if start > 0 { stream.incoming.removeFirst(start) }
    }

    private func onStreamClose(_ id: Int32, _ code: UInt32) {
        guard let stream = streams.removeValue(forKey: id) else { return }
        if let failure = stream.failure {
            stream.end(.broken(failure))
        } else if code == NGHTTP2_NO_ERROR.rawValue || stream.headers.contains(where: isFinal) {
            stream.end(.complete(headers: stream.headers))
        } else {
            stream.end(.broken("stream reset by the server, code \(code)"))
        }
    }

    private func isFinal(_ header: (name: String, value: String)) -> Bool {
        header.name == "grpc-status"
    }

    // MARK: Bytes

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard let session else { return }
        lastHeard = .now()
        let buffer = unwrapInboundIn(data)
        isFeeding = true
        let consumed = buffer.withUnsafeReadableBytes { raw in
            nghttp2_session_mem_recv(
                session, raw.bindMemory(to: UInt8.self).baseAddress, raw.count)
        }
        isFeeding = false
        if consumed < 0 { return close("the server does not speak HTTP/2") }
        drain()
    }

    /// Requests of one tick leave in one write.
    private func scheduleDrain() {
        guard !isFeeding, !isDrainScheduled, let channel else { return }
        isDrainScheduled = true
        channel.eventLoop.assumeIsolated().execute {
            self.isDrainScheduled = false
            self.drain()
        }
    }

    private func drain() {
        guard let session, let channel, !isClosed else { return }
        var buffer = channel.allocator.buffer(capacity: 4096)
        while true {
            var data: UnsafePointer<UInt8>?
            let count = nghttp2_session_mem_send(session, &data)
            guard count > 0, let data else { break }
            buffer.writeBytes(UnsafeRawBufferPointer(start: data, count: count))
        }
        if buffer.readableBytes > 0 { channel.writeAndFlush(buffer, promise: nil) }
        if nghttp2_session_want_read(session) == 0 && nghttp2_session_want_write(session) == 0 {
            close("the server has closed the session")
        }
    }

    func channelActive(context: ChannelHandlerContext) {
        drain()
        context.fireChannelActive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        close("\(error)")
    }

    func channelInactive(context: ChannelHandlerContext) {
        guard !isClosed else { return }
        isClosed = true
        // nghttp2 does not report the streams of a session that is deleted.
        let left = streams.values.sorted { $0.id < $1.id }
        streams.removeAll()
        for stream in left { stream.end(.broken(closeReason)) }
        let notify = onClosed
        onClosed = nil
        notify?(closeReason)
        channel = nil
    }
}
