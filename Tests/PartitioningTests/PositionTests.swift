import Primitives
import Testing

@testable import Partitioning

/// When the record of what is applied may wait (`StoreChange.position`).
@Suite struct PositionTests {
    private static let group = GroupID(keyspace: .standard, partition: PartitionID(1))
    private static let term = Term(round: 1, node: NodeID(1))

    /// A replica and what its store holds.
    private struct Replica {
        var state = PartitionState(group: group)
        var records: [Bytes: Bytes] = [:]
        var number: UInt64 = 0
        var changes: [StoreChange] = []

        mutating func apply(_ body: EntryBody) -> LogEntry {
            let kind: LogEntry.Kind = if case .begin = body { .begin } else { .normal }
            if kind == .normal { number += 1 }
            let entry = LogEntry(term: term, number: number, kind: kind, payload: body.encoded())
            apply(entry)
            return entry
        }

        mutating func apply(_ entry: LogEntry) {
            _ = state.apply(state.applied.next, entry, skipped: false, into: &changes)
        }

        /// Whether the store is told of the applied slot at once.
        mutating func endTurn(expecting atOnce: Bool, _ location: SourceLocation = #_sourceLocation) {
            state.flushScalars(into: &changes)
            var isAtOnce = false
            for change in changes {
                switch change {
                case .putRecord(_, let key, let value): records[key] = value
                case .removeRecord(_, let key): records[key] = nil
                case .applied: isAtOnce = true
                case .putRow, .removeRow, .position, .drop: break
                }
            }
            changes.removeAll()
            #expect(isAtOnce == atOnce, sourceLocation: location)
        }
    }

    private static func effects(_ revision: Int64, lease: Int64 = 0) -> Effects {
        let revision = Revision(revision), stamp = Stamp(ticks: UInt64(revision.rawValue), region: RegionID(1))
        let row = Row(
            key: "key", value: "value", createRevision: revision, modRevision: revision, version: 1,
            lease: LeaseID(lease), sub: 0,
            origin: Origin(region: RegionID(1), revision: revision, stamp: stamp))
        return Effects(revision: revision, epoch: term, stamp: stamp, rows: [row])
    }
    private static let transaction = TransactionID(
        name: RequestName(node: NodeID(1), boot: 1, sequence: 1), attempt: 1)

    @Test func `rows alone leave the record for later, anything else does not`() {
        var replica = Replica()
        _ = replica.apply(.begin(epoch: Self.term))
        replica.endTurn(expecting: true)
        _ = replica.apply(.effects(Self.effects(2)))
        replica.endTurn(expecting: false)
        _ = replica.apply(.effects(Self.effects(3)))
        _ = replica.apply(.leaseGrant(LeaseID(7), ttlSeconds: 60))
        _ = replica.apply(.effects(Self.effects(4)))
        replica.endTurn(expecting: true)
        // The key is attached, then no longer.
        _ = replica.apply(.effects(Self.effects(5, lease: 7)))
        replica.endTurn(expecting: true)
        _ = replica.apply(.effects(Self.effects(6)))
        replica.endTurn(expecting: true)
        _ = replica.apply(.effects(Self.effects(7)))
        replica.endTurn(expecting: false)
        _ = replica.apply(
            .prepared(Prepared(transaction: Self.transaction, participants: [], effects: Self.effects(8))))
        replica.endTurn(expecting: true)
        _ = replica.apply(.effects(Self.effects(9)))
        replica.endTurn(expecting: false)
        // The frontier has come to what is prepared: its record goes.
        _ = replica.state.heard(frontier: Revision(9), into: &replica.changes)
        replica.endTurn(expecting: true)
        replica.endTurn(expecting: false)
    }

    @Test func `what was recorded, and the log from there on, is the same state`() throws {
        var replica = Replica()
        _ = replica.apply(.begin(epoch: Self.term))
        _ = replica.apply(
            .prepared(Prepared(transaction: Self.transaction, participants: [], effects: Self.effects(2))))
        replica.endTurn(expecting: true)
        var later: [LogEntry] = []
        for revision in 3...9 as ClosedRange<Int64> {
            later.append(replica.apply(.effects(Self.effects(revision))))
            replica.endTurn(expecting: false)
        }
        var again = Replica()
        again.state = try PartitionState(
            group: Self.group, records: replica.records.map { (key: $0.key, value: $0.value) })
        #expect(again.state.applied == Slot(2))
        for entry in later { again.apply(entry) }
        #expect(again.state.encodedScalars() == replica.state.encodedScalars())
        #expect(again.state.prepared == replica.state.prepared)
    }
}
