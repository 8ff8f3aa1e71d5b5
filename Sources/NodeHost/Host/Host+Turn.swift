import EtcdAPI
import EtcdFacade
import Logging
import NIOCore
import Node
import Partitioning
import Primitives
import Storage
import Transport

extension Host {
    // MARK: Inputs

    func enqueue(_ input: NodeInput) {
        inputs.append(input)
        if !isInTurn { scheduleTurn() }
    }

    /// At the end of this tick of the loop: what this tick brings shares one turn.
    private func scheduleTurn() {
        guard !isTurnDue else { return }
        isTurnDue = true
        loop.execute {
            self.isTurnDue = false
            self.turn()
        }
    }

    /// A tick that brings more than this has several turns, so that the log's thread writes the first
    /// while the loop reads what follows. Smaller turns make the median better and the tail worse: the
    /// connections fall into two groups that wait for each other (measured with 1,024 requests in
    /// flight: p50 26 -> 21 ms, p99 34 -> 48 ms at 256).
    private static let turnInputs = 1024

    func turnIfFull() {
        if inputs.count >= Self.turnInputs, !isInTurn { turn() }
    }

    func onDurable() {
        // A turn within the tick may have seen it already.
        if takeDurable(durable.take()) { enqueue(.durable(Ticket(durableTaken))) }
    }

    private func takeDurable(_ ticket: UInt64) -> Bool {
        guard ticket > durableTaken else { return false }
        durableTaken = ticket
        return true
    }

    func onReserve(hasSpace: Bool) {
        logHasSpace = hasSpace
        noticeSpace()
    }

    /// Both must have room: the log its next segment, the store what it holds in memory and its
    /// compactions. A store that meets a full disk ends the node, so clients are stopped before.
    func noticeSpace() {
        let hasSpace = logHasSpace && storeHasSpace && !isOverQuota
        guard hasSpace != acceptsWrites else { return }
        acceptsWrites = hasSpace
        alarms.setOwn(
            hasSpace ? [] : [.noSpace], isDiskFull: !hasSpace && !(logHasSpace && storeHasSpace))
        tellAlarms()
        if hasSpace {
            logger.notice("there is space again: writes are taken")
        } else if isOverQuota {
            logger.error(
                "the store is larger than its quota: writes are refused until there is space",
                metadata: ["quota": "\(configuration.quotaBytes)"])
        } else {
            logger.error("the disk is full: writes are refused until there is space")
        }
    }

    // MARK: The turn

    /// Answers of the store are inputs again, and clients may ask at once for more: a few rounds run in
    /// one go, then the sockets get their turn.
    func turn() {
        guard !isStopped, !end.hasFailed else { return }
        if takeDurable(durable.peek()) { inputs.append(.durable(Ticket(durableTaken))) }
        guard !inputs.isEmpty else { return }
        isInTurn = true
        var rounds = 0
        while !inputs.isEmpty, rounds < 8 {
            rounds += 1
            swap(&inputs, &taken)
            // After the last input was taken (protocol-rules.md S13 b).
            let clock = Clocks.read()
            isStoreBehind = true
            for i in taken.indices {
                // Taken out, not copied: a request is three arrays.
                var input = NodeInput.wake
                swap(&input, &taken[i])
                node.step(input, at: clock, into: &effects)
            }
            node.finishTurn(at: clock, into: &effects)
            epochRound = effects.epoch.round
            noticeServed()
            hasSequencer = effects.hasSequencer
            figures.turns += 1
            figures.inputs += UInt64(taken.count)
            taken.removeAll(keepingCapacity: true)
            do throws(StorageError) {
                try carryOut(at: clock.instant)
            } catch {
                end.fail(HostFailure(error))
                isInTurn = false
                return
            }
            effects.removeAll()
        }
        isInTurn = false
        noticeLeader()
        noticeMoves()
        server.flush()
        transport.flush()
        armWake()
        if !inputs.isEmpty {
            scheduleTurn()
        }
    }

    /// In the order that `NodeEffects` prescribes: what others are told must be in the store and on its
    /// way into the log first.
    private func carryOut(at now: Instant) throws(StorageError) {
        if !effects.store.isEmpty {
            let before = Clocks.instant()
            try store.apply(effects.store)
            figures.commits.note(nanoseconds: Clocks.instant().since(before).nanoseconds)
        }
        isStoreBehind = false
        if !effects.persist.isEmpty { try writeLog() }
        sendToPeers()
        answerClients()
        try readStore()
        for wanted in effects.snapshotsWanted {
            let peer = PeerID(region: configuration.regionID, node: wanted.by.seat)
            try courier.sendSnapshot(of: wanted.group, to: peer, at: now)
        }
        if let floor = effects.floor { try beginCompaction(floor) }
        for event in effects.events { onEvent(event) }
    }

    /// What waits to be written (docs/decisions/0025). After a write that failed nothing is: the rows that
    /// would belong to it are missing.
    func records(of groups: [GroupID]) -> [StoreChange]? {
        if isStoreBehind { return nil }
        var changes: [StoreChange] = []
        node.record(groups, into: &changes)
        return changes
    }

    /// A put that comes alone to a node without peers waits for the disk and nothing else: then this loop
    /// waits itself, which saves it two wakes (docs/performance.md, "a lone put"). With anybody else about
    /// the log's thread does it, and the loop serves him; readers of lists can wait.
    private func writeLog() throws(StorageError) {
        let isLone =
            dialled.addresses.isEmpty && inputs.isEmpty && facade.map { $0.keysRead <= 1 && $0.waiting == 1 } ?? false
        facade?.keysRead = 0
        if isLone, try log.appendNow(effects.persist, ticket: effects.ticket) {
            durableTaken = effects.ticket.rawValue
            inputs.append(.durable(effects.ticket))
        } else {
            log.append(effects.persist, ticket: effects.ticket)
        }
    }

    private func answerClients() {
        if let auth = effects.auth {
            fence = auth.fence
            facade?.onAuthChanged(auth)
        }
        for (token, response) in effects.responses where !takeOwnAnswer(response, token: token) {
            facade?.onResponse(response, token: token)
        }
        for (token, answer) in effects.readIndexes
        where !answerLeaseList(answer, token: token) && !takeLent(answer, token: token) {
            let index = answer.map {
                ReadIndex(revision: $0.revision, compactRevision: $0.compactRevision)
            }
            facade?.onReadIndex(index, token: token)
        }
        if joinChanges() { return }
        if let lost = effects.changesLost { facade?.onChangesLost(through: lost) }
        if let through = effects.changesThrough {
            facade?.onChanges(effects.changes, through: through)
        }
    }

    private func readStore() throws(StorageError) {
        for (number, lease, revision) in effects.leaseReads {
            readLeaseKeys(number, lease, revision, until: Clocks.instant().advanced(by: .seconds(3)))
        }
        for request in effects.reads {
            if isPartial, !request.plan.historic.isEmpty {
                readHistory(request, until: Clocks.instant().advanced(by: .seconds(3)))
                continue
            }
            let found = try store.newest(
                keys: request.plan.keys, ranges: request.plan.ranges, of: request.group,
                hashes: request.range)
            var historic: [ReadAnswer.Historic] = []
            for query in request.plan.historic {
                historic.append(answer(query))
            }
            inputs.append(
                .read(
                    token: request.token,
                    ReadAnswer(applied: found.applied, rows: found.rows, historic: historic)))
        }
        for read in effects.changeReads {
            if isPartial {
                readChanges(read)
                continue
            }
            do throws(RequestError) {
                let page = try store.changes(
                    after: read.after, through: read.through, in: .standard, maxRows: read.maxRows,
                    takesRest: true)
                inputs.append(
                    .changesRead(
                        read.region, after: read.after, changes: page.changes,
                        through: page.through))
            } catch {
                if error == .compacted {
                    readRest(read)
                    continue
                }
                inputs.append(
                    .changesRead(
                        read.region, after: read.after, changes: nil, through: read.after))
            }
        }
    }

    /// What a transaction reads of the past may lie with others.
    private func readHistory(_ request: ReadRequest, until deadline: Instant) {
        var historic: [ReadAnswer.Historic] = []
        for query in request.plan.historic {
            if let refusal = query.refusal {
                historic.append(.failed(refusal))
                continue
            }
            do throws(RequestError) {
                historic.append(.result(try rangeAll(query, at: query.revision, countsAll: true)))
            } catch {
                if error == .elsewhere, Clocks.instant() < deadline {
                    return whenFetched { [weak self] in self?.readHistory(request, until: deadline) }
                }
                historic.append(.failed(error == .elsewhere ? .timedOut : error))
            }
        }
        do throws(RequestError) {
            let found = try reading(request)
            enqueue(
                .read(
                    token: request.token,
                    ReadAnswer(applied: found.applied, rows: found.rows, historic: historic)))
        } catch {
            return
        }
    }

    private func reading(_ request: ReadRequest) throws(RequestError) -> Store.Newest {
        do throws(StorageError) {
            return try store.newest(
                keys: request.plan.keys, ranges: request.plan.ranges, of: request.group,
                hashes: request.range)
        } catch {
            end.fail(HostFailure(error))
            throw .stopped
        }
    }

    /// A link's sender asks again if there is no answer in time.
    private func readChanges(_ read: ChangeRead) {
        do throws(RequestError) {
            let page = try changesAll(
                after: read.after, through: read.through, maxRows: read.maxRows, maxBytes: .max)
            enqueue(.changesRead(read.region, after: read.after, changes: page.changes, through: page.through))
        } catch {
            if error == .elsewhere {
                return whenFetched { [weak self] in
                    guard let self, !isStopped else { return }
                    readChanges(read)
                }
            }
            enqueue(.changesRead(read.region, after: read.after, changes: nil, through: read.after))
        }
    }

    /// History is read here for all partitions at once.
    private func answer(_ query: RangeQuery) -> ReadAnswer.Historic {
        if let refusal = query.refusal { return .failed(refusal) }
        do throws(RequestError) {
            return .result(try store.range(query, at: query.revision, in: .standard))
        } catch {
            return .failed(error)
        }
    }

    // MARK: Waking

    private func armWake() {
        let next = effects.nextWake
        guard next < wakeAt || wakeTask == nil else { return }
        wakeTask?.cancel()
        wakeTask = nil
        wakeAt = next
        guard next != .never else { return }
        let delay = next.since(Clocks.instant()).nanoseconds
        wakeTask = loop.scheduleTask(in: .nanoseconds(Int64(clamping: delay))) {
            self.noticeLateness(due: self.wakeAt)
            self.wakeTask = nil
            self.wakeAt = .never
            self.enqueue(.wake)
        }
    }
}
