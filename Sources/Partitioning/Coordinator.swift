package import Primitives

/// Runs transactions over several partitions for this node (protocol.md "A transaction over several
/// partitions"): lock, evaluate, revision, prepare; the frontier decides. Soft state: whatever is
/// lost with this node is finished or undone by the sequencer (protocol-rules.md L1, L2).
package struct Coordinator: Sendable {
    package let node: NodeID
    let boot: UInt64
    package var map: PartitionMap
    let limits: Limits
    private var nextSequence: UInt64 = 1
    private var running: [RequestName: Running] = [:]
    /// In order of arrival, so that no effect depends on a dictionary's order.
    private var order: [RequestName] = []
    private var epoch = Epoch.zero
    private var frontier = Revision.zero

    package struct Limits: Sendable {
        package var runningMax = 4096
        package var repeatAfter = TimeSpan.milliseconds(40)
        package var backOff = TimeSpan.milliseconds(2)
        package var backOffMax = TimeSpan.milliseconds(50)
        package init() {}
    }

    struct Running: Sendable {
        enum Phase: UInt8 { case backingOff, locking, confirming, allocating, preparing, waiting }
        let name: RequestName
        var id: RequestID
        let request: Request
        /// Nil: not a client's.
        var tag: RequestTag?
        let start: StartStamp
        let deadline: Instant
        /// Of the permissions that it was checked under.
        let fence: UInt64
        var participants: [PartitionID]
        /// Of a lease that ends: where it is thought to be known.
        var spread: [PartitionID] = []
        /// The map's age when the participants were found.
        var newest = PartitionID.directory
        var attempt: UInt32 = 1
        var phase = Phase.locking
        var locked: [PartitionID: Locked] = [:]
        var locks: [LockRequest] = []
        var evaluation = Evaluation(result: TransactionResult(succeeded: true, results: []))
        var failure: RequestError?
        var parts: [PartitionID: Effects] = [:]
        var conflicts: [Bytes] = []
        var cursor: ReplicationBatch.Cursor?
        var allocation: Allocation?
        var allocatedBy = Epoch.zero
        var prepared: Set<PartitionID> = []
        var repeatAt = Instant.zero
        var transaction: TransactionID { TransactionID(name: name, attempt: attempt) }

        struct Locked: Sendable {
            let term: Term
            let rows: LockedRows
        }
    }

    /// What conflict resolution makes of a batch and the rows held (GeoReplication; the node joins the
    /// two modules).
    package struct Resolved: Sendable {
        package var rows: [Row]
        package var conflicts: [Bytes]
        package var replacedStamp: Stamp
        package init(rows: [Row], conflicts: [Bytes], replacedStamp: Stamp) {
            self.rows = rows
            self.conflicts = conflicts
            self.replacedStamp = replacedStamp
        }
    }
    package typealias Resolver = (ReplicationBatch, [Row]) -> Resolved

    package init(node: NodeID, boot: UInt64, map: PartitionMap, limits: Limits = Limits()) {
        self.node = node
        self.boot = boot
        self.map = map
        self.limits = limits
    }

    package var count: Int { running.count }

    /// The partition that keeps the cursors of other regions' streams.
    package static func cursorHome(_ map: PartitionMap) -> PartitionID { map.entries[0].partition }

    // MARK: Start

    /// `spread`: for a revocation, the partitions that are thought to know the lease.
    package mutating func start(
        _ id: RequestID, _ request: Request, _ tag: RequestTag?, spread: [PartitionID] = [],
        deadline: Instant, fence: UInt64 = .max, at clock: ClockReading, leaders: [NodeID],
        into effects: inout RegionEffects
    ) {
        if let tag, tag.isRetry,
            let name = order.first(where: { running[$0]?.tag?.name == tag.name })
        {
            // It is under way: the answer goes to whoever asks now.
            running[name]?.id = id
            running[name]?.tag = tag
            return
        }
        guard running.count < limits.runningMax else {
            effects.answers.append((id, .failed(.tooManyRequests)))
            return
        }
        let name = RequestName(node: node, boot: boot, sequence: nextSequence)
        nextSequence += 1
        var transaction = Running(
            name: name, id: id, request: request, tag: tag,
            start: StartStamp(micros: clock.wallMicroseconds, name: name), deadline: deadline,
            fence: fence, participants: [])
        transaction.spread = spread
        running[name] = transaction
        order.append(name)
        lock(name, at: clock.instant, leaders: leaders, into: &effects)
    }

    private func participants(of request: Request, spread: [PartitionID]) -> [PartitionID] {
        var found: Set<PartitionID> = []
        switch request {
        case .transaction(let transaction):
            found.formUnion(map.participants(of: transaction))
            for lease in transaction.leases { found.insert(map.home(of: lease)) }
        case .leaseRevoke(let lease), .leaseExpire(let lease):
            found.insert(map.home(of: lease))
            // Where a partition has been split since, the lease may be known in both parts.
            found.formUnion(map.withDescendants(spread))
        case .replicate(let batch):
            found.insert(Self.cursorHome(map))
            for row in batch.changes { found.insert(map.partition(of: row.key)) }
        case .leaseGrant, .leaseKeepAlive, .leaseTimeToLive, .leaseList, .compact,
            .members, .auth, .split: break
        }
        return found.sorted()
    }

    // MARK: Locking

    private mutating func lock(
        _ name: RequestName, at now: Instant, leaders: [NodeID], into effects: inout RegionEffects
    ) {
        guard var t = running[name] else { return }
        if t.newest != map.newest {
            t.newest = map.newest
            t.participants = participants(of: t.request, spread: t.spread)
        }
        t.phase = .locking
        t.locked = [:]
        t.prepared = []
        t.parts = [:]
        t.allocation = nil
        t.failure = nil
        t.locks = lockRequests(t)
        t.repeatAt = now.advanced(by: limits.repeatAfter)
        running[name] = t
        for request in t.locks { send(request, leaders, into: &effects) }
        effects.wake(at: t.repeatAt)
    }

    private func send(
        _ request: LockRequest, _ leaders: [NodeID], into effects: inout RegionEffects
    ) {
        let leader = leaders[Int(request.partition.rawValue) - 1]
        if leader != .none { effects.send(.lock(request), to: leader) }
    }

    /// One a participant, in their order. The whole is looked at once and dealt out.
    private func lockRequests(_ t: Running) -> [LockRequest] {
        var requests = t.participants.map {
            LockRequest(
                transaction: t.transaction, start: t.start, partition: $0, footprint: Footprint(),
                plan: ReadPlan(), leasesEnding: [], cursorOf: nil)
        }
        for i in requests.indices { requests[i].newest = map.newestChild }
        if let tag = t.tag {
            // The first of the partitions that the request itself names is the gate of its attempts.
            let named = map.named(by: t.request)
            for i in requests.indices {
                let p = requests[i].partition
                let place = named.firstIndex(of: p)
                requests[i].tag = tag.part(
                    gate: place == 0 ? tag.gate : .zero,
                    after: place == nil || tag.after.isEmpty ? nil : after(tag, t.request, p))
            }
        }
        func place(of key: Bytes) -> Int? {
            let p = map.partition(of: key)
            return t.participants.firstIndex(of: p)
        }
        switch t.request {
        case .transaction(let transaction):
            let whole = Footprint(transaction)
            for read in whole.reads {
                if read.isSingle {
                    if let i = place(of: read.key) { requests[i].footprint.reads.append(read) }
                } else {
                    for i in requests.indices { requests[i].footprint.reads.append(read) }
                }
            }
            for write in whole.writes {
                if write.isSingle {
                    if let i = place(of: write.key) { requests[i].footprint.writes.append(write) }
                } else {
                    for i in requests.indices { requests[i].footprint.writes.append(write) }
                }
            }
            var plan = ReadPlan()
            plan.add(transaction)
            for key in plan.keys {
                if let i = place(of: key) { requests[i].plan.keys.append(key) }
            }
            for i in requests.indices {
                requests[i].footprint.sharedLeases = whole.sharedLeases
                requests[i].plan.ranges = plan.ranges
                // History is the same on every node: one participant reads it.
                if i == 0 { requests[i].plan.historic = plan.historic }
            }
        case .leaseRevoke(let lease), .leaseExpire(let lease):
            for i in requests.indices {
                if case .leaseExpire = t.request { requests[i].onlyExpired = true }
                requests[i].footprint.exclusiveLeases = [lease]
                requests[i].leasesEnding = [lease]
            }
        case .replicate(let batch):
            for row in batch.changes {
                guard let i = place(of: row.key) else { continue }
                requests[i].footprint.writes.append(KeyRange(key: row.key))
                requests[i].plan.keys.append(row.key)
            }
            if let i = t.participants.firstIndex(of: Self.cursorHome(map)) {
                requests[i].cursorOf = batch.origin
                // Batches of one stream follow one another: the cursor is what they write.
                requests[i].footprint.exclusiveLeases = [Self.cursorLatch(batch.origin)]
            }
        case .leaseGrant, .leaseKeepAlive, .leaseTimeToLive, .leaseList, .compact,
            .members, .auth, .split: break
        }
        return requests
    }

    /// Where the partition's log stood when the request was first sent. Before a split the parent's log
    /// was the child's.
    private func after(_ tag: RequestTag, _ request: Request, _ p: PartitionID) -> Slot? {
        let places = tag.places.isEmpty ? map.founding.named(by: request) : tag.places
        var p = p
        while true {
            if let i = places.firstIndex(of: p) { return i < tag.after.count ? tag.after[i] : nil }
            guard let parent = map.parent(of: p) else { return .zero }
            p = parent
        }
    }

    /// Latches know keys and leases; the cursor borrows the number of a lease that nobody can have.
    static func cursorLatch(_ region: RegionID) -> LeaseID {
        LeaseID(Int64.min + Int64(region.rawValue))
    }

    // MARK: Messages

    package mutating func step(
        _ message: RegionMessage, from sender: NodeID, at now: Instant, leaders: [NodeID],
        resolve: Resolver, into effects: inout RegionEffects
    ) {
        switch message {
        case .locked(let transaction, let p, let term, let rows):
            // In place: a copy held here would make each answer copy all the others.
            guard let i = place(transaction), running.values[i].phase == .locking else {
                effects.send(.release(transaction, p), to: sender)
                return
            }
            running.values[i].locked[p] = .init(term: term, rows: rows)
            if running.values[i].locked.count == running.values[i].participants.count {
                evaluate(
                    transaction.name, at: now, resolve: resolve, leaders: leaders, into: &effects)
            }
        case .died(let transaction, _):
            guard let t = current(transaction), t.phase < .preparing else { return }
            retry(t.name, at: now, leaders: leaders, into: &effects)
        case .overtaken(let transaction, _):
            guard let t = current(transaction), t.phase < .preparing else { return }
            release(t, leaders: leaders, into: &effects)
            effects.redirects.append(t.id)
            remove(t.name)
        case .executedBefore(let transaction, _, let revision):
            guard let t = current(transaction), t.phase < .preparing else { return }
            release(t, leaders: leaders, into: &effects)
            if let revision, revision > .zero {
                effects.executed.append((t.id, revision))
            } else {
                effects.answers.append((t.id, .failed(.timedOut)))
            }
            remove(t.name)
        case .allocatedTransaction(let e, let transaction, let allocation):
            guard let t = current(transaction) else {
                // It came too late: everything above would wait until the sequencer recovers it.
                if let allocation {
                    effects.send(
                        .abandon(e, transaction, allocation.revision, by: e), to: e.node)
                }
                return
            }
            guard e == epoch, t.phase == .allocating else { return }
            guard let allocation else {
                retry(t.name, at: now, leaders: leaders, into: &effects)
                return
            }
            prepare(t.name, allocation, at: now, into: &effects)
        case .confirmedTransaction(let e, let transaction, let frontier):
            guard e == epoch, let t = current(transaction), t.phase == .confirming else { return }
            guard let frontier else {
                retry(t.name, at: now, leaders: leaders, into: &effects)
                return
            }
            conclude(t.name, frontier, leaders: leaders, into: &effects)
        case .transactionFenced(let e, let transaction):
            guard e == epoch, let t = current(transaction),
                t.phase == .allocating || t.phase == .confirming
            else { return }
            release(t, leaders: leaders, into: &effects)
            effects.answers.append((t.id, .failed(.authChanged)))
            remove(t.name)
        case .prepared(let transaction, let p):
            guard let i = place(transaction), running.values[i].phase == .preparing else { return }
            running.values[i].prepared.insert(p)
            if running.values[i].prepared.count == running.values[i].parts.count {
                running.values[i].phase = .waiting
                answerIfCovered(transaction.name, into: &effects)
            }
        case .refused(let transaction, _):
            guard let t = current(transaction), t.phase == .preparing, let r = t.allocation else {
                return
            }
            // It may be prepared elsewhere: tried again only once the revision is known to be void.
            effects.send(
                .abandon(epoch, transaction, r.revision, by: t.allocatedBy), to: epoch.node)
        case .transactionVoid(_, let transaction, let revision):
            guard let t = current(transaction), t.phase == .preparing,
                t.allocation?.revision == revision
            else { return }
            retry(t.name, at: now, leaders: leaders, into: &effects)
        default: break
        }
    }

    private func current(_ transaction: TransactionID) -> Running? {
        place(transaction).map { running.values[$0] }
    }

    private func place(_ transaction: TransactionID) -> Dictionary<RequestName, Running>.Index? {
        guard let i = running.index(forKey: transaction.name),
            running.values[i].attempt == transaction.attempt,
            running.values[i].phase != .backingOff
        else { return nil }
        return i
    }

    // MARK: Evaluating

    private mutating func evaluate(
        _ name: RequestName, at now: Instant, resolve: Resolver, leaders: [NodeID],
        into effects: inout RegionEffects
    ) {
        guard var t = running[name] else { return }
        guard t.newest == map.newest || Mutation.oldMapsTrusted.isOn else {
            // A partition was split meanwhile: whose a row is would be decided by another map.
            retry(name, at: now, leaders: leaders, into: &effects)
            return
        }
        let rows = t.participants.flatMap { t.locked[$0]?.rows.rows ?? [] }
        var parts: [PartitionID: Effects] = [:]
        func part(_ p: PartitionID, _ change: (inout Effects) -> Void) {
            change(&parts[p, default: Effects(revision: .pending, epoch: epoch, stamp: .zero)])
        }
        switch t.request {
        case .transaction(let transaction):
            // Of the plan only the history is asked for here.
            var plan = ReadPlan()
            if transaction.readsHistory { plan.add(transaction) }
            let historic = t.participants.first.flatMap { t.locked[$0]?.rows.historic } ?? []
            let named = transaction.leases
            let alive =
                named.isEmpty ? [] : Set(t.locked.values.flatMap { $0.rows.leasesAlive + $0.rows.leasesKnown })
            do {
                t.evaluation = try Evaluator.evaluate(
                    transaction, on: RowTable(rows), plan: plan, historic: historic,
                    leaseIsAlive: alive.contains)
            } catch {
                t.failure = error
            }
            for row in t.failure == nil ? t.evaluation.effects : [] {
                let p = map.partition(of: row.key)
                part(p) { $0.rows.append(row) }
                let lease = row.lease, home = map.home(of: lease)
                // One that a put keeps is known there already, and its home takes no part.
                guard named.contains(lease), p != home,
                    t.locked[p]?.rows.leasesKnown.contains(lease) == false
                else { continue }
                // The first key with this lease there: from now on it is known (C4).
                part(p) { if !$0.leasesKnown.contains(lease) { $0.leasesKnown.append(lease) } }
                let spread = LeaseSpread(lease: lease, partition: p)
                part(home) { if !$0.leasesSpread.contains(spread) { $0.leasesSpread.append(spread) } }
            }
        case .leaseRevoke(let lease), .leaseExpire(let lease):
            let home = map.home(of: lease)
            let known = map.withDescendants(t.locked[home]?.rows.leaseSpread.map(\.partition) ?? [])
            if t.locked[home]?.rows.leasesAlive.contains(lease) != true {
                t.failure = .leaseNotFound
                break
            }
            if known.contains(where: { !t.participants.contains($0) }) {
                running[name]?.spread = known
                running[name]?.participants = Set(t.participants + known).sorted()
                retry(name, at: now, leaders: leaders, into: &effects)
                return
            }
            t.evaluation = Evaluation(result: TransactionResult(succeeded: true, results: []))
            for row in RowTable(rows).rows where row.lease == lease && !row.isDeletion {
                let deletion = row.deletion(sub: UInt32(t.evaluation.effects.count))
                t.evaluation.effects.append(deletion)
                t.evaluation.replacedStamp = max(t.evaluation.replacedStamp, row.origin.stamp)
                part(map.partition(of: row.key)) { $0.rows.append(deletion) }
            }
            for p in Set(known + [home]) { part(p) { $0.leasesEnded.append(lease) } }
        case .replicate(let batch):
            let cursorHome = Self.cursorHome(map)
            guard t.locked[cursorHome]?.rows.cursor == batch.from || Mutation.cursorNotCompared.isOn else {
                t.failure = .cursorMismatch
                break
            }
            let resolved = resolve(batch, rows)
            t.evaluation = Evaluation(
                result: TransactionResult(succeeded: true, results: []), effects: resolved.rows,
                replacedStamp: resolved.replacedStamp)
            for row in resolved.rows { part(map.partition(of: row.key)) { $0.rows.append(row) } }
            part(cursorHome) {
                $0.cursor = .init(region: batch.origin, revision: batch.through)
                $0.conflicts = resolved.conflicts
            }
        case .leaseGrant, .leaseKeepAlive, .leaseTimeToLive, .leaseList, .compact,
            .members, .auth, .split: break
        }
        t.parts = parts
        t.phase = parts.isEmpty ? .confirming : .allocating
        t.repeatAt = now.advanced(by: limits.repeatAfter)
        running[name] = t
        ask(t, into: &effects)
        effects.wake(at: t.repeatAt)
    }

    /// The question to the sequencer that the phase needs.
    private func ask(_ t: Running, into effects: inout RegionEffects) {
        guard epoch > .zero else { return }
        let participants = t.participants.map {
            Participant(
                partition: $0, term: t.locked[$0]?.term ?? .zero, writes: t.parts[$0] != nil,
                lapses: t.locked[$0]?.rows.lapses ?? 0)
        }
        if t.phase == .confirming {
            effects.send(
                .confirmTransaction(epoch, t.transaction, participants, fence: t.fence),
                to: epoch.node)
        } else {
            effects.send(
                .allocateTransaction(
                    epoch, t.transaction, participants, replaced: t.evaluation.replacedStamp,
                    fence: t.fence),
                to: epoch.node)
        }
    }

    /// Nothing was written: answered at a revision that covers what was read (S9).
    private mutating func conclude(
        _ name: RequestName, _ confirmed: Revision, leaders: [NodeID],
        into effects: inout RegionEffects
    ) {
        guard let t = running[name] else { return }
        release(t, leaders: leaders, into: &effects)
        let read = t.locked.values.flatMap { $0.rows.rows.map(\.modRevision) }.max() ?? .zero
        running[name]?.allocation = Allocation(revision: max(confirmed, read), stamp: .zero)
        running[name]?.phase = .waiting
        answerIfCovered(name, into: &effects)
    }

    // MARK: Preparing

    private mutating func prepare(
        _ name: RequestName, _ allocation: Allocation, at now: Instant,
        into effects: inout RegionEffects
    ) {
        guard var t = running[name] else { return }
        t.allocation = allocation
        t.allocatedBy = epoch
        t.phase = .preparing
        t.repeatAt = now.advanced(by: limits.repeatAfter)
        for (p, part) in t.parts {
            var e = Effects(
                revision: allocation.revision, epoch: epoch, stamp: allocation.stamp,
                rows: part.rows.map { $0.settled(at: allocation.revision, stamp: allocation.stamp) })
            e.leasesKnown = part.leasesKnown
            e.leasesSpread = part.leasesSpread
            e.leasesEnded = part.leasesEnded
            e.cursor = part.cursor
            e.conflicts = part.conflicts
            t.parts[p] = e
        }
        t.evaluation.result = t.evaluation.result.settled(
            at: allocation.revision, stamp: allocation.stamp)
        running[name] = t
        // Who only read is released: what it read is durable and its term was checked (C3).
        for p in t.participants where t.parts[p] == nil {
            if let term = t.locked[p]?.term { effects.send(.release(t.transaction, p), to: term.node) }
        }
        sendPrepares(t, into: &effects)
        effects.wake(at: t.repeatAt)
    }

    private func sendPrepares(_ t: Running, into effects: inout RegionEffects) {
        let writers = t.parts.keys.sorted()
        for p in writers where !t.prepared.contains(p) {
            guard let part = t.parts[p], let term = t.locked[p]?.term else { continue }
            effects.send(.prepare(t.transaction, p, term, participants: writers, part), to: term.node)
        }
    }

    // MARK: Ending

    private func release(_ t: Running, leaders: [NodeID], into effects: inout RegionEffects) {
        for p in t.participants {
            let node = t.locked[p]?.term.node ?? leaders[Int(p.rawValue) - 1]
            if node != .none { effects.send(.release(t.transaction, p), to: node) }
        }
    }

    /// Everything held is let go; the same start stamp tries again after a pause (L9).
    private mutating func retry(
        _ name: RequestName, at now: Instant, leaders: [NodeID], into effects: inout RegionEffects
    ) {
        guard var t = running[name] else { return }
        release(t, leaders: leaders, into: &effects)
        t.attempt += 1
        t.phase = .backingOff
        let pause = min(
            limits.backOffMax.nanoseconds,
            limits.backOff.nanoseconds * UInt64(min(t.attempt, 64)) + (t.name.sequence % 7) * 300_000)
        t.repeatAt = now.advanced(by: TimeSpan(nanoseconds: pause))
        running[name] = t
        effects.wake(at: t.repeatAt)
    }

    private mutating func answerIfCovered(
        _ name: RequestName, into effects: inout RegionEffects
    ) {
        guard let t = running[name], t.phase == .waiting, let r = t.allocation?.revision, r <= frontier
        else { return }
        effects.answers.append((t.id, response(t, r)))
        remove(name)
    }

    private func response(_ t: Running, _ revision: Revision) -> Response {
        if let failure = t.failure { return .failed(failure) }
        switch t.request {
        case .transaction: return .transaction(t.evaluation.result, revision: revision)
        case .leaseRevoke, .leaseExpire: return .leaseRevoked(revision: revision)
        case .replicate(let batch): return .replicated(cursor: batch.through)
        case .leaseGrant, .leaseKeepAlive, .leaseTimeToLive, .leaseList, .compact,
            .members, .auth, .split:
            return .failed(.timedOut)
        }
    }

    private mutating func remove(_ name: RequestName) {
        running[name] = nil
        if let i = order.firstIndex(of: name) { order.remove(at: i) }
    }

    // MARK: Frontier, epoch, time

    package mutating func onTimeline(
        _ epoch: Epoch, _ frontier: Revision, into effects: inout RegionEffects
    ) {
        self.epoch = max(self.epoch, epoch)
        guard frontier > self.frontier else { return }
        self.frontier = frontier
        for name in order where running[name]?.phase == .waiting {
            answerIfCovered(name, into: &effects)
        }
    }

    /// The caller lost interest: no answer; what holds latches is let go if nothing is logged yet.
    package mutating func cancel(
        _ id: RequestID, leaders: [NodeID], into effects: inout RegionEffects
    ) {
        guard let t = running.first(where: { $0.value.id == id })?.value, t.phase < .preparing else {
            return
        }
        release(t, leaders: leaders, into: &effects)
        remove(t.name)
    }

    package mutating func flush(
        at now: Instant, leaders: [NodeID], into effects: inout RegionEffects
    ) {
        guard !order.isEmpty else { return }
        for name in order {
            guard let t = running[name] else { continue }
            if now >= t.deadline {
                expire(t, leaders: leaders, into: &effects)
                continue
            }
            effects.wake(at: t.deadline)
            guard t.phase != .waiting else { continue }
            guard now >= t.repeatAt else {
                effects.wake(at: t.repeatAt)
                continue
            }
            let next = now.advanced(by: limits.repeatAfter)
            running[name]?.repeatAt = next
            effects.wake(at: next)
            switch t.phase {
            case .backingOff: lock(name, at: now, leaders: leaders, into: &effects)
            case .locking:
                for request in t.locks where t.locked[request.partition] == nil {
                    send(request, leaders, into: &effects)
                }
            case .confirming, .allocating: ask(t, into: &effects)
            case .preparing: sendPrepares(t, into: &effects)
            case .waiting: break
            }
        }
    }

    private mutating func expire(
        _ t: Running, leaders: [NodeID], into effects: inout RegionEffects
    ) {
        if t.phase < .preparing {
            release(t, leaders: leaders, into: &effects)
        } else if t.phase == .preparing, let r = t.allocation?.revision {
            effects.send(.abandon(epoch, t.transaction, r, by: t.allocatedBy), to: epoch.node)
        }
        effects.answers.append((t.id, .failed(.timedOut)))
        remove(t.name)
    }
}

extension Coordinator.Running.Phase: Comparable {
    static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
}
