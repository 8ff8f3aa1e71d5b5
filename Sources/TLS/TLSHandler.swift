import COpenSSL
package import NIOCore

/// TLS for one connection, in front of a NIO channel: bytes go through OpenSSL by memory buffers.
///
/// Before the handshake is done nothing is delivered, and what is written waits, up to a bound.
/// `TLSEvent.handshakeCompleted` comes before the first byte of data. Everything written is encrypted
/// at the flush, so the channel's writability tells the truth about what is not yet sent.
/// A failure is fired as `TLSError` once, and the channel closes.
package final class TLSHandler: ChannelDuplexHandler {
    package typealias InboundIn = ByteBuffer
    package typealias InboundOut = ByteBuffer
    package typealias OutboundIn = ByteBuffer
    package typealias OutboundOut = ByteBuffer

    private enum Phase { case idle, handshaking, open, closing, closed }

    private let tls: TLSContext
    private let role: TLSRole
    private let handshakeTimeout: TimeAmount
    private let bufferedBytesMax: Int

    private var phase = Phase.idle
    private var session: OpaquePointer?
    /// Ciphertext from and to the network; both belong to `session`.
    private var incoming: OpaquePointer?
    private var outgoing: OpaquePointer?

    private var waiting = MarkedCircularBuffer<(buffer: ByteBuffer, promise: EventLoopPromise<Void>?)>(
        initialCapacity: 8)
    private var waitingBytes = 0
    private var closePromises: [EventLoopPromise<Void>] = []
    private var deadline: Scheduled<Void>?

    package init(
        context: TLSContext, role: TLSRole, handshakeTimeout: TimeAmount = .seconds(10),
        bufferedBytesMax: Int = 16 << 20
    ) {
        tls = context
        self.role = role
        self.handshakeTimeout = handshakeTimeout
        self.bufferedBytesMax = bufferedBytesMax
    }
}
