import Consensus
import GeoReplication
import Node
import Partitioning
import Primitives

extension NodeLimits {
    /// All periods and time-outs `pace` times longer: a world in which less happens by the clock. Sizes and
    /// counts stay; so does what the network and the disks take.
    init(pace: UInt64) {
        self.init()
        // Within the seconds of a run.
        memberAwayAfter = .milliseconds(400)
        if pace == 1 { return }
        func stretch(_ span: inout TimeSpan) { span = span * pace }
        stretch(&memberAwayAfter)
        stretch(&rerouteAfter)
        stretch(&timelinePeriod)
        stretch(&detector.heartbeat)
        stretch(&detector.silence)
        stretch(&consensus.keptPeriod)
        stretch(&consensus.electionPeriod)
        stretch(&consensus.stagger)
        stretch(&consensus.retryPeriod)
        stretch(&consensus.probePeriod)
        stretch(&consensus.noticeDelay)
        stretch(&consensus.snapshotPeriod)
        stretch(&lease.duration)
        stretch(&lease.renewal)
        stretch(&lease.idleRenewal)
        stretch(&lease.drift)
        stretch(&sequencer.recoverAfter)
        stretch(&sequencer.openingPeriod)
        stretch(&partition.retryAfter)
        stretch(&partition.latchMax)
        stretch(&partition.contactMax)
        stretch(&coordinator.repeatAfter)
        stretch(&coordinator.backOff)
        stretch(&coordinator.backOffMax)
        stretch(&link.idleInterval)
        stretch(&link.resendInterval)
        stretch(&link.retryInterval)
        stretch(&link.clockAheadMax)
    }
}
