import EtcdAPI
import Foundation
import NIOCore
import NIOEmbedded
import Primitives
import SwiftProtobuf
import Testing

@testable import EtcdFacade

/// Clients that do not read, responses that are too large, nodes that jump, and everything at once.
@Suite struct WatchPressureTests {
    private func limits(high: Int = 1000) -> FacadeLimits {
        var limits = FacadeLimits()
        limits.bufferedBytesHigh = high
        return limits
    }

    @Test func `a slow stream holds no more than its mark, and misses nothing`() throws {
        let client = Client(limits())
        let call = client.open(.watch)
        client.watch(call, "k")
        client.watch(call, "k") { $0.prevKv = true }
        var all = try client.responses(call)
        client.output.slow.insert(call)
        for i in 0..<200 { try client.put("k", "\(i)") }
        client.loop.run()
        #expect(client.output.bufferedBytes(of: call) < 1200)
        #expect(client.facade.watches.behindCount == 2)
        client.requestProgress(call)
        while client.facade.watches.behindCount > 0 {
            all += try client.responses(call)
            client.output.drain(call)
            client.facade.onWritable(call)
            client.loop.run()
        }
        client.output.drain(call)
        client.facade.onWritable(call)
        all += try client.responses(call)
        for id in [0, 1] as [Int64] {
            let revisions = all.filter { $0.watchID == id }.flatMap(\.events).map(\.kv.modRevision)
            #expect(revisions == Array(2...201))
        }
        #expect(all.last?.watchID == -1)
        #expect(all.last?.header.revision == 201)
        let withPrevious = all.filter { $0.watchID == 1 }.flatMap(\.events)
        #expect(withPrevious.dropFirst().allSatisfy { $0.hasPrevKv })
    }

    @Test func `a slow stream does not slow others`() throws {
        let client = Client(limits())
        let slow = client.open(.watch), quick = client.open(.watch)
        client.watch(slow, "k")
        client.watch(quick, "k")
        _ = try client.responses(quick)
        client.output.slow.insert(slow)
        for i in 0..<100 {
            try client.put("k", String(repeating: "x", count: 100))
            #expect(
                try client.responses(quick).flatMap(\.events).map(\.kv.modRevision) == [
                    Int64(i + 2)
                ])
        }
    }

    @Test func `one who asks for all of history does not hold up one who is nearly there`() throws {
        var limits = FacadeLimits()
        limits.catchUpRowsMax = 64
        let client = Client(limits)
        for i in 0..<1500 { try client.put("k\(i % 100)") }
        let call = client.open(.watch)
        client.watch(call, "k1") { $0.startRevision = 2 }
        client.watch(call, "k99") { $0.startRevision = 1490 }
        let responses = try client.responses(call)
        let near = try #require(responses.firstIndex { $0.watchID == 1 && !$0.events.isEmpty })
        let farEnd = try #require(responses.lastIndex { $0.watchID == 0 && !$0.events.isEmpty })
        #expect(near < farEnd)
        #expect(responses.filter { $0.watchID == 0 }.flatMap(\.events).count == 15)
    }

    @Test func `a client that asks without ever reading loses its stream`() throws {
        var limits = limits()
        limits.bufferedBytesMax = 5000
        let client = Client(limits)
        let call = client.open(.watch)
        client.output.slow.insert(call)
        for _ in 0..<1000 where client.output.outcomes[call] == nil { client.watch(call, "a") }
        #expect(client.output.outcomes[call]?.text == "etcdserver: too many requests")
        client.loop.run()
        #expect(client.facade.watches.watchersCount == 0)
        client.watch(call, "a")
        try client.put("a")
    }

    @Test func `a large response is cut only for those who asked for fragments`() throws {
        var limits = FacadeLimits()
        limits.fragmentBytes = 3000
        let client = Client(limits)
        let call = client.open(.watch)
        client.watch(call, "a") {
            $0.rangeEnd = data("b")
            $0.fragment = true
        }
        client.watch(call, "a") { $0.rangeEnd = data("b") }
        _ = try client.responses(call)
        let value = Data(count: 700)
        let _: Etcdserverpb_TxnResponse = try client.call(
            .txn,
            Etcdserverpb_TxnRequest.with {
                $0.success = (0..<10).map { i in
                    .with {
                        $0.requestPut = .with {
                            $0.key = data("a\(i)")
                            $0.value = value
                        }
                    }
                }
            })
        let responses = try client.responses(call)
        let cut = responses.filter { $0.watchID == 0 }
        #expect(cut.map(\.fragment) == [true, true, false])
        #expect(cut.flatMap(\.events).map { text($0.kv.key) } == (0..<10).map { "a\($0)" })
        #expect(responses.filter { $0.watchID == 1 }.map(\.events.count) == [10])
    }

    @Test func `a jump of the timeline is made up for from the store`() throws {
        let client = Client()
        let call = client.open(.watch)
        client.watch(call, "a")
        client.watch(call, "a") { $0.startRevision = 50 }
        _ = try client.responses(call)
        try client.put("a", "seen")
        client.node.holdsChanges = true
        for i in 0..<5 { try client.put("a", "\(i)") }
        client.node.loseHeldChanges()
        try client.put("a", "after")
        #expect(
            try client.responses(call).flatMap(\.events).map(\.kv.modRevision) == Array(2...8))
    }

    @Test func `a large event of many watchers is encoded once`() throws {
        let client = Client()
        let calls = (0..<50).map { _ in client.open(.watch) }
        for call in calls {
            client.watch(call, "k")
            client.watch(call, "a") { $0.rangeEnd = data("z") }
            client.watch(call, "k") { $0.prevKv = true }
        }
        for call in calls { _ = try client.responses(call) }
        try client.put("k", String(repeating: "x", count: 100_000))
        #expect(client.output.shared <= 2)
        for call in calls {
            let responses = try client.responses(call)
            #expect(responses.map(\.watchID).sorted() == [0, 1, 2])
            #expect(responses.allSatisfy { $0.events.map(\.kv.value.count) == [100_000] })
            #expect(responses.allSatisfy { $0.header.revision == 2 })
        }
    }

    @Test func `history that many ask for is read and encoded once`() throws {
        let client = Client()
        for i in 0..<60 { try client.put("k\(i)", String(repeating: "x", count: 16_000)) }
        let calls = (0..<50).map { _ in client.open(.watch) }
        for (i, call) in calls.enumerated() {
            client.watch(call, "k") {
                $0.rangeEnd = data("l")
                $0.startRevision = 1
                $0.fragment = i % 2 == 1
            }
        }
        for call in calls {
            let events = try client.responses(call).flatMap(\.events)
            #expect(events.map(\.kv.modRevision) == Array(2...61))
        }
        // A piece has 64 KiB: fifteen of them.
        #expect(client.node.changeReads <= 20)
        #expect(client.node.changeBytesMax <= 64 << 10)
        #expect(client.output.shared <= 20)
    }

    @Test func `a step sends to so many watchers only, all come to it, and what they see is read once`() throws {
        var limits = FacadeLimits()
        limits.catchUpWatchers = 7
        limits.catchUpEvents = 100
        let client = Client(limits)
        for i in 0..<40 { try client.put("k\(i % 10)", "\(i)") }
        let calls = (0..<30).map { _ in client.open(.watch) }
        for (i, call) in calls.enumerated() {
            client.watch(call, "k") {
                $0.rangeEnd = data("l")
                $0.startRevision = Int64(1 + i % 5)
            }
        }
        for (i, call) in calls.enumerated() {
            let events = try client.responses(call).flatMap(\.events)
            #expect(events.map(\.kv.modRevision) == Array(Int64(max(2, 1 + i % 5))...41))
        }
        #expect(client.facade.watches.catchUpStepsTotal >= 5)
        #expect(client.node.changeReads <= 2)
    }

    @Test func `pages of history are given back when nobody catches up`() throws {
        let client = Client()
        for i in 0..<40 { try client.put("k", "\(i)") }
        let call = client.open(.watch)
        client.watch(call, "k") { $0.startRevision = 2 }
        #expect(try client.responses(call).flatMap(\.events).count == 40)
        #expect(client.facade.watches.pages.isEmpty)
    }

    @Test func `without memory for answers events wait in the store`() throws {
        let client = Client()
        let call = client.open(.watch), late = client.open(.watch)
        client.watch(call, "k")
        _ = try client.responses(call)
        client.output.roomBytes = 50_000
        for _ in 0..<3 { try client.put("k", String(repeating: "x", count: 100_000)) }
        try client.put("k", "small")
        client.watch(late, "k") { $0.startRevision = 1 }
        client.facade.onTick()
        #expect(try client.responses(call).isEmpty)
        #expect(try client.responses(late).flatMap(\.events).isEmpty)
        client.output.roomBytes = .max
        client.facade.onTick()
        for call in [call, late] {
            let events = try client.responses(call).flatMap(\.events)
            #expect(events.map(\.kv.modRevision) == [2, 3, 4, 5])
        }
        try client.put("k", "again")
        #expect(try client.responses(call).flatMap(\.events).map(\.kv.modRevision) == [6])
    }

    @Test func `while memory is short a stream holds little, and goes on when it is read`() throws {
        let client = Client()
        let call = client.open(.watch)
        client.watch(call, "k")
        var all = try client.responses(call)
        client.output.slow.insert(call)
        client.output.isPressed = true
        for _ in 0..<50 { try client.put("k", String(repeating: "x", count: 10_000)) }
        #expect(client.output.bufferedBytes(of: call) < 80_000)
        client.facade.onTick()
        #expect(client.output.bufferedBytes(of: call) < 80_000)
        for _ in 0..<20 {
            all += try client.responses(call)
            client.output.drain(call)
            client.facade.onTick()
        }
        client.output.isPressed = false
        client.facade.onTick()
        all += try client.responses(call)
        #expect(all.flatMap(\.events).map(\.kv.modRevision) == Array(2...51))
    }

    @Test func `a stream with very many watchers is taken down in steps`() throws {
        let client = Client()
        let call = client.open(.watch), other = client.open(.watch)
        for i in 0..<3500 { client.watch(call, "k") { $0.startRevision = i % 3 == 0 ? 1 : 0 } }
        client.watch(other, "k")
        try client.put("k")
        client.facade.onCancelled(call)
        #expect((3000...3490).contains(client.facade.watches.watchersCount))
        try client.put("k")
        client.loop.run()
        #expect(client.facade.watches.watchersCount == 1)
        #expect(client.facade.watches.behindCount == 0)
        try client.put("k")
        #expect(try client.responses(other).flatMap(\.events).map(\.kv.modRevision) == [2, 3, 4])
    }

    @Test func `a node has so many watchers`() throws {
        var limits = FacadeLimits()
        limits.watchersMax = 3
        let client = Client(limits)
        let call = client.open(.watch)
        for _ in 0..<4 { client.watch(call, "k") }
        let responses = try client.responses(call)
        #expect(responses.map(\.canceled) == [false, false, false, true])
        #expect(responses.last?.cancelReason == "etcdserver: too many requests")
        client.cancelWatch(call, 0)
        client.watch(call, "k")
        #expect(try client.responses(call).map(\.canceled) == [true, false])
    }

    @Test func `many watchers on other keys cost a put nothing`() throws {
        let client = Client()
        let call = client.open(.watch)
        for i in 0..<3000 {
            client.watch(call, "other/\(i)/") { $0.rangeEnd = data("other/\(i)0") }
            client.watch(call, "single/\(i)")
        }
        client.watch(call, "k")
        _ = try client.responses(call)
        for _ in 0..<50 { try client.put("k") }
        #expect(try client.responses(call).count == 50)
        try client.put("other/77/x")
        #expect(try client.responses(call).flatMap(\.events).count >= 1)
    }

    /// Random everything against the plain history: each watcher is shown exactly the events of its
    /// range from its start on, in order, once, with the right previous versions.
    /// From 19 on with somebody beside them who makes steps short: history is read and sent in several.
    @Test(arguments: Array(11...30) as [UInt64])
    func `watchers see exactly the history, whatever happens`(seed: UInt64) throws {
        var random = SplitMix(seed: seed)
        var limits = limits(high: 600)
        limits.catchUpRowsMax = 8
        if seed % 2 == 1 {
            limits.catchUpWatchers = 1
            limits.catchUpEvents = 3
        }
        let isHurried = seed >= 19
        if isHurried {
            limits.catchUpBytes = 24
            limits.catchUpWatchers = 6
        }
        let client = Client(limits)
        struct Watch {
            let call: CallReference
            let range: KeyRange
            let start: Int64
            let skipsPuts: Bool
            let skipsDeletions: Bool
            let wantsPrevious: Bool
        }
        var streams: [CallReference] = []
        var watches: [CallReference: [Int64: Watch]] = [:]
        var seen: [CallReference: [Int64: [String]]] = [:]
        func key() -> String { "k\(random.below(6))" }
        func collect() throws {
            for call in streams {
                for response in try client.responses(call) {
                    #expect(!response.canceled)
                    seen[call, default: [:]][response.watchID, default: []] += response.shown
                    // Progress is true: nothing at or below it comes later, to those created before it.
                    if response.watchID == -1 {
                        for id in (seen[call] ?? [:]).keys {
                            seen[call, default: [:]][id, default: []].append(
                                "<= \(response.header.revision)")
                        }
                    }
                }
            }
        }
        for _ in 0..<400 {
            if isHurried, random.chance(1, in: 4) {
                client.loop.advanceTime(by: .milliseconds(random.chance(1, in: 4) ? 20 : 1))
                client.facade.steps.noteGuest(7, at: client.loop.now)
            }
            switch random.below(14) {
            case 0..<4: try client.put(key(), "\(random.below(1000))")
            case 4: try client.delete(key())
            case 5: try client.delete("k\(random.below(4))", end: "k\(2 + random.below(5))")
            case 6 where streams.count < 4: streams.append(client.open(.watch))
            case 7 where !streams.isEmpty:
                let call = streams[Int(random.below(UInt64(streams.count)))]
                let emitted = client.facade.watches.emitted.rawValue
                let wanted = Int64(random.below(UInt64(client.node.revision.rawValue + 4)))
                let first = Bytes(key())
                let end = [Bytes.empty, Bytes([0]), Bytes("k9")][Int(random.below(3))]
                let watch = Watch(
                    call: call, range: KeyRange(key: first, end: end),
                    start: wanted == 0 ? emitted + 1 : wanted, skipsPuts: random.chance(1, in: 4),
                    skipsDeletions: random.chance(1, in: 4), wantsPrevious: random.chance(1, in: 2))
                let id = Int64(1000 + (watches[call]?.count ?? 0))
                watches[call, default: [:]][id] = watch
                client.watch(call, first.description) {
                    $0.rangeEnd = Data(end.array)
                    $0.startRevision = wanted
                    $0.watchID = id
                    $0.prevKv = watch.wantsPrevious
                    $0.filters =
                        (watch.skipsPuts ? [.noput] : [])
                        + (watch.skipsDeletions ? [.nodelete] : [])
                }
            case 8: client.output.slow.formUnion(streams.filter { _ in random.chance(1, in: 2) })
            case 9:
                for call in streams where random.chance(1, in: 2) {
                    client.output.slow.remove(call)
                    client.output.drain(call)
                    client.facade.onWritable(call)
                }
            case 10: client.node.holdsChanges = true
            case 11: client.node.releaseChanges()
            case 12 where client.node.holdsChanges: client.node.loseHeldChanges()
            case 13:
                for call in streams { client.requestProgress(call) }
                if random.chance(1, in: 2) { try collect() }
            default: client.loop.run()
            }
        }
        client.node.releaseChanges()
        client.output.slow = []
        for _ in 0..<1000 where client.facade.watches.behindCount > 0 {
            for call in streams {
                client.output.drain(call)
                client.facade.onWritable(call)
            }
            client.loop.run()
        }
        try collect()
        for (call, own) in watches {
            for (id, watch) in own {
                var expected: [String] = []
                for change in client.node.history where change.revision.rawValue >= watch.start {
                    for row in change.rows where watch.range.contains(row.key) {
                        if row.isDeletion ? watch.skipsDeletions : watch.skipsPuts { continue }
                        var line = "\(row.modRevision) "
                        line += row.isDeletion ? "delete \(row.key)" : "put \(row.key)=\(row.value)"
                        if watch.wantsPrevious,
                            let before = try client.node.row(row.key, at: row.modRevision.previous)
                        {
                            line += "<\(before.value)"
                        }
                        expected.append(line)
                    }
                }
                let lines = seen[call]?[id] ?? []
                #expect(
                    lines.filter { !$0.hasPrefix("<=") } == expected, "seed \(seed), \(call), \(id)"
                )
                var promised: Int64 = 0
                for line in lines {
                    if line.hasPrefix("<=") {
                        promised = Int64(line.dropFirst(3)) ?? 0
                    } else {
                        let revision = Int64(line.prefix { $0 != " " }) ?? 0
                        #expect(revision > promised, "seed \(seed): \(line) after \(promised)")
                    }
                }
            }
        }
    }
}
