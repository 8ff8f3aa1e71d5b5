import GeoReplication
import Primitives
import Testing

@Suite struct LinkTests {
    @Test(arguments: UInt64(1)...60)
    func `regions converge over links that lose, double, reorder and break`(seed: UInt64) {
        var limits = LinkLimits()
        limits.batchKeys = 3
        limits.windowBatches = 4
        limits.readRows = 5
        limits.resendInterval = .milliseconds(400)
        var world = TinyWorld(
            regions: UInt16(2 + seed % 2), seed: seed,
            faults: .init(loss: 10, duplication: 10, reordering: 20, resets: 20), limits: limits)
        for _ in 0..<600 {
            if world.random.chance(1, in: 4) { world.writeSomewhere() }
            world.tick()
        }
        world.faults = .init()
        var ticks = 0
        while !world.isQuiet, ticks < 4_000 {
            world.tick()
            ticks += 1
        }
        #expect(world.isQuiet, "seed \(seed)")
        let values = world.regions.values.map(\.visible)
        #expect(values.allSatisfy { $0 == values[0] }, "seed \(seed)")
        // Origins too: the same version, not just an equal value.
        let versions = world.regions.values.map { $0.newest.mapValues(\.origin) }
        #expect(versions.allSatisfy { $0 == versions[0] }, "seed \(seed)")
    }

    @Test func `two quiet regions leave each other alone`() {
        var world = TinyWorld(regions: 2, seed: 1, faults: .init())
        for _ in 0..<50 { world.writeSomewhere() }
        for _ in 0..<2_000 { world.tick() }
        let before = world.regions.values.map(\.frontier)
        for _ in 0..<2_000 { world.tick() }
        #expect(world.regions.values.map(\.frontier) == before)
    }

    @Test func `writes that saw each other are no conflicts`() {
        var world = TinyWorld(regions: 2, seed: 3, faults: .init())
        for turn in 0..<20 {
            let id = RegionID(UInt16(turn % 2) + 1)
            let wall = world.reading(id).wallMicroseconds
            world.regions[id]?.write([("k", Bytes("\(turn)"))], wall: wall)
            for _ in 0..<40 { world.tick() }
        }
        #expect(world.regions.values.allSatisfy { $0.feed.isEmpty })
        #expect(world.regions.values.allSatisfy { $0.visible == ["k": "19"] })
    }

    @Test func `concurrent writes leave the loser in both feeds`() {
        var world = TinyWorld(regions: 2, seed: 4, faults: .init())
        world.regions[RegionID(1)]?.write([("k", "first")], wall: 2_000_000)
        world.regions[RegionID(2)]?.write([("k", "second")], wall: 2_000_100)
        for _ in 0..<100 { world.tick() }
        for region in world.regions.values {
            #expect(region.visible == ["k": "second"])
            #expect(region.feed.map(\.loser.value) == ["first"])
        }
    }

    @Test func `a revision is never torn, however large`() {
        var world = TinyWorld(regions: 2, seed: 5, faults: .init())
        let values = (0..<1_200).map { (key: Bytes("k\($0)"), value: Bytes?("v")) }
        world.regions[RegionID(1)]?.write(values, wall: 2_000_000)
        for _ in 0..<100 { world.tick() }
        #expect(world.regions[RegionID(2)]?.timeline.map(\.rows.count) == [1_200])
    }

    @Test func `lag grows while the link is cut and falls to the round trip after`() {
        var world = TinyWorld(regions: 2, seed: 6, faults: .init())
        let pair = TinyWorld.Pair(origin: RegionID(1), destination: RegionID(2))
        world.regions[RegionID(1)]?.write([("k", "v")], wall: 2_000_000)
        for _ in 0..<100 { world.tick() }
        func lag() -> (revisions: Int64, microseconds: UInt64)? {
            world.receivers[pair]?.lag(
                wallMicroseconds: world.reading(pair.origin).wallMicroseconds)
        }
        #expect(lag()?.revisions == 0)
        #expect((lag()?.microseconds ?? .max) < 200_000)
        world.faults.loss = 100
        for _ in 0..<1_000 { world.tick() }
        #expect((lag()?.microseconds ?? 0) > 4_000_000)
        world.faults.loss = 0
        for _ in 0..<600 { world.tick() }
        #expect((lag()?.microseconds ?? .max) < 200_000)
    }

    @Test func `a hello that got lost is said again, even if nothing was ever replicated`() {
        var link = LinkReceiver(region: RegionID(1), origin: RegionID(2), cursor: .zero)
        func reading(_ milliseconds: UInt64) -> ClockReading {
            ClockReading(
                instant: Instant(nanoseconds: milliseconds * 1_000_000),
                wallMicroseconds: 5_000_000 + milliseconds * 1_000)
        }
        // A sender that waits for hello keeps asking, and never is silent.
        let poke = LinkMessage.idle(
            origin: RegionID(2), sent: .zero, frontier: .zero, wallMicroseconds: 5_000_000)
        var hellos = 0
        for turn in UInt64(0)..<50 {
            var effects: [LinkReceiver.Effect] = []
            if turn == 0 { link.step(.connected, at: reading(0), into: &effects) }
            link.step(.message(poke), at: reading(turn * 200), into: &effects)
            for case .send(.hello) in effects { hellos += 1 }
        }
        #expect(hellos > 4)
        // And what such a sender says is no news of how far this region is behind.
        #expect(link.lag(wallMicroseconds: 15_000_000) == nil)
    }

    @Test func `a hello said again on a quiet link makes nothing be read again`() {
        var link = LinkSender(region: RegionID(1), destination: RegionID(2))
        let now = ClockReading(instant: Instant(nanoseconds: 1), wallMicroseconds: 5_000_000)
        let hello = LinkMessage.hello(origin: RegionID(1), cursor: .zero, incarnation: 1)
        var effects: [LinkSender.Effect] = []
        link.step(.frontier(Revision(9)), at: now, into: &effects)
        link.step(.message(hello), at: now, into: &effects)
        link.step(.changes(after: .zero, through: Revision(9), []), at: now, into: &effects)
        effects.removeAll()
        link.step(.message(hello), at: now, into: &effects)
        #expect(effects.isEmpty)
        #expect(link.lagRevisions == 0)
    }

    @Test func `what was read waits for the window, and is not read again`() {
        let own = RegionID(1), other = RegionID(2)
        var link = LinkSender(region: own, destination: other)
        let now = ClockReading(instant: Instant(nanoseconds: 1), wallMicroseconds: 5_000_000)
        // By turns: each own revision has seen one more of the other region's, and ships alone.
        let changes = (Int64(1)...400).map { at in
            let region = at % 2 == 0 ? own : other, revision = Revision(at)
            let row = Row(
                key: "k", value: "v", createRevision: revision, modRevision: revision, version: 1,
                lease: .none, sub: 0,
                origin: Origin(
                    region: region, revision: revision,
                    stamp: Stamp(ticks: UInt64(at), region: region)))
            return RevisionChanges(revision: revision, rows: [row])
        }
        var effects: [LinkSender.Effect] = [], unacknowledged: [Revision] = []
        var shipped: [ReplicationBatch] = [], reads = 0, widest = 0
        func take() {
            for effect in effects {
                switch effect {
                case .send(.batch(let batch, _, _)):
                    shipped.append(batch)
                    unacknowledged.append(batch.through)
                case .readChanges: reads += 1
                case .send, .note: break
                }
            }
            widest = max(widest, unacknowledged.count)
            effects.removeAll()
        }
        link.step(.frontier(Revision(400)), at: now, into: &effects)
        link.step(
            .message(.hello(origin: own, cursor: .zero, incarnation: 1)), at: now, into: &effects)
        link.step(.changes(after: .zero, through: Revision(400), changes), at: now, into: &effects)
        take()
        while !unacknowledged.isEmpty {
            let through = unacknowledged.removeFirst()
            link.step(
                .message(.acknowledge(origin: own, through: through)), at: now, into: &effects)
            take()
        }
        #expect(widest == link.limits.windowBatches)
        #expect(widest < link.limits.queuedBatches)
        #expect(reads == 1)
        #expect(shipped.map(\.through) == (1...200).map { Revision(Int64($0) * 2) })
        #expect(shipped.map(\.from) == (0..<200).map { Revision(Int64($0) * 2) })
        #expect(link.lagRevisions == 0)
    }

    @Test func `what found no room is asked for as soon as there is`() {
        var limits = LinkLimits()
        limits.queuedBatches = 2
        var link = LinkReceiver(region: RegionID(1), origin: RegionID(2), cursor: .zero, limits: limits)
        let now = ClockReading(instant: Instant(nanoseconds: 1), wallMicroseconds: 5_000_000)
        var effects: [LinkReceiver.Effect] = []
        link.step(.connected, at: now, into: &effects)
        for at in Int64(0)..<3 {
            let batch = ReplicationBatch(
                origin: RegionID(2), from: Revision(at), through: Revision(at + 1), seen: [], changes: [])
            link.step(
                .message(.batch(batch, frontier: Revision(3), wallMicroseconds: 5_000_000)), at: now,
                into: &effects)
        }
        #expect(effects.contains(.note(.overflowed)))
        effects.removeAll()
        link.step(.applied(.replicated(cursor: Revision(1))), at: now, into: &effects)
        link.step(.applied(.replicated(cursor: Revision(2))), at: now, into: &effects)
        #expect(
            effects.contains(
                .send(.hello(origin: RegionID(2), cursor: Revision(2), incarnation: 1))))
    }

    @Test func `a stamp far ahead of this region's clock holds the link`() {
        var receiver = LinkReceiver(region: RegionID(2), origin: RegionID(1), cursor: .zero)
        let origin = Origin(
            region: RegionID(1), revision: Revision(2),
            stamp: Stamp(ticks: 5_000_000, region: RegionID(1)))
        let row = Row(
            key: "k", value: "v", createRevision: Revision(2), modRevision: Revision(2), version: 1,
            lease: .none, sub: 0, origin: origin)
        let batch = ReplicationBatch(
            origin: RegionID(1), from: .zero, through: Revision(2), seen: [], changes: [row])
        func reading(_ seconds: UInt64) -> ClockReading {
            ClockReading(
                instant: Instant(nanoseconds: seconds * 1_000_000_000),
                wallMicroseconds: seconds * 1_000_000)
        }
        var effects: [LinkReceiver.Effect] = []
        receiver.step(.connected, at: reading(1), into: &effects)
        effects = []
        receiver.step(
            .message(.batch(batch, frontier: Revision(2), wallMicroseconds: 0)), at: reading(1),
            into: &effects)
        #expect(effects == [.note(.held(aheadMicroseconds: 4_000_000))])
        effects = []
        receiver.step(.wake, at: reading(5), into: &effects)
        #expect(effects.contains(.apply(batch)))
    }

    /// The origin drops history that it believes to be applied; what is lost here would be lost for ever.
    @Test func `a batch that is being applied is no part of the cursor that is told`() {
        var receiver = LinkReceiver(region: RegionID(2), origin: RegionID(1), cursor: .zero)
        let now = ClockReading(instant: Instant(nanoseconds: 1_000_000_000), wallMicroseconds: 9)
        func batch(through: Int64) -> LinkMessage {
            .batch(
                ReplicationBatch(
                    origin: RegionID(1), from: .zero, through: Revision(through), seen: [], changes: []),
                frontier: Revision(5), wallMicroseconds: 0)
        }
        func hello(_ cursor: Int64) -> LinkReceiver.Effect {
            .send(.hello(origin: RegionID(1), cursor: Revision(cursor), incarnation: 1))
        }
        var effects: [LinkReceiver.Effect] = []
        receiver.step(.connected, at: now, into: &effects)
        receiver.step(.message(batch(through: 2)), at: now, into: &effects)
        effects = []
        receiver.step(.disconnected, at: now, into: &effects)
        receiver.step(.connected, at: now, into: &effects)
        #expect(effects == [hello(0)])
        // It comes again, together with what was written since: once is enough.
        effects = []
        receiver.step(.message(batch(through: 5)), at: now, into: &effects)
        #expect(effects.isEmpty)
        receiver.step(.applied(.replicated(cursor: Revision(2))), at: now, into: &effects)
        #expect(
            effects == [
                .send(.acknowledge(origin: RegionID(1), through: Revision(2))), hello(2),
            ])
    }

    @Test func `messages survive their encoding, and damage is an error`() throws {
        let batch = ReplicationBatch(
            origin: RegionID(1), from: Revision(3), through: Revision(9),
            seen: [.init(region: RegionID(2), revision: Revision(7))], changes: [])
        let messages: [LinkMessage] = [
            .hello(origin: RegionID(1), cursor: Revision(5), incarnation: 1),
            .batch(batch, frontier: Revision(11), wallMicroseconds: 77),
            .acknowledge(origin: RegionID(2), through: Revision(4)),
            .idle(
                origin: RegionID(1), sent: Revision(4), frontier: Revision(6), wallMicroseconds: 5),
            .resume(origin: RegionID(1), cursor: Revision(5)),
        ]
        for message in messages {
            let bytes = message.encoded()
            #expect(try LinkMessage(decoding: bytes) == message)
            for cut in 0..<bytes.count {
                #expect(throws: DecodingError.self) { try LinkMessage(decoding: bytes[0..<cut]) }
            }
        }
    }
}
