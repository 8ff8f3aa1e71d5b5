import EtcdAPI
import Foundation
import Primitives
import SwiftProtobuf
import Testing

@testable import EtcdFacade

@Suite struct WatchTests {
    @Test func `a watch says created under the emitted revision, then sends what happens`() throws {
        let client = Client()
        try client.put("a", "0")
        let call = client.open(.watch)
        client.watch(call, "a")
        let created = try #require(try client.responses(call).first)
        #expect(created.created)
        #expect(created.watchID == 0)
        #expect(created.header.revision == 2)
        #expect(created.header.clusterID == 0xC1)
        #expect(created.events.isEmpty)
        try client.put("a", "1")
        try client.put("b", "x")
        try client.delete("a")
        let events = try client.responses(call)
        #expect(events.flatMap(\.shown) == ["3 put a=1", "5 delete a"])
        #expect(events.map(\.header.revision) == [3, 5])
        #expect(events.allSatisfy { $0.watchID == 0 && !$0.created })
        let gone = try #require(events.last?.events.first?.kv)
        #expect(gone.version == 0 && gone.createRevision == 0 && gone.value.isEmpty)
    }

    @Test func `ids are chosen by the server, or by the client if they are free`() throws {
        let client = Client()
        let call = client.open(.watch)
        client.watch(call, "a")
        client.watch(call, "a") { $0.watchID = 1 }
        client.watch(call, "a")
        client.watch(call, "a") { $0.watchID = 1 }
        client.watch(call, "a") { $0.watchID = -7 }
        let responses = try client.responses(call)
        #expect(responses.map(\.watchID) == [0, 1, 2, -1, -7])
        #expect(responses.allSatisfy { $0.created })
        #expect(responses.map(\.canceled) == [false, false, false, true, false])
        #expect(
            responses[3].cancelReason == "mvcc: duplicate watch ID provided on the WatchStream")
        try client.put("a")
        #expect(try client.responses(call).map(\.watchID).sorted() == [-7, 0, 1, 2])
    }

    @Test func `empty ranges and negative starts are refused as etcd refuses them`() throws {
        let client = Client()
        let call = client.open(.watch)
        client.watch(call, "b") { $0.rangeEnd = data("a") }
        client.watch(call, "b") { $0.startRevision = -1 }
        let responses = try client.responses(call)
        #expect(responses.map(\.watchID) == [-1, -1])
        #expect(responses.allSatisfy { $0.created && $0.canceled })
        #expect(
            responses.map(\.cancelReason) == [
                "mvcc: watcher range is empty",
                "etcdserver: mvcc: required revision has been compacted",
            ])
    }

    @Test func `ranges, prefixes, from-key and everything see what they should`() throws {
        let client = Client()
        let call = client.open(.watch)
        client.watch(call, "b") { $0.rangeEnd = data("d") }
        client.watch(call, "c") { $0.rangeEnd = Data([0]) }
        client.watch(call, "") { $0.rangeEnd = Data([0]) }
        client.watch(call, "c")
        _ = try client.responses(call)
        for key in ["a", "b", "c", "d"] { try client.put(key) }
        var seen: [Int64: [String]] = [:]
        for response in try client.responses(call) {
            seen[response.watchID, default: []] += response.events.map { text($0.kv.key) }
        }
        #expect(seen == [0: ["b", "c"], 1: ["c", "d"], 2: ["a", "b", "c", "d"], 3: ["c"]])
    }

    @Test func `filters leave out puts or deletions`() throws {
        let client = Client()
        let call = client.open(.watch)
        client.watch(call, "a") { $0.filters = [.noput] }
        client.watch(call, "a") { $0.filters = [.nodelete] }
        client.watch(call, "a") { $0.filters = [.noput, .nodelete] }
        _ = try client.responses(call)
        try client.put("a", "1")
        try client.delete("a")
        let responses = try client.responses(call)
        #expect(responses.map(\.watchID) == [1, 0])
        #expect(responses.flatMap(\.shown) == ["2 put a=1", "3 delete a"])
    }

    @Test func `prev_kv comes with updates and deletions, live and from history`() throws {
        let client = Client()
        let call = client.open(.watch)
        client.watch(call, "a") { $0.prevKv = true }
        _ = try client.responses(call)
        try client.put("a", "1")
        try client.put("a", "2")
        try client.delete("a")
        try client.put("a", "3")
        let expected = ["2 put a=1", "3 put a=2<1", "4 delete a<2", "5 put a=3"]
        #expect(try client.responses(call).flatMap(\.shown) == expected)
        #expect(client.node.rowReads == 0, "the cache knew")
        let late = client.open(.watch)
        client.watch(late, "a") {
            $0.prevKv = true
            $0.startRevision = 2
        }
        #expect(try client.responses(late).flatMap(\.shown) == expected)
        let mixed = client.open(.watch)
        client.watch(mixed, "a") { $0.startRevision = 3 }
        #expect(
            try client.responses(mixed).flatMap(\.shown) == [
                "3 put a=2", "4 delete a", "5 put a=3",
            ])
    }

    @Test func `prev_kv is right for keys that were not watched when they last changed`() throws {
        let client = Client()
        let call = client.open(.watch)
        client.watch(call, "a") { $0.prevKv = true }
        _ = try client.responses(call)
        try client.put("a", "1")
        client.cancelWatch(call, 0)
        try client.put("a", "2")
        client.watch(call, "a") { $0.prevKv = true }
        try client.put("a", "3")
        #expect(try client.responses(call).flatMap(\.shown) == ["2 put a=1", "4 put a=3<2"])
    }

    @Test func `all events of a revision come in one response, in their order`() throws {
        let client = Client()
        try client.put("a1")
        try client.put("a2")
        let call = client.open(.watch)
        client.watch(call, "a") { $0.rangeEnd = data("b") }
        client.watch(call, "a") {
            $0.rangeEnd = data("b")
            $0.startRevision = 2
        }
        _ = try client.responses(call)
        let _: Etcdserverpb_TxnResponse = try client.call(
            .txn,
            Etcdserverpb_TxnRequest.with {
                $0.success = [
                    .with { $0.requestPut = .with { $0.key = data("a9") } },
                    .with { $0.requestDeleteRange = .with { $0.key = data("a1") } },
                    .with { $0.requestPut = .with { $0.key = data("a0") } },
                ]
            })
        for response in try client.responses(call) {
            #expect(response.shown == ["4 put a9=", "4 delete a1", "4 put a0="])
        }
    }

    @Test func `a start in the past catches up and then goes on live`() throws {
        let client = Client()
        for i in 0..<300 { try client.put("k\(i % 3)", "\(i)") }
        let call = client.open(.watch)
        client.watch(call, "k1") { $0.startRevision = 100 }
        let caughtUp = try client.responses(call)
        #expect(caughtUp.first?.created == true)
        try client.put("k1", "live")
        let all = (caughtUp + (try client.responses(call))).flatMap(\.events)
        #expect(
            all.map(\.kv.modRevision)
                == (100...302).filter { ($0 - 2) % 3 == 1 || $0 == 302 }.map(Int64.init))
        #expect(client.facade.watches.behindCount == 0)
    }

    @Test func `a start in the future says nothing before it`() throws {
        let client = Client()
        let call = client.open(.watch)
        client.watch(call, "a") { $0.startRevision = 4 }
        for i in 2...5 { try client.put("a", "\(i)") }
        #expect(try client.responses(call).flatMap(\.shown) == ["4 put a=4", "5 put a=5"])
    }

    @Test func `a compacted start is cancelled with the compact revision, after created`() throws {
        let client = Client()
        for _ in 0..<5 { try client.put("a") }
        let _: Etcdserverpb_CompactionResponse = try client.call(
            .compact, Etcdserverpb_CompactionRequest.with { $0.revision = 4 })
        let call = client.open(.watch)
        client.watch(call, "a") { $0.startRevision = 3 }
        client.watch(call, "a") { $0.startRevision = 4 }
        let responses = try client.responses(call)
        #expect(responses.map(\.watchID).prefix(3) == [0, 1, 0])
        #expect(responses.map(\.created).prefix(3) == [true, true, false])
        #expect(responses[2].canceled)
        #expect(responses[2].compactRevision == 4)
        #expect(responses[2].events.isEmpty)
        #expect(
            responses.filter { $0.watchID == 1 }.flatMap(\.shown)
                == ["4 put a=v", "5 put a=v", "6 put a=v"])
        try client.put("a")
        #expect(try client.responses(call).map(\.watchID) == [1])
    }

    @Test func `cancel answers canceled, silences, and frees the id`() throws {
        let client = Client()
        let call = client.open(.watch)
        client.watch(call, "a") { $0.watchID = 5 }
        client.cancelWatch(call, 5)
        client.cancelWatch(call, 5)
        client.cancelWatch(call, 77)
        let responses = try client.responses(call)
        #expect(responses.map(\.created) == [true, false])
        #expect(responses.map(\.canceled) == [false, true])
        #expect(responses.last?.watchID == 5)
        try client.put("a")
        #expect(try client.responses(call).isEmpty)
        client.watch(call, "a") { $0.watchID = 5 }
        #expect(try client.responses(call).first?.canceled == false)
        #expect(client.facade.watches.watchersCount == 1)
    }

    @Test func `a half-closed stream goes on, one that is gone is freed`() throws {
        let client = Client()
        let halfClosed = client.open(.watch), gone = client.open(.watch)
        client.watch(halfClosed, "a")
        client.watch(gone, "a")
        client.facade.onHalfClose(halfClosed)
        client.facade.onCancelled(gone)
        #expect(client.facade.watches.watchersCount == 1)
        #expect(client.facade.watches.streamsCount == 1)
        try client.put("a")
        #expect(try client.responses(gone).map(\.created) == [true])
        #expect(try client.responses(halfClosed).map(\.created) == [true, false])
        client.facade.onCancelled(halfClosed)
        #expect(client.facade.watches.watchersCount == 0)
    }

    // MARK: Progress

    @Test func `a progress request is answered for the whole stream when all of it is synced`()
        throws
    {
        let client = Client()
        for i in 0..<400 { try client.put("k", "\(i)") }
        let call = client.open(.watch)
        client.watch(call, "other")
        client.watch(call, "k") { $0.startRevision = 2 }
        client.requestProgress(call)
        client.requestProgress(call)
        let responses = try client.responses(call)
        let last = try #require(responses.last)
        #expect(last.watchID == -1)
        #expect(last.events.isEmpty)
        #expect(last.header.revision == 401)
        #expect(responses.flatMap(\.events).count == 400)
        #expect(responses.filter { $0.watchID == -1 }.count == 1)
        client.requestProgress(call)
        #expect(try client.responses(call).map(\.watchID) == [-1])
    }

    @Test func `no progress is told before a watcher's start, and none without watchers`() throws {
        let client = Client()
        let call = client.open(.watch)
        client.requestProgress(call)
        #expect(try client.responses(call).isEmpty)
        client.watch(call, "a") { $0.startRevision = 3 }
        client.requestProgress(call)
        #expect(try client.responses(call).map(\.watchID) == [0])
        try client.put("b")
        #expect(try client.responses(call).isEmpty)
        try client.put("b")
        let told = try client.responses(call)
        #expect(told.map(\.watchID) == [-1])
        #expect(told.map(\.header.revision) == [3])
    }

    @Test func `a watcher whose start will not come holds up nothing once it is cancelled`() throws {
        let client = Client()
        let call = client.open(.watch)
        client.watch(call, "a")
        client.watch(call, "b") { $0.startRevision = 100 }
        client.watch(call, "c") { $0.startRevision = 50 }
        _ = try client.responses(call)
        client.cancelWatch(call, 1)
        client.requestProgress(call)
        client.facade.onTick()
        #expect(try client.responses(call).filter { $0.watchID == -1 }.isEmpty)
        client.cancelWatch(call, 2)
        client.facade.onTick()
        #expect(try client.responses(call).filter { $0.watchID == -1 }.count == 1)
    }

    @Test func `progress never passes what the timeline has brought`() throws {
        let client = Client()
        let call = client.open(.watch)
        client.watch(call, "a")
        _ = try client.responses(call)
        client.node.holdsChanges = true
        try client.put("a", "1")
        client.requestProgress(call)
        #expect(try client.responses(call).map(\.header.revision) == [1])
        client.node.releaseChanges()
        client.requestProgress(call)
        #expect(try client.responses(call).map(\.header.revision) == [2, 2])
    }

    @Test func `progress_notify speaks in intervals without events only`() throws {
        var limits = FacadeLimits()
        limits.progressInterval = .seconds(1)
        let client = Client(limits)
        client.facade.start()
        let call = client.open(.watch)
        client.watch(call, "a") { $0.progressNotify = true }
        client.watch(call, "a")
        _ = try client.responses(call)
        client.advance(milliseconds: 900)
        #expect(try client.responses(call).isEmpty)
        client.advance(milliseconds: 200)
        #expect(try client.responses(call).map(\.watchID) == [0])
        try client.put("a")
        _ = try client.responses(call)
        client.advance(milliseconds: 1100)
        #expect(try client.responses(call).isEmpty, "the event told as much")
        client.advance(milliseconds: 1100)
        let told = try client.responses(call)
        #expect(told.map(\.watchID) == [0])
        #expect(told.map(\.header.revision) == [2])
        #expect(told.allSatisfy { $0.events.isEmpty && !$0.created && !$0.canceled })
    }

    // MARK: Leaders

    @Test func `streams that want a leader end when there has been none for long`() throws {
        let client = Client()
        client.facade.start()
        let strict = client.open(.watch, requiresLeader: true), easy = client.open(.watch)
        client.watch(strict, "a")
        client.watch(easy, "a")
        let observer = client.open(.electionObserve, requiresLeader: true)
        client.send(V3electionpb_LeaderRequest.with { $0.name = data("e") }, to: observer)
        client.facade.onLeaderChanged(hasLeader: false)
        client.advance(milliseconds: 2500)
        client.facade.onLeaderChanged(hasLeader: true)
        client.facade.onLeaderChanged(hasLeader: false)
        client.advance(milliseconds: 2500)
        #expect(client.output.outcomes[strict] == nil && client.output.outcomes[observer] == nil)
        client.advance(milliseconds: 1000)
        let ended = Recorder.Outcome(status: .unavailable, text: "etcdserver: no leader")
        #expect(client.output.outcomes[strict] == ended && client.output.outcomes[observer] == ended)
        #expect(client.output.outcomes[easy] == nil)
    }
}
