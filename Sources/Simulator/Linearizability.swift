package import Primitives

/// One operation on one key, as its client saw it.
package struct RegisterOperation: Sendable, Equatable {
    package enum Kind: Sendable, Equatable {
        /// Nil: a deletion.
        case write(Bytes?)
        case read(Bytes?)
    }
    package let kind: Kind
    package let invokedAt: Instant
    /// `.never`: no answer; it may take effect at any time, or not at all.
    package let returnedAt: Instant
    package init(_ kind: Kind, _ invokedAt: Instant, _ returnedAt: Instant) {
        self.kind = kind
        self.invokedAt = invokedAt
        self.returnedAt = returnedAt
    }
}

/// Searches for an order of the operations on one key that respects real time and in which every read
/// gives what was written last. Wing and Gong's search with Lowe's memory of visited configurations
/// ("Testing for linearizability", 2017), key by key (Herlihy and Wing: linearizability is local).
///
/// It looks at values and times only: it knows nothing of revisions, so it holds against histories of
/// any system, and against a mistake that our revisions share with our checks of them.
package enum Linearizability {
    package enum Verdict: Equatable, Sendable {
        case linearizable
        case broken
        /// Too many operations at once to search them all.
        case undecided
    }

    package static func check(
        _ operations: [RegisterOperation], stepsMax: Int = 2_000_000
    ) -> Verdict {
        var search = Search(operations)
        return search.run(stepsMax: stepsMax)
    }

    private struct Configuration: Hashable {
        let done: [UInt64]
        let value: Int
    }

    private struct Search {
        /// Values as numbers; 0 is "no key".
        private struct Step {
            let isWrite: Bool
            let value: Int
        }
        /// The events in order of time, as a list from which taken operations are lifted out.
        private struct Entry {
            let operation: Int
            let isCall: Bool
            /// Of a call: its return's place.
            var match: Int
            var previous: Int
            var next: Int
        }

        private var steps: [Step] = []
        private var entries: [Entry] = []
        private var done: [UInt64]
        private var visited: Set<Configuration> = []

        init(_ operations: [RegisterOperation]) {
            var numbers: [Bytes: Int] = [:]
            func number(_ value: Bytes?) -> Int {
                guard let value else { return 0 }
                if let known = numbers[value] { return known }
                numbers[value] = numbers.count + 1
                return numbers.count
            }
            for operation in operations {
                switch operation.kind {
                case .write(let value): steps.append(Step(isWrite: true, value: number(value)))
                case .read(let value): steps.append(Step(isWrite: false, value: number(value)))
                }
            }
            done = Array(repeating: 0, count: operations.count / 64 + 1)
            var events: [(at: Instant, isCall: Bool, operation: Int)] = []
            for (i, operation) in operations.enumerated() {
                events.append((operation.invokedAt, true, i))
                events.append((operation.returnedAt, false, i))
            }
            // At one instant calls come first: they count as concurrent with what returns then.
            events.sort { a, b in
                if a.at != b.at { return a.at < b.at }
                if a.isCall != b.isCall { return a.isCall }
                return a.operation < b.operation
            }
            // Entry 0 is the head of the list.
            entries = [Entry(operation: -1, isCall: false, match: 0, previous: 0, next: 1)]
            var calls: [Int: Int] = [:]
            for (i, event) in events.enumerated() {
                let place = i + 1
                entries.append(
                    Entry(
                        operation: event.operation, isCall: event.isCall, match: 0,
                        previous: place - 1, next: place + 1))
                if event.isCall {
                    calls[event.operation] = place
                } else if let call = calls[event.operation] {
                    entries[call].match = place
                }
            }
            entries[entries.count - 1].next = 0
        }

        mutating func run(stepsMax: Int) -> Verdict {
            var value = 0
            var stack: [(entry: Int, value: Int)] = []
            var at = entries[0].next
            var count = 0
            while entries[0].next != 0 {
                count += 1
                if count > stepsMax { return .undecided }
                if entries[at].isCall {
                    let operation = entries[at].operation
                    let step = steps[operation]
                    if step.isWrite || step.value == value {
                        let after = step.isWrite ? step.value : value
                        done[operation / 64] |= 1 << UInt64(operation % 64)
                        if visited.insert(Configuration(done: done, value: after)).inserted {
                            stack.append((at, value))
                            value = after
                            lift(at)
                            at = entries[0].next
                            continue
                        }
                        done[operation / 64] &= ~(1 << UInt64(operation % 64))
                    }
                    at = entries[at].next
                } else {
                    // Its operation had to come before: go back.
                    guard let last = stack.popLast() else { return .broken }
                    value = last.value
                    let operation = entries[last.entry].operation
                    done[operation / 64] &= ~(1 << UInt64(operation % 64))
                    unlift(last.entry)
                    at = entries[last.entry].next
                }
            }
            return .linearizable
        }

        private mutating func lift(_ call: Int) {
            remove(call)
            remove(entries[call].match)
        }

        private mutating func unlift(_ call: Int) {
            insert(entries[call].match)
            insert(call)
        }

        private mutating func remove(_ i: Int) {
            entries[entries[i].previous].next = entries[i].next
            entries[entries[i].next].previous = entries[i].previous
        }

        private mutating func insert(_ i: Int) {
            entries[entries[i].previous].next = i
            entries[entries[i].next].previous = i
        }
    }
}

extension Linearizability {
    /// What each operation does to, or sees of, each key: linearizability is local, so a transaction
    /// over several keys counts as one operation on each (its atomicity is checked elsewhere).
    ///
    /// Of changes that nobody was told of (unknown outcomes that came true, leases that ended, other
    /// regions' writes) it is known when they were first seen; they took effect at most `window` before.
    static func project(
        _ operations: [Operation], timeline: RegionTimeline, window: TimeSpan
    ) -> [Bytes: [RegisterOperation]] {
        var keys: [Bytes: [RegisterOperation]] = [:]
        func add(_ key: Bytes, _ kind: RegisterOperation.Kind, _ operation: Operation) {
            keys[key, default: []].append(
                RegisterOperation(kind, operation.invokedAt, operation.returnedAt))
        }
        var written: Set<Revision> = []
        for operation in operations where !operation.isSerializable && operation.readsAt == nil {
            switch (operation.call, operation.outcome) {
            case (.read(let query), .range(let result, _)):
                guard query.range.isSingle, !query.keysOnly, !query.countOnly else { continue }
                add(query.range.key, .read(result.rows.first?.value), operation)
            case (.request(.transaction), .response(.transaction(_, let revision)))
            where operation.wrote:
                written.insert(revision)
                for row in timeline.changes[revision] ?? [] {
                    add(row.key, .write(row.isDeletion ? nil : row.value), operation)
                }
            default: continue
            }
        }
        for revision in timeline.revisions where !written.contains(revision) {
            let seen = timeline.firstSeen[revision] ?? .never
            let from =
                seen.nanoseconds > window.nanoseconds
                ? Instant(nanoseconds: seen.nanoseconds - window.nanoseconds) : .zero
            for row in timeline.changes[revision] ?? [] {
                keys[row.key, default: []].append(
                    RegisterOperation(.write(row.isDeletion ? nil : row.value), from, seen))
            }
        }
        return keys
    }

    /// Keys whose history is broken, and how many could not be decided.
    static func check(
        _ operations: [Operation], timeline: RegionTimeline, pace: UInt64 = 1
    ) -> (broken: [Bytes], undecided: Int) {
        // An order that is found within a narrow window is one for the wide window too, and found fast.
        let narrow = project(operations, timeline: timeline, window: .milliseconds(10) * pace)
        var suspects: [Bytes] = []
        for key in narrow.keys.sorted() {
            if check(narrow[key] ?? [], stepsMax: 50_000) != .linearizable { suspects.append(key) }
        }
        if suspects.isEmpty { return ([], 0) }
        let wide = project(operations, timeline: timeline, window: .seconds(4) * pace)
        var broken: [Bytes] = []
        var undecided = 0
        for key in suspects {
            switch check(wide[key] ?? [], stepsMax: 300_000) {
            case .linearizable: break
            case .broken: broken.append(key)
            case .undecided: undecided += 1
            }
        }
        return (broken, undecided)
    }
}
