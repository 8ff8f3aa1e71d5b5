package import Foundation
import Histogram

/// `report.json`. What scripts read (docs: "The contract with outside scripts") comes first; more
/// fields may be added, none renamed.
package struct ReportDocument: Codable, Sendable, Equatable {
    package struct Availability: Codable, Sendable, Equatable {
        package var ratio: Double
        package var lowerBound95: Double
        package var probes: UInt64
        package var failures: UInt64
        /// In words, with no more nines than the sample proves.
        package var text: String
        /// As cloud SLAs define it: error rates of the hours, averaged.
        package var hourly: Double
        /// Share of the measured time that was not outage.
        package var timeBased: Double
        package var outcomes: [String: UInt64]
    }
    package struct Latency: Codable, Sendable, Equatable {
        package var p50: Double
        package var p90: Double
        package var p95: Double
        package var p99: Double
        package var p999: Double
        package var max: Double
        package var mean: Double
    }
    package struct OutageEntry: Codable, Sendable, Equatable {
        /// Seconds since 1970.
        package var start: Double
        package var end: Double
        package var seconds: Double
        package var kind: String
        package var region: String
        package var vantage: String
        package var failures: UInt64
        package var isOver: Bool
    }
    package struct Budget: Codable, Sendable, Equatable {
        package var objective: Double
        package var allowedFailures: Double
        package var failures: UInt64
        package var remaining: Double
        package var burnRateLastHour: Double
        package var burnRateLast6Hours: Double
        package var burnRateLastDay: Double
        /// How many faultless probes it takes to prove the objective at 95 %.
        package var probesToProve: UInt64
    }
    package struct Pair<Value: Codable & Sendable & Equatable>: Codable, Sendable, Equatable {
        package var read: Value
        package var write: Value
    }
    package struct Part: Codable, Sendable, Equatable {
        package var availability: Pair<Availability>
        package var latency: Pair<Latency>
    }

    package var version: Int
    package var from: Double
    package var to: Double
    package var vantages: [String]
    package var timeoutMilliseconds: [Int]
    package var availability: Pair<Availability>
    package var latency: Pair<Latency>
    package var outages: [OutageEntry]
    package var errorBudget: Pair<Budget>
    package var regions: [String: Part]
    package var endpoints: [String: Part]
    package var damagedLines: Int

    package init(_ builder: ReportBuilder, objective: Double) {
        version = 1
        from = Double(builder.fromMicroseconds) / 1e6
        to = Double(builder.toMicroseconds) / 1e6
        vantages = builder.vantages
        timeoutMilliseconds = builder.timeoutMilliseconds.sorted()
        let part = Self.part(builder.total)
        availability = part.availability
        latency = part.latency
        outages = builder.outages.map {
            OutageEntry(
                start: Double($0.startMicroseconds) / 1e6, end: Double($0.endMicroseconds) / 1e6,
                seconds: $0.seconds, kind: $0.kind.name, region: $0.region, vantage: $0.vantage,
                failures: $0.failures, isOver: $0.isOver)
        }
        let lastHour = builder.toMicroseconds / 3_600_000_000
        errorBudget = Pair(
            read: Self.budget(builder.total.read, objective, lastHour),
            write: Self.budget(builder.total.write, objective, lastHour))
        regions = builder.regions.mapValues(Self.part)
        endpoints = builder.endpoints.mapValues(Self.part)
        damagedLines = builder.damagedLines
    }

    private static func part(_ summary: ByKind<ClassSummary>) -> Part {
        Part(
            availability: Pair(
                read: availability(summary.read), write: availability(summary.write)),
            latency: Pair(read: latency(summary.read), write: latency(summary.write)))
    }

    private static func availability(_ summary: ClassSummary) -> Availability {
        var outcomes: [String: UInt64] = [:]
        for outcome in Outcome.allCases { outcomes[outcome.name] = summary.tally.count(outcome) }
        return Availability(
            ratio: summary.tally.ratio, lowerBound95: summary.tally.lowerBound95,
            probes: summary.tally.probes, failures: summary.tally.failures,
            text: Nines.text(summary.tally), hourly: summary.hourly.availability,
            timeBased: summary.timeAvailability, outcomes: outcomes)
    }

    private static func latency(_ summary: ClassSummary) -> Latency {
        Latency(
            p50: summary.percentile(50), p90: summary.percentile(90), p95: summary.percentile(95),
            p99: summary.percentile(99), p999: summary.percentile(99.9),
            max: summary.maxMilliseconds,
            mean: summary.latency.totalCount == 0 ? 0 : summary.latency.mean / 1000)
    }

    private static func budget(
        _ summary: ClassSummary, _ objective: Double, _ lastHour: UInt64
    ) -> Budget {
        let budget = ErrorBudget(objective: objective, tally: summary.tally)
        func burn(_ hours: UInt64) -> Double {
            ErrorBudget.burnRate(
                objective: objective, tally: summary.hourly.tally(lastHours: hours, upTo: lastHour))
        }
        return Budget(
            objective: objective, allowedFailures: budget.allowedFailures,
            failures: budget.failures,
            remaining: budget.remaining, burnRateLastHour: burn(1), burnRateLast6Hours: burn(6),
            burnRateLastDay: burn(24), probesToProve: Confidence.probesNeeded(for: objective))
    }

    package func json() throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return try encoder.encode(self) + Data("\n".utf8)
    }

    /// One row per class: for spreadsheets.
    package func csv() -> String {
        var out =
            "scope,name,kind,probes,failures,ratio,lowerBound95,hourly,timeBased,"
            + "p50ms,p90ms,p99ms,p999ms,maxms\n"
        func row(_ scope: String, _ name: String, _ kind: String, _ a: Availability, _ l: Latency) {
            let numbers = [
                a.ratio, a.lowerBound95, a.hourly, a.timeBased, l.p50, l.p90, l.p99, l.p999, l.max,
            ]
            out +=
                ([scope, Self.quoted(name), kind, "\(a.probes)", "\(a.failures)"]
                + numbers.map { "\($0)" }).joined(separator: ",") + "\n"
        }
        func rows(_ scope: String, _ name: String, _ part: Part) {
            row(scope, name, "read", part.availability.read, part.latency.read)
            row(scope, name, "write", part.availability.write, part.latency.write)
        }
        rows("total", "", Part(availability: availability, latency: latency))
        for (name, part) in regions.sorted(by: { $0.key < $1.key }) { rows("region", name, part) }
        for (name, part) in endpoints.sorted(by: { $0.key < $1.key }) {
            rows("endpoint", name, part)
        }
        out += "\noutage,region,vantage,kind,start,end,seconds,failures,isOver\n"
        for o in outages {
            out +=
                "outage,\(Self.quoted(o.region)),\(Self.quoted(o.vantage)),\(o.kind),"
                + "\(o.start),\(o.end),\(o.seconds),\(o.failures),\(o.isOver)\n"
        }
        return out
    }

    private static func quoted(_ text: String) -> String {
        guard text.contains(where: { ",\"\n\r".contains($0) }) else { return text }
        return "\"" + text.replacing("\"", with: "\"\"") + "\""
    }
}
