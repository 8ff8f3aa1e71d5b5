import Glibc
import Primitives

/// Counts of one class of probes (reads or writes; of a region, an endpoint, or all).
package struct Tally: Sendable, Equatable {
    package private(set) var probes: UInt64 = 0
    package private(set) var failures: UInt64 = 0
    package private(set) var byOutcome = [UInt64](repeating: 0, count: Outcome.allCases.count)

    package init() {}
    package init(probes: UInt64, failures: UInt64) {
        invariant(failures <= probes)
        self.probes = probes
        self.failures = failures
        byOutcome[Int(Outcome.ok.rawValue)] = probes - failures
        byOutcome[Int(Outcome.unavailable.rawValue)] = failures
    }

    package mutating func add(_ outcome: Outcome) {
        probes += 1
        if outcome.isFailure { failures += 1 }
        byOutcome[Int(outcome.rawValue)] += 1
    }
    package mutating func merge(_ other: Tally) {
        probes += other.probes
        failures += other.failures
        for i in byOutcome.indices { byOutcome[i] += other.byOutcome[i] }
    }

    package func count(_ outcome: Outcome) -> UInt64 { byOutcome[Int(outcome.rawValue)] }
    package var errorRate: Double { probes == 0 ? 0 : Double(failures) / Double(probes) }
    /// Request-based availability. Nothing measured is not "available".
    package var ratio: Double { probes == 0 ? 0 : 1 - errorRate }
    package var lowerBound95: Double {
        Confidence.availabilityLowerBound(failures: failures, probes: probes)
    }
}

/// Availability as the cloud SLAs define it: the error rate of each hour, averaged over the hours.
/// An hour of full outage weighs an hour, however few requests clients still sent in it.
package struct HourlyTally: Sendable {
    /// Hours since 1970, UTC.
    package private(set) var hours: [UInt64: Tally] = [:]

    package init() {}

    package mutating func add(_ outcome: Outcome, atMicroseconds due: UInt64) {
        hours[due / 3_600_000_000, default: Tally()].add(outcome)
    }
    package mutating func merge(_ other: HourlyTally) {
        for (hour, tally) in other.hours { hours[hour, default: Tally()].merge(tally) }
    }

    /// Cloud contracts count an hour without requests as faultless. Nobody looked in it, so it is
    /// left out here.
    package var availability: Double {
        guard !hours.isEmpty else { return 0 }
        // In order: a sum of floating-point numbers depends on it.
        let rates = hours.sorted { $0.key < $1.key }.map(\.value.errorRate)
        return 1 - rates.reduce(0, +) / Double(rates.count)
    }

    /// Error rate over the last `count` hours with respect to `lastHour`, for burn rates.
    package func tally(lastHours count: UInt64, upTo lastHour: UInt64) -> Tally {
        var sum = Tally()
        for (hour, tally) in hours where hour <= lastHour && hour + count > lastHour {
            sum.merge(tally)
        }
        return sum
    }
}

/// How much failure an objective allows, how much of it is spent, and how fast it goes.
package struct ErrorBudget: Sendable, Equatable {
    package let objective: Double
    package let allowedFailures: Double
    package let failures: UInt64

    package init(objective: Double, tally: Tally) {
        invariant(objective > 0 && objective < 1)
        self.objective = objective
        allowedFailures = (1 - objective) * Double(tally.probes)
        failures = tally.failures
    }
    /// 1: untouched; 0: spent; below: overspent.
    package var remaining: Double {
        allowedFailures == 0 ? 1 : 1 - Double(failures) / allowedFailures
    }
    /// 1: spends exactly the budget; 14.4 for an hour is what people page on for a month's budget.
    package static func burnRate(objective: Double, tally: Tally) -> Double {
        tally.errorRate / (1 - objective)
    }
}

/// Availability in words that the sample supports. Never more nines than the lower bound has, and
/// never rounded up.
package enum Nines {
    /// 0.99912 has three. 1 would have infinitely many: no sample shows that.
    package static func count(_ availability: Double) -> Int {
        guard availability < 1 else { return 15 }
        guard availability > 0 else { return 0 }
        // The small addend: 1 - 0.999 is a hair more than 0.001.
        return max(0, Int((-log10(1 - availability) + 1e-9).rounded(.down)))
    }

    package static func text(_ tally: Tally, confidence: Double = 0.95) -> String {
        guard tally.probes > 0 else { return "not measured" }
        let bound = Confidence.availabilityLowerBound(
            failures: tally.failures, probes: tally.probes, confidence: confidence)
        let supported = count(bound)
        // The sample may look better than it proves: then say what it proves.
        let isProven = count(tally.ratio) <= supported
        return (isProven ? "" : "≥ ")
            + percent(
                isProven ? tally.ratio : bound, decimals: max(1, supported), least: supported - 2)
    }

    /// Cut off, not rounded: 99.9996 % with three decimals is 99.999 %.
    /// Zeros at the end go, down to `least` decimals.
    package static func percent(_ ratio: Double, decimals: Int, least: Int? = nil) -> String {
        var scale = pow(10, Double(decimals))
        var units = UInt64((ratio * 100 * scale + 1e-6).rounded(.down))
        var decimals = decimals
        while decimals > max(0, least ?? decimals), units % 10 == 0 {
            units /= 10
            decimals -= 1
            scale /= 10
        }
        let whole = units / UInt64(scale), part = units % UInt64(scale)
        guard decimals > 0 else { return "\(whole) %" }
        let digits = String(part)
        return "\(whole)." + String(repeating: "0", count: decimals - digits.count) + digits + " %"
    }
}
