import Node
import Primitives

/// Where a region is spread, hosts read at one another. Here they look into each other's stores, as far as
/// the other one shows the revision and is connected; what cannot be had now is asked for again.
extension World {
    enum Again {
        case serve(token: UInt64, ReadPoint)
        case stream
        case changes(ChangeRead)
        case leaseKeys(number: UInt64, LeaseID, Revision, tries: Int)
    }

    func askAgain(_ again: Again, at address: NodeAddress) {
        guard let life = nodes[address]?.life else { return }
        queue.schedule(.again(address, life: life, again), after: paced(2 + random.below(6)))
    }

    func on(_ again: Again, at address: NodeAddress) {
        switch again {
        case .serve(let token, let point): serve(token, .success(point), at: address)
        case .stream: bringStream(address)
        case .changes(let read): answer(read, at: address)
        case .leaseKeys(let number, let lease, let revision, let tries):
            answerLeaseKeys(number, lease, revision, tries: tries, at: address)
        }
    }

    /// Which stores hold everything at `revision`, and which part of each counts; nil: not now.
    private func sources(
        _ address: NodeAddress, at revision: Revision
    ) -> [(node: SimulatedNode, hashes: HashRanges)]? {
        guard let own = nodes[address], let core = own.core else { return nil }
        guard let served = core.served else { return [(own, .all)] }
        var found: [(node: SimulatedNode, hashes: HashRanges)] = [(own, served)]
        for piece in core.elsewhere() {
            let holder = (piece.holders + piece.others).lazy.compactMap { [self] id -> SimulatedNode? in
                let other = NodeAddress(region: address.region, node: id.seat)
                guard let node = nodes[other], node.isUp, !node.isFrozen, let core = node.core,
                    node.identity.node == id, network[Pair(address, other)].isUp,
                    !network.isBlocked(from: address, to: other), core.revision >= revision,
                    core.served?.contains(HashRanges([piece.hashes])) ?? true
                else { return nil }
                return node
            }.first
            guard let holder else { return nil }
            found.append((holder, HashRanges([piece.hashes])))
        }
        return found
    }

    /// As the host of that node answers; nil: not now.
    func range(
        _ query: RangeQuery, at revision: Revision, on address: NodeAddress
    ) throws(RequestError) -> RangeResult? {
        guard let sources = sources(address, at: revision) else { return nil }
        if sources.count == 1, sources[0].hashes.isAll {
            return try sources[0].node.store.range(query, at: revision)
        }
        var all: [Row] = []
        for (node, hashes) in sources {
            let part = try node.store.range(RangeQuery(range: query.range), at: revision)
            all += part.rows.filter { hashes.contains(KeyHash.hash($0.key)) }
        }
        return query.answer(fromAll: all.sorted { $0.key < $1.key })
    }

    func changes(
        after: Revision, through: Revision, on address: NodeAddress
    ) throws(RequestError) -> [RevisionChanges]? {
        guard let sources = sources(address, at: through) else { return nil }
        var rows: [Revision: [Row]] = [:]
        for (node, hashes) in sources {
            let page = try node.store.changes(after: after, through: through, maxRows: .max)
            for change in page.changes {
                let own = change.rows.filter { hashes.contains(KeyHash.hash($0.key)) }
                if !own.isEmpty { rows[change.revision, default: []] += own }
            }
        }
        return rows.keys.sorted().map { revision in
            RevisionChanges(revision: revision, rows: (rows[revision] ?? []).sorted { $0.sub < $1.sub })
        }
    }

    func isPartial(_ address: NodeAddress) -> Bool { nodes[address]?.core?.served != nil }

    /// What has been shown to watchers comes from everybody who holds it, and not before all have it.
    func bringStream(_ address: NodeAddress) {
        guard let node = nodes[address], node.isUp, var stream = node.stream, node.streamDue > stream.through
        else { return }
        let due = node.streamDue
        guard let sources = sources(address, at: due) else { return askAgain(.stream, at: address) }
        // What is compacted somewhere is shown to nobody.
        let floor = sources.map(\.node.store.floor).max() ?? .zero
        if stream.start == nil {
            stream.begin(after: min(floor, due))
        } else if stream.through < floor {
            streams.append(stream)
            stream = WatchStream(address: address, life: node.life)
            stream.begin(after: min(floor, due))
        }
        do throws(RequestError) {
            guard let found = try changes(after: stream.through, through: due, on: address) else {
                return askAgain(.stream, at: address)
            }
            check { () throws(Violation) in try stream.add(found, through: due) }
            for change in found { learn(change, address.region) }
        } catch {
            return askAgain(.stream, at: address)
        }
        node.stream = stream
        reached(due, address.region)
    }

    func answerLeaseKeys(
        _ number: UInt64, _ lease: LeaseID, _ revision: Revision, tries: Int, at address: NodeAddress
    ) {
        guard let sources = sources(address, at: revision) else {
            if tries > 100 { return deliver(.leaseKeys(number: number, nil), to: address) }
            return askAgain(.leaseKeys(number: number, lease, revision, tries: tries + 1), at: address)
        }
        var keys: [Bytes] = []
        for (node, hashes) in sources.dropFirst() {
            keys += node.core?.servedKeys(of: lease).filter { hashes.contains(KeyHash.hash($0)) } ?? []
        }
        deliver(.leaseKeys(number: number, keys), to: address)
    }
}
