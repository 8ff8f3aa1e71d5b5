import COpenSSL
package import NIOCore

/// TLS for one connection, in front of a NIO channel: bytes go through OpenSSL by memory buffers.
///
/// Before the handshake is done nothing is delivered, and what is written waits, up to a bound.
/// `TLSEvent.handshakeCompleted` comes before the first byte of data. Everything written is
/// encrypted at the flush, so the channel's writability tells the truth about what is not yet sent.
/// A failure is fired as `TLSError` once, and the channel closes. An orderly `close` first sends
/// what was flushed, for as long as `closeTimeout`; `TLSAbort` does not wait.
package final class TLSHandler: ChannelDuplexHandler {
    package typealias InboundIn = ByteBuffer
    package typealias InboundOut = ByteBuffer
    package typealias OutboundIn = ByteBuffer
    package typealias OutboundOut = ByteBuffer

    private enum Phase { case idle, handshaking, open, closing, closed }
    private typealias Write = (buffer: ByteBuffer, promise: EventLoopPromise<Void>?)

    private let tls: TLSContext
    private let role: TLSRole
    private let handshakeTimeout: TimeAmount
    private let closeTimeout: TimeAmount
    private let bufferedBytesMax: Int

    private var phase = Phase.idle
    private var session: OpaquePointer?
    /// Ciphertext from and to the network; both belong to `session`.
    private var incoming: OpaquePointer?
    private var outgoing: OpaquePointer?

    /// Written but not yet flushed, or written before the handshake was done.
    private var waiting = MarkedCircularBuffer<Write>(initialCapacity: 4)
    private var waitingBytes = 0
    private var closePromises: [EventLoopPromise<Void>] = []
    private var timer: Scheduled<Void>?

    package init(
        context: TLSContext, role: TLSRole, handshakeTimeout: TimeAmount = .seconds(10),
        closeTimeout: TimeAmount = .seconds(5), bufferedBytesMax: Int = 16 << 20
    ) {
        tls = context
        self.role = role
        self.handshakeTimeout = handshakeTimeout
        self.closeTimeout = closeTimeout
        self.bufferedBytesMax = bufferedBytesMax
    }

    deinit { if let session { SSL_free(session) } }

    // MARK: Handshake

    package func handlerAdded(context: ChannelHandlerContext) {
        if context.channel.isActive { start(context) }
    }

    package func channelActive(context: ChannelHandlerContext) {
        start(context)
        context.fireChannelActive()
    }

    private func start(_ context: ChannelHandlerContext) {
        guard phase == .idle else { return }
        phase = .handshaking
        ERR_clear_error()
        guard let session = tls.makeSession(role), let incoming = polder_bio_memory(),
            let outgoing = polder_bio_memory()
        else { return fail(context, .crypto(OpenSSL.takeErrors())) }
        SSL_set_bio(session, incoming, outgoing)
        self.session = session
        self.incoming = incoming
        self.outgoing = outgoing
        switch role {
        case .server:
            SSL_set_accept_state(session)
            let demands = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT
            let mode = tls.configuration.requireClientCertificate ? demands : SSL_VERIFY_NONE
            polder_ssl_set_verify(session, mode)
        case .client(let name):
            SSL_set_connect_state(session)
            let isAddress = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(session), name) == 1
            if !isAddress {
                guard SSL_set1_host(session, name) == 1 else {
                    return fail(context, .configuration("server name '\(name)'"))
                }
                polder_ssl_set_sni(session, name)
            }
            polder_ssl_set_verify(
                session, tls.configuration.verifyServer ? SSL_VERIFY_PEER : SSL_VERIFY_NONE)
        }
        ERR_clear_error()
        timer = context.eventLoop.assumeIsolated().scheduleTask(in: handshakeTimeout) {
            if self.phase == .handshaking { self.fail(context, .handshakeTimedOut) }
        }
        shakeHands(context)
    }

    private func shakeHands(_ context: ChannelHandlerContext) {
        guard phase == .handshaking, let session else { return }
        ERR_clear_error()
        let result = SSL_do_handshake(session)
        if result == 1 { return handshakeDone(context, session) }
        guard SSL_get_error(session, result) == SSL_ERROR_WANT_READ else {
            return fail(context, .handshake(reason(session)))
        }
        drain(context, promise: nil)
    }

    private func handshakeDone(_ context: ChannelHandlerContext, _ session: OpaquePointer) {
        timer?.cancel()
        timer = nil
        var peer: TLSPeer?
        if let certificate = SSL_get1_peer_certificate(session) {
            peer = OpenSSL.details(of: certificate)
            X509_free(certificate)
        }
        if !tls.configuration.admits(peer) {
            let name = peer?.commonName ?? "none"
            return fail(context, .handshake("the name of the certificate (\(name)) is not allowed"))
        }
        var name: UnsafePointer<UInt8>?
        var length: UInt32 = 0
        SSL_get0_alpn_selected(session, &name, &length)
        let alpn = name.map {
            String(decoding: UnsafeBufferPointer(start: $0, count: Int(length)), as: UTF8.self)
        }
        phase = .open
        drain(context, promise: nil)
        context.fireUserInboundEventTriggered(TLSEvent.handshakeCompleted(alpn: alpn, peer: peer))
        encryptWaiting(context)
    }

    /// What OpenSSL holds against the peer; for certificates, what exactly is wrong with them.
    private func reason(_ session: OpaquePointer) -> String {
        var text = OpenSSL.takeErrors()
        let verdict = SSL_get_verify_result(session)
        if verdict != Int(X509_V_OK), let why = X509_verify_cert_error_string(verdict) {
            text += " (\(String(cString: why)))"
        }
        if case .client(let name) = role { text += ", expecting \(name)" }
        return text
    }

    // MARK: Reading

    package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard let incoming, phase != .closing, phase != .closed else { return }
        let ciphertext = unwrapInboundIn(data)
        let taken = ciphertext.withUnsafeReadableBytes { raw in
            raw.isEmpty ? 0 : Int(BIO_write(incoming, raw.baseAddress, Int32(raw.count)))
        }
        guard taken == ciphertext.readableBytes else {
            return fail(context, .crypto(OpenSSL.takeErrors()))
        }
        if phase == .handshaking { shakeHands(context) }
        if phase == .open { decrypt(context) }
    }

    private func decrypt(_ context: ChannelHandlerContext) {
        guard let session, let incoming else { return }
        var plaintext = context.channel.allocator.buffer(
            capacity: max(polder_bio_pending(incoming), 256))
        var status = SSL_ERROR_NONE
        while status == SSL_ERROR_NONE {
            ERR_clear_error()
            plaintext.writeWithUnsafeMutableBytes(
                minimumWritableBytes: max(Int(SSL_pending(session)), 256)
            ) { raw in
                let n = SSL_read(session, raw.baseAddress, Int32(min(raw.count, 1 << 30)))
                if n > 0 { return Int(n) }
                status = SSL_get_error(session, n)
                return 0
            }
        }
        // Taken now: the handlers that get the data may use OpenSSL on this thread.
        let failure =
            status == SSL_ERROR_SSL || status == SSL_ERROR_SYSCALL ? reason(session) : nil
        // Reading makes OpenSSL answer by itself at times (key updates, alerts).
        drain(context, promise: nil)
        if plaintext.readableBytes > 0 { context.fireChannelRead(wrapInboundOut(plaintext)) }
        guard phase == .open else { return }
        if let failure {
            fail(context, .session(failure))
        } else if status == SSL_ERROR_ZERO_RETURN {
            close(context: context, mode: .all, promise: nil)
        }
    }

    // MARK: Writing

    package func write(
        context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?
    ) {
        guard phase != .closing, phase != .closed else {
            promise?.fail(ChannelError.ioOnClosedChannel)
            return
        }
        let buffer = unwrapOutboundIn(data)
        waiting.append((buffer, promise))
        waitingBytes += buffer.readableBytes
        if phase != .open, waitingBytes > bufferedBytesMax {
            fail(context, .tooMuchBuffered(waitingBytes))
        }
    }

    package func flush(context: ChannelHandlerContext) {
        waiting.mark()
        if phase == .open { encryptWaiting(context) }
    }

    private static let ciphertextChunk = 64 << 10

    private func encryptWaiting(_ context: ChannelHandlerContext) {
        guard let outgoing, waiting.hasMark else { return }
        var promise: EventLoopPromise<Void>?
        while waiting.hasMark, let session, phase == .open || phase == .closing {
            var batch = takeWaiting(&promise)
            // Small writes share a record: each costs some 30 bytes and 300 ns.
            while waiting.hasMark, let next = waiting.first,
                batch.readableBytes + next.buffer.readableBytes <= 16 << 10
            {
                var more = takeWaiting(&promise)
                batch.writeBuffer(&more)
            }
            while batch.readableBytes > 0 {
                ERR_clear_error()
                let written = batch.readWithUnsafeReadableBytes { raw in
                    Int(
                        max(0, SSL_write(session, raw.baseAddress, Int32(min(raw.count, 16 << 10))))
                    )
                }
                guard written > 0 else {
                    promise?.fail(ChannelError.ioOnClosedChannel)
                    return fail(context, .session(reason(session)))
                }
                if polder_bio_pending(outgoing) >= Self.ciphertextChunk {
                    if let chunk = takeCiphertext(context) {
                        context.write(wrapOutboundOut(chunk), promise: nil)
                    }
                }
            }
        }
        // Even if all of it went into whole chunks: they are written, but not flushed.
        let rest = takeCiphertext(context) ?? ByteBuffer()
        context.writeAndFlush(wrapOutboundOut(rest), promise: promise)
    }

    private func takeWaiting(_ promise: inout EventLoopPromise<Void>?) -> ByteBuffer {
        let next = waiting.removeFirst()
        waitingBytes -= next.buffer.readableBytes
        if let own = next.promise {
            if let shared = promise {
                shared.futureResult.cascade(to: own)
            } else {
                promise = own
            }
        }
        return next.buffer
    }

    private func takeCiphertext(_ context: ChannelHandlerContext) -> ByteBuffer? {
        guard let outgoing else { return nil }
        let pending = polder_bio_pending(outgoing)
        guard pending > 0 else { return nil }
        var buffer = context.channel.allocator.buffer(capacity: pending)
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: pending) { raw in
            max(0, Int(BIO_read(outgoing, raw.baseAddress, Int32(pending))))
        }
        return buffer
    }

    private func drain(_ context: ChannelHandlerContext, promise: EventLoopPromise<Void>?) {
        if let buffer = takeCiphertext(context) {
            context.writeAndFlush(wrapOutboundOut(buffer), promise: promise)
        } else {
            promise?.succeed(())
        }
    }

    // MARK: The end

    package func close(
        context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?
    ) {
        switch (mode, phase) {
        case (.all, .open):
            if let promise { closePromises.append(promise) }
            encryptWaiting(context)
            guard phase == .open, let session else { return finish(context) }
            phase = .closing
            failWaiting(ChannelError.ioOnClosedChannel)
            ERR_clear_error()
            SSL_shutdown(session)
            timer = context.eventLoop.assumeIsolated().scheduleTask(in: closeTimeout) {
                self.finish(context)
            }
            let sent = context.eventLoop.makePromise(of: Void.self)
            sent.futureResult.assumeIsolated().whenComplete { _ in self.finish(context) }
            drain(context, promise: sent)
        case (.all, .closing):
            if let promise { closePromises.append(promise) }
        case (.output, .open):
            encryptWaiting(context)
            guard let session else { break }
            ERR_clear_error()
            SSL_shutdown(session)
            drain(context, promise: nil)
            context.close(mode: .output, promise: promise)
        case (.all, _):
            phase = .closed
            failWaiting(ChannelError.ioOnClosedChannel)
            context.close(mode: .all, promise: promise)
        case (_, _):
            context.close(mode: mode, promise: promise)
        }
    }

    package func triggerUserOutboundEvent(
        context: ChannelHandlerContext, event: Any, promise: EventLoopPromise<Void>?
    ) {
        guard event is TLSAbort else {
            return context.triggerUserOutboundEvent(event, promise: promise)
        }
        promise?.succeed(())
        finish(context)
    }

    /// Closes the channel below, now.
    private func finish(_ context: ChannelHandlerContext) {
        guard phase != .closed else { return }
        phase = .closed
        timer?.cancel()
        timer = nil
        failWaiting(ChannelError.ioOnClosedChannel)
        let promises = closePromises
        closePromises = []
        guard let first = promises.first else { return context.close(mode: .all, promise: nil) }
        for other in promises.dropFirst() { first.futureResult.cascade(to: other) }
        context.close(mode: .all, promise: first)
    }

    private func fail(_ context: ChannelHandlerContext, _ error: TLSError) {
        guard phase != .closed else { return }
        ERR_clear_error()
        failWaiting(error)
        // The alert that tells the peer why.
        drain(context, promise: nil)
        context.fireErrorCaught(error)
        finish(context)
    }

    private func failWaiting(_ error: any Error) {
        waitingBytes = 0
        while let next = waiting.popFirst() { next.promise?.fail(error) }
    }

    package func channelInactive(context: ChannelHandlerContext) {
        if phase == .handshaking {
            failWaiting(ChannelError.ioOnClosedChannel)
            context.fireErrorCaught(TLSError.handshake("the peer closed the connection"))
        }
        finish(context)
        context.fireChannelInactive()
    }

    package func handlerRemoved(context: ChannelHandlerContext) {
        phase = .closed
        timer?.cancel()
        timer = nil
        failWaiting(ChannelError.ioOnClosedChannel)
    }
}

/// Outbound user event: close without sending what is still queued.
package struct TLSAbort: Sendable {
    package init() {}
}
