package enum HTTP2Role: Sendable { case server, client }

package struct HTTP2Settings: Sendable {
    /// What the peer may open at once; `.max` advertises no limit.
    package var concurrentStreamsMax = UInt32.max
    package var streamWindowBytes: Int32 = 1 << 20
    package var connectionWindowBytes: Int32 = 8 << 20
    /// Names and values of one block, and 32 bytes for each field.
    package var headerBytesMax = 256 << 10
    /// `onWritable` comes when a stream's buffered bytes fall below `low` after they were above `high`.
    package var bufferedBytesHigh = 1 << 20
    package var bufferedBytesLow = 256 << 10
    /// In place of `high` while memory for answers is short.
    package var bufferedBytesPressed = 64 << 10
    package init() {}
}

/// What a session tells its user. All calls come from within `feed`, `drain` or `close`, except that
/// `onClose` is the last for its stream. A callback may call everything but these three.
package protocol HTTP2SessionDelegate: AnyObject {
    /// Server: a peer opens a stream. The result is the `context` of all that follows about it.
    func onOpen(_ stream: Int32) -> Int
    /// One header field of a block; the bytes are valid during the call.
    func onField(
        _ stream: Int32, _ context: Int, name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer)
    /// The block is complete: a request's or response's headers, or its trailers.
    func onFieldsEnd(_ stream: Int32, _ context: Int)
    /// The bytes are valid during the call, and count as consumed (flow control) after it.
    func onData(_ stream: Int32, _ context: Int, _ data: UnsafeRawBufferPointer)
    /// The peer sends no more on this stream.
    func onEnd(_ stream: Int32, _ context: Int)
    func onWritable(_ stream: Int32, _ context: Int)
    /// `code` is HTTP/2's; 0 = both sides have ended, or the peer lost interest without an error.
    func onClose(_ stream: Int32, _ context: Int, code: UInt32)
    func onPing()
    func onPong(_ payload: UInt64)
    func onGoAway(lastStream: Int32, code: UInt32)
}
