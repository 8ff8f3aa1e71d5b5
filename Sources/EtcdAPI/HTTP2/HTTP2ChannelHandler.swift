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
    /// How many connections are not read from just now, for having made work of nothing.
    fileprivate var pausedConnections = 0
    /// Connections with much to write that began to at once, since then.
    private var bulkBegun = 0
    private var bulkSince = NIODeadline.uptimeNanoseconds(0)
    private static let bulkMax = 4
    private static let bulkPeriod = TimeAmount.microseconds(500)
    fileprivate let steps: LoopSteps?
    package init(steps: LoopSteps? = nil) { self.steps = steps }

    /// Taken out while in use: a callback may flush another connection meanwhile.
    fileprivate func take() -> ByteBuffer {
        var taken = ByteBuffer()
        swap(&taken, &buffer)
        return taken
    }
    fileprivate func put(_ used: consuming ByteBuffer) { buffer = used }

    /// Whether one more connection may write a first frame of much. Twenty of them at once, all with what one
    /// step of work made for them, would take longer than the step.
    fileprivate func mayBeginBulk(at now: NIODeadline) -> Bool {
        if now - bulkSince > Self.bulkPeriod {
            bulkSince = now
            bulkBegun = 0
        }
        bulkBegun += 1
        return bulkBegun <= Self.bulkMax
    }
}

/// How much of the loop's time a connection has used lately. It runs out by an eighth of the time that passes: who
/// takes less than that has never used much, but for the first moment.
struct LoopUse {
    private static let muchNanoseconds: Int64 = 1_000_000
    private static let most: Int64 = 50_000_000
    private var nanoseconds: Int64 = 0
    private var at = NIODeadline.uptimeNanoseconds(0)

    /// As it was when something was added last.
    var isMuch: Bool { nanoseconds > Self.muchNanoseconds }

    mutating func isMuch(at now: NIODeadline) -> Bool {
        runOut(now)
        return isMuch
    }

    mutating func add(_ span: TimeAmount, at now: NIODeadline) {
        runOut(now)
        nanoseconds = min(Self.most, nanoseconds + span.nanoseconds)
    }

    /// For half a second it will have used much.
    mutating func fill(at now: NIODeadline) {
        runOut(now)
        nanoseconds = Self.most
    }

    private mutating func runOut(_ now: NIODeadline) {
        let passed = (now - at).nanoseconds
        guard passed > 0 else { return }
        nanoseconds = max(0, nanoseconds - passed / 8)
        at = now
    }
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
    /// The user's number for this connection among all of its server, by which `LoopSteps` knows it.
    package var owner = -1
    private var isReading = false
    private var isFlushing = false
    private var isClosing = false
    private var closesAfterFlush = false
    private var readsLater = false
    /// Of what was read, the rest that waits for its turn (`feed`). Nothing is read while there is any.
    private var unfed = ByteBuffer()
    private var isFeedScheduled = false
    /// What is fed at once: as much as takes little time, by what the pieces before have taken.
    private var pieceBytes = 4 << 10
    /// The peer has made much work of nothing, and is not read from for a while.
    private var isPaused = false
    /// The user has enough for now: what else has been read waits, and nothing more is.
    package var isHeld = false {
        didSet {
            guard oldValue, !isHeld else { return }
            feedLater()
            readAgain()
        }
    }
    private var isStopped: Bool { isPaused || isHeld }
    private var use = LoopUse()
    /// Of the reading that is under way.
    private var feedTime = TimeAmount.zero
    /// What the peer made of nothing and was not paused for, as of when it made some last.
    private var nuisance = 0
    private var nuisanceAt = NIODeadline.uptimeNanoseconds(0)
    /// Handed to the socket so far.
    package private(set) var takenBytes: UInt64 = 0
    /// Handed over and not taken by it, as counted last (it is counted in `unread` too).
    package private(set) var pendingBytes = 0
    /// Handed over since then, and how often.
    private var writtenBytes = 0
    private var writes = 0
    /// The socket is behind: something stands after the pending bytes in the channel, and tells when they
    /// have left. Until then it gets no more (each write costs memory, however short), and is not read from.
    private var isClogged = false
    private let unread: UnreadBytes
    private var isFlushScheduled = false

    /// How much one write takes from the session: with the last frame a buffer of 128 KiB is full.
    private static let writeBytes = 110 << 10
    /// The same while memory for answers is short.
    private static let writeBytesPressed = 14 << 10
    /// Whoever has more than this to write gets so much in the loop's tick, and the rest by turns: a frame of
    /// what is long, and what is short.
    private static let bulkBytes = 64 << 10
    private static let firstBytes = 17 << 10
    /// What one flush hands over, before the loop serves others, and while memory is short.
    private static let flushBytes = 110 << 10
    private static let flushBytesHurried = 64 << 10
    private static let flushBytesPressed = 32 << 10
    /// Many small answers: they take longer than their bytes say.
    private static let flushFrames = 1024
    private static let flushFramesHurried = 96
    /// So much, and so often, may be handed over before it is counted what became of it.
    private static let uncountedBytes = 32 << 10
    private static let uncountedWrites = 64
    /// What one read may take of the loop's time before others are served, and what a piece of it should take.
    private static let feedStretch = TimeAmount.microseconds(200)
    private static let feedStretchHurried = TimeAmount.microseconds(50)
    private static let pieceLong = TimeAmount.microseconds(60)
    private static let pieceShort = TimeAmount.microseconds(20)
    private static let pieceBytesMin = 512
    /// What one read brings without being worth a look at the clock.
    private static let bytesAtEase = 512
    private static let pieceBytesMax = 32 << 10
    /// So much is nobody's concern (`HTTP2Session.nuisance`), once, and again when this time has passed.
    private static let nuisanceMax = 64
    private static let nuisancePeriod = TimeAmount.milliseconds(10)
    /// For each above that, or for the time that it took, whichever is more, and at most: a flood costs its
    /// sender more than it costs others. Times the connections that do so: a hundred of them must not cost a
    /// hundred times as much.
    private static let pausePerNuisance = TimeAmount.microseconds(20)
    private static let pausePerTime: Int64 = 15
    private static let pauseMax = TimeAmount.milliseconds(100)
    private static let pausesMax = 50

    package init(
        role: HTTP2Role, settings: HTTP2Settings, delegate: any HTTP2ConnectionDelegate,
        scratch: HTTP2Scratch, unread: UnreadBytes = UnreadBytes()
    ) {
        session = HTTP2Session(
            role: role, settings: settings, delegate: delegate, unread: unread)
        user = delegate
        self.scratch = scratch
        self.unread = unread
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
        unread.count -= pendingBytes
        pendingBytes = 0
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
        var buffer = unwrapInboundIn(data)
        if unfed.readableBytes > 0 {
            unfed.writeBuffer(&buffer)
        } else {
            unfed = buffer
        }
        if !isReading {
            isReading = true
            lastRead = context.eventLoop.now
        }
        if session.role == .server, let steps = scratch.steps {
            // Who has used much of the loop's time lately is fed when it is its turn, if there are others.
            if use.isMuch, use.isMuch(at: lastRead) {
                if steps.isHurried(for: owner) { return }
            } else {
                steps.noteGuest(owner, at: lastRead)
            }
        }
        if !isFeedScheduled, !isStopped { feed(context, since: lastRead) }
    }

    /// Hands over what was read, in pieces: requests cost what they cost, not what they weigh, and some
    /// hundreds of them fit into one read. What is left when the time is up, or after much work of nothing,
    /// waits.
    private func feed(_ context: ChannelHandlerContext, since start: NIODeadline) {
        var began = start
        let stretch = isHurried ? Self.feedStretchHurried : Self.feedStretch
        while unfed.readableBytes > 0, !closesAfterFlush {
            let isPiecewise = session.role == .server
            let count = isPiecewise ? min(pieceBytes, unfed.readableBytes) : unfed.readableBytes
            let isFine = unfed.withUnsafeReadableBytes {
                session.feed(UnsafeRawBufferPointer(rebasing: $0[..<count]))
            }
            if !isFine { closesAfterFlush = true }
            unfed.moveReaderIndex(forwardBy: count)
            guard isPiecewise, count > Self.bytesAtEase || unfed.readableBytes > 0, !isHeld else { break }
            let now = context.eventLoop.now
            if unfed.readableBytes > 0 || count >= pieceBytes { adaptPiece(to: now - began) }
            began = now
            if session.nuisance + nuisance > Self.nuisanceMax || now - start >= stretch { break }
        }
        feedTime = began - start
        if began > start { use.add(feedTime, at: began) }
        if unfed.readableBytes == 0 || closesAfterFlush || isClosing { unfed = ByteBuffer() }
        leaveUser()
    }

    private var isHurried: Bool { scratch.steps?.isHurried(for: owner) ?? false }

    private func adaptPiece(to span: TimeAmount) {
        if span > Self.pieceLong {
            pieceBytes = max(Self.pieceBytesMin, pieceBytes / 2)
        } else if span < Self.pieceShort {
            pieceBytes = min(Self.pieceBytesMax, pieceBytes * 2)
        }
    }

    package func channelReadComplete(context: ChannelHandlerContext) {
        // Without a read: more came while the rest of it waits.
        if isReading { endRead(context) }
        context.fireChannelReadComplete()
    }

    private func endRead(_ context: ChannelHandlerContext) {
        isReading = false
        let isLater = user?.onReadEnd() ?? false
        if !isLater || isClosing || closesAfterFlush || !session.wantsToRead { flush() }
        if session.nuisance > 0 { count(session.takeNuisance(), context) }
        feedLater()
    }

    private func count(_ fresh: Int, _ context: ChannelHandlerContext) {
        guard session.role == .server else { return }
        let passed = (context.eventLoop.now - nuisanceAt).nanoseconds
        let forgiven = min(passed, 1 << 40) * Int64(Self.nuisanceMax) / Self.nuisancePeriod.nanoseconds
        nuisance = max(0, nuisance - Int(forgiven)) + fresh
        nuisanceAt = context.eventLoop.now
        guard nuisance > Self.nuisanceMax else { return }
        pause(context, nuisance - Self.nuisanceMax)
        nuisance = Self.nuisanceMax
    }

    /// The rest of what was read, when it is its turn.
    private func feedLater() {
        guard unfed.readableBytes > 0, !isStopped, !isFeedScheduled, let context else { return }
        isFeedScheduled = true
        let step = {
            self.isFeedScheduled = false
            guard let context = self.context, !self.isClosing, !self.isStopped else { return }
            self.isReading = true
            self.feed(context, since: context.eventLoop.now)
            self.endRead(context)
            self.readAgain()
        }
        if let steps = scratch.steps {
            steps.later(for: owner, step)
        } else {
            context.eventLoop.assumeIsolated().execute(step)
        }
    }

    private func pause(_ context: ChannelHandlerContext, _ nuisance: Int) {
        guard !isPaused, !isClosing else { return }
        isPaused = true
        scratch.pausedConnections += 1
        use.fill(at: lastRead)
        let span = min(
            Self.pauseMax,
            .nanoseconds(
                max(
                    Int64(nuisance) * Self.pausePerNuisance.nanoseconds,
                    feedTime.nanoseconds * Self.pausePerTime)))
        let others = Int64(min(scratch.pausedConnections, Self.pausesMax))
        context.eventLoop.assumeIsolated().scheduleTask(in: .nanoseconds(span.nanoseconds * others)) {
            self.isPaused = false
            self.scratch.pausedConnections -= 1
            self.feedLater()
            self.readAgain()
        }
    }

    private func readAgain() {
        guard readsLater, mayRead, let context else { return }
        readsLater = false
        context.read()
    }

    /// Who does not read its answers is not read from, nor who has sent what still waits for its turn.
    private var mayRead: Bool { !isStopped && !isClogged && unfed.readableBytes == 0 && isWritable }

    package func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable {
            flush()
            readAgain()
        }
        context.fireChannelWritabilityChanged()
    }

    package func read(context: ChannelHandlerContext) {
        if mayRead {
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

    /// Writes what the session has to say. Within a read it waits for the read's end. Who has much to
    /// say begins now, so that what is short among it leaves, and goes on when it is its turn.
    package func flush() {
        guard session.bufferedBytes > Self.bulkBytes else { return flush(atMost: Self.flushBytes) }
        guard isClosing || closesAfterFlush || mayBeginBulk else { return flushLater() }
        flush(atMost: Self.firstBytes)
    }

    private var mayBeginBulk: Bool { context.map { scratch.mayBeginBulk(at: $0.eventLoop.now) } ?? true }

    private func flush(atMost limit: Int) {
        guard let context, !isReading, !isFlushing, !isClosing else { return }
        isFlushing = true
        var buffer = scratch.take()
        let isHurried = isHurried
        var limit = isHurried ? min(limit, Self.flushBytesHurried) : limit
        if unread.isPressed { limit = min(limit, Self.flushBytesPressed) }
        let chunk = min(limit, unread.isPressed ? Self.writeBytesPressed : Self.writeBytes)
        var hasMore = true, written = 0
        var frames = isHurried ? Self.flushFramesHurried : Self.flushFrames
        while hasMore, frames > 0, written < limit, !isClogged, context.channel.isWritable {
            // With what control frames there are, and the last frame above the limit.
            buffer.clear(minimumCapacity: min(chunk + (18 << 10), max(4096, session.bufferedBytes)))
            if !session.drain(into: &buffer, limit: chunk, frames: &frames) { isClosing = true }
            if buffer.readableBytes > 0 {
                takenBytes &+= UInt64(buffer.readableBytes)
                written += buffer.readableBytes
                context.write(wrapOutboundOut(buffer), promise: nil)
            }
            hasMore = !isClosing && (buffer.readableBytes >= chunk || frames <= 0)
        }
        if written > 0 { context.flush() }
        scratch.put(buffer)
        isFlushing = false
        countPending(written)
        leaveUser()
        // A stream without end must not keep the loop from the other connections. If the socket took at
        // once what made it unwritable, the news of that came while `isFlushing` was set, and there will be
        // no other.
        if hasMore, !isClosing, !isClogged, context.channel.isWritable { flushLater() }
        if isClosing || closesAfterFlush || session.isFinished { close() }
    }

    /// When it is this connection's turn.
    private func flushLater() {
        guard !isFlushScheduled, let context else { return }
        isFlushScheduled = true
        let step = {
            self.isFlushScheduled = false
            self.flush(atMost: Self.flushBytes)
        }
        if let steps = scratch.steps {
            steps.later(for: owner, step)
        } else {
            context.eventLoop.assumeIsolated().execute(step)
        }
    }

    /// Now and then, and as long as something is pending.
    private func countPending(_ written: Int) {
        guard written > 0 || pendingBytes > 0 else { return }
        writtenBytes += written
        writes += 1
        guard writtenBytes >= Self.uncountedBytes || writes >= Self.uncountedWrites || pendingBytes > 0
        else { return }
        writtenBytes = 0
        writes = 0
        guard let context else { return }
        let pending = (try? context.channel.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0
        unread.count += pending - pendingBytes
        pendingBytes = pending
        guard pending > 0, !isClogged else { return }
        isClogged = true
        let left = context.eventLoop.makePromise(of: Void.self)
        left.futureResult.assumeIsolated().whenComplete { _ in
            // Not at once: it comes from within a write.
            self.context?.eventLoop.assumeIsolated().execute { self.markerHasLeft() }
        }
        context.writeAndFlush(wrapOutboundOut(ByteBuffer()), promise: left)
    }

    private func markerHasLeft() {
        isClogged = false
        countPending(0)
        flush()
        readAgain()
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
