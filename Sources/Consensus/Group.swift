package import Primitives

package struct Group: Sendable {
    package let id: GroupID
    package let node: NodeID
    package private(set) var decided: Slot
    package private(set) var truncatedThrough: Slot
    package private(set) var leaderHint: NodeID?

    package init(
        id: GroupID, node: NodeID, voters: [NodeID], preference: [NodeID], restored: RestoredLog,
        applied: AppliedPosition, lease: LeaseLimits?, limits: Limits, at now: Instant
    ) {
        self.id = id
        self.node = node
        decided = applied.slot
        truncatedThrough = restored.truncatedThrough
    }

    package var term: Term? { nil }
    package var isLeading: Bool { false }
    package var nextWake: Instant { .never }
    package func leaseHolds(at now: Instant) -> Bool { false }
    package var mayAnswerFrom: Instant { .never }

    package mutating func step(_ input: Input, at now: Instant, into effects: inout Effects) {}
    package mutating func propose(
        _ payload: Bytes, at now: Instant, into effects: inout Effects
    ) -> (slot: Slot, number: UInt64)? { nil }
    /// Once per turn, after all of its steps: the batched accepts and acknowledgements.
    package mutating func flush(at now: Instant, into effects: inout Effects) {}
}
