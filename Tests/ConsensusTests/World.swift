import Primitives

@testable import Consensus

/// A region of one group in simulated time: acceptors with lossy disks, a bad network, clocks of
/// different rates. Checks as it goes; stops at the first violation.
final class World {
    struct Options {
        var nodes = 3
        var lease = false
        var sabotage = Group.Sabotage.none
        /// Voters come, go and lose their disks.
        var churn = false
        var lossPercent: UInt64 = 5
        var chaosMilliseconds: UInt64 = 3000
        /// Clock rates differ by up to this, in thousandths.
        var drift: UInt64 = 9
        /// The boot clock jumps ahead (a suspended machine); not with leases, which forbid it.
        var clockSteps = true
        var limits = World.limits
        var prints = false
    }
    static var limits: Limits {
        var limits = Limits()
        limits.batchEntriesMax = 3
        limits.batchBytesMax = 200
        limits.keptBytesMax = 600
        limits.pipelineEntriesMax = 24
        limits.behindMax = 12
        limits.keptPeriod = .milliseconds(400)
        limits.snapshotPeriod = .milliseconds(300)
        return limits
    }

    enum Packet: Equatable {
        case heartbeat
        case group(GroupMessage)
    }
    enum Event: Equatable {
        case deliver(Packet, from: Int, to: Int)
        case synced(Int, boot: Int, writes: Int)
        case wake(Int)
        case notice(Int, Ballot, Slot)
        case snapshot(Int, Store, boot: Int)
        case turn(Int)
        case fault
        case propose
    }
    struct Store: Equatable {
        var position = AppliedPosition()
        var configuration: Configuration
        var lastID: UInt64 = 0
    }
    struct Disk {
        var promised = Ballot.zero
        var truncated = Slot.zero
        var decided = Slot.zero
        var accepted: [Slot: RestoredLog.Accepted] = [:]
        mutating func write(_ record: LogRecord) {
            switch record {
            case .promise(_, let ballot): promised = max(promised, ballot)
            case .accept(_, let slot, let ballot, let entry):
                accepted[slot] = .init(slot: slot, ballot: ballot, entry: entry)
            case .decided(_, let slot): decided = max(decided, slot)
            case .truncate(_, let slot):
                truncated = max(truncated, slot)
                accepted = accepted.filter { $0.key > slot }
            }
        }
        var restored: RestoredLog {
            RestoredLog(
                promised: promised, truncatedThrough: truncated,
                accepted: accepted.values.sorted { $0.slot < $1.slot }, decidedThrough: decided)
        }
    }
    struct Machine {
        var group: Group?
        var detector: FailureDetector
        var boot = 0
        var disk = Disk()
        var pending: [LogRecord] = []
        var writes = 0
        var store: Store
        var flushed: Store
        /// Its disk is lost. Whoever takes its place has another name.
        var isWiped = false
        /// The leader's view of the last proposed or applied normal entry, and where it is.
        var overlay: UInt64 = 0
        var frozenUntil: UInt64 = 0
        var clockBase: UInt64
        var clockRate: UInt64
        var wakeAt = UInt64.max
    }

    let options: Options
    var random: SplitMix
    var now: UInt64 = 0
    var machines: [Machine] = []
    var heap = EventHeap<Event>()
    var cut: Set<[Int]> = []
    var healthy = false
    var failure: String?
    var chosen: [(entry: LogEntry, skipped: Bool)] = []
    var global = AppliedPosition()
    var globalID: UInt64 = 0
    var globalConfiguration: Configuration
    var changes = 0
    /// To be proposed until somebody takes it: promises have to be asked for.
    var wish: (configuration: Configuration, until: UInt64)?
    var nextID: UInt64 = 1
    var leaderships = 0
    var leaseSeen = 0
    var snapshots = 0
    var handOvers = 0
    let id = GroupID(keyspace: .standard, partition: .directory)

    init(seed: UInt64, _ options: Options) {
        self.options = options
        random = SplitMix(seed: seed)
        globalConfiguration = Configuration(voters: (0..<options.nodes).map(Self.node))
        for _ in 0..<options.nodes { addMachine(globalConfiguration) }
        for i in 0..<options.nodes { start(i) }
        heap.push(after(0, 50), .propose)
        heap.push(after(100, 300), .fault)
    }

    private func addMachine(_ configuration: Configuration) {
        let store = Store(configuration: configuration)
        machines.append(
            Machine(
                detector: FailureDetector(
                    node: Self.node(machines.count), peers: [], limits: .init(), at: .zero),
                store: store, flushed: store,
                clockBase: 1_000_000_000 + random.below(1_000_000_000),
                clockRate: 1000 - options.drift + random.below(2 * options.drift + 1)))
    }

    static func node(_ i: Int) -> NodeID { NodeID(UInt16(i + 1)) }
    func index(_ node: NodeID) -> Int { Int(node.rawValue) - 1 }
    func after(_ low: UInt64, _ high: UInt64) -> UInt64 {
        now + (low * 1000 + random.below((high - low) * 1000 + 1)) * 1000
    }
    func clock(_ i: Int) -> Instant {
        Instant(nanoseconds: machines[i].clockBase + now / 1000 * machines[i].clockRate)
    }
    func fail(_ why: String) {
        if failure == nil { failure = "\(now / 1_000_000)ms: \(why)" }
    }

    // MARK: Running

    /// Safety phase with faults, then a healthy phase in which everything must converge.
    func run() -> String? {
        let chaosEnd = options.chaosMilliseconds * 1_000_000
        runEvents(until: chaosEnd)
        if failure != nil { return failure }
        healthy = true
        cut = []
        for i in machines.indices {
            machines[i].frozenUntil = 0
            arm(i)
            if machines[i].group == nil, !machines[i].isWiped { start(i) }
        }
        runEvents(until: chaosEnd + 3_000_000_000)
        if failure != nil { return failure }
        let leaders = machines.indices.filter {
            machines[$0].group?.isLeading == true && globalConfiguration.contains(Self.node($0))
        }
        if leaders.count != 1 { fail("\(leaders.count) leaders in a healthy group") }
        let last = Slot(UInt64(chosen.count))
        for i in machines.indices
        where !machines[i].isWiped && globalConfiguration.contains(Self.node(i))
            && machines[i].group?.decided != last
        {
            fail("node \(i + 1) at \(machines[i].group?.decided ?? .zero) of \(last)")
        }
        if options.lease, let leader = leaders.first,
            machines[leader].group?.leaseHolds(at: clock(leader)) != true
        { fail("no lease in a healthy group") }
        return failure
    }

    private func runEvents(until end: UInt64) {
        while failure == nil, let (time, event) = heap.pop() {
            if time > end {
                heap.push(time, event)
                break
            }
            now = max(now, time)
            handle(event)
            if options.lease { checkLease() }
        }
        now = max(now, end)
    }

    private func handle(_ event: Event) {
        switch event {
        case .deliver(let packet, let from, let to):
            guard machines[to].group != nil else { return }
            guard !postpone(event, for: to) else { return }
            detect(to, .heard(Self.node(from)))
            if case .group(let message) = packet {
                step(to, .message(from: Self.node(from), message))
            }
        case .synced(let i, let boot, let writes):
            guard machines[i].boot == boot, !postpone(event, for: i) else { return }
            let fresh = machines[i].pending.count - (machines[i].writes - writes)
            guard fresh > 0 else { return }
            for record in machines[i].pending.prefix(fresh) { machines[i].disk.write(record) }
            machines[i].pending.removeFirst(fresh)
            step(i, .durable(writes: UInt64(writes)))
        case .wake(let i):
            // Not one that an earlier timer has replaced.
            guard machines[i].group != nil, machines[i].wakeAt <= now else { return }
            machines[i].wakeAt = .max
            if machines[i].frozenUntil > now {
                machines[i].wakeAt = machines[i].frozenUntil
                return heap.push(machines[i].wakeAt, event)
            }
            detect(i, .wake)
            step(i, .wake)
        case .notice(let i, let ballot, let slot):
            guard machines[i].group != nil, !postpone(event, for: i) else { return }
            step(i, .commitNotice(ballot, slot))
        case .snapshot(let i, let store, let boot):
            guard machines[i].boot == boot, let group = machines[i].group,
                group.decided < store.position.slot, !group.isLeading, group.term == nil
            else { return }
            snapshots += 1
            machines[i].store = store
            machines[i].flushed = store
            step(i, .installed(store.position, store.configuration))
        case .turn: break
        case .fault:
            if !healthy {
                if options.churn, random.chance(1, in: 2) { churn() } else { injectFault() }
                heap.push(after(10, 300), .fault)
            }
        case .propose:
            proposeSomewhere()
            // The healthy phase ends in silence, so that everybody can catch up.
            if !healthy || now < (options.chaosMilliseconds + 1500) * 1_000_000 {
                heap.push(after(0, random.chance(1, in: 10) ? 300 : 15), .propose)
            }
        }
    }

    private func postpone(_ event: Event, for i: Int) -> Bool {
        guard machines[i].frozenUntil > now else { return false }
        heap.push(machines[i].frozenUntil, event)
        return true
    }

    private func proposeSomewhere() {
        for i in machines.indices where machines[i].frozenUntil <= now {
            guard var group = machines[i].group, group.isLeading else { continue }
            var effects: Effects = []
            for _ in 0...random.below(4) {
                var payload = ByteWriter()
                payload.fixed64(nextID)
                payload.fixed64(machines[i].overlay)
                guard group.propose(Bytes(payload.bytes), at: clock(i), into: &effects) != nil else {
                    break
                }
                machines[i].overlay = nextID
                nextID += 1
            }
            group.flush(at: clock(i), into: &effects)
            machines[i].group = group
            carryOut(effects, i)
            if wish != nil { proposeWish(at: i) }
            if random.chance(1, in: 3), let group = machines[i].group, let term = group.term {
                for j in machines.indices where j != i {
                    heap.push(after(1, 20), .notice(j, term, group.decided))
                }
            }
        }
    }

    private func trace(_ i: Int, _ what: @autoclosure () -> String) {
        if options.prints { print("\(now / 1000)us node \(i + 1): \(what())") }
    }

    private func detect(_ i: Int, _ input: FailureDetector.Input) {
        var found: [FailureDetector.Effect] = []
        machines[i].detector.step(input, at: clock(i), into: &found)
        for effect in found {
            switch effect {
            case .heartbeat(let to): send(.heartbeat, from: i, to: index(to))
            case .suspect(let peer): step(i, .suspect(peer))
            case .trust(let peer): step(i, .trust(peer))
            }
        }
        arm(i)
    }

    func step(_ i: Int, _ input: Input) {
        guard var group = machines[i].group else { return }
        machines[i].group = nil
        var effects: Effects = []
        group.step(input, at: clock(i), into: &effects)
        if effects.contains(where: { if case .elected = $0 { true } else { false } }) {
            group.step(.begin(payload: "begin"), at: clock(i), into: &effects)
        }
        group.flush(at: clock(i), into: &effects)
        machines[i].group = group
        trace(i, "\(group.role) \(group.promised) decided \(group.decided): \(input)\n    \(effects)")
        carryOut(effects, i)
    }

    private func carryOut(_ effects: Effects, _ i: Int) {
        var persisted = false
        // Every effect of a turn comes before its proposals' overlay is used: decided first.
        for effect in effects {
            switch effect {
            case .send(let to, let message): send(.group(message), from: i, to: index(to))
            case .persist(let record):
                machines[i].pending.append(record)
                machines[i].writes += 1
                persisted = true
            case .decided(let slot, let entry, let skipped): decide(i, slot, entry, skipped)
            case .leading:
                machines[i].overlay = machines[i].store.lastID
                leaderships += 1
            case .snapshotWanted(let peer):
                let j = index(peer)
                heap.push(after(20, 60), .snapshot(j, machines[i].store, boot: machines[j].boot))
            case .note(.handedOver): handOvers += 1
            case .configured(let configuration):
                changes += 1
                machines[i].detector.setPeers(configuration.members, at: clock(i))
                for node in configuration.members where machines[i].detector.suspects(node) {
                    step(i, .suspect(node))
                }
            case .elected, .deposed, .followed, .gone, .note: break
            }
        }
        if persisted {
            let slow: UInt64 = !healthy && random.chance(1, in: 20) ? 150 : 6
            heap.push(
                after(0, slow), .synced(i, boot: machines[i].boot, writes: machines[i].writes))
        }
        if random.chance(1, in: 40) { flushStore(i) }
        arm(i)
    }

    private func arm(_ i: Int) {
        guard let group = machines[i].group else { return }
        let wake = min(group.nextWake, machines[i].detector.nextWake)
        guard wake != .never else { return }
        let local = wake.since(clock(i)).nanoseconds
        let at = now + local / machines[i].clockRate * 1000 + 1000
        guard at < machines[i].wakeAt, machines[i].frozenUntil <= now else { return }
        machines[i].wakeAt = at
        heap.push(at, .wake(i))
    }

    private func send(_ packet: Packet, from: Int, to: Int) {
        if cut.contains([from, to]) { return }
        if !healthy && random.below(100) < options.lossPercent { return }
        let slow: UInt64 = !healthy && random.chance(1, in: 30) ? 250 : 4
        heap.push(after(0, slow), .deliver(packet, from: from, to: to))
        if !healthy && random.chance(1, in: 25) {
            heap.push(after(0, 400), .deliver(packet, from: from, to: to))
        }
    }

    // MARK: Faults

    private func injectFault() {
        let i = Int(random.below(UInt64(machines.count)))
        if options.lease, random.chance(1, in: 3) {
            // The hard case: the holder does not notice that another is elected at once.
            for j in machines.indices where j != i && machines[j].group?.isLeading == true {
                machines[j].frozenUntil = after(20, 150)
                if machines[i].frozenUntil <= now { step(i, .campaign) }
            }
            return
        }
        switch random.below(11) {
        case 0, 1: crash(i)
        case 2, 3, 4:
            for j in machines.indices where machines[j].group == nil && !machines[j].isWiped {
                start(j)
            }
        case 5: machines[i].frozenUntil = after(20, 500)
        case 6:
            for j in machines.indices where j != i {
                if random.chance(1, in: 2) { cut.insert([i, j]) }
                if random.chance(1, in: 2) { cut.insert([j, i]) }
            }
        case 7: cut = []
        case 8: if machines[i].frozenUntil <= now { step(i, .campaign) }
        case 9:
            if let leader = machines.indices.first(where: { machines[$0].group?.isLeading == true }),
                machines[leader].frozenUntil <= now
            { step(leader, .transfer(to: Self.node(i))) }
        default:
            if options.clockSteps { machines[i].clockBase += random.below(400_000_000) }
        }
    }

    /// A change of the voters, if somebody leads; sometimes of a leader that does not know that it
    /// has been deposed.
    private func churn() {
        let leaders = machines.indices.filter {
            machines[$0].group?.term != nil && machines[$0].frozenUntil <= now
        }
        guard !leaders.isEmpty else { return }
        let leader = pick(leaders)
        guard let group = machines[leader].group else { return }
        var next = group.configuration
        let wiped = next.voters.filter { machines[index($0)].isWiped }
        switch random.below(7) {
        case 0, 1:
            guard next.members.count < 6 else { return }
            addMachine(.unknown)
            start(machines.count - 1)
            next.learners.append(Self.node(machines.count - 1))
        case 2, 3, 4:
            guard !next.learners.isEmpty else { return }
            let chosen = next.learners.remove(at: Int(random.below(UInt64(next.learners.count))))
            let place = wiped.first ?? pick(next.voters)
            if next.voters.count >= 3, random.chance(1, in: 2) || next.voters.count >= 5 {
                next.voters.removeAll { $0 == place }
            }
            next.voters.append(chosen)
        case 5:
            let place = wiped.first ?? pick(next.voters)
            guard next.voters.count > 1 else { return }
            next.voters.removeAll { $0 == place }
        default:
            if let place = next.learners.last, random.chance(1, in: 4) {
                next.learners.removeAll { $0 == place }
            }
            // A disk dies only while the others can do without it, whatever is under way.
            let pending = machines.indices.filter { machines[$0].isWiped }
            guard !globalConfiguration.voters.contains(where: { pending.contains(index($0)) }),
                globalConfiguration.voters.count >= 3, wish == nil, !isChangeUnderWay
            else { return }
            let victim = index(pick(globalConfiguration.voters))
            if machines[victim].group?.isLeading != true { wipe(victim) }
            return
        }
        wish = (next, after(0, 600))
        proposeWish(at: leader)
    }

    private func proposeWish(at i: Int) {
        guard let (next, until) = wish, let number = machines[i].group?.configuration.number,
            number <= next.number, self.now < until
        else {
            wish = nil
            return
        }
        var effects: Effects = []
        let now = clock(i)
        if machines[i].group?.propose(next, at: now, into: &effects) == true { wish = nil }
        machines[i].group?.flush(at: now, into: &effects)
        carryOut(effects, i)
    }

    private func pick<T>(_ items: [T]) -> T { items[Int(random.below(UInt64(items.count)))] }

    private var isChangeUnderWay: Bool {
        func isNewer(_ entry: LogEntry) -> Bool {
            guard entry.kind == .configuration,
                let found = try? Configuration(decoding: entry.payload)
            else { return false }
            return found.number > globalConfiguration.number
        }
        return machines.contains { machine in
            machine.disk.accepted.values.contains { isNewer($0.entry) }
                || machine.pending.contains {
                    if case .accept(_, _, _, let entry) = $0 { isNewer(entry) } else { false }
                }
        }
    }

    private func wipe(_ i: Int) {
        crash(i)
        machines[i].boot += 1
        machines[i].disk = Disk()
        machines[i].isWiped = true
    }

    private func crash(_ i: Int) {
        guard machines[i].group != nil else { return }
        // The log is sequential: of what was not yet acknowledged, any prefix may have survived.
        let survives = Int(random.below(UInt64(machines[i].pending.count) + 1))
        for record in machines[i].pending.prefix(survives) { machines[i].disk.write(record) }
        machines[i].pending = []
        machines[i].group = nil
        machines[i].boot += 1
        machines[i].store = machines[i].flushed
    }

    func start(_ i: Int) {
        machines[i].boot += 1
        machines[i].writes = 0
        machines[i].pending = []
        machines[i].frozenUntil = 0
        machines[i].store = machines[i].flushed
        let configuration = machines[i].store.configuration
        let others = machines.indices.map(Self.node)
        machines[i].detector = FailureDetector(
            node: Self.node(i), peers: others, limits: .init(), at: clock(i))
        var group = Group(
            id: id, node: Self.node(i), configuration: configuration,
            restored: machines[i].disk.restored, applied: machines[i].store.position,
            lease: options.lease ? LeaseLimits() : nil, limits: options.limits, at: clock(i))
        group.verify = options.sabotage == .none
        #if DEBUG
            group.sabotage = options.sabotage
        #endif
        machines[i].group = group
        machines[i].wakeAt = .max
        arm(i)
    }

    /// Never ahead of the log: everything that was handed to it must be durable.
    private func flushStore(_ i: Int) {
        guard machines[i].pending.isEmpty, machines[i].group != nil else { return }
        machines[i].flushed = machines[i].store
        step(i, .truncate(through: machines[i].store.position.slot))
    }

    // MARK: Checks

    private func decide(_ i: Int, _ slot: Slot, _ entry: LogEntry, _ skipped: Bool) {
        if slot != machines[i].store.position.slot.next {
            return fail("node \(i + 1) decided \(slot) after \(machines[i].store.position.slot)")
        }
        if slot.rawValue > UInt64(chosen.count) {
            checkChosen(slot, entry, skipped)
            chosen.append((entry, skipped))
        }
        let known = chosen[Int(slot.rawValue) - 1]
        if known.entry != entry || known.skipped != skipped {
            return fail("node \(i + 1), slot \(slot): \(entry) is not \(known)")
        }
        machines[i].store.position.slot = slot
        guard !skipped else { return }
        machines[i].store.position.term = entry.term
        if entry.kind != .configuration { machines[i].store.position.number = entry.number }
        if entry.kind == .normal { machines[i].store.lastID = Self.ids(entry).own }
        if entry.kind == .configuration, let next = try? Configuration(decoding: entry.payload) {
            machines[i].store.configuration = next
        }
    }

    private func checkChosen(_ slot: Slot, _ entry: LogEntry, _ skipped: Bool) {
        let holders = globalConfiguration.voters.count { node in
            let machine = machines[index(node)]
            return machine.isWiped || machine.flushed.position.slot >= slot
                || machine.disk.truncated >= slot || machine.disk.accepted[slot]?.entry == entry
        }
        if holders <= globalConfiguration.voters.count / 2 { fail("slot \(slot) durable on \(holders) nodes only") }
        guard !skipped else { return }
        if entry.term < global.term { fail("slot \(slot): \(entry.term) after \(global.term)") }
        if entry.number > 0, entry.term != global.term || entry.number != global.number + 1 {
            fail("slot \(slot): number \(entry.number) of \(entry.term) after \(global)")
        }
        if entry.kind == .configuration, entry.term != global.term {
            fail("slot \(slot): a configuration of \(entry.term) after \(global)")
        }
        global = AppliedPosition(
            slot: slot, term: entry.term,
            number: entry.kind == .configuration ? global.number : entry.number)
        if entry.kind == .normal {
            let ids = Self.ids(entry)
            if ids.previous != globalID {
                fail("slot \(slot): evaluated on \(ids.previous), not on \(globalID)")
            }
            globalID = ids.own
        }
        if entry.kind == .configuration {
            guard let next = try? Configuration(decoding: entry.payload),
                next.number == globalConfiguration.number + 1
            else { return fail("slot \(slot): a configuration out of order") }
            globalConfiguration = next
        }
    }

    static func ids(_ entry: LogEntry) -> (own: UInt64, previous: UInt64) {
        var reader = ByteReader(entry.payload)
        return ((try? reader.fixed64()) ?? 0, (try? reader.fixed64()) ?? 0)
    }

    private func checkLease() {
        let holders = machines.indices.filter { machines[$0].group?.leaseHolds(at: clock($0)) == true }
        leaseSeen += holders.count
        if holders.count > 1 { fail("nodes \(holders.map { $0 + 1 }) all hold the lease") }
    }
}

struct EventHeap<Value> {
    private var items: [(time: UInt64, order: UInt64, value: Value)] = []
    private var pushed: UInt64 = 0

    mutating func push(_ time: UInt64, _ value: Value) {
        pushed += 1
        items.append((time, pushed, value))
        var i = items.count - 1
        while i > 0, precedes(i, (i - 1) / 2) {
            items.swapAt(i, (i - 1) / 2)
            i = (i - 1) / 2
        }
    }
    mutating func pop() -> (UInt64, Value)? {
        guard let first = items.first else { return nil }
        let last = items.removeLast()
        if !items.isEmpty {
            items[0] = last
            var i = 0
            while true {
                var least = i
                for child in [2 * i + 1, 2 * i + 2] where child < items.count {
                    if precedes(child, least) { least = child }
                }
                if least == i { break }
                items.swapAt(i, least)
                i = least
            }
        }
        return (first.time, first.value)
    }
    private func precedes(_ a: Int, _ b: Int) -> Bool {
        (items[a].time, items[a].order) < (items[b].time, items[b].order)
    }
}
