package import Primitives

/// Joins what the partitions' logs apply on this node into the region's one history, in order of
/// revision (protocol.md "Watch", protocol-rules.md S18). A revision is emitted whole, and only when
/// the frontier and its tails cover it: then every row of it has been applied here.
package struct TimelineMerge: Sendable {
    private var rows: [Revision: [Row]] = [:]
    private var count = 0
    private let rowsMax: Int
    package private(set) var emitted: Revision
    /// Rows of revisions through this one were applied without passing here (before a restart, by a
    /// snapshot, or there was no room): who needs them reads the store.
    private var lostThrough: Revision

    package enum Output: Equatable, Sendable {
        case changes([RevisionChanges])
        /// Jumped: read the store through the emitted revision.
        case lost
    }

    package init(emitted: Revision, lostThrough: Revision, rowsMax: Int) {
        self.emitted = emitted
        self.lostThrough = lostThrough
        self.rowsMax = rowsMax
    }

    package mutating func lose(through revision: Revision) {
        lostThrough = max(lostThrough, revision)
    }

    package mutating func add(_ applied: RegionEffects.AppliedRows) {
        guard applied.revision > emitted else { return }
        if applied.aborted {
            if let gone = rows.removeValue(forKey: applied.revision) { count -= gone.count }
            return
        }
        guard applied.revision > lostThrough, !applied.rows.isEmpty else { return }
        count += applied.rows.count
        if let earlier = rows.updateValue(applied.rows, forKey: applied.revision) {
            rows[applied.revision] = earlier + applied.rows
        }
        if count > rowsMax {
            lostThrough = max(lostThrough, rows.keys.max() ?? .zero)
            rows.removeAll()
            count = 0
        }
    }

    /// Everything through `frontier` is applied here.
    package mutating func advance(to frontier: Revision) -> Output? {
        guard frontier > emitted else { return nil }
        let from = emitted
        emitted = frontier
        if from < lostThrough {
            for revision in rows.keys where revision <= frontier {
                count -= rows.removeValue(forKey: revision)?.count ?? 0
            }
            return .lost
        }
        var changes: [RevisionChanges] = []
        if frontier.rawValue - from.rawValue <= Int64(2 * rows.count + 16) {
            var revision = from.next
            while revision <= frontier {
                take(revision, into: &changes)
                revision = revision.next
            }
        } else {
            for revision in rows.keys.filter({ $0 <= frontier }).sorted() { take(revision, into: &changes) }
        }
        return .changes(changes)
    }

    private mutating func take(_ revision: Revision, into changes: inout [RevisionChanges]) {
        guard var found = rows.removeValue(forKey: revision) else { return }
        count -= found.count
        if found.count > 1 { found.sort { $0.sub < $1.sub } }
        changes.append(RevisionChanges(revision: revision, rows: found))
    }
}
