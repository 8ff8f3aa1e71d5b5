package import Primitives

/// How the visible version of a key is chosen among concurrent ones (geo.md, "Conflicts").
package enum ConflictPolicy: UInt8, Hashable, Sendable {
    /// The higher stamp.
    case lastWriterWins = 1
}

/// What a batch does here.
package struct Resolution: Equatable, Sendable {
    /// Winners, in the batch's order, numbered by `sub`. `modRevision` (and `createRevision` of keys
    /// that are new here) is `Revision(.max)`: pending, as the evaluator's; `origin` is kept.
    package var rows: [Row] = []
    /// Losers, encoded `ConflictRecord`s, in the batch's order.
    package var conflicts: [Bytes] = []
    /// The highest stamp among the versions replaced: this region's next stamp must be above (G2).
    package var replacedStamp = Stamp.zero

    package init() {}
}

package enum ConflictResolver {
    /// Decides each change of `batch` against the newest version held here, deletions included (their
    /// stamps count). A pure function of versions that form a total order by stamp: any order of
    /// arrival gives the same visible values, and applying a change again changes nothing.
    package static func resolve(
        _ batch: ReplicationBatch, held: [Row], policy: ConflictPolicy = .lastWriterWins
    ) -> Resolution {
        var newest: [Bytes: Row] = [:]
        newest.reserveCapacity(held.count)
        for row in held {
            if let other = newest[row.key], other.origin.stamp >= row.origin.stamp { continue }
            newest[row.key] = row
        }
        var resolution = Resolution()
        for change in batch.changes {
            guard let version = newest[change.key] else {
                resolution.write(change, over: nil)
                newest[change.key] = change
                continue
            }
            if version.origin == change.origin { continue }
            let isConflict = batch.conflicts(change, with: version)
            switch policy {
            case .lastWriterWins:
                var isWinner = change.origin.stamp > version.origin.stamp
                if Mutation.pairwisePriority.isOn {
                    isWinner = !isConflict || change.origin.region < version.origin.region
                }
                if isWinner {
                    resolution.write(change, over: version)
                    if isConflict { resolution.lose(version, to: change, policy) }
                    newest[change.key] = change
                } else if isConflict {
                    // One that loses without a conflict is an old repetition: nothing is lost.
                    resolution.lose(change, to: version, policy)
                }
            }
        }
        return resolution
    }
}

extension ReplicationBatch {
    /// Whether `change` was written without having seen `held` (protocol-rules.md G4).
    fileprivate func conflicts(_ change: Row, with held: Row) -> Bool {
        // Of one region's versions the later has seen the earlier.
        held.origin.region != change.origin.region
            && seen(of: held.origin.region) < held.origin.revision
    }
}

extension Resolution {
    fileprivate mutating func write(_ change: Row, over held: Row?) {
        let live = held.flatMap { $0.isDeletion ? nil : $0 }
        let pending = Revision(.max)
        var row = change
        row.modRevision = pending
        row.sub = UInt32(rows.count)
        // A lease lives in the region that granted it (G7).
        row.lease = .none
        if change.isDeletion {
            row.value = .empty
            row.createRevision = .zero
        } else {
            row.createRevision = live?.createRevision ?? pending
            row.version = (live?.version ?? 0) + 1
        }
        if let held { replacedStamp = max(replacedStamp, held.origin.stamp) }
        rows.append(row)
    }

    fileprivate mutating func lose(_ loser: Row, to winner: Row, _ policy: ConflictPolicy) {
        if loser.isDeletion && winner.isDeletion { return }
        conflicts.append(ConflictRecord(policy: policy, winner: winner, loser: loser).encoded())
    }
}

/// An entry of the conflict feed.
package struct ConflictRecord: Hashable, Sendable {
    package struct Side: Hashable, Sendable {
        package let origin: Origin
        package let isDeletion: Bool
        package let value: Bytes
        package init(_ row: Row) {
            self.init(origin: row.origin, isDeletion: row.isDeletion, value: row.value)
        }
        package init(origin: Origin, isDeletion: Bool, value: Bytes) {
            self.origin = origin
            self.isDeletion = isDeletion
            self.value = isDeletion ? .empty : value
        }
    }
    package let policy: ConflictPolicy
    package let key: Bytes
    package let winner: Side
    package let loser: Side

    package init(policy: ConflictPolicy, winner: Row, loser: Row) {
        self.init(policy: policy, key: loser.key, winner: Side(winner), loser: Side(loser))
    }

    package init(policy: ConflictPolicy, key: Bytes, winner: Side, loser: Side) {
        self.policy = policy
        self.key = key
        self.winner = winner
        self.loser = loser
    }

    private static let version: UInt8 = 1

    package func encoded() -> Bytes {
        var writer = ByteWriter(capacity: 96)
        writer.byte(Self.version)
        writer.byte(policy.rawValue)
        writer.bytes(key)
        for side in [winner, loser] {
            writer.origin(side.origin)
            writer.bool(side.isDeletion)
            writer.bytes(side.value)
        }
        return Bytes(writer.bytes)
    }

    package init(decoding bytes: Bytes) throws(DecodingError) {
        var reader = ByteReader(bytes)
        let version = try reader.byte(), tag = try reader.byte()
        guard version == Self.version else { throw DecodingError("conflict version \(version)") }
        guard let policy = ConflictPolicy(rawValue: tag) else { throw DecodingError("policy \(tag)") }
        let key = try reader.bytes()
        let winner = try Self.side(&reader), loser = try Self.side(&reader)
        try reader.expectEnd()
        self.init(policy: policy, key: key, winner: winner, loser: loser)
    }

    private static func side(_ reader: inout ByteReader) throws(DecodingError) -> Side {
        Side(origin: try reader.origin(), isDeletion: try reader.bool(), value: try reader.bytes())
    }
}
