import Primitives

/// leader-crash and node-crash.
extension DrillRun {
    func crash() async throws {
        try await hurtOne(isBackAfter: "its restart") { victim in
            try cluster.kill(victim)
            phase("kill -9 \(victim.name)")
            try await sleep(faultTime(otherwise: 5))
            let restart = SystemClock.now()
            try cluster.perform(.start, victim)
            phase("\(victim.name) restarted")
            return restart
        }
    }

    /// One node is hurt while the others serve the load. `hurt` returns when it could begin to recover.
    func hurtOne(
        isBackAfter event: String, _ hurt: (DevCluster.Node) async throws -> Instant
    ) async throws {
        let region = try threeNodes()
        let victim = try choose(try await cluster.leaders(of: region), region)
        document.victim = victim.name
        let others = region.nodes.filter { $0.name != victim.name }
        let load = load(on: others, of: region)
        var isBack = false
        let place = others.map(\.name).joined(separator: " and ")
        let timing = try await underLoad([load], on: place) {
            let healed = try await hurt(victim)
            isBack = await isServing(victim, since: healed, after: event)
        }
        // Also through the one that was away: it must have caught up.
        await verify(load, with: isBack ? [victim] + others : others)
        summarize(load, region.name, timing)
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
