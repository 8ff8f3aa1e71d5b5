import Primitives

/// A node's write-ahead log: what is handed over becomes durable later, all of one ticket together, in
/// order. A crash keeps everything reported durable and an arbitrary prefix of the rest, as a disk does.
struct SimulatedLog {
    private struct Pending {
        let ticket: Ticket
        let records: [LogRecord]
    }

    private var durable: [LogRecord] = []
    private var pending: [Pending] = []
    private(set) var durableTicket = Ticket(0)
    private var lastTicket = Ticket(0)

    mutating func append(_ records: [LogRecord], ticket: Ticket) {
        invariant(ticket > lastTicket, "\(ticket) after \(lastTicket)")
        lastTicket = ticket
        pending.append(Pending(ticket: ticket, records: records))
    }

    var hasPending: Bool { !pending.isEmpty }
    var newestPending: Ticket? { pending.last?.ticket }

    mutating func sync(through ticket: Ticket) {
        while let first = pending.first, first.ticket <= ticket {
            durable.append(contentsOf: first.records)
            pending.removeFirst()
        }
        durableTicket = max(durableTicket, ticket)
        if durable.count > 4_000 { collect() }
    }

    /// Segments are freed once every group in them is truncated past them: what is left is what counts.
    private mutating func collect() {
        let logs = Self.restore(durable)
        durable.removeAll(keepingCapacity: true)
        for group in logs.keys.sorted() {
            guard let log = logs[group] else { continue }
            durable.append(.promise(group, log.promised))
            if log.truncatedThrough > .zero {
                durable.append(.truncate(group, log.truncatedThrough))
            }
            if log.decidedThrough > .zero { durable.append(.decided(group, log.decidedThrough)) }
            for a in log.accepted { durable.append(.accept(group, a.slot, a.ballot, a.entry)) }
        }
    }

    /// The process, or the machine, is gone.
    mutating func crash(random: inout SplitMix) {
        let unsynced = pending.flatMap(\.records)
        let kept = Int(random.below(UInt64(unsynced.count + 1)))
        durable.append(contentsOf: unsynced.prefix(kept))
        pending.removeAll()
        durableTicket = Ticket(0)
        lastTicket = Ticket(0)
    }

    func restored() -> [GroupID: RestoredLog] { Self.restore(durable) }

    private static func restore(_ records: [LogRecord]) -> [GroupID: RestoredLog] {
        var logs: [GroupID: RestoredLog] = [:]
        var accepted: [GroupID: [Slot: RestoredLog.Accepted]] = [:]
        for record in records {
            switch record {
            case .promise(let group, let ballot):
                var log = logs[group] ?? RestoredLog()
                log.promised = max(log.promised, ballot)
                logs[group] = log
            case .accept(let group, let slot, let ballot, let entry):
                var log = logs[group] ?? RestoredLog()
                // Accepting in a ballot promises it.
                log.promised = max(log.promised, ballot)
                logs[group] = log
                if slot > log.truncatedThrough {
                    accepted[group, default: [:]][slot] = .init(
                        slot: slot, ballot: ballot, entry: entry)
                }
            case .decided(let group, let slot):
                var log = logs[group] ?? RestoredLog()
                log.decidedThrough = max(log.decidedThrough, slot)
                logs[group] = log
            case .truncate(let group, let slot):
                var log = logs[group] ?? RestoredLog()
                log.truncatedThrough = max(log.truncatedThrough, slot)
                logs[group] = log
                accepted[group] = accepted[group]?.filter { $0.key > slot }
            }
        }
        for group in logs.keys {
            logs[group]?.accepted = (accepted[group] ?? [:]).values.sorted { $0.slot < $1.slot }
        }
        return logs
    }
}
