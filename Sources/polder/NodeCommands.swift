import ArgumentParser
import Foundation
import NodeHost
import Primitives

/// A region's members, through etcd's Cluster service (its JSON form).
struct NodeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "node",
        abstract: "Lists, adds, promotes, drains and removes the members of a region.",
        subcommands: [
            ListCommand.self, AddCommand.self, PromoteCommand.self, DrainCommand.self,
            UndrainCommand.self, RemoveCommand.self,
        ])

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
        func state(_ nodes: [Status.Node]) -> String {
            let node = nodes.first { $0.id == hexadecimal }
            return state + (node?.drained == true ? ", drained" : "")
                + (node?.away == true ? ", away" : "")
        }
    }
    struct Answer: Codable {
        let member: Member?
        let members: [Member]?
    }
    /// Of /polder/status, which etcd does not have.
    struct Status: Decodable {
        struct Node: Decodable {
            let name: String
            let id: String
            let drained: Bool?
            let away: Bool?
            let zone: String?
            let sequencer: Bool?
        }
        struct Region: Decodable { let nodes: [Node] }
        struct Partition: Decodable { let leader: String? }
        let regions: [Region]
        let partitions: [Partition]

        /// How many leaderships it has, the directory's included.
        func leaderships(of id: String) -> Int {
            guard let node = regions.first?.nodes.first(where: { $0.id == id }) else { return 0 }
            return partitions.count { $0.leader == node.name } + (node.sequencer == true ? 1 : 0)
        }
    }
    private struct Refusal: Decodable {
        let message: String?
        let error: String?
    }

    /// Any node will do: it knows whom to ask. `refusal`: what the body of an error says.
    private static func post(
        _ client: ClientOptions, _ path: String, _ body: String, refusal: (String) -> String?
    ) throws -> String {
        let resolved = try client.resolve()
        var troubles: [String] = []
        for endpoint in resolved.endpoints {
            do {
                let answer = try resolved.fetch.post(
                    path, body: body, to: endpoint, timeout: .seconds(15))
                if answer.status == 200 { return answer.body }
                let reason = refusal(answer.body) ?? "HTTP status \(answer.status)"
                // A refusal is the region's; asking elsewhere changes nothing.
                if (400..<500).contains(answer.status) { throw Outcome(code: 1, message: reason) }
                troubles.append("\(endpoint): \(reason)")
            } catch let error as HTTPFetch.Failure {
                troubles.append("\(error)")
            }
        }
        throw Outcome.inTheWay((["nobody answers"] + troubles).joined(separator: "\n  "))
    }

    @discardableResult
    static func ask(_ client: ClientOptions, _ call: String, _ body: [String: Any]) throws -> Answer {
        let text = String(decoding: try JSONSerialization.data(withJSONObject: body), as: UTF8.self)
        let answer = try post(client, "/v3/cluster/member/\(call)", text) { body in
            let said = try? JSONDecoder().decode(Refusal.self, from: Data(body.utf8))
            return said?.message ?? said?.error
        }
        return try JSONDecoder().decode(Answer.self, from: Data(answer.utf8))
    }

    static func list(_ client: ClientOptions) throws -> [Member] {
        try ask(client, "list", ["linearizable": true]).members ?? []
    }

    static func status(_ client: ClientOptions) throws -> Status? {
        let resolved = try client.resolve()
        for endpoint in resolved.endpoints {
            guard let answer = try? resolved.fetch.get("/polder/status", from: endpoint),
                answer.status == 200
            else { continue }
            return try? JSONDecoder().decode(Status.self, from: Data(answer.body.utf8))
        }
        return nil
    }

    static func drain(_ client: ClientOptions, _ member: Member, _ isDrained: Bool) throws {
        let path = "/polder/members/drain?id=\(member.hexadecimal)&drained=\(isDrained)"
        _ = try post(client, path, "") { $0.split(separator: "\n").first.map(String.init) }
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

    /// One of them.
    struct MemberOptions: ParsableArguments {
        @Argument(help: "Its name or id.")
        var name: String
        @OptionGroup var client: ClientOptions

        func find() throws -> Member { try NodeCommand.find(client, name) }
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
            let nodes = try NodeCommand.status(client)?.regions.first?.nodes ?? []
            print(
                StatusTable.table(
                    ["NAME", "ID", "STATE", "ZONE", "PEER", "CLIENT"],
                    members.map { member in
                        [
                            member.name ?? "", member.hexadecimal, member.state(nodes),
                            nodes.first { $0.id == member.hexadecimal }?.zone ?? "",
                            (member.peerURLs ?? []).joined(separator: " "),
                            (member.clientURLs ?? []).joined(separator: " "),
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
        @OptionGroup var member: MemberOptions

        func run() throws {
            try NodeCommand.ask(member.client, "promote", ["ID": try member.find().ID])
            print("\(member.name) votes")
        }
    }

    struct DrainCommand: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "drain",
            abstract: "Moves what a member leads to others, and keeps it there.",
            discussion: """
                It still votes and serves clients. Ends when it starts again, or with undrain. Answered
                when it leads nothing any more.

                  polder node drain n1 --endpoints http://10.0.0.2:2379
                """)
        @OptionGroup var member: MemberOptions
        @Option(help: "Seconds to wait until it leads nothing.")
        var wait = 30

        func run() throws {
            guard (0...3_600).contains(wait) else {
                throw Outcome.badFlags("--wait \(wait): expected 0 to 3600 seconds")
            }
            let found = try member.find()
            try NodeCommand.drain(member.client, found, true)
            var rest = 1
            for _ in 0...(wait * 5) {
                rest = try NodeCommand.status(member.client)?.leaderships(of: found.hexadecimal) ?? 1
                if rest == 0 { break }
                usleep(200_000)
            }
            guard rest == 0 else {
                throw Outcome(
                    code: 1,
                    message: "\(member.name) is drained, but still leads: no other can take over yet")
            }
            print("\(member.name) leads nothing")
        }
    }

    struct UndrainCommand: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "undrain", abstract: "Lets a member lead again.")
        @OptionGroup var member: MemberOptions

        func run() throws {
            try NodeCommand.drain(member.client, try member.find(), false)
            print("\(member.name) may lead again")
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
        @OptionGroup var member: MemberOptions
        @Flag(help: "Do it.")
        var yes = false

        func run() throws {
            let found = try member.find()
            guard yes else {
                throw Outcome.badFlags("removing \(member.name) is for good: say so with --yes")
            }
            do {
                try NodeCommand.ask(member.client, "remove", ["ID": found.ID])
            } catch let outcome as Outcome {
                // The node that was asked may have been the one, and have ended before it could answer.
                let rest = try? NodeCommand.list(member.client)
                guard let rest, !rest.contains(where: { $0.ID == found.ID }) else { throw outcome }
            }
            print("\(member.name) is removed")
        }
    }
}
