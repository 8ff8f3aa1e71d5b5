import DequeModule
package import Primitives

/// Applies one other region's stream here: in order, each batch as one transaction that also advances
/// the cursor, so exactly once (geo.md, "What is shipped"). Any node may run one: `from` must equal the
/// durable cursor when the batch is applied, so two receivers cannot double anything (G10).
package struct LinkReceiver: Sendable {
    package enum Input: Equatable, Sendable {
        /// The link is up: say where to begin.
        case connected
        case disconnected
        /// `batch` or `idle`; others are ignored.
        case message(LinkMessage)
        /// The durable cursor as this node's replica has it, unasked or as answer to `readCursor`.
        case cursor(Revision)
        /// The answer to the one batch that is being applied.
        case applied(Response)
        case wake
    }

    package enum Effect: Equatable, Sendable {
        case send(LinkMessage)
        /// To be submitted as `Request.replicate`. At most one is unanswered.
        case apply(ReplicationBatch)
        /// The cursor is not what this receiver believed: the node answers with `.cursor`, from a
        /// replica that has applied everything decided so far if it can.
        case readCursor
        case note(LinkEvent)
    }

    package let region: RegionID
    package let origin: RegionID
    package let incarnation: UInt64
    package let limits: LinkLimits

    /// Applied and durable through here.
    package private(set) var cursor: Revision
    /// The origin's frontier, as it last told.
    package private(set) var originFrontier = Revision.zero
    package private(set) var nextWake = Instant.never
    package private(set) var isConnected = false
    package private(set) var isHeld = false
    /// The last word of the origin's sender.
    package private(set) var heardAt = Instant.zero

    private var queue: Deque<ReplicationBatch> = []
    private var isApplying = false
    private var isReadingCursor = false
    /// What came fits neither the queue nor what is being applied: to be asked for once that is empty.
    private var isRewound = false
    private var retryDue = Instant.never
    /// Not before this is a gap asked for again; and, later, silence answered with another hello.
    private var askDue = Instant.zero
    private var silenceDue = Instant.never
    /// Marks of the origin's clock that are not yet reached: (cursor that reaches it, clock).
    private var marks: Deque<Mark> = []
    private var reachedClock: UInt64 = 0
    private var reachedFrontier = Revision.zero

    private struct Mark: Sendable {
        let cursor: Revision
        let frontier: Revision
        let wallMicroseconds: UInt64
    }

    package init(
        region: RegionID, origin: RegionID, cursor: Revision, incarnation: UInt64 = 1,
        limits: LinkLimits = .init()
    ) {
        self.region = region
        self.origin = origin
        self.cursor = cursor
        self.incarnation = incarnation
        self.limits = limits
    }

    /// How far this region is behind the origin, by the origin's last word and by the clock of the
    /// newest mark that is wholly applied: it grows while the link is cut (G10). Nil: never heard.
    package func lag(wallMicroseconds: UInt64) -> (revisions: Int64, microseconds: UInt64)? {
        guard reachedClock > 0 else { return nil }
        return (
            max(0, originFrontier.rawValue - max(cursor, reachedFrontier).rawValue),
            wallMicroseconds > reachedClock ? wallMicroseconds - reachedClock : 0
        )
    }

    package mutating func step(_ input: Input, at now: ClockReading, into effects: inout [Effect]) {
        switch input {
        case .connected:
            isConnected = true
            forgetQueue()
            sayHello(at: now, into: &effects)
        case .disconnected:
            isConnected = false
            forgetQueue()
        case .message(let message): onMessage(message, at: now, into: &effects)
        case .cursor(let revision): onCursor(revision, at: now, into: &effects)
        case .applied(let response): onApplied(response, at: now, into: &effects)
        case .wake: onWake(at: now, into: &effects)
        }
        applyNext(at: now, into: &effects)
        setWake()
    }

    /// The next batch must begin here.
    private var expected: Revision { queue.last?.through ?? cursor }

    /// What waits here, or is being applied, may yet be lost with this node: the origin must keep the
    /// history of it, so it is not part of the cursor. It comes again; who has it already drops it.
    private mutating func sayHello(at now: ClockReading, into effects: inout [Effect]) {
        askDue = now.instant.advanced(by: limits.resendInterval)
        silenceDue = askDue
        isRewound = false
        effects.append(
            .send(.hello(origin: origin, cursor: cursor, incarnation: incarnation)))
    }

    /// A batch that is being applied stays at the front: its answer is still to come.
    private mutating func forgetQueue() {
        while queue.count > (isApplying ? 1 : 0) { queue.removeLast() }
        marks.removeAll()
    }

    // MARK: From the origin

    private mutating func onMessage(
        _ message: LinkMessage, at now: ClockReading, into effects: inout [Effect]
    ) {
        guard message.origin == origin else { return }
        silenceDue = now.instant.advanced(by: limits.resendInterval)
        heardAt = now.instant
        switch message {
        case .batch(let batch, let frontier, let wall):
            onBatch(batch, at: now, into: &effects)
            mark(cursor: batch.through, frontier: batch.through, wall: wall, told: frontier)
        case .idle(_, _, .zero, _):
            // A sender that has not heard our hello; the first one may have been lost.
            sayHello(at: now, into: &effects)
        case .idle(_, let sent, let frontier, let wall):
            // Something was sent that never came. (A cursor above `sent` is a sender that does not
            // know us yet: hello again tells it.)
            if sent != expected { askAgain(got: sent, at: now, into: &effects) }
            mark(cursor: sent, frontier: frontier, wall: wall, told: frontier)
        case .hello, .acknowledge, .resume: return
        }
    }

    private mutating func onBatch(
        _ batch: ReplicationBatch, at now: ClockReading, into effects: inout [Effect]
    ) {
        if batch.from == expected {
            guard queue.count < limits.queuedBatches else {
                // A sender that keeps to its window never comes here. It is asked for as soon as the
                // queue is empty.
                effects.append(.note(.overflowed))
                isRewound = true
                return
            }
            queue.append(batch)
        } else if batch.through <= cursor {
            effects.append(.send(.acknowledge(origin: origin, through: cursor)))
        } else if batch.through <= expected {
            // A repetition of what waits here already.
            return
        } else if batch.from >= cursor, batch.from < expected {
            // Cut otherwise than the first time: it fits once what waits here is applied.
            isRewound = true
        } else {
            askAgain(got: batch.from, at: now, into: &effects)
        }
    }

    /// Asks once per gap: what is under way meanwhile is dropped without asking again.
    private mutating func askAgain(got: Revision, at now: ClockReading, into effects: inout [Effect]) {
        guard now.instant >= askDue else { return }
        effects.append(.note(.gap(expected: expected, got: got)))
        // Hello rather than resume: the sender may be a new one that has not heard ours.
        sayHello(at: now, into: &effects)
    }

    private mutating func mark(cursor at: Revision, frontier: Revision, wall: UInt64, told: Revision) {
        originFrontier = max(originFrontier, told)
        let mark = Mark(cursor: at, frontier: frontier, wallMicroseconds: wall)
        // Bounded: a mark in between only makes the lag look a little worse.
        if marks.count >= 256 { marks.removeLast() }
        marks.append(mark)
        reachMarks()
    }

    private mutating func reachMarks() {
        while let first = marks.first, first.cursor <= cursor {
            reachedClock = max(reachedClock, first.wallMicroseconds)
            reachedFrontier = max(reachedFrontier, first.frontier)
            marks.removeFirst()
        }
    }

    // MARK: To the node

    private mutating func applyNext(at now: ClockReading, into effects: inout [Effect]) {
        guard !isApplying, !isReadingCursor else { return }
        trimQueue(at: now, into: &effects)
        guard now.instant >= retryDue || retryDue == .never, let batch = queue.first else { return }
        guard isWithinClockBound(batch, at: now, into: &effects) else { return }
        retryDue = .never
        isApplying = true
        effects.append(.apply(batch))
    }

    private mutating func isWithinClockBound(
        _ batch: ReplicationBatch, at now: ClockReading, into effects: inout [Effect]
    ) -> Bool {
        let highest = batch.changes.reduce(UInt64(0)) { max($0, $1.origin.stamp.ticks) }
        let bound = now.wallMicroseconds + limits.clockAheadMax.nanoseconds / 1_000
        if highest <= bound {
            if isHeld { effects.append(.note(.released)) }
            isHeld = false
            return true
        }
        if !isHeld {
            effects.append(.note(.held(aheadMicroseconds: highest - now.wallMicroseconds)))
        }
        isHeld = true
        retryDue = now.instant.advanced(by: limits.retryInterval)
        return false
    }

    private mutating func onApplied(
        _ response: Response, at now: ClockReading, into effects: inout [Effect]
    ) {
        guard isApplying, let batch = queue.first else { return }
        isApplying = false
        switch response {
        case .replicated(let through):
            invariant(through == batch.through, "\(through) for \(batch.through)")
            queue.removeFirst()
            if through > cursor { cursor = through }
            reachMarks()
            if isConnected {
                effects.append(.send(.acknowledge(origin: origin, through: cursor)))
                if isRewound, queue.isEmpty { sayHello(at: now, into: &effects) }
            }
        case .failed(.cursorMismatch):
            effects.append(.note(.cursorMismatch(batch.from)))
            isReadingCursor = true
            effects.append(.readCursor)
        case .failed(let error):
            // The outcome may be unknown: trying again is safe, the cursor is compared.
            effects.append(.note(.applyFailed(error)))
            retryDue = now.instant.advanced(by: limits.retryInterval)
        case .transaction, .leaseGranted, .leaseRevoked, .leaseKeptAlive, .leaseTimeToLive, .leases,
            .compacted, .auth, .members, .split:
            invariant(false, "\(response) to a replication batch")
        }
    }

    private mutating func onCursor(
        _ revision: Revision, at now: ClockReading, into effects: inout [Effect]
    ) {
        if isReadingCursor {
            isReadingCursor = false
            retryDue = now.instant.advanced(by: limits.retryInterval)
            // The batch did not fit what was believed: even a lower cursor is nearer to the truth. (A
            // replica that lags only means that the next batch does not fit either.)
            if revision < cursor, !isApplying {
                cursor = revision
                forgetQueue()
                if isConnected { sayHello(at: now, into: &effects) }
            }
        }
        if revision > cursor {
            cursor = revision
            reachMarks()
        }
    }

    /// Somebody else has applied it: what waits here is kept from the cursor on, if it fits.
    private mutating func trimQueue(at now: ClockReading, into effects: inout [Effect]) {
        while let first = queue.first, first.through <= cursor { queue.removeFirst() }
        guard let first = queue.first, first.from != cursor else { return }
        forgetQueue()
        if isConnected { sayHello(at: now, into: &effects) }
    }

    // MARK: Time

    private mutating func onWake(at now: ClockReading, into effects: inout [Effect]) {
        // Nothing heard for long: the hello was lost, or the origin's sender has moved.
        if isConnected, now.instant >= silenceDue { sayHello(at: now, into: &effects) }
    }

    private mutating func setWake() {
        let retry = queue.isEmpty || isApplying ? Instant.never : retryDue
        nextWake = isConnected ? min(retry, silenceDue) : retry
    }
}
