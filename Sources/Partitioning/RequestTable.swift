import DequeModule
package import Primitives

/// How a client's request is known wherever it goes and however often it is sent (S16).
package struct RequestTag: Hashable, Sendable {
    package let name: RequestName
    /// Rises each time the client's node sends it: of two attempts the later one counts.
    package let attempt: UInt64
    /// The lowest sequence of that node's boot that is still open: nobody asks for lower ones again.
    package let mark: UInt64
    /// The leadership of the request's first partition for which this attempt was sent. No other
    /// executes it, so that an attempt that was given up cannot come back; zero elsewhere.
    package var gate: Term
    /// Where the logs of the request's partitions stood at the client's node when it was first sent,
    /// in their order; empty if no earlier attempt can have taken effect.
    package var after: [Slot]
    /// Of which partitions; empty: of those that the founding map names.
    package var places: [PartitionID] = []

    package init(
        name: RequestName, attempt: UInt64, mark: UInt64, gate: Term = .zero, after: [Slot] = []
    ) {
        self.name = name
        self.attempt = attempt
        self.mark = mark
        self.gate = gate
        self.after = after
    }

    /// An earlier attempt may have taken effect.
    package var isRetry: Bool { !after.isEmpty }

    /// As one partition's participant needs it.
    package func part(gate: Term, after slot: Slot?) -> RequestTag {
        RequestTag(
            name: name, attempt: attempt, mark: mark, gate: gate, after: slot.map { [$0] } ?? [])
    }
}

/// Whose request a log entry carries out.
package struct RequestMark: Hashable, Sendable {
    package let name: RequestName
    package let mark: UInt64
    package init(name: RequestName, mark: UInt64) {
        self.name = name
        self.mark = mark
    }
}

/// Which requests this partition's log has carried out lately (protocol-rules.md S16). Soft: every
/// replica learns it from the entries that it applies, and knows from which slot on it is complete.
package struct RequestTable: Sendable {
    package enum Finding: Equatable, Sendable {
        /// At this revision; zero if it took none.
        case executed(Revision)
        case absent
        /// It may have been here, before what the table covers.
        case unknown
    }

    private struct Boot: Hashable {
        let node: NodeID
        let boot: UInt64
        init(_ name: RequestName) {
            node = name.node
            boot = name.boot
        }
    }

    private var known: [RequestName: (revision: Revision, slot: Slot)] = [:]
    private var order: Deque<(name: RequestName, slot: Slot)> = []
    /// A few: one a node, and one more each time that a node restarts.
    private var marks: [(boot: Boot, mark: UInt64)] = []
    /// Prepared, so that it may still be undone.
    private var undecided: [(revision: Revision, name: RequestName)] = []
    /// Every open request in the log behind this slot is here.
    package private(set) var completeFrom: Slot
    private let countMax: Int

    package init(completeFrom: Slot, countMax: Int = 32_768) {
        self.completeFrom = completeFrom
        self.countMax = countMax
    }

    package var count: Int { known.count }

    package mutating func insert(
        _ request: RequestMark, revision: Revision, slot: Slot, isPrepared: Bool
    ) {
        known[request.name] = (revision, slot)
        order.append((request.name, slot))
        if isPrepared { undecided.append((revision, request.name)) }
        let boot = Boot(request.name)
        if let i = marks.firstIndex(where: { $0.boot == boot }) {
            if marks[i].mark < request.mark { marks[i].mark = request.mark }
        } else if request.mark > 0 {
            // Of nodes that restart again and again; without its mark a boot's entries only stay longer.
            if marks.count >= 256 { marks.removeAll() }
            marks.append((boot, request.mark))
        }
        trim()
    }

    private mutating func trim() {
        while let first = order.first {
            let boot = Boot(first.name)
            let mark = marks.first { $0.boot == boot }?.mark ?? 0
            let isOpen = first.name.sequence >= mark
            if isOpen && order.count <= countMax { return }
            order.removeFirst()
            guard let i = known.index(forKey: first.name), known.values[i].slot == first.slot else {
                continue
            }
            known.remove(at: i)
            if isOpen { completeFrom = max(completeFrom, first.slot) }
        }
    }

    /// The attempt that was prepared at `revision` is undone.
    package mutating func undo(_ revision: Revision) {
        guard let i = undecided.firstIndex(where: { $0.revision == revision }) else { return }
        let name = undecided.remove(at: i).name
        if known[name]?.revision == revision { known[name] = nil }
    }

    /// What was prepared at or below `frontier` stands.
    package mutating func covered(through frontier: Revision) {
        if !undecided.isEmpty { undecided.removeAll { $0.revision <= frontier } }
    }

    package func find(_ name: RequestName, after slot: Slot) -> Finding {
        if Mutation.requestsForgotten.isOn { return .absent }
        if let found = known[name] { return .executed(found.revision) }
        return slot >= completeFrom ? .absent : .unknown
    }
}

/// The newest attempt of each request that was seen here lately: older ones come too late. Bounded, far
/// above what is under way on all links at once.
package struct AttemptMemory: Sendable {
    private var newest: [RequestName: UInt64] = [:]
    private var order: Deque<RequestName> = []
    private let countMax = 16_384

    package init() {}

    /// False: this attempt, or a later one, was here before.
    package mutating func insert(_ name: RequestName, attempt: UInt64) -> Bool {
        if let known = newest[name] {
            guard attempt > known else { return false }
            newest[name] = attempt
            return true
        }
        newest[name] = attempt
        order.append(name)
        if order.count > countMax, let oldest = order.popFirst() { newest[oldest] = nil }
        return true
    }

    package func isOvertaken(_ name: RequestName, attempt: UInt64) -> Bool {
        newest[name].map { $0 > attempt } ?? false
    }
}
