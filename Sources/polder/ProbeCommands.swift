import ArgumentParser
import Dispatch
import NodeHost
import Primitives
import SLAProbe
import Simulator
import Synchronization

/// Runs what is asynchronous from a command that is not, on the main thread.
func wait<Value: Sendable>(for body: @escaping @Sendable () async throws -> Value) throws -> Value {
    let outcome = Mutex<Result<Value, any Error>?>(nil)
    let done = DispatchSemaphore(value: 0)
    Task.detached {
        let result: Result<Value, any Error>
        do {
            result = .success(try await body())
        } catch {
            result = .failure(error)
        }
        outcome.withLock { $0 = result }
        done.signal()
    }
    done.wait()
    guard let result = outcome.withLock({ $0 }) else { preconditionFailure("signalled too early") }
    return try result.get()
}

/// A probe's errors as outcomes of a command.
func translating(_ body: () throws -> Void) throws {
    do {
        try body()
    } catch let error as ProbeError {
        switch error {
        case .badOption(let text): throw Outcome.badFlags(text)
        default: throw Outcome.inTheWay("\(error)")
        }
    } catch let error as DrillError {
        throw Outcome.inTheWay("\(error)")
    }
}

struct ProbeCommandLine: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "probe",
        abstract: "Measures availability and latency from outside, as a client.",
        discussion: """
            Probes are due on a clock, whether or not earlier ones have been answered;
            latency counts from the due time. Works with any etcd. Can be interrupted
            and continued in the same directory.

              polder probe --endpoints http://127.0.0.1:2379 --rate 50 --duration 60s --out p
              polder probe --dev /tmp/polder --duration 5m --out p
              polder report p
            """)

    @Option(help: "Client addresses, comma-separated.")
    var endpoints: String?
    @Option(help: ArgumentHelp("A region and its addresses; may be repeated.", valueName: "NAME=URL,URL"))
    var region: [String] = []
    @Option(help: "The directory of a running `polder dev`: names regions and certificates.")
    var dev: String?
    @OptionGroup var certificates: CertificateOptions
    @Option(help: "Probes a second, reads and writes together.")
    var rate = 50.0
    @Option(help: "Such as 60s or 5m; 0 is until interrupted.")
    var duration = "60s"
    @Option(help: "A probe that takes longer has failed.")
    var timeout = "1s"
    @Option(help: "Where the results go.")
    var out = "probe"
    @Option(help: "Where this prober stands. (default: the host's name)")
    var vantage: String?

    func run() throws {
        var options = ProbeOptions()
        options.rate = rate
        options.out = Files.absolute(out)
        options.vantage = vantage
        guard let span = TimeSpan(text: duration) else {
            throw Outcome.badFlags("--duration \(duration): expected a time such as 60s")
        }
        options.durationSeconds = span == .zero ? nil : Double(span.nanoseconds) / 1e9
        guard let limit = TimeSpan(text: timeout) else {
            throw Outcome.badFlags("--timeout \(timeout): expected a time such as 1s")
        }
        options.timeout = limit
        let files = certificates
        if files.cacert != nil || files.cert != nil || files.key != nil {
            options.tls = ClientTLSFiles(ca: files.cacert, cert: files.cert, key: files.key)
        }
        if let dev {
            let description = try DevDescription.read(Files.absolute(dev))
            options.regions = description.regions.map { ($0.name, $0.nodes.map(\.client)) }
            options.tls = description.tls.map {
                ClientTLSFiles(ca: $0.ca, cert: $0.cert, key: $0.key)
            }
        }
        options.endpoints = endpoints?.split(separator: ",").map(String.init) ?? []
        for text in region {
            let sides = text.split(separator: "=", maxSplits: 1).map(String.init)
            guard sides.count == 2 else {
                throw Outcome.badFlags("--region \(text): expected NAME=URL,URL")
            }
            options.regions.append(
                (sides[0], sides[1].split(separator: ",").map(String.init)))
        }
        let chosen = options
        try translating {
            try wait { try await ProbeCommand.run(chosen, progress: { HostOutput.complain($0) }) }
        }
    }
}

struct ReportCommandLine: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "report",
        abstract: "Makes a report of what probes have seen: HTML, JSON and CSV.",
        discussion: """
            Writes report.html (self-contained), report.json and report.csv. Several
            directories, of several probers, are merged.

              polder report probe
              polder report probe-a probe-b --out report -o json
              polder report probe --minimum 0.999    (exit code 1 below it)
            """)

    @Argument(help: "Directories that `polder probe --out` has written.")
    var directories: [String]
    @Option(name: .shortAndLong, help: "What is printed: html (a summary), json or csv.")
    var output = "html"
    @Option(name: .customLong("out"), help: "Where the report goes. (default: the first directory)")
    var out: String?
    @Option(help: "The objective that the error budget is counted against.")
    var objective = 0.99999
    @Option(help: "Availability of reads and of writes below which the exit code is 1.")
    var minimum: Double?

    func run() throws {
        var options = ReportOptions(directories: directories.map(Files.absolute))
        guard let format = ReportOptions.Format(rawValue: output) else {
            throw Outcome.badFlags("-o \(output): expected html, json or csv")
        }
        options.format = format
        options.out = out.map(Files.absolute)
        options.objective = objective
        options.minimumAvailability = minimum
        var code: Int32 = 0
        try translating { code = try ReportCommand.run(options) { print($0) } }
        if code != 0 { throw Outcome(code: code, message: "availability is below the minimum") }
    }
}
