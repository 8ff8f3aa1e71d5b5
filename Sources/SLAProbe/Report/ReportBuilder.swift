package import Histogram

package typealias LatencyHistogram = Histogram<UInt64>

/// Everything about one class of probes (reads or writes of a region, of an endpoint, or of all).
package struct ClassSummary {
    package var tally = Tally()
    package var hourly = HourlyTally()
    /// Of good answers, microseconds from the due time.
    package var latency = LatencyHistogram(numberOfSignificantValueDigits: .three)
    package var outages: [Outage] = []
    package var measuredMicroseconds: UInt64 = 0

    mutating func add(_ outcome: Outcome, latencyMicroseconds: UInt64, dueMicroseconds: UInt64) {
        tally.add(outcome)
        hourly.add(outcome, atMicroseconds: dueMicroseconds)
        if !outcome.isFailure { latency.record(max(1, latencyMicroseconds)) }
    }

    package var outageSeconds: Double { outages.reduce(0) { $0 + $1.seconds } }
    /// Share of the measured time (of all vantage points and regions) that was not outage.
    package var timeAvailability: Double {
        measuredMicroseconds == 0 ? 0 : 1 - outageSeconds * 1e6 / Double(measuredMicroseconds)
    }
    package func percentile(_ percent: Double) -> Double {
        latency.totalCount == 0 ? 0 : Double(latency.valueAtPercentile(percent)) / 1000
    }
    package var maxMilliseconds: Double {
        latency.totalCount == 0 ? 0 : Double(latency.max) / 1000
    }
}

/// Reads and writes.
package struct ByKind<Value> {
    package var read: Value
    package var write: Value
    package subscript(kind: ProbeKind) -> Value {
        get { kind == .read ? read : write }
        set { if kind == .read { read = newValue } else { write = newValue } }
        _modify { if kind == .read { yield &read } else { yield &write } }
    }
}

/// One step of the charts' time axis.
package struct TimeBucket {
    package var startMicroseconds: UInt64
    package var tally = ByKind(read: Tally(), write: Tally())
    package var latency = ByKind(
        read: LatencyHistogram(numberOfSignificantValueDigits: .two),
        write: LatencyHistogram(numberOfSignificantValueDigits: .two))
}

/// Sums up any number of logs (vantage points, or one prober's several directories). One pass over
/// each; memory depends on hours, endpoints and outages, not on probes.
package struct ReportBuilder {
    package private(set) var total = ByKind(read: ClassSummary(), write: ClassSummary())
    package private(set) var regions: [String: ByKind<ClassSummary>] = [:]
    package private(set) var endpoints: [String: ByKind<ClassSummary>] = [:]
    package private(set) var buckets: [TimeBucket] = []
    package private(set) var vantages: [String] = []
    package private(set) var damagedLines = 0
    package private(set) var timeoutMilliseconds: Set<Int> = []
    package let fromMicroseconds: UInt64
    package let toMicroseconds: UInt64
    package let bucketMicroseconds: UInt64

    /// `from` and `to` bound the time axis; probes outside are counted, and drawn at its ends.
    package init(fromMicroseconds: UInt64, toMicroseconds: UInt64, bucketsMax: Int = 200) {
        self.fromMicroseconds = fromMicroseconds
        self.toMicroseconds = max(fromMicroseconds + 1, toMicroseconds)
        let span = self.toMicroseconds - fromMicroseconds
        // Whole seconds or simple parts of one, so that the axis is readable.
        let exact = span / UInt64(bucketsMax) + 1
        let short: [UInt64] = [100_000, 500_000, 1_000_000]
        bucketMicroseconds = short.first { exact < $0 } ?? (exact / 1_000_000 + 1) * 1_000_000
        let count = Int(span / bucketMicroseconds) + 1
        buckets = (0..<count).map {
            TimeBucket(startMicroseconds: fromMicroseconds + UInt64($0) * bucketMicroseconds)
        }
    }

    package mutating func add(_ log: ProbeLogReader) {
        let description = log.description
        if !vantages.contains(description.vantage) { vantages.append(description.vantage) }
        for run in description.runs { timeoutMilliseconds.insert(run.timeoutMilliseconds) }
        // Long enough for the slowest prober of this log to have had several turns.
        let slowest = description.runs.map(\.ratePerSecond).min() ?? 1
        let share = slowest / Double(max(1, 2 * description.regions.count))
        let gap = UInt64(max(10, 10 / max(share, 1e-3)) * 1e6)
        var detectors = description.regions.map { region in
            ByKind(
                read: OutageDetector(
                    vantage: description.vantage, region: region, kind: .read, gapMicroseconds: gap),
                write: OutageDetector(
                    vantage: description.vantage, region: region, kind: .write, gapMicroseconds: gap
                ))
        }
        var ofRegion = description.regions.map { _ in
            ByKind(read: ClassSummary(), write: ClassSummary())
        }
        var ofEndpoint = description.endpoints.map { _ in
            ByKind(read: ClassSummary(), write: ClassSummary())
        }
        damagedLines += log.forEach { record in
            total[record.kind].add(
                record.outcome, latencyMicroseconds: record.latencyMicroseconds,
                dueMicroseconds: record.dueMicroseconds)
            ofRegion[record.region][record.kind].add(
                record.outcome, latencyMicroseconds: record.latencyMicroseconds,
                dueMicroseconds: record.dueMicroseconds)
            for attempt in record.attempts {
                ofEndpoint[attempt.endpoint][record.kind].add(
                    attempt.outcome, latencyMicroseconds: attempt.latencyMicroseconds,
                    dueMicroseconds: record.dueMicroseconds)
            }
            detectors[record.region][record.kind].add(
                record.outcome, dueMicroseconds: record.dueMicroseconds)
            let offset = record.dueMicroseconds - min(record.dueMicroseconds, fromMicroseconds)
            let bucket = min(buckets.count - 1, Int(offset / bucketMicroseconds))
            buckets[bucket].tally[record.kind].add(record.outcome)
            if !record.outcome.isFailure {
                buckets[bucket].latency[record.kind].record(max(1, record.latencyMicroseconds))
            }
        }
        for (index, name) in description.regions.enumerated() {
            for kind in ProbeKind.allCases {
                detectors[index][kind].close()
                let detector = detectors[index][kind]
                for outage in detector.outages { total[kind].outages.append(outage) }
                total[kind].measuredMicroseconds += detector.measuredMicroseconds
                ofRegion[index][kind].outages = detector.outages
                ofRegion[index][kind].measuredMicroseconds = detector.measuredMicroseconds
            }
            Self.merge(ofRegion[index], into: &regions, name)
        }
        for (index, name) in description.endpoints.enumerated() {
            Self.merge(ofEndpoint[index], into: &endpoints, name)
        }
        total.read.outages.sort { $0.startMicroseconds < $1.startMicroseconds }
        total.write.outages.sort { $0.startMicroseconds < $1.startMicroseconds }
    }

    private static func merge(
        _ summary: ByKind<ClassSummary>, into table: inout [String: ByKind<ClassSummary>],
        _ name: String
    ) {
        guard var merged = table[name] else {
            table[name] = summary
            return
        }
        for kind in ProbeKind.allCases {
            merged[kind].tally.merge(summary[kind].tally)
            merged[kind].hourly.merge(summary[kind].hourly)
            merged[kind].latency.add(summary[kind].latency)
            merged[kind].outages += summary[kind].outages
            merged[kind].measuredMicroseconds += summary[kind].measuredMicroseconds
        }
        table[name] = merged
    }

    package var outages: [Outage] {
        (total.read.outages + total.write.outages).sorted {
            ($0.startMicroseconds, $0.region, $0.kind.rawValue)
                < ($1.startMicroseconds, $1.region, $1.kind.rawValue)
        }
    }

    package static func build(directories: [String]) throws -> ReportBuilder {
        let logs = try directories.map { try ProbeLogReader(directory: $0) }
        var first = UInt64.max, last: UInt64 = 0
        for log in logs {
            _ = log.forEach {
                first = min(first, $0.dueMicroseconds)
                last = max(last, $0.dueMicroseconds)
            }
        }
        guard first <= last else {
            throw ProbeError.noData(path: directories.joined(separator: ", "))
        }
        var builder = ReportBuilder(fromMicroseconds: first, toMicroseconds: last)
        for log in logs { builder.add(log) }
        return builder
    }
}
