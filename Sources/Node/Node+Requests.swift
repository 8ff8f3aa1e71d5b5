import Consensus
import DequeModule
import GeoReplication
import Partitioning
import Primitives

// Clients' requests: to the node that executes them, and back.
extension Node {
    mutating func onRequest(
        _ request: Request, token: UInt64, deadline: Instant, fence: UInt64,
        into effects: inout NodeEffects
    ) {
        guard waiting.count < configuration.limits.requestsMax else {
            effects.responses.append((token, .failed(.tooManyRequests)))
            return
        }
        if case .leaseList = request {
            // As in etcd, what this node knows: neither ordered with grants nor forwarded.
            effects.responses.append((token, .leases(leases, revision: revision)))
            return
        }
        if case .members(.place) = request, directory.members.level < FeatureLevel.placement {
            effects.responses.append((token, .failed(.regionTooOld)))
            return
        }
        if case .split = request, !mayTellOfSplits {
            effects.responses.append((token, .failed(.regionTooOld)))
            return
        }
        begin(token, request, until: deadline, fence: fence)
    }

    mutating func onCancel(_ token: UInt64, into effects: inout NodeEffects) {
        readsWanted.removeAll { $0.token == token }
        readsWaiting.removeAll { $0.token == token }
        held.removeAll { $0.token == token }
        guard let request = forget(token) else { return }
        switch request.place {
        case .parked: parked.removeAll { $0 == token }
        case .here: cancelHere(RequestID(node: node, token: token), request.request)
        case .at(let peer, let number):
            effects.sends.append((peer, .region(.cancelForward(token: number))))
        case .executed: break
        }
    }

    private mutating func forget(_ token: UInt64) -> Waiting? {
        guard let request = waiting.removeValue(forKey: token) else { return nil }
        if case .at(_, let number) = request.place { forwards[number] = nil }
        return request
    }

    /// The request that was sent to `peer` under this number, if it still waits there: an answer to an
    /// earlier attempt counts for nothing.
    func forwarded(_ number: UInt64, by peer: NodeID) -> UInt64? {
        guard let token = forwards[number],
            waiting[token]?.place == .at(peer, forward: number)
        else { return nil }
        return token
    }

    private mutating func cancelHere(_ id: RequestID, _ request: Request) {
        coordinator.cancel(id, leaders: leaders(), into: &region)
        for i in partitions.indices where partitions[i].isLeading { partitions[i].cancel(id) }
    }

    // MARK: Routing

    enum Route: Equatable {
        case partition(Int)
        /// The first so many are those that the request names.
        case several([PartitionID], named: Int)
        case directory
    }

    /// The partitions that a request names itself, in order. One, mostly: that needs no list.
    struct Named {
        let first: PartitionID?
        let list: [PartitionID]
        static func one(_ partition: PartitionID) -> Named { Named(first: partition, list: []) }
        private init(first: PartitionID?, list: [PartitionID]) {
            self.first = first
            self.list = list
        }
        init(_ list: [PartitionID]) { self.init(first: list.first, list: list) }
        var all: [PartitionID] { list.isEmpty ? first.map { [$0] } ?? [] : list }
    }

    func routeOf(_ request: Request) -> Route { routeOf(request, named: map.named(by: request)) }

    /// `named`: the partitions that the request names itself.
    private func routeOf(_ request: Request, named: [PartitionID]) -> Route {
        switch request {
        case .transaction(let transaction):
            var participants = named
            if transaction.namesLeases {
                let leases = Footprint(transaction).sharedLeases
                let only = participants.count == 1 ? participants.first : nil
                for lease in leases {
                    if let only, knows(only, lease) { continue }
                    let home = map.home(of: lease)
                    if !participants.contains(home) { participants.append(home) }
                }
            }
            if participants.count <= 1 { return .partition(index(participants.first)) }
            return .several(participants, named: named.count)
        case .leaseGrant(let lease, _), .leaseRevoke(let lease), .leaseExpire(let lease),
            .leaseKeepAlive(let lease), .leaseTimeToLive(let lease, _):
            return .partition(index(map.home(of: lease)))
        case .replicate(let batch):
            var participants = [Coordinator.cursorHome(map)]
            for row in batch.changes {
                let p = map.partition(of: row.key)
                if !participants.contains(p) { participants.append(p) }
            }
            return .several(participants, named: participants.count)
        case .compact, .auth, .members, .split: return .directory
        case .leaseList: return .partition(0)
        }
    }

    private func knows(_ p: PartitionID, _ lease: LeaseID) -> Bool {
        // Of what is not here its leader knows; who is asked instead, the lease's home, might know better than
        // this node, and send the request back without end.
        !isServed[index(p)] || partitions[index(p)].state.knownLeases.contains(lease)
            || partitions[index(p)].state.leases[lease] != nil
    }

    func index(_ p: PartitionID?) -> Int { p.map { Int($0.rawValue) - 1 } ?? 0 }

    /// The node that executes, as far as this node knows; `.none` while it does not.
    func target(_ route: Route) -> NodeID {
        switch route {
        case .partition(let i): return leader(of: i)
        case .directory:
            if sequencer != nil { return node }
            return epoch.node
        case .several(let all, let named):
            // Whoever leads most of them; the sequencer's node among equals (C2). Where rows lie elsewhere only
            // those count that the request names: a lease's home that does not serve the key takes it to be
            // known there, finds that it leads nothing of the request, and would send it back without end.
            let participants = isPartial && named > 0 ? Array(all.prefix(named)) : all
            let first = leader(of: index(participants.first))
            if participants.allSatisfy({ leader(of: index($0)) == first }) { return first }
            var votes: [NodeID: Int] = [:]
            for p in participants {
                let leader = leader(of: index(p))
                if leader == .none { return .none }
                votes[leader, default: 0] += 1
            }
            return votes.max {
                ($0.value, $0.key == epoch.node ? 1 : 0, $1.key.rawValue)
                    < ($1.value, $1.key == epoch.node ? 1 : 0, $0.key.rawValue)
            }?.key ?? .none
        }
    }

    mutating func route(_ token: UInt64) {
        guard var request = waiting[token], !isExecuted(request) else { return }
        route(token, request.request, &request)
        waiting[token] = request
    }

    /// `asked`: the request of `request`, which is not read from there, because each look at a field of
    /// what may change meanwhile copies it.
    mutating func route(_ token: UInt64, _ asked: Request, _ request: inout Waiting) {
        if case .transaction(let transaction) = asked, let key = transaction.onlyKey {
            let partition = map.partition(of: key)
            route(token, asked, &request, .one(partition), .partition(index(partition)))
        } else {
            let named = map.named(by: asked)
            route(token, asked, &request, Named(named), routeOf(asked, named: named))
        }
    }

    private mutating func route(
        _ token: UInt64, _ asked: Request, _ request: inout Waiting, _ named: Named, _ route: Route
    ) {
        let to = target(route)
        if to == .none || (to != node && detector.suspects(to)) {
            request.place = .parked
            parked.append(token)
            parkedUntil = min(parkedUntil, now.advanced(by: configuration.limits.rerouteAfter))
            return
        }
        if !request.wasSent { noteFirstSlots(&request, named) }
        request.newest = map.newest
        let attempt = nextForward
        nextForward &+= 1
        let tag = tag(token, asked, request, named, attempt: attempt)
        if to == node {
            request.place = .here
            execute(
                RequestID(node: node, token: token), asked, tag, route,
                deadline: request.deadline, fence: request.fence)
        } else {
            forwards[attempt] = token
            request.place = .at(to, forward: attempt)
            region.send(
                .forward(
                    token: attempt, asked, within: request.deadline.since(now),
                    fence: request.fence, tag),
                to: to)
        }
    }

    private mutating func execute(
        _ id: RequestID, _ request: Request, _ tag: RequestTag?, _ route: Route, deadline: Instant,
        fence: UInt64
    ) {
        if case .transaction(let transaction) = request, transaction.readsHistory {
            lookBack(id, request, tag, deadline: deadline, fence: fence)
            return
        }
        executeNow(id, request, tag, route, deadline: deadline, fence: fence)
    }

    /// Whether a named revision is of the past, and held by this node's replicas, is known only once
    /// the frontier has been asked for (S9).
    private mutating func lookBack(
        _ id: RequestID, _ request: Request, _ tag: RequestTag?, deadline: Instant, fence: UInt64
    ) {
        let token = nextInternal
        nextInternal += 1
        lookBacks[token] = LookBack(
            id: id, request: request, tag: tag, deadline: deadline, fence: fence)
        readsWanted.append((token, deadline))
    }

    mutating func onLookBack(_ back: LookBack, _ answer: Result<ReadPoint, RequestError>) {
        switch answer {
        case .failure(let error): region.answers.append((back.id, .failed(error)))
        case .success(let point):
            var request = back.request
            if case .transaction(var transaction) = request {
                // Whether it matters depends on the branch that is taken.
                transaction.forEachRange { query in
                    guard query.revision > .zero, query.refusal == nil else { return }
                    if query.revision > point.revision {
                        query.revision = RangeQuery.futureRevision
                    } else if query.revision < point.compactRevision {
                        query.revision = RangeQuery.compactedRevision
                    }
                }
                request = .transaction(transaction)
            }
            executeNow(
                back.id, request, back.tag, routeOf(request), deadline: back.deadline,
                fence: back.fence)
        }
    }

    private mutating func executeNow(
        _ id: RequestID, _ request: Request, _ tag: RequestTag?, _ route: Route, deadline: Instant,
        fence: UInt64
    ) {
        switch route {
        case .partition(let i):
            partitionDirty[i] = true
            partitions[i].request(
                id, request, tag, deadline: deadline, fence: fence, at: now, into: &region)
        case .several: coordinate(id, request, tag, deadline: deadline, fence: fence)
        case .directory:
            if let sequencer, fence < sequencer.authFence {
                region.answers.append((id, .failed(.authChanged)))
                return
            }
            if case .compact(let revision) = request {
                compact(id, revision, isRetry: tag?.isRetry ?? false)
            }
            if case .auth(let command, let by) = request { change(id, command, by: by) }
            if case .members(let request) = request {
                membership(id, request, deadline: deadline)
                membershipAt = now
            }
            if case .split(let partition, let cut) = request {
                guard splitRequests.count < 64 else {
                    region.answers.append((id, .failed(.tooManyRequests)))
                    return
                }
                splitRequests.append(
                    SplitRequest(id: id, partition: partition, cut: cut, deadline: deadline))
            }
        }
    }

    mutating func coordinate(
        _ id: RequestID, _ request: Request, _ tag: RequestTag?, deadline: Instant, fence: UInt64
    ) {
        var spread: [PartitionID] = []
        switch request {
        case .leaseRevoke(let lease), .leaseExpire(let lease):
            spread = partitions[index(map.home(of: lease))].state.leases[lease]?.known ?? []
        case .transaction, .leaseGrant, .leaseKeepAlive, .leaseTimeToLive, .leaseList, .compact,
            .members, .replicate, .auth, .split:
            break
        }
        coordinator.start(
            id, request, tag, spread: spread, deadline: deadline, fence: fence, at: clock,
            leaders: leaders(), into: &region)
    }

    mutating func onForward(
        _ id: RequestID, _ request: Request, _ tag: RequestTag?, within: TimeSpan, fence: UInt64
    ) {
        // A repetition, perhaps of one that is long done: once is enough.
        let name = tag?.name ?? RequestName(node: id.node, boot: .max, sequence: id.token)
        guard seenForwards.insert(name, attempt: tag?.attempt ?? 0) || Mutation.forwardsRepeated.isOn
        else { return }
        if case .leaseList = request {
            region.send(.forwarded(token: id.token, .leases(leases, revision: revision)), to: id.node)
            return
        }
        guard remote.count < configuration.limits.requestsMax else {
            region.send(.forwarded(token: id.token, .failed(.tooManyRequests)), to: id.node)
            return
        }
        let route = routeOf(request)
        let deadline = now.advanced(by: within)
        switch route {
        case .partition(let i) where !partitions[i].isLeading:
            arrive(
                i + 1,
                Arrival(id: id, request: request, tag: tag, deadline: deadline, fence: fence))
        case .directory where sequencer == nil:
            arrive(
                0,
                Arrival(id: id, request: request, tag: tag, deadline: deadline, fence: fence))
        case .partition, .several, .directory:
            remote[id] = deadline
            execute(id, request, tag, route, deadline: deadline, fence: fence)
        }
    }

    /// The client's node has heard of this leadership before its `begin` is decided here.
    private mutating func arrive(_ i: Int, _ arrival: Arrival) {
        if groups[i].term != nil, !groups[i].isLeading {
            remote[arrival.id] = arrival.deadline
            arrivals[i, default: []].append(arrival)
        } else {
            region.send(.redirect(token: arrival.id.token, isCertain: true), to: arrival.id.node)
        }
    }

    mutating func admitArrivals(_ i: Int) {
        for arrival in arrivals.removeValue(forKey: i) ?? [] where remote[arrival.id] != nil {
            let route = routeOf(arrival.request)
            execute(
                arrival.id, arrival.request, arrival.tag, route, deadline: arrival.deadline,
                fence: arrival.fence)
        }
    }

    mutating func refuseArrivals(_ i: Int) {
        for arrival in arrivals.removeValue(forKey: i) ?? [] { region.redirects.append(arrival.id) }
    }

    mutating func cancelRemote(_ id: RequestID) {
        guard remote.removeValue(forKey: id) != nil else { return }
        coordinator.cancel(id, leaders: leaders(), into: &region)
        for i in partitions.indices where partitions[i].isLeading { partitions[i].cancel(id) }
    }

    // MARK: Answers

    mutating func drainAnswers(into effects: inout NodeEffects) {
        let answers = region.answers.exchange(for: &spares.answers)
        for (id, response) in answers {
            if id.node == node {
                finish(id.token, response, into: &effects)
            } else if remote.removeValue(forKey: id) != nil {
                region.send(.forwarded(token: id.token, response), to: id.node)
                switch response {
                case .leaseGranted, .leaseRevoked: announceLeases(to: id.node)
                default: break
                }
            }
        }
        spares.answers.recycle(consume answers)
        let redirects = region.redirects
        region.redirects.removeAll(keepingCapacity: true)
        for id in redirects { sendBack(id, isCertain: true) }
        let abandoned = region.abandoned
        region.abandoned.removeAll(keepingCapacity: true)
        for id in abandoned { sendBack(id, isCertain: false) }
        let executed = region.executed
        region.executed.removeAll(keepingCapacity: true)
        for (id, revision) in executed {
            if id.node == node {
                rebuild(id.token, revision, into: &effects)
            } else if remote.removeValue(forKey: id) != nil {
                region.send(.executed(token: id.token, revision), to: id.node)
            }
        }
    }

    private mutating func sendBack(_ id: RequestID, isCertain: Bool) {
        if id.node == node {
            // One that has gone elsewhere since is not concerned.
            if waiting[id.token]?.place == .here { reroute(id.token, isCertain: isCertain) }
        } else if remote.removeValue(forKey: id) != nil {
            region.send(.redirect(token: id.token, isCertain: isCertain), to: id.node)
        }
    }

    mutating func finish(_ token: UInt64, _ response: Response, into effects: inout NodeEffects) {
        guard let asked = forget(token) else { return }
        if !internalTokens.isEmpty, let request = internalTokens.removeValue(forKey: token) {
            finishInternal(request, response, into: &effects)
            return
        }
        noteCompaction(asked.request, response)
        let end = endOfLease(asked.request, response)
        guard let revision = response.revision, revision > localFrontier || !isSeen(end) else {
            effects.responses.append((token, response))
            return
        }
        // A read on this node after the answer must show it (S19); a node that lags is not waited for
        // long.
        held.append(
            Held(
                token: token, response: response, revision: revision, lease: end,
                until: now.advanced(by: .milliseconds(50))))
    }

    /// Whoever is told of a compaction finds no history below it on the node that told: as on a member of
    /// etcd, which has applied what it answers. The entry may not have come by here yet.
    private mutating func noteCompaction(_ request: Request, _ response: Response) {
        guard case .compact(let revision) = request, case .compacted = response else { return }
        compactRevision = max(compactRevision, revision)
    }

    mutating func releaseHeld(into effects: inout NodeEffects) {
        guard !held.isEmpty else { return }
        var kept: [Held] = []
        for h in held {
            if (h.revision <= localFrontier && isSeen(h.lease)) || h.until <= now {
                effects.responses.append((h.token, h.response))
            } else {
                kept.append(h)
            }
        }
        held = kept
    }

    /// Grants and revocations take no revision, and yet a list of leases that this node gives after its
    /// answer must know of them.
    private func endOfLease(_ request: Request, _ response: Response) -> LeaseChange? {
        switch request {
        case .leaseGrant(let lease, _):
            if case .leaseGranted = response { return LeaseChange(lease: lease, isGrant: true) }
        case .leaseRevoke(let lease):
            if case .leaseRevoked = response { return LeaseChange(lease: lease, isGrant: false) }
        default: break
        }
        return nil
    }

    /// No frontier brings it, and the node that is answered holds the answer until it has come by there.
    private mutating func announceLeases(to node: NodeID) {
        for i in groups.indices {
            let isNews = groups[i].announce(to: node)
            if isNews { touched[i] = true }
        }
    }

    private func isSeen(_ change: LeaseChange?) -> Bool {
        guard let change else { return true }
        let home = index(map.home(of: change.lease))
        return (partitions[home].state.leases[change.lease] != nil) == change.isGrant
    }

    mutating func wakeRequests(into effects: inout NodeEffects) {
        proposeWaiting(into: &effects)
        if now >= parkedUntil {
            parkedUntil = .never
            let tokens = parked
            parked.removeAll(keepingCapacity: true)
            for token in tokens where waiting[token]?.place == .parked { route(token) }
        }
        releaseHeld(into: &effects)
        guard now >= sweepAt else { return }
        sweepAt = now.advanced(by: .milliseconds(50))
        if readsPending { expireReads(into: &effects) }
        let now = now
        for token in waiting.tokens(where: { $0.deadline <= now }) {
            if waiting[token]?.place == .parked {
                parked.removeAll { $0 == token }
                let error: RequestError = waiting[token]?.isUncertain == true ? .timedOut : .noLeader
                finish(token, .failed(error), into: &effects)
            } else {
                finish(token, .failed(.timedOut), into: &effects)
            }
        }
        remote = remote.filter { $0.value.advanced(by: .seconds(1)) > now }
    }

    mutating func lostTouch(with peer: NodeID, into effects: inout NodeEffects) {
        giveUp(at: peer)
        for id in remote.keys.filter({ $0.node == peer }).sorted() { cancelRemote(id) }
        if epoch.node == peer { askReadsAt = now }
    }

    // MARK: Leases

    mutating func answerLeaseReadings() {
        // The keys of other partitions are those of this node's replicas: read once they have all that
        // was answered before the lease's home was asked.
        leaseReadings.append(contentsOf: region.leaseReadings)
        region.leaseReadings.removeAll(keepingCapacity: true)
        let readings = leaseReadings
        leaseReadings.removeAll(keepingCapacity: true)
        for reading in readings {
            guard reading.revision <= localFrontier else {
                leaseReadings.append(reading)
                continue
            }
            if servedRanges == nil {
                answer(reading, keys: keys(of: reading.lease))
                continue
            }
            leaseReadsAsked[nextLeaseRead] = reading
            leaseReadsWanted.append((nextLeaseRead, reading.lease, localFrontier))
            nextLeaseRead += 1
        }
    }

    mutating func answer(_ reading: RegionEffects.LeaseReading, keys: [Bytes]) {
        region.answers.append(
            (
                reading.id,
                .leaseTimeToLive(
                    reading.lease, grantedSeconds: reading.grantedSeconds,
                    remainingSeconds: reading.remainingSeconds, keys: keys.sorted(),
                    revision: reading.revision)
            ))
    }

    mutating func expire(_ lease: LeaseID) {
        submit(.leaseExpire(lease), .expiry(lease), within: .seconds(5))
    }

    mutating func submit(_ request: Request, _ what: InternalRequest, within: TimeSpan) {
        let token = nextInternal
        nextInternal += 1
        internalTokens[token] = what
        begin(token, request, until: now.advanced(by: within))
    }

    private mutating func finishInternal(
        _ request: InternalRequest, _ response: Response, into effects: inout NodeEffects
    ) {
        switch request {
        case .expiry:
            // If it still stands, the lease's clock asks again.
            if case .leaseRevoked = response { leasesExpiredTotal &+= 1 }
        case .replicate(let region):
            stepReceiver(region, .applied(response), into: &effects)
        }
    }
}

extension Response {
    /// The revision that the answer tells of, if it tells one.
    var revision: Revision? {
        switch self {
        case .transaction(_, let r), .leaseGranted(_, _, let r), .leaseRevoked(let r),
            .leaseKeptAlive(_, _, let r), .leaseTimeToLive(_, _, _, _, let r), .leases(_, let r),
            .compacted(let r), .auth(_, let r):
            r
        case .replicated, .members, .split, .failed: nil
        }
    }
}
