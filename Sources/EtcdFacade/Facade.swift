package import EtcdAPI
import NIOCore
package import Primitives

/// A node as etcd: takes calls from `RPCServer`, asks the node through `NodeAccess`, answers.
/// Everything happens on one loop. Services are extensions in `Services/`, watches in `WatchHub`.
package final class Facade {
    let node: any NodeAccess
    let output: any CallOutput
    let loop: any EventLoop
    let limits: FacadeLimits
    let headers: HeaderSource
    let versions: ServedVersions
    let watches: WatchHub
    /// Who may use plain HTTP, and for what. Set before the server listens.
    package var access = HTTPAccess()
    /// Where the gateway's calls go in; nil: there is no gateway.
    weak var localCalls: (any LocalCalls)?
    /// For its counters.
    private(set) weak var server: RPCServer?
    var pending = PendingCalls()
    var calls = OpenCalls()
    var contests = Contests()
    var metrics = CallMetrics()
    let keysTotal = KeyCount()
    let auth: AuthServices?
    let tokens: TokenKeeper?
    /// Users, roles and permissions as this node knows them. Asked several times a call, on the loop only.
    @exclusivity(unchecked) var authState: AuthState
    /// Is told of calls that took longer than they should; few a second at most.
    package var onSlowCall: ((SlowCall) -> Void)?
    var slowCallsLeft = SlowCall.perTickMax
    /// Of lists that are being read.
    let listBytes = UnreadBytes()
    var eager: EagerReads
    /// The unary call that is looked at just now, and who has made it: each is asked for several times.
    @exclusivity(unchecked) var admitted: (call: CallReference, session: Session)?
    let steps: LoopSteps
    var hasLeader: Bool
    private var leaderLostAt: Instant
    private var isStopped = false

    /// `node.status` must know the cluster's and the member's id by now.
    package convenience init(
        node: any NodeAccess, server: RPCServer, limits: FacadeLimits = FacadeLimits(),
        versions: ServedVersions = ServedVersions(), auth: AuthServices? = nil
    ) {
        self.init(
            node: node, output: server, loop: server.loop, steps: server.steps, limits: limits,
            versions: versions, auth: auth)
        localCalls = server
        self.server = server
    }

    init(
        node: any NodeAccess, output: any CallOutput, loop: any EventLoop, steps: LoopSteps? = nil,
        limits: FacadeLimits, versions: ServedVersions = ServedVersions(), auth: AuthServices? = nil
    ) {
        self.auth = auth
        self.steps = steps ?? LoopSteps(loop: loop)
        tokens = auth.map { TokenKeeper($0) }
        authState = node.authState
        self.node = node
        self.output = output
        self.loop = loop
        self.limits = limits
        self.versions = versions
        eager = EagerReads(bytes: limits.eagerBytes)
        headers = HeaderSource(node)
        watches = WatchHub(
            node: node, output: output, steps: self.steps, limits: limits, headers: headers)
        hasLeader = node.status.sequencer != nil
        leaderLostAt = node.now
    }

    /// Begins to look after time (progress notifications, streams without a leader). On the loop.
    package func start() { scheduleTick() }

    /// Single keys that were read at once, since somebody set it to zero: others than readers of long lists,
    /// to whom it is all the same when the loop comes round to them.
    @exclusivity(unchecked) package var keysRead = 0

    /// Calls that wait for the node.
    package var waiting: Int { pending.count }

    /// No more ticks; calls that are open end as the server closes them.
    package func stop() { isStopped = true }

    private func scheduleTick() {
        // Often enough for progress notifications that are wanted often; without calls there is nobody to
        // look after.
        let wanted = limits.progressInterval.milliseconds / 4
        let period = min(calls.isEmpty ? 1000 : 250, max(25, wanted))
        _ = loop.assumeIsolated().scheduleTask(in: .milliseconds(Int64(period))) { [weak self] in
            guard let self, !self.isStopped else { return }
            self.onTick()
            self.scheduleTick()
        }
    }

    func onTick() {
        let now = node.now
        slowCallsLeft = SlowCall.perTickMax
        output.relievePressure()
        watches.onTick(now)
        guard !hasLeader, now.since(leaderLostAt) >= limits.leaderlessMax else { return }
        for open in calls.all where open.requiresLeader {
            switch open.state {
            // Streams; what has one answer has its own deadline.
            case .watch, .keepAlive, .rangeStream, .observes, .follows, .reflects, .snapshot:
                fail(open.call, EtcdError.noLeader.failure)
            case .expectsMessage, .waits, .list, .page, .contends, .computes: break
            }
        }
    }

    // MARK: Ends of calls

    func answer(_ call: CallReference, _ message: [UInt8]) {
        let hasRoom =
            message.count <= limits.smallAnswerBytes
            ? output.hasRoom(forSmall: message.count, to: call) : output.hasRoom(for: message.count)
        guard hasRoom else {
            return fail(call, RequestError.tooManyRequests.failure)
        }
        guard let open = calls.remove(call) else { return }
        metrics.count(open.method, .ok)
        output.send(message, to: call)
        output.finish(call, .ok, message: "")
        ended(open, .ok, answerBytes: message.count)
    }

    /// One of the messages of a stream.
    func sendOnStream(_ message: [UInt8], to call: CallReference, _ method: RPCMethod) {
        metrics.sent(method)
        output.send(message, to: call)
    }

    func fail(_ call: CallReference, _ failure: CallFailure) {
        guard let open = calls[call] else { return }
        metrics.count(open.method, failure.status)
        release(open)
        output.finish(call, failure.status, message: failure.text)
        ended(open, failure.status, answerBytes: 0)
    }

    /// A stream that its client has ended.
    func complete(_ call: CallReference) {
        guard let open = calls[call] else { return }
        metrics.count(open.method, .ok)
        release(open)
        output.finish(call, .ok, message: "")
    }

    /// Frees what the call held here and in the node.
    private func release(_ open: OpenCall) {
        calls[open.call] = nil
        switch open.state {
        case .expectsMessage, .observes, .reflects, .computes: break
        case .waits(let token):
            if pending.take(token) != nil { node.cancel(token: token) }
        case .watch(let stream):
            watches.close(stream)
            for token in stream.creations where pending.take(token) != nil { node.cancel(token: token) }
            stream.creations.removeAll()
        case .rangeStream(let stream): stream.isClosed = true
        case .list(let list): list.isClosed = true
        case .page(let page): page.isClosed = true
        case .keepAlive(let stream): cancelAll(of: stream)
        case .contends(let contender): abandon(contender)
        case .follows(let follower): abandon(follower)
        case .snapshot(let stream): stream.source.close()
        }
    }

    // MARK: Asking the node

    func wait(_ call: CallReference, as kind: Pending.Kind) -> (token: UInt64, deadline: Instant)? {
        let token = pending.add(Pending(call: call, kind: kind))
        guard let deadline = calls.wait(call, for: token) else {
            _ = pending.take(token)
            return nil
        }
        return (token, deadline)
    }

    /// If the caller may.
    func submit(_ request: Request, _ call: CallReference, as kind: Pending.Kind) {
        if authState.isEnabled {
            do throws(CallFailure) {
                try checkPermission(request, call)
            } catch {
                if error == .elsewhere {
                    return node.whenFetched { [weak self] in
                        guard let self, calls.isOpen(call) else { return }
                        submit(request, call, as: kind)
                    }
                }
                if !looksAgain(call, after: error) { fail(call, error) }
                return
            }
        }
        guard let (token, deadline) = wait(call, as: kind) else { return }
        node.submit(request, deadline: deadline, token: token)
    }

    /// For the host itself; the answer comes on the loop, if only that time is up.
    package func submit(_ request: Request, onResponse: @escaping (Response) -> Void) {
        let background = BackgroundRequest(onResponse)
        let token = pending.add(Pending(call: nil, kind: .background(background)))
        let deadline = node.now.advanced(by: limits.requestTimeout)
        node.submit(request, deadline: deadline, token: token)
    }

    func readIndex(_ call: CallReference, linearizable: Bool, as kind: Pending.Kind) {
        // Others go on after their index: their calls must be known to wait.
        let endsWithIndex =
            switch kind {
            case .range, .readOnlyTransaction: true
            default: false
            }
        if endsWithIndex, let index = node.readIndexNow(linearizable: linearizable) {
            return serve(kind, .success(index), call)
        }
        guard let (token, deadline) = wait(call, as: kind) else { return }
        node.readIndex(linearizable: linearizable, deadline: deadline, token: token)
    }
}

// MARK: - Calls of clients

extension Facade: RPCHandler {
    package func onCall(_ call: CallReference, method: RPCMethod, metadata: CallMetadata) {
        metrics.started(method)
        metrics.clients.count(metadata.clientAPIVersion, isStream: method.shape != .unary)
        let now = node.now
        let timeout = min(metadata.timeout ?? limits.requestTimeout, limits.requestTimeout)
        var open = OpenCall(
            call: call, method: method, requiresLeader: metadata.requiresLeader, startedAt: now,
            deadline: now.advanced(by: timeout), state: .expectsMessage)
        if metadata.requiresLeader, !hasLeader {
            calls[call] = open
            return fail(call, EtcdError.noLeader.failure)
        }
        switch method {
        case .watch: open.state = .watch(watches.open(call))
        case .leaseKeepAlive: open.state = .keepAlive(KeepAliveStream(call: call))
        case .reflection, .reflectionAlpha: open.state = .reflects
        default: break
        }
        // Streams outlive a change of mind about authentication.
        if authState.isEnabled || method == .watch || method == .leaseKeepAlive
            || method == .electionObserve
        {
            calls.setCaller(
                of: call, token: metadata.token, certificateName: metadata.peerName)
        }
        calls[call] = open
    }

    package func onMessage(_ call: CallReference, _ message: Bytes) {
        guard let open = calls[call] else { return }
        metrics.received(open.method)
        do throws(CallFailure) {
            switch open.state {
            case .expectsMessage: try onUnary(open, message)
            case .watch(let stream):
                let command = try decoding { () throws(CodecError) in
                    try RequestCodec.watch(message)
                }
                if case .create(let creation) = command, authState.isEnabled {
                    createWatch(creation, on: stream)
                } else {
                    watches.onCommand(command, on: stream)
                }
                if stream.isClosed { calls[call] = nil }
            case .keepAlive(let stream): try onKeepAlive(message, on: stream)
            case .reflects: try onReflection(call, message)
            // gRPC: one message of a unary call. What comes after it is passed over.
            case .waits, .rangeStream, .list, .page, .observes, .contends, .follows, .snapshot,
                .computes:
                break
            }
        } catch {
            if case .expectsMessage = open.state { calls.caller(of: call)?.message = message }
            if !looksAgain(call, after: error) { fail(call, error) }
        }
    }

    package func onHalfClose(_ call: CallReference) {
        guard let open = calls[call] else { return }
        switch open.state {
        case .expectsMessage: fail(call, .noMessage)
        // etcd goes on sending events to a client that has no more to ask.
        case .watch: break
        case .keepAlive(let stream):
            stream.isHalfClosed = true
            if stream.isIdle { complete(call) }
        case .reflects: complete(call)
        case .waits, .rangeStream, .list, .page, .observes, .contends, .follows, .snapshot, .computes:
            break
        }
    }

    package func onCancelled(_ call: CallReference) {
        guard let open = calls[call] else { return }
        let isLate = node.now >= open.deadline
        metrics.count(open.method, isLate ? .deadlineExceeded : .cancelled)
        release(open)
        ended(open, isLate ? .deadlineExceeded : .cancelled, answerBytes: 0)
    }

    package func onWritable(_ call: CallReference) {
        guard let open = calls[call] else { return }
        switch open.state {
        case .watch(let stream): watches.onWritable(stream)
        case .rangeStream(let stream): resume(stream)
        case .follows(let follower): onWritable(follower)
        case .snapshot(let stream): continueSnapshot(stream)
        case .expectsMessage, .waits, .keepAlive, .list, .page, .observes, .contends, .reflects,
            .computes:
            break
        }
    }

    package func onHTTP(_ request: HTTPRequest, _ responder: HTTPResponder) {
        onHTTPRequest(request, responder)
    }

    private func onUnary(_ open: OpenCall, _ message: Bytes) throws(CallFailure) {
        if authState.isEnabled { try admit(open, message) }
        let call = open.call
        switch open.method {
        case .range: try onRange(call, message)
        case .put: try onPut(call, message)
        case .deleteRange: try onDeleteRange(call, message)
        case .txn: try onTransaction(call, message)
        case .compact: try onCompact(call, message)
        case .leaseGrant: try onLeaseGrant(call, message)
        case .leaseRevoke: try onLeaseRevoke(call, message)
        case .leaseTimeToLive: try onLeaseTimeToLive(call, message)
        case .leaseLeases: submit(.leaseList, call, as: .leaseList)
        case .memberList: try onMemberList(call, message)
        case .status: onStatus(call)
        case .hash: onHash(call)
        case .hashKV: try onHashKV(call, message)
        case .alarm: try onAlarm(call, message)
        case .defragment:
            // Nobody waits: space comes back in the background, and nothing stands still meanwhile.
            node.reclaimSpace()
            answer(call, [])
        case .healthCheck: try onHealthCheck(call, message)
        case .healthList: answer(call, Self.allServing)
        case .healthWatch: try onHealthWatch(call, message)
        case .authEnable, .authDisable, .authStatus, .authenticate, .userAdd, .userGet, .userList,
            .userDelete, .userChangePassword, .userGrantRole, .userRevokeRole, .roleAdd, .roleGet,
            .roleList, .roleDelete, .roleGrantPermission, .roleRevokePermission:
            try onAuth(open.method, call, message)
        case .rangeStream: try onRangeStream(call, message)
        case .memberAdd, .memberRemove, .memberUpdate, .memberPromote:
            try onMemberChange(open.method, call, message)
        case .snapshot: try onSnapshot(call)
        case .moveLeader: try onMoveLeader(call, message)
        case .downgrade: try onDowngrade(call, message)
        case .lock: try onLock(call, message)
        case .unlock: try onUnlock(call, message)
        case .electionCampaign: try onCampaign(call, message)
        case .electionProclaim: try onProclaim(call, message)
        case .electionLeader: try onLeader(call, message)
        case .electionObserve: try onObserve(call, message)
        case .electionResign: try onResign(call, message)
        case .watch, .leaseKeepAlive, .reflection, .reflectionAlpha: throw .noMessage
        }
    }
}

// MARK: - Answers of the node

extension Facade: NodeClient {
    package func onResponse(_ response: Response, token: UInt64) {
        guard let waiting = pending.take(token) else { return }
        if case .failed(let error) = response, error.isOfTheRegion { metrics.proposalsFailed += 1 }
        if case .keepAlive(let stream, let position) = waiting.kind {
            return onKeptAlive(response, on: stream, position)
        }
        if case .contends(let contender) = waiting.kind {
            return onResponse(response, for: contender)
        }
        if case .background(let request) = waiting.kind { return request.onResponse(response) }
        guard let call = waiting.call else { return }
        if case .failed(.authChanged) = response, looksAgainAfterFence(call) { return }
        switch (waiting.kind, response) {
        case (.proclaim, .failed(let error)): return fail(call, error.failure.withoutStatus)
        case (.proclaim, .transaction(let result, _)) where !result.succeeded:
            return fail(call, .notLeader)
        case (let kind, .failed(let error)):
            metrics.count(error, of: kind)
            return fail(call, failure(error, call, isRead: false))
        case (_, .auth(let error?, _)): return fail(call, error.failure)
        default: break
        }
        if authState.isEnabled {
            do throws(CallFailure) {
                try checkPermission(toSee: response, call)
            } catch {
                // Only a list of leases is looked at with what may be elsewhere: asked again then.
                guard error == .elsewhere else { return fail(call, error) }
                return node.whenFetched { [weak self] in
                    guard let self, calls.isOpen(call) else { return }
                    submit(.leaseList, call, as: .leaseList)
                }
            }
        }
        guard let message = encode(response, for: waiting.kind) else {
            return fail(
                call,
                CallFailure(status: .internal, text: "polder: the node answered something else"))
        }
        answer(call, message)
    }

    /// As the call is told: why it took too long, if that is known.
    private func failure(
        _ error: RequestError, _ call: CallReference, isRead: Bool
    ) -> CallFailure {
        guard error == .timedOut, let open = calls[call] else { return error.failure }
        return node.causeOfDelay(since: open.startedAt, isRead: isRead).error.failure
    }

    package func onReadIndex(_ answered: Result<ReadIndex, RequestError>, token: UInt64) {
        guard let waiting = pending.take(token) else { return }
        if case .failure(let error) = answered {
            metrics.readIndexesFailed += 1
            if error == .timedOut { metrics.readIndexesSlow += 1 }
        }
        switch waiting.kind {
        case .healthCheck(let check): return check.onReadIndex(answered)
        case .contends(let contender): return onReadIndex(answered, for: contender)
        case .follows(let follower): return onReadIndex(answered, for: follower)
        case .keepAlive(let stream, let position):
            return onReadIndex(answered, on: stream, position)
        case .watchCreation(let stream, let creation):
            stream.creations.remove(token)
            return createWatchAgain(creation, on: stream)
        default: break
        }
        guard let call = waiting.call else { return }
        serve(waiting.kind, answered, call)
    }

    /// A call whose read index is known.
    func serve(
        _ kind: Pending.Kind, _ answered: Result<ReadIndex, RequestError>, _ call: CallReference
    ) {
        if case .moveLeader = kind { return onLeaderMoved(answered, call) }
        switch answered {
        case .failure(let error): fail(call, failure(error, call, isRead: true))
        case .success(let index):
            do throws(CallFailure) {
                if authState.isEnabled { try checkPermission(toRead: kind, call) }
                switch kind {
                case .refreshed:
                    guard let open = calls[call], let message = calls.caller(of: call)?.message else { return }
                    return try onUnary(open, message)
                case .authRead(let query): return answer(call, try read(query, index, call))
                case .authenticate(let attempt): return try onReadIndex(for: attempt, call)
                default: break
                }
            } catch {
                return fail(call, error)
            }
            do throws(RequestError) {
                switch kind {
                case .range(let query) where query.range.isSingle: answer(call, try read(query, index))
                case .range(let query): try beginList(call, query, index)
                case .readOnlyTransaction(let transaction):
                    try readTransaction(call, transaction, index)
                case .memberList: answer(call, memberList())
                case .rangeStream(let query): try beginRangeStream(call, query, index)
                case .leader(let query): try onLeaderIndex(call, query, index)
                case .put, .delete, .transaction, .compaction, .leaseGrant, .leaseRevoke,
                    .leaseTimeToLive, .leaseList, .keepAlive, .healthCheck, .headerOnly, .members,
                    .proclaim, .contends, .follows, .refreshed, .watchCreation, .auth, .authRead,
                    .authenticate, .hashing, .moveLeader, .background:
                    invariant(false, "a read index for what reads nothing")
                }
            } catch {
                // A compaction came in between. Of the newest revision there is always an answer.
                if error == .compacted, case .range(let query) = kind, query.revision == .zero,
                    let open = calls[call], node.now < open.deadline
                {
                    return readIndex(call, linearizable: !query.serializable, as: kind)
                }
                guard error == .elsewhere else { return fail(call, error.failure) }
                suspend(call) { self.serve(kind, answered, call) }
            }
        }
    }

    /// Until what the last read lacks has come from other nodes.
    func suspend(_ call: CallReference, _ body: @escaping () -> Void) {
        guard var open = calls[call] else { return }
        let read = DelayedRead()
        open.state = .page(read)
        calls[call] = open
        node.whenFetched { [weak self] in
            guard let self, !read.isClosed else { return }
            guard node.now < open.deadline else { return fail(call, RequestError.timedOut.failure) }
            body()
        }
    }

    /// Does anybody look at what `onChanges` tells?
    package var needsChanges: Bool { watches.watchersCount > 0 || !contests.isEmpty }

    package func onChanges(_ changes: [RevisionChanges], through: Revision) {
        watches.onChanges(changes, through: through)
        tellContests(changes)
    }

    package func onChangesLost(through: Revision) {
        watches.onChangesLost(through: through)
        tellContestsOfLoss()
    }

    package func onLeaderChanged(hasLeader: Bool) {
        if self.hasLeader, !hasLeader { leaderLostAt = node.now }
        self.hasLeader = hasLeader
    }
}
