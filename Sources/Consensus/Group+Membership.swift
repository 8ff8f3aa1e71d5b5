import DequeModule
package import Primitives

// Changes of the configuration (protocol-rules.md S15). Every slot counts by the configuration that
// the slots before it have settled: an entry takes effect when it is decided, nothing is proposed
// behind it before, and then only with promises from a majority of the new voters.
extension Group {
    var votes: Bool { !awaitsSnapshot && configuration.voters.contains(node) }
    var quorum: Int { configuration.quorum }

    /// A majority of the voters, this one included if `me`.
    func isMajority(me: Bool = true, _ holds: (Peer) -> Bool) -> Bool {
        peers.count { $0.isVoter && holds($0) } + (me && votes ? 1 : 0) >= quorum
    }

    // MARK: Proposing

    /// False: not now (not leading, another change is under way, the log is too long ahead of those
    /// who are to keep it). Ask again in a later turn.
    package mutating func propose(
        _ next: Configuration, at now: Instant, into effects: inout Effects
    ) -> Bool {
        // `isLeading`: an entry of its own term is decided, so it knows what the configuration is.
        guard isLeading, leadership.successor == nil, leadership.barrier == nil, leadership.isSettled,
            // The lease of a predecessor is known to the voters that elected us, not to new ones.
            now >= answersFrom,
            acceptedThrough.rawValue - decided.rawValue < limits.pipelineEntriesMax,
            leadership.pipelineBytes < limits.pipelineBytesMax,
            configuration.isStep(to: next), isReady(for: next, at: now, into: &effects)
        else { return false }
        var next = next
        next.number = configuration.number + 1
        let slot = propose(
            LogEntry(
                term: promised, number: 0, kind: .configuration, payload: next.encoded()),
            into: &effects)
        leadership.barrier = slot
        return true
    }

    /// A majority of the next voters is there, holds the log, and has promised this ballot: the
    /// change must not stop the group. Their promises are asked for ahead of it.
    private mutating func isReady(
        for next: Configuration, at now: Instant, into effects: inout Effects
    ) -> Bool {
        var ready = next.voters.contains(node) ? 1 : 0
        for i in peers.indices where next.voters.contains(peers[i].node) {
            if isInSync(peers[i]) && peers[i].promised { ready += 1 }
            let isNew = !peers[i].isVoter
            if isNew && !(isInSync(peers[i]) && peers[i].promised) { ready = -next.voters.count }
            if !peers[i].promised { askPromise(of: i, at: now, into: &effects) }
        }
        return ready >= next.quorum
    }

    /// Close enough behind for a promise to be worth something: a round trip or two.
    private func isInSync(_ peer: Peer) -> Bool {
        !peer.suspected && peer.acked.rawValue + limits.inSyncMax >= decided.rawValue
            && peer.acked > .zero
    }

    /// As the leader sees it: etcd's MemberPromote asks before it changes anything.
    package func isInSync(_ node: NodeID) -> Bool {
        role == .leading && (node == self.node || peers.contains { $0.node == node && isInSync($0) })
    }

    // MARK: Promises after the election

    /// Of a voter that did not take part in the election, or is to become one: what it holds beyond
    /// what this leader has proposed counts for the slots behind the change.
    private mutating func askPromise(of i: Int, at now: Instant, into effects: inout Effects) {
        guard peers[i].promiseAskedAt.advanced(by: limits.retryPeriod * 2) <= now else { return }
        // From here on, each time: what it has trimmed meanwhile it cannot answer for.
        peers[i].progress = acceptedThrough
        if candidacy.found.isEmpty { candidacy = Candidacy(after: acceptedThrough) }
        peers[i].promiseAskedAt = now
        effects.append(
            .send(
                to: peers[i].node,
                .prepare(
                    .init(
                        ballot: promised, after: peers[i].progress, same: .zero,
                        sameThrough: .zero, configuration: configuration.number))))
    }

    mutating func onLatePromise(
        _ promise: GroupMessage.Promise, from i: Int, at now: Instant, into effects: inout Effects
    ) {
        guard !peers[i].promised, promise.after == peers[i].progress else { return }
        // It knows more to be chosen than we: whoever has that shall lead.
        guard promise.keptAfter <= peers[i].progress else {
            if !leadership.isSettled {
                standDown(at: now, into: &effects)
                effects.append(.send(to: peers[i].node, .campaign(promised)))
            }
            return
        }
        if leadership.beginSlot == nil, promise.leaseBallot != promised,
            waits(for: promise.leaseBallot)
        { answersFrom = max(answersFrom, now.advanced(by: promise.lease)) }
        for found in promise.accepted
        where found.slot > acceptedThrough && found.ballot < promised {
            note(found)
        }
        if let through = promise.through {
            peers[i].progress = through
            peers[i].promiseAskedAt = now
            effects.append(
                .send(
                    to: peers[i].node,
                    .prepare(
                        .init(
                            ballot: promised, after: through, same: .zero, sameThrough: .zero,
                            configuration: configuration.number))))
            return
        }
        peers[i].promised = true
        settleFound(at: now, into: &effects)
    }

    // MARK: Taking effect

    /// Proposes what phase 1 found, unchanged (S1), with fillers in its holes, up to the next
    /// configuration entry: that one is settled first. Then the leadership is open for new entries.
    mutating func settleFound(at now: Instant, into effects: inout Effects) {
        guard role == .leading, leadership.barrier == nil, !leadership.isSettled else { return }
        guard votes else { return retire(at: now, into: &effects) }
        guard isMajority({ $0.promised }) else {
            leadership.settleAt = now.advanced(by: limits.retryPeriod * 2)
            for i in peers.indices where peers[i].isVoter && !peers[i].promised {
                askPromise(of: i, at: now, into: &effects)
            }
            return
        }
        leadership.settleAt = .never
        let foundLast = Slot(candidacy.after.rawValue + UInt64(candidacy.found.count))
        while acceptedThrough < max(lastSlot, foundLast) {
            let slot = acceptedThrough.next
            var best = slot <= lastSlot ? self[slot] : .missing
            if slot > candidacy.after, slot <= foundLast {
                let found = candidacy.found[Int(slot.rawValue - candidacy.after.rawValue - 1)]
                if found.ballot > best.ballot { best = found }
            }
            var entry = best.ballot == .zero
                ? LogEntry(term: promised, number: 0, kind: .filler, payload: .empty) : best.entry
            if Mutation.reproposedTerm.isOn {
                entry = LogEntry(term: promised, number: 0, kind: entry.kind, payload: entry.payload)
            }
            propose(entry, into: &effects)
            if entry.kind == .configuration, !sabotaged(.pipelinePastConfiguration) {
                leadership.barrier = slot
                return
            }
        }
        candidacy = Candidacy(after: acceptedThrough)
        leadership.isSettled = true
        if leadership.beginSlot == nil { effects.append(.elected(promised)) }
    }

    /// The configuration entry is decided, and in force unless it was skipped.
    mutating func passBarrier(at now: Instant, into effects: inout Effects) {
        guard role == .leading, let barrier = leadership.barrier, decided >= barrier else { return }
        leadership.barrier = nil
        leadership.isSettled = false
        settleFound(at: now, into: &effects)
    }

    /// This leader is no voter any more. The others must hear so much, or nobody will elect.
    private mutating func retire(at now: Instant, into effects: inout Effects) {
        if leadership.retireAt == .never {
            leadership.retireAt = now.advanced(by: limits.electionPeriod)
            leadership.renewAt = .never
        }
        let known = decided
        if leadership.retireAt <= now || isMajority({ $0.decided >= known }) {
            leadership.retireAt = .never
            standDown(at: now, into: &effects)
        } else {
            leadership.settleAt = now.advanced(by: limits.retryPeriod * 2)
            for i in peers.indices { peers[i].probe = true }
        }
    }

    /// Every replica, as soon as it knows that the entry is decided.
    mutating func adopt(
        _ next: Configuration, at now: Instant, into effects: inout Effects
    ) {
        // Of a group that nobody has changed since it was founded the number is that of a replica without a
        // log: a snapshot tells it who votes all the same.
        guard next.number > configuration.number || configuration.voters.isEmpty && !next.voters.isEmpty
        else { return }
        let before = peers
        let gone = before.filter { !next.contains($0.node) }
        if role == .leading {
            // They are told no more after this; who misses it hears it when it asks for votes.
            for peer in gone where peer.sent >= decided && !peer.suspected {
                effects.append(
                    .send(
                        to: peer.node,
                        .accept(
                            .init(
                                ballot: promised, first: peer.sent.next, entries: [],
                                decided: decided, settled: settled, begun: leadership.begun,
                                probe: false, sentAt: .zero, configuration: next.number))))
            }
        }
        configuration = next
        configuredAt = decided
        if isGone, next.number > goneBy, next.contains(node) { isGone = false }
        peers = next.members.filter { $0 != node }.map { member in
            var peer = before.first { $0.node == member } ?? newPeer(member)
            peer.isVoter = next.voters.contains(member)
            return peer
        }
        // A leader that was alone had nobody to renew its lease with.
        if role == .leading, leaseLimits != nil, !peers.isEmpty, leadership.renewAt == .never,
            leadership.retireAt == .never
        {
            leadership.renewAt = now
        }
        persist(.decided(id, decided), into: &effects)
        effects.append(.configured(next))
        guard role != .leading else { return }
        if role == .asking || (role == .preparing && !votes) {
            role = .follower
            electAt = electionTime(after: limits.electionPeriod, at: now)
        }
        if !votes {
            electAt = .never
            askAt = .never
        } else if !next.voters.contains(promised.node), promised != .zero {
            // Whom we follow has left, and leads no more.
            leaderLost = true
            leaderBegun = false
            electAt = min(electAt, electionTime(after: .zero, at: now))
        } else if electAt == .never, !leaderBegun {
            electAt = electionTime(after: limits.electionPeriod, at: now)
        }
    }

    private func newPeer(_ node: NodeID) -> Peer {
        var peer = Peer(node: node)
        // It says itself from where on it needs the log.
        peer.sent = acceptedThrough
        peer.probe = role == .leading
        peer.probeDelay = limits.probePeriod
        return peer
    }

    // MARK: Strangers

    /// May somebody who is not in our configuration be right? Yes, if his is newer.
    func knowsMore(_ theirs: UInt64) -> Bool {
        theirs > configuration.number || configuration.voters.isEmpty
    }

    mutating func onGone(_ number: UInt64, from: NodeID, into effects: inout Effects) {
        guard number > configuration.number, role != .leading, !isGone else { return }
        isGone = true
        goneBy = number
        if role != .follower { role = .follower }
        electAt = .never
        askAt = .never
        candidacyEndsAt = .never
        effects.append(.gone)
    }
}
