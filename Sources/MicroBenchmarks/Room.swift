import CAllocations

/// One step of the way of a request, apart from all others, done again and again.
package struct Room {
    package struct Sample: Sendable {
        /// Of the thread's CPU, or of the clock if the room waits for something.
        package var nanos: Double
        package var allocations: Double
        package var bytes: Double
    }

    package let name: String
    /// What one unit is, of which an operation may have several.
    package let unit: String
    package let budget: Budget
    let warmUp: Int
    let operations: Int
    let units: Int
    let waits: Bool
    let prepare: () throws -> Step

    /// What is repeated, and what other threads have allocated for it since `prepare`.
    struct Step {
        var run: () throws -> Void
        var elsewhere: () -> (allocations: Int64, bytes: Int64) = { (0, 0) }
        var finish: () -> Void = {}
    }

    init(
        _ name: String, per unit: String, units: Int = 1, warmUp: Int = 300, operations: Int = 1000,
        waits: Bool = false, budget: Budget, prepare: @escaping () throws -> Step
    ) {
        self.name = name
        self.unit = unit
        self.units = units
        self.warmUp = warmUp
        self.operations = operations
        self.waits = waits
        self.budget = budget
        self.prepare = prepare
    }

    /// Does the C library of this build let itself be counted?
    package static var canCount: Bool { polder_allocations() >= 0 }

    /// In the steady state: buffers have grown, caches are warm. The best of some rounds.
    package func measure(rounds: Int = 1) throws -> Sample {
        let step = try prepare()
        defer { step.finish() }
        for _ in 0..<warmUp { try step.run() }
        var best = Sample(nanos: .infinity, allocations: .infinity, bytes: .infinity)
        for _ in 0..<min(max(1, rounds), 10) {
            let other = step.elsewhere()
            let count = polder_allocations(), bytes = polder_allocated_bytes(), start = clock()
            for _ in 0..<operations { try step.run() }
            let nanos = clock() - start
            let ownCount = polder_allocations() - count, ownBytes = polder_allocated_bytes() - bytes
            let after = step.elsewhere()
            let all = Double(operations * units)
            best.nanos = min(best.nanos, Double(nanos) / all)
            best.allocations = min(
                best.allocations, Double(ownCount + after.allocations - other.allocations) / all)
            best.bytes = min(best.bytes, Double(ownBytes + after.bytes - other.bytes) / all)
        }
        return best
    }

    private func clock() -> UInt64 { waits ? polder_now() : polder_thread_cpu() }

    package static var all: [Room] { doorRooms + coreRooms + pureRooms + storageRooms }
}
