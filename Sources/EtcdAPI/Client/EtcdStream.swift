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
    private var isCancelled = false

    init(client: EtcdClient, path: String) {
        self.client = client
        (messages, continuation) = AsyncThrowingStream.makeStream()
        continuation.onTermination = { [weak self] _ in self?.cancel() }
        client.loop.execute { self.open(path) }
    }

    package func send(_ message: [UInt8]) {
        client.loop.execute {
            guard let session = self.session, let stream = self.stream else {
                return self.waiting.append(message)
            }
            session.send(EtcdClient.framed(message), on: stream)
        }
    }

    package func cancel() {
        client.loop.execute {
            self.isCancelled = true
            guard let session = self.session, let stream = self.stream else { return }
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
                    shape: .grpc, onMessage: { self.continuation.yield($0) },
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
                    body: self.waiting.flatMap(EtcdClient.framed), isComplete: false)
                self.waiting.removeAll()
            }
        }
    }
}
