import ArgumentParser
import Foundation
import NodeHost

/// What a node answers at `/polder/status`: its own view of its region, and of its links.
struct NodeAnswer: Decodable {
    struct Sequencer: Codable {
        let node: String
        let epoch: UInt64
    }
    struct Region: Decodable {
        let name: String
        let connected: Bool
        let nodes: [RegionStatus.Node]?
        let lagSeconds: Double?
        let lagRevisions: Int64?
    }
    struct Conflicts: Codable {
        let policy: String
        let total: UInt64
    }
    let region: String
    let node: String
    let version: String
    let featureLevel: Int?
    let revision: Int64
    let compactRevision: Int64
    let ready: Bool
    let problems: [String]
    let sequencer: Sequencer?
    let regions: [Region]
    let partitions: [RegionStatus.Partition]
    let conflicts: [Conflicts]
}

/// What `polder status -o json` prints for each region.
struct RegionStatus: Encodable {
    struct Node: Codable {
        let name: String
        let id: String
        let health: String
        let version: String
        let sequencer: Bool
        let clientURLs: [String]
    }
    struct Partition: Codable {
        let id: UInt32
        let range: String
        let leader: String?
        let term: String
        let replicas: [String]
        let voters: [String]?
        let decided: UInt64
        let applied: UInt64
        let writes: UInt64?
    }
    struct Link: Encodable {
        let origin: String
        let connected: Bool
        /// Nil: no node that answered receives this stream.
        var lagSeconds: Double?
        var lagRevisions: Int64?
    }
    let name: String
    let answeredBy: String
    let ready: Bool
    let problems: [String]
    let featureLevel: Int?
    let revision: Int64
    let compactRevision: Int64
    let sequencer: NodeAnswer.Sequencer?
    let nodes: [Node]
    let partitions: [Partition]
    var links: [Link]
    let conflicts: [NodeAnswer.Conflicts]

    init(_ answer: NodeAnswer) {
        name = answer.region
        answeredBy = answer.node
        ready = answer.ready
        problems = answer.problems
        featureLevel = answer.featureLevel
        revision = answer.revision
        compactRevision = answer.compactRevision
        sequencer = answer.sequencer
        nodes = answer.regions.first { $0.name == answer.region }?.nodes ?? []
        partitions = answer.partitions
        links = answer.regions.filter { $0.name != answer.region }.map {
            Link(
                origin: $0.name, connected: $0.connected, lagSeconds: $0.lagSeconds,
                lagRevisions: $0.lagRevisions)
        }
        conflicts = answer.conflicts
    }

    /// A stream's lag is known to the one node that receives it.
    mutating func learnLags(from other: RegionStatus) {
        for index in links.indices {
            guard let link = other.links.first(where: { $0.origin == links[index].origin }),
                let lag = link.lagSeconds, lag >= links[index].lagSeconds ?? 0
            else { continue }
            links[index].lagSeconds = lag
            links[index].lagRevisions = link.lagRevisions
        }
    }
}

struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "The cluster at a glance: regions, nodes, partitions, the sequencer.",
        discussion: """
              polder status --endpoints http://127.0.0.1:2379
              polder status --dev /tmp/polder
              polder status --dev /tmp/polder -o json
            """)

    @OptionGroup var client: ClientOptions
    @Option(name: .shortAndLong, help: "table or json.")
    var output = "table"

    private struct Answer: Encodable {
        let regions: [RegionStatus]
    }

    func run() throws {
        guard output == "table" || output == "json" else {
            throw Outcome.badFlags("-o \(output): expected table or json")
        }
        let resolved = try client.resolve()
        var regions: [RegionStatus] = [], troubles: [String] = []
        // One answer per region is enough; a node that does not answer is passed over.
        for endpoint in resolved.endpoints {
            do {
                let answer = try resolved.fetch.get("/polder/status", from: endpoint)
                guard answer.status == 200 else {
                    troubles.append("\(endpoint): HTTP status \(answer.status)")
                    continue
                }
                let region = RegionStatus(
                    try JSONDecoder().decode(NodeAnswer.self, from: Data(answer.body.utf8)))
                if let index = regions.firstIndex(where: { $0.name == region.name }) {
                    var (shown, other) = (regions[index], region)
                    if !shown.ready, other.ready { swap(&shown, &other) }
                    shown.learnLags(from: other)
                    regions[index] = shown
                } else {
                    regions.append(region)
                }
            } catch {
                troubles.append("\(error)")
            }
        }
        guard !regions.isEmpty else {
            throw Outcome.inTheWay((["nobody answers"] + troubles).joined(separator: "\n  "))
        }
        for trouble in troubles { complain("polder: \(trouble)") }
        regions.sort { $0.name < $1.name }
        if output == "json" {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            print(String(decoding: try encoder.encode(Answer(regions: regions)), as: UTF8.self))
        } else {
            print(regions.map(StatusTable.text).joined(separator: "\n"), terminator: "")
        }
    }
}

enum StatusTable {
    static func text(_ region: RegionStatus) -> String {
        var out = "region \(region.name)  revision \(region.revision)"
        if region.compactRevision > 0 { out += "  compacted \(region.compactRevision)" }
        out += "  sequencer \(region.sequencer.map { "\($0.node) (epoch \($0.epoch))" } ?? "none")"
        if let level = region.featureLevel { out += "  features \(level)" }
        out += region.ready ? "  ready\n" : "  not ready\n"
        for problem in region.problems { out += "  ! \(problem)\n" }
        out += table(
            ["NODE", "ID", "HEALTH", "VERSION", "CLIENT"],
            region.nodes.map {
                [
                    $0.name, $0.id, $0.health,
                    $0.version.isEmpty ? "-" : $0.version, $0.clientURLs.joined(separator: " "),
                ]
            })
        out += table(
            ["PARTITION", "RANGE", "LEADER", "TERM", "REPLICAS", "DECIDED", "APPLIED"],
            region.partitions.map {
                [
                    "\($0.id)", $0.range,
                    $0.leader ?? "none", $0.term, $0.replicas.joined(separator: " "), "\($0.decided)",
                    "\($0.applied)",
                ]
            })
        if !region.links.isEmpty {
            out += table(
                ["FROM REGION", "LINK", "LAG", "REVISIONS BEHIND"],
                region.links.map {
                    [
                        $0.origin, $0.connected ? "connected" : "cut off",
                        $0.lagSeconds.map { String(format: "%.3f s", $0) } ?? "unknown",
                        $0.lagRevisions.map { "\($0)" } ?? "unknown",
                    ]
                })
        }
        for count in region.conflicts {
            out += "  conflicts resolved by \(count.policy): \(count.total)\n"
        }
        return out
    }

    static func table(_ header: [String], _ rows: [[String]]) -> String {
        var widths = header.map(\.count)
        for row in rows {
            for (index, cell) in row.enumerated() { widths[index] = max(widths[index], cell.count) }
        }
        var out = ""
        for row in [header] + rows {
            var line = " "
            for (index, cell) in row.enumerated() {
                line += " " + cell + String(repeating: " ", count: widths[index] - cell.count + 1)
            }
            while line.hasSuffix(" ") { line.removeLast() }
            out += line + "\n"
        }
        return out
    }
}
