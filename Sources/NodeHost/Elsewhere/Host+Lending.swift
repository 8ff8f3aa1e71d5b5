import NIOCore
import Node
import Primitives
import Storage
import Transport

/// Answers what other nodes of the region ask this one's replicas.
extension Host {
    struct Lent {
        let peer: PeerID
        let number: UInt64
        let revision: Revision
        let hashes: HashRanges
        let question: RowsQuestion
    }
    private static let lentMax = 4_096

    func onRows(_ message: RowsMessage, from peer: PeerID, bytes: Int) {
        switch message {
        case .answer(let number, let answer):
            guard let from = incarnation(of: peer) else { return }
            elsewhere.on(answer, number: number, from: from, bytes: bytes, at: Clocks.instant())
        case .ask(let number, let revision, let hashes, let question):
            let lent = Lent(peer: peer, number: number, revision: revision, hashes: hashes, question: question)
            if node.revision >= revision { return lend(lent) }
            guard lending.count < Self.lentMax else { return give(.refused(.tooManyRequests), to: lent) }
            let token = nextHostCall
            nextHostCall += 1
            lending[token] = lent
            enqueue(.readAt(revision, token: token, deadline: Clocks.instant().advanced(by: Elsewhere.patience)))
        }
    }

    private func incarnation(of peer: PeerID) -> NodeID? {
        members.nodes.first { $0.seat == peer.node }
    }

    /// True: the read index was for another node.
    func takeLent(_ answer: Result<ReadPoint, RequestError>, token: UInt64) -> Bool {
        guard !lending.isEmpty, let lent = lending.removeValue(forKey: token) else { return false }
        switch answer {
        case .success: lend(lent)
        case .failure(let error): give(.refused(error), to: lent)
        }
        return true
    }

    private func lend(_ lent: Lent) {
        guard servedHere?.contains(lent.hashes) ?? true else { return give(.refused(.elsewhere), to: lent) }
        do throws(RequestError) {
            if case .hash(let compacted) = lent.question { return lendHash(lent, compacted: compacted) }
            give(try answer(lent), to: lent)
        } catch {
            give(.refused(error), to: lent)
        }
    }

    private func give(_ answer: RowsAnswer, to lent: Lent) {
        transport.send(RowsMessage.answer(number: lent.number, answer).encoded(), to: lent.peer)
        if !isInTurn { transport.flush() }
    }

    /// Everything that is served here is the same as all there is in the store, and has its counts.
    private func filter(_ hashes: HashRanges) -> HashFilter {
        if hashes == servedHere ?? .all { return ownRows }
        return HashFilter(hashes)
    }

    private func answer(_ lent: Lent) throws(RequestError) -> RowsAnswer {
        let hashes = filter(lent.hashes)
        switch lent.question {
        case .rows(let range, let limit, let keysOnly):
            var rows: [Row] = [], bytes = 0, isWhole = true
            try store.visit(range, at: lent.revision, in: .standard, hashes: hashes) { row in
                if rows.count >= limit || bytes >= RowsMessage.bytesMax {
                    isWhole = false
                    return false
                }
                bytes += row.key.count + (keysOnly ? 0 : row.value.count) + 64
                rows.append(
                    Row(
                        key: Bytes(row.key), value: keysOnly ? .empty : Bytes(row.value),
                        createRevision: row.createRevision, modRevision: row.modRevision,
                        version: row.version, lease: row.lease, sub: 0,
                        origin: Origin(region: configuration.regionID, revision: row.modRevision, stamp: .zero)))
                return true
            }
            return .rows(rows, isWhole: isWhole)
        case .count(let range):
            var query = RangeQuery(range: range)
            query.countOnly = true
            return .count(try store.range(query, at: lent.revision, in: .standard, hashes: hashes).count)
        case .changes(let after, let withPrevious):
            let page = try store.changes(
                after: after, through: lent.revision, in: .standard, maxRows: RowsMessage.rowsMax,
                maxBytes: RowsMessage.bytesMax, hashes: hashes)
            return .changes(
                page.changes, through: page.through,
                previous: withPrevious ? try previous(of: page.changes) : [])
        case .hash: return .refused(.stopped)
        case .leases:
            return .leases(node.servedLeases)
        case .leaseTimes:
            return .leaseTimes(node.servedLeaseTimes)
        case .keys(let lease):
            return .keys(
                node.servedKeys(of: lease).filter { lent.hashes.contains(KeyHash.hash($0)) })
        }
    }

    /// What is compacted by now is left out, as watches do.
    private func previous(of changes: [RevisionChanges]) throws(RequestError) -> [Row] {
        var rows: [Row] = [], bytes = 0
        for change in changes {
            for row in change.rows where row.isDeletion || row.createRevision != row.modRevision {
                guard bytes < 2 * RowsMessage.bytesMax else { return rows }
                do throws(RequestError) {
                    guard let before = try store.row(row.key, at: row.modRevision.previous, in: .standard)
                    else { continue }
                    rows.append(before)
                    bytes += before.key.count + before.value.count
                } catch {
                    guard error == .compacted else { throw error }
                }
            }
        }
        return rows
    }

    private func lendHash(_ lent: Lent, compacted: Revision) {
        guard hashesRunning < 4 else { return give(.refused(.tooManyRequests), to: lent) }
        hashesRunning += 1
        store.hashInBackground(
            at: lent.revision, compacted: compacted, in: .standard, hashes: filter(lent.hashes), isSummed: true
        ) { result in
            self.loop.execute {
                self.hashesRunning -= 1
                switch result {
                case .success(let hash): self.give(.hash(hash), to: lent)
                case .failure(let error): self.give(.refused(error), to: lent)
                }
            }
        }
    }
}
