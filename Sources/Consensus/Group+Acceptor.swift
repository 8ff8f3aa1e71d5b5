import Primitives

// Promises and accepts; both are answered only when they are durable.
extension Group {
    /// Follows `ballot` from now on. What was accepted in lower ones stays, but is no longer ours
    /// to acknowledge.
    mutating func adopt(_ ballot: Ballot, at now: Instant, into effects: inout Effects) {
        invariant(ballot > promised, "\(ballot) after \(promised)")
        if role == .leading {
            lastLed = promised
            effects.append(.deposed(promised))
        }
        role = .follower
        promised = ballot
        promisedAt = now
        highestRound = max(highestRound, ballot.round)
        leaderBegun = false
        leaderLost = false
        acceptedThrough = decided
        durableThrough = decided
        promiseDue = nil
        ackDue = false
        acknowledgedThrough = .zero
        resendFrom = nil
        gapAskedAt = .zero
        leaseEcho = .zero
        askAt = .never
        fruitless += 1
        electAt = electionTime(after: patience, at: now)
        follow(nil, into: &effects)
    }

    mutating func follow(_ leader: NodeID?, into effects: inout Effects) {
        guard leader != leaderHint else { return }
        leaderHint = leader
        effects.append(.followed(leader))
    }

    mutating func recordPromise(into effects: inout Effects) {
        guard recordedPromise < promised else { return }
        recordedPromise = promised
        persist(.promise(id, promised), into: &effects)
        promiseWrite = writes
    }

    mutating func onPrepare(
        _ prepare: GroupMessage.Prepare, from: NodeID, at now: Instant, into effects: inout Effects
    ) {
        guard prepare.ballot.node == from else { return }
        heard(prepare.configuration)
        // What it has forgotten may be what was chosen.
        guard !awaitsSnapshot else { return effects.append(.note(.ignored(from: from, prepare.ballot))) }
        guard prepare.ballot >= promised else {
            effects.append(.send(to: from, .refuse(promised: promised)))
            return
        }
        if prepare.ballot > promised { adopt(prepare.ballot, at: now, into: &effects) }
        recordPromise(into: &effects)
        if durableWrites >= promiseWrite || Mutation.promiseBeforeDurable.isOn {
            sendPromise(prepare, at: now, into: &effects)
        } else {
            promiseDue = prepare
        }
    }

    private func sendPromise(
        _ prepare: GroupMessage.Prepare, at now: Instant, into effects: inout Effects
    ) {
        let lease = sabotaged(.leaseForgotten) ? .zero : leasePromise.until.since(now)
        var promise = GroupMessage.Promise(
            ballot: prepare.ballot, after: prepare.after, through: nil, accepted: [],
            decided: decided, keptAfter: keptAfter,
            lease: lease, leaseBallot: leasePromise.ballot)
        var slot = prepare.after, size = 0
        while prepare.after >= keptAfter, slot < lastSlot {
            if size >= limits.batchBytesMax || promise.accepted.count >= limits.batchEntriesMax {
                promise.through = slot
                break
            }
            slot = slot.next
            let cell = self[slot]
            if cell.ballot == .zero { continue }
            if slot <= prepare.sameThrough && cell.ballot == prepare.same { continue }
            promise.accepted.append(.init(slot: slot, ballot: cell.ballot, entry: cell.entry))
            size += cell.entry.payload.count + 32
        }
        effects.append(.send(to: prepare.ballot.node, .promise(promise)))
    }

    mutating func onAccept(
        _ accept: GroupMessage.Accept, from: NodeID, at now: Instant, into effects: inout Effects
    ) {
        guard accept.ballot.node == from, accept.first > .zero else { return }
        heard(accept.configuration)
        guard accept.ballot >= promised else {
            effects.append(.send(to: from, .refuse(promised: promised)))
            return
        }
        if accept.ballot > promised { adopt(accept.ballot, at: now, into: &effects) }
        if role == .asking { role = .follower }
        follow(from, into: &effects)
        leaderLost = false
        leaderBegun = leaderBegun || accept.begun
        if accept.begun { fruitless = 0 }
        let before = acceptedThrough
        append(accept, at: now, into: &effects)
        if leaderBegun || !votes {
            electAt = .never
        } else if acceptedThrough > before || electAt == .never {
            promisedAt = now
            electAt = electionTime(after: patience, at: now)
        }
        settle(accept.settled, into: &effects)
        if accept.sentAt > .zero {
            if let leaseLimits {
                leasePromise = (accept.ballot, now.advanced(by: leaseLimits.duration))
            }
            leaseEcho = max(leaseEcho, accept.sentAt)
            ackDue = true
        }
        onNotice(accept.ballot, accept.decided, at: now, into: &effects)
    }

    /// In order, per ballot (S3, C7).
    private mutating func append(
        _ accept: GroupMessage.Accept, at now: Instant, into effects: inout Effects
    ) {
        if accept.probe { ackDue = true }
        if awaitsSnapshot {
            if accept.probe || !accept.entries.isEmpty {
                resendFrom = .zero
                ackDue = true
            }
            return
        }
        if accept.first > acceptedThrough.next && !sabotaged(.outOfOrder) {
            // One question per gap: every batch behind it would ask again.
            let asked = gapAskedFrom == acceptedThrough.next
                && now < gapAskedAt.advanced(by: limits.probePeriod)
            if !asked || accept.probe {
                gapAskedFrom = acceptedThrough.next
                gapAskedAt = now
                resendFrom = gapAskedFrom
                ackDue = true
            }
            return
        }
        var slot = accept.first
        let before = acceptedThrough
        for entry in accept.entries {
            if slot > acceptedThrough {
                write(entry, at: slot, into: &effects)
                acceptedThrough = slot
            }
            slot = slot.next
        }
        // New entries are acknowledged when durable, old ones again now: the answer was lost.
        if acceptedThrough == before && !accept.entries.isEmpty { ackDue = true }
        if Mutation.ackBeforeDurable.isOn, acceptedThrough > before { ackDue = true }
    }

    mutating func onDurable(_ count: UInt64, at now: Instant, into effects: inout Effects) {
        invariant(count <= writes, "\(count) of \(writes)")
        durableWrites = max(durableWrites, count)
        let before = durableThrough
        while durableThrough < acceptedThrough, self[durableThrough.next].write <= durableWrites {
            durableThrough = durableThrough.next
        }
        if let prepare = promiseDue, durableWrites >= promiseWrite {
            promiseDue = nil
            sendPromise(prepare, at: now, into: &effects)
        }
        switch role {
        case .leading:
            if durableThrough > before {
                commit(at: now, into: &effects)
                handOverIfReady(at: now, into: &effects)
            }
        case .preparing: winIfPromised(at: now, into: &effects)
        // A commit notice may have been faster than the disk: the leader still waits for its word.
        case .follower, .asking: if onDisk > acknowledgedThrough { ackDue = true }
        }
    }

    /// `durableThrough` without what is chosen, but still on its way to this disk.
    var onDisk: Slot {
        var slot = durableThrough
        while slot > keptAfter, self[slot].write > durableWrites { slot = slot.previous }
        return slot
    }

    mutating func acknowledge(into effects: inout Effects) {
        ackDue = false
        guard promised.node != node, promised != .zero else { return }
        acknowledgedThrough = Mutation.ackBeforeDurable.isOn ? acceptedThrough : onDisk
        effects.append(
            .send(
                to: promised.node,
                .accepted(
                    .init(
                        ballot: promised,
                        through: acknowledgedThrough,
                        resendFrom: resendFrom,
                        decided: decided, flushed: flushedThrough, sentAt: leaseEcho))))
        resendFrom = nil
        leaseEcho = .zero
    }

    // MARK: Commit notices

    /// S14: good only for what was accepted in that ballot.
    mutating func onNotice(
        _ ballot: Ballot, _ slot: Slot, at now: Instant, into effects: inout Effects
    ) {
        guard role != .leading, ballot >= promised || sabotaged(.noticeWithoutBallot) else { return }
        if ballot > noticed.ballot {
            noticed = (ballot, slot)
        } else if ballot == noticed.ballot {
            noticed.slot = max(noticed.slot, slot)
        }
        if noticed.ballot == promised {
            advance(to: min(noticed.slot, acceptedThrough), at: now, into: &effects)
        }
        if sabotaged(.noticeWithoutBallot) { advance(to: min(slot, lastSlot), at: now, into: &effects) }
        if noticed.slot <= decided {
            fetchAt = .never
        } else if fetchAt == .never {
            fetchAt = now.advanced(by: limits.probePeriod)
        }
    }

    /// Entries that are chosen have not come by themselves: asks the leader for them.
    mutating func fetch(at now: Instant, into effects: inout Effects) {
        fetchAt = .never
        guard role != .leading, noticed.ballot >= promised, noticed.slot > decided,
            noticed.ballot.node != node
        else { return }
        fetchAt = now.advanced(by: limits.probePeriod * 2)
        effects.append(
            .send(
                to: noticed.ballot.node,
                .accepted(
                    .init(
                        ballot: promised, through: onDisk,
                        resendFrom: awaitsSnapshot ? .zero : acceptedThrough.next, decided: decided,
                        flushed: flushedThrough, sentAt: .zero))))
    }
}
