import MicroBenchmarks
import Testing

/// Allocations are promised (Sources/MicroBenchmarks/Budgets.swift); times are not.
@Suite struct BudgetTests {
    @Test(.enabled(if: Room.canCount), arguments: Room.all.map(\.name))
    func `a room stays within its budget`(name: String) throws {
        let room = try #require(Room.all.first { $0.name == name })
        let sample = try room.measure()
        #expect(
            sample.allocations <= room.budget.current,
            "\(name): \(sample.allocations) allocations a \(room.unit); the budget is \(room.budget.current)")
    }

    @Test(.enabled(if: Room.canCount)) func `what is allocated is counted`() throws {
        // The evaluator cannot do without a row.
        let room = try #require(Room.all.first { $0.name == "put evaluation" })
        #expect(try room.measure().allocations >= 1)
    }
}
