// The form in which requests and responses travel between the nodes of a region. Version 1.

public enum RequestLimits {
    /// Nesting of transactions accepted from the wire; the facade checks etcd's own limits first.
    public static let nestingMax = 64
}

extension ByteWriter {
    public mutating func request(_ request: Request) {
        switch request {
        case .transaction(let t):
            byte(1)
            transaction(t)
        case .leaseGrant(let lease, let ttl):
            byte(2)
            signed(lease.rawValue)
            signed(ttl)
        case .leaseRevoke(let lease):
            byte(3)
            signed(lease.rawValue)
        case .leaseExpire(let lease):
            byte(9)
            signed(lease.rawValue)
        case .leaseKeepAlive(let lease):
            byte(4)
            signed(lease.rawValue)
        case .leaseTimeToLive(let lease, let wantsKeys):
            byte(5)
            signed(lease.rawValue)
            bool(wantsKeys)
        case .leaseList: byte(6)
        case .compact(let revision):
            byte(7)
            id(revision)
        case .members(let request):
            byte(64)
            membersRequest(request)
        case .replicate(let batch):
            byte(8)
            replicationBatch(batch)
        case .auth(let command, let by):
            byte(10)
            bool(by != nil)
            if let by { bytes(by) }
            authCommand(command)
        case .split(let partition, let cut):
            byte(65)
            id(partition)
            bool(cut != nil)
            if let cut { fixed64(cut) }
        }
    }

    public mutating func transaction(_ t: Transaction) {
        varint(t.compares.count)
        for c in t.compares { compare(c) }
        varint(t.success.count)
        for o in t.success { operation(o) }
        varint(t.failure.count)
        for o in t.failure { operation(o) }
    }

    public mutating func compare(_ c: Compare) {
        keyRange(c.range)
        byte(c.relation.rawValue)
        switch c.target {
        case .version(let n): number(1, n)
        case .createRevision(let n): number(2, n)
        case .modRevision(let n): number(3, n)
        case .value(let v):
            byte(4)
            bytes(v)
        case .lease(let n): number(5, n)
        }
    }
    private mutating func number(_ tag: UInt8, _ n: Int64) {
        byte(tag)
        signed(n)
    }

    public mutating func operation(_ o: Operation) {
        switch o {
        case .put(let p):
            byte(1)
            bytes(p.key)
            bytes(p.value)
            signed(p.lease.rawValue)
            byte((p.wantsPrevious ? 1 : 0) | (p.keepsValue ? 2 : 0) | (p.keepsLease ? 4 : 0))
        case .range(let q):
            byte(2)
            rangeQuery(q)
        case .delete(let d):
            byte(3)
            keyRange(d.range)
            bool(d.wantsPrevious)
        case .transaction(let t):
            byte(4)
            transaction(t)
        }
    }

    public mutating func rangeQuery(_ q: RangeQuery) {
        keyRange(q.range)
        signed(q.limit)
        signed(q.revision.rawValue)
        byte(q.order.rawValue)
        byte(q.target.rawValue)
        byte((q.serializable ? 1 : 0) | (q.keysOnly ? 2 : 0) | (q.countOnly ? 4 : 0))
        signed(q.minModRevision)
        signed(q.maxModRevision)
        signed(q.minCreateRevision)
        signed(q.maxCreateRevision)
    }

    public mutating func replicationBatch(_ b: ReplicationBatch) {
        id(b.origin)
        id(b.from)
        id(b.through)
        varint(b.seen.count)
        for c in b.seen {
            id(c.region)
            id(c.revision)
        }
        rows(b.changes)
    }

    public mutating func rows(_ rows: [Row]) {
        varint(rows.count)
        for r in rows { row(r) }
    }

    public mutating func response(_ response: Response) {
        switch response {
        case .transaction(let result, let revision):
            byte(1)
            transactionResult(result)
            id(revision)
        case .leaseGranted(let lease, let ttl, let revision):
            byte(2)
            signed(lease.rawValue)
            signed(ttl)
            id(revision)
        case .leaseRevoked(let revision):
            byte(3)
            id(revision)
        case .leaseKeptAlive(let lease, let ttl, let revision):
            byte(4)
            signed(lease.rawValue)
            signed(ttl)
            id(revision)
        case .leaseTimeToLive(let lease, let granted, let remaining, let keys, let revision):
            byte(5)
            signed(lease.rawValue)
            signed(granted)
            signed(remaining)
            varint(keys.count)
            for k in keys { bytes(k) }
            id(revision)
        case .leases(let leases, let revision):
            byte(6)
            varint(leases.count)
            for l in leases { signed(l.rawValue) }
            id(revision)
        case .members(let list, let subject):
            byte(64)
            members(list)
            fixed64(subject)
        case .split(let split):
            byte(65)
            self.split(split)
        case .compacted(let revision):
            byte(7)
            id(revision)
        case .replicated(let cursor):
            byte(8)
            id(cursor)
        case .auth(let error, let revision):
            byte(10)
            byte(error?.rawValue ?? 0)
            id(revision)
        case .failed(let error):
            byte(9)
            byte(error.rawValue)
        }
    }

    public mutating func transactionResult(_ r: TransactionResult) {
        bool(r.succeeded)
        varint(r.results.count)
        for o in r.results {
            switch o {
            case .put(let previous):
                byte(1)
                bool(previous != nil)
                if let previous { row(previous) }
            case .range(let range):
                byte(2)
                rangeResult(range)
            case .delete(let deleted, let previous):
                byte(3)
                signed(deleted)
                rows(previous)
            case .transaction(let nested):
                byte(4)
                transactionResult(nested)
            }
        }
    }

    public mutating func rangeResult(_ range: RangeResult) {
        rows(range.rows)
        bool(range.more)
        signed(range.count)
    }
}

extension ByteReader {
    public mutating func request() throws(DecodingError) -> Request {
        switch try byte() {
        case 1: return .transaction(try transaction())
        case 2: return .leaseGrant(LeaseID(try signed()), ttlSeconds: try signed())
        case 3: return .leaseRevoke(LeaseID(try signed()))
        case 9: return .leaseExpire(LeaseID(try signed()))
        case 4: return .leaseKeepAlive(LeaseID(try signed()))
        case 5: return .leaseTimeToLive(LeaseID(try signed()), wantsKeys: try bool())
        case 6: return .leaseList
        case 7: return .compact(try id())
        case 64: return .members(try membersRequest())
        case 65: return .split(try id(), at: try bool() ? try fixed64() : nil)
        case 8: return .replicate(try replicationBatch())
        case 10:
            let by = try bool() ? try bytes() : nil
            return .auth(try authCommand(), by: by)
        case let tag: throw DecodingError("request \(tag)")
        }
    }

    public mutating func transaction(depth: Int = 0) throws(DecodingError) -> Transaction {
        guard depth < RequestLimits.nestingMax else { throw DecodingError("nested too deeply") }
        var compares: [Compare] = []
        for _ in 0..<(try count()) { compares.append(try compare()) }
        return Transaction(
            compares: compares, success: try operations(depth: depth),
            failure: try operations(depth: depth))
    }

    private mutating func operations(depth: Int) throws(DecodingError) -> [Operation] {
        var list: [Operation] = []
        for _ in 0..<(try count()) { list.append(try operation(depth: depth)) }
        return list
    }

    public mutating func compare() throws(DecodingError) -> Compare {
        let range = try keyRange()
        guard let relation = Compare.Relation(rawValue: try byte()) else {
            throw DecodingError("relation")
        }
        let target: Compare.Target
        switch try byte() {
        case 1: target = .version(try signed())
        case 2: target = .createRevision(try signed())
        case 3: target = .modRevision(try signed())
        case 4: target = .value(try bytes())
        case 5: target = .lease(try signed())
        case let tag: throw DecodingError("target \(tag)")
        }
        return Compare(range: range, relation: relation, target: target)
    }

    public mutating func operation(depth: Int) throws(DecodingError) -> Operation {
        switch try byte() {
        case 1:
            let key = try bytes(), value = try bytes(), lease = LeaseID(try signed())
            let flags = try byte()
            return .put(
                Put(
                    key: key, value: value, lease: lease, wantsPrevious: flags & 1 != 0,
                    keepsValue: flags & 2 != 0, keepsLease: flags & 4 != 0))
        case 2: return .range(try rangeQuery())
        case 3: return .delete(Delete(range: try keyRange(), wantsPrevious: try bool()))
        case 4: return .transaction(try transaction(depth: depth + 1))
        case let tag: throw DecodingError("operation \(tag)")
        }
    }

    public mutating func rangeQuery() throws(DecodingError) -> RangeQuery {
        let range = try keyRange(), limit = try signed(), revision = Revision(try signed())
        guard let order = RangeQuery.Order(rawValue: try byte()),
            let target = RangeQuery.Target(rawValue: try byte())
        else { throw DecodingError("sort") }
        let flags = try byte()
        return RangeQuery(
            range: range, limit: limit, revision: revision, order: order, target: target,
            serializable: flags & 1 != 0, keysOnly: flags & 2 != 0, countOnly: flags & 4 != 0,
            minModRevision: try signed(), maxModRevision: try signed(),
            minCreateRevision: try signed(), maxCreateRevision: try signed())
    }

    public mutating func replicationBatch() throws(DecodingError) -> ReplicationBatch {
        let origin: RegionID = try id(), from: Revision = try id(), through: Revision = try id()
        var seen: [ReplicationBatch.Cursor] = []
        for _ in 0..<(try count(atLeast: 2)) {
            seen.append(ReplicationBatch.Cursor(region: try id(), revision: try id()))
        }
        return ReplicationBatch(
            origin: origin, from: from, through: through, seen: seen, changes: try rows())
    }

    public mutating func rows() throws(DecodingError) -> [Row] {
        let n = try count(atLeast: 10)
        var rows: [Row] = []
        rows.reserveCapacity(n)
        for _ in 0..<n { rows.append(try row()) }
        return rows
    }

    public mutating func response() throws(DecodingError) -> Response {
        switch try byte() {
        case 1: return .transaction(try transactionResult(), revision: try id())
        case 2:
            return .leaseGranted(
                LeaseID(try signed()), ttlSeconds: try signed(), revision: try id())
        case 3: return .leaseRevoked(revision: try id())
        case 4:
            return .leaseKeptAlive(
                LeaseID(try signed()), ttlSeconds: try signed(), revision: try id())
        case 5:
            let lease = LeaseID(try signed()), granted = try signed(), remaining = try signed()
            var keys: [Bytes] = []
            for _ in 0..<(try count()) { keys.append(try bytes()) }
            return .leaseTimeToLive(
                lease, grantedSeconds: granted, remainingSeconds: remaining, keys: keys,
                revision: try id())
        case 6:
            var leases: [LeaseID] = []
            for _ in 0..<(try count()) { leases.append(LeaseID(try signed())) }
            return .leases(leases, revision: try id())
        case 7: return .compacted(revision: try id())
        case 8: return .replicated(cursor: try id())
        case 10:
            let tag = try byte(), error = AuthError(rawValue: tag)
            guard tag == 0 || error != nil else { throw DecodingError("auth error \(tag)") }
            return .auth(error, revision: try id())
        case 9:
            guard let error = RequestError(rawValue: try byte()) else {
                throw DecodingError("request error")
            }
            return .failed(error)
        case 64: return .members(try members(), subject: try fixed64())
        case 65: return .split(try split())
        case let tag: throw DecodingError("response \(tag)")
        }
    }

    public mutating func transactionResult(depth: Int = 0) throws(DecodingError) -> TransactionResult {
        guard depth < RequestLimits.nestingMax else { throw DecodingError("nested too deeply") }
        let succeeded = try bool()
        var results: [OperationResult] = []
        for _ in 0..<(try count()) {
            switch try byte() {
            case 1: results.append(.put(previous: try bool() ? try row() : nil))
            case 2: results.append(.range(try rangeResult()))
            case 3: results.append(.delete(deleted: try signed(), previous: try rows()))
            case 4: results.append(.transaction(try transactionResult(depth: depth + 1)))
            case let tag: throw DecodingError("result \(tag)")
            }
        }
        return TransactionResult(succeeded: succeeded, results: results)
    }

    public mutating func rangeResult() throws(DecodingError) -> RangeResult {
        RangeResult(rows: try rows(), more: try bool(), count: try signed())
    }
}
