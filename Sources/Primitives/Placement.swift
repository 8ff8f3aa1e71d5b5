/// Which members vote in which group (docs/decisions/0015). All others of the region receive the
/// group's log and hold its rows, so that every node serves every read; a write waits for a majority
/// of the group's voters only.
public struct Placement: Hashable, Sendable {
    /// What an operator, or whoever balances the region, wants of one partition.
    public struct Wish: Hashable, Sendable {
        /// The directory's is 0.
        public var partition: PartitionID
        /// Ids of members, the preferred leader first. As many as are there and may vote do; what is
        /// missing is filled up.
        public var members: [UInt64]
        public init(partition: PartitionID, members: [UInt64]) {
            self.partition = partition
            self.members = members
        }
    }

    /// How many vote in a group, as far as there are so many. 0: nobody has said yet.
    public var replicas: Int
    /// In order of partitions.
    public var wishes: [Wish]

    public init(replicas: Int = 0, wishes: [Wish] = []) {
        self.replicas = replicas
        self.wishes = wishes
    }

    /// Of a region whose operator has not chosen: up to so many members every one votes, as in etcd.
    public static let replicasStandard = 7
    /// More voters than this cost more than they protect.
    public static let replicasMax = 9

    public var voters: Int { replicas == 0 ? Placement.replicasStandard : replicas }

    public func wish(for partition: PartitionID) -> [UInt64]? {
        wishes.first { $0.partition == partition }?.members
    }

    /// Empty: none any more.
    mutating func wish(_ members: [UInt64], for partition: PartitionID) {
        wishes.removeAll { $0.partition == partition }
        guard !members.isEmpty else { return }
        wishes.append(Wish(partition: partition, members: members))
        wishes.sort { $0.partition < $1.partition }
    }
}

/// What is asked of a region's placement.
public enum PlacementChange: Hashable, Sendable {
    case replicas(Int)
    /// These members shall vote in the partition, the first of them lead it. Empty: whoever does by
    /// the rule.
    case wish(PartitionID, members: [UInt64])
    /// By whoever leads the directory: a member has not been heard of for long, or is again.
    case away(UInt64, Bool)
}

extension RegionMembers {
    /// The voters of one group, in order of preference for its leader: wished for, then spread over
    /// the zones, then in order of seats. Who is drained or away votes only where too few others are
    /// there. Never empty while a member that may vote has started.
    public func voters(of partition: PartitionID) -> [NodeID] {
        // Before the region's builds know of placement everybody votes.
        guard level >= FeatureLevel.placement else { return voters }
        var rest = members.filter { $0.isStarted && !$0.isLearner }
        var chosen: [Member] = []
        func choose(_ i: Int) { chosen.append(rest.remove(at: i)) }
        for id in placement.wish(for: partition) ?? [] where chosen.count < placement.voters {
            if let i = rest.firstIndex(where: { $0.id == id && $0.isWanted }) { choose(i) }
        }
        let wished = chosen.count
        while chosen.count < placement.voters {
            let next = rest.indices.min { a, b in
                let left = burden(rest[a], beside: chosen), right = burden(rest[b], beside: chosen)
                return left == right ? rest[a].node.seat < rest[b].node.seat : left < right
            }
            guard let next else { break }
            choose(next)
        }
        chosen[wished...].sort { $0.node.seat < $1.node.seat }
        return chosen.map(\.node)
    }

    /// Everybody else that has started.
    public func learners(of partition: PartitionID) -> [NodeID] {
        let voters = voters(of: partition)
        return nodes.filter { !voters.contains($0) }
    }

    /// The leader that is wished for, if he may lead.
    public func preferredLeader(of partition: PartitionID) -> NodeID? {
        guard level >= FeatureLevel.placement, let first = placement.wish(for: partition)?.first,
            let member = members.first(where: { $0.id == first }), member.isWanted,
            mayLead(member.node)
        else { return nil }
        return member.node
    }

    /// First whether it is wanted at all, then how many of its zone vote already.
    private func burden(_ member: Member, beside chosen: [Member]) -> Int {
        let neighbours = chosen.count { $0.zone == member.zone }
        return (member.isWanted ? 0 : 1 << 16) + neighbours
    }

    public mutating func place(
        _ change: PlacementChange, partitions: Int
    ) throws(RequestError) {
        guard level >= FeatureLevel.placement else { throw .regionTooOld }
        switch change {
        case .replicas(let count):
            guard (1...Placement.replicasMax).contains(count) else { throw .replicasOutside }
            guard placement.replicas != count else { return }
            placement.replicas = count
        case .wish(let partition, let wanted):
            guard partition.rawValue <= partitions else { throw .partitionNotFound }
            guard wanted.count <= placement.voters, Set(wanted).count == wanted.count else {
                throw .replicasOutside
            }
            for id in wanted {
                guard let i = member(id) else { throw .memberNotFound }
                guard members[i].isStarted, !members[i].isLearner else { throw .learnerNotReady }
            }
            guard placement.wish(for: partition) ?? [] != wanted else { return }
            placement.wish(wanted, for: partition)
        case .away(let id, let isAway):
            guard let i = member(id), members[i].isAway != isAway else { return }
            members[i].isAway = isAway
        }
        version += 1
    }

    /// A new partition lies where the one does that it was cut from.
    public mutating func inherit(_ child: PartitionID, from parent: PartitionID) -> Bool {
        guard let wish = placement.wish(for: parent), placement.wish(for: child) != wish else {
            return false
        }
        placement.wish(wish, for: child)
        return true
    }
}

extension RegionMembers.Member {
    /// To vote, and to lead.
    fileprivate var isWanted: Bool { !isAway && !isDrained }
}

// MARK: Encoding, version 2 of the list of members

extension ByteWriter {
    mutating func placement(_ placement: Placement) {
        varint(placement.replicas)
        varint(placement.wishes.count)
        for wish in placement.wishes {
            id(wish.partition)
            ids(wish.members)
        }
    }

    private mutating func ids(_ members: [UInt64]) {
        varint(members.count)
        for member in members { fixed64(member) }
    }

    mutating func placementChange(_ change: PlacementChange) {
        switch change {
        case .replicas(let count):
            byte(1)
            varint(count)
        case .wish(let partition, let members):
            byte(2)
            id(partition)
            ids(members)
        case .away(let member, let isAway):
            byte(3)
            fixed64(member)
            bool(isAway)
        }
    }
}

extension ByteReader {
    mutating func placement() throws(DecodingError) -> Placement {
        var placement = Placement(replicas: try voters())
        for _ in 0..<(try count()) {
            placement.wishes.append(.init(partition: try id(), members: try ids()))
        }
        return placement
    }

    private mutating func voters() throws(DecodingError) -> Int {
        let count = try varint()
        guard count <= UInt64(Placement.replicasMax) else { throw DecodingError("\(count) replicas") }
        return Int(count)
    }

    private mutating func ids() throws(DecodingError) -> [UInt64] {
        var members: [UInt64] = []
        for _ in 0..<(try count(atLeast: 8)) { members.append(try fixed64()) }
        return members
    }

    mutating func placementChange() throws(DecodingError) -> PlacementChange {
        switch try byte() {
        // Not `voters()`: what is out of bounds has an answer of its own.
        case 1: return .replicas(Int(clamping: try varint()))
        case 2: return .wish(try id(), members: try ids())
        case 3: return .away(try fixed64(), try bool())
        case let tag: throw DecodingError("placement \(tag)")
        }
    }
}
