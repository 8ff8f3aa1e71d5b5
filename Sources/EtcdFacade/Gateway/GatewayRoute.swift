import EtcdAPI
import Foundation
import Primitives
import SwiftProtobuf

/// One path of etcd's JSON gateway: the method that it stands for, and how its messages are turned from
/// JSON into protobuf and back. The calls themselves take the way of every call.
struct GatewayRoute: Sendable {
    /// What SwiftProtobuf says of a request that is not JSON, or not this message's.
    struct BadJSON: Error { let text: String }

    let method: RPCMethod
    /// Answers come one a line, each in an object of its own.
    let isStream: Bool
    /// The client may go on asking.
    let takesMany: Bool
    private let decode: @Sendable (Bytes) throws -> [UInt8]
    private let encode: @Sendable (Bytes) throws -> [UInt8]

    init<Request: Message, Response: Message>(
        _ method: RPCMethod, _: Request.Type, _: Response.Type, isStream: Bool = false,
        takesMany: Bool = false
    ) {
        self.method = method
        self.isStream = isStream
        self.takesMany = takesMany
        decode = { json in
            let message = try Request(jsonUTF8Bytes: json.array, options: Self.decoding)
            return try message.serializedBytes()
        }
        encode = { bytes in
            let message = try Response(serializedBytes: bytes.array, options: Self.reading)
            return try message.jsonUTF8Bytes(options: Self.encoding)
        }
    }

    /// As grpc-gateway reads: what is not known is passed over.
    private static let decoding: JSONDecodingOptions = {
        var options = JSONDecodingOptions()
        options.ignoreUnknownFields = true
        options.messageDepthLimit = depthMax
        return options
    }()

    private static let reading: BinaryDecodingOptions = {
        var options = BinaryDecodingOptions()
        options.messageDepthLimit = depthMax
        return options
    }()

    /// A transaction takes two levels for each one that it is nested, and an operation of its budget.
    private static let depthMax = 300

    /// As it writes: names as in the .proto files, 64-bit numbers as strings, nothing for defaults.
    private static let encoding: JSONEncodingOptions = {
        var options = JSONEncodingOptions()
        options.preserveProtoFieldNames = true
        return options
    }()

    func request(_ json: Bytes) throws(BadJSON) -> Bytes {
        do {
            return Bytes(try decode(json))
        } catch let error as JSONDecodingError {
            throw BadJSON(text: "invalid JSON for \(method): \(error)")
        } catch {
            throw BadJSON(text: "invalid JSON for \(method)")
        }
    }

    /// Nil: the facade answered something that is not the method's message.
    func answer(_ message: Bytes) -> [UInt8]? { try? encode(message) }
}

extension GatewayRoute {
    /// Where a request's target leads: without query and slash at the end, and with the name that the
    /// API had before version 3.4.
    static func path(of target: String) -> String {
        let path = String(target.prefix { $0 != "?" })
        return path.hasPrefix("/v3beta/") ? "/v3/" + path.dropFirst("/v3beta/".count) : path
    }

    /// By path, all of etcd's (etcd-surface.md).
    static let all: [String: GatewayRoute] = {
        var all = keyValues
        for part in [leases, cluster, maintenance, auth, concurrency] {
            all.merge(part) { first, _ in first }
        }
        return all
    }()

    private static let keyValues: [String: GatewayRoute] = [
        "/v3/kv/range": GatewayRoute(
            .range, Etcdserverpb_RangeRequest.self, Etcdserverpb_RangeResponse.self),
        "/v3/kv/put": GatewayRoute(
            .put, Etcdserverpb_PutRequest.self, Etcdserverpb_PutResponse.self),
        "/v3/kv/deleterange": GatewayRoute(
            .deleteRange, Etcdserverpb_DeleteRangeRequest.self,
            Etcdserverpb_DeleteRangeResponse.self),
        "/v3/kv/txn": GatewayRoute(
            .txn, Etcdserverpb_TxnRequest.self, Etcdserverpb_TxnResponse.self),
        "/v3/kv/compaction": GatewayRoute(
            .compact, Etcdserverpb_CompactionRequest.self, Etcdserverpb_CompactionResponse.self),
        "/v3/watch": GatewayRoute(
            .watch, Etcdserverpb_WatchRequest.self, Etcdserverpb_WatchResponse.self,
            isStream: true, takesMany: true),
    ]

    private static let leases: [String: GatewayRoute] = {
        let revoke = GatewayRoute(
            .leaseRevoke, Etcdserverpb_LeaseRevokeRequest.self,
            Etcdserverpb_LeaseRevokeResponse.self)
        let timeToLive = GatewayRoute(
            .leaseTimeToLive, Etcdserverpb_LeaseTimeToLiveRequest.self,
            Etcdserverpb_LeaseTimeToLiveResponse.self)
        let list = GatewayRoute(
            .leaseLeases, Etcdserverpb_LeaseLeasesRequest.self,
            Etcdserverpb_LeaseLeasesResponse.self)
        return [
            "/v3/lease/grant": GatewayRoute(
                .leaseGrant, Etcdserverpb_LeaseGrantRequest.self,
                Etcdserverpb_LeaseGrantResponse.self),
            "/v3/lease/keepalive": GatewayRoute(
                .leaseKeepAlive, Etcdserverpb_LeaseKeepAliveRequest.self,
                Etcdserverpb_LeaseKeepAliveResponse.self, isStream: true, takesMany: true),
            "/v3/lease/revoke": revoke, "/v3/kv/lease/revoke": revoke,
            "/v3/lease/timetolive": timeToLive, "/v3/kv/lease/timetolive": timeToLive,
            "/v3/lease/leases": list, "/v3/kv/lease/leases": list,
        ]
    }()

    private static let cluster: [String: GatewayRoute] = [
        "/v3/cluster/member/add": GatewayRoute(
            .memberAdd, Etcdserverpb_MemberAddRequest.self, Etcdserverpb_MemberAddResponse.self),
        "/v3/cluster/member/remove": GatewayRoute(
            .memberRemove, Etcdserverpb_MemberRemoveRequest.self,
            Etcdserverpb_MemberRemoveResponse.self),
        "/v3/cluster/member/update": GatewayRoute(
            .memberUpdate, Etcdserverpb_MemberUpdateRequest.self,
            Etcdserverpb_MemberUpdateResponse.self),
        "/v3/cluster/member/list": GatewayRoute(
            .memberList, Etcdserverpb_MemberListRequest.self,
            Etcdserverpb_MemberListResponse.self),
        "/v3/cluster/member/promote": GatewayRoute(
            .memberPromote, Etcdserverpb_MemberPromoteRequest.self,
            Etcdserverpb_MemberPromoteResponse.self),
    ]

    private static let maintenance: [String: GatewayRoute] = [
        "/v3/maintenance/alarm": GatewayRoute(
            .alarm, Etcdserverpb_AlarmRequest.self, Etcdserverpb_AlarmResponse.self),
        "/v3/maintenance/status": GatewayRoute(
            .status, Etcdserverpb_StatusRequest.self, Etcdserverpb_StatusResponse.self),
        "/v3/maintenance/defragment": GatewayRoute(
            .defragment, Etcdserverpb_DefragmentRequest.self,
            Etcdserverpb_DefragmentResponse.self),
        "/v3/maintenance/hash": GatewayRoute(
            .hash, Etcdserverpb_HashRequest.self, Etcdserverpb_HashResponse.self),
        "/v3/maintenance/hashkv": GatewayRoute(
            .hashKV, Etcdserverpb_HashKVRequest.self, Etcdserverpb_HashKVResponse.self),
        "/v3/maintenance/snapshot": GatewayRoute(
            .snapshot, Etcdserverpb_SnapshotRequest.self, Etcdserverpb_SnapshotResponse.self,
            isStream: true),
        "/v3/maintenance/transfer-leadership": GatewayRoute(
            .moveLeader, Etcdserverpb_MoveLeaderRequest.self,
            Etcdserverpb_MoveLeaderResponse.self),
        "/v3/maintenance/downgrade": GatewayRoute(
            .downgrade, Etcdserverpb_DowngradeRequest.self, Etcdserverpb_DowngradeResponse.self),
    ]

    private static let auth: [String: GatewayRoute] = [
        "/v3/auth/enable": GatewayRoute(
            .authEnable, Etcdserverpb_AuthEnableRequest.self,
            Etcdserverpb_AuthEnableResponse.self),
        "/v3/auth/disable": GatewayRoute(
            .authDisable, Etcdserverpb_AuthDisableRequest.self,
            Etcdserverpb_AuthDisableResponse.self),
        "/v3/auth/status": GatewayRoute(
            .authStatus, Etcdserverpb_AuthStatusRequest.self,
            Etcdserverpb_AuthStatusResponse.self),
        "/v3/auth/authenticate": GatewayRoute(
            .authenticate, Etcdserverpb_AuthenticateRequest.self,
            Etcdserverpb_AuthenticateResponse.self),
        "/v3/auth/user/add": GatewayRoute(
            .userAdd, Etcdserverpb_AuthUserAddRequest.self,
            Etcdserverpb_AuthUserAddResponse.self),
        "/v3/auth/user/get": GatewayRoute(
            .userGet, Etcdserverpb_AuthUserGetRequest.self,
            Etcdserverpb_AuthUserGetResponse.self),
        "/v3/auth/user/list": GatewayRoute(
            .userList, Etcdserverpb_AuthUserListRequest.self,
            Etcdserverpb_AuthUserListResponse.self),
        "/v3/auth/user/delete": GatewayRoute(
            .userDelete, Etcdserverpb_AuthUserDeleteRequest.self,
            Etcdserverpb_AuthUserDeleteResponse.self),
        "/v3/auth/user/changepw": GatewayRoute(
            .userChangePassword, Etcdserverpb_AuthUserChangePasswordRequest.self,
            Etcdserverpb_AuthUserChangePasswordResponse.self),
        "/v3/auth/user/grant": GatewayRoute(
            .userGrantRole, Etcdserverpb_AuthUserGrantRoleRequest.self,
            Etcdserverpb_AuthUserGrantRoleResponse.self),
        "/v3/auth/user/revoke": GatewayRoute(
            .userRevokeRole, Etcdserverpb_AuthUserRevokeRoleRequest.self,
            Etcdserverpb_AuthUserRevokeRoleResponse.self),
        "/v3/auth/role/add": GatewayRoute(
            .roleAdd, Etcdserverpb_AuthRoleAddRequest.self,
            Etcdserverpb_AuthRoleAddResponse.self),
        "/v3/auth/role/get": GatewayRoute(
            .roleGet, Etcdserverpb_AuthRoleGetRequest.self,
            Etcdserverpb_AuthRoleGetResponse.self),
        "/v3/auth/role/list": GatewayRoute(
            .roleList, Etcdserverpb_AuthRoleListRequest.self,
            Etcdserverpb_AuthRoleListResponse.self),
        "/v3/auth/role/delete": GatewayRoute(
            .roleDelete, Etcdserverpb_AuthRoleDeleteRequest.self,
            Etcdserverpb_AuthRoleDeleteResponse.self),
        "/v3/auth/role/grant": GatewayRoute(
            .roleGrantPermission, Etcdserverpb_AuthRoleGrantPermissionRequest.self,
            Etcdserverpb_AuthRoleGrantPermissionResponse.self),
        "/v3/auth/role/revoke": GatewayRoute(
            .roleRevokePermission, Etcdserverpb_AuthRoleRevokePermissionRequest.self,
            Etcdserverpb_AuthRoleRevokePermissionResponse.self),
    ]

    private static let concurrency: [String: GatewayRoute] = [
        "/v3/lock/lock": GatewayRoute(
            .lock, V3lockpb_LockRequest.self, V3lockpb_LockResponse.self),
        "/v3/lock/unlock": GatewayRoute(
            .unlock, V3lockpb_UnlockRequest.self, V3lockpb_UnlockResponse.self),
        "/v3/election/campaign": GatewayRoute(
            .electionCampaign, V3electionpb_CampaignRequest.self,
            V3electionpb_CampaignResponse.self),
        "/v3/election/proclaim": GatewayRoute(
            .electionProclaim, V3electionpb_ProclaimRequest.self,
            V3electionpb_ProclaimResponse.self),
        "/v3/election/leader": GatewayRoute(
            .electionLeader, V3electionpb_LeaderRequest.self, V3electionpb_LeaderResponse.self),
        "/v3/election/observe": GatewayRoute(
            .electionObserve, V3electionpb_LeaderRequest.self, V3electionpb_LeaderResponse.self,
            isStream: true),
        "/v3/election/resign": GatewayRoute(
            .electionResign, V3electionpb_ResignRequest.self, V3electionpb_ResignResponse.self),
    ]
}
