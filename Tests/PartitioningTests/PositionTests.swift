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

        /// Whether the store is told of the applied slot at once. Returns what it is given of records.
        @discardableResult
        mutating func endTurn(
            expecting atOnce: Bool, waiting most: Int = 100, _ location: SourceLocation = #_sourceLocation
        ) -> [StoreChange] {
            state.tellStore(waiting: most, into: &changes)
            let told = write()
            #expect(told.contains { if case .applied = $0 { true } else { false } } == atOnce, sourceLocation: location)
            return told
        }

        /// The store is about to be made durable. Returns the letters of the records that are written, and of
        /// those that go in capitals.
        mutating func record() -> String {
            state.record(into: &changes)
            return String(
                decoding: write().compactMap { change -> UInt8? in
                    switch change {
                    case .putRecord(_, let key, _): key[0]
                    case .removeRecord(_, let key): key[0] - 32
                    case .putRow, .removeRow, .applied, .position, .drop: nil
                    }
                }, as: UTF8.self)
        }

        private mutating func write() -> [StoreChange] {
            defer { changes = [] }
            for change in changes {
                switch change {
                case .putRecord(_, let key, let value): records[key] = value
                case .removeRecord(_, let key):
                    #expect(records[key] != nil, "nothing is removed that is not there")
                    records[key] = nil
                case .applied, .putRow, .removeRow, .position, .drop: break
                }
            }
            return changes
        }

        /// Begun again from the store's records.
        func again() throws -> Replica {
            var again = Replica()
            again.records = records
            again.state = try PartitionState(
                group: group, records: records.map { (key: $0.key, value: $0.value) })
            again.number = state.appliedNumber
            return again
        }

        func expectRecorded(_ location: SourceLocation = #_sourceLocation) {
            let late = records.filter { PartitionState.isLate($0.key) }.sorted { $0.key < $1.key }
            let own = state.lateRecords()
            #expect(late.map(\.key) == own.map(\.key), sourceLocation: location)
            #expect(late.map(\.value) == own.map(\.value), sourceLocation: location)
        }
    }

    private static func effects(
        _ revision: Int64, lease: Int64 = 0, key: Bytes = "key", ending: [LeaseID] = []
    ) -> Effects {
        let revision = Revision(revision), stamp = Stamp(ticks: UInt64(revision.rawValue), region: RegionID(1))
        let row = Row(
            key: key, value: "value", createRevision: revision, modRevision: revision, version: 1,
            lease: LeaseID(lease), sub: 0,
            origin: Origin(region: RegionID(1), revision: revision, stamp: stamp))
        var effects = Effects(revision: revision, epoch: term, stamp: stamp, rows: [row])
        effects.leasesEnded = ending
        return effects
    }
    private static func transaction(_ number: UInt64) -> TransactionID {
        TransactionID(name: RequestName(node: NodeID(1), boot: 1, sequence: number), attempt: 1)
    }
    private static func prepared(_ effects: Effects) -> EntryBody {
        .prepared(
            Prepared(
                transaction: transaction(UInt64(effects.revision.rawValue)), participants: [], effects: effects))
    }

    @Test func `what its log brings about again waits for the store to be made durable`() {
        var replica = Replica()
        _ = replica.apply(.begin(epoch: Self.term))
        replica.endTurn(expecting: true)
        _ = replica.apply(.effects(Self.effects(2)))
        replica.endTurn(expecting: false)
        _ = replica.apply(.leaseGrant(LeaseID(7), ttlSeconds: 60))
        // The key is attached, then no longer.
        _ = replica.apply(.effects(Self.effects(3, lease: 7)))
        replica.endTurn(expecting: false)
        _ = replica.apply(.effects(Self.effects(4)))
        _ = replica.apply(Self.prepared(Self.effects(5, lease: 7)))
        replica.endTurn(expecting: false)
        #expect(replica.records.count == 1)
        #expect(replica.record() == "klps")
        replica.expectRecorded()
        // The frontier has come to what is prepared: its record goes, with the next ones.
        replica.state.heard(frontier: Revision(9))
        replica.endTurn(expecting: false)
        _ = replica.apply(.seal(epoch: Self.term))
        replica.endTurn(expecting: true)
        replica.expectRecorded()
        #expect(replica.endTurn(expecting: false).isEmpty)
    }

    @Test func `what comes and goes between two flushes is never written`() {
        var replica = Replica()
        _ = replica.apply(.begin(epoch: Self.term))
        replica.endTurn(expecting: true)
        _ = replica.apply(.leaseGrant(LeaseID(7), ttlSeconds: 60))
        for n in 0..<10 as Range<Int64> {
            _ = replica.apply(Self.prepared(Self.effects(2 + n, lease: 7, key: Bytes("key\(n)"))))
        }
        replica.endTurn(expecting: false)
        for n in 0..<10 as Range<Int64> {
            _ = replica.apply(
                Self.prepared(
                    Self.effects(12 + n, key: Bytes("key\(n)"), ending: n == 9 ? [LeaseID(7)] : [])))
        }
        replica.endTurn(expecting: false)
        replica.state.heard(frontier: Revision(21))
        #expect(replica.record() == "s")
        // What the store has is taken from it again.
        _ = replica.apply(.leaseGrant(LeaseID(8), ttlSeconds: 60))
        _ = replica.apply(.effects(Self.effects(22, lease: 8)))
        #expect(replica.record() == "kls")
        _ = replica.apply(Self.prepared(Self.effects(23, ending: [LeaseID(8)])))
        #expect(replica.record() == "KLps")
        // Removed, and there again: as if it had not been away.
        _ = replica.apply(.effects(Self.effects(24, lease: 9)))
        #expect(replica.record() == "ks")
        _ = replica.apply(.effects(Self.effects(25)))
        _ = replica.apply(.effects(Self.effects(26, lease: 10)))
        _ = replica.apply(.aborted(Self.transaction(23), Revision(23)))
        #expect(replica.record() == "klPs")
        replica.expectRecorded()
        _ = replica.apply(.effects(Self.effects(27)))
        #expect(replica.record() == "Ks")
        replica.expectRecorded()
    }

    @Test func `only so many records wait`() {
        var replica = Replica()
        _ = replica.apply(.leaseGrant(LeaseID(7), ttlSeconds: 60))
        for n in 0..<9 as Range<Int64> {
            _ = replica.apply(.effects(Self.effects(2 + n, lease: 7, key: Bytes("key\(n)"))))
            replica.endTurn(expecting: false, waiting: 10)
        }
        // Not those that need no record any more.
        for n in 0..<9 as Range<Int64> {
            _ = replica.apply(.effects(Self.effects(20 + n, key: Bytes("key\(n)"))))
            replica.endTurn(expecting: false, waiting: 10)
        }
        for n in 0..<10 as Range<Int64> {
            _ = replica.apply(.effects(Self.effects(40 + n, lease: 7, key: Bytes("key\(n)"))))
            replica.endTurn(expecting: n == 9, waiting: 10)
        }
        replica.expectRecorded()
    }

    /// All that may wait, in every order: whenever the records were written, what they say and the log from
    /// there on is the same state.
    @Test func `what was recorded, and the log from there on, is the same state`() throws {
        var dice = SplitMix(seed: 24)
        for _ in 0..<40 {
            var replica = Replica()
            _ = replica.apply(.begin(epoch: Self.term))
            var later: [LogEntry] = []
            var recorded = replica
            _ = recorded.record()
            replica = recorded
            var revision: Int64 = 1
            var open: [Int64] = []
            for _ in 0..<60 {
                revision += 1
                let lease = LeaseID(Int64(1 + dice.below(3)))
                let effects = Self.effects(
                    revision, lease: dice.below(2) == 0 ? 0 : lease.rawValue, key: Bytes("key\(dice.below(4))"),
                    ending: dice.below(8) == 0 ? [lease] : [])
                let body: EntryBody
                switch dice.below(8) {
                case 0: body = .leaseGrant(lease, ttlSeconds: 60)
                case 1: body = .leaseRevoked(lease)
                case 2: body = .leaseCheckpoints([LeaseCheckpoint(lease: lease, remainingSeconds: 30)])
                case 3 where !open.isEmpty:
                    let undone = open.removeLast()
                    body = .aborted(Self.transaction(UInt64(undone)), Revision(undone))
                case 4, 5:
                    open.append(revision)
                    body = Self.prepared(effects)
                default:
                    // Nothing that is prepared is written over.
                    if !open.isEmpty, dice.below(2) == 0 {
                        replica.state.heard(frontier: Revision(revision - 1))
                        open = []
                    }
                    body = .effects(effects)
                }
                later.append(replica.apply(body))
                replica.endTurn(expecting: false)
                if dice.below(12) == 0 {
                    _ = replica.record()
                    replica.expectRecorded()
                    recorded = replica
                    later = []
                }
            }
            var again = try recorded.again()
            for entry in later { again.apply(entry) }
            again.state.heard(frontier: replica.state.heardFrontier)
            #expect(again.state.lateRecords().map(\.value) == replica.state.lateRecords().map(\.value))
            _ = again.record()
            again.expectRecorded()
        }
    }

    @Test func `a store that holds an older snapshot is brought to the state`() throws {
        var replica = Replica()
        _ = replica.apply(.begin(epoch: Self.term))
        _ = replica.record()
        let lease = LeaseID(7)
        _ = replica.apply(.leaseGrant(lease, ttlSeconds: 60))
        _ = replica.apply(.effects(Self.effects(2, lease: 7, key: "goes")))
        _ = replica.apply(Self.prepared(Self.effects(3, lease: 7, key: "stays")))
        // What another replica has recorded at this slot.
        var other = replica
        _ = other.record()
        _ = replica.apply(.effects(Self.effects(4, key: "goes")))
        replica.state.heard(frontier: Revision(4))
        replica.records = other.records
        replica.changes = []
        replica.state.replaceRecords(
            replica.records.map { (key: $0.key, value: $0.value) }, into: &replica.changes)
        replica.endTurn(expecting: true)
        replica.expectRecorded()
        #expect(replica.record() == "s")
        _ = replica.apply(.effects(Self.effects(5, key: "stays")))
        #expect(replica.record() == "Ks")
        replica.expectRecorded()
    }
}
