package import Primitives

/// etcd's --auto-compaction-mode and -retention.
package enum AutoCompaction: Equatable, Sendable {
    case off
    /// History of this length is kept.
    case periodic(TimeSpan)
    /// So many revisions are kept.
    case revision(Int64)
}

/// Decides when history goes, step by step as etcd does (server/etcdserver/api/v3compactor).
///
/// Periodic: ten times in each period (of an hour at most) the revision is noted; once a whole period has
/// passed, history goes up to where it was a period ago, and then again every period or every hour.
/// Revision: every five minutes all but the newest revisions go.
struct AutoCompactor: Equatable, Sendable {
    /// How often `step` is to be called.
    let interval: TimeSpan
    private let mode: AutoCompaction
    private let notedMax: Int
    private var noted: [Revision] = []
    private var last = Revision.zero
    private var lastAt: Instant
    /// Of the first compaction a whole period, then at most an hour.
    private var pause = TimeSpan.zero

    init?(_ mode: AutoCompaction, at now: Instant) {
        self.mode = mode
        lastAt = now
        switch mode {
        case .off: return nil
        case .periodic(let period):
            guard period > .zero else { return nil }
            interval = TimeSpan(nanoseconds: max(1_000_000, min(period, .seconds(3600)).nanoseconds / 10))
            notedMax = Int(min(period.nanoseconds / interval.nanoseconds, 1 << 20)) + 1
            pause = period
        case .revision(let kept):
            guard kept > 0 else { return nil }
            interval = .seconds(300)
            notedMax = 0
        }
    }

    mutating func begin(at revision: Revision) { note(revision) }

    private mutating func note(_ revision: Revision) {
        guard notedMax > 0 else { return }
        noted.append(revision)
        if noted.count > notedMax { noted.removeFirst() }
    }

    /// What to compact at now, if anything; `done` follows if that worked.
    mutating func step(at now: Instant, revision: Revision, isPaused: Bool) -> Revision? {
        defer { note(revision) }
        if isPaused { return nil }
        switch mode {
        case .off: return nil
        case .periodic:
            guard let oldest = noted.first, now.since(lastAt) >= pause, oldest != last else {
                return nil
            }
            pause = min(pause, .seconds(3600))
            return oldest
        case .revision(let kept):
            let due = Revision(revision.rawValue - kept)
            return due > .zero && due != last ? due : nil
        }
    }

    mutating func done(_ revision: Revision, at now: Instant) {
        last = revision
        lastAt = now
    }
}
