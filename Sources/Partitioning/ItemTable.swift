import Primitives

/// What a leader is executing, by token: a slab, because each request is looked up a dozen times on its
/// way, and a look must neither hash nor copy (a tenth of a put's CPU).
///
/// A token is a number, which rises with every item of this process, and the slot in which the item
/// lies. Whoever asks with the token of an item that is gone finds nothing.
struct ItemTable: Sendable {
    private struct Slot: Sendable {
        var token: UInt64
        var item: Partition.Item?
    }
    private var slots: [Slot] = []
    private var free: [Int] = []
    private static let slotBits: UInt64 = 15
    /// With the slot a token has 44 bits: see `Partition.wireToken`. After half a milliard items numbers
    /// begin anew.
    private static let numberMax: UInt64 = 1 << 29 - 1
    /// `Partition.Limits.itemsMax` is below it.
    private static let slotsMax = 1 << 15 - 1

    var count: Int { slots.count - free.count }

    /// Of the read of a latch, which is no item.
    static func latchToken(number: UInt64) -> UInt64 {
        (number & numberMax) << slotBits | UInt64(slotsMax)
    }

    mutating func insert(_ item: consuming Partition.Item, number: UInt64) -> UInt64 {
        let head = (number & Self.numberMax) << Self.slotBits
        if let i = free.popLast() {
            slots[i] = Slot(token: head | UInt64(i), item: item)
            return head | UInt64(i)
        }
        let i = slots.count
        invariant(i < Self.slotsMax, "\(i) items")
        slots.append(Slot(token: head | UInt64(i), item: item))
        return head | UInt64(i)
    }

    private func index(_ token: UInt64) -> Int? {
        let i = Int(token & (1 << Self.slotBits - 1))
        return i < slots.count && slots[i].token == token && slots[i].item != nil ? i : nil
    }

    func contains(_ token: UInt64) -> Bool { index(token) != nil }

    /// nil removes it. Nothing comes into being here: see `insert`.
    subscript(token: UInt64) -> Partition.Item? {
        _read {
            if let i = index(token) { yield slots[i].item } else { yield nil }
        }
        _modify {
            if let i = index(token) {
                yield &slots[i].item
                if slots[i].item == nil { free.append(i) }
            } else {
                var none: Partition.Item?
                yield &none
            }
        }
    }

    mutating func removeValue(forKey token: UInt64) -> Partition.Item? {
        guard let i = index(token) else { return nil }
        free.append(i)
        return slots[i].item.take()
    }

    /// In order of arrival.
    var tokens: [UInt64] { slots.filter { $0.item != nil }.map(\.token).sorted() }

    func tokens(where isWanted: (Partition.Item) -> Bool) -> [UInt64] {
        var found: [UInt64] = []
        for i in slots.indices {
            if let item = slots[i].item, isWanted(item) { found.append(slots[i].token) }
        }
        return found.sorted()
    }
}
