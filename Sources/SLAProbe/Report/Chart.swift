import Foundation

/// A drawing area with axes, in SVG. Coordinates are those of the viewBox; the page scales it.
struct Chart {
    enum Scale {
        case linear(ClosedRange<Double>)
        case log(ClosedRange<Double>)

        /// 0...1
        func position(_ value: Double) -> Double {
            switch self {
            case .linear(let range):
                let width = range.upperBound - range.lowerBound
                return width == 0 ? 0 : min(1, max(0, (value - range.lowerBound) / width))
            case .log(let range):
                let low = log10(range.lowerBound), high = log10(range.upperBound)
                let at = log10(max(value, range.lowerBound))
                return high == low ? 0 : min(1, max(0, (at - low) / (high - low)))
            }
        }
    }

    static let width = 940.0
    let height: Double
    let left = 62.0, right = 12.0, top = 12.0, bottom = 26.0
    let x: Scale
    let y: Scale
    private var body = ""

    init(height: Double, x: Scale, y: Scale) {
        self.height = height
        self.x = x
        self.y = y
    }

    func px(_ value: Double) -> Double { left + x.position(value) * (Self.width - left - right) }
    func py(_ value: Double) -> Double {
        height - bottom - y.position(value) * (height - top - bottom)
    }

    static func number(_ value: Double) -> String { String(format: "%.1f", value) }

    mutating func raw(_ svg: String) { body += svg }

    mutating func text(
        _ text: String, atX x: Double, y: Double, anchor: String = "start", style: String = ""
    ) {
        body +=
            "<text x=\"\(Self.number(x))\" y=\"\(Self.number(y))\" text-anchor=\"\(anchor)\""
            + (style.isEmpty ? "" : " class=\"\(style)\"") + ">\(Page.escape(text))</text>"
    }

    mutating func segment(_ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double, style: String) {
        body +=
            "<line x1=\"\(Self.number(x1))\" y1=\"\(Self.number(y1))\" x2=\"\(Self.number(x2))\""
            + " y2=\"\(Self.number(y2))\" class=\"\(style)\"/>"
    }

    mutating func box(
        _ x: Double, _ y: Double, _ width: Double, _ height: Double, style: String,
        title: String = ""
    ) {
        body +=
            "<rect x=\"\(Self.number(x))\" y=\"\(Self.number(y))\" width=\"\(Self.number(width))\""
            + " height=\"\(Self.number(height))\" class=\"\(style)\">"
            + (title.isEmpty ? "" : "<title>\(Page.escape(title))</title>") + "</rect>"
    }

    /// A line through the points; a missing one leaves a gap, a lonely one becomes a dot.
    mutating func line(_ points: [(x: Double, y: Double?)], style: String) {
        var path = ""
        var run: [(Double, Double)] = []
        func flush(_ dots: inout String) {
            if run.count == 1 {
                dots +=
                    "<circle cx=\"\(Self.number(run[0].0))\" cy=\"\(Self.number(run[0].1))\" r=\"1.4\""
                    + " class=\"\(style.replacing("line ", with: "f-").prefix { $0 != " " })\"/>"
            } else if !run.isEmpty {
                path += run.enumerated().map {
                    ($0 == 0 ? "M" : "L") + Self.number($1.0) + " " + Self.number($1.1)
                }.joined()
            }
            run = []
        }
        var dots = ""
        for point in points {
            if let y = point.y { run.append((px(point.x), py(y))) } else { flush(&dots) }
        }
        flush(&dots)
        if !path.isEmpty { body += "<path d=\"\(path)\" class=\"\(style)\"/>" }
        body += dots
    }

    /// Horizontal lines and labels at the powers of ten, and at 2 and 5 if there are few of those.
    mutating func millisecondAxis(_ range: ClosedRange<Double>) {
        let decades =
            Int(log10(range.lowerBound).rounded(.down))...Int(log10(range.upperBound).rounded(.up))
        let steps: [Double] = decades.count > 4 ? [1] : decades.count > 3 ? [1, 3] : [1, 2, 5]
        for decade in decades {
            for step in steps {
                let value = step * pow(10, Double(decade))
                guard value >= range.lowerBound * 0.999, value <= range.upperBound * 1.001 else {
                    continue
                }
                let y = py(value)
                segment(left, y, Self.width - right, y, style: "grid")
                text(Self.millisecondLabel(value), atX: left - 8, y: y + 4, anchor: "end")
            }
        }
    }

    static func millisecondLabel(_ value: Double) -> String {
        if value >= 1000 { return String(format: "%g s", value / 1000) }
        if value >= 1 { return String(format: "%g ms", value) }
        return String(format: "%g µs", value * 1000)
    }

    /// Wall-clock labels; the axis' values are microseconds since 1970.
    mutating func timeAxis(_ range: ClosedRange<Double>) {
        let y = height - bottom
        segment(left, y, Self.width - right, y, style: "axis")
        let span = (range.upperBound - range.lowerBound) / 1e6
        let steps: [Double] = [
            1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200,
            86_400,
            172_800, 604_800,
        ]
        let step = steps.first { span / $0 <= 8 } ?? 2_592_000
        var tick = (range.lowerBound / 1e6 / step).rounded(.up) * step
        while tick <= range.upperBound / 1e6 {
            let x = px(tick * 1e6)
            segment(x, y, x, y + 4, style: "axis")
            let label =
                step >= 86_400
                ? String(Words.time(UInt64(tick * 1e6)).prefix(10))
                : Words.time(UInt64(tick * 1e6), withDate: false, withSeconds: step < 60)
            if x < Self.width - right - 20 { text(label, atX: x, y: y + 18, anchor: "middle") }
            tick += step
        }
    }

    func svg(label: String) -> String {
        "<div class=\"scroll\"><svg viewBox=\"0 0 \(Int(Self.width)) \(Int(height))\" role=\"img\""
            + " aria-label=\"\(Page.escape(label))\">" + body + "</svg></div>"
    }
}
