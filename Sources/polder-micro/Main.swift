import Glibc
import MicroBenchmarks

/// `polder-micro [--json] [--only WORD] [--rounds N]`
@main
enum Main {
    static func main() {
        var arguments = CommandLine.arguments.dropFirst()
        var isJSON = false
        var only = ""
        var rounds = 3
        while let word = arguments.popFirst() {
            switch word {
            case "--json": isJSON = true
            case "--only": only = arguments.popFirst() ?? ""
            case "--rounds": rounds = arguments.popFirst().flatMap { Int($0) } ?? rounds
            default:
                complain("polder-micro [--json] [--only WORD] [--rounds N]")
                exit(2)
            }
        }
        exit(run(isJSON: isJSON, only: only, rounds: rounds))
    }

    private static func run(isJSON: Bool, only: String, rounds: Int) -> Int32 {
        var lines: [String] = []
        var overruns = 0
        for room in Room.all where only.isEmpty || room.name.contains(only) {
            let sample: Room.Sample
            do {
                sample = try room.measure(rounds: rounds)
            } catch {
                complain("\(room.name): \(error)")
                return 2
            }
            let isOver = Room.canCount && sample.allocations > room.budget.current
            if isOver { overruns += 1 }
            if isJSON {
                lines.append(
                    "{\"name\": \"\(room.name) (\(room.unit))\", \"nanos\": \(rounded(sample.nanos)), "
                        + "\"allocations\": \(rounded(sample.allocations)), "
                        + "\"bytes\": \(rounded(sample.bytes)), \"budget\": \(room.budget.current)}")
            } else {
                print(
                    "\(padded(room.name, 18)) \(padded("\(rounded(sample.nanos / 1000)) us", 12))"
                        + "\(padded("\(rounded(sample.allocations)) of \(room.budget.current) allocations", 30))"
                        + "\(padded("\(rounded(sample.bytes)) B", 12)) a \(room.unit)\(isOver ? "  OVER" : "")")
            }
        }
        if isJSON { print("[\(lines.joined(separator: ",\n "))]") }
        if overruns > 0 {
            complain("\(overruns) budgets overrun (Sources/MicroBenchmarks/Budgets.swift)")
        }
        return overruns > 0 ? 1 : 0
    }

    private static func rounded(_ value: Double) -> Double { (value * 1000).rounded() / 1000 }
    private static func padded(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(1, width - text.count))
    }
    private static func complain(_ text: String) {
        let line = text + "\n"
        _ = write(STDERR_FILENO, line, line.utf8.count)
    }
}
