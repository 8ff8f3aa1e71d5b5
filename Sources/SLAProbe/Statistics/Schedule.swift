package import Primitives

/// Open-loop schedule: probe `n` is due at `start + n / rate`, whatever became of the probes before
/// it.
///
/// Latency counts from the due time, so that a prober that was held up (by a slow answer, by its
/// own machine) does not leave out just the moments it should have measured (coordinated omission).
package struct Schedule: Sendable {
    package let start: Instant
    package let ratePerSecond: Double
    private(set) package var issued: UInt64 = 0

    package init(start: Instant, ratePerSecond: Double) {
        invariant(ratePerSecond > 0, "rate \(ratePerSecond)")
        self.start = start
        self.ratePerSecond = ratePerSecond
    }

    /// Computed from the number, never added up: no drift over a month.
    package func due(_ number: UInt64) -> Instant {
        let seconds = Double(number) / ratePerSecond
        return start.advanced(by: TimeSpan(nanoseconds: UInt64(seconds * 1e9)))
    }

    package var nextDue: Instant { due(issued) }

    /// The next probe, if it is due; a prober that slept too long gets all that it missed, one by
    /// one.
    package mutating func next(at now: Instant) -> (number: UInt64, due: Instant)? {
        let due = nextDue
        guard due <= now else { return nil }
        defer { issued += 1 }
        return (issued, due)
    }
}
