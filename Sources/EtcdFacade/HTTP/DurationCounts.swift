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

    /// One of a family's histograms.
    func write(_ name: String, _ labels: [(String, String)], _ out: inout MetricsText) {
        var sum: UInt64 = 0
        for (i, count) in counts.dropLast().enumerated() {
            sum += count
            // Below that nobody looks.
            guard i >= 6 else { continue }
            out.sample("\(name)_bucket", labels + [("le", "\(Double(1 << i) / 1e6)")], "\(sum)")
        }
        out.sample("\(name)_bucket", labels + [("le", "+Inf")], "\(count)")
        out.sample("\(name)_sum", labels, "\(seconds)")
        out.sample("\(name)_count", labels, "\(count)")
    }
}
