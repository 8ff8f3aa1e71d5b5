package import Consensus
package import GeoReplication
package import Partitioning
package import Primitives

/// Who this node is and with whom it works. Fixed for the life of the process.
package struct NodeConfiguration: Sendable {
    package var keyspace: KeyspaceID
    package var region: RegionID
    package var node: NodeID
    /// The nodes of the region, this one included, as far as they are known at the start; the
    /// directory knows better. In order of preference for leadership.
    package var nodes: [NodeID]
    /// `nodes` have founded the region and are the first voters of every group. Otherwise the groups'
    /// logs say who votes.
    package var isFounder = true
    /// What the first leader of the directory writes into its log; empty: no list is kept.
    package var founding = RegionMembers()
    /// The nodes of the other regions.
    package var otherRegions: [OtherRegion]
    package var partitions: Int
    /// Drawn at the start of the process; a restarted node never reuses a request's name (S16).
    package var boot: UInt64
    package var limits: NodeLimits
    /// Rows lie only with who votes, if the region is new.
    package var isSpread = false
    /// How many nodes vote in a group, if the region has not been told yet; 0: `Placement` says.
    package var replicas = 0
    /// What this build says that it knows. More than `FeatureLevel.own` is pretence: a rehearsal of the
    /// upgrade to a build that does not exist yet.
    package var featureLevel = FeatureLevel.own

    package struct OtherRegion: Sendable, Equatable {
        package var region: RegionID
        package var nodes: [NodeID]
        package init(region: RegionID, nodes: [NodeID]) {
            self.region = region
            self.nodes = nodes
        }
    }

    package init(
        keyspace: KeyspaceID = .standard, region: RegionID, node: NodeID, nodes: [NodeID],
        otherRegions: [OtherRegion] = [], partitions: Int, boot: UInt64,
        limits: NodeLimits = NodeLimits()
    ) {
        self.keyspace = keyspace
        self.region = region
        self.node = node
        self.nodes = nodes
        self.otherRegions = otherRegions
        self.partitions = partitions
        self.boot = boot
        self.limits = limits
    }
}

/// Every bound of the core in one place.
package struct NodeLimits: Sendable {
    /// Requests of this node's clients that wait for an answer; more are refused (too many requests).
    package var requestsMax = 20_000
    /// A request without a known leader looks again after this; news of a leader makes it look at once.
    package var rerouteAfter = TimeSpan.milliseconds(20)
    /// The timeline is repeated this often when nothing happens.
    package var timelinePeriod = TimeSpan.milliseconds(30)
    /// Rows of revisions above the frontier that the watch merge holds before it gives up and lets
    /// watchers catch up from the store.
    package var mergeRowsMax = 200_000
    /// A member that has not been heard of for so long lets others vote in its place, where there are any.
    package var memberAwayAfter = TimeSpan.seconds(300)
    package var detector = DetectorLimits()
    package var consensus = Consensus.Limits()
    /// The directory's.
    package var lease = LeaseLimits()
    package var sequencer = Sequencer.Limits()
    package var partition = Partition.Limits()
    package var coordinator = Coordinator.Limits()
    package var link = LinkLimits()
    package init() {}
}

/// What the disk holds at start.
package struct RestoredNode: Sendable {
    package var logs: [GroupID: RestoredLog]
    /// The groups' records in the store (`PartitionState.init(group:records:)`).
    package var records: [GroupID: [(key: Bytes, value: Bytes)]]
    package init(
        logs: [GroupID: RestoredLog] = [:], records: [GroupID: [(key: Bytes, value: Bytes)]] = [:]
    ) {
        self.logs = logs
        self.records = records
    }

    /// The region had risen above `level` when this was written: some of it may be nothing that a build
    /// of that level can read.
    package func isAhead(of level: UInt16, in keyspace: KeyspaceID) -> Bool {
        let group = GroupID(keyspace: keyspace, partition: .directory)
        guard
            let list = records[group]?.first(where: { $0.key == PartitionState.membersKey })?.value,
            let version = list.array.first
        else { return false }
        if version > RegionMembers.versionMax { return true }
        var reader = ByteReader(list)
        guard let members = try? reader.members() else { return false }
        return members.level > level
    }
}
