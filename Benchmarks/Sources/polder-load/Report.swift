import Glibc
import Histogram

/// What has been counted since the warm-up.
struct Tally {
    var requests = 0
    var wrong = 0
    var errors = 0
    var lostUpdates = 0
    /// How late requests were sent: the generator's own fault, or the machine's.
    var lateness = Tally.histogram()
    private(set) var all = Tally.histogram()
    private(set) var byKind = [Histogram<UInt64>](repeating: Tally.histogram(), count: Kind.count)
    /// The first few different complaints.
    private(set) var texts: [String] = []
    var lastMessage = ""

    /// Nanoseconds, up to an hour, to three digits.
    static func histogram() -> Histogram<UInt64> {
        Histogram<UInt64>(highestTrackableValue: 3_600_000_000_000, numberOfSignificantValueDigits: .three)
    }

    mutating func record(_ kind: Kind, _ nanos: UInt64) {
        all.record(max(1, nanos))
        byKind[kind.index].record(max(1, nanos))
    }

    mutating func fail(_ what: String) {
        errors += 1
        note(what)
    }

    mutating func note(_ text: String) {
        if texts.count < 8, !texts.contains(text) { texts.append(text) }
    }
}

/// One JSON object, written by hand: no Foundation here.
struct Report {
    let options: Options
    let tally: Tally
    let watches: Watches
    let nanos: UInt64
    let cpuNanos: UInt64

    static let percentiles: [(name: String, value: Double)] = [
        ("p50", 50), ("p90", 90), ("p99", 99), ("p999", 99.9), ("max", 100),
    ]
    static let curve: [Double] = [
        0, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 99.999, 100,
    ]

    var isGood: Bool { tally.wrong == 0 && tally.errors == 0 && watches.isComplete }

    var json: String {
        let answered = Int(tally.all.totalCount)
        let seconds = Double(nanos) / 1e9
        var fields = [
            "\"requests\": \(tally.requests)", "\"answered\": \(answered)", "\"errors\": \(tally.errors)",
            "\"wrong\": \(tally.wrong)", "\"lostUpdates\": \(tally.lostUpdates)",
            "\"seconds\": \(number(seconds))", "\"perSecond\": \(number(Double(answered) / seconds))",
            "\"asked\": \(number(options.rate))",
            "\"ownCPUMicros\": \(number(Double(cpuNanos) / 1e3 / Double(max(1, answered))))",
            "\"late\": {\(members(of: tally.lateness))}", "\"all\": {\(members(of: tally.all))}",
        ]
        for kind in Kind.allCases where tally.byKind[kind.index].totalCount > 0 {
            let histogram = tally.byKind[kind.index]
            fields.append("\"\(kind.name)\": {\(members("\"count\": \(histogram.totalCount)", of: histogram))}")
        }
        if options.watchers > 0 {
            let span = Double(max(1, watches.last &- watches.first)) / 1e9
            let counts =
                "\"created\": \(watches.created), \"events\": \(watches.events), "
                + "\"expected\": \(watches.expected), \"perSecond\": \(number(Double(watches.events) / span))"
            fields.append("\"watch\": {\(members(counts, of: watches.delays))}")
        }
        let curve = Report.curve.map {
            "[\($0), \(number(Double(tally.all.valueAtPercentile($0)) / 1e6))]"
        }
        fields.append("\"curve\": [\(curve.joined(separator: ", "))]")
        fields.append("\"texts\": [\(tally.texts.map(quoted).joined(separator: ", "))]")
        return "{\(fields.joined(separator: ",\n "))}"
    }

    /// `first` and the latencies in milliseconds, of which there are none if nothing was counted: not one of
    /// 10,000 watched keys may be among the few that were put.
    private func members(_ first: String? = nil, of histogram: Histogram<UInt64>) -> String {
        let counted = histogram.totalCount > 0 ? Report.percentiles : []
        let latencies = counted.map {
            "\"\($0.name)\": \(number(Double(histogram.valueAtPercentile($0.value)) / 1e6))"
        }
        return ((first.map { [$0] } ?? []) + latencies).joined(separator: ", ")
    }

    private func number(_ value: Double) -> String {
        value.isFinite ? "\((value * 1e6).rounded() / 1e6)" : "0"
    }

    private func quoted(_ text: String) -> String {
        var out = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": out += "\\\(Character(scalar))"
            case _ where scalar.value < 32: out += " "
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out + "\""
    }
}

extension Options {
    /// Reads and updates need keys that are there.
    var mixReads: Bool { Kind.allCases.contains { $0 != .put && weights[$0.index] > 0 } }
}

extension Luck {
    /// Gaps between arrivals that know nothing of each other.
    mutating func exponential(mean: Double) -> Double {
        -mean * log(1 - Double(next() >> 11) * 0x1p-53)
    }
}
