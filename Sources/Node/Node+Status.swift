package import Consensus
import GeoReplication
package import Partitioning
package import Primitives

// What a person, a metric or a checker wants to know of a node.
extension Node {
    package struct PartitionStatus: Sendable, Equatable {
        package let id: PartitionID
        package let range: HashRange
        package let leader: NodeID?
        package let term: Term
        package let decided: Slot
        package let applied: Slot
        package let replicas: [NodeID]
        package let voters: [NodeID]
    }

    package struct LinkStatus: Sendable, Equatable {
        package let region: RegionID
        /// Nil while the origin is silent.
        package let lagRevisions: Int64?
        package let lagMicroseconds: UInt64
    }

    package var partitionStatus: [PartitionStatus] {
        partitions.indices.map { i in
            let leader = leader(of: i)
            return PartitionStatus(
                id: partitions[i].id, range: map.range(of: partitions[i].id) ?? partitions[i].range,
                leader: leader == .none ? nil : leader,
                term: isPresent[i] ? partitions[i].state.appliedTerm : heardTails[i].term,
                decided: isPresent[i] ? groups[i + 1].decided : heardTails[i].slot,
                applied: partitions[i].state.applied,
                replicas: isPresent[i]
                    ? groups[i + 1].configuration.members : directory.members.holders(of: partitions[i].id),
                voters: isPresent[i]
                    ? groups[i + 1].configuration.voters : directory.members.voters(of: partitions[i].id))
        }
    }

    /// The sequencer that was heard of last, unless it has been silent.
    package func sequencerNode(at now: Instant) -> NodeID? {
        epoch > .zero && now.since(heardAt) < .seconds(1) ? epoch.node : nil
    }

    package func suspects(_ peer: NodeID) -> Bool { detector.suspects(peer) }

    package var sequencerEpoch: Epoch { epoch }
    package var revision: Revision { max(localFrontier, .initial) }
    package var compactedThrough: Revision { compactRevision }
    package var isReady: Bool { localFrontier > .zero }
    package var conflictsTotal: UInt64 { partitions.reduce(0) { $0 + $1.state.nextConflict } }

    /// Of all leases that this node's replicas know, for LeaseLeases.
    package var leases: [LeaseID] { partitions.flatMap(\.state.leases.keys).sorted() }

    package var appliedIndex: UInt64 {
        partitions.reduce(directory.applied.rawValue) { $0 + $1.state.applied.rawValue }
    }
    package var decidedIndex: UInt64 { groups.reduce(0) { $0 + $1.decided.rawValue } }

    /// How far other regions' streams are behind, as far as this node knows: one node of a region
    /// receives a stream, and only it is told.
    package func links(at now: ClockReading) -> [LinkStatus] {
        receivers.sorted { $0.key < $1.key }.compactMap { region, receiver in
            // Of a stream that goes to another node by now the lag would seem to grow for ever.
            let isCut = linkPeers[region]?.isEmpty ?? true
            let isHeard = now.instant.since(receiver.link.heardAt) < .seconds(1)
            guard isCut || (receiver.peer != .none && isHeard) else { return nil }
            return receiver.link.lag(wallMicroseconds: now.wallMicroseconds).map {
                LinkStatus(
                    region: region, lagRevisions: isHeard ? $0.revisions : nil,
                    lagMicroseconds: $0.microseconds)
            }
        }
    }

    /// What holds the frontier, if this node is the sequencer's.
    package var oldestOpenRevision: (revision: Revision, partitions: [PartitionID])? {
        sequencer?.oldestOpen
    }

    /// Of each group, the directory's first, as far as this node has applied its log.
    package var configurations: [Configuration] { groups.map(\.configuration) }

    package var directoryVoters: [NodeID] { groups[0].configuration.voters }

    /// Replicas' states, for checkers.
    package var partitionStates: [PartitionState] { partitions.map(\.state) }
}
