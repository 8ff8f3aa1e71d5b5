import Primitives
import Testing

@Suite struct PlacementTests {
    private func region(
        _ count: Int, zones: [String] = [], replicas: Int = 3, level: UInt16 = FeatureLevel.placement
    ) -> RegionMembers {
        RegionMembers(
            version: 1,
            members: (1...count).map { i in
                RegionMembers.Member(
                    id: UInt64(i), node: NodeID(UInt16(i)), token: UInt64(i), name: "n\(i)",
                    peerURLs: ["http://h\(i):1"], zone: zones.isEmpty ? "" : zones[(i - 1) % zones.count],
                    level: level)
            }, used: (1...count).map { NodeID(UInt16($0)) }, level: level,
            placement: Placement(replicas: replicas))
    }
    private func seats(_ nodes: [NodeID]) -> [Int] { nodes.map { Int($0.rawValue) } }
    private let partition = PartitionID(2)

    @Test func `as many vote as are wanted, the lowest seats first, and the others learn`() {
        let list = region(6)
        #expect(seats(list.voters(of: partition)) == [1, 2, 3])
        #expect(seats(list.learners(of: partition)) == [4, 5, 6])
        #expect(seats(region(2).voters(of: partition)) == [1, 2])
    }

    @Test func `nobody has said: up to seven members all vote, as in etcd`() {
        #expect(region(7, replicas: 0).voters(of: partition).count == 7)
        #expect(region(9, replicas: 0).voters(of: partition).count == 7)
    }

    @Test func `before all builds know of placement everybody votes`() throws {
        var list = region(9, level: FeatureLevel.splits)
        #expect(list.voters(of: partition).count == 9)
        #expect(throws: RequestError.regionTooOld) { try list.place(.replicas(3), partitions: 8) }
        #expect(throws: RequestError.tooManyRequests) {
            try list.add(peerURLs: ["http://h10:1"], isLearner: false)
        }
    }

    @Test func `voters are spread over the zones`() {
        #expect(seats(region(6, zones: ["a", "a", "b", "b", "c", "c"]).voters(of: partition)) == [1, 3, 5])
        #expect(seats(region(6, zones: ["a", "a", "a", "a", "a", "b"]).voters(of: partition)) == [1, 2, 6])
    }

    @Test func `wishes come first, their first as the leader, and the rule fills up`() throws {
        var list = region(6, zones: ["a", "b", "c"])
        try list.place(.wish(partition, members: [6, 4]), partitions: 8)
        // n6 is in zone c and n4 in a: the third comes from b.
        #expect(seats(list.voters(of: partition)) == [6, 4, 2])
        #expect(list.preferredLeader(of: partition) == NodeID(6))
        #expect(seats(list.voters(of: PartitionID(1))) == [1, 2, 3])
        #expect(list.preferredLeader(of: PartitionID(1)) == nil)
        try list.place(.wish(partition, members: []), partitions: 8)
        #expect(seats(list.voters(of: partition)) == [1, 2, 3])
        #expect(list.version == 3)
    }

    @Test func `who is drained or away votes only where too few others are there`() throws {
        var list = region(5)
        try list.place(.away(1, true), partitions: 8)
        try list.drain(2, true)
        #expect(seats(list.voters(of: partition)) == [3, 4, 5])
        try list.place(.wish(partition, members: [1, 5]), partitions: 8)
        #expect(seats(list.voters(of: partition)) == [5, 3, 4])
        #expect(list.preferredLeader(of: partition) == nil)
        try list.drain(3, true)
        #expect(Set(seats(list.voters(of: partition))) == [1, 4, 5])
        // It starts again.
        try list.publish(NodeID(1), name: "n1", clientURLs: [], level: 3)
        #expect(list.preferredLeader(of: partition) == NodeID(1))
    }

    @Test func `members that leave are wished for no more`() throws {
        var list = region(5)
        try list.place(.wish(partition, members: [5, 4]), partitions: 8)
        try list.remove(5)
        #expect(list.placement.wishes == [.init(partition: partition, members: [4])])
        try list.remove(4)
        #expect(list.placement.wishes.isEmpty)
    }

    @Test func `a child lies where its parent does`() throws {
        var list = region(5)
        try list.place(.wish(partition, members: [5, 4]), partitions: 8)
        let before = list.version
        let first = list.inherit(PartitionID(9), from: partition)
        let again = list.inherit(PartitionID(9), from: partition)
        let other = list.inherit(PartitionID(10), from: PartitionID(1))
        #expect(first && !again && !other)
        #expect(list.placement.wish(for: PartitionID(9)) == [5, 4] && list.version == before)
    }

    @Test func `what cannot be is refused, and changes nothing`() throws {
        var list = region(5)
        let before = list
        for count in [0, 10] {
            #expect(throws: RequestError.replicasOutside) { try list.place(.replicas(count), partitions: 8) }
        }
        for wish: [UInt64] in [[1, 2, 3, 4], [1, 1]] {
            #expect(throws: RequestError.replicasOutside) {
                try list.place(.wish(partition, members: wish), partitions: 8)
            }
        }
        #expect(throws: RequestError.memberNotFound) {
            try list.place(.wish(partition, members: [77]), partitions: 8)
        }
        #expect(throws: RequestError.partitionNotFound) {
            try list.place(.wish(PartitionID(9), members: [1]), partitions: 8)
        }
        #expect(list == before)
        let learner = try list.add(peerURLs: ["http://l:1"], isLearner: true)
        #expect(throws: RequestError.learnerNotReady) {
            try list.place(.wish(partition, members: [learner]), partitions: 8)
        }
        #expect(!list.voters(of: partition).contains { $0 == list.members.last?.node })
    }

    @Test func `a list with placement survives its encoding, and one without is as of old`() throws {
        var list = region(4, zones: ["a", "b"])
        try list.place(.wish(partition, members: [4, 2]), partitions: 8)
        try list.place(.away(3, true), partitions: 8)
        var writer = ByteWriter()
        writer.members(list)
        #expect(writer.bytes[0] == 2)
        var reader = ByteReader(Bytes(writer.bytes))
        #expect(try reader.members() == list)
        var old = ByteWriter()
        old.members(region(3, replicas: 0, level: FeatureLevel.splits))
        #expect(old.bytes[0] == 1)
        for change: PlacementChange in [.replicas(5), .wish(partition, members: [1, 2]), .away(7, true)] {
            var writer = ByteWriter()
            writer.request(.members(.place(change)))
            var reader = ByteReader(Bytes(writer.bytes))
            #expect(try reader.request() == .members(.place(change)))
        }
        let zoned = MembersRequest.publish(NodeID(3), name: "n", clientURLs: [], level: 3, zone: "z")
        var publish = ByteWriter()
        publish.request(.members(zoned))
        var back = ByteReader(Bytes(publish.bytes))
        #expect(try back.request() == .members(zoned))
    }
}

@Suite struct SpreadTests {
    private func region(_ count: Int, zones: [String] = [], replicas: Int = 3) -> RegionMembers {
        RegionMembers(
            version: 1,
            members: (1...count).map { i in
                RegionMembers.Member(
                    id: UInt64(i), node: NodeID(UInt16(i)), token: UInt64(i), name: "n\(i)",
                    peerURLs: ["http://h\(i):1"], zone: zones.isEmpty ? "" : zones[(i - 1) % zones.count],
                    level: FeatureLevel.spread)
            }, used: (1...count).map { NodeID(UInt16($0)) }, level: FeatureLevel.spread,
            placement: Placement(replicas: replicas, isSpread: true))
    }
    private func sets(_ list: RegionMembers, partitions: UInt32 = 64) -> [Set<NodeID>: Int] {
        var found: [Set<NodeID>: Int] = [:]
        for p in 1...partitions { found[Set(list.voters(of: PartitionID(p))), default: 0] += 1 }
        return found
    }

    @Test func `partitions lie with few teams, about as many with each`() {
        let found = sets(region(9))
        #expect(found.count == 3)
        #expect(found.keys.allSatisfy { $0.count == 3 })
        #expect(found.values.allSatisfy { $0 > 10 })
        #expect(Set(found.keys.flatMap { $0 }).count == 9)
        // No two teams share a node.
        #expect(found.keys.reduce(0) { $0 + $1.count } == 9)
    }

    @Test func `who votes holds the rows, and nobody else; the directory is everybody's`() {
        let list = region(6)
        for p in 1...8 as ClosedRange<UInt32> {
            #expect(list.holders(of: PartitionID(p)) == list.voters(of: PartitionID(p)))
            #expect(list.learners(of: PartitionID(p)).isEmpty)
        }
        #expect(list.holders(of: .directory).count == 6)
    }

    @Test func `the last team is filled up, and a region of one team holds everything`() {
        #expect(sets(region(3)).count == 1)
        let five = sets(region(5))
        #expect(five.count == 2)
        #expect(Set(five.keys.flatMap { $0 }).count == 5)
    }

    @Test func `a team has members of all zones`() {
        let list = region(9, zones: ["a", "b", "c"])
        for set in sets(list).keys {
            #expect(Set(list.members.filter { set.contains($0.node) }.map(\.zone)).count == 3)
        }
    }

    @Test func `another team takes a share of the partitions, and the rest stays`() {
        let before = region(6), after = region(9)
        let moved = (1...64 as ClosedRange<UInt32>).filter {
            Set(before.voters(of: PartitionID($0))) != Set(after.voters(of: PartitionID($0)))
        }
        #expect((10...32).contains(moved.count))
        for p in moved {
            #expect(after.voters(of: PartitionID(p)).allSatisfy { $0.rawValue > 6 })
        }
    }

    @Test func `who is away is replaced in its team alone`() throws {
        var list = region(9)
        let before = (1...64 as ClosedRange<UInt32>).map { Set(list.voters(of: PartitionID($0))) }
        try list.place(.away(5, true), partitions: 64)
        for (i, old) in before.enumerated() {
            let new = Set(list.voters(of: PartitionID(UInt32(i + 1))))
            #expect(new.count == 3 && !new.contains(NodeID(5)))
            #expect(old.contains(NodeID(5)) ? new.isSuperset(of: old.subtracting([NodeID(5)])) : new == old)
        }
    }

    @Test func `spreading says how many vote, if nobody has; before its level it is refused`() throws {
        var list = region(6, replicas: 0)
        list.placement.isSpread = false
        try list.place(.spread(true), partitions: 8)
        #expect(list.placement.replicas == 3 && list.isSpread && list.version == 2)
        try list.place(.spread(true), partitions: 8)
        #expect(list.version == 2)
        list.level = FeatureLevel.placement
        #expect(!list.isSpread)
        #expect(throws: RequestError.regionTooOld) { try list.place(.spread(false), partitions: 8) }
    }

    @Test func `the list survives its encoding, at each level in its version`() throws {
        for (level, version) in [(FeatureLevel.splits, 1), (FeatureLevel.placement, 2), (FeatureLevel.spread, 3)] {
            var list = region(4)
            list.level = level
            var writer = ByteWriter()
            writer.members(list)
            #expect(writer.bytes.first == UInt8(version))
            var reader = ByteReader(Bytes(writer.bytes))
            let read = try reader.members()
            #expect(read.placement.isSpread == (version == 3))
            #expect(read.members.map(\.node) == list.members.map(\.node))
        }
    }
}

@Suite struct HashRangesTests {
    @Test func `ranges are joined, found, and what is missing from them`() {
        let some = HashRanges([
            HashRange(first: 50, last: 99), HashRange(first: 0, last: 9), HashRange(first: 10, last: 19),
            HashRange(first: 60, last: 120),
        ])
        #expect(some.ranges == [HashRange(first: 0, last: 19), HashRange(first: 50, last: 120)])
        for (hash, isIn) in [(0, true), (19, true), (20, false), (49, false), (50, true), (120, true), (121, false)] {
            #expect(some.contains(UInt64(hash)) == isIn)
        }
        #expect(some.missing(from: HashRange(first: 15, last: 60)) == [HashRange(first: 20, last: 49)])
        #expect(some.missing(from: HashRange(first: 100, last: .max)) == [HashRange(first: 121, last: .max)])
        #expect(some.missing(from: HashRange(first: 3, last: 5)).isEmpty)
        #expect(HashRanges([HashRange(first: 7, last: .max), HashRange(first: 0, last: 6)]).isAll)
        #expect(HashRanges([]).missing(from: .all) == [.all])
        #expect(HashRanges.all.contains(some) && !some.contains(.all))
    }
}
