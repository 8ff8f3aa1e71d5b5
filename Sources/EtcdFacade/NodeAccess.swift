package import Primitives

/// How the facade reaches its node. `NodeHost` implements it; every call and every answer happens on
/// the core's event loop, and answers may arrive before the call returns.
///
/// A call that waits carries a token of the facade's choosing; the answer comes back with it through
/// `NodeClient`, exactly once unless `cancel` was called first.
package protocol NodeAccess: AnyObject {
    /// Transactions that may write, leases, compaction.
    func submit(_ request: Request, deadline: Instant, token: UInt64)

    /// Asks at which revision a read may be served here. Linearizable: at least every revision that
    /// anybody was told of before this call (protocol.md "Reads"). Otherwise: the newest this node has.
    func readIndex(linearizable: Bool, deadline: Instant, token: UInt64)

    /// The same, if the answer is known at once; nil: `readIndex` must be asked.
    func readIndexNow(linearizable: Bool) -> ReadIndex?

    /// Takes the leaderships of this node, the sequencer's node, to another member. The answer is a
    /// read index.
    func moveLeader(to: NodeID, deadline: Instant, token: UInt64)

    /// The caller lost interest: no answer follows.
    func cancel(token: UInt64)

    /// Reads of the local store at a revision that `readIndex` or `onChanges` has announced.
    /// Throws `.compacted` when `at` is below what the store still holds, before or after reading.
    func range(_ query: RangeQuery, at revision: Revision) throws(RequestError) -> RangeResult
    /// The version of `key` that was current at `revision`, deletions left out: for `prev_kv`.
    func row(_ key: Bytes, at revision: Revision) throws(RequestError) -> Row?
    /// Whole revisions in `(after, through]`, in order, at least one if there is any; stops early after so
    /// many rows or bytes (the last one is complete). `.compacted` if `after` is below the compaction.
    func changes(
        after: Revision, through: Revision, maxRows: Int, maxBytes: Int
    ) throws(RequestError) -> [RevisionChanges]
    /// The same, and through which revision that is all.
    func changesPage(
        after: Revision, through: Revision, maxRows: Int, maxBytes: Int
    ) throws(RequestError) -> (changes: [RevisionChanges], through: Revision)
    /// In a region that is spread a read may throw `.elsewhere`, or stop half-way: what it needs has been asked for.
    /// Calls `body` when it may be here, for the read that was made last; later, and at most once.
    func whenFetched(_ body: @escaping () -> Void)
    /// etcd's HashKV: equal on all members of a region for the same revision. Reads everything, so
    /// `done` comes later; `.tooManyRequests` if others have asked before.
    func hash(
        at revision: Revision, _ done: @escaping (Result<UInt32, RequestError>) -> Void)

    /// etcd's database file of the newest revision that this node can serve.
    func openSnapshot() throws(SnapshotFailure) -> any SnapshotSource

    /// What deletions and compactions have left may be given back to the file system. Returns at once.
    func reclaimSpace()

    /// Users, roles and permissions as this node knows them; `NodeClient.onAuthChanged` tells of newer
    /// ones. What is submitted carries their fence.
    var authState: AuthState { get }
    /// The keys attached to a lease, as this node's replicas know them. Nil: some are elsewhere (`whenFetched`).
    func keys(of lease: LeaseID) -> [Bytes]?
    /// As `range`, but `count` may be of the answer's rows only, and `more` may be said after so many bytes:
    /// for those who ask for one part after the other.
    func part(
        _ query: RangeQuery, at revision: Revision, maxBytes: Int
    ) throws(RequestError) -> RangeResult

    /// The live rows of `range` in key order, without copies; `visit` returns false to end. Throws as
    /// `range` does, but `.elsewhere`: where it goes on once more is here (`whenFetched`) is the result.
    func visit(
        _ range: KeyRange, at revision: Revision, _ visit: (RowView) -> Bool
    ) throws(RequestError) -> Bytes?

    /// How many keys a range holds, if that is known without a walk. Whoever walks says before that he
    /// will, and afterwards what he counted, and where a page of the range ended: others ask again.
    func knownCount(_ range: KeyRange, at revision: Revision) throws(RequestError) -> Int64?
    func willCount(_ range: KeyRange, at revision: Revision) throws(RequestError)
    func counted(_ range: KeyRange, at revision: Revision, count: Int64)
    func turned(_ range: KeyRange, at revision: Revision, rows: Int64, last: Bytes)

    /// Raises an alarm or takes it back, for all members of the region, as a client asks (etcd's Alarm).
    /// False: that changed nothing.
    func setAlarm(_ alarm: Alarm, isRaised: Bool) -> Bool

    /// Why what was asked at `start` has had no answer until now, as far as this node can tell. A read waits
    /// for what it is to see to be applied here; a write does not.
    func causeOfDelay(since start: Instant, isRead: Bool) -> DelayCause

    /// Losers of conflicts between regions, the newest first (geo.md "Conflicts").
    func conflicts(limit: Int) -> [ConflictReport]

    var status: NodeStatus { get }
    /// As in `status`, without building the whole picture: every answer's header carries it.
    var epochRound: UInt64 { get }
    /// As in `status`: asked at each step of catching up.
    var compactRevision: Revision { get }
    var now: Instant { get }
    /// For lease ids that the server chooses: positive, never 0.
    func randomLeaseID() -> LeaseID
}

/// etcd names three of them behind "request timed out".
package enum DelayCause: Sendable {
    case unknown
    /// The region's leader, or that of partitions, was lost meanwhile.
    case leaderFailure
    /// Whom this node must ask was not connected all the time.
    case lostConnection
    /// Decided, and not yet in this node's store.
    case applying
}

extension NodeAccess {
    package func causeOfDelay(since start: Instant, isRead: Bool) -> DelayCause { .unknown }
    package var epochRound: UInt64 { status.epochRound }
    package func readIndexNow(linearizable: Bool) -> ReadIndex? { nil }
    package var compactRevision: Revision { status.compactRevision }
    package func conflicts(limit: Int) -> [ConflictReport] { [] }
    package var authState: AuthState { AuthState() }
    package func keys(of lease: LeaseID) -> [Bytes]? { [] }
    package func whenFetched(_ body: @escaping () -> Void) {
        invariant(false, "a node that serves everything lacks something")
    }
    package func changesPage(
        after: Revision, through: Revision, maxRows: Int, maxBytes: Int
    ) throws(RequestError) -> (changes: [RevisionChanges], through: Revision) {
        let found = try changes(after: after, through: through, maxRows: maxRows, maxBytes: maxBytes)
        return (found, found.last?.revision ?? through)
    }
    package func part(
        _ query: RangeQuery, at revision: Revision, maxBytes: Int
    ) throws(RequestError) -> RangeResult { try range(query, at: revision) }
    package func knownCount(
        _ range: KeyRange, at revision: Revision
    ) throws(RequestError) -> Int64? { nil }
    package func willCount(_ range: KeyRange, at revision: Revision) throws(RequestError) {}
    package func counted(_ range: KeyRange, at revision: Revision, count: Int64) {}
    package func turned(_ range: KeyRange, at revision: Revision, rows: Int64, last: Bytes) {}
    package func visit(
        _ range: KeyRange, at revision: Revision, _ visit: (RowView) -> Bool
    ) throws(RequestError) -> Bytes? {
        for row in try self.range(RangeQuery(range: range), at: revision).rows {
            let goesOn = row.key.withUnsafeBytes { key in
                row.value.withUnsafeBytes { value in
                    visit(
                        RowView(
                            key: key, value: value, createRevision: row.createRevision,
                            modRevision: row.modRevision, version: row.version, lease: row.lease))
                }
            }
            if !goesOn { return nil }
        }
        return nil
    }
}

/// etcd's AlarmMember.
package struct Alarm: Hashable, Sendable {
    package enum Kind: UInt8, Sendable, CaseIterable {
        case noSpace = 1
        case corrupt
    }
    package var memberID: UInt64
    package var kind: Kind
    package init(memberID: UInt64, kind: Kind) {
        self.memberID = memberID
        self.kind = kind
    }
}

/// What the node tells the facade.
package protocol NodeClient: AnyObject {
    func onResponse(_ response: Response, token: UInt64)
    func onReadIndex(_ answer: Result<ReadIndex, RequestError>, token: UInt64)
    /// The region's merged timeline: everything in `(last emitted, through]`, in revision order, whole
    /// revisions. `through` may rise without changes (void revisions, compaction).
    func onChanges(_ changes: [RevisionChanges], through: Revision)
    /// The node jumped (a snapshot was installed): watchers catch up from the store.
    func onChangesLost(through: Revision)
    /// The region has (or has no) sequencer that this node can reach: for `hasleader`.
    func onLeaderChanged(hasLeader: Bool)
    /// Before the first answer that rests on it.
    func onAuthChanged(_ state: AuthState)
}

package struct ReadIndex: Equatable, Sendable {
    /// Read at this revision; it is the header's revision too.
    package let revision: Revision
    package let compactRevision: Revision
    package init(revision: Revision, compactRevision: Revision) {
        self.revision = revision
        self.compactRevision = compactRevision
    }
}

/// A cheap picture of the node, for headers, Status, member lists, health and metrics.
package struct NodeStatus: Sendable {
    package struct Member: Sendable, Equatable {
        package var id: UInt64
        package var name: String
        package var clientURLs: [String]
        package var peerURLs: [String]
        package var node: NodeID
        /// As this node's failure detector sees it; true for itself.
        package var isHealthy: Bool
        /// Polder's version there; empty while unknown.
        package var version: String
        package var isLearner: Bool
        package var isDrained: Bool
        /// Not heard of for long: others vote in its place.
        package var isAway = false
        package var zone = ""
        package init(
            id: UInt64, name: String, clientURLs: [String], peerURLs: [String],
            node: NodeID = .none, isHealthy: Bool = true, version: String = "",
            isLearner: Bool = false, isDrained: Bool = false
        ) {
            self.id = id
            self.isLearner = isLearner
            self.isDrained = isDrained
            self.node = node
            self.isHealthy = isHealthy
            self.version = version
            self.name = name
            self.clientURLs = clientURLs
            self.peerURLs = peerURLs
        }
    }
    package struct Partition: Sendable, Equatable {
        package var id: PartitionID
        package var range: HashRange
        package var leader: NodeID?
        package var term: Term
        package var decided: Slot
        package var applied: Slot
        package var replicas: [NodeID]
        /// Those of them that vote, in order of preference for the leader.
        package var voters: [NodeID]
        /// Entries that this node has applied and that wrote something, since it started.
        package var writesTotal: UInt64 = 0
        package init(
            id: PartitionID, range: HashRange, leader: NodeID?, term: Term, decided: Slot,
            applied: Slot,
            replicas: [NodeID] = [], voters: [NodeID] = []
        ) {
            self.id = id
            self.voters = voters
            self.replicas = replicas
            self.range = range
            self.leader = leader
            self.term = term
            self.decided = decided
            self.applied = applied
        }
    }
    /// How far this region is behind what `origin` has written. Nil: this node does not know, because
    /// another node of the region receives the stream, or none does.
    package struct GeoLink: Sendable, Equatable {
        package var origin: String
        package var isConnected: Bool
        package var lagSeconds: Double?
        package var lagRevisions: Int64?
        package init(
            origin: String, isConnected: Bool, lagSeconds: Double?, lagRevisions: Int64?
        ) {
            self.origin = origin
            self.isConnected = isConnected
            self.lagSeconds = lagSeconds
            self.lagRevisions = lagRevisions
        }
    }
    package struct ConflictCount: Sendable, Equatable {
        package var policy: String
        package var total: UInt64
        package init(policy: String, total: UInt64) {
            self.policy = policy
            self.total = total
        }
    }

    /// What went over the lines to and from one other node.
    package struct PeerTraffic: Sendable, Equatable {
        /// Its member id, as etcd's metrics label it.
        package var id: UInt64
        package var isConnected: Bool
        package var bytesSent: UInt64 = 0
        package var bytesReceived: UInt64 = 0
        /// Frames that could not be sent, and those that could not be read.
        package var sendFailures: UInt64 = 0
        package var receiveFailures: UInt64 = 0
        package var disconnects: UInt64 = 0
        /// Of the questions whether it still lives.
        package var roundTrips = DurationCounts()
        package var snapshotsSent = Snapshots()
        package var snapshotsReceived = Snapshots()
        package init(id: UInt64, isConnected: Bool) {
            self.id = id
            self.isConnected = isConnected
        }
    }

    /// Snapshots of partitions, in one direction.
    package struct Snapshots: Sendable, Equatable {
        package var underWay = 0
        package var failures: UInt64 = 0
        /// Of those that were whole.
        package var durations = DurationCounts()
        package init() {}
    }

    /// Work in the background that comes in pieces.
    package struct Work: Sendable, Equatable {
        package var isUnderWay = false
        package var pieces = DurationCounts()
        package var whole = DurationCounts()
        /// Seconds since 1970 when the last one ended; 0: none since the start.
        package var endedAt = 0.0
        package init() {}
    }

    package var clusterID: UInt64 = 0
    package var memberID: UInt64 = 0
    package var name = ""
    package var region = ""
    package var members: [Member] = []
    package var partitions: [Partition] = []
    package var pendingSplit: PartitionSplit?
    package var directoryVoters: [NodeID] = []
    /// How many vote in a group, as far as there are so many.
    package var replicas = 0
    /// Rows lie only with who votes in their partition.
    package var isSpread = false
    /// What other nodes were asked for because this one's replicas do not hold it, since the start.
    package var questionsElsewhereTotal: UInt64 = 0
    package var mapVersion: UInt64 = 1
    package var splitsTotal: UInt64 = 0
    /// The sequencer's node, as this node knows it; nil while there is none.
    package var sequencer: NodeID?
    package var sequencerMemberID: UInt64 = 0
    /// The sequencer's epoch, as etcd's raft term.
    package var epochRound: UInt64 = 0
    /// The frontier that this node can serve.
    package var revision = Revision.initial
    package var compactRevision = Revision.zero
    /// Sum over the partitions: rises with everything applied (etcd's raft index).
    package var appliedIndex: UInt64 = 0
    package var decidedIndex: UInt64 = 0
    package var storeBytes: Int64 = 0
    package var storeBytesInUse: Int64 = 0
    /// Can this node serve linearizable reads right now?
    package var isReady = false
    /// This node votes for nothing.
    package var isLearner = false
    /// So much slower than another's that what this node leads is better led there.
    package var isDiskSlow = false
    /// What all builds of the region know, so that it may be used.
    package var featureLevel = FeatureLevel.first
    package var problems: [String] = []
    /// Of all members of the region, as far as this node has heard.
    package var alarms: [Alarm] = []
    /// Those of `alarms` that concern only the member that they name.
    package var alarmsOfOthers: [Alarm] = []
    /// etcd's --quota-backend-bytes; 0: the disk is the limit.
    package var quotaBytes: Int64 = 0
    package var geoLinks: [GeoLink] = []
    package var conflicts: [ConflictCount] = []
    /// Changes of the sequencer's epoch that this process has seen.
    package var leaderChangesTotal: UInt64 = 0
    package var voidRevisionsTotal: UInt64 = 0
    /// Log writes that were made durable.
    package var logSyncs = DurationCounts()
    /// Batches of changes that were put into the store.
    package var storeCommits = DurationCounts()
    /// Failures of the store's work in the background.
    package var storeErrorsTotal: UInt64 = 0
    package var peers: [PeerTraffic] = []
    /// Into the log since the start.
    package var logBytesTotal: UInt64 = 0
    /// Of history.
    package var compaction = Work()
    package var compactedRowsTotal: UInt64 = 0
    /// Of the store's files, so that space comes back.
    package var reclaiming = Work()
    /// What the store holds in memory, to the disk: then the log may be cut.
    package var flushes = Work()
    package var isInstallingSnapshot = false
    /// The loop was so late that other nodes have missed a heartbeat, while this node led something.
    package var lateHeartbeatsTotal: UInt64 = 0
    /// Leases that have run out while this node led their partition, and are gone.
    package var leasesExpiredTotal: UInt64 = 0
    /// Keys and values that were put into the store since the start.
    package var putBytesTotal: UInt64 = 0
    /// What the store may grow to: its quota, or else what the disk has room for. 0: not known.
    package var capacityBytes: Int64 = 0
    package init() {}
}

/// One loser of a conflict between regions.
package struct ConflictReport: Sendable, Equatable {
    package var key: Bytes
    package var policy: String
    /// The revision here at which the conflict was decided.
    package var revision: Revision
    package var winner: Origin
    package var loser: Origin
    package var loserValue: Bytes
    package var loserIsDeletion: Bool
    package init(
        key: Bytes, policy: String, revision: Revision, winner: Origin, loser: Origin,
        loserValue: Bytes, loserIsDeletion: Bool
    ) {
        self.key = key
        self.policy = policy
        self.revision = revision
        self.winner = winner
        self.loser = loser
        self.loserValue = loserValue
        self.loserIsDeletion = loserIsDeletion
    }
}
