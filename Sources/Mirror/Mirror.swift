package import EtcdAPI
package import FoundationEssentials
package import Primitives

package struct MirrorOptions: Sendable {
    /// Of keys; empty: all.
    package var prefix = Data()
    /// End when the destination is verified to be what the source is.
    package var cutsOver = false
    package var cutOverPatience = TimeSpan.seconds(600)
    /// The destination may hold other keys, which are removed.
    package var overwrites = false
    package var statePath = ""
    package var reportInterval = TimeSpan.seconds(10)
    /// How long a side may be silent.
    package var patience = TimeSpan.seconds(300)
    package var heldBytesMax = 32 << 20
    package init() {}
}

package struct MirrorReport: Equatable, Sendable {
    package enum Phase: String, Sendable { case copying, following, verifying, done }
    package var phase = Phase.copying
    package var keysCopied: Int64 = 0
    package var changesApplied: Int64 = 0
    /// Everything through it is at the destination (of the prefix).
    package var revision: Int64 = 0
    package var sourceRevision: Int64 = 0
    package var leases = 0
    /// Since when something has been waiting.
    package var lagSeconds = 0.0
    package var lagRevisions: Int64 { max(0, sourceRevision - revision) }
    package var note: String?
}

package struct MirrorOutcome: Equatable, Sendable {
    package var keys: Int64
    /// CRC-32C of keys and values, the same on both sides.
    package var hash: UInt32
    package var sourceRevision: Int64
    package var destinationRevision: Int64
}

/// One migration, from one task.
package final class Mirror {
    /// Without a write to the source, before it is taken for abandoned.
    private static let quiet = Duration.seconds(2)

    private let source: MirrorSide
    private let destination: MirrorSide
    private let options: MirrorOptions
    private let makeFeedClient: () -> EtcdClient
    private let report: (MirrorReport) -> Void
    private let leases: MirrorLeases
    private let writer: MirrorWriter

    private let first: Data
    private let end: Data
    private var state: MirrorState
    private var feed: MirrorFeed?
    private var feedFrom: Int64 = 0
    private var figures = MirrorReport()
    private var reportedAt = ContinuousClock.now
    private var askedAt = ContinuousClock.now
    /// Revisions of the source that were not at the destination when they were heard of.
    private var waiting: [(revision: Int64, since: ContinuousClock.Instant)] = []
    private var leasesLost = 0
    private var pages = PageSizer()

    /// `feedClient` makes clients that are used for one stream each.
    package init(
        source: [EtcdClient], destination: [EtcdClient], options: MirrorOptions,
        feedClient: @escaping () -> EtcdClient, report: @escaping (MirrorReport) -> Void
    ) {
        self.source = MirrorSide(name: "source", clients: source, patience: options.patience)
        self.destination = MirrorSide(
            name: "destination", clients: destination, patience: options.patience)
        self.options = options
        makeFeedClient = feedClient
        self.report = report
        leases = MirrorLeases(source: self.source, destination: self.destination)
        writer = MirrorWriter(destination: self.destination, leases: leases)
        first = options.prefix.isEmpty ? Data([0]) : options.prefix
        end = options.prefix.isEmpty ? Data([0]) : EtcdClient.prefixEnd(options.prefix)
        state = MirrorState(
            source: "", destination: "", prefix: options.prefix, revision: 0, copiedTo: nil,
            hasLeases: false)
    }

    /// Runs until it is cancelled, or until the cut-over, whose outcome it returns.
    package func run() async throws -> MirrorOutcome {
        defer { feed?.close() }
        try await begin()
        let deadline =
            ContinuousClock.now + .nanoseconds(Int64(clamping: options.cutOverPatience.nanoseconds))
        while true {
            try Task.checkCancellation()
            try await keepFeed()
            let applied = try await drain()
            if state.copiedTo != nil {
                try await copyPage()
            } else if !applied {
                try await Task.sleep(for: .milliseconds(20))
            }
            try await keepLeases()
            try await tick()
            if options.cutsOver, state.copiedTo == nil, isCaughtUp {
                if let outcome = try await cutOver() { return outcome }
                guard ContinuousClock.now < deadline else {
                    throw MirrorError.notVerified(
                        "the source is still written to (revision \(figures.sourceRevision)): stop its "
                            + "clients, then cut over again")
                }
                try await Task.sleep(for: .milliseconds(500))
            }
        }
    }

    // MARK: The beginning

    private func begin() async throws {
        let here = try await source.header(), there = try await destination.header()
        guard here.clusterID != there.clusterID else {
            throw MirrorError.refused("source and destination are the same cluster")
        }
        figures.sourceRevision = here.revision
        state.source = String(here.clusterID, radix: 16)
        state.destination = String(there.clusterID, radix: 16)
        if let kept = try MirrorState.read(options.statePath) {
            guard kept.source == state.source, kept.destination == state.destination,
                kept.prefix == state.prefix
            else {
                throw MirrorError.state(
                    "\(options.statePath) belongs to another mirror (\(kept.source) to "
                        + "\(kept.destination)): name another file")
            }
            state = kept
            if state.hasLeases { state.copiedTo = first }
            note("goes on after revision \(state.revision)")
        } else {
            let count = try await destination.count(from: first, end: end)
            guard count == 0 || options.overwrites else {
                throw MirrorError.notEmpty(
                    "the destination holds \(count) keys; with --overwrite it becomes what the source is")
            }
            restart(at: here.revision)
        }
        figures.revision = state.revision
    }

    /// Everything is to be compared, and changes count from here.
    private func restart(at revision: Int64) {
        state.revision = revision
        state.copiedTo = first
        feed?.close()
        feed = nil
    }

    // MARK: Changes

    private func keepFeed() async throws {
        if let feed {
            guard let end = feed.end else { return }
            feed.close()
            self.feed = nil
            switch end {
            case .compacted(let revision):
                note("the source has compacted through \(revision): all keys are compared again")
                restart(at: try await source.header().revision)
            case .broken(let why):
                note("the watch broke (\(why)): another one goes on")
                source.turn()
                try await Task.sleep(for: .milliseconds(200))
            }
        }
        feedFrom = state.revision + 1
        feed = MirrorFeed(
            makeFeedClient(), key: first, end: end, from: feedFrom,
            heldBytesMax: options.heldBytesMax)
    }

    /// Applies what has come, for a moment. False: nothing had.
    private func drain() async throws -> Bool {
        guard let feed else { return false }
        var any = false
        let until = ContinuousClock.now + .milliseconds(200)
        while ContinuousClock.now < until {
            let changes = feed.take(
                operationsMax: MirrorWriter.operationsMax, bytesMax: MirrorWriter.bytesMax)
            guard let last = changes.last else { break }
            any = true
            var operations: [MirrorOperation] = []
            for change in changes {
                figures.changesApplied += Int64(change.events.count)
                for event in change.events {
                    operations.append(event.type == .delete ? .delete(event.kv.key) : .put(event.kv))
                }
            }
            try await writer.apply(operations)
            state.revision = last.revision
            figures.revision = last.revision
        }
        return any
    }

    // MARK: Copying

    /// Makes one page of the destination what the source's is. Events older than the page come after it
    /// and may turn a key back; the events up to the page's revision follow.
    private func copyPage() async throws {
        guard let from = state.copiedTo else { return }
        let page = try await source.page(from: from, end: end, &pages)
        let next = page.more ? page.kvs.last.map { $0.key + [0] } : nil
        let there = try await destinationRows(from: from, end: next ?? end)
        // Also those whose keys are right already: somebody must keep them alive there.
        for lease in Set(page.kvs.map(\.lease)) where lease != 0 { _ = try await leases.ensure(lease) }
        try await writer.applyUnordered(Self.difference(source: page.kvs, destination: there))
        figures.keysCopied += Int64(page.kvs.count)
        state.copiedTo = next
        if next == nil { note("all keys are copied; following") }
    }

    private func destinationRows(from: Data, end: Data) async throws -> [Mvccpb_KeyValue] {
        var rows: [Mvccpb_KeyValue] = []
        var from = from
        while true {
            let page = try await destination.page(from: from, end: end, &pages)
            rows += page.kvs
            guard page.more, let last = page.kvs.last else { return rows }
            from = last.key + [0]
        }
    }

    static func difference(
        source: [Mvccpb_KeyValue], destination: [Mvccpb_KeyValue]
    ) -> [MirrorOperation] {
        var operations: [MirrorOperation] = []
        var there: [Data: Mvccpb_KeyValue] = [:]
        for row in destination { there[row.key] = row }
        for row in source {
            let other = there.removeValue(forKey: row.key)
            if other == nil || other?.value != row.value || other?.lease != row.lease {
                operations.append(.put(row))
            }
        }
        return operations + there.keys.sorted { Bytes($0) < Bytes($1) }.map { .delete($0) }
    }

    private func keepLeases() async throws {
        try await leases.keep()
        let lost = await leases.lost
        if lost > leasesLost {
            leasesLost = lost
            note("leases ran out at the destination: all keys are compared again")
            state.copiedTo = first
        }
    }

    // MARK: Cutting over

    private var isCaughtUp: Bool {
        feed?.waits == 0 && (!options.prefix.isEmpty || state.revision >= figures.sourceRevision)
    }

    /// nil: the source was written to meanwhile, or the two differ still.
    private func cutOver() async throws -> MirrorOutcome? {
        let before = try await source.header().revision
        figures.sourceRevision = before
        guard isCaughtUp else { return nil }
        figures.phase = .verifying
        note("comparing at the source's revision \(before)")
        defer { figures.phase = .following }
        let here = try await contents(of: source, revision: before)
        let there = try await contents(of: destination, revision: 0)
        try await leases.keep(all: true)
        // Clients that write seldom are clients, too.
        try await Task.sleep(for: Self.quiet)
        let after = try await source.header().revision
        figures.sourceRevision = after
        guard before == after, feed?.waits == 0, feed?.end == nil else {
            note("the source has been written to (revision \(after)); stop its clients")
            return nil
        }
        guard here.count == there.count, here.hash == there.hash else {
            note(
                "\(here.count) keys here, \(there.count) there, or other values: all are compared again")
            state.copiedTo = first
            return nil
        }
        state.revision = after
        try save()
        figures.phase = .done
        return MirrorOutcome(
            keys: here.count, hash: here.hash, sourceRevision: after,
            destinationRevision: there.revision)
    }

    private func contents(
        of side: MirrorSide, revision: Int64
    ) async throws -> (count: Int64, hash: UInt32, revision: Int64) {
        var count: Int64 = 0, hash: UInt32 = 0, seen: Int64 = 0
        var from = first
        var sizes = pages
        while true {
            let page = try await side.page(from: from, end: end, &sizes, revision: revision)
            seen = max(seen, page.header.revision)
            for row in page.kvs {
                count += 1
                var length = UInt64(row.key.count).littleEndian
                hash = withUnsafeBytes(of: &length) { CRC32C.checksum($0, seed: hash) }
                hash = row.key.withUnsafeBytes { CRC32C.checksum($0, seed: hash) }
                length = UInt64(row.value.count).littleEndian
                hash = withUnsafeBytes(of: &length) { CRC32C.checksum($0, seed: hash) }
                hash = row.value.withUnsafeBytes { CRC32C.checksum($0, seed: hash) }
            }
            guard page.more, let last = page.kvs.last else { return (count, hash, seen) }
            from = last.key + [0]
        }
    }

    // MARK: Reports

    /// Asks how far the source is, writes down how far this is, and tells.
    private func tick() async throws {
        let now = ContinuousClock.now
        guard now - askedAt >= .milliseconds(500) else { return }
        askedAt = now
        figures.sourceRevision = max(
            figures.sourceRevision, try await source.header().revision)
        waiting.removeAll { $0.revision <= state.revision }
        if isCaughtUp {
            waiting = []
        } else if waiting.count < 1000, figures.sourceRevision > waiting.last?.revision ?? 0 {
            waiting.append((figures.sourceRevision, now))
        }
        figures.leases = await leases.count
        state.hasLeases = state.hasLeases || figures.leases > 0
        try save()
        let interval = Duration.nanoseconds(Int64(clamping: options.reportInterval.nanoseconds))
        if now - reportedAt >= interval { tell() }
    }

    private func save() throws {
        if !options.statePath.isEmpty { try state.write(options.statePath) }
    }

    private func tell() {
        let now = ContinuousClock.now
        reportedAt = now
        if figures.phase != .verifying {
            figures.phase = state.copiedTo == nil ? .following : .copying
        }
        let behind = waiting.first { $0.revision > state.revision }.map { now - $0.since } ?? .zero
        figures.lagSeconds =
            Double(behind.components.seconds) + Double(behind.components.attoseconds) / 1e18
        report(figures)
    }

    private func note(_ text: String) {
        figures.note = text
        tell()
        figures.note = nil
    }
}
