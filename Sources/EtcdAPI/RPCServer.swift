package import NIOCore
package import Primitives

package final class RPCServer {
    package let loop: any EventLoop
    package let limits: RPCLimits
    /// Set before `bind`. Held until the server has shut down.
    package var handler: (any RPCHandler)?

    package init(loop: any EventLoop, limits: RPCLimits = RPCLimits()) {
        self.loop = loop
        self.limits = limits
    }

    /// Listens; port 0 takes a free one. `secure` adds what must come before HTTP (TLS).
    package func bind(
        to address: SocketAddress,
        secure: (@Sendable (any Channel) throws -> any ChannelHandler & RemovableChannelHandler)? = nil
    ) -> EventLoopFuture<SocketAddress> {
        loop.makeFailedFuture(ChannelError.operationUnsupported)
    }

    /// One message. The bytes are kept until they have left, not copied.
    package func send(_ message: Bytes, to call: CallReference) {}
    package func send(_ message: [UInt8], to call: CallReference) {}

    /// Ends the call. What was sent before leaves first.
    package func finish(_ call: CallReference, _ status: GRPCStatus = .ok, message: String = "") {}

    /// Sent and not yet handed to the socket, for streams that must not fall behind without bound.
    package func bufferedBytes(of call: CallReference) -> Int { 0 }

    package func isOpen(_ call: CallReference) -> Bool { false }

    /// Writes now what the calls since the last read have left to write. Not necessary (it happens at
    /// the end of the loop's tick by itself), but earlier and cheaper at the end of a turn.
    package func flush() {}

    /// Tells the clients to go (GOAWAY), lets open calls finish, and closes what is left when
    /// `within` has passed.
    package func shutdown(within: TimeAmount) -> EventLoopFuture<Void> {
        loop.makeSucceededVoidFuture()
    }
}
