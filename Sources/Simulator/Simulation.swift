package import Primitives

/// Runs a world from one seed: first anything may go wrong and nothing false may be said (safety), then
/// everything works and the world must come to rest in one state (liveness).
package enum Simulation {
    package struct Options: Sendable {
        package var seed: UInt64
        /// Of the phase in which things go wrong.
        package var duration = TimeSpan.seconds(4)
        package var isVerbose = false
        /// Nil: the seed decides.
        package var regions: Int?
        package var nodes: Int?
        package var partitions: Int?
        /// Names of kinds of faults; nil: the seed decides.
        package var faults: [String]?

        package init(seed: UInt64) { self.seed = seed }
    }

    package struct Counts: Equatable, Sendable {
        package var events = 0
        package var turns = 0
        package var messages = 0
        package var answered = 0
        package var failed = 0
        package var unknown = 0
        package var faults = 0
        package var crashes = 0
        package var leaderships = 0
        package var epochs = 0
        package var voids = 0
        package var conflicts = 0
        package var snapshots = 0
        package var revisions = 0
        /// Keys whose history was too wide to be searched.
        package var undecided = 0
    }

    package struct Outcome: Equatable, Sendable {
        package var seed: UInt64
        package var shape: String
        package var trace: UInt64
        package var violations: [Violation]
        package var counts: Counts
        package var simulated: TimeSpan

        package var isGood: Bool { violations.isEmpty }

        /// For people: what broke, and the one command that repeats it.
        package var report: String {
            var lines = ["seed \(seed): \(shape)"]
            for violation in violations { lines.append("  BROKEN \(violation)") }
            lines.append("  repeat with: make sim SEED=\(seed)")
            return lines.joined(separator: "\n")
        }

        package var summary: String {
            "seed \(seed) \(isGood ? "ok" : "BROKEN") trace \(String(trace, radix: 16)) \(shape): "
                + "\(counts.answered) answers, \(counts.unknown) unknown, \(counts.failed) errors, "
                + "\(counts.revisions) revisions, \(counts.voids) void, \(counts.crashes) crashes, "
                + "\(counts.leaderships) leaderships, \(counts.epochs) epochs, "
                + "\(counts.conflicts) conflicts, \(counts.snapshots) snapshots, \(counts.messages) messages, \(counts.turns) turns"
        }
    }

    package static func run(_ options: Options) -> Outcome {
        let world = World(options: options)
        world.start()
        world.run(until: Instant.zero.advanced(by: .milliseconds(500) + options.duration))
        if world.violations.isEmpty { world.settle() }
        world.checkAll()
        world.counts.revisions = world.timelines.values.reduce(0) { $0 + $1.changes.count }
        return Outcome(
            seed: options.seed, shape: world.shape, trace: world.trace.value,
            violations: world.violations, counts: world.counts,
            simulated: world.queue.now.since(.zero))
    }
}
