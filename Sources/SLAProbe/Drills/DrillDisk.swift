import EtcdAPI
import Foundation
import Primitives

/// How long the syncs of the nodes' logs took: all nodes of a machine wait for one disk, and a pause that the
/// disk made is not the cluster's. From the nodes' own histograms, whose buckets double.
struct DrillDisk {
    /// For what is above all buckets: seconds.
    private static let longest = 60.0
    /// Node, upper bound of the bucket in seconds, syncs that took at most that long.
    private var counts: [String: [Double: Double]] = [:]

    static func read(of nodes: [DevCluster.Node]) async -> DrillDisk {
        var disk = DrillDisk()
        for node in nodes {
            guard case .success(let answer) = await node.client.http("GET", "/metrics", timeout: .seconds(2)),
                answer.status == 200
            else { continue }
            disk.counts[node.name] = buckets(String(decoding: answer.body, as: UTF8.self))
        }
        return disk
    }

    /// Milliseconds; the bound of the highest bucket in which there is a sync since `earlier`. Nil: none is known.
    func slowestSync(since earlier: DrillDisk) -> Double? {
        var slowest: Double?
        for (name, now) in counts {
            var before = earlier.counts[name] ?? [:]
            // It has begun anew.
            if before.contains(where: { $0.value > now[$0.key] ?? 0 }) { before = [:] }
            var below = 0.0
            for bound in now.keys.sorted() {
                let through = now[bound, default: 0] - (before[bound] ?? 0)
                if through > below { slowest = max(slowest ?? 0, min(bound, Self.longest) * 1000) }
                below = max(below, through)
            }
        }
        return slowest
    }

    static func buckets(_ metrics: String) -> [Double: Double] {
        var found: [Double: Double] = [:]
        for line in metrics.split(separator: "\n") where line.hasPrefix("etcd_disk_wal_fsync_duration_seconds_bucket") {
            let parts = line.split(separator: "\"")
            guard parts.count == 3, let bound = parts[1] == "+Inf" ? Double.infinity : Double(parts[1]),
                let count = Double(parts[2].drop { $0 == "}" || $0 == " " })
            else { continue }
            found[bound] = count
        }
        return found
    }

    init() {}
    init(_ counts: [String: [Double: Double]]) { self.counts = counts }
}
