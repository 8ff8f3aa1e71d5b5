import Primitives

/// The live stream of a node that serves a part of the region only: its own changes wait here until the
/// others' of the same revisions have come. One question to each of the others is under way at a time;
/// the next one asks for all that has gathered meanwhile.
struct JoinedChanges {
    /// Told to the facade.
    private(set) var emitted = Revision.zero
    /// Of this node's replicas, above it.
    private(set) var own: [RevisionChanges] = []
    private(set) var due = Revision.zero
    private var ownRows = 0
    var isUnderWay = false
    /// What is served when these changes were gathered (`Node.servedVersion`): rows of what came or went since
    /// would be missing, or there twice.
    var servedVersion: UInt64 = 0
    /// What the rows of others replaced, for watchers that want to see it.
    private var previousRows: [Place: Row] = [:]
    private var previousBytes = 0

    /// A key as it was: one that changes twice in a page has two of them.
    private struct Place: Hashable {
        let key: Bytes
        let at: Revision
    }

    private static let rowsMax = 100_000
    private static let previousBytesMax = 16 << 20

    /// False: there is no room. Whoever watches catches up.
    mutating func add(_ changes: [RevisionChanges], through: Revision) -> Bool {
        due = max(due, through)
        for change in changes where change.revision > emitted {
            own.append(change)
            ownRows += change.rows.count
        }
        return ownRows <= Self.rowsMax
    }

    mutating func lose(through: Revision) { pass(max(through, due)) }

    /// Everything through here has been told.
    mutating func pass(_ revision: Revision) {
        emitted = max(emitted, revision)
        due = max(due, emitted)
        if own.isEmpty { return }
        own.removeAll { $0.revision <= emitted }
        ownRows = own.reduce(0) { $0 + $1.rows.count }
    }

    /// `previous`: what the changes' rows replaced, for those that replaced something that is known.
    mutating func know(_ previous: [Row], before changes: [RevisionChanges]) {
        guard !previous.isEmpty else { return }
        var byKey: [Bytes: [Row]] = [:]
        for row in previous { byKey[row.key, default: []].append(row) }
        if previousBytes > Self.previousBytesMax {
            previousRows.removeAll(keepingCapacity: true)
            previousBytes = 0
        }
        for change in changes {
            for row in change.rows {
                guard let before = byKey[row.key]?.last(where: { $0.modRevision < row.modRevision }) else { continue }
                let known = previousRows.updateValue(before, forKey: Place(key: row.key, at: row.modRevision.previous))
                if known == nil { previousBytes += row.key.count + before.value.count + 64 }
            }
        }
    }

    /// The version that was current at `revision`; nil: not known here.
    func previous(_ key: Bytes, at revision: Revision) -> Row?? {
        guard let known = previousRows[Place(key: key, at: revision)] else { return nil }
        return .some(known.isDeletion ? nil : known)
    }

    /// In order of revision, whole ones.
    static func merge(_ parts: [[RevisionChanges]], through: Revision) -> [RevisionChanges] {
        var rows: [Revision: [Row]] = [:]
        for part in parts {
            for change in part where change.revision <= through {
                rows[change.revision, default: []] += change.rows
            }
        }
        return rows.keys.sorted().map { revision in
            RevisionChanges(revision: revision, rows: (rows[revision] ?? []).sorted { $0.sub < $1.sub })
        }
    }
}
