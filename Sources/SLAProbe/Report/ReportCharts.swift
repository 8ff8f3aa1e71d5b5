import Foundation
import Histogram

/// The charts of the report.
enum ReportCharts {
    /// Round powers around what occurs, so that small differences do not look large.
    static func latencyRange(_ values: [Double]) -> ClosedRange<Double> {
        let positive = values.filter { $0 > 0 }
        guard let low = positive.min(), let high = positive.max() else { return 0.1...10 }
        func round(_ value: Double, up: Bool) -> Double {
            let power = pow(10, log10(value).rounded(.down))
            let steps: [Double] = up ? [1, 2, 5, 10] : [5, 2, 1]
            let found = steps.first {
                up ? $0 * power >= value * 0.999 : $0 * power <= value * 1.001
            }
            return (found ?? 1) * power
        }
        let bottom = round(low, up: false), top = round(high, up: true)
        return bottom < top ? bottom...top : bottom...(bottom * 10)
    }

    static func latencyOverTime(_ builder: ReportBuilder, _ kind: ProbeKind) -> String {
        let from = Double(builder.fromMicroseconds), to = Double(builder.toMicroseconds)
        let half = Double(builder.bucketMicroseconds) / 2
        func points(_ value: (LatencyHistogram) -> UInt64) -> [(x: Double, y: Double?)] {
            builder.buckets.map { bucket in
                let histogram = bucket.latency[kind]
                let y = histogram.totalCount == 0 ? nil : Double(value(histogram)) / 1000
                return (min(to, Double(bucket.startMicroseconds) + half), y)
            }
        }
        let median = points { $0.valueAtPercentile(50) }
        let p99 = points { $0.valueAtPercentile(99) }
        let worst = points { $0.max }
        let range = latencyRange((median + worst).compactMap(\.y))
        var chart = Chart(height: 230, x: .linear(from...to), y: .log(range))
        chart.millisecondAxis(range)
        chart.timeAxis(from...to)
        // Buckets with failures: a strip at the bottom, the taller the worse.
        for bucket in builder.buckets {
            let tally = bucket.tally[kind]
            guard tally.failures > 0 else { continue }
            let x1 = chart.px(Double(bucket.startMicroseconds))
            let x2 = chart.px(
                min(to, Double(bucket.startMicroseconds + builder.bucketMicroseconds)))
            let height = 4 + 40 * tally.errorRate
            chart.box(
                x1, chart.height - chart.bottom - height, max(2, x2 - x1), height, style: "f-bad",
                title:
                    "\(Words.time(bucket.startMicroseconds)): \(tally.failures) of \(tally.probes) failed"
            )
        }
        let color = kind.name
        chart.line(worst, style: "line \(color) thin dash")
        chart.line(median, style: "line \(color) thin")
        chart.line(p99, style: "line \(color)")
        return """
            <ul class="legend"><li><span class="key \(color)"></span>99th percentile</li>\
            <li><span class="key \(color)" style="border-top-width:1px"></span>median</li>\
            <li><span class="key \(color) dashed"></span>slowest</li>\
            <li><span class="key bad"></span>failures</li></ul>
            """ + chart.svg(label: "Latency of \(kind.name)s over time")
    }

    /// Share of the probes in each tenth of a decade, reads and writes over one another.
    static func histogram(_ builder: ReportBuilder) -> String {
        var bins: [ProbeKind: [Int: UInt64]] = [:]
        for kind in ProbeKind.allCases {
            for entry in builder.total[kind].latency.recordedValues() {
                let bin = Int((log10(Double(entry.value) / 1000) * 10).rounded(.down))
                bins[kind, default: [:]][bin, default: 0] += entry.count
            }
        }
        let all = bins.values.flatMap(\.keys)
        guard let first = all.min(), let last = all.max() else { return "<p>No good answers.</p>" }
        func edge(_ bin: Int) -> Double { pow(10, Double(bin) / 10) }
        func share(_ kind: ProbeKind, _ bin: Int) -> Double {
            Double(bins[kind]?[bin] ?? 0) / Double(max(1, builder.total[kind].latency.totalCount))
        }
        let shares = ProbeKind.allCases.flatMap { kind in (first...last).map { share(kind, $0) } }
        let highest = max(0.05, (shares.max() ?? 1) * 1.05)
        var chart = Chart(
            height: 220, x: .log(edge(first)...edge(last + 1)), y: .linear(0...highest))
        let step = highest > 0.5 ? 0.2 : highest > 0.2 ? 0.1 : 0.05
        for tick in stride(from: 0, through: highest, by: step) {
            let y = chart.py(tick)
            chart.segment(
                chart.left, y, Chart.width - chart.right, y, style: tick == 0 ? "axis" : "grid")
            chart.text(
                "\(Int((tick * 100).rounded())) %", atX: chart.left - 8, y: y + 4, anchor: "end")
        }
        let base = chart.height - chart.bottom
        for decade in Int(
            (Double(first) / 10).rounded(.down))...Int((Double(last + 1) / 10).rounded(.up))
        {
            for step in [1.0, 2, 5] {
                let value = step * pow(10, Double(decade))
                guard value >= edge(first) * 0.999, value <= edge(last + 1) * 1.001 else {
                    continue
                }
                chart.segment(chart.px(value), base, chart.px(value), base + 4, style: "axis")
                chart.text(
                    Chart.millisecondLabel(value), atX: chart.px(value), y: base + 18,
                    anchor: "middle")
            }
        }
        for kind in ProbeKind.allCases {
            var path = "M\(Chart.number(chart.px(edge(first)))) \(Chart.number(base))"
            for bin in first...last {
                let y = Chart.number(chart.py(share(kind, bin)))
                path +=
                    "L\(Chart.number(chart.px(edge(bin)))) \(y)L\(Chart.number(chart.px(edge(bin + 1)))) \(y)"
            }
            path += "L\(Chart.number(chart.px(edge(last + 1)))) \(Chart.number(base))Z"
            chart.raw("<path d=\"\(path)\" class=\"f-\(kind.name)\" opacity=\".16\"/>")
            chart.raw("<path d=\"\(path)\" class=\"line \(kind.name)\"/>")
        }
        return """
            <ul class="legend"><li><span class="key read"></span>reads</li>\
            <li><span class="key write"></span>writes</li></ul>
            """ + chart.svg(label: "Histogram of latencies")
    }

    /// A lane for each region and kind; red where every probe failed.
    static func outageTimeline(_ builder: ReportBuilder) -> String {
        let lanes = builder.regions.keys.sorted().flatMap { region in
            ProbeKind.allCases.map { (region, $0) }
        }
        let from = Double(builder.fromMicroseconds), to = Double(builder.toMicroseconds)
        let laneHeight = 26.0
        var chart = Chart(
            height: Double(lanes.count) * laneHeight + 44, x: .linear(from...to), y: .linear(0...1))
        for (index, (region, kind)) in lanes.enumerated() {
            let y = chart.top + Double(index) * laneHeight
            chart.box(
                chart.left + 60, y + 4, Chart.width - chart.left - chart.right - 60,
                laneHeight - 10,
                style: "f-grid")
            chart.text("\(region) \(kind.name)s", atX: 0, y: y + 17)
            func at(_ microseconds: UInt64) -> Double {
                let share = (Double(microseconds) - from) / max(1, to - from)
                return chart.left + 60 + share * (Chart.width - chart.left - chart.right - 60)
            }
            for outage in builder.regions[region]?[kind].outages ?? [] {
                let x = at(outage.startMicroseconds)
                chart.box(
                    x, y + 4, max(2, at(outage.endMicroseconds) - x), laneHeight - 10,
                    style: "f-bad",
                    title:
                        "\(Words.time(outage.startMicroseconds)): \(Words.seconds(outage.seconds))")
            }
        }
        let base = chart.height - 20
        chart.text(Words.time(builder.fromMicroseconds), atX: chart.left + 60, y: base + 14)
        chart.text(
            Words.time(builder.toMicroseconds), atX: Chart.width - chart.right, y: base + 14,
            anchor: "end")
        return chart.svg(label: "Outages over time")
    }
}
