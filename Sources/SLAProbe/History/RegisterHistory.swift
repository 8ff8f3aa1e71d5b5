/// What clients did to one register, and what they were told.
package struct RegisterOperation: Sendable, Equatable {
    package enum Action: Sendable, Equatable {
        /// `nil`: the register was seen (or made) empty.
        case write(UInt64?)
        case read(UInt64?)
    }
    package enum Result: Sendable, Equatable {
        case done
        /// Timed out or cut off: may have happened, or may yet happen.
        case unknown
    }
    package var client: Int
    package var action: Action
    package var start: UInt64
    /// Nothing happens after it, for `done`. Not looked at for `unknown`.
    package var end: UInt64
    package var result: Result

    package init(client: Int, action: Action, start: UInt64, end: UInt64, result: Result) {
        self.client = client
        self.action = action
        self.start = start
        self.end = end
        self.result = result
    }
}

/// Decides whether a register's history is linearizable: Wing and Gong's search (1993) with Lowe's
/// memory of configurations already seen ("Testing for linearizability", 2017). Histories of
/// several keys are checked key by key (linearizability is local: Herlihy and Wing, theorem 1).
package enum LinearizabilityChecker {
    package enum Verdict: Sendable, Equatable {
        case linearizable
        /// The longest prefix that could be explained, and an operation that could not be placed.
        case violation(explained: Int, culprit: RegisterOperation)
        /// The search was given up: too many overlapping operations.
        case undecided
    }

    /// `stepsMax` bounds the search; a history with unique values needs about one step an
    /// operation.
    package static func check(
        _ history: [RegisterOperation], initial: UInt64? = nil, stepsMax: Int = 5_000_000
    ) -> Verdict {
        let operations = reduced(history)
        var search = Search(operations, initial: initial)
        return search.run(stepsMax: stepsMax)
    }

    /// Removes what cannot matter, which keeps the search short when thousands of writes are
    /// unknown: unknown reads say nothing; an unknown write whose value nobody saw may be taken as
    /// never having happened; one that was seen, and whose value no other write wrote, happened
    /// before the first answer that shows it.
    static func reduced(_ history: [RegisterOperation]) -> [RegisterOperation] {
        var firstSeen: [UInt64?: UInt64] = [:]
        var writers: [UInt64?: Int] = [:]
        for operation in history {
            switch operation.action {
            case .read(let value) where operation.result == .done:
                firstSeen[value] = min(firstSeen[value] ?? .max, operation.end)
            case .write(let value): writers[value, default: 0] += 1
            case .read: break
            }
        }
        var kept: [RegisterOperation] = []
        for var operation in history {
            if operation.result == .unknown {
                guard case .write(let value) = operation.action, let seen = firstSeen[value] else {
                    continue
                }
                if writers[value] == 1, operation.start <= seen {
                    operation.end = seen
                    operation.result = .done
                } else {
                    operation.end = .max
                }
            }
            kept.append(operation)
        }
        return kept.sorted { ($0.start, $0.end) < ($1.start, $1.end) }
    }

    /// Depth-first over the doubly linked list of calls and returns.
    private struct Search {
        struct Event {
            var operation: Int
            var isCall: Bool
            var previous: Int
            var next: Int
            /// For a call: the index of its return event.
            var partner: Int
        }
        struct Configuration: Hashable {
            var placed: [UInt64]
            var value: UInt64?
        }
        let operations: [RegisterOperation]
        var events: [Event]
        var value: UInt64?
        /// Definite operations still to be placed: unknown ones may stay out.
        var remaining: Int

        init(_ operations: [RegisterOperation], initial: UInt64?) {
            self.operations = operations
            value = initial
            remaining = operations.count { $0.result == .done }
            // At equal times calls come before returns: such operations overlap, which accuses
            // nobody falsely.
            var order: [(time: UInt64, isReturn: Int, operation: Int)] = []
            for (index, operation) in operations.enumerated() {
                order.append((operation.start, 0, index))
                order.append((operation.end, 1, index))
            }
            order.sort {
                ($0.time, $0.isReturn, $0.operation) < ($1.time, $1.isReturn, $1.operation)
            }
            // Event 0 is the head.
            events = [Event(operation: -1, isCall: false, previous: -1, next: -1, partner: -1)]
            events.reserveCapacity(order.count + 1)
            var calls = [Int](repeating: 0, count: operations.count)
            for item in order {
                let index = events.count
                events[index - 1].next = index
                events.append(
                    Event(
                        operation: item.operation, isCall: item.isReturn == 0, previous: index - 1,
                        next: -1, partner: -1))
                if item.isReturn == 0 {
                    calls[item.operation] = index
                } else {
                    events[calls[item.operation]].partner = index
                }
            }
        }

        mutating func run(stepsMax: Int) -> Verdict {
            var placed = [UInt64](repeating: 0, count: (operations.count + 63) / 64)
            var seen: Set<Configuration> = []
            var stack: [(call: Int, before: UInt64?)] = []
            var best = 0
            var culprit = 0
            var entry = events[0].next
            var steps = 0
            while remaining > 0 {
                steps += 1
                if steps > stepsMax { return .undecided }
                if entry != -1, events[entry].isCall {
                    let index = events[entry].operation
                    if let after = apply(operations[index].action) {
                        placed[index / 64] |= 1 << UInt64(index % 64)
                        if seen.insert(Configuration(placed: placed, value: after.value)).inserted {
                            stack.append((entry, value))
                            value = after.value
                            if operations[index].result == .done { remaining -= 1 }
                            lift(entry)
                            entry = events[0].next
                            continue
                        }
                        placed[index / 64] &= ~(1 << UInt64(index % 64))
                    }
                    entry = events[entry].next
                    continue
                }
                // A return whose call is not placed: what was placed so far cannot be right.
                if entry != -1, stack.count >= best {
                    best = stack.count
                    culprit = events[entry].operation
                }
                guard let (call, before) = stack.popLast() else {
                    return .violation(explained: best, culprit: operations[culprit])
                }
                let index = events[call].operation
                placed[index / 64] &= ~(1 << UInt64(index % 64))
                if operations[index].result == .done { remaining += 1 }
                value = before
                unlift(call)
                entry = events[call].next
            }
            return .linearizable
        }

        private func apply(_ action: RegisterOperation.Action) -> (value: UInt64?, Void)? {
            switch action {
            case .write(let new): return (new, ())
            case .read(let read): return read == value ? (value, ()) : nil
            }
        }

        private mutating func lift(_ call: Int) {
            unlink(call)
            unlink(events[call].partner)
        }
        private mutating func unlift(_ call: Int) {
            relink(events[call].partner)
            relink(call)
        }
        private mutating func unlink(_ index: Int) {
            let (previous, next) = (events[index].previous, events[index].next)
            events[previous].next = next
            if next != -1 { events[next].previous = previous }
        }
        private mutating func relink(_ index: Int) {
            let (previous, next) = (events[index].previous, events[index].next)
            events[previous].next = index
            if next != -1 { events[next].previous = index }
        }
    }
}
