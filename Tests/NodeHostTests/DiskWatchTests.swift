import Primitives
import Testing

@testable import NodeHost

@Suite struct DiskWatchTests {
    private let fast: UInt64 = 2_000, slow: UInt64 = 200_000
    private let two = NodeID(2), three = NodeID(3)
    private func second(_ n: Int) -> Instant { Instant(nanoseconds: UInt64(n + 100) * 1_000_000_000) }

    /// Seconds in which something is handed over, and to whom.
    private func run(
        _ watch: inout DiskWatch, from start: Int = 0, seconds: Int, own: (Int) -> UInt64?,
        others: (Int) -> [(NodeID, UInt64)], leads: (Int) -> Bool = { _ in true }
    ) -> [(second: Int, to: NodeID)] {
        var found: [(second: Int, to: NodeID)] = []
        for n in start..<(start + seconds) {
            for (node, micros) in others(n) { watch.heard(node, microseconds: micros, at: second(n)) }
            let target = watch.step(
                own: own(n), leads: leads(n), candidates: [two, three], at: second(n))
            if let target { found.append((n, target)) }
        }
        return found
    }

    @Test func `three slow seconds in a row, and the fastest other takes over`() {
        var watch = DiskWatch()
        let found = run(&watch, seconds: 3, own: { _ in slow }, others: { _ in [(two, fast), (three, fast / 2)] })
        #expect(found.map(\.second) == [2] && found.map(\.to) == [three])
    }

    @Test func `it is known to be slow until it has been well, or has been idle for long`() {
        var watch = DiskWatch()
        let others: (Int) -> [(NodeID, UInt64)] = { _ in [(two, fast)] }
        _ = run(&watch, seconds: 2, own: { _ in slow }, others: others)
        #expect(!watch.isSlow)
        // Also after what it led has gone.
        _ = run(&watch, from: 2, seconds: 2, own: { _ in slow }, others: others)
        #expect(watch.isSlow)
        _ = run(&watch, from: 4, seconds: 1, own: { _ in fast }, others: others)
        #expect(!watch.isSlow)
        _ = run(&watch, from: 5, seconds: 3, own: { _ in slow }, others: others)
        _ = run(&watch, from: 8, seconds: 29, own: { _ in nil }, others: others)
        #expect(watch.isSlow)
        _ = run(&watch, from: 37, seconds: 1, own: { _ in nil }, others: others)
        #expect(!watch.isSlow)
    }

    @Test func `a slow second now and then is none of its business`() {
        var watch = DiskWatch()
        let found = run(
            &watch, seconds: 100, own: { $0 % 3 == 2 ? fast : slow }, others: { _ in [(two, fast)] })
        #expect(found.isEmpty)
    }

    @Test func `nobody hands over where all disks are slow, to one that is not heard, or who leads nothing`() {
        var watch = DiskWatch()
        #expect(run(&watch, seconds: 20, own: { _ in slow }, others: { _ in [(two, slow / 4)] }).isEmpty)
        watch = DiskWatch()
        // Heard once, and then no more.
        let found = run(
            &watch, seconds: 60, own: { $0 < 10 ? fast : slow }, others: { $0 == 0 ? [(two, fast)] : [] })
        #expect(found.isEmpty)
        watch = DiskWatch()
        let idle = run(
            &watch, seconds: 20, own: { _ in slow }, others: { _ in [(two, fast)] }, leads: { _ in false })
        #expect(idle.isEmpty)
    }

    @Test func `ten times a very fast disk is still fast`() {
        var watch = DiskWatch()
        #expect(run(&watch, seconds: 20, own: { _ in 5_000 }, others: { _ in [(two, UInt64(100))] }).isEmpty)
    }

    @Test func `seconds without a write say nothing, for or against`() {
        var watch = DiskWatch()
        let found = run(
            &watch, seconds: 9, own: { $0 % 3 == 0 ? slow : nil }, others: { _ in [(two, fast)] })
        #expect(found.map(\.second) == [6])
    }

    @Test func `what comes back to a disk that stays slow leaves again, ever more seldom`() {
        var watch = DiskWatch()
        // It leads again at once each time.
        let found = run(&watch, seconds: 300, own: { _ in slow }, others: { _ in [(two, fast)] })
        #expect(found.map(\.second) == [2, 32, 92, 212])
        // Well for long enough: as prompt as the first time.
        let well = run(&watch, from: 300, seconds: 2000, own: { _ in fast }, others: { _ in [(two, fast)] })
        let again = run(&watch, from: 2300, seconds: 40, own: { _ in slow }, others: { _ in [(two, fast)] })
        #expect(well.isEmpty && again.map(\.second) == [2302, 2332])
    }

    @Test func `two nodes never hand over to and fro`() {
        var one = DiskWatch(), other = DiskWatch()
        var leader = 1, moves = 0
        for n in 0..<1000 {
            one.heard(two, microseconds: fast, at: second(n))
            other.heard(NodeID(1), microseconds: slow, at: second(n))
            if one.step(own: slow, leads: leader == 1, candidates: [two], at: second(n)) != nil {
                leader = 2
                moves += 1
            }
            let back = other.step(own: fast, leads: leader == 2, candidates: [NodeID(1)], at: second(n))
            #expect(back == nil)
        }
        #expect(leader == 2 && moves == 1)
    }

    @Test func `the median of the syncs between two looks`() {
        #expect(DiskWatch.median([0, 0, 0], [0, 0, 0]) == nil)
        #expect(DiskWatch.median([5, 5, 5, 5], [5, 6, 8, 6]) == 4)
        #expect(DiskWatch.median([0, 0, 0, 0], [10, 0, 0, 1]) == 1)
    }
}
