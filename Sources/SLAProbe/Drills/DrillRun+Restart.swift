import Foundation
import Primitives

/// leader-freeze and rolling-restart.
extension DrillRun {
    func freeze() async throws {
        let region = try threeNodes(of: try cluster.region(options.region))
        let victim = try choose(try await cluster.leaders(of: region), region)
        document.victim = victim.name
        let others = region.nodes.filter { $0.name != victim.name }
        let load = DrillLoad(
            region: region.name, nodes: others, rate: options.rate, registers: options.registers,
            prefix: prefix)
        start = SystemClock.now()
        let running = Task { await load.run() }
        defer { running.cancel() }
        phase("load on \(others.map(\.name).joined(separator: " and "))")
        try await sleep(Self.warmUp)
        let baseline = SystemClock.now()
        try await sleep(Self.baseline)
        let fault = SystemClock.now()
        try cluster.perform(.freeze, victim)
        phase("\(victim.name) stands still")
        do {
            try await sleep(faultTime(otherwise: 3))
        } catch {
            try? cluster.perform(.thaw, victim)
            throw error
        }
        let thaw = SystemClock.now()
        try cluster.perform(.thaw, victim)
        phase("\(victim.name) goes on")
        if await cluster.waitUntilServing([victim], limit: .seconds(30)) != nil {
            document.recoverySeconds = Double(SystemClock.now().since(thaw).nanoseconds) / 1e9
            phase("\(victim.name) serves")
        } else {
            document.findings.append("\(victim.name) does not serve 30 s after it went on")
        }
        try await sleep(Self.afterwards)
        let end = SystemClock.now()
        running.cancel()
        await running.value
        phase("load ends")
        await verify(load, with: document.recoverySeconds == nil ? others : [victim] + others)
        summarize(load, region.name, baseline: baseline, fault: fault, end: end)
    }

    /// Every node in turn; the next one only when the last one serves again.
    func rollingRestart() async throws {
        let region = try threeNodes(of: try cluster.region(options.region))
        document.victim = region.nodes.map(\.name).joined(separator: ", ")
        let load = DrillLoad(
            region: region.name, nodes: region.nodes, rate: options.rate,
            registers: options.registers, prefix: prefix)
        start = SystemClock.now()
        let running = Task { await load.run() }
        defer { running.cancel() }
        phase("load on \(document.victim ?? region.name)")
        try await sleep(Self.warmUp)
        let baseline = SystemClock.now()
        try await sleep(Self.baseline)
        let fault = SystemClock.now()
        var longest = 0.0
        for node in region.nodes {
            phase("\(node.name) stops")
            try await stop(node)
            let restart = SystemClock.now()
            try cluster.perform(.start, node)
            phase("\(node.name) restarted")
            guard await cluster.waitUntilServing([node], limit: .seconds(30)) != nil else {
                document.findings.append("\(node.name) does not serve 30 s after its restart")
                break
            }
            longest = max(longest, Double(SystemClock.now().since(restart).nanoseconds) / 1e9)
            phase("\(node.name) serves")
            try await sleep(.seconds(1))
        }
        document.recoverySeconds = longest
        try await sleep(Self.afterwards)
        let end = SystemClock.now()
        running.cancel()
        await running.value
        phase("load ends")
        await verify(load, with: region.nodes)
        summarize(load, region.name, baseline: baseline, fault: fault, end: end)
    }

    /// It takes its time: the load goes on meanwhile.
    private func stop(_ node: DevCluster.Node) async throws {
        let cluster = cluster
        try await withCheckedThrowingContinuation { (done: CheckedContinuation<Void, any Error>) in
            Thread.detachNewThread {
                done.resume(with: Result { try cluster.perform(.stop, node) })
            }
        }
    }

    private func threeNodes(of region: DevCluster.Region) throws -> DevCluster.Region {
        guard region.nodes.count >= 3 else {
            throw DrillError.notFit("\(region.name) has \(region.nodes.count) nodes; it takes three")
        }
        return region
    }
}
