import Primitives
import Testing

@testable import Partitioning

@Suite struct RequestTableTests {
    private func name(_ sequence: UInt64, boot: UInt64 = 7) -> RequestName {
        RequestName(node: NodeID(1), boot: boot, sequence: sequence)
    }

    private func insert(
        _ table: inout RequestTable, _ sequence: UInt64, mark: UInt64, revision: Int64, slot: UInt64,
        isPrepared: Bool = false
    ) {
        table.insert(
            RequestMark(name: name(sequence), mark: mark), revision: Revision(revision),
            slot: Slot(slot), isPrepared: isPrepared)
    }

    @Test func `what was carried out is found with its revision, by its whole name`() {
        var table = RequestTable(completeFrom: .zero)
        insert(&table, 3, mark: 1, revision: 12, slot: 5)
        #expect(table.find(name(3), after: .zero) == .executed(Revision(12)))
        #expect(table.find(name(3, boot: 8), after: .zero) == .absent)
    }

    @Test func `a request from before the table began may have been carried out`() {
        let table = RequestTable(completeFrom: Slot(10))
        #expect(table.find(name(1), after: Slot(9)) == .unknown)
        #expect(table.find(name(1), after: Slot(10)) == .absent)
    }

    @Test func `entries below their node's mark go, and are not missed`() {
        var table = RequestTable(completeFrom: .zero)
        for i in 1...100 {
            insert(&table, UInt64(i), mark: UInt64(i), revision: Int64(i), slot: UInt64(i))
        }
        #expect(table.count == 1)
        #expect(table.find(name(101), after: .zero) == .absent)
    }

    @Test func `an open request that has no room leaves a table that does not vouch for it`() {
        var table = RequestTable(completeFrom: .zero, countMax: 10)
        for i in 1...11 { insert(&table, UInt64(i), mark: 1, revision: Int64(i), slot: UInt64(i)) }
        #expect(table.find(name(1), after: .zero) == .unknown)
        #expect(table.find(name(2), after: .zero) == .executed(Revision(2)))
        #expect(table.find(name(99), after: Slot(1)) == .absent)
    }

    @Test func `an attempt that is undone was not carried out, its repetition was`() {
        var table = RequestTable(completeFrom: .zero)
        insert(&table, 1, mark: 1, revision: 20, slot: 4, isPrepared: true)
        table.undo(Revision(20))
        #expect(table.find(name(1), after: .zero) == .absent)
        insert(&table, 1, mark: 1, revision: 22, slot: 6, isPrepared: true)
        insert(&table, 5, mark: 1, revision: 23, slot: 7)
        #expect(table.find(name(1), after: .zero) == .executed(Revision(22)))
        table.covered(through: Revision(22))
        table.undo(Revision(22))
        #expect(table.find(name(1), after: .zero) == .executed(Revision(22)))
    }

    @Test func `only the newest attempt of a request goes on`() {
        var memory = AttemptMemory()
        let answers = [5, 5, 6].map { memory.insert(name(1), attempt: $0) }
        #expect(answers == [true, false, true])
        #expect(memory.isOvertaken(name(1), attempt: 5))
        #expect(!memory.isOvertaken(name(1), attempt: 6))
        #expect(!memory.isOvertaken(name(2), attempt: 1))
    }

    @Test func `an entry names its request, and one without reads as before`() throws {
        let mark = RequestMark(name: name(9), mark: 4)
        let body = EntryBody.leaseGrant(LeaseID(77), ttlSeconds: 10)
        let named = try EntryBody.decode(body.encoded(for: mark))
        #expect(named.body == body)
        #expect(named.request == mark)
        let plain = try EntryBody.decode(body.encoded())
        #expect(plain.body == body)
        #expect(plain.request == nil)
    }
}
