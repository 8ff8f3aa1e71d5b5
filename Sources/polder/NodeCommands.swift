import ArgumentParser
import Foundation
import NodeHost
import Primitives

/// A region's members, through etcd's Cluster service (its JSON form).
struct NodeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "node",
        abstract: "Lists, adds, promotes and removes the members of a region.",
        subcommands: [ListCommand.self, AddCommand.self, PromoteCommand.self, RemoveCommand.self])

    struct Member: Codable {
        let ID: String
        let name: String?
        let peerURLs: [String]?
        let clientURLs: [String]?
        let isLearner: Bool?

        var hexadecimal: String { UInt64(ID).map { String($0, radix: 16) } ?? ID }
        var state: String {
            (name ?? "").isEmpty ? "not started" : isLearner == true ? "learner" : "voter"
        }
    }
    struct Answer: Codable {
        let member: Member?
        let members: [Member]?
    }
    private struct Refusal: Decodable {
        let message: String?
        let error: String?
    }

    /// Any node will do: it knows whom to ask.
    static func ask(_ client: ClientOptions, _ call: String, _ body: [String: Any]) throws -> Answer {
        let resolved = try client.resolve()
        let text = String(decoding: try JSONSerialization.data(withJSONObject: body), as: UTF8.self)
        var troubles: [String] = []
        for endpoint in resolved.endpoints {
            do {
                let answer = try resolved.fetch.post(
                    "/v3/cluster/member/\(call)", body: text, to: endpoint, timeout: .seconds(15))
                let data = Data(answer.body.utf8)
                if answer.status == 200 { return try JSONDecoder().decode(Answer.self, from: data) }
                let said = try? JSONDecoder().decode(Refusal.self, from: data)
                let reason = said?.message ?? said?.error ?? "HTTP status \(answer.status)"
                // A refusal is the region's; asking elsewhere changes nothing.
                if (400..<500).contains(answer.status) {
                    throw Outcome(code: 1, message: reason)
                }
                troubles.append("\(endpoint): \(reason)")
            } catch let error as HTTPFetch.Failure {
                troubles.append("\(error)")
            }
        }
        throw Outcome.inTheWay((["nobody answers"] + troubles).joined(separator: "\n  "))
    }

    static func list(_ client: ClientOptions) throws -> [Member] {
        try ask(client, "list", ["linearizable": true]).members ?? []
    }

    /// By name, or by id as etcdctl prints it.
    static func find(_ client: ClientOptions, _ name: String) throws -> Member {
        let members = try list(client)
        let found = members.filter { $0.name == name || $0.hexadecimal == name.lowercased() }
        guard found.count == 1, let member = found.first else {
            let names = members.map { ($0.name ?? "").isEmpty ? $0.hexadecimal : $0.name ?? "" }
            throw Outcome(
                code: 1, message: "there is no member \(name); there are "
                    + names.joined(separator: ", "))
        }
        return member
    }

    struct ListCommand: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "list", abstract: "Lists them, as the region's directory has them now.",
            discussion: "  polder node list --endpoints http://127.0.0.1:2379")
        @OptionGroup var client: ClientOptions
        @Option(name: .shortAndLong, help: "table or json.")
        var output = "table"

        func run() throws {
            guard output == "table" || output == "json" else {
                throw Outcome.badFlags("-o \(output): expected table or json")
            }
            let members = try NodeCommand.list(client)
            if output == "json" {
                let encoder = JSONEncoder()
                encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
                print(String(decoding: try encoder.encode(members), as: UTF8.self))
                return
            }
            print(
                StatusTable.table(
                    ["NAME", "ID", "STATE", "PEER", "CLIENT"],
                    members.map {
                        [
                            $0.name ?? "", $0.hexadecimal, $0.state,
                            ($0.peerURLs ?? []).joined(separator: " "),
                            ($0.clientURLs ?? []).joined(separator: " "),
                        ]
                    }), terminator: "")
        }
    }

    struct AddCommand: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "add", abstract: "Makes room for a new member; start it afterwards.",
            discussion: "  polder node add http://10.0.0.4:2380 --endpoints http://10.0.0.1:2379")
        @Argument(help: "Where its peers will find it.")
        var peerURL: String
        @Flag(help: "It votes only when it is promoted.")
        var learner = false
        @OptionGroup var client: ClientOptions

        func run() throws {
            let answer = try NodeCommand.ask(
                client, "add", ["peerURLs": [peerURL], "isLearner": learner])
            let known = (answer.members ?? []).compactMap { member in
                member.name.flatMap { name in
                    name.isEmpty ? nil : "\(name)=\(member.peerURLs?.first ?? "")"
                }
            }
            print("added as \(answer.member?.hexadecimal ?? "?"); start it with")
            print(
                "  polder etcd --name NAME --initial-cluster-state existing \\\n    "
                    + "--initial-advertise-peer-urls \(peerURL) \\\n    --initial-cluster "
                    + (known + ["NAME=\(peerURL)"]).joined(separator: ","))
        }
    }

    struct PromoteCommand: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "promote", abstract: "Makes a learner that is in sync a voter.")
        @Argument(help: "Its name or id.")
        var name: String
        @OptionGroup var client: ClientOptions

        func run() throws {
            let member = try NodeCommand.find(client, name)
            _ = try NodeCommand.ask(client, "promote", ["ID": member.ID])
            print("\(name) votes")
        }
    }

    struct RemoveCommand: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "remove",
            abstract: "Removes a member for good; its process ends.",
            discussion: """
                Answered when every group does without it: its machine may be switched off then.

                  polder node remove n4 --yes --endpoints http://10.0.0.1:2379
                """)
        @Argument(help: "Its name or id.")
        var name: String
        @Flag(help: "Do it.")
        var yes = false
        @OptionGroup var client: ClientOptions

        func run() throws {
            let member = try NodeCommand.find(client, name)
            guard yes else {
                throw Outcome.badFlags("removing \(name) is for good: say so with --yes")
            }
            _ = try NodeCommand.ask(client, "remove", ["ID": member.ID])
            print("\(name) is removed")
        }
    }
}
