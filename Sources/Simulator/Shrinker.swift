import Primitives

/// Makes a failing run smaller while the same rule breaks: a shorter time, fewer faults, fewer kinds of
/// faults and requests, fewer clients, partitions, nodes and regions. Each change changes the course of
/// everything, so that each is tried with several lucks.
package struct Shrinker {
    private let rule: String
    private var best: Simulation.Outcome
    private var runsLeft: Int
    private let say: (String) -> Void
    private static let luckMax: UInt64 = 4

    /// Nil: `options` breaks nothing.
    package static func shrink(
        _ options: Simulation.Options, runsMax: Int = 400, say: @escaping (String) -> Void
    ) -> Simulation.Outcome? {
        var options = options
        options.isVerbose = false
        let first = Simulation.run(options)
        guard let violation = first.violations.first else { return nil }
        var shrinker = Shrinker(first, rule: violation.rule, runsLeft: runsMax, say: say)
        shrinker.shrink()
        return shrinker.best
    }

    private init(
        _ first: Simulation.Outcome, rule: String, runsLeft: Int, say: @escaping (String) -> Void
    ) {
        best = first
        self.rule = rule
        self.runsLeft = runsLeft
        self.say = say
    }

    private mutating func shrink() {
        var before: Simulation.Options
        repeat {
            before = best.options
            shortenTime()
            dropFaults()
            dropKinds()
            dropWork()
            reduceShape()
        } while best.options != before && runsLeft > 0
    }

    /// True: it breaks the same rule, and is kept.
    private mutating func attempt(_ what: String, _ change: (inout Simulation.Options) -> Void) -> Bool {
        var options = best.options
        change(&options)
        for salt in 0..<Self.luckMax {
            guard runsLeft > 0 else { return false }
            runsLeft -= 1
            options.salt = salt == 0 ? best.options.salt : best.options.salt + salt
            let outcome = Simulation.run(options)
            if outcome.violations.contains(where: { $0.rule == rule }) {
                best = outcome
                say("\(what): still broken, \(outcome.plan.faults.count) faults, \(outcome.counts.events) events")
                return true
            }
        }
        return false
    }

    private mutating func shortenTime() {
        let pace = best.plan.pace
        let warmUp = World.warmUp * pace
        if best.brokenAt != .never {
            let span = best.brokenAt.since(.zero.advanced(by: warmUp)).nanoseconds
            let used = span / Simulation.stretch(pace) + 50_000_000
            if used < best.options.duration.nanoseconds {
                _ = attempt("shorter") { $0.duration = TimeSpan(nanoseconds: used / 1_000_000 * 1_000_000) }
            }
        }
        while best.options.duration > .milliseconds(200),
            attempt("half as long", { $0.duration = .milliseconds($0.duration.milliseconds / 2) })
        {}
    }

    /// Delta debugging over the momentary faults (Zeller and Hildebrandt, 2002).
    private mutating func dropFaults() {
        var size = max(1, best.plan.faults.count / 2)
        while size >= 1, !best.plan.faults.isEmpty, runsLeft > 0 {
            var at = 0
            while at < best.plan.faults.count {
                let numbers = best.plan.faults.map(\.number)
                let rest = Array(numbers[..<at] + numbers[min(numbers.count, at + size)...])
                if !attempt("without \(numbers.count - rest.count) faults", { $0.keptFaults = rest }) {
                    at += size
                }
            }
            if size == 1 { break }
            size /= 2
        }
    }

    private mutating func dropKinds() {
        for kind in best.plan.kinds {
            let rest = best.plan.kinds.filter { $0 != kind }
            // The numbers of faults are of the plan with all its kinds: only those that last may go.
            guard FaultPlan.Kind(rawValue: kind)?.isMomentary == false else { continue }
            _ = attempt("without \(kind)") { $0.faults = rest }
        }
    }

    private mutating func dropWork() {
        for kind in best.plan.work where best.plan.work.count > 1 {
            let rest = best.plan.work.filter { $0 != kind }
            _ = attempt("without \(kind)") { $0.work = rest }
        }
    }

    private mutating func reduceShape() {
        let plan = best.plan
        if plan.regions > 1 { _ = attempt("one region less") { $0.regions = plan.regions - 1 } }
        if plan.partitions > 1 {
            _ = attempt("half the partitions") { $0.partitions = plan.partitions / 2 }
        }
        if best.plan.nodes > 3 { _ = attempt("three nodes") { $0.nodes = 3 } }
        while best.plan.clients > 1,
            attempt("one client less", { [clients = best.plan.clients] in $0.clients = clients - 1 })
        {}
        if best.plan.pace > 1 { _ = attempt("at the real pace") { $0.pace = 1 } }
    }
}

extension Simulation.Outcome {
    /// The smallest plan, for people.
    package var minimal: String {
        var lines = ["smallest plan found: \(shape)"]
        for fault in plan.faults { lines.append("  at \(fault.at): \(fault.kind) (fault \(fault.number))") }
        for violation in violations.prefix(5) { lines.append("  BROKEN \(violation)") }
        lines.append("  polder sim \(options.flags) --verbose")
        return lines.joined(separator: "\n")
    }
}
