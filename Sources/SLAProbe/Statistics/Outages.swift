/// A time in which every probe of one class from one vantage point failed.
package struct Outage: Sendable, Equatable {
    package var vantage: String
    package var region: String
    package var kind: ProbeKind
    /// Due time of the first failed probe.
    package var startMicroseconds: UInt64
    /// Due time of the next good one; while it lasts (or where the recording stops), of the last
    /// failed.
    package var endMicroseconds: UInt64
    package var failures: UInt64
    package var isOver: Bool
    package var seconds: Double { Double(endMicroseconds - startMicroseconds) / 1e6 }
}

/// Finds outages in the probes of one class, fed in the order of their due times.
package struct OutageDetector: Sendable {
    package let vantage: String
    package let region: String
    package let kind: ProbeKind
    package private(set) var outages: [Outage] = []
    /// Time in which somebody looked: gaps of the recording are left out.
    package private(set) var measuredMicroseconds: UInt64 = 0
    /// Longer silence than this is a prober that was not running, not an outage and not a success.
    private let gapMicroseconds: UInt64
    private var current: Outage?
    private var last: UInt64?

    package init(vantage: String, region: String, kind: ProbeKind, gapMicroseconds: UInt64) {
        self.vantage = vantage
        self.region = region
        self.kind = kind
        self.gapMicroseconds = gapMicroseconds
    }

    package mutating func add(_ outcome: Outcome, dueMicroseconds due: UInt64) {
        if let last {
            // A clock that was set back, or a second prober's file: nothing to add up between the
            // two.
            if due >= last, due - last <= gapMicroseconds {
                measuredMicroseconds += due - last
            } else {
                close()
            }
        }
        last = due
        if outcome.isFailure {
            if current == nil {
                current = Outage(
                    vantage: vantage, region: region, kind: kind, startMicroseconds: due,
                    endMicroseconds: due, failures: 0, isOver: false)
            }
            current?.failures += 1
            current?.endMicroseconds = due
        } else if var outage = current {
            outage.endMicroseconds = due
            outage.isOver = true
            outages.append(outage)
            current = nil
        }
    }

    /// The recording ends here: what was open stays marked as not over.
    package mutating func close() {
        if let outage = current { outages.append(outage) }
        current = nil
        last = nil
    }

    /// Time-based availability: the share of the measured time that was not outage.
    package var timeAvailability: Double {
        guard measuredMicroseconds > 0 else { return 0 }
        let down = outages.reduce(0) { $0 + ($1.endMicroseconds - $1.startMicroseconds) }
        return 1 - Double(down) / Double(measuredMicroseconds)
    }
}
