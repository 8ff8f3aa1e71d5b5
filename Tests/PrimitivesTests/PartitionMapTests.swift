import Primitives
import Testing

@Suite struct PartitionMapTests {
    @Test func `a split divides its parent's range and nothing else`() {
        var map = PartitionMap(equalPartitions: 4)
        let before = map
        let range = map.entries[1].range
        let split = PartitionSplit(parent: PartitionID(2), child: PartitionID(5), cut: range.middle)
        #expect(map.refusal(of: split) == nil)
        let isNext = map.apply(split)
        #expect(isNext)
        #expect(map.count == 5 && map.version == before.version + 1)
        #expect(map.range(of: PartitionID(2)) == range.below(range.middle))
        #expect(map.range(of: PartitionID(5)) == range.from(range.middle))
        for i in [1, 3, 4] {
            let partition = PartitionID(UInt32(i))
            #expect(map.range(of: partition) == before.range(of: partition))
        }
        for (a, b) in zip(map.entries, map.entries.dropFirst()) {
            #expect(a.range.last + 1 == b.range.first)
        }
        for n in 0..<2_000 {
            let hash = KeyHash.hash(Bytes("key\(n)"))
            let old = before.partition(ofHash: hash), new = map.partition(ofHash: hash)
            #expect(new == (old == PartitionID(2) && hash >= split.cut ? PartitionID(5) : old))
        }
    }

    @Test func `what does not follow the map is refused`() {
        var map = PartitionMap(equalPartitions: 2)
        let range = map.entries[0].range
        func split(_ parent: UInt32, _ child: UInt32, _ cut: UInt64) -> PartitionSplit {
            PartitionSplit(parent: PartitionID(parent), child: PartitionID(child), cut: cut)
        }
        #expect(map.refusal(of: split(1, 3, range.first)) == .cutOutside)
        #expect(map.refusal(of: split(1, 3, range.last + 1)) == .cutOutside)
        #expect(map.refusal(of: split(9, 3, range.middle)) == .partitionNotFound)
        let gap = map.apply(split(1, 4, range.middle))
        #expect(!gap && map == PartitionMap(equalPartitions: 2))
    }

    @Test func `what was cut off is found from where it was`() {
        var map = PartitionMap(equalPartitions: 1)
        map.apply(PartitionSplit(parent: PartitionID(1), child: PartitionID(2), cut: 1 << 63))
        map.apply(PartitionSplit(parent: PartitionID(2), child: PartitionID(3), cut: 3 << 62))
        map.apply(PartitionSplit(parent: PartitionID(1), child: PartitionID(4), cut: 1 << 62))
        #expect(map.withDescendants([PartitionID(2)]) == [PartitionID(2), PartitionID(3)])
        #expect(Set(map.withDescendants([PartitionID(1)])).count == 4)
        #expect(map.parent(of: PartitionID(3)) == PartitionID(2))
        #expect(map.parent(of: PartitionID(1)) == nil)
        #expect(map.entries.map(\.partition.rawValue) == [1, 4, 2, 3])
    }

    @Test func `the middle of a range is inside it`() {
        for range in [HashRange.all, HashRange(first: 4, last: 5), HashRange(first: 0, last: 1)] {
            #expect(range.first < range.middle && range.middle <= range.last)
        }
    }
}
