import EtcdFacade
import Glibc
import Logging
import NIOCore
import Node
import Primitives
import Storage
import Transport

/// Space and its alarms; the history that goes by itself; what else an operator asks a node for.
extension Host {
    // MARK: Alarms

    func setAlarm(_ alarm: Alarm, isRaised: Bool) -> Bool {
        let stamp = UInt64(max(0, Clocks.read().wallMicroseconds))
        guard alarms.set(alarm, isRaised: isRaised, stamp: stamp) else { return false }
        keepAlarms()
        tellAlarms()
        noticeAlarms()
        return true
    }

    /// What was done by hand outlives the process. Seldom enough to be written at once.
    func keepAlarms() {
        let text = alarms.file
        guard text != alarmsKept else { return }
        do throws(StorageError) {
            try directory.replaceFile(AlarmBook.fileName, Array(text.utf8))
            alarmsKept = text
        } catch {
            logger.error("alarms not kept", metadata: ["reason": "\(error)"])
        }
    }

    func restoreAlarms() {
        do throws(StorageError) {
            guard let bytes = try directory.file(AlarmBook.fileName) else { return }
            let text = String(decoding: bytes, as: UTF8.self)
            if alarms.read(file: text) {
                alarmsKept = text
                if !alarms.all.isEmpty { noticeAlarms() }
            } else {
                logger.error(
                    "alarms that were raised by hand are forgotten: the file is damaged",
                    metadata: ["file": "\(AlarmBook.fileName)"])
            }
        } catch {
            logger.error("alarms not read", metadata: ["reason": "\(error)"])
        }
    }

    func tellAlarms() {
        tellRegion(alarms.frame)
    }

    func noticeAlarms() {
        let names = alarms.all.map { "\($0.memberID) \($0.kind)" }.joined(separator: ", ")
        logger.warning("alarms", metadata: ["raised": "\(names)"])
    }

    // MARK: A full disk

    private static let fullPatience = TimeSpan.seconds(1)

    /// A node without space leaves a region that can do without it, before the disk is really full and it
    /// must: it leads nothing any more, and the process waits for space (`SpaceWait`). Otherwise it stays
    /// and the region refuses writes. All disks may be one: everybody gets the time to say so.
    func leaveIfFull() {
        guard !(logHasSpace && storeHasSpace), !isStopping else {
            fullSince = nil
            return
        }
        let now = Clocks.instant(), since = fullSince ?? now
        fullSince = since
        guard now.since(since) >= Self.fullPatience, alarms.othersHaveSpace else { return }
        let voters = memberStatus.filter { !$0.isLearner }
        let others = voters.filter { $0.node.seat != identity.node.seat && $0.isHealthy }
        guard others.count > voters.count / 2 else { return }
        isStopping = true
        logger.error("the disk is full: the others go on without this node")
        handOver().whenComplete { _ in
            self.end.fail(HostFailure(StorageError.noSpace(self.configuration.dataDirectory)))
        }
    }

    // MARK: Quota

    /// Whether this may be written now. As in etcd, an alarm of any member holds for all.
    func admitsGrowth(of request: Request) -> Bool {
        guard acceptsWrites, !alarms.hasNoSpace else { return false }
        guard configuration.quotaBytes > 0 else { return true }
        // Not only once a second: a burst could go far beyond the quota in the meantime.
        let held = Int64(clamping: figures.sizes?.total ?? 0) + grownBytes
        let bytes = request.putBytes
        guard held + bytes <= configuration.quotaBytes else {
            isOverQuota = true
            noticeSpace()
            return false
        }
        grownBytes += bytes
        return true
    }

    /// Writes are taken again when a tenth of the quota is free.
    func lookAtSize() {
        let sizes = store.sizes()
        figures.sizes = sizes
        grownBytes = 0
        let quota = configuration.quotaBytes
        guard quota > 0 else { return }
        let held = Int64(clamping: sizes.total)
        isOverQuota = isOverQuota ? held > quota - quota / 10 : held > quota
        noticeSpace()
        // Deleted rows stay in the store's files until these are rewritten.
        let now = Clocks.instant()
        if isOverQuota, now.since(reclaimedAt) >= .seconds(5) {
            reclaimedAt = now
            isReclaimWanted = true
            // What is deleted in memory only must reach the files first.
            flush(written: log.metrics().appendedBytes, at: now)
        }
    }

    // MARK: History that goes by itself

    func startAutoCompaction() {
        guard var compactor = AutoCompactor(configuration.autoCompaction, at: now) else { return }
        compactor.begin(at: node.revision)
        autoCompactor = compactor
        let interval = TimeAmount.nanoseconds(Int64(clamping: compactor.interval.nanoseconds))
        compactorTick = loop.scheduleRepeatedTask(initialDelay: interval, delay: interval) { _ in
            self.compactByItself()
        }
    }

    private func compactByItself() {
        guard !isStopped, !isStopping, !end.hasFailed else { return }
        let clock = Clocks.instant()
        // One node of the region is enough: the sequencer's.
        let isLeader = node.sequencerNode(at: clock) == identity.node
        let due = autoCompactor?.step(at: clock, revision: node.revision, isPaused: !isLeader)
        guard let due else { return }
        logger.info("starting auto compaction", metadata: ["revision": "\(due)"])
        facade?.submit(.compact(due)) { response in
            switch response {
            case .compacted, .failed(.compacted):
                self.autoCompactor?.done(due, at: Clocks.instant())
                self.logger.info("completed auto compaction", metadata: ["revision": "\(due)"])
            default:
                self.logger.warning(
                    "failed auto compaction",
                    metadata: ["revision": "\(due)", "reason": "\(response)"])
            }
        }
    }

    // MARK: Sockets of clients on this machine

    /// One that an earlier process left behind; anything else under that name stays.
    static func removeSocket(_ path: String) {
        var status = stat()
        guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK else { return }
        unlink(path)
    }

    func removeSockets() {
        for listener in configuration.allListeners {
            if let path = listener.unixPath { Host.removeSocket(path) }
        }
    }
}

extension Request {
    /// What the store grows by, at least.
    fileprivate var putBytes: Int64 {
        switch self {
        case .transaction(let transaction): transaction.putBytes
        case .replicate(let batch):
            batch.changes.reduce(0) { $0 + Int64($1.key.count + $1.value.count) }
        case .leaseGrant, .leaseRevoke, .leaseExpire, .leaseKeepAlive, .leaseTimeToLive, .leaseList,
            .compact, .auth, .members, .split:
            0
        }
    }
}

extension Transaction {
    /// Of the branch that writes more.
    fileprivate var putBytes: Int64 {
        func bytes(_ operations: [Operation]) -> Int64 {
            operations.reduce(0) { sum, operation in
                switch operation {
                case .put(let put): sum + Int64(put.key.count + put.value.count)
                case .transaction(let nested): sum + nested.putBytes
                case .range, .delete: sum
                }
            }
        }
        return max(bytes(success), bytes(failure))
    }
}
