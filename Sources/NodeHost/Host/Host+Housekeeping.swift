import Consensus
import EtcdFacade
import Logging
import NIOCore
import NIOPosix
import Node
import Primitives
import Storage

extension Host {
    /// Looks once a second after what needs no promptness.
    func startHousekeeping() {
        flushedAt = Clocks.instant()
        certificatesUsed = configuration.certificateFiles.map(FileStamp.init)
        certificatesSeen = certificatesUsed
        figures.sizes = store.sizes()
        tick = loop.scheduleRepeatedTask(initialDelay: .seconds(1), delay: .seconds(1)) { _ in
            self.onTick()
        }
        lookForSpace()
    }

    /// A quarter more than needed before writes are taken again. Once a second, and more often where a
    /// second's writes could use up what is left.
    private func lookForSpace() {
        spaceLook?.cancel()
        spaceLook = nil
        guard !isStopped, !end.hasFailed else { return }
        // Nothing known: the writes themselves will tell.
        guard let free = try? directory.freeBytes() else { return }
        let needed = configuration.spaceNeeded
        if free < needed * 4 + (1 << 30) {
            spaceLook = loop.scheduleTask(in: .milliseconds(250)) { self.lookForSpace() }
        }
        holdRewriting(free: UInt64(free), needed: UInt64(needed))
        storeHasSpace = free >= (storeHasSpace ? needed : needed + needed / 4)
        noticeSpace()
        leaveIfFull()
    }

    /// RocksDB begins to rewrite files only where there is room for that, and for as much that is written
    /// meanwhile: without, it met the end of the disk long before clients were stopped, and reads ended
    /// with the store. Who compacts history on a full disk wants it all the same.
    private func holdRewriting(free: UInt64, needed: UInt64) {
        let largest = min(store.sizes().total, Store.rewriteBytesMax)
        let isWanted = Clocks.instant() < rewritingWantedUntil
        let may = isWanted || free >= largest * (isRewritingHeld ? 3 : 2) + needed
        guard may == isRewritingHeld else { return }
        isRewritingHeld = !may
        logger.notice(may ? "the store may rewrite its files again" : "too little space to rewrite the store's files")
        do throws(StorageError) {
            try store.mayRewrite(may)
        } catch {
            end.fail(HostFailure(error))
        }
    }

    private func onTick() {
        guard !isStopped, !end.hasFailed else { return }
        if spaceLook == nil { lookForSpace() }
        let written = log.metrics().appendedBytes
        let now = Clocks.instant()
        let isMuch = written - flushedAtBytes >= UInt64(configuration.limits.logBytesBeforeFlush)
        // A little now and then too: a restart replays what the store has not flushed.
        let isOld = written > flushedAtBytes && now.since(flushedAt) >= .seconds(60)
        if isMuch || isOld { flush(written: written, at: now) }
        lookAtSize()
        lookAtReclaim(now)
        lookAtStore()
        lookAtDisk(at: now)
        lookAtLeaders(at: now)
        lookAtCertificates()
        publish()
        lookForSplits()
        if store.isDropping, !isDropping {
            isDropping = true
            dropSome()
        }
        if isPartial { elsewhere.expire(at: now) }
        if hasSetAside, node.isReady, servesAllPresent { removeSetAside() }
    }

    /// The region has brought this node back to where it was.
    private func removeSetAside() {
        hasSetAside = false
        let path = directory.path
        do throws(StorageError) {
            guard let gone = try SetAside.retire(in: path) else { return }
            logger.notice("the region has replaced what was set aside", metadata: ["directory": "\(gone)"])
            startThreads()
            let logger = logger
            threads.runIfActive(eventLoop: loop) { try Files.removeTree(gone) }.whenFailure {
                logger.warning("cannot be removed", metadata: ["directory": "\(gone)", "reason": "\($0)"])
            }
        } catch {
            logger.warning("what was set aside stays", metadata: ["reason": "\(error)"])
        }
    }

    /// The rows of replicas that the region does without, a little at a time.
    private func dropSome() {
        guard !isStopped, !end.hasFailed else { return }
        do throws(StorageError) {
            if try store.dropStep(budget: 500, in: .standard) {
                isDropping = false
                return lookAtStoreRows()
            }
        } catch {
            end.fail(HostFailure(error))
            return
        }
        loop.scheduleTask(in: .milliseconds(2)) { self.dropSome() }
    }

    /// A compaction that has failed for good (it met damage) stops the store: found here even if nobody
    /// writes any more.
    private func lookAtStore() {
        let errors = store.backgroundErrors
        guard errors > figures.storeErrors else { return }
        figures.storeErrors = errors
        logger.error("the store's work in the background has failed", metadata: ["errors": "\(errors)"])
        do throws(StorageError) {
            try store.checkWrites()
        } catch {
            end.fail(HostFailure(error))
        }
    }

    /// Whoever renews certificates writes the files, one after the other, and tells nobody: they are read
    /// again when they have been the same for two looks.
    private func lookAtCertificates() {
        let seen = configuration.certificateFiles.map(FileStamp.init)
        defer { certificatesSeen = seen }
        guard seen != certificatesUsed, seen == certificatesSeen else { return }
        // What cannot be used is not tried again before it changes.
        certificatesUsed = seen
        reload()
    }

    /// Makes the store durable in the background; then the logs may be cut.
    func flush(written: UInt64, at now: Instant) {
        guard !isFlushing else { return }
        isFlushing = store.flushInBackground { result in
            self.loop.execute { self.onFlushed(result) }
        }
        guard isFlushing else { return }
        flushedAtBytes = written
        flushedAt = now
        figures.flushes.begin(at: now)
    }

    private func onFlushed(_ result: Result<[GroupID: Slot], StorageError>) {
        isFlushing = false
        figures.flushes.end(at: Clocks.instant())
        switch result {
        case .success(let slots):
            logger.debug("store flushed")
            if isReclaimWanted {
                isReclaimWanted = false
                reclaimSpace()
            }
            enqueue(.flushed(slots.map { ($0.key, $0.value) }.sorted { $0.0 < $1.0 }))
        case .failure(let error): end.fail(HostFailure(error))
        }
    }

    /// The store does it on a thread of its own, and tells nobody.
    private func lookAtReclaim(_ now: Instant) {
        if figures.reclaiming.isUnderWay, !store.isReclaiming { figures.reclaiming.end(at: now) }
    }

    // MARK: Compaction

    func beginCompaction(_ floor: Revision) throws(StorageError) {
        guard floor > store.floor(of: .standard) else { return }
        try store.compact(floor: floor, deletionsBefore: deletionsBefore, in: .standard)
        guard !isCompacting else { return }
        isCompacting = true
        figures.compaction.begin(at: Clocks.instant())
        compactSome()
    }

    /// Another region may still send a write that is older than a deletion which it has got: as long as it
    /// is this far behind at most, the deletion is here and beats it (protocol-rules.md G3).
    private var deletionsBefore: UInt64 {
        guard !configuration.remoteRegions.isEmpty else { return .max }
        let kept = Self.deletionsKept.nanoseconds / 1_000, now = Clocks.read().wallMicroseconds
        return now > kept ? now - kept : 0
    }
    private static let deletionsKept = TimeSpan.seconds(24 * 3_600)

    /// About two milliseconds at a time: the loop serves clients in between. How many changes that is depends
    /// on what has to be read from the disk (docs/decisions/0017-history-goes-by-a-pass.md).
    private func compactSome() {
        guard !isStopped, !end.hasFailed else { return }
        let before = Clocks.instant()
        do throws(StorageError) {
            let isDone = try store.compactStep(budget: compactionBudget, in: .standard)
            let now = Clocks.instant(), took = now.since(before)
            if took > .milliseconds(2) {
                compactionBudget = max(64, compactionBudget / 2)
            } else if took < .microseconds(800) {
                compactionBudget = min(500, compactionBudget * 2)
            }
            figures.compaction.piece(took)
            if isDone {
                isCompacting = false
                figures.compaction.end(at: now)
                rewritingWantedUntil = now.advanced(by: .seconds(60))
                return
            }
        } catch {
            end.fail(HostFailure(error))
            return
        }
        loop.scheduleTask(in: .milliseconds(2)) { self.compactSome() }
    }

    // MARK: Events

    /// In etcd's words: people have alerts for them.
    static func note(_ slow: SlowCall, _ logger: Logger) {
        func text(_ span: TimeSpan) -> String { "\(Double(span.nanoseconds / 1_000) / 1_000)ms" }
        switch slow.kind {
        case .keys:
            logger.warning(
                "apply request took too long",
                metadata: [
                    "took": "\(text(slow.took))", "expected-duration": "\(text(slow.expected))",
                    "method": "\(slow.path)", "response size": "\(slow.answerBytes)",
                    "ok": "\(slow.isFine)",
                ])
        case .any:
            logger.warning(
                "request stats",
                metadata: [
                    "time spent": "\(text(slow.took))", "expected-duration": "\(text(slow.expected))",
                    "response type": "\(slow.path)", "response size": "\(slow.answerBytes)",
                    "ok": "\(slow.isFine)",
                ])
        }
    }

    /// Pure modules report; here reports become log lines and counters.
    func onEvent(_ event: NodeEvent) {
        figures.count(event)
        switch event {
        case .becameLeader(let group, let term):
            logger.info("became leader", metadata: ["group": "\(group)", "term": "\(term)"])
        case .lostLeadership(let group, let term):
            logger.info("lost leadership", metadata: ["group": "\(group)", "term": "\(term)"])
        case .sequencerOpened(let epoch, let frontier):
            logger.notice(
                "sequencer opened", metadata: ["epoch": "\(epoch)", "frontier": "\(frontier)"])
        case .sequencerClosed(let epoch):
            logger.notice("sequencer closed", metadata: ["epoch": "\(epoch)"])
        case .suspected(let node):
            logger.warning("suspected", metadata: ["peer": "\(node)"])
        case .trusted(let node): logger.info("trusted again", metadata: ["peer": "\(node)"])
        case .revisionVoid(let revision):
            logger.debug("revision is void", metadata: ["revision": "\(revision)"])
        case .answerRebuilt(let revision):
            logger.debug("answer rebuilt", metadata: ["revision": "\(revision)"])
        case .snapshotInstalled(let group, let slot):
            logger.notice(
                "snapshot installed", metadata: ["group": "\(group)", "applied": "\(slot)"])
        case .dropped(let group):
            logger.notice("a replica is let go of", metadata: ["group": "\(group)"])
            lookAtStoreRows()
        case .configured(let group, let configuration):
            logger.info(
                "configuration",
                metadata: [
                    "group": "\(group)", "number": "\(configuration.number)",
                    "voters": "\(configuration.voters)", "learners": "\(configuration.learners)",
                ])
            leaveIfRemoved()
            if self.configuration.isForcedAlone, !isAlone, !node.isBecomingAlone {
                isAlone = true
                logger.notice(
                    "this region is one node's now: leave out --force-new-cluster from the next start on")
            }
        case .gone(let group):
            logger.warning("removed", metadata: ["group": "\(group)"])
            leaveIfRemoved()
        case .membersChanged(let list): onMembers(list)
        case .splitIntended(let split):
            logger.info("a split begins", metadata: Host.metadata(split))
        case .divided(let split, let slot):
            var metadata = Host.metadata(split)
            metadata["slot"] = "\(slot)"
            logger.info("partition is split", metadata: metadata)
        case .splitPublished(let split):
            logger.notice("a split is done", metadata: Host.metadata(split))
        case .link(let region, let what):
            logger.debug("link", metadata: ["region": "\(region)", "event": "\(what)"])
        case .consensus(let group, let what):
            logger.debug("consensus", metadata: ["group": "\(group)", "event": "\(what)"])
        case .ignored(let what, let from):
            logger.debug("ignored", metadata: ["what": "\(what)", "from": "\(from)"])
        }
    }
}

extension Host {
    private static func metadata(_ split: PartitionSplit) -> Logger.Metadata {
        [
            "parent": "\(split.parent)", "child": "\(split.child)",
            "cut": "\(String(split.cut, radix: 16))",
        ]
    }
}
