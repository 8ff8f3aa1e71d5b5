import EtcdFacade
import Primitives

/// etcd's alarms, of all members of the region. A member raises its own while it has no space and takes
/// them back by itself; clients raise and take back any by hand, and the later one wins everywhere.
/// By hand is not for ever: it ends with the last process that remembers it.
struct AlarmBook {
    private struct ByHand {
        var isRaised: Bool
        /// Wall clock of the node that was asked, in microseconds.
        var stamp: UInt64
    }
    private let me: UInt64
    private var own: [UInt64: Set<Alarm.Kind>] = [:]
    private var byHand: [Alarm: ByHand] = [:]
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

    var hasNoSpace: Bool {
        own.contains { $0.value.contains(.noSpace) }
            || byHand.contains { $0.value.isRaised && $0.key.kind == .noSpace }
    }

    mutating func setOwn(_ kinds: Set<Alarm.Kind>) { own[me] = kinds }

    /// What another member says of itself holds while we hear from it.
    mutating func forget(_ member: UInt64) { own[member] = nil }

    /// False: it was so already. An alarm that a member raises itself is its own to take back.
    mutating func set(_ alarm: Alarm, isRaised: Bool, stamp: UInt64) -> Bool {
        guard (byHand[alarm]?.isRaised ?? false) != isRaised else { return false }
        guard byHand[alarm] != nil || byHand.count < Self.byHandMax else { return false }
        byHand[alarm] = ByHand(
            isRaised: isRaised, stamp: max(stamp, (byHand[alarm]?.stamp ?? 0) + 1))
        return true
    }

    // MARK: Between nodes

    var frame: Bytes {
        var writer = HostFrame.begin(.alarms)
        let mine = (own[me] ?? []).map(\.rawValue).sorted()
        writer.varint(UInt64(mine.count))
        for kind in mine { writer.byte(kind) }
        let others = byHand.sorted {
            ($0.key.memberID, $0.key.kind.rawValue) < ($1.key.memberID, $1.key.kind.rawValue)
        }
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
        var kinds: Set<Alarm.Kind> = []
        for _ in 0..<count {
            if let kind = Alarm.Kind(rawValue: try reader.byte()) { kinds.insert(kind) }
        }
        own[from] = kinds
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
