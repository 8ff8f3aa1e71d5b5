import ArgumentParser
import NodeHost
import Primitives
import SLAProbe

struct DrillCommandLine: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "drill",
        abstract: "Breaks a running `polder dev` on purpose, and judges what clients saw.",
        subcommands: [ListCommand.self, RunCommand.self])

    struct ListCommand: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "list", abstract: "The drills, and what each claims.")

        @Option(name: .shortAndLong, help: "table or json.")
        var output = "table"

        func run() throws {
            switch output {
            case "json": print(try DrillCommand.listJSON())
            case "table":
                let rows = DrillCommand.list().map {
                    [$0.name, "\(Int($0.budgetGapMs)) ms", $0.needs]
                }
                print(StatusTable.table(["DRILL", "LONGEST GAP", "NEEDS"], rows), terminator: "")
            default: throw Outcome.badFlags("-o \(output): expected table or json")
            }
        }
    }

    struct RunCommand: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "run",
            abstract: "Runs one; exit code 0 is PASS, 1 is FAIL.",
            discussion: """
                Writes drill.json and drill.html (self-contained) with the evidence.

                  polder drill run leader-crash --dev /tmp/polder --out drill
                  polder drill run region-isolation --dev /tmp/polder --out drill --rate 200
                """)

        @Argument(help: "The drill's name: see `polder drill list`.")
        var name: String
        @Option(help: "The directory of a running `polder dev`.")
        var dev: String
        @Option(help: "Where drill.json and drill.html go.")
        var out = "drill"
        @Option(help: "Operations a second of the load.")
        var rate = 1000.0
        @Option(help: "The region to hurt. (default: the first)")
        var region: String?
        @Option(help: "How long the fault lasts, such as 5s. (default: the drill's own)")
        var fault: String?
        @Option(help: "The longest gap allowed, such as 150ms. (default: the drill's own)")
        var maxGap: String?
        @Option(help: "How many operations may fail. (default: the drill's own)")
        var maxErrors: Int?

        func run() throws {
            let directory = Files.absolute(dev)
            var options = DrillOptions(name: name, dev: directory, out: Files.absolute(out)) { action, node in
                guard let action = LocalNodeAction(rawValue: action.rawValue) else { return "not known" }
                do throws(LocalCluster.Failure) {
                    _ = try LocalCluster.ask(directory: directory, action: action, node: node)
                    return nil
                } catch {
                    return error.message
                }
            }
            options.rate = rate
            options.region = region
            options.errorsAllowed = maxErrors
            options.faultSeconds = try span(fault, "--fault").map { Double($0.nanoseconds) / 1e9 }
            options.maximumGapMilliseconds = try span(maxGap, "--max-gap")
                .map { Double($0.nanoseconds) / 1e6 }
            let chosen = options
            // What this process waits for the processor is not the cluster's delay.
            HostProcess.askForShortSlices()
            var code: Int32 = 0
            try translating {
                code = try wait {
                    try await DrillCommand.run(chosen, progress: { HostOutput.complain($0) })
                }
            }
            if code != 0 { throw Outcome(code: code, message: "") }
        }

        private func span(_ text: String?, _ flag: String) throws -> TimeSpan? {
            guard let text else { return nil }
            guard let span = TimeSpan(text: text) else {
                throw Outcome.badFlags("\(flag) \(text): expected a time such as 5s")
            }
            return span
        }
    }
}
