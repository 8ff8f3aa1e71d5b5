import Node
import Partitioning
import Primitives

/// A node's process and its machine: the pure core, its disk and its clocks. The machine outlives the
/// process.
final class SimulatedNode {
    let address: NodeAddress
    /// On its disk, too.
    var identity: Identity
    /// It was removed from its region.
    var isRetired = false
    var clock: NodeClock
    var log = SimulatedLog()
    var store = SimulatedStore()
    /// What a crash leaves of the store.
    var flushed = SimulatedStore()
    /// Of all row changes of each group so far, in order: equal on all replicas at the same slot.
    var digests: [GroupID: UInt64] = [:]
    /// Of these the digest here says nothing.
    var undigested: Set<GroupID> = []
    var flushedDigests: [GroupID: UInt64] = [:]
    /// As of the slots that the store's records say are applied.
    private(set) var recordedDigests: [GroupID: UInt64] = [:]
    var flushes = 0

    private(set) var isUp = false
    /// Nil while the process is dead, and while a turn has it.
    var core: Node?
    /// Counts the processes; events of an earlier one are dropped.
    var life: UInt64 = 0
    var inbox: [NodeInput] = []
    var isTurnScheduled = false
    var isFrozen = false
    var isSyncing = false
    /// Until then a sync takes so long.
    var busy: (until: Instant, sync: TimeSpan) = (.zero, .zero)
    var isFlushing = false
    /// Crash in the middle of a turn: after so many turns, at which step of the host's work.
    var armed: (turns: Int, step: Int)?
    var armedRestart = TimeSpan.zero
    /// Crash when it is about to send such a message, or has just sent it.
    var armedMoment: (moment: Moment, afterSending: Bool)?
    var wakeDue = Instant.never
    var stream: WatchStream?
    /// Where the region is spread: the frontier to which its watchers are still to be brought.
    var streamDue = Revision.zero
    var effects = NodeEffects()
    /// What its door checks with.
    var users = AuthState()

    init(address: NodeAddress, clock: NodeClock) {
        self.address = address
        self.clock = clock
        identity = Identity(
            token: UInt64(address.node.rawValue), node: address.node, peers: [], isFounder: true)
    }

    func start(_ core: Node) {
        self.core = core
        isUp = true
    }

    /// Agreement, from outside: what the log did to the store, as a chain of hashes.
    func apply(_ change: StoreChange, map: RegionMap) -> (GroupID, Slot)? {
        store.apply(change)
        switch change {
        case .putRow(let keyspace, let row):
            var writer = ByteWriter(capacity: 96)
            writer.byte(1)
            writer.row(row)
            let partition = map.partition(of: row.key, at: row.modRevision)
            extend(GroupID(keyspace: keyspace, partition: partition), writer)
        case .removeRow(let keyspace, let key, let revision, let sub):
            var writer = ByteWriter(capacity: 32)
            writer.byte(2)
            writer.bytes(key)
            writer.id(revision)
            writer.varint(UInt64(sub))
            let partition = map.partition(of: key, at: revision)
            extend(GroupID(keyspace: keyspace, partition: partition), writer)
        case .putRecord, .removeRecord: break
        case .applied(let group, let slot):
            recordedDigests[group] = digests[group]
            return (group, slot)
        case .position(let group, let slot): return (group, slot)
        case .drop(let group, _, _):
            digests[group] = nil
            recordedDigests[group] = nil
        }
        return nil
    }

    /// As the host does, at a moment at which the store has been given all that the core has done. Returns a group
    /// whose records then tell of another state than the core's.
    func recordPositions() -> GroupID? {
        let groups = store.unrecorded.sorted()
        var changes: [StoreChange] = []
        core?.record(groups, into: &changes)
        for change in changes { store.apply(change) }
        recordedDigests = digests
        return groups.first { group in
            let late = store.records(of: group).filter { PartitionState.isLate($0.key) }
            return core?.lateRecords(of: group).map { own in
                late.map(\.key) != own.map(\.key) || late.map(\.value) != own.map(\.value)
            } ?? false
        }
    }

    private func extend(_ group: GroupID, _ writer: ByteWriter) {
        var hash = TraceHash()
        hash.add(digests[group] ?? 0)
        hash.add(Bytes(writer.bytes))
        digests[group] = hash.value
    }

    func crash(random: inout SplitMix) {
        core = nil
        isUp = false
        life += 1
        inbox.removeAll()
        isTurnScheduled = false
        isFrozen = false
        isSyncing = false
        isFlushing = false
        armed = nil
        armedMoment = nil
        wakeDue = .never
        streamDue = .zero
        log.crash(random: &random)
        store = flushed
        digests = flushedDigests
        recordedDigests = digests
        effects = NodeEffects()
    }

    struct Identity {
        var token: UInt64
        /// `.none`: not admitted yet.
        var node: NodeID
        var peers: [NodeID]
        var isFounder: Bool
    }

    /// The disk is gone. What comes back is nobody yet.
    func wipe(token: UInt64) {
        log = SimulatedLog()
        store = SimulatedStore()
        flushed = SimulatedStore()
        digests = [:]
        flushedDigests = [:]
        undigested = []
        identity = Identity(token: token, node: .none, peers: [], isFounder: false)
    }

    func restored() -> RestoredNode {
        var records: [GroupID: [(key: Bytes, value: Bytes)]] = [:]
        for group in store.groups { records[group] = store.records(of: group) }
        return RestoredNode(logs: log.restored(), records: records)
    }
}

/// What one process told its watchers: checked against the region's history at the end.
struct WatchStream {
    let address: NodeAddress
    let life: UInt64
    private(set) var start: Revision?
    private(set) var through = Revision.zero
    private(set) var emitted: [Revision] = []

    init(address: NodeAddress, life: UInt64) {
        self.address = address
        self.life = life
    }

    mutating func begin(after revision: Revision) {
        start = revision
        through = revision
    }

    mutating func add(_ changes: [RevisionChanges], through new: Revision) throws(Violation) {
        if start == nil {
            let first = changes.first.map { Revision($0.revision.rawValue - 1) } ?? new
            start = first
            through = first
        }
        for change in changes {
            guard change.revision > through, change.revision <= new else {
                throw Violation(
                    "watches are ordered and without duplicates",
                    "\(address) emits \(change.revision) after \(through), through \(new)")
            }
            through = change.revision
            emitted.append(change.revision)
        }
        guard new >= through else {
            throw Violation("the frontier never goes back", "\(address): \(new) after \(through)")
        }
        through = new
    }

    /// No event of the history is missing in what was emitted.
    func check(against timeline: RegionTimeline) -> Violation? {
        guard let start else { return nil }
        let expected = timeline.changes.keys.filter { $0 > start && $0 <= through }.sorted()
        if expected == emitted { return nil }
        let missing = Set(expected).subtracting(emitted).sorted()
        return Violation(
            "watches are gapless", "\(address) life \(life), (\(start), \(through)]: missing \(missing.prefix(10)) (\(missing.count))")
    }
}
