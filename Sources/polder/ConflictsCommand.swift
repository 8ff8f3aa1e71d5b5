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
                    let others = try otherHolders(endpoint, resolved.fetch)
                    return try show(
                        others.isEmpty ? answer.body : gathered([answer.body] + others.compactMap {
                            ask($0, resolved.fetch)
                        }))
                } catch let error as HTTPFetch.Failure {
                    troubles.append("\(error)")
                }
            }
            throw Outcome.inTheWay((["nobody answers"] + troubles).joined(separator: "\n  "))
        }

        /// Where the region is spread a node has the conflicts of its own partitions; elsewhere, all of them.
        private func otherHolders(_ endpoint: Endpoint, _ fetch: HTTPFetch) throws -> [Endpoint] {
            struct Status: Decodable {
                struct Region: Decodable { let nodes: [RegionStatus.Node]? }
                let spread: Bool?
                let node: String
                let regions: [Region]
            }
            let answer = try fetch.get("/polder/status", from: endpoint)
            guard answer.status == 200,
                let status = try? JSONDecoder().decode(Status.self, from: Data(answer.body.utf8)), status.spread == true
            else { return [] }
            return (status.regions.first?.nodes ?? []).filter { $0.name != status.node }.compactMap { node in
                let found = node.clientURLs.lazy.compactMap(Endpoint.init).first
                if found == nil { HostOutput.complain("\(node.name) has no address for clients: it is not asked") }
                return found
            }
        }

        private func ask(_ endpoint: Endpoint, _ fetch: HTTPFetch) -> String? {
            do throws(HTTPFetch.Failure) {
                let answer = try fetch.get("/polder/conflicts?limit=\(limit)", from: endpoint)
                if answer.status == 200 { return answer.body }
                HostOutput.complain("\(endpoint): HTTP status \(answer.status): its conflicts may be missing")
            } catch {
                HostOutput.complain("\(error): its conflicts may be missing")
            }
            return nil
        }

        /// Each once, though every replica has it.
        private func gathered(_ bodies: [String]) throws -> String {
            func number(_ conflict: [String: Any], _ side: String, _ name: String) -> UInt64 {
                ((conflict[side] as? [String: Any])?[name] as? NSNumber)?.uint64Value ?? 0
            }
            var seen: Set<String> = []
            var all: [(stamp: UInt64, conflict: [String: Any])] = []
            for body in bodies {
                let object = try JSONSerialization.jsonObject(with: Data(body.utf8)) as? [String: Any]
                for conflict in object?["conflicts"] as? [[String: Any]] ?? [] {
                    let sides = ["winner", "loser"].flatMap { side in
                        ["region", "revision"].map { "\(number(conflict, side, $0))" }
                    }
                    let name = ([conflict["key"] as? String ?? ""] + sides).joined(separator: " ")
                    guard seen.insert(name).inserted else { continue }
                    all.append((max(number(conflict, "winner", "stamp"), number(conflict, "loser", "stamp")), conflict))
                }
            }
            all.sort { $0.stamp > $1.stamp }
            let newest = ["conflicts": all.prefix(limit).map(\.conflict)]
            let data = try JSONSerialization.data(
                withJSONObject: newest, options: [.sortedKeys, .withoutEscapingSlashes])
            return String(decoding: data, as: UTF8.self)
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
