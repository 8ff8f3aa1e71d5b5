import ArgumentParser
import NodeHost
import Primitives

struct DevCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dev",
        abstract: "A whole cluster on this machine, one process per node.",
        discussion: """
            Stays in the foreground; Ctrl-C stops all nodes. Started again on the same
            directory it resumes with the data. DIR/dev.json describes the cluster for
            scripts.

              polder dev --data-dir /tmp/polder
              polder dev --data-dir /tmp/small --regions 1 --nodes 1 --no-tls
              polder dev --data-dir /tmp/far --wan-delay 40ms --enable-fault-injection

            Nodes are called r1-n1, r1-n2, ...; client ports are the base port, + 10, +
            20, ..., peer ports one above. A node that dies stays dead: see `polder dev-
            node`.
            """)

    @Option(help: "Where the nodes keep their data, logs and certificates.")
    var dataDir: String
    @Option(help: "Number of regions. (default: as before in this directory, else 2)")
    var regions: Int?
    @Option(help: "Nodes in each region. (default: as before in this directory, else 3)")
    var nodes: Int?
    @Option(help: "Hash partitions of a region. (default: as before in this directory, else 8)")
    var partitions: Int?
    @Option(help: "First client port.")
    var basePort = 2379
    @Flag(help: "Plain text instead of mutual TLS.")
    var noTls = false
    @Option(help: "Added one way to what goes to other regions, such as 40ms.")
    var wanDelay = "0ms"
    @Flag(help: "Let drills cut and slow the nodes' links.")
    var enableFaultInjection = false
    @Option(help: "Of the nodes: trace, debug, info, notice, warning, error, critical.")
    var logLevel = "warning"

    func run() throws {
        let settings = try settings()
        do throws(LocalCluster.Failure) {
            try LocalCluster(settings, environment: .standard()).run()
        } catch {
            throw Outcome(code: error.exitCode, message: error.message)
        }
    }

    private func settings() throws -> LocalClusterSettings {
        guard !dataDir.isEmpty else { throw Outcome.badFlags("--data-dir must not be empty") }
        let directory = Files.absolute(dataDir)
        let kept: LocalClusterSettings.Shape?
        do {
            kept = try LocalCluster.keptShape(in: directory)?.shape
        } catch {
            throw Outcome.inTheWay("\(error)")
        }
        let shape = LocalClusterSettings.Shape(
            regions: regions ?? kept?.regions ?? 2, nodes: nodes ?? kept?.nodes ?? 3,
            partitions: partitions ?? kept?.partitions ?? 8)
        var settings = LocalClusterSettings(directory: directory, shape: shape)
        settings.basePort = basePort
        settings.tls = !noTls
        settings.faultInjection = enableFaultInjection
        guard let delay = TimeSpan(text: wanDelay) else {
            throw Outcome.badFlags("--wan-delay \(wanDelay): expected a time such as 40ms")
        }
        settings.wanDelay = delay
        guard let level = HostConfiguration.LogLevel(rawValue: logLevel) else {
            let all = HostConfiguration.LogLevel.allCases.map(\.rawValue).joined(separator: ", ")
            throw Outcome.badFlags("--log-level \(logLevel): expected one of \(all)")
        }
        settings.logLevel = level
        if let problem = settings.problem { throw Outcome.badFlags(problem) }
        return settings
    }
}

struct DevNodeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dev-node",
        abstract: "Breaks and mends one node of a running `polder dev`.",
        discussion: """
            start   starts a node that is not running, and waits until it serves
            stop    stops it cleanly
            kill    kill -9
            freeze  stops the process (SIGSTOP): it keeps its connections and answers nothing
            thaw    lets it go on
            wipe    kill -9, and its data removed

              polder dev-node kill r1-n2 --data-dir /tmp/polder
              polder dev-node start r1-n2 --data-dir /tmp/polder
            """)

    @Argument(help: "start, stop, kill, freeze, thaw or wipe.")
    var action: String
    @Argument(help: "The node's name, such as r1-n2.")
    var name: String
    @Option(help: "The directory of the running `polder dev`.")
    var dataDir: String
    @Flag(help: "With start: do not wait until the node serves.")
    var noWait = false

    func run() throws {
        guard let action = LocalNodeAction(rawValue: action) else {
            let all = LocalNodeAction.allCases.map(\.rawValue).joined(separator: ", ")
            throw Outcome.badFlags("\(self.action): expected one of \(all)")
        }
        guard HostConfiguration.name(name) != nil else {
            throw Outcome.badFlags("\(name) is no node's name")
        }
        let directory = Files.absolute(dataDir)
        do throws(LocalCluster.Failure) {
            print(try LocalCluster.ask(directory: directory, action: action, node: name))
            if action == .start, !noWait {
                try LocalCluster.waitUntilServing(directory: directory, node: name)
            }
        } catch {
            throw Outcome(code: error.exitCode, message: error.message)
        }
    }
}
