import EtcdAPI
import Primitives

/// Catching up from the store: in bounded steps between which the loop serves others, for the watcher whose turn it is
/// and for others that are at or ahead of it within the same stretch. Turns go round, so a watcher that asks
/// for all of history does not hold up one that is a moment behind. A step is bounded in all that it
/// costs: what is read, how many events are shown, how many watchers are sent to. While others wait, steps are shorter:
/// a page of history is read in several, and sent in several, which is why it is kept (`HistoryPage`).
extension WatchHub {
    var queueIsEmpty: Bool { queueHead == queue.count }

    func scheduleCatchUp() {
        guard !queueIsEmpty else { return pages.removeAll() }
        guard !isCatchUpScheduled else { return }
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
        let outcome = step(for: watcher)
        if outcome == .hasRead {
            putBack(watcher)
        } else if watcher.place == .catchingUp {
            queue.append(watcher)
        } else {
            watcher.isQueued = false
        }
        answerProgressRequests()
        // After a failed read the next tick tries again.
        if outcome != .failed { scheduleCatchUp() }
    }

    private enum Outcome {
        /// It has had its turn.
        case isDone
        /// Its turn goes on: there is more to read, or to be sent.
        case hasRead
        /// The store could not be read now.
        case failed
    }

    private func putBack(_ watcher: Watcher) {
        if queueHead > 0 {
            queueHead -= 1
            queue[queueHead] = watcher
        } else {
            queue.insert(watcher, at: 0)
        }
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

    private func step(for watcher: Watcher) -> Outcome {
        let from = watcher.nextRevision
        let compactRevision = node.compactRevision
        if from < compactRevision {
            cancelCompacted(watcher, compactRevision: compactRevision)
            return .isDone
        }
        if from == compactRevision, from <= emitted {
            return showCompactRevision(to: watcher) ? .isDone : .failed
        }
        guard from <= emitted else {
            advance(from: from, through: emitted, watcher)
            return .isDone
        }
        var page = takePage(with: from)
        let isHurried = steps.isHurried(for: -1)
        do throws(RequestError) {
            if try read(&page, isHurried: isHurried), isHurried, page.bytes <= Self.pageBytesMax {
                keep(page)
                return .hasRead
            }
        } catch {
            if error == .elsewhere { goOnWhenFetched() }
            guard error == .compacted else {
                if page.through >= from { keep(page) }
                return .failed
            }
            cancelCompacted(watcher, compactRevision: node.compactRevision)
            return .isDone
        }
        let through =
            page.isEmpty ? page.through : deliver(&page, from: from, to: watcher, isHurried: isHurried)
        keep(page)
        advance(from: from, through: through, watcher)
        return .isDone
    }

    /// What was read of where `from` is, or a page that begins there.
    private func takePage(with from: Revision) -> HistoryPage {
        for i in pages.indices where pages[i].from <= from && from <= pages[i].through {
            return pages.remove(at: i)
        }
        return HistoryPage(from: from)
    }

    private func keep(_ page: HistoryPage) {
        guard page.bytes <= Self.pageBytesMax else { return }
        if pages.count >= Self.pagesMax { pages.removeLast() }
        pages.insert(page, at: 0)
    }

    /// Those who catch up are in a few places of history, mostly.
    private static let pagesMax = 4
    private static let pageBytesMax = 1 << 20
    /// Of one read while others wait.
    private static let hurriedRows = 32

    /// The rest of a page, or a part of that. False: there was nothing left to read.
    private func read(_ page: inout HistoryPage, isHurried: Bool) throws(RequestError) -> Bool {
        let rows = catchUpRows - page.rowsCount, bytes = limits.catchUpBytes - page.bytes
        guard rows > 0, bytes > 0, page.through < emitted else { return false }
        page.append(
            try node.changesPage(
                after: page.through, through: emitted,
                maxRows: isHurried ? min(rows, Self.hurriedRows) : rows,
                maxBytes: isHurried ? min(bytes, limits.catchUpBytes / 4) : bytes))
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
    /// the stretch ends, which may be before the end of the page.
    private func deliver(
        _ page: inout HistoryPage, from: Revision, to current: Watcher, isHurried: Bool
    ) -> Revision {
        catchUpStepsTotal += 1
        var touched: [Watcher] = []
        var passed = PreviousRows(bytesMax: limits.previousRowsBytes)
        var through = page.through
        var events = 0, rows = 0
        let watchersMax = max(1, limits.catchUpWatchers / (isHurried ? limits.hurriedPart : 1))
        for i in page.firstRow(from: from)..<page.rowsCount {
            let row = page.row(i)
            if events > limits.catchUpEvents, row.modRevision > page.row(i - 1).modRevision {
                through = page.row(i - 1).modRevision
                break
            }
            rows += 1
            var needsPrevious = false
            behind.forEach(watching: row.key) { watcher in
                events += 1
                // One that is further behind than this stretch must not be shown a part of it.
                guard watcher.nextRevision >= from, watcher.accepts(row), !watcher.isLeftOut else {
                    return
                }
                if watcher.hits.isEmpty {
                    guard touched.count < watchersMax || watcher === current else {
                        // Goes on from here when it is its turn.
                        watcher.nextRevision = max(watcher.nextRevision, row.modRevision)
                        watcher.isLeftOut = true
                        leftOut.append(watcher)
                        return
                    }
                    touched.append(watcher)
                }
                if watcher.wantsPrevious { needsPrevious = true }
                watcher.hits.append(Int32(i))
            }
            if needsPrevious, !page.knowsPrevious(i) { page.learnPrevious(previous(of: row, cached: passed), of: i) }
            passed.pass(row, isWanted: needsPrevious)
        }
        adapt(events: events, rows: rows)
        for watcher in touched {
            if watcher.stream.isBlocked {
                if let first = watcher.hits.first { watcher.nextRevision = page.row(Int(first)).modRevision }
                watcher.hits.removeAll()
                move(watcher, to: .parked)
            } else {
                send(to: watcher, &page.batch, revision: emitted)
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
