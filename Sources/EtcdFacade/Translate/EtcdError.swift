import EtcdAPI
import Primitives

/// How a call ends when it does not end well.
struct CallFailure: Error, Equatable {
    let status: GRPCStatus
    let text: String

    static let noMessage = CallFailure(
        status: .internal, text: "grpc: the call carried no request message")

    /// What is needed lies with other nodes, and could not be had in time.
    static let elsewhere = CallFailure(
        status: .unavailable, text: "polder: what this needs is held by other nodes, who do not answer")

    /// For what the design has and this version has not.
    static func notYetSupported(_ what: String) -> CallFailure {
        CallFailure(status: .unimplemented, text: "polder: \(what) is not yet supported")
    }
}

/// etcd's errors, by name. Clients compare the texts: they are etcd's to the letter
/// (api/v3rpc/rpctypes/error.go).
enum EtcdError: Error, CaseIterable {
    case emptyKey
    case keyNotFound
    case valueProvided
    case leaseProvided
    case tooManyOperations
    case duplicateKey
    case invalidClientAPIVersion
    case invalidSortOption
    case requestTooLarge
    case compacted
    case futureRevision
    case noSpace
    case tooManyRequests
    case leaseNotFound
    case leaseExists
    case leaseTTLTooLarge
    case watchCancelled
    case authNotEnabled
    case rootUserNotExist
    case rootRoleNotExist
    case userAlreadyExist
    case userEmpty
    case userNotFound
    case roleAlreadyExist
    case roleNotFound
    case roleEmpty
    case authFailed
    case permissionNotGiven
    case permissionDenied
    case roleNotGranted
    case permissionNotGranted
    case invalidAuthToken
    case invalidAuthManagement
    case authOldRevision
    case memberNotFound
    case memberURLsInvalid
    case peerURLExists
    case memberNotLearner
    case learnerNotReady
    case tooManyLearners
    case notEnoughStarted
    case notLeader
    case badLeaderTransferee
    case downgradeVersionFormat
    case downgradeVersionInvalid
    case unknownMethod
    case noLeader
    case leaderChanged
    case stopped
    case timedOut
    case timedOutByLeaderFailure
    case timedOutByLostConnection
    case timedOutApplying
    case transferTimedOut
    case unhealthy
    case cancelled
    case deadlineExceeded
    case corrupt

    var status: GRPCStatus { told.status }
    var text: String { told.text }

    private var told: (status: GRPCStatus, text: String) {
        switch self {
        case .emptyKey: (.invalidArgument, "etcdserver: key is not provided")
        case .keyNotFound: (.invalidArgument, "etcdserver: key not found")
        case .valueProvided: (.invalidArgument, "etcdserver: value is provided")
        case .leaseProvided: (.invalidArgument, "etcdserver: lease is provided")
        case .tooManyOperations:
            (.invalidArgument, "etcdserver: too many operations in txn request")
        case .duplicateKey: (.invalidArgument, "etcdserver: duplicate key given in txn request")
        case .invalidClientAPIVersion: (.invalidArgument, "etcdserver: invalid client api version")
        case .invalidSortOption: (.invalidArgument, "etcdserver: invalid sort option")
        case .requestTooLarge: (.invalidArgument, "etcdserver: request is too large")
        case .compacted: (.outOfRange, "etcdserver: mvcc: required revision has been compacted")
        case .futureRevision:
            (.outOfRange, "etcdserver: mvcc: required revision is a future revision")
        case .noSpace: (.resourceExhausted, "etcdserver: mvcc: database space exceeded")
        case .tooManyRequests: (.resourceExhausted, "etcdserver: too many requests")
        case .leaseNotFound: (.notFound, "etcdserver: requested lease not found")
        case .leaseExists: (.failedPrecondition, "etcdserver: lease already exists")
        case .leaseTTLTooLarge: (.outOfRange, "etcdserver: too large lease TTL")
        case .watchCancelled: (.cancelled, "etcdserver: watch canceled")
        case .authNotEnabled: (.failedPrecondition, "etcdserver: authentication is not enabled")
        case .rootUserNotExist: (.failedPrecondition, "etcdserver: root user does not exist")
        case .rootRoleNotExist:
            (.failedPrecondition, "etcdserver: root user does not have root role")
        case .userAlreadyExist: (.failedPrecondition, "etcdserver: user name already exists")
        case .userEmpty: (.invalidArgument, "etcdserver: user name is empty")
        case .userNotFound: (.failedPrecondition, "etcdserver: user name not found")
        case .roleAlreadyExist: (.failedPrecondition, "etcdserver: role name already exists")
        case .roleNotFound: (.failedPrecondition, "etcdserver: role name not found")
        case .roleEmpty: (.invalidArgument, "etcdserver: role name is empty")
        case .authFailed:
            (.invalidArgument, "etcdserver: authentication failed, invalid user ID or password")
        case .permissionNotGiven: (.invalidArgument, "etcdserver: permission not given")
        case .permissionDenied: (.permissionDenied, "etcdserver: permission denied")
        case .roleNotGranted: (.failedPrecondition, "etcdserver: role is not granted to the user")
        case .permissionNotGranted:
            (.failedPrecondition, "etcdserver: permission is not granted to the role")
        case .invalidAuthToken: (.unauthenticated, "etcdserver: invalid auth token")
        case .invalidAuthManagement: (.invalidArgument, "etcdserver: invalid auth management")
        case .authOldRevision: (.invalidArgument, "etcdserver: revision of auth store is old")
        case .memberNotFound: (.notFound, "etcdserver: member not found")
        case .memberURLsInvalid: (.invalidArgument, "etcdserver: given member URLs are invalid")
        case .peerURLExists: (.failedPrecondition, "etcdserver: Peer URLs already exists")
        case .memberNotLearner:
            (.failedPrecondition, "etcdserver: can only promote a learner member")
        case .learnerNotReady:
            (.failedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader")
        case .tooManyLearners:
            (.failedPrecondition, "etcdserver: too many learner members in cluster")
        case .notEnoughStarted:
            (.failedPrecondition, "etcdserver: re-configuration failed due to not enough started members")
        case .notLeader: (.failedPrecondition, "etcdserver: not leader")
        case .badLeaderTransferee: (.failedPrecondition, "etcdserver: bad leader transferee")
        case .downgradeVersionFormat:
            (.invalidArgument, "etcdserver: wrong downgrade target version format")
        case .downgradeVersionInvalid:
            (.invalidArgument, "etcdserver: invalid downgrade target version")
        case .unknownMethod: (.unknown, "etcdserver: unknown method")
        case .noLeader: (.unavailable, "etcdserver: no leader")
        case .leaderChanged: (.unavailable, "etcdserver: leader changed")
        case .stopped: (.unavailable, "etcdserver: server stopped")
        case .timedOut: (.unavailable, "etcdserver: request timed out")
        case .timedOutByLeaderFailure:
            (.unavailable, "etcdserver: request timed out, possibly due to previous leader failure")
        case .timedOutByLostConnection:
            (.unavailable, "etcdserver: request timed out, possibly due to connection lost")
        case .timedOutApplying:
            (.unavailable, "etcdserver: request timed out, waiting for the applied index took too long")
        case .transferTimedOut:
            (.unavailable, "etcdserver: request timed out, leader transfer took too long")
        case .unhealthy: (.unavailable, "etcdserver: unhealthy cluster")
        case .cancelled: (.cancelled, "etcdserver: request canceled")
        case .deadlineExceeded: (.deadlineExceeded, "etcdserver: context deadline exceeded")
        case .corrupt: (.dataLoss, "etcdserver: corrupt cluster")
        }
    }

    var failure: CallFailure { CallFailure(status: status, text: text) }
}

extension DelayCause {
    var error: EtcdError {
        switch self {
        case .unknown: .timedOut
        case .leaderFailure: .timedOutByLeaderFailure
        case .lostConnection: .timedOutByLostConnection
        case .applying: .timedOutApplying
        }
    }
}

extension RequestError {
    /// Not the request's fault: what etcd counts as a failed proposal.
    var isOfTheRegion: Bool {
        switch self {
        case .noLeader, .timedOut, .stopped, .tooManyRequests: true
        case .compacted, .futureRevision, .keyNotFound, .leaseNotFound, .leaseExists,
            .leaseTTLTooLarge, .noSpace, .requestTooLarge, .cursorMismatch, .authChanged, .corrupt,
            .memberNotFound, .memberURLsInvalid, .peerURLExists, .memberNotLearner, .learnerNotReady,
            .tooManyLearners, .notEnoughStarted, .memberAlive, .buildTooOld,
            .partitionNotFound, .cutOutside, .splitUnderWay, .tooManyPartitions, .regionTooOld,
            .membersChanging, .replicasOutside, .elsewhere:
            false
        }
    }

    /// The one place where the core's outcomes become etcd's errors.
    var failure: CallFailure {
        switch self {
        case .compacted: EtcdError.compacted.failure
        case .futureRevision: EtcdError.futureRevision.failure
        case .keyNotFound: EtcdError.keyNotFound.failure
        case .leaseNotFound: EtcdError.leaseNotFound.failure
        case .leaseExists: EtcdError.leaseExists.failure
        case .leaseTTLTooLarge: EtcdError.leaseTTLTooLarge.failure
        case .noSpace: EtcdError.noSpace.failure
        case .tooManyRequests: EtcdError.tooManyRequests.failure
        case .requestTooLarge: EtcdError.requestTooLarge.failure
        case .noLeader: EtcdError.noLeader.failure
        case .timedOut: EtcdError.timedOut.failure
        case .stopped: EtcdError.stopped.failure
        case .authChanged: EtcdError.authOldRevision.failure
        case .corrupt: EtcdError.corrupt.failure
        case .memberNotFound: EtcdError.memberNotFound.failure
        case .memberURLsInvalid: EtcdError.memberURLsInvalid.failure
        case .peerURLExists: EtcdError.peerURLExists.failure
        case .memberNotLearner: EtcdError.memberNotLearner.failure
        case .learnerNotReady: EtcdError.learnerNotReady.failure
        case .tooManyLearners: EtcdError.tooManyLearners.failure
        case .notEnoughStarted: EtcdError.notEnoughStarted.failure
        case .memberAlive:
            CallFailure(
                status: .failedPrecondition, text: "polder: a node with this identity is running")
        case .buildTooOld:
            CallFailure(
                status: .failedPrecondition,
                text: "polder: the region uses features that this build does not know")
        case .partitionNotFound:
            CallFailure(status: .notFound, text: "polder: there is no such partition")
        case .cutOutside:
            CallFailure(
                status: .invalidArgument,
                text: "polder: the cut must lie in the partition's range, above its first hash")
        case .splitUnderWay:
            CallFailure(
                status: .failedPrecondition,
                text: "polder: another split is under way; try again when it is done")
        case .tooManyPartitions:
            CallFailure(status: .resourceExhausted, text: "polder: there are too many partitions")
        case .membersChanging:
            CallFailure(
                status: .failedPrecondition,
                text: "polder: the region's members are being changed; try again when that is done")
        case .replicasOutside:
            CallFailure(
                status: .invalidArgument,
                text: "polder: expected 1 to \(Placement.replicasMax) replicas, as many members at most, "
                    + "each once")
        case .elsewhere: .elsewhere
        case .regionTooOld:
            CallFailure(
                status: .failedPrecondition,
                text: "polder: the region's feature level is too low for this: it rises "
                    + "when every member runs a build that knows it")
        case .cursorMismatch:
            CallFailure(
                status: .internal, text: "polder: replication batch does not follow its cursor")
        }
    }
}

extension AuthError {
    var failure: CallFailure {
        switch self {
        case .rootUserMissing: EtcdError.rootUserNotExist.failure
        case .rootRoleMissing: EtcdError.rootRoleNotExist.failure
        case .userExists: EtcdError.userAlreadyExist.failure
        case .userEmpty: EtcdError.userEmpty.failure
        case .userNotFound: EtcdError.userNotFound.failure
        case .roleExists: EtcdError.roleAlreadyExist.failure
        case .roleEmpty: EtcdError.roleEmpty.failure
        case .roleNotFound: EtcdError.roleNotFound.failure
        case .roleNotGranted: EtcdError.roleNotGranted.failure
        case .permissionNotGranted: EtcdError.permissionNotGranted.failure
        case .permissionDenied: EtcdError.permissionDenied.failure
        case .invalidManagement: EtcdError.invalidAuthManagement.failure
        case .tooMany:
            CallFailure(
                status: .resourceExhausted,
                text: "polder: too many users, roles or permissions, or too long a name")
        }
    }
}
