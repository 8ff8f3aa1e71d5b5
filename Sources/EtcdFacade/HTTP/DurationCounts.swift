/// How often something took how long: counts by powers of two of microseconds.
package struct DurationCounts: Sendable, Equatable {
    package private(set) var count: UInt64 = 0
    package private(set) var seconds = 0.0
    /// [i]: how many took less than 2^i microseconds, and not less than half of that. The last one has
    /// all that took longer.
    private var counts: [UInt64]

    package init() { counts = [UInt64](repeating: 0, count: 24) }

    package init(count: UInt64, seconds: Double, counts: [UInt64]) {
        self.count = count
        self.seconds = seconds
        self.counts = counts
    }

    package mutating func note(nanoseconds: UInt64) {
        count += 1
        seconds += Double(nanoseconds) / 1e9
        let at = UInt64.bitWidth - (nanoseconds / 1000).leadingZeroBitCount
        counts[min(at, counts.count - 1)] += 1
    }

    /// Prometheus' buckets, each with all that took no longer.
    func write(_ name: String, _ help: String, _ out: inout MetricsText) {
        out.family(name, "histogram", help)
        write(name, [], &out)
    }

    func writeMilliseconds(_ name: String, _ help: String, _ out: inout MetricsText) {
        out.family(name, "histogram", help)
        write(name, [], perSecond: 1e3, &out)
    }

    /// One of a family's histograms.
    func write(
        _ name: String, _ labels: [(String, String)], perSecond: Double = 1, _ out: inout MetricsText
    ) {
        var sum: UInt64 = 0
        for (i, count) in counts.dropLast().enumerated() {
            sum += count
            // Below that nobody looks.
            guard i >= 6 else { continue }
            let bound = Double(1 << i) / 1e6 * perSecond
            out.sample("\(name)_bucket", labels + [("le", "\(bound)")], "\(sum)")
        }
        out.sample("\(name)_bucket", labels + [("le", "+Inf")], "\(count)")
        out.sample("\(name)_sum", labels, "\(seconds * perSecond)")
        out.sample("\(name)_count", labels, "\(count)")
    }
}

/// How often something was so many whole seconds: counts by powers of two.
struct SecondCounts {
    private var count: UInt64 = 0
    private var sum: Int64 = 0
    /// [i]: at most 2^i, and more than half of that. The last one has the rest.
    private var counts = [UInt64](repeating: 0, count: 25)

    mutating func note(_ seconds: Int64) {
        guard seconds > 0 else { return }
        count += 1
        sum &+= seconds
        let at = Int64.bitWidth - (seconds - 1).leadingZeroBitCount
        counts[min(at, counts.count - 1)] += 1
    }

    func write(_ name: String, _ help: String, _ out: inout MetricsText) {
        out.family(name, "histogram", help)
        var total: UInt64 = 0
        for (i, count) in counts.dropLast().enumerated() {
            total += count
            out.sample("\(name)_bucket", [("le", "\(1 << i)")], "\(total)")
        }
        out.sample("\(name)_bucket", [("le", "+Inf")], "\(count)")
        out.sample("\(name)_sum", "\(sum)")
        out.sample("\(name)_count", "\(count)")
    }
}
