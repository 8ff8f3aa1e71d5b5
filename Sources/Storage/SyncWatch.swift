import Synchronization

/// What the log's thread is at, for others to see; and the slow disk that a drill wants.
final class SyncWatch: Sendable {
    private let since = Atomic<UInt64>(0)
    private let delay = Atomic<UInt64>(0)

    func began(at nanoseconds: UInt64) { since.store(nanoseconds, ordering: .relaxed) }
    func ended() { since.store(0, ordering: .relaxed) }

    /// How long the sync that is under way has taken so far; 0: none is.
    var age: UInt64 {
        let began = since.load(ordering: .relaxed), now = Posix.monotonicNanoseconds()
        return began > 0 && now > began ? now - began : 0
    }

    /// Every sync takes so much longer.
    func setDelay(nanoseconds: UInt64) { delay.store(nanoseconds, ordering: .relaxed) }
    var delayNanoseconds: UInt64 { delay.load(ordering: .relaxed) }
}
