package import Primitives

/// Strict serializability of one region's history, by its revisions: every acknowledged write is the
/// one transaction of its revision, every answer is what the reference model says at its revision, and
/// revisions follow real time. Together that *is* a serial order, and real time respects it.
package struct HistoryChecker {
    private let region: RegionID
    private let timeline: RegionTimeline
    private let operations: [Operation]
    private var violations: [Violation] = []
    /// Everything above here is only partly known to the timeline.
    private let through: Revision
    private var stamps: [Bytes: Stamp] = [:]
    private let leases: LeaseChecker
    private let errors: ErrorChecker

    package static func check(
        region: RegionID, timeline: RegionTimeline, operations: [Operation], through: Revision,
        healthyFrom: Instant = .never, leases: LeaseAllowance? = nil
    ) -> [Violation] {
        var checker = HistoryChecker(
            region: region, timeline: timeline, operations: operations, through: through,
            healthyFrom: healthyFrom, leases: leases)
        for operation in operations {
            if let violation = checker.errors.check(operation) {
                checker.fail(violation.rule, violation.what)
            }
        }
        checker.checkRealTime()
        checker.replay()
        return checker.violations
    }

    private init(
        region: RegionID, timeline: RegionTimeline, operations: [Operation], through: Revision,
        healthyFrom: Instant, leases: LeaseAllowance?
    ) {
        self.leases = LeaseChecker(operations, allowance: leases)
        errors = ErrorChecker(operations, healthyFrom: healthyFrom)
        self.region = region
        self.timeline = timeline
        self.operations = operations
        self.through = through
    }

    private mutating func fail(_ rule: String, _ what: String) {
        if violations.count < 20 { violations.append(Violation(rule, what)) }
    }

    // MARK: Real time

    /// Every header's revision is at least every revision told to anyone before the request was sent.
    private mutating func checkRealTime() {
        for operation in operations {
            guard let revision = operation.revision else { continue }
            if revision > through {
                fail("acknowledged is visible", "\(operation.brief) has \(revision), frontier \(through)")
            }
            if operation.isSerializable { continue }
            if revision < operation.toldBefore {
                fail(
                    "revisions follow real time",
                    "\(operation.brief) has \(revision), but \(operation.toldBefore) was told before it")
            } else if operation.wrote, revision == operation.toldBefore {
                fail(
                    "revisions follow real time",
                    "\(operation.brief) is \(revision), which was told before it was sent")
            }
        }
    }

    // MARK: Replay

    private mutating func replay() {
        var writers: [Revision: [Operation]] = [:]
        var readers: [Revision: [Operation]] = [:]
        var unknown: [Operation] = []
        for operation in operations {
            switch operation.outcome {
            case .nothing: break
            case .unknown: unknown.append(operation)
            case .failed: break
            case .range, .response:
                guard let revision = operation.revision else { continue }
                if operation.wrote {
                    writers[revision, default: []].append(operation)
                } else {
                    readers[operation.readsAt ?? revision, default: []].append(operation)
                }
            }
        }
        var model = ReferenceModel()
        var explained: Set<Int> = []
        let committed = timeline.revisions.filter { $0 <= through }
        for revision in Set(writers.keys).subtracting(committed).sorted() where revision <= through {
            for operation in writers[revision] ?? [] {
                fail("acknowledged writes survive", "\(operation.brief) is not in the history")
            }
        }
        let stops = Set(committed).union(readers.keys).filter { $0 <= through }.sorted()
        for revision in stops {
            if let rows = timeline.changes[revision] {
                checkStamps(rows)
                check(rows, at: revision, writers[revision] ?? [], unknown, on: model, &explained)
                model.apply(rows, at: revision)
            }
            for reader in readers[revision] ?? [] { check(reader, on: model) }
        }
    }

    private mutating func check(
        _ rows: [Row], at revision: Revision, _ writers: [Operation], _ unknown: [Operation],
        on model: ReferenceModel, _ explained: inout Set<Int>
    ) {
        for (i, row) in rows.enumerated() where i > 0 && row.sub <= rows[i - 1].sub {
            fail("changes of a revision are in order", "\(revision): \(rows.brief)")
        }
        for row in rows where row.modRevision != revision {
            fail("changes name their revision", "\(revision): \(rows.brief)")
        }
        if writers.count > 1 {
            fail(
                "one revision, one transaction",
                "\(revision): " + writers.map(\.brief).joined(separator: " and "))
        }
        if let writer = writers.first {
            check(writer, wrote: rows, at: revision, on: model)
            return
        }
        if rows.contains(where: { $0.origin.region != region }) {
            checkReplicated(rows, at: revision, on: model)
            return
        }
        for operation in unknown where !explained.contains(operation.number) {
            guard case .request(let request) = operation.call, case .transaction(let t) = request
            else { continue }
            if operation.toldBefore >= revision { continue }
            let (_, changes) = model.execute(t, as: revision)
            if !changes.isEmpty, changes == rows.map(\.visible) {
                explained.insert(operation.number)
                return
            }
        }
        // Leases end by themselves, and revocations are not told apart from expiry here.
        let ended = Set(rows.map { model.state[$0.key]?.lease ?? .none })
        if rows.allSatisfy(\.isDeletion), ended.count == 1, let lease = ended.first, lease != .none {
            let seen = timeline.firstSeen[revision] ?? .never
            if let violation = leases.check(expiryOf: lease, seen: seen, at: revision) {
                fail(violation.rule, violation.what)
            }
            // All of its keys at once: the end of a lease is one revision.
            let others = model.state.values.filter { row in
                row.lease == lease && !rows.contains { $0.key == row.key }
            }
            if !others.isEmpty {
                fail("a lease ends in one revision", "\(revision) leaves \(others.count) keys of \(lease)")
            }
            return
        }
        fail("every change was asked for", "\(revision): \(rows.brief) on \(model.brief(rows))")
    }

    private mutating func check(
        _ writer: Operation, wrote rows: [Row], at revision: Revision, on model: ReferenceModel
    ) {
        switch (writer.call, writer.outcome) {
        case (.request(.transaction(let transaction)), .response(.transaction(let result, _))):
            let (expected, changes) = model.execute(transaction, as: revision)
            if changes != rows.map(\.visible) {
                fail(
                    "a write does what was asked",
                    "\(writer.brief) at \(revision) made \(rows.brief), not \(changes.brief)")
            }
            if expected != result.visible {
                fail(
                    "a write answers from its revision",
                    "\(writer.brief) at \(revision) on \(model.brief(rows)): \(result.visible.results.map(\.brief)), not \(expected.results.map(\.brief))")
            }
        default: fail("a write does what was asked", "\(writer.brief) at \(revision): \(rows.brief)")
        }
    }

    private mutating func check(_ reader: Operation, on model: ReferenceModel) {
        switch (reader.call, reader.outcome) {
        case (.request(.transaction(let transaction)), .response(.transaction(let result, let revision))):
            let (expected, changes) = model.execute(transaction, as: Revision(.max))
            if !changes.isEmpty || expected != result.visible {
                fail(
                    "an answer is the state at its revision",
                    "\(reader.brief) at \(revision): \(result.visible.results.map(\.brief)), not \(expected.results.map(\.brief))")
            }
        case (.read(let query), .range(let result, let revision)):
            let expected = model.answer(query)
            if expected != result.visible {
                fail(
                    "an answer is the state at its revision",
                    "\(reader.brief) at \(revision): \(result.brief), not \(expected.brief)")
            }
        default: break
        }
    }

    /// The last writer wins everywhere only if the last here has the highest stamp (protocol-rules.md G2).
    private mutating func checkStamps(_ rows: [Row]) {
        for row in rows {
            if let before = stamps[row.key], before > row.origin.stamp {
                fail("stamps rise along a key", "\([row].brief) has \(row.origin.stamp) after \(before)")
            }
            stamps[row.key] = row.origin.stamp
        }
    }

    private mutating func checkReplicated(
        _ rows: [Row], at revision: Revision, on model: ReferenceModel
    ) {
        for row in rows {
            if row.origin.region == region {
                fail("a region ships what it wrote itself", "\(revision): \(rows.brief)")
            }
            let before = model.state[row.key]
            if !row.isDeletion,
                row.version != (before?.version ?? 0) + 1
                    || row.createRevision != before?.createRevision ?? revision {
                fail("a replicated row counts on", "\(revision): \(rows.brief) on \(model.brief(rows))")
            }
        }
    }
}

extension Operation {
    /// Whether it made a revision of its own, as its answer says.
    var wrote: Bool {
        switch outcome {
        case .response(.transaction(let result, _)): result.wrote
        default: false
        }
    }

    /// A historic read: its answer is of that revision, whatever the header says.
    var readsAt: Revision? {
        if case .read(let query) = call, query.revision > .zero { return query.revision }
        return nil
    }

    var brief: String {
        "operation \(number) of client \(client) at \(region)/\(node) \(invokedAt)...\(returnedAt) \(call.brief)"
    }
}

extension Operation.Outcome {
    var brief: String {
        switch self {
        case .nothing: "nothing done"
        case .unknown: "unknown"
        case .failed(let error): "\(error)"
        case .range(let result, let revision): "at \(revision) \(result.brief)"
        case .response(.transaction(let result, let revision)):
            "at \(revision) \(result.succeeded) \(result.results.map(\.brief))"
        case .response(let response): "\(response)"
        }
    }
}

extension OperationResult {
    var brief: String {
        switch self {
        case .put(let previous): "put over \(previous.map { [$0].brief } ?? "?")"
        case .delete(let deleted, let previous): "deleted \(deleted) \(previous.brief)"
        case .range(let range): range.brief
        case .transaction(let nested): "\(nested.succeeded) \(nested.results.map(\.brief))"
        }
    }
}

extension Operation.Call {
    var brief: String {
        switch self {
        case .read(let query):
            "\(query.serializable ? "serializable read" : "read") \(query.range.key)..\(query.range.end)"
                + (query.revision > .zero ? " at \(query.revision)" : "")
        case .request(.transaction(let t)): t.brief
        case .request(let request): "\(request)"
        }
    }
}

extension Transaction {
    var brief: String {
        func list(_ operations: [Primitives.Operation]) -> String {
            operations.map { operation in
                switch operation {
                case .put(let put):
                    "put \(put.key)=\(put.value)"
                        + (put.lease == .none ? "" : " lease \(put.lease)")
                case .delete(let delete): "delete \(delete.range.key)..\(delete.range.end)"
                case .range(let query): "get \(query.range.key)..\(query.range.end)"
                case .transaction(let nested): "(\(nested.brief))"
                }
            }.joined(separator: ", ")
        }
        if compares.isEmpty { return list(success) }
        let conditions = compares.map { "\($0.range.key) \($0.target) \($0.relation)" }
        return "if \(conditions.joined(separator: " and ")) then \(list(success)) else \(list(failure))"
    }
}

extension ReferenceModel {
    func brief(_ rows: [Row]) -> String { rows.compactMap { state[$0.key] }.brief }
}

extension RangeResult {
    var brief: String { "\(rows.brief) more \(more) count \(count)" }
}
