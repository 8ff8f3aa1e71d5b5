import EtcdAPI
import Primitives

/// All watchers of a node. Synced ones are fed from the node's merged timeline as it comes; those that
/// start in the past or whose clients read too slowly catch up from the store in bounded steps
/// (`WatchHub+CatchUp`) and then join.
///
/// Invariant: everything up to `emitted` that a synced watcher asked for has been sent to it.
final class WatchHub {
    let node: any NodeAccess
    let output: any CallOutput
    let steps: LoopSteps
    let limits: FacadeLimits
    let headers: HeaderSource

    /// The revision up to which the node's timeline has come here.
    private(set) var emitted: Revision
    var synced = WatcherIndex()
    var behind = WatcherIndex()
    /// Watchers that catch up, by turns. May hold some that no longer do (`Watcher.isQueued`).
    var queue: [Watcher] = []
    var queueHead = 0
    var isCatchUpScheduled = false
    var catchUpRows = 64
    /// Stretches of history that were read lately, the last one first.
    var pages: [HistoryPage] = []
    /// Scratch of a step: who is sent to, and who was to see something but is not among them.
    var leftOut: [Watcher] = []
    private var previousRows: PreviousRows
    private var batch = EventBatch()
    private var touched: [Watcher] = []
    /// Streams whose outbox holds something, within a delivery.
    private var filled: [WatchStream] = []
    /// Streams whose progress request could not be answered at once.
    private var progressWaiters: [WatchStream] = []
    private var notifiedStreams: [WatchStream] = []
    /// Blocked below the usual mark, since memory is short: nobody but a tick lets them go on.
    private var heldBack: [WatchStream] = []

    private(set) var streamsCount = 0
    private(set) var watchersCount = 0
    private(set) var behindCount = 0
    private(set) var eventsTotal: UInt64 = 0
    private(set) var messagesTotal: UInt64 = 0
    var catchUpStepsTotal: UInt64 = 0

    init(
        node: any NodeAccess, output: any CallOutput, steps: LoopSteps, limits: FacadeLimits,
        headers: HeaderSource
    ) {
        self.node = node
        self.output = output
        self.steps = steps
        self.limits = limits
        self.headers = headers
        emitted = node.status.revision
        previousRows = PreviousRows(bytesMax: limits.previousRowsBytes)
    }

    // MARK: Streams

    func open(_ call: CallReference) -> WatchStream {
        streamsCount += 1
        return WatchStream(call: call)
    }

    func close(_ stream: WatchStream) {
        guard !stream.isClosed else { return }
        stream.isClosed = true
        streamsCount -= 1
        if !letSomeGo(of: stream) { letGoLater(of: stream) }
    }

    /// A stream may have had a million of them, and nothing may hold them all until the last: to free them takes
    /// half a second. What is sent to the rest meanwhile goes nowhere.
    private func letGoLater(of stream: WatchStream) {
        // The stream too: its watchers count on it.
        steps.later { [self, stream] in
            repeat {
                if letSomeGo(of: stream) { return }
            } while !steps.isOver
            letGoLater(of: stream)
        }
    }

    /// True: those were the last.
    private func letSomeGo(of stream: WatchStream) -> Bool {
        for id in Array(stream.watchers.keys.prefix(Self.letGoAtOnce)) {
            if let watcher = stream.watchers.removeValue(forKey: id) { move(watcher, to: .gone) }
        }
        return stream.watchers.isEmpty
    }
    private static let letGoAtOnce = 32

    func onCommand(_ command: WatchCommand, on stream: WatchStream) {
        switch command {
        case .create(let creation): create(creation, on: stream)
        case .cancel(let id): cancel(id, on: stream)
        case .progress:
            if canTellProgress(stream) {
                tellProgress(stream)
            } else if !stream.hasProgressRequest {
                stream.hasProgressRequest = true
                progressWaiters.append(stream)
            }
        case .nothing: break
        }
    }

    private func create(_ creation: WatchCreation, on stream: WatchStream) {
        if creation.startRevision < 0 { return refuse(EtcdError.compacted.text, on: stream) }
        let start = Revision(creation.startRevision)
        // The smallest key stands for none. A watch outlives its request: its range must not keep the
        // message alive.
        let first = creation.range.key.isEmpty ? Bytes([0]) : creation.range.key.compact()
        let range = KeyRange(key: first, end: creation.range.end.compact())
        if range.isEmpty { return refuse("mvcc: watcher range is empty", on: stream) }
        let id: Int64
        if creation.watchID == 0 {
            while stream.watchers[stream.nextID] != nil { stream.nextID += 1 }
            id = stream.nextID
            stream.nextID += 1
        } else if stream.watchers[creation.watchID] != nil {
            return refuse("mvcc: duplicate watch ID provided on the WatchStream", on: stream)
        } else {
            id = creation.watchID
        }
        guard watchersCount < limits.watchersMax else {
            return refuse(EtcdError.tooManyRequests.text, on: stream)
        }
        let isPast = start > .zero && start <= emitted
        let watcher = Watcher(
            creation, range: range, id: id, stream: stream,
            nextRevision: isPast ? start : max(start, emitted.next))
        stream.watchers[id] = watcher
        stream.latestStart = max(stream.latestStart, start)
        var created = WatchAnswer(watchID: id)
        created.created = true
        sendControl(created, headers.at(emitted), on: stream)
        guard !stream.isClosed else { return }
        if watcher.wantsProgress, stream.nextProgress == .never {
            stream.nextProgress = node.now.advanced(by: limits.progressInterval)
            notifiedStreams.append(stream)
        }
        if !isPast {
            move(watcher, to: .synced)
        } else if stream.isBlocked {
            move(watcher, to: .parked)
        } else {
            move(watcher, to: .catchingUp)
            scheduleCatchUp()
        }
    }

    func refuse(_ reason: String, on stream: WatchStream) {
        var refusal = WatchAnswer(watchID: -1)
        refusal.created = true
        refusal.cancelled = true
        refusal.cancelReason = reason
        sendControl(refusal, headers.at(emitted), on: stream)
    }

    private func cancel(_ id: Int64, on stream: WatchStream) {
        // As in etcd, nothing is said of an id that is not known.
        guard let watcher = stream.watchers[id] else { return }
        forget(watcher)
        var cancelled = WatchAnswer(watchID: id)
        cancelled.cancelled = true
        sendControl(cancelled, headers.at(emitted), on: stream)
        answerProgressRequests()
    }

    /// Its client may no longer see what it watches.
    func cancel(_ watcher: Watcher, reason: String) {
        let stream = watcher.stream
        forget(watcher)
        var cancelled = WatchAnswer(watchID: watcher.id)
        cancelled.cancelled = true
        cancelled.cancelReason = reason
        sendControl(cancelled, headers.at(emitted), on: stream)
        answerProgressRequests()
    }

    /// Its start (or where it had got to) is no longer in the store.
    func cancelCompacted(_ watcher: Watcher, compactRevision: Revision) {
        let stream = watcher.stream
        forget(watcher)
        // etcd leaves the header's revision out here.
        var cancelled = WatchAnswer(watchID: watcher.id)
        cancelled.cancelled = true
        cancelled.compactRevision = compactRevision.rawValue
        sendControl(cancelled, headers.at(.zero), on: stream)
    }

    private func forget(_ watcher: Watcher) {
        let stream = watcher.stream
        stream.watchers[watcher.id] = nil
        move(watcher, to: .gone)
        if watcher.startRevision == stream.latestStart { stream.isLatestStartGone = true }
    }

    private func sendControl(
        _ answer: WatchAnswer, _ header: HeaderFields, on stream: WatchStream
    ) {
        messagesTotal += 1
        output.send(ResponseCodec.watch(answer, header), to: stream.call)
        if output.bufferedBytes(of: stream.call) > limits.bufferedBytesMax {
            close(stream)
            let failure = EtcdError.tooManyRequests.failure
            output.finish(stream.call, failure.status, message: failure.text)
        }
    }

    func move(_ watcher: Watcher, to place: Watcher.Place) {
        switch watcher.place {
        case .synced: synced.remove(watcher)
        case .catchingUp: behind.remove(watcher)
        case .parked, .gone: break
        }
        count(watcher, by: -1)
        watcher.place = place
        count(watcher, by: 1)
        switch place {
        case .synced: synced.insert(watcher)
        case .catchingUp:
            behind.insert(watcher)
            if !watcher.isQueued {
                watcher.isQueued = true
                queue.append(watcher)
            }
        case .parked, .gone: break
        }
    }

    private func count(_ watcher: Watcher, by step: Int) {
        switch watcher.place {
        case .synced: watchersCount += step
        case .catchingUp, .parked:
            watchersCount += step
            behindCount += step
            watcher.stream.behindCount += step
        case .gone: break
        }
    }

    // MARK: The timeline

    func onChanges(_ changes: [RevisionChanges], through: Revision) {
        // Nothing twice: a node that starts over may repeat what it has told.
        let before = emitted
        emitted = max(emitted, through)
        if synced.isEmpty {
            previousRows.clear()
        } else {
            for change in changes where change.revision > before {
                for row in change.rows { match(row) }
            }
            deliver()
        }
        answerProgressRequests()
    }

    func onChangesLost(through: Revision) {
        let next = emitted.next
        var all: [Watcher] = []
        synced.forEach { all.append($0) }
        for watcher in all {
            watcher.nextRevision = max(watcher.nextRevision, next)
            // A start in the future stays one.
            guard watcher.nextRevision <= through else { continue }
            move(watcher, to: watcher.stream.isBlocked ? .parked : .catchingUp)
        }
        emitted = max(emitted, through)
        previousRows.clear()
        scheduleCatchUp()
        answerProgressRequests()
    }

    /// Finds the synced watchers of one new row.
    private func match(_ row: Row) {
        var needsPrevious = false
        var isMatched = false
        let index = Int32(batch.rows.count)
        synced.forEach(watching: row.key) { watcher in
            guard watcher.accepts(row) else { return }
            isMatched = true
            if watcher.wantsPrevious { needsPrevious = true }
            if watcher.hits.isEmpty { touched.append(watcher) }
            watcher.hits.append(index)
        }
        if isMatched {
            batch.append(
                row, previous: needsPrevious ? previous(of: row, cached: previousRows) : nil)
        }
        previousRows.pass(row, isWanted: needsPrevious)
    }

    /// What the key held before this change; nil if nothing, or if that is compacted (as in etcd).
    func previous(of row: Row, cached: PreviousRows) -> Row? {
        if !row.isDeletion, row.createRevision == row.modRevision { return nil }
        if let cached = cached.current(row.key) { return cached.isDeletion ? nil : cached }
        // Compacted or not readable now: the event goes without, as etcd's does.
        return try? node.row(row.key, at: row.modRevision.previous)
    }

    private func deliver() {
        guard !touched.isEmpty else { return }
        var header: (revision: Revision, bytes: [UInt8]) = (.zero, [])
        for watcher in touched {
            if watcher.stream.isBlocked {
                fallBehind(watcher, batch)
            } else if let last = watcher.hits.last {
                let revision = batch.rows[Int(last)].modRevision
                let field = batch.field(last, withPrevious: watcher.wantsPrevious)
                guard watcher.hits.count == 1, field.count <= Self.smallEvent else {
                    guard output.hasRoom(for: field.count) else {
                        // There is nowhere to put it: later, from the store.
                        hold(watcher.stream)
                        fallBehind(watcher, batch)
                        continue
                    }
                    send(to: watcher, &batch, revision: revision)
                    continue
                }
                if header.revision != revision {
                    header = (revision, ResponseCodec.header(headers.at(revision)))
                }
                gather(field, header.bytes, for: watcher)
            }
        }
        for stream in filled { empty(stream) }
        filled.removeAll(keepingCapacity: true)
        touched.removeAll(keepingCapacity: true)
        batch = EventBatch()
    }

    private static let smallEvent = 4096
    private static let outboxBytes = 64 << 10

    /// One event for one of perhaps many watchers of a stream: their responses leave as one piece.
    private func gather(_ field: Bytes, _ header: [UInt8], for watcher: Watcher) {
        let stream = watcher.stream
        if stream.outbox.isEmpty { filled.append(stream) }
        ResponseCodec.appendWatch(watcher.id, event: field, header: header, to: &stream.outbox)
        watcher.hits.removeAll(keepingCapacity: true)
        watcher.isProgressDue = false
        eventsTotal += 1
        messagesTotal += 1
        if stream.outbox.count >= Self.outboxBytes { empty(stream) }
    }

    private func empty(_ stream: WatchStream) {
        guard !stream.outbox.isEmpty else { return }
        output.sendFramed(stream.outbox, to: stream.call)
        stream.outbox = []
        blockIfFull(stream)
    }

    /// Its client does not take what it is sent: what follows is in the store.
    private func blockIfFull(_ stream: WatchStream) {
        let buffered = output.bufferedBytes(of: stream.call)
        if buffered > limits.bufferedBytesHigh {
            stream.isBlocked = true
        } else if buffered > limits.bufferedBytesPressed, !stream.isBlocked, output.isPressed {
            hold(stream)
        }
    }

    /// While memory is short.
    private func hold(_ stream: WatchStream) {
        stream.isBlocked = true
        guard !stream.isHeldBack else { return }
        stream.isHeldBack = true
        heldBack.append(stream)
    }

    private func letGo() {
        guard !heldBack.isEmpty else { return }
        let hasRoom = output.hasRoom(for: limits.catchUpBytes) && !output.isPressed
        var released: [WatchStream] = []
        heldBack.removeAll { stream in
            let isReading = output.bufferedBytes(of: stream.call) <= limits.bufferedBytesPressed
            if stream.isBlocked, !stream.isClosed {
                guard hasRoom || isReading else { return false }
                released.append(stream)
            }
            stream.isHeldBack = false
            return true
        }
        for stream in released { onWritable(stream) }
    }

    /// Its events are not sent now; the store has them.
    private func fallBehind(_ watcher: Watcher, _ batch: EventBatch) {
        guard let first = watcher.hits.first, watcher.place != .gone else { return }
        watcher.nextRevision = batch.rows[Int(first)].modRevision
        watcher.hits.removeAll()
        move(watcher, to: .parked)
    }

    /// One response with everything that the batch has for this watcher.
    func send(to watcher: Watcher, _ batch: inout EventBatch, revision: Revision) {
        let stream = watcher.stream
        let withPrevious = watcher.wantsPrevious
        empty(stream)
        let bytes = batch.bytes(of: watcher.hits, withPrevious: withPrevious)
        eventsTotal += UInt64(watcher.hits.count)
        watcher.isProgressDue = false
        let header = headers.at(revision)
        var answer = WatchAnswer(watchID: watcher.id)
        if bytes <= Self.smallEvent, !mustCut(watcher, bytes) {
            let fields = watcher.hits.map { batch.field($0, withPrevious: withPrevious) }
            messagesTotal += 1
            output.send(ResponseCodec.watch(answer, events: fields, header), to: stream.call)
        } else {
            let limit = mustCut(watcher, bytes) ? limits.fragmentBytes - envelopeBytes - 1 : .max
            let pieces = batch.body(of: watcher.hits, withPrevious: withPrevious, limit: limit) {
                output.share($0)
            }
            for (i, piece) in pieces.enumerated() {
                answer.fragment = i + 1 < pieces.count
                let head = ResponseCodec.watchHead(answer, header, rest: piece.bytes.count)
                messagesTotal += 1
                output.send(head, piece, to: stream.call)
            }
        }
        watcher.hits.removeAll(keepingCapacity: watcher.hits.count <= 16)
        blockIfFull(stream)
    }

    private func mustCut(_ watcher: Watcher, _ bytes: Int) -> Bool {
        watcher.wantsFragments && watcher.hits.count > 1 && bytes + envelopeBytes >= limits.fragmentBytes
    }

    /// What a response has at most beside its events.
    private var envelopeBytes: Int { 64 }

    // MARK: Progress

    /// Everything up to `emitted` has been sent to all watchers of the stream, and that tells something
    /// to each of them.
    private func canTellProgress(_ stream: WatchStream) -> Bool {
        stream.behindCount == 0 && !stream.isBlocked && stream.latestStart <= emitted
    }

    private func tellProgress(_ stream: WatchStream) {
        // etcd says nothing on a stream without watchers.
        guard !stream.watchers.isEmpty else { return }
        sendProgress(-1, on: stream)
    }

    private func sendProgress(_ id: Int64, on stream: WatchStream) {
        let answer = WatchAnswer(watchID: id)
        messagesTotal += 1
        output.send(ResponseCodec.watch(answer, headers.at(emitted)), to: stream.call)
    }

    func answerProgressRequests() {
        guard !progressWaiters.isEmpty else { return }
        progressWaiters.removeAll { stream in
            if stream.isClosed { return true }
            guard canTellProgress(stream) else { return false }
            stream.hasProgressRequest = false
            tellProgress(stream)
            return true
        }
    }

    /// Progress notifications of watchers that asked for them and have had no event since the last.
    func onTick(_ now: Instant) {
        letGo()
        if !queueIsEmpty { scheduleCatchUp() }
        // Not as soon as one is cancelled: there may be a hundred thousand.
        for stream in progressWaiters where stream.isLatestStartGone && stream.latestStart > emitted {
            stream.isLatestStartGone = false
            stream.latestStart = stream.watchers.values.reduce(.zero) { max($0, $1.startRevision) }
        }
        answerProgressRequests()
        guard !notifiedStreams.isEmpty else { return }
        notifiedStreams.removeAll(where: \.isClosed)
        for stream in notifiedStreams where stream.nextProgress <= now && !stream.isBlocked {
            stream.nextProgress = now.advanced(by: limits.progressInterval)
            for id in stream.watchers.keys.sorted() {
                guard let watcher = stream.watchers[id], watcher.wantsProgress else { continue }
                if watcher.isProgressDue, watcher.place == .synced, watcher.startRevision <= emitted
                {
                    sendProgress(id, on: stream)
                }
                watcher.isProgressDue = true
            }
        }
    }
}
