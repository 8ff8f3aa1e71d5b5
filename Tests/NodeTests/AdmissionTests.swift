import Node
import Primitives
import Testing

@Suite struct AdmissionTests {
    private let seats = (1...3).map { NodeID(UInt16($0)) }
    private func new(_ seat: UInt16, token: UInt64) -> Admission {
        Admission(
            asker: .init(token: token, seat: NodeID(seat), name: "n\(seat)", peerURLs: []),
            initial: seats)
    }
    private func founder(_ seat: UInt16, _ token: UInt64) -> Admission.Founder {
        .init(seat: NodeID(seat), token: token)
    }

    @Test func `the first founds a region when all have been heard of, and the others learn it`() {
        var one = new(1, token: 11), two = new(2, token: 12)
        let reply = two.step(one.question)
        #expect(reply == .alsoNew(founder(2, 12)))
        _ = one.step(.alsoNew(founder(2, 12)))
        #expect(one.outcome == nil, "a majority is not enough: the third may have lost its disk")
        #expect(one.missing == [NodeID(3)])
        _ = one.step(.alsoNew(founder(3, 13)))
        let all = [founder(1, 11), founder(2, 12), founder(3, 13)]
        #expect(one.outcome == .founded(all))
        #expect(two.outcome == nil)
        #expect(Admission.answer(to: two.asker, founders: all) == .founded(all))
        _ = two.step(.founded(all))
        #expect(two.outcome == .founded(all))
    }

    @Test func `only the first founds`() {
        var two = new(2, token: 12)
        _ = two.step(.alsoNew(founder(1, 11)))
        _ = two.step(.alsoNew(founder(3, 13)))
        #expect(two.outcome == nil && two.missing.isEmpty)
    }

    @Test func `who has lost its disk is no founder any more`() {
        let all = [founder(1, 11), founder(2, 12), founder(3, 13)]
        var back = new(3, token: 99)
        #expect(Admission.answer(to: back.asker, founders: all) == nil)
        _ = back.step(.founded(all))
        #expect(back.outcome == nil)
        // Nor does it found anything when the first has lost its own, too.
        var first = new(1, token: 98)
        _ = first.step(.alsoNew(founder(3, 99)))
        #expect(first.outcome == nil)
        var list = RegionMembers(version: 2)
        list.members = [.init(id: 3, node: NodeID(259), token: 99, name: "n3", peerURLs: [])]
        _ = back.step(.admitted(list, .init(cluster: 1, partitions: 8)))
        #expect(back.outcome == .admitted(list, .init(cluster: 1, partitions: 8)))
    }

    @Test func `who has set its data aside founds nothing, and nobody else does by its word`() {
        func back(_ seat: UInt16) -> Admission {
            Admission(asker: .init(token: 90, seat: NodeID(seat), name: "", peerURLs: []), initial: [])
        }
        var two = back(2), first = new(1, token: 98)
        #expect(two.step(first.question) == nil)
        _ = first.step(.alsoNew(founder(3, 13)))
        #expect(first.outcome == nil && first.missing == [NodeID(2)])
        // Not even alone: what it had may be put back.
        #expect(back(1).outcome == nil)
    }

    @Test func `a region of one is founded at once`() {
        let alone = Admission(
            asker: .init(token: 5, seat: NodeID(1), name: "", peerURLs: []), initial: [NodeID(1)])
        #expect(alone.outcome == .founded([founder(1, 5)]))
    }

    @Test func `messages survive their encoding, and rubbish is refused`() throws {
        for message: Admission.Message in [
            .ask(.init(token: 1, seat: NodeID(2), name: "n", peerURLs: ["u"])),
            .alsoNew(founder(1, 2)), .founded([founder(1, 2)]),
            .admitted(RegionMembers(version: 4), .init(cluster: 7, partitions: 8)),
            .refused(.memberAlive),
        ] {
            var writer = ByteWriter()
            message.encode(into: &writer)
            var reader = ByteReader(Bytes(writer.bytes))
            #expect(try Admission.Message(&reader) == message)
            var short = ByteReader(Bytes(Array(writer.bytes.dropLast())))
            #expect(throws: DecodingError.self) { try Admission.Message(&short) }
        }
    }
}
