import EtcdAPI
package import Primitives

/// etcd's database file as it is being sent. `NodeHost` makes it; on the loop.
package protocol SnapshotSource: AnyObject {
    /// The next piece of the file, then its digest, then nil. One at a time; `done` is called later,
    /// and not after `close`.
    func next(_ done: @escaping (Result<SnapshotPiece?, SnapshotFailure>) -> Void)
    /// No more is wanted: what it takes on the disk and in the store is freed.
    func close()
}

package struct SnapshotPiece: Sendable {
    package let bytes: Bytes
    /// Of the file, after this piece. The digest does not count.
    package let remaining: UInt64
    package init(bytes: Bytes, remaining: UInt64) {
        self.bytes = bytes
        self.remaining = remaining
    }
}

package enum SnapshotFailure: Error, Equatable, Sendable {
    /// As many as are made at a time are being made.
    case tooMany
    /// There is no room on the disk for the file.
    case noSpace(String)
    case failed(String)
}

extension SnapshotFailure {
    var failure: CallFailure {
        switch self {
        case .tooMany: EtcdError.tooManyRequests.failure
        case .noSpace(let text): CallFailure(status: .resourceExhausted, text: "polder: \(text)")
        case .failed(let text): CallFailure(status: .internal, text: "polder: \(text)")
        }
    }
}

/// A client that takes a snapshot.
final class SnapshotStream {
    let call: CallReference
    let source: any SnapshotSource
    /// A piece has been asked for.
    var isReading = false

    init(call: CallReference, source: any SnapshotSource) {
        self.call = call
        self.source = source
    }
}

extension Facade {
    /// As much of the file as etcd puts into one message.
    private static let blobBytes = 32 << 10

    func onSnapshot(_ call: CallReference) throws(CallFailure) {
        guard var open = calls[call] else { return }
        let source: any SnapshotSource
        do throws(SnapshotFailure) {
            source = try node.openSnapshot()
        } catch {
            throw error.failure
        }
        let stream = SnapshotStream(call: call, source: source)
        open.state = .snapshot(stream)
        calls[call] = open
        continueSnapshot(stream)
    }

    /// Asks for more as long as the client takes it.
    func continueSnapshot(_ stream: SnapshotStream) {
        guard !stream.isReading, output.bufferedBytes(of: stream.call) < limits.bufferedBytesHigh
        else { return }
        stream.isReading = true
        stream.source.next { [weak self] result in
            stream.isReading = false
            guard let self, self.calls[stream.call] != nil else { return }
            switch result {
            case .failure(let failure): self.fail(stream.call, failure.failure)
            case .success(nil):
                if let open = self.calls[stream.call] {
                    let took = self.node.now.since(open.startedAt)
                    self.metrics.snapshots.note(nanoseconds: took.nanoseconds)
                }
                self.complete(stream.call)
            case .success(let piece?):
                self.send(piece, to: stream.call)
                self.continueSnapshot(stream)
            }
        }
    }

    private func send(_ piece: SnapshotPiece, to call: CallReference) {
        var start = 0
        while start < piece.bytes.count {
            let end = min(start + Self.blobBytes, piece.bytes.count)
            var builder = MessageBuilder()
            builder.field(2, piece.remaining + UInt64(piece.bytes.count - end))
            builder.message(3, piece.bytes[start..<end].array)
            builder.field(4, versions.snapshot)
            sendOnStream(builder.bytes, to: call, .snapshot)
            start = end
        }
    }
}
