import DequeModule
import Primitives

extension Group {
    subscript(slot: Slot) -> Cell {
        log[Int(slot.rawValue - keptAfter.rawValue - 1)]
    }

    mutating func persist(_ record: LogRecord, into effects: inout Effects) {
        writes += 1
        effects.append(.persist(record))
    }

    /// Accepts `entry` in the promised ballot.
    mutating func write(_ entry: LogEntry, at slot: Slot, into effects: inout Effects) {
        invariant(slot > decided || sabotaged(.noticeWithoutBallot), "\(slot) is decided")
        persist(.accept(id, slot, promised, entry), into: &effects)
        let cell = Cell(ballot: promised, write: writes, entry: entry)
        while lastSlot.next < slot { log.append(.missing) }
        if slot > lastSlot {
            log.append(cell)
        } else {
            let index = Int(slot.rawValue - keptAfter.rawValue - 1)
            keptBytes -= log[index].entry.payload.count
            log[index] = cell
        }
        keptBytes += entry.payload.count
    }

    /// Everything through `slot` is chosen, and is what the log holds.
    mutating func advance(to slot: Slot, at now: Instant, into effects: inout Effects) {
        guard slot > decided else { return }
        while decided < slot {
            let entry = self[decided.next].entry
            var skipped = position.pass(entry)
            if sabotaged(.numbersIgnored) { skipped = entry.term < position.term }
            effects.append(.decided(decided, entry, skipped: skipped))
            if role == .leading { leadership.pipelineBytes -= entry.payload.count }
            guard entry.kind == .configuration, !skipped else { continue }
            guard let next = try? Configuration(decoding: entry.payload) else {
                // It was written by a leader of this version and carried a checksum all the way.
                invariant(false, "\(id): undecodable configuration at \(decided)")
                continue
            }
            adopt(next, at: now, into: &effects)
        }
        acceptedThrough = max(acceptedThrough, decided)
        durableThrough = max(durableThrough, decided)
        trim()
    }

    /// Drops from memory what all have flushed, and what is too much to keep. A store that has not
    /// flushed comes back without it, and its log may hold it in a ballot that proves nothing.
    mutating func trim() {
        while keptAfter < decided, keptBytes > limits.keptBytesMax || keptAfter < settled {
            dropFirst()
        }
    }

    mutating func settle(_ slot: Slot, into effects: inout Effects) {
        guard slot > settled else { return }
        settled = slot
        trim()
        recordTruncation(into: &effects)
    }

    /// The write-ahead log keeps what memory keeps: after a restart it is served from there.
    private mutating func recordTruncation(into effects: inout Effects) {
        truncateLog(through: min(flushedThrough, keptAfter), into: &effects)
    }

    private mutating func truncateLog(through slot: Slot, into effects: inout Effects) {
        guard slot > truncatedThrough else { return }
        truncatedThrough = slot
        persist(.truncate(id, slot), into: &effects)
    }

    private mutating func dropFirst() {
        keptBytes -= log.removeFirst().entry.payload.count
        keptAfter = keptAfter.next
    }

    mutating func onTruncate(through: Slot, at now: Instant, into effects: inout Effects) {
        let before = flushedThrough
        flushedThrough = max(flushedThrough, min(through, decided))
        if Mutation.appliedIsFlushed.isOn { flushedThrough = decided }
        if peers.isEmpty { settle(flushedThrough, into: &effects) }
        if role != .leading && flushedThrough > before { ackDue = true }
        recordTruncation(into: &effects)
        if now >= oldFlush.at.advanced(by: limits.keptPeriod) {
            truncateLog(through: oldFlush.slot, into: &effects)
            oldFlush = (flushedThrough, now)
        }
    }

    mutating func onInstalled(
        _ installed: AppliedPosition, _ configuration: Configuration, isFlushed: Bool = true,
        at now: Instant, into effects: inout Effects
    ) {
        guard installed.slot > decided else { return }
        // It was asked for before the election: whoever sent it knows more to be chosen than this leader.
        if role == .leading { standDown(at: now, into: &effects) }
        if role == .preparing {
            role = .follower
            leaderLost = true
            electAt = electionTime(after: .zero, at: now)
        }
        while keptAfter < installed.slot, !log.isEmpty { dropFirst() }
        // What is left below it may not be what was chosen: it must not be served.
        keptAfter = installed.slot
        position = installed
        acceptedThrough = max(acceptedThrough, installed.slot)
        durableThrough = max(durableThrough, installed.slot)
        if isFlushed {
            flushedThrough = installed.slot
            truncatedThrough = installed.slot
            persist(.truncate(id, installed.slot), into: &effects)
        }
        ackDue = true
        adopt(configuration, at: now, into: &effects)
        if noticed.ballot == promised {
            advance(to: min(noticed.slot, acceptedThrough), at: now, into: &effects)
        }
    }

    /// Slots through the applied one are chosen, but the log is known to hold what was chosen there
    /// only if it holds the entry that was applied last: acceptance is in order and the write-ahead
    /// log is sequential. (A snapshot whose truncation did not become durable leaves a log that
    /// does not.) The others can still vote; their peers get a snapshot if they need those slots.
    mutating func restore(_ restored: RestoredLog) {
        let accepted = restored.accepted
        var next = restored.truncatedThrough.next, end = 0
        while end < accepted.count, accepted[end].slot == next, next <= decided {
            next = next.next
            end += 1
        }
        if end > 0, next > decided, accepted[end - 1].entry.term == position.term,
            accepted[end - 1].entry.number == position.number
        { keptAfter = restored.truncatedThrough }
        for found in accepted where found.slot > keptAfter {
            while lastSlot.next < found.slot { log.append(.missing) }
            invariant(lastSlot.next == found.slot, "\(found.slot) after \(lastSlot)")
            log.append(Cell(ballot: found.ballot, write: 0, entry: found.entry))
            keptBytes += found.entry.payload.count
        }
        while acceptedThrough < lastSlot, self[acceptedThrough.next].ballot == promised,
            promised != .zero
        { acceptedThrough = acceptedThrough.next }
        durableThrough = acceptedThrough
        trim()
    }
}
