/// Which members vote in which group (docs/decisions/0015), and who holds its rows: all members, so that every
/// node reads everything at home, or, in a region that is spread, only those who vote (0016). A write waits for
/// a majority of the group's voters only.
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
    /// Rows lie only with those who vote in their partition: what a region holds, and what a write costs, no
    /// longer depends on the number of its nodes.
    public var isSpread: Bool

    public init(replicas: Int = 0, wishes: [Wish] = [], isSpread: Bool = false) {
        self.replicas = replicas
        self.wishes = wishes
        self.isSpread = isSpread
    }

    /// Of a region whose operator has not chosen: up to so many members every one votes, as in etcd.
    public static let replicasStandard = 7
    /// Of a region that is spread, without another word: one may be lost.
    public static let replicasSpread = 3
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
    /// Only who votes in a partition holds its rows; or everybody does.
    case spread(Bool)
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
        if isSpread, partition != .directory {
            for id in team(of: partition) where chosen.count < placement.voters {
                if let i = rest.firstIndex(where: { $0.id == id && $0.isWanted }) { choose(i) }
            }
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

    /// Rows lie only with who votes.
    public var isSpread: Bool { level >= FeatureLevel.spread && placement.isSpread }

    /// Who has a replica of the group, the voters first. Of the directory everybody.
    public func holders(of partition: PartitionID) -> [NodeID] {
        let voters = voters(of: partition)
        if isSpread, partition != .directory { return voters }
        return voters + nodes.filter { !voters.contains($0) }
    }

    public func learners(of partition: PartitionID) -> [NodeID] {
        let voters = voters(of: partition)
        return holders(of: partition).filter { !voters.contains($0) }
    }

    /// The members of a spread region stand together in teams, and a partition lies with one of them: so few
    /// sets of voters are there that two nodes which fail together rarely are a majority of one (protocol-rules.md
    /// L5; Cidon et al., "Copysets", USENIX ATC 2013). Each team has members of as many zones as can be. Which one
    /// a partition lies with changes for few of them when a team comes or goes (rendezvous hashing).
    private func team(of partition: PartitionID) -> [UInt64] {
        let all = members.filter { $0.isStarted && !$0.isLearner }
        // The first of each zone, then the second of each, and so on: neighbours are of different zones.
        var seen: [String: Int] = [:]
        let ordered = all.map { member in
            defer { seen[member.zone, default: 0] += 1 }
            return (rank: seen[member.zone] ?? 0, member: member)
        }.sorted {
            ($0.rank, $0.member.zone, $0.member.node.seat.rawValue)
                < ($1.rank, $1.member.zone, $1.member.node.seat.rawValue)
        }.map(\.member.id)
        let size = placement.voters
        guard ordered.count > size else { return ordered }
        var best: (weight: UInt64, team: Int) = (0, 0)
        for team in 0..<(ordered.count + size - 1) / size {
            var mix = SplitMix(seed: UInt64(partition.rawValue) << 32 | UInt64(team))
            let weight = mix.next()
            if weight >= best.weight { best = (weight, team) }
        }
        // The last team is filled up with the first members.
        return (0..<size).map { ordered[(best.team * size + $0) % ordered.count] }
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
        case .spread(let isSpread):
            guard level >= FeatureLevel.spread else { throw .regionTooOld }
            guard placement.isSpread != isSpread else { return }
            // What nobody has said is said with it: all of up to seven nodes would hold everything anyway.
            if placement.replicas == 0 {
                placement.replicas = isSpread ? Placement.replicasSpread : Placement.replicasStandard
            }
            placement.isSpread = isSpread
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

// MARK: Encoding, versions 2 and 3 of the list of members

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
        case .spread(let isSpread):
            byte(4)
            bool(isSpread)
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
        case 4: return .spread(try bool())
        case let tag: throw DecodingError("placement \(tag)")
        }
    }
}
