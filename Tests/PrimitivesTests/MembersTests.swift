import Primitives
import Testing

@Suite struct MembersTests {
    private var three: RegionMembers {
        RegionMembers(
            version: 1,
            members: (1...3).map { i in
                .init(
                    id: UInt64(i), node: NodeID(UInt16(i)), token: UInt64(i) + 100, name: "n\(i)",
                    peerURLs: ["http://h\(i):1"])
            }, used: (1...3).map { NodeID(UInt16($0)) })
    }
    private func asker(
        _ token: UInt64, seat: UInt16 = 0, name: String = "", urls: [String] = []
    ) -> RegionMembers.Asker {
        .init(token: token, seat: NodeID(seat), name: name, peerURLs: urls)
    }

    @Test func `a new data directory takes the place of one that is not heard of, under a new name`()
        throws
    {
        var list = three
        #expect(throws: RequestError.memberAlive) {
            try list.admit(asker(7, seat: 2)) { _ in true }
        }
        try list.admit(asker(7, seat: 2)) { _ in false }
        #expect(list.members[1].node == NodeID(seat: NodeID(2), incarnation: 1))
        #expect(list.members[1].id == 2 && list.members[1].name == "n2")
        #expect(list.version == 2)
        // The answer was lost: asking again changes nothing, whoever is heard of.
        try list.admit(asker(7, seat: 2)) { _ in true }
        #expect(list.version == 2)
        try list.admit(asker(8, seat: 2)) { _ in false }
        #expect(list.members[1].node.incarnation == 2)
        #expect(list.used[1] == list.members[1].node)
    }

    @Test func `who does not know its seat is found by its URLs, or its name`() throws {
        var list = three
        try list.admit(asker(7, name: "n1", urls: ["http://h3:1"])) { _ in false }
        #expect(list.members[2].token == 7)
        try list.admit(asker(8, name: "n1")) { _ in false }
        #expect(list.members[0].token == 8)
        #expect(throws: RequestError.memberNotFound) { try list.admit(asker(9, name: "x")) { _ in false } }
        #expect(throws: RequestError.memberNotFound) { try list.admit(asker(0, seat: 1)) { _ in false } }
    }

    @Test func `a member that was added counts when it has started, and seats are not used twice`()
        throws
    {
        var list = three
        let id = try list.add(peerURLs: ["http://h4:1"], isLearner: false)
        #expect(list.voters.count == 3 && list.members.count == 4)
        try list.admit(asker(7, urls: ["http://h4:1"])) { _ in true }
        #expect(list.voters == [1, 2, 3, 4].map { NodeID($0) })
        try list.remove(id)
        let again = try list.add(peerURLs: ["http://h4:1"], isLearner: true)
        #expect(list.members.last?.node == NodeID(5) && again != id)
        #expect(list.learners.isEmpty)
    }

    @Test func `no change leaves voters of whom a majority has not started`() throws {
        var list = three
        _ = try list.add(peerURLs: ["http://h4:1"], isLearner: false)
        _ = try list.add(peerURLs: ["http://h5:1"], isLearner: false)
        #expect(throws: RequestError.notEnoughStarted) {
            try list.add(peerURLs: ["http://h6:1"], isLearner: false)
        }
        #expect(throws: RequestError.notEnoughStarted) { try list.remove(1) }
        var alone = RegionMembers(version: 1, members: [three.members[0]], used: [NodeID(1)])
        _ = try alone.add(peerURLs: ["http://h2:1"], isLearner: false)
        #expect(throws: RequestError.notEnoughStarted) { try alone.remove(1) }
    }

    @Test func `a list survives its encoding`() throws {
        var list = three
        _ = try list.add(peerURLs: ["http://h4:1", "http://h5:1"], isLearner: true)
        list.members[0].clientURLs = ["http://c:2"]
        list.members[1].isDrained = true
        var writer = ByteWriter()
        writer.members(list)
        var reader = ByteReader(Bytes(writer.bytes))
        #expect(try reader.members() == list)
        for request: MembersRequest in [
            .list, .add(peerURLs: ["a"], isLearner: true), .remove(3), .update(4, peerURLs: []),
            .promote(5), .drain(6, true),
            .publish(NodeID(259), name: "n", clientURLs: ["u"], level: 3),
            .admit(asker(9, seat: 3, name: "x", urls: ["y"])),
        ] {
            var writer = ByteWriter()
            writer.request(.members(request))
            var reader = ByteReader(Bytes(writer.bytes))
            #expect(try reader.request() == .members(request))
        }
        var answer = ByteWriter()
        answer.response(.members(list, subject: 4))
        var back = ByteReader(Bytes(answer.bytes))
        #expect(try back.response() == .members(list, subject: 4))
    }

    @Test func `a drained member leads nothing until it starts again, and one is left that can`() throws {
        var list = three
        try list.drain(1, true)
        try list.drain(1, true)
        #expect(list.version == 2 && !list.mayLead(NodeID(1)) && list.mayLead(NodeID(2)))
        try list.drain(2, true)
        var last = list
        #expect(throws: RequestError.notEnoughStarted) { try last.drain(3, true) }
        #expect(throws: RequestError.memberNotFound) { try last.drain(9, true) }
        try list.publish(NodeID(1), name: "n1", clientURLs: [], level: 1)
        try list.drain(2, false)
        #expect(list.version == 5 && list.members.allSatisfy { list.mayLead($0.node) })
        #expect(!list.mayLead(NodeID(259)))
    }

    @Test func `a region's level is what all its builds know, and never falls`() throws {
        var list = three
        func say(_ node: UInt16, _ level: UInt16) throws(RequestError) {
            try list.publish(NodeID(node), name: "n\(node)", clientURLs: [], level: level)
        }
        #expect(list.level == 1)
        for node: UInt16 in 1...3 { try say(node, 1) }
        try say(1, 2)
        try say(2, 2)
        #expect(list.level == 1)
        // Back again: the region has not used anything of level 2 yet.
        try say(1, 1)
        try say(3, 2)
        #expect(list.level == 1)
        try say(1, 2)
        #expect(list.level == 2)
        let version = list.version
        #expect(throws: RequestError.buildTooOld) { try say(2, 1) }
        #expect(list.level == 2 && list.version == version)
        // Who has not been started holds nothing back; once it comes it must know the level.
        let id = try list.add(peerURLs: ["http://h4:1"], isLearner: true)
        for node: UInt16 in 1...3 { try say(node, 3) }
        #expect(list.level == 3)
        var old = asker(9, urls: ["http://h4:1"])
        old.level = 2
        #expect(throws: RequestError.buildTooOld) { try list.admit(old) { _ in false } }
        old.level = 3
        try list.admit(old) { _ in false }
        #expect(list.members.first { $0.id == id }?.level == 3)
    }

    @Test func `the member that held a region's level back may leave`() throws {
        var list = three
        for node: UInt16 in 1...3 {
            try list.publish(NodeID(node), name: "n\(node)", clientURLs: [], level: node == 2 ? 1 : 2)
        }
        #expect(list.level == 1)
        try list.remove(2)
        #expect(list.level == 2)
    }
}
