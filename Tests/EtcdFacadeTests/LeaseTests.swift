import EtcdAPI
import Foundation
import Primitives
import SwiftProtobuf
import Testing

@testable import EtcdFacade

@Suite struct LeaseTests {
    private func grant(_ client: Client, _ ttl: Int64, id: Int64 = 0) throws
        -> Etcdserverpb_LeaseGrantResponse
    {
        try client.call(
            .leaseGrant,
            Etcdserverpb_LeaseGrantRequest.with {
                $0.ttl = ttl
                $0.id = id
            })
    }

    private func keepAlive(_ client: Client, _ id: Int64, on call: CallReference) {
        client.send(Etcdserverpb_LeaseKeepAliveRequest.with { $0.id = id }, to: call)
    }

    private func answers(_ client: Client, _ call: CallReference) throws
        -> [Etcdserverpb_LeaseKeepAliveResponse]
    {
        try client.output.take(call).map {
            try Etcdserverpb_LeaseKeepAliveResponse(serializedBytes: $0)
        }
    }

    @Test func `the server chooses an id if the client does not, and raises short TTLs`() throws {
        let client = Client()
        let chosen = try grant(client, 60)
        #expect(chosen.id != 0)
        #expect(chosen.ttl == 60)
        #expect(chosen.header.revision == 1)
        #expect(try grant(client, 60, id: 5).id == 5)
        #expect(try grant(client, 0).ttl == 2)
        #expect(try grant(client, -3).ttl == 2)
        #expect(try grant(client, 1).ttl == 2)
        #expect(try grant(client, 9_000_000_000).ttl == 9_000_000_000)
    }

    @Test func `grants and revocations that etcd refuses are refused in its words`() throws {
        let client = Client()
        _ = try grant(client, 60, id: 5)
        func expect(_ error: EtcdError, _ outcome: Recorder.Outcome?) {
            #expect(outcome == Recorder.Outcome(status: error.status, text: error.text))
        }
        typealias Grant = Etcdserverpb_LeaseGrantRequest
        expect(
            .leaseTTLTooLarge, client.failure(.leaseGrant, Grant.with { $0.ttl = 9_000_000_001 }))
        expect(
            .leaseExists,
            client.failure(
                .leaseGrant,
                Grant.with {
                    $0.ttl = 9
                    $0.id = 5
                }))
        typealias Revoke = Etcdserverpb_LeaseRevokeRequest
        expect(.leaseNotFound, client.failure(.leaseRevoke, Revoke.with { $0.id = 6 }))
        expect(.leaseNotFound, client.failure(.leaseRevoke, Revoke()))
    }

    @Test func `revoking deletes the keys, time to live and the list tell`() throws {
        let client = Client()
        _ = try grant(client, 60, id: 5)
        try client.put("a", "1", lease: 5)
        typealias TTL = Etcdserverpb_LeaseTimeToLiveRequest
        let there: Etcdserverpb_LeaseTimeToLiveResponse = try client.call(
            .leaseTimeToLive,
            TTL.with {
                $0.id = 5
                $0.keys = true
            })
        #expect(there.ttl == 60 && there.grantedTtl == 60)
        #expect(there.keys == [data("a")])
        let list: Etcdserverpb_LeaseLeasesResponse = try client.call(
            .leaseLeases, Etcdserverpb_LeaseLeasesRequest())
        #expect(list.leases.map(\.id) == [5])
        let revoked: Etcdserverpb_LeaseRevokeResponse = try client.call(
            .leaseRevoke, Etcdserverpb_LeaseRevokeRequest.with { $0.id = 5 })
        #expect(revoked.header.revision == 3)
        #expect(try client.get("a").kvs.isEmpty)
        let gone: Etcdserverpb_LeaseTimeToLiveResponse = try client.call(
            .leaseTimeToLive, TTL.with { $0.id = 5 })
        #expect(gone.ttl == -1 && gone.grantedTtl == 0 && gone.id == 5)
    }

    @Test func `keep-alives are answered in the order of asking`() throws {
        let client = Client()
        for id in 1...4 { _ = try grant(client, Int64(10 * id), id: Int64(id)) }
        let call = client.open(.leaseKeepAlive)
        client.node.holdsAnswers = true
        for id in [3, 1, 99, 2] as [Int64] { keepAlive(client, id, on: call) }
        #expect(client.node.held.count == 4, "asked in parallel")
        client.node.releaseAnswers(reversed: true)
        let all = try answers(client, call)
        #expect(all.map(\.id) == [3, 1, 99, 2])
        #expect(all.map(\.ttl) == [30, 10, 0, 20])
        keepAlive(client, 4, on: call)
        #expect(try answers(client, call).map(\.ttl) == [40])
        client.facade.onHalfClose(call)
        #expect(client.output.outcomes[call]?.status == .ok)
    }

    @Test func `a half-closed keep-alive stream ends after its last answer`() throws {
        let client = Client()
        _ = try grant(client, 10, id: 1)
        let call = client.open(.leaseKeepAlive)
        client.node.holdsAnswers = true
        keepAlive(client, 1, on: call)
        client.facade.onHalfClose(call)
        #expect(client.output.outcomes[call] == nil)
        client.node.releaseAnswers()
        #expect(try answers(client, call).map(\.id) == [1])
        #expect(client.output.outcomes[call]?.status == .ok)
    }

    @Test func `a failed keep-alive ends its stream and frees what waited`() throws {
        let client = Client()
        let call = client.open(.leaseKeepAlive)
        client.node.holdsAnswers = true
        keepAlive(client, 1, on: call)
        keepAlive(client, 2, on: call)
        client.node.nextFailure = .timedOut
        keepAlive(client, 3, on: call)
        client.node.releaseAnswers(reversed: true)
        #expect(client.output.outcomes[call]?.text == "etcdserver: request timed out")
        #expect(client.node.cancelled.count == 2)
        #expect(client.facade.pending.count == 0)
    }
}
