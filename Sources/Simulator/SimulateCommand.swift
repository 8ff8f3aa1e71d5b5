import Primitives

/// `polder sim`: many seeds, or one again.
package enum SimulateCommand {
    /// Runs `seeds` worlds from `seed` on, each with `seconds` of trouble. Prints a line each and what
    /// broke; true if nothing did.
    package static func run(
        seed: UInt64, seconds: Int = 4, seeds: Int = 1, isVerbose: Bool = false,
        print line: (String) -> Void = { print($0) }
    ) -> Bool {
        var broken: [UInt64] = []
        var simulated: UInt64 = 0
        for i in 0..<UInt64(max(1, seeds)) {
            var options = Simulation.Options(seed: seed &+ i)
            options.duration = .seconds(UInt64(max(1, seconds)))
            options.isVerbose = isVerbose
            let outcome = Simulation.run(options)
            simulated += outcome.simulated.milliseconds
            line(outcome.summary)
            if !outcome.isGood {
                broken.append(outcome.seed)
                line(outcome.report)
            }
        }
        line(
            broken.isEmpty
                ? "\(seeds) seeds, \(simulated / 1_000) simulated seconds: nothing broken"
                : "\(broken.count) of \(seeds) seeds broken: "
                    + broken.map { "\($0)" }.joined(separator: " "))
        return broken.isEmpty
    }
}
