import Consensus
import Node
import Primitives

/// Machines that lose their disks, are added and are removed; what an operator does about it, and what
/// must be true of it.
extension World {
    /// Requests of operators and of empty machines have tokens of their own.
    static let admissions: UInt64 = 1 << 61
    static let changes: UInt64 = 1 << 60

    /// The directory's list, the groups and the machines say the same, at every node.
    func isWhole(_ region: RegionID) -> Bool {
        let own = addresses.filter { $0.region == region }.compactMap { nodes[$0] }
        let cores = own.compactMap(\.core)
        guard let list = cores.first?.members, cores.count == own.count else { return false }
        guard Set(list.nodes) == Set(own.map(\.identity.node)) else { return false }
        return cores.allSatisfy { core in
            core.members == list
                && core.configurations.enumerated().allSatisfy { i, configuration in
                    let partition = PartitionID(UInt32(i))
                    guard core.shallHold(partition) || i == 0 else { return core.hasDropped(partition) }
                    return Set(configuration.voters) == Set(list.voters(of: partition))
                        && Set(configuration.learners) == Set(list.learners(of: partition))
                }
        }
    }

    /// All of its region are there and vote in every group: one of them may go for good.
    func canLoseDisk(in region: RegionID) -> Bool {
        guard isWhole(region), let address = addresses.first(where: { $0.region == region }),
            let list = nodes[address]?.core?.members
        else { return false }
        return list.voters.count >= 3
    }

    func wipe(_ address: NodeAddress, silent: Bool, restartAfter: TimeSpan) {
        guard let node = nodes[address], node.isUp else { return }
        kill(address, silent: silent, restartAfter: restartAfter)
        say("\(address) has lost its disk")
        counts.wipes += 1
        node.wipe(token: random.next() | 1)
    }

    // MARK: Coming in

    /// Asks one of the others, again and again, until the directory has given it a name.
    func askToTakePart(_ address: NodeAddress) {
        guard let node = nodes[address] else { return }
        let asker = RegionMembers.Asker(
            token: node.identity.token, seat: address.node, name: "", peerURLs: [])
        let others = addresses.filter {
            $0.region == address.region && $0 != address && nodes[$0]?.isUp == true
                && !network.isBlocked(from: address, to: $0)
        }
        if !others.isEmpty {
            queue.schedule(
                .ask(random.pick(others), asker), after: .microseconds(100 + random.below(2_000)))
        }
        queue.schedule(.boot(address), after: paced(40 + random.below(60)))
    }

    private func onAdmission(_ response: Response, token: UInt64, at address: NodeAddress) {
        let seat = NodeID(rawValue: UInt16(truncatingIfNeeded: token & 0xFF))
        let asker = NodeAddress(region: address.region, node: seat)
        // It was removed while it was empty.
        if case .failed(.memberNotFound) = response, nodes[asker]?.identity.node == NodeID.none {
            return retire(asker)
        }
        guard case .members(let list, _) = response,
            !network.isBlocked(from: address, to: asker)
        else { return }
        queue.schedule(.admitted(asker, list), after: .microseconds(100 + random.below(2_000)))
    }

    func admitted(_ list: RegionMembers, at address: NodeAddress) {
        guard let node = nodes[address], node.identity.node == .none,
            let me = list.members.first(where: { $0.token == node.identity.token })
        else { return }
        say("\(address) takes part as \(me.node)")
        node.identity.node = me.node
        node.identity.peers = list.nodes
        boot(address)
    }

    // MARK: An operator

    /// One change of the list, asked of any node. Links know a region's first seats only: not with
    /// several regions.
    func change(in region: RegionID, _ luck: inout SplitMix) {
        guard regions.count == 1 else { return }
        let own = addresses.filter { $0.region == region && nodes[$0]?.core != nil }
        guard !own.isEmpty else { return }
        let at = luck.pick(own)
        guard let list = nodes[at]?.core?.members, list.version > 0 else { return }
        var request: MembersRequest?
        let highest = list.used.map(\.seat.rawValue).max() ?? 0
        switch luck.below(3) {
        case 0 where Int(highest) < NodeAddress.nodesMax && list.members.count <= nodesPerRegion + 1:
            request = .add(peerURLs: ["http://n\(highest + 1)"], isLearner: luck.chance(2, in: 3))
        case 1:
            let learners = list.members.filter(\.isLearner)
            if !learners.isEmpty { request = .promote(luck.pick(learners).id) }
        default:
            if list.members.count >= nodesPerRegion { request = .remove(luck.pick(list.members).id) }
        }
        guard let request, let node = nodes[at] else { return }
        say("an operator asks \(at): \(request)")
        deliver(
            .request(
                .members(request), token: Self.changes,
                deadline: node.clock.reading(at: queue.now).instant.advanced(by: paced(2_000))), to: at)
    }

    /// Never fewer than three voters: one of them may lose its disk.
    func place(in region: RegionID, _ luck: inout SplitMix) {
        let own = addresses.filter { $0.region == region && nodes[$0]?.core != nil }
        guard !own.isEmpty else { return }
        let at = luck.pick(own)
        guard let node = nodes[at], let list = node.core?.members, list.voters.count >= 3 else { return }
        var change = PlacementChange.replicas(luck.chance(2, in: 3) ? 3 : 5)
        if luck.chance(3, in: 4) {
            let partition = PartitionID(UInt32(luck.below(UInt64(1 + (maps[region]?.count ?? 0)))))
            var wanted: [UInt64] = []
            for _ in 0..<luck.below(4) {
                let member = luck.pick(list.members)
                if member.isStarted, !member.isLearner, !wanted.contains(member.id) { wanted.append(member.id) }
            }
            change = .wish(partition, members: wanted)
        }
        say("an operator asks \(at): \(change)")
        deliver(
            .request(
                .members(.place(change)), token: Self.changes,
                deadline: node.clock.reading(at: queue.now).instant.advanced(by: paced(2_000))), to: at)
    }

    /// Rows with those who vote only, or with everybody.
    func spread(in region: RegionID, _ luck: inout SplitMix) {
        let own = addresses.filter { $0.region == region && nodes[$0]?.core != nil }
        guard !own.isEmpty else { return }
        let at = luck.pick(own)
        guard let node = nodes[at], let list = node.core?.members, list.voters.count >= 3 else { return }
        let change = luck.chance(1, in: 3)
            ? PlacementChange.replicas(luck.chance(2, in: 3) ? 3 : 5) : .spread(luck.chance(2, in: 3))
        say("an operator asks \(at): \(change)")
        deliver(
            .request(
                .members(.place(change)), token: Self.changes,
                deadline: node.clock.reading(at: queue.now).instant.advanced(by: paced(2_000))), to: at)
    }

    func onMembersAnswer(_ response: Response, token: UInt64, at address: NodeAddress) {
        guard token & Self.admissions == 0 else {
            return onAdmission(response, token: token, at: address)
        }
        say("the operator hears \(response)")
        guard case .members(let list, _) = response else { return }
        counts.changes += 1
        startAdded(list, in: address.region)
    }

    /// Whoever is in the list and has no machine gets one. Also before the end: an answer may be lost.
    func startAdded(_ list: RegionMembers, in region: RegionID) {
        for member in list.members where !member.isStarted {
            let address = NodeAddress(region: region, node: member.node.seat)
            guard Int(address.node.rawValue) <= NodeAddress.nodesMax, nodes[address] == nil else { continue }
            let machine = SimulatedNode(
                address: address,
                clock: NodeClock(
                    random: &random, driftPPMMax: plan.driftPPMMax, wallSkewMax: plan.clockSkewMax))
            machine.wipe(token: random.next() | 1)
            nodes.add(machine)
            addresses.append(address)
            addresses.sort()
            say("\(address) is set up")
            queue.schedule(.boot(address), after: paced(random.below(500)))
            queue.schedule(.readerNext(address), after: paced(random.below(1_000)))
        }
    }

    func leaveIfRemoved(_ address: NodeAddress) {
        guard nodes[address]?.core?.isRemoved == true else { return }
        queue.schedule(.retire(address), after: .zero)
    }

    /// For good: as the host's process ends when it hears that it was removed.
    func retire(_ address: NodeAddress) {
        guard let node = nodes[address], !node.isRetired else { return }
        kill(address, silent: false, restartAfter: .zero)
        node.isRetired = true
        addresses.removeAll { $0 == address }
        say("\(address) has left")
    }

    /// An operator does, who was told that it is removed: it may not have heard of it itself.
    func switchOffRemoved(in region: RegionID) {
        let machines = addresses.filter { $0.region == region }.compactMap { nodes[$0] }
        let lists = machines.compactMap { $0.core?.members }
        guard let list = lists.max(by: { $0.version < $1.version }) else { return }
        let listed = machines.filter { list.nodes.contains($0.identity.node) && $0.core != nil }
        guard listed.count == list.nodes.count else { return }
        for machine in machines where !list.nodes.contains(machine.identity.node) {
            let node = machine.identity.node
            guard node != .none else { continue }
            let isNeeded = listed.contains { other in
                other.core?.configurations.contains { $0.contains(node) } ?? true
            }
            if !isNeeded { retire(machine.address) }
        }
    }

    // MARK: What must be true

    /// A group's configurations are one history: whoever has number n has the same.
    func note(_ configuration: Configuration, of group: GroupID, at address: NodeAddress) {
        let key = ConfigurationKey(region: address.region, group: group, number: configuration.number)
        guard let known = configurations[key] else { return configurations[key] = configuration }
        if known != configuration {
            fail(
                Violation(
                    "one configuration per number",
                    "\(address) has \(configuration) of \(group), others \(known)"))
        }
    }

    struct ConfigurationKey: Hashable {
        let region: RegionID
        let group: GroupID
        let number: UInt64
    }

    /// Who has lost its disk votes again in every group, under its new name; who was added or removed
    /// is in or out of all of them.
    func waitForMembers() {
        guard counts.wipes + counts.changes > 0 else { return }
        let all = { [self] in
            for region in regions {
                guard let address = addresses.first(where: { $0.region == region }),
                    let list = nodes[address]?.core?.members
                else { return false }
                startAdded(list, in: region)
                switchOffRemoved(in: region)
            }
            return regions.allSatisfy(isWhole)
        }
        wait(atMost: paced(10_000), until: all)
        if violations.isEmpty, !all() {
            let found = addresses.map { address in
                "\(address) \(nodes[address]?.identity.node ?? .none): "
                    + "\(nodes[address]?.core?.members.nodes ?? []), "
                    + "\(nodes[address]?.core?.configurations.map { "\($0.voters)+\($0.learners)" } ?? [])"
            }
            fail(Violation("a healthy region has all its members", found.joined(separator: "; ")))
        }
    }
}
