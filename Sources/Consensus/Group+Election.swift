import DequeModule
import Primitives

// Pre-vote and phase 1 (protocol-rules.md L4). Candidates go in the order of preference.
extension Group {
    // MARK: Pre-vote

    mutating func ask(at now: Instant, into effects: inout Effects) {
        electAt = .never
        guard quorum > 1 else { return prepare(at: now, into: &effects) }
        role = .asking
        question = Ballot(round: max(highestRound, promised.round) + 1, node: node)
        for i in peers.indices { peers[i].agreed = false }
        askDelay = limits.retryPeriod
        repeatQuestion(at: now, into: &effects)
    }

    mutating func repeatQuestion(at now: Instant, into effects: inout Effects) {
        for peer in peers where peer.isVoter && !peer.agreed {
            effects.append(
                .send(
                    to: peer.node,
                    .askVote(question, decided: decided, configuration: configuration.number)))
        }
        backOff(at: now)
    }

    private mutating func backOff(at now: Instant) {
        let jitter = TimeSpan(nanoseconds: luck.below(limits.retryPeriod.nanoseconds + 1))
        askAt = now.advanced(by: askDelay + jitter)
        askDelay = min(askDelay * 2, limits.electionPeriod)
    }

    mutating func onAskVote(
        _ question: Ballot, decided theirs: Slot, from candidate: NodeID, at now: Instant,
        into effects: inout Effects
    ) {
        let answer: GroupMessage.Vote.Answer
        if promised.node == candidate, question > promised, role == .follower, !leaderLost {
            // Our leader asks: it leads no more. It may have lost too much to be elected again.
            leaderLost = true
            leaderBegun = false
            electAt = min(electAt, electionTime(after: limits.electionPeriod, at: now))
        }
        if role == .leading {
            if let i = peers.firstIndex(where: { $0.node == candidate }) { peers[i].probe = true }
            answer = .hearsLeader
        } else if theirs < keptAfter || theirs.rawValue + limits.behindMax < decided.rawValue {
            answer = .candidateBehind
            // It will not be elected by us; who else, if nobody leads?
            if role == .follower, votes, !isGone, !hearsLeader(besides: candidate, at: now) {
                electAt = min(electAt, electionTime(after: .zero, at: now))
            }
        } else {
            answer = hearsLeader(besides: candidate, at: now) ? .hearsLeader : .agreed
        }
        effects.append(
            .send(
                to: candidate,
                .vote(
                    .init(question: question, answer: answer, promised: promised, decided: decided))))
    }

    private func hearsLeader(besides candidate: NodeID, at now: Instant) -> Bool {
        if promised == .zero || leaderLost || promised.node == candidate { return false }
        return leaderBegun || now < promisedAt.advanced(by: patience)
    }

    mutating func onVote(
        _ vote: GroupMessage.Vote, from peer: Int, at now: Instant, into effects: inout Effects
    ) {
        highestRound = max(highestRound, vote.promised.round)
        guard role == .asking, vote.question == question else { return }
        switch vote.answer {
        case .agreed:
            peers[peer].agreed = true
            if isMajority(\.agreed) { prepare(at: now, into: &effects) }
        case .hearsLeader: break
        case .candidateBehind: stepBack(for: vote.decided, at: now, into: &effects)
        }
    }

    private mutating func stepBack(for better: Slot, at now: Instant, into effects: inout Effects) {
        effects.append(.note(.candidateBehind(decided: decided, others: better)))
        role = .follower
        electAt = electionTime(after: limits.electionPeriod * 2, at: now)
    }

    // MARK: Phase 1

    /// Over all slots above the decided one.
    mutating func prepare(at now: Instant, into effects: inout Effects) {
        guard votes, !isGone else { return }
        candidacy = Candidacy(after: decided)
        candidacy.same = decided < lastSlot ? self[decided.next].ballot : .zero
        candidacy.sameThrough = decided
        while candidacy.sameThrough < lastSlot,
            self[candidacy.sameThrough.next].ballot == candidacy.same
        { candidacy.sameThrough = candidacy.sameThrough.next }

        // The candidate is one of the voters that may have promised.
        if waits(for: leasePromise.ballot) { candidacy.answersFrom = leasePromise.until }

        let ballot = Ballot(round: max(highestRound, promised.round) + 1, node: node)
        adopt(ballot, at: now, into: &effects)
        role = .preparing
        electAt = .never
        recordPromise(into: &effects)
        effects.append(.note(.campaignStarted(ballot)))
        for i in peers.indices {
            peers[i].promised = false
            peers[i].progress = decided
            peers[i].promiseAskedAt = .zero
        }
        candidacyEndsAt = now.advanced(by: patience * 2)
        askDelay = limits.retryPeriod * 2
        repeatPrepare(at: now, into: &effects)
    }

    private mutating func repeatPrepare(at now: Instant, into effects: inout Effects) {
        for i in peers.indices where peers[i].isVoter && !peers[i].promised {
            sendPrepare(to: i, into: &effects)
        }
        backOff(at: now)
    }

    private func sendPrepare(to peer: Int, into effects: inout Effects) {
        effects.append(
            .send(
                to: peers[peer].node,
                .prepare(
                    .init(
                        ballot: promised, after: peers[peer].progress, same: candidacy.same,
                        sameThrough: candidacy.sameThrough,
                        configuration: configuration.number))))
    }

    mutating func wakeCandidate(at now: Instant, into effects: inout Effects) {
        if candidacyEndsAt <= now {
            giveUp(at: now, into: &effects)
        } else if askAt <= now {
            repeatPrepare(at: now, into: &effects)
        }
    }

    private mutating func giveUp(at now: Instant, into effects: inout Effects) {
        effects.append(.note(.campaignGivenUp(promised)))
        role = .follower
        leaderLost = true
        let jitter = TimeSpan(nanoseconds: luck.below(limits.electionPeriod.nanoseconds + 1))
        electAt = electionTime(after: jitter, at: now)
    }

    mutating func onPromise(
        _ promise: GroupMessage.Promise, from peer: Int, at now: Instant, into effects: inout Effects
    ) {
        if role == .leading, promise.ballot == promised {
            return onLatePromise(promise, from: peer, at: now, into: &effects)
        }
        guard role == .preparing, promise.ballot == promised, !peers[peer].promised,
            promise.after == peers[peer].progress
        else { return }
        if waits(for: promise.leaseBallot) {
            candidacy.answersFrom = max(candidacy.answersFrom, now.advanced(by: promise.lease))
        }
        // What it no longer has may be what we need: no conclusion from its silence.
        guard promise.keptAfter <= candidacy.after else {
            leaderLost = true
            // Whoever has that shall lead, and has just promised to hear nobody of before.
            effects.append(.send(to: peers[peer].node, .campaign(promised)))
            return stepBack(for: promise.decided, at: now, into: &effects)
        }
        for found in promise.accepted where found.slot > promise.after && found.ballot < promised {
            note(found)
        }
        peers[peer].decided = promise.decided
        candidacyEndsAt = now.advanced(by: patience * 2)
        if let through = promise.through {
            peers[peer].progress = through
            sendPrepare(to: peer, into: &effects)
        } else {
            peers[peer].promised = true
            winIfPromised(at: now, into: &effects)
        }
    }

    mutating func note(_ found: GroupMessage.Found) {
        let index = Int(found.slot.rawValue - candidacy.after.rawValue - 1)
        // Acceptors accept without gaps, so what they report is dense but for what we hold, too.
        while candidacy.found.count <= index { candidacy.found.append(.missing) }
        if candidacy.found[index].ballot < found.ballot {
            candidacy.found[index] = Cell(ballot: found.ballot, write: 0, entry: found.entry)
        }
    }

    mutating func winIfPromised(at now: Instant, into effects: inout Effects) {
        guard role == .preparing, durableWrites >= promiseWrite,
            isMajority(\.promised)
        else { return }
        lead(at: now, into: &effects)
    }

    /// Somebody has promised more than we have: our ballot cannot win there any more.
    mutating func onRefuse(_ higher: Ballot, at now: Instant, into effects: inout Effects) {
        highestRound = max(highestRound, higher.round)
        guard higher > promised else { return }
        switch role {
        case .leading: standDown(at: now, into: &effects)
        case .preparing: giveUp(at: now, into: &effects)
        case .asking, .follower: break
        }
    }

    mutating func onCampaign(
        _ ballot: Ballot, from: NodeID, at now: Instant, into effects: inout Effects
    ) {
        guard ballot == promised, ballot.node == from, role == .follower || role == .asking else {
            return
        }
        releasedBallot = ballot
        prepare(at: now, into: &effects)
    }
}
