import Primitives

/// The simulated time line: what happens next, ties broken by the order of scheduling. A heap of small
/// items; the events themselves, which are large, stay where they are.
struct EventQueue<Event> {
    private struct Item {
        let due: UInt64
        let number: UInt64
        let place: Int
        @inline(__always) func precedes(_ other: Item) -> Bool {
            due != other.due ? due < other.due : number < other.number
        }
    }

    private var heap: ContiguousArray<Item> = []
    private var events: ContiguousArray<Event?> = []
    private var free: ContiguousArray<Int> = []
    private var nextNumber: UInt64 = 0
    private(set) var now = Instant.zero

    var isEmpty: Bool { heap.isEmpty }
    var nextDue: Instant { heap.first.map { Instant(nanoseconds: $0.due) } ?? .never }

    mutating func schedule(_ event: Event, at due: Instant) {
        let place: Int
        if let unused = free.popLast() {
            place = unused
            events[place] = event
        } else {
            place = events.count
            events.append(event)
        }
        let item = Item(due: max(due, now).nanoseconds, number: nextNumber, place: place)
        nextNumber += 1
        var i = heap.count
        heap.append(item)
        while i > 0 {
            let parent = (i - 1) / 2
            guard item.precedes(heap[parent]) else { break }
            heap[i] = heap[parent]
            i = parent
        }
        heap[i] = item
    }

    mutating func schedule(_ event: Event, after span: TimeSpan) {
        schedule(event, at: now.advanced(by: span))
    }

    /// Takes the next event and moves the time to it.
    mutating func next() -> Event? {
        guard let first = heap.first, let last = heap.popLast() else { return nil }
        if !heap.isEmpty {
            var i = 0
            let count = heap.count
            while true {
                var child = 2 * i + 1
                if child >= count { break }
                if child + 1 < count, heap[child + 1].precedes(heap[child]) { child += 1 }
                guard heap[child].precedes(last) else { break }
                heap[i] = heap[child]
                i = child
            }
            heap[i] = last
        }
        invariant(first.due >= now.nanoseconds)
        now = Instant(nanoseconds: first.due)
        free.append(first.place)
        let event = events[first.place]
        events[first.place] = nil
        return event
    }

    mutating func moveTime(to instant: Instant) { now = max(now, instant) }
}
