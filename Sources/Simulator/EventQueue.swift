import Primitives

/// The simulated time line: what happens next, ties broken by the order of scheduling. A binary heap.
struct EventQueue<Event> {
    private struct Item {
        let due: Instant
        let number: UInt64
        let event: Event
        func precedes(_ other: Item) -> Bool {
            due != other.due ? due < other.due : number < other.number
        }
    }

    private var heap: [Item] = []
    private var nextNumber: UInt64 = 0
    private(set) var now = Instant.zero

    var isEmpty: Bool { heap.isEmpty }
    var nextDue: Instant { heap.first?.due ?? .never }

    mutating func schedule(_ event: Event, at due: Instant) {
        heap.append(Item(due: max(due, now), number: nextNumber, event: event))
        nextNumber += 1
        var i = heap.count - 1
        while i > 0 {
            let parent = (i - 1) / 2
            guard heap[i].precedes(heap[parent]) else { break }
            heap.swapAt(i, parent)
            i = parent
        }
    }

    mutating func schedule(_ event: Event, after span: TimeSpan) {
        schedule(event, at: now.advanced(by: span))
    }

    /// Takes the next event and moves the time to it.
    mutating func next() -> Event? {
        guard let first = heap.first else { return nil }
        let last = heap.removeLast()
        if !heap.isEmpty {
            heap[0] = last
            var i = 0
            while true {
                let left = 2 * i + 1, right = left + 1
                var smallest = i
                if left < heap.count, heap[left].precedes(heap[smallest]) { smallest = left }
                if right < heap.count, heap[right].precedes(heap[smallest]) { smallest = right }
                if smallest == i { break }
                heap.swapAt(i, smallest)
                i = smallest
            }
        }
        invariant(first.due >= now)
        now = first.due
        return first.event
    }

    mutating func moveTime(to instant: Instant) { now = max(now, instant) }
}
