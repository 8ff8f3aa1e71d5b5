import EtcdAPI
import EtcdFacade
import Consensus
import GeoReplication
import Logging
import Node
import Partitioning
import Primitives
import Storage
import Transport

/// What the facade asks of its node. Everything on the loop.
extension Host: NodeAccess {
    func submit(_ request: Request, deadline: Instant, token: UInt64) {
        if alarms.isCorrupt, request.changesData {
            facade?.onResponse(.failed(.corrupt), token: token)
            return
        }
        if request.needsSpace, !admitsGrowth(of: request) {
            facade?.onResponse(.failed(.noSpace), token: token)
            return
        }
        if case .leaseList = request {
            // Every node knows the leases of the partitions that it replicates: a read, not a request.
            leaseLists.insert(token)
            enqueue(.readIndex(linearizable: true, token: token, deadline: deadline))
            return
        }
        enqueue(.request(request, token: token, deadline: deadline, fence: fence))
    }

    var authState: AuthState { node.authState }
    func keys(of lease: LeaseID) -> [Bytes]? {
        guard isPartial else { return node.keys(of: lease) }
        let now = Clocks.instant()
        leaseKeysAt = leaseKeysAt.filter { $0.value.until > now }
        let at = leaseKeysAt[lease]?.revision ?? node.revision
        leaseKeysAt[lease] = (at, leaseKeysAt[lease]?.until ?? now.advanced(by: .seconds(2)))
        guard let others = try? remoteKeys(of: lease, at: at) else { return nil }
        return node.servedKeys(of: lease) + others
    }

    /// True: the read index was for a list of leases, which has been answered.
    func answerLeaseList(_ answer: Result<ReadPoint, RequestError>, token: UInt64) -> Bool {
        guard !leaseLists.isEmpty, leaseLists.remove(token) != nil else { return false }
        switch answer {
        case .success(let point): listLeases(at: point.revision, token: token, until: now.advanced(by: .seconds(5)))
        case .failure(let error): facade?.onResponse(.failed(error), token: token)
        }
        return true
    }

    private func listLeases(at revision: Revision, token: UInt64, until deadline: Instant) {
        guard isPartial else {
            facade?.onResponse(.leases(node.leases, revision: revision), token: token)
            return
        }
        do throws(RequestError) {
            facade?.onResponse(.leases(try leasesAll(at: revision), revision: revision), token: token)
        } catch {
            guard error == .elsewhere, now < deadline else {
                facade?.onResponse(.failed(error == .elsewhere ? .timedOut : error), token: token)
                return
            }
            whenFetched { [weak self] in self?.listLeases(at: revision, token: token, until: deadline) }
        }
    }

    func readIndex(linearizable: Bool, deadline: Instant, token: UInt64) {
        enqueue(.readIndex(linearizable: linearizable, token: token, deadline: deadline))
    }

    /// Between turns the core's state is whole, and so is the store's.
    func readIndexNow(linearizable: Bool) -> ReadIndex? {
        guard !isInTurn, let point = node.readPoint(linearizable: linearizable, at: Clocks.instant())
        else { return nil }
        return ReadIndex(revision: point.revision, compactRevision: point.compactRevision)
    }

    func cancel(token: UInt64) {
        leaseLists.remove(token)
        leaderMoves.removeAll { $0.token == token }
        enqueue(.cancel(token: token))
    }

    // MARK: The store

    func range(_ query: RangeQuery, at revision: Revision) throws(RequestError) -> RangeResult {
        if isPartial { return try rangeAll(query, at: revision, countsAll: true) }
        return try store.range(query, at: revision, in: .standard)
    }

    func part(
        _ query: RangeQuery, at revision: Revision, maxBytes: Int
    ) throws(RequestError) -> RangeResult {
        if isPartial { return try rangeAll(query, at: revision, countsAll: false, maxBytes: maxBytes) }
        return try store.range(query, at: revision, in: .standard, countsAll: false, maxBytes: maxBytes)
    }

    /// Where the rows are others' too, those count for themselves: it is known as soon as they have.
    func knownCount(_ range: KeyRange, at revision: Revision) throws(RequestError) -> Int64? {
        if isPartial { return try countAll(range, at: revision) }
        return try store.knownCount(range, at: revision, in: .standard)
    }

    func willCount(_ range: KeyRange, at revision: Revision) throws(RequestError) {
        if !isPartial { try store.willCount(range, at: revision, in: .standard) }
    }

    func counted(_ range: KeyRange, at revision: Revision, count: Int64) {
        if !isPartial { store.counted(range, at: revision, in: .standard, count: count) }
    }

    func turned(_ range: KeyRange, at revision: Revision, rows: Int64, last: Bytes) {
        if !isPartial { store.turned(range, at: revision, in: .standard, rows: rows, last: last) }
    }

    func visit(
        _ range: KeyRange, at revision: Revision, _ visit: (RowView) -> Bool
    ) throws(RequestError) -> Bytes? {
        if isPartial {
            return try visitAll(range, at: revision, limit: .max, keysOnly: false, visit)
        }
        try store.visit(range, at: revision, in: .standard, visit)
        return nil
    }

    func row(_ key: Bytes, at revision: Revision) throws(RequestError) -> Row? {
        if isPartial { return try rowAnywhere(key, at: revision) }
        return try store.row(key, at: revision, in: .standard)
    }

    func changes(
        after: Revision, through: Revision, maxRows: Int, maxBytes: Int
    ) throws(RequestError) -> [RevisionChanges] {
        try changesPage(after: after, through: through, maxRows: maxRows, maxBytes: maxBytes).changes
    }

    func changesPage(
        after: Revision, through: Revision, maxRows: Int, maxBytes: Int
    ) throws(RequestError) -> (changes: [RevisionChanges], through: Revision) {
        if isPartial {
            return try changesAll(after: after, through: through, maxRows: maxRows, maxBytes: maxBytes)
        }
        let page = try store.changes(
            after: after, through: through, in: .standard, maxRows: maxRows, maxBytes: maxBytes)
        return (page.changes, page.through)
    }

    func conflicts(limit: Int) -> [ConflictReport] {
        var found: [ConflictReport] = []
        for entry in node.map.entries {
            let group = GroupID(keyspace: .standard, partition: entry.partition)
            guard let records = try? store.records(of: group) else { continue }
            for record in records where record.key.starts(with: PartitionState.conflictPrefix) {
                guard let conflict = try? ConflictRecord(decoding: record.value) else { continue }
                found.append(ConflictReport(conflict, here: configuration.regionID))
            }
        }
        found.sort { max($0.winner.stamp, $0.loser.stamp) > max($1.winner.stamp, $1.loser.stamp) }
        return Array(found.prefix(limit))
    }

    // MARK: The picture

    var now: Instant { Clocks.instant() }
    var compactRevision: Revision { node.compactedThrough }

    func randomLeaseID() -> LeaseID { LeaseID(Int64.random(in: 1...Int64.max)) }

    var status: NodeStatus {
        let now = Clocks.read()
        var status = NodeStatus()
        status.clusterID = configuration.clusterID
        status.memberID = memberID(of: identity.node)
        status.name = configuration.nodeName
        status.region = configuration.regionName
        status.members = memberStatus
        status.isLearner = listed(identity.node)?.isLearner ?? false
        status.featureLevel = members.level
        status.partitions = node.partitionStatus.map {
            NodeStatus.Partition(
                id: $0.id, range: $0.range, leader: $0.leader, term: $0.term, decided: $0.decided,
                applied: $0.applied, replicas: $0.replicas, voters: $0.voters)
        }
        status.directoryVoters = node.directoryVoters
        status.replicas = members.placement.voters
        status.isSpread = members.isSpread
        status.questionsElsewhereTotal = elsewhere.questionsTotal
        status.pendingSplit = node.pendingSplit
        status.mapVersion = node.map.version
        status.splitsTotal = figures.splits
        let writes = node.partitionWrites
        for i in status.partitions.indices where i < writes.count {
            status.partitions[i].writesTotal = writes[i]
        }
        status.sequencer = node.sequencerNode(at: now.instant)
        status.sequencerMemberID = status.sequencer.map { memberID(of: $0) } ?? 0
        status.epochRound = node.sequencerEpoch.round
        status.revision = node.revision
        status.compactRevision = node.compactedThrough
        status.appliedIndex = node.appliedIndex
        status.decidedIndex = node.decidedIndex
        status.storeBytes = Int64(clamping: figures.sizes?.total ?? 0)
        status.storeBytesInUse = Int64(clamping: figures.sizes?.inUse ?? 0)
        status.isReady = node.isReady && status.sequencer != nil
        status.isDiskSlow = diskWatch.isSlow
        status.problems = problems(status)
        status.alarms = alarms.all
        status.alarmsOfOthers = alarms.harmless
        status.storeErrorsTotal = figures.storeErrors
        status.quotaBytes = configuration.quotaBytes
        status.geoLinks = links(now)
        status.conflicts = [.init(policy: "last-writer-wins", total: node.conflictsTotal)]
        status.leaderChangesTotal = figures.leaderChanges
        status.voidRevisionsTotal = figures.voidRevisions
        addFigures(to: &status)
        return status
    }

    var memberStatus: [NodeStatus.Member] {
        members.version == 0
            ? configuration.members.map { member(of: $0) } : members.members.map { member(of: $0) }
    }

    private func member(of member: HostConfiguration.Member) -> NodeStatus.Member {
        let isMe = member.id == configuration.nodeID
        let peer = PeerID(region: configuration.regionID, node: member.id)
        let scheme = configuration.peerTLS == nil ? "http" : "https"
        return NodeStatus.Member(
            id: configuration.memberID(of: member.id), name: member.name,
            clientURLs: member.clientURLs.isEmpty ? advertised[peer] ?? [] : member.clientURLs,
            peerURLs: ["\(scheme)://\(member.peer)"],
            node: member.id, isHealthy: isMe || !node.suspects(member.id),
            version: isMe ? PolderVersion.text : versions[peer] ?? "")
    }

    private func member(of member: RegionMembers.Member) -> NodeStatus.Member {
        let isMe = member.node == identity.node
        let peer = PeerID(region: configuration.regionID, node: member.node.seat)
        var status = NodeStatus.Member(
            id: member.id, name: member.name,
            clientURLs: member.clientURLs.isEmpty && member.isStarted
                ? advertised[peer] ?? [] : member.clientURLs,
            peerURLs: member.peerURLs, node: member.node,
            isHealthy: isMe || (member.isStarted && !node.suspects(member.node)),
            version: isMe ? PolderVersion.text : versions[peer] ?? "",
            isLearner: member.isLearner, isDrained: member.isDrained)
        status.isAway = member.isAway
        status.zone = member.zone
        return status
    }

    private func problems(_ status: NodeStatus) -> [String] {
        var problems: [String] = []
        if status.sequencer == nil { problems.append("no sequencer is heard") }
        if !acceptsWrites {
            problems.append(
                isOverQuota
                    ? "the store is larger than its quota: writes are refused"
                    : "the disk is full: writes are refused")
        }
        if status.isDiskSlow { problems.append("this node's disk is slower than the others'") }
        for partition in status.partitions where partition.leader == nil {
            problems.append("partition \(partition.id) has no leader")
        }
        for member in status.members where !member.isHealthy {
            problems.append("\(member.name) is suspected")
        }
        return problems
    }

    private func links(_ now: ClockReading) -> [NodeStatus.GeoLink] {
        let known = node.links(at: now)
        return configuration.remoteRegions.map { region in
            let isConnected = region.nodes.contains {
                transport.isConnected(PeerID(region: region.id, node: $0.id))
            }
            let lag = known.first { $0.region == region.id }
            return NodeStatus.GeoLink(
                origin: region.name, isConnected: isConnected,
                lagSeconds: lag.map { Double($0.lagMicroseconds) / 1e6 },
                lagRevisions: lag.flatMap(\.lagRevisions))
        }
    }

    // MARK: The leader

    /// etcd's words, in its order: tools wait for them.
    private func announce() {
        ServiceManager.tell("READY=1")
        for listener in configuration.allListeners where !listener.servesOnlyMetrics {
            logger.notice("ready to serve client requests")
            let metadata: Logger.Metadata = [
                "address": "\(listener.name)", "traffic": "grpc+http",
            ]
            if listener.isSecure {
                logger.notice("serving client traffic securely", metadata: metadata)
            } else {
                logger.notice(
                    "serving client traffic insecurely; this is strongly discouraged!",
                    metadata: metadata)
            }
        }
    }

    /// After every turn: streams that want a leader must hear when there is none.
    func noticeLeader() {
        if epochRound != figures.epochRoundSeen {
            figures.epochRoundSeen = epochRound
            figures.leaderChangedAt = Clocks.instant()
            figures.leaderChanges += 1
        }
        let has = hasSequencer
        guard has != hasLeader else { return }
        hasLeader = has
        facade?.onLeaderChanged(hasLeader: has)
        if has, !hasServed {
            hasServed = true
            announce()
        }
    }
}

extension Request {
    /// Refused while the disk is full: what would grow the data. Deletions and compaction help.
    fileprivate var needsSpace: Bool {
        switch self {
        case .transaction(let transaction): transaction.puts
        case .leaseGrant, .replicate: true
        case .leaseRevoke, .leaseExpire, .leaseKeepAlive, .leaseTimeToLive, .leaseList, .compact,
            .auth, .members, .split:
            false
        }
    }
}

extension Request {
    /// Refused while data is said to be damaged, as etcd does.
    fileprivate var changesData: Bool {
        switch self {
        case .transaction, .leaseGrant, .leaseRevoke, .compact, .replicate: true
        case .leaseExpire, .leaseKeepAlive, .leaseTimeToLive, .leaseList, .auth, .members, .split:
            false
        }
    }
}

extension Transaction {
    fileprivate var puts: Bool {
        (success + failure).contains { operation in
            switch operation {
            case .put: true
            case .range, .delete: false
            case .transaction(let nested): nested.puts
            }
        }
    }
}

extension ConflictReport {
    /// The record names no revision of its own: that of the side which was written here.
    fileprivate init(_ record: ConflictRecord, here: RegionID) {
        let local = record.loser.origin.region == here ? record.loser : record.winner
        self.init(
            key: record.key, policy: record.policy.name, revision: local.origin.revision,
            winner: record.winner.origin, loser: record.loser.origin,
            loserValue: record.loser.value, loserIsDeletion: record.loser.isDeletion)
    }
}

extension ConflictPolicy {
    /// As in configuration, metrics and reports.
    fileprivate var name: String {
        switch self {
        case .lastWriterWins: "last-writer-wins"
        }
    }
}

extension HostConfiguration {
    func node(boot: UInt64, identity: NodeIdentity) -> NodeConfiguration {
        var limits = NodeLimits()
        // A killed process is noticed by its refused connection, at once. Silence is for frozen ones
        // and lost machines; a busy machine's scheduler can make a healthy process wait for 100 ms.
        // Who asks etcd for more patience than its usual second gets more here too.
        let patience = self.limits.electionTimeout.milliseconds / 4
        limits.detector.silence = .milliseconds(max(250, patience))
        // Longer than the sequencer's renewals of its lease (60 ms while nobody reads): the beats of all
        // nodes go along with those and their answers.
        limits.detector.heartbeat = .milliseconds(75)
        limits.timelinePeriod = .milliseconds(75)
        // A directory of before version 2 knows no founders: the configuration's members are.
        let isFounder =
            identity.token == 0
            || identity.founders.contains { $0.seat == identity.node && $0.token == identity.token }
        let seats = identity.founders.isEmpty ? members.map(\.id) : identity.founders.map(\.seat)
        var others = members.map(\.id).filter { $0 != identity.node.seat }
        if isFounder { others = seats.filter { $0 != identity.node } }
        var configuration = NodeConfiguration(
            region: regionID, node: identity.node, nodes: (others + [identity.node]).sorted(),
            otherRegions: remoteRegions.map { .init(region: $0.id, nodes: $0.nodes.map(\.id)) },
            partitions: partitions, boot: boot, limits: limits)
        configuration.isFounder = isFounder
        configuration.replicas = replicas
        configuration.isSpread = isSpread
        configuration.featureLevel = featureLevel
        if isFounder {
            configuration.founding = RegionMembers(
                members: members.filter { seats.contains($0.id) }.map { member in
                    RegionMembers.Member(
                        id: memberID(of: member.id), node: member.id,
                        token: identity.founders.first { $0.seat == member.id }?.token ?? 1,
                        name: member.name, peerURLs: [peerURL(of: member)],
                        clientURLs: member.clientURLs)
                }, used: seats.sorted())
        }
        return configuration
    }

    var peers: [PeerID: PeerAddress] { ownPeers.merging(remotePeers) { own, _ in own } }

    var ownPeers: [PeerID: PeerAddress] {
        var found: [PeerID: PeerAddress] = [:]
        for member in members where member.id != nodeID {
            found[PeerID(region: regionID, node: member.id)] = PeerAddress(
                host: member.peer.host, port: member.peer.port)
        }
        return found
    }

    var remotePeers: [PeerID: PeerAddress] {
        var found: [PeerID: PeerAddress] = [:]
        for region in remoteRegions {
            for node in region.nodes {
                found[PeerID(region: region.id, node: node.id)] = PeerAddress(
                    host: node.peer.host, port: node.peer.port)
            }
        }
        return found
    }
}
