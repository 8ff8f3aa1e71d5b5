/// Why a call has no answer.
package struct EtcdClientError: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Kind: Sendable, Equatable {
        /// No answer within the deadline.
        case timeout
        /// The server could not be reached, went away, or said that it could not serve.
        case unavailable
        /// The server gave a definite answer, which is an error.
        case refused
    }
    package var kind: Kind
    package var status: GRPCStatus
    package var message: String
    /// False: the request has not left this process, so it certainly did nothing.
    package var wasSent: Bool

    package init(kind: Kind, status: GRPCStatus, message: String, wasSent: Bool) {
        self.kind = kind
        self.status = status
        self.message = message
        self.wasSent = wasSent
    }

    static func timeout(wasSent: Bool) -> Self {
        Self(
            kind: .timeout, status: .deadlineExceeded, message: "deadline exceeded",
            wasSent: wasSent)
    }
    static func unavailable(_ message: String, wasSent: Bool) -> Self {
        Self(kind: .unavailable, status: .unavailable, message: message, wasSent: wasSent)
    }
    static func answered(_ status: GRPCStatus, _ message: String) -> Self {
        let kind: Kind =
            switch status {
            // etcd passes an expired context on under several codes.
            case _ where message.contains("deadline exceeded"): .timeout
            case .deadlineExceeded: .timeout
            case .unavailable, .cancelled, .unknown, .internal, .aborted, .dataLoss,
                .resourceExhausted:
                .unavailable
            case .ok, .invalidArgument, .notFound, .alreadyExists, .permissionDenied,
                .failedPrecondition, .outOfRange, .unimplemented, .unauthenticated:
                .refused
            }
        return Self(kind: kind, status: status, message: message, wasSent: true)
    }

    /// The request may have been carried out, now or later. A refusal is an answer: it was not.
    package var mayHaveHappened: Bool {
        wasSent && kind != .refused
    }
    package var description: String { "\(status): \(message)" }
}
