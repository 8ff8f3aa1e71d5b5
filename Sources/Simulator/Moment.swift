import Consensus
import Node
import Partitioning
import Primitives

/// Steps of the protocol at which a node may die: what it is about to tell the others, or has just told.
enum Moment: CaseIterable {
    case promise, accept, accepted
    case allocate, allocateTransaction, allocated, allocatedTransaction, report, register, registered
    case confirm, confirmed, readAnswer, timeline
    case lock, locked, prepare, prepared, refused, release, never, abandon, abort, recover
    case forward, forwarded

    /// Nil: no step of its own.
    init?(_ message: PeerMessage) {
        switch message {
        case .heartbeat, .hears, .follows: return nil
        case .group(_, .promise): self = .promise
        case .group(_, .accept(let accept)) where !accept.entries.isEmpty: self = .accept
        case .group(_, .accepted): self = .accepted
        case .group: return nil
        case .region(let message):
            switch message {
            case .allocate: self = .allocate
            case .allocateTransaction: self = .allocateTransaction
            case .allocated: self = .allocated
            case .allocatedTransaction: self = .allocatedTransaction
            case .report: self = .report
            case .register: self = .register
            case .registered: self = .registered
            case .confirm, .confirmTransaction: self = .confirm
            case .confirmed, .confirmedTransaction: self = .confirmed
            case .readAnswer: self = .readAnswer
            case .timeline: self = .timeline
            case .lock: self = .lock
            case .locked: self = .locked
            case .prepare: self = .prepare
            case .prepared: self = .prepared
            case .refused, .died, .overtaken, .executedBefore: self = .refused
            case .release: self = .release
            case .never: self = .never
            case .abandon: self = .abandon
            case .abort: self = .abort
            case .recover: self = .recover
            case .forward: self = .forward
            case .forwarded, .executed: self = .forwarded
            case .readQuestion, .opening, .transactionVoid, .transactionFenced, .fenced, .redirect,
                .cancelForward:
                return nil
            }
        }
    }
}
