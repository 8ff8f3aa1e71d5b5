import Primitives

/// What clients of this node wait for, by token: a slab, because each request is looked up half a dozen
/// times on its way, and a look must neither hash nor copy.
///
/// Tokens are whatever the caller draws, as long as two that are open differ. Those whose low half is a
/// small number (the facade's are a slot and a generation) find their place by it, the others by a
/// dictionary.
struct WaitingTable: Sendable {
    private struct Slot: Sendable {
        var token: UInt64 = 0
        var waiting: Node.Waiting?
    }
    /// The first is always empty: what is not there lies in it. See `ItemTable`.
    private var slots = [Slot()]
    private var free: [Int] = []
    /// By the low half of the token; 0: nobody.
    private var places: [Int32] = []
    private var others: [UInt64: Int] = [:]
    private static let placesMax = 1 << 16

    var count: Int { slots.count - 1 - free.count }
    var isEmpty: Bool { count == 0 }

    /// 0: nowhere.
    @inline(__always) private func index(_ token: UInt64) -> Int {
        let low = Int(token & 0xFFFF_FFFF)
        if low < places.count {
            let i = Int(places[low])
            if slots[i].token == token { return i }
        }
        return others.isEmpty ? 0 : others[token] ?? 0
    }

    /// nil: nobody waits under this token, or is to wait any more.
    subscript(token: UInt64) -> Node.Waiting? {
        get { slots[index(token)].waiting }
        _modify {
            let i = index(token)
            yield &slots[i].waiting
            if i == 0 {
                if let new = slots[0].waiting.take() { insert(new, for: token) }
            } else if slots[i].waiting == nil {
                leave(i)
            }
        }
    }

    func sequence(_ token: UInt64) -> UInt64? { slots[index(token)].waiting?.sequence }

    /// Nobody waits under this token yet.
    mutating func insert(_ waiting: consuming Node.Waiting, for token: UInt64) {
        let i: Int
        if let known = free.popLast() {
            i = known
        } else {
            i = slots.count
            slots.append(Slot())
        }
        slots[i] = Slot(token: token, waiting: waiting)
        let low = Int(token & 0xFFFF_FFFF)
        if low < Self.placesMax {
            while places.count <= low { places.append(0) }
            if places[low] == 0 {
                places[low] = Int32(i)
                return
            }
        }
        others[token] = i
    }

    private mutating func leave(_ i: Int) {
        let token = slots[i].token
        let low = Int(token & 0xFFFF_FFFF)
        if low < places.count, places[low] == Int32(i) { places[low] = 0 } else { others[token] = nil }
        slots[i].token = 0
        free.append(i)
    }

    mutating func removeValue(forKey token: UInt64) -> Node.Waiting? {
        let i = index(token)
        guard i > 0 else { return nil }
        let waiting = slots[i].waiting.take()
        leave(i)
        return waiting
    }

    var tokens: [UInt64] { tokens { _ in true } }

    /// In order.
    func tokens(where isWanted: (Node.Waiting) -> Bool) -> [UInt64] {
        var found: [UInt64] = []
        for i in slots.indices.dropFirst() {
            if let waiting = slots[i].waiting, isWanted(waiting) { found.append(slots[i].token) }
        }
        return found.sorted()
    }
}
