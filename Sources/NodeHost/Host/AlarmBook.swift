import EtcdFacade
import Primitives

/// etcd's alarms, of all members of the region. A member raises its own while it has no space and takes
/// them back by itself; clients raise and take back any by hand, and the later one wins everywhere.
/// What was done by hand is kept in every node's data directory.
///
/// A quota that is used up holds all of the region up, as with etcd. A disk that is full holds up its own
/// node, and the others only once too few of them have space to go on alone.
struct AlarmBook {
    private struct ByHand: Equatable {
        var isRaised: Bool
        /// Wall clock of the node that was asked, in microseconds.
        var stamp: UInt64
    }
    private var me: UInt64
    private var own: [UInt64: Set<Alarm.Kind>] = [:] { didSet { count() } }
    /// Those of `own` whose disk is full.
    private var full: Set<UInt64> = [] { didSet { count() } }
    private var byHand: [Alarm: ByHand] = [:] { didSet { count() } }
    /// How many vote.
    var voters = 1 { didSet { if voters != oldValue { count() } } }
    /// Asked for every request that writes.
    private(set) var hasNoSpace = false
    private(set) var isCorrupt = false
    /// Clients can name any member.
    static let byHandMax = 64

    init(me: UInt64) { self.me = me }

    /// In order, none twice.
    var all: [Alarm] {
        var found = Set(byHand.filter(\.value.isRaised).keys)
        for (member, kinds) in own {
            for kind in kinds { found.insert(Alarm(memberID: member, kind: kind)) }
        }
        return found.sorted { ($0.memberID, $0.kind.rawValue) < ($1.memberID, $1.kind.rawValue) }
    }

    /// What another member says of its disk, while it is nobody else's trouble.
    var harmless: [Alarm] {
        full.subtracting(holdingUp).sorted().map { Alarm(memberID: $0, kind: .noSpace) }
            .filter { byHand[$0]?.isRaised != true }
    }

    /// Our disk is full, and those of so few that the others can do without us.
    var othersHaveSpace: Bool {
        full.contains(me) && full.count <= (voters - 1) / 2
            && !own.contains { $0.value.contains(.noSpace) && !full.contains($0.key) }
    }

    private var holdingUp: Set<UInt64> {
        full.count > (voters - 1) / 2 ? full : full.intersection([me])
    }

    private mutating func count() {
        let holdingUp = holdingUp
        func isRaised(_ kind: Alarm.Kind) -> Bool {
            own.contains {
                $0.value.contains(kind)
                    && (kind != .noSpace || !full.contains($0.key) || holdingUp.contains($0.key))
            } || byHand.contains { $0.value.isRaised && $0.key.kind == kind }
        }
        hasNoSpace = isRaised(.noSpace)
        isCorrupt = isRaised(.corrupt)
    }

    /// Who joined a region learns only there what it is called.
    mutating func rename(_ member: UInt64) {
        guard member != me else { return }
        own[member] = own.removeValue(forKey: me)
        if full.remove(me) != nil { full.insert(member) }
        me = member
    }

    mutating func setOwn(_ kinds: Set<Alarm.Kind>, isDiskFull: Bool = false) {
        if own[me] != kinds { own[me] = kinds }
        if isDiskFull != full.contains(me) { setFull(me, isDiskFull) }
    }

    private mutating func setFull(_ member: UInt64, _ isFull: Bool) {
        if isFull { full.insert(member) } else { full.remove(member) }
    }

    /// What another member says of itself holds while we hear from it; but a member that has left because
    /// its disk is full still has a full disk.
    mutating func forget(_ member: UInt64) {
        guard !full.contains(member) else { return }
        own[member] = nil
    }

    mutating func keep(only members: Set<UInt64>) {
        for member in Array(own.keys) where member != me && !members.contains(member) {
            own[member] = nil
            setFull(member, false)
        }
    }

    /// False: it was so already. An alarm that a member raises itself is its own to take back.
    mutating func set(_ alarm: Alarm, isRaised: Bool, stamp: UInt64) -> Bool {
        guard (byHand[alarm]?.isRaised ?? false) != isRaised else { return false }
        guard byHand[alarm] != nil || byHand.count < Self.byHandMax else { return false }
        byHand[alarm] = ByHand(
            isRaised: isRaised, stamp: max(stamp, (byHand[alarm]?.stamp ?? 0) + 1))
        return true
    }

    // MARK: The file

    static let fileName = "alarms"
    private static let fileTitle = "polder-alarms 1"

    /// What was done by hand: a line each, in order (docs/formats.md).
    var file: String {
        var lines = [Self.fileTitle]
        for (alarm, state) in ordered {
            lines.append(
                "\(String(alarm.memberID, radix: 16)) \(alarm.kind.rawValue) "
                    + "\(state.isRaised ? 1 : 0) \(state.stamp)")
        }
        return lines.joined(separator: "\n") + "\n"
    }

    /// False: it is not such a file, and nothing has changed.
    mutating func read(file: String) -> Bool {
        let lines = file.split(separator: "\n")
        guard lines.first.map(String.init) == Self.fileTitle, lines.count <= Self.byHandMax + 1 else {
            return false
        }
        var found: [Alarm: ByHand] = [:]
        for line in lines.dropFirst() {
            let words = line.split(separator: " ")
            guard words.count == 4, let member = UInt64(words[0], radix: 16),
                let kind = UInt8(words[1]).flatMap(Alarm.Kind.init(rawValue:)),
                words[2] == "0" || words[2] == "1", let stamp = UInt64(words[3])
            else { return false }
            found[Alarm(memberID: member, kind: kind)] = ByHand(
                isRaised: words[2] == "1", stamp: stamp)
        }
        byHand = found
        return true
    }

    private var ordered: [(key: Alarm, value: ByHand)] {
        byHand.sorted {
            ($0.key.memberID, $0.key.kind.rawValue) < ($1.key.memberID, $1.key.kind.rawValue)
        }
    }

    // MARK: Between nodes

    /// Among a member's kinds: its NOSPACE is of its disk. Who does not know it lets it hold him up.
    private static let fullTag: UInt8 = 64

    var frame: Bytes {
        var writer = HostFrame.begin(.alarms)
        var mine = (own[me] ?? []).map(\.rawValue).sorted()
        if full.contains(me) { mine.append(Self.fullTag) }
        writer.varint(UInt64(mine.count))
        for kind in mine { writer.byte(kind) }
        let others = ordered
        writer.varint(UInt64(others.count))
        for (alarm, state) in others {
            writer.varint(alarm.memberID)
            writer.byte(alarm.kind.rawValue)
            writer.byte(state.isRaised ? 1 : 0)
            writer.varint(state.stamp)
        }
        return Bytes(writer.bytes)
    }

    /// True: something has changed.
    mutating func merge(_ reader: inout ByteReader, from: UInt64) throws(DecodingError) -> Bool {
        let before = all
        let count = try reader.varint()
        guard count <= 16 else { throw DecodingError("\(count) alarms of one member") }
        var kinds: Set<Alarm.Kind> = [], isFull = false
        for _ in 0..<count {
            let tag = try reader.byte()
            if let kind = Alarm.Kind(rawValue: tag) { kinds.insert(kind) }
            if tag == Self.fullTag { isFull = true }
        }
        own[from] = kinds
        setFull(from, isFull)
        let others = try reader.varint()
        guard others <= UInt64(Self.byHandMax) else { throw DecodingError("\(others) alarms by hand") }
        for _ in 0..<others {
            let member = try reader.varint()
            let kind = Alarm.Kind(rawValue: try reader.byte())
            let isRaised = try reader.byte() != 0
            let stamp = try reader.varint()
            guard let kind else { continue }
            let alarm = Alarm(memberID: member, kind: kind)
            guard stamp > byHand[alarm]?.stamp ?? 0 else { continue }
            guard byHand[alarm] != nil || byHand.count < Self.byHandMax else { continue }
            byHand[alarm] = ByHand(isRaised: isRaised, stamp: stamp)
        }
        return all != before
    }
}
