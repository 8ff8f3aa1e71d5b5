package import Primitives

/// Ships this region's timeline to one other region (geo.md, "What is shipped"). Runs on the node
/// that has the region's sequencer; a successor elsewhere begins from the destination's cursor.
///
/// Nothing that was sent is kept: what must be sent again is read again. Memory is bounded by one
/// answer of the store, which waits here while the window is full, and the window's bookkeeping,
/// however long the link is down.
package struct LinkSender: Sendable {
    package enum Input: Equatable, Sendable {
        /// The link is up; the destination says hello with its cursor.
        case connected
        case disconnected
        /// `hello`, `acknowledge` or `resume`; others are ignored.
        case message(LinkMessage)
        /// Answer to `readChanges`: whole revisions of `(after, through]`, in order.
        case changes(after: Revision, through: Revision, [RevisionChanges])
        /// Answer to `readChanges`: the store no longer has that history.
        case compacted(after: Revision)
        case frontier(Revision)
        /// This region has, from its own revision `at` on, applied other regions' streams this far.
        case seen([ReplicationBatch.Cursor], at: Revision)
        case wake
    }

    package enum Effect: Equatable, Sendable {
        case send(LinkMessage)
        /// At most one is unanswered.
        case readChanges(after: Revision, through: Revision, maxRows: Int)
        case note(LinkEvent)
    }

    package let region: RegionID
    package let destination: RegionID
    package let incarnation: UInt64
    package let limits: LinkLimits

    /// The destination's durable cursor, as far as it has told.
    package private(set) var acknowledged = Revision.zero
    package private(set) var frontier = Revision.zero
    /// Its hello has arrived since the link came up.
    package private(set) var isReady = false
    package private(set) var nextWake = Instant.never
    package private(set) var bytesInFlight = 0

    private var isConnected = false
    /// End of the last batch sent: the next one's `from`.
    private var sent = Revision.zero
    /// Own changes through here are sent; `sent < position` over a stretch without any.
    private var position = Revision.zero
    private var readingAfter: Revision?
    /// Read and not yet looked at, of `(position, unsentThrough]`. Where regions write by turns every
    /// revision is a batch of its own, so one answer may hold many windows.
    private var unsent: [RevisionChanges] = []
    private var nextUnsent = 0
    private var unsentThrough: Revision?
    private var inFlight: [Flight] = []
    private var vector = SeenVector()
    private var idleDue = Instant.zero
    private var resendDue = Instant.never
    private var needsCopy = false

    private struct Flight: Sendable {
        let through: Revision
        let bytes: Int
    }

    package init(
        region: RegionID, destination: RegionID, incarnation: UInt64 = 1, limits: LinkLimits = .init()
    ) {
        self.region = region
        self.destination = destination
        self.incarnation = incarnation
        self.limits = limits
    }

    /// Revisions of this region that the destination is not known to have.
    package var lagRevisions: Int64 { max(0, frontier.rawValue - max(acknowledged, settled).rawValue) }

    /// With nothing in flight a stretch without own changes is no lag.
    private var settled: Revision { inFlight.isEmpty && sent == acknowledged ? position : .zero }

    package mutating func step(_ input: Input, at now: ClockReading, into effects: inout [Effect]) {
        switch input {
        case .connected:
            isConnected = true
            isReady = false
        case .disconnected:
            isConnected = false
            isReady = false
            forgetFlights()
        case .message(let message): onMessage(message, at: now, into: &effects)
        case .changes(let after, let through, let changes):
            onChanges(after: after, through: through, changes)
        case .compacted(let after): onCompacted(after: after, into: &effects)
        case .frontier(let revision): frontier = max(frontier, revision)
        case .seen(let cursors, let at):
            for cursor in cursors where cursor.region != region { vector.note(cursor, at: at) }
        case .wake: onWake(at: now, into: &effects)
        }
        shipOn(at: now, into: &effects)
        readOn(into: &effects)
        setWake()
        checkInvariants()
    }

    // MARK: From the destination

    private mutating func onMessage(
        _ message: LinkMessage, at now: ClockReading, into effects: inout [Effect]
    ) {
        guard message.origin == region else { return }
        switch message {
        case .hello(_, let cursor, let theirs):
            guard cursor == .zero || theirs == incarnation else {
                effects.append(.note(.foreignIncarnation(theirs)))
                return
            }
            let isNews = !isReady || cursor != acknowledged || cursor != sent
            isConnected = true
            isReady = true
            needsCopy = false
            // Said again on a quiet link: what has been read since need not be read again.
            if isNews { rewind(to: cursor) }
            idleDue = now.instant
        case .resume(_, let cursor):
            guard isReady else { return }
            effects.append(.note(.resent(after: cursor)))
            rewind(to: cursor)
        case .acknowledge(_, let through):
            guard isReady, through > acknowledged, through <= sent else { return }
            acknowledged = through
            vector.settle(through: through)
            while let first = inFlight.first, first.through <= through {
                bytesInFlight -= first.bytes
                inFlight.removeFirst()
            }
            resendDue =
                inFlight.isEmpty ? .never : now.instant.advanced(by: limits.resendInterval)
        case .batch, .idle: return
        }
    }

    /// The destination has everything through `cursor` and nothing else.
    private mutating func rewind(to cursor: Revision) {
        acknowledged = cursor
        sent = cursor
        position = cursor
        vector.forget(above: cursor)
        forgetFlights()
    }

    private mutating func forgetFlights() {
        inFlight.removeAll()
        bytesInFlight = 0
        readingAfter = nil
        unsent = []
        nextUnsent = 0
        unsentThrough = nil
        resendDue = .never
    }

    // MARK: From this region

    private mutating func readOn(into effects: inout [Effect]) {
        guard isReady, !needsCopy, readingAfter == nil, unsentThrough == nil, position < frontier,
            isWindowOpen
        else { return }
        readingAfter = position
        effects.append(
            .readChanges(after: position, through: frontier, maxRows: limits.readRows))
    }

    private mutating func onCompacted(after: Revision, into effects: inout [Effect]) {
        guard after == readingAfter else { return }
        readingAfter = nil
        needsCopy = true
        effects.append(.note(.compactedPast(after)))
    }

    private var isWindowOpen: Bool {
        inFlight.count < limits.windowBatches && bytesInFlight < limits.windowBytes
    }

    private mutating func onChanges(
        after: Revision, through: Revision, _ changes: [RevisionChanges]
    ) {
        guard isReady, after == readingAfter, after == position else { return }
        readingAfter = nil
        invariant(through >= after, "\(through) after \(after)")
        unsent = changes
        nextUnsent = 0
        unsentThrough = through
    }

    /// Sends of what was read as much as the window has room for.
    private mutating func shipOn(at now: ClockReading, into effects: inout [Effect]) {
        guard let through = unsentThrough, isWindowOpen else { return }
        var batch = Assembly()
        while nextUnsent < unsent.count {
            let change = unsent[nextUnsent]
            invariant(change.revision > position && change.revision <= through, "\(change.revision)")
            // Other regions' rows are the sign that their stream was applied here, at this revision.
            for row in change.rows where row.origin.region != region {
                vector.note(
                    .init(region: row.origin.region, revision: row.origin.revision),
                    at: change.revision)
            }
            // Loop prevention: a region ships what it wrote itself.
            let own = change.rows.filter { $0.origin.region == region }
            let bytes = own.reduce(0) { $0 + Self.size($1) }
            // A batch has one vector, and what was written before had not seen this (G4).
            if vector.changes(in: position, through: change.revision)
                || !own.isEmpty && !batch.hasRoom(for: own.count, bytes: bytes, within: limits) {
                ship(&batch, at: now, into: &effects)
                guard isWindowOpen else { return }
            }
            nextUnsent += 1
            position = change.revision
            if !own.isEmpty { batch.add(own, bytes: bytes, through: change.revision) }
        }
        ship(&batch, at: now, into: &effects)
        position = through
        unsent = []
        nextUnsent = 0
        unsentThrough = nil
        if position.rawValue - sent.rawValue >= limits.emptyStretch {
            batch.through = position
            ship(&batch, at: now, into: &effects)
        }
    }

    private static func size(_ row: Row) -> Int { row.key.count + row.value.count + 48 }

    private mutating func ship(
        _ assembly: inout Assembly, at now: ClockReading, into effects: inout [Effect]
    ) {
        guard let through = assembly.through else { return }
        let batch = ReplicationBatch(
            origin: region, from: sent, through: through, seen: vector.asOf(position),
            changes: assembly.changes())
        inFlight.append(Flight(through: through, bytes: assembly.bytes))
        bytesInFlight += assembly.bytes
        sent = through
        if resendDue == .never { resendDue = now.instant.advanced(by: limits.resendInterval) }
        idleDue = now.instant.advanced(by: limits.idleInterval)
        effects.append(
            .send(.batch(batch, frontier: frontier, wallMicroseconds: now.wallMicroseconds)))
        assembly = Assembly()
    }

    // MARK: Time

    private mutating func onWake(at now: ClockReading, into effects: inout [Effect]) {
        guard isReady else { return }
        if now.instant >= resendDue {
            effects.append(.note(.resent(after: acknowledged)))
            rewind(to: acknowledged)
        }
        if now.instant >= idleDue {
            idleDue = now.instant.advanced(by: limits.idleInterval)
            effects.append(
                .send(
                    .idle(
                        origin: region, sent: sent, frontier: position,
                        wallMicroseconds: now.wallMicroseconds)))
        }
    }

    private mutating func setWake() {
        nextWake = isReady ? min(idleDue, resendDue) : .never
    }

    private func checkInvariants() {
        invariant(acknowledged <= sent && sent <= position, "\(acknowledged) \(sent) \(position)")
        invariant(bytesInFlight >= 0, "\(bytesInFlight)")
        // The destination's queue holds a window; one batch more may tell of an empty stretch.
        invariant(inFlight.count <= limits.windowBatches + 1, "\(inFlight.count) in flight")
        invariant(inFlight.last.map { $0.through == sent } ?? true, "\(sent)")
    }
}

/// How far this region had applied the others, as of each of its own revisions above what the
/// destination has acknowledged (protocol-rules.md G3, G4). Where it is not known it tells too little,
/// never too much: a change that claims to have seen less only makes the feed longer.
struct SeenVector: Sendable {
    private var base: [ReplicationBatch.Cursor] = []
    private var baseAt = Revision.zero
    /// In order of `at`.
    private var steps: [(at: Revision, cursor: ReplicationBatch.Cursor)] = []
    private static let stepsMax = 1_024

    mutating func note(_ cursor: ReplicationBatch.Cursor, at: Revision) {
        if at <= baseAt { return Self.raise(&base, cursor) }
        let known = steps.contains {
            $0.at <= at && $0.cursor.region == cursor.region && $0.cursor.revision >= cursor.revision
        }
        if known { return }
        let place = steps.lastIndex { $0.at <= at }.map { $0 + 1 } ?? 0
        steps.insert((at, cursor), at: place)
        if steps.count > Self.stepsMax {
            // Two steps become one at the later place.
            let first = steps.removeFirst()
            if steps[0].cursor.region != first.cursor.region {
                steps.insert((steps[0].at, first.cursor), at: 0)
                steps.remove(at: 1)
            }
        }
    }

    func changes(in after: Revision, through: Revision) -> Bool {
        steps.contains { after < $0.at && $0.at <= through }
    }

    func asOf(_ revision: Revision) -> [ReplicationBatch.Cursor] {
        var vector = base
        for step in steps where step.at <= revision { Self.raise(&vector, step.cursor) }
        return vector
    }

    mutating func settle(through: Revision) {
        guard through > baseAt else { return }
        base = asOf(through)
        baseAt = through
        steps.removeAll { $0.at <= through }
    }

    /// The stream begins anew after `cursor`.
    mutating func forget(above cursor: Revision) {
        if cursor < baseAt { base.removeAll() }
        if cursor > baseAt { settle(through: cursor) }
        baseAt = cursor
    }

    private static func raise(
        _ vector: inout [ReplicationBatch.Cursor], _ cursor: ReplicationBatch.Cursor
    ) {
        let at = vector.firstIndex { $0.region >= cursor.region } ?? vector.count
        if at < vector.count, vector[at].region == cursor.region {
            if vector[at].revision < cursor.revision { vector[at] = cursor }
        } else {
            vector.insert(cursor, at: at)
        }
    }
}

/// A batch being filled: the last change of a key stands for all (protocol-rules.md G10).
private struct Assembly {
    private var rows: [Row?] = []
    private var placeOfKey: [Bytes: Int] = [:]
    private(set) var bytes = 0
    var through: Revision?

    var keys: Int { placeOfKey.count }

    /// A single revision is never torn: the first one always fits.
    func hasRoom(for more: Int, bytes moreBytes: Int, within limits: LinkLimits) -> Bool {
        keys == 0 || keys + more <= limits.batchKeys && bytes + moreBytes <= limits.batchBytes
    }

    mutating func add(_ own: [Row], bytes: Int, through: Revision) {
        for row in own {
            if let earlier = placeOfKey[row.key] { rows[earlier] = nil }
            placeOfKey[row.key] = rows.count
            rows.append(row)
        }
        self.bytes += bytes
        self.through = through
    }

    func changes() -> [Row] { rows.compactMap { $0 } }
}
