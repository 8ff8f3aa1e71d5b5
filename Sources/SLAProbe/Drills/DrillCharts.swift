import Primitives

/// The charts of a drill; their time axis counts seconds from the start of the load.
enum DrillCharts {
    /// A bar for each 10 ms, from half a second before the fault until well after the longest gap.
    static func aroundFault(_ d: DrillDocument, _ part: DrillRun.Evidence) -> String {
        let fault = d.phases.count > 1 ? d.phases[1].atSeconds : 0
        let range = max(0, fault - 0.5)...(fault + max(1.2, d.longestGapMs / 1000 + 0.5))
        let step = 0.01
        let count = Int((range.upperBound - range.lowerBound) / step) + 1
        let nothing = [Int](repeating: 0, count: count)
        var good = ByKind(read: nothing, write: nothing)
        for completion in part.record.completions where !completion.outcome.isFailure {
            let at = seconds(completion.finished, part.start)
            guard range.contains(at) else { continue }
            good[completion.kind][Int((at - range.lowerBound) / step)] += 1
        }
        // A burst after a stall would flatten everything else.
        let usual = max(4, d.rate / Double(max(1, d.regions.count)) * step * 3)
        var chart = Chart(height: 200, x: .linear(range), y: .linear(0...usual))
        axis(&chart, range)
        let base = chart.height - chart.bottom
        let width = max(1, chart.px(range.lowerBound + step) - chart.px(range.lowerBound) - 0.6)
        for index in 0..<count {
            let x = chart.px(range.lowerBound + Double(index) * step)
            let reads = base - chart.py(Double(good.read[index]))
            let both = base - chart.py(Double(good.read[index] + good.write[index]))
            if reads > 0 { chart.box(x, base - reads, width, reads, style: "f-read") }
            if both > reads { chart.box(x, base - both, width, both - reads, style: "f-write") }
        }
        markers(&chart, d, range)
        return """
            <ul class="legend"><li><span class="key read"></span>reads</li>\
            <li><span class="key write"></span>writes, on top</li></ul>
            """ + chart.svg(label: "Successes around the fault")
    }

    static func latency(_ d: DrillDocument, _ part: DrillRun.Evidence) -> String {
        let completions = part.record.completions
        let step = 0.1
        let last = max(step, completions.map { seconds($0.due, part.start) }.max() ?? step)
        let count = Int(last / step) + 1
        let nothing = [Double?](repeating: nil, count: count)
        var slowest = ByKind(read: nothing, write: nothing)
        var failed = [Int](repeating: 0, count: count)
        for completion in completions {
            let index = min(count - 1, Int(seconds(completion.due, part.start) / step))
            if completion.outcome.isFailure { failed[index] += 1 }
            let ms = Double(completion.finished.since(completion.due).nanoseconds) / 1e6
            slowest[completion.kind][index] = max(slowest[completion.kind][index] ?? 0, ms)
        }
        let range = ReportCharts.latencyRange((slowest.read + slowest.write).compactMap { $0 })
        var chart = Chart(height: 240, x: .linear(0...last), y: .log(range))
        chart.millisecondAxis(range)
        axis(&chart, 0...last)
        for (index, failures) in failed.enumerated() where failures > 0 {
            chart.box(
                chart.px(Double(index) * step), chart.height - chart.bottom - 14,
                max(2, chart.px(step) - chart.px(0)), 14, style: "f-bad",
                title: "\(failures) failed")
        }
        for kind in ProbeKind.allCases {
            let points = slowest[kind].enumerated().map { (x: (Double($0) + 0.5) * step, y: $1) }
            chart.line(points, style: "line \(kind.name) thin")
        }
        markers(&chart, d, 0...last)
        return """
            <ul class="legend"><li><span class="key read"></span>slowest read</li>\
            <li><span class="key write"></span>slowest write</li>\
            <li><span class="key bad"></span>failed operations</li></ul>
            """ + chart.svg(label: "Slowest operations over time")
    }

    private static func seconds(_ instant: Instant, _ start: Instant) -> Double {
        Double(instant.since(start).nanoseconds) / 1e9
    }

    /// Dashed lines where phases begin; their names one below the other, so that they do not
    /// collide.
    private static func markers(
        _ chart: inout Chart, _ d: DrillDocument, _ range: ClosedRange<Double>
    ) {
        let shown = d.phases.dropFirst().filter { range.contains($0.atSeconds) }
        for (index, phase) in shown.enumerated() {
            let x = chart.px(phase.atSeconds)
            chart.segment(x, chart.top, x, chart.height - chart.bottom, style: "bad dash")
            let isNearEnd = x > Chart.width - 160
            chart.text(
                phase.name, atX: isNearEnd ? x - 4 : x + 4,
                y: chart.top + 10 + Double(index % 3) * 14, anchor: isNearEnd ? "end" : "start",
                style: "strong")
        }
    }

    private static func axis(_ chart: inout Chart, _ range: ClosedRange<Double>) {
        let base = chart.height - chart.bottom
        chart.segment(chart.left, base, Chart.width - chart.right, base, style: "axis")
        let span = range.upperBound - range.lowerBound
        let step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60].first { span / $0 <= 10 } ?? 120
        var tick = (range.lowerBound / step).rounded(.up) * step
        while tick <= range.upperBound + 1e-9 {
            let x = chart.px(tick)
            chart.segment(x, base, x, base + 4, style: "axis")
            let label = Words.fixed(tick, step < 1 ? 1 : 0) + " s"
            chart.text(label, atX: x, y: base + 18, anchor: "middle")
            tick += step
        }
    }
}
