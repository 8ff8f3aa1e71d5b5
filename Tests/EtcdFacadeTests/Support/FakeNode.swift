import EtcdFacade
import Primitives

/// A node that is one map in memory: every version of every key, whole revisions, no concurrency.
/// Slow and plain on purpose: it is what the facade is compared with.
final class FakeNode: NodeAccess {
    unowned var client: (any NodeClient)?
    private(set) var history: [RevisionChanges] = []
    /// Every version of every key, the oldest first.
    private var versions: [Bytes: [Row]] = [:]
    private(set) var revision = Revision.initial
    private(set) var leases: [LeaseID: Int64] = [:]
    var authState = AuthState()
    var picture = NodeStatus()
    var now = Instant(nanoseconds: 1_000_000_000)
    private var nextLease: Int64 = 7_000

    /// Answers wait until `releaseAnswers`.
    var holdsAnswers = false
    /// The timeline waits until `releaseChanges`.
    var holdsChanges = false
    private(set) var held: [(token: UInt64, answer: Answer)] = []
    private var heldChanges: [RevisionChanges] = []
    private(set) var cancelled: [UInt64] = []
    private(set) var deadlines: [Instant] = []
    private(set) var requests: [Request] = []
    private(set) var linearizableReads = 0
    private(set) var serializableReads = 0
    /// What the next request or read index fails with.
    var nextFailure: RequestError?
    var delayCause = DelayCause.unknown
    /// Of reads?
    private(set) var delaysAsked: [Bool] = []
    func causeOfDelay(since start: Instant, isRead: Bool) -> DelayCause {
        delaysAsked.append(isRead)
        return delayCause
    }
    var conflictReports: [ConflictReport] = []
    private(set) var rowReads = 0
    /// Whole ranges, counts too.
    private(set) var rangeReads = 0
    /// Of the history, and the largest piece that was asked for.
    private(set) var changeReads = 0
    private(set) var changeBytesMax = 0

    enum Answer {
        case response(Response)
        case index(Result<ReadIndex, RequestError>)
    }

    init() {
        picture.clusterID = 0xC1
        picture.memberID = 0xA1
        picture.name = "r1-n1"
        picture.region = "r1"
        picture.sequencer = NodeID(1)
        picture.sequencerMemberID = 0xA1
        picture.epochRound = 3
        picture.isReady = true
        picture.members = [
            NodeStatus.Member(
                id: 0xA1, name: "r1-n1", clientURLs: ["http://127.0.0.1:2379"],
                peerURLs: ["http://127.0.0.1:2380"], node: NodeID(1), version: "0.1.0"),
            NodeStatus.Member(
                id: 0xA2, name: "r1-n2", clientURLs: ["http://127.0.0.1:2389"],
                peerURLs: ["http://127.0.0.1:2390"], node: NodeID(2), isHealthy: false),
        ]
    }

    var status: NodeStatus {
        var status = picture
        status.revision = revision
        return status
    }

    // MARK: Requests

    lazy var members = RegionMembers(
        version: 1,
        members: picture.members.enumerated().map { i, member in
            .init(
                id: member.id, node: NodeID(UInt16(i + 1)), token: 1, name: member.name,
                peerURLs: member.peerURLs, clientURLs: member.clientURLs)
        }, used: picture.members.indices.map { NodeID(UInt16($0 + 1)) })

    func submit(_ request: Request, deadline: Instant, token: UInt64) {
        deadlines.append(deadline)
        requests.append(request)
        if let failure = takeFailure() { return answer(token, .response(.failed(failure))) }
        answer(token, .response(execute(request)))
    }

    func readIndex(linearizable: Bool, deadline: Instant, token: UInt64) {
        deadlines.append(deadline)
        if linearizable { linearizableReads += 1 } else { serializableReads += 1 }
        if let failure = takeFailure() { return answer(token, .index(.failure(failure))) }
        answer(
            token,
            .index(
                .success(ReadIndex(revision: revision, compactRevision: picture.compactRevision))))
    }

    func moveLeader(to target: NodeID, deadline: Instant, token: UInt64) {
        if let failure = takeFailure() { return answer(token, .index(.failure(failure))) }
        picture.sequencer = target
        picture.sequencerMemberID = picture.members.first { $0.node == target }?.id ?? 0
        answer(token, .index(.success(ReadIndex(revision: revision, compactRevision: .zero))))
    }

    func cancel(token: UInt64) {
        cancelled.append(token)
        held.removeAll { $0.token == token }
    }

    func randomLeaseID() -> LeaseID {
        nextLease += 1
        return LeaseID(nextLease)
    }

    func keys(of lease: LeaseID) -> [Bytes]? {
        live(.everything, at: revision).filter { $0.lease == lease }.map(\.key)
    }
    func setAlarm(_ alarm: Alarm, isRaised: Bool) -> Bool {
        guard picture.alarms.contains(alarm) != isRaised else { return false }
        if isRaised {
            picture.alarms.append(alarm)
        } else {
            picture.alarms.removeAll { $0 == alarm }
        }
        return true
    }

    func conflicts(limit: Int) -> [ConflictReport] { Array(conflictReports.prefix(limit)) }

    private func takeFailure() -> RequestError? {
        defer { nextFailure = nil }
        return nextFailure
    }

    private func answer(_ token: UInt64, _ answer: Answer) {
        if holdsAnswers { held.append((token, answer)) } else { deliver(token, answer) }
    }

    private func deliver(_ token: UInt64, _ answer: Answer) {
        switch answer {
        case .response(let response): client?.onResponse(response, token: token)
        case .index(let result): client?.onReadIndex(result, token: token)
        }
    }

    /// In the order of asking, or the other way round.
    func releaseAnswers(reversed: Bool = false) {
        holdsAnswers = false
        let all = reversed ? held.reversed() : held
        held = []
        for (token, answer) in all { deliver(token, answer) }
    }

    func releaseChanges() {
        holdsChanges = false
        let all = heldChanges
        heldChanges = []
        client?.onChanges(all, through: revision)
    }

    /// What a snapshot does to a node that was away: the timeline jumps.
    func loseHeldChanges() {
        holdsChanges = false
        heldChanges = []
        client?.onChangesLost(through: revision)
    }

    private func execute(_ request: Request) -> Response {
        switch request {
        case .transaction(let transaction):
            do throws(RequestError) {
                var effects: [Row] = []
                let result = try evaluate(transaction, into: &effects)
                commit(effects)
                return .transaction(result, revision: revision)
            } catch {
                return .failed(error)
            }
        case .leaseGrant(let id, let ttl):
            guard leases[id] == nil else { return .failed(.leaseExists) }
            leases[id] = ttl
            return .leaseGranted(id, ttlSeconds: ttl, revision: revision)
        case .leaseRevoke(let id), .leaseExpire(let id):
            guard leases[id] != nil else { return .failed(.leaseNotFound) }
            leases[id] = nil
            let attached = live(.everything, at: revision).filter { $0.lease == id }
            commit(attached.enumerated().map { deletion($1, sub: $0) })
            return .leaseRevoked(revision: revision)
        case .leaseKeepAlive(let id):
            return .leaseKeptAlive(id, ttlSeconds: leases[id] ?? 0, revision: revision)
        case .leaseTimeToLive(let id, let wantsKeys):
            let keys = live(.everything, at: revision).filter { $0.lease == id }.map(\.key)
            return .leaseTimeToLive(
                id, grantedSeconds: leases[id] ?? 0, remainingSeconds: leases[id] ?? -1,
                keys: wantsKeys ? keys : [], revision: revision)
        case .leaseList: return .leases(leases.keys.sorted(), revision: revision)
        case .compact(let to):
            guard to > picture.compactRevision else { return .failed(.compacted) }
            guard to <= revision else { return .failed(.futureRevision) }
            picture.compactRevision = to
            return .compacted(revision: revision)
        case .split(let parent, let cut):
            guard parent <= PartitionID(8) else { return .failed(.partitionNotFound) }
            return .split(
                PartitionSplit(parent: parent, child: PartitionID(9), cut: cut ?? 1 << 63))
        case .members(let request):
            do throws(RequestError) {
                var subject: UInt64 = 0
                switch request {
                case .list, .publish, .admit: break
                case .add(let urls, let isLearner):
                    subject = try members.add(peerURLs: urls, isLearner: isLearner)
                case .remove(let id): try members.remove(id)
                case .update(let id, let urls): try members.update(id, peerURLs: urls)
                case .promote(let id): try members.promote(id) { _ in true }
                case .drain(let id, let isDrained): try members.drain(id, isDrained)
                case .place(let change): try members.place(change, partitions: 8)
                }
                return .members(members, subject: subject)
            } catch {
                return .failed(error)
            }
        case .replicate: return .failed(.cursorMismatch)
        case .auth(let command, let by):
            var changed: [AuthState.Change] = []
            do throws(AuthError) {
                try authState.apply(command, by: by, changed: &changed)
                client?.onAuthChanged(authState)
                return .auth(nil, revision: revision)
            } catch {
                return .auth(error, revision: revision)
            }
        }
    }

    private func commit(_ effects: [Row]) {
        guard !effects.isEmpty else { return }
        revision = revision.next
        let change = RevisionChanges(revision: revision, rows: effects)
        history.append(change)
        for row in effects { versions[row.key, default: []].append(row) }
        if holdsChanges {
            heldChanges.append(change)
        } else {
            client?.onChanges([change], through: revision)
        }
    }

    // MARK: Evaluation, etcd's way

    private func evaluate(
        _ transaction: Transaction, into effects: inout [Row]
    ) throws(RequestError) -> TransactionResult {
        let succeeded = transaction.compares.allSatisfy(holds)
        let operations = succeeded ? transaction.success : transaction.failure
        var results: [OperationResult] = []
        for operation in operations {
            switch operation {
            case .put(let put):
                let before = newest(put.key, effects)
                if put.keepsValue || put.keepsLease, before == nil { throw .keyNotFound }
                if put.lease != .none, leases[put.lease] == nil { throw .leaseNotFound }
                effects.append(
                    Row(
                        key: put.key, value: put.keepsValue ? before?.value ?? .empty : put.value,
                        createRevision: before?.createRevision ?? revision.next,
                        modRevision: revision.next, version: (before?.version ?? 0) + 1,
                        lease: put.keepsLease ? before?.lease ?? .none : put.lease,
                        sub: UInt32(effects.count), origin: .fake))
                results.append(.put(previous: put.wantsPrevious ? before : nil))
            case .delete(let delete):
                let victims = live(delete.range, effects)
                for victim in victims { effects.append(deletion(victim, sub: effects.count)) }
                results.append(
                    .delete(
                        deleted: Int64(victims.count), previous: delete.wantsPrevious ? victims : []
                    ))
            case .range(let query):
                if query.revision > revision { throw .futureRevision }
                results.append(.range(query.answer(fromAll: live(query.range, effects))))
            case .transaction(let nested):
                results.append(.transaction(try evaluate(nested, into: &effects)))
            }
        }
        return TransactionResult(succeeded: succeeded, results: results)
    }

    private func deletion(_ row: Row, sub: Int) -> Row {
        Row(
            key: row.key, value: .empty, createRevision: .zero, modRevision: revision.next,
            version: 0,
            lease: .none, sub: UInt32(sub), origin: .fake)
    }

    private func holds(_ compare: Compare) -> Bool {
        let rows: [Row?] = live(compare.range, at: revision)
        if rows.isEmpty, case .value = compare.target { return false }
        return (rows.isEmpty ? [nil] : rows).allSatisfy { row in
            func related<T: Comparable>(_ a: T, _ b: T) -> Bool {
                switch compare.relation {
                case .equal: a == b
                case .notEqual: a != b
                case .greater: a > b
                case .less: a < b
                }
            }
            switch compare.target {
            case .version(let n): return related(row?.version ?? 0, n)
            case .createRevision(let n): return related(row?.createRevision.rawValue ?? 0, n)
            case .modRevision(let n): return related(row?.modRevision.rawValue ?? 0, n)
            case .value(let value): return related(row?.value ?? .empty, value)
            case .lease(let n): return related(row?.lease.rawValue ?? 0, n)
            }
        }
    }

    private func newest(_ key: Bytes, _ effects: [Row]) -> Row? {
        live(KeyRange(key: key), effects).first
    }

    private func live(_ range: KeyRange, _ effects: [Row]) -> [Row] {
        var rows: [Bytes: Row] = [:]
        for row in live(range, at: revision) { rows[row.key] = row }
        for row in effects where range.contains(row.key) { rows[row.key] = row }
        return rows.values.filter { !$0.isDeletion }.sorted { $0.key < $1.key }
    }

    private func live(_ range: KeyRange, at: Revision) -> [Row] {
        let keys = range.isSingle ? [range.key] : versions.keys.filter(range.contains).sorted()
        return keys.compactMap { key in
            let row = versions[key]?.last { $0.modRevision <= at }
            return row?.isDeletion == false ? row : nil
        }
    }

    // MARK: Reads

    func range(_ query: RangeQuery, at: Revision) throws(RequestError) -> RangeResult {
        rangeReads += 1
        if at < picture.compactRevision { throw .compacted }
        return query.answer(fromAll: live(query.range, at: at))
    }

    func row(_ key: Bytes, at: Revision) throws(RequestError) -> Row? {
        rowReads += 1
        if at < picture.compactRevision { throw .compacted }
        return live(KeyRange(key: key), at: at).first
    }

    func changes(
        after: Revision, through: Revision, maxRows: Int, maxBytes: Int
    ) throws(RequestError) -> [RevisionChanges] {
        if after < picture.compactRevision { throw .compacted }
        changeReads += 1
        changeBytesMax = max(changeBytesMax, maxBytes)
        var found: [RevisionChanges] = []
        var rows = 0, bytes = 0
        // Revisions are dense: the first is 2.
        for change in history.dropFirst(max(0, Int(after.rawValue) - 1))
        where change.revision <= through {
            found.append(change)
            rows += change.rows.count
            for row in change.rows { bytes += row.key.count + row.value.count }
            if rows >= maxRows || bytes >= maxBytes { break }
        }
        return found
    }

    func hash(
        at revision: Revision, _ done: @escaping (Result<UInt32, RequestError>) -> Void
    ) {
        let hash = UInt32(truncatingIfNeeded: revision.rawValue &* 2_654_435_761)
        if holdsHashes { return heldHashes.append { done(.success(hash)) } }
        done(.success(hash))
    }
    var holdsHashes = false
    var heldHashes: [() -> Void] = []

    /// What the next snapshots consist of; nil: none can be had.
    var snapshotPieces: [SnapshotPiece]?
    private(set) var snapshots: [FakeSnapshot] = []
    private(set) var reclaims = 0

    func openSnapshot() throws(SnapshotFailure) -> any SnapshotSource {
        guard let snapshotPieces else { throw .tooMany }
        let made = FakeSnapshot(snapshotPieces)
        snapshots.append(made)
        return made
    }

    func reclaimSpace() { reclaims += 1 }
}

extension Origin {
    static let fake = Origin(region: RegionID(1), revision: .zero, stamp: .zero)
}

/// Answers when it is told to.
final class FakeSnapshot: SnapshotSource {
    private var pieces: [SnapshotPiece]
    private(set) var isClosed = false
    private var asked: ((Result<SnapshotPiece?, SnapshotFailure>) -> Void)?
    var isAsked: Bool { asked != nil }

    init(_ pieces: [SnapshotPiece]) { self.pieces = pieces }

    func next(_ done: @escaping (Result<SnapshotPiece?, SnapshotFailure>) -> Void) { asked = done }
    func close() { isClosed = true }

    func answer(_ failure: SnapshotFailure? = nil) {
        let done = asked
        asked = nil
        if let failure { done?(.failure(failure)); return }
        done?(.success(pieces.isEmpty ? nil : pieces.removeFirst()))
    }
}
