import EtcdAPI
import Primitives

/// A Lock or Campaign call: it puts its key under a name, then waits until no key there is older than
/// its own (etcd's client/v3/concurrency: mutex.go, election.go).
final class Contender {
    enum Purpose: Equatable {
        case lock
        case campaign(value: Bytes)
    }

    enum Step: Equatable {
        /// The client named no lease: one is being granted.
        case granting
        /// The key is on its way into the store.
        case entering
        /// It was there already, with another value: that is being replaced.
        case proclaiming
        /// A read index was asked for: who is older?
        case looking
        /// An older key is there; its end, or that of our own, wakes us.
        case waiting(for: Bytes)
        /// Its key is being taken back; nobody waits for that.
        case withdrawing
        case done
    }

    let call: CallReference
    let purpose: Purpose
    let name: Bytes
    /// Of all keys that contend.
    let prefix: Bytes
    private(set) var lease: LeaseID
    private(set) var key: Bytes
    /// Of our key: the place in the queue. Zero until it is known.
    var createRevision = Revision.zero
    /// When the key was put: the header of an answer that needed no waiting.
    var entered = Revision.zero
    var hasWaited = false
    var step = Step.granting
    /// Under which the node was asked; nil while it was not.
    var token: UInt64?
    /// The client has gone while the key was on its way: it is taken back as soon as it is there.
    var isAbandoned = false

    /// What the node was asked last, to ask it again if permissions have changed meanwhile.
    var asked: Request?
    /// A read index was asked for, so that permissions are new; then `asked` is asked again.
    var isRefreshing = false
    /// The permissions that the last question rested on were no older than the call.
    var isFresh = false
    var refusals = 0
    static let refusalsMax = 16

    init(call: CallReference, purpose: Purpose, name: Bytes, lease: LeaseID) {
        self.call = call
        self.purpose = purpose
        self.name = name.compact()
        prefix = Contests.prefix(of: name)
        self.lease = lease
        key = .empty
        use(lease)
    }

    func use(_ lease: LeaseID) {
        self.lease = lease
        key = Bytes(prefix.array + Array(String(lease.rawValue, radix: 16).utf8))
    }

    private var value: Bytes {
        switch purpose {
        case .lock: .empty
        case .campaign(let value): value
        }
    }

    /// What puts the key, or finds the one that the same lease has put before.
    var entry: Transaction {
        Transaction(
            compares: [.created(key, at: .zero)],
            success: [.put(Put(key: key, value: value, lease: lease))],
            failure: [.range(RangeQuery(range: KeyRange(key: key)))])
    }

    var proclamation: Transaction {
        Transaction(
            compares: [.created(key, at: createRevision)],
            success: [.put(Put(key: key, value: value, lease: lease))])
    }

    /// Takes the key back, unless it is no longer the one that was put.
    var withdrawal: Transaction {
        Transaction(
            compares: [.created(key, at: createRevision)],
            success: [.delete(Delete(range: KeyRange(key: key)))])
    }

    /// The youngest of those before us: when it is gone, most likely all are.
    var older: RangeQuery {
        RangeQuery(
            range: Contests.range(prefix), limit: 1, order: .descending, target: .createRevision,
            keysOnly: true, maxCreateRevision: createRevision.rawValue - 1)
    }

    /// False: the row that the store had instead was put with the value that we want.
    func needsProclamation(_ row: Row) -> Bool {
        switch purpose {
        case .lock: false
        case .campaign(let value): row.value != value
        }
    }

    /// Its key vanished while it waited: the lease has ended, or somebody deleted the key.
    var expired: CallFailure {
        switch purpose {
        case .lock: CallFailure(status: .unknown, text: "mutex: session is expired")
        case .campaign: .notLeader
        }
    }
}

extension CallFailure {
    // etcd's election service answers with these texts, and without a status of its own.
    static let notLeader = CallFailure(status: .unknown, text: "election: not leader")
    static let noLeaderElected = CallFailure(status: .unknown, text: "election: no leader")
    static let noLeaderGiven = CallFailure(
        status: .unknown, text: "\"leader\" field must be provided")

    /// etcd's lock and election services are clients of its own and pass on only the text of what they
    /// were told. What a client should try again keeps its status here.
    var withoutStatus: CallFailure {
        switch status {
        case .invalidArgument, .notFound, .failedPrecondition, .outOfRange:
            CallFailure(status: .unknown, text: text)
        default: self
        }
    }
}

extension Compare {
    static func created(_ key: Bytes, at revision: Revision) -> Compare {
        Compare(
            range: KeyRange(key: key), relation: .equal,
            target: .createRevision(revision.rawValue))
    }
}
