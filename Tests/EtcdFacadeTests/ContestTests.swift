import EtcdAPI
import Primitives
import SwiftProtobuf
import Testing

@testable import EtcdFacade

@Suite struct ContestTests {
    private func lease(_ client: Client, _ ttl: Int64 = 60) throws -> Int64 {
        let answer: Etcdserverpb_LeaseGrantResponse = try client.call(
            .leaseGrant, Etcdserverpb_LeaseGrantRequest.with { $0.ttl = ttl })
        return answer.id
    }

    private func lock(_ client: Client, _ name: String, _ lease: Int64) -> CallReference {
        client.begin(
            .lock,
            V3lockpb_LockRequest.with {
                $0.name = data(name)
                $0.lease = lease
            })
    }

    private func locked(_ client: Client, _ call: CallReference) throws -> V3lockpb_LockResponse {
        try client.answer(call)
    }

    private func campaign(
        _ client: Client, _ name: String, _ lease: Int64, _ value: String
    ) -> CallReference {
        client.begin(
            .electionCampaign,
            V3electionpb_CampaignRequest.with {
                $0.name = data(name)
                $0.lease = lease
                $0.value = data(value)
            })
    }

    private func isOpen(_ client: Client, _ call: CallReference) -> Bool {
        client.output.outcomes[call] == nil
    }

    // MARK: Lock

    @Test func `the first to come has the lock, under its lease in hex`() throws {
        let client = Client()
        let lease = try lease(client)
        let answer = try locked(client, lock(client, "l", lease))
        #expect(text(answer.key) == "l/" + String(lease, radix: 16))
        #expect(answer.header.revision == 2)
        let row = try #require(try client.get("l/" + String(lease, radix: 16)).kvs.first)
        #expect(row.lease == lease)
        // The same lease again: it has the lock already.
        #expect(try locked(client, lock(client, "l", lease)).key == answer.key)
    }

    @Test func `the others wait in the order of their coming`() throws {
        let client = Client()
        let leases = try (0..<3).map { _ in try lease(client) }
        let first = try locked(client, lock(client, "l", leases[0]))
        let second = lock(client, "l", leases[1])
        let third = lock(client, "l", leases[2])
        #expect(isOpen(client, second) && isOpen(client, third))

        let unlocked: V3lockpb_UnlockResponse = try client.call(
            .unlock, V3lockpb_UnlockRequest.with { $0.key = first.key })
        let next = try locked(client, second)
        #expect(next.header.revision == unlocked.header.revision)
        #expect(isOpen(client, third))
        // Without a word: its lease is revoked.
        let _: Etcdserverpb_LeaseRevokeResponse = try client.call(
            .leaseRevoke, Etcdserverpb_LeaseRevokeRequest.with { $0.id = leases[1] })
        #expect(try text(locked(client, third).key).hasPrefix("l/"))
        #expect(client.facade.contests.isEmpty && client.facade.contests.count == 0)
    }

    @Test func `one that goes away in the middle of the queue lets nobody pass`() throws {
        let client = Client()
        let leases = try (0..<3).map { _ in try lease(client) }
        let first = try locked(client, lock(client, "l", leases[0]))
        let second = lock(client, "l", leases[1])
        let third = lock(client, "l", leases[2])
        client.facade.onCancelled(second)
        #expect(try client.get("l/", { $0.rangeEnd = data("l0") }).count == 2)
        #expect(isOpen(client, third))
        try client.delete(text(first.key))
        _ = try locked(client, third)
        #expect(client.facade.contests.count == 0)
        #expect(client.facade.pending.count == 0)
    }

    @Test func `a contender whose lease ends never acquires`() throws {
        let client = Client()
        let leases = try (0..<2).map { _ in try lease(client) }
        _ = try locked(client, lock(client, "l", leases[0]))
        let second = lock(client, "l", leases[1])
        let _: Etcdserverpb_LeaseRevokeResponse = try client.call(
            .leaseRevoke, Etcdserverpb_LeaseRevokeRequest.with { $0.id = leases[1] })
        #expect(
            client.output.outcomes[second]
                == .init(status: .unknown, text: "mutex: session is expired"))
        #expect(client.facade.contests.count == 0)
    }

    @Test func `holder and contender lose their leases at once: nobody acquires`() throws {
        let client = Client()
        let leases = try (0..<2).map { _ in try lease(client) }
        _ = try locked(client, lock(client, "l", leases[0]))
        let second = lock(client, "l", leases[1])
        client.node.holdsChanges = true
        for lease in leases {
            let _: Etcdserverpb_LeaseRevokeResponse = try client.call(
                .leaseRevoke, Etcdserverpb_LeaseRevokeRequest.with { $0.id = lease })
        }
        #expect(isOpen(client, second))
        client.node.loseHeldChanges()
        #expect(client.output.outcomes[second]?.text == "mutex: session is expired")
    }

    @Test func `a call given up before its key was put takes the key back`() throws {
        let client = Client()
        let lease = try lease(client)
        client.node.holdsAnswers = true
        let call = lock(client, "l", lease)
        client.facade.onCancelled(call)
        client.node.releaseAnswers()
        #expect(try client.get("l/", { $0.rangeEnd = data("l0") }).count == 0)
        #expect(client.facade.pending.count == 0)
    }

    @Test func `a lock without a lease gets one of a minute`() throws {
        let client = Client()
        let answer = try locked(client, lock(client, "l", 0))
        let row = try #require(try client.get(text(answer.key)).kvs.first)
        let life: Etcdserverpb_LeaseTimeToLiveResponse = try client.call(
            .leaseTimeToLive, Etcdserverpb_LeaseTimeToLiveRequest.with { $0.id = row.lease })
        #expect(life.grantedTtl == 60)
    }

    @Test func `errors are etcd's, without a status as there`() throws {
        let client = Client()
        #expect(
            client.failure(
                .lock,
                V3lockpb_LockRequest.with {
                    $0.name = data("l")
                    $0.lease = 99
                }) == .init(status: .unknown, text: "etcdserver: requested lease not found"))
        #expect(
            client.failure(.unlock, V3lockpb_UnlockRequest())
                == .init(status: .unknown, text: "etcdserver: key is not provided"))
        client.node.nextFailure = .noLeader
        #expect(
            client.failure(.lock, V3lockpb_LockRequest.with { $0.name = data("l") })
                == .init(status: .unavailable, text: "etcdserver: no leader"))
    }

    // MARK: Election

    @Test func `who is elected proclaims, resigns, and the next one leads`() throws {
        let client = Client()
        let leases = try (0..<2).map { _ in try lease(client) }
        let first: V3electionpb_CampaignResponse = try client.answer(
            campaign(client, "e", leases[0], "one"))
        #expect(first.leader.rev == first.header.revision)
        #expect(text(first.leader.name) == "e" && first.leader.lease == leases[0])
        let second = campaign(client, "e", leases[1], "two")
        #expect(isOpen(client, second))

        let _: V3electionpb_ProclaimResponse = try client.call(
            .electionProclaim,
            V3electionpb_ProclaimRequest.with {
                $0.leader = first.leader
                $0.value = data("uno")
            })
        let leader: V3electionpb_LeaderResponse = try client.call(
            .electionLeader, V3electionpb_LeaderRequest.with { $0.name = data("e") })
        #expect(text(leader.kv.value) == "uno" && leader.kv.createRevision == first.leader.rev)

        let resignation = V3electionpb_ResignRequest.with { $0.leader = first.leader }
        let _: V3electionpb_ResignResponse = try client.call(.electionResign, resignation)
        let elected: V3electionpb_CampaignResponse = try client.answer(second)
        #expect(elected.leader.lease == leases[1])
        // Twice does no harm, but does not proclaim either.
        let _: V3electionpb_ResignResponse = try client.call(.electionResign, resignation)
        #expect(
            client.failure(
                .electionProclaim,
                V3electionpb_ProclaimRequest.with { $0.leader = first.leader })
                == .init(status: .unknown, text: "election: not leader"))
    }

    @Test func `a campaign of the same lease with another value proclaims it`() throws {
        let client = Client()
        let lease = try lease(client)
        let first: V3electionpb_CampaignResponse = try client.answer(
            campaign(client, "e", lease, "one"))
        let again: V3electionpb_CampaignResponse = try client.answer(
            campaign(client, "e", lease, "two"))
        #expect(again.leader.rev == first.leader.rev)
        // As in etcd: the header is that of finding the key, not of the proclamation.
        #expect(again.header.revision == first.header.revision)
        #expect(try text(client.get(text(first.leader.key)).kvs[0].value) == "two")
    }

    @Test func `nobody leads, and no leader is named`() {
        let client = Client()
        #expect(
            client.failure(
                .electionLeader, V3electionpb_LeaderRequest.with { $0.name = data("e") })
                == .init(status: .unknown, text: "election: no leader"))
        for method in [RPCMethod.electionProclaim, .electionResign] {
            #expect(
                client.failure(method, V3electionpb_ResignRequest())
                    == .init(status: .unknown, text: "\"leader\" field must be provided"))
        }
    }

    private func observed(_ client: Client, _ call: CallReference) throws -> [String] {
        try client.output.take(call).map {
            let answer = try V3electionpb_LeaderResponse(serializedBytes: $0)
            #expect(answer.header.revision >= answer.kv.modRevision)
            return text(answer.kv.value)
        }
    }

    @Test func `an observer hears of every leader and proclamation, and of nothing else`() throws {
        let client = Client()
        let request = V3electionpb_LeaderRequest.with { $0.name = data("e/f") }
        let call = client.begin(.electionObserve, request)
        #expect(try observed(client, call).isEmpty)
        try client.put("e/f/1", "one")
        try client.put("e/f/2", "two")
        try client.put("e/f", "no key of it")
        try client.put("e/f0", "nor this")
        #expect(try observed(client, call) == ["one"])
        try client.put("e/f/1", "uno")
        try client.put("e/f/2", "dos")
        #expect(try observed(client, call) == ["uno"])
        try client.delete("e/f/1")
        #expect(try observed(client, call) == ["dos"])
        try client.delete("e/f/2")
        #expect(try observed(client, call).isEmpty)
        try client.put("e/f/3", "three")
        #expect(try observed(client, call) == ["three"])
        // One that comes later begins with who is in office.
        let late = client.begin(.electionObserve, request)
        #expect(try observed(client, late) == ["three"])
        client.facade.onCancelled(call)
        client.facade.onCancelled(late)
        #expect(client.facade.contests.isEmpty && client.facade.contests.count == 0)
    }

    @Test func `an observer hears of a leader that campaigned before the last proclamation`() throws {
        let client = Client()
        let call = client.begin(
            .electionObserve, V3electionpb_LeaderRequest.with { $0.name = data("e") })
        try client.put("e/1", "one")
        try client.put("e/2", "two")
        try client.put("e/1", "uno")
        try client.delete("e/1")
        #expect(try observed(client, call) == ["one", "uno", "two"])
    }

    @Test func `an observer that does not read hears the newest when it does`() throws {
        let client = Client()
        var limits = FacadeLimits()
        limits.bufferedBytesHigh = 10
        let slow = Client(limits)
        let call = slow.open(.electionObserve)
        slow.output.slow = [call]
        slow.send(V3electionpb_LeaderRequest.with { $0.name = data("e") }, to: call)
        for number in 1...5 { try slow.put("e/1", "\(number)") }
        #expect(try observed(slow, call) == ["1"])
        slow.output.drain(call)
        slow.facade.onWritable(call)
        #expect(try observed(slow, call) == ["5"])
        _ = client
    }
}
