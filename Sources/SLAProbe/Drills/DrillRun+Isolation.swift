import EtcdAPI
import Primitives

/// region-isolation.
extension DrillRun {
    func isolation() async throws {
        guard cluster.regions.count >= 2 else {
            throw DrillError.notFit("there is one region; isolation takes two")
        }
        let cut = try cluster.region(options.region)
        let others = cluster.regions.filter { $0.name != cut.name }
        document.victim = cut.name
        let loads = cluster.regions.map { region in
            DrillLoad(
                region: region.name, nodes: region.nodes,
                rate: options.rate / Double(cluster.regions.count), registers: options.registers,
                prefix: "\(prefix)\(region.name)/", contestedPrefix: "\(prefix)contested/")
        }
        var mended = Instant.zero
        let timing = try await underLoad(loads, on: "every region") {
            do {
                try await part(cut, from: others)
                phase("\(cut.name) cut off")
                try await sleep(faultTime(otherwise: 15))
                await checkCut(cut, others)
            } catch {
                // The first error is the one to tell; nodes without fault points have nothing to mend.
                try? await mend(cut, others)
                throw error
            }
            mended = SystemClock.now()
            try await mend(cut, others)
            phase("link mended")
        }
        document.converged = await converge(limit: .seconds(60))
        if document.converged == true {
            document.convergenceSeconds =
                Double(SystemClock.now().since(mended).nanoseconds) / 1e9
            phase("regions equal")
        }
        await countConflicts()
        for (load, region) in zip(loads, cluster.regions) {
            await verify(load, with: [region.nodes[0]])
            for other in cluster.regions where other.name != region.name {
                await verifyReplica(of: load, region.name, in: other)
            }
            summarize(load, region.name, timing)
        }
    }

    private func part(_ cut: DevCluster.Region, from others: [DevCluster.Region]) async throws {
        for other in others {
            for node in cut.nodes { try await cluster.block(true, node, from: other) }
            for node in other.nodes { try await cluster.block(true, node, from: cut) }
        }
    }

    /// All nodes, whatever happens to one.
    private func mend(_ cut: DevCluster.Region, _ others: [DevCluster.Region]) async throws {
        var failure: (any Error)?
        func end(_ node: DevCluster.Node, _ region: DevCluster.Region) async {
            do { try await cluster.block(false, node, from: region) } catch { failure = error }
        }
        for other in others {
            for node in cut.nodes { await end(node, other) }
            for node in other.nodes { await end(node, cut) }
        }
        if let failure { throw failure }
    }

    /// A fault that has no effect proves nothing.
    private func checkCut(_ cut: DevCluster.Region, _ others: [DevCluster.Region]) async {
        let key = "\(prefix)marker"
        guard (try? await cut.nodes[0].client.put(key, "x")) != nil else { return }
        try? await Task.sleep(for: .seconds(1))
        for region in others {
            let found = try? await region.nodes[0].client.get(key)
            guard found?.kv != nil else { continue }
            document.findings.append(
                "the cut had no effect: \(region.name) sees what \(cut.name) writes")
        }
    }

    /// Everything that this drill wrote is the same in all regions.
    private func converge(limit: TimeSpan) async -> Bool {
        let deadline = SystemClock.now().advanced(by: limit)
        while true {
            let contents = await contents()
            if let first = contents.first, contents.count == cluster.regions.count, !first.isEmpty,
                contents.allSatisfy({ $0 == first })
            {
                return true
            }
            if SystemClock.now() > deadline {
                note(differences: contents)
                return false
            }
            try? await Task.sleep(for: .milliseconds(100))
        }
    }

    /// Of each region, up to the first that does not answer.
    private func contents() async -> [[String: [UInt8]]] {
        var contents: [[String: [UInt8]]] = []
        for region in cluster.regions {
            guard let kvs = try? await region.nodes[0].client.list(prefix: prefix).kvs else {
                break
            }
            let pairs = kvs.map { (String(decoding: $0.key, as: UTF8.self), Array($0.value)) }
            contents.append(Dictionary(pairs, uniquingKeysWith: { first, _ in first }))
        }
        return contents
    }

    private func note(differences contents: [[String: [UInt8]]]) {
        let all = Set(contents.flatMap(\.keys))
        for (region, keys) in zip(cluster.regions, contents) {
            let missing = all.count { keys[$0] == nil }
            let other = all.count { key in
                keys[key] != nil && contents.contains { $0[key] != nil && $0[key] != keys[key] }
            }
            document.findings.append(
                "\(region.name) lacks \(missing) of \(all.count) keys, and has other values of "
                    + "\(other)")
        }
        if contents.count < cluster.regions.count {
            document.findings.append("\(cluster.regions[contents.count].name) does not answer")
        }
    }

    private func countConflicts() async {
        var conflicts = 0
        for region in cluster.regions {
            conflicts += await cluster.conflicts(in: region, prefix: prefix)
        }
        document.conflicts = conflicts
        if conflicts == 0 {
            document.findings.append("both sides wrote the same keys, and no conflict was recorded")
        }
    }

    /// Registers have been compared by `converge`; keys written once must have come over.
    private func verifyReplica(
        of load: DrillLoad, _ origin: String, in region: DevCluster.Region
    ) async {
        do {
            let missing = try await load.missingKeys(in: region.nodes[0])
            guard !missing.isEmpty else { return }
            document.lostWrites += missing.count
            note(missing: missing, in: "\(region.name), of \(origin)'s writes")
        } catch {
            document.findings.append("\(region.name) could not be read back: \(error)")
        }
    }
}
