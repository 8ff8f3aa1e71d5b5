import CLoad
import CNghttp2
import Histogram

/// The loop: sends what is due, reads what has come, writes down how long it took. One thread; who wants
/// more load starts more processes.
final class Worker {
    static let bufferBytes = 256 << 10
    /// Unanswered requests. What is due beyond them is an error: the server is not keeping up, and a
    /// client cannot remember without bound.
    static let outstandingMax = 65_536

    let options: Options
    let epoll = load_epoll()
    let secure: Secure?
    let buffer = UnsafeMutablePointer<UInt8>.allocate(capacity: Worker.bufferBytes)
    let requests: Requests
    var tally: Tally
    private(set) var watches: Watches
    private var connections: [Connection] = []
    private var dirty: [Connection] = []
    private var open = 0
    private var closed: [(connection: Connection, since: UInt64)] = []
    private var firstFailure: String?
    private var nextConnection = 0

    private var slots: [UnsafeMutablePointer<Exchange>] = []
    private var free: [UnsafeMutablePointer<Exchange>] = []
    private var outstanding = 0

    /// Answers of this revision or older have been acknowledged.
    private var newest: Int64 = 0
    private var phase = Phase()
    private var luck: Luck
    private var nextPage = -1
    private var kinds: [Kind] = []

    /// What the loop is at.
    private struct Phase {
        var isCounted = false
        /// Nil: in a closed loop.
        var rate: Double?
        var sent = 0
        var limit = Int.max
        var ends = UInt64.max
        var next: UInt64 = 0
        var isOver = true
        /// Every key once, instead of what the mix says.
        var prepares = false
    }

    init(_ options: Options) throws(OptionError) {
        self.options = options
        secure = options.endpoints.contains { $0.isSecure } ? try Secure(options) : nil
        requests = Requests(
            keys: KeySpace(prefix: options.prefix, count: options.keys, valueBytes: options.valueBytes),
            pageLimit: options.pageLimit)
        tally = Tally()
        watches = Watches()
        luck = Luck(state: options.seed)
        for kind in Kind.allCases {
            kinds += [Kind](repeating: kind, count: options.weights[kind.index])
        }
        load_wake_promptly()
    }

    // MARK: A run

    func run() throws(OptionError) -> Report {
        let streams = options.watchers == 0 ? 0 : min(options.watchStreams, options.watchers)
        for i in 0..<options.connections + streams {
            let endpoint = options.endpoints[i % options.endpoints.count]
            let connection = Connection(index: Int32(i), endpoint: endpoint, worker: self)
            connections.append(connection)
            connection.connect()
        }
        turn(for: 10_000_000_000) { self.open == self.connections.count }
        guard open == connections.count else {
            throw OptionError("\(open) of \(connections.count) connections: \(firstFailure ?? "timed out")")
        }
        let needsKeys = options.mixReads || options.watchers > 0
        let started = load_now()
        let startedCPU = load_cpu()
        if options.onlyPrepares || (!options.skipsPreparing && needsKeys) {
            perform(Phase(isCounted: options.onlyPrepares, limit: options.keys, prepares: true))
            guard tally.errors == 0, tally.wrong == 0 else {
                throw OptionError("the keys could not be written: \(tally.texts.joined(separator: "; "))")
            }
        }
        if options.onlyPrepares {
            return Report(
                options: options, tally: tally, watches: watches, nanos: load_now() - started,
                cpuNanos: load_cpu() - startedCPU)
        }
        if streams > 0 { try startWatching(streams) }
        let rate = options.rate > 0 ? options.rate : nil
        if options.warmSeconds > 0 {
            perform(Phase(rate: rate, ends: load_now() + UInt64(options.warmSeconds * 1e9)))
        }
        turn(for: UInt64(options.timeoutSeconds * 1e9)) { self.watches.isComplete }
        watches.restart()
        tally = Tally()
        let start = load_now()
        let cpu = load_cpu()
        perform(
            Phase(
                isCounted: true, rate: rate,
                limit: options.requests > 0 ? options.requests : .max,
                ends: start + UInt64(options.seconds * 1e9)))
        if streams > 0 {
            turn(for: UInt64(options.timeoutSeconds * 1e9)) { self.watches.isComplete }
        }
        return Report(
            options: options, tally: tally, watches: watches, nanos: load_now() - start,
            cpuNanos: load_cpu() - cpu)
    }

    private func perform(_ asked: Phase) {
        phase = asked
        phase.isOver = false
        phase.next = load_now()
        if phase.rate == nil {
            for _ in 0..<options.outstanding { sendNext(due: load_now()) }
        }
        turn(for: .max) { self.phase.isOver }
        turn(for: UInt64(options.timeoutSeconds * 1e9)) { self.outstanding == 0 }
        if outstanding > 0 {
            for slot in slots where slot.pointee.connection >= 0 && slot.pointee.watch < 0 {
                fail(slot, "no answer within \(options.timeoutSeconds) s")
            }
        }
    }

    /// Turns of the loop until `isDone`, or so many nanoseconds.
    private func turn(for nanos: UInt64, until isDone: () -> Bool) {
        let start = load_now()
        var tokens = [UInt64](repeating: 0, count: 256)
        var ready = [UInt32](repeating: 0, count: 256)
        while true {
            var now = load_now()
            sendDue(&now)
            for connection in dirty where connection.isDirty { connection.flush() }
            dirty.removeAll(keepingCapacity: true)
            if isDone() || now - start >= nanos { return }
            var wait = min(100_000_000, nanos - (now - start))
            if !phase.isOver, phase.rate != nil {
                let soonest = min(phase.next, phase.ends)
                wait = min(wait, soonest > now ? soonest - now : 0)
            }
            let count = load_wait(epoll, &tokens, &ready, 256, wait)
            for i in 0..<max(0, Int(count)) { connections[Int(tokens[i])].onReady(ready[i]) }
            reconnect()
        }
    }

    // MARK: Sending

    private func sendDue(_ now: inout UInt64) {
        guard !phase.isOver else { return }
        guard let rate = phase.rate else {
            if now >= phase.ends { phase.isOver = true }
            return
        }
        let gap = 1e9 / rate
        while phase.next <= now, !phase.isOver {
            if phase.next >= phase.ends || phase.sent >= phase.limit { break }
            tally.lateness.record(max(1, now - phase.next))
            sendNext(due: phase.next)
            phase.next += UInt64(options.isPoisson ? luck.exponential(mean: gap) : gap)
            // One clock reading for several requests is enough, unless they take long.
            if phase.sent & 63 == 0 { now = load_now() }
        }
        if phase.next >= phase.ends || phase.sent >= phase.limit || now >= phase.ends { phase.isOver = true }
    }

    private func sendNext(due: UInt64) {
        guard !phase.isOver, phase.sent < phase.limit else {
            phase.isOver = true
            return
        }
        let number = phase.sent
        phase.sent += 1
        if phase.isCounted { tally.requests += 1 }
        guard outstanding < Worker.outstandingMax else {
            return tally.fail("not sent: \(Worker.outstandingMax) requests are unanswered")
        }
        guard let connection = pickConnection() else { return tally.fail("not sent: no connection") }
        let slot = takeSlot()
        let keys = requests.keys
        slot.pointee.kind = phase.prepares ? .put : kinds[luck.below(kinds.count)]
        slot.pointee.key = phase.prepares ? number : pickKey(slot.pointee.kind)
        slot.pointee.due = due
        slot.pointee.floor = newest
        slot.pointee.keyFloor = keys.acknowledged[slot.pointee.key]
        slot.pointee.isCounted = phase.isCounted
        slot.pointee.connection = connection.index
        requests.write(&slot.pointee, expectedModRevision: slot.pointee.keyFloor)
        outstanding += 1
        guard connection.submit(slot, path: slot.pointee.kind.path) else {
            return fail(slot, "not sent: the connection takes no more")
        }
        markDirty(connection)
        // Before it is sent: an answer never comes before that.
        if slot.pointee.kind == .put { watches.expect(key: slot.pointee.key) }
    }

    private func pickKey(_ kind: Kind) -> Int {
        if options.watchers > 0, options.watching == .same { return 0 }
        guard kind == .page else { return luck.below(requests.keys.count) }
        let pages =
            options.pageLimit == 0 ? 1 : (requests.keys.count + options.pageLimit - 1) / options.pageLimit
        nextPage = nextPage + 1 < pages ? nextPage + 1 : 0
        return nextPage * options.pageLimit
    }

    private func pickConnection() -> Connection? {
        for _ in 0..<options.connections {
            let connection = connections[nextConnection]
            nextConnection = nextConnection + 1 == options.connections ? 0 : nextConnection + 1
            if connection.state == .open { return connection }
        }
        return nil
    }

    func markDirty(_ connection: Connection) {
        guard !connection.isDirty else { return }
        connection.isDirty = true
        dirty.append(connection)
    }

    private func takeSlot(bodyCapacity: Int = 0) -> UnsafeMutablePointer<Exchange> {
        if bodyCapacity == 0, let slot = free.popLast() {
            slot.pointee.bodySent = 0
            slot.pointee.answerCount = 0
            slot.pointee.grpcStatus = -1
            return slot
        }
        let slot = UnsafeMutablePointer<Exchange>.allocate(capacity: 1)
        slot.initialize(to: Exchange(bodyCapacity: max(bodyCapacity, requests.bodyCapacity)))
        slots.append(slot)
        return slot
    }

    // MARK: Answers

    func onMessage(_ text: String) { tally.lastMessage = text }

    func onEnd(_ slot: UnsafeMutablePointer<Exchange>, reset: UInt32) {
        guard slot.pointee.connection >= 0 else { return }
        if slot.pointee.watch >= 0 {
            slot.pointee.connection = -1
            return tally.fail("a watch stream ended: status \(slot.pointee.grpcStatus) \(tally.lastMessage)")
        }
        guard slot.pointee.grpcStatus == 0 else {
            let status = slot.pointee.grpcStatus
            return fail(
                slot, status < 0 ? "reset, code \(reset)" : "status \(status): \(tally.lastMessage)")
        }
        let now = load_now()
        switch requests.check(slot.pointee, newest: &newest) {
        case .right:
            if slot.pointee.isCounted { tally.record(slot.pointee.kind, now - slot.pointee.due) }
        case .lost:
            if slot.pointee.isCounted {
                tally.record(slot.pointee.kind, now - slot.pointee.due)
                tally.lostUpdates += 1
            }
        case .wrong(let what):
            tally.wrong += 1
            tally.note("wrong: \(slot.pointee.kind.name): \(what)")
        }
        finish(slot)
    }

    private func fail(_ slot: UnsafeMutablePointer<Exchange>, _ what: String) {
        tally.fail(what)
        finish(slot)
    }

    private func finish(_ slot: UnsafeMutablePointer<Exchange>) {
        slot.pointee.connection = -1
        outstanding -= 1
        // An answer after the deadline still has this address: such a slot is not used again.
        if slot.pointee.grpcStatus >= 0 { free.append(slot) }
        if phase.rate == nil, !phase.isOver { sendNext(due: load_now()) }
    }

    // MARK: Connections

    func onOpen(_ connection: Connection) { open += 1 }

    func onClosed(_ connection: Connection, _ reason: String) {
        if firstFailure == nil { firstFailure = reason }
        open = max(0, open - 1)
        // nghttp2 does not report the streams of a session that is deleted.
        for slot in slots where slot.pointee.connection == connection.index {
            if slot.pointee.watch >= 0 {
                slot.pointee.connection = -1
                tally.fail("a watch stream was cut: \(reason)")
            } else {
                fail(slot, reason)
            }
        }
        closed.append((connection, load_now()))
    }

    /// A tenth of a second after a connection was lost, another one is tried.
    private func reconnect() {
        while let first = closed.first, load_now() - first.since > 100_000_000 {
            closed.removeFirst()
            first.connection.connect()
        }
    }

    // MARK: Watches

    private func startWatching(_ streams: Int) throws(OptionError) {
        watches = Watches(options, streams: streams)
        for stream in 0..<streams {
            let slot = takeSlot(bodyCapacity: watches.bodyCapacity(requests.keys))
            slot.pointee.watch = Int32(stream)
            let connection = connections[options.connections + stream]
            slot.pointee.connection = connection.index
            watches.write(&slot.pointee, requests.keys)
            guard connection.submit(slot, path: "/etcdserverpb.Watch/Watch") else {
                throw OptionError("a watch stream could not be opened")
            }
            markDirty(connection)
        }
        turn(for: 120_000_000_000) { self.watches.created >= self.options.watchers }
        guard watches.created >= options.watchers else {
            throw OptionError("only \(watches.created) of \(options.watchers) watches were created")
        }
    }

    func onWatchBytes(_ slot: UnsafeMutablePointer<Exchange>) {
        if let fault = watches.take(&slot.pointee, requests.keys) {
            tally.wrong += 1
            tally.note("wrong: watch: \(fault)")
        }
    }
}

/// Which key, which kind, how long until the next one: xorshift, the same for a seed.
struct Luck {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    mutating func below(_ count: Int) -> Int {
        count == 1 ? 0 : Int(next().multipliedFullWidth(by: UInt64(count)).high)
    }
}
