import EtcdAPI
import Primitives

/// How a call ends when it does not end well.
struct CallFailure: Error, Equatable {
    let status: GRPCStatus
    let text: String

    static let noMessage = CallFailure(
        status: .internal, text: "grpc: the call carried no request message")

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
    case transferTimedOut
    case unhealthy
    case cancelled
    case deadlineExceeded
    case corrupt

    var status: GRPCStatus {
        switch self {
        case .emptyKey, .keyNotFound, .valueProvided, .leaseProvided, .tooManyOperations,
            .duplicateKey, .invalidClientAPIVersion, .invalidSortOption, .requestTooLarge,
            .userEmpty, .roleEmpty, .authFailed, .permissionNotGiven, .invalidAuthManagement,
            .authOldRevision, .memberURLsInvalid, .downgradeVersionFormat, .downgradeVersionInvalid:
            .invalidArgument
        case .compacted, .futureRevision, .leaseTTLTooLarge: .outOfRange
        case .noSpace, .tooManyRequests: .resourceExhausted
        case .leaseNotFound, .memberNotFound: .notFound
        case .leaseExists, .authNotEnabled, .notLeader, .badLeaderTransferee, .rootUserNotExist,
            .rootRoleNotExist, .userAlreadyExist, .userNotFound, .roleAlreadyExist, .roleNotFound,
            .roleNotGranted, .permissionNotGranted, .peerURLExists, .memberNotLearner,
            .learnerNotReady, .tooManyLearners, .notEnoughStarted:
            .failedPrecondition
        case .permissionDenied: .permissionDenied
        case .invalidAuthToken: .unauthenticated
        case .noLeader, .leaderChanged, .stopped, .timedOut, .transferTimedOut, .unhealthy:
            .unavailable
        case .unknownMethod: .unknown
        case .watchCancelled, .cancelled: .cancelled
        case .deadlineExceeded: .deadlineExceeded
        case .corrupt: .dataLoss
        }
    }

    var text: String {
        switch self {
        case .emptyKey: "etcdserver: key is not provided"
        case .keyNotFound: "etcdserver: key not found"
        case .valueProvided: "etcdserver: value is provided"
        case .leaseProvided: "etcdserver: lease is provided"
        case .tooManyOperations: "etcdserver: too many operations in txn request"
        case .duplicateKey: "etcdserver: duplicate key given in txn request"
        case .invalidClientAPIVersion: "etcdserver: invalid client api version"
        case .invalidSortOption: "etcdserver: invalid sort option"
        case .requestTooLarge: "etcdserver: request is too large"
        case .compacted: "etcdserver: mvcc: required revision has been compacted"
        case .futureRevision: "etcdserver: mvcc: required revision is a future revision"
        case .noSpace: "etcdserver: mvcc: database space exceeded"
        case .tooManyRequests: "etcdserver: too many requests"
        case .leaseNotFound: "etcdserver: requested lease not found"
        case .leaseExists: "etcdserver: lease already exists"
        case .leaseTTLTooLarge: "etcdserver: too large lease TTL"
        case .watchCancelled: "etcdserver: watch canceled"
        case .authNotEnabled: "etcdserver: authentication is not enabled"
        case .rootUserNotExist: "etcdserver: root user does not exist"
        case .rootRoleNotExist: "etcdserver: root user does not have root role"
        case .userAlreadyExist: "etcdserver: user name already exists"
        case .userEmpty: "etcdserver: user name is empty"
        case .userNotFound: "etcdserver: user name not found"
        case .roleAlreadyExist: "etcdserver: role name already exists"
        case .roleNotFound: "etcdserver: role name not found"
        case .roleEmpty: "etcdserver: role name is empty"
        case .authFailed: "etcdserver: authentication failed, invalid user ID or password"
        case .permissionNotGiven: "etcdserver: permission not given"
        case .permissionDenied: "etcdserver: permission denied"
        case .roleNotGranted: "etcdserver: role is not granted to the user"
        case .permissionNotGranted: "etcdserver: permission is not granted to the role"
        case .invalidAuthToken: "etcdserver: invalid auth token"
        case .invalidAuthManagement: "etcdserver: invalid auth management"
        case .authOldRevision: "etcdserver: revision of auth store is old"
        case .memberNotFound: "etcdserver: member not found"
        case .memberURLsInvalid: "etcdserver: given member URLs are invalid"
        case .peerURLExists: "etcdserver: Peer URLs already exists"
        case .memberNotLearner: "etcdserver: can only promote a learner member"
        case .learnerNotReady:
            "etcdserver: can only promote a learner member which is in sync with leader"
        case .tooManyLearners: "etcdserver: too many learner members in cluster"
        case .notEnoughStarted:
            "etcdserver: re-configuration failed due to not enough started members"
        case .notLeader: "etcdserver: not leader"
        case .badLeaderTransferee: "etcdserver: bad leader transferee"
        case .downgradeVersionFormat: "etcdserver: wrong downgrade target version format"
        case .downgradeVersionInvalid: "etcdserver: invalid downgrade target version"
        case .unknownMethod: "etcdserver: unknown method"
        case .noLeader: "etcdserver: no leader"
        case .leaderChanged: "etcdserver: leader changed"
        case .stopped: "etcdserver: server stopped"
        case .timedOut: "etcdserver: request timed out"
        case .transferTimedOut: "etcdserver: request timed out, leader transfer took too long"
        case .unhealthy: "etcdserver: unhealthy cluster"
        case .cancelled: "etcdserver: request canceled"
        case .deadlineExceeded: "etcdserver: context deadline exceeded"
        case .corrupt: "etcdserver: corrupt cluster"
        }
    }

    var failure: CallFailure { CallFailure(status: status, text: text) }
}

extension RequestError {
    /// Not the request's fault: what etcd counts as a failed proposal.
    var isOfTheRegion: Bool {
        switch self {
        case .noLeader, .timedOut, .stopped, .tooManyRequests: true
        case .compacted, .futureRevision, .keyNotFound, .leaseNotFound, .leaseExists,
            .leaseTTLTooLarge, .noSpace, .requestTooLarge, .cursorMismatch, .authChanged, .corrupt,
            .memberNotFound, .memberURLsInvalid, .peerURLExists, .memberNotLearner, .learnerNotReady,
            .tooManyLearners, .notEnoughStarted, .memberAlive, .buildTooOld:
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
