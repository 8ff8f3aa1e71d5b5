package import Consensus
package import GeoReplication
package import Partitioning
package import Primitives

/// Everything that can happen to a node. Values only; what the host reads or receives comes in here.
package enum NodeInput: Sendable {
    /// From a node of this region.
    case message(from: NodeID, PeerMessage)
    /// By its seat: the host does not know which incarnation sits there.
    case connected(NodeID)
    /// `lost`: reset, and reconnecting was refused: the process is gone.
    case disconnected(NodeID, lost: Bool)
    /// Everything handed to `NodeEffects.persist` with this ticket and lower ones is on the disk.
    case durable(Ticket)
    /// Answer to `NodeEffects.reads`.
    case read(token: UInt64, ReadAnswer)

    /// A client's request; the answer comes in `NodeEffects.responses` with the token. `fence`: of the
    /// permissions that it was checked under.
    case request(Request, token: UInt64, deadline: Instant, fence: UInt64 = .max)
    /// The answer comes in `NodeEffects.readIndexes`.
    case readIndex(linearizable: Bool, token: UInt64, deadline: Instant)
    /// For another node, which reads here at this revision: answered in `NodeEffects.readIndexes` once it
    /// is shown here.
    case readAt(Revision, token: UInt64, deadline: Instant)
    /// Answer to `NodeEffects.leaseReads`; nil: nobody could say.
    case leaseKeys(number: UInt64, [Bytes]?)
    /// Nobody waits for this token any more.
    case cancel(token: UInt64)

    /// The store has flushed: these groups' logs are no longer needed through these slots.
    case flushed([(GroupID, Slot)])
    /// A snapshot of the group was installed in the store; its records are these.
    case snapshotInstalled(GroupID, records: [(key: Bytes, value: Bytes)])
    /// A snapshot that this node has sent was not taken there (`Node.mayInstall`).
    case snapshotRefused(GroupID, by: NodeID)

    /// Everything that this node leads goes to another node, without a gap: to this one, or to the
    /// first that is fit for it. For a stop, or because an operator wants it.
    case handOver(to: NodeID?)
    /// One partition goes to this node, the same way; nothing happens if it cannot.
    case handOverPartition(PartitionID, to: NodeID)

    /// Take the leadership of this group over now, whoever has it: for drills and simulation.
    case campaign(PartitionID)

    /// Links between regions.
    case linkConnected(RegionID, NodeID)
    case linkDisconnected(RegionID, NodeID)
    case linkMessage(RegionID, NodeID, LinkMessage)
    /// Answer to `NodeEffects.changeReads`, whose `after` tells a sender that has begun anew which
    /// question it answers: whole revisions, through `through`; nil when the store no longer holds them
    /// (compacted).
    case changesRead(
        RegionID, after: Revision, changes: [RevisionChanges]?, through: Revision)

    /// `NodeEffects.nextWake` has come.
    case wake
}

/// What the host must do after a turn, in this order: `store`, `persist`, `sends`, answers, `reads`.
/// One value lives as long as the host and is emptied after every turn.
package struct NodeEffects: Sendable {
    /// Into the state store, in order, atomically, without a sync of its own.
    package var store: [StoreChange] = []
    /// Onto the log; `.durable(ticket)` follows. Empty: nothing to write.
    package var persist: [LogRecord] = []
    package var ticket = Ticket(0)
    package var sends: [(to: NodeID, message: PeerMessage)] = []
    package var linkSends: [(region: RegionID, node: NodeID, message: LinkMessage)] = []

    package var responses: [(token: UInt64, response: Response)] = []
    package var readIndexes: [(token: UInt64, answer: Result<ReadPoint, RequestError>)] = []
    /// The region's merged timeline, in order, through `changesThrough` (when it is set).
    package var changes: [RevisionChanges] = []
    package var changesThrough: Revision?
    /// The merge has jumped: watchers catch up from the store through this revision.
    package var changesLost: Revision?

    package var reads: [ReadRequest] = []
    package var changeReads: [ChangeRead] = []
    /// Which keys are attached to a lease, as of this revision, in partitions that this node does not serve?
    package var leaseReads: [(number: UInt64, lease: LeaseID, revision: Revision)] = []
    /// Read a snapshot of the group and send it to the node (`NodeInput.snapshotInstalled` there).
    package var snapshotsWanted: [(group: GroupID, by: NodeID)] = []
    /// History at and below this revision may be dropped from the store.
    package var floor: Revision?
    /// Users, roles or permissions have changed; known to the facade before any answer of this turn.
    package var auth: AuthState?

    package var events: [NodeEvent] = []
    /// What the host looks at after every turn: to ask the node copies all of it.
    package var epoch = Epoch.zero
    package var hasSequencer = false
    package var servedVersion: UInt64 = 0
    /// No rows come into the store, or go out of it, that do not count here.
    package var servesAllPresent = true
    /// When to call `step(.wake)` at the latest.
    package var nextWake = Instant.never

    package init() {}

    package mutating func removeAll() {
        store.removeAll(keepingCapacity: true)
        persist.removeAll(keepingCapacity: true)
        sends.removeAll(keepingCapacity: true)
        linkSends.removeAll(keepingCapacity: true)
        responses.removeAll(keepingCapacity: true)
        readIndexes.removeAll(keepingCapacity: true)
        changes.removeAll(keepingCapacity: true)
        changesThrough = nil
        changesLost = nil
        reads.removeAll(keepingCapacity: true)
        changeReads.removeAll(keepingCapacity: true)
        leaseReads.removeAll(keepingCapacity: true)
        snapshotsWanted.removeAll(keepingCapacity: true)
        floor = nil
        auth = nil
        events.removeAll(keepingCapacity: true)
    }
}

/// Where a read may be served on this node, now.
package struct ReadPoint: Equatable, Sendable {
    package let revision: Revision
    package let compactRevision: Revision
    package init(revision: Revision, compactRevision: Revision) {
        self.revision = revision
        self.compactRevision = compactRevision
    }
}

/// For a link to another region: whole revisions in `(after, through]`, at most about `maxRows` rows.
package struct ChangeRead: Equatable, Sendable {
    package let region: RegionID
    package let after: Revision
    package let through: Revision
    package let maxRows: Int
}

/// What happened, for the log and the metrics. Stable names.
package enum NodeEvent: Equatable, Sendable {
    case consensus(GroupID, ConsensusEvent)
    case becameLeader(GroupID, Term)
    case lostLeadership(GroupID, Term)
    case sequencerOpened(Epoch, frontier: Revision)
    case sequencerClosed(Epoch)
    case suspected(NodeID)
    case trusted(NodeID)
    case revisionVoid(Revision)
    /// A request that a leader had carried out without telling was answered after all.
    case answerRebuilt(Revision)
    case snapshotInstalled(GroupID, Slot)
    /// The region does without this node's replica.
    case dropped(GroupID)
    case configured(GroupID, Configuration)
    /// The others go on without this node.
    case gone(GroupID)
    case membersChanged(RegionMembers)
    /// The directory wants it; the parent's replica here has done it, at this slot; it is done.
    case splitIntended(PartitionSplit)
    case divided(PartitionSplit, Slot)
    case splitPublished(PartitionSplit)
    case link(RegionID, LinkEvent)
    case ignored(String, from: NodeID)
}
