import Consensus
import DequeModule
import Partitioning
package import Primitives

// The region's members: the list that the directory's log holds, and the groups that follow it
// (protocol-rules.md S15). The list says who shall take part; each group's leader brings its group
// there, one change at a time. Nothing else is kept, so that a crash at any point is taken up again
// by whoever leads next.
extension Node {
    /// A change of the list that the log has not decided yet, or whose groups have not followed.
    struct MembersChange: Sendable {
        let id: RequestID?
        let subject: UInt64
        let version: UInt64
        /// Answered when all groups have followed.
        let waits: Bool
        let deadline: Instant
    }

    package var members: RegionMembers { directory.members }

    // MARK: At the directory's leader

    mutating func membership(_ id: RequestID, _ request: MembersRequest, deadline: Instant) {
        guard sequencer != nil else {
            region.redirects.append(id)
            return
        }
        guard memberRequests.count < 1024 else {
            region.answers.append((id, .failed(.tooManyRequests)))
            return
        }
        memberRequests.append((id, request, deadline))
    }

    /// In the order in which they came; each is checked against the list that those before it made.
    mutating func serveMembers(into effects: inout NodeEffects) {
        guard sequencer != nil, groups[0].isLeading else { return }
        if directory.members.version == 0, memberChange == nil, !configuration.founding.members.isEmpty {
            var first = configuration.founding
            first.version = 1
            propose(first, for: nil, subject: 0, deadline: .never)
        }
        place()
        while let (id, request, deadline) = memberRequests.first {
            if deadline <= now {
                memberRequests.removeFirst()
                region.answers.append((id, .failed(.timedOut)))
                continue
            }
            // Without the lease another may lead and have changed it.
            guard memberChange == nil, groups[0].leaseHolds(at: now) else { break }
            // A child is born with its parent's voters: they stay the same until it is known to all.
            if isSplitUnderWay, request.changesVoters { break }
            memberRequests.removeFirst()
            var next = directory.members, subject: UInt64 = 0
            do throws(RequestError) {
                subject = try change(&next, request)
            } catch {
                region.answers.append((id, .failed(error)))
                continue
            }
            if next.version == directory.members.version {
                region.answers.append((id, .members(next, subject: subject)))
            } else {
                propose(next, for: (id, request), subject: subject, deadline: deadline)
            }
        }
        answerFollowed()
        if !memberRequests.isEmpty || memberChange != nil || !memberWaits.isEmpty {
            membershipAt = min(membershipAt, now.advanced(by: .milliseconds(20)))
        }
        drain(into: &effects)
    }

    /// What the region's leader does of itself: what the configuration says is written down once, and
    /// who has not been heard of for long is marked, so that others vote in his place.
    private mutating func place() {
        let list = directory.members
        guard list.version > 0, list.level >= FeatureLevel.placement, memberChange == nil,
            groups[0].leaseHolds(at: now), !isSplitUnderWay
        else { return }
        if list.placement.replicas == 0 {
            var wanted: [PlacementChange] = []
            if configuration.replicas > 0 { wanted.append(.replicas(configuration.replicas)) }
            if configuration.isSpread, list.level >= FeatureLevel.spread { wanted.append(.spread(true)) }
            if !wanted.isEmpty { return proposePlacement(wanted, in: list) }
        }
        let after = configuration.limits.memberAwayAfter
        var due = Instant.never
        for member in list.members where member.isStarted && member.node != node {
            // Heard of again it has to stay for a while before it votes.
            let since = detector.suspects(member.node) == member.isAway
                ? nil : standings[member.node] ?? now
            standings[member.node] = since
            guard let since else { continue }
            let at = since.advanced(by: member.isAway ? TimeSpan(nanoseconds: after.nanoseconds / 4) : after)
            if at <= now {
                standings[member.node] = nil
                return proposePlacement([.away(member.id, !member.isAway)], in: list)
            }
            due = min(due, at)
        }
        membershipAt = min(membershipAt, due)
    }

    private mutating func proposePlacement(_ changes: [PlacementChange], in list: RegionMembers) {
        var next = list
        do throws(RequestError) {
            for change in changes { try next.place(change, partitions: map.count) }
        } catch {
            return
        }
        guard next.version > list.version else { return }
        // One step of the list, whatever it says.
        next.version = list.version + 1
        propose(next, for: nil, subject: 0, deadline: .never)
    }

    private mutating func change(
        _ list: inout RegionMembers, _ request: MembersRequest
    ) throws(RequestError) -> UInt64 {
        switch request {
        case .list: return 0
        case .add(let urls, let isLearner): return try list.add(peerURLs: urls, isLearner: isLearner)
        case .remove(let id):
            try list.remove(id)
            return id
        case .update(let id, let urls):
            try list.update(id, peerURLs: urls)
            return id
        case .promote(let id):
            try list.promote(id) { isInSync($0) }
            return id
        case .drain(let id, let isDrained):
            try list.drain(id, isDrained)
            return id
        case .publish(let node, let name, let urls, let level, let zone):
            try list.publish(node, name: name, clientURLs: urls, level: level, zone: zone)
            return 0
        case .place(let change):
            try list.place(change, partitions: map.count)
            return 0
        case .admit(let asker):
            try list.admit(asker) { $0 == node || !detector.suspects($0) && knownNodes.contains($0) }
            return list.members.first { $0.token == asker.token }?.id ?? 0
        }
    }

    private func isInSync(_ learner: NodeID) -> Bool {
        groups.allSatisfy { group in
            guard directory.members.holders(of: group.id.partition).contains(learner) else { return true }
            return group.configuration.contains(learner) && (group.term == nil || group.isInSync(learner))
        }
    }

    private mutating func propose(
        _ next: RegionMembers, for request: (id: RequestID, what: MembersRequest)?, subject: UInt64,
        deadline: Instant
    ) {
        var waits = false
        if case .remove = request?.what { waits = true }
        if case .promote = request?.what { waits = true }
        if case .place = request?.what { waits = true }
        memberChange = MembersChange(
            id: request?.id, subject: subject, version: next.version, waits: waits,
            deadline: deadline)
        region.proposals.append((.directory, EntryBody.members(next).encoded()))
    }

    /// The directory's log has a new list.
    mutating func membersChanged(into effects: inout NodeEffects) {
        let list = directory.members
        effects.events.append(.membersChanged(list))
        let isReluctant = !isWantedLeader
        for i in groups.indices { groups[i].isReluctant = isReluctant }
        membershipAt = now
        rehearse(list)
        if let change = memberChange, change.version <= list.version {
            memberChange = nil
            if change.waits {
                memberWaits.append(change)
            } else if let id = change.id {
                region.answers.append((id, .members(list, subject: change.subject)))
            }
        }
        refreshNodes(into: &effects)
        openWanted(into: &effects)
    }

    /// Whoever removes a member may switch its machine off when he is answered: every group must do
    /// without it by then. The list itself stands, so that a late answer is still a success.
    private mutating func answerFollowed() {
        guard !memberWaits.isEmpty else { return }
        let followed = groups.indices.allSatisfy { hasFollowed($0) }
        let now = now, list = directory.members
        for wait in memberWaits
        where followed || wait.deadline <= now.advanced(by: .milliseconds(500)) {
            if let id = wait.id {
                region.answers.append((id, .members(list, subject: wait.subject)))
            }
        }
        memberWaits.removeAll { followed || $0.deadline <= now.advanced(by: .milliseconds(500)) }
    }

    /// All groups, as far as they are known here, are as the list has them, and it is not about to change.
    var areMembersSettled: Bool {
        memberChange == nil
            && (directory.members.version == 0 || groups.indices.allSatisfy { hasFollowed($0) })
    }

    private func hasFollowed(_ i: Int) -> Bool {
        let list = directory.members, current = groups[i].configuration
        if i > 0, list.isSpread, groups[i].term == nil { return followed[i] ?? 0 >= list.version }
        let partition = groups[i].id.partition
        return Set(current.voters) == Set(list.voters(of: partition))
            && Set(current.learners) == Set(list.learners(of: partition))
    }

    /// This node leads the directory no more: the next leader knows the list, not who asked.
    mutating func closeMembership() {
        for (id, _, _) in memberRequests { region.redirects.append(id) }
        memberRequests.removeAll()
        for change in memberWaits {
            guard let id = change.id else { continue }
            region.answers.append(
                (id, .members(directory.members, subject: change.subject)))
        }
        memberWaits.removeAll()
        standings.removeAll()
        if let id = memberChange?.id { region.abandoned.append(id) }
        memberChange = nil
    }

    // MARK: At each group's leader

    mutating func wakeMembership(into effects: inout NodeEffects) {
        guard now >= membershipAt else { return }
        membershipAt = .never
        leaveLeaderships()
        for i in groups.indices where groups[i].isLeading {
            if follow(i, into: &effects) {
                tellFollowed(i, into: &effects)
            } else {
                membershipAt = min(membershipAt, now.advanced(by: .milliseconds(50)))
            }
        }
        dropUnwanted(into: &effects)
        if !childrenWanted.isEmpty { openWanted(into: &effects) }
        serveMembers(into: &effects)
    }

    /// One change of the group towards the list. True: there is none to make.
    private mutating func follow(_ i: Int, into effects: inout NodeEffects) -> Bool {
        if alone != nil { return followAlone(i, into: &effects) }
        let list = directory.members, current = groups[i].configuration
        // An older list than the one that the group has begun to follow is no list.
        guard list.version > 0, list.version >= current.version, !list.voters.isEmpty,
            !hasFollowed(i)
        else { return true }
        for next in steps(from: current, of: groups[i].id.partition, to: list) {
            // First its leadership goes: see leaveLeaderships.
            if !next.voters.contains(node) { return false }
            touched[i] = true
            let isTaken = groups[i].propose(next, at: now, into: &groupEffects)
            perform(i, into: &effects)
            if isTaken { break }
        }
        return false
    }

    /// What may come next, the best first: whoever is missing receives the log; a learner votes, in
    /// the place of its own earlier incarnation or of one who shall not vote any more; who is not wanted
    /// goes, or receives the log and no more.
    private func steps(
        from current: Configuration, of partition: PartitionID, to list: RegionMembers
    ) -> [Configuration] {
        var base = current
        base.version = list.version
        let wanted = list.voters(of: partition), all = list.holders(of: partition)
        func order(_ voter: NodeID) -> (Int, NodeID) {
            (wanted.firstIndex(of: voter) ?? wanted.count, voter.seat)
        }
        var next = base
        next.learners = current.learners.filter(all.contains)
        next.learners += all.filter { !current.contains($0) }
        if next.learners != current.learners { return [next] }
        /// Without `voter`, who goes on receiving the log if he is to hold the rows.
        func release(_ voter: NodeID, from next: inout Configuration) {
            next.voters.removeAll { $0 == voter }
            if all.contains(voter) { next.learners.append(voter) }
        }
        var steps: [Configuration] = []
        for learner in current.learners where wanted.contains(learner) {
            var next = base
            next.learners.removeAll { $0 == learner }
            if let earlier = current.voters.first(where: { $0.seat == learner.seat }) {
                release(earlier, from: &next)
            } else if current.voters.count >= wanted.count,
                let other = current.voters.last(where: { !wanted.contains($0) && $0 != node })
            {
                release(other, from: &next)
            }
            next.voters.append(learner)
            next.voters.sort { order($0) < order($1) }
            steps.append(next)
        }
        // While one that has lost its disk is still to be replaced nobody else goes: without both there may
        // be no majority. Nor does anybody who is in the list before somebody else has come for him.
        let isReplacing = current.learners.contains { learner in
            wanted.contains(learner) && current.voters.contains { $0.seat == learner.seat }
        }
        for voter in current.voters where !wanted.contains(voter) && !isReplacing {
            guard current.voters.count > wanted.count || !list.nodes.contains(voter) else { continue }
            var next = base
            release(voter, from: &next)
            if !next.voters.isEmpty { steps.append(next) }
        }
        return steps
    }

    // MARK: Who leads

    /// Not if the list says otherwise; nor if the directory does without this node, which hears of no
    /// newer list then: a group that it led would never follow one.
    var isWantedLeader: Bool {
        let list = directory.members
        return !groups[0].isGone && (list.version == 0 || list.mayLead(node))
    }

    mutating func membershipEnded() {
        for i in groups.indices { groups[i].isReluctant = true }
        membershipAt = now
    }

    /// Drained, or on its way out: what this node leads goes to others while they can, and again if it
    /// comes back. Where nobody can, it goes on: a drained leader is better than none. Of the rest goes
    /// what others are to lead.
    private mutating func leaveLeaderships() {
        let list = directory.members
        guard list.version > 0, leadsAnything else { return }
        var successors: [Int: NodeID] = [:]
        var waits = !isWantedLeader
        for i in groups.indices where groups[i].term != nil {
            let partition = groups[i].id.partition
            let preferred = list.preferredLeader(of: partition) ?? node
            // He may be catching up still. If he is suspected there will be news of him.
            if preferred != node, !detector.suspects(preferred) { waits = true }
            if !list.voters(of: partition).contains(node) { waits = true }
            successors[i] = wantedSuccessor(of: i, preferred, in: list)
        }
        guard waits || !successors.isEmpty else { return }
        membershipAt = min(membershipAt, now.advanced(by: .milliseconds(50)))
        guard handOver == nil, now >= leavesAt, !successors.isEmpty else { return }
        // It may fail: not again at once, for what is yielded is sent back and forth.
        leavesAt = now.advanced(by: .milliseconds(500))
        beginHandOver(successors)
    }

    /// Who is to lead group `i` instead of this node, and can. Nil: this node goes on.
    private func wantedSuccessor(
        of i: Int, _ preferred: NodeID, in list: RegionMembers
    ) -> NodeID? {
        if preferred != node, groups[i].configuration.voters.contains(preferred),
            !detector.suspects(preferred), groups[i].isInSync(preferred)
        {
            return preferred
        }
        let partition = groups[i].id.partition
        guard !isWantedLeader || !list.voters(of: partition).contains(node) else { return nil }
        return successor(of: i, besides: !groups[0].isGone)
    }

    /// Who takes over best: wanted as a leader, and holding what this node leads.
    /// `besides`: nobody who is not wanted.
    func successor(of i: Int, besides isChoosy: Bool) -> NodeID? {
        let list = directory.members, partition = groups[i].id.partition
        let stays = list.version == 0 ? groups[i].configuration.voters : list.voters(of: partition)
        let others = groups[i].configuration.voters.filter { $0 != node && !detector.suspects($0) }
        let wanted = others.filter { list.version == 0 || list.mayLead($0) && stays.contains($0) }
        let ready = wanted.filter { groups[i].isInSync($0) }
        // One for all where that is possible: then their elections share messages and syncs, and the
        // partitions stay with the sequencer.
        let able = ready.filter { other in
            groups.allSatisfy { $0.term == nil || $0.isInSync(other) }
        }
        if let best = able.first ?? ready.first ?? wanted.first { return best }
        return isChoosy ? nil : others.first { groups[i].isInSync($0) } ?? others.first
    }

    /// A build that pretends to be the next one (`NodeConfiguration.featureLevel`) does, once the
    /// region's level allows it, what builds of the level before could not stand.
    private mutating func rehearse(_ list: RegionMembers) {
        guard list.level > FeatureLevel.own, groups[0].isLeading else { return }
        region.proposals.append((.directory, EntryBody.rehearsal.encoded()))
    }

    // MARK: Who is there

    /// Everybody in the list or in some group: watched, told of the timeline, and taken seriously.
    mutating func refreshNodes(into effects: inout NodeEffects) {
        let nodes = Self.others(configuration, directory.members, groups)
        guard nodes != knownNodes else { return }
        knownNodes = nodes
        detector.setPeers(nodes, at: now)
        let everybody = [node] + nodes
        sequencer?.setNodes(everybody)
    }

    static func others(
        _ configuration: NodeConfiguration, _ list: RegionMembers, _ groups: [Group]
    ) -> [NodeID] {
        var all = Set(list.nodes)
        for group in groups { all.formUnion(group.configuration.members) }
        if !all.contains(configuration.node) || list.version == 0 {
            all.formUnion(configuration.nodes)
        }
        all.remove(configuration.node)
        return all.sorted()
    }

    mutating func onConfigured(
        _ i: Int, _ next: Configuration, into effects: inout NodeEffects
    ) {
        effects.events.append(.configured(groups[i].id, next))
        noticeAlone(i, next)
        membershipAt = now
        refreshNodes(into: &effects)
        for peer in next.members where detector.suspects(peer) {
            groups[i].step(.suspect(peer), at: now, into: &groupEffects)
        }
    }

    /// Out of the list, or another sits there, and no group counts on this node any more: it may stop.
    /// Not before: until a group has followed the list its voters are needed.
    package var isRemoved: Bool {
        let list = directory.members
        let isUnlisted = list.version > 0 && !list.members.contains { $0.node == node }
            && list.used.contains { $0.seat == node.seat && $0.incarnation >= node.incarnation }
        // Without the directory it does not hear of newer lists.
        let hasLeft = isUnlisted || groups[0].isGone
        return groups.indices.allSatisfy { i in
            // Of a child that is not here nobody has told whether it counts on this node.
            if i > 0, !isPresent[i - 1] { return groups[0].isGone || hasLeft && list.isSpread }
            return groups[i].isGone || (hasLeft && !groups[i].configuration.contains(node))
        }
    }

    /// The host knows its peers by their seats.
    package func incarnations(of seat: NodeID) -> [NodeID] {
        knownNodes.filter { $0.seat == seat.seat }
    }
}

extension MembersRequest {
    /// Who takes part, not what is said of him.
    fileprivate var changesVoters: Bool {
        switch self {
        case .add, .remove, .promote, .admit, .place: true
        case .list, .update, .drain, .publish: false
        }
    }
}
