import ArgumentParser
import EtcdAPI
import Foundation
import Mirror
import NodeHost
import Primitives

struct MirrorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mirror",
        abstract: "Moves a running etcd here, without stopping it until the end.",
        discussion: """
            Copies all keys, follows all changes, keeps leases alive under their ids, and tells
            how far it is. It can be interrupted: the same command goes on.

              polder mirror --from http://etcd:2379 --to http://polder:2379

            When it follows without lag, stop the clients of the source, and:
              polder mirror --from http://etcd:2379 --to http://polder:2379 --cut-over
            which ends when every key and value has been compared, and says that clients may
            switch (exit code 0), or that they may not (1). Revisions are the destination's own:
            clients that hold one must list anew. To keep revisions: polder snapshot import.
            """)

    @Option(help: "Addresses of the source, comma-separated.")
    var from: String
    @Option(help: "Addresses of the destination, comma-separated.")
    var to: String
    @Option(help: "The source's certificate authority.")
    var fromCacert: String?
    @Option(help: "The client's certificate for the source.")
    var fromCert: String?
    @Option(help: "Its key.")
    var fromKey: String?
    @Option(help: "The destination's certificate authority.")
    var toCacert: String?
    @Option(help: "The client's certificate for the destination.")
    var toCert: String?
    @Option(help: "Its key.")
    var toKey: String?
    @Option(help: "Who this is for the source, if it asks: NAME:PASSWORD.")
    var fromUser: String?
    @Option(help: "Who this is for the destination.")
    var toUser: String?
    @Option(help: "Only keys that begin with this.")
    var prefix = ""
    @Flag(help: "Verify and end once nothing is missing and the source is quiet.")
    var cutOver = false
    @Option(help: "How long to wait for that.")
    var cutOverTimeout = "10m"
    @Flag(help: "The destination may hold other keys: they are removed.")
    var overwrite = false
    @Option(help: "Where it is written down how far this is.")
    var state = "polder-mirror.json"
    @Option(help: "Time between two reports.")
    var interval = "10s"

    func run() throws {
        var options = MirrorOptions()
        options.prefix = Data(prefix.utf8)
        options.cutsOver = cutOver
        options.overwrites = overwrite
        options.statePath = Files.absolute(state)
        options.cutOverPatience = try span(cutOverTimeout, "--cut-over-timeout")
        options.reportInterval = try span(interval, "--interval")
        let source = try EtcdClientOptions.signedIn(
            EtcdClientOptions.clients(
                from, flag: "--from", ca: fromCacert, certificate: fromCert, key: fromKey),
            as: fromUser, flag: "--from-user")
        let destination = try EtcdClientOptions.signedIn(
            EtcdClientOptions.clients(
                to, flag: "--to", ca: toCacert, certificate: toCert, key: toKey),
            as: toUser, flag: "--to-user")
        let chosen = options
        do {
            let outcome = try wait {
                // One for each stream, in turn over the endpoints.
                var streams = 0
                return try await Mirror(
                    source: source, destination: destination, options: chosen,
                    feedClient: {
                        streams += 1
                        return source[(streams - 1) % source.count].again()
                    },
                    report: { MirrorCommand.tell($0) }
                ).run()
            }
            print("clients may switch to \(to)")
            print("\(outcome.keys) keys compared, hash \(String(outcome.hash, radix: 16))")
            print(
                "source at revision \(outcome.sourceRevision), destination at "
                    + "\(outcome.destinationRevision)")
        } catch let error as MirrorError {
            switch error {
            case .notVerified: throw Outcome.checkFailed("\(error)")
            case .unreachable, .refused, .notEmpty, .state: throw Outcome.inTheWay("\(error)")
            }
        } catch let error as EtcdClientError {
            throw Outcome(code: 4, message: error.message)
        }
    }

    private func span(_ text: String, _ flag: String) throws -> TimeSpan {
        guard let span = TimeSpan(text: text) else {
            throw Outcome.badFlags("\(flag) \(text): expected a time such as 10s")
        }
        return span
    }

    private static func tell(_ report: MirrorReport) {
        var line = "\(report.phase.rawValue): "
        if let note = report.note {
            line += note
        } else {
            let lag = String(format: "%.1f", report.lagSeconds)
            line += "\(report.keysCopied) keys copied, \(report.changesApplied) changes, "
            line += "revision \(report.revision) of \(report.sourceRevision), "
            line += "lag \(report.lagRevisions) revisions, \(lag) s, \(report.leases) leases"
        }
        complain(line)
    }
}
