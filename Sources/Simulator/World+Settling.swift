import Node
import Primitives

/// The second half of a run: nothing goes wrong any more, and the checks of the whole.
extension World {
    var shape: String {
        "\(regions.count)x\(nodesPerRegion) nodes, \(map.entries.count) partitions, "
            + "\(clients.count) clients, pace \(pace), faults \(plan.description)"
    }

    private func wait(_ span: TimeSpan) { run(until: queue.now.advanced(by: span)) }

    func wait(atMost span: TimeSpan, until isDone: () -> Bool) {
        let end = queue.now.advanced(by: span)
        while violations.isEmpty, queue.now < end, !isDone() { wait(paced(50)) }
    }

    func settle() {
        endFaults()
        faultsEndedAt = queue.now.advanced(by: paced(2_000))
        // Clients go on; what began in bad times may end badly.
        wait(paced(1_500))
        regions.forEach(switchOffRemoved)
        wait(paced(1_000))
        stopClients()
        wait(atMost: patience + paced(300)) { !isAnythingUnderWay }
        guard violations.isEmpty else { return }
        waitForMembers()
        waitForSplits()
        // What a split has made is whole, too.
        waitForMembers()
        guard violations.isEmpty else { return }
        probe()
        guard violations.isEmpty else { return }
        waitForRest()
        if violations.isEmpty, workload.leases { waitForLeases() }
    }

    /// Nobody keeps the short leases alive any more: no key outlives one by more than the bound.
    private func waitForLeases() {
        func left() -> [Row] {
            regions.flatMap { region in
                (latest[region] ?? [:]).values.filter { row in
                    shortLeases.contains(row.lease) && !row.isDeletion
                }
            }
        }
        wait(atMost: paced(12_000)) { left().isEmpty }
        let rest = left()
        if violations.isEmpty, !rest.isEmpty {
            fail(Violation("no key outlives its lease", rest.brief))
        }
        waitForRest()
    }

    private var shortLeases: Set<LeaseID> {
        var found: Set<LeaseID> = []
        for operation in operations {
            if case .request(.leaseGrant(let lease, let ttl)) = operation.call, ttl <= workload.shortTTLSeconds {
                found.insert(lease)
            }
        }
        return found
    }

    /// Every node takes writes of every partition, and reads.
    private func probe() {
        var asked: [Int] = []
        for (i, address) in addresses.enumerated() {
            for key in 0..<8 {
                asked.append(operations.count)
                let put = Put(key: Bytes("k/probe\(key)"), value: Bytes("p\(i).\(key)"))
                ask(.request(.transaction(Transaction(success: [.put(put)]))), client: -1, at: address)
            }
            asked.append(operations.count)
            ask(.read(RangeQuery(range: Workload.allKeys)), client: -1, at: address)
        }
        wait(atMost: patience + paced(500)) {
            asked.allSatisfy { operations[$0].returnedAt != .never }
        }
        for i in asked {
            switch operations[i].outcome {
            case .response, .range: break
            case .nothing, .unknown, .failed:
                fail(
                    Violation(
                        "a healthy cluster serves", "\(operations[i].brief): \(operations[i].outcome)"))
            }
        }
    }

    /// All nodes of a region at one frontier, and all regions at one set of values.
    private func waitForRest() {
        for _ in 0..<200 {
            wait(paced(100))
            if !violations.isEmpty { return }
            if isAtRest { return }
        }
        var where_: [String] = []
        for address in addresses {
            where_.append("\(address) at \(nodes[address]?.stream?.through ?? .zero)")
        }
        fail(Violation("a healthy world comes to rest", where_.joined(separator: ", ")))
    }

    private var isAtRest: Bool {
        for region in regions {
            let frontier = timelines[region]?.through ?? .zero
            for address in addresses where address.region == region {
                if nodes[address]?.stream?.through != frontier { return false }
            }
        }
        let values = regions.map { (latest[$0] ?? [:]).filter { !$0.value.isDeletion }.mapValues(\.origin) }
        return values.allSatisfy { $0 == values[0] }
    }

    // MARK: Checks of the whole

    func checkAll() {
        for address in addresses {
            if let stream = nodes[address]?.stream { streams.append(stream) }
        }
        for region in regions {
            guard let timeline = timelines[region] else { continue }
            let own = operations.filter { $0.region == region }
            for violation in HistoryChecker.check(
                region: region, timeline: timeline, operations: own, through: timeline.through,
                healthyFrom: faultsEndedAt, leases: leaseAllowance)
            {
                fail(violation)
            }
            checkLinearizability(of: own, timeline, region)
            for violation in users[region]?.check(own, timeline: timeline, region: region) ?? [] {
                fail(violation)
            }
            for stream in streams where stream.address.region == region {
                if let violation = stream.check(against: timeline) { fail(violation) }
            }
        }
        if violations.isEmpty {
            checkStores()
            checkOrigins()
        }
    }

    /// Nil: what holds for the whole run delays everything, by how much nobody knows.
    private var leaseAllowance: LeaseAllowance? {
        let always: [FaultPlan.Kind] = [.loss, .stalls, .slowNode, .newRegion]
        if always.contains(where: plan.has) { return nil }
        return LeaseAllowance(
            faults: plan.schedule.map { ($0.at, paced($0.kind.longestMilliseconds + 300)) },
            patience: patience)
    }

    private func checkLinearizability(
        of own: [Operation], _ timeline: RegionTimeline, _ region: RegionID
    ) {
        let (broken, undecided) = Linearizability.check(own, timeline: timeline, pace: pace)
        counts.undecided += undecided
        for key in broken {
            fail(Violation("histories are linearizable", "region \(region), key \(key)"))
        }
    }

    /// What each node's store holds at the frontier is what the history says.
    private func checkStores() {
        for region in regions {
            guard let timeline = timelines[region] else { continue }
            var model = ReferenceModel()
            for change in timeline.between(.zero, timeline.through) {
                model.apply(change.rows, at: change.revision)
            }
            let expected = model.answer(RangeQuery(range: .everything)).visible
            for address in addresses where address.region == region {
                let found = try? range(
                    RangeQuery(range: .everything), at: timeline.through, on: address
                )?.visible
                if found != expected {
                    fail(
                        Violation(
                            "replicas hold the history",
                            "\(address) at \(timeline.through): \(found?.brief ?? "nothing"), not \(expected.brief)"))
                }
            }
        }
    }

    /// What came from another region was written there, in that transaction, and came once.
    private func checkOrigins() {
        struct Write: Hashable {
            let origin: Origin
            let key: Bytes
        }
        for region in regions {
            var seen: Set<Write> = []
            for change in timelines[region]?.between(.zero, Revision(.max)) ?? [] {
                for row in change.rows where row.origin.region != region {
                    if !seen.insert(Write(origin: row.origin, key: row.key)).inserted {
                        fail(Violation("a change arrives once", "\(region): \(change.rows.brief)"))
                    }
                    let there = timelines[row.origin.region]?.changes[row.origin.revision] ?? []
                    let original = there.first { $0.key == row.key }
                    if original?.value != row.value || original?.isDeletion != row.isDeletion
                        || original?.origin != row.origin
                    {
                        fail(
                            Violation(
                                "replicated rows are the origin's",
                                "\(region): \(change.rows.brief), there \(there.brief)"))
                    }
                }
            }
        }
    }
}
