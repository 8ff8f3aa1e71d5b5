package import NIOCore
import TLS

/// What a user of a connection hears beside the session's own events.
package protocol HTTP2ConnectionDelegate: HTTP2SessionDelegate {
    /// The handler is in a live channel; with TLS the handshake is done.
    func onConnected(_ handler: HTTP2ChannelHandler)
    /// Everything that one wake of the socket brought has been delivered. False: the flush follows. True:
    /// it is the user's, later in this tick of the loop.
    func onReadEnd() -> Bool
    /// The server wants to end.
    func onShutdown()
    /// After the last `onClose` of the session.
    func onDisconnected()
}

/// What the connections of one loop share: a buffer for draining (one drains at a time), and the turns of
/// those that have more to write than fits into one.
package final class HTTP2Scratch {
    private var buffer = ByteBuffer()
    fileprivate let steps: LoopSteps?
    package init(steps: LoopSteps? = nil) { self.steps = steps }

    /// Taken out while in use: a callback may flush another connection meanwhile.
    fileprivate func take() -> ByteBuffer {
        var taken = ByteBuffer()
        swap(&taken, &buffer)
        return taken
    }
    fileprivate func put(_ used: consuming ByteBuffer) { buffer = used }
}

/// An `HTTP2Session` in a NIO channel: one flush for everything that a wake of the socket caused, and
/// none while the socket has more than its high-water mark to send.
package final class HTTP2ChannelHandler: ChannelDuplexHandler {
    package typealias InboundIn = ByteBuffer
    package typealias OutboundIn = ByteBuffer
    package typealias OutboundOut = ByteBuffer

    package let session: HTTP2Session
    /// When the peer last sent anything.
    package private(set) var lastRead = NIODeadline.uptimeNanoseconds(0)
    private var user: (any HTTP2ConnectionDelegate)?
    private let scratch: HTTP2Scratch
    private var context: ChannelHandlerContext?
    /// The second GOAWAY has been sent (the user's note).
    package var isLeaving = false
    private var isReading = false
    private var isFlushing = false
    private var isClosing = false
    private var closesAfterFlush = false
    private var readsLater = false
    /// The peer has made much work of nothing, and is not read from for a while.
    private var isPaused = false
    /// Handed to the socket so far.
    package private(set) var takenBytes: UInt64 = 0

    /// How much one write takes from the session.
    private static let writeBytes = 256 << 10
    /// How often it fills the socket while that takes everything at once, before the loop serves others.
    private static let roundsMax = 1
    /// Of what comes with one read, so much is nobody's concern (`HTTP2Session.nuisance`).
    private static let nuisanceMax = 64
    /// For each above that, and at most: a flood costs its sender more than it costs others.
    private static let pausePerNuisance = TimeAmount.microseconds(20)
    private static let pauseMax = TimeAmount.milliseconds(100)

    package init(
        role: HTTP2Role, settings: HTTP2Settings, delegate: any HTTP2ConnectionDelegate,
        scratch: HTTP2Scratch, unread: UnreadBytes = UnreadBytes()
    ) {
        session = HTTP2Session(
            role: role, settings: settings, delegate: delegate, unread: unread)
        user = delegate
        self.scratch = scratch
    }

    package func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        if context.channel.isActive { connected(context) }
    }

    package func handlerRemoved(context: ChannelHandlerContext) { disconnected() }

    package func channelActive(context: ChannelHandlerContext) {
        connected(context)
        context.fireChannelActive()
    }

    package func channelInactive(context: ChannelHandlerContext) {
        disconnected()
        context.fireChannelInactive()
    }

    private func connected(_ context: ChannelHandlerContext) {
        lastRead = context.eventLoop.now
        user?.onConnected(self)
        flush()
    }

    private func disconnected() {
        guard context != nil else { return }
        context = nil
        isClosing = true
        session.close()
        leaveUser()
    }

    /// The last that the user hears. Who closes the channel within one of the session's callbacks gets the
    /// rest of what was read first: the session ends when it is left.
    private func leaveUser() {
        guard context == nil, session.isClosed, let user else { return }
        self.user = nil
        user.onDisconnected()
    }

    package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isClosing, !closesAfterFlush else { return }
        let buffer = unwrapInboundIn(data)
        if !isReading {
            isReading = true
            lastRead = context.eventLoop.now
        }
        if !buffer.withUnsafeReadableBytes({ session.feed($0) }) { closesAfterFlush = true }
        leaveUser()
    }

    package func channelReadComplete(context: ChannelHandlerContext) {
        isReading = false
        let isLater = user?.onReadEnd() ?? false
        if !isLater || isClosing || closesAfterFlush || !session.wantsToRead { flush() }
        let nuisance = session.takeNuisance()
        if session.role == .server, nuisance > Self.nuisanceMax {
            pause(context, nuisance - Self.nuisanceMax)
        }
        context.fireChannelReadComplete()
    }

    private func pause(_ context: ChannelHandlerContext, _ nuisance: Int) {
        guard !isPaused, !isClosing else { return }
        isPaused = true
        let span = min(Self.pauseMax, .nanoseconds(Int64(nuisance) * Self.pausePerNuisance.nanoseconds))
        context.eventLoop.assumeIsolated().scheduleTask(in: span) {
            self.isPaused = false
            guard let context = self.context, self.readsLater, context.channel.isWritable else { return }
            self.readsLater = false
            context.read()
        }
    }

    package func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable {
            flush()
            if readsLater, !isPaused {
                readsLater = false
                context.read()
            }
        }
        context.fireChannelWritabilityChanged()
    }

    /// Who does not read its answers is not read from.
    package func read(context: ChannelHandlerContext) {
        if context.channel.isWritable, !isPaused {
            context.read()
        } else {
            readsLater = true
        }
    }

    package func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is ShutdownEvent { user?.onShutdown() }
        context.fireUserInboundEventTriggered(event)
    }

    package func errorCaught(context: ChannelHandlerContext, error: any Error) { close() }

    /// Writes what the session has to say. Within a read it waits for the read's end.
    package func flush() {
        guard let context, !isReading, !isFlushing, !isClosing else { return }
        isFlushing = true
        var buffer = scratch.take()
        var hasMore = true, rounds = 0
        // Again, if the socket took at once what made it unwritable: the news of that came while
        // `isFlushing` was set, and there will be no other.
        while hasMore, !isClosing, rounds < Self.roundsMax, context.channel.isWritable {
            rounds += 1
            var wrote = false
            while hasMore, context.channel.isWritable {
                buffer.clear(minimumCapacity: 4096)
                if !session.drain(into: &buffer, limit: Self.writeBytes) { isClosing = true }
                if buffer.readableBytes > 0 {
                    takenBytes &+= UInt64(buffer.readableBytes)
                    context.write(wrapOutboundOut(buffer), promise: nil)
                    wrote = true
                }
                hasMore = !isClosing && buffer.readableBytes >= Self.writeBytes
            }
            if wrote { context.flush() }
        }
        scratch.put(buffer)
        isFlushing = false
        leaveUser()
        // A stream without end must not keep the loop from the other connections.
        if hasMore, rounds == Self.roundsMax, !isClosing, context.channel.isWritable {
            if let steps = scratch.steps {
                steps.later { self.flush() }
            } else {
                context.eventLoop.assumeIsolated().execute { self.flush() }
            }
        }
        if isClosing || closesAfterFlush || session.isFinished { close() }
    }

    /// Says what is to be said, then closes, at the next flush.
    package func closeAfterFlush() { closesAfterFlush = true }

    /// Closes the connection after what was written.
    package func close() {
        isClosing = true
        context?.close(promise: nil)
    }

    package var isWritable: Bool { context?.channel.isWritable ?? false }
}
