import Primitives

/// What the clients of a run do, and to what.
struct Workload {
    var keys: Int
    var clientsPerRegion: Int
    /// Mean pause of a client between an answer and its next request.
    var think: TimeSpan
    var leases: Bool
    var compaction: Bool
    /// Weights of the kinds of operation.
    var weights: [(Kind, UInt64)]

    enum Kind: CaseIterable {
        case put, get, serializableGet, list, compareAndSwap, multiKey, delete, deleteRange, historic
        case leaseGrant, leasePut, leaseKeepAlive, leaseRevoke, compact
    }

    init(random: inout SplitMix, compaction: Bool) {
        keys = Int(2 + random.below(20))
        clientsPerRegion = Int(2 + random.below(6))
        think = .milliseconds(3 + random.below(40))
        leases = random.chance(1, in: 2)
        self.compaction = compaction
        weights = []
        for kind in Kind.allCases {
            switch kind {
            case .leaseGrant, .leasePut, .leaseKeepAlive, .leaseRevoke:
                if leases { weights.append((kind, 1 + random.below(3))) }
            case .compact: if compaction { weights.append((kind, 1)) }
            case .put, .get, .compareAndSwap: weights.append((kind, 4 + random.below(8)))
            case .serializableGet, .list, .multiKey, .delete, .deleteRange, .historic:
                weights.append((kind, random.below(5)))
            }
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
        var kind = workload.pick(&random)
        switch kind {
        case .leasePut, .leaseKeepAlive, .leaseRevoke: if leases.isEmpty { kind = .leaseGrant }
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
        case .historic:
            let back = Int64(random.below(20))
            let revision = Revision(max(1, lastRevision.rawValue - back))
            return .read(RangeQuery(range: Workload.allKeys, revision: revision))
        case .compareAndSwap:
            return .request(
                .transaction(
                    Transaction(
                        compares: [compare(key)], success: [.put(Put(key: key, value: value))],
                        failure: [.range(RangeQuery(range: KeyRange(key: key)))])))
        case .multiKey: return multiKey(workload, unique: unique)
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
            return .request(.leaseGrant(id, ttlSeconds: random.chance(1, in: 2) ? 2 : 600))
        case .leasePut:
            return transaction([.put(Put(key: key, value: value, lease: random.pick(leases)))])
        case .leaseKeepAlive: return .request(.leaseKeepAlive(random.pick(leases)))
        case .leaseRevoke: return .request(.leaseRevoke(random.pick(leases)))
        case .compact:
            return .request(.compact(Revision(max(1, lastRevision.rawValue - 30))))
        }
    }

    private func transaction(_ operations: [Primitives.Operation]) -> Operation.Call {
        .request(.transaction(Transaction(success: operations)))
    }

    private mutating func compare(_ key: Bytes) -> Compare {
        let row = seen[key]
        switch random.below(4) {
        case 0:
            return Compare(
                range: KeyRange(key: key), relation: .equal, target: .version(row?.version ?? 0))
        case 1 where row != nil:
            return Compare(
                range: KeyRange(key: key), relation: .equal, target: .value(row?.value ?? .empty))
        case 2:
            return Compare(
                range: KeyRange(key: key), relation: .less,
                target: .modRevision((row?.modRevision.rawValue ?? 0) + 1))
        default:
            return Compare(
                range: KeyRange(key: key), relation: .equal,
                target: .modRevision(row?.modRevision.rawValue ?? 0))
        }
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

    mutating func learn(from operation: Operation) {
        if let revision = operation.revision { lastRevision = max(lastRevision, revision) }
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
