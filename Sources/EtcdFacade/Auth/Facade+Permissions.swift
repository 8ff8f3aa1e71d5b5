import EtcdAPI
package import Primitives

// Who asks, and may they? Users and roles are the node's own copy (`authState`), which is as new as every
// read index that comes back; what was decided on an older copy is refused by the leaders, through the
// fence that every request carries (docs/protocol.md "Users and permissions").
extension Facade {
    /// What a method asks for before its message is looked at.
    private enum Gate { case nobody, stranger, anybody, root }

    private func gate(_ method: RPCMethod) -> Gate {
        switch method {
        case .authenticate, .healthCheck, .healthList, .healthWatch, .reflection, .reflectionAlpha:
            .nobody
        case .range, .rangeStream, .put, .deleteRange, .txn, .compact, .watch, .leaseGrant,
            .leaseRevoke, .leaseKeepAlive, .leaseTimeToLive, .leaseLeases, .memberList,
            .userGet, .roleGet, .lock, .unlock, .electionCampaign, .electionProclaim,
            .electionLeader, .electionObserve, .electionResign:
            .anybody
        // Clients learn from it what they may ask for (Kubernetes: progress requests).
        case .status: .anybody
        // To list alarms is part of etcdctl's health check; see onAlarm.
        case .alarm: .anybody
        // How else should one know that a token is needed?
        case .authStatus: .stranger
        case .memberAdd, .memberRemove, .memberUpdate, .memberPromote, .defragment, .hash, .hashKV,
            .snapshot, .moveLeader, .downgrade, .authEnable, .authDisable, .userAdd, .userList,
            .userDelete, .userChangePassword, .userGrantRole, .userRevokeRole, .roleAdd, .roleList,
            .roleDelete, .roleGrantPermission, .roleRevokePermission:
            .root
        }
    }

    /// Before a unary call's message is looked at, while authentication is on.
    func admit(_ open: OpenCall, _ message: Bytes) throws(CallFailure) {
        let gate = gate(open.method)
        if gate == .nobody { return }
        guard let caller = calls.caller(of: open.call) else { throw EtcdError.userEmpty.failure }
        // But a token that is none is refused.
        if gate == .stranger, caller.token == nil { return }
        // What reads is refused while its message is at hand (`onMessage`), if at all.
        if open.method != .range { caller.message = message }
        let session = try identify(caller)
        admitted = (open.call, session)
        if gate == .root { try requireRoot(session) }
    }

    func identify(_ open: OpenCall) throws(CallFailure) -> Session {
        guard let caller = calls.caller(of: open.call) else { throw EtcdError.userEmpty.failure }
        return try identify(caller)
    }

    private func identify(_ caller: Caller) throws(CallFailure) -> Session {
        if let session = caller.session {
            if session.validVersion == authState.version { return session }
            guard isStillTheSame(session) else { throw EtcdError.invalidAuthToken.failure }
            session.validVersion = authState.version
            return session
        }
        let session = try identify(token: caller.token, certificateName: caller.certificateName)
        caller.session = session
        return session
    }

    /// A token counts before a certificate.
    func identify(token: String?, certificateName: String?) throws(CallFailure) -> Session {
        guard let tokens else { throw .notYetSupported("authentication on this node") }
        if let token {
            let now = node.now
            if let known = tokens.knownSession(token: token, version: authState.version, at: now) {
                return known
            }
            guard let session = tokens.session(token: token, in: authState, at: now) else {
                throw EtcdError.invalidAuthToken.failure
            }
            return session
        }
        guard tokens.settings.usesCertificateNames, let certificateName, !certificateName.isEmpty else {
            throw EtcdError.userEmpty.failure
        }
        return tokens.session(certificate: certificateName)
    }

    /// For Maintenance, Cluster and Auth.
    func requireRoot(_ session: Session) throws(CallFailure) {
        guard let grants = session.grants(in: authState) else { throw EtcdError.userNotFound.failure }
        guard grants.isRoot else { throw EtcdError.permissionDenied.failure }
        // The user's password, or the user, is another by now.
        if case .web(let revision, _) = session.kind,
            revision < authState.users[session.user]?.since ?? .max
        {
            throw EtcdError.authOldRevision.failure
        }
    }

    func requireRoot(_ call: CallReference) throws(CallFailure) {
        guard authState.isEnabled, let open = calls[call] else { return }
        try requireRoot(try identify(open))
    }

    /// For keys.
    func grants(of session: Session) throws(CallFailure) -> Grants {
        try requireRevision(of: session)
        guard let grants = session.grants(in: authState) else {
            throw EtcdError.permissionDenied.failure
        }
        return grants
    }

    private func requireRevision(of session: Session) throws(CallFailure) {
        if case .web(let revision, _) = session.kind, revision < authState.revision {
            throw EtcdError.authOldRevision.failure
        }
    }

    private func grants(of call: CallReference) throws(CallFailure) -> Grants? {
        guard let session = try session(of: call) else { return nil }
        return try grants(of: session)
    }

    /// nil: nobody needs to be asked.
    private func session(of call: CallReference) throws(CallFailure) -> Session? {
        guard authState.isEnabled else { return nil }
        if let admitted, admitted.call == call, admitted.session.validVersion == authState.version {
            return admitted.session
        }
        guard calls.isOpen(call) else { return nil }
        guard let caller = calls.caller(of: call) else { throw EtcdError.userEmpty.failure }
        return try identify(caller)
    }

    private func require(_ isPermitted: Bool) throws(CallFailure) {
        guard isPermitted else { throw EtcdError.permissionDenied.failure }
    }

    // MARK: Requests and answers

    func checkPermission(_ request: Request, _ call: CallReference) throws(CallFailure) {
        guard let session = try session(of: call) else { return }
        if case .transaction(let transaction) = request {
            try checkPermission(for: transaction, session)
            // Whoever may not write a lease's keys could let them go with it.
            return try transaction.forEachLease { lease throws(CallFailure) in
                let grants = try self.grants(of: session)
                if !grants.isRoot { try requireWriting(keysOf: lease, grants) }
            }
        }
        let grants = try grants(of: session)
        guard !grants.isRoot else { return }
        switch request {
        case .leaseRevoke(let lease), .leaseKeepAlive(let lease), .leaseExpire(let lease):
            try requireWriting(keysOf: lease, grants)
        // History goes for everybody.
        case .compact: try require(grants.mayWrite(.everything))
        // The answers of these are looked at.
        case .transaction, .leaseTimeToLive, .leaseList, .leaseGrant, .members(.list): break
        case .auth, .replicate, .members, .split: try require(false)
        }
    }

    private func requireWriting(keysOf lease: LeaseID, _ grants: Grants) throws(CallFailure) {
        guard let keys = node.keys(of: lease) else { throw .elsewhere }
        for key in keys { try require(grants.mayWrite(KeyRange(key: key))) }
    }

    func checkPermission(
        toSee response: Response, _ call: CallReference
    ) throws(CallFailure) {
        switch response {
        case .leaseTimeToLive(_, _, _, let keys, _):
            guard !keys.isEmpty, let grants = try grants(of: call), !grants.isRoot else { return }
            for key in keys { try require(grants.mayRead(KeyRange(key: key))) }
        case .leases(let leases, _):
            guard let grants = try grants(of: call), !grants.isRoot else { return }
            for lease in leases {
                guard let keys = node.keys(of: lease) else { throw .elsewhere }
                for key in keys { try require(grants.mayRead(KeyRange(key: key))) }
            }
        case .transaction, .leaseGranted, .leaseRevoked, .leaseKeptAlive, .compacted, .replicated,
            .auth, .members, .split, .failed:
            break
        }
    }

    /// After the read index, so that the permissions are at least as new as the call.
    func checkPermission(toRead kind: Pending.Kind, _ call: CallReference) throws(CallFailure) {
        switch kind {
        case .range(let query), .rangeStream(let query), .leader(let query):
            try checkReading(query.range, call)
        case .readOnlyTransaction(let transaction):
            guard let session = try session(of: call) else { return }
            try checkPermission(for: transaction, session)
        case .put, .delete, .transaction, .compaction, .leaseGrant, .leaseRevoke,
            .leaseTimeToLive, .leaseList, .keepAlive, .memberList, .healthCheck, .refreshed,
            .watchCreation, .auth, .authRead, .authenticate, .hashing, .background, .headerOnly,
            .proclaim, .contends, .follows, .moveLeader, .members:
            break
        }
    }

    func checkReading(_ range: KeyRange, _ call: CallReference) throws(CallFailure) {
        guard let session = try session(of: call) else { return }
        try requireRevision(of: session)
        if let known = session.mayRead(range, at: authState.version) { return try require(known) }
        try require(try grants(of: session).mayRead(range))
    }

    private func checkPermission(
        for transaction: Transaction, _ session: Session
    ) throws(CallFailure) {
        try requireRevision(of: session)
        if let known = session.permits(transaction, at: authState.version) { return try require(known) }
        try require(try grants(of: session).permits(transaction))
    }

    // MARK: A second look

    /// Refused by permissions that may be older than the call: once more with newer ones. False: they
    /// are as new as need be.
    func looksAgain(_ call: CallReference, after failure: CallFailure) -> Bool {
        guard failure.isAboutPermissions, authState.isEnabled, let caller = unaryCaller(of: call),
            !caller.isFresh
        else { return false }
        caller.isFresh = true
        caller.session = nil
        readIndex(call, linearizable: true, as: .refreshed)
        return true
    }

    /// Whose message is at hand. A stream's state is its own.
    private func unaryCaller(of call: CallReference) -> Caller? {
        guard let open = calls[call], let caller = calls.caller(of: call), caller.message != nil else {
            return nil
        }
        switch open.state {
        case .expectsMessage, .waits: return caller
        case .watch, .rangeStream, .list, .page, .keepAlive, .observes, .contends, .follows, .reflects,
            .snapshot, .computes:
            return nil
        }
    }

    /// A leader knew of newer permissions. Bounded, though each time has moved on.
    func looksAgainAfterFence(_ call: CallReference) -> Bool {
        guard let caller = unaryCaller(of: call), caller.refusals < 16 else { return false }
        caller.refusals += 1
        caller.isFresh = true
        caller.session = nil
        readIndex(call, linearizable: true, as: .refreshed)
        return true
    }

    // MARK: Watches

    /// As etcd refuses a watch: created and cancelled in one answer.
    func createWatch(_ creation: WatchCreation, on stream: WatchStream) {
        guard authState.isEnabled, let open = calls[stream.call] else {
            return watches.onCommand(.create(creation), on: stream)
        }
        do throws(CallFailure) {
            try checkWatch(creation.range, open)
            watches.onCommand(.create(creation), on: stream)
        } catch {
            guard stream.creations.count < 1_000 else { return watches.refuse(error.text, on: stream) }
            let kind = Pending.Kind.watchCreation(stream, creation)
            let token = pending.add(Pending(call: stream.call, kind: kind))
            stream.creations.insert(token)
            let deadline = node.now.advanced(by: limits.requestTimeout)
            node.readIndex(linearizable: true, deadline: deadline, token: token)
        }
    }

    /// The second look at a refused one.
    func createWatchAgain(_ creation: WatchCreation, on stream: WatchStream) {
        guard !stream.isClosed, let open = calls[stream.call] else { return }
        do throws(CallFailure) {
            calls.caller(of: stream.call)?.session = nil
            if authState.isEnabled { try checkWatch(creation.range, open) }
            watches.onCommand(.create(creation), on: stream)
        } catch {
            watches.refuse(error.text, on: stream)
        }
    }

    private func checkWatch(_ range: KeyRange, _ open: OpenCall) throws(CallFailure) {
        // A watch without a key begins at the smallest.
        let range = range.key.isEmpty ? KeyRange(key: Bytes([0]), end: range.end) : range
        try require(try grants(of: try identify(open)).mayRead(range))
    }

    // MARK: Changes

    /// Streams stay open, and keep their user; watches of what that user may no longer see end. (etcd
    /// lets them run.)
    package func onAuthChanged(_ state: AuthState) {
        authState = state
        guard state.isEnabled else { return }
        for open in calls.all {
            switch open.state {
            case .watch(let stream): endForbidden(of: stream, open)
            case .follows(let follower):
                do throws(CallFailure) {
                    try checkReading(Contests.range(follower.prefix), open.call)
                } catch {
                    fail(open.call, error)
                }
            // They ask again before they get anything.
            case .expectsMessage, .rangeStream, .list, .page, .waits, .keepAlive, .observes, .contends,
                .reflects, .snapshot, .computes:
                break
            }
        }
    }

    private func endForbidden(of stream: WatchStream, _ open: OpenCall) {
        for id in stream.watchers.keys.sorted() {
            guard let watcher = stream.watchers[id] else { continue }
            do throws(CallFailure) {
                // A web token's revision grows old with every change: of a stream it was right once.
                guard let grants = try identify(open).grants(in: authState) else {
                    throw EtcdError.permissionDenied.failure
                }
                try require(grants.mayRead(watcher.range))
            } catch {
                watches.cancel(watcher, reason: error.text)
            }
        }
    }

    /// Not another user of the same name, nor one whose password has changed since.
    private func isStillTheSame(_ session: Session) -> Bool {
        switch session.kind {
        case .simple(let since, let enabledSince):
            authState.users[session.user]?.since == since && authState.enabledSince == enabledSince
        case .web(let revision, _): authState.users[session.user].map { $0.since <= revision } ?? false
        case .certificate: true
        }
    }
}

extension CallFailure {
    fileprivate static let aboutPermissions: Set<String> = [
        EtcdError.permissionDenied.text, EtcdError.invalidAuthToken.text, EtcdError.userEmpty.text,
        EtcdError.userNotFound.text, EtcdError.authOldRevision.text,
    ]
    fileprivate var isAboutPermissions: Bool { Self.aboutPermissions.contains(text) }
}
