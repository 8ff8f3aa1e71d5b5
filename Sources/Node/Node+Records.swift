import Partitioning
package import Primitives

// When the groups' records go into the store (docs/decisions/0025).
extension Node {
    /// All of them together are written in a few milliseconds.
    var recordsWaiting: Int { Self.recordsWaitingMax / max(1, partitions.count) }
    private static let recordsWaitingMax = 4096

    /// What the store does not hold of these groups, which it was told of: before it is made durable or copied.
    /// Between turns, when it has been given all that the last one has changed.
    package mutating func record(_ groups: [GroupID], into changes: inout [StoreChange]) {
        for group in groups where group.keyspace == configuration.keyspace {
            let i = Int(group.partition.rawValue)
            if i == 0 {
                directory.record(into: &changes)
            } else if i <= partitions.count, isPresent[i - 1] {
                partitions[i - 1].record(into: &changes)
            }
        }
    }

    /// As they would have to be in the store; nil: it has none here.
    package func lateRecords(of group: GroupID) -> [(key: Bytes, value: Bytes)]? {
        let i = Int(group.partition.rawValue)
        if i == 0 { return directory.lateRecords() }
        return i <= partitions.count && isPresent[i - 1] ? partitions[i - 1].state.lateRecords() : nil
    }

    /// A snapshot has been put into the store that came too late: what is there is older than this state.
    mutating func replaceRecords(
        of group: GroupID, _ stored: [(key: Bytes, value: Bytes)], into effects: inout NodeEffects
    ) {
        let i = Int(group.partition.rawValue)
        if i == 0 {
            directory.replaceRecords(stored, into: &effects.store)
        } else if isPresent[i - 1] {
            partitions[i - 1].state.replaceRecords(stored, into: &effects.store)
        }
    }
}
