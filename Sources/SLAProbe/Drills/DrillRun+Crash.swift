import Primitives

/// leader-crash and node-crash.
extension DrillRun {
    func crash() async throws {
        let region = try cluster.region(options.region)
        guard region.nodes.count >= 3 else {
            throw DrillError.notFit(
                "\(region.name) has \(region.nodes.count) nodes; to survive a crash takes three")
        }
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
        try cluster.kill(victim)
        phase("kill -9 \(victim.name)")
        try await sleep(faultTime(otherwise: 5))
        let restart = SystemClock.now()
        try cluster.perform(.start, victim)
        phase("\(victim.name) restarted")
        if await cluster.waitUntilServing([victim], limit: .seconds(30)) != nil {
            document.recoverySeconds = Double(SystemClock.now().since(restart).nanoseconds) / 1e9
            phase("\(victim.name) serves")
        } else {
            document.findings.append("\(victim.name) does not serve 30 s after its restart")
        }
        try await sleep(Self.afterwards)
        let end = SystemClock.now()
        running.cancel()
        await running.value
        phase("load ends")
        // Also through the one that was dead: it must have caught up.
        await verify(load, with: document.recoverySeconds == nil ? others : [victim] + others)
        summarize(load, region.name, baseline: baseline, fault: fault, end: end)
    }

    /// The sequencer's node, else the one that leads most; or the one that leads least.
    func choose(
        _ leaders: DevCluster.Leaders, _ region: DevCluster.Region
    ) throws -> DevCluster.Node {
        func weight(_ node: DevCluster.Node) -> Int {
            leaders.partitions[node.name, default: 0]
                + (leaders.sequencer == node.name ? 1_000_000 : 0)
        }
        let ordered = region.nodes.sorted { (weight($0), $0.name) < (weight($1), $1.name) }
        guard let least = ordered.first, let most = ordered.last, weight(most) > 0 else {
            throw DrillError.notFit("\(region.name) has no leader")
        }
        return drill == .nodeCrash ? least : most
    }
}
