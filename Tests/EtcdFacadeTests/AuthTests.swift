import EtcdAPI
import Foundation
import Primitives
import SwiftProtobuf
import Testing

@testable import EtcdFacade

private let denied = "etcdserver: permission denied"
private let noUser = "etcdserver: user name is empty"
private let badToken = "etcdserver: invalid auth token"

/// A client with users root (all), ann (reads and writes [a, b)) and bob (nothing), authentication on.
private func enabled(_ settings: AuthSettings = AuthSettings()) throws -> Client {
    let client = Client(auth: settings)
    for name in ["root", "ann", "bob"] {
        let _: Etcdserverpb_AuthUserAddResponse = try client.call(
            .userAdd, Etcdserverpb_AuthUserAddRequest.with {
                $0.name = name
                $0.password = name + "-pw"
            })
    }
    let _: Etcdserverpb_AuthRoleAddResponse = try client.call(
        .roleAdd, Etcdserverpb_AuthRoleAddRequest.with { $0.name = "a" })
    let _: Etcdserverpb_AuthRoleGrantPermissionResponse = try client.call(
        .roleGrantPermission, grant("a", "a", "b", .readwrite))
    for (user, role) in [("root", "root"), ("ann", "a")] {
        let _: Etcdserverpb_AuthUserGrantRoleResponse = try client.call(
            .userGrantRole, Etcdserverpb_AuthUserGrantRoleRequest.with {
                $0.user = user
                $0.role = role
            })
    }
    let _: Etcdserverpb_AuthEnableResponse = try client.call(.authEnable, Etcdserverpb_AuthEnableRequest())
    return client
}

private func grant(
    _ role: String, _ key: String, _ end: String, _ type: Authpb_Permission.TypeEnum
) -> Etcdserverpb_AuthRoleGrantPermissionRequest {
    .with {
        $0.name = role
        $0.perm = .with {
            $0.permType = type
            $0.key = data(key)
            $0.rangeEnd = data(end)
        }
    }
}

extension Client {
    fileprivate func logIn(_ name: String, _ password: String? = nil) throws {
        token = nil
        let answer: Etcdserverpb_AuthenticateResponse = try call(
            .authenticate, Etcdserverpb_AuthenticateRequest.with {
                $0.name = name
                $0.password = password ?? name + "-pw"
            })
        token = answer.token
    }

    fileprivate func putFails(_ key: String) -> String? {
        failure(.put, Etcdserverpb_PutRequest.with { $0.key = data(key) })?.text
    }
    fileprivate func getFails(_ key: String, _ end: String = "") -> String? {
        failure(
            .range, Etcdserverpb_RangeRequest.with {
                $0.key = data(key)
                $0.rangeEnd = data(end)
            })?.text
    }
}

@Suite struct AuthTests {
    @Test func `without a token nothing of the keys is told or changed`() throws {
        let client = try enabled()
        #expect(client.putFails("a") == noUser)
        #expect(client.getFails("a") == noUser)
        #expect(client.failure(.memberList, Etcdserverpb_MemberListRequest())?.text == noUser)
        #expect(client.failure(.compact, Etcdserverpb_CompactionRequest())?.text == noUser)
        #expect(client.failure(.leaseGrant, Etcdserverpb_LeaseGrantRequest())?.text == noUser)
        client.token = "rubbish"
        #expect(client.failure(.put, Etcdserverpb_PutRequest.with { $0.key = data("a") })?.status == .unauthenticated)
        #expect(client.getFails("a") == badToken)
    }

    @Test func `names that are no UTF-8 are refused: lists of them could not be read`() throws {
        let client = Client()
        // Field 1, two bytes, of which the second is none.
        for method in [RPCMethod.userAdd, .roleAdd, .userGet, .authenticate, .roleGrantPermission] {
            let call = client.open(method)
            client.send([0x0A, 0x02, 0x61, 0xFF], to: call)
            #expect(
                client.output.outcomes[call]
                    == .init(
                        status: .internal,
                        text: "grpc: error unmarshalling request: string field contains invalid UTF-8"))
        }
        // A permission's key is any bytes.
        let _: Etcdserverpb_AuthRoleAddResponse = try client.call(
            .roleAdd, Etcdserverpb_AuthRoleAddRequest.with { $0.name = "r" })
        let _: Etcdserverpb_AuthRoleGrantPermissionResponse = try client.call(
            .roleGrantPermission,
            Etcdserverpb_AuthRoleGrantPermissionRequest.with {
                $0.name = "r"
                $0.perm = .with { $0.key = Data([0xFF]) }
            })
        let _: Etcdserverpb_AuthRoleRevokePermissionResponse = try client.call(
            .roleRevokePermission,
            Etcdserverpb_AuthRoleRevokePermissionRequest.with {
                $0.role = "r"
                $0.key = Data([0xFF])
            })
    }

    @Test func `a token from the end of time is refused`() throws {
        let client = try enabled()
        var writer = ByteWriter()
        writer.byte(1)
        writer.varint(0)
        writer.varint(client.node.authState.enabledSince)
        writer.fixed64(1 << 63)
        writer.raw([UInt8](repeating: 0, count: 8))
        writer.raw("root")
        let mac = client.crypto.mac(of: writer.bytes, secret: client.node.authState.secret)
        client.token = Base64URL.encode(writer.bytes + mac.prefix(16))
        #expect(client.getFails("a") == badToken)
    }

    @Test func `a user sees and changes what the roles permit`() throws {
        let client = try enabled()
        try client.logIn("ann")
        try client.put("a1", "x")
        #expect(try client.get("a1").kvs.count == 1)
        #expect(client.putFails("b") == denied)
        #expect(client.getFails("b") == denied)
        #expect(client.getFails("a", "c") == denied)
        #expect(client.getFails("a", "\0") == denied)
        #expect(try client.get("a") { $0.rangeEnd = data("b") }.kvs.count == 1)
        let nested = Etcdserverpb_TxnRequest.with {
            $0.success = [.with { $0.requestPut = .with { $0.key = data("a2") } }]
            $0.failure = [.with { $0.requestTxn = .with {
                $0.success = [.with { $0.requestRange = .with { $0.key = data("secret") } }]
            } }]
        }
        #expect(client.failure(.txn, nested)?.text == denied)
        try client.logIn("bob")
        #expect(client.putFails("a1") == denied && client.getFails("a1") == denied)
        try client.logIn("root")
        try client.put("z")
        #expect(try client.get("\0") { $0.rangeEnd = data("\0") }.kvs.count == 2)
    }

    @Test func `maintenance, cluster and auth calls are root's`() throws {
        let client = try enabled()
        try client.logIn("ann")
        let empty = Etcdserverpb_StatusRequest()
        for method in [
            RPCMethod.hash, .hashKV, .defragment, .snapshot, .moveLeader, .downgrade,
            .memberAdd, .memberRemove, .memberUpdate, .memberPromote, .authDisable, .authEnable, .userList,
            .roleList, .userDelete, .roleAdd, .roleDelete,
            .userChangePassword, .userGrantRole, .userRevokeRole, .roleGrantPermission,
            .roleRevokePermission,
        ] {
            #expect(client.failure(method, empty)?.text == denied, "\(method)")
        }
        let raise = Etcdserverpb_AlarmRequest.with { $0.action = .deactivate }
        #expect(client.failure(.alarm, raise)?.text == denied)
        #expect(client.failure(.compact, Etcdserverpb_CompactionRequest())?.text == denied)
        try client.logIn("root")
        let status: Etcdserverpb_AuthStatusResponse = try client.call(
            .authStatus, Etcdserverpb_AuthStatusRequest())
        #expect(status.enabled && status.authRevision == 8)
        let users: Etcdserverpb_AuthUserListResponse = try client.call(
            .userList, Etcdserverpb_AuthUserListRequest())
        #expect(users.users == ["ann", "bob", "root"])
    }

    @Test func `every user may ask for the status, and a stranger whether there are users`() throws {
        let client = try enabled()
        #expect(client.failure(.status, Etcdserverpb_StatusRequest())?.text == noUser)
        let told: Etcdserverpb_AuthStatusResponse = try client.call(
            .authStatus, Etcdserverpb_AuthStatusRequest())
        #expect(told.enabled && told.authRevision == 8)
        client.token = "rubbish"
        #expect(
            client.failure(.authStatus, Etcdserverpb_AuthStatusRequest())?.text
                == "etcdserver: invalid auth token")
        try client.logIn("ann")
        let status: Etcdserverpb_StatusResponse = try client.call(
            .status, Etcdserverpb_StatusRequest())
        #expect(status.version == "3.7.0")
        let again: Etcdserverpb_AuthStatusResponse = try client.call(
            .authStatus, Etcdserverpb_AuthStatusRequest())
        #expect(again == told)
    }

    @Test func `a user may ask about himself and his roles`() throws {
        let client = try enabled()
        try client.logIn("ann")
        let own: Etcdserverpb_AuthUserGetResponse = try client.call(
            .userGet, Etcdserverpb_AuthUserGetRequest.with { $0.name = "ann" })
        #expect(own.roles == ["a"])
        let role: Etcdserverpb_AuthRoleGetResponse = try client.call(
            .roleGet, Etcdserverpb_AuthRoleGetRequest.with { $0.role = "a" })
        #expect(role.perm.map(\.permType) == [.readwrite] && role.perm[0].rangeEnd == data("b"))
        #expect(client.failure(.userGet, Etcdserverpb_AuthUserGetRequest.with { $0.name = "bob" })?.text == denied)
        #expect(client.failure(.roleGet, Etcdserverpb_AuthRoleGetRequest.with { $0.role = "root" })?.text == denied)
    }

    @Test func `a wrong password, an unknown user and one without password are the same error`() throws {
        let client = try enabled()
        try client.logIn("root")
        let _: Etcdserverpb_AuthUserAddResponse = try client.call(
            .userAdd, Etcdserverpb_AuthUserAddRequest.with {
                $0.name = "cert"
                $0.options = .with { $0.noPassword = true }
            })
        client.token = nil
        for (name, password) in [("ann", "x"), ("nobody", "x"), ("cert", ""), ("ann", "")] {
            let outcome = client.failure(
                .authenticate, Etcdserverpb_AuthenticateRequest.with {
                    $0.name = name
                    $0.password = password
                })
            #expect(outcome?.text == "etcdserver: authentication failed, invalid user ID or password")
            #expect(outcome?.status == .invalidArgument)
        }
    }

    @Test func `a password that changes while it is checked is checked again`() throws {
        let client = try enabled()
        client.crypto.holdsWork = true
        let call = client.begin(
            .authenticate, Etcdserverpb_AuthenticateRequest.with {
                $0.name = "ann"
                $0.password = "ann-pw"
            })
        var changed: [AuthState.Change] = []
        try client.node.authState.apply(.userChangePassword("ann", hash: "#new"), by: "root", changed: &changed)
        client.facade.onAuthChanged(client.node.authState)
        client.crypto.release()
        #expect(client.output.outcomes[call]?.text == "etcdserver: authentication failed, invalid user ID or password")
    }

    /// What a token stood for last time is kept for the next call: never for longer than it is true.
    @Test func `tokens shown by turns are each their user's, and lose what roles lose at once`() throws {
        let client = try enabled()
        var tokens: [String?] = []
        for name in ["ann", "bob", "root", "ann", "ann"] {
            try client.logIn(name)
            tokens.append(client.token)
        }
        for _ in 0..<3 {
            for (token, may) in zip(tokens, [true, false, true, true, true]) {
                client.token = token
                if may {
                    try client.put("a1")
                    #expect(try client.get("a1").kvs.count == 1)
                } else {
                    #expect(client.getFails("a1") == denied && client.putFails("a1") == denied)
                }
            }
        }
        client.token = tokens[2]
        let _: Etcdserverpb_AuthUserRevokeRoleResponse = try client.call(
            .userRevokeRole, Etcdserverpb_AuthUserRevokeRoleRequest.with {
                $0.name = "ann"
                $0.role = "a"
            })
        for token in [tokens[0], tokens[3], tokens[4]] {
            client.token = token
            #expect(client.getFails("a1") == denied && client.putFails("a1") == denied)
        }
        client.token = tokens[0].map { String($0.dropLast()) + "!" }
        #expect(client.getFails("a1") == badToken)
    }

    @Test func `a token ends with the password, the user and the time of rest`() throws {
        let client = try enabled()
        try client.logIn("ann")
        try client.put("a1")
        let anns = client.token
        client.advance(milliseconds: 200_000)
        try client.put("a1")
        client.advance(milliseconds: 200_000)
        client.crypto.wallSeconds += 400
        try client.put("a1")
        client.advance(milliseconds: 301_000)
        #expect(client.putFails("a1") == badToken)

        try client.logIn("ann")
        let second = client.token
        try client.logIn("root")
        let _: Etcdserverpb_AuthUserChangePasswordResponse = try client.call(
            .userChangePassword, Etcdserverpb_AuthUserChangePasswordRequest.with {
                $0.name = "ann"
                $0.password = "new"
            })
        for old in [anns, second] {
            client.token = old
            #expect(client.putFails("a1") == badToken)
        }
        try client.logIn("ann", "new")
        try client.put("a1")
        let third = client.token
        try client.logIn("root")
        let _: Etcdserverpb_AuthDisableResponse = try client.call(
            .authDisable, Etcdserverpb_AuthDisableRequest())
        client.token = third
        try client.put("anything", "goes")
        let _: Etcdserverpb_AuthEnableResponse = try client.call(
            .authEnable, Etcdserverpb_AuthEnableRequest())
        #expect(client.putFails("a1") == badToken)
    }

    @Test func `a token is good at another node that has never seen it, and a forged one is not`() throws {
        let client = try enabled()
        try client.logIn("ann")
        let token = try #require(client.token)
        let other = Client()
        other.node.authState = client.node.authState
        other.facade.onAuthChanged(client.node.authState)
        other.token = token
        try other.put("a1")
        for i in token.indices.dropLast() {
            var forged = Array(token.utf8)
            let at = token.utf8.distance(from: token.startIndex, to: i)
            forged[at] = forged[at] == UInt8(ascii: "A") ? UInt8(ascii: "B") : UInt8(ascii: "A")
            other.token = String(decoding: forged, as: UTF8.self)
            #expect(other.putFails("a1") == badToken, "\(i)")
        }
    }

    @Test func `what an old view refuses is looked at again with a newer one`() throws {
        let client = try enabled()
        try client.logIn("bob")
        // The grant has happened; this node hears of it with its read index.
        var state = client.node.authState
        var changed: [AuthState.Change] = []
        try state.apply(.userGrantRole("bob", role: "a"), by: "root", changed: &changed)
        client.node.holdsAnswers = true
        let call = client.begin(.put, Etcdserverpb_PutRequest.with { $0.key = data("a1") })
        #expect(client.output.outcomes[call] == nil)
        client.facade.onAuthChanged(state)
        client.node.releaseAnswers()
        #expect(client.output.outcomes[call]?.status == .ok)
    }

    @Test func `what a leader refuses for its age is checked and sent again`() throws {
        let client = try enabled()
        try client.logIn("ann")
        client.node.nextFailure = .authChanged
        try client.put("a1")
        client.node.holdsAnswers = true
        let call = client.begin(.put, Etcdserverpb_PutRequest.with { $0.key = data("a2") })
        client.node.nextFailure = .authChanged
        var state = client.node.authState
        var changed: [AuthState.Change] = []
        try state.apply(.userRevokeRole("ann", role: "a"), by: "root", changed: &changed)
        client.facade.onAuthChanged(state)
        client.node.releaseAnswers()
        #expect(client.output.outcomes[call] != nil)
    }

    @Test func `locks and campaigns too are checked and sent again`() throws {
        let client = try enabled()
        try client.logIn("ann")
        for method in [RPCMethod.lock, .electionCampaign] {
            // The lease's grant, then the key's put.
            for step in 0..<2 {
                client.node.holdsAnswers = true
                if step == 0 { client.node.nextFailure = .authChanged }
                let name = data("a\(method.rawValue).\(step)")
                let call =
                    method == .lock
                    ? client.begin(method, V3lockpb_LockRequest.with { $0.name = name })
                    : client.begin(method, V3electionpb_CampaignRequest.with { $0.name = name })
                if step == 1 {
                    client.node.nextFailure = .authChanged
                }
                while client.output.outcomes[call] == nil, !client.node.held.isEmpty {
                    client.node.releaseAnswers()
                }
                #expect(client.output.outcomes[call]?.status == .ok, "\(method) \(step)")
            }
        }
        // What is refused by permissions that are new stays refused.
        let refused = client.failure(.lock, V3lockpb_LockRequest.with { $0.name = data("z") })
        #expect(refused?.text == denied)
    }

    @Test func `a lock's key is taken back under whatever permissions`() throws {
        let client = try enabled()
        try client.logIn("ann")
        let first = client.begin(.lock, V3lockpb_LockRequest.with { $0.name = data("al") })
        #expect(client.output.outcomes[first]?.status == .ok)
        let second = client.begin(.lock, V3lockpb_LockRequest.with { $0.name = data("al") })
        #expect(client.output.outcomes[second] == nil)
        client.node.nextFailure = .authChanged
        client.facade.onCancelled(second)
        let left = try client.get("al/") { $0.rangeEnd = data("al0") }
        #expect(left.kvs.count == 1)
    }

    @Test func `a renewal is checked and sent again, and its stream lives on`() throws {
        let client = try enabled()
        try client.logIn("ann")
        let lease: Etcdserverpb_LeaseGrantResponse = try client.call(
            .leaseGrant, Etcdserverpb_LeaseGrantRequest.with { $0.ttl = 60 })
        let call = client.open(.leaseKeepAlive)
        client.node.nextFailure = .authChanged
        client.send(Etcdserverpb_LeaseKeepAliveRequest.with { $0.id = lease.id }, to: call)
        #expect(client.output.outcomes[call] == nil)
        #expect(client.output.take(call).count == 1)
    }

    @Test func `watches are refused as etcd does, and end when the permission goes`() throws {
        let client = try enabled()
        try client.logIn("ann")
        let call = client.open(.watch)
        client.watch(call, "a") { $0.rangeEnd = data("b") }
        client.watch(call, "b")
        let answers = try client.responses(call)
        #expect(answers.count == 2)
        #expect(answers[0].created && !answers[0].canceled && answers[0].watchID == 0)
        #expect(answers[1].created && answers[1].canceled && answers[1].watchID == -1)
        #expect(answers[1].cancelReason == denied)
        try client.put("a1")
        #expect(try client.responses(call).flatMap(\.shown) == ["2 put a1=v"])
        try client.logIn("root")
        let _: Etcdserverpb_AuthUserRevokeRoleResponse = try client.call(
            .userRevokeRole, Etcdserverpb_AuthUserRevokeRoleRequest.with {
                $0.name = "ann"
                $0.role = "a"
            })
        let end = try client.responses(call)
        #expect(end.count == 1 && end[0].canceled && end[0].watchID == 0 && end[0].cancelReason == denied)
        try client.put("a1")
        #expect(try client.responses(call).isEmpty)
    }

    @Test func `watches from before authentication end when it begins`() throws {
        let client = try enabled()
        try client.logIn("root")
        let _: Etcdserverpb_AuthDisableResponse = try client.call(
            .authDisable, Etcdserverpb_AuthDisableRequest())
        client.token = nil
        let call = client.open(.watch)
        client.watch(call, "a")
        #expect(try client.responses(call).count == 1)
        let _: Etcdserverpb_AuthEnableResponse = try client.call(
            .authEnable, Etcdserverpb_AuthEnableRequest())
        let end = try client.responses(call)
        #expect(end.count == 1 && end[0].canceled && end[0].cancelReason == noUser)
    }

    @Test func `a lease goes only with permission for all of its keys`() throws {
        let client = try enabled()
        try client.logIn("root")
        let lease: Etcdserverpb_LeaseGrantResponse = try client.call(
            .leaseGrant, Etcdserverpb_LeaseGrantRequest.with { $0.ttl = 60 })
        try client.put("z", lease: lease.id)
        try client.logIn("ann")
        let revoke = Etcdserverpb_LeaseRevokeRequest.with { $0.id = lease.id }
        #expect(client.failure(.leaseRevoke, revoke)?.text == denied)
        let attach = Etcdserverpb_PutRequest.with {
            $0.key = data("a1")
            $0.lease = lease.id
        }
        #expect(client.failure(.put, attach)?.text == denied)
        let nested = Etcdserverpb_TxnRequest.with {
            $0.failure = [.with { $0.requestTxn = .with {
                $0.success = [.with { $0.requestPut = attach }]
            } }]
        }
        #expect(client.failure(.txn, nested)?.text == denied)
        let ask = Etcdserverpb_LeaseTimeToLiveRequest.with {
            $0.id = lease.id
            $0.keys = true
        }
        #expect(client.failure(.leaseTimeToLive, ask)?.text == denied)
        let _: Etcdserverpb_LeaseTimeToLiveResponse = try client.call(
            .leaseTimeToLive, Etcdserverpb_LeaseTimeToLiveRequest.with { $0.id = lease.id })
        #expect(client.failure(.leaseLeases, Etcdserverpb_LeaseLeasesRequest())?.text == denied)
        let stream = client.open(.leaseKeepAlive)
        client.send(Etcdserverpb_LeaseKeepAliveRequest.with { $0.id = lease.id }, to: stream)
        client.advance(milliseconds: 0)
        #expect(client.output.outcomes[stream]?.text == denied)
        try client.logIn("root")
        let _: Etcdserverpb_LeaseRevokeResponse = try client.call(.leaseRevoke, revoke)
    }

    @Test func `JSON web tokens carry the revision and are refused when it is old`() throws {
        var settings = AuthSettings()
        settings.tokens = .web(algorithm: "HS256", timeToLive: .seconds(60))
        let client = try enabled(settings)
        try client.logIn("ann")
        let parts = try #require(client.token).split(separator: ".")
        #expect(parts.count == 3)
        let claims = Base64URL.decode(parts[1].utf8).map { String(decoding: $0, as: UTF8.self) }
        #expect(claims == #"{"exp":1000060,"revision":8,"username":"ann"}"#)
        try client.put("a1")
        let anns = client.token
        try client.logIn("root")
        let _: Etcdserverpb_AuthRoleAddResponse = try client.call(
            .roleAdd, Etcdserverpb_AuthRoleAddRequest.with { $0.name = "other" })
        client.token = anns
        #expect(client.putFails("a1") == "etcdserver: revision of auth store is old")
        try client.logIn("ann")
        try client.put("a1")
        client.crypto.wallSeconds += 61
        #expect(client.putFails("a1") == badToken)
    }

    @Test func `web tokens of other algorithms or with a broken form are nothing`() throws {
        var settings = AuthSettings()
        settings.tokens = .web(algorithm: "HS256", timeToLive: .seconds(60))
        let client = try enabled(settings)
        func token(_ header: String, _ claims: String) -> String {
            let text = Base64URL.encode(Array(header.utf8)) + "." + Base64URL.encode(Array(claims.utf8))
            return text + "." + Base64URL.encode(client.crypto.mac(of: Array(text.utf8), secret: "key"))
        }
        let good = #"{"alg":"HS256","typ":"JWT"}"#
        client.token = token(good, #"{"username":"ann","revision":8,"exp":1000060.5, "x":[1,{"y":null}]}"#)
        try client.put("a1")
        for (header, claims) in [
            (#"{"alg":"none"}"#, #"{"username":"ann","revision":8,"exp":1000060}"#),
            (#"{"alg":"HS512"}"#, #"{"username":"ann","revision":8,"exp":1000060}"#),
            (good, #"{"username":"ann","revision":"8","exp":1000060}"#),
            (good, #"{"username":7,"revision":8,"exp":1000060}"#),
            (good, #"{"revision":8,"exp":1000060}"#),
            (good, #"{"username":"ann","revision":8,"exp":1000000}"#),
            (good, #"{"username":"ann","revision":8,"exp":1000060,"nbf":1000001}"#),
            (good, #"{"username":"ann","username":"root","revision":8,"exp":1000060}"#),
            (good, #"{"username":"ann","revision":8,"exp":1000060} "x""#),
            (good, #"["username"]"#), (good, ""), ("", good),
        ] {
            client.token = token(header, claims)
            #expect(client.putFails("a1") == badToken, "\(header) \(claims)")
        }
    }

    @Test func `a certificate's name is its user where that is asked for, and a token counts before it`() throws {
        var settings = AuthSettings()
        settings.usesCertificateNames = true
        let client = try enabled(settings)
        client.certificateName = "ann"
        try client.put("a1")
        #expect(client.putFails("b") == denied)
        try client.logIn("bob")
        #expect(client.putFails("a1") == denied)
        client.token = nil
        client.certificateName = "stranger"
        #expect(client.putFails("a1") == denied)
        #expect(
            client.failure(.hash, Etcdserverpb_HashRequest())?.text
                == "etcdserver: user name not found")
        let plain = try enabled()
        plain.certificateName = "ann"
        #expect(plain.putFails("a1") == noUser)
    }

    @Test func `more passwords than are looked at in time are refused`() throws {
        let client = try enabled()
        client.crypto.isFull = true
        let outcome = client.failure(
            .authenticate, Etcdserverpb_AuthenticateRequest.with {
                $0.name = "ann"
                $0.password = "ann-pw"
            })
        #expect(outcome?.text == "etcdserver: too many requests")
    }

    @Test func `a caller who may not add users makes nobody hash passwords`() throws {
        let client = try enabled()
        try client.logIn("ann")
        let before = client.crypto.hashes
        let add = Etcdserverpb_AuthUserAddRequest.with {
            $0.name = "x"
            $0.password = "y"
        }
        #expect(client.failure(.userAdd, add)?.text == denied)
        #expect(client.crypto.hashes == before)
        try client.logIn("root")
        let long = Etcdserverpb_AuthUserAddRequest.with {
            $0.name = "x"
            $0.password = String(repeating: "y", count: 73)
        }
        #expect(client.failure(.userAdd, long)?.text == "bcrypt: password length exceeds 72 bytes")
    }
}
