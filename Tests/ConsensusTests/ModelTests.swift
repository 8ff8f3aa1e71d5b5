import Foundation
import Testing

@testable import Consensus

@Suite struct ModelTests {
    private func check(_ seeds: Range<UInt64>, _ options: World.Options) -> [World] {
        seeds.map { seed in
            let world = World(seed: seed, options)
            if let failure = world.run() {
                Issue.record(
                    """
                    \(failure); repeat with: SEED=\(seed) NODES=\(options.nodes) \
                    \(options.lease ? "LEASE=1 " : "")\(options.churn ? "CHURN=1 " : "")swift test --filter one.seed
                    """)
            }
            return world
        }
    }

    @Test func `three acceptors agree under faults and converge without`() {
        var worlds = check(0..<24, .init())
        // Leaders that replace one another while they propose are rare.
        for seed in UInt64(24)..<100
        where !worlds.contains(where: { $0.chosen.contains { $0.skipped } }) {
            worlds += check(seed..<seed + 1, .init(lossPercent: 15))
        }
        #expect(worlds.allSatisfy { $0.chosen.count > 20 })
        // The runs must see what they are about.
        #expect(worlds.reduce(0) { $0 + $1.leaderships } > 70)
        #expect(worlds.contains { $0.chosen.contains { $0.skipped } })
        #expect(worlds.reduce(0) { $0 + $1.snapshots } > 10)
        #expect(worlds.reduce(0) { $0 + $1.handOvers } > 10)
    }

    @Test func `five acceptors agree under faults and converge without`() {
        _ = check(1000..<1004, .init(nodes: 5))
    }

    @Test func `one acceptor needs nobody`() {
        _ = check(2000..<2004, .init(nodes: 1))
    }

    @Test func `voters come, go and lose their disks, and the others agree`() {
        var worlds = check(5000..<5010, .init(churn: true))
            + check(5100..<5103, .init(lease: true, churn: true, clockSteps: false))
        // Every sixth or so.
        for seed in UInt64(5010)..<5100
        where !worlds.contains(where: { $0.globalConfiguration.voters.count > 3 }) {
            worlds += check(seed..<seed + 1, .init(churn: true))
        }
        #expect(worlds.reduce(0) { $0 + Int($1.globalConfiguration.number) } > 30)
        #expect(worlds.contains { $0.globalConfiguration.voters.count > 3 })
        #expect(worlds.contains { $0.machines.contains(where: \.isWiped) })
    }

    @Test func `two nodes never hold the lease together`() {
        let options = World.Options(lease: true, clockSteps: false)
        let worlds = check(3000..<3010, options)
            + check(4000..<4002, .init(nodes: 5, lease: true, clockSteps: false))
        #expect(worlds.allSatisfy { $0.leaseSeen > 0 })
    }

    @Test func `a seed repeats itself`() {
        let runs = (0..<2).map { _ in
            let world = World(seed: 77, .init())
            _ = world.run()
            return world
        }
        #expect(runs[0].now == runs[1].now)
        #expect(runs[0].chosen.map(\.entry) == runs[1].chosen.map(\.entry))
    }

    /// Many seeds: SEED=… COUNT=… [NODES=5] [LEASE=1] [CHURN=1] swift test --filter one.seed
    @Test(.enabled(if: ProcessInfo.processInfo.environment["SEED"] != nil))
    func `one seed, or many, by hand`() {
        let environment = ProcessInfo.processInfo.environment
        let lease = environment["LEASE"] != nil
        let seed = environment["SEED"].flatMap(UInt64.init) ?? 0
        let count = environment["COUNT"].flatMap(UInt64.init) ?? 1
        _ = check(
            seed..<seed + count,
            .init(
                nodes: environment["NODES"].flatMap(Int.init) ?? 3, lease: lease,
                churn: environment["CHURN"] != nil, clockSteps: !lease, prints: environment["TRACE"] != nil))
    }

    #if DEBUG
        /// A checker that has never failed proves nothing.
        @Test(arguments: [
            Group.Sabotage.pipelinePastConfiguration, .outOfOrder, .noticeWithoutBallot,
            .leaseFromArrival, .leaseForgotten,
        ])
        func `the checker notices a broken rule`(_ sabotage: Group.Sabotage) {
            var options = World.Options(sabotage: sabotage)
            options.lossPercent = 15
            options.lease = sabotage == .leaseFromArrival || sabotage == .leaseForgotten
            options.churn = sabotage == .pipelinePastConfiguration
            options.clockSteps = !options.lease
            let caught = (0..<60).contains { World(seed: $0, options).run() != nil }
            #expect(caught)
        }
    #endif
}
