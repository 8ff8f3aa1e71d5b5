import EtcdAPI
import EtcdFacade
import Foundation
import Primitives
import SwiftProtobuf

extension FuzzTarget {
    /// An input is a list of calls, one after the other on one server: a field each, its number the
    /// method, its bytes the request. What is answered must be the method's message.
    nonisolated(unsafe) static let messages = FuzzTarget(
        name: "messages", what: "every method's request, read, checked, carried out, answered",
        grammar: .proto
    ) {
        var server = FuzzServer()
        return Prepared(samples: MessageSamples.all) { input in
            if server.isWorn { server = FuzzServer() }
            guard let fields = ProtoField.split(input) else { throw CodecError.malformed("no calls") }
            var open: [Answers] = []
            for field in fields.prefix(16) {
                guard case .bytes(let message) = field.value, field.type == 2,
                    let method = RPCMethod(rawValue: UInt8(truncatingIfNeeded: field.number))
                else { continue }
                let answers = server.call(method, Bytes(message))
                try check(method, answers)
                if answers.status == nil { open.append(answers) }
            }
            for answers in open { if let call = answers.call { server.server.cancel(call) } }
            guard server.server.openCalls == 0 else {
                throw Finding("\(server.server.openCalls) calls outlive their end")
            }
        }
    }

    private static func check(_ method: RPCMethod, _ answers: Answers) throws {
        guard answers.bytes < 64 << 20 else { throw Finding("\(answers.bytes) bytes of answers") }
        guard let parse = MessageSamples.responses[method] else { return }
        for message in answers.messages {
            do {
                try parse(message.array)
            } catch {
                throw Finding("\(method) answers what is none: \(error)")
            }
        }
    }

    /// The codec of the frequent requests beside SwiftProtobuf: both take a message, or none does.
    nonisolated(unsafe) static let codec = FuzzTarget(
        name: "codec", what: "the frequent requests' own codec, beside SwiftProtobuf's", grammar: .proto
    ) {
        Prepared(samples: MessageSamples.all) { input in
            guard let fields = ProtoField.split(input) else { throw CodecError.malformed("no calls") }
            for field in fields.prefix(16) {
                guard case .bytes(let message) = field.value,
                    let method = RPCMethod(rawValue: UInt8(truncatingIfNeeded: field.number))
                else { continue }
                try compareCodecs(method, message)
            }
        }
    }

    /// Five bytes in a row that say that there is another.
    private static func hasLongNumber(_ message: [UInt8]) -> Bool {
        var run = 0
        for byte in message {
            run = byte >= 0x80 ? run + 1 : 0
            if run >= 5 { return true }
        }
        return false
    }

    private static func compareCodecs(_ method: RPCMethod, _ message: [UInt8]) throws {
        func both(_ ours: () throws(CodecError) -> Void, _ theirs: () throws -> Void) throws {
            var isOurs = true, why = ""
            do throws(CodecError) {
                try ours()
            } catch {
                // The others are about meaning, which SwiftProtobuf does not look at, and end the reading.
                guard case .malformed(let text) = error else { return }
                (isOurs, why) = (false, text)
            }
            let isTheirs: Bool
            do {
                try theirs()
                isTheirs = true
            } catch {
                isTheirs = false
                why += " / \(error)"
            }
            // How deep is too deep is everybody's own choice.
            if isOurs == isTheirs || why.contains("deep") { return }
            // A field's number in more bytes than it needs: SwiftProtobuf takes five, Go's readers, as we, ten.
            if isOurs, hasLongNumber(message) { return }
            throw Finding("\(method): \(isOurs ? "only we take it" : "only we refuse it"): \(why)")
        }
        let bytes = Bytes(message)
        switch method {
        case .range:
            try both(
                { () throws(CodecError) in _ = try RequestCodec.range(bytes) },
                { _ = try Etcdserverpb_RangeRequest(serializedBytes: message) })
        case .put:
            try both(
                { () throws(CodecError) in _ = try RequestCodec.put(bytes) },
                { _ = try Etcdserverpb_PutRequest(serializedBytes: message) })
        case .deleteRange:
            try both(
                { () throws(CodecError) in _ = try RequestCodec.delete(bytes) },
                { _ = try Etcdserverpb_DeleteRangeRequest(serializedBytes: message) })
        case .txn:
            try both(
                { () throws(CodecError) in _ = try RequestCodec.transaction(bytes) },
                { _ = try Etcdserverpb_TxnRequest(serializedBytes: message) })
        case .watch:
            try both(
                { () throws(CodecError) in _ = try RequestCodec.watch(bytes) },
                { _ = try Etcdserverpb_WatchRequest(serializedBytes: message) })
        case .leaseKeepAlive:
            try both(
                { () throws(CodecError) in _ = try RequestCodec.keepAlive(bytes) },
                { _ = try Etcdserverpb_LeaseKeepAliveRequest(serializedBytes: message) })
        default: break
        }
    }
}

enum MessageSamples {
    private static func bytes(_ message: some Message) -> [UInt8] {
        (try? message.serializedBytes()) ?? []
    }
    private static let key = Data("key0".utf8)
    private static let end = Data("key9".utf8)

    static let range = bytes(
        Etcdserverpb_RangeRequest.with {
            $0.key = key
            $0.rangeEnd = end
            $0.limit = 2
            $0.revision = 3
            $0.sortOrder = .descend
            $0.sortTarget = .mod
            $0.keysOnly = true
            $0.minModRevision = 1
            $0.maxCreateRevision = 9
        })
    static let put = bytes(
        Etcdserverpb_PutRequest.with {
            $0.key = key
            $0.value = Data("value".utf8)
            $0.lease = 7
            $0.prevKv = true
        })
    static let watch = bytes(
        Etcdserverpb_WatchRequest.with {
            $0.createRequest = .with {
                $0.key = key
                $0.rangeEnd = end
                $0.startRevision = 2
                $0.filters = [.nodelete]
                $0.prevKv = true
                $0.watchID = 5
                $0.fragment = true
            }
        })
    private static let txn = bytes(
        Etcdserverpb_TxnRequest.with {
            $0.compare = [
                .with {
                    $0.key = key
                    $0.rangeEnd = end
                    $0.result = .greater
                    $0.target = .mod
                    $0.modRevision = 1
                },
                .with {
                    $0.key = key
                    $0.target = .value
                    $0.value = Data("value".utf8)
                },
            ]
            $0.success = [
                .with { $0.requestPut = .with { $0.key = key; $0.value = end } },
                .with { $0.requestRange = .with { $0.key = key; $0.rangeEnd = end; $0.limit = 1 } },
                .with { $0.requestTxn = .with { $0.failure = [.with { $0.requestRange = .with { $0.key = end } }] } },
            ]
            $0.failure = [
                .with { $0.requestDeleteRange = .with { $0.key = key; $0.rangeEnd = end; $0.prevKv = true } }
            ]
        })

    static let byMethod: [(RPCMethod, [[UInt8]])] = [
        (.range, [range, bytes(Etcdserverpb_RangeRequest.with { $0.key = key; $0.countOnly = true; $0.serializable = true })]),
        (.rangeStream, [bytes(Etcdserverpb_RangeRequest.with { $0.key = key; $0.rangeEnd = end })]),
        (.put, [put]),
        (.deleteRange, [bytes(Etcdserverpb_DeleteRangeRequest.with { $0.key = key; $0.rangeEnd = Data([0]); $0.prevKv = true })]),
        (.txn, [txn]),
        (.compact, [bytes(Etcdserverpb_CompactionRequest.with { $0.revision = 2; $0.physical = true })]),
        (.watch, [
            watch, bytes(Etcdserverpb_WatchRequest.with { $0.cancelRequest = .with { $0.watchID = 5 } }),
            bytes(Etcdserverpb_WatchRequest.with { $0.progressRequest = .init() }),
        ]),
        (.leaseGrant, [bytes(Etcdserverpb_LeaseGrantRequest.with { $0.ttl = 60; $0.id = 7 })]),
        (.leaseRevoke, [bytes(Etcdserverpb_LeaseRevokeRequest.with { $0.id = 7 })]),
        (.leaseKeepAlive, [bytes(Etcdserverpb_LeaseKeepAliveRequest.with { $0.id = 7 })]),
        (.leaseTimeToLive, [bytes(Etcdserverpb_LeaseTimeToLiveRequest.with { $0.id = 7; $0.keys = true })]),
        (.leaseLeases, [[]]),
        (.memberAdd, [bytes(Etcdserverpb_MemberAddRequest.with { $0.peerUrls = ["http://127.0.0.1:1"]; $0.isLearner = true })]),
        (.memberRemove, [bytes(Etcdserverpb_MemberRemoveRequest.with { $0.id = 0xA2 })]),
        (.memberUpdate, [bytes(Etcdserverpb_MemberUpdateRequest.with { $0.id = 0xA2; $0.peerUrls = ["http://h:2"] })]),
        (.memberList, [bytes(Etcdserverpb_MemberListRequest.with { $0.linearizable = true })]),
        (.memberPromote, [bytes(Etcdserverpb_MemberPromoteRequest.with { $0.id = 0xA2 })]),
        (.alarm, [bytes(Etcdserverpb_AlarmRequest.with { $0.action = .activate; $0.memberID = 0xA1; $0.alarm = .nospace })]),
        (.status, [[]]), (.defragment, [[]]), (.hash, [[]]), (.snapshot, [[]]),
        (.hashKV, [bytes(Etcdserverpb_HashKVRequest.with { $0.revision = 3 })]),
        (.moveLeader, [bytes(Etcdserverpb_MoveLeaderRequest.with { $0.targetID = 0xA2 })]),
        (.downgrade, [bytes(Etcdserverpb_DowngradeRequest.with { $0.action = .validate; $0.version = "3.5.0" })]),
        (.authEnable, [[]]), (.authDisable, [[]]), (.authStatus, [[]]), (.userList, [[]]), (.roleList, [[]]),
        (.authenticate, [bytes(Etcdserverpb_AuthenticateRequest.with { $0.name = "ann"; $0.password = "pw" })]),
        (.userAdd, [bytes(Etcdserverpb_AuthUserAddRequest.with { $0.name = "ann"; $0.password = "pw"; $0.options = .with { $0.noPassword = false } })]),
        (.userGet, [bytes(Etcdserverpb_AuthUserGetRequest.with { $0.name = "ann" })]),
        (.userDelete, [bytes(Etcdserverpb_AuthUserDeleteRequest.with { $0.name = "ann" })]),
        (.userChangePassword, [bytes(Etcdserverpb_AuthUserChangePasswordRequest.with { $0.name = "ann"; $0.password = "new" })]),
        (.userGrantRole, [bytes(Etcdserverpb_AuthUserGrantRoleRequest.with { $0.user = "ann"; $0.role = "r" })]),
        (.userRevokeRole, [bytes(Etcdserverpb_AuthUserRevokeRoleRequest.with { $0.name = "ann"; $0.role = "r" })]),
        (.roleAdd, [bytes(Etcdserverpb_AuthRoleAddRequest.with { $0.name = "r" })]),
        (.roleGet, [bytes(Etcdserverpb_AuthRoleGetRequest.with { $0.role = "r" })]),
        (.roleDelete, [bytes(Etcdserverpb_AuthRoleDeleteRequest.with { $0.role = "r" })]),
        (.roleGrantPermission, [bytes(Etcdserverpb_AuthRoleGrantPermissionRequest.with { $0.name = "r"; $0.perm = .with { $0.permType = .readwrite; $0.key = key; $0.rangeEnd = end } })]),
        (.roleRevokePermission, [bytes(Etcdserverpb_AuthRoleRevokePermissionRequest.with { $0.role = "r"; $0.key = key; $0.rangeEnd = end })]),
        (.lock, [bytes(V3lockpb_LockRequest.with { $0.name = key; $0.lease = 7 })]),
        (.unlock, [bytes(V3lockpb_UnlockRequest.with { $0.key = key })]),
        (.electionCampaign, [bytes(V3electionpb_CampaignRequest.with { $0.name = key; $0.lease = 7; $0.value = end })]),
        (.electionProclaim, [bytes(V3electionpb_ProclaimRequest.with { $0.leader = .with { $0.name = key; $0.key = key; $0.rev = 2; $0.lease = 7 }; $0.value = end })]),
        (.electionLeader, [bytes(V3electionpb_LeaderRequest.with { $0.name = key })]),
        (.electionObserve, [bytes(V3electionpb_LeaderRequest.with { $0.name = key })]),
        (.electionResign, [bytes(V3electionpb_ResignRequest.with { $0.leader = .with { $0.name = key; $0.key = key; $0.rev = 2; $0.lease = 7 } })]),
        (.healthCheck, [[0x0A, 1, 0x61]]), (.healthList, [[]]), (.healthWatch, [[0x0A, 0]]),
        (.reflection, [[0x22, 3, 0x61, 0x2E, 0x62], [0x3A, 0], [0x1A, 1, 0x61], [0x2A, 4, 0x0A, 1, 0x61, 0x10]]),
    ]

    /// Each alone, and all in a row in two orders.
    static var all: [[UInt8]] {
        func field(_ method: RPCMethod, _ message: [UInt8]) -> ProtoField {
            ProtoField(number: UInt64(method.rawValue), type: 2, value: .bytes(message))
        }
        // Number 0 is no field's: `range` has the number that all have beyond 256.
        func number(_ method: RPCMethod) -> UInt64 { method.rawValue == 0 ? 256 : UInt64(method.rawValue) }
        var samples: [[UInt8]] = []
        for (method, messages) in byMethod {
            for message in messages {
                var call = field(method, message)
                call.number = number(method)
                samples.append(ProtoField.join([call]))
            }
        }
        let grant = samples.filter { $0.first == 0x3A }
        samples.append(grant.flatMap { $0 } + samples.dropFirst(20).prefix(8).flatMap { $0 })
        for start in stride(from: 0, to: samples.count - 6, by: 5) {
            samples.append(samples[start..<(start + 6)].flatMap { $0 })
            samples.append(samples[start..<(start + 6)].reversed().flatMap { $0 })
        }
        return samples
    }

    private static func parses<M: Message>(_: M.Type) -> (([UInt8]) throws -> Void) {
        { _ = try M(serializedBytes: $0) }
    }
    nonisolated(unsafe) static let responses: [RPCMethod: ([UInt8]) throws -> Void] = [
        .range: parses(Etcdserverpb_RangeResponse.self), .put: parses(Etcdserverpb_PutResponse.self),
        .rangeStream: parses(Etcdserverpb_RangeStreamResponse.self),
        .deleteRange: parses(Etcdserverpb_DeleteRangeResponse.self),
        .txn: parses(Etcdserverpb_TxnResponse.self), .compact: parses(Etcdserverpb_CompactionResponse.self),
        .watch: parses(Etcdserverpb_WatchResponse.self),
        .leaseGrant: parses(Etcdserverpb_LeaseGrantResponse.self),
        .leaseRevoke: parses(Etcdserverpb_LeaseRevokeResponse.self),
        .leaseKeepAlive: parses(Etcdserverpb_LeaseKeepAliveResponse.self),
        .leaseTimeToLive: parses(Etcdserverpb_LeaseTimeToLiveResponse.self),
        .leaseLeases: parses(Etcdserverpb_LeaseLeasesResponse.self),
        .memberList: parses(Etcdserverpb_MemberListResponse.self),
        .status: parses(Etcdserverpb_StatusResponse.self), .alarm: parses(Etcdserverpb_AlarmResponse.self),
        .hashKV: parses(Etcdserverpb_HashKVResponse.self), .hash: parses(Etcdserverpb_HashResponse.self),
        .authStatus: parses(Etcdserverpb_AuthStatusResponse.self),
        .userGet: parses(Etcdserverpb_AuthUserGetResponse.self),
        .userList: parses(Etcdserverpb_AuthUserListResponse.self),
        .roleGet: parses(Etcdserverpb_AuthRoleGetResponse.self),
        .roleList: parses(Etcdserverpb_AuthRoleListResponse.self),
        .authenticate: parses(Etcdserverpb_AuthenticateResponse.self),
        .lock: parses(V3lockpb_LockResponse.self),
        .electionCampaign: parses(V3electionpb_CampaignResponse.self),
        .electionLeader: parses(V3electionpb_LeaderResponse.self),
        .electionObserve: parses(V3electionpb_LeaderResponse.self),
    ]
}
