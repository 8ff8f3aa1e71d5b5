import Primitives

/// What goes wrong in a run. Each seed takes a random subset ("swarm"): a run in which everything goes
/// wrong at once finds less than many in which a few things do. Everything is drawn before the run, each
/// fault with luck of its own: one that is left out (`Simulation.Options.keptFaults`) changes no other.
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
        /// A leader whose proposals reach nobody is replaced, its successor as well, and comes back.
        case duel
        /// A voter restarts within the lease that it has promised, and is asked for its vote at once.
        case restartedVoter
        /// A sequencer whose voters' answers are late is cut off and replaced at once.
        case lateAnswers
        /// A leader hands over as planned: nothing may be lost, and nobody should notice.
        case handOver
        /// Only two nodes lose sight of each other.
        case linkCut
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
        /// A node dies with its disk and comes back empty, while the others can do without it.
        case wipe
        /// An operator adds, promotes or removes a member.
        case change
        /// A partition is cut in two: nobody should notice.
        case split
        /// An operator says who shall vote where, or lead.
        case place
        /// For a while the syncs of a machine, or of all machines of a region, take as long as an election.
        case busyDisk
        /// A busy node hands over one of the partitions that it leads.
        case balance
        /// An operator says whether everybody holds everything.
        case spread
        /// The last region is new: the others have never heard of it, and have compacted their history.
        case newRegion

        /// Happens at moments; the others hold for the whole run.
        var isMomentary: Bool {
            switch self {
            case .crash, .machineLoss, .powerLoss, .freeze, .partition, .oneWayPartition,
                .connectionReset, .groupCut, .takeover, .duel, .restartedVoter, .lateAnswers,
                .handOver, .linkCut, .clockJump, .regionCut, .wipe, .change, .split, .place,
                .busyDisk, .balance, .spread:
                true
            case .loss, .duplication, .reordering, .stalls, .slowDisk, .clockSkew, .slowNode,
                .compaction, .newRegion:
                false
            }
        }

        /// How long one may stop something, at pace 1.
        var longestMilliseconds: UInt64 {
            switch self {
            case .takeover, .handOver, .connectionReset, .balance: 0
            case .clockJump, .compaction, .regionCut, .newRegion: 0
            case .restartedVoter, .lateAnswers, .change, .split, .place, .spread: 600
            case .powerLoss: 800
            case .duel, .freeze: 1_200
            case .crash, .wipe, .partition, .oneWayPartition, .groupCut: 1_500
            case .linkCut: 2_000
            case .machineLoss: 2_500
            case .busyDisk: 4_000
            case .loss, .duplication, .reordering, .stalls, .slowDisk, .clockSkew, .slowNode: 0
            }
        }
    }

    struct Fault {
        let number: Int
        let at: Instant
        let kind: Kind
        let luck: UInt64
    }

    private(set) var kinds: Set<Kind> = []
    private(set) var schedule: [Fault] = []
    let network: NetworkFaults
    let clockSkewMax: TimeSpan
    let driftPPMMax: Int64

    /// `pace` stretches the times between faults, as it does all times of the run.
    init(
        random: inout SplitMix, only: [String]?, kept: [Int]?, from start: Instant, duration: TimeSpan,
        pace: UInt64
    ) {
        // A tenth of these runs are healthy.
        let chance = random.below(10)
        for kind in Kind.allCases where !Self.late.contains(kind) && random.chance(chance, in: 18) {
            kinds.insert(kind)
        }
        var period = TimeSpan.milliseconds(40 + random.below(900)) * pace
        // The others have a theme, and more of it: some rules break only by faults that go together.
        let themed = random.chance(2, in: 3), often = TimeSpan.milliseconds(20 + random.below(200)) * pace
        let theme = random.pick(Self.themes)
        let chosen = theme.filter { _ in random.chance(3, in: 4) }
        if themed {
            kinds = Set(chosen)
            period = often
        }
        if let only { kinds = Set(only.compactMap(Kind.init)) }
        var network = NetworkFaults()
        let scale = 1 + random.below(20)
        if kinds.contains(.loss) { network.lossPerMille = scale }
        if kinds.contains(.duplication) { network.duplicationPerMille = scale }
        if kinds.contains(.reordering) { network.reorderingPerMille = 2 * scale }
        if kinds.contains(.stalls) { network.stallPerMille = scale }
        network.pace = pace
        self.network = network
        clockSkewMax = kinds.contains(.clockSkew) ? .milliseconds(200) : .milliseconds(2)
        driftPPMMax = kinds.contains(.clockSkew) ? 2_000 : 50
        var luck = random.split()
        let end = start.advanced(by: duration)
        let momentary = Kind.allCases.filter {
            $0.isMomentary && !Self.late.contains($0) && kinds.contains($0)
        }
        schedule(momentary, every: period, from: start, until: end, &luck)
        // With luck of their own, so that the seeds of before them mean what they did.
        if only == nil, random.chance(1, in: 4) { kinds.insert(.place) }
        if kinds.contains(.place) {
            let period = TimeSpan.milliseconds(200 + random.below(1_500)) * pace
            schedule([.place], every: period, from: start, until: end, &random)
        }
        if only == nil, random.chance(1, in: 6) { kinds.insert(.busyDisk) }
        if kinds.contains(.busyDisk) {
            let period = TimeSpan.milliseconds(300 + random.below(1_500)) * pace
            schedule([.busyDisk], every: period, from: start, until: end, &random)
        }
        if only == nil, random.chance(1, in: 6) { kinds.insert(.balance) }
        if kinds.contains(.balance) {
            let period = TimeSpan.milliseconds(100 + random.below(1_000)) * pace
            schedule([.balance], every: period, from: start, until: end, &random)
        }
        if only == nil, random.chance(1, in: 4) { kinds.insert(.spread) }
        if kinds.contains(.spread) {
            let period = TimeSpan.milliseconds(200 + random.below(1_500)) * pace
            schedule([.spread], every: period, from: start, until: end, &random)
        }
        if only == nil, kinds.contains(.compaction), random.chance(1, in: 3) { kinds.insert(.newRegion) }
        if let kept {
            let kept = Set(kept)
            schedule.removeAll { !kept.contains($0.number) }
        }
    }

    private mutating func schedule(
        _ kinds: [Kind], every period: TimeSpan, from start: Instant, until end: Instant,
        _ luck: inout SplitMix
    ) {
        if kinds.isEmpty { return }
        var at = start.advanced(by: TimeSpan(nanoseconds: luck.below(period.nanoseconds)))
        while at < end {
            let fault = Fault(
                number: schedule.count, at: at, kind: luck.pick(kinds), luck: luck.next())
            schedule.append(fault)
            at = at.advanced(by: TimeSpan(nanoseconds: 1 + luck.below(2 * period.nanoseconds)))
        }
    }

    /// Drawn after all others.
    private static let late: [Kind] = [.place, .busyDisk, .balance, .spread, .newRegion]

    private static let themes: [[Kind]] = [
        // Leaderships.
        [.duel, .takeover, .groupCut, .crash, .freeze, .reordering],
        [.duel, .takeover, .partition, .machineLoss],
        [.duel, .takeover, .crash],
        // Partitions that are split.
        [.split, .crash, .takeover, .duel, .freeze, .wipe, .handOver],
        [.split, .powerLoss, .slowDisk, .restartedVoter, .loss, .partition],
        [.split, .groupCut, .takeover, .reordering, .duplication, .crash, .regionCut],
        // The sequencer's lease.
        [.restartedVoter, .lateAnswers, .partition, .freeze, .stalls, .clockSkew],
        // Disks.
        [.powerLoss, .crash, .slowDisk, .takeover, .machineLoss],
        [.powerLoss, .slowDisk],
        // Transactions over several partitions.
        [.crash, .freeze, .loss, .duplication, .takeover, .slowNode],
        [.loss, .duplication, .reordering, .stalls, .oneWayPartition, .connectionReset],
        // Between regions.
        [.regionCut, .clockSkew, .clockJump, .crash, .compaction, .duplication],
        // Members.
        [.change, .wipe, .crash, .takeover, .groupCut],
        [.change, .partition, .machineLoss, .freeze, .handOver, .slowDisk],
    ]

    func has(_ kind: Kind) -> Bool { kinds.contains(kind) }

    var description: String {
        kinds.isEmpty ? "none" : kinds.map(\.rawValue).sorted().joined(separator: ",")
    }
}
