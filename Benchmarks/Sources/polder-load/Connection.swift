import CLoad
import CNghttp2
import COpenSSL

/// One HTTP/2 connection: a socket that does not block, OpenSSL on it if asked, nghttp2 above. Bytes
/// gather until `flush`, so that what one turn of the loop sends leaves in one write.
final class Connection {
    enum State { case closed, connecting, handshaking, open }

    static let outCapacity = 256 << 10
    /// nghttp2 hands out a frame at a time, of at most 16 KiB.
    static let outMark = outCapacity - (20 << 10)

    let index: Int32
    let endpoint: Options.Endpoint
    unowned(unsafe) let worker: Worker
    private(set) var state = State.closed
    var isDirty = false
    private var socket: Int32 = -1
    private var session: OpaquePointer?
    private var ssl: OpaquePointer?
    private let out = UnsafeMutablePointer<UInt8>.allocate(capacity: Connection.outCapacity)
    private var outStart = 0
    private var outEnd = 0
    private var waitsToWrite = false
    private let headers: RequestHeaders

    init(index: Int32, endpoint: Options.Endpoint, worker: Worker) {
        self.index = index
        self.endpoint = endpoint
        self.worker = worker
        headers = RequestHeaders(endpoint)
    }

    // MARK: Coming and going

    func connect() {
        socket = load_connect(endpoint.host, endpoint.port)
        guard socket >= 0 else { return close("cannot connect to \(endpoint.authority)") }
        state = .connecting
        waitsToWrite = true
        _ = load_watch(worker.epoll, socket, UInt64(index), 1, 1)
    }

    private func onConnected() {
        guard load_connected(socket) == 0 else { return close("cannot connect to \(endpoint.authority)") }
        guard endpoint.isSecure else { return start() }
        ssl = worker.secure?.session(of: endpoint, socket: socket)
        guard ssl != nil else { return close("no TLS session") }
        state = .handshaking
        shakeHands()
    }

    private func shakeHands() {
        let result = SSL_connect(ssl)
        if result == 1 { return start() }
        switch SSL_get_error(ssl, result) {
        case SSL_ERROR_WANT_READ: wantWrite(false)
        case SSL_ERROR_WANT_WRITE: wantWrite(true)
        default: close("TLS handshake failed: \(Secure.lastError())")
        }
    }

    private func start() {
        state = .open
        wantWrite(false)
        session = ClientCallbacks.session(for: self)
        flush()
        worker.onOpen(self)
    }

    func close(_ reason: String) {
        guard state != .closed || socket < 0 else { return }
        state = .closed
        if let session { nghttp2_session_del(session) }
        if let ssl { SSL_free(ssl) }
        if socket >= 0 { load_close(socket) }
        session = nil
        ssl = nil
        socket = -1
        outStart = 0
        outEnd = 0
        worker.onClosed(self, reason)
    }

    // MARK: Requests

    /// The exchange's body is its own and complete. False: this connection takes no more.
    func submit(_ exchange: UnsafeMutablePointer<Exchange>, path: StaticString) -> Bool {
        guard let session else { return false }
        var provider = nghttp2_data_provider()
        provider.read_callback = { _, _, target, length, flags, source, _ in
            guard let source, let target, let flags, let pointer = source.pointee.ptr else { return 0 }
            let exchange = pointer.assumingMemoryBound(to: Exchange.self)
            let left = exchange.pointee.bodyCount - exchange.pointee.bodySent
            if left == 0, exchange.pointee.watch >= 0 { return Int(NGHTTP2_ERR_DEFERRED.rawValue) }
            let count = min(length, left)
            target.update(from: exchange.pointee.body + exchange.pointee.bodySent, count: count)
            exchange.pointee.bodySent += count
            if count == left, exchange.pointee.watch < 0 { flags.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue }
            return count
        }
        provider.source.ptr = UnsafeMutableRawPointer(exchange)
        let id = headers.submit(session, path: path, &provider, UnsafeMutableRawPointer(exchange))
        return id > 0
    }

    // MARK: Bytes

    func onReady(_ ready: UInt32) {
        switch state {
        case .closed: return
        case .connecting: if ready & 6 != 0 { onConnected() }
        case .handshaking: shakeHands()
        case .open:
            if ready & 5 != 0 { receive() }
            if ready & 2 != 0, state == .open { worker.markDirty(self) }
        }
    }

    private func receive() {
        while let session {
            let count: Int
            if let ssl {
                let got = SSL_read(ssl, worker.buffer, Int32(Worker.bufferBytes))
                if got <= 0 {
                    let error = SSL_get_error(ssl, got)
                    if error == SSL_ERROR_WANT_READ { break }
                    return close("connection lost")
                }
                count = Int(got)
            } else {
                count = load_receive(socket, worker.buffer, UInt(Worker.bufferBytes))
                if count == -1 { break }
                if count <= 0 { return close("connection lost") }
            }
            if nghttp2_session_mem_recv(session, worker.buffer, count) < 0 {
                return close("the server does not speak HTTP/2")
            }
            // A short read: there is no more, and asking would cost a call.
            if ssl == nil, count < Worker.bufferBytes { break }
        }
        worker.markDirty(self)
    }

    func flush() {
        isDirty = false
        guard let session, state == .open else { return }
        while true {
            if outStart < outEnd, !write() { return }
            while outEnd < Connection.outMark {
                var data: UnsafePointer<UInt8>?
                let count = nghttp2_session_mem_send(session, &data)
                guard count > 0, let data else { break }
                (out + outEnd).update(from: data, count: count)
                outEnd += count
            }
            if outEnd == 0 { break }
        }
        if nghttp2_session_want_read(session) == 0, nghttp2_session_want_write(session) == 0 {
            close("the server has closed the session")
        }
    }

    /// Whether all is written.
    private func write() -> Bool {
        while outStart < outEnd {
            var sent: Int
            if let ssl {
                sent = Int(SSL_write(ssl, out + outStart, Int32(outEnd - outStart)))
                if sent <= 0 {
                    let error = SSL_get_error(ssl, Int32(sent))
                    sent = error == SSL_ERROR_WANT_WRITE || error == SSL_ERROR_WANT_READ ? -1 : -2
                }
            } else {
                sent = load_send(socket, out + outStart, UInt(outEnd - outStart))
            }
            if sent == -1 {
                wantWrite(true)
                return false
            }
            if sent < 0 {
                close("connection lost")
                return false
            }
            outStart += sent
        }
        outStart = 0
        outEnd = 0
        wantWrite(false)
        return true
    }

    private func wantWrite(_ wants: Bool) {
        guard wants != waitsToWrite else { return }
        waitsToWrite = wants
        _ = load_watch(worker.epoll, socket, UInt64(index), wants ? 1 : 0, 0)
    }
}

/// The header fields of a request; after the first one they are a few bytes on the wire.
private struct RequestHeaders {
    private let fields: UnsafeMutablePointer<nghttp2_nv>
    private static let count = 6

    init(_ endpoint: Options.Endpoint) {
        fields = .allocate(capacity: RequestHeaders.count)
        set(0, ":method", "POST")
        set(1, ":scheme", endpoint.isSecure ? "https" : "http")
        set(2, ":path", "")
        set(3, ":authority", endpoint.authority)
        set(4, "content-type", "application/grpc")
        set(5, "te", "trailers")
    }

    private func set(_ index: Int, _ name: String, _ value: String) {
        fields[index] = nghttp2_nv(
            name: RequestHeaders.copy(name), value: RequestHeaders.copy(value),
            namelen: name.utf8.count, valuelen: value.utf8.count,
            flags: UInt8(NGHTTP2_NV_FLAG_NO_COPY_NAME.rawValue | NGHTTP2_NV_FLAG_NO_COPY_VALUE.rawValue))
    }

    /// Lives as long as the process.
    private static func copy(_ text: String) -> UnsafeMutablePointer<UInt8> {
        let bytes = UnsafeMutablePointer<UInt8>.allocate(capacity: max(1, text.utf8.count))
        for (i, byte) in text.utf8.enumerated() { bytes[i] = byte }
        return bytes
    }

    func submit(
        _ session: OpaquePointer, path: StaticString, _ provider: inout nghttp2_data_provider,
        _ user: UnsafeMutableRawPointer
    ) -> Int32 {
        fields[2].value = UnsafeMutablePointer(mutating: path.utf8Start)
        fields[2].valuelen = path.utf8CodeUnitCount
        return nghttp2_submit_request(session, nil, fields, RequestHeaders.count, &provider, user)
    }
}

/// nghttp2's side: non-capturing closures that find the connection in the session's user data and the
/// exchange in the stream's.
private enum ClientCallbacks {
    static let window: Int32 = 16 << 20
    static let connectionWindow: Int32 = 1 << 30

    static func session(for connection: Connection) -> OpaquePointer? {
        var callbacks: OpaquePointer?
        nghttp2_session_callbacks_new(&callbacks)
        defer { nghttp2_session_callbacks_del(callbacks) }
        nghttp2_session_callbacks_set_on_header_callback(callbacks) {
            session, frame, name, nameLength, value, valueLength, _, user in
            guard let frame, let name, let value, nameLength > 10, name[0] == UInt8(ascii: "g"),
                let exchange = exchangeOf(session, frame.pointee.hd.stream_id)
            else { return 0 }
            // grpc-status or grpc-message.
            if nameLength == 11, name[5] == UInt8(ascii: "s") {
                var status: Int32 = 0
                for i in 0..<min(valueLength, 3) { status = status &* 10 &+ Int32(value[i]) &- 48 }
                exchange.pointee.grpcStatus = status
            } else if nameLength == 12, name[5] == UInt8(ascii: "m"), let user {
                let text = UnsafeBufferPointer(start: value, count: valueLength)
                workerOf(user).onMessage(String(decoding: text, as: UTF8.self))
            }
            return 0
        }
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks) {
            session, _, stream, data, length, user in
            guard let data, let user, let exchange = exchangeOf(session, stream) else { return 0 }
            exchange.pointee.append(data, length)
            if exchange.pointee.watch >= 0 { workerOf(user).onWatchBytes(exchange) }
            return 0
        }
        nghttp2_session_callbacks_set_on_stream_close_callback(callbacks) { session, stream, code, user in
            guard let user, let exchange = exchangeOf(session, stream) else { return 0 }
            workerOf(user).onEnd(exchange, reset: code)
            return 0
        }
        var option: OpaquePointer?
        nghttp2_option_new(&option)
        defer { nghttp2_option_del(option) }
        nghttp2_option_set_no_closed_streams(option, 1)
        // Until the server says otherwise: etcd and Polder allow any number.
        nghttp2_option_set_peer_max_concurrent_streams(option, 1 << 20)
        var session: OpaquePointer?
        nghttp2_session_client_new2(
            &session, callbacks, Unmanaged.passUnretained(connection).toOpaque(), option)
        let settings = [
            nghttp2_settings_entry(
                settings_id: Int32(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE.rawValue), value: UInt32(window)),
            nghttp2_settings_entry(
                settings_id: Int32(NGHTTP2_SETTINGS_ENABLE_PUSH.rawValue), value: 0),
        ]
        nghttp2_submit_settings(session, 0, settings, settings.count)
        nghttp2_session_set_local_window_size(session, 0, 0, connectionWindow)
        return session
    }
}

@inline(__always)
private func exchangeOf(
    _ session: OpaquePointer?, _ stream: Int32
) -> UnsafeMutablePointer<Exchange>? {
    nghttp2_session_get_stream_user_data(session, stream)?.assumingMemoryBound(to: Exchange.self)
}

@inline(__always)
private func workerOf(_ user: UnsafeMutableRawPointer) -> Worker {
    Unmanaged<Connection>.fromOpaque(user)._withUnsafeGuaranteedRef { $0.worker }
}
