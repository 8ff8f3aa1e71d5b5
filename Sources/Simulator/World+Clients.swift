import Node
import Primitives

/// Clients: closed loops that ask, wait, learn and ask again. They sit beside their node, without any
/// delay: the strictest clocks for real-time order.
extension World {
    func index(of token: UInt64) -> Int? {
        guard token >= 1, token <= UInt64(operations.count) else { return nil }
        return Int(token - 1)
    }

    private func anyNode(of region: RegionID) -> NodeID {
        random.pick(addresses.filter { $0.region == region }).node
    }

    func clientNext(_ number: Int) {
        let client = clients[number]
        guard !client.isStopped, client.current == nil else { return }
        let address = NodeAddress(region: client.region, node: client.node)
        guard nodes[address]?.isUp == true else {
            clients[number].node = anyNode(of: client.region)
            queue.schedule(.clientNext(number), after: paced(5 + random.below(20)))
            return
        }
        let call = clients[number].next(workload, unique: operations.count)
        ask(call, client: number, at: address)
    }

    /// An open loop of reads at every node: it goes on where a client that writes hangs, and sees what a
    /// node says that is cut off and does not know it.
    func readerNext(_ address: NodeAddress) {
        guard faultsAreOn || queue.now < faultsEndedAt, nodes[address]?.isRetired == false else {
            return
        }
        if nodes[address]?.isUp == true {
            let key = workload.key(&random)
            ask(.read(RangeQuery(range: KeyRange(key: key))), client: -2, at: address)
        }
        if random.chance(1, in: 8) { watchFromThePast(address) }
        queue.schedule(.readerNext(address), after: pause(around: paced(14)))
    }

    /// A watcher that begins at an old revision reads the store's index: what it finds is the history.
    private func watchFromThePast(_ address: NodeAddress) {
        guard let node = nodes[address], let through = node.stream?.through, node.isUp,
            let timeline = timelines[address.region]
        else { return }
        let back = Revision(through.rawValue - Int64(random.below(30)))
        let after = max(back, node.store.floor, .zero)
        guard after < through, let found = try? changes(after: after, through: through, on: address)
        else { return }
        let known = timeline.between(after, through)
        if found != known {
            let missing = Set(known.map(\.revision)).symmetricDifference(found.map(\.revision))
            fail(
                Violation(
                    "watches are gapless",
                    "\(address) from its store in (\(after), \(through)]: other at \(missing.sorted().prefix(10))"))
        }
    }

    func ask(_ call: Operation.Call, client: Int, at address: NodeAddress) {
        guard nodes[address] != nil else { return }
        let number = operations.count
        operations.append(
            Operation(
                number: number, client: client, region: address.region, node: address.node,
                call: call, invokedAt: queue.now, toldBefore: told[address.region] ?? .initial))
        operations[number].usersToldBefore = usersTold[address.region] ?? 0
        underWay.append(number)
        if client >= 0 {
            operations[number].user = clients[client].user
            clients[client].current = number
            queue.schedule(.clientTimeout(client, operation: number), after: patience + paced(200))
        }
        send(number, to: address)
    }

    /// For the first time, or once more after a second look at the permissions.
    func send(_ number: Int, to address: NodeAddress) {
        guard let node = nodes[address] else { return }
        let token = UInt64(number) + 1
        let deadline = node.clock.instant(at: operations[number].invokedAt.advanced(by: patience))
        switch operations[number].call {
        case .request(let request):
            guard admits(number, at: address) else { return }
            deliver(
                .request(request, token: token, deadline: deadline, fence: operations[number].fence),
                to: address)
        case .read(let query):
            // Hosts ask between turns first (`Node.readPoint`); here every other time, so that both ways
            // are gone.
            if node.isUp, !node.isFrozen, random.chance(1, in: 2),
                let point = node.core?.readPoint(
                    linearizable: !query.serializable, at: node.clock.instant(at: queue.now))
            {
                return serve(token, .success(point), at: address)
            }
            deliver(
                .readIndex(linearizable: !query.serializable, token: token, deadline: deadline),
                to: address)
        }
    }

    var patience: TimeSpan { paced(2_500) }

    func finish(_ token: UInt64, _ outcome: Operation.Outcome, at address: NodeAddress) {
        guard let i = index(of: token), operations[i].returnedAt == .never else { return }
        if case .response(.failed(.authChanged)) = outcome, operations[i].user != nil {
            return lookAgain(i, at: address)
        }
        var outcome = outcome
        if case .response(.failed(let error)) = outcome { outcome = .failed(error) }
        // These do not say that nothing was done.
        if case .failed(.timedOut) = outcome { outcome = .unknown }
        if case .failed(.stopped) = outcome { outcome = .unknown }
        operations[i].returnedAt = queue.now
        counts.slowest = max(counts.slowest, queue.now.since(operations[i].invokedAt))
        operations[i].outcome = outcome
        if let place = underWay.firstIndex(of: i) { underWay.remove(at: place) }
        say("\(operations[i].brief): \(outcome.brief)")
        trace.add(token)
        if let revision = operations[i].revision {
            trace.add(UInt64(revision.rawValue))
            told[address.region] = max(told[address.region] ?? .zero, revision)
        }
        switch outcome {
        case .unknown, .nothing:
            counts.unknown += 1
            // A change of users has no name: it is asked once.
            if nodes[address]?.isUp == true, !operations[i].changesUsers { counts.unanswered += 1 }
        case .failed: counts.failed += 1
        case .range, .response: counts.answered += 1
        }
        checkCompaction(operations[i], at: address)
        checkUsers(operations[i], at: address)
        let number = operations[i].client
        guard number >= 0, clients[number].current == i else { return }
        clients[number].current = nil
        clients[number].learn(from: operations[i])
        if case .unknown = outcome {
            clients[number].node = anyNode(of: clients[number].region)
        }
        queue.schedule(.clientNext(number), after: pause(around: workload.think))
    }

    /// Whoever is told of a compaction is refused what lies below it, by the node that has told.
    private func checkCompaction(_ operation: Operation, at address: NodeAddress) {
        guard case .request(.compact(let revision)) = operation.call,
            case .response(.compacted) = operation.outcome, let core = nodes[address]?.core,
            core.compactedThrough < revision
        else { return }
        fail(
            Violation(
                "a compaction is known where it was asked for",
                "\(operation.brief): \(address) knows of \(core.compactedThrough)"))
    }

    /// In slow worlds requests come in bursts with long silence between them: as close together as at the
    /// real pace, and as many in all.
    private func pause(around mean: TimeSpan) -> TimeSpan {
        var nanoseconds = 2 * mean.nanoseconds
        if pace > 1 {
            nanoseconds =
                random.chance(1, in: Self.burst)
                ? nanoseconds * Self.burst * Simulation.calm : nanoseconds / pace
        }
        return TimeSpan(nanoseconds: 1_000 + random.below(nanoseconds))
    }

    private static let burst: UInt64 = 20

    func clientTimeout(_ client: Int, _ operation: Int) {
        guard operations[operation].returnedAt == .never else { return }
        let address = NodeAddress(
            region: operations[operation].region, node: operations[operation].node)
        let token = UInt64(operation) + 1
        deliver(.cancel(token: token), to: address)
        // A living node that forgets a request breaks a promise, but not while things go wrong.
        if !faultsAreOn, operations[operation].invokedAt > faultsEndedAt {
            fail(Violation("every request is answered", operations[operation].brief))
        }
        finish(token, .unknown, at: address)
    }

    func stopClients() { for i in clients.indices { clients[i].isStopped = true } }

    var isAnythingUnderWay: Bool { !underWay.isEmpty }
}
