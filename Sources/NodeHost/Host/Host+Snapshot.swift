import EtcdFacade
import EtcdSnapshot
import Logging
import NIOCore
import NIOPosix
import Node
import Primitives
import Storage

/// Maintenance that reads the whole store: on other threads, a bounded number of them.
extension Host {
    private static let snapshotsMax = 2
    private static let hashesMax = 2

    /// Of the local replicas, at the frontier that they show: works on a node that is cut off, too. Where
    /// the region is spread, of all nodes, and without history.
    func openSnapshot() throws(SnapshotFailure) -> any SnapshotSource {
        guard snapshotsOpen < Self.snapshotsMax else { throw .tooMany }
        let revision = node.revision
        // What was compacted is gone for clients, whether or not the store has got there.
        let compacted = min(max(store.floor(of: .standard), node.compactedThrough), revision)
        let members = memberStatus.map {
            EtcdState.Member(
                id: $0.id, name: $0.name, peerURLs: $0.peerURLs, clientURLs: $0.clientURLs)
        }
        let wanted = SnapshotSession.Wanted()
        let builder = SnapshotBuilder(
            history: isPartial ? nil : store.history(of: .standard, after: compacted, through: revision),
            content: SnapshotBuilder.Content(
                revision: revision, members: members, auth: EtcdAuth.file(node.authState),
                groups: node.map.entries.map {
                    GroupID(keyspace: .standard, partition: $0.partition)
                }),
            directory: configuration.dataDirectory,
            reserveBytes: UInt64(configuration.limits.logBytesBeforeFlush) * 5 / 2 + (80 << 20),
            isWanted: { wanted.isTrue })
        startThreads()
        snapshotsOpen += 1
        logger.info("sending a snapshot", metadata: ["revision": "\(revision)"])
        return SnapshotSession(
            loop: loop, threads: threads, builder: builder, wanted: wanted,
            gathering: isPartial
                ? SnapshotGathering(self, at: revision, into: builder, isWanted: { wanted.isTrue }) : nil,
            onClosed: { [weak self] in self?.snapshotsOpen -= 1 })
    }

    func hash(
        at revision: Revision, _ done: @escaping (Result<UInt32, RequestError>) -> Void
    ) {
        guard hashesRunning < Self.hashesMax else { return done(.failure(.tooManyRequests)) }
        hashesRunning += 1
        let relay = HashAnswer(done), compacted = node.compactedThrough
        let isSummed = members.isSpread || isPartial
        store.hashInBackground(
            at: revision, compacted: compacted, in: .standard, hashes: ownRows, isSummed: isSummed
        ) { result in
            self.loop.execute {
                guard case .success(let own) = result, self.isPartial else {
                    self.hashesRunning -= 1
                    return relay.done(result)
                }
                self.addHashes(
                    of: revision, compacted, to: own, until: self.now.advanced(by: .seconds(30)), relay)
            }
        }
    }

    /// Of what lies elsewhere: the parts' sums are the sum of all.
    private func addHashes(
        of revision: Revision, _ compacted: Revision, to own: UInt32, until deadline: Instant,
        _ relay: HashAnswer
    ) {
        do throws(RequestError) {
            let others = try remoteHashes(at: revision, compacted: compacted)
            hashesRunning -= 1
            relay.done(.success(own &+ others))
        } catch {
            guard error == .elsewhere, now < deadline, !isStopped else {
                hashesRunning -= 1
                return relay.done(.failure(error == .elsewhere ? .timedOut : error))
            }
            whenFetched { self.addHashes(of: revision, compacted, to: own, until: deadline, relay) }
        }
    }

    func reclaimSpace() {
        let isNew = store.reclaimInBackground()
        if isNew { figures.reclaiming.begin(at: Clocks.instant()) }
        logger.info("reclaiming space", metadata: ["already": "\(!isNew)"])
    }

    func startThreads() {
        guard !areThreadsStarted else { return }
        areThreadsStarted = true
        threads.start()
    }
}

/// Carries a closure of the loop's to another thread and back; only the loop calls it.
private final class HashAnswer: @unchecked Sendable {
    let done: (Result<UInt32, RequestError>) -> Void
    init(_ done: @escaping (Result<UInt32, RequestError>) -> Void) { self.done = done }
}
