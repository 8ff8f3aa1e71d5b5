import Foundation
import Primitives

/// leader-freeze and rolling-restart.
extension DrillRun {
    func freeze() async throws {
        try await hurtOne(isBackAfter: "it went on") { victim in
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
            return thaw
        }
    }

    /// Every node in turn; the next one only when the last one serves again.
    func rollingRestart() async throws {
        let region = try threeNodes()
        let names = region.nodes.map(\.name).joined(separator: ", ")
        document.victim = names
        let load = load(on: region.nodes, of: region)
        let timing = try await underLoad([load], on: names) {
            for node in region.nodes {
                phase("\(node.name) stops")
                try await stop(node)
                let restart = SystemClock.now()
                try cluster.perform(.start, node)
                phase("\(node.name) restarted")
                guard await isServing(node, since: restart, after: "its restart") else { break }
                try await sleep(.seconds(1))
            }
        }
        await verify(load, with: region.nodes)
        summarize(load, region.name, timing)
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
}
