/// Who belongs to a region: the list that etcd's Cluster service shows, part of the directory's
/// replicated state. The groups follow it one change at a time (docs/protocol.md, "Membership").
public struct RegionMembers: Hashable, Sendable {
    public struct Member: Hashable, Sendable {
        /// etcd's member id: stays when a lost disk is replaced.
        public var id: UInt64
        /// The incarnation that takes part now.
        public var node: NodeID
        /// Which data directory that is: drawn when the directory was made. 0: the member has been
        /// added and not started.
        public var token: UInt64
        public var name: String
        public var peerURLs: [String]
        public var clientURLs: [String]
        public var isLearner: Bool
        /// It leads nothing if others can; until it starts again, or an operator says so.
        public var isDrained: Bool
        /// It has not been heard of for long: others vote in its place, as far as there are others.
        public var isAway: Bool
        /// Where it may fail together with others: a room, a provider's zone. Empty: nobody has said.
        public var zone: String
        /// What its build knows (`FeatureLevel`), as it said at its last start. 0: nothing said yet.
        public var level: UInt16
        public init(
            id: UInt64, node: NodeID, token: UInt64, name: String, peerURLs: [String],
            clientURLs: [String] = [], isLearner: Bool = false, isDrained: Bool = false,
            isAway: Bool = false, zone: String = "", level: UInt16 = 0
        ) {
            self.id = id
            self.node = node
            self.token = token
            self.name = name
            self.peerURLs = peerURLs
            self.clientURLs = clientURLs
            self.isLearner = isLearner
            self.isDrained = isDrained
            self.isAway = isAway
            self.zone = zone
            self.level = level
        }
        public var isStarted: Bool { token != 0 }
    }

    /// Rises by one with each change; 0: nobody has written the list yet.
    public var version: UInt64
    /// In order of seats.
    public var members: [Member]
    /// The last incarnation of each seat ever taken, in order: no node's name is used twice.
    public var used: [NodeID]
    /// The region's feature level: every member's build has known it at some time, and none that does
    /// not may take part any more. Never falls.
    public var level: UInt16
    public var placement: Placement

    public init(
        version: UInt64 = 0, members: [Member] = [], used: [NodeID] = [],
        level: UInt16 = FeatureLevel.first, placement: Placement = Placement()
    ) {
        self.version = version
        self.members = members
        self.used = used
        self.level = level
        self.placement = placement
    }

    /// Everybody talks to everybody. Before the region's builds know of placement
    /// all of them vote, too.
    public var membersMax: Int { level >= FeatureLevel.placement ? 64 : Placement.replicasMax }

    /// Who may vote in a group. Who does: `voters(of:)`.
    public var voters: [NodeID] { members.filter { $0.isStarted && !$0.isLearner }.map(\.node) }
    public var learners: [NodeID] { members.filter { $0.isStarted && $0.isLearner }.map(\.node) }
    public var nodes: [NodeID] { members.filter(\.isStarted).map(\.node) }

    /// Whether leaderships are to be with it.
    public func mayLead(_ node: NodeID) -> Bool {
        members.contains { $0.node == node && !$0.isLearner && !$0.isDrained }
    }

    public func member(_ id: UInt64) -> Int? { members.firstIndex { $0.id == id } }

    // MARK: Names of nodes

    /// A seat that nobody has had; after 255 of them the lowest that is free again.
    private func freeNode() -> NodeID? {
        let highest = used.map(\.seat.rawValue).max() ?? 0
        if highest < 255 { return NodeID(seat: NodeID(highest + 1), incarnation: 0) }
        let free = used.first { last in !members.contains { $0.node.seat == last.seat } }
        return free?.nextIncarnation
    }

    private mutating func use(_ node: NodeID) {
        used.removeAll { $0.seat == node.seat }
        used.append(node)
        used.sort { $0.seat < $1.seat }
    }

    // MARK: Changes, with etcd's checks in etcd's order

    public mutating func add(
        peerURLs: [String], isLearner: Bool, learnersMax: Int = 1
    ) throws(RequestError) -> UInt64 {
        guard !peerURLs.isEmpty else { throw .memberURLsInvalid }
        try checkURLs(peerURLs, besides: nil)
        if isLearner {
            guard members.count(where: \.isLearner) < learnersMax else { throw .tooManyLearners }
        } else {
            try checkStarted(adding: 1, besides: nil)
        }
        guard members.count(where: { !$0.isLearner }) < membersMax,
            let node = freeNode()
        else { throw .tooManyRequests }
        var mix = SplitMix(
            seed: (members.first?.id ?? 0) ^ version << 16 ^ UInt64(node.rawValue))
        var id = mix.next()
        while id == 0 || member(id) != nil { id = mix.next() }
        use(node)
        members.append(
            Member(
                id: id, node: node, token: 0, name: "", peerURLs: peerURLs, isLearner: isLearner))
        members.sort { $0.node.seat < $1.node.seat }
        version += 1
        return id
    }

    public mutating func remove(_ id: UInt64) throws(RequestError) {
        guard let i = member(id) else { throw .memberNotFound }
        if !members[i].isLearner { try checkStarted(adding: 0, besides: i) }
        members.remove(at: i)
        for wish in placement.wishes where wish.members.contains(id) {
            placement.wish(wish.members.filter { $0 != id }, for: wish.partition)
        }
        raiseLevel()
        version += 1
    }

    public mutating func update(_ id: UInt64, peerURLs: [String]) throws(RequestError) {
        guard !peerURLs.isEmpty else { throw .memberURLsInvalid }
        guard let i = member(id) else { throw .memberNotFound }
        try checkURLs(peerURLs, besides: i)
        guard members[i].peerURLs != peerURLs else { return }
        members[i].peerURLs = peerURLs
        version += 1
    }

    /// `isInSync`: the caller has looked.
    public mutating func promote(_ id: UInt64, isInSync: (NodeID) -> Bool) throws(RequestError) {
        guard let i = member(id) else { throw .memberNotFound }
        guard members[i].isLearner else { throw .memberNotLearner }
        guard members[i].isStarted, isInSync(members[i].node) else { throw .learnerNotReady }
        try checkStarted(adding: 1, besides: nil)
        members[i].isLearner = false
        version += 1
    }

    /// Not the last of them: leaderships must be somewhere.
    public mutating func drain(_ id: UInt64, _ isDrained: Bool) throws(RequestError) {
        guard let i = member(id) else { throw .memberNotFound }
        guard members[i].isDrained != isDrained else { return }
        members[i].isDrained = isDrained
        guard members.contains(where: { $0.isStarted && mayLead($0.node) }) else {
            throw .notEnoughStarted
        }
        version += 1
    }

    /// What a started member says of itself. Who was drained before takes part again.
    public mutating func publish(
        _ node: NodeID, name: String, clientURLs: [String], level: UInt16, zone: String = ""
    ) throws(RequestError) {
        guard let i = members.firstIndex(where: { $0.node == node }) else { return }
        guard level >= self.level else { throw .buildTooOld }
        var next = members[i]
        next.name = name
        next.clientURLs = clientURLs
        next.isDrained = false
        next.isAway = false
        if !zone.isEmpty { next.zone = zone }
        next.level = level
        guard next != members[i] else { return }
        members[i] = next
        raiseLevel()
        version += 1
    }

    /// To what all know that take part. Who has been added and not started is asked when it comes.
    private mutating func raiseLevel() {
        guard let common = members.filter(\.isStarted).map(\.level).min() else { return }
        level = max(level, common)
    }

    /// A data directory that nobody knows asks to take part: the first of a member that was added, or
    /// a new one where the old is lost. `isAlive`: the old incarnation is heard of, and stays.
    public mutating func admit(
        _ asker: Asker, isAlive: (NodeID) -> Bool
    ) throws(RequestError) {
        guard asker.token != 0 else { throw .memberNotFound }
        if members.contains(where: { $0.token == asker.token }) { return }
        guard let i = place(of: asker) else { throw .memberNotFound }
        guard asker.level >= level else { throw .buildTooOld }
        if members[i].isStarted {
            guard !isAlive(members[i].node), let next = members[i].node.nextIncarnation else {
                throw .memberAlive
            }
            members[i].node = next
            use(next)
        }
        members[i].token = asker.token
        members[i].isAway = false
        members[i].level = asker.level
        if !asker.name.isEmpty { members[i].name = asker.name }
        version += 1
    }

    /// By the seat, if it knows one; otherwise as etcd does, by its peer URLs, or by its name.
    private func place(of asker: Asker) -> Int? {
        if asker.seat != .none {
            return members.firstIndex { $0.node.seat == asker.seat }
        }
        let urls = Set(asker.peerURLs)
        return members.firstIndex { !urls.isEmpty && Set($0.peerURLs) == urls }
            ?? members.firstIndex { !$0.name.isEmpty && $0.name == asker.name }
    }

    private func checkURLs(_ urls: [String], besides own: Int?) throws(RequestError) {
        for (i, member) in members.enumerated() where i != own {
            if member.peerURLs.contains(where: urls.contains) { throw .peerURLExists }
        }
    }

    /// etcd's strict reconfiguration check: a majority of the voters after the change has started.
    private func checkStarted(adding: Int, besides gone: Int?) throws(RequestError) {
        var voters = adding, started = 0
        for (i, member) in members.enumerated() where i != gone && !member.isLearner {
            voters += 1
            if member.isStarted { started += 1 }
        }
        // The second member of a region of one comes before it can have started.
        if adding == 1, started == 1, voters == 2 { return }
        guard started >= voters / 2 + 1 else { throw .notEnoughStarted }
    }

    /// A process with an empty data directory.
    public struct Asker: Hashable, Sendable {
        public var token: UInt64
        /// `.none`: it does not know.
        public var seat: NodeID
        public var name: String
        public var peerURLs: [String]
        /// What its build knows.
        public var level: UInt16
        public init(
            token: UInt64, seat: NodeID, name: String, peerURLs: [String],
            level: UInt16 = FeatureLevel.own
        ) {
            self.token = token
            self.seat = seat
            self.name = name
            self.peerURLs = peerURLs
            self.level = level
        }
    }
}

/// What is asked of the directory about the members.
public enum MembersRequest: Hashable, Sendable {
    /// Linearizable.
    case list
    case add(peerURLs: [String], isLearner: Bool)
    case remove(UInt64)
    case update(UInt64, peerURLs: [String])
    case promote(UInt64)
    case drain(UInt64, Bool)
    /// `zone`: said only where the region knows of placement.
    case publish(NodeID, name: String, clientURLs: [String], level: UInt16, zone: String = "")
    case admit(RegionMembers.Asker)
    case place(PlacementChange)
}

// MARK: Encoding, version 1; version 2 where the region knows of placement, 3 where it can be spread

extension ByteWriter {
    public mutating func strings(_ list: [String]) {
        varint(list.count)
        for text in list { bytes(Bytes(text)) }
    }

    public mutating func members(_ list: RegionMembers) {
        let isPlaced = list.level >= FeatureLevel.placement
        let isSpreadable = list.level >= FeatureLevel.spread
        byte(isSpreadable ? 3 : isPlaced ? 2 : 1)
        varint(list.version)
        varint(list.members.count)
        for member in list.members {
            fixed64(member.id)
            id(member.node)
            fixed64(member.token)
            bytes(Bytes(member.name))
            strings(member.peerURLs)
            strings(member.clientURLs)
            byte(
                (member.isLearner ? 1 : 0) | (member.isDrained ? 2 : 0)
                    | (isPlaced && member.isAway ? 4 : 0))
            fixed16(member.level)
            if isPlaced { bytes(Bytes(member.zone)) }
        }
        varint(list.used.count)
        for node in list.used { id(node) }
        fixed16(list.level)
        if isPlaced { placement(list.placement) }
        if isSpreadable { bool(list.placement.isSpread) }
    }

    public mutating func asker(_ asker: RegionMembers.Asker) {
        fixed64(asker.token)
        id(asker.seat)
        bytes(Bytes(asker.name))
        strings(asker.peerURLs)
        fixed16(asker.level)
    }

    public mutating func membersRequest(_ request: MembersRequest) {
        switch request {
        case .list: byte(1)
        case .add(let urls, let isLearner):
            byte(2)
            strings(urls)
            bool(isLearner)
        case .remove(let id):
            byte(3)
            fixed64(id)
        case .update(let id, let urls):
            byte(4)
            fixed64(id)
            strings(urls)
        case .promote(let id):
            byte(5)
            fixed64(id)
        case .drain(let id, let isDrained):
            byte(8)
            fixed64(id)
            bool(isDrained)
        case .publish(let node, let name, let urls, let level, let zone):
            byte(zone.isEmpty ? 6 : 9)
            id(node)
            bytes(Bytes(name))
            strings(urls)
            fixed16(level)
            if !zone.isEmpty { bytes(Bytes(zone)) }
        case .admit(let asker):
            byte(7)
            self.asker(asker)
        case .place(let change):
            byte(10)
            placementChange(change)
        }
    }
}

extension RegionMembers {
    /// Of the encoding.
    public static let versionMax: UInt8 = 3
}

extension ByteReader {
    public mutating func text() throws(DecodingError) -> String {
        String(decoding: try bytes().array, as: UTF8.self)
    }

    public mutating func strings() throws(DecodingError) -> [String] {
        var list: [String] = []
        for _ in 0..<(try count()) { list.append(try text()) }
        return list
    }

    public mutating func members() throws(DecodingError) -> RegionMembers {
        let format = try byte()
        guard (1...RegionMembers.versionMax).contains(format) else { throw DecodingError("members version \(format)") }
        var list = RegionMembers(version: try varint())
        for _ in 0..<(try count(atLeast: 20)) {
            var member = RegionMembers.Member(
                id: try fixed64(), node: try id(), token: try fixed64(), name: try text(),
                peerURLs: try strings(), clientURLs: try strings())
            let flags = try byte()
            guard flags < (format == 1 ? 4 : 8) else { throw DecodingError("member flags \(flags)") }
            member.isLearner = flags & 1 != 0
            member.isDrained = flags & 2 != 0
            member.isAway = flags & 4 != 0
            member.level = try fixed16()
            if format >= 2 { member.zone = try text() }
            list.members.append(member)
        }
        for _ in 0..<(try count()) { list.used.append(try id()) }
        list.level = try fixed16()
        if format >= 2 { list.placement = try placement() }
        if format >= 3 { list.placement.isSpread = try bool() }
        return list
    }

    public mutating func asker() throws(DecodingError) -> RegionMembers.Asker {
        .init(
            token: try fixed64(), seat: try id(), name: try text(), peerURLs: try strings(),
            level: try fixed16())
    }

    public mutating func membersRequest() throws(DecodingError) -> MembersRequest {
        switch try byte() {
        case 1: return .list
        case 2: return .add(peerURLs: try strings(), isLearner: try bool())
        case 3: return .remove(try fixed64())
        case 4: return .update(try fixed64(), peerURLs: try strings())
        case 5: return .promote(try fixed64())
        case 6:
            return .publish(
                try id(), name: try text(), clientURLs: try strings(), level: try fixed16())
        case 7: return .admit(try asker())
        case 8: return .drain(try fixed64(), try bool())
        case 9:
            return .publish(
                try id(), name: try text(), clientURLs: try strings(), level: try fixed16(),
                zone: try text())
        case 10: return .place(try placementChange())
        case let tag: throw DecodingError("members request \(tag)")
        }
    }
}
