package import Primitives

/// Who keeps a group's log: those that vote, and those that only receive it. A node is named once
/// for all: one that lost its disk comes back under another id (decision 0010), so every replica
/// answers for what it has promised.
package struct Configuration: Hashable, Sendable {
    /// Counts the changes of this group: 0 is what it was founded with.
    package var number: UInt64
    /// Which state of the region's membership it carries out. Consensus keeps it for the node.
    package var version: UInt64
    /// In order of preference for leadership.
    package var voters: [NodeID]
    package var learners: [NodeID]

    package init(
        number: UInt64 = 0, version: UInt64 = 0, voters: [NodeID], learners: [NodeID] = []
    ) {
        self.number = number
        self.version = version
        self.voters = voters
        self.learners = learners
    }

    /// Of a replica that has no log yet: whoever speaks knows more.
    package static let unknown = Configuration(voters: [])

    package var quorum: Int { voters.count / 2 + 1 }
    package var members: [NodeID] { voters + learners }
    package func contains(_ node: NodeID) -> Bool {
        voters.contains(node) || learners.contains(node)
    }

    /// One voter comes, one goes, or one takes another's place; learners as one likes, but a voter
    /// has been a learner first. Consensus would be safe with more at once (S15 counts every slot by
    /// its own configuration); one at a time keeps a majority of voters that hold the log.
    func isStep(to next: Configuration) -> Bool {
        let added = next.voters.filter { !voters.contains($0) }
        let removed = voters.filter { !next.voters.contains($0) }
        return !next.voters.isEmpty && added.count <= 1 && removed.count <= 1
            && added.allSatisfy(learners.contains)
            && Set(next.members).count == next.members.count
    }

    // MARK: The payload of a configuration entry, version 1

    package func encoded() -> Bytes {
        var writer = ByteWriter(capacity: 32)
        writer.byte(1)
        writer.varint(number)
        writer.varint(version)
        for list in [voters, learners] {
            writer.varint(list.count)
            for node in list { writer.id(node) }
        }
        return Bytes(writer.bytes)
    }

    package init(decoding bytes: Bytes) throws(DecodingError) {
        var reader = ByteReader(bytes)
        let format = try reader.byte()
        guard format == 1 else { throw DecodingError("configuration version \(format)") }
        number = try reader.varint()
        version = try reader.varint()
        voters = []
        for _ in 0..<(try reader.count()) { voters.append(try reader.id()) }
        learners = []
        for _ in 0..<(try reader.count()) { learners.append(try reader.id()) }
        try reader.expectEnd()
    }
}
