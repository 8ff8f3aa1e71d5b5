import Consensus
import Partitioning
import Primitives

// At most once, however often it is sent (protocol-rules.md S16): a request keeps its name through every
// attempt; one that was carried out while its answer was lost with a leader is answered from this
// node's own history.
extension Node {
    // MARK: Names

    func isExecuted(_ request: Waiting) -> Bool {
        if case .executed = request.place { return true }
        return false
    }

    func noteFirstSlots(_ waiting: inout Waiting, _ named: Named) {
        waiting.wasSent = true
        waiting.firstPlace = named.first ?? .directory
        waiting.firstSlot = logPosition(index(named.first))
        if named.list.count > 1 {
            waiting.moreSlots = named.list.dropFirst().map {
                (place: $0, slot: logPosition(index($0)))
            }
        }
    }

    /// Where the partition's log stood when the request was first sent. One that a split has cut off
    /// since goes on from its parent's.
    private func firstSlot(_ request: Waiting, in partition: PartitionID) -> Slot {
        var partition = partition
        while true {
            if partition == request.firstPlace { return request.firstSlot }
            if let more = request.moreSlots.first(where: { $0.place == partition }) { return more.slot }
            guard let parent = map.parent(of: partition) else { return .zero }
            partition = parent
        }
    }

    /// Requests that are repeated by others, or harmless when repeated, have no name. The first of the
    /// partitions that one names itself is the one whose leader guards its attempts.
    mutating func tag(
        _ token: UInt64, _ asked: Request, _ waiting: Waiting, _ named: Named, attempt: UInt64
    ) -> RequestTag? {
        guard internalTokens.isEmpty || internalTokens[token] == nil else { return nil }
        switch asked {
        case .transaction, .leaseGrant, .leaseRevoke, .compact: break
        case .leaseExpire, .leaseKeepAlive, .leaseTimeToLive, .leaseList, .replicate, .auth,
            .members, .split:
            return nil
        }
        var tag = RequestTag(
            name: RequestName(node: node, boot: configuration.boot, sequence: waiting.sequence),
            attempt: attempt, mark: lowestOpenSequence(),
            gate: gate(index(named.first)))
        if waiting.isUncertain {
            let places = named.all
            tag.after = places.isEmpty ? [waiting.firstSlot] : places.map { firstSlot(waiting, in: $0) }
            if map.newestChild != .directory { tag.places = places }
        }
        return tag
    }

    mutating func lowestOpenSequence() -> UInt64 {
        while let first = openRequests.first, waiting.sequence(first.token) != first.sequence {
            openRequests.removeFirst()
        }
        return openRequests.first?.sequence ?? nextSequence
    }

    /// Sent where it belongs, and waited for. It counts as open only from here on, which its own mark
    /// need not know: the lowest open sequence is then its own, the next.
    mutating func begin(
        _ token: UInt64, _ request: Request, until deadline: Instant, fence: UInt64 = .max
    ) {
        var new = Waiting(
            request: request, deadline: deadline, fence: fence, sequence: nextSequence)
        route(token, request, &new)
        waiting.insert(new, for: token)
        openRequests.append((nextSequence, token))
        nextSequence += 1
    }

    // MARK: Once more

    /// `isCertain`: not executed there and never will be. Once more, after a pause in which leaders
    /// become known; at once if another one is known by now.
    mutating func reroute(_ token: UInt64, isCertain: Bool) {
        guard let request = waiting[token] else { return }
        var from = node
        switch request.place {
        case .at(let peer, let number):
            forwards[number] = nil
            from = peer
        case .here: break
        case .parked, .executed: return
        }
        if !isCertain {
            if request.request.isAskedOnce {
                // It has no name: a second time could be answered differently.
                region.answers.append((RequestID(node: node, token: token), .failed(.timedOut)))
                return
            }
            waiting[token]?.isUncertain = true
        }
        waiting[token]?.place = .parked
        parked.append(token)
        let to = target(routeOf(request.request))
        let isElsewhere = to != from || request.newest != map.newest
        let isKnown = to != .none && isElsewhere && !detector.suspects(to)
        parkedUntil = min(
            parkedUntil, isKnown ? now : now.advanced(by: configuration.limits.rerouteAfter))
    }

    /// What waits at that node may or may not have happened there; its logs' next leaders know.
    mutating func giveUp(at peer: NodeID) {
        for token in waiting.tokens {
            guard case .at(peer, _) = waiting[token]?.place else { continue }
            reroute(token, isCertain: false)
        }
    }

    /// The group has a new leader: what was sent to another for an older leadership has no future there.
    mutating func giveUp(_ i: Int, unlessAt leader: NodeID) {
        guard i > 0 else { return }
        for token in waiting.tokens {
            guard let request = waiting[token], case .at(let peer, _) = request.place,
                peer != leader, routeOf(request.request) == .partition(i - 1)
            else { continue }
            reroute(token, isCertain: false)
        }
    }

    // MARK: Answers that were lost

    mutating func rebuild(_ token: UInt64, _ revision: Revision, into effects: inout NodeEffects) {
        guard let request = waiting[token] else { return }
        switch request.place {
        case .at(_, let number): forwards[number] = nil
        case .here: break
        case .parked, .executed: return
        }
        waiting[token]?.place = .executed(revision)
        if revision <= localFrontier {
            startRebuild(token, revision, into: &effects)
        } else {
            rebuildsWaiting.append((token, revision))
        }
    }

    /// The frontier has reached more of them.
    mutating func startRebuilds(into effects: inout NodeEffects) {
        if rebuildsWaiting.isEmpty { return }
        let localFrontier = localFrontier
        let due = rebuildsWaiting.filter { $0.revision <= localFrontier }
        rebuildsWaiting.removeAll { $0.revision <= localFrontier }
        for (token, revision) in due { startRebuild(token, revision, into: &effects) }
    }

    private mutating func startRebuild(
        _ token: UInt64, _ revision: Revision, into effects: inout NodeEffects
    ) {
        guard let request = waiting[token]?.request else { return }
        switch request {
        case .transaction(let transaction):
            let number = nextRebuild
            nextRebuild += 1
            rebuilds[number] = (token, revision)
            var plan = ReadPlan()
            let own = Self.plan(transaction)
            let before = revision.previous
            plan.historic = own.keys.map { RangeQuery(range: KeyRange(key: $0), revision: before) }
                + own.ranges.map { RangeQuery(range: $0, revision: before) } + own.historic
            effects.reads.append(
                ReadRequest(token: number, group: groups[1].id, range: map.entries[0].range, plan: plan))
        case .leaseRevoke: finish(token, .leaseRevoked(revision: revision), into: &effects)
        case .leaseGrant, .leaseExpire, .leaseKeepAlive, .leaseTimeToLive, .leaseList, .compact,
            .replicate, .auth, .members, .split:
            finish(token, .failed(.timedOut), into: &effects)
        }
    }

    private static func plan(_ transaction: Transaction) -> ReadPlan {
        var plan = ReadPlan()
        plan.add(transaction)
        return plan
    }

    mutating func finishRebuild(
        _ number: UInt64, _ answer: ReadAnswer, into effects: inout NodeEffects
    ) {
        guard let rebuild = rebuilds.removeValue(forKey: number),
            case .transaction(let transaction) = waiting[rebuild.token]?.request
        else { return }
        let plan = Self.plan(transaction)
        let count = plan.keys.count + plan.ranges.count
        // A range may hold what a key names as well.
        var rows: [Bytes: Row] = [:]
        for read in answer.historic.prefix(count) {
            switch read {
            case .result(let result): for row in result.rows { rows[row.key] = row }
            case .failed:
                // That history is compacted: it was done, but nobody can say any more what it answers.
                finish(rebuild.token, .failed(.timedOut), into: &effects)
                return
            }
        }
        do {
            let evaluation = try Evaluator.evaluate(
                transaction, on: RowTable(rows.values.sorted { $0.key < $1.key }), plan: plan,
                historic: Array(answer.historic.dropFirst(count)), leaseIsAlive: { _ in true })
            let result = evaluation.result.settled(at: rebuild.revision, stamp: .zero)
            effects.events.append(.answerRebuilt(rebuild.revision))
            finish(rebuild.token, .transaction(result, revision: rebuild.revision), into: &effects)
        } catch {
            finish(rebuild.token, .failed(.timedOut), into: &effects)
        }
    }
}

extension Request {
    /// Without a name, and not the same when it is done twice.
    fileprivate var isAskedOnce: Bool {
        switch self {
        case .auth, .split, .members(.add), .members(.remove), .members(.update), .members(.promote),
            .members(.place): true
        case .members(.list), .members(.publish), .members(.admit), .members(.drain), .transaction, .leaseGrant,
            .leaseRevoke, .leaseExpire, .leaseKeepAlive, .leaseTimeToLive, .leaseList, .compact,
            .replicate:
            false
        }
    }
}
