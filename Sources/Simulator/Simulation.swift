package import Primitives

/// Runs a world from one seed: first anything may go wrong and nothing false may be said (safety), then
/// everything works and the world must come to rest in one state (liveness).
package enum Simulation {
    /// The seed decides what is nil here. What is fixed changes nothing else of the plan.
    package struct Options: Sendable, Equatable {
        package var seed: UInt64
        /// Of the phase in which things go wrong, at pace 1.
        package var duration = TimeSpan.seconds(4)
        package var isVerbose = false
        package var regions: Int?
        package var nodes: Int?
        package var partitions: Int?
        /// How much longer than usual all periods and time-outs are.
        package var pace: UInt64?
        package var clients: Int?
        /// Names of kinds of faults.
        package var faults: [String]?
        /// Numbers of the momentary faults that happen; the others are left out.
        package var keptFaults: [Int]?
        /// Names of kinds of requests.
        package var work: [String]?
        /// Other luck for what is not planned: delays, and the like.
        package var salt: UInt64 = 0

        package init(seed: UInt64) { self.seed = seed }

        /// Half of the worlds live at the real pace.
        static let paces: [UInt64] = [1, 1, 1, 10, 40, 100]

        /// What `polder sim` has to be told to run this.
        package var flags: String {
            var words = ["--seed \(seed)"]
            words.append("--milliseconds \(duration.milliseconds)")
            if let regions { words.append("--regions \(regions)") }
            if let nodes { words.append("--nodes \(nodes)") }
            if let partitions { words.append("--partitions \(partitions)") }
            if let pace { words.append("--pace \(pace)") }
            if let clients { words.append("--clients \(clients)") }
            if let faults { words.append("--faults \(faults.isEmpty ? "none" : faults.joined(separator: ","))") }
            if let keptFaults {
                let list = keptFaults.map { "\($0)" }.joined(separator: ",")
                words.append("--keep \(keptFaults.isEmpty ? "none" : list)")
            }
            if let work { words.append("--work \(work.joined(separator: ","))") }
            if salt > 0 { words.append("--salt \(salt)") }
            return words.joined(separator: " ")
        }
    }

    package struct Counts: Equatable, Sendable {
        package var events = 0
        package var turns = 0
        package var messages = 0
        package var answered = 0
        package var failed = 0
        package var unknown = 0
        /// Of these, those whose node lived: a crash of another one should cost them time only.
        package var unanswered = 0
        /// The longest time between a request and its answer.
        package var slowest = TimeSpan.zero
        /// Answers of requests whose leaders had fallen before they told.
        package var rebuilt = 0
        package var faults = 0
        package var crashes = 0
        package var wipes = 0
        /// Of the list of members, by an operator.
        package var changes = 0
        package var splits = 0
        package var leaderships = 0
        /// Leaders that gave up without being told to.
        package var stoodDown = 0
        package var epochs = 0
        package var voids = 0
        package var conflicts = 0
        package var snapshots = 0
        /// Of compacted history, by links: what is left of it.
        package var rests = 0
        package var revisions = 0
        /// Keys whose history was too wide to be searched.
        package var undecided = 0
    }

    /// What a seed has drawn, for people and for the search for less.
    package struct Plan: Equatable, Sendable {
        package var regions: Int
        package var nodes: Int
        package var partitions: Int
        package var pace: UInt64
        package var clients: Int
        package var kinds: [String]
        package var work: [String]
        package var faults: [(number: Int, at: Instant, kind: String)]

        package static func == (a: Self, b: Self) -> Bool {
            a.kinds == b.kinds && a.work == b.work && a.faults.map(\.number) == b.faults.map(\.number)
                && (a.regions, a.nodes, a.partitions, a.clients) == (b.regions, b.nodes, b.partitions, b.clients)
                && a.pace == b.pace
        }
    }

    package struct Outcome: Equatable, Sendable {
        package var options: Options
        package var plan: Plan
        package var shape: String
        package var trace: UInt64
        package var violations: [Violation]
        /// When the first rule was seen broken; `.never`: none, or only at the end.
        package var brokenAt: Instant
        package var counts: Counts
        package var simulated: TimeSpan
        /// The histories of all regions as `polder check` reads them, if they were asked for.
        package var history: [String] = []

        package var seed: UInt64 { options.seed }
        package var isGood: Bool { violations.isEmpty }

        /// For people: what broke, and the one command that repeats it.
        package var report: String {
            var lines = ["seed \(seed): \(shape)"]
            for violation in violations { lines.append("  BROKEN \(violation)") }
            lines.append("  repeat with: polder sim \(options.flags) --verbose")
            lines.append("  make it smaller with: polder sim \(options.flags) --shrink")
            return lines.joined(separator: "\n")
        }

        package var summary: String {
            "seed \(seed) \(isGood ? "ok" : "BROKEN") trace \(String(trace, radix: 16)) \(shape): "
                + "\(simulated.milliseconds / 1_000) s, \(counts.answered) answers, \(counts.unknown) unknown "
                + "(\(counts.unanswered) at living nodes), \(counts.failed) errors, \(counts.rebuilt) rebuilt, "
                + "slowest \(counts.slowest.milliseconds) ms, \(counts.revisions) revisions, \(counts.voids) void, "
                + "\(counts.faults) faults, \(counts.crashes) crashes, \(counts.wipes) disks lost, "
                + "\(counts.changes) changes of members, "
                + "\(counts.splits) splits, "
                + "\(counts.leaderships) leaderships, "
                + "\(counts.epochs) epochs, \(counts.conflicts) conflicts, \(counts.snapshots) snapshots, "
                + "\(counts.rests) reads of what is left, "
                + "\(counts.messages) messages, \(counts.events) events"
        }
    }

    /// How much longer the first phase is at `pace`: in slow worlds it is mostly quiet.
    static func stretch(_ pace: UInt64) -> UInt64 { pace > 1 ? pace * calm : pace }
    static let calm: UInt64 = 4

    package static func run(_ options: Options, keepsHistory: Bool = false) -> Outcome {
        let world = World(options: options)
        world.start()
        world.run(until: Instant.zero.advanced(by: World.warmUp * world.pace + world.duration))
        if world.violations.isEmpty { world.settle() }
        world.checkAll()
        world.counts.revisions = world.timelines.values.reduce(0) { $0 + $1.changes.count }
        let plan = Plan(
            regions: world.regions.count, nodes: world.nodesPerRegion,
            partitions: world.map.entries.count, pace: world.pace,
            clients: world.workload.clientsPerRegion,
            kinds: world.plan.kinds.map(\.rawValue).sorted(),
            work: world.workload.weights.filter { $0.1 > 0 }.map(\.0.rawValue)
                + (world.workload.hasUsers ? [Workload.users] : []),
            faults: world.plan.schedule.map { ($0.number, $0.at, $0.kind.rawValue) })
        return Outcome(
            options: options, plan: plan, shape: world.shape, trace: world.trace.value,
            violations: world.violations, brokenAt: world.brokenAt, counts: world.counts,
            simulated: world.queue.now.since(.zero),
            history: keepsHistory ? HistoryFile.lines(of: world) : [])
    }
}
