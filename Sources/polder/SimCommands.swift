import ArgumentParser
import NodeHost
import Primitives
import Simulator

struct SimCommandLine: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sim",
        abstract: "Runs whole clusters in one process from a seed, with faults, and checks them.",
        discussion: """
            The same seed is the same run. Every broken rule is printed with its seed; --shrink looks for
            fewer faults, requests and nodes with which the same rule breaks.

              polder sim --seeds 20
              polder sim --seed 4711 --seconds 10 --verbose
              polder sim --seed 4711 --shrink
              polder sim --seed 4711 --history h.txt && polder check h.txt
            """)

    @Option(help: "The first seed.")
    var seed: UInt64 = 1
    @Option(help: "How many seeds, one after another.")
    var seeds = 1
    @Option(help: "Simulated seconds of trouble for each.")
    var seconds = 4
    @Option(help: "The same in milliseconds.")
    var milliseconds: UInt64?
    @Flag(help: "Print what happens.")
    var verbose = false
    @Flag(help: "Look for the smallest run that breaks the same rule.")
    var shrink = false
    @Option(help: ArgumentHelp("Write the history for polder check.", valueName: "file"))
    var history: String?

    @Option(help: "Fixes the number of regions (1 to 4); else the seed decides.")
    var regions: Int?
    @Option(help: "Fixes the number of nodes of a region (1 to 8).")
    var nodes: Int?
    @Option(help: "Fixes the number of partitions.")
    var partitions: Int?
    @Option(help: "Fixes how much longer all periods and time-outs are.")
    var pace: UInt64?
    @Option(help: "Fixes the number of clients of a region.")
    var clients: Int?
    @Option(help: "Fixes the kinds of faults: a list with commas, or none.")
    var faults: String?
    @Option(help: "Only these faults of the plan happen: numbers with commas, or none.")
    var keep: String?
    @Option(help: "Fixes the kinds of requests: a list with commas.")
    var work: String?
    @Option(help: "Other luck for what is not planned.")
    var salt: UInt64 = 0

    private func list(_ text: String?) -> [String]? {
        text.map { $0 == "none" ? [] : $0.split(separator: ",").map(String.init) }
    }

    func run() throws {
        guard (1...1_000_000).contains(seeds), (1...86_400).contains(seconds) else {
            throw Outcome.badFlags("--seeds and --seconds must be at least 1")
        }
        guard (1...4).contains(regions ?? 1), (1...8).contains(nodes ?? 1),
            (1...64).contains(partitions ?? 1), (1...1_000).contains(pace ?? 1),
            (1...1_000).contains(clients ?? 1), (1...86_400_000).contains(milliseconds ?? 1)
        else { throw Outcome.badFlags("a number is out of its range") }
        var options = Simulation.Options(seed: seed)
        options.duration = milliseconds.map { .milliseconds($0) } ?? .seconds(UInt64(seconds))
        options.isVerbose = verbose
        options.regions = regions
        options.nodes = nodes
        options.partitions = partitions
        options.pace = pace
        options.clients = clients
        options.faults = list(faults)
        options.work = list(work)
        options.salt = salt
        if let keep = list(keep) {
            let numbers = keep.compactMap { Int($0) }
            guard numbers.count == keep.count else { throw Outcome.badFlags("--keep \(keep)") }
            options.keptFaults = numbers
        }
        if shrink {
            if !SimulateCommand.shrink(options) { throw Outcome.checkFailed("a rule was broken") }
            return
        }
        if let history {
            let outcome = Simulation.run(options, keepsHistory: true)
            print(outcome.summary)
            let text = outcome.history.joined(separator: "\n") + "\n"
            do {
                try Files.writeAtomically(text, to: Files.absolute(history))
            } catch {
                throw Outcome.badFlags("\(error)")
            }
            if !outcome.isGood { throw Outcome.checkFailed("a rule was broken") }
            return
        }
        guard SimulateCommand.run(options, seeds: seeds)
        else { throw Outcome.checkFailed("a rule was broken") }
    }
}

struct CheckCommandLine: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Checks a history of reads and writes for linearizability.",
        discussion: """
            The file has a line for every operation (docs/formats.md, "Histories"). Keys are checked one by
            one: linearizability is local. The simulator, drills, make chaos and make faults write such files; so can
            any client of any system.

              polder check history.txt
            """)

    @Argument(help: "Files of histories, each of one cluster.")
    var files: [String]

    func run() throws {
        var isBroken = false
        var isUndecided = false
        for file in files {
            let text: String
            do {
                text = try Files.read(Files.absolute(file))
            } catch {
                throw Outcome.badFlags("\(error)")
            }
            let keys: [Bytes: [RegisterOperation]]
            do {
                keys = try HistoryFile.parse(text)
            } catch {
                throw Outcome.badFlags("\(file): \(error)")
            }
            print("\(file):")
            switch CheckCommand.run(keys) {
            case .linearizable: break
            case .broken: isBroken = true
            case .undecided: isUndecided = true
            }
        }
        if isBroken { throw Outcome.checkFailed("a history is not linearizable") }
        if isUndecided { throw Outcome.checkFailed("a history could not be decided") }
    }
}
