import Node
import Primitives

/// What goes wrong, and how. Each fault draws from its own luck.
extension World {
    func inject(_ fault: FaultPlan.Fault, tries: Int = 0) {
        var luck = SplitMix(seed: fault.luck)
        if tries < 400, luck.chance(3, in: 4), !hurts(fault.kind) {
            queue.schedule(.fault(fault, tries: tries + 1), after: .microseconds(31))
            return
        }
        counts.faults += 1
        func span(_ low: UInt64, _ high: UInt64) -> TimeSpan { paced(low + luck.below(high - low)) }
        let address = victim(&luck)
        say("fault \(fault.number): \(fault.kind) at \(address)")
        switch fault.kind {
        case .crash:
            let restart = span(20, 1_500)
            nodes[address]?.armedRestart = restart
            switch luck.below(4) {
            case 0: kill(address, silent: false, restartAfter: restart)
            case 1: nodes[address]?.armed = (Int(luck.below(40)), Int(luck.below(4)))
            default:
                nodes[address]?.armedMoment = (luck.pick(Moment.allCases), luck.chance(1, in: 2))
            }
        case .machineLoss: kill(address, silent: true, restartAfter: span(100, 2_500))
        case .groupCut:
            let cut = GroupCut(node: address, partition: partition(&luck))
            self.cut(cut, for: span(100, 1_500))
        case .powerLoss:
            for other in addresses where other.region == address.region {
                kill(other, silent: true, restartAfter: span(20, 800))
            }
        case .wipe:
            let silent = luck.chance(1, in: 2), restart = span(20, 1_500)
            if canLoseDisk(in: address.region) { wipe(address, silent: silent, restartAfter: restart) }
        case .change: change(in: address.region, &luck)
        case .freeze: freeze(address, for: span(10, 1_200))
        case .partition:
            let healAfter = span(50, 1_500)
            // Sometimes its peers believe that its process is gone, and elect at once while it lives.
            let looksDead = luck.chance(1, in: 2)
            say("\(address) is cut off for \(healAfter)\(looksDead ? ", looks dead" : "")")
            for other in addresses where other != address {
                block(address, other, for: healAfter)
                block(other, address, for: healAfter)
                if looksDead, other.region == address.region { bury(address, before: other) }
            }
        case .oneWayPartition:
            let other = luck.pick(addresses)
            if other != address { block(address, other, for: span(50, 1_500)) }
        case .connectionReset:
            let other = luck.pick(addresses)
            if other != address {
                let pair = Pair(address, other)
                disconnect(pair, lost: nil)
                queue.schedule(.connect(pair), after: span(5, 40))
            }
        case .takeover:
            for _ in 0...luck.below(3) {
                deliver(.campaign(partition(&luck)), to: luck.pick(addresses))
            }
        case .duel: duel(in: address.region, &luck)
        case .split: split(in: address.region, &luck)
        case .place: place(in: address.region, &luck)
        case .spread: spread(in: address.region, &luck)
        case .handOver:
            let other = luck.chance(1, in: 2) ? luck.pick(addresses).node : nil
            deliver(.handOver(to: other == address.node ? nil : other), to: address)
        case .balance:
            deliver(.handOverPartition(partition(&luck), to: luck.pick(addresses).node), to: address)
        case .linkCut:
            let other = luck.pick(addresses)
            if other != address, other.region == address.region {
                let healAfter = span(100, 2_000)
                say("\(address) and \(other) lose sight of each other for \(healAfter)")
                block(address, other, for: healAfter)
                block(other, address, for: healAfter)
            }
        case .restartedVoter: restartVoter(in: address.region, &luck)
        case .lateAnswers: delayAnswers(in: address.region, &luck)
        case .busyDisk:
            let until = queue.now.advanced(by: span(200, 3_000)), sync = span(100, 700)
            let isEverywhere = luck.chance(1, in: 2)
            say("syncs take \(sync) \(isEverywhere ? "everywhere" : "")")
            for other in addresses where other == address || (isEverywhere && other.region == address.region) {
                nodes[other]?.busy = (until, sync)
            }
        case .clockJump:
            let jump = luck.within(-400_000...400_000)
            nodes[address]?.clock.jump(microseconds: jump)
        case .regionCut:
            let healAfter = span(200, 2_500)
            for other in addresses where other.region != address.region {
                for own in addresses where own.region == address.region {
                    block(own, other, for: healAfter)
                    block(other, own, for: healAfter)
                }
            }
        case .loss, .duplication, .reordering, .stalls, .slowDisk, .clockSkew, .slowNode, .compaction,
            .newRegion:
            break
        }
    }

    /// Faults of disks wait a little for a moment at which something is said that is not yet written.
    private func hurts(_ kind: FaultPlan.Kind) -> Bool {
        guard kind == .powerLoss || kind == .machineLoss else { return true }
        return addresses.contains { nodes[$0]?.isSyncing == true }
    }

    func act(_ action: Action) {
        switch action {
        case .heal(let a, let b): network.unblock(from: a, to: b)
        case .healGroup(let cut):
            if let i = groupCuts.firstIndex(of: cut) { groupCuts.remove(at: i) }
        case .cut(let cut): self.cut(cut, for: paced(400))
        case .campaign(let partition, let address): deliver(.campaign(partition), to: address)
        case .detour(let a, let b, let span): network.detour(from: a, to: b, span)
        case .addRegion: addRegion()
        case .kill(let address, let restartAfter):
            kill(address, silent: true, restartAfter: restartAfter)
        case .block(let a, let b, let span):
            block(a, b, for: span)
            block(b, a, for: span)
        }
    }

    private func later(_ action: Action, _ span: TimeSpan) {
        queue.schedule(.act(action), after: span)
    }

    private func partition(_ luck: inout SplitMix) -> PartitionID {
        PartitionID(UInt32(luck.below(UInt64(partitionCount + 1))))
    }

    /// Half of the time the node that a region depends on most.
    private func victim(_ luck: inout SplitMix) -> NodeAddress {
        let region = luck.pick(regions), other = luck.pick(addresses)
        if luck.chance(1, in: 2), let epoch = newestEpoch[region] {
            return NodeAddress(region: region, node: epoch.node.seat)
        }
        return other
    }

    private func leader(of partition: PartitionID, in region: RegionID) -> NodeAddress? {
        if partition == .directory {
            return newestEpoch[region].map { NodeAddress(region: region, node: $0.node.seat) }
        }
        for address in addresses where address.region == region {
            guard let status = nodes[address]?.core?.partitionStatus else { continue }
            if Int(partition.rawValue) <= status.count,
                let node = status[Int(partition.rawValue) - 1].leader
            {
                return NodeAddress(region: region, node: node.seat)
            }
        }
        return nil
    }

    /// Leaders that replace one another while their accepts reach nobody but themselves: entries that few
    /// acceptors hold, at slots that others have filled since (protocol-rules.md S1, S3).
    private func duel(in region: RegionID, _ luck: inout SplitMix) {
        let partition = partition(&luck)
        let own = addresses.filter { $0.region == region }
        guard own.count > 1, var leading = leader(of: partition, in: region) else { return }
        var at = TimeSpan.zero
        for _ in 0...(1 + luck.below(3)) {
            if luck.chance(2, in: 3) { later(.cut(GroupCut(node: leading, partition: partition)), at) }
            at = at + .microseconds(luck.below(60_000)) * pace
            let next = luck.pick(own.filter { $0 != leading })
            later(.campaign(partition, next), at)
            // Nobody elects it while it is cut off: the cut comes when it has just won.
            at = at + .microseconds(luck.below(20_000)) * pace
            if luck.chance(1, in: 4) { later(.kill(leading, restartAfter: paced(20 + luck.below(200))), at) }
            leading = next
        }
    }

    /// S holds its lease by the promise of A alone; A restarts and votes for B (protocol-rules.md S13 a).
    private func restartVoter(in region: RegionID, _ luck: inout SplitMix) {
        guard nodesPerRegion == 3, let s = leader(of: .directory, in: region) else { return }
        var others = addresses.filter { $0.region == region && $0 != s }
        // Members may have been removed.
        guard others.count > 1 else { return }
        luck.shuffle(&others)
        let a = others[0], b = others[1]
        later(.block(s, b, paced(500)), .zero)
        let killAt = paced(110 + luck.below(60))
        let restart = TimeSpan.milliseconds(1 + luck.below(4))
        later(.kill(a, restartAfter: restart), killAt)
        later(.block(s, a, paced(300)), killAt)
        let campaignAt = killAt + restart + .milliseconds(3)
        for p in 0...partitionCount { later(.campaign(PartitionID(UInt32(p)), b), campaignAt) }
    }

    /// S hears its voters' answers when their promises are nearly over, and after it is cut off
    /// (protocol-rules.md S13 d).
    private func delayAnswers(in region: RegionID, _ luck: inout SplitMix) {
        guard let s = leader(of: .directory, in: region) else { return }
        let others = addresses.filter { $0.region == region && $0 != s }
        guard !others.isEmpty else { return }
        let delay = paced(50 + luck.below(45)), cutAt = paced(100 + luck.below(100))
        let next = luck.pick(others)
        for other in others {
            later(.detour(other, s, delay), .zero)
            later(.block(s, other, paced(400)), cutAt)
            later(.detour(other, s, .zero), cutAt)
        }
        let campaignAt = cutAt + .milliseconds(1 + luck.below(5))
        for p in 0...partitionCount { later(.campaign(PartitionID(UInt32(p)), next), campaignAt) }
    }

    private func cut(_ cut: GroupCut, for span: TimeSpan) {
        say("messages of group \(cut.partition) to and from \(cut.node) are lost for \(span)")
        groupCuts.append(cut)
        later(.healGroup(cut), span)
    }

    private func block(_ from: NodeAddress, _ to: NodeAddress, for span: TimeSpan) {
        network.block(from: from, to: to)
        later(.heal(from, to), span)
    }

    /// From here on everything works: the healthy core must converge.
    func endFaults() {
        say("faults end")
        faultsAreOn = false
        network.faults = NetworkFaults()
        network.unblockAll()
        groupCuts.removeAll()
        for address in addresses {
            nodes[address]?.armed = nil
            nodes[address]?.armedMoment = nil
            nodes[address]?.busy = (.zero, .zero)
            unfreeze(address)
            if nodes[address]?.isUp == false { boot(address) }
        }
        for (i, a) in addresses.enumerated() {
            for b in addresses[(i + 1)...] where !network[Pair(a, b)].isUp { connect(Pair(a, b)) }
        }
    }
}
