import Node
import Partitioning
import Primitives
import Testing

/// A node alone, with a disk and a store that answer at once and a clock that the test moves.
private struct Lonely {
    var node: Node
    var clock = ClockReading(instant: Instant(nanoseconds: 1_000_000_000), wallMicroseconds: 1_000_000)
    var effects = NodeEffects()
    var applied: [GroupID: Slot] = [:]
    var responses: [(token: UInt64, response: Response)] = []

    init() throws {
        let configuration = NodeConfiguration(
            region: RegionID(1), node: NodeID(1), nodes: [NodeID(1)], partitions: 2, boot: 7)
        node = try Node(configuration: configuration, restored: RestoredNode(), at: clock)
    }

    /// Turns at one moment, until nothing is left to do in it.
    mutating func run(_ inputs: [NodeInput]) {
        var inputs = inputs
        while !inputs.isEmpty {
            for input in inputs { node.step(input, at: clock, into: &effects) }
            node.finishTurn(at: clock, into: &effects)
            inputs = []
            for case .applied(let group, let slot) in effects.store { applied[group] = slot }
            if !effects.persist.isEmpty { inputs.append(.durable(effects.ticket)) }
            for read in effects.reads {
                let answer = ReadAnswer(applied: applied[read.group] ?? .zero, rows: [])
                inputs.append(.read(token: read.token, answer))
            }
            responses += effects.responses
            let next = effects.nextWake
            effects.removeAll()
            if inputs.isEmpty, next <= clock.instant { inputs.append(.wake) }
        }
    }

    mutating func advance(_ span: TimeSpan) {
        clock = ClockReading(
            instant: clock.instant.advanced(by: span),
            wallMicroseconds: clock.wallMicroseconds + UInt64(span.nanoseconds / 1000))
        run([.wake])
    }
}

@Suite struct PromptnessTests {
    /// What waits for a period costs a client that writes one thing after the other that period every
    /// time (bugs-found.md, "a lone put").
    @Test func `a lone put is answered when it is on the disk and at no later time`() throws {
        var lonely = try Lonely()
        lonely.run([.wake])
        for _ in 0..<1000 { lonely.advance(.milliseconds(10)) }
        for i in 1...20 {
            let put = Operation.put(Put(key: Bytes("k\(i % 3)"), value: "v"))
            lonely.advance(.milliseconds(7))
            lonely.responses = []
            lonely.run([
                .request(
                    .transaction(Transaction(success: [put])), token: UInt64(i),
                    deadline: lonely.clock.instant.advanced(by: .seconds(5)))
            ])
            #expect(lonely.responses.map(\.token) == [UInt64(i)])
        }
    }
}
