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

    /// The caller lost interest: no answer follows.
    func cancel(token: UInt64)

    /// Reads of the local store at a revision that `readIndex` or `onChanges` has announced.
    /// Throws `.compacted` when `at` is below what the store still holds, before or after reading.
    func range(_ query: RangeQuery, at revision: Revision) throws(RequestError) -> RangeResult
    /// The version of `key` that was current at `revision`, deletions left out: for `prev_kv`.
    func row(_ key: Bytes, at revision: Revision) throws(RequestError) -> Row?
    /// Whole revisions in `(after, through]`, in order; may stop early (the last one is complete).
    func changes(after: Revision, through: Revision, maxRows: Int) throws(RequestError)
        -> [RevisionChanges]
    /// etcd's HashKV: equal on all members of a region for the same revision.
    func hash(at revision: Revision) throws(RequestError) -> UInt32

    var status: NodeStatus { get }
    var now: Instant { get }
    /// For lease ids that the server chooses: positive, never 0.
    func randomLeaseID() -> LeaseID
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
        package init(id: UInt64, name: String, clientURLs: [String], peerURLs: [String]) {
            self.id = id
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
        package init(
            id: PartitionID, range: HashRange, leader: NodeID?, term: Term, decided: Slot, applied: Slot
        ) {
            self.id = id
            self.range = range
            self.leader = leader
            self.term = term
            self.decided = decided
            self.applied = applied
        }
    }
    package var clusterID: UInt64 = 0
    package var memberID: UInt64 = 0
    package var name = ""
    package var region = ""
    package var members: [Member] = []
    package var partitions: [Partition] = []
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
    package var problems: [String] = []
    package init() {}
}
