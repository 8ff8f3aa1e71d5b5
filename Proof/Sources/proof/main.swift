#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif
import Primitives
import Simulator

// A small command line for the small package; `polder` has the real one.

struct Arguments {
    var rest = Array(CommandLine.arguments.dropFirst())
    mutating func command() -> String { rest.isEmpty ? "help" : rest.removeFirst() }
    mutating func value(_ name: String) -> String? {
        guard let i = rest.firstIndex(of: "--" + name), i + 1 < rest.count else { return nil }
        let value = rest[i + 1]
        rest.removeSubrange(i...i + 1)
        return value
    }
    mutating func number(_ name: String, or fallback: UInt64) -> UInt64 {
        value(name).flatMap { UInt64($0) } ?? fallback
    }
    mutating func list(_ name: String) -> [String]? {
        value(name).map { $0 == "none" ? [] : $0.split(separator: ",").map(String.init) }
    }
    mutating func flag(_ name: String) -> Bool {
        guard let i = rest.firstIndex(of: "--" + name) else { return false }
        rest.remove(at: i)
        return true
    }
}

func options(_ arguments: inout Arguments) -> Simulation.Options {
    var options = Simulation.Options(seed: arguments.number("seed", or: 1))
    options.duration = .milliseconds(arguments.number("milliseconds", or: 4_000))
    options.isVerbose = arguments.flag("verbose")
    options.regions = arguments.value("regions").flatMap { Int($0) }
    options.nodes = arguments.value("nodes").flatMap { Int($0) }
    options.partitions = arguments.value("partitions").flatMap { Int($0) }
    options.pace = arguments.value("pace").flatMap { UInt64($0) }
    options.clients = arguments.value("clients").flatMap { Int($0) }
    options.faults = arguments.list("faults")
    options.keptFaults = arguments.list("keep")?.compactMap { Int($0) }
    options.work = arguments.list("work")
    options.salt = arguments.number("salt", or: 0)
    return options
}

var arguments = Arguments()
let command = arguments.command()
var isGood = true
#if POLDER_MUTATIONS
    if let name = arguments.value("mutation") {
        guard let mutation = Mutation(rawValue: name) else {
            print("no mutation \(name)")
            exit(2)
        }
        Mutation.current = mutation
    }
#endif
switch command {
case "sim":
    let seeds = Int(arguments.number("seeds", or: 1))
    isGood = SimulateCommand.run(options(&arguments), seeds: seeds)
case "shrink": isGood = SimulateCommand.shrink(options(&arguments))
case "mutations":
    for mutation in Mutation.allCases { print(mutation.rawValue) }
case "hunt":
    // One line a seed before it runs: a broken invariant ends the process.
    let seeds = arguments.number("seeds", or: 100)
    var options = options(&arguments)
    let first = options.seed
    for seed in first..<first + seeds where isGood {
        print("seed \(seed)")
        fflush(nil)
        options.seed = seed
        // Half of them in the shape in which most goes on.
        let isUsual = seed % 2 == 0
        if isUsual { (options.regions, options.nodes, options.pace) = (1, 3, 1) }
        defer { if isUsual { (options.regions, options.nodes, options.pace) = (nil, nil, nil) } }
        let outcome = Simulation.run(options)
        if let violation = outcome.violations.first {
            print("caught \(violation.rule)")
            print("why \(violation.what)")
            isGood = false
        }
    }
default: print("proof sim|shrink|hunt|mutations [--seed n] [--seeds n] [--milliseconds n] ...")
}
exit(isGood ? 0 : 1)
