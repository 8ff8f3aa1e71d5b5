import Primitives
import Testing

@testable import Node

@Suite struct WaitingTableTests {
    private func waiting(_ sequence: UInt64) -> Node.Waiting {
        Node.Waiting(
            request: .leaseList, deadline: Instant(nanoseconds: sequence), fence: 0, sequence: sequence)
    }

    @Test func `finds what waits, whatever its token looks like`() {
        var table = WaitingTable()
        // Dense ones, two of one place, internal ones, and beyond all places.
        let tokens: [UInt64] = [0, 1, 1 << 32 | 1, 2 << 32 | 7, 1 << 63, 1 << 63 | 1, 0xFFFF_FFFF, 70_000]
        for (i, token) in tokens.enumerated() {
            #expect(table[token] == nil)
            table.insert(waiting(UInt64(i + 1)), for: token)
            #expect(table.count == i + 1)
        }
        for (i, token) in tokens.enumerated() { #expect(table.sequence(token) == UInt64(i + 1)) }
        #expect(table.tokens == tokens.sorted())
        #expect(table.tokens { $0.sequence > 6 } == [70_000, 0xFFFF_FFFF].sorted())
        for (i, token) in tokens.enumerated() {
            #expect(table.removeValue(forKey: token)?.sequence == UInt64(i + 1))
            #expect(table.removeValue(forKey: token) == nil)
            #expect(table[token] == nil)
        }
        #expect(table.isEmpty)
    }

    @Test func `changes in place, and takes in or lets go by assignment`() {
        var table = WaitingTable()
        table[5]?.wasSent = true
        #expect(table.isEmpty)
        table[5] = waiting(1)
        table[5]?.wasSent = true
        #expect(table[5]?.wasSent == true)
        table[5] = nil
        #expect(table.isEmpty && table.tokens.isEmpty)
        table.insert(waiting(2), for: 1 << 32 | 5)
        #expect(table[5] == nil)
        #expect(table.sequence(1 << 32 | 5) == 2)
    }
}
