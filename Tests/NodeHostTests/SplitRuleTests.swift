import Primitives
import Testing

@testable import NodeHost

@Suite struct SplitRuleTests {
    private let map = PartitionMap(equalPartitions: 4)

    @Test func `nothing is split by itself unless a bound is given`() {
        let rule = HostConfiguration.Splits()
        #expect(!rule.isOn)
        #expect(rule.choice(map, writesPerSecond: [9_999, 0, 0, 0], storeBytes: 1 << 40) == nil)
    }

    @Test func `the busiest partition is split when it is too busy`() {
        var rule = HostConfiguration.Splits()
        rule.writesPerSecond = 1_000
        #expect(rule.choice(map, writesPerSecond: [900, 1_000, 10, 0], storeBytes: 1 << 40) == nil)
        #expect(
            rule.choice(map, writesPerSecond: [1_100, 1_500, 10, 0], storeBytes: 0) == PartitionID(2))
        rule.partitionsMax = 4
        #expect(rule.choice(map, writesPerSecond: [1_100, 1_500, 10, 0], storeBytes: 0) == nil)
    }

    @Test func `the widest is split when its share of the store is too much`() {
        var rule = HostConfiguration.Splits()
        rule.bytes = 1_000
        #expect(rule.choice(map, writesPerSecond: [0, 0, 0, 0], storeBytes: 3_900) == nil)
        #expect(rule.choice(map, writesPerSecond: [0, 0, 0, 0], storeBytes: 8_000) != nil)
    }

    @Test func `writes are counted over the whole of the while`() {
        var watch = SplitWatch()
        func at(_ seconds: UInt64) -> Instant { .zero.advanced(by: .seconds(seconds)) }
        #expect(watch.look([0, 0], at: at(10), every: .seconds(10)) == nil)
        #expect(watch.look([500, 0], at: at(15), every: .seconds(10)) == nil)
        #expect(watch.look([2_000, 10, 7], at: at(20), every: .seconds(10)) == [200, 1, 0])
        #expect(watch.look([2_000, 10, 107], at: at(30), every: .seconds(10)) == [0, 0, 10])
    }
}
