import Primitives

/// `polder sim`: many seeds, or one again.
package enum SimulateCommand {
    /// Runs `seeds` worlds from that of `options` on. Prints a line each and what broke; true if nothing
    /// did.
    package static func run(
        _ options: Simulation.Options, seeds: Int = 1, print line: (String) -> Void = { print($0) }
    ) -> Bool {
        var broken: [UInt64] = []
        var simulated: UInt64 = 0
        var events = 0
        for i in 0..<UInt64(max(1, seeds)) {
            var options = options
            options.seed = options.seed &+ i
            let outcome = Simulation.run(options)
            simulated += outcome.simulated.milliseconds
            events += outcome.counts.events
            line(outcome.summary)
            if !outcome.isGood {
                broken.append(outcome.seed)
                line(outcome.report)
            }
        }
        let total = "\(simulated / 1_000) simulated seconds, \(events) events"
        line(
            broken.isEmpty
                ? "\(seeds) seeds, \(total): nothing broken"
                : "\(broken.count) of \(seeds) seeds broken, \(total): "
                    + broken.map { "\($0)" }.joined(separator: " "))
        return broken.isEmpty
    }

    /// Makes a failing run smaller. False: it fails.
    package static func shrink(
        _ options: Simulation.Options, print line: @escaping (String) -> Void = { print($0) }
    ) -> Bool {
        guard let smallest = Shrinker.shrink(options, say: { line("  \($0)") }) else {
            line("seed \(options.seed): nothing broken")
            return true
        }
        line(smallest.minimal)
        return false
    }
}
