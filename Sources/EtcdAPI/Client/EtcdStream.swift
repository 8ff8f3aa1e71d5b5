import NIOCore

/// A streaming call (watch, lease keep-alive). Iterate `messages`; `send` at any time.
package final class EtcdStream: @unchecked Sendable {
    // Unchecked: everything mutable is touched on the client's loop only.
    package let messages: AsyncThrowingStream<[UInt8], any Error>
    private let continuation: AsyncThrowingStream<[UInt8], any Error>.Continuation
    private let client: EtcdClient
    private var stream: ClientStream?
    private var session: ClientSession?
    private var waiting: [[UInt8]] = []
    private var isHalfClosed = false
    private var isCancelled = false
    /// Received and not yet taken (`took`); above the maximum nothing more is read from the socket.
    private var heldBytes = 0
    private let heldBytesMax: Int

    init(client: EtcdClient, path: String, heldBytesMax: Int) {
        self.client = client
        self.heldBytesMax = heldBytesMax
        (messages, continuation) = AsyncThrowingStream.makeStream()
        continuation.onTermination = { [weak self] _ in self?.cancel() }
        client.loop.execute { self.open(path) }
    }

    /// `isLast`: no more will follow from here.
    package func send(_ message: [UInt8], isLast: Bool = false) {
        client.loop.execute {
            self.isHalfClosed = isLast
            guard let session = self.session, let stream = self.stream else {
                return self.waiting.append(message)
            }
            session.send(EtcdClient.framed(message), on: stream, isLast: isLast)
        }
    }

    /// The reader of `messages` is done with so many bytes of them: needed only if the stream has a
    /// maximum.
    package func took(_ bytes: Int) {
        client.loop.execute {
            self.heldBytes -= bytes
            if self.heldBytes <= self.heldBytesMax / 2 { self.session?.resumeReading() }
        }
    }

    private func received(_ message: [UInt8]) {
        heldBytes += message.count
        if heldBytes > heldBytesMax { session?.pauseReading() }
        continuation.yield(message)
    }

    package func cancel() {
        client.loop.execute {
            self.isCancelled = true
            guard let session = self.session, let stream = self.stream else { return }
            session.resumeReading()
            session.cancel(stream, "cancelled")
        }
    }

    private func open(_ path: String) {
        client.withSession { result in
            switch result {
            case .failure(let error): self.continuation.finish(throwing: error)
            case .success(let session):
                guard !self.isCancelled else { return self.continuation.finish() }
                let stream = ClientStream(
                    shape: .grpc, onMessage: { self.received($0) },
                    onEnd: { end in
                        self.stream = nil
                        self.session = nil
                        if self.isCancelled { return self.continuation.finish() }
                        self.continuation.finish(throwing: EtcdClient.failure(of: end))
                    })
                self.session = session
                self.stream = stream
                session.start(
                    stream, headers: self.client.headers(path: path, timeout: nil),
                    body: self.waiting.flatMap(EtcdClient.framed), isComplete: self.isHalfClosed)
                self.waiting.removeAll()
            }
        }
    }
}
