import Consensus
import GeoReplication
import Node
import Partitioning
import Primitives

/// A turn of a node's core loop, and what the host does with its effects, in the order in which it must.
extension World {
    func takeTurn(_ address: NodeAddress) {
        guard let node = nodes[address], node.core != nil else { return }
        node.isTurnScheduled = false
        if node.isFrozen { return }
        var effects = node.effects
        node.effects = NodeEffects()
        let inputs = node.inbox
        node.inbox = []
        // The clock is read after the last input was taken (protocol-rules.md S13 b).
        let reading = node.clock.reading(at: queue.now)
        // In place: copying it would cost more than stepping it.
        for input in inputs { node.core?.step(input, at: reading, into: &effects) }
        node.core?.finishTurn(at: reading, into: &effects)
        counts.turns += 1
        let life = node.life
        carryOut(&effects, at: address)
        guard node.life == life else { return }
        effects.removeAll()
        node.effects = effects
    }

    private func carryOut(_ effects: inout NodeEffects, at address: NodeAddress) {
        if crashes(address, at: 0) { return }
        for change in effects.store { apply(change, at: address) }
        if crashes(address, at: 1) { return }
        if !effects.persist.isEmpty {
            if samples != nil { takeSamples(of: effects.persist) }
            checkTruncation(effects.persist, at: address)
            nodes[address]?.log.append(effects.persist, ticket: effects.ticket)
            beginSync(address)
        }
        if crashes(address, at: 2) { return }
        if crashes(address, sending: effects.sends, isSent: false) { return }
        send(effects.sends, from: address)
        if crashes(address, sending: effects.sends, isSent: true) { return }
        for (region, node, message) in effects.linkSends {
            let to = NodeAddress(region: region, node: node)
            say("\(address) to \(to): \(message.brief)")
            transmit(.link(coded(message)), from: address, to: to)
        }
        if crashes(address, at: 3) { return }
        if let users = effects.auth { learn(users, at: address) }
        emit(effects, at: address)
        for (token, response) in effects.responses {
            if token & Self.splits != 0 { continue }
            if token & (Self.admissions | Self.changes) != 0 {
                onMembersAnswer(response, token: token, at: address)
            } else {
                finish(token, .response(response), at: address)
            }
        }
        for (token, answer) in effects.readIndexes {
            if token & Self.looks != 0 {
                onLook(token & ~Self.looks, answer, at: address)
            } else {
                serve(token, answer, at: address)
            }
        }
        for read in effects.reads { schedule(read, at: address) }
        for read in effects.changeReads { answer(read, at: address) }
        for (number, lease, revision) in effects.leaseReads {
            answerLeaseKeys(number, lease, revision, tries: 0, at: address)
        }
        for (group, by) in effects.snapshotsWanted { sendSnapshot(of: group, from: address, to: by) }
        if let floor = effects.floor {
            recordPositions(address)
            nodes[address]?.store.compact(floor: floor)
        }
        for event in effects.events { note(event, at: address) }
        setWake(effects.nextWake, at: address)
    }

    /// What is cut off the log is on the disk in the store, or a power failure would lose it.
    private func checkTruncation(_ records: [LogRecord], at address: NodeAddress) {
        guard let node = nodes[address] else { return }
        for case .truncate(let group, let slot) in records {
            let flushed = node.flushed.applied[group] ?? .zero
            // Of a replica that the region does without nothing is needed any more.
            if slot > flushed, !node.flushed.isDropped(group) {
                fail(
                    Violation(
                        "no log is truncated above the flushed slot",
                        "\(address), \(group): through \(slot), flushed \(flushed)"))
            }
        }
    }

    private func takeSamples(of records: [LogRecord]) {
        for record in records {
            var writer = ByteWriter()
            writer.logRecord(record)
            sample(.logRecord, Bytes(writer.bytes))
            if case .accept(_, _, _, let entry) = record, entry.kind == .normal {
                sample(.entry, entry.payload)
            }
        }
    }

    // MARK: The store

    private func apply(_ change: StoreChange, at address: NodeAddress) {
        if case .putRecord(_, let key, _) = change, key.starts(with: PartitionState.conflictPrefix) {
            counts.conflicts += 1
        }
        if case .putRecord(let group, let key, let value) = change,
            let place = PartitionState.Place.read(key: key, value: value)
        {
            placed(group, place, at: address)
        }
        guard let regionMap = maps[address.region],
            let (group, slot) = nodes[address]?.apply(change, map: regionMap)
        else { return }
        let key = DigestKey(region: address.region, group: group, slot: slot)
        // What a child that came before has written is not in its chain: not until a snapshot brings it.
        if nodes[address]?.core?.wasOverlaid(group.partition) == true { nodes[address]?.undigested.insert(group) }
        if nodes[address]?.undigested.contains(group) == true { return }
        let value = nodes[address]?.digests[group] ?? 0
        if let known = digests[key] {
            if known.value != value {
                fail(
                    Violation(
                        "agreement",
                        "\(group) slot \(slot): \(address) did something else than \(known.from)"))
            }
        } else {
            digests[key] = Digest(value: value, from: address)
        }
    }

    private func schedule(_ read: ReadRequest, at address: NodeAddress) {
        guard let life = nodes[address]?.life else { return }
        if random.chance(1, in: 2) {
            // The oldest answer that is possible.
            let input = NodeInput.read(token: read.token, evaluate(read, at: address))
            queue.schedule(
                .input(address, life: life, input), after: .microseconds(random.below(500)))
        } else {
            queue.schedule(
                .read(address, life: life, read), after: .microseconds(random.below(500)))
        }
    }

    func answer(_ read: ReadRequest, at address: NodeAddress) {
        deliver(.read(token: read.token, evaluate(read, at: address)), to: address)
    }

    private func evaluate(_ read: ReadRequest, at address: NodeAddress) -> ReadAnswer {
        guard let store = nodes[address]?.store else { return ReadAnswer(applied: .zero, rows: []) }
        var keys = read.plan.keys
        for range in read.plan.ranges { keys.append(contentsOf: store.rows(in: range)) }
        let wanted = Set(keys).filter { read.range.contains(KeyHash.hash($0)) }.sorted()
        let historic = read.plan.historic.map { query in
            if let refusal = query.refusal { return ReadAnswer.Historic.failed(refusal) }
            do throws(RequestError) {
                guard let found = try range(query, at: query.revision, on: address) else {
                    return ReadAnswer.Historic.failed(.timedOut)
                }
                return ReadAnswer.Historic.result(found)
            } catch {
                return ReadAnswer.Historic.failed(error)
            }
        }
        return ReadAnswer(
            applied: store.applied[read.group] ?? .zero, rows: wanted.compactMap(store.newest),
            historic: historic)
    }

    func answer(_ read: ChangeRead, at address: NodeAddress) {
        guard let node = nodes[address] else { return }
        if isPartial(address) {
            let found: [RevisionChanges]?
            do throws(RequestError) {
                found = try changes(after: read.after, through: read.through, on: address)
                if found == nil { return askAgain(.changes(read), at: address) }
            } catch {
                found = nil
            }
            let input = NodeInput.changesRead(
                read.region, after: read.after, changes: found, through: read.through)
            queue.schedule(
                .input(address, life: node.life, input), after: .microseconds(random.below(1_000)))
            return
        }
        if read.after < node.store.floor { counts.rests += 1 }
        let page = node.store.rest(after: read.after, through: read.through, maxRows: read.maxRows)
        let input = NodeInput.changesRead(
            read.region, after: read.after, changes: page.changes, through: page.through)
        queue.schedule(
            .input(address, life: node.life, input), after: .microseconds(random.below(1_000)))
    }

    private func recordPositions(_ address: NodeAddress) {
        guard let group = nodes[address]?.recordPositions() else { return }
        fail(Violation("what is recorded is what is applied", "\(address), \(group)"))
    }

    func scheduleFlush(_ address: NodeAddress) {
        guard let life = nodes[address]?.life else { return }
        queue.schedule(
            .flush(address, life: life), after: paced(50 + random.below(1_500)))
    }

    func beginFlush(_ address: NodeAddress) {
        guard let node = nodes[address], node.isUp, !node.isFrozen else { return scheduleFlush(address) }
        // Every other flush is the database's own, which asks nobody.
        node.flushes += 1
        if node.flushes % 2 == 0 { recordPositions(address) }
        queue.schedule(
            .flushed(address, life: node.life, node.store.flushed, node.recordedDigests),
            after: paced(1 + random.below(60)))
    }

    func endFlush(_ address: NodeAddress, _ store: SimulatedStore, _ digests: [GroupID: UInt64]) {
        // A snapshot that came meanwhile was flushed with all else: this is older.
        guard store.installs == nodes[address]?.store.installs else { return scheduleFlush(address) }
        nodes[address]?.flushed = store
        nodes[address]?.flushedDigests = digests
        let slots = store.applied.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
        deliver(.flushed(slots), to: address)
        scheduleFlush(address)
    }

    private func sendSnapshot(of group: GroupID, from address: NodeAddress, to node: NodeID) {
        guard let source = nodes[address] else { return }
        let to = NodeAddress(region: address.region, node: node.seat)
        recordPositions(address)
        // The directory has records, no rows.
        var snapshot = source.store.snapshot(
            of: group, hashes: source.core?.range(of: group.partition) ?? HashRange(first: 0, last: 0),
            digest: source.digests[group] ?? 0)
        if group.partition == .directory { snapshot = snapshot.withoutRows }
        say("\(address) sends a snapshot of \(group) to \(node)")
        counts.snapshots += 1
        transmit(.snapshot(snapshot), from: address, to: to)
    }

    func install(_ snapshot: SimulatedStore.Snapshot, at address: NodeAddress, from sender: NodeAddress) {
        guard let node = nodes[address], node.isUp else { return }
        // A late one is of no use.
        guard snapshot.applied > node.store.applied[snapshot.group] ?? .zero,
            node.core?.mayInstall(snapshot.group, snapshot.hashes, applied: snapshot.applied) == true
        else { return transmit(.snapshotRefused(snapshot.group), from: address, to: sender) }
        node.core?.willInstall(snapshot.group, snapshot.hashes)
        node.store.install(snapshot)
        node.store.compact(floor: snapshot.floor)
        node.digests[snapshot.group] = snapshot.digest
        node.undigested.remove(snapshot.group)
        // The host flushes before it says so.
        recordPositions(address)
        node.flushed = node.store
        node.flushedDigests = node.digests
        deliver(
            .snapshotInstalled(snapshot.group, records: node.store.records(of: snapshot.group)),
            to: address)
    }

    // MARK: Messages

    /// One frame per peer and turn.
    private func send(_ sends: [(to: NodeID, message: PeerMessage)], from address: NodeAddress) {
        if sends.isEmpty { return }
        for other in addresses where other.region == address.region && other != address {
            let there = sends.filter { $0.to.seat == other.node && !isCut($0.message, address, other) }
            for to in Set(there.map(\.to)).sorted() {
                let messages = there.filter { $0.to == to }.map(\.message)
                watch(messages, from: address)
                checkServing(in: address.region)
                transmit(
                    .peer(coded(messages), from: nodes[address]?.identity.node ?? .none, to: to),
                    from: address, to: other)
            }
        }
    }

    /// Through the wire's format and back: all that the others get to know is in it. Not every frame, the
    /// format costs more than the protocol.
    private func coded(_ messages: [PeerMessage]) -> [PeerMessage] {
        frames += 1
        guard frames % Self.framesPerCoding == 0 else { return messages }
        var writer = ByteWriter(capacity: 256)
        PeerFrame.encode(
            messages, keyspace: .standard, from: NodeID(1), to: NodeID(2), into: &writer)
        do {
            let decoded = try PeerFrame.decode(Bytes(writer.bytes)).messages
            if decoded != messages { fail(Violation("messages survive their encoding", "\(messages)")) }
            trace.add(Bytes(writer.bytes))
            sample(.peerFrame, Bytes(writer.bytes))
            return decoded
        } catch {
            fail(Violation("messages survive their encoding", error.what))
            return messages
        }
    }

    private func coded(_ message: LinkMessage) -> LinkMessage {
        sample(.linkMessage, message.encoded())
        do {
            let decoded = try LinkMessage(decoding: message.encoded())
            if decoded != message { fail(Violation("messages survive their encoding", "\(message)")) }
            return decoded
        } catch {
            fail(Violation("messages survive their encoding", error.what))
            return message
        }
    }

    private static let framesPerCoding = 16

    private func isCut(_ message: PeerMessage, _ a: NodeAddress, _ b: NodeAddress) -> Bool {
        guard !groupCuts.isEmpty, case .group(let partition, _) = message else { return false }
        return groupCuts.contains { $0.partition == partition && ($0.node == a || $0.node == b) }
    }

    /// Every published frontier, over all sequencers, never goes back.
    private func watch(_ messages: [PeerMessage], from address: NodeAddress) {
        for case .region(.timeline(let timeline)) in messages {
            let region = address.region
            var published = published[region] ?? [:]
            published[timeline.epoch] = max(published[timeline.epoch] ?? .zero, timeline.frontier)
            newestEpoch[region] = max(newestEpoch[region] ?? .zero, timeline.epoch)
            for (epoch, frontier) in published {
                if epoch < timeline.epoch ? frontier > timeline.frontier : false {
                    fail(
                        Violation(
                            "the frontier never goes back",
                            "\(address), epoch \(timeline.epoch): \(timeline.frontier) after \(frontier) of \(epoch)"))
                }
            }
            self.published[region] = published
        }
    }

    private func transmit(_ payload: Packet.Payload, from: NodeAddress, to: NodeAddress) {
        let connection = network[Pair(from, to)]
        guard connection.isUp else { return }
        let (first, second) = network.arrivals(from: from, to: to, at: queue.now)
        guard let first else { return }
        let packet = Packet(
            from: from, to: to, generation: connection.generation, payload: payload)
        queue.schedule(.packet(packet), at: first)
        if let second { queue.schedule(.packet(packet), at: second) }
    }

    // MARK: Answers

    private func emit(_ effects: NodeEffects, at address: NodeAddress) {
        let region = address.region
        let due = max(effects.changesThrough ?? .zero, effects.changesLost ?? .zero)
        if let node = nodes[address], due > .zero,
            isPartial(address) || node.streamDue > node.stream?.through ?? .zero
        {
            node.streamDue = max(node.streamDue, due)
            return bringStream(address)
        }
        if let lost = effects.changesLost {
            // Watchers catch up from the store; what they find there is checked like the rest.
            guard let node = nodes[address], var stream = node.stream else { return }
            if stream.through < node.store.floor {
                // These watchers are cancelled: what they missed is compacted.
                streams.append(stream)
                stream = WatchStream(address: address, life: node.life)
                stream.begin(after: node.store.floor)
            }
            if let page = try? node.store.changes(
                after: stream.through, through: lost, maxRows: .max)
            {
                check { () throws(Violation) in try stream.add(page.changes, through: lost) }
                for change in page.changes { learn(change, region) }
            }
            node.stream = stream
            reached(lost, region)
        }
        for change in effects.changes {
            trace.add(UInt64(change.revision.rawValue))
            learn(change, region)
        }
        guard let through = effects.changesThrough else {
            if !effects.changes.isEmpty {
                fail(Violation("watches are ordered", "\(address): changes without a frontier"))
            }
            return
        }
        check { () throws(Violation) in
            try nodes[address]?.stream?.add(effects.changes, through: through)
        }
        reached(through, region)
        checkUsers(shown: through, at: address)
    }

    func learn(_ change: RevisionChanges, _ region: RegionID) {
        check { () throws(Violation) in try timelines[region]?.add(change, at: queue.now) }
        for row in change.rows {
            if let known = latest[region]?[row.key], known.modRevision >= row.modRevision { continue }
            latest[region, default: [:]][row.key] = row
        }
    }

    func reached(_ revision: Revision, _ region: RegionID) {
        timelines[region]?.reached(revision)
        told[region] = max(told[region] ?? .zero, revision)
    }

    func check(_ body: () throws(Violation) -> Void) {
        do throws(Violation) { try body() } catch { fail(error) }
    }

    func serve(
        _ token: UInt64, _ answer: Result<ReadPoint, RequestError>, at address: NodeAddress
    ) {
        guard let i = index(of: token), case .read(let query) = operations[i].call else { return }
        switch answer {
        case .failure(let error): finish(token, .failed(error), at: address)
        case .success(let point):
            guard operations[i].returnedAt == .never, admits(i, at: address) else { return }
            if query.revision > point.revision {
                return finish(token, .failed(.futureRevision), at: address)
            }
            if query.revision > .zero, query.revision < point.compactRevision {
                return finish(token, .failed(.compacted), at: address)
            }
            let at = query.revision > .zero ? query.revision : point.revision
            do throws(RequestError) {
                guard let result = try range(query, at: at, on: address) else {
                    let isLate = queue.now >= operations[i].invokedAt.advanced(by: patience)
                    return isLate
                        ? finish(token, .failed(.timedOut), at: address)
                        : askAgain(.serve(token: token, point), at: address)
                }
                finish(token, .range(result, revision: point.revision), at: address)
            } catch {
                // Overtaken by a compaction while it waited for others: of the newest there is always an answer.
                if error == .compacted, query.revision == .zero, isPartial(address), let node = nodes[address] {
                    let deadline = node.clock.instant(at: operations[i].invokedAt.advanced(by: patience))
                    return deliver(
                        .readIndex(linearizable: !query.serializable, token: token, deadline: deadline),
                        to: address)
                }
                finish(token, .failed(error), at: address)
            }
        }
    }

    // MARK: Time and news

    private func setWake(_ instant: Instant, at address: NodeAddress) {
        guard let node = nodes[address], instant != .never else { return }
        let due = max(node.clock.time(of: instant), queue.now)
        guard due < node.wakeDue else { return }
        nodes[address]?.wakeDue = due
        queue.schedule(.wake(address, life: node.life), at: due)
    }

    private func note(_ event: NodeEvent, at address: NodeAddress) {
        say("\(address) \(event)")
        switch event {
        case .becameLeader: counts.leaderships += 1
        case .consensus(_, .stoodDown): counts.stoodDown += 1
        case .sequencerOpened: counts.epochs += 1
        case .revisionVoid: counts.voids += 1
        case .answerRebuilt: counts.rebuilt += 1
        case .configured(let group, let configuration):
            note(configuration, of: group, at: address)
            leaveIfRemoved(address)
        case .gone, .membersChanged: leaveIfRemoved(address)
        case .consensus, .lostLeadership, .sequencerClosed, .suspected, .trusted,
            .snapshotInstalled, .dropped, .link, .ignored,
            .splitIntended, .divided, .splitPublished:
            break
        }
    }
}

extension SimulatedStore.Snapshot {
    var withoutRows: Self {
        .init(
            group: group, applied: applied, hashes: hashes, rows: [], records: records, floor: floor,
            digest: digest)
    }
}

extension LinkMessage {
    var brief: String {
        switch self {
        case .batch(let batch, _, _):
            "batch of \(batch.origin) (\(batch.from), \(batch.through)] \(batch.changes.brief)"
        case .hello, .acknowledge, .idle, .resume: "\(self)"
        }
    }
}
