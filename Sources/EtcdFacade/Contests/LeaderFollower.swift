import EtcdAPI
import Primitives

/// An Observe call: is told of the leader, and of each that follows. One that does not read is told of
/// the newest when it does.
final class LeaderFollower {
    let call: CallReference
    let prefix: Bytes
    /// The node was asked for a read index; nil once it has answered.
    var token: UInt64?
    /// Key of the leader that is in office; nil: nobody is.
    var leader: Bytes?
    /// The changes up to here are known.
    var seen = Revision.zero
    /// What was sent last: a leader and its version. The next leader's may be older: it has waited.
    var told: (leader: Bytes, version: Revision)?
    var isBlocked = false

    init(call: CallReference, name: Bytes) {
        self.call = call
        prefix = Contests.prefix(of: name)
    }
}

extension Facade {
    func onObserve(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        let request: V3electionpb_LeaderRequest = try parsing(message)
        guard var open = calls[call] else { return }
        guard !contests.isFull else { throw EtcdError.tooManyRequests.failure }
        let follower = LeaderFollower(call: call, name: Bytes(request.name))
        open.state = .follows(follower)
        calls[call] = open
        let token = pending.add(Pending(call: call, kind: .follows(follower)))
        follower.token = token
        let deadline = node.now.advanced(by: limits.requestTimeout)
        node.readIndex(linearizable: true, deadline: deadline, token: token)
    }

    func onReadIndex(_ answered: Result<ReadIndex, RequestError>, for follower: LeaderFollower) {
        follower.token = nil
        switch answered {
        case .failure(let error): fail(follower.call, error.failure)
        case .success(let index):
            if authState.isEnabled {
                do throws(CallFailure) {
                    try checkReading(Contests.range(follower.prefix), follower.call)
                } catch {
                    return fail(follower.call, error)
                }
            }
            contests.add(follower)
            // What this node has shown its watchers already is not told of again.
            look(follower, at: max(index.revision, watches.emitted))
        }
    }

    /// Finds the leader in the store, and tells of it if that is news.
    private func look(_ follower: LeaderFollower, at revision: Revision) {
        follower.seen = max(follower.seen, revision)
        do throws(RequestError) {
            let found = try node.range(Contests.first(follower.prefix), at: revision).rows.first
            follower.leader = found?.key.compact()
            guard let found else { return }
            if let told = follower.told, told == (found.key, found.modRevision) { return }
            tell(follower, of: found, at: revision)
        } catch {
            guard error == .elsewhere else { return fail(follower.call, error.failure) }
            node.whenFetched { [weak self] in
                guard let self, calls.isOpen(follower.call) else { return }
                look(follower, at: max(revision, follower.seen))
            }
        }
    }

    private func tell(_ follower: LeaderFollower, of row: Row, at revision: Revision) {
        follower.told = (row.key.compact(), row.modRevision)
        sendOnStream(
            LeaderResponse.leader(row, headers.at(revision)), to: follower.call, .electionObserve)
        if output.bufferedBytes(of: follower.call) > limits.bufferedBytesHigh {
            follower.isBlocked = true
        }
    }

    private func onRow(_ row: Row, for follower: LeaderFollower) {
        guard row.modRevision > follower.seen, !follower.isBlocked else { return }
        follower.seen = row.modRevision
        if follower.leader == row.key, !row.isDeletion {
            tell(follower, of: row, at: row.modRevision)
        } else if follower.leader == row.key || follower.leader == nil {
            look(follower, at: row.modRevision)
        }
    }

    func onWritable(_ follower: LeaderFollower) {
        guard follower.isBlocked else { return }
        follower.isBlocked = false
        // Not registered yet: the answer of the node comes first.
        if follower.token == nil { look(follower, at: max(follower.seen, watches.emitted)) }
    }

    func abandon(_ follower: LeaderFollower) {
        if let token = follower.token, pending.take(token) != nil { node.cancel(token: token) }
        contests.remove(follower)
    }

    // MARK: The timeline

    /// After the watches have had the changes.
    func tellContests(_ changes: [RevisionChanges]) {
        guard !contests.isEmpty else { return }
        for change in changes {
            for row in change.rows {
                contests.forEachFollower(of: row.key) { onRow(row, for: $0) }
            }
        }
        for contender in contests.take(deletedIn: changes) { look(contender) }
    }

    func tellContestsOfLoss() {
        for follower in contests.allFollowers where !follower.isBlocked {
            look(follower, at: watches.emitted)
        }
        for contender in contests.takeAll() { look(contender) }
    }
}
