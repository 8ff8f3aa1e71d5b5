import Consensus
import DequeModule
import Partitioning
package import Primitives

// Reads: at which revision may this node serve them (protocol.md "Reads")?
extension Node {
    mutating func onReadIndex(
        _ linearizable: Bool, token: UInt64, deadline: Instant, into effects: inout NodeEffects
    ) {
        guard linearizable else {
            if localFrontier > .zero {
                effects.readIndexes.append(
                    (
                        token,
                        .success(
                            ReadPoint(revision: localFrontier, compactRevision: compactRevision))
                    ))
            } else {
                // Nothing was heard yet: a node that has just started knows no revision to serve.
                readsWaiting.append(
                    WaitingRead(revision: .initial, authVersion: 0, token: token, deadline: deadline))
            }
            return
        }
        guard readsWanted.count < configuration.limits.requestsMax else {
            effects.readIndexes.append((token, .failure(.tooManyRequests)))
            return
        }
        if Mutation.sharedQuestion.isOn, let last = readsAsked.indices.last {
            readsAsked[last].reads.append((token, deadline))
            return
        }
        readsWanted.append((token, deadline))
    }

    /// Where a read that has just arrived may be served at once, without a turn: this node's own sequencer
    /// would answer the question now (S13), and its replicas show that frontier. Nil: it has to ask.
    /// `now` is read after the read arrived. Changes nothing but when the lease is renewed next.
    package mutating func readPoint(linearizable: Bool, at now: Instant) -> ReadPoint? {
        guard localFrontier > .zero else { return nil }
        guard linearizable else {
            return ReadPoint(revision: localFrontier, compactRevision: compactRevision)
        }
        guard let answer = sequencer?.readsNow, answer.epoch == epoch else { return nil }
        useLease()
        guard answer.frontier <= localFrontier, answer.authVersion <= directory.auth.version,
            groups[0].checkLease(at: now)
        else { return nil }
        return ReadPoint(
            revision: localFrontier, compactRevision: max(compactRevision, answer.compactRevision))
    }

    /// The next turn arms the renewal that this may have made due sooner.
    mutating func useLease() {
        guard groups[0].useLease() else { return }
        groupWakeIsOld[0] = true
        isQuiet = false
    }

    /// One question for all reads that have arrived since the last one: a read shares only a question
    /// that is sent after it (S13 e).
    mutating func askReads(into effects: inout NodeEffects) {
        let isDue = now >= askReadsAt
        if readsWanted.isEmpty && readsAsked.isEmpty { askReadsAt = .never }
        if readsWanted.isEmpty && !(isDue && !readsAsked.isEmpty) { return }
        guard epoch > .zero else {
            // The first that is heard of sets the time.
            askReadsAt = .never
            return
        }
        if !readsWanted.isEmpty {
            readsAsked.append((nextQuestion, readsWanted))
            readsWanted.removeAll()
            nextQuestion += 1
        }
        guard let last = readsAsked.last else {
            askReadsAt = .never
            return
        }
        askReadsAt = now.advanced(by: .milliseconds(40))
        region.send(.readQuestion(epoch, question: last.question), to: epoch.node)
        drain(into: &effects)
    }

    var readsPending: Bool { !readsWanted.isEmpty || !readsAsked.isEmpty || !readsWaiting.isEmpty }

    mutating func expireReads(into effects: inout NodeEffects) {
        let now = now
        for (token, deadline) in readsWanted where deadline <= now {
            finishRead(token, .failure(.timedOut), into: &effects)
        }
        readsWanted.removeAll { $0.deadline <= now }
        for i in readsAsked.indices {
            for (token, deadline) in readsAsked[i].reads where deadline <= now {
                finishRead(token, .failure(.timedOut), into: &effects)
            }
            readsAsked[i].reads.removeAll { $0.deadline <= now }
        }
        readsAsked.removeAll { $0.reads.isEmpty }
        for read in readsWaiting where read.deadline <= now {
            finishRead(read.token, .failure(.timedOut), into: &effects)
        }
        readsWaiting.removeAll { $0.deadline <= now }
    }

    private mutating func finishRead(
        _ token: UInt64, _ answer: Result<ReadPoint, RequestError>, into effects: inout NodeEffects
    ) {
        if !lookBacks.isEmpty, let back = lookBacks.removeValue(forKey: token) {
            onLookBack(back, answer)
        } else {
            effects.readIndexes.append((token, answer))
        }
    }

    mutating func onReadAnswer(
        _ question: UInt64, _ frontier: Revision, _ compact: Revision, authVersion: UInt64,
        into effects: inout NodeEffects
    ) {
        compactRevision = max(compactRevision, compact)
        while let first = readsAsked.first, first.question <= question {
            readsAsked.removeFirst()
            for (token, deadline) in first.reads {
                readsWaiting.append(
                    WaitingRead(
                        revision: frontier, authVersion: authVersion, token: token,
                        deadline: deadline))
            }
        }
        if readsAsked.isEmpty { askReadsAt = .never }
        answerReads(into: &effects)
    }

    /// Served at the local frontier, which is at least the answered one by then, and checked with
    /// permissions that are.
    mutating func answerReads(into effects: inout NodeEffects) {
        guard !readsWaiting.isEmpty else { return }
        let point = ReadPoint(revision: localFrontier, compactRevision: compactRevision)
        let authVersion = directory.auth.version
        func isDue(_ read: WaitingRead) -> Bool {
            read.revision <= point.revision
                && (read.authVersion <= authVersion || Mutation.readsBeforeUsers.isOn)
        }
        for read in readsWaiting where isDue(read) {
            finishRead(read.token, .success(point), into: &effects)
        }
        readsWaiting.removeAll(where: isDue)
    }

    mutating func onRead(_ token: UInt64, _ answer: ReadAnswer, into effects: inout NodeEffects) {
        if Partition.partition(ofToken: token) == .directory {
            finishRebuild(token, answer, into: &effects)
            return
        }
        let i = Int(Partition.partition(ofToken: token).rawValue) - 1
        guard i >= 0, i < partitions.count else { return }
        partitionDirty[i] = true
        partitions[i].onRead(token: token, answer, at: now, into: &region)
    }
}
