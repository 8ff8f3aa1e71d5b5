import Partitioning
package import Primitives

// Users, roles and permissions: part of the directory's log, the same on every node. A change is told
// as done only once nothing that was checked before it can take effect any more (docs/protocol.md
// "Users and permissions").
extension Node {
    /// Waits for its entry, then for the fence.
    struct AuthChange: Sendable {
        let id: RequestID
        let nonce: UInt64
        var outcome: Outcome?
        struct Outcome: Sendable {
            let error: AuthError?
            let fence: UInt64
        }
    }

    static let authChangesMax = 1_024

    package var authState: AuthState { directory.auth }

    /// At the sequencer's node, as compactions are.
    mutating func change(_ id: RequestID, _ command: AuthCommand, by: Bytes?) {
        guard let sequencer, sequencer.isOpen else {
            region.redirects.append(id)
            return
        }
        guard authChanges.count < Self.authChangesMax else {
            region.answers.append((id, .failed(.tooManyRequests)))
            return
        }
        let nonce = nextAuthNonce
        nextAuthNonce &+= 1
        authChanges.append(AuthChange(id: id, nonce: nonce))
        region.proposals.append(
            (.directory, EntryBody.auth(nonce: nonce, by: by, command).encoded()))
    }

    mutating func authDecided(
        _ nonce: UInt64, _ error: AuthError?, into effects: inout NodeEffects
    ) {
        if let i = authChanges.firstIndex(where: { $0.nonce == nonce }) {
            authChanges[i].outcome = .init(error: error, fence: directory.auth.fence)
        }
        noticeAuth(into: &effects)
    }

    /// The facade hears of it before any answer of this turn; what waited for it goes on.
    mutating func noticeAuth(into effects: inout NodeEffects) {
        effects.auth = directory.auth
        sequencer?.authChanged(version: directory.auth.version, fence: directory.auth.fence)
        advanceLocalFrontier(into: &effects)
        answerReads(into: &effects)
    }

    mutating func answerAuthChanges() {
        guard !authChanges.isEmpty, let sequencer else { return }
        let settled = sequencer.settledFence, frontier = sequencer.frontier
        authChanges.removeAll { change in
            guard let outcome = change.outcome,
                outcome.fence <= settled || Mutation.changesToldAtOnce.isOn
            else { return false }
            region.answers.append((change.id, .auth(outcome.error, revision: frontier)))
            return true
        }
    }

    /// The log may hold them all the same.
    mutating func abandonAuthChanges() {
        for change in authChanges { region.answers.append((change.id, .failed(.timedOut))) }
        authChanges.removeAll()
    }

    /// The keys that are attached to a lease, as this node's replicas know it.
    package func keys(of lease: LeaseID) -> [Bytes] {
        partitions.flatMap { $0.state.leaseKeys[lease] ?? [] }
    }
}
