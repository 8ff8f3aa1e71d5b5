import EtcdAPI
import Foundation
import Primitives
import SwiftProtobuf
import Testing

@testable import EtcdFacade

@Suite struct ErrorTests {
    @Test func `every error has etcd's status and text`() {
        let golden: [(EtcdError, GRPCStatus, String)] = [
            (.emptyKey, .invalidArgument, "key is not provided"),
            (.keyNotFound, .invalidArgument, "key not found"),
            (.valueProvided, .invalidArgument, "value is provided"),
            (.leaseProvided, .invalidArgument, "lease is provided"),
            (.tooManyOperations, .invalidArgument, "too many operations in txn request"),
            (.duplicateKey, .invalidArgument, "duplicate key given in txn request"),
            (.invalidClientAPIVersion, .invalidArgument, "invalid client api version"),
            (.invalidSortOption, .invalidArgument, "invalid sort option"),
            (.requestTooLarge, .invalidArgument, "request is too large"),
            (.compacted, .outOfRange, "mvcc: required revision has been compacted"),
            (.futureRevision, .outOfRange, "mvcc: required revision is a future revision"),
            (.noSpace, .resourceExhausted, "mvcc: database space exceeded"),
            (.tooManyRequests, .resourceExhausted, "too many requests"),
            (.leaseNotFound, .notFound, "requested lease not found"),
            (.leaseExists, .failedPrecondition, "lease already exists"),
            (.leaseTTLTooLarge, .outOfRange, "too large lease TTL"),
            (.watchCancelled, .cancelled, "watch canceled"),
            (.authNotEnabled, .failedPrecondition, "authentication is not enabled"),
            (.rootUserNotExist, .failedPrecondition, "root user does not exist"),
            (.rootRoleNotExist, .failedPrecondition, "root user does not have root role"),
            (.userAlreadyExist, .failedPrecondition, "user name already exists"),
            (.userEmpty, .invalidArgument, "user name is empty"),
            (.userNotFound, .failedPrecondition, "user name not found"),
            (.roleAlreadyExist, .failedPrecondition, "role name already exists"),
            (.roleNotFound, .failedPrecondition, "role name not found"),
            (.roleEmpty, .invalidArgument, "role name is empty"),
            (
                .authFailed, .invalidArgument,
                "authentication failed, invalid user ID or password"
            ),
            (.permissionNotGiven, .invalidArgument, "permission not given"),
            (.permissionDenied, .permissionDenied, "permission denied"),
            (.roleNotGranted, .failedPrecondition, "role is not granted to the user"),
            (
                .permissionNotGranted, .failedPrecondition,
                "permission is not granted to the role"
            ),
            (.invalidAuthToken, .unauthenticated, "invalid auth token"),
            (.invalidAuthManagement, .invalidArgument, "invalid auth management"),
            (.authOldRevision, .invalidArgument, "revision of auth store is old"),
            (.memberNotFound, .notFound, "member not found"),
            (.memberURLsInvalid, .invalidArgument, "given member URLs are invalid"),
            (.peerURLExists, .failedPrecondition, "Peer URLs already exists"),
            (.memberNotLearner, .failedPrecondition, "can only promote a learner member"),
            (
                .learnerNotReady, .failedPrecondition,
                "can only promote a learner member which is in sync with leader"
            ),
            (.tooManyLearners, .failedPrecondition, "too many learner members in cluster"),
            (
                .notEnoughStarted, .failedPrecondition,
                "re-configuration failed due to not enough started members"
            ),
            (.notLeader, .failedPrecondition, "not leader"),
            (.badLeaderTransferee, .failedPrecondition, "bad leader transferee"),
            (.downgradeVersionFormat, .invalidArgument, "wrong downgrade target version format"),
            (.downgradeVersionInvalid, .invalidArgument, "invalid downgrade target version"),
            (.unknownMethod, .unknown, "unknown method"),
            (.noLeader, .unavailable, "no leader"),
            (.leaderChanged, .unavailable, "leader changed"),
            (.stopped, .unavailable, "server stopped"),
            (.timedOut, .unavailable, "request timed out"),
            (
                .timedOutByLeaderFailure, .unavailable,
                "request timed out, possibly due to previous leader failure"
            ),
            (
                .timedOutByLostConnection, .unavailable,
                "request timed out, possibly due to connection lost"
            ),
            (
                .timedOutApplying, .unavailable,
                "request timed out, waiting for the applied index took too long"
            ),
            (
                .transferTimedOut, .unavailable,
                "request timed out, leader transfer took too long"
            ),
            (.unhealthy, .unavailable, "unhealthy cluster"),
            (.cancelled, .cancelled, "request canceled"),
            (.deadlineExceeded, .deadlineExceeded, "context deadline exceeded"),
            (.corrupt, .dataLoss, "corrupt cluster"),
        ]
        #expect(golden.map(\.0) == EtcdError.allCases)
        for (error, status, text) in golden {
            #expect(error.failure == CallFailure(status: status, text: "etcdserver: " + text))
        }
    }

    @Test func `every outcome of the core ends a call with its own error`() {
        let golden: [RequestError: EtcdError] = [
            .compacted: .compacted, .futureRevision: .futureRevision, .keyNotFound: .keyNotFound,
            .leaseNotFound: .leaseNotFound, .leaseExists: .leaseExists,
            .leaseTTLTooLarge: .leaseTTLTooLarge, .noSpace: .noSpace,
            .tooManyRequests: .tooManyRequests, .requestTooLarge: .requestTooLarge,
            .noLeader: .noLeader, .timedOut: .timedOut, .stopped: .stopped,
            .authChanged: .authOldRevision, .corrupt: .corrupt,
            .memberNotFound: .memberNotFound, .memberURLsInvalid: .memberURLsInvalid,
            .peerURLExists: .peerURLExists, .memberNotLearner: .memberNotLearner,
            .learnerNotReady: .learnerNotReady, .tooManyLearners: .tooManyLearners,
            .notEnoughStarted: .notEnoughStarted,
        ]
        let own: [RequestError] = [
            .cursorMismatch, .memberAlive, .buildTooOld, .partitionNotFound, .cutOutside,
            .splitUnderWay, .tooManyPartitions, .regionTooOld, .membersChanging, .replicasOutside,
            .elsewhere,
        ]
        for error in RequestError.allCases where !own.contains(error) {
            #expect(error.failure == golden[error]?.failure, "\(error)")
        }
        for error in RequestError.allCases where error != .elsewhere {
            let client = Client()
            client.node.nextFailure = error
            let outcome = client.failure(.put, Etcdserverpb_PutRequest.with { $0.key = data("k") })
            #expect(outcome?.text == error.failure.text)
            #expect(outcome?.status == error.failure.status)
            client.node.nextFailure = error
            let read = client.failure(.range, Etcdserverpb_RangeRequest.with { $0.key = data("k") })
            #expect(read == outcome)
        }
    }

    @Test func `bytes that are no message end the call, not the server`() throws {
        let client = Client()
        for method in [RPCMethod.range, .put, .deleteRange, .txn, .compact, .leaseGrant, .hashKV] {
            for bytes: [UInt8] in [[0xFF], [0x0A, 0x05, 1], [0x08], [0x0B], [0x00, 0x00]] {
                let call = client.open(method)
                client.send(bytes, to: call)
                #expect(client.output.outcomes[call]?.status == .internal, "\(method) \(bytes)")
            }
        }
        let watch = client.open(.watch)
        client.send([0x0A, 0x7F], to: watch)
        #expect(client.output.outcomes[watch]?.status == .internal)
        try client.put("still", "alive")
    }

    @Test func `a unary call without a message ends with an error`() {
        let client = Client()
        let call = client.open(.put)
        client.facade.onHalfClose(call)
        #expect(client.output.outcomes[call]?.status == .internal)
    }

    @Test func `nobody signs in while authentication is off`() {
        let client = Client()
        let login = client.failure(.authenticate, Etcdserverpb_AuthenticateRequest())
        #expect(login?.text == "etcdserver: authentication is not enabled")
    }
}
