import ArgumentParser
import Foundation
import NodeHost

struct ConflictsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "conflicts",
        abstract: "The losers of conflicts between regions.",
        subcommands: [ListCommand.self])

    /// What a node answers at `/polder/conflicts`.
    struct Answer: Decodable {
        let conflicts: [Conflict]
    }
    struct Conflict: Decodable {
        struct Version: Decodable {
            let region: UInt16
            let revision: Int64
        }
        let keyText: String
        let policy: String
        let winner: Version
        let loser: Version
        let loserDeleted: Bool
        /// Base64.
        let loserValue: String

        var lostText: String {
            if loserDeleted { return "(deletion)" }
            let bytes = Data(base64Encoded: loserValue) ?? Data()
            let text = String(decoding: bytes.prefix(60), as: UTF8.self)
            return text.filter { !$0.isNewline } + (bytes.count > 60 ? "..." : "")
        }
    }

    struct ListCommand: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "list",
            abstract: "Lists them as the node at the endpoint has decided them, the newest first.",
            discussion: """
                  polder conflicts list --endpoints http://127.0.0.1:2379
                  polder conflicts list --dev /tmp/polder -o json
                """)

        @OptionGroup var client: ClientOptions
        @Option(help: "At most so many.")
        var limit = 100
        @Option(name: .shortAndLong, help: "table or json.")
        var output = "table"

        func run() throws {
            guard output == "table" || output == "json" else {
                throw Outcome.badFlags("-o \(output): expected table or json")
            }
            guard (1...100_000).contains(limit) else {
                throw Outcome.badFlags("--limit must be between 1 and 100000")
            }
            let resolved = try client.resolve()
            var troubles: [String] = []
            for endpoint in resolved.endpoints {
                do {
                    let answer = try resolved.fetch.get(
                        "/polder/conflicts?limit=\(limit)", from: endpoint)
                    guard answer.status == 200 else {
                        troubles.append("\(endpoint): HTTP status \(answer.status)")
                        continue
                    }
                    return try show(answer.body)
                } catch let error as HTTPFetch.Failure {
                    troubles.append("\(error)")
                }
            }
            throw Outcome.inTheWay((["nobody answers"] + troubles).joined(separator: "\n  "))
        }

        private func show(_ body: String) throws {
            if output == "json" {
                print(body)
                return
            }
            let found = try JSONDecoder().decode(Answer.self, from: Data(body.utf8)).conflicts
            if found.isEmpty {
                print("no conflicts")
                return
            }
            print(
                StatusTable.table(
                    ["KEY", "POLICY", "WON BY", "LOST BY", "LOST VALUE"],
                    found.map {
                        [
                            $0.keyText, $0.policy, "r\($0.winner.region) @\($0.winner.revision)",
                            "r\($0.loser.region) @\($0.loser.revision)",
                            $0.lostText,
                        ]
                    }), terminator: "")
        }
    }
}
