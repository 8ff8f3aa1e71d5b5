import Primitives

/// What goes wrong in a run. Each seed takes a random subset ("swarm"): a run in which everything goes
/// wrong at once finds less than many in which a few things do.
struct FaultPlan {
    enum Kind: String, CaseIterable {
        /// A process is killed; its peers see the connection reset.
        case crash
        /// A machine is gone without a word, and comes back.
        case machineLoss
        /// All nodes of a region at once.
        case powerLoss
        /// A process stands still for a while and goes on as if nothing had happened.
        case freeze
        case partition
        case oneWayPartition
        case connectionReset
        /// One group's messages to and from one node are lost: leaderships part company.
        case groupCut
        /// A node takes a group's leadership from a healthy leader.
        case takeover
        case loss
        case duplication
        case reordering
        case stalls
        case slowDisk
        case clockSkew
        case clockJump
        case regionCut
        case slowNode
        case compaction
    }

    private(set) var kinds: Set<Kind> = []
    /// Mean time between two faults of the kinds that happen at moments.
    let period: TimeSpan
    let network: NetworkFaults
    let clockSkewMax: TimeSpan
    let driftPPMMax: Int64

    init(random: inout SplitMix, only: [String]? = nil) {
        if let only {
            kinds = Set(only.compactMap(Kind.init))
        } else {
            // A tenth of the runs are healthy.
            let chance = random.below(10)
            for kind in Kind.allCases where random.chance(chance, in: 18) { kinds.insert(kind) }
        }
        period = .milliseconds(40 + random.below(900))
        var network = NetworkFaults()
        let scale = 1 + random.below(20)
        if kinds.contains(.loss) { network.lossPerMille = scale }
        if kinds.contains(.duplication) { network.duplicationPerMille = scale }
        if kinds.contains(.reordering) { network.reorderingPerMille = 2 * scale }
        if kinds.contains(.stalls) { network.stallPerMille = scale }
        self.network = network
        clockSkewMax = kinds.contains(.clockSkew) ? .milliseconds(200) : .milliseconds(2)
        driftPPMMax = kinds.contains(.clockSkew) ? 2_000 : 50
    }

    func has(_ kind: Kind) -> Bool { kinds.contains(kind) }

    /// Those that happen at moments, in a fixed order.
    var momentary: [Kind] {
        Kind.allCases.filter { kind in
            switch kind {
            case .crash, .machineLoss, .powerLoss, .freeze, .partition, .oneWayPartition,
                .connectionReset, .groupCut, .takeover, .clockJump, .regionCut:
                kinds.contains(kind)
            case .loss, .duplication, .reordering, .stalls, .slowDisk, .clockSkew, .slowNode,
                .compaction:
                false
            }
        }
    }

    var description: String {
        kinds.isEmpty ? "none" : kinds.map(\.rawValue).sorted().joined(separator: ",")
    }
}
