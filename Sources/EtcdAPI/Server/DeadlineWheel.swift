/// Deadlines of calls, by slot of the call table: constant time to set and to clear, since nearly
/// every call ends long before its deadline. A ring of ticks; a deadline further than one turn of the
/// ring is passed over until its turn comes.
struct DeadlineWheel {
    /// How late a deadline may be noticed.
    static let tickNanoseconds: UInt64 = 10_000_000
    private static let tickCount = 1024

    private struct Link {
        var next: Int32 = -1
        var previous: Int32 = -1
        /// -1: no deadline.
        var tick: Int32 = -1
        var deadline: UInt64 = 0
    }
    private var links: [Link] = []
    private var heads = [Int32](repeating: -1, count: tickCount)
    /// Ticks before this one are done.
    private var cursor: UInt64
    private(set) var count = 0

    init(now: UInt64) { cursor = now / Self.tickNanoseconds }

    mutating func set(_ slot: Int, deadline: UInt64) {
        clear(slot)
        while links.count <= slot { links.append(Link()) }
        // The tick after the deadline: never early.
        let absolute = max(deadline / Self.tickNanoseconds + 1, cursor)
        let tick = Int(absolute % UInt64(Self.tickCount))
        let head = heads[tick]
        links[slot] = Link(next: head, previous: -1, tick: Int32(tick), deadline: deadline)
        if head >= 0 { links[Int(head)].previous = Int32(slot) }
        heads[tick] = Int32(slot)
        count += 1
    }

    mutating func clear(_ slot: Int) {
        guard slot < links.count, links[slot].tick >= 0 else { return }
        let link = links[slot]
        if link.previous >= 0 {
            links[Int(link.previous)].next = link.next
        } else {
            heads[Int(link.tick)] = link.next
        }
        if link.next >= 0 { links[Int(link.next)].previous = link.previous }
        links[slot].tick = -1
        count -= 1
    }

    /// Takes out the slots whose deadline has passed.
    mutating func expire(now: UInt64, into expired: inout [Int]) {
        let current = now / Self.tickNanoseconds
        guard current >= cursor else { return }
        // More than a turn of the ring has gone by: each tick once is enough.
        let last = min(current, cursor + UInt64(Self.tickCount) - 1)
        for absolute in cursor...last {
            var slot = heads[Int(absolute % UInt64(Self.tickCount))]
            while slot >= 0 {
                let link = links[Int(slot)]
                if link.deadline <= now {
                    clear(Int(slot))
                    expired.append(Int(slot))
                }
                slot = link.next
            }
        }
        cursor = current + 1
    }

    /// When to look next, if any deadline is set.
    var nextWake: UInt64? {
        guard count > 0 else { return nil }
        for ahead in 0..<UInt64(Self.tickCount)
        where heads[Int((cursor + ahead) % UInt64(Self.tickCount))] >= 0 {
            return (cursor + ahead) * Self.tickNanoseconds
        }
        return nil
    }
}
