import Primitives

/// What one region's load did and was told: the evidence of a drill.
struct DrillRecord: Sendable {
    /// One operation of a client that may use any of the load's endpoints.
    struct Completion: Sendable {
        var kind: ProbeKind
        var due: Instant
        var finished: Instant
        var outcome: Outcome
    }
    var completions: [Completion] = []
    /// By register.
    var histories: [[RegisterOperation]]
    /// Keys written once, and acknowledged.
    var acknowledgedKeys: Set<UInt64> = []
    var acknowledgedWrites = 0
    /// Answers that cannot be: not a number, and this load writes only those.
    var nonsense: [String] = []

    init(registers: Int) { histories = Array(repeating: [], count: registers) }

    var errors: Int { completions.count { $0.outcome.isFailure } }

    /// The longest time without a success of `kind` in a window: from one good answer to the next,
    /// at whatever time they were due. A stall in which every request is answered late counts, and
    /// so does one in which they fail.
    func longestGap(
        _ kind: ProbeKind, from: Instant, to: Instant
    ) -> (span: TimeSpan, start: Instant) {
        let successes = completions.lazy
            .filter { $0.kind == kind && !$0.outcome.isFailure }
            .map(\.finished).filter { $0 >= from && $0 <= to }.sorted()
        var longest = (span: TimeSpan.zero, start: from)
        var last = from
        for finished in successes + [to] {
            let span = finished.since(last)
            if span > longest.span { longest = (span, last) }
            last = finished
        }
        return longest
    }

    /// Of reads and writes, the longer one.
    func longestGap(from: Instant, to: Instant) -> (span: TimeSpan, start: Instant) {
        let read = longestGap(.read, from: from, to: to)
        let write = longestGap(.write, from: from, to: to)
        return read.span > write.span ? read : write
    }

    /// The longest that one operation due in the window took, whatever became of it.
    func longestWait(from: Instant, to: Instant) -> TimeSpan {
        completions.lazy.filter { $0.due >= from && $0.due <= to }
            .map { $0.finished.since($0.due) }.max() ?? .zero
    }

    /// As `polder check` reads them (docs/formats.md, "Histories").
    func historyLines(_ region: String) -> [String] {
        histories.enumerated().flatMap { register, history in
            history.map { operation in
                let end = operation.result == .done ? "\(operation.end / 1_000)" : "-"
                let key = "\(region)/\(register)"
                let what =
                    switch operation.action {
                    case .write(let value?): "write \(key) \(value)"
                    case .write(nil): "delete \(key)"
                    case .read(let value?): "read \(key) \(value)"
                    case .read(nil): "absent \(key)"
                    }
                return "\(operation.client) \(operation.start / 1_000) \(end) \(what)"
            }
        }
    }

    /// Judges the registers' histories, each by itself. `nil`: not known.
    func linearizability() -> (isLinearizable: Bool?, problems: [String]) {
        var problems: [String] = []
        var isUndecided = false
        for (index, history) in histories.enumerated() {
            switch LinearizabilityChecker.check(history) {
            case .linearizable: break
            case .undecided: isUndecided = true
            case .violation(let explained, let culprit):
                problems.append(
                    "register \(index): after \(explained) of \(history.count) operations, "
                        + "\(culprit.action) cannot be explained")
            }
        }
        if !problems.isEmpty { return (false, problems) }
        return isUndecided ? (nil, ["the search was given up"]) : (true, [])
    }

    /// Acknowledged writes of a register that its final value shows to be lost: they began after
    /// the write of that value had ended.
    static func lostWrites(_ history: [RegisterOperation], finalValue: UInt64?) -> Int {
        var end: UInt64 = 0
        if let finalValue {
            let writer = history.first { $0.action == .write(finalValue) }
            // A write whose outcome is unknown may have come last of all.
            guard let writer, writer.result == .done else { return 0 }
            end = writer.end
        }
        return history.count {
            guard case .write = $0.action, $0.result == .done else { return false }
            return $0.start > end
        }
    }
}
