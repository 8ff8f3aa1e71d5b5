import EtcdAPI
import Foundation
import NIOEmbedded
import Primitives
import SwiftProtobuf
import Testing

@testable import EtcdFacade

@Suite struct RangeStreamTests {
    private typealias Part = Etcdserverpb_RangeStreamResponse

    private func filled(_ count: Int, limits: FacadeLimits = FacadeLimits()) throws -> Client {
        let client = Client(limits)
        try client.fill(count, from: 1_000, valueBytes: 100)
        return client
    }

    private func begin(
        _ client: Client, _ change: (inout Etcdserverpb_RangeRequest) -> Void = { _ in }
    ) -> CallReference { client.beginList(.rangeStream, change) }

    private func parts(_ client: Client, _ call: CallReference) throws -> [Etcdserverpb_RangeResponse] {
        client.loop.run()
        return try client.output.take(call).map { try Part(serializedBytes: $0).rangeResponse }
    }

    @Test func `a list comes in parts that grow, and only the last has a header and the count`() throws {
        let client = try filled(100)
        let call = begin(client)
        let parts = try parts(client, call)
        #expect(parts.map(\.kvs.count) == [10, 20, 40, 30])
        #expect(parts.map(\.hasHeader) == [false, false, false, true])
        #expect(parts.map(\.count) == [0, 0, 0, 100])
        #expect(parts.flatMap { $0.kvs.map { text($0.key) } } == (0..<100).map { "k\(1000 + $0)" })
        #expect(parts.last?.header.revision == 101 && parts.allSatisfy { !$0.more })
        #expect(client.output.outcomes[call] == Recorder.Outcome(status: .ok, text: ""))
    }

    @Test func `all parts are of one revision`() throws {
        let client = try filled(30)
        let call = begin(client)
        try client.put("k1000", "changed")
        try client.delete("k1029")
        let parts = try parts(client, call)
        #expect(parts.reduce(0) { $0 + $1.kvs.count } == 30)
        #expect(parts.last?.header.revision == 31)
    }

    @Test func `a limit ends it, with more and the whole count`() throws {
        let client = try filled(50)
        let parts = try parts(client, begin(client) { $0.limit = 25 })
        #expect(parts.map(\.kvs.count) == [10, 15])
        #expect(parts[1].more && parts[1].count == 50)
        let exact = try self.parts(client, begin(client) { $0.limit = 50 })
        #expect(exact.last?.more == false && exact.last?.count == 50)
    }

    @Test func `count_only and nothing found are one message`() throws {
        let client = try filled(20)
        let counted = try parts(client, begin(client) { $0.countOnly = true })
        #expect(counted.count == 1 && counted[0].count == 20 && counted[0].kvs.isEmpty)
        let none = try parts(client, begin(client) { $0.key = data("kz") })
        #expect(none.count == 1 && none[0].hasHeader && none[0].count == 0)
    }

    @Test func `a client that does not read is waited for`() throws {
        var limits = FacadeLimits()
        limits.bufferedBytesHigh = 2_000
        let client = try filled(100, limits: limits)
        let call = client.open(.rangeStream)
        client.output.slow.insert(call)
        client.send(
            Etcdserverpb_RangeRequest.with {
                $0.key = data("k")
                $0.rangeEnd = data("l")
            }, to: call)
        #expect(try parts(client, call).map(\.kvs.count) == [10, 20])
        #expect(client.output.outcomes[call] == nil)
        client.output.drain(call)
        client.output.slow = []
        client.facade.onWritable(call)
        #expect(try parts(client, call).map(\.kvs.count) == [40, 30])
        #expect(client.output.outcomes[call]?.status == .ok)
    }

    @Test func `parts stay near the size of a request`() throws {
        var limits = FacadeLimits()
        limits.requestBytesMax = 2_000
        let client = try filled(100, limits: limits)
        let sizes = try parts(client, begin(client)).map(\.kvs.count)
        #expect(sizes.dropFirst(2).dropLast().allSatisfy { (5...40).contains($0) }, "\(sizes)")
    }

    @Test func `orders and filters are refused as etcd refuses them`() throws {
        let client = Client()
        func failure(_ change: (inout Etcdserverpb_RangeRequest) -> Void) -> Recorder.Outcome? {
            let call = begin(client, change)
            return client.output.outcomes[call]
        }
        let order = Recorder.Outcome(
            status: .unimplemented, text: "RangeStream does not support custom sort orders")
        #expect(failure { $0.sortOrder = .descend } == order)
        #expect(failure { $0.sortTarget = .mod } == order)
        #expect(
            failure { $0.minModRevision = 3 }
                == Recorder.Outcome(
                    status: .unimplemented, text: "RangeStream does not support revision filters"))
        #expect(failure { $0.key = Data() }?.text == EtcdError.emptyKey.text)
        #expect(failure { $0.revision = 99 }?.text == EtcdError.futureRevision.text)
    }

    @Test func `a call that has gone reads nothing more`() throws {
        let client = try filled(100)
        let call = begin(client)
        client.facade.onCancelled(call)
        #expect(try parts(client, call).count == 1)
    }
}
