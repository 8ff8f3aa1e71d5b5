import EtcdAPI
import Foundation
import Glibc
import NIOCore
import NIOPosix
import Primitives

package enum DrillError: Error, CustomStringConvertible {
    case noCluster(String)
    case notFit(String)
    case failed(String)

    package var description: String {
        switch self {
        case .noCluster(let text), .notFit(let text), .failed(let text): text
        }
    }
}

/// `DIR/dev.json` of a running `polder dev`.
struct DevDescription: Decodable, Sendable {
    struct Region: Decodable, Sendable {
        var name: String
        var nodes: [Node]
    }
    struct Node: Decodable, Sendable {
        var name: String
        var client: String
        var pid: Int32?
    }
    var regions: [Region]
    var tls: ClientTLSFiles?

    static func read(_ directory: String) throws -> DevDescription {
        let file = URL(fileURLWithPath: directory).appendingPathComponent("dev.json")
        do {
            return try JSONDecoder().decode(Self.self, from: Data(contentsOf: file))
        } catch {
            throw DrillError.noCluster(
                "no running cluster in \(directory) (\(error.localizedDescription)): start one with "
                    + "`polder dev --data-dir \(directory) --enable-fault-injection`")
        }
    }
}

/// The cluster under test: its nodes, how to reach them, and how to hurt them.
final class DevCluster: Sendable {
    struct Node: Sendable {
        let name: String
        let region: String
        let client: EtcdClient
    }
    struct Region: Sendable {
        let name: String
        let nodes: [Node]
    }

    let directory: String
    let regions: [Region]
    private let control: DrillOptions.Control
    private let group: MultiThreadedEventLoopGroup

    init(directory: String, control: @escaping DrillOptions.Control) throws {
        let description = try DevDescription.read(directory)
        let tls = try description.tls?.context()
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        self.group = group
        self.directory = directory
        self.control = control
        regions = try description.regions.map { region in
            Region(
                name: region.name,
                nodes: try region.nodes.map { node in
                    guard let endpoint = EtcdEndpoint(node.client) else {
                        throw DrillError.noCluster("dev.json: '\(node.client)' is not an address")
                    }
                    let client = EtcdClient(
                        endpoint: endpoint, loop: group.next(), options: .init(tls: tls))
                    return Node(name: node.name, region: region.name, client: client)
                })
        }
        guard !regions.isEmpty, regions.allSatisfy({ !$0.nodes.isEmpty }) else {
            throw DrillError.noCluster("dev.json names a region without nodes, or none")
        }
    }

    var nodes: [Node] { regions.flatMap(\.nodes) }

    func region(_ name: String?) throws -> Region {
        guard let name else { return regions[0] }
        guard let region = regions.first(where: { $0.name == name }) else {
            let names = regions.map(\.name).joined(separator: ", ")
            throw DrillError.notFit("there is no region \(name); there are \(names)")
        }
        return region
    }

    func shutdown() async {
        for node in nodes { await node.client.shutdown() }
        // Nothing is left to be done about a loop that does not end: the process is about to.
        try? await group.shutdownGracefully()
    }

    // MARK: State

    /// Answers a linearizable read.
    func isServing(_ node: Node) async -> Bool {
        (try? await node.client.get("polder-drill/health", timeout: .seconds(1))) != nil
    }

    /// Waits until `nodes` serve; the seconds it took, or `nil` when `limit` has passed.
    func waitUntilServing(_ nodes: [Node], limit: TimeSpan) async -> Double? {
        let start = SystemClock.now()
        while true {
            var isReady = true
            for node in nodes where isReady { isReady = await isServing(node) }
            let waited = SystemClock.now().since(start)
            if isReady { return Double(waited.nanoseconds) / 1e9 }
            if waited > limit { return nil }
            try? await Task.sleep(for: .milliseconds(20))
        }
    }

    struct Leaders: Sendable, Equatable {
        /// By node: how many partitions it leads.
        var partitions: [String: Int] = [:]
        var sequencer: String?
    }

    /// From `/polder/status` of the first node of the region that answers.
    func leaders(of region: Region) async throws -> Leaders {
        var reasons: [String] = []
        for node in region.nodes {
            switch await node.client.http("GET", "/polder/status", timeout: .seconds(2)) {
            case .failure(let error): reasons.append("\(node.name): \(error)")
            case .success(let answer):
                if answer.status == 200, let leaders = Self.leaders(json: answer.body) {
                    return leaders
                }
                reasons.append("\(node.name): HTTP status \(answer.status)")
            }
        }
        throw DrillError.failed(
            "nobody in \(region.name) tells who leads: " + reasons.joined(separator: "; "))
    }

    static func leaders(json: [UInt8]) -> Leaders? {
        guard let object = try? JSONSerialization.jsonObject(with: Data(json)) as? [String: Any]
        else {
            return nil
        }
        var leaders = Leaders()
        for case let partition as [String: Any] in object["partitions"] as? [Any] ?? [] {
            if let leader = partition["leader"] as? String {
                leaders.partitions[leader, default: 0] += 1
            }
        }
        leaders.sequencer =
            object["sequencer"] as? String
            ?? (object["sequencer"] as? [String: Any])?["node"] as? String
        return leaders
    }

    /// How many conflicts about keys with `prefix` the region has recorded.
    func conflicts(in region: Region, prefix: String) async -> Int {
        var most = 0
        for node in region.nodes {
            guard
                case .success(let answer) = await node.client.http(
                    "GET", "/polder/conflicts?limit=10000", timeout: .seconds(5)),
                answer.status == 200
            else { continue }
            most = max(most, Self.conflicts(json: answer.body, prefix: prefix))
        }
        return most
    }

    static func conflicts(json: [UInt8], prefix: String) -> Int {
        let object = try? JSONSerialization.jsonObject(with: Data(json))
        let list = (object as? [String: Any])?["conflicts"] as? [Any] ?? object as? [Any] ?? []
        return list.count { entry in
            guard let entry = entry as? [String: Any] else { return false }
            let text = entry["keyText"] as? String ?? entry["key"] as? String ?? ""
            if text.hasPrefix(prefix) { return true }
            let decoded = (entry["key"] as? String).flatMap { Data(base64Encoded: $0) }
            return decoded.map { String(decoding: $0, as: UTF8.self).hasPrefix(prefix) } ?? false
        }
    }

    // MARK: Faults

    /// kill -9. Only what is ours to kill: the process that dev.json names, if it is a polder.
    func kill(_ node: Node) throws {
        let nodes = try DevDescription.read(directory).regions.flatMap(\.nodes)
        guard let pid = nodes.first(where: { $0.name == node.name })?.pid, pid > 1 else {
            throw DrillError.failed("dev.json names no process of \(node.name)")
        }
        let command =
            (try? Data(contentsOf: URL(fileURLWithPath: "/proc/\(pid)/cmdline"))) ?? Data()
        guard String(decoding: command, as: UTF8.self).contains("polder") else {
            throw DrillError.failed("process \(pid) of \(node.name) is not a polder: not killed")
        }
        guard Glibc.kill(pid, SIGKILL) == 0 else {
            throw DrillError.failed("kill \(pid): \(String(cString: strerror(errno)))")
        }
    }

    /// Blocks until it has been done: the node has been started (not until it serves), or has stopped.
    func perform(_ action: DrillAction, _ node: Node) throws {
        if let problem = control(action, node.name) {
            throw DrillError.failed("\(action.rawValue) \(node.name): \(problem)")
        }
    }

    /// Sets or ends a fault between `node` and all nodes of another region. Only there with
    /// --enable-fault-injection.
    func block(_ isBlocked: Bool, _ node: Node, from region: Region) async throws {
        let path = "/polder/fault?peer=\(region.name)" + (isBlocked ? "&block=true" : "")
        switch await node.client.http("POST", path, timeout: .seconds(2)) {
        case .failure(let error): throw DrillError.failed("\(node.name): \(error)")
        case .success(let answer):
            guard (200..<300).contains(answer.status) else {
                let text = String(decoding: answer.body, as: UTF8.self)
                throw DrillError.notFit(
                    "\(node.name) sets no faults (HTTP status \(answer.status), \(text)): this drill "
                        + "needs `polder dev --enable-fault-injection`")
            }
        }
    }
}
