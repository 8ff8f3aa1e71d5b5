import ArgumentParser
import Glibc
import NodeHost

struct ServeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Runs one node.",
        discussion: """
            Runs in the foreground and logs to standard error. SIGTERM or SIGINT stops it
            cleanly.

              polder serve -c /etc/polder/node.yaml
              polder serve -c node.yaml --check

            deploy/examples/node.yaml explains every key.
            """)

    @Option(name: [.customShort("c"), .long], help: "The node's configuration.")
    var config: String
    @Flag(help: "Only read the configuration and say whether it is good.")
    var check = false
    @Option(help: .private)
    var withParent: Int32?

    func run() throws {
        if let withParent, !ChildProcess.endWithParent(withParent) { return }
        let configuration: HostConfiguration
        do {
            configuration = try HostConfiguration(yaml: try Files.read(config), file: config)
        } catch let error as SystemError {
            throw Outcome.inTheWay("\(error)")
        } catch {
            throw Outcome.badFlags("\(error)")
        }
        if check {
            print("\(config) is good")
            return
        }
        let outcome = HostProcess.run(configuration)
        if outcome.code != 0 { throw Outcome(code: outcome.code, message: outcome.message) }
    }
}
