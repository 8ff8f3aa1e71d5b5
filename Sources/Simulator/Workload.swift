import Primitives

/// What the clients of a run do, and to what.
struct Workload {
    let keys: Int
    let clientsPerRegion: Int
    /// Mean pause of a client between an answer and its next request.
    let think: TimeSpan
    let leases: Bool
    /// Clients are users, and somebody changes what they may do.
    let hasUsers: Bool
    /// Of the leases that end during the run.
    let shortTTLSeconds: Int64
    /// Weights of the kinds of operation.
    private(set) var weights: [(Kind, UInt64)]

    enum Kind: String, CaseIterable {
        case put, get, serializableGet, list, sortedList, compareAndSwap, multiKey, nested, wide
        case keepsValue, delete, deleteRange, historic, look
        case leaseGrant, leasePut, leasePutMany, leaseKeepAlive, leaseRevoke, leaseTimeToLive, compact
    }

    /// Among the kinds of requests: as much as authentication is on.
    static let users = "users"

    init(
        random: inout SplitMix, compaction: Bool, pace: UInt64, only: [String]?, clients: Int?, users: Bool
    ) {
        keys = Int(2 + random.below(20))
        let drawnClients = Int(2 + random.below(6))
        clientsPerRegion = clients ?? drawnClients
        think = .milliseconds(3 + random.below(40)) * pace
        leases = random.chance(1, in: 2)
        shortTTLSeconds = Int64(2 * pace)
        hasUsers = only.map { $0.contains(Self.users) } ?? users
        weights = []
        for kind in Kind.allCases {
            switch kind {
            case .leaseGrant, .leasePut, .leasePutMany, .leaseKeepAlive, .leaseRevoke, .leaseTimeToLive:
                let weight = 1 + random.below(3)
                if leases { weights.append((kind, weight)) }
            case .compact: if compaction { weights.append((kind, 1)) }
            case .put, .get, .compareAndSwap: weights.append((kind, 4 + random.below(8)))
            case .wide, .nested, .sortedList, .keepsValue: weights.append((kind, random.below(3)))
            case .serializableGet, .list, .multiKey, .delete, .deleteRange, .historic, .look:
                weights.append((kind, random.below(5)))
            }
        }
        if let only {
            let kinds = Set(only.compactMap(Kind.init))
            weights.removeAll { !kinds.contains($0.0) }
            if weights.isEmpty { weights = [(.put, 1)] }
        }
    }

    func pick(_ random: inout SplitMix) -> Kind {
        let total = weights.reduce(0) { $0 + $1.1 }
        var at = random.below(total)
        for (kind, weight) in weights {
            if at < weight { return kind }
            at -= weight
        }
        return .get
    }

    func key(_ random: inout SplitMix) -> Bytes {
        // One key is hot.
        let i = random.chance(1, in: 4) ? 0 : Int(random.below(UInt64(keys)))
        return Bytes(i < 10 ? "k/0\(i)" : "k/\(i)")
    }

    static let allKeys = KeyRange(key: "k/", end: "k0")
}

/// One client: one request at a time, to one node, until that node fails it.
struct Client {
    let number: Int
    let region: RegionID
    var node: NodeID
    var random: SplitMix
    var current: Int?
    var isStopped = false
    var user: Bytes?
    /// An operator does nothing else.
    var changes: UserOperator?
    /// What it saw last of each key: the versions that it compares with.
    private var seen: [Bytes: Row] = [:]
    private var lastRevision = Revision.initial
    private(set) var leases: [LeaseID] = []

    init(number: Int, region: RegionID, node: NodeID, random: SplitMix) {
        self.number = number
        self.region = region
        self.node = node
        self.random = random
    }

    mutating func next(_ workload: Workload, unique: Int) -> Operation.Call {
        if let command = changes?.next(workload, &random) {
            return .request(.auth(command, by: user))
        }
        var kind = workload.pick(&random)
        switch kind {
        case .leasePut, .leasePutMany, .leaseKeepAlive, .leaseRevoke, .leaseTimeToLive:
            if leases.isEmpty { kind = .leaseGrant }
        default: break
        }
        let key = workload.key(&random)
        let value = Bytes("v\(unique)")
        switch kind {
        case .put:
            return transaction([.put(Put(key: key, value: value, wantsPrevious: random.chance(1, in: 3)))])
        case .get: return .read(RangeQuery(range: KeyRange(key: key)))
        case .serializableGet:
            return .read(RangeQuery(range: KeyRange(key: key), serializable: true))
        case .list:
            var query = RangeQuery(
                range: Workload.allKeys, serializable: random.chance(1, in: 4),
                keysOnly: random.chance(1, in: 5), countOnly: random.chance(1, in: 5))
            if random.chance(1, in: 2) { query.limit = Int64(1 + random.below(5)) }
            return .read(query)
        case .sortedList: return .read(sorted())
        case .historic:
            let back = Int64(random.below(20))
            let revision = Revision(max(1, lastRevision.rawValue - back))
            return .read(RangeQuery(range: Workload.allKeys, revision: revision))
        case .look: return look(workload)
        case .compareAndSwap:
            return .request(
                .transaction(
                    Transaction(
                        compares: [compare(key)], success: [.put(Put(key: key, value: value))],
                        failure: [.range(RangeQuery(range: KeyRange(key: key)))])))
        case .multiKey: return multiKey(workload, unique: unique)
        case .nested: return .request(.transaction(nested(workload, unique: unique, depth: 2)))
        case .wide: return wide(workload, unique: unique)
        case .keepsValue:
            // Without the key it is an error, with it the other half is kept.
            let keepsValue = random.chance(1, in: 2)
            return transaction([
                .put(
                    Put(
                        key: key, value: keepsValue ? .empty : value,
                        lease: keepsValue && !leases.isEmpty ? random.pick(leases) : .none,
                        wantsPrevious: random.chance(1, in: 2), keepsValue: keepsValue,
                        keepsLease: !keepsValue))
            ])
        case .delete:
            return transaction([
                .delete(Delete(range: KeyRange(key: key), wantsPrevious: random.chance(1, in: 3)))
            ])
        case .deleteRange:
            let other = workload.key(&random)
            let range = KeyRange(key: min(key, other), end: max(key, other).successor)
            return transaction([.delete(Delete(range: range, wantsPrevious: true))])
        case .leaseGrant:
            // Some end during the run, some outlive it.
            let id = LeaseID(Int64(unique) + 1)
            return .request(
                .leaseGrant(
                    id, ttlSeconds: random.chance(1, in: 2) ? workload.shortTTLSeconds : 1_000_000))
        case .leasePut:
            return transaction([.put(Put(key: key, value: value, lease: random.pick(leases)))])
        case .leasePutMany:
            let lease = random.pick(leases)
            var used: Set<Bytes> = []
            var puts: [Primitives.Operation] = []
            for i in 0...random.below(4) {
                let key = workload.key(&random)
                guard used.insert(key).inserted else { continue }
                puts.append(.put(Put(key: key, value: Bytes("v\(unique).\(i)"), lease: lease)))
            }
            return transaction(puts)
        case .leaseKeepAlive: return .request(.leaseKeepAlive(random.pick(leases)))
        case .leaseRevoke: return .request(.leaseRevoke(random.pick(leases)))
        case .leaseTimeToLive:
            return .request(.leaseTimeToLive(random.pick(leases), wantsKeys: random.chance(1, in: 2)))
        case .compact:
            return .request(.compact(Revision(max(1, lastRevision.rawValue - 30))))
        }
    }

    private func transaction(_ operations: [Primitives.Operation]) -> Operation.Call {
        .request(.transaction(Transaction(success: operations)))
    }

    private mutating func compare(_ key: Bytes) -> Compare {
        let row = seen[key]
        let range = KeyRange(key: key)
        switch random.below(7) {
        case 0: return Compare(range: range, relation: .equal, target: .version(row?.version ?? 0))
        case 1 where row != nil:
            return Compare(range: range, relation: .equal, target: .value(row?.value ?? .empty))
        case 2:
            return Compare(
                range: range, relation: .less,
                target: .modRevision((row?.modRevision.rawValue ?? 0) + 1))
        case 3:
            return Compare(
                range: range, relation: random.chance(1, in: 2) ? .equal : .notEqual,
                target: .createRevision(row?.createRevision.rawValue ?? 0))
        case 4:
            return Compare(
                range: range, relation: .equal, target: .lease(row?.lease.rawValue ?? 0))
        case 5:
            // Over a range, of whatever is there.
            return Compare(
                range: Workload.allKeys, relation: random.chance(1, in: 2) ? .less : .greater,
                target: random.chance(1, in: 2)
                    ? .modRevision(lastRevision.rawValue + 1) : .version(Int64(random.below(4))))
        default:
            return Compare(
                range: range, relation: .equal, target: .modRevision(row?.modRevision.rawValue ?? 0))
        }
    }

    private mutating func sorted() -> RangeQuery {
        var query = RangeQuery(range: Workload.allKeys)
        query.order = random.pick([.none, .ascending, .descending])
        query.target = random.pick([.key, .version, .createRevision, .modRevision, .value])
        if random.chance(1, in: 2) { query.limit = Int64(1 + random.below(4)) }
        switch random.below(4) {
        case 0: query.minModRevision = max(1, lastRevision.rawValue - 20)
        case 1: query.maxModRevision = max(1, lastRevision.rawValue - 5)
        case 2: query.minCreateRevision = max(1, lastRevision.rawValue - 20)
        default: break
        }
        return query
    }

    /// Reads several keys at once, and writes nothing: one moment for all of them.
    private mutating func look(_ workload: Workload) -> Operation.Call {
        var operations: [Primitives.Operation] = []
        for _ in 0...random.below(3) {
            operations.append(.range(RangeQuery(range: KeyRange(key: workload.key(&random)))))
        }
        let first = workload.key(&random)
        // A put that no branch reaches: it could write, so it is no mere read.
        return .request(
            .transaction(
                Transaction(
                    compares: [
                        Compare(range: KeyRange(key: first), relation: .less, target: .version(0))
                    ],
                    success: [.put(Put(key: first, value: "never"))], failure: operations)))
    }

    /// Compares over up to three keys, writes up to three, on one to six partitions.
    private mutating func multiKey(_ workload: Workload, unique: Int) -> Operation.Call {
        var compares: [Compare] = []
        for _ in 0..<random.below(3) { compares.append(compare(workload.key(&random))) }
        var used: Set<Bytes> = []
        var success: [Primitives.Operation] = []
        for i in 0...random.below(3) {
            let key = workload.key(&random)
            if !used.insert(key).inserted { continue }
            switch random.below(6) {
            case 0: success.append(.delete(Delete(range: KeyRange(key: key), wantsPrevious: true)))
            case 1: success.append(.range(RangeQuery(range: KeyRange(key: key))))
            default: success.append(.put(Put(key: key, value: Bytes("v\(unique).\(i)"))))
            }
        }
        let failure = used.sorted().map { key in
            Primitives.Operation.range(RangeQuery(range: KeyRange(key: key)))
        }
        return .request(
            .transaction(Transaction(compares: compares, success: success, failure: failure)))
    }

    /// Every second key is put, with a read behind each and of all at the end.
    private mutating func wide(_ workload: Workload, unique: Int) -> Operation.Call {
        var used: Set<Bytes> = []
        var success: [Primitives.Operation] = []
        for i in 0..<workload.keys {
            let key = workload.key(&random)
            guard used.insert(key).inserted else { continue }
            success.append(
                .put(
                    Put(
                        key: key, value: Bytes("w\(unique).\(i)"),
                        wantsPrevious: random.chance(1, in: 2))))
            success.append(.range(RangeQuery(range: KeyRange(key: key))))
        }
        success.append(.range(RangeQuery(range: Workload.allKeys, countOnly: true)))
        let compares = random.chance(1, in: 2) ? [compare(workload.key(&random))] : []
        return .request(
            .transaction(
                Transaction(
                    compares: compares, success: success,
                    failure: [.range(RangeQuery(range: Workload.allKeys))])))
    }

    private mutating func nested(_ workload: Workload, unique: Int, depth: Int) -> Transaction {
        func leaf(_ branch: Int, _ key: Bytes, _ kind: UInt64) -> Primitives.Operation {
            switch kind {
            case 0: .delete(Delete(range: KeyRange(key: key), wantsPrevious: true))
            case 1: .range(RangeQuery(range: Workload.allKeys))
            default: .put(Put(key: key, value: Bytes("n\(unique).\(depth).\(branch)"), wantsPrevious: true))
            }
        }
        var success = [leaf(0, workload.key(&random), random.below(4))]
        var failure = [leaf(1, workload.key(&random), random.below(4))]
        if depth > 0 {
            // The same key must not be put twice: the inner one only reads or compares on the other branch.
            let inner = nested(workload, unique: unique, depth: depth - 1)
            if random.chance(1, in: 2) { success = [.transaction(inner)] } else { failure = [.transaction(inner)] }
            if random.chance(1, in: 2) { success.append(.range(RangeQuery(range: Workload.allKeys))) }
        }
        return Transaction(
            compares: [compare(workload.key(&random))], success: success, failure: failure)
    }

    mutating func learn(from operation: Operation) {
        if let revision = operation.revision { lastRevision = max(lastRevision, revision) }
        changes?.learn(from: operation.outcome)
        switch operation.outcome {
        case .range(let result, _): for row in result.rows where !row.value.isEmpty { seen[row.key] = row }
        case .response(.leaseGranted(let lease, _, _)):
            leases.append(lease)
            if leases.count > 6 { leases.removeFirst() }
        case .response(.transaction(let result, _)):
            for case .range(let range) in result.results {
                for row in range.rows { seen[row.key] = row }
            }
        case .nothing, .unknown, .response, .failed: break
        }
    }
}
