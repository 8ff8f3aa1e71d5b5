import EtcdAPI
import Primitives

/// How many keys live: counted in the background, a little at a time, when somebody looks at metrics.
final class KeyCount {
    /// As of the last time that a count came to its end.
    private(set) var count: Int64?
    private var counted: Int64 = 0
    private var rest = KeyRange.everything
    private var revision = Revision.zero
    private var isCounting = false
    private var mayBeginAt = Instant.zero
    private var beganAt = Instant.zero

    private static let pieceRows = 500
    private static let pause = TimeSpan.seconds(60)
    /// A count takes at most this share of the time.
    private static let share: UInt64 = 100

    func isWanted(by facade: Facade) {
        let now = facade.node.now
        guard !isCounting, now >= mayBeginAt else { return }
        isCounting = true
        beganAt = now
        counted = 0
        rest = .everything
        revision = facade.node.status.revision
        proceed(facade)
    }

    private func proceed(_ facade: Facade) {
        var looked = 0, bytes = 0, next: Bytes?, stop: Bytes?
        let piece = facade.limits.piece(isHurried: facade.steps.isHurried(for: -1))
        do throws(RequestError) {
            stop = try facade.node.visit(rest, at: revision) { row in
                if looked == Self.pieceRows || bytes >= piece.looked {
                    next = Bytes(row.key)
                    return false
                }
                looked += 1
                bytes += row.value.count
                return true
            }
        } catch {
            // Overtaken by a compaction: the next one who looks begins a new count.
            return end(facade)
        }
        counted += Int64(looked)
        if let stop {
            rest = KeyRange(key: stop, end: rest.end)
            return facade.node.whenFetched { [weak facade] in
                if let facade { self.proceed(facade) }
            }
        }
        guard let next else {
            count = counted
            return end(facade)
        }
        rest = KeyRange(key: next, end: rest.end)
        facade.steps.later { [weak facade] in
            guard let facade else { return }
            self.proceed(facade)
        }
    }

    private func end(_ facade: Facade) {
        isCounting = false
        let now = facade.node.now
        mayBeginAt = now.advanced(by: max(Self.pause, now.since(beganAt) * Self.share))
    }
}
