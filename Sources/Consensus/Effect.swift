package import Primitives

package enum Input: Equatable, Sendable {
    case message(from: NodeID, GroupMessage)
    /// The first `writes` persist effects of this group (since `init`) are durable.
    case durable(writes: UInt64)
    /// Answer to `Effect.elected`, in the same turn.
    case begin(payload: Bytes)
    /// From the failure detector.
    case suspect(NodeID)
    case trust(NodeID)
    /// From the timeline (S14, L8).
    case commitNotice(Ballot, Slot)
    case wake
    /// Take over now, without asking whether the others hear their leader.
    case campaign
    /// Leader: drain, bring `to` up to date, let it take over. Proposals are refused meanwhile.
    case transfer(to: NodeID)
    /// Leader: asks all whether they still follow; see `Group.isConfirmed(since:)`.
    case confirm
    /// The store has flushed everything through this slot. What is still kept for others is
    /// truncated later.
    case truncate(through: Slot)
    /// A snapshot has replaced the applied state, durably.
    case installed(AppliedPosition, Configuration)
    /// The snapshot that was sent to this peer could not be taken yet: not in a snapshot's period, but soon.
    case snapshotRefused(by: NodeID)
    /// A replica that was open without a state has been given its first: nothing of it is flushed.
    case founded(AppliedPosition, Configuration)
}

package typealias Effects = [Effect]

package enum Effect: Hashable, Sendable {
    case send(to: NodeID, GroupMessage)
    /// Counted from one; see `Input.durable`.
    case persist(LogRecord)
    /// Phase 1 is won: the node answers with `begin(payload)` in the same turn.
    case elected(Term)
    /// `begin` and everything before it is decided and has been emitted: the leader may act.
    case leading(Term)
    case deposed(Term)
    /// Whom this replica follows now.
    case followed(NodeID?)
    /// In slot order, without a gap, each once. A skipped entry uses its slot and has no effects.
    case decided(Slot, LogEntry, skipped: Bool)
    /// The peer needs slots that are in no memory any more.
    case snapshotWanted(by: NodeID)
    /// In force from the slot after the last decided one.
    case configured(Configuration)
    /// The others go on without this replica, for good.
    case gone
    case note(ConsensusEvent)
}

package enum ConsensusEvent: Hashable, Sendable {
    case campaignStarted(Ballot)
    case campaignGivenUp(Ballot)
    /// Stepped back for a replica whose log is longer.
    case candidateBehind(decided: Slot, others: Slot)
    case stoodDown(Term)
    case handedOver(Term, to: NodeID)
    case handOverFailed(Term, to: NodeID)
    case resent(to: NodeID, from: Slot)
    case ignored(from: NodeID, Ballot)
}
