/// What the facade (and the inside of a region) asks of a node's core.
public enum Request: Hashable, Sendable {
    case transaction(Transaction)
    case leaseGrant(LeaseID, ttlSeconds: Int64)
    case leaseRevoke(LeaseID)
    /// Ends the lease if its time is up by its home's clock: a renewal in between wins.
    case leaseExpire(LeaseID)
    case leaseKeepAlive(LeaseID)
    case leaseTimeToLive(LeaseID, wantsKeys: Bool)
    case leaseList
    case compact(Revision)
    case members(MembersRequest)
    /// A batch of another region's timeline (geo.md): applied as one transaction with its cursor.
    case replicate(ReplicationBatch)
    /// A change of users, roles or permissions. `by`: who asks, if authentication is on.
    case auth(AuthCommand, by: Bytes?)
    /// Cut a partition in two: at this hash, or in the middle. Answered when clients are served by both.
    case split(PartitionID, at: UInt64?)
}

/// What it answers. `revision` is the header's revision (protocol-rules.md S9).
public enum Response: Hashable, Sendable {
    case transaction(TransactionResult, revision: Revision)
    case leaseGranted(LeaseID, ttlSeconds: Int64, revision: Revision)
    case leaseRevoked(revision: Revision)
    /// `ttlSeconds` is 0 when there is no such lease, as in etcd.
    case leaseKeptAlive(LeaseID, ttlSeconds: Int64, revision: Revision)
    /// `remainingSeconds` is -1 when there is no such lease, as in etcd.
    case leaseTimeToLive(
        LeaseID, grantedSeconds: Int64, remainingSeconds: Int64, keys: [Bytes], revision: Revision)
    case leases([LeaseID], revision: Revision)
    case compacted(revision: Revision)
    /// The list, and whom the request was about.
    case members(RegionMembers, subject: UInt64)
    case replicated(cursor: Revision)
    /// nil: done. The revision is the keys': it has not changed.
    case auth(AuthError?, revision: Revision)
    case split(PartitionSplit)
    case failed(RequestError)
}

/// Outcomes that a caller does something different about; `EtcdFacade` turns each into etcd's
/// status and text.
public enum RequestError: UInt8, Error, Hashable, Sendable, CaseIterable {
    case compacted = 1
    case futureRevision
    case keyNotFound
    case leaseNotFound
    case leaseExists
    case leaseTTLTooLarge
    case noSpace
    case tooManyRequests
    case requestTooLarge
    case noLeader
    /// The outcome is unknown: it may have taken effect (etcd: "request timed out").
    case timedOut
    case stopped
    /// A replication batch whose `from` is not the cursor: two senders, or a gap (geo.md G10).
    case cursorMismatch
    /// Checked under permissions that have been restricted since; not executed (etcd: "revision of
    /// auth store is old").
    case authChanged
    /// A client has raised the alarm that data is damaged: nothing is written until it is taken back.
    case corrupt
    case memberNotFound = 64
    case memberURLsInvalid
    case peerURLExists
    case memberNotLearner
    case learnerNotReady
    case tooManyLearners
    case notEnoughStarted
    /// A new data directory claims the place of a node that is heard of.
    case memberAlive
    /// The region uses features that the member's build does not know.
    case buildTooOld
    case partitionNotFound = 96
    /// Not inside of the partition's range: one half would be empty.
    case cutOutside
    case splitUnderWay
    case tooManyPartitions
    /// A member's build does not know splits (`FeatureLevel.splits`).
    case regionTooOld
    /// Somebody comes or goes: what a split makes would count on who is not there any more.
    case membersChanging
    /// So many voters a group cannot have, or one is named twice.
    case replicasOutside
    /// Not an answer: what is to be read lies with other nodes, who are asked for it. Never sent.
    case elsewhere = 112
}

/// A stretch `(from, through]` of one region's timeline.
public struct ReplicationBatch: Hashable, Sendable {
    public struct Cursor: Hashable, Sendable {
        public let region: RegionID
        public let revision: Revision
        public init(region: RegionID, revision: Revision) {
            self.region = region
            self.revision = revision
        }
    }
    /// The region whose stream this is (the sender); each row names the region that first wrote it.
    public var origin: RegionID
    public var from: Revision
    public var through: Revision
    /// How far the sender had applied every other region as of `through`, by region (G3, G4).
    public var seen: [Cursor]
    /// In the sender's revision order, at most one change a key.
    public var changes: [Row]

    public init(
        origin: RegionID, from: Revision, through: Revision, seen: [Cursor], changes: [Row]
    ) {
        self.origin = origin
        self.from = from
        self.through = through
        self.seen = seen
        self.changes = changes
    }

    public func seen(of region: RegionID) -> Revision {
        seen.first { $0.region == region }?.revision ?? .zero
    }
}
