package import Primitives

/// A client's request at the node whose core executes it: the node that the client talks to and that
/// node's number for it.
package struct RequestID: Hashable, Comparable, Sendable {
    package let node: NodeID
    package let token: UInt64
    package init(node: NodeID, token: UInt64) {
        self.node = node
        self.token = token
    }
    package static func < (a: Self, b: Self) -> Bool { (a.node, a.token) < (b.node, b.token) }
}

/// One partition's part in a transaction, as the sequencer knows it.
package struct Participant: Hashable, Sendable {
    package let partition: PartitionID
    package let term: Term
    package let writes: Bool
    /// Of `Leadership.lapses` when its rows were read.
    package let lapses: UInt64
    package init(partition: PartitionID, term: Term, writes: Bool, lapses: UInt64) {
        self.partition = partition
        self.term = term
        self.writes = writes
        self.lapses = lapses
    }
}

/// A revision and its stamp, as handed out.
package struct Allocation: Hashable, Sendable {
    package let revision: Revision
    package let stamp: Stamp
    package init(revision: Revision, stamp: Stamp) {
        self.revision = revision
        self.stamp = stamp
    }
}

/// The answer to a seal, which registers the leader as well (protocol-rules.md S2, S4, S8): a reading
/// of the log through `slot`, after that was decided.
package struct Registration: Hashable, Sendable {
    package struct Undecided: Hashable, Sendable {
        package let transaction: TransactionID
        package let revision: Revision
        package let participants: [PartitionID]
        package init(transaction: TransactionID, revision: Revision, participants: [PartitionID]) {
            self.transaction = transaction
            self.revision = revision
            self.participants = participants
        }
    }
    package var partition: PartitionID
    package var term: Term
    /// Of the begin or seal that names the epoch.
    package var sealSlot: Slot
    /// The end of the prefix that this is a reading of.
    package var applied: Slot
    package var highestRevision: Revision
    package var heardFrontier: Revision
    package var highestStamp: Stamp
    package var recent: [PartitionState.Recent]
    package var undecided: [Undecided]
    package var lapses: UInt64
    /// The newest partition that the log knows to have been cut off from this one, or itself.
    package var newest = PartitionID.directory
    /// How this partition came to be, if by a split.
    package var origin: PartitionState.Origin?
}

/// The sequencer's feed: everything with a revision at or below `frontier` is in the logs through
/// `tails`. Carries all tails, so that a lost one is repaired by the next. Their number is the map's
/// version: whoever holds fewer partitions knows that it must not show this frontier yet (S12).
package struct Timeline: Hashable, Sendable {
    package struct Tail: Hashable, Sendable {
        package var term: Term
        package var slot: Slot
        package init(term: Term, slot: Slot) {
            self.term = term
            self.slot = slot
        }
    }
    package var epoch: Epoch
    package var frontier: Revision
    package var compactRevision: Revision
    /// History at and below it may go.
    package var floor: Revision
    /// Of the users' and roles' state as of `frontier`: nobody shows the one without the other.
    package var authVersion: UInt64 = 0
    /// Leaders refuse requests that were checked under a lower one.
    package var authFence: UInt64 = 0
    /// The fence that all leaders are known to keep; lower than `authFence`: say it again.
    package var authFenced: UInt64 = 0
    /// Of partitions 1, 2, 3, ... in order; the term is that of the leader who reported it, and names
    /// the ballot for the commit notice (L8, S14).
    package var tails: [Tail]
    package init(
        epoch: Epoch, frontier: Revision, compactRevision: Revision, floor: Revision, tails: [Tail]
    ) {
        self.epoch = epoch
        self.frontier = frontier
        self.compactRevision = compactRevision
        self.floor = floor
        self.tails = tails
    }
}

/// Orders transactions for wait-die; survives retries.
package struct StartStamp: Hashable, Comparable, Sendable {
    package let micros: UInt64
    package let name: RequestName
    package init(micros: UInt64, name: RequestName) {
        self.micros = micros
        self.name = name
    }
    package static func < (a: Self, b: Self) -> Bool { (a.micros, a.name) < (b.micros, b.name) }
}

/// What a participant found under its latches.
package struct LockedRows: Hashable, Sendable {
    package var rows: [Row] = []
    package var historic: [ReadAnswer.Historic] = []
    /// Of the leases asked about: those homed here that live.
    package var leasesAlive: [LeaseID] = []
    /// Of the leases asked about: those known here.
    package var leasesKnown: [LeaseID] = []
    /// For leases that end, at their home: the partitions that know them.
    package var leaseSpread: [LeaseSpread] = []
    /// For a replication batch, at the cursor's home.
    package var cursor: Revision?
    package var lapses: UInt64 = 0
    package init() {}
}

/// What one participant must latch and read.
package struct LockRequest: Hashable, Sendable {
    package var transaction: TransactionID
    package var start: StartStamp
    package var partition: PartitionID
    package var footprint: Footprint
    package var plan: ReadPlan
    /// Read the keys attached to these leases too (revocation).
    package var leasesEnding: [LeaseID]
    /// They count as gone unless their time is up by their home's clock.
    package var onlyExpired = false
    /// Read this region's cursor too.
    package var cursorOf: RegionID?
    /// The client's request, as this participant needs it.
    package var tag: RequestTag?
    /// The newest child in the map by which the participants were found, if it has any: a partition
    /// that has been split since is not all of them.
    package var newest = PartitionID.directory
}

/// Between the cores of a region's nodes. Everything to or from a sequencer carries its epoch; older
/// ones are dropped (protocol-rules.md S2).
package enum RegionMessage: Hashable, Sendable {
    // To the sequencer.
    /// Revisions for `replaced.count` transactions, numbered from `first` in this leadership, in which
    /// so many latches have lapsed.
    case allocate(Epoch, PartitionID, Term, lapses: UInt64, first: UInt64, replaced: [Stamp])
    case allocateTransaction(Epoch, TransactionID, [Participant], replaced: Stamp, fence: UInt64)
    case report(Epoch, PartitionID, Term, [PartitionState.Recent])
    case register(Epoch, Registration)
    case confirm(Epoch, PartitionID, Term, question: UInt64)
    /// Are all of these the registered leaders? For transactions that write nothing.
    case confirmTransaction(Epoch, TransactionID, [Participant], fence: UInt64)
    case readQuestion(Epoch, question: UInt64)
    /// This registered leader has not prepared it and never will.
    case never(Epoch, TransactionID, Revision, PartitionID, Term)
    /// The coordinator gives up this revision, which the sequencer `by` has given it, or has lost touch
    /// with a participant: recover it now, and tell how it stands.
    case abandon(Epoch, TransactionID, Revision, by: Epoch)
    /// This registered leader asks for no revision any more for what was checked under a lower fence.
    case fenced(Epoch, PartitionID, Term, fence: UInt64)

    // From the sequencer.
    case opening(Epoch)
    case registered(Epoch, PartitionID, Term, fence: UInt64)
    case allocated(Epoch, PartitionID, Term, first: UInt64, [Allocation])
    /// nil: a named term is not the registered one, or a latch may have lapsed; nothing was handed out.
    case allocatedTransaction(Epoch, TransactionID, Allocation?)
    case confirmed(
        Epoch, PartitionID, Term, question: UInt64, frontier: Revision, compact: Revision,
        fence: UInt64)
    case confirmedTransaction(Epoch, TransactionID, frontier: Revision?)
    case readAnswer(
        Epoch, question: UInt64, frontier: Revision, compact: Revision, authVersion: UInt64)
    case timeline(Timeline)
    case recover(Epoch, TransactionID, Revision, PartitionID)
    case abort(Epoch, TransactionID, Revision, PartitionID)
    /// To the coordinator: `r` is void; the transaction may be tried again.
    case transactionVoid(Epoch, TransactionID, Revision)
    /// It was checked under permissions that have been restricted since: nothing was handed out.
    case transactionFenced(Epoch, TransactionID)

    // Coordinator and participants.
    case lock(LockRequest)
    case locked(TransactionID, PartitionID, Term, LockedRows)
    /// Not granted (wait-die, or not the leader): nothing is held.
    case died(TransactionID, PartitionID)
    /// Not granted: this attempt of the client's request is no longer the one that counts.
    case overtaken(TransactionID, PartitionID)
    /// Not granted: the client's request was carried out before, at this revision; nil: perhaps.
    case executedBefore(TransactionID, PartitionID, Revision?)
    case prepare(TransactionID, PartitionID, Term, participants: [PartitionID], Effects)
    /// Decided in this leader's log.
    case prepared(TransactionID, PartitionID)
    case refused(TransactionID, PartitionID)
    case release(TransactionID, PartitionID)

    // A node that a client talks to and the node that executes.
    case forward(token: UInt64, Request, within: TimeSpan, fence: UInt64, RequestTag?)
    case forwarded(token: UInt64, Response)
    /// Carried out at this revision, whose answer the client's node rebuilds from its own history.
    case executed(token: UInt64, Revision)
    /// Ask elsewhere. `isCertain`: not executed and never will be.
    case redirect(token: UInt64, isCertain: Bool)
    case cancelForward(token: UInt64)
}
