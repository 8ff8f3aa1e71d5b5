import GeoReplication
import Primitives

/// A region as its links see it: a timeline, the newest versions, and cursors. Everything in it is
/// decided at once; what a node adds is tested in simulation.
struct TinyRegion {
    let id: RegionID
    private(set) var timeline: [RevisionChanges] = []
    private(set) var newest: [Bytes: Row] = [:]
    private(set) var cursors: [RegionID: Revision] = [:]
    private(set) var feed: [ConflictRecord] = []
    /// Origins applied, to see that none is applied again after a newer one of its region.
    private(set) var appliedCount = 0
    private var clock: UInt64 = 0

    init(id: RegionID) { self.id = id }

    var frontier: Revision { Revision(Int64(timeline.count) + 1) }

    var visible: [Bytes: Bytes] {
        var values: [Bytes: Bytes] = [:]
        for (key, row) in newest where !row.isDeletion { values[key] = row.value }
        return values
    }

    mutating func write(_ values: [(key: Bytes, value: Bytes?)], wall: UInt64) {
        let above = values.compactMap { newest[$0.key]?.origin.stamp.ticks }.max() ?? 0
        clock = max(clock + 1, wall, above + 1)
        let revision = frontier.next
        let origin = Origin(
            region: id, revision: revision, stamp: Stamp(ticks: clock, region: id))
        let rows = values.enumerated().map { i, change in
            Row(
                key: change.key, value: change.value ?? .empty, createRevision: revision,
                modRevision: revision, version: change.value == nil ? 0 : 1, lease: .none,
                sub: UInt32(i), origin: origin)
        }
        commit(rows)
    }

    private mutating func commit(_ rows: [Row]) {
        timeline.append(RevisionChanges(revision: frontier.next, rows: rows))
        for row in rows { newest[row.key] = row }
    }

    mutating func replicate(_ batch: ReplicationBatch) -> Response {
        guard batch.from == cursors[batch.origin] ?? .zero else { return .failed(.cursorMismatch) }
        let held = batch.changes.compactMap { newest[$0.key] }
        let resolution = ConflictResolver.resolve(batch, held: held)
        for bytes in resolution.conflicts {
            if let record = try? ConflictRecord(decoding: bytes) { feed.append(record) }
        }
        let revision = frontier.next
        commit(
            resolution.rows.map { row in
                var row = row
                row.modRevision = revision
                if row.createRevision == Revision(.max) { row.createRevision = revision }
                return row
            })
        cursors[batch.origin] = batch.through
        appliedCount += batch.changes.count
        return .replicated(cursor: batch.through)
    }

    func changes(after: Revision, through: Revision, maxRows: Int) -> (Revision, [RevisionChanges]) {
        var found: [RevisionChanges] = []
        var rows = 0
        for change in timeline where change.revision > after && change.revision <= through {
            found.append(change)
            rows += change.rows.count
            if rows >= maxRows { return (change.revision, found) }
        }
        return (through, found)
    }
}

/// Regions, the links between each two, and a network that loses, doubles and reorders.
struct TinyWorld {
    struct Faults {
        var loss: UInt64 = 0
        var duplication: UInt64 = 0
        var reordering: UInt64 = 0
        var resets: UInt64 = 0
    }
    struct Message {
        let from: RegionID
        let to: RegionID
        let origin: RegionID
        let bytes: Bytes
        let due: UInt64
    }
    struct Pair: Hashable {
        let origin: RegionID
        let destination: RegionID
    }

    var random: SplitMix
    var regions: [RegionID: TinyRegion] = [:]
    var senders: [Pair: LinkSender] = [:]
    var receivers: [Pair: LinkReceiver] = [:]
    var network: [Message] = []
    var milliseconds: UInt64 = 1_000
    var faults: Faults
    var skew: [RegionID: UInt64] = [:]
    let pairs: [Pair]
    let limits: LinkLimits

    init(regions count: UInt16, seed: UInt64, faults: Faults, limits: LinkLimits = .init()) {
        random = SplitMix(seed: seed)
        self.faults = faults
        self.limits = limits
        var pairs: [Pair] = []
        for a in 1...count {
            regions[RegionID(a)] = TinyRegion(id: RegionID(a))
            skew[RegionID(a)] = random.below(400)
            for b in 1...count where a != b {
                pairs.append(Pair(origin: RegionID(a), destination: RegionID(b)))
            }
        }
        self.pairs = pairs
        for pair in pairs { connect(pair) }
    }

    func reading(_ region: RegionID) -> ClockReading {
        ClockReading(
            instant: Instant(nanoseconds: milliseconds * 1_000_000),
            wallMicroseconds: (milliseconds + (skew[region] ?? 0)) * 1_000)
    }

    /// Both ends new: a link after a restart of both.
    mutating func connect(_ pair: Pair) {
        network.removeAll {
            $0.origin == pair.origin
                && ($0.to == pair.destination || $0.from == pair.destination)
        }
        senders[pair] = LinkSender(
            region: pair.origin, destination: pair.destination, limits: limits)
        receivers[pair] = LinkReceiver(
            region: pair.destination, origin: pair.origin,
            cursor: regions[pair.destination]?.cursors[pair.origin] ?? .zero, limits: limits)
        sender(pair, .connected)
        receiver(pair, .connected)
    }

    mutating func sender(_ pair: Pair, _ input: LinkSender.Input) {
        var effects: [LinkSender.Effect] = []
        let now = reading(pair.origin)
        senders[pair]?.step(input, at: now, into: &effects)
        for effect in effects {
            switch effect {
            case .send(let message): post(message, from: pair.origin, to: pair.destination)
            case .readChanges(let after, let through, let maxRows):
                guard let region = regions[pair.origin] else { continue }
                let (reached, changes) = region.changes(
                    after: after, through: through, maxRows: maxRows)
                sender(pair, .changes(after: after, through: reached, changes))
            case .note: break
            }
        }
    }

    mutating func receiver(_ pair: Pair, _ input: LinkReceiver.Input) {
        var effects: [LinkReceiver.Effect] = []
        let now = reading(pair.destination)
        receivers[pair]?.step(input, at: now, into: &effects)
        for effect in effects {
            switch effect {
            case .send(let message): post(message, from: pair.destination, to: pair.origin)
            case .apply(let batch):
                // Sometimes the outcome stays unknown although it was applied.
                var response = regions[pair.destination]?.replicate(batch) ?? .failed(.stopped)
                if random.chance(faults.loss, in: 200) { response = .failed(.timedOut) }
                receiver(pair, .applied(response))
            case .readCursor:
                receiver(pair, .cursor(regions[pair.destination]?.cursors[pair.origin] ?? .zero))
            case .note: break
            }
        }
    }

    mutating func post(_ message: LinkMessage, from: RegionID, to: RegionID) {
        if random.chance(faults.loss, in: 100) { return }
        let delay = 20 + (random.chance(faults.reordering, in: 100) ? random.below(100) : 0)
        let bytes = message.encoded()
        func packet(due: UInt64) -> Message {
            Message(from: from, to: to, origin: message.origin, bytes: bytes, due: due)
        }
        network.append(packet(due: milliseconds + delay))
        if random.chance(faults.duplication, in: 100) {
            network.append(packet(due: milliseconds + random.below(300)))
        }
    }

    mutating func tick() {
        milliseconds += 5
        if random.chance(faults.resets, in: 1_000) {
            connect(pairs[Int(random.below(UInt64(pairs.count)))])
        }
        let due = network.filter { $0.due <= milliseconds }
        network.removeAll { $0.due <= milliseconds }
        for message in due {
            guard let decoded = try? LinkMessage(decoding: message.bytes) else { continue }
            let pair =
                decoded.origin == message.from
                ? Pair(origin: message.from, destination: message.to)
                : Pair(origin: message.to, destination: message.from)
            if decoded.origin == message.from {
                receiver(pair, .message(decoded))
            } else {
                sender(pair, .message(decoded))
            }
        }
        for pair in pairs {
            if let region = regions[pair.origin] { sender(pair, .frontier(region.frontier)) }
            let now = reading(pair.origin).instant
            if let wake = senders[pair]?.nextWake, wake <= now { sender(pair, .wake) }
            if let wake = receivers[pair]?.nextWake, wake <= now { receiver(pair, .wake) }
        }
    }

    var isQuiet: Bool {
        pairs.allSatisfy { pair in
            guard let origin = regions[pair.origin], let destination = regions[pair.destination]
            else { return false }
            let own = origin.timeline.last { $0.rows.contains { $0.origin.region == pair.origin } }
            return (destination.cursors[pair.origin] ?? .zero) >= own?.revision ?? .zero
        }
    }

    mutating func writeSomewhere() {
        let id = RegionID(UInt16(random.below(UInt64(regions.count))) + 1)
        var values: [(key: Bytes, value: Bytes?)] = []
        for _ in 0...random.below(3) {
            let key = Bytes("k\(random.below(8))")
            if values.contains(where: { $0.key == key }) { continue }
            values.append((key, random.chance(1, in: 5) ? nil : Bytes("v\(random.below(1 << 40))")))
        }
        let wall = reading(id).wallMicroseconds
        regions[id]?.write(values, wall: wall)
    }
}
