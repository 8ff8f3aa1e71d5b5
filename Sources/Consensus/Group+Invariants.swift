import DequeModule
import Primitives

extension Group {
    func checkInvariants() {
        invariant(keptAfter <= decided, "kept after \(keptAfter), decided \(decided)")
        invariant(truncatedThrough <= decided)
        invariant(decided <= durableThrough)
        invariant(durableThrough <= acceptedThrough)
        invariant(acceptedThrough <= lastSlot, "accepted \(acceptedThrough), last \(lastSlot)")
        invariant(durableWrites <= writes)
        invariant(recordedPromise <= promised)
        switch role {
        case .leading:
            invariant(promised.node == node)
            invariant(acceptedThrough == lastSlot || !leadership.isSettled || leadership.barrier != nil)
            invariant(promiseWrite <= durableWrites, "leads by a promise that is not durable")
            invariant(leadership.pipelineBytes >= 0)
        case .preparing: invariant(promised.node == node)
        case .asking, .follower: break
        }
        if verify { verifyLog() }
    }

    private func verifyLog() {
        var bytes = 0, slot = keptAfter, write: UInt64 = 0
        for cell in log {
            slot = slot.next
            bytes += cell.entry.payload.count
            invariant(cell.ballot <= promised, "slot \(slot): \(cell.ballot) > \(promised)")
            invariant(cell.entry.term <= cell.ballot)
            guard slot > decided, slot <= acceptedThrough else { continue }
            invariant(cell.ballot == promised, "slot \(slot) of the run: \(cell.ballot)")
            invariant(cell.write >= write, "writes out of order at \(slot)")
            write = cell.write
        }
        invariant(bytes == keptBytes, "\(keptBytes) bytes counted, \(bytes) kept")
    }

    /// Rules that a test breaks on purpose, to see that its checker notices.
    enum Sabotage: Sendable {
        case none
        /// S3, C7.
        case outOfOrder
        /// S14.
        case noticeWithoutBallot
        /// S1: terms only.
        case numbersIgnored
        /// S13 d.
        case leaseFromArrival
        /// S13 a.
        case leaseForgotten
        /// S15.
        case pipelinePastConfiguration
    }

    @inline(__always) func sabotaged(_ rule: Sabotage) -> Bool {
        #if DEBUG
            if sabotage == rule { return true }
        #endif
        switch rule {
        case .none: return false
        case .outOfOrder, .numbersIgnored: return Mutation.outOfOrder.isOn
        case .noticeWithoutBallot: return Mutation.noticeWithoutBallot.isOn
        case .leaseFromArrival: return Mutation.leaseFromArrival.isOn
        case .leaseForgotten: return Mutation.restartForgetsLease.isOn && leasePromise.ballot == .zero
        case .pipelinePastConfiguration: return Mutation.pipelinePastConfiguration.isOn
        }
    }
}
