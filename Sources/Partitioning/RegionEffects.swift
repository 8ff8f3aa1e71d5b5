package import Primitives

/// What the host must read from its store for a partition; the answer is `ReadAnswer`.
package struct ReadRequest: Equatable, Sendable {
    package let token: UInt64
    package let group: GroupID
    /// Only keys that hash here.
    package let range: HashRange
    package let plan: ReadPlan
    package init(token: UInt64, group: GroupID, range: HashRange, plan: ReadPlan) {
        self.token = token
        self.group = group
        self.range = range
        self.plan = plan
    }
}

/// What the parts of a region's core (partitions, sequencer, coordinator) ask of the node. The node
/// empties it several times in a turn: what is addressed to this node itself is stepped at once.
package struct RegionEffects: Sendable {
    package var messages: [(to: NodeID, message: RegionMessage)] = []
    /// Payloads for the partition's log, in order. Never refused while the node leads: partitions
    /// bound what they have in flight.
    package var proposals: [(partition: PartitionID, payload: Bytes)] = []
    package var reads: [ReadRequest] = []
    package var answers: [(RequestID, Response)] = []
    /// Not executed and never will be: find the right node and try again.
    package var redirects: [RequestID] = []
    /// Given up here, though the log may still carry it out: ask the log's next leader.
    package var abandoned: [RequestID] = []
    /// Carried out before, at this revision: the answer is to be rebuilt (S16).
    package var executed: [(RequestID, Revision)] = []
    /// A transaction that turned out to need other partitions (a lease homed elsewhere).
    package var escalations:
        [(RequestID, Request, RequestTag?, deadline: Instant, fence: UInt64)] = []
    /// TimeToLive answers that still lack the attached keys, which are spread over the partitions.
    package var leaseReadings: [LeaseReading] = []
    /// Leases whose time is up, at their home's leader.
    package var expired: [LeaseID] = []
    package var changes: [StoreChange] = []
    /// Rows that were applied, for the merge. `aborted` names a revision whose rows are gone.
    package var applied: [AppliedRows] = []
    package var voids: [Revision] = []
    /// What splits have cut off: the node makes partitions of them.
    package var newborns: [Newborn] = []
    package var nextWake = Instant.never

    package struct AppliedRows: Sendable {
        package let revision: Revision
        package let rows: [Row]
        package let aborted: Bool
        package init(revision: Revision, rows: [Row], aborted: Bool) {
            self.revision = revision
            self.rows = rows
            self.aborted = aborted
        }
    }

    package struct LeaseReading: Sendable {
        package let id: RequestID
        package let lease: LeaseID
        package let grantedSeconds: Int64
        package let remainingSeconds: Int64
        package let revision: Revision
    }

    package struct Newborn: Sendable {
        package let split: PartitionSplit
        package var state: PartitionState
        package let requests: RequestTable
        /// Of the parent's leader.
        package let leaseClock: LeaseClock?
        /// Of the parent's replica (`Partition.counted`).
        package let counted: [LeaseID: Instant]
    }

    package init() {}

    package var isEmpty: Bool {
        messages.isEmpty && proposals.isEmpty && reads.isEmpty && answers.isEmpty && redirects.isEmpty
            && abandoned.isEmpty && executed.isEmpty && escalations.isEmpty
            && leaseReadings.isEmpty && expired.isEmpty && changes.isEmpty
            && applied.isEmpty && voids.isEmpty && newborns.isEmpty
    }

    package mutating func send(_ message: RegionMessage, to node: NodeID) {
        messages.append((node, message))
    }
    package mutating func wake(at instant: Instant) { nextWake = min(nextWake, instant) }
}
