import EtcdAPI
import Primitives

/// Catching up from the store: in bounded steps between which the loop serves others, for the watcher whose turn it is
/// and for others that are at or ahead of it within the same stretch. Turns go round, so a watcher that asks
/// for all of history does not hold up one that is a moment behind. A step is bounded in all that it
/// costs: what is read, how many events are shown, how many watchers are sent to.
extension WatchHub {
    var queueIsEmpty: Bool { queueHead == queue.count }

    func scheduleCatchUp() {
        guard !isCatchUpScheduled, !queueIsEmpty else { return }
        isCatchUpScheduled = true
        steps.later { [weak self] in
            guard let self else { return }
            isCatchUpScheduled = false
            catchUp()
        }
    }

    /// The client has read what was waiting.
    func onWritable(_ stream: WatchStream) {
        guard stream.isBlocked, !stream.isClosed else { return }
        stream.isBlocked = false
        for id in stream.watchers.keys.sorted() {
            guard let watcher = stream.watchers[id], watcher.place == .parked else { continue }
            move(watcher, to: .catchingUp)
        }
        scheduleCatchUp()
        answerProgressRequests()
    }

    private func catchUp() {
        // Nowhere to put it: the next tick tries again.
        guard output.hasRoom(for: limits.catchUpBytes) else { return }
        guard let watcher = nextInTurn() else { return scheduleCatchUp() }
        let isToBeContinued = step(for: watcher)
        if watcher.place == .catchingUp {
            queue.append(watcher)
        } else {
            watcher.isQueued = false
        }
        answerProgressRequests()
        // After a failed read the next tick tries again.
        if isToBeContinued { scheduleCatchUp() }
    }

    private static let goneAtOnce = 100

    /// Nil, with more of them in the queue: so many of it had gone that others are to have their turn.
    private func nextInTurn() -> Watcher? {
        var gone = 0
        while queueHead < queue.count {
            gone += 1
            guard gone <= Self.goneAtOnce else { return nil }
            let watcher = queue[queueHead]
            queueHead += 1
            if queueHead > 1024, queueHead * 2 > queue.count {
                queue.removeFirst(queueHead)
                queueHead = 0
            }
            if watcher.place == .catchingUp { return watcher }
            watcher.isQueued = false
        }
        queue.removeAll(keepingCapacity: true)
        queueHead = 0
        return nil
    }

    /// False: the store could not be read now.
    private func step(for watcher: Watcher) -> Bool {
        let from = watcher.nextRevision
        let compactRevision = node.compactRevision
        if from < compactRevision {
            cancelCompacted(watcher, compactRevision: compactRevision)
            return true
        }
        if from == compactRevision, from <= emitted { return showCompactRevision(to: watcher) }
        var through = emitted
        if from <= emitted {
            let changes: [RevisionChanges]
            do throws(RequestError) {
                (changes, through) = try node.changesPage(
                    after: from.previous, through: emitted, maxRows: catchUpRows,
                    maxBytes: limits.catchUpBytes)
            } catch {
                if error == .elsewhere { goOnWhenFetched() }
                guard error == .compacted else { return false }
                cancelCompacted(watcher, compactRevision: node.compactRevision)
                return true
            }
            if !changes.isEmpty { through = deliver(changes, from: from, to: watcher) }
        }
        advance(from: from, through: through, watcher)
        return true
    }

    private func goOnWhenFetched() {
        node.whenFetched { [weak self] in self?.scheduleCatchUp() }
    }

    /// A watch may start at the compact revision itself, and sees what that revision put and is still
    /// there, as in etcd; the list of changes no longer reaches so far.
    private func showCompactRevision(to watcher: Watcher) -> Bool {
        let revision = watcher.nextRevision
        let query = RangeQuery(
            range: watcher.range, minModRevision: revision.rawValue,
            maxModRevision: revision.rawValue)
        do throws(RequestError) {
            let rows = try node.range(query, at: revision).rows.sorted { $0.sub < $1.sub }
            var batch = EventBatch()
            for row in rows where watcher.accepts(row) {
                watcher.hits.append(Int32(batch.rows.count))
                batch.append(row, previous: nil)
            }
            if !watcher.hits.isEmpty { send(to: watcher, &batch, revision: emitted) }
        } catch {
            if error == .elsewhere { goOnWhenFetched() }
            guard error == .compacted else { return false }
            cancelCompacted(watcher, compactRevision: node.compactRevision)
            return true
        }
        pass(watcher, from: revision, through: revision)
        return true
    }

    /// The next step's rows, by what this one's have cost.
    private func adapt(events: Int, rows: Int) {
        if events > limits.catchUpEvents {
            catchUpRows = max(1, catchUpRows / 2)
        } else if rows >= catchUpRows, events < limits.catchUpEvents / 2 {
            catchUpRows = min(limits.catchUpRowsMax, catchUpRows * 2)
        }
    }

    /// To all who have not seen this stretch, or so many of them: `current` and others. The result is where
    /// the stretch ends, which may be before the end of `changes`.
    private func deliver(
        _ changes: [RevisionChanges], from: Revision, to current: Watcher
    ) -> Revision {
        var batch = EventBatch()
        var touched: [Watcher] = []
        var passed = PreviousRows(bytesMax: limits.previousRowsBytes)
        var through = from.previous
        var events = 0, rows = 0
        for change in changes {
            for row in change.rows {
                rows += 1
                var needsPrevious = false
                var isMatched = false
                let index = Int32(batch.rows.count)
                behind.forEach(watching: row.key) { watcher in
                    events += 1
                    // One that is further behind than this stretch must not be shown a part of it.
                    guard watcher.nextRevision >= from, watcher.accepts(row), !watcher.isLeftOut else {
                        return
                    }
                    if watcher.hits.isEmpty {
                        guard touched.count < limits.catchUpWatchers || watcher === current else {
                            // Goes on from here when it is its turn.
                            watcher.nextRevision = max(watcher.nextRevision, row.modRevision)
                            watcher.isLeftOut = true
                            leftOut.append(watcher)
                            return
                        }
                        touched.append(watcher)
                    }
                    isMatched = true
                    if watcher.wantsPrevious { needsPrevious = true }
                    watcher.hits.append(index)
                }
                if isMatched {
                    let before = needsPrevious ? previous(of: row, cached: passed) : nil
                    batch.append(row, previous: before)
                }
                passed.pass(row, isWanted: needsPrevious)
            }
            through = change.revision
            if events > limits.catchUpEvents { break }
        }
        adapt(events: events, rows: rows)
        for watcher in touched {
            if watcher.stream.isBlocked {
                if let first = watcher.hits.first {
                    watcher.nextRevision = batch.rows[Int(first)].modRevision
                }
                watcher.hits.removeAll()
                move(watcher, to: .parked)
            } else {
                send(to: watcher, &batch, revision: emitted)
            }
        }
        return through
    }

    /// Whoever was inside the stretch has now seen it all; at its end stands the live stream.
    private func advance(from: Revision, through: Revision, _ current: Watcher) {
        pass(current, from: from, through: through)
        for i in queueHead..<queue.count where !queue[i].isLeftOut {
            pass(queue[i], from: from, through: through)
        }
        for watcher in leftOut { watcher.isLeftOut = false }
        leftOut.removeAll(keepingCapacity: true)
    }

    private func pass(_ watcher: Watcher, from: Revision, through: Revision) {
        guard watcher.place == .catchingUp, watcher.nextRevision >= from else { return }
        watcher.nextRevision = max(watcher.nextRevision, through.next)
        if watcher.stream.isBlocked {
            // More to read but nobody who takes it.
            move(watcher, to: watcher.nextRevision > emitted ? .synced : .parked)
        } else if watcher.nextRevision > emitted {
            move(watcher, to: .synced)
        }
    }
}
