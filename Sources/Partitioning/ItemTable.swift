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
    /// The first is always empty: what is not there lies in it.
    private var slots = [Slot(token: 0, item: nil)]
    private var free: [Int] = []
    private static let slotBits: UInt64 = 15
    /// With the slot a token has 44 bits: see `Partition.wireToken`. After half a milliard items numbers
    /// begin anew.
    private static let numberMax: UInt64 = 1 << 29 - 1
    /// `Partition.Limits.itemsMax` is below it.
    private static let slotsMax = 1 << 15 - 1

    var count: Int { slots.count - 1 - free.count }

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

    /// 0: nowhere.
    @inline(__always) private func index(_ token: UInt64) -> Int {
        let i = Int(token & (1 << Self.slotBits - 1))
        return i < slots.count && slots[i].token == token ? i : 0
    }

    func contains(_ token: UInt64) -> Bool { slots[index(token)].item != nil }

    /// A copy of all of it, which counts a dozen references up and down. What is asked for on every
    /// request's way has a question of its own, because a subscript that lends (`_read`) is a coroutine
    /// here, whose frame with the whole item in it comes from the heap.
    subscript(token: UInt64) -> Partition.Item? { slots[index(token)].item }

    func request(_ token: UInt64) -> Request? { slots[index(token)].item?.request }
    func tag(_ token: UInt64) -> RequestTag? { slots[index(token)].item?.tag }
    func mark(_ token: UInt64) -> RequestMark? { slots[index(token)].item?.mark }
    func fence(_ token: UInt64) -> UInt64? { slots[index(token)].item?.fence }
    func footprint(_ token: UInt64) -> Footprint? { slots[index(token)].item?.footprint }
    func plan(_ token: UInt64) -> ReadPlan? { slots[index(token)].item?.plan }
    func stage(_ token: UInt64) -> Partition.Item.Stage? { slots[index(token)].item?.stage }
    func answer(_ token: UInt64) -> ReadAnswer? { slots[index(token)].item?.answer }
    func isRetry(_ token: UInt64) -> Bool { slots[index(token)].item?.tag?.after.isEmpty == false }
    func replacedStamp(_ token: UInt64) -> Stamp {
        slots[index(token)].item?.evaluation?.replacedStamp ?? .zero
    }
    func number(_ token: UInt64) -> UInt64? { slots[index(token)].item?.number }

    /// In place. Nothing happens if it is gone.
    @inline(__always) mutating func change(
        _ token: UInt64, _ change: (inout Partition.Item) -> Void
    ) { slots[index(token)].item?.change(change) }

    /// Its evaluation, taken out so that its rows can be changed where they are.
    mutating func takeEvaluation(_ token: UInt64) -> Evaluation? {
        slots[index(token)].item?.evaluation.take()
    }

    /// Its evaluation, put back.
    mutating func propose(
        _ token: UInt64, _ evaluation: consuming Evaluation, at revision: Revision, number: UInt64
    ) {
        let i = index(token)
        guard slots[i].item != nil else { return }
        slots[i].item?.evaluation = evaluation
        slots[i].item?.revision = revision
        slots[i].item?.wasProposed(number: number)
    }

    mutating func remove(_ token: UInt64) {
        let i = index(token)
        slots[i].item = nil
        leave(i)
    }

    private mutating func leave(_ i: Int) {
        guard i > 0 else { return }
        // Whoever asks with its token from now on finds nothing.
        slots[i].token = 0
        free.append(i)
    }

    mutating func removeValue(forKey token: UInt64) -> Partition.Item? {
        let i = index(token)
        let item = slots[i].item.take()
        leave(i)
        return item
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

extension Partition.Item {
    @inline(__always) fileprivate mutating func change(_ change: (inout Self) -> Void) { change(&self) }
}
