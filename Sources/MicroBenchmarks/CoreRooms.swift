import Node
import Partitioning
import Primitives

// The whole core of a node that is alone: from a request to its answer, with a disk and a store that
// answer at once.

extension Room {
    static var coreRooms: [Room] {
        [
            Room("core, lone put", per: "put, alone in its turns", warmUp: 500, operations: 500,
                budget: .corePut, prepare: { try core(inFlight: 1) }),
            Room("core, put", per: "put, 64 in a turn", units: 64, warmUp: 20, operations: 50,
                budget: .coreBatch, prepare: { try core(inFlight: 64) }),
        ]
    }

    private static func core(inFlight count: Int) throws -> Step {
        let node = try LonelyNode()
        return Step(run: { try node.putSome(count) })
    }
}

private final class LonelyNode {
    private var node: Node
    private var clock = ClockReading(
        instant: Instant(nanoseconds: 1_000_000_000), wallMicroseconds: 1_000_000)
    private var effects = NodeEffects()
    private var applied: [GroupID: Slot] = [:]
    private var inputs: [NodeInput] = []
    private var next: [NodeInput] = []
    private var answers = 0
    /// Tokens are as the facade's: a slot, and how often it was used.
    private var generation: UInt64 = 0
    private let keys = (0..<64).map(Room.key)

    init() throws {
        node = try Node(
            configuration: NodeConfiguration(
                region: RegionID(1), node: NodeID(1), nodes: [NodeID(1)], partitions: 8, boot: 7),
            restored: RestoredNode(), at: clock)
        // Leaders are elected, the sequencer's lease begins.
        for _ in 0..<1000 {
            advance(microseconds: 10_000)
            inputs.append(.wake)
            run()
        }
    }

    func putSome(_ count: Int) throws {
        advance(microseconds: 100)
        let before = answers
        generation += 1
        for n in 0..<count {
            let put = Put(key: keys[n], value: Room.value)
            inputs.append(
                .request(
                    .transaction(Transaction(success: [.put(put)])), token: generation << 32 | UInt64(n),
                    deadline: clock.instant.advanced(by: .seconds(5))))
        }
        run()
        guard answers == before + count else { throw BenchmarkError("answers are missing") }
    }

    private func advance(microseconds: UInt64) {
        clock = ClockReading(
            instant: clock.instant.advanced(by: .microseconds(microseconds)),
            wallMicroseconds: clock.wallMicroseconds + microseconds)
    }

    /// Turns at one moment, until nothing is left to do in it.
    private func run() {
        while !inputs.isEmpty {
            for input in inputs { node.step(input, at: clock, into: &effects) }
            node.finishTurn(at: clock, into: &effects)
            next.removeAll(keepingCapacity: true)
            for change in effects.store {
                switch change {
                case .applied(let group, let slot), .position(let group, let slot): applied[group] = slot
                case .putRow, .removeRow, .putRecord, .removeRecord, .drop: break
                }
            }
            if !effects.persist.isEmpty { next.append(.durable(effects.ticket)) }
            for read in effects.reads {
                next.append(
                    .read(token: read.token, ReadAnswer(applied: applied[read.group] ?? .zero, rows: [])))
            }
            answers += effects.responses.count
            let wake = effects.nextWake
            effects.removeAll()
            if next.isEmpty, wake <= clock.instant { next.append(.wake) }
            swap(&inputs, &next)
        }
    }
}
