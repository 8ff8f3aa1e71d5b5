import Glibc
import NIOCore
import NIOPosix
import Primitives
import TLS

/// Our way to one peer: dials it, again and again, and sends on the connection that it accepted.
///
///     idle (waits for its redial) -> dialling (TCP, TLS, hello) -> connected -> idle ...
final class PeerLink: @unchecked Sendable {
    enum State {
        case idle
        case dialling(PeerConnection, since: NIODeadline)
        case connected(PeerConnection, since: NIODeadline)
    }

    let peer: PeerID
    let address: PeerAddress
    private let transport: PeerTransport
    private let delay: TimeAmount

    private var state = State.idle
    private var isStopped = false
    private var redial: Scheduled<Void>?
    private var attempts = 0
    /// In this outage: whether the loss of the process was told, and what was noted last.
    private var lostTold = false
    private var notedFailure: String?

    /// This turn's frames.
    private var batch = ByteBuffer()
    /// Batches that a delay holds back, in order, and what has been given to the channel.
    private var delayed = CircularBuffer<(due: NIODeadline, bytes: ByteBuffer)>()
    private var delayedBytes = 0
    private var writtenBytes = 0
    /// The connection is about to be dropped.
    private var hasOverflowed = false
    private var release: Scheduled<Void>?

    private(set) var fault: Fault?
    /// A block has swallowed frames, so the connections with this peer are no longer complete.
    private var swallowed = false
    var counters = PeerStatistics()

    init(peer: PeerID, address: PeerAddress, transport: PeerTransport) {
        self.peer = peer
        self.address = address
        self.transport = transport
        delay =
            peer.region == transport.configuration.own.region
            ? .zero : transport.configuration.wanDelay
    }

    var isBlocked: Bool { fault?.block ?? false }

    var isConnected: Bool {
        if case .connected = state { return true }
        return false
    }

    var hasBatch: Bool { batch.readableBytes > 0 }
    var currentChannel: (any Channel)? {
        switch state {
        case .idle: nil
        case .dialling(let connection, _), .connected(let connection, _): connection.channel
        }
    }
    private var queuedBytes: Int { batch.readableBytes + delayedBytes + writtenBytes }

    var statistics: PeerStatistics {
        var result = counters
        result.connected = isConnected
        result.queuedBytes = queuedBytes
        return result
    }

    // MARK: Dialling

    func dial() {
        redial?.cancel()
        redial = nil
        guard case .idle = state, !isStopped, !isBlocked else { return }
        let connection = PeerConnection(side: .dialled(peer), transport: transport)
        state = .dialling(connection, since: .now())
        let bootstrap = ClientBootstrap(group: transport.loop)
            .connectTimeout(transport.configuration.silenceMax)
        let connect =
            if let literal = try? SocketAddress(ipAddress: address.host, port: address.port) {
                bootstrap.connect(to: literal)
            } else {
                bootstrap.connect(host: address.host, port: address.port)
            }
        connect.assumeIsolated().whenComplete { result in
            do {
                try self.dialled(connection, result.get())
            } catch {
                self.ended(connection, reason: Self.text(error), refused: Self.isRefusal(error))
            }
        }
    }

    /// The handlers come now and not by an initializer, because a name with several addresses makes
    /// several channels. Nothing can have arrived: the accepter never speaks first.
    private func dialled(_ connection: PeerConnection, _ channel: any Channel) throws {
        guard !connection.isClosed else { return channel.close(promise: nil) }
        do {
            try transport.configure(channel)
            let pipeline = channel.pipeline.syncOperations
            if let tls = transport.configuration.tls {
                let name = transport.certificateName(of: peer)
                try pipeline.addHandler(
                    TLSHandler(
                        context: tls, role: .client(expectedName: name),
                        handshakeTimeout: transport.greetingTimeout))
            }
            try pipeline.addHandler(connection)
        } catch {
            channel.close(promise: nil)
            throw error
        }
    }

    /// The peer has dialled us, so it is up: no reason to wait for the redial.
    func seen(boot: UInt64) {
        switch state {
        case .idle:
            dial()
        case .dialling(let connection, let since):
            // Begun before the wire was mended, perhaps: its answer may never come.
            if since + .milliseconds(300) < .now() {
                connection.abort(reason: "no answer yet, but the peer has dialled us")
                attempts = 0
                dial()
            }
        case .connected(let connection, _):
            // Ours leads to a process that is no more.
            if connection.boot != boot { connection.abort(reason: "the peer has restarted") }
        }
    }

    static func text(_ error: any Error) -> String {
        if let error = error as? NIOConnectionError {
            return error.connectionErrors.first.map { text($0.error) } ?? "\(error)"
        }
        // NIO's own text names the system call, which says nothing to an operator.
        if let error = error as? IOError { return String(cString: strerror(error.errnoCode)) }
        return "\(error)"
    }

    /// The machine is there and says that nobody listens.
    private static func isRefusal(_ error: any Error) -> Bool {
        if let error = error as? IOError { return error.errnoCode == ECONNREFUSED }
        guard let error = error as? NIOConnectionError, !error.connectionErrors.isEmpty else {
            return false
        }
        return error.connectionErrors.allSatisfy {
            ($0.error as? IOError)?.errnoCode == ECONNREFUSED
        }
    }

    /// `false`: we have given this connection up.
    func welcomed(_ connection: PeerConnection) -> Bool {
        guard case .dialling(let current, _) = state, current === connection else { return false }
        state = .connected(connection, since: .now())
        lostTold = false
        notedFailure = nil
        counters.connects += 1
        transport.delegate?.onConnected(peer, boot: connection.boot)
        return true
    }

    func ended(_ connection: PeerConnection, reason: String, refused: Bool = false) {
        switch state {
        case .dialling(let current, _) where current === connection:
            state = .idle
            failed(reason: reason, refused: refused)
        case .connected(let current, let since) where current === connection:
            state = .idle
            disconnected(reason: reason, since: since)
        default:
            break
        }
    }

    private func failed(reason: String, refused: Bool) {
        guard !isStopped else { return }
        if notedFailure != reason {
            notedFailure = reason
            transport.note(.connectionFailed(peer, reason: reason))
        }
        scheduleRedial()
        if refused, !lostTold {
            lostTold = true
            transport.delegate?.onDisconnected(peer, lost: true)
        }
    }

    private func disconnected(reason: String, since: NIODeadline) {
        clearQueue()
        guard !isStopped else { return }
        counters.disconnects += 1
        notedFailure = reason
        transport.note(.connectionFailed(peer, reason: reason))
        transport.delegate?.onDisconnected(peer, lost: false)
        // At once: whether that is refused tells a dead process from a broken wire. But a
        // connection that never lasts must not become a busy loop.
        if since + .seconds(1) < .now() {
            attempts = 0
            dial()
        } else {
            scheduleRedial()
        }
    }

    private func scheduleRedial() {
        guard !isStopped, !isBlocked else { return }
        let first = transport.configuration.redialFirst.nanoseconds
        let longest = transport.configuration.redialMax.nanoseconds
        let span = min(longest, first << Int64(min(attempts, 20)))
        attempts += 1
        // Between a half and the whole, so that nodes do not dial in step.
        let pause = span / 2 + Int64(transport.random(below: UInt64(max(1, span / 2))))
        redial = transport.loop.scheduleTask(in: .nanoseconds(pause)) { self.dial() }
    }

    // MARK: Sending

    func send(_ frame: Bytes) -> Bool {
        guard case .connected(let connection, _) = state, !isBlocked, !hasOverflowed else {
            counters.framesDropped += 1
            swallowed = swallowed || isBlocked
            return false
        }
        let configuration = transport.configuration
        let threshold =
            peer.region == configuration.own.region
            ? configuration.compressFromBytes : configuration.compressRemoteFromBytes
        let size = batch.writeFrame(
            .data, frame, compress: frame.count >= threshold, checksum: transport.checksums)
        if queuedBytes > configuration.queuedBytesMax {
            counters.overflows += 1
            counters.framesDropped += 1
            let bytes = queuedBytes
            transport.note(.queueOverflow(peer, bytes: bytes))
            hasOverflowed = true
            batch = ByteBuffer()
            // Not now: the caller is in the middle of a turn.
            transport.loop.execute { connection.abort(reason: "\(bytes) bytes waiting to be sent") }
            return false
        }
        counters.framesSent += 1
        counters.bytesSent += UInt64(size)
        counters.uncompressedBytesSent += UInt64(FrameHeader.size + frame.count)
        return true
    }

    func flush() {
        guard batch.readableBytes > 0, case .connected(let connection, _) = state else { return }
        let bytes = batch
        batch = ByteBuffer()
        let wait = delay + (fault?.delay ?? .zero)
        // Whoever comes after a delayed batch waits behind it, even if the delay is over.
        guard wait > .zero || !delayed.isEmpty else { return write(bytes, on: connection) }
        delayedBytes += bytes.readableBytes
        let earliest = delayed.last?.due ?? .uptimeNanoseconds(0)
        delayed.append((max(.now() + wait, earliest), bytes))
        if release == nil { scheduleRelease() }
    }

    private func scheduleRelease() {
        guard let first = delayed.first else { return }
        release = transport.loop.scheduleTask(deadline: first.due) { self.releaseDue() }
    }

    private func releaseDue() {
        release = nil
        let now = NIODeadline.now()
        while case .connected(let connection, _) = state, let first = delayed.first,
            first.due <= now
        {
            delayed.removeFirst()
            delayedBytes -= first.bytes.readableBytes
            if isBlocked {
                swallowed = true
            } else {
                write(first.bytes, on: connection)
            }
        }
        scheduleRelease()
    }

    /// Pieces, so that a big batch's progress over a slow wire can be seen.
    private static let pieceBytes = 256 << 10
    /// Beyond what the sockets of both ends can swallow, progress proves that the peer reads.
    private static let backlogBytes = 8 << 20

    private func write(_ bytes: ByteBuffer, on connection: PeerConnection) {
        guard let channel = connection.channel else { return }
        var rest = bytes
        while let piece = rest.readSlice(length: min(rest.readableBytes, Self.pieceBytes)),
            piece.readableBytes > 0
        {
            let count = piece.readableBytes
            writtenBytes += count
            channel.write(piece).assumeIsolated().whenComplete { result in
                self.wrote(count, on: connection, result)
            }
        }
        channel.flush()
    }

    private func wrote(
        _ count: Int, on connection: PeerConnection, _ result: Result<Void, any Error>
    ) {
        // An ended connection's bytes were forgotten with it.
        guard case .connected(let current, _) = state, current === connection else { return }
        if writtenBytes > Self.backlogBytes, case .success = result { connection.heardAt = .now() }
        writtenBytes -= count
    }

    private func clearQueue() {
        batch = ByteBuffer()
        delayed.removeAll()
        delayedBytes = 0
        writtenBytes = 0
        hasOverflowed = false
        release?.cancel()
        release = nil
    }

    // MARK: Time and faults

    func tick(_ now: NIODeadline, late: Bool) {
        switch state {
        case .idle:
            break
        case .dialling(let connection, let since):
            if since + transport.greetingTimeout < now {
                connection.abort(reason: "no answer to the greeting")
            }
        case .connected(let connection, _):
            // If we stood still ourselves, the peer's answers wait in our socket.
            if late { connection.heardAt = now }
            if connection.heardAt + transport.configuration.silenceMax < now {
                connection.abort(reason: "silent for \(transport.configuration.silenceMax.text)")
            } else if !isBlocked {
                connection.ping()
            }
        }
    }

    func setFault(_ new: Fault?) {
        let wasBlocked = isBlocked
        fault = new
        if isBlocked {
            redial?.cancel()
            redial = nil
            if batch.readableBytes > 0 {
                batch = ByteBuffer()
                swallowed = true
            }
        }
        guard wasBlocked, !isBlocked else { return }
        if swallowed {
            // Frames are missing in the middle: only a new connection starts clean.
            swallowed = false
            transport.abortAccepted(from: peer, reason: "end of a block")
            if case .connected(let connection, _) = state {
                connection.abort(reason: "end of a block")
            }
        }
        attempts = 0
        dial()
    }

    func markSwallowed() { swallowed = true }

    func stop(orderly: Bool) {
        isStopped = true
        redial?.cancel()
        redial = nil
        let current: PeerConnection?
        switch state {
        case .idle: current = nil
        case .dialling(let connection, _): current = connection
        case .connected(let connection, _):
            current = connection
            if orderly {
                for (_, bytes) in delayed { write(bytes, on: connection) }
                if batch.readableBytes > 0 { write(batch, on: connection) }
            }
        }
        state = .idle
        clearQueue()
        if orderly { current?.close(reason: "shutdown") } else { current?.abort(reason: "removed") }
    }
}

extension TimeAmount {
    var text: String { "\(nanoseconds / 1_000_000) ms" }
}
