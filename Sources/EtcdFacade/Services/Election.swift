import EtcdAPI
import Primitives

/// etcd's election service. Who is older in the queue of keys under the name leads.
extension Facade {
    func onCampaign(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        try checkSize(message)
        let request: V3electionpb_CampaignRequest = try parsing(message)
        try contend(
            Contender(
                call: call, purpose: .campaign(value: Bytes(request.value)),
                name: Bytes(request.name), lease: LeaseID(request.lease)))
    }

    func onProclaim(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        try checkSize(message)
        let request: V3electionpb_ProclaimRequest = try parsing(message)
        guard request.hasLeader else { throw .noLeaderGiven }
        let key = try leaderKey(request.leader)
        let lease = LeaseID(request.leader.lease)
        // etcd would grant a lease of its own to a leader without one; the key's own is what is meant.
        let put = Put(
            key: key, value: Bytes(request.value), lease: lease, keepsLease: lease == .none)
        let transaction = Transaction(
            compares: [.created(key, at: Revision(request.leader.rev))], success: [.put(put)])
        submit(.transaction(transaction), call, as: .proclaim)
    }

    func onResign(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        let request: V3electionpb_ResignRequest = try parsing(message)
        guard request.hasLeader else { throw .noLeaderGiven }
        let key = try leaderKey(request.leader)
        let transaction = Transaction(
            compares: [.created(key, at: Revision(request.leader.rev))],
            success: [.delete(Delete(range: KeyRange(key: key)))])
        submit(.transaction(transaction), call, as: .headerOnly)
    }

    func onLeader(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        let request: V3electionpb_LeaderRequest = try parsing(message)
        let prefix = Contests.prefix(of: Bytes(request.name))
        readIndex(call, linearizable: true, as: .leader(Contests.first(prefix)))
    }

    func onLeaderIndex(
        _ call: CallReference, _ query: RangeQuery, _ index: ReadIndex
    ) throws(RequestError) {
        guard let row = try node.range(query, at: index.revision).rows.first else {
            return fail(call, .noLeaderElected)
        }
        answer(call, LeaderResponse.leader(row, headers.at(index.revision)))
    }

    private func leaderKey(_ leader: V3electionpb_LeaderKey) throws(CallFailure) -> Bytes {
        guard !leader.key.isEmpty else { throw EtcdError.emptyKey.failure.withoutStatus }
        return Bytes(leader.key)
    }
}
