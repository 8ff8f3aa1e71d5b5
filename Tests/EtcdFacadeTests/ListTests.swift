import EtcdAPI
import Foundation
import NIOEmbedded
import Primitives
import SwiftProtobuf
import Testing

@testable import EtcdFacade

@Suite struct ListTests {
    private func filled(_ count: Int, rows: Int = 7, bytes: Int = 1 << 20) throws -> Client {
        var limits = FacadeLimits()
        limits.listPartRows = rows
        limits.listPartBytes = bytes
        let client = Client(limits)
        try client.fill(count, from: 10_000, valueBytes: 50)
        return client
    }

    private func begin(
        _ client: Client, _ change: (inout Etcdserverpb_RangeRequest) -> Void = { _ in }
    ) -> CallReference { client.beginList(.range, change) }

    private func list(
        _ client: Client, _ call: CallReference
    ) throws -> Etcdserverpb_RangeResponse {
        client.loop.run()
        return try client.answer(call)
    }

    @Test(arguments: [(7, 1 << 20), (1000, 64), (1, 1), (50, 1 << 20), (1000, 1 << 20)])
    func `a list that is read in pieces is one answer`(rows: Int, bytes: Int) throws {
        let client = try filled(50, rows: rows, bytes: bytes)
        let found = try list(client, begin(client))
        #expect(found.kvs.map { text($0.key) } == (0..<50).map { "k\(10_000 + $0)" })
        #expect(found.kvs.allSatisfy { $0.value.count == 50 && $0.version == 1 })
        #expect(found.kvs.map(\.modRevision) == (2...51).map { Int64($0) })
        #expect(found.kvs.map(\.createRevision) == found.kvs.map(\.modRevision))
        #expect(found.count == 50 && !found.more && found.header.revision == 51)
        let keys = try list(client, begin(client) { $0.keysOnly = true })
        #expect(keys.kvs.count == 50 && keys.kvs.allSatisfy { $0.value.isEmpty })
        let none = try list(client, begin(client) { $0.key = data("kz") })
        #expect(none.kvs.isEmpty && none.count == 0 && none.hasHeader)
    }

    @Test func `leases and odd keys arrive as they are`() throws {
        let client = try filled(0)
        let lease: Etcdserverpb_LeaseGrantResponse = try client.call(
            .leaseGrant, Etcdserverpb_LeaseGrantRequest.with { $0.ttl = 60 })
        try client.put("k\u{0}\u{0}x", "", lease: lease.id)
        try client.put("k\u{0}", "b")
        let found = try list(client, begin(client))
        #expect(found.kvs.map { text($0.key) } == ["k\u{0}", "k\u{0}\u{0}x"])
        #expect(found.kvs.map(\.lease) == [0, lease.id])
    }

    @Test func `all pieces are of one revision`() throws {
        let client = try filled(30)
        let call = begin(client)
        try client.put("k10000", "changed")
        try client.delete("k10029")
        let found = try list(client, call)
        #expect(found.kvs.count == 30 && found.count == 30 && found.header.revision == 31)
        #expect(found.kvs[0].version == 1)
    }

    @Test func `a list of the newest that a compaction overtakes begins anew`() throws {
        let client = try filled(30)
        let newest = begin(client)
        let past = begin(client) { $0.revision = 20 }
        try client.put("k10000", "changed")
        try client.put("k10001", "changed")
        let _: Etcdserverpb_CompactionResponse = try client.call(
            .compact, Etcdserverpb_CompactionRequest.with { $0.revision = 33 })
        let found = try list(client, newest)
        #expect(found.kvs.count == 30 && found.header.revision == 33)
        #expect(found.kvs[0].version == 2)
        #expect(client.output.outcomes[past]?.status == .outOfRange)
    }

    @Test func `a large limit ends it, with more and the whole count`() throws {
        let client = try filled(1_010, rows: 400)
        let found = try list(client, begin(client) { $0.limit = 1_005 })
        #expect(found.kvs.count == 1_005 && found.more && found.count == 1_010)
        let exact = try list(client, begin(client) { $0.limit = 1_010 })
        #expect(exact.kvs.count == 1_010 && !exact.more && exact.count == 1_010)
    }

    @Test func `a client that goes is not read for`() throws {
        let client = try filled(30)
        let call = begin(client)
        client.facade.onCancelled(call)
        client.loop.run()
        #expect(client.output.take(call).isEmpty && client.output.outcomes[call] == nil)
    }

    // MARK: Other orders than the keys'

    /// Rows whose versions, revisions and values are in orders of their own, some of them alike.
    private func mixed(_ count: Int, rows: Int) throws -> Client {
        let client = try filled(0, rows: rows)
        for i in 0..<count { try client.put("k\(1000 + i * 7 % count)", "v\(i % 5)") }
        for i in 0..<count / 2 { try client.put("k\(1000 + i * 3 % count)", "w\(i % 3)") }
        try client.delete("k1002")
        return client
    }

    private typealias Order = Etcdserverpb_RangeRequest.SortOrder
    private typealias Target = Etcdserverpb_RangeRequest.SortTarget

    @Test(arguments: [3, 7, 1000], [0, 1, 9, 40, 10_000])
    func `a sorted list that is read in pieces is what sorting all of it gives`(
        rows: Int, limit: Int64
    ) throws {
        let client = try mixed(60, rows: rows)
        for order in [Order.none, .ascend, .descend] {
            for target in [Target.key, .version, .create, .mod, .value] {
                for keysOnly in [false, true] {
                    let found = try list(
                        client,
                        begin(client) {
                            $0.limit = limit
                            $0.sortOrder = order
                            $0.sortTarget = target
                            $0.keysOnly = keysOnly
                        })
                    var query = RangeQuery(range: KeyRange(key: "k", end: "l"), limit: limit)
                    query.order = [.none: .none, .ascend: .ascending, .descend: .descending][order] ?? .none
                    query.target =
                        [
                            .key: .key, .version: .version, .create: .createRevision, .mod: .modRevision,
                            .value: .value,
                        ][target] ?? .key
                    query.keysOnly = keysOnly
                    let wanted = try client.node.range(query, at: client.node.revision)
                    #expect(
                        found.kvs.map { text($0.key) }
                            == wanted.rows.map { String(decoding: $0.key.array, as: UTF8.self) },
                        "\(order) \(target)")
                    #expect(found.kvs.map { Array($0.value) } == wanted.rows.map(\.value.array))
                    #expect(found.kvs.map(\.version) == wanted.rows.map(\.version))
                    #expect(found.more == wanted.more && found.count == wanted.count)
                }
            }
        }
        #expect(client.facade.listBytes.count == 0)
    }

    @Test(arguments: [3, 1000], [Int64(0), 4])
    func `a filtered list counts the whole range`(rows: Int, limit: Int64) throws {
        let client = try mixed(60, rows: rows)
        let found = try list(
            client,
            begin(client) {
                $0.limit = limit
                $0.minModRevision = 40
                $0.maxCreateRevision = 50
            })
        var query = RangeQuery(range: KeyRange(key: "k", end: "l"), limit: limit)
        query.minModRevision = 40
        query.maxCreateRevision = 50
        let wanted = try client.node.range(query, at: client.node.revision)
        #expect(!wanted.rows.isEmpty && found.kvs.map(\.modRevision) == wanted.rows.map(\.modRevision.rawValue))
        #expect(found.more == wanted.more && found.count == wanted.count && found.count == 59)
    }

    @Test func `only as many rows as are wanted are kept while a huge range is sorted`() throws {
        let client = try filled(6_000, rows: 500)
        // All of their keys would need 228,000.
        client.output.roomBytes = 150_000
        let found = try list(
            client,
            begin(client) {
                $0.limit = 3
                $0.sortOrder = .descend
                $0.sortTarget = .mod
            })
        #expect(found.kvs.map { text($0.key) } == ["k15999", "k15998", "k15997"])
        #expect(found.more && found.count == 6_000)
    }

    @Test func `a sorted list that a compaction overtakes begins anew`() throws {
        let client = try filled(30)
        let call = begin(client) { $0.sortTarget = .value }
        try client.put("k10000", "a")
        let _: Etcdserverpb_CompactionResponse = try client.call(
            .compact, Etcdserverpb_CompactionRequest.with { $0.revision = 32 })
        let found = try list(client, call)
        #expect(found.kvs.count == 30 && found.header.revision == 32)
        #expect(text(found.kvs[0].key) == "k10000")
    }

    @Test func `a sorted list that does not fit into memory is refused`() throws {
        let client = try filled(30)
        client.output.roomBytes = 500
        let call = begin(client) { $0.sortTarget = .value }
        client.loop.run()
        #expect(client.output.outcomes[call]?.status == .resourceExhausted)
        #expect(client.facade.listBytes.count == 0)
    }

    /// CVE-2023-44487: what is given up before its turn has cost nothing.
    @Test func `lists, pages and transactions that are given up at once are not read`() throws {
        let client = Client()
        try client.fill(100, from: 0, valueBytes: 5_000)
        let before = client.node.rangeReads
        for i in 0..<300 {
            let call =
                switch i % 3 {
                case 0: client.beginList(.range) { _ in }
                case 1: client.beginList(.range) { $0.limit = 100 }
                default:
                    client.begin(
                        .txn,
                        Etcdserverpb_TxnRequest.with {
                            $0.success = [
                                .with {
                                    $0.requestRange = .with {
                                        $0.key = data("k")
                                        $0.rangeEnd = data("l")
                                    }
                                }
                            ]
                        })
                }
            client.facade.onCancelled(call)
        }
        client.loop.run()
        #expect(client.node.rangeReads - before <= 3)
    }

    @Test func `what waits for its turn is answered like what does not`() throws {
        var limits = FacadeLimits()
        limits.eagerBytes = 1
        let client = Client(limits)
        try client.fill(20, from: 10, valueBytes: 100)
        let calls = (0..<6).map { i in client.beginList(.range) { $0.limit = i < 3 ? 5 : 0 } }
        #expect(client.output.outcomes.count == 21)
        client.loop.run()
        for (i, call) in calls.enumerated() {
            let answer = try client.answer(call, as: Etcdserverpb_RangeResponse.self)
            #expect(answer.kvs.count == (i < 3 ? 5 : 20))
            #expect(answer.count == 20)
            #expect(answer.more == (i < 3))
        }
    }

    // MARK: Counts and transactions in pieces

    @Test(arguments: [1, 3, 500])
    func `a page of large rows and the count behind it are read in pieces`(rows: Int) throws {
        let client = try filled(40, rows: rows, bytes: 100)
        let page = try list(client, begin(client) { $0.limit = 9 })
        #expect(page.kvs.count == 9 && page.more && page.count == 40)
        let none = try list(client, begin(client) { $0.countOnly = true })
        #expect(none.kvs.isEmpty && !none.more && none.count == 40)
        let past = try list(client, begin(client) { ($0.countOnly, $0.revision) = (true, 11) })
        #expect(past.count == 10)
    }

    @Test func `a count that a compaction overtakes begins anew`() throws {
        let client = try filled(30)
        let call = begin(client) { $0.limit = 5 }
        try client.put("k10000", "changed")
        try client.put("k20000", "new")
        let _: Etcdserverpb_CompactionResponse = try client.call(
            .compact, Etcdserverpb_CompactionRequest.with { $0.revision = 33 })
        let found = try list(client, call)
        #expect(found.kvs.count == 5 && found.count == 31 && found.header.revision == 33)
    }

    private func reading(_ seed: Int) -> Etcdserverpb_TxnRequest {
        func ranges(_ salt: Int) -> [Etcdserverpb_RequestOp] {
            (0..<7).map { i in
                .with {
                    $0.requestRange = .with {
                        let n = (seed * 7 + i + salt) * 37
                        $0.key = data("k100\(n % 5)")
                        $0.rangeEnd = n % 4 == 0 ? Data() : data("k1003\(n % 9)")
                        $0.limit = Int64(n % 3 * 4)
                        $0.countOnly = n % 11 == 1
                        $0.keysOnly = n % 7 == 1
                        $0.revision = n % 13 == 1 ? 20 : 0
                        if n % 5 == 1 { ($0.sortOrder, $0.sortTarget) = (.descend, .value) }
                        if n % 6 == 1 { $0.minModRevision = 15 }
                    }
                }
            }
        }
        return .with {
            $0.compare = [.with { ($0.target, $0.key, $0.version) = (.version, data("k10000"), Int64(seed % 3)) }]
            $0.success = ranges(0)
            $0.success.append(
                .with {
                    $0.requestTxn = .with {
                        $0.success = ranges(100)
                        $0.success.append(.with { $0.requestTxn = .with { $0.success = [] } })
                    }
                })
            $0.failure = ranges(200)
        }
    }

    @Test func `a transaction that is read in steps is what one step gives`() throws {
        let whole = try filled(40, rows: 500, bytes: 1 << 20)
        let others = [try filled(40, rows: 1, bytes: 1), try filled(40, rows: 3, bytes: 120)]
        for seed in 0..<30 {
            let expected: Etcdserverpb_TxnResponse = try whole.call(.txn, reading(seed))
            for other in others {
                let found: Etcdserverpb_TxnResponse = try other.call(.txn, reading(seed))
                #expect(found == expected, "seed \(seed)")
            }
        }
    }

    @Test func `a transaction that is given up is not read on`() throws {
        let client = try filled(40, rows: 1)
        let call = client.begin(.txn, reading(1))
        client.facade.onCancelled(call)
        let before = client.node.rangeReads
        client.loop.run()
        #expect(client.node.rangeReads == before)
    }

    /// A hundred ranges of everything, in one request: more than there is memory for.
    @Test func `a transaction's answer needs memory too`() throws {
        let client = Client()
        try client.fill(10, from: 0, valueBytes: 20_000)
        client.output.roomBytes = 1 << 20
        let refused = client.failure(
            .txn,
            Etcdserverpb_TxnRequest.with {
                $0.success = (0..<100).map { _ in
                    .with {
                        $0.requestRange = .with {
                            $0.key = data("k")
                            $0.rangeEnd = data("l")
                        }
                    }
                }
            })
        #expect(refused?.text == "etcdserver: too many requests")
    }
}
