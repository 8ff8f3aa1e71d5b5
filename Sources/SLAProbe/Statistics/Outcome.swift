/// What became of one request, as the person who sent it would say it.
package enum Outcome: UInt8, Sendable, CaseIterable, Codable {
    case ok
    /// No answer within the timeout. A write may have happened.
    case timeout
    /// Refused, reset, "no leader": the service said or showed that it could not serve.
    case unavailable
    /// An answer that was never written, or none where one was acknowledged.
    case wrongAnswer
    /// A linearizable read that missed a write acknowledged before it began.
    case staleRead
    /// A definite error that is about the request and not about availability (permission, no such
    /// RPC). Still a failure: who is refused is not served.
    case refused

    package var isFailure: Bool { self != .ok }

    package var name: String {
        switch self {
        case .ok: "ok"
        case .timeout: "timeout"
        case .unavailable: "unavailable"
        case .wrongAnswer: "wrongAnswer"
        case .staleRead: "staleRead"
        case .refused: "refused"
        }
    }

    package init?(name: Substring) {
        guard let outcome = Outcome.allCases.first(where: { $0.name == name }) else { return nil }
        self = outcome
    }
}

package enum ProbeKind: UInt8, Sendable, CaseIterable, Codable {
    case read, write
    package var name: String { self == .read ? "read" : "write" }
}

/// One probe: what the client that may use any endpoint of the region saw, and each attempt it
/// made.
package struct ProbeRecord: Sendable, Equatable {
    package struct Attempt: Sendable, Equatable {
        /// Index into the endpoints of the log's description.
        package var endpoint: Int
        package var outcome: Outcome
        package var latencyMicroseconds: UInt64
        package init(endpoint: Int, outcome: Outcome, latencyMicroseconds: UInt64) {
            self.endpoint = endpoint
            self.outcome = outcome
            self.latencyMicroseconds = latencyMicroseconds
        }
    }
    /// When it was due: wall clock, microseconds since 1970.
    package var dueMicroseconds: UInt64
    package var kind: ProbeKind
    /// Index into the regions of the log's description.
    package var region: Int
    package var outcome: Outcome
    /// From the due time to the first good answer, or to the last failure.
    package var latencyMicroseconds: UInt64
    package var attempts: [Attempt]

    package init(
        dueMicroseconds: UInt64, kind: ProbeKind, region: Int, outcome: Outcome,
        latencyMicroseconds: UInt64, attempts: [Attempt]
    ) {
        self.dueMicroseconds = dueMicroseconds
        self.kind = kind
        self.region = region
        self.outcome = outcome
        self.latencyMicroseconds = latencyMicroseconds
        self.attempts = attempts
    }
}
