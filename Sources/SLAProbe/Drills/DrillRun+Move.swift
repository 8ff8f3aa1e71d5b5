import EtcdAPI
import Foundation
import Primitives

/// move.
extension DrillRun {
    /// Of so many partitions, one after the other.
    private static let moves = 4

    func move() async throws {
        try await underChanges { region in
            let partitions = try await places(of: region).prefix(Self.moves)
            for partition in partitions {
                let start = SystemClock.now()
                phase("partition \(partition.id) is to go from \(partition.leader) to \(partition.target)")
                try await move(partition.id, to: partition.targetID, of: region)
                try await wait(for: partition.id, at: partition.target, in: region)
                note(recoverySince: start)
                phase("\(partition.target) leads it")
                try await sleep(faultTime(otherwise: 1))
            }
            for partition in partitions {
                try await move(partition.id, to: partition.leaderID, of: region)
                try await wait(for: partition.id, at: partition.leader, in: region)
                try await move(partition.id, to: "", of: region)
            }
            phase("all are back")
            try await sleep(faultTime(otherwise: 1))
        }
    }

    struct Place: Equatable {
        let id: UInt32
        let leader: String
        let leaderID: String
        let target: String
        let targetID: String
    }

    private func move(_ partition: UInt32, to member: String, of region: DevCluster.Region) async throws {
        _ = try await order(
            "/polder/partitions/move?partition=\(partition)&members=\(member)", partition, of: region)
    }

    private func places(of region: DevCluster.Region) async throws -> [Place] {
        Self.places(json: try await status(of: region))
    }

    private func wait(for partition: UInt32, at target: String, in region: DevCluster.Region) async throws {
        for _ in 0..<100 {
            let found = try await places(of: region).first { $0.id == partition }
            if found?.leader == target { return }
            try await sleep(.milliseconds(50))
        }
        throw DrillError.failed("\(target) does not lead partition \(partition) after 5 s")
    }

    /// Where each partition lies, and where it might go: to a node that does not vote there, or else to one
    /// that does not lead it.
    static func places(json: [UInt8]) -> [Place] {
        guard let object = try? JSONSerialization.jsonObject(with: Data(json)) as? [String: Any],
            let regions = object["regions"] as? [[String: Any]],
            let nodes = regions.first?["nodes"] as? [[String: Any]]
        else { return [] }
        var ids: [String: String] = [:]
        for node in nodes {
            if let name = node["name"] as? String { ids[name] = node["id"] as? String }
        }
        return (object["partitions"] as? [[String: Any]] ?? []).compactMap { partition in
            guard let id = partition["id"] as? UInt32, let leader = partition["leader"] as? String,
                let voters = partition["voters"] as? [String], let leaderID = ids[leader]
            else { return nil }
            let others = ids.keys.filter { $0 != leader }.sorted()
            guard let target = others.first(where: { !voters.contains($0) }) ?? others.last,
                let targetID = ids[target]
            else { return nil }
            return Place(id: id, leader: leader, leaderID: leaderID, target: target, targetID: targetID)
        }
    }
}
