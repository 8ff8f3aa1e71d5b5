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
