import EtcdAPI
import Foundation
import Primitives
import SwiftProtobuf
import Testing

@testable import EtcdFacade

@Suite struct KVTests {
    typealias Range = Etcdserverpb_RangeRequest

    private func expect(
        _ error: EtcdError, _ outcome: Recorder.Outcome?, _ comment: Comment? = nil
    ) {
        let failure = error.failure
        #expect(outcome == Recorder.Outcome(status: failure.status, text: failure.text), comment)
    }

    @Test func `a put is answered with its revision and a full header`() throws {
        let client = Client()
        let answer: Etcdserverpb_PutResponse = try client.call(
            .put,
            Etcdserverpb_PutRequest.with {
                $0.key = data("a")
                $0.value = data("1")
            })
        #expect(answer.header.clusterID == 0xC1)
        #expect(answer.header.memberID == 0xA1)
        #expect(answer.header.raftTerm == 3)
        #expect(answer.header.revision == 2)
        #expect(!answer.hasPrevKv)
    }

    @Test func `prev_kv, ignore_value and ignore_lease do what etcd does`() throws {
        let client = Client()
        let _: Etcdserverpb_LeaseGrantResponse = try client.call(
            .leaseGrant,
            Etcdserverpb_LeaseGrantRequest.with {
                $0.id = 9
                $0.ttl = 60
            })
        try client.put("a", "1", lease: 9)
        let second: Etcdserverpb_PutResponse = try client.call(
            .put,
            Etcdserverpb_PutRequest.with {
                $0.key = data("a")
                $0.value = data("2")
                $0.prevKv = true
                $0.ignoreLease = true
            })
        #expect(text(second.prevKv.value) == "1")
        #expect(second.prevKv.lease == 9)
        #expect(second.prevKv.modRevision == 2)
        let _: Etcdserverpb_PutResponse = try client.call(
            .put,
            Etcdserverpb_PutRequest.with {
                $0.key = data("a")
                $0.ignoreValue = true
            })
        let kv = try #require(try client.get("a").kvs.first)
        #expect(text(kv.value) == "2")
        #expect(kv.lease == 0)
        #expect(kv.version == 3)
        #expect(kv.createRevision == 2)
        #expect(kv.modRevision == 4)
    }

    @Test func `puts that etcd refuses are refused in its words`() {
        let client = Client()
        typealias Put = Etcdserverpb_PutRequest
        expect(.emptyKey, client.failure(.put, Put.with { $0.value = data("v") }))
        expect(
            .valueProvided,
            client.failure(
                .put,
                Put.with {
                    $0.key = data("a")
                    $0.value = data("v")
                    $0.ignoreValue = true
                }))
        expect(
            .leaseProvided,
            client.failure(
                .put,
                Put.with {
                    $0.key = data("a")
                    $0.lease = 3
                    $0.ignoreLease = true
                }))
        expect(
            .keyNotFound,
            client.failure(
                .put,
                Put.with {
                    $0.key = data("absent")
                    $0.ignoreValue = true
                }))
        expect(
            .leaseNotFound,
            client.failure(
                .put,
                Put.with {
                    $0.key = data("a")
                    $0.lease = 404
                }))
        expect(
            .requestTooLarge,
            client.failure(
                .put,
                Put.with {
                    $0.key = data("a")
                    $0.value = Data(count: 1_600_000)
                }))
        #expect(client.node.revision == .initial)
    }

    @Test func `a range honours limit, order, filters, keys_only and count_only`() throws {
        let client = Client()
        for (i, key) in ["a", "b", "c", "d"].enumerated() { try client.put(key, "\(9 - i)") }
        let all = try client.get("a") { $0.rangeEnd = data("e") }
        #expect(all.kvs.map { text($0.key) } == ["a", "b", "c", "d"])
        #expect(all.count == 4)
        #expect(!all.more)
        let page = try client.get("a") {
            $0.rangeEnd = Data([0])
            $0.limit = 2
        }
        #expect(page.kvs.map { text($0.key) } == ["a", "b"])
        #expect(page.more)
        #expect(page.count == 4)
        let down = try client.get("a") {
            $0.rangeEnd = data("e")
            $0.sortOrder = .descend
            $0.sortTarget = .value
        }
        #expect(down.kvs.map { text($0.value) } == ["9", "8", "7", "6"])
        let filtered = try client.get("a") {
            $0.rangeEnd = data("e")
            $0.minModRevision = 3
            $0.maxCreateRevision = 4
            $0.keysOnly = true
        }
        #expect(filtered.kvs.map { text($0.key) } == ["b", "c"])
        #expect(filtered.kvs.allSatisfy { $0.value.isEmpty })
        let count = try client.get("a") {
            $0.rangeEnd = data("e")
            $0.countOnly = true
        }
        #expect(count.count == 4)
        #expect(count.kvs.isEmpty)
        let negative = try client.get("a") {
            $0.rangeEnd = data("e")
            $0.limit = -1
            $0.revision = -1
        }
        #expect(negative.kvs.count == 4)
    }

    @Test func `a range in the past answers what was there, under the current revision`() throws {
        let client = Client()
        try client.put("a", "1")
        try client.put("a", "2")
        let old = try client.get("a") { $0.revision = 2 }
        #expect(old.kvs.map { text($0.value) } == ["1"])
        #expect(old.header.revision == 3)
        expect(
            .futureRevision,
            client.failure(
                .range,
                Range.with {
                    $0.key = data("a")
                    $0.revision = 4
                }))
        let _: Etcdserverpb_CompactionResponse = try client.call(
            .compact, Etcdserverpb_CompactionRequest.with { $0.revision = 3 })
        expect(
            .compacted,
            client.failure(
                .range,
                Range.with {
                    $0.key = data("a")
                    $0.revision = 2
                }))
        expect(
            .compacted,
            client.failure(.compact, Etcdserverpb_CompactionRequest.with { $0.revision = 3 }))
        expect(
            .futureRevision,
            client.failure(.compact, Etcdserverpb_CompactionRequest.with { $0.revision = 99 }))
        expect(
            .compacted,
            client.failure(.compact, Etcdserverpb_CompactionRequest.with { $0.revision = -5 }))
    }

    @Test func `ranges that etcd refuses are refused in its words`() {
        let client = Client()
        expect(.emptyKey, client.failure(.range, Range()))
        expect(.emptyKey, client.failure(.deleteRange, Etcdserverpb_DeleteRangeRequest()))
        expect(
            .invalidSortOption,
            client.failure(
                .range,
                Range.with {
                    $0.key = data("a")
                    $0.sortOrder = .UNRECOGNIZED(7)
                }))
        expect(
            .invalidSortOption,
            client.failure(
                .range,
                Range.with {
                    $0.key = data("a")
                    $0.sortTarget = .UNRECOGNIZED(5)
                }))
    }

    @Test func `a linearizable range asks the region, a serializable one does not`() throws {
        let client = Client()
        _ = try client.get("a")
        #expect(client.node.linearizableReads == 1)
        _ = try client.get("a") { $0.serializable = true }
        #expect(client.node.linearizableReads == 1)
        #expect(client.node.serializableReads == 1)
    }

    @Test func `a delete counts and returns what it deleted`() throws {
        let client = Client()
        try client.put("a", "1")
        try client.put("b", "2")
        let gone: Etcdserverpb_DeleteRangeResponse = try client.call(
            .deleteRange,
            Etcdserverpb_DeleteRangeRequest.with {
                $0.key = data("a")
                $0.rangeEnd = data("z")
                $0.prevKv = true
            })
        #expect(gone.deleted == 2)
        #expect(gone.prevKvs.map { text($0.value) } == ["1", "2"])
        #expect(gone.header.revision == 4)
        #expect(try client.delete("a") == 4)
    }

    @Test func `a message larger than one varint byte decodes and encodes exactly`() throws {
        let client = Client()
        let long = String(repeating: "x", count: 70_000)
        try client.put(long, long)
        let answer = try client.get(long)
        #expect(answer.kvs.first.map { text($0.value) } == long)
    }

    // MARK: Deadlines and cancellation

    @Test func `a call waits until its own deadline, or the server's if that is nearer`() throws {
        let client = Client()
        client.node.holdsAnswers = true
        let request = client.bytes(Etcdserverpb_PutRequest.with { $0.key = data("a") })
        for timeout in [TimeSpan.milliseconds(100), .seconds(60), nil] {
            client.send(request, to: client.open(.put, timeout: timeout))
        }
        let start = client.node.now
        #expect(
            client.node.deadlines == [
                start.advanced(by: .milliseconds(100)), start.advanced(by: .seconds(7)),
                start.advanced(by: .seconds(7)),
            ])
    }

    @Test func `a cancelled call takes its request out of the node and is not answered`() throws {
        let client = Client()
        client.node.holdsAnswers = true
        let call = client.begin(.range, Range.with { $0.key = data("a") })
        #expect(client.node.held.count == 1)
        client.facade.onCancelled(call)
        #expect(client.node.cancelled.count == 1)
        client.node.releaseAnswers()
        #expect(client.output.outcomes[call] == nil)
        #expect(client.facade.pending.count == 0)
    }

    @Test func `a late answer to a reused slot is dropped`() throws {
        let client = Client()
        client.node.holdsAnswers = true
        let first = client.begin(.range, Range.with { $0.key = data("a") })
        let token = try #require(client.node.held.first).token
        client.facade.onCancelled(first)
        let second = client.begin(.range, Range.with { $0.key = data("b") })
        client.facade.onReadIndex(
            .success(ReadIndex(revision: .initial, compactRevision: .zero)), token: token)
        #expect(client.output.outcomes[second] == nil)
        client.node.releaseAnswers()
        #expect(client.output.outcomes[second]?.status == .ok)
    }

    @Test func `without a leader a call that wants one is refused at once`() {
        let client = Client()
        client.facade.onLeaderChanged(hasLeader: false)
        let call = client.open(.range, requiresLeader: true)
        #expect(
            client.output.outcomes[call]
                == Recorder.Outcome(status: .unavailable, text: "etcdserver: no leader"))
    }

    @Test(arguments: [
        (DelayCause.unknown, ""), (.leaderFailure, ", possibly due to previous leader failure"),
        (.lostConnection, ", possibly due to connection lost"),
        (.applying, ", waiting for the applied index took too long"),
    ])
    func `what took too long says why, if that is known`(cause: DelayCause, text: String) throws {
        let client = Client()
        client.node.delayCause = cause
        client.node.nextFailure = .timedOut
        let put = client.failure(.put, Etcdserverpb_PutRequest.with { $0.key = data("a") })
        client.node.nextFailure = .timedOut
        let range = client.failure(.range, Etcdserverpb_RangeRequest.with { $0.key = data("a") })
        for failure in [put, range] {
            #expect(failure?.status == .unavailable)
            #expect(failure?.text == "etcdserver: request timed out" + text)
        }
        #expect(client.node.delaysAsked == [false, true])
    }
}
