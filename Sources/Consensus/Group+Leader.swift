import DequeModule
package import Primitives

extension Group {
    // MARK: Taking over

    /// Phase 1 is won: proposes what it found, and asks for `begin`.
    mutating func lead(at now: Instant, into effects: inout Effects) {
        role = .leading
        leadership = Leadership()
        answersFrom = max(answersFrom, candidacy.answersFrom)
        for i in peers.indices {
            // No further than what we propose ourselves: see `settleFound`.
            let known = peers[i].promised ? min(peers[i].decided, decided) : .zero
            peers[i].acked = known
            // The others say themselves from where on they need more.
            peers[i].sent = peers[i].promised ? known : decided
            peers[i].inflightBytes = 0
            peers[i].decided = known
            peers[i].flushed = .zero
            peers[i].told = .zero
            peers[i].toldSettled = .zero
            peers[i].silentSince = peers[i].suspected ? now : nil
            peers[i].probe = false
            peers[i].probeAt = .never
            peers[i].probeDelay = limits.probePeriod
            peers[i].snapshotAt = .zero
            peers[i].leaseFrom = .zero
        }
        if leaseLimits != nil, !peers.isEmpty { leadership.renewAt = now }
        fetchAt = .never
        follow(node, into: &effects)
        settleFound(at: now, into: &effects)
    }

    mutating func onBegin(_ payload: Bytes, at now: Instant, into effects: inout Effects) {
        guard role == .leading, leadership.beginSlot == nil else { return }
        if Mutation.noBegin.isOn {
            leadership.beginSlot = acceptedThrough
            if decided == acceptedThrough { beginLeading(into: &effects) }
            return
        }
        leadership.beginSlot = propose(
            LogEntry(term: promised, number: 0, kind: .begin, payload: payload), into: &effects)
    }

    // MARK: Proposing

    /// Appends to the pipeline. Nil: not leading, about to hand over, or the pipeline is full.
    package mutating func propose(
        _ payload: Bytes, at now: Instant, into effects: inout Effects
    ) -> (slot: Slot, number: UInt64)? {
        guard isLeading, leadership.successor == nil, leadership.isSettled,
            leadership.barrier == nil || sabotaged(.pipelinePastConfiguration),
            acceptedThrough.rawValue - decided.rawValue < limits.pipelineEntriesMax,
            leadership.pipelineBytes < limits.pipelineBytesMax
        else { return nil }
        let number = leadership.nextNumber
        leadership.nextNumber += 1
        let slot = propose(
            LogEntry(term: promised, number: number, kind: .normal, payload: payload),
            into: &effects)
        return (slot, number)
    }

    @discardableResult
    mutating func propose(_ entry: LogEntry, into effects: inout Effects) -> Slot {
        let slot = acceptedThrough.next
        write(entry, at: slot, into: &effects)
        acceptedThrough = slot
        leadership.pipelineBytes += entry.payload.count
        return slot
    }

    /// What a quorum has durably accepted in this ballot, without a gap, is chosen.
    mutating func commit(at now: Instant, into effects: inout Effects) {
        let before = decided
        advance(to: quorumSlot, at: now, into: &effects)
        guard decided > before else { return }
        announceSoon(at: now)
        if !leadership.begun, let begin = leadership.beginSlot, decided >= begin {
            beginLeading(into: &effects)
        }
        passBarrier(at: now, into: &effects)
    }

    private mutating func beginLeading(into effects: inout Effects) {
        leadership.begun = true
        fruitless = 0
        effects.append(.leading(promised))
    }

    /// Followers hear of it with the next accept, or when none is sent for a while (L8).
    private mutating func announceSoon(at now: Instant) {
        if leadership.noticeAt == .never, !peers.isEmpty {
            leadership.noticeAt = now.advanced(by: limits.noticeDelay)
        }
    }

    /// That node waits until it shows what is decided here: it hears of it with this turn, and not when the
    /// notice is due. False: it has been told, or is asked already.
    package mutating func announce(to node: NodeID) -> Bool {
        guard role == .leading, let i = peers.firstIndex(where: { $0.node == node }), peers[i].told < decided,
            !peers[i].probe, !peers[i].suspected
        else { return false }
        peers[i].probe = true
        return true
    }

    /// The highest slot that a majority of the voters has acknowledged.
    private var quorumSlot: Slot {
        var best = decided
        for i in -1..<peers.count {
            let slot = i < 0 ? durableThrough : peers[i].acked
            guard slot > best else { continue }
            if isMajority(me: durableThrough >= slot, { $0.acked >= slot }) { best = slot }
        }
        return best
    }

    // MARK: Sending

    mutating func sendAccepts(at now: Instant, into effects: inout Effects) {
        let before = settled
        settle(peers.reduce(flushedThrough) { min($0, $1.flushed) }, into: &effects)
        if settled > before { announceSoon(at: now) }
        // Followers mostly need the same entries: one array serves them all.
        var batch: (first: Slot, entries: [LogEntry]) = (.zero, [])
        for i in peers.indices where !peers[i].suspected {
            // Several messages a turn only while it catches up.
            for _ in 0..<8 {
                guard peers[i].sent < acceptedThrough, peers[i].inflightBytes < limits.windowBytesMax,
                    peers[i].sent >= keptAfter
                else { break }
                if batch.first != peers[i].sent.next { batch = entries(from: peers[i].sent.next) }
                sendAccept(batch.entries, to: i, at: now, into: &effects)
            }
            if peers[i].sent < keptAfter { sendSnapshot(to: i, at: now, into: &effects) }
            if peers[i].probe { sendAccept([], to: i, at: now, into: &effects) }
        }
    }

    private mutating func sendSnapshot(to i: Int, at now: Instant, into effects: inout Effects) {
        guard peers[i].snapshotAt <= now else { return }
        peers[i].snapshotAt = now.advanced(by: limits.snapshotPeriod)
        peers[i].probe = true
        effects.append(.snapshotWanted(by: peers[i].node))
    }

    private func entries(from first: Slot) -> (first: Slot, entries: [LogEntry]) {
        var entries: [LogEntry] = []
        let count = min(limits.batchEntriesMax, Int(acceptedThrough.rawValue - first.rawValue + 1))
        entries.reserveCapacity(count)
        var slot = first, size = 0
        while slot <= acceptedThrough, entries.count < count, size < limits.batchBytesMax {
            let entry = self[slot].entry
            entries.append(entry)
            size += entry.payload.count
            slot = slot.next
        }
        return (first, entries)
    }

    private mutating func sendAccept(
        _ entries: [LogEntry], to i: Int, at now: Instant, heartbeat: Bool = false,
        into effects: inout Effects
    ) {
        // A renewal to a peer that owes nothing is asked again by the next one: no timer for that.
        let isRenewal = heartbeat && leaseLimits != nil && !peers[i].probe
            && peers[i].acked >= peers[i].sent && peers[i].decided >= decided
        effects.append(
            .send(
                to: peers[i].node,
                .accept(
                    .init(
                        ballot: promised, first: peers[i].sent.next, entries: entries,
                        decided: decided, settled: settled, begun: leadership.begun,
                        probe: peers[i].probe, sentAt: heartbeat ? now : .zero,
                        configuration: configuration.number))))
        peers[i].sent = Slot(peers[i].sent.rawValue + UInt64(entries.count))
        peers[i].inflightBytes += entries.reduce(0) { $0 + $1.payload.count }
        peers[i].told = decided
        peers[i].toldSettled = settled
        // Only what is answered at once is a question: an acknowledgement waits for the peer's disk, and a
        // slow disk is no silence (L4).
        if peers[i].silentSince == nil, peers[i].probe || heartbeat { peers[i].silentSince = now }
        peers[i].probe = false
        if peers[i].probeAt == .never, !isRenewal {
            peers[i].probeAt = now.advanced(by: peers[i].probeDelay)
        }
    }

    mutating func onAccepted(
        _ accepted: GroupMessage.Accepted, from i: Int, at now: Instant, into effects: inout Effects
    ) {
        guard role == .leading, accepted.ballot <= promised else { return }
        let progress = accepted.through > peers[i].acked || accepted.decided > peers[i].decided
        peers[i].decided = max(peers[i].decided, accepted.decided)
        peers[i].flushed = max(peers[i].flushed, accepted.flushed)
        guard accepted.ballot == promised else {
            // It has not heard of us yet.
            peers[i].sent = min(peers[i].decided, acceptedThrough)
            peers[i].inflightBytes = 0
            peers[i].probe = true
            return
        }
        // What it knows to be chosen may be more than this leader has proposed yet: up to there, where
        // both have something, it is the same (a leader settles a configuration before what is behind it).
        let through = min(accepted.through, acceptedThrough)
        if through > peers[i].acked {
            var slot = max(peers[i].acked, keptAfter)
            while slot < through {
                slot = slot.next
                peers[i].inflightBytes -= self[slot].entry.payload.count
            }
            peers[i].inflightBytes = max(0, peers[i].inflightBytes)
            peers[i].acked = through
        }
        peers[i].sent = max(peers[i].sent, through)
        if accepted.resendFrom == .zero {
            sendSnapshot(to: i, at: now, into: &effects)
        } else if let from = accepted.resendFrom, from <= peers[i].sent {
            effects.append(.note(.resent(to: peers[i].node, from: from)))
            peers[i].sent = from.previous
            peers[i].inflightBytes = 0
        }
        if sabotaged(.leaseFromArrival), accepted.sentAt > .zero { peers[i].leaseFrom = now }
        peers[i].leaseFrom = max(peers[i].leaseFrom, accepted.sentAt)
        peers[i].probeDelay =
            progress ? limits.probePeriod : min(peers[i].probeDelay * 2, limits.electionPeriod)
        let peer = peers[i].node
        commit(at: now, into: &effects)
        // It may have gone with what was just decided, or have another place.
        guard role == .leading, let i = peers.firstIndex(where: { $0.node == peer }) else { return }
        let owes = peers[i].acked < peers[i].sent || peers[i].decided < peers[i].told
        peers[i].probeAt = owes ? now.advanced(by: peers[i].probeDelay) : .never
        handOverIfReady(at: now, into: &effects)
    }

    // MARK: Timers

    mutating func wakeLeader(at now: Instant, into effects: inout Effects) {
        if lonelyAt <= now, !forgive(at: now) { return standDown(at: now, into: &effects) }
        if leadership.handOverEndsAt <= now { return endHandOver(at: now, into: &effects) }
        if leadership.settleAt <= now || leadership.retireAt <= now {
            leadership.settleAt = .never
            settleFound(at: now, into: &effects)
            if role != .leading { return }
        }
        if leadership.noticeAt <= now {
            leadership.noticeAt = .never
            for i in peers.indices
            where peers[i].told < decided || peers[i].toldSettled < settled {
                peers[i].probe = true
            }
        }
        for i in peers.indices where peers[i].probeAt <= now {
            peers[i].probeAt = .never
            // A suspected peer is asked when it is back.
            guard !peers[i].suspected else { continue }
            peers[i].probe = true
            // Again if it does not answer: several times within an election period, then ever more rarely.
            let silent = peers[i].silentSince.map { now.since($0) } ?? .zero
            peers[i].probeAt = now.advanced(
                by: max(limits.probePeriod, min(silent, limits.electionPeriod * 5)))
        }
        if leadership.renewAt <= now, let leaseLimits {
            let period = leadership.leaseIsUsed ? leaseLimits.renewal : leaseLimits.idleRenewal
            leadership.renewAt = now.advanced(by: period)
            leadership.renewedAt = now
            leadership.leaseIsUsed = false
            sendHeartbeats(at: now, into: &effects)
        }
    }

    mutating func sendHeartbeats(at now: Instant, into effects: inout Effects) {
        guard role == .leading else { return }
        for i in peers.indices { sendAccept([], to: i, at: now, heartbeat: true, into: &effects) }
    }

    /// When a majority will have owed us the answer to a question for one period (L4).
    var lonelyAt: Instant {
        let needed = configuration.voters.count - quorum + 1
        var last = Instant.never
        for candidate in peers where candidate.isVoter {
            guard let since = candidate.silentSince else { continue }
            let silent = peers.count { $0.isVoter && ($0.silentSince ?? .never) <= since }
            if silent >= needed { last = min(last, since.advanced(by: limits.electionPeriod)) }
        }
        return last
    }

    /// Woken late: this node was stopped itself, and the answers may be in the queue behind this input.
    /// Who is not suspected is asked again. False: a majority is gone all the same.
    private mutating func forgive(at now: Instant) -> Bool {
        guard now.since(lonelyAt) >= limits.probePeriod else { return false }
        for i in peers.indices where !peers[i].suspected && peers[i].silentSince != nil {
            peers[i].silentSince = now
            peers[i].probe = true
        }
        return lonelyAt > now
    }

    mutating func standDown(at now: Instant, into effects: inout Effects) {
        invariant(role == .leading)
        effects.append(.note(.stoodDown(promised)))
        effects.append(.deposed(promised))
        lastLed = promised
        role = .follower
        leaderBegun = false
        leaderLost = true
        electAt = electionTime(after: limits.electionPeriod, at: now)
        follow(nil, into: &effects)
    }

    // MARK: Planned hand-over

    mutating func onTransfer(to successor: NodeID, at now: Instant, into effects: inout Effects) {
        guard isLeading, leadership.successor == nil,
            peers.contains(where: { $0.node == successor && $0.isVoter })
        else { return }
        leadership.successor = successor
        leadership.handOverEndsAt = now.advanced(by: limits.electionPeriod * 2)
        handOverIfReady(at: now, into: &effects)
    }

    /// A hand-over to this voter would be under way in the same moment. True if there can be none.
    package func isReady(for successor: NodeID, at now: Instant) -> Bool {
        guard isLeading, let peer = peers.first(where: { $0.node == successor && $0.isVoter }) else {
            return true
        }
        return decided == acceptedThrough && peer.acked == acceptedThrough && leadership.isSettled
            && now >= answersFrom
    }

    /// Drained, and the successor holds everything: it need not ask the others for entries. After
    /// whatever may have made it so, the own disk included: who waits for somebody's next word may wait
    /// for the next commit notice.
    mutating func handOverIfReady(at now: Instant, into effects: inout Effects) {
        guard role == .leading, let successor = leadership.successor, !leadership.campaignSent,
            peers.contains(where: { $0.node == successor && $0.isVoter }),
            isReady(for: successor, at: now)
        else { return }
        // From here on this leadership never answers under its lease again, come what may.
        leadership.campaignSent = true
        leadership.renewAt = .never
        leadership.handOverEndsAt = now.advanced(by: limits.electionPeriod)
        effects.append(.send(to: successor, .campaign(promised)))
        effects.append(.note(.handedOver(promised, to: successor)))
    }

    private mutating func endHandOver(at now: Instant, into effects: inout Effects) {
        if let successor = leadership.successor {
            effects.append(.note(.handOverFailed(promised, to: successor)))
        }
        guard !leadership.campaignSent else { return standDown(at: now, into: &effects) }
        leadership.successor = nil
        leadership.handOverEndsAt = .never
    }
}
