import EtcdFacade
import Glibc
import NIOCore
import NIOPosix
import Primitives
import Synchronization
import TLS

/// One snapshot on its way to one client. What takes time happens on a thread of the host's, one step
/// after the other; the loop only hears of results.
final class SnapshotSession: SnapshotSource, @unchecked Sendable {
    private static let pieceBytes = 1 << 20

    private let loop: any EventLoop
    private let threads: NIOThreadPool
    private let onClosed: () -> Void
    private let isWanted: Wanted
    private var isClosed = false
    /// Brings the rows of several nodes before the first step.
    private var gathering: SnapshotGathering?
    /// Touched by the steps only.
    private let work: Work

    final class Wanted: Sendable {
        private let flag = Atomic<Bool>(true)
        var isTrue: Bool { flag.load(ordering: .relaxed) }
        func end() { flag.store(false, ordering: .relaxed) }
    }

    init(
        loop: any EventLoop, threads: NIOThreadPool, builder: SnapshotBuilder, wanted: Wanted,
        gathering: SnapshotGathering? = nil, onClosed: @escaping () -> Void
    ) {
        self.gathering = gathering
        self.loop = loop
        self.threads = threads
        self.onClosed = onClosed
        isWanted = wanted
        work = Work(builder)
    }

    func next(_ done: @escaping (Result<SnapshotPiece?, SnapshotFailure>) -> Void) {
        if let gathering {
            self.gathering = nil
            return gathering.run { [weak self] failure in
                guard let self, !isClosed else { return }
                if let failure { done(.failure(failure)) } else { next(done) }
            }
        }
        let work = work
        threads.runIfActive(eventLoop: loop) { work.step() }.assumeIsolated().whenComplete { result in
            guard !self.isClosed else { return }
            switch result {
            case .success(let outcome): done(outcome)
            case .failure: done(.failure(.failed("the node is stopping")))
            }
        }
    }

    func close() {
        guard !isClosed else { return }
        isClosed = true
        isWanted.end()
        gathering = nil
        onClosed()
    }

    /// Builds the file at the first step, then reads it.
    private final class Work: @unchecked Sendable {
        private let builder: SnapshotBuilder
        private let digest = SHA256Digest()
        private var descriptor: Int32 = -1
        private var bytes: UInt64 = 0
        private var offset: UInt64 = 0
        private var isDigestSent = false

        init(_ builder: SnapshotBuilder) { self.builder = builder }
        deinit { if descriptor >= 0 { Glibc.close(descriptor) } }

        func step() -> Result<SnapshotPiece?, SnapshotFailure> {
            Result { () throws(SnapshotFailure) in
                if descriptor < 0 {
                    // Clients of the node come first. Linux counts this for the thread alone.
                    setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 10)
                    (descriptor, bytes) = try builder.build()
                }
                if offset == bytes {
                    if isDigestSent { return nil }
                    isDigestSent = true
                    return SnapshotPiece(bytes: Bytes(digest.finish()), remaining: 0)
                }
                let piece = try read(min(SnapshotSession.pieceBytes, Int(bytes - offset)))
                digest.update(piece)
                offset += UInt64(piece.count)
                return SnapshotPiece(bytes: Bytes(piece), remaining: bytes - offset)
            }
        }

        private func read(_ count: Int) throws(SnapshotFailure) -> [UInt8] {
            var piece = [UInt8](repeating: 0, count: count)
            var done = 0
            while done < count {
                let n = piece.withUnsafeMutableBytes {
                    pread(
                        descriptor, $0.baseAddress?.advanced(by: done), count - done,
                        off_t(offset) + off_t(done))
                }
                if n < 0 && errno == EINTR { continue }
                guard n > 0 else { throw .failed("the snapshot's own file cannot be read") }
                done += n
            }
            return piece
        }
    }
}
