import NIOCore
import Primitives
import TLS

/// One TCP connection, last in its pipeline: cuts frames, shakes hands, answers pings, and tells
/// its owner. The dialler's hello names both ends; the accepter's welcome (or refusal) confirms.
final class PeerConnection: ChannelInboundHandler, @unchecked Sendable {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    enum Side: Equatable {
        case dialled(PeerID)
        case accepted
        /// One question, one answer: see `PeerTransport.ask`.
        case asking
    }

    let side: Side
    private let transport: PeerTransport
    private var decoder: FrameDecoder
    private var unread = CircularBuffer<ByteBuffer>()
    private var isReading = false
    private(set) var channel: (any Channel)?
    private var certificate: TLSPeer?
    private(set) var isClosed = false
    /// We turned it away, and said so.
    private(set) var wasRefused = false
    private var hasSaidHello = false
    private var hasAsked = false
    var question: (bytes: Bytes, answer: EventLoopPromise<Bytes>)?
    private var hasDelivered = false
    private var failure: String?

    /// Who is at the other end, once its hello or welcome was found right.
    private(set) var peer: PeerID?
    private(set) var boot: UInt64 = 0
    let openedAt: NIODeadline
    /// Last sign of life.
    var heardAt: NIODeadline
    /// Of those that are not answered: a connection that is silent for some is given up.
    private var pings = CircularBuffer<NIODeadline>(initialCapacity: 8)

    init(side: Side, transport: PeerTransport) {
        self.side = side
        self.transport = transport
        decoder = FrameDecoder(checksum: transport.checksums)
        openedAt = .now()
        heardAt = openedAt
    }

    /// A drill cuts the wire: what arrives is no sign of life.
    private var isSilenced: Bool {
        switch side {
        case .dialled(let peer): transport.isBlocked(peer)
        case .accepted: peer.map(transport.isBlocked) ?? false
        case .asking: false
        }
    }
    var isGreeted: Bool { peer != nil }
    var remote: String { channel?.remoteAddress?.description ?? "unknown" }

    // MARK: Events of the channel

    func handlerAdded(context: ChannelHandlerContext) {
        channel = context.channel
        if context.channel.isActive, !transport.usesTLS { greet() }
    }

    func channelActive(context: ChannelHandlerContext) {
        if !transport.usesTLS { greet() }
        context.fireChannelActive()
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .handshakeCompleted(_, let peer)? = event as? TLSEvent {
            certificate = peer
            greet()
        }
        context.fireUserInboundEventTriggered(event)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isClosed else { return }
        unread.append(unwrapInboundIn(data))
        if !isSilenced { heardAt = .now() }
        // A write that fails makes NIO read what is left, and that may happen inside `onFrame`: later
        // bytes wait until the earlier ones are decoded.
        guard !isReading else { return }
        isReading = true
        defer { isReading = false }
        while let buffer = unread.popFirst() { read(buffer) }
    }

    private func read(_ buffer: ByteBuffer) {
        buffer.withUnsafeReadableBytes { raw in
            var rest = raw
            do throws(FrameError) {
                // A frame's receiver may close us: then the rest is nobody's.
                while !isClosed, let frame = try decoder.next(&rest) { try onFrame(frame) }
            } catch {
                if let peer { transport.countMalformed(from: peer) }
                transport.note(.malformed(from: peer?.description ?? remote, reason: "\(error)"))
                abort(reason: "\(error)")
            }
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        guard hasDelivered else { return }
        hasDelivered = false
        transport.framesDelivered()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // Told by `channelInactive`, which comes in a turn of its own: an error may surface inside
        // somebody's `flush`.
        failure = failure ?? PeerLink.text(error)
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        closed(reason: failure ?? "closed by the peer")
        context.fireChannelInactive()
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        closed(reason: failure ?? "closed")
        channel = nil
    }

    // MARK: Frames

    private func greet() {
        // Asked for twice if the handler came between the connect and its event.
        guard !hasSaidHello else { return }
        switch side {
        case .accepted: return
        case .dialled(let peer): write(.hello, transport.hello(to: peer).encoded())
        case .asking:
            decoder.lengthMax = FrameHeader.payloadMax
            write(.question, question?.bytes ?? .empty)
        }
        hasSaidHello = true
    }

    private func onFrame(_ frame: Frame) throws(FrameError) {
        switch (frame.kind, side) {
        case (.hello, .accepted) where !isGreeted:
            try onHello(frame.payload)
        case (.welcome, .dialled(let expected)) where !isGreeted:
            try onWelcome(frame.payload, from: expected)
        case (.refusal, .dialled(let expected)) where !isGreeted:
            let reason = String(decoding: frame.payload.slice.prefix(200), as: UTF8.self)
            transport.note(.refusedByPeer(expected, reason: reason))
            abort(reason: "refused: \(reason)")
        case (.data, .accepted):
            guard let peer else { throw FrameError("data before hello") }
            hasDelivered = true
            transport.received(frame, from: peer)
        case (.ping, .accepted):
            guard let peer else { throw FrameError("ping before hello") }
            if !transport.isBlocked(peer) { write(.pong, .empty) }
        case (.pong, .dialled(let peer)) where isGreeted:
            // A ping that was answered late is the oldest one: later ones wait behind it.
            if let sent = pings.popFirst() { transport.roundTrip(.now() - sent, of: peer) }
        case (.question, .accepted) where !isGreeted && !hasAsked:
            hasAsked = true
            wasRefused = true
            transport.question(frame.payload.compact()) { [weak self] answer in
                guard let self, !isClosed else { return }
                if let answer { write(.answer, answer) }
                close(reason: "answered")
            }
        case (.answer, .asking):
            question?.answer.succeed(frame.payload.compact())
            question = nil
            close(reason: "answered")
        default:
            throw FrameError("\(frame.kind) out of place")
        }
    }

    func ping() {
        pings.append(.now())
        write(.ping, .empty)
    }

    private func onHello(_ payload: Bytes) throws(FrameError) {
        let hello = try parse(payload)
        // As on a cut wire: no answer, and the tick clears this away.
        if transport.isBlocked(hello.from) { return }
        if let reason = transport.objection(to: hello, certificate: certificate) {
            transport.note(.refusedInbound(from: "\(hello.from) at \(remote)", reason: reason))
            wasRefused = true
            write(.refusal, Bytes(reason))
            close(reason: reason)
            return
        }
        accept(hello)
        write(.welcome, transport.hello(to: hello.from).encoded())
        transport.accepted(self, hello)
    }

    private func onWelcome(_ payload: Bytes, from expected: PeerID) throws(FrameError) {
        let welcome = try parse(payload)
        if transport.isBlocked(expected) { return }
        guard welcome.from == expected, welcome.cluster == transport.configuration.cluster,
            welcome.version == Hello.protocolVersion
        else {
            let reason = "it is \(welcome.from) of cluster \(welcome.cluster)"
            transport.note(.refusedByPeer(expected, reason: reason))
            return abort(reason: reason)
        }
        if let reason = transport.misfit(of: welcome) {
            transport.note(.refusedByPeer(expected, reason: reason))
            return abort(reason: reason)
        }
        accept(welcome)
        transport.welcomed(self, by: expected)
    }

    private func parse(_ payload: Bytes) throws(FrameError) -> Hello {
        do {
            return try Hello(payload)
        } catch {
            throw FrameError("hello: \(error.what)")
        }
    }

    private func accept(_ hello: Hello) {
        peer = hello.from
        boot = hello.boot
        decoder.lengthMax = FrameHeader.payloadMax
    }

    func write(_ kind: FrameHeader.Kind, _ payload: Bytes) {
        guard !isClosed, let channel else { return }
        var buffer = ByteBuffer()
        buffer.writeFrame(kind, payload, compress: false, checksum: transport.checksums)
        channel.writeAndFlush(buffer, promise: nil)
    }

    // MARK: The end

    /// What was written still leaves.
    func close(reason: String) {
        guard !isClosed else { return }
        let channel = channel
        closed(reason: reason)
        guard let channel else { return }
        channel.writeAndFlush(ByteBuffer()).whenComplete { _ in channel.close(promise: nil) }
        // A peer that does not read gets no more than a second.
        channel.eventLoop.scheduleTask(in: .seconds(1)) { Self.cut(channel) }
    }

    /// Nothing more leaves.
    func abort(reason: String) {
        guard !isClosed else { return }
        let channel = channel
        closed(reason: reason)
        if let channel { Self.cut(channel) }
    }

    private static func cut(_ channel: any Channel) {
        channel.triggerUserOutboundEvent(TLSAbort(), promise: nil)
        channel.close(promise: nil)
    }

    private func closed(reason: String) {
        guard !isClosed else { return }
        isClosed = true
        transport.ended(self, reason: reason)
    }
}
