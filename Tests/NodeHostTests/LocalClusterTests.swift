import Foundation
import Primitives
import Testing

@testable import NodeHost

/// The supervisor with nodes that are shell scripts.
@Suite(.serialized) struct LocalClusterTests {
    /// Lines that `polder dev` said, from its thread.
    final class Transcript: @unchecked Sendable {
        private let lock = NSLock()
        private var said: [String] = []
        func say(_ line: String) { lock.withLock { said.append(line) } }
        var lines: [String] { lock.withLock { said } }
    }

    private func directory() throws -> String {
        let path = NSTemporaryDirectory() + "polder-\(UUID().uuidString)"
        try Files.makeDirectory(path)
        return path
    }

    private func settings(_ directory: String) -> LocalClusterSettings {
        var settings = LocalClusterSettings(
            directory: directory, shape: .init(regions: 1, nodes: 2, partitions: 4))
        settings.tls = false
        // Below the ports that the kernel gives to connections, and free now.
        settings.basePort =
            stride(from: 10_000 + Int(getpid() % 1_000) * 20, to: 32_000, by: 20).first { base in
                (0..<2).allSatisfy { node in
                    (0..<2).allSatisfy { PortCheck.isFree(base + 10 * node + $0) }
                }
            } ?? 10_000
        return settings
    }

    private func environment(
        script: String, _ transcript: Transcript, isServing: @escaping (LocalNode) -> Bool = { _ in true }
    ) -> LocalCluster.Environment {
        var environment = LocalCluster.Environment(
            serve: ["/bin/sh", "-c", script, "node"], makeCertificates: { _ in },
            isServing: { _, node in isServing(node) }, say: { transcript.say($0) })
        environment.startLimit = .seconds(2)
        return environment
    }

    private func eventually(_ condition: () -> Bool) -> Bool {
        for _ in 0..<3_000 {
            if condition() { return true }
            usleep(20_000)
        }
        return false
    }

    private func runs(_ pid: Int) -> Bool { kill(pid_t(pid), 0) == 0 }

    private func pids(_ directory: String) throws -> [Int?] {
        let data = try Data(contentsOf: URL(fileURLWithPath: directory + "/dev.json"))
        let root = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
        let regions = try #require(root["regions"] as? [[String: Any]])
        let nodes = try #require(regions.first?["nodes"] as? [[String: Any]])
        return nodes.map { $0["pid"] as? Int }
    }

    @Test func `it starts, describes, obeys dev-node and stops on SIGTERM`() throws {
        let directory = try directory(), transcript = Transcript()
        defer { try? Files.removeTree(directory) }
        let wanted = settings(directory)
        let environment = environment(script: "exec sleep 100", transcript)
        // The supervisor blocks its thread and owns SIGCHLD there: a thread of its own, as in life.
        nonisolated(unsafe) var failure: LocalCluster.Failure?
        nonisolated(unsafe) let given = environment
        let ended = DispatchSemaphore(value: 0)
        nonisolated(unsafe) var thread = pthread_t()
        let worker = Thread {
            thread = pthread_self()
            do throws(LocalCluster.Failure) {
                try LocalCluster(wanted, environment: given).run()
            } catch {
                failure = error
            }
            ended.signal()
        }
        worker.start()
        #expect(eventually { transcript.lines.last == "ready" })
        let first = try pids(directory)
        #expect(first.allSatisfy { $0.map(runs) == true })

        #expect(try LocalCluster.ask(directory: directory, action: .kill, node: "r1-n2") == "r1-n2 stopped")
        let second = try pids(directory)
        #expect(second == [first[0], nil])
        #expect(
            try LocalCluster.ask(directory: directory, action: .start, node: "r1-n2")
                .hasPrefix("r1-n2 started"))
        #expect(try LocalCluster.ask(directory: directory, action: .freeze, node: "r1-n1") == "r1-n1 frozen")
        #expect(try LocalCluster.ask(directory: directory, action: .stop, node: "r1-n1") == "r1-n1 stopped")
        try Files.makeDirectory(directory + "/r1-n1/data")
        #expect(
            try LocalCluster.ask(directory: directory, action: .wipe, node: "r1-n1")
                .contains("data removed"))
        #expect(!Files.exists(directory + "/r1-n1/data"))
        #expect(throws: LocalCluster.Failure.self) {
            try LocalCluster.ask(directory: directory, action: .start, node: "r9-n9")
        }

        pthread_kill(thread, SIGTERM)
        #expect(ended.wait(timeout: .now() + 60) == .success)
        #expect(failure == nil)
        #expect(!Files.exists(directory + "/dev.json"))
        #expect(first.allSatisfy { $0.map(runs) == false })
    }

    @Test func `a node that ends at its start is exit code 4 with its last lines`() throws {
        let directory = try directory()
        defer { try? Files.removeTree(directory) }
        let environment = environment(script: "echo the disk is on fire; exit 7", Transcript()) { _ in false }
        let failure = #expect(throws: LocalCluster.Failure.self) {
            try LocalCluster(settings(directory), environment: environment).run()
        }
        #expect(failure?.exitCode == 4)
        #expect(failure?.message.contains("the disk is on fire") == true)
    }

    @Test func `a taken port is exit code 3 and names the port`() throws {
        let directory = try directory(), wanted = settings(directory)
        defer { try? Files.removeTree(directory) }
        let taken = try #require(PortCheck.take(wanted.basePort + 11))
        defer { close(taken) }
        let failure = #expect(throws: LocalCluster.Failure.self) {
            try LocalCluster(wanted, environment: environment(script: "exit 0", Transcript())).run()
        }
        #expect(failure?.exitCode == 3)
        #expect(failure?.message.contains("port \(wanted.basePort + 11)") == true)
    }

    @Test func `a directory with another shape is refused`() throws {
        let directory = try directory()
        defer { try? Files.removeTree(directory) }
        var wanted = settings(directory)
        let fails = environment(script: "exit 1", Transcript()) { _ in false }
        _ = try? LocalCluster(wanted, environment: fails).run()
        wanted.shape.nodes = 3
        let failure = #expect(throws: LocalCluster.Failure.self) {
            try LocalCluster(wanted, environment: fails).run()
        }
        #expect(failure?.exitCode == 3)
        #expect(failure?.message.contains("holds a cluster of 1 region(s) of 2 node(s)") == true)
    }

    @Test func `nobody there is exit code 3`() throws {
        let directory = try directory()
        defer { try? Files.removeTree(directory) }
        let failure = #expect(throws: LocalCluster.Failure.self) {
            try LocalCluster.ask(directory: directory, action: .kill, node: "r1-n1")
        }
        #expect(failure?.exitCode == 3)
    }

    @Test func `ports follow the contract with scripts`() {
        let plan = LocalClusterPlan(LocalClusterSettings(directory: "/d"))
        #expect(plan.nodes.map(\.name) == ["r1-n1", "r1-n2", "r1-n3", "r2-n1", "r2-n2", "r2-n3"])
        #expect(plan.nodes.map(\.clientPort) == [2379, 2389, 2399, 2409, 2419, 2429])
        #expect(
            plan.json(pids: ["r1-n1": 7]).hasPrefix(
                #"{"regions":[{"name":"r1","console":"https://127.0.0.1:2379/","nodes":[{"name":"r1-n1","#
                    + #""client":"https://127.0.0.1:2379","peer":"127.0.0.1:2380","pid":7,"#))
    }

    @Test func `a shell takes the printed line whatever the directory is called`() {
        #expect(shellQuoted("/a/b-c") == "/a/b-c")
        #expect(shellQuoted("/a b/it's") == "'/a b/it'\\''s'")
    }
}
