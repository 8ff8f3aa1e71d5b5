import Consensus
import DequeModule
import GeoReplication
import Partitioning
package import Primitives

/// The pure core of a node: all decisions, no effects. Routes what comes in to the groups, the
/// partitions, the sequencer, the coordinator and the links, and joins what they ask for.
///
/// A turn: `step` for each input, then `finishTurn` once; what a part of this node says to another part
/// of it is delivered within the turn, so that with co-located leaders a write costs one turn and one
/// append (docs/architecture.md).
package struct Node: Sendable {
    package let configuration: NodeConfiguration
    /// As far as this node knows. See Node+Splits.
    package internal(set) var map: PartitionMap
    var clock: ClockReading

    /// Index 0 is the directory's, index i the one of partition i.
    var groups: [Group]
    var persisted: [UInt64]
    var durable: [UInt64]
    /// What each group has handed to the log, by ticket.
    var tickets: Deque<(ticket: Ticket, writes: [(group: Int, count: UInt64)])> = []
    /// As of the last of them.
    var ticketed: [UInt64]
    /// Groups of which something has become durable, while they are told.
    var durableNow: [Int] = []
    var lastTicket: UInt64 = 0
    /// By group: it was stepped or proposed to in this turn.
    var touched: [Bool]
    /// By group: when it wants to be woken, as of the end of the last turn; whether that has to be asked
    /// again. To ask a group copies it.
    var groupWake: [Instant]
    var groupWakeIsOld: [Bool]
    /// Payloads that a full pipeline has not taken yet.
    var unproposed: [Deque<Bytes>]

    var directory: PartitionState
    /// Index i is partition i + 1.
    var partitions: [Partition]
    /// By partition: this node has a replica, or may get one from whoever leads it. Of the others it
    /// knows that they exist; what is said to them is dropped.
    var isPresent: [Bool]
    /// By partition: what it holds is read here, and the local frontier waits for it. All but where the region
    /// is spread: see Node+Holding.
    var isServed: [Bool]
    var servedRanges: HashRanges?
    package var servedVersion: UInt64 = 0
    /// Of the frontier that is shown.
    var shownTails: [Timeline.Tail] = []
    /// By partition, as the newest timeline says: who leads it, and how far its log had come at least.
    var heardTails: [Timeline.Tail] = []
    /// In this turn: a snapshot that was put into the store before it goes with what is dropped.
    var droppedNow: [HashRanges] = []
    /// By group, the logs of dropped replicas, which go when the store has flushed.
    var droppedLogs: [Int: (through: Slot, flushes: Int)] = [:]
    /// Through which version of the list each group has followed, as its leader told the directory's.
    var followed: [Int: UInt64] = [:]
    var toldFollowed: [Int: (epoch: Epoch, version: UInt64)] = [:]
    var leaseReadsAsked: [UInt64: RegionEffects.LeaseReading] = [:]
    var leaseReadsWanted: [(number: UInt64, lease: LeaseID, revision: Revision)] = []
    var nextLeaseRead: UInt64 = 1
    /// The ranges of what is here leave no gap. They do once a parent has come as a snapshot of after its
    /// split, and its child has not: rows are missing then that no tail tells of yet.
    var isWhole = true
    /// What the log holds of those, until they are here.
    var absentLogs: [GroupID: RestoredLog]
    /// To be opened though their parents are here: see Node+Children.
    var childrenWanted: Set<PartitionID> = []
    /// In the store, and not yet here: their hashes.
    var installing: [PartitionID: HashRange] = [:]
    /// By partition's index, the hashes that children have who came before it has passed their splits.
    var overlaid: [Int: HashRanges] = [:]
    var wasOverlaid: Set<PartitionID> = []
    /// By child, those that the map has no place for yet.
    var knownSplits: [PartitionID: PartitionSplit] = [:]
    var splitRequests: Deque<SplitRequest> = []
    var splitWaits: [(id: RequestID, split: PartitionSplit)] = []
    /// By this leadership of the directory.
    var splitProposed = SplitProposed.nothing
    var partitionWake: [Instant]
    var partitionDirty: [Bool]
    /// Nothing since the last turn but signs of life, and when there is something to do besides watching
    /// for silence.
    var isQuiet = false
    var restsUntil = Instant.zero
    var sequencer: Sequencer?
    var coordinator: Coordinator
    var detector: FailureDetector
    var detectorEffects: [FailureDetector.Effect] = []
    var groupEffects: [Consensus.Effect] = []
    var region = RegionEffects()
    var spares = Spares()
    /// From this node to itself.
    var inbox: Deque<RegionMessage> = []

    var epoch = Epoch.zero
    var heardFrontier = Revision.zero
    var heardAt = Instant.zero
    var localFrontier = Revision.zero
    var pendingTimelines: Deque<(frontier: Revision, tails: [Timeline.Tail], authVersion: UInt64)> = []
    var compactRevision = Revision.zero
    /// As the store has it, and as the sequencer allows.
    var floor = Revision.zero
    var floorWanted = Revision.zero
    var merge: TimelineMerge

    var waiting = WaitingTable()
    var parked: [UInt64] = []
    var parkedUntil = Instant.never
    var held: [Held] = []
    /// Questions for a lease's keys that this node's replicas cannot answer yet.
    var leaseReadings: [RegionEffects.LeaseReading] = []
    var remote: [RequestID: Instant] = [:]
    var internalTokens: [UInt64: InternalRequest] = [:]
    var nextInternal: UInt64 = 1 << 63
    /// Forwarded requests by the number under which they were sent. Numbers begin anywhere in each boot,
    /// so that an answer to what the node asked before a restart, or to an earlier attempt, finds
    /// nobody (S16).
    var forwards: [UInt64: UInt64] = [:]
    var nextForward: UInt64
    var nextSequence: UInt64 = 1
    /// In order of their sequence, those that are answered among them only until they are in front.
    var openRequests: Deque<(sequence: UInt64, token: UInt64)> = []
    var seenForwards = AttemptMemory()
    /// Forwards for a leadership of this node that is about to begin, by group.
    var arrivals: [Int: [Arrival]] = [:]
    /// Reads from which the answers of requests are rebuilt, and the requests that wait for one.
    var rebuilds: [UInt64: (token: UInt64, revision: Revision)] = [:]
    var rebuildsWaiting: [(token: UInt64, revision: Revision)] = []
    var nextRebuild: UInt64 = 1
    var sweepAt = Instant.zero

    var readsWanted: [(token: UInt64, deadline: Instant)] = []
    var readsAsked: Deque<(question: UInt64, reads: [(token: UInt64, deadline: Instant)])> = []
    var readsWaiting: [WaitingRead] = []
    var nextQuestion: UInt64
    /// Transactions that read the past, by the token of the read index that they wait for.
    var lookBacks: [UInt64: LookBack] = [:]
    var askReadsAt = Instant.never

    var compactions: [(token: RequestID, revision: Revision)] = []
    /// By this node's clocks.
    package internal(set) var leasesExpiredTotal: UInt64 = 0
    /// Changes of users, roles and permissions, at the sequencer's node.
    var authChanges: [AuthChange] = []
    var nextAuthNonce: UInt64
    var handOver: HandOver?
    /// When each peer said last that it hears the sequencer.
    var hearers: [NodeID: Instant] = [:]
    var strandedAt = Instant.zero

    /// The others: watched, and told of the timeline. See Node+Membership.
    var knownNodes: [NodeID] = []
    var membershipAt = Instant.zero
    /// Not before this does a node that is to lead nothing try again to get rid of what it leads.
    var leavesAt = Instant.zero
    var memberRequests: Deque<(id: RequestID, request: MembersRequest, deadline: Instant)> = []
    var memberChange: MembersChange?
    var memberWaits: [MembersChange] = []
    /// At the directory's leader: since when a member is not what the list says of him, there or away.
    var standings: [NodeID: Instant] = [:]
    /// Nil but in disaster recovery: see Node+Alone.
    var alone: Alone?

    var senders: [RegionID: Sender] = [:]
    var receivers: [RegionID: Receiver] = [:]
    var linkPeers: [RegionID: [NodeID]] = [:]
    var senderEffects: [LinkSender.Effect] = []
    var receiverEffects: [LinkReceiver.Effect] = []

    /// What a client of this node waits for.
    struct Waiting: Sendable {
        let request: Request
        let deadline: Instant
        var fence: UInt64
        /// Of its name, the same however often it is sent (S16).
        let sequence: UInt64
        var place = Place.parked
        /// Where the logs of its partitions stood when it was first sent.
        var firstSlot = Slot.zero
        var firstPlace = PartitionID.directory
        var moreSlots: [(place: PartitionID, slot: Slot)] = []
        /// The map's age when it was sent last.
        var newest = PartitionID.directory
        var wasSent = false
        /// An attempt was given up that may still take effect, or has.
        var isUncertain = false
        enum Place: Equatable, Sendable {
            case parked
            case here
            /// Under a number of its own for every time it is sent.
            case at(NodeID, forward: UInt64)
            /// Carried out at this revision; its answer is being rebuilt.
            case executed(Revision)
        }
    }

    /// Storage for what is emptied several times a turn.
    struct Spares: Sendable {
        var groupEffects: [Consensus.Effect] = []
        var messages: [(to: NodeID, message: RegionMessage)] = []
        var proposals: [(partition: PartitionID, payload: Bytes)] = []
        var answers: [(RequestID, Response)] = []
    }

    struct Arrival: Sendable {
        let id: RequestID
        let request: Request
        let tag: RequestTag?
        let deadline: Instant
        let fence: UInt64
    }

    /// Known to be true, told to the client once this node's own replicas show it (S19).
    struct Held: Sendable {
        let token: UInt64
        let response: Response
        let revision: Revision
        let lease: LeaseChange?
        let until: Instant
    }

    struct HandOver: Sendable {
        /// By group.
        let successors: [Int: NodeID]
        /// What is under way has until then to be decided.
        let drainUntil: Instant
    }

    /// A lease that this node's replica of its home must have, or must no longer have.
    struct LeaseChange: Sendable {
        let lease: LeaseID
        let isGrant: Bool
    }

    struct LookBack: Sendable {
        let id: RequestID
        let request: Request
        let tag: RequestTag?
        let deadline: Instant
        let fence: UInt64
    }

    struct WaitingRead: Sendable {
        let revision: Revision
        /// Checked with permissions that are at least these.
        let authVersion: UInt64
        let token: UInt64
        let deadline: Instant
    }

    enum InternalRequest: Sendable {
        case expiry(LeaseID)
        case replicate(RegionID)
    }

    struct Sender: Sendable {
        var link: LinkSender
        var peer: NodeID
        var pokeAt = Instant.zero
        /// Since this peer has been talked to, without an answer.
        var pokes = 0
        /// What it had acknowledged when it last got further, or had nothing to acknowledge.
        var acknowledged = Revision.zero
        var progressAt = Instant.zero
    }

    struct Receiver: Sendable {
        var link: LinkReceiver
        var peer: NodeID
    }

    package init(
        configuration: NodeConfiguration, restored: RestoredNode, at clock: ClockReading
    ) throws(DecodingError) {
        self.configuration = configuration
        self.clock = clock
        let founding = PartitionMap(equalPartitions: configuration.partitions)
        var map = founding
        let now = clock.instant
        var draw = SplitMix(seed: configuration.boot)
        nextForward = draw.next() >> 1
        nextAuthNonce = draw.next()
        // Above every question of an earlier boot, whose answers may still come.
        nextQuestion = max(1, clock.wallMicroseconds)
        groups = []
        partitions = []
        absentLogs = restored.logs
        isPresent = []
        isServed = []
        directory = PartitionState(
            group: GroupID(keyspace: configuration.keyspace, partition: .directory))
        var highest = Revision.zero
        var heard = Revision.initial
        let states = try Self.states(configuration, restored)
        for split in Self.splits(states) where !map.apply(split) { knownSplits[split.child] = split }
        self.map = map
        for (i, state) in states.enumerated() {
            let group = state.group
            highest = max(highest, state.highestRevision)
            heard = max(heard, state.heardFrontier)
            // What is not here has a log at most (`absentLogs`), and nothing to do with it.
            let isHere = !state.isDropped && (i <= configuration.partitions || state.place?.origin != nil)
            groups.append(
                isHere
                    ? try Self.group(group, configuration, restored.logs[group], state, at: now)
                    : Self.absentGroup(group, configuration, at: now))
            if isHere { absentLogs[group] = nil }
            if i == 0 {
                directory = state
            } else {
                // Of the founding map: a replica that lags behind a split still has all of it. Those
                // that a split has made say themselves where they lie.
                partitions.append(
                    Partition(
                        id: group.partition, keyspace: configuration.keyspace,
                        range: founding.range(of: group.partition)
                            ?? HashRange(first: .max, last: .max),
                        node: configuration.node, map: map, state: state,
                        limits: configuration.limits.partition))
                isPresent.append(isHere)
                isServed.append(isHere || !(state.isDropped || states[0].members.isSpread))
                heardTails.append(Timeline.Tail(term: .zero, slot: .zero))
            }
        }
        touched = Array(repeating: false, count: groups.count)
        groupWakeIsOld = touched
        groupWake = groups.map(\.nextWake)
        unproposed = Array(repeating: [], count: groups.count)
        persisted = Array(repeating: 0, count: groups.count)
        durable = persisted
        ticketed = persisted
        partitionWake = Array(repeating: .zero, count: partitions.count)
        partitionDirty = Array(repeating: true, count: partitions.count)
        coordinator = Coordinator(
            node: configuration.node, boot: configuration.boot, map: map,
            limits: configuration.limits.coordinator)
        // Who has been added since the configuration was written is in the log only.
        knownNodes = Self.others(configuration, directory.members, groups)
        detector = FailureDetector(
            node: configuration.node, peers: knownNodes, limits: configuration.limits.detector, at: now)
        compactRevision = directory.compactRevision
        // Also what this node had shown already: who watches here from now on may have followed another.
        merge = TimelineMerge(
            emitted: .zero, lostThrough: max(highest, heard),
            rowsMax: configuration.limits.mergeRowsMax)
        grow(to: map.count)
        var ignored = NodeEffects()
        noticeServed()
        openOrphans(into: &ignored)
        openWanted(into: &ignored)
        noticeGaps()
        noticeOverlaid()
    }

    /// Of the directory and all partitions that the store knows, without gaps.
    private static func states(
        _ configuration: NodeConfiguration, _ restored: RestoredNode
    ) throws(DecodingError) -> [PartitionState] {
        var last = configuration.partitions
        for (group, records) in restored.records
        where group.keyspace == configuration.keyspace && !records.isEmpty {
            last = max(last, Int(group.partition.rawValue))
        }
        guard last <= PartitionMap.partitionsMax else { throw DecodingError("partition \(last)") }
        var states: [PartitionState] = []
        for i in 0...last {
            let group = GroupID(keyspace: configuration.keyspace, partition: PartitionID(UInt32(i)))
            states.append(
                try PartitionState(group: group, records: restored.records[group] ?? []))
        }
        return states
    }

    /// In order, as far as there is no gap: of what the directory says and what the partitions are.
    private static func splits(_ states: [PartitionState]) -> [PartitionSplit] {
        var found: [PartitionID: PartitionSplit] = [:]
        for split in states[0].splits.done { found[split.child] = split }
        for state in states { if let origin = state.place?.origin { found[origin.split.child] = origin.split } }
        return found.values.sorted { $0.child < $1.child }
    }

    private static func group(
        _ id: GroupID, _ configuration: NodeConfiguration, _ log: RestoredLog?,
        _ state: PartitionState, at now: Instant
    ) throws(DecodingError) -> Group {
        Group(
            id: id, node: configuration.node,
            configuration: try decode(state.configuration)
                ?? (configuration.isFounder
                    ? Configuration(voters: configuration.nodes) : .unknown),
            restored: log ?? RestoredLog(),
            applied: AppliedPosition(
                slot: state.applied, term: state.appliedTerm, number: state.appliedNumber),
            lease: id.partition == .directory ? configuration.limits.lease : nil,
            limits: configuration.limits.consensus, at: now)
    }

    static func decode(_ payload: Bytes?) throws(DecodingError) -> Configuration? {
        guard let payload else { return nil }
        return try Configuration(decoding: payload)
    }

    var now: Instant { clock.instant }
    var node: NodeID { configuration.node }

    // MARK: Step

    package mutating func step(
        _ input: NodeInput, at clock: ClockReading, into effects: inout NodeEffects
    ) {
        self.clock = clock
        if case .wake = input { return }
        if case .message(let from, let message) = input {
            let isNews = detect(.heard(from), into: &effects)
            if message.isSignOfLife, !isNews, !detector.suspects(epoch.node) {
                onMessage(message, from: from, into: &effects)
                return
            }
        }
        isQuiet = false
        switch input {
        case .message(let from, let message): onMessage(message, from: from, into: &effects)
        case .connected(let seat):
            for peer in incarnations(of: seat) {
                detect(.connected(peer), into: &effects)
                // What was sent while there was no connection went nowhere.
                giveUp(at: peer)
            }
        case .disconnected(let seat, let lost):
            for peer in incarnations(of: seat) {
                detect(.disconnected(peer, lost: lost), into: &effects)
                lostTouch(with: peer, into: &effects)
            }
        case .durable(let ticket): onDurable(ticket, into: &effects)
        case .read(let token, let answer): onRead(token, answer, into: &effects)
        case .request(let request, let token, let deadline, let fence):
            onRequest(request, token: token, deadline: deadline, fence: fence, into: &effects)
        case .readIndex(let linearizable, let token, let deadline):
            onReadIndex(linearizable, token: token, deadline: deadline, into: &effects)
        case .cancel(let token): onCancel(token, into: &effects)
        case .readAt(let revision, let token, let deadline):
            readsWaiting.append(
                WaitingRead(revision: revision, authVersion: 0, token: token, deadline: deadline))
            answerReads(into: &effects)
        case .leaseKeys(let number, let keys): onLeaseKeys(number, keys)
        case .flushed(let slots):
            truncateDropped(slots, into: &effects)
            for (group, slot) in slots where group.keyspace == configuration.keyspace {
                stepGroup(Int(group.partition.rawValue), .truncate(through: slot), into: &effects)
            }
        case .snapshotInstalled(let group, let records):
            onSnapshot(group, records, into: &effects)
        case .snapshotRefused(let group, let seat):
            for peer in incarnations(of: seat) {
                stepGroup(Int(group.partition.rawValue), .snapshotRefused(by: peer), into: &effects)
            }
        case .campaign(let partition):
            stepGroup(Int(partition.rawValue), .campaign, into: &effects)
        case .handOver(let to): onHandOver(to: to)
        case .handOverPartition(let partition, let to): onHandOver(partition, to: to)
        case .linkConnected(let region, let peer): onLink(region, peer, up: true, into: &effects)
        case .linkDisconnected(let region, let peer): onLink(region, peer, up: false, into: &effects)
        case .linkMessage(let region, let peer, let message):
            onLinkMessage(region, peer, message, into: &effects)
        case .changesRead(let region, let after, let changes, let through):
            onChangesRead(region, after: after, changes, through: through, into: &effects)
        case .wake: break
        }
        drain(into: &effects)
    }

    /// Once after the inputs of a turn.
    package mutating func finishTurn(at clock: ClockReading, into effects: inout NodeEffects) {
        self.clock = clock
        // Most turns of an idle node: others have said that they are there.
        if isQuiet, now < restsUntil, now < detector.nextWake {
            effects.nextWake = min(restsUntil, detector.nextWake)
            return
        }
        effects.nextWake = .never
        wakeDetector(into: &effects)
        for i in groups.indices where groupWake[i] <= now {
            stepGroup(i, .wake, into: &effects)
        }
        drain(into: &effects)
        askReads(into: &effects)
        wakeRequests(into: &effects)
        wakeMembership(into: &effects)
        wakeLinks(into: &effects)
        region.nextWake = .never
        serveSplits()
        driveSplit()
        var rounds = 0
        repeat {
            flushRegion(along: !effects.sends.isEmpty)
            drain(into: &effects)
            rounds += 1
        } while wantsFlush && rounds < 16
        handOverIfStranded()
        finishHandOver(into: &effects)
        for i in touched.indices where touched[i] {
            touched[i] = false
            groupWakeIsOld[i] = true
            groups[i].flush(at: now, into: &groupEffects)
            perform(i, into: &effects)
        }
        drain(into: &effects)
        releaseHeld(into: &effects)
        // Of what is not here nothing is written, or a restart would find it with a log and no state.
        for i in partitions.indices where isPresent[i] {
            partitions[i].tellStore(waiting: recordsWaiting, into: &effects.store)
        }
        directory.tellStore(waiting: recordsWaiting, into: &effects.store)
        if !effects.sends.isEmpty {
            detector.beatAlong(at: now, into: &detectorEffects)
            if !detectorEffects.isEmpty { performDetector(into: &effects) }
        }
        if !leaseReadsWanted.isEmpty {
            effects.leaseReads.append(contentsOf: leaseReadsWanted)
            leaseReadsWanted.removeAll()
        }
        closeTicket(into: &effects)
        scheduleWake(into: &effects)
        isQuiet = true
        droppedNow.removeAll()
        effects.epoch = epoch
        effects.servedVersion = servedVersion
        effects.servesAllPresent = servedRanges == nil || servesAllPresent
        effects.hasSequencer = sequencerNode(at: now) != nil
    }

    private var wantsFlush: Bool {
        partitionDirty.contains(true) || !inbox.isEmpty || sequencer?.wantsFlush == true
    }

    /// `along`: something leaves in this turn anyway.
    private mutating func flushRegion(along: Bool) {
        let leaders = leaders()
        coordinator.flush(at: now, leaders: leaders, into: &region)
        for i in partitions.indices where partitionDirty[i] || partitionWake[i] <= now {
            partitionDirty[i] = false
            let outer = region.nextWake
            region.nextWake = .never
            partitions[i].flush(at: now, into: &region)
            partitionWake[i] = region.nextWake
            region.nextWake = outer
        }
        let now = now, leaseHolds = groups[0].checkLease(at: now)
        sequencer?.flush(
            at: now, leaseHolds: leaseHolds, along: along, into: &region)
        answerAuthChanges()
    }

    private mutating func scheduleWake(into effects: inout NodeEffects) {
        var next = region.nextWake
        for i in groupWake.indices {
            if touched[i] || groupWakeIsOld[i] {
                groupWakeIsOld[i] = false
                groupWake[i] = groups[i].wakeTime()
            }
            next = min(next, groupWake[i])
        }
        for wake in partitionWake { next = min(next, wake) }
        next = min(next, askReadsAt, parkedUntil, membershipAt)
        for h in held { next = min(next, h.until) }
        if let handOver { next = min(next, handOver.drainUntil) }
        if !waiting.isEmpty || !remote.isEmpty || readsPending { next = min(next, sweepAt) }
        // What came too late for this turn's rounds has the next one.
        if wantsFlush { next = min(next, now) }
        for (_, sender) in senders { next = min(next, min(sender.link.nextWake, sender.pokeAt)) }
        for (_, receiver) in receivers { next = min(next, receiver.link.nextWake) }
        restsUntil = min(effects.nextWake, next)
        effects.nextWake = min(restsUntil, detector.nextWake)
    }

    // MARK: Failure detection

    /// True: somebody is suspected, or trusted again, or is to be told something.
    @discardableResult
    private mutating func detect(
        _ input: FailureDetector.Input, into effects: inout NodeEffects
    ) -> Bool {
        detector.step(input, at: now, into: &detectorEffects)
        if detectorEffects.isEmpty { return false }
        performDetector(into: &effects)
        return true
    }

    private mutating func wakeDetector(into effects: inout NodeEffects) {
        if detector.nextWake <= now { detect(.wake, into: &effects) }
    }

    private mutating func performDetector(into effects: inout NodeEffects) {
        let all = detectorEffects
        detectorEffects.removeAll(keepingCapacity: true)
        for effect in all {
            switch effect {
            case .heartbeat(let peer):
                let hears = epoch > .zero && now.since(heardAt) < configuration.limits.timelinePeriod * 3
                effects.sends.append((peer, hears ? .hears(epoch) : .heartbeat))
            case .suspect(let peer):
                effects.events.append(.suspected(peer))
                membershipAt = now
                for i in groups.indices { stepGroup(i, .suspect(peer), into: &effects) }
                for i in partitions.indices { partitions[i].suspected(peer, at: now, into: &region) }
                giveUp(at: peer)
                drain(into: &effects)
            case .trust(let peer):
                effects.events.append(.trusted(peer))
                membershipAt = now
                for i in groups.indices { stepGroup(i, .trust(peer), into: &effects) }
            }
        }
    }

    // MARK: Durability

    private mutating func closeTicket(into effects: inout NodeEffects) {
        guard !effects.persist.isEmpty else { return }
        lastTicket += 1
        effects.ticket = Ticket(lastTicket)
        var writes: [(group: Int, count: UInt64)] = []
        for i in persisted.indices where persisted[i] > ticketed[i] {
            writes.append((i, persisted[i]))
            ticketed[i] = persisted[i]
        }
        tickets.append((effects.ticket, writes))
    }

    private mutating func onDurable(_ ticket: Ticket, into effects: inout NodeEffects) {
        while let first = tickets.first, first.ticket <= ticket {
            tickets.removeFirst()
            for (group, count) in first.writes where count > durable[group] {
                durable[group] = count
                durableNow.append(group)
            }
        }
        // Once each, for the newest of what is covered.
        if durableNow.count > 1 { durableNow.sort() }
        var last = -1
        for i in durableNow.indices where durableNow[i] != last {
            last = durableNow[i]
            stepGroup(last, .durable(writes: durable[last]), into: &effects)
        }
        durableNow.removeAll(keepingCapacity: true)
    }
}
