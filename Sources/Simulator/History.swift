package import Primitives

/// One thing that a client asked for, and what came of it.
package struct Operation: Sendable {
    package enum Call: Sendable, Equatable {
        case request(Request)
        case read(RangeQuery)
    }

    package enum Outcome: Sendable, Equatable {
        /// Never sent, or refused before anything was done.
        case nothing
        /// No answer, or one that says so: it may have taken effect.
        case unknown
        case response(Response)
        case range(RangeResult, revision: Revision)
        case failed(RequestError)
    }

    package let number: Int
    package let client: Int
    package let region: RegionID
    package let node: NodeID
    package let call: Call
    package let invokedAt: Instant
    /// The highest revision that anybody had been told of before this was sent.
    package let toldBefore: Revision
    package var returnedAt = Instant.never
    package var outcome = Outcome.unknown
    /// Who asks, where permissions are checked; nil: nobody does.
    package var user: Bytes?
    /// The fence and the version of the users under which it was checked last.
    package var fence: UInt64 = .max
    package var usersVersion: UInt64 = 0
    /// What anybody had been told of before this was sent.
    package var usersToldBefore: UInt64 = 0
    /// Checked with permissions that are as new as the request.
    package var isFresh = false

    package init(
        number: Int, client: Int, region: RegionID, node: NodeID, call: Call, invokedAt: Instant,
        toldBefore: Revision
    ) {
        self.number = number
        self.client = client
        self.region = region
        self.node = node
        self.call = call
        self.invokedAt = invokedAt
        self.toldBefore = toldBefore
    }

    /// The header's revision, if there was an answer.
    package var revision: Revision? {
        switch outcome {
        case .nothing, .unknown, .failed: nil
        case .range(_, let revision): revision
        case .response(let response): response.revision
        }
    }

    package var isSerializable: Bool {
        if case .read(let query) = call { return query.serializable }
        return false
    }
}

extension Response {
    var revision: Revision? {
        switch self {
        case .transaction(_, let r), .leaseGranted(_, _, let r), .leaseRevoked(let r),
            .leaseKeptAlive(_, _, let r), .leaseTimeToLive(_, _, _, _, let r), .leases(_, let r),
            .compacted(let r), .auth(_, let r):
            r
        case .replicated, .members, .split, .failed: nil
        }
    }
}

extension TransactionResult {
    /// Whether it changed something, as its answer says.
    var wrote: Bool {
        results.contains { result in
            switch result {
            case .put: true
            case .delete(let deleted, _): deleted > 0
            case .range: false
            case .transaction(let nested): nested.wrote
            }
        }
    }
}

/// A rule that a run has broken.
package struct Violation: Error, Hashable, CustomStringConvertible {
    /// The name under which the design knows the rule.
    package let rule: String
    package let what: String
    package init(_ rule: String, _ what: String) {
        self.rule = rule
        self.what = what
    }
    package var description: String { "\(rule): \(what)" }
}

/// What a region's nodes have said happened: every revision's changes, as the watch merges of all nodes
/// emit them. Two nodes that disagree are found here.
package struct RegionTimeline {
    package private(set) var changes: [Revision: [Row]] = [:]
    package private(set) var firstSeen: [Revision: Instant] = [:]
    /// Everything through here is in `changes`, by somebody's word.
    package private(set) var through = Revision.initial

    package init() {}

    package mutating func add(_ change: RevisionChanges, at now: Instant) throws(Violation) {
        if let known = changes[change.revision] {
            guard known == change.rows else {
                throw Violation(
                    "one history",
                    "revision \(change.revision) is \(change.rows.brief) here and \(known.brief) there")
            }
            return
        }
        guard change.revision > through else {
            throw Violation(
                "no late revision",
                "\(change.revision) \(change.rows.brief) appears after \(through) was passed")
        }
        changes[change.revision] = change.rows
        firstSeen[change.revision] = now
    }

    package mutating func reached(_ revision: Revision) { through = max(through, revision) }

    package var revisions: [Revision] { changes.keys.sorted() }

    func between(_ after: Revision, _ through: Revision) -> [RevisionChanges] {
        changes.keys.filter { $0 > after && $0 <= through }.sorted()
            .map { RevisionChanges(revision: $0, rows: changes[$0] ?? []) }
    }
}

extension [Row] {
    /// For people who debug a run.
    var brief: String {
        "[" + map { "\($0.key)=\($0.isDeletion ? "-" : $0.value.description)@\($0.modRevision).\($0.sub) v\($0.version)" }
            .joined(separator: " ") + "]"
    }
}
