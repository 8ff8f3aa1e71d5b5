import EtcdAPI
import Foundation
import Primitives

/// split.
extension DrillRun {
    /// Of so many partitions, one after the other. The load is on keys of all of them.
    private static let splits = 4

    func split() async throws {
        try await underChanges { region in
            for _ in 0..<Self.splits {
                let partition = try await widestPartition(of: region)
                let start = SystemClock.now()
                phase("partition \(partition) is to be split")
                let child = try await split(partition, of: region)
                note(recoverySince: start)
                phase("partition \(child) has a part of \(partition)")
                try await sleep(faultTime(otherwise: 1))
            }
        }
    }

    /// What an operator orders of a region's partitions, under load on all of its nodes.
    func underChanges(_ change: (DevCluster.Region) async throws -> Void) async throws {
        let region = try threeNodes()
        let load = load(on: region.nodes, of: region)
        let place = region.nodes.map(\.name).joined(separator: ", ")
        let timing = try await underLoad([load], on: place) { try await change(region) }
        await verify(load, with: region.nodes)
        summarize(load, region.name, timing)
    }

    func note(recoverySince start: Instant) {
        let seconds = Double(SystemClock.now().since(start).nanoseconds) / 1e9
        document.recoverySeconds = max(document.recoverySeconds ?? 0, seconds)
    }

    private func widestPartition(of region: DevCluster.Region) async throws -> UInt32 {
        guard let widest = Self.widestPartition(json: try await status(of: region)) else {
            throw DrillError.failed("\(region.name) does not tell its partitions")
        }
        return widest
    }

    func status(of region: DevCluster.Region) async throws -> [UInt8] {
        guard let node = region.nodes.first,
            case .success(let answer) = await node.client.http(
                "GET", "/polder/status", timeout: .seconds(2)), answer.status == 200
        else { throw DrillError.failed("\(region.name) does not tell its partitions") }
        return answer.body
    }

    static func widestPartition(json: [UInt8]) -> UInt32? {
        let object = try? JSONSerialization.jsonObject(with: Data(json)) as? [String: Any]
        var widest: (id: UInt32, width: UInt64)?
        for case let partition as [String: Any] in object?["partitions"] as? [Any] ?? [] {
            let ends = (partition["range"] as? String ?? "").split(separator: "-")
            guard let id = partition["id"] as? UInt32, ends.count == 2,
                let first = UInt64(ends[0], radix: 16), let last = UInt64(ends[1], radix: 16),
                first <= last
            else { continue }
            if last - first > widest?.width ?? 0 { widest = (id, last - first) }
        }
        return widest?.id
    }

    /// Returns the new partition. Any node takes the request.
    private func split(_ partition: UInt32, of region: DevCluster.Region) async throws -> UInt32 {
        let body = try await order("/polder/partitions/split?partition=\(partition)", partition, of: region)
        let object = try? JSONSerialization.jsonObject(with: Data(body)) as? [String: Any]
        guard let child = object?["child"] as? UInt32 else {
            throw DrillError.failed("no partition came of \(partition): \(String(decoding: body, as: UTF8.self))")
        }
        return child
    }

    func order(
        _ path: String, _ partition: UInt32, of region: DevCluster.Region
    ) async throws -> [UInt8] {
        let node = region.nodes[Int(partition) % region.nodes.count]
        switch await node.client.http("POST", path, timeout: .seconds(10)) {
        case .failure(let error): throw DrillError.failed("\(node.name): \(error)")
        case .success(let answer):
            guard answer.status == 200 else {
                let text = String(decoding: answer.body, as: UTF8.self)
                throw DrillError.failed("\(node.name): \(path): HTTP status \(answer.status), \(text)")
            }
            return answer.body
        }
    }
}
