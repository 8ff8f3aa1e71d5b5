import EtcdAPI
import Primitives

/// What the facade waits for on behalf of a call, under the token that it gave the node. The answer
/// is encoded from this and from what the node says: no closures.
struct Pending {
    enum Kind {
        case put
        case delete
        case transaction
        case range(RangeQuery)
        case rangeStream(RangeQuery)
        case readOnlyTransaction(Transaction)
        case compaction
        case leaseGrant
        case leaseRevoke
        case leaseTimeToLive
        case leaseList
        case keepAlive(KeepAliveStream, position: UInt64)
        case memberList
        case moveLeader
        /// A change of the members, or the list as the directory has it.
        case members(RPCMethod)
        case healthCheck(HTTPHealthCheck)
        /// Transactions whose answer is a header: Unlock, Resign, and (without a call) the withdrawal
        /// of a contender.
        case headerOnly
        case proclaim
        case leader(RangeQuery)
        case contends(Contender)
        case follows(LeaderFollower)
        /// Permissions are as new as the call now: look at it again.
        case refreshed
        case watchCreation(WatchStream, WatchCreation)
        case auth
        case authRead(Facade.AuthQuery)
        case authenticate(Facade.Authentication)
        /// A password is at work.
        case hashing
        /// Asked by the node's own host, not by a client.
        case background(BackgroundRequest)
    }
    /// nil: not an RPC.
    let call: CallReference?
    let kind: Kind
}

/// What a host asks of its region by itself, such as a compaction.
package final class BackgroundRequest {
    let onResponse: (Response) -> Void
    init(_ onResponse: @escaping (Response) -> Void) { self.onResponse = onResponse }
}

/// Tokens to what waits under them: a flat table with a free list. A token is never used twice in
/// practice (32 bits of generation), so a late answer finds nothing.
struct PendingCalls {
    private var entries: [Pending?] = []
    private var generations: [UInt32] = []
    private var free: [UInt32] = []
    var count: Int { entries.count - free.count }

    mutating func add(_ pending: Pending) -> UInt64 {
        if let slot = free.popLast() {
            entries[Int(slot)] = pending
            return UInt64(generations[Int(slot)]) << 32 | UInt64(slot)
        }
        entries.append(pending)
        generations.append(1)
        return 1 << 32 | UInt64(entries.count - 1)
    }

    mutating func take(_ token: UInt64) -> Pending? {
        let slot = Int(token & 0xFFFF_FFFF)
        guard slot < entries.count, UInt64(generations[slot]) == token >> 32,
            let pending = entries[slot]
        else { return nil }
        entries[slot] = nil
        generations[slot] &+= 1
        free.append(UInt32(slot))
        return pending
    }
}

/// What is known of an open call, by the slot of its reference.
struct OpenCall {
    enum State {
        /// Of a unary call: its message has not come.
        case expectsMessage
        /// The node was asked under this token.
        case waits(UInt64)
        case watch(WatchStream)
        case keepAlive(KeepAliveStream)
        case rangeStream(RangeStream)
        case list(List)
        case page(DelayedRead)
        /// Health.Watch: has its answer, and stays open until the client goes.
        case observes
        /// Lock, Campaign: its key is, or is to be, in a queue.
        case contends(Contender)
        /// Observe.
        case follows(LeaderFollower)
        /// Server reflection: each message is answered as it comes.
        case reflects
        case snapshot(SnapshotStream)
        /// A hash is being computed; it cannot be stopped.
        case computes
    }
    let call: CallReference
    let method: RPCMethod
    let requiresLeader: Bool
    let startedAt: Instant
    let deadline: Instant
    var state: State
}

struct OpenCalls {
    private var calls: [OpenCall?] = []
    /// By the same slots; beside the calls, since each look at a call copies it. Of unary calls only while
    /// authentication is on.
    private var callers: [Caller?] = []

    subscript(call: CallReference) -> OpenCall? {
        get {
            let slot = Int(call.slot)
            guard slot < calls.count, let open = calls[slot], open.call == call else { return nil }
            return open
        }
        set {
            let slot = Int(call.slot)
            while slot >= calls.count { calls.append(nil) }
            // A slot in use by another call is that call's.
            guard newValue != nil || calls[slot]?.call == call else { return }
            calls[slot] = newValue
            if newValue == nil { endCaller(slot) }
        }
    }

    mutating func setCaller(of call: CallReference, token: String?, certificateName: String?) {
        let slot = Int(call.slot)
        while slot >= callers.count { callers.append(nil) }
        if let caller = callers[slot] {
            return caller.begin(call, token: token, certificateName: certificateName)
        }
        let caller = Caller()
        callers[slot] = caller
        caller.begin(call, token: token, certificateName: certificateName)
    }

    private func endCaller(_ slot: Int) {
        if slot < callers.count { callers[slot]?.end() }
    }

    func isOpen(_ call: CallReference) -> Bool {
        let slot = Int(call.slot)
        return slot < calls.count && calls[slot]?.call == call
    }

    /// nil: the call has ended, or began while authentication was off.
    func caller(of call: CallReference) -> Caller? {
        let slot = Int(call.slot)
        guard slot < callers.count, let caller = callers[slot], caller.call == call else { return nil }
        return caller
    }

    private func index(_ call: CallReference) -> Int? { isOpen(call) ? Int(call.slot) : nil }

    /// The call waits for the node's answer under this token, until its deadline. In place, as the next one:
    /// each request comes by here.
    mutating func wait(_ call: CallReference, for token: UInt64) -> Instant? {
        guard let i = index(call) else { return nil }
        calls[i]?.state = .waits(token)
        return calls[i]?.deadline
    }

    mutating func remove(_ call: CallReference) -> OpenCall? {
        guard let i = index(call) else { return nil }
        endCaller(i)
        return calls[i].take()
    }

    var all: [OpenCall] { calls.compactMap { $0 } }
    var isEmpty: Bool { calls.allSatisfy { $0 == nil } }
}

extension OpenCall.State {
    /// Goes on reading at one revision, over several turns.
    var readsStore: Bool {
        switch self {
        case .rangeStream, .list, .page, .snapshot, .computes: true
        case .expectsMessage, .waits, .watch, .keepAlive, .observes, .contends, .follows, .reflects: false
        }
    }

    /// For those who look at what is open.
    var name: String {
        switch self {
        case .expectsMessage: "expects its message"
        case .waits: "waits for the node"
        case .watch(let stream): "watches: \(stream.watchers.count)"
        case .keepAlive: "keeps leases alive"
        case .rangeStream, .list, .page: "reads"
        case .observes: "observes health"
        case .contends: "waits for its turn"
        case .follows: "follows an election"
        case .reflects: "reflects"
        case .snapshot: "sends a snapshot"
        case .computes: "computes"
        }
    }
}
