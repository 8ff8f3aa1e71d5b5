import ArgumentParser
import Glibc
import NodeHost

/// The program: picks the command, runs it, turns the outcome into an exit code.
@main struct Polder: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "polder",
        abstract: "A distributed, multi-region key-value store that speaks etcd.",
        discussion: """
            A cluster on this machine, two regions of three nodes:
              polder dev --data-dir /tmp/polder

            One node of a real one:
              polder serve -c /etc/polder/node.yaml

            In the place of etcd, with its flags:
              polder etcd --data-dir /tmp/polder-etcd

            How it is doing:
              polder status --endpoints http://127.0.0.1:2379

            Exit codes: 0 done; 1 a check or drill failed; 2 wrong flags; 3 something here
            is in the way (a port, a directory, no cluster); 4 a node failed.
            """,
        version: "polder \(PolderVersion.text)",
        subcommands: [
            DevCommand.self, DevNodeCommand.self, ServeCommand.self, EtcdCommand.self,
            StatusCommand.self, NodeCommand.self, PartitionCommand.self, ConflictsCommand.self,
            ProbeCommandLine.self,
            ReportCommandLine.self, DrillCommandLine.self, SnapshotCommandLine.self,
            MirrorCommand.self, CertsCommand.self, SimCommandLine.self,
            CheckCommandLine.self, VersionCommand.self,
        ])

    static func main() {
        // A reader that goes away (`polder status | head`) is no reason for a trace.
        signal(SIGPIPE, SIG_IGN)
        do {
            if let flags = EtcdCommand.flags(in: CommandLine.arguments) {
                try EtcdCommand.run(flags)
                return
            }
            var command = try parseAsRoot()
            try command.run()
        } catch {
            exit(withOutcome: error)
        }
    }

    private static func exit(withOutcome error: any Error) -> Never {
        if let outcome = error as? Outcome {
            if !outcome.message.isEmpty { complain("polder: \(outcome.message)") }
            fflush(nil)
            // A node that failed leaves threads at work, RocksDB's among them: what its library would tear
            // down at an orderly exit is in use.
            _exit(outcome.code)
        }
        let code = exitCode(for: error)
        let text = fullMessage(for: error)
        if code == .success {
            if !text.isEmpty { print(text) }
            Glibc.exit(0)
        }
        if !text.isEmpty { complain(text) }
        // ArgumentParser's own code for wrong flags is 64; the contract with scripts says 2.
        Glibc.exit(code == .validationFailure ? 2 : code.rawValue)
    }
}

/// How a command ends when it does not end well.
struct Outcome: Error {
    let code: Int32
    let message: String

    static func checkFailed(_ message: String) -> Outcome { Outcome(code: 1, message: message) }
    static func badFlags(_ message: String) -> Outcome { Outcome(code: 2, message: message) }
    static func inTheWay(_ message: String) -> Outcome { Outcome(code: 3, message: message) }
}

func complain(_ text: String) { HostOutput.complain(text) }

struct VersionCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "version", abstract: "Prints the version, and etcd's version that it speaks.")

    func run() {
        print("polder \(PolderVersion.text)")
        print("etcd API \(PolderVersion.etcd)")
    }
}
