package import Primitives

/// What a client with several endpoints saw, and each attempt.
package struct FailoverResult<Value: Sendable>: Sendable {
    package struct Attempt: Sendable {
        /// Which of the endpoints.
        package var endpoint: Int
        package var outcome: Outcome
        package var started: Instant
        package var finished: Instant
    }
    package var outcome: Outcome
    package var value: Value?
    /// Of the first good answer, or of the last failure.
    package var finished: Instant
    package var attempts: [Attempt]
}

private enum FailoverEvent<Value: Sendable>: Sendable {
    case attempt(FailoverResult<Value>.Attempt, Value?)
    case timer
}

/// Asks one endpoint; the next one as soon as that has failed, or when it has not answered for
/// `hedgeAfter` (the first is not given up: its own outcome counts for its endpoint). Each at most
/// once, none after `deadline`: retrying until it works would hide what is to be measured.
package func withFailover<Value: Sendable>(
    endpoints: Int, first: Int, deadline: Instant, hedgeAfter: TimeSpan,
    _ body: @escaping @Sendable (_ endpoint: Int, _ timeout: TimeSpan) async -> (Outcome, Value?)
) async -> FailoverResult<Value> {
    await withTaskGroup(of: FailoverEvent<Value>.self) { group in
        var result = FailoverResult<Value>(
            outcome: .timeout, value: nil, finished: deadline, attempts: [])
        var tried = 0
        var running = 0
        var isDecided = false
        func tryNext() {
            let now = SystemClock.now()
            guard tried < endpoints, now < deadline else { return }
            let endpoint = (first + tried) % endpoints
            tried += 1
            running += 1
            group.addTask {
                let (outcome, value) = await body(endpoint, deadline.since(now))
                return .attempt(
                    .init(
                        endpoint: endpoint, outcome: outcome, started: now,
                        finished: SystemClock.now()),
                    value)
            }
            if tried < endpoints {
                group.addTask {
                    try? await Task.sleep(nanoseconds: hedgeAfter.nanoseconds)
                    return .timer
                }
            }
        }
        tryNext()
        if running == 0 {
            // The prober itself came too late: its probe counts as not answered in time.
            return result
        }
        while running > 0, let event = await group.next() {
            switch event {
            case .timer: if !isDecided { tryNext() }
            case .attempt(let attempt, let value):
                running -= 1
                result.attempts.append(attempt)
                guard !isDecided else { continue }
                result.outcome = attempt.outcome
                result.finished = attempt.finished
                result.value = value
                if attempt.outcome.isFailure {
                    // A wrong answer is not made good by a right one from elsewhere.
                    isDecided = attempt.outcome == .wrongAnswer || attempt.outcome == .staleRead
                    if !isDecided { tryNext() }
                } else {
                    isDecided = true
                }
                // Wakes the sleeping timers; attempts take no notice.
                if isDecided { group.cancelAll() }
            }
        }
        group.cancelAll()
        return result
    }
}
