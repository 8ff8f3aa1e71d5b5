import Node
import Primitives
import Testing

@Suite struct RestoredNodeTests {
    private func restored(_ list: Bytes) -> RestoredNode {
        RestoredNode(records: [
            GroupID(keyspace: .standard, partition: .directory): [
                (key: "a", value: "what this build cannot read"), (key: "d", value: list),
            ]
        ])
    }
    private func list(level: UInt16) -> Bytes {
        var writer = ByteWriter()
        writer.members(RegionMembers(version: 9, level: level))
        return Bytes(writer.bytes)
    }

    @Test func `a directory of a later level is known before anything else of it is read`() {
        func isAhead(_ list: Bytes) -> Bool { restored(list).isAhead(of: 3, in: .standard) }
        #expect(isAhead(list(level: 4)))
        #expect(!isAhead(list(level: 3)) && !isAhead(list(level: 1)))
        // A list in a format of the future says nothing else to this build.
        #expect(isAhead(Bytes([RegionMembers.versionMax + 1, 1, 2, 3])))
        // Damage is something else, and so is nothing.
        #expect(!isAhead(Bytes([1])) && !isAhead(.empty))
        #expect(!RestoredNode().isAhead(of: 3, in: .standard))
    }
}
