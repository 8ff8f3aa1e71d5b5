import Primitives
import Testing

@testable import SLAProbe

@Suite struct ScheduleTests {
    @Test func `probes are due on the clock, however late the prober wakes`() {
        var schedule = Schedule(start: Instant(nanoseconds: 1_000), ratePerSecond: 1_000)
        #expect(schedule.next(at: Instant(nanoseconds: 999)) == nil)
        let late = Instant(nanoseconds: 1_000 + 3_500_000)
        var dues: [UInt64] = []
        while let probe = schedule.next(at: late) { dues.append(probe.due.nanoseconds) }
        #expect(dues == [1_000, 1_001_000, 2_001_000, 3_001_000])
        #expect(schedule.nextDue.nanoseconds == 4_001_000)
    }

    @Test func `an odd rate does not drift`() {
        let schedule = Schedule(start: .zero, ratePerSecond: 3)
        #expect(schedule.due(3_000_000).nanoseconds == 1_000_000_000_000_000)
    }
}

@Suite struct ConfidenceTests {
    @Test func `nothing failed of 300,000 proves five nines`() {
        let bound = Confidence.availabilityLowerBound(failures: 0, probes: 300_000)
        #expect(bound >= 0.99999)
        #expect(bound < 0.999991)
        #expect(Confidence.availabilityLowerBound(failures: 0, probes: 290_000) < 0.99999)
        #expect(Confidence.probesNeeded(for: 0.99999) == 299_572)
    }

    /// Values of scipy.stats.beta.ppf(0.95, k + 1, n - k).
    @Test(
        arguments: [
            (0, 1, 0.95), (0, 10, 0.2588655508), (1, 10, 0.3941633024), (5, 10, 0.7775588989),
            (9, 10, 0.9948838032), (3, 1_000, 0.0077352447), (10, 100_000, 0.00016961486),
        ] as [(UInt64, UInt64, Double)])
    func `the upper bound of the failure rate is Clopper and Pearson's`(
        failures: UInt64, probes: UInt64, expected: Double
    ) {
        let bound = Confidence.failureUpperBound(failures: failures, probes: probes)
        #expect(abs(bound - expected) / expected < 1e-5, "\(bound)")
    }

    @Test func `all failed proves nothing, and so does an empty sample`() {
        #expect(Confidence.availabilityLowerBound(failures: 7, probes: 7) == 0)
        #expect(Confidence.availabilityLowerBound(failures: 0, probes: 0) == 0)
    }

    @Test func `the incomplete beta function has its known values`() {
        #expect(abs(Confidence.incompleteBeta(0.5, 2, 2) - 0.5) < 1e-12)
        #expect(abs(Confidence.incompleteBeta(0.25, 1, 1) - 0.25) < 1e-12)
        #expect(abs(Confidence.incompleteBeta(0.2, 3, 5) - 0.148032) < 1e-9)
    }
}

@Suite struct AvailabilityTests {
    @Test func `an hour of outage weighs an hour, however few asked in it`() {
        var hourly = HourlyTally()
        for _ in 0..<1_000 { hourly.add(.ok, atMicroseconds: 0) }
        for _ in 0..<10 { hourly.add(.timeout, atMicroseconds: 3_600_000_000) }
        #expect(hourly.availability == 0.5)
    }

    @Test func `hours in which nobody looked are left out`() {
        var hourly = HourlyTally()
        hourly.add(.ok, atMicroseconds: 0)
        hourly.add(.ok, atMicroseconds: 100 * 3_600_000_000)
        hourly.add(.unavailable, atMicroseconds: 100 * 3_600_000_000)
        #expect(hourly.availability == 0.75)
    }

    @Test func `no more nines are printed than the sample proves`() {
        #expect(Nines.text(Tally(probes: 100, failures: 0)) == "≥ 97 %")
        #expect(Nines.text(Tally(probes: 3_000, failures: 0)) == "≥ 99.9 %")
        #expect(Nines.text(Tally(probes: 299_000, failures: 0)) == "≥ 99.9989 %")
        #expect(Nines.text(Tally(probes: 300_000, failures: 0)) == "≥ 99.999 %")
        #expect(Nines.text(Tally()) == "not measured")
    }

    @Test func `an availability that the sample carries is printed as it is, and never rounded up`()
    {
        #expect(Nines.text(Tally(probes: 1_000_000, failures: 500)) == "99.95 %")
        #expect(Nines.text(Tally(probes: 1_000_000, failures: 999)) == "≥ 99.89 %")
        #expect(Nines.text(Tally(probes: 10, failures: 5)) == "50 %")
        #expect(Nines.percent(0.9999996, decimals: 3) == "99.999 %")
        #expect(Nines.percent(0.99999, decimals: 3) == "99.999 %")
    }

    @Test func `the budget says what is left`() {
        let tally = Tally(probes: 100_000, failures: 50)
        let budget = ErrorBudget(objective: 0.999, tally: tally)
        #expect(abs(budget.remaining - 0.5) < 1e-9)
        #expect(abs(ErrorBudget.burnRate(objective: 0.999, tally: tally) - 0.5) < 1e-9)
        #expect(ErrorBudget(objective: 0.9999, tally: tally).remaining < 0)
    }
}

@Suite struct OutageTests {
    private func detector(_ outcomes: [(Outcome, UInt64)]) -> OutageDetector {
        var detector = OutageDetector(
            vantage: "here", region: "r1", kind: .read, gapMicroseconds: 10_000_000)
        for (outcome, seconds) in outcomes {
            detector.add(outcome, dueMicroseconds: seconds * 1_000_000)
        }
        detector.close()
        return detector
    }

    @Test func `an outage lasts from its first failure to the next success`() {
        let found = detector([(.ok, 0), (.timeout, 1), (.unavailable, 2), (.ok, 3), (.ok, 4)])
        #expect(found.outages.count == 1)
        #expect(found.outages[0].seconds == 2)
        #expect(found.outages[0].failures == 2)
        #expect(found.outages[0].isOver)
        #expect(found.timeAvailability == 0.5)
    }

    @Test func `an outage that the recording does not see the end of says so`() {
        let found = detector([(.ok, 0), (.timeout, 1), (.timeout, 4)])
        #expect(found.outages.map(\.isOver) == [false])
        #expect(found.outages[0].seconds == 3)
    }

    @Test func `time in which nobody looked is neither up nor down`() {
        let found = detector([(.ok, 0), (.timeout, 1), (.ok, 100), (.ok, 101)])
        #expect(found.outages.map(\.isOver) == [false])
        #expect(found.measuredMicroseconds == 2_000_000)
    }
}
