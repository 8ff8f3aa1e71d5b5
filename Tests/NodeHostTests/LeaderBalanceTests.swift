import Primitives
import Testing

@testable import NodeHost

@Suite struct LeaderBalanceTests {
    private static let n1 = NodeID(1), n2 = NodeID(2), n3 = NodeID(3)
    private var balance = LeaderBalance()
    private var rule = LeaderBalance.Rule()

    private static func at(_ second: Int) -> Instant { Instant(nanoseconds: UInt64(second + 1) * 1_000_000_000) }

    /// Of four partitions, number 3 has the most writes.
    private static func led(_ second: Int, count: UInt32 = 4) -> [LeaderBalance.Led] {
        (1...count).map {
            .init(
                partition: PartitionID($0), writes: UInt64(second) * ($0 == 3 ? 900 : 100),
                others: [n2, n3])
        }
    }

    private mutating func moves(
        seconds: Int, own: UInt64, loads: [NodeID: UInt64], sequencer: NodeID? = nil, led count: UInt32 = 4
    ) -> [String] {
        var found: [String] = []
        balance = LeaderBalance()
        for second in 0..<seconds {
            for (node, load) in loads { balance.heard(node, load: load, at: Self.at(second)) }
            let move = balance.step(
                rule, own: own, led: Self.led(second, count: count), sequencer: sequencer, at: Self.at(second))
            if let move { found.append("\(second): \(move.partition) to \(move.to)") }
        }
        return found
    }

    @Test mutating func `a busy node gives its busiest partition to the idlest`() {
        let found = moves(seconds: 11, own: 900, loads: [Self.n2: 300, Self.n3: 100])
        #expect(found == ["4: 3 to 3", "9: 3 to 3"])
    }

    @Test mutating func `not for a moment, and not to who is busy as well`() {
        #expect(moves(seconds: 4, own: 990, loads: [Self.n2: 100]).isEmpty)
        #expect(moves(seconds: 20, own: 900, loads: [Self.n2: 700, Self.n3: 650]).isEmpty)
        #expect(moves(seconds: 20, own: 840, loads: [Self.n2: 100, Self.n3: 100]).isEmpty)
    }

    @Test mutating func `one partition alone stays`() {
        #expect(moves(seconds: 20, own: 990, loads: [Self.n2: 0, Self.n3: 0], led: 1).isEmpty)
    }

    @Test mutating func `nothing goes to whom nobody has heard of lately`() {
        balance.heard(Self.n2, load: 0, at: Self.at(0))
        var found = 0
        for second in 20..<40 {
            let move = balance.step(rule, own: 990, led: Self.led(second), sequencer: nil, at: Self.at(second))
            if move != nil { found += 1 }
        }
        #expect(found == 0)
    }

    @Test mutating func `what others lead comes back to the sequencer's node when there is little to do`() {
        let found = moves(seconds: 36, own: 100, loads: [Self.n2: 250, Self.n3: 0], sequencer: Self.n2)
        #expect(found == ["29: 1 to 2", "34: 1 to 2"])
    }

    @Test mutating func `and stays while together they are not idle`() {
        #expect(moves(seconds: 60, own: 200, loads: [Self.n2: 250], sequencer: Self.n2).isEmpty)
        #expect(moves(seconds: 60, own: 0, loads: [Self.n3: 0], sequencer: Self.n2).isEmpty)
    }

    @Test mutating func `what is given away does not come back under the same load`() {
        // 900 in all: three partitions of four stay with 675, one goes with 225.
        #expect(moves(seconds: 60, own: 225, loads: [Self.n1: 675], sequencer: Self.n1).isEmpty)
    }

    @Test mutating func `off is off`() {
        rule.isOn = false
        #expect(moves(seconds: 60, own: 990, loads: [Self.n2: 0, Self.n3: 0]).isEmpty)
        #expect(moves(seconds: 60, own: 0, loads: [Self.n2: 0], sequencer: Self.n2).isEmpty)
    }

    @Test mutating func `loads are told when they change, and now and then`() {
        let told = [100, 110, 149, 150, 151, 152, 153, 154, 155].enumerated().filter {
            balance.tells(UInt64($0.element), at: Self.at($0.offset))
        }.map(\.offset)
        #expect(told == [0, 3, 7])
    }
}
