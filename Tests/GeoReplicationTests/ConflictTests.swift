import GeoReplication
import Primitives
import Testing

@Suite struct ConflictTests {
    init() { MutationUnderTest.set() }

    /// All orders of arrival that respect each origin's own order give the same version of a key.
    @Test(arguments: UInt64(1)...40)
    func `any order of arrival gives the same winner`(seed: UInt64) {
        var random = SplitMix(seed: seed)
        var streams: [[Row]] = (1...3).map { region in
            var ticks: UInt64 = 0
            return (1...4).map { revision in
                ticks += 1 + random.below(20)
                return Self.row(
                    region: UInt16(region), revision: Int64(revision), ticks: ticks,
                    value: random.chance(1, in: 4) ? nil : Bytes("\(region).\(revision)"))
            }
        }
        streams = streams.map { $0 }
        var winners: Set<Origin> = []
        for _ in 0..<20 {
            var rest = streams
            var held: Row?
            while rest.contains(where: { !$0.isEmpty }) {
                let i = Int(random.below(3))
                if rest[i].isEmpty { continue }
                let row = rest[i].removeFirst()
                let batch = ReplicationBatch(
                    origin: row.origin.region, from: Revision(row.origin.revision.rawValue - 1),
                    through: row.origin.revision, seen: [], changes: [row])
                // Twice: applying a change again changes nothing.
                for _ in 0..<2 {
                    let resolution = ConflictResolver.resolve(batch, held: held.map { [$0] } ?? [])
                    if let winner = resolution.rows.first { held = winner }
                }
            }
            if let held { winners.insert(held.origin) }
        }
        #expect(winners.count == 1)
    }

    @Test func `a change that had seen what it replaces is no conflict`() {
        let held = Self.row(region: 2, revision: 7, ticks: 10, value: "old")
        let change = Self.row(region: 1, revision: 3, ticks: 11, value: "new")
        #expect(Self.resolve(change, seen: 7, held: held).conflicts.isEmpty)
        #expect(Self.resolve(change, seen: 6, held: held).conflicts.count == 1)
        #expect(Self.resolve(change, seen: 6, held: held).rows.map(\.value) == ["new"])
    }

    @Test func `an old repetition loses silently`() {
        let held = Self.row(region: 1, revision: 7, ticks: 10, value: "new")
        let change = Self.row(region: 1, revision: 3, ticks: 5, value: "old")
        #expect(Self.resolve(change, seen: 0, held: held) == Resolution())
    }

    @Test func `a tombstone that is held wins over an older write`() {
        let held = Self.row(region: 2, revision: 7, ticks: 10, value: nil)
        let change = Self.row(region: 1, revision: 3, ticks: 5, value: "older")
        let resolution = Self.resolve(change, seen: 0, held: held)
        #expect(resolution.rows.isEmpty)
        #expect(resolution.conflicts.count == 1)
    }

    @Test func `a winner goes on counting as a local write would and has no lease`() {
        var held = Self.row(region: 2, revision: 7, ticks: 10, value: "old")
        held.createRevision = Revision(4)
        held.version = 5
        var change = Self.row(region: 1, revision: 3, ticks: 11, value: "new")
        change.lease = LeaseID(9)
        let row = Self.resolve(change, seen: 7, held: held).rows[0]
        #expect(row.createRevision == Revision(4))
        #expect(row.version == 6)
        #expect(row.lease == .none)
        #expect(row.modRevision == Revision(.max))
        #expect(row.origin == change.origin)
        #expect(Self.resolve(change, seen: 7, held: held).replacedStamp == held.origin.stamp)
    }

    @Test func `records of the feed survive their encoding`() throws {
        let record = ConflictRecord(
            policy: .lastWriterWins, winner: Self.row(region: 1, revision: 2, ticks: 3, value: "w"),
            loser: Self.row(region: 2, revision: 4, ticks: 1, value: nil))
        #expect(try ConflictRecord(decoding: record.encoded()) == record)
        for cut in 0..<record.encoded().count {
            #expect(throws: DecodingError.self) {
                try ConflictRecord(decoding: record.encoded()[0..<cut])
            }
        }
    }

    private static func resolve(_ change: Row, seen: Int64, held: Row) -> Resolution {
        let batch = ReplicationBatch(
            origin: change.origin.region, from: .zero, through: change.origin.revision,
            seen: [.init(region: held.origin.region, revision: Revision(seen))], changes: [change])
        return ConflictResolver.resolve(batch, held: [held])
    }

    private static func row(region: UInt16, revision: Int64, ticks: UInt64, value: Bytes?) -> Row {
        Row(
            key: "k", value: value ?? .empty, createRevision: Revision(revision),
            modRevision: Revision(revision), version: value == nil ? 0 : 1, lease: .none, sub: 0,
            origin: Origin(
                region: RegionID(region), revision: Revision(revision),
                stamp: Stamp(ticks: ticks, region: RegionID(region))))
    }
}
