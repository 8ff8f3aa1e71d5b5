import ArgumentParser
import Foundation
import NodeHost
import Primitives

/// A region's partitions: parts of the space of keys' hashes, each with a log and a leader of its own.
struct PartitionCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "partition",
        abstract: "Lists, splits and moves the partitions of a region.",
        subcommands: [
            ListCommand.self, SplitCommand.self, MoveCommand.self, ReplicasCommand.self, SpreadCommand.self,
        ])

    struct Split: Codable {
        let parent: UInt32
        let child: UInt32
        let cut: String
    }

    /// Of the first node that answers. `isOnce`: not again elsewhere what may have been begun.
    private static func fetch(
        _ client: ClientOptions.Resolved, isOnce: Bool = false,
        _ ask: (Endpoint) throws -> HTTPFetch.Answer
    ) throws -> (Endpoint, HTTPFetch.Answer) {
        func unknown(_ reason: String) -> Outcome {
            .inTheWay("\(reason)\nit may have begun, and then comes about: see polder partition list")
        }
        var troubles: [String] = []
        for endpoint in client.endpoints {
            do {
                let answer = try ask(endpoint)
                if answer.status == 200 { return (endpoint, answer) }
                let reason = answer.body.trimmingCharacters(in: .whitespacesAndNewlines)
                // A refusal is the region's; asking elsewhere changes nothing.
                if (400..<500).contains(answer.status) { throw Outcome(code: 1, message: reason) }
                if isOnce, answer.status == 504 { throw unknown("\(endpoint): \(reason)") }
                troubles.append("\(endpoint): \(reason)")
            } catch let error as HTTPFetch.Failure {
                if isOnce, error.wasSent { throw unknown("\(error)") }
                troubles.append("\(error)")
            }
        }
        throw Outcome.inTheWay((["nobody answers"] + troubles).joined(separator: "\n  "))
    }

    struct ListCommand: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "list",
            abstract: "Lists them, in the order of the hashes that they hold.",
            discussion: """
                VOTERS decide on writes, the first preferred as the leader; the other members receive them.
                In a region that is spread only VOTERS hold the rows. Of a partition that is not
                at the answering node it says who shall, and as APPLIED nothing.
                WRITES counts what the answering node has applied since it started.

                  polder partition list --endpoints http://127.0.0.1:2379
                """)
        @OptionGroup var client: ClientOptions
        @Option(name: .shortAndLong, help: "table or json.")
        var output = "table"

        private struct Answer: Codable {
            let region: String
            let partitions: [RegionStatus.Partition]
            let split: Split?
            let sequencer: Sequencer?
        }
        private struct Sequencer: Codable {
            let voters: [String]?
        }

        func run() throws {
            guard output == "table" || output == "json" else {
                throw Outcome.badFlags("-o \(output): expected table or json")
            }
            let resolved = try client.resolve()
            let (_, found) = try fetch(resolved) { try resolved.fetch.get("/polder/status", from: $0) }
            let answer = try JSONDecoder().decode(Answer.self, from: Data(found.body.utf8))
            if output == "json" {
                let encoder = JSONEncoder()
                encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
                print(String(decoding: try encoder.encode(answer), as: UTF8.self))
                return
            }
            print(
                StatusTable.table(
                    ["PARTITION", "RANGE", "LEADER", "TERM", "VOTERS", "APPLIED", "WRITES"],
                    answer.partitions.sorted { $0.range < $1.range }.map {
                        [
                            "\($0.id)", $0.range, $0.leader ?? "none", $0.term,
                            ($0.voters ?? $0.replicas).joined(separator: " "), "\($0.applied)", "\($0.writes ?? 0)",
                        ]
                    }), terminator: "")
            if let voters = answer.sequencer?.voters {
                print("  the directory's voters: \(voters.joined(separator: " "))")
            }
            if let split = answer.split {
                print("  under way: \(split.parent) is split at \(split.cut), \(split.child) comes to be")
            }
        }
    }

    struct SplitCommand: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "split",
            abstract: "Cuts a partition in two, while it serves.",
            discussion: """
                Answered when both halves serve. No data moves: the new partition is on the same nodes.
                Whatever happens, a split that has begun comes about. There is no way back.

                  polder partition split 3 --endpoints http://127.0.0.1:2379
                  polder partition split 3 --at 4c00000000000000
                """)
        @Argument(help: "Its number, as polder partition list shows it.")
        var partition: UInt32
        @Option(help: "The new partition's first hash, hexadecimal. The middle, if not given.")
        var at: String?
        @OptionGroup var client: ClientOptions

        func run() throws {
            var path = "/polder/partitions/split?partition=\(partition)"
            if let at {
                guard UInt64(at, radix: 16) != nil else {
                    throw Outcome.badFlags("--at \(at): expected up to 16 hexadecimal digits")
                }
                path += "&at=\(at)"
            }
            let resolved = try client.resolve()
            let target = path
            let (_, found) = try fetch(resolved, isOnce: true) {
                try resolved.fetch.post(target, body: "", to: $0, timeout: .seconds(15))
            }
            let split = try JSONDecoder().decode(Split.self, from: Data(found.body.utf8))
            print("partition \(split.parent) is split at \(split.cut); partition \(split.child) has the rest")
        }
    }

    /// Answered when it is so, or after a few seconds, when it comes about on its own.
    private static func order(_ client: ClientOptions.Resolved, _ path: String) throws {
        _ = try fetch(client, isOnce: true) {
            try client.fetch.post(path, body: "", to: $0, timeout: .seconds(15))
        }
    }

    struct MoveCommand: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "move",
            abstract: "Says which members vote in a partition, while it serves.",
            discussion: """
                The first of them leads it, whenever it can; what is missing is filled up by the rule:
                spread over zones, in order of seats. 0 is the directory, and the sequencer with it.

                  polder partition move 3 --to n4,n5,n6 --endpoints http://127.0.0.1:2379
                  polder partition move 3 --to n4          n4 leads
                  polder partition move 3 --by-rule        no wishes any more
                """)
        @Argument(help: "Its number, as polder partition list shows it.")
        var partition: UInt32
        @Option(help: "Names or ids of members, with commas between them.")
        var to: String?
        @Flag(help: "The rule decides again.")
        var byRule = false
        @OptionGroup var client: ClientOptions

        func run() throws {
            let names = (to ?? "").split(separator: ",").map(String.init)
            guard names.isEmpty == byRule else {
                throw Outcome.badFlags("say either --to NAME,NAME or --by-rule")
            }
            let ids = try names.map { try NodeCommand.find(client, $0).hexadecimal }
            try PartitionCommand.order(
                try client.resolve(),
                "/polder/partitions/move?partition=\(partition)&members=\(ids.joined(separator: ","))")
            print(
                byRule
                    ? "partition \(partition) lies by the rule"
                    : "partition \(partition) lies with \(names.joined(separator: ", "))")
        }
    }

    struct ReplicasCommand: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "replicas",
            abstract: "Says how many members vote in each partition.",
            discussion: """
                The others receive every write and serve reads, but no write waits for them. Three survive
                the loss of one node, five of two. Without a word up to \(Placement.replicasStandard) vote.

                  polder partition replicas 3 --endpoints http://127.0.0.1:2379
                """)
        @Argument(help: "1 to \(Placement.replicasMax).")
        var count: Int
        @OptionGroup var client: ClientOptions

        func run() throws {
            guard (1...Placement.replicasMax).contains(count) else {
                throw Outcome.badFlags("\(count): expected 1 to \(Placement.replicasMax)")
            }
            try PartitionCommand.order(
                try client.resolve(), "/polder/partitions/replicas?count=\(count)")
            print("\(count) members vote in each partition, as far as there are so many")
        }
    }

    struct SpreadCommand: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "spread",
            abstract: "Says who holds the rows of each partition: only who votes in it, or every node.",
            discussion: """
                Spread, a region holds more than one of its nodes can, and a write costs the same however many
                nodes there are; every node still serves every read, with what it lacks asked of others. Without it
                every node reads everything at home. Rows move in the background, while clients are served.

                  polder partition spread on --endpoints http://127.0.0.1:2379
                """)
        @Argument(help: "on or off.")
        var choice: String
        @OptionGroup var client: ClientOptions

        func run() throws {
            guard choice == "on" || choice == "off" else {
                throw Outcome.badFlags("\(choice): expected on or off")
            }
            let isOn = choice == "on"
            try PartitionCommand.order(try client.resolve(), "/polder/partitions/spread?on=\(isOn)")
            print(isOn ? "rows lie with those who vote in their partition" : "every node holds all rows")
        }
    }
}
