import CNghttp2
package import NIOCore
package import Primitives

/// HTTP/2 by nghttp2, without a socket: bytes go in by `feed` and come out by `drain`.
///
/// The only file that deals with nghttp2's pointers. Streams are structs in memory of our own, recycled;
/// nghttp2 carries the address of each as the stream's user data. Everything on one thread.
///
/// What is sent is kept as it is (`Bytes` are references) until a DATA frame takes it: nghttp2 asks for
/// a length, makes the frame header, and `writeData` puts the header and the bytes into the output.
///
/// Access to the hot properties is not checked at run time for exclusivity: callbacks come back in
/// while nothing holds one of them, and the checks were a sixth of a request's cost.
package final class HTTP2Session {
    package let role: HTTP2Role
    package let settings: HTTP2Settings
    /// Held until `close`.
    @exclusivity(unchecked) package var delegate: (any HTTP2SessionDelegate)? {
        didSet { noteDelegate() }
    }
    /// The same, if it is a server's connection: what comes a dozen times a request goes to it without its
    /// references being counted. It is held by `delegate`, which does not change within a callback.
    @exclusivity(unchecked) private var door: Unmanaged<RPCConnection>?
    @exclusivity(unchecked) package private(set) var openStreams = 0
    @exclusivity(unchecked) package private(set) var isClosed = false
    /// A frame with headers or data went out; cleared by who wants to know. When it was put into line
    /// says nothing: a large answer flows for seconds.
    @exclusivity(unchecked) package var hasSentFrames = false
    /// Sum over all streams of what is sent and not yet drained.
    @exclusivity(unchecked) package private(set) var bufferedBytes = 0
    /// The same of all sessions that share it.
    private let unread: UnreadBytes
    /// Frames that made work and asked for nothing: pings, settings, resets, empty data, windows by the
    /// byte, large headers. Some are part of every honest client's day.
    @exclusivity(unchecked) package private(set) var nuisance = 0
    /// So many small windows may come for the frames that went out: the streams' and the connection's.
    @exclusivity(unchecked) private var windowsOwed = 0
    /// Of the header block that is arriving, also when nobody takes it any more.
    @exclusivity(unchecked) private var blockBytes = 0

    private let session: OpaquePointer
    @exclusivity(unchecked) private var output = ByteBuffer()
    @exclusivity(unchecked) private var outputLimit = 0
    private var isInside = false
    private var closesAfter = false
    @exclusivity(unchecked) private var open: UnsafeMutablePointer<Stream>?
    @exclusivity(unchecked) private var free: UnsafeMutablePointer<Stream>?
    @exclusivity(unchecked) private var freeCount = 0
    /// The stream whose header block is arriving: nothing comes between its fields.
    @exclusivity(unchecked) private var headerStream: UnsafeMutablePointer<Stream>?
    /// The stream that was asked for last. A request's headers, its data, its answer and its end mostly
    /// come one after the other, and each would be a search in nghttp2's table.
    @exclusivity(unchecked) private var latest: UnsafeMutablePointer<Stream>?
    private var writable: [Int32] = []
    /// Client: requests whose headers have not left: nghttp2 does not know their streams yet.
    private var unsent: [Int32: UnsafeMutablePointer<Stream>] = [:]

    package init(
        role: HTTP2Role, settings: HTTP2Settings = HTTP2Settings(),
        delegate: (any HTTP2SessionDelegate)?, unread: UnreadBytes = UnreadBytes()
    ) {
        self.role = role
        self.settings = settings
        self.delegate = delegate
        self.unread = unread
        var made: OpaquePointer?
        let result =
            role == .server
            ? nghttp2_session_server_new2(&made, Library.shared.callbacks, nil, Library.shared.options)
            : nghttp2_session_client_new2(&made, Library.shared.callbacks, nil, Library.shared.options)
        guard let made, result == 0 else { fatalError("nghttp2: out of memory") }
        session = made
        noteDelegate()
        nghttp2_session_set_user_data(made, Unmanaged.passUnretained(self).toOpaque())
        var entries = [
            entry(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, UInt32(settings.streamWindowBytes)),
            entry(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, UInt32(settings.headerBytesMax)),
            entry(NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1),
        ]
        switch role {
        case .server where settings.concurrentStreamsMax != .max:
            entries.append(
                entry(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, settings.concurrentStreamsMax))
        case .server: break
        case .client: entries.append(entry(NGHTTP2_SETTINGS_ENABLE_PUSH, 0))
        }
        nghttp2_submit_settings(made, 0, entries, entries.count)
        nghttp2_session_set_local_window_size(made, 0, 0, settings.connectionWindowBytes)
    }

    deinit {
        if !isClosed { nghttp2_session_del(session) }
        var lists = [open, free]
        while var next = lists.popLast() {
            while let stream = next {
                next = stream.pointee.next
                stream.deinitialize(count: 1)
                stream.deallocate()
            }
        }
    }

    private func noteDelegate() {
        door = (delegate as? RPCConnection).map { Unmanaged.passUnretained($0) }
    }

    /// Since it was asked last.
    package func takeNuisance() -> Int {
        defer { nuisance = 0 }
        return nuisance
    }

    // MARK: Bytes in and out

    /// False: the peer broke the protocol beyond repair (drain what is left to say, then close).
    package func feed(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard !isClosed else { return false }
        isInside = true
        let taken = nghttp2_session_mem_recv(
            session, bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), bytes.count)
        leave()
        return taken >= 0
    }

    /// Appends what there is to send to `buffer`, until it holds `limit` bytes (a frame more, at most).
    /// Whoever stops early (the socket is full) calls again later: nothing is lost by waiting.
    package func drain(into buffer: inout ByteBuffer, limit: Int) -> Bool {
        var frames = Int.max
        return drain(into: &buffer, limit: limit, frames: &frames)
    }

    /// The same, `frames` at most; what is left of them is told.
    func drain(into buffer: inout ByteBuffer, limit: Int, frames: inout Int) -> Bool {
        guard !isClosed else { return false }
        isInside = true
        swap(&output, &buffer)
        outputLimit = limit
        var fine = true
        repeat {
            while output.readableBytes < limit, frames > 0 {
                var bytes: UnsafePointer<UInt8>?
                let count = nghttp2_session_mem_send(session, &bytes)
                guard count > 0 else {
                    fine = count == 0
                    break
                }
                frames -= 1
                output.writeBytes(UnsafeRawBufferPointer(start: bytes, count: count))
            }
        } while fine && output.readableBytes < limit && frames > 0 && tellWritable()
        swap(&output, &buffer)
        leave()
        return fine
    }

    /// Neither side has anything more to say: after GOAWAY, with the last stream gone.
    package var isFinished: Bool {
        isClosed
            || nghttp2_session_want_read(session) == 0 && nghttp2_session_want_write(session) == 0
    }

    /// False: what is left to say ends the connection.
    package var wantsToRead: Bool { !isClosed && nghttp2_session_want_read(session) != 0 }

    package var wantsToWrite: Bool { !isClosed && nghttp2_session_want_write(session) != 0 }

    /// The connection is gone: every open stream gets its `onClose`, then nothing happens any more.
    package func close() {
        guard !isClosed else { return }
        guard !isInside else {
            closesAfter = true
            return
        }
        isClosed = true
        // nghttp2_session_del does not call on_stream_close (it would leave our users' calls dangling).
        while let stream = open {
            let id = stream.pointee.id, context = stream.pointee.context
            recycle(stream)
            delegate?.onClose(id, context, code: Self.connectionLost)
        }
        nghttp2_session_del(session)
        unsent = [:]
        delegate = nil
    }

    private static let frameBytes = 16384

    /// Not one of HTTP/2's codes: the connection ended before the stream.
    package static let connectionLost = UInt32.max

    private func leave() {
        isInside = false
        if closesAfter { close() }
    }

    private func tellWritable() -> Bool {
        guard !writable.isEmpty else { return false }
        let ids = writable
        writable.removeAll(keepingCapacity: true)
        for id in ids {
            guard let stream = stream(id) else { continue }
            delegate?.onWritable(id, stream.pointee.context)
        }
        return true
    }

    // MARK: Streams

    /// Client: opens a stream. Nil: the connection has no more streams, or is shutting down.
    package func open(_ fields: HTTP2Fields, context: Int, hasBody: Bool = true) -> Int32? {
        guard !isClosed, nghttp2_session_check_request_allowed(session) != 0 else { return nil }
        let stream = take(context)
        var provider = dataProvider(stream)
        let id = withUnsafePointer(to: &provider) {
            nghttp2_submit_request(
                session, nil, fields.values.baseAddress, fields.values.count, hasBody ? $0 : nil, stream)
        }
        guard id > 0 else {
            recycle(stream)
            return nil
        }
        stream.pointee.id = id
        stream.pointee.isStarted = true
        stream.pointee.isEnded = !hasBody
        unsent[id] = stream
        return id
    }

    /// Server: the response's headers. Without a body they end the stream.
    package func respond(_ id: Int32, _ fields: HTTP2Fields, hasBody: Bool) {
        guard let stream = stream(id), !stream.pointee.isStarted else { return }
        stream.pointee.isStarted = true
        stream.pointee.isEnded = !hasBody
        var provider = dataProvider(stream)
        withUnsafePointer(to: &provider) {
            _ = nghttp2_submit_response(
                session, id, fields.values.baseAddress, fields.values.count, hasBody ? $0 : nil)
        }
    }

    /// Body bytes; `isMessage` puts gRPC's prefix (no compression, the length) before them.
    package func send(_ id: Int32, _ bytes: Bytes, isMessage: Bool) {
        guard let stream = stream(id), stream.pointee.isStarted, !stream.pointee.isEnded else { return }
        let piece = Piece(bytes: bytes, prefixBytes: isMessage ? 5 : 0)
        stream.pointee.ownBytes += piece.count
        unread.count += piece.count
        send(stream, piece)
    }

    /// Body bytes that other streams send too: they are counted already.
    package func send(_ id: Int32, shared: SharedBytes) {
        guard let stream = stream(id), stream.pointee.isStarted, !stream.pointee.isEnded else { return }
        send(stream, Piece(shared: shared, bytes: shared.bytes, prefixBytes: 0))
    }

    private func send(_ stream: UnsafeMutablePointer<Stream>, _ piece: Piece) {
        guard piece.count > 0 else { return }
        stream.pointee.pieces.append(piece)
        stream.pointee.bufferedBytes += piece.count
        bufferedBytes += piece.count
        if stream.pointee.bufferedBytes > settings.bufferedBytesPressed { noteFullness(of: stream) }
        if role == .server, !stream.pointee.isShared, stream.pointee.bufferedBytes > Self.frameBytes {
            // By default (RFC 9218) a stream keeps the connection until it has nothing to send: what
            // takes more than a frame takes turns with the others.
            stream.pointee.isShared = true
            var turns = nghttp2_extpri(urgency: UInt32(NGHTTP2_EXTPRI_DEFAULT_URGENCY), inc: 1)
            nghttp2_session_change_extpri_stream_priority(session, stream.pointee.id, &turns, 1)
        }
        resume(stream)
    }

    private func noteFullness(of stream: UnsafeMutablePointer<Stream>) {
        if unread.isPressed || stream.pointee.bufferedBytes > settings.bufferedBytesHigh {
            stream.pointee.isAbove = true
        }
    }

    /// No more body bytes from this side. What was sent before leaves first.
    package func end(_ id: Int32, trailers: HTTP2Fields? = nil) {
        guard let stream = stream(id), stream.pointee.isStarted, !stream.pointee.isEnded else { return }
        stream.pointee.isEnded = true
        stream.pointee.trailers = trailers
        resume(stream)
    }

    package func reset(_ id: Int32, code: UInt32) {
        guard !isClosed else { return }
        nghttp2_submit_rst_stream(session, 0, id, code)
    }

    package func bufferedBytes(of id: Int32) -> Int { stream(id)?.pointee.bufferedBytes ?? 0 }

    package func hasEnded(_ id: Int32) -> Bool { stream(id)?.pointee.hasPeerEnded ?? true }

    // MARK: The connection

    package func ping(_ payload: UInt64) {
        guard !isClosed else { return }
        withUnsafeBytes(of: payload.bigEndian) {
            _ = nghttp2_submit_ping(session, 0, $0.baseAddress?.assumingMemoryBound(to: UInt8.self))
        }
    }

    /// First step of a graceful end: open no more streams; those on their way are still served.
    package func announceShutdown() {
        guard !isClosed else { return }
        nghttp2_submit_shutdown_notice(session)
    }

    /// Second step, a round trip later: streams after the last one seen are refused.
    package func goAway(code: UInt32 = 0, debug: String = "") {
        guard !isClosed else { return }
        let last = nghttp2_session_get_last_proc_stream_id(session)
        var debug = debug
        debug.withUTF8 {
            _ = nghttp2_submit_goaway(session, 0, last, code, $0.baseAddress, $0.count)
        }
    }

    /// Client: how many streams the server lets us open.
    package var peerConcurrentStreamsMax: UInt32 {
        isClosed
            ? 0 : nghttp2_session_get_remote_settings(session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS)
    }

    // MARK: Pool

    fileprivate struct Piece {
        /// Holds `bytes` for all who send them.
        var shared: SharedBytes?
        let bytes: Bytes
        let prefixBytes: Int
        var count: Int { bytes.length + prefixBytes }
    }

    /// A hundred thousand small answers that nobody will read any more: to give their memory back takes
    /// milliseconds.
    fileprivate final class Graveyard {
        static let bodiesMin = 4096
        private var pieces: [Piece]
        private let steps: LoopSteps

        init(_ pieces: [Piece], _ steps: LoopSteps) {
            self.pieces = pieces
            self.steps = steps
        }

        func dig() {
            steps.later { [self] in
                repeat {
                    pieces.removeLast(min(100, pieces.count))
                } while !pieces.isEmpty && !steps.isOver
                if !pieces.isEmpty { dig() }
            }
        }
    }

    fileprivate struct Stream {
        var id: Int32 = 0
        var context = 0
        var next: UnsafeMutablePointer<Stream>?
        var previous: UnsafeMutablePointer<Stream>?
        /// Sent and not yet in a frame: from `pieces[first]`, whose first `offset` bytes have left.
        var pieces: [Piece] = []
        var first = 0
        var offset = 0
        var bufferedBytes = 0
        /// Without what is shared with other streams.
        var ownBytes = 0
        var headerBytes = 0
        var trailers: HTTP2Fields?
        /// Headers are submitted, so a body may follow.
        var isStarted = false
        /// No more body from this side.
        var isEnded = false
        var hasPeerEnded = false
        /// nghttp2 waits for `nghttp2_session_resume_data`.
        var isDeferred = false
        /// Takes turns with other streams, frame by frame.
        var isShared = false
        /// Went above the high mark; `onWritable` is owed.
        var isAbove = false

        /// As new, with the room that `pieces` has.
        mutating func reset() {
            id = 0
            context = 0
            next = nil
            previous = nil
            if !pieces.isEmpty { pieces.removeAll(keepingCapacity: true) }
            first = 0
            offset = 0
            bufferedBytes = 0
            ownBytes = 0
            headerBytes = 0
            trailers = nil
            isStarted = false
            isEnded = false
            hasPeerEnded = false
            isDeferred = false
            isShared = false
            isAbove = false
        }
    }

    private func stream(_ id: Int32) -> UnsafeMutablePointer<Stream>? {
        guard !isClosed else { return nil }
        if let latest, latest.pointee.id == id { return latest }
        if let known = nghttp2_session_get_stream_user_data(session, id) {
            latest = known.assumingMemoryBound(to: Stream.self)
            return latest
        }
        return unsent.isEmpty ? nil : unsent[id]
    }

    private func take(_ context: Int) -> UnsafeMutablePointer<Stream> {
        let stream: UnsafeMutablePointer<Stream>
        if let recycled = free {
            stream = recycled
            free = recycled.pointee.next
            freeCount -= 1
        } else {
            stream = .allocate(capacity: 1)
            stream.initialize(to: Stream())
        }
        stream.pointee.context = context
        stream.pointee.next = open
        stream.pointee.previous = nil
        open?.pointee.previous = stream
        open = stream
        openStreams += 1
        return stream
    }

    private func recycle(_ stream: UnsafeMutablePointer<Stream>) {
        let next = stream.pointee.next, previous = stream.pointee.previous
        if let previous { previous.pointee.next = next } else { open = next }
        next?.pointee.previous = previous
        openStreams -= 1
        bufferedBytes -= stream.pointee.bufferedBytes
        unread.count -= stream.pointee.ownBytes
        if headerStream == stream { headerStream = nil }
        if latest == stream { latest = nil }
        guard freeCount < 256, stream.pointee.pieces.capacity <= 64 else {
            if stream.pointee.pieces.count > Graveyard.bodiesMin, let steps = unread.steps {
                Graveyard(stream.pointee.pieces, steps).dig()
                stream.pointee.pieces = []
            }
            stream.deinitialize(count: 1)
            stream.deallocate()
            return
        }
        stream.pointee.reset()
        stream.pointee.next = free
        free = stream
        freeCount += 1
    }

    private func resume(_ stream: UnsafeMutablePointer<Stream>) {
        guard stream.pointee.isDeferred else { return }
        stream.pointee.isDeferred = false
        nghttp2_session_resume_data(session, stream.pointee.id)
    }

    private func dataProvider(_ stream: UnsafeMutablePointer<Stream>) -> nghttp2_data_provider {
        nghttp2_data_provider(
            source: nghttp2_data_source(ptr: UnsafeMutableRawPointer(stream)),
            read_callback: Library.readLength)
    }

    private func entry(_ id: nghttp2_settings_id, _ value: UInt32) -> nghttp2_settings_entry {
        nghttp2_settings_entry(settings_id: Int32(id.rawValue), value: value)
    }
}

// MARK: What nghttp2 calls

extension HTTP2Session {
    /// Callbacks and options, the same for every session.
    fileprivate struct Library: @unchecked Sendable {
        let callbacks: OpaquePointer
        let options: OpaquePointer
        static let shared = Library()

        init() {
            var callbacks: OpaquePointer?
            var options: OpaquePointer?
            guard nghttp2_session_callbacks_new(&callbacks) == 0, nghttp2_option_new(&options) == 0,
                let callbacks, let options
            else { fatalError("nghttp2: out of memory") }
            self.callbacks = callbacks
            self.options = options
            nghttp2_option_set_no_auto_window_update(options, 1)
            nghttp2_option_set_no_closed_streams(options, 1)
            // Clients of etcd send authorities that are none ("http://host", "#initially=[...]"):
            // nghttp2's own check would refuse them, so the user checks what it needs.
            nghttp2_option_set_no_http_messaging(options, 1)
            // A client that gives up many calls at once is no attack: 1000 at once, 33 a second is
            // nghttp2's default, and ends the connection.
            nghttp2_option_set_stream_reset_rate_limit(options, 100_000, 10_000)
            // So many streams may wait for the server's SETTINGS when a client starts.
            nghttp2_option_set_peer_max_concurrent_streams(options, 1000)

            nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks) { _, frame, user in
                Library.with(user) { $0.onBeginHeaders(frame) }
            }
            nghttp2_session_callbacks_set_on_header_callback(callbacks) {
                _, _, name, nameCount, value, valueCount, _, user in
                Library.with(user) {
                    $0.onHeader(
                        UnsafeRawBufferPointer(start: name, count: nameCount),
                        UnsafeRawBufferPointer(start: value, count: valueCount))
                }
            }
            nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks) { _, frame, user in
                Library.with(user) { $0.onFrame(frame) }
            }
            nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks) {
                _, _, id, data, count, user in
                Library.with(user) { $0.onChunk(id, UnsafeRawBufferPointer(start: data, count: count)) }
            }
            nghttp2_session_callbacks_set_on_stream_close_callback(callbacks) { _, id, code, user in
                Library.with(user) { $0.onStreamClose(id, code) }
            }
            nghttp2_session_callbacks_set_on_frame_send_callback(callbacks) { _, frame, user in
                Library.with(user) { $0.onFrameSent(frame) }
            }
            nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks) { _, frame, _, user in
                Library.with(user) { $0.onFrameNotSent(frame) }
            }
            nghttp2_session_callbacks_set_send_data_callback(callbacks) {
                _, _, header, count, source, user in
                Library.with(user) { $0.writeData(header, count, source) }
            }
        }

        /// How much of the next DATA frame there is; the bytes themselves follow in `writeData`.
        static let readLength: nghttp2_data_source_read_callback = {
            session, id, _, length, flags, source, user in
            Library.with(user) { $0.readLength(id, length, flags, source) }
        }

        /// Without the reference counting of `takeUnretainedValue`: the session is held by its user.
        static func with<R>(
            _ user: UnsafeMutableRawPointer?, _ body: (HTTP2Session) -> R
        ) -> R where R: FixedWidthInteger {
            guard let user else { return R(truncatingIfNeeded: NGHTTP2_ERR_CALLBACK_FAILURE.rawValue) }
            return Unmanaged<HTTP2Session>.fromOpaque(user)._withUnsafeGuaranteedRef { body($0) }
        }
    }

    fileprivate func onBeginHeaders(_ frame: UnsafePointer<nghttp2_frame>?) -> Int32 {
        guard let frame else { return 0 }
        let id = frame.pointee.hd.stream_id
        if role == .server, frame.pointee.headers.cat == NGHTTP2_HCAT_REQUEST {
            guard let delegate else { return 0 }
            let stream = take(0)
            stream.pointee.id = id
            stream.pointee.context = delegate.onOpen(id)
            nghttp2_session_set_stream_user_data(session, id, stream)
            headerStream = stream
            latest = stream
        } else {
            headerStream = stream(id)
        }
        headerStream?.pointee.headerBytes = 0
        blockBytes = 0
        return 0
    }

    fileprivate func onHeader(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) -> Int32 {
        let before = blockBytes
        blockBytes += name.count + value.count + 32
        if blockBytes > Self.headersAtEase {
            nuisance += blockBytes >> 10 - max(before, Self.headersAtEase) >> 10
        }
        // HPACK makes a large block of a few bytes (a field that is named again and again), and reads on
        // when the stream is gone: who goes on so far means harm, and the connection ends.
        if blockBytes > 2 * settings.headerBytesMax { return NGHTTP2_ERR_CALLBACK_FAILURE.rawValue }
        guard let stream = headerStream else { return 0 }
        stream.pointee.headerBytes += name.count + value.count + 32
        guard stream.pointee.headerBytes <= settings.headerBytesMax else {
            headerStream = nil
            reset(stream.pointee.id, code: NGHTTP2_ENHANCE_YOUR_CALM.rawValue)
            return 0
        }
        let id = stream.pointee.id, context = stream.pointee.context
        if let door {
            door._withUnsafeGuaranteedRef { $0.onField(id, context, name: name, value: value) }
        } else {
            delegate?.onField(id, context, name: name, value: value)
        }
        return 0
    }

    fileprivate func onFrame(_ frame: UnsafePointer<nghttp2_frame>?) -> Int32 {
        guard let frame, let delegate else { return 0 }
        let header = frame.pointee.hd
        switch UInt32(header.type) {
        case NGHTTP2_HEADERS.rawValue:
            // Nil: the block was too large, and the stream is being reset.
            guard let stream = headerStream else { return 0 }
            headerStream = nil
            let isEnd = header.flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0
            if isEnd { stream.pointee.hasPeerEnded = true }
            delegate.onFieldsEnd(stream.pointee.id, stream.pointee.context)
            if isEnd { delegate.onEnd(stream.pointee.id, stream.pointee.context) }
        case NGHTTP2_DATA.rawValue:
            if header.length == 0, header.flags == 0 { nuisance += 1 }
            guard header.flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0,
                let stream = stream(header.stream_id)
            else { return 0 }
            stream.pointee.hasPeerEnded = true
            delegate.onEnd(stream.pointee.id, stream.pointee.context)
        case NGHTTP2_PING.rawValue:
            if header.flags & UInt8(NGHTTP2_FLAG_ACK.rawValue) == 0 {
                // While answers flow it measures them: grpc-go does so once a round trip.
                if !hasSentFrames { nuisance += 1 }
                delegate.onPing()
            } else {
                let payload = withUnsafeBytes(of: frame.pointee.ping.opaque_data) {
                    UInt64(bigEndian: $0.loadUnaligned(as: UInt64.self))
                }
                delegate.onPong(payload)
            }
        case NGHTTP2_GOAWAY.rawValue:
            delegate.onGoAway(
                lastStream: frame.pointee.goaway.last_stream_id, code: frame.pointee.goaway.error_code)
        case NGHTTP2_WINDOW_UPDATE.rawValue:
            guard frame.pointee.window_update.window_size_increment < 256 else { return 0 }
            // What a client gives back of a small answer is small.
            if windowsOwed > 0 { windowsOwed -= 1 } else { nuisance += 1 }
        // With what the call cost that is given up.
        case NGHTTP2_RST_STREAM.rawValue: nuisance += 4
        default: nuisance += 1
        }
        return 0
    }

    /// No honest header block is larger, and if one is, it is no matter.
    private static let headersAtEase = 8192

    fileprivate func onChunk(_ id: Int32, _ data: UnsafeRawBufferPointer) -> Int32 {
        guard let stream = stream(id) else {
            nghttp2_session_consume_connection(session, data.count)
            return 0
        }
        let context = stream.pointee.context
        if let door {
            door._withUnsafeGuaranteedRef { $0.onData(id, context, data) }
        } else {
            delegate?.onData(id, context, data)
        }
        nghttp2_session_consume(session, id, data.count)
        return 0
    }

    fileprivate func onStreamClose(_ id: Int32, _ code: UInt32) -> Int32 {
        guard let stream = stream(id) else { return 0 }
        let context = stream.pointee.context
        nghttp2_session_set_stream_user_data(session, id, nil)
        recycle(stream)
        delegate?.onClose(id, context, code: code)
        return 0
    }

    fileprivate func onFrameSent(_ frame: UnsafePointer<nghttp2_frame>?) -> Int32 {
        guard let frame else { return 0 }
        if role == .client {
            if !unsent.isEmpty, frame.pointee.hd.type == UInt8(NGHTTP2_HEADERS.rawValue) {
                unsent[frame.pointee.hd.stream_id] = nil
            }
            return 0
        }
        // DATA is 0, HEADERS 1.
        guard frame.pointee.hd.type <= UInt8(NGHTTP2_HEADERS.rawValue) else { return 0 }
        hasSentFrames = true
        windowsOwed = min(windowsOwed + 2, 10_000)
        guard frame.pointee.hd.flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0,
            let stream = stream(frame.pointee.hd.stream_id), !stream.pointee.hasPeerEnded
        else { return 0 }
        // Answered before the request was complete: the client need not send the rest
        // (RFC 9113 section 8.1).
        reset(stream.pointee.id, code: NGHTTP2_NO_ERROR.rawValue)
        return 0
    }

    /// A request that the connection cannot take any more (the server said GOAWAY), or one that was
    /// reset before it left: nghttp2 has no stream to close, so its end is told here.
    fileprivate func onFrameNotSent(_ frame: UnsafePointer<nghttp2_frame>?) -> Int32 {
        guard let frame, frame.pointee.hd.type == UInt8(NGHTTP2_HEADERS.rawValue),
            let stream = unsent.removeValue(forKey: frame.pointee.hd.stream_id)
        else { return 0 }
        let id = stream.pointee.id, context = stream.pointee.context
        // One whose headers are too large for a frame does have a stream, which is closed next.
        nghttp2_session_set_stream_user_data(session, id, nil)
        recycle(stream)
        delegate?.onClose(id, context, code: NGHTTP2_REFUSED_STREAM.rawValue)
        return 0
    }

    fileprivate func readLength(
        _ id: Int32, _ length: Int, _ flags: UnsafeMutablePointer<UInt32>?,
        _ source: UnsafeMutablePointer<nghttp2_data_source>?
    ) -> Int {
        guard let flags, let stream = source?.pointee.ptr?.assumingMemoryBound(to: Stream.self) else {
            return Int(NGHTTP2_ERR_CALLBACK_FAILURE.rawValue)
        }
        let waiting = stream.pointee.bufferedBytes
        if waiting == 0 && !stream.pointee.isEnded {
            stream.pointee.isDeferred = true
            return Int(NGHTTP2_ERR_DEFERRED.rawValue)
        }
        flags.pointee |= NGHTTP2_DATA_FLAG_NO_COPY.rawValue
        if waiting <= length && stream.pointee.isEnded {
            flags.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue
            if let trailers = stream.pointee.trailers {
                flags.pointee |= NGHTTP2_DATA_FLAG_NO_END_STREAM.rawValue
                nghttp2_submit_trailer(
                    session, id, trailers.values.baseAddress, trailers.values.count)
            }
        }
        return min(waiting, length)
    }

    fileprivate func writeData(
        _ header: UnsafePointer<UInt8>?, _ count: Int,
        _ source: UnsafeMutablePointer<nghttp2_data_source>?
    ) -> Int32 {
        guard let stream = source?.pointee.ptr?.assumingMemoryBound(to: Stream.self) else {
            return NGHTTP2_ERR_CALLBACK_FAILURE.rawValue
        }
        if output.readableBytes >= outputLimit { return NGHTTP2_ERR_WOULDBLOCK.rawValue }
        output.reserveCapacity(minimumWritableBytes: 9 + count)
        output.writeBytes(UnsafeRawBufferPointer(start: header, count: 9))
        var rest = count
        while rest > 0 {
            rest -= writePiece(of: stream, atMost: rest)
        }
        stream.pointee.bufferedBytes -= count
        bufferedBytes -= count
        if stream.pointee.isAbove, stream.pointee.bufferedBytes < settings.bufferedBytesLow {
            stream.pointee.isAbove = false
            writable.append(stream.pointee.id)
        }
        return 0
    }

    /// The rest of the first piece, or as much of it as is asked for.
    private func writePiece(of stream: UnsafeMutablePointer<Stream>, atMost limit: Int) -> Int {
        let first = stream.pointee.first
        let (done, offset, isOwn) = stream.pointee.pieces.withUnsafeBufferPointer { pieces in
            let prefixBytes = pieces[first].prefixBytes
            let total = pieces[first].count
            let from = stream.pointee.offset
            let to = min(total, from + limit)
            if from < prefixBytes {
                let length = UInt32(truncatingIfNeeded: pieces[first].bytes.length).bigEndian
                withUnsafeBytes(of: (UInt64(UInt32(littleEndian: length)) << 8).littleEndian) { prefix in
                    _ = output.writeBytes(
                        UnsafeRawBufferPointer(rebasing: prefix[from..<min(to, prefixBytes)]))
                }
            }
            if to > prefixBytes {
                pieces[first].bytes.withRaw { bytes in
                    _ = output.writeBytes(
                        UnsafeRawBufferPointer(
                            rebasing: bytes[(max(from, prefixBytes) - prefixBytes)..<(to - prefixBytes)]))
                }
            }
            return (to - from, to == total ? 0 : to, pieces[first].shared == nil)
        }
        if isOwn {
            stream.pointee.ownBytes -= done
            unread.count -= done
        }
        stream.pointee.offset = offset
        guard offset == 0 else { return done }
        if first + 1 == stream.pointee.pieces.count {
            // One, mostly; `removeAll` is a replacement of ranges.
            if first == 0 {
                stream.pointee.pieces.removeLast()
            } else {
                stream.pointee.pieces.removeAll(keepingCapacity: true)
            }
            stream.pointee.first = 0
        } else {
            // Its memory goes now; its place now and then, since the array would move each time.
            stream.pointee.pieces[first] = Piece(bytes: .empty, prefixBytes: 0)
            stream.pointee.first = first + 1
            if stream.pointee.first >= 64, stream.pointee.first * 2 >= stream.pointee.pieces.count {
                stream.pointee.pieces.removeFirst(stream.pointee.first)
                stream.pointee.first = 0
            }
        }
        return done
    }
}
