import EtcdAPI
import Foundation
import Histogram
import Primitives

/// One run of a drill: load, fault, recovery, judgement.
final class DrillRun {
    /// For the page.
    struct Evidence {
        var region: String
        var record: DrillRecord
        var start: Instant
    }

    let drill: Drill
    let options: DrillOptions
    let cluster: DevCluster
    let prefix: String
    var document: DrillDocument
    var start = Instant.zero
    private(set) var evidence: [Evidence] = []
    private let progress: @Sendable (String) -> Void

    /// Connections and caches warm up: not judged.
    static let warmUp = TimeSpan.seconds(2)
    static let baseline = TimeSpan.seconds(3)
    static let afterwards = TimeSpan.seconds(3)

    init(
        _ drill: Drill, _ options: DrillOptions, _ cluster: DevCluster,
        _ progress: @escaping @Sendable (String) -> Void
    ) {
        self.drill = drill
        self.options = options
        self.cluster = cluster
        self.progress = progress
        let description = drill.description
        let wall = SystemClock.wallMicroseconds()
        prefix = "polder-drill/\(description.name)/\(String(wall, radix: 36))/"
        document = DrillDocument(
            name: description.name, hypothesis: description.hypothesis,
            budgetGapMs: options.maximumGapMilliseconds ?? description.budgetGapMs,
            rate: options.rate, startedAt: Double(wall) / 1e6)
        document.errorsAllowed =
            options.errorsAllowed ?? drill.errorsAllowed(rate: options.rate)
    }

    func run() async throws -> DrillDocument {
        guard await cluster.waitUntilServing(cluster.nodes, limit: .seconds(15)) != nil else {
            throw DrillError.notFit(
                "the cluster is not healthy: not every node answers a linearizable read")
        }
        switch drill {
        case .leaderCrash, .nodeCrash: try await crash()
        case .leaderFreeze: try await freeze()
        case .rollingRestart: try await rollingRestart()
        case .split: try await split()
        case .move: try await move()
        case .regionIsolation: try await isolation()
        }
        document.judge()
        // What failed is left in place for whoever looks into it.
        if document.verdict == "PASS" { await removeKeys() }
        return document
    }

    func phase(_ name: String) {
        let seconds = Double(SystemClock.now().since(start).nanoseconds) / 1e9
        document.phases.append(.init(name: name, atSeconds: seconds))
        progress("\(Words.fixed(seconds, 1)) s: \(name)")
    }

    func sleep(_ span: TimeSpan) async throws {
        try await Task.sleep(nanoseconds: span.nanoseconds)
    }

    func faultTime(otherwise seconds: Double) -> TimeSpan {
        TimeSpan(nanoseconds: UInt64(max(0, options.faultSeconds ?? seconds) * 1e9))
    }

    // MARK: The frame around a fault

    /// When what was judged.
    struct Timing {
        var baseline: Instant
        var fault: Instant
        var end: Instant
        var stolen: StolenTime
    }

    /// Load, warm-up, baseline, then `fault` and some time after it. The load has ended when this returns.
    func underLoad(
        _ loads: [DrillLoad], on place: String, fault inject: () async throws -> Void
    ) async throws -> Timing {
        start = SystemClock.now()
        let stolen = StolenTime()
        defer { stolen.end() }
        let running = loads.map { load in Task { await load.run() } }
        defer { for task in running { task.cancel() } }
        phase("load on \(place)")
        try await sleep(Self.warmUp)
        // Now: to ask all nodes for their metrics is load, too, and not to fall into what is judged.
        let disk = await DrillDisk.read(of: cluster.nodes)
        let baseline = SystemClock.now()
        try await sleep(Self.baseline)
        let fault = SystemClock.now()
        try await inject()
        try await sleep(Self.afterwards)
        let end = SystemClock.now()
        document.slowestSyncMs = await DrillDisk.read(of: cluster.nodes).slowestSync(since: disk)
        for task in running { task.cancel() }
        for task in running { await task.value }
        phase("load ends")
        return Timing(baseline: baseline, fault: fault, end: end, stolen: stolen)
    }

    /// The load of a drill in one region, on `nodes`.
    func load(on nodes: [DevCluster.Node], of region: DevCluster.Region) -> DrillLoad {
        DrillLoad(
            region: region.name, nodes: nodes, rate: options.rate, registers: options.registers,
            prefix: prefix)
    }

    /// False, and a finding, if `node` does not serve within 30 s. The longest recovery counts.
    func isServing(_ node: DevCluster.Node, since: Instant, after event: String) async -> Bool {
        guard await cluster.waitUntilServing([node], limit: .seconds(30)) != nil else {
            document.findings.append("\(node.name) does not serve 30 s after \(event)")
            return false
        }
        let seconds = Double(SystemClock.now().since(since).nanoseconds) / 1e9
        document.recoverySeconds = max(document.recoverySeconds ?? 0, seconds)
        phase("\(node.name) serves")
        return true
    }

    /// A fault in one region of three nodes or more shows less with fewer.
    func threeNodes() throws -> DevCluster.Region {
        let region = try cluster.region(options.region)
        guard region.nodes.count >= 3 else {
            throw DrillError.notFit(
                "\(region.name) has \(region.nodes.count) nodes; this drill takes three")
        }
        return region
    }

    // MARK: Judgement

    /// Reads back through each of `nodes`. Each must have everything.
    func verify(_ load: DrillLoad, with nodes: [DevCluster.Node]) async {
        for node in nodes {
            let verification = await load.verify(with: node)
            if let failure = verification.failure {
                document.findings.append("could not be read back: \(failure)")
            }
            guard !verification.lost.isEmpty else { continue }
            // The same loss seen through several nodes is one loss.
            document.lostWrites = max(document.lostWrites, verification.lostWrites)
            note(missing: verification.lost, in: node.name)
        }
    }

    func note(missing: [String], in place: String) {
        document.findings.append(
            "not in \(place): " + missing.prefix(5).joined(separator: ", ")
                + (missing.count > 5 ? " and \(missing.count - 5) more" : ""))
    }

    func summarize(_ load: DrillLoad, _ region: String, _ timing: Timing) {
        let record = load.recorded
        evidence.append(.init(region: region, record: record, start: start))
        let figures = self.figures(record, region, timing)
        document.regions.append(figures)
        document.longestGapMs = max(document.longestGapMs, figures.longestGapMs)
        document.baselineGapMs = max(document.baselineGapMs, figures.baselineGapMs)
        document.errors += record.errors
        let (isLinearizable, problems) = record.linearizability()
        // The worst of all regions: no, then not known, then yes.
        let others = document.regions.count == 1 ? true : document.linearizable
        document.linearizable =
            isLinearizable == false || others == false
            ? false : isLinearizable == nil ? nil : others
        document.findings += problems.prefix(5)
        document.findings += record.nonsense.prefix(5).map { "nonsense was read: \($0)" }
    }

    private func figures(
        _ record: DrillRecord, _ region: String, _ timing: Timing
    ) -> DrillDocument.RegionFigures {
        let fault = timing.fault, end = timing.end
        func ms(_ span: TimeSpan) -> Double { Double(span.nanoseconds) / 1e6 }
        var byOutcome: [String: Int] = [:]
        var latency = LatencyHistogram(numberOfSignificantValueDigits: .three)
        for completion in record.completions {
            if completion.outcome.isFailure {
                byOutcome[completion.outcome.name, default: 0] += 1
            } else {
                latency.record(max(1, completion.finished.since(completion.due).nanoseconds / 1000))
            }
        }
        let gap = record.longestGap(from: fault, to: end)
        return .init(
            name: region, operations: record.completions.count, errors: record.errors,
            errorsByOutcome: byOutcome, acknowledgedWrites: record.acknowledgedWrites,
            longestGapMs: ms(gap.span),
            longestReadGapMs: ms(record.longestGap(.read, from: fault, to: end).span),
            longestWriteGapMs: ms(record.longestGap(.write, from: fault, to: end).span),
            gapAtSeconds: Double(gap.start.since(start).nanoseconds) / 1e9,
            gapStolenMs: timing.stolen.milliseconds(from: gap.start, to: gap.start.advanced(by: gap.span)),
            baselineGapMs: ms(record.longestGap(from: timing.baseline, to: fault).span),
            longestWaitMs: ms(record.longestWait(from: fault, to: end)),
            p50Ms: Double(latency.valueAtPercentile(50)) / 1000,
            p99Ms: Double(latency.valueAtPercentile(99)) / 1000)
    }

    private func removeKeys() async {
        for region in cluster.regions {
            for node in region.nodes {
                if (try? await node.client.delete(prefix, isPrefix: true)) != nil { break }
            }
        }
    }
}
