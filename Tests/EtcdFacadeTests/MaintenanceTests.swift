import EtcdAPI
import Foundation
import Primitives
import SwiftProtobuf
import Testing

@testable import EtcdFacade

@Suite struct MaintenanceTests {
    @Test func `status carries a version that Kubernetes trusts`() throws {
        let client = Client()
        client.node.picture.storeBytes = 4096
        client.node.picture.storeBytesInUse = 1024
        client.node.picture.decidedIndex = 12
        client.node.picture.appliedIndex = 11
        let status: Etcdserverpb_StatusResponse = try client.call(
            .status, Etcdserverpb_StatusRequest())
        let parts = status.version.split(separator: ".").compactMap { Int($0) }
        #expect(parts.count == 3)
        #expect(parts[0] == 3 && parts[1] >= 6)
        #expect(status.dbSize == 4096)
        #expect(status.dbSizeInUse == 1024)
        #expect(status.leader == 0xA1)
        #expect(status.raftIndex == 12)
        #expect(status.raftAppliedIndex == 11)
        #expect(status.raftTerm == 3)
        #expect(status.errors.isEmpty)
        #expect(status.hasDowngradeInfo)
        client.node.picture.sequencer = nil
        client.node.picture.sequencerMemberID = 0
        let lost: Etcdserverpb_StatusResponse = try client.call(
            .status, Etcdserverpb_StatusRequest())
        #expect(lost.errors == ["etcdserver: no leader"])
        #expect(lost.leader == 0)
    }

    @Test func `hashes are of a revision, and refuse what is not there`() throws {
        let client = Client()
        for _ in 0..<4 { try client.put("a") }
        typealias Hash = Etcdserverpb_HashKVRequest
        let now: Etcdserverpb_HashKVResponse = try client.call(.hashKV, Hash())
        #expect(now.compactRevision == -1)
        #expect(now.hashRevision == 5)
        let then: Etcdserverpb_HashKVResponse = try client.call(
            .hashKV, Hash.with { $0.revision = 3 })
        #expect(then.hash != now.hash)
        #expect(then.header.revision == 5)
        let _: Etcdserverpb_CompactionResponse = try client.call(
            .compact, Etcdserverpb_CompactionRequest.with { $0.revision = 4 })
        #expect(
            client.failure(.hashKV, Hash.with { $0.revision = 3 })?.text == EtcdError.compacted.text
        )
        #expect(
            client.failure(.hashKV, Hash.with { $0.revision = 9 })?.text
                == EtcdError.futureRevision.text)
        let whole: Etcdserverpb_HashResponse = try client.call(.hash, Etcdserverpb_HashRequest())
        #expect(whole.hash == now.hash)
    }

    @Test func `a hash that takes its time outlives the client's half-close, and not its leaving`() throws {
        let client = Client()
        client.node.holdsHashes = true
        let call = client.open(.hashKV)
        client.send(Etcdserverpb_HashKVRequest(), to: call)
        client.facade.onHalfClose(call)
        #expect(client.output.outcomes[call] == nil)
        client.node.heldHashes[0]()
        #expect(client.output.outcomes[call]?.status == .ok)

        let gone = client.open(.hashKV)
        client.send(Etcdserverpb_HashKVRequest(), to: gone)
        client.facade.onCancelled(gone)
        client.node.heldHashes[1]()
        #expect(client.output.outcomes[gone] == nil)
    }

    @Test func `alarms are none, defragmentation answers at once`() throws {
        let client = Client()
        let alarms: Etcdserverpb_AlarmResponse = try client.call(
            .alarm, Etcdserverpb_AlarmRequest())
        #expect(alarms.alarms.isEmpty)
        #expect(alarms.hasHeader)
        let _: Etcdserverpb_DefragmentResponse = try client.call(
            .defragment, Etcdserverpb_DefragmentRequest())
        #expect(client.node.reclaims == 1)
    }

    @Test func `alarms are raised, listed by kind, and taken back`() throws {
        let client = Client()
        func ask(
            _ action: Etcdserverpb_AlarmRequest.AlarmAction, _ kind: Etcdserverpb_AlarmType,
            member: UInt64 = 7
        ) throws -> [UInt64] {
            let request = Etcdserverpb_AlarmRequest.with {
                $0.action = action
                $0.alarm = kind
                $0.memberID = member
            }
            let answer: Etcdserverpb_AlarmResponse = try client.call(.alarm, request)
            return answer.alarms.map(\.memberID)
        }
        #expect(try ask(.activate, .nospace) == [7])
        #expect(try ask(.activate, .nospace) == [7])
        #expect(try ask(.get, .none) == [7])
        #expect(try ask(.get, .nospace, member: 99) == [7])
        #expect(try ask(.get, .corrupt) == [])
        let status: Etcdserverpb_StatusResponse = try client.call(
            .status, Etcdserverpb_StatusRequest())
        #expect(status.errors == ["memberID:7 alarm:NOSPACE "])
        #expect(try ask(.deactivate, .none) == [])
        #expect(try ask(.deactivate, .nospace, member: 8) == [])
        #expect(try ask(.deactivate, .nospace) == [7])
        #expect(try ask(.get, .none) == [])
        #expect(try ask(.activate, .corrupt) == [7])
        #expect(try ask(.get, .corrupt) == [7])
        #expect(try ask(.deactivate, .corrupt) == [7])
    }

    @Test(arguments: [
        (0, "", "wrong downgrade target version format"),
        (0, "3", "wrong downgrade target version format"),
        (0, "x.y.z", "wrong downgrade target version format"),
        (0, "2.0.0", "invalid downgrade target version"),
        (0, "3.5.0", "invalid downgrade target version"),
        (0, "3.7.0", "invalid downgrade target version"),
        (1, "9.9.9", "invalid downgrade target version"), (1, "3.6.0", "nothing to downgrade"),
    ])
    func `downgrading is answered as by a modern etcd`(_ row: (Int, String, String)) {
        let client = Client()
        let outcome = client.failure(
            .downgrade,
            Etcdserverpb_DowngradeRequest.with {
                $0.action = .init(rawValue: row.0) ?? .validate
                $0.version = row.1
            })
        #expect(outcome?.text.hasSuffix(row.2) == true, "\(String(describing: outcome))")
    }

    @Test func `a valid target of a downgrade is confirmed, and cancelling nothing is no error`() throws {
        let client = Client()
        let valid: Etcdserverpb_DowngradeResponse = try client.call(
            .downgrade, Etcdserverpb_DowngradeRequest.with { $0.version = "3.6" })
        #expect(valid.version == "3.7.0" && valid.hasHeader)
        let cancelled: Etcdserverpb_DowngradeResponse = try client.call(
            .downgrade, Etcdserverpb_DowngradeRequest.with { $0.action = .cancel })
        #expect(cancelled.version == "3.7.0")
    }

    @Test func `the leader moves to another member, and only the leader moves it`() throws {
        let client = Client()
        typealias Move = Etcdserverpb_MoveLeaderRequest
        let stranger = client.failure(.moveLeader, Move.with { $0.targetID = 0xFF })
        #expect(stranger?.status == .failedPrecondition)
        #expect(stranger?.text == "etcdserver: bad leader transferee")
        client.node.nextFailure = .timedOut
        #expect(
            client.failure(.moveLeader, Move.with { $0.targetID = 0xA2 })?.text
                == "etcdserver: request timed out, leader transfer took too long")
        let moved: Etcdserverpb_MoveLeaderResponse = try client.call(
            .moveLeader, Move.with { $0.targetID = 0xA2 })
        #expect(!moved.hasHeader)
        #expect(client.node.picture.sequencer == NodeID(2))
        let again = client.failure(.moveLeader, Move.with { $0.targetID = 0xA1 })
        #expect(again?.status == .failedPrecondition)
        #expect(again?.text == "etcdserver: not leader")
    }

    @Test func `the member list names all members`() throws {
        let client = Client()
        let list: Etcdserverpb_MemberListResponse = try client.call(
            .memberList, Etcdserverpb_MemberListRequest.with { $0.linearizable = true })
        #expect(list.members.map(\.name) == ["r1-n1", "r1-n2"])
        #expect(list.members.map(\.id) == [0xA1, 0xA2])
        #expect(list.members[0].clientUrls == ["http://127.0.0.1:2379"])
        #expect(list.members[0].peerUrls == ["http://127.0.0.1:2380"])
        #expect(list.header.clusterID == 0xC1)
        #expect(list.header.revision == 0)
        #expect(client.node.requests == [.members(.list)])
        client.node.nextFailure = .noLeader
        #expect(
            client.failure(.memberList, Etcdserverpb_MemberListRequest())?.text
                == "etcdserver: no leader")
    }

    @Test func `members are added, updated, promoted and removed with etcd's answers`() throws {
        let client = Client()
        let added: Etcdserverpb_MemberAddResponse = try client.call(
            .memberAdd,
            Etcdserverpb_MemberAddRequest.with {
                $0.peerUrls = ["http://10.0.0.9:2380"]
                $0.isLearner = true
            })
        #expect(added.member.isLearner && added.member.name.isEmpty && added.members.count == 3)
        #expect(added.members.contains { $0.id == added.member.id })
        func failure(_ method: RPCMethod, id: UInt64 = 0, urls: [String] = [], learner: Bool = false)
            -> String?
        {
            switch method {
            case .memberAdd:
                client.failure(method, Etcdserverpb_MemberAddRequest.with {
                    $0.peerUrls = urls
                    $0.isLearner = learner
                })?.text
            case .memberUpdate:
                client.failure(method, Etcdserverpb_MemberUpdateRequest.with {
                    $0.id = id
                    $0.peerUrls = urls
                })?.text
            default:
                client.failure(method, Etcdserverpb_MemberRemoveRequest.with { $0.id = id })?.text
            }
        }
        #expect(
            failure(.memberAdd, urls: ["http://10.0.0.9:2380"])
                == "etcdserver: Peer URLs already exists")
        #expect(
            failure(.memberAdd, urls: ["http://10.0.0.8:2380"], learner: true)
                == "etcdserver: too many learner members in cluster")
        #expect(failure(.memberAdd, urls: ["nothing"]) == "etcdserver: given member URLs are invalid")
        #expect(failure(.memberRemove, id: 7) == "etcdserver: member not found")
        #expect(failure(.memberPromote, id: 0xA1) == "etcdserver: can only promote a learner member")
        #expect(
            failure(.memberPromote, id: added.member.id)
                == "etcdserver: can only promote a learner member which is in sync with leader")
        let removed: Etcdserverpb_MemberRemoveResponse = try client.call(
            .memberRemove, Etcdserverpb_MemberRemoveRequest.with { $0.id = added.member.id })
        #expect(removed.members.map(\.id) == [0xA1, 0xA2])
        // The first that is added has not started: a second would leave no majority.
        let _: Etcdserverpb_MemberAddResponse = try client.call(
            .memberAdd, Etcdserverpb_MemberAddRequest.with { $0.peerUrls = ["http://10.0.0.7:1"] })
        #expect(
            failure(.memberAdd, urls: ["http://10.0.0.5:1"])
                == "etcdserver: re-configuration failed due to not enough started members")
    }

    @Test func `gRPC health says serving, once or as a stream`() throws {
        let client = Client()
        typealias Check = Grpc_Health_V1_HealthCheckRequest
        let check: Grpc_Health_V1_HealthCheckResponse = try client.call(.healthCheck, Check())
        #expect(check.status == .serving)
        #expect(
            client.failure(.healthCheck, Check.with { $0.service = "x" })
                == Recorder.Outcome(status: .notFound, text: "unknown service"))
        let call = client.begin(.healthWatch, Check())
        #expect(client.output.outcomes[call] == nil)
        let seen = try client.output.take(call).map {
            try Grpc_Health_V1_HealthCheckResponse(serializedBytes: $0)
        }
        #expect(seen.map(\.status) == [.serving])
    }

    @Test func `authentication is off, and says so`() throws {
        let client = Client()
        let status: Etcdserverpb_AuthStatusResponse = try client.call(
            .authStatus, Etcdserverpb_AuthStatusRequest())
        #expect(!status.enabled)
        #expect(status.authRevision == 1)
    }
}
