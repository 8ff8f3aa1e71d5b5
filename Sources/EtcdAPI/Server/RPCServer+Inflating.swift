import Primitives

/// Compressed messages of calls. Nothing more is taken from a connection while one of its messages is inflated.
extension RPCServer {
    struct Inflating {
        let work: Inflation
        /// What came behind the message.
        var rest: [UInt8]
        var hasEnded = false
    }

    /// A message and what follows it. The result: it is whole at once.
    func inflate(
        _ slot: Int, _ message: Bytes, _ rest: UnsafeRawBufferPointer
    ) throws(MessageReader.Failure) -> Bytes? {
        let work = try Inflation(message, limit: limits.messageBytesMax)
        if let whole = try work.step() { return whole }
        calls[slot].isInflating = true
        inflating[slot] = Inflating(work: work, rest: Array(rest))
        if let connection = connections[calls[slot].connection] { connection.hold() }
        goOnLater(slot)
        return nil
    }

    private func goOnLater(_ slot: Int) {
        let call = reference(slot)
        steps.later(for: calls[slot].connection) { [weak self] in self?.goOn(call) }
    }

    private func goOn(_ call: CallReference) {
        guard let slot = resolve(call), let work = inflating[slot]?.work else { return }
        do throws(MessageReader.Failure) {
            repeat {
                if let whole = try work.step() { return finishInflating(slot, whole) }
            } while !steps.isOver
            halfSent(slot, is: work.bytes)
            if calls[slot].isInflating { goOnLater(slot) }
        } catch {
            stopInflating(slot)
            refuse(slot, error)
        }
    }

    private func finishInflating(_ slot: Int, _ message: Bytes) {
        guard let done = inflating[slot] else { return }
        let call = reference(slot), connection = connections[calls[slot].connection]
        stopInflating(slot)
        counters.messageBytesReceived &+= UInt64(message.length)
        handler?.onMessage(call, message)
        done.rest.withUnsafeBytes { receive(slot, $0) }
        if done.hasEnded, resolve(call) != nil {
            if calls[slot].isInflating { inflating[slot]?.hasEnded = true } else { halfClose(slot) }
        }
        _ = connection?.onReadEnd()
    }

    /// It is done, or nobody waits for it any more.
    func stopInflating(_ slot: Int) {
        guard calls[slot].isInflating else { return }
        calls[slot].isInflating = false
        inflating[slot] = nil
        if let connection = connections[calls[slot].connection] { connection.release() }
    }
}
