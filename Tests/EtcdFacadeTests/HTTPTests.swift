import EtcdAPI
import Foundation
import NIOEmbedded
import Primitives
import SwiftProtobuf
import Testing

@testable import EtcdFacade

@Suite struct HTTPTests {
    private final class Box { var response: HTTPResponse? }

    private func ask(_ client: Client, _ target: String, method: String = "GET") -> HTTPResponse? {
        let box = Box()
        client.facade.onHTTP(HTTPRequest(method: method, target: target)) { response in
            #expect(box.response == nil)
            box.response = response
        }
        return box.response
    }

    private func text(_ client: Client, _ target: String, status: Int = 200) -> String {
        let response = ask(client, target)
        #expect(response?.status == status, "\(target)")
        return response?.body.description ?? ""
    }

    private func json(_ text: String) throws -> [String: Any] {
        try #require(JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
    }

    @Test func `health speaks etcd's JSON`() {
        let client = Client()
        #expect(text(client, "/health") == #"{"health":"true","reason":""}"#)
        #expect(client.node.linearizableReads == 1)
        #expect(
            text(client, "/health?serializable=true&exclude=NOSPACE")
                == #"{"health":"true","reason":""}"#)
        #expect(client.node.linearizableReads == 1)
        client.node.nextFailure = .timedOut
        #expect(
            text(client, "/health", status: 503)
                == #"{"health":"false","reason":"RANGE ERROR:etcdserver: request timed out"}"#
                + "\n")
        client.facade.onLeaderChanged(hasLeader: false)
        #expect(
            text(client, "/health", status: 503)
                == #"{"health":"false","reason":"RAFT NO LEADER"}"# + "\n")
        #expect(ask(client, "/health", method: "POST")?.status == 405)
    }

    @Test func `an alarm is bad health, unless it is excluded`() {
        let client = Client()
        client.node.picture.alarms = [
            Alarm(memberID: 7, kind: .noSpace), Alarm(memberID: 7, kind: .corrupt),
        ]
        func health(_ query: String) -> String {
            ask(client, "/health" + query)?.body.description ?? ""
        }
        #expect(health("") == #"{"health":"false","reason":"ALARM NOSPACE"}"# + "\n")
        #expect(ask(client, "/health")?.status == 503)
        #expect(
            health("?exclude=NOSPACE&serializable=true")
                == #"{"health":"false","reason":"ALARM CORRUPT"}"# + "\n")
        #expect(health("?exclude=NOSPACE&exclude=CORRUPT") == #"{"health":"true","reason":""}"#)
        #expect(
            text(client, "/readyz", status: 503).contains(
                "[-]data_corruption failed: alarm activated: CORRUPT\n"))
        #expect(text(client, "/readyz?exclude=data_corruption") == "ok\n")
        #expect(text(client, "/livez") == "ok\n")
    }

    @Test func `what is not there is not there for any method`() {
        let client = Client()
        #expect(ask(client, "/v3alpha/kv/range", method: "POST")?.status == 404)
        #expect(ask(client, "/metrics", method: "POST")?.status == 200)
        let refusal = ask(client, "/version", method: "POST")
        #expect(refusal?.status == 405)
        #expect(refusal?.headers.contains { $0 == ("allow", "GET") } == true)
        #expect(refusal?.headers.contains { $0 == ("x-content-type-options", "nosniff") } == true)
    }

    @Test func `slow calls are told of, but not too many, and measured if asked for`() throws {
        let client = Client()
        var told: [SlowCall] = []
        client.facade.onSlowCall = { told.append($0) }
        client.node.holdsAnswers = true
        let calls = (0..<6).map { _ in
            client.begin(.put, Etcdserverpb_PutRequest.with { $0.key = data("a") })
        }
        client.node.now = client.node.now.advanced(by: .milliseconds(200))
        client.node.releaseAnswers()
        #expect(calls.allSatisfy { client.output.outcomes[$0]?.status == .ok })
        #expect(told.count == 3)
        #expect(told.first?.kind == .keys && told.first?.path == "/etcdserverpb.KV/Put")
        #expect(told.first?.took == .milliseconds(200) && told.first?.isFine == true)
        #expect(text(client, "/metrics").contains("\netcd_server_slow_apply_total 6\n"))
        client.node.holdsAnswers = false
        try client.put("b")
        #expect(told.count == 3)
    }

    @Test func `livez and readyz list their checks when asked to`() {
        let client = Client()
        #expect(text(client, "/livez") == "ok\n")
        #expect(text(client, "/livez?verbose") == "[+]serializable_read ok\nok\n")
        #expect(text(client, "/livez/serializable_read") == "ok\n")
        #expect(text(client, "/readyz") == "ok\n")
        #expect(
            text(client, "/readyz?verbose")
                == "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n"
                + "[+]non_learner ok\n[+]disk_speed ok\nok\n"
        )
        #expect(text(client, "/readyz/linearizable_read") == "ok\n")
        client.node.nextFailure = .noLeader
        #expect(
            text(client, "/readyz", status: 503).contains(
                "[-]linearizable_read failed: etcdserver: no leader\n"))
        #expect(text(client, "/readyz?exclude=linearizable_read") == "ok\n")
        client.node.picture.isDiskSlow = true
        #expect(
            text(client, "/readyz", status: 503).contains("[-]disk_speed failed: the disk is slower than the others'\n"))
        #expect(text(client, "/livez") == "ok\n" && text(client, "/readyz?exclude=disk_speed") == "ok\n")
        #expect(ask(client, "/readyz/nonsense")?.status == 404)
        #expect(ask(client, "/nowhere")?.status == 404)
    }

    @Test func `version names etcd's`() throws {
        let version = try json(text(Client(), "/version"))
        #expect(version["etcdserver"] as? String == "3.7.0")
        #expect(version["etcdcluster"] as? String == "3.7.0")
    }

    @Test func `metrics are Prometheus text with etcd's names and ours`() throws {
        let client = Client()
        client.node.picture.geoLinks = [
            NodeStatus.GeoLink(origin: "r2", isConnected: true, lagSeconds: 0.25, lagRevisions: 7)
        ]
        client.node.picture.conflicts = [.init(policy: "last-writer-wins", total: 3)]
        client.node.picture.partitions = [
            NodeStatus.Partition(
                id: PartitionID(1), range: .all, leader: NodeID(2), term: .zero, decided: Slot(9),
                applied: Slot(8), replicas: [NodeID(1), NodeID(2)])
        ]
        try client.put("a")
        _ = client.failure(.put, Etcdserverpb_PutRequest())
        func handled(_ code: String) -> String {
            #"grpc_server_handled_total{grpc_code="\#(code)",grpc_method="Put","#
                + #"grpc_service="etcdserverpb.KV",grpc_type="unary"} 1"#
        }
        let lines = Set(text(client, "/metrics").split(separator: "\n").map(String.init))
        for line in [
            "etcd_server_has_leader 1", "etcd_server_is_leader 1",
            "etcd_debugging_mvcc_current_revision 2", "etcd_mvcc_put_total 1",
            "polder_frontier_revision 2", #"polder_partition_leader{partition="1"} 2"#,
            #"polder_geo_lag_seconds{origin="r2"} 0.25"#,
            #"polder_geo_lag_revisions{origin="r2"} 7"#,
            #"polder_conflicts_total{policy="last-writer-wins"} 3"#,
            handled("OK"),
            handled("InvalidArgument"),
        ] { #expect(lines.contains(line), "\(line)") }
        let shape = try Regex(
            #"^(# (HELP|TYPE) \S+ .+|[a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? [-+0-9.e]+)$"#
        )
        for line in lines { #expect(line.wholeMatch(of: shape) != nil, "\(line)") }
        func value(_ name: String) -> Double {
            lines.first { $0.hasPrefix(name + " ") }.flatMap {
                Double($0.dropFirst(name.count + 1))
            } ?? 0
        }
        #expect(value("process_cpu_seconds_total") > 0)
        #expect(value("process_resident_memory_bytes") > 1_000_000)
        #expect(value("process_open_fds") > 0)
    }

    @Test func `metrics of peers, of work in the background and of transactions`() throws {
        let client = Client()
        var peer = NodeStatus.PeerTraffic(id: 0xA2, isConnected: true)
        peer.sendFailures = 3
        peer.roundTrips.note(nanoseconds: 100_000)
        client.node.picture.peers = [peer]
        client.node.picture.capacityBytes = 1 << 30
        client.node.picture.isLearner = true
        client.node.picture.compaction.pieces.note(nanoseconds: 3_000_000)
        client.node.picture.alarms = [Alarm(memberID: 0xA1, kind: .noSpace)]
        let _: Etcdserverpb_TxnResponse = try client.call(
            .txn,
            Etcdserverpb_TxnRequest.with {
                $0.success = [
                    .with { $0.requestPut = .with { $0.key = data("a") } },
                    .with { $0.requestPut = .with { $0.key = data("b") } },
                    .with { $0.requestRange = .with { $0.key = data("c") } },
                ]
            })
        let _: Etcdserverpb_LeaseGrantResponse = try client.call(
            .leaseGrant, Etcdserverpb_LeaseGrantRequest.with { $0.ttl = 60 })
        _ = ask(client, "/readyz")
        // Keys are counted in the background.
        _ = text(client, "/metrics")
        client.loop.run()
        let lines = Set(text(client, "/metrics").split(separator: "\n").map(String.init))
        for line in [
            #"etcd_network_peer_sent_failures_total{To="a2"} 3"#,
            #"etcd_network_peer_round_trip_time_seconds_bucket{To="a2",le="6.4e-05"} 0"#,
            #"etcd_network_peer_round_trip_time_seconds_bucket{To="a2",le="0.000128"} 1"#,
            #"etcd_network_peer_round_trip_time_seconds_count{To="a2"} 1"#,
            #"etcd_network_active_peers{Local="a1",Remote="a2"} 1"#,
            "etcd_server_quota_backend_bytes 1073741824", "etcd_server_is_learner 1",
            #"etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds_bucket{le="4.096"} 1"#,
            "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds_sum 3.0",
            "etcd_mvcc_put_total 2", "etcd_debugging_mvcc_put_total 2", "etcd_mvcc_range_total 1",
            "etcd_mvcc_txn_total 1", "etcd_debugging_mvcc_keys_total 2",
            #"etcd_debugging_lease_ttl_total_bucket{le="32"} 0"#,
            #"etcd_debugging_lease_ttl_total_bucket{le="64"} 1"#,
            #"etcd_server_client_requests_total{client_api_version="unknown",type="unary"} 2"#,
            #"etcd_debugging_server_alarms{alarm_type="NOSPACE",server_id="a1"} 1"#,
            #"etcd_server_healthcheck{name="non_learner",type="/readyz"} 0"#,
            #"etcd_server_healthchecks_total{name="serializable_read",status="success",type="/readyz"} 1"#,
            #"grpc_server_msg_received_total{grpc_method="Txn",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1"#,
            #"grpc_server_msg_sent_total{grpc_method="Txn",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1"#,
        ] { #expect(lines.contains(line), "\(line)") }
    }

    @Test func `open calls are shown to those who log everything`() throws {
        let client = Client()
        #expect(ask(client, "/debug/requests")?.status == 404)
        client.facade.access.showsRequests = true
        _ = client.open(.watch)
        let page = text(client, "/debug/requests")
        #expect(page.contains("1 open calls"))
        #expect(page.contains("<td>/etcdserverpb.Watch/Watch</td><td>watches: 0</td>"))
    }

    @Test func `status shows regions, nodes, partitions and the sequencer`() throws {
        let client = Client()
        client.node.picture.partitions = [
            NodeStatus.Partition(
                id: PartitionID(1), range: .all, leader: NodeID(2), term: .zero, decided: Slot(9),
                applied: Slot(8), replicas: [NodeID(1), NodeID(2)])
        ]
        client.node.picture.problems = ["slow \"disk\"\n"]
        let status = try json(text(client, "/polder/status"))
        let sequencer = try #require(status["sequencer"] as? [String: Any])
        #expect(sequencer["node"] as? String == "r1-n1")
        let regions = try #require(status["regions"] as? [[String: Any]])
        #expect(regions.first?["name"] as? String == "r1")
        let nodes = try #require(regions.first?["nodes"] as? [[String: Any]])
        #expect(nodes.map { $0["health"] as? String } == ["healthy", "unreachable"])
        let partitions = try #require(status["partitions"] as? [[String: Any]])
        #expect(partitions.first?["leader"] as? String == "r1-n2")
        #expect(partitions.first?["applied"] as? Int == 8)
        #expect(partitions.first?["replicas"] as? [String] == ["r1-n1", "r1-n2"])
        #expect(partitions.first?["range"] as? String == "0000000000000000-ffffffffffffffff")
        #expect(status["problems"] as? [String] == ["slow \"disk\"\n"])
        client.node.picture.sequencer = nil
        #expect(try json(text(client, "/polder/status"))["sequencer"] is NSNull)
    }

    @Test func `the conflict feed is bounded by the caller`() throws {
        let client = Client()
        let origin = Origin(
            region: RegionID(2), revision: Revision(5), stamp: Stamp(ticks: 77, region: RegionID(2))
        )
        client.node.conflictReports = (0..<5).map {
            ConflictReport(
                key: Bytes("k\($0)"), policy: "last-writer-wins", revision: Revision(9),
                winner: origin,
                loser: origin, loserValue: Bytes([0xFF, 0, 1, 2]), loserIsDeletion: false)
        }
        let all = try json(text(client, "/polder/conflicts"))["conflicts"] as? [[String: Any]]
        #expect(all?.count == 5)
        #expect(all?.first?["loserValue"] as? String == "/wABAg==")
        #expect(all?.first?["keyText"] as? String == "k0")
        let two = try json(text(client, "/polder/conflicts?limit=2"))["conflicts"] as? [Any]
        #expect(two?.count == 2)
    }

    @Test func `base64 pads as everybody does`() {
        for count in 0..<40 {
            let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 97) }
            #expect(base64(Bytes(bytes)) == Data(bytes).base64EncodedString())
        }
    }
}
