import Node
import Primitives

/// Processes that start and die, connections that come and go, and the faults that do it.
extension World {
    // MARK: Processes

    func boot(_ address: NodeAddress) {
        guard let node = nodes[address], !node.isUp else { return }
        node.life += 1
        let configuration = NodeConfiguration(
            region: address.region, node: address.node,
            nodes: (1...nodesPerRegion).map { NodeID(UInt16($0)) },
            otherRegions: regions.filter { $0 != address.region }.map { region in
                .init(region: region, nodes: (1...nodesPerRegion).map { NodeID(UInt16($0)) })
            },
            partitions: map.entries.count, boot: random.next())
        let reading = node.clock.reading(at: queue.now)
        if let stream = node.stream { streams.append(stream) }
        node.stream = WatchStream(address: address, life: node.life)
        do {
            node.start(try Node(configuration: configuration, restored: node.restored(), at: reading))
        } catch {
            fail(Violation("a node starts from what it wrote", "\(address): \(error.what)"))
            return
        }
        say("\(address) starts")
        deliver(.wake, to: address)
        scheduleFlush(address)
        for other in addresses where other != address {
            queue.schedule(
                .connect(Pair(address, other)), after: .microseconds(200 + random.below(2_000)))
        }
    }

    /// Killed: its peers see resets, if they can be reached at all. `silent`: the machine went with it.
    func kill(_ address: NodeAddress, silent: Bool, restartAfter: TimeSpan) {
        guard let node = nodes[address], node.isUp else { return }
        say("\(address) \(silent ? "is lost" : "is killed")")
        counts.crashes += 1
        nodes[address]?.crash(random: &random)
        for operation in operations
        where operation.returnedAt == .never && operation.node == address.node
            && operation.region == address.region
        {
            finish(UInt64(operation.number) + 1, .unknown, at: address)
        }
        for other in addresses where other != address {
            let pair = Pair(address, other)
            guard network[pair].isUp else { continue }
            if silent || network.isBlocked(from: address, to: other) {
                // Nobody tells the peer. What it sends goes nowhere; a new process resets it.
                network[pair].generation += 1
            } else {
                disconnect(pair, lost: other)
            }
        }
        queue.schedule(.boot(address), after: restartAfter)
    }

    /// A crash that was armed for this step of the host's work in a turn.
    func crashes(_ address: NodeAddress, at step: Int) -> Bool {
        guard let node = nodes[address], let armed = node.armed, armed.step == step else { return false }
        if armed.turns > 0 {
            node.armed?.turns -= 1
            return false
        }
        kill(address, silent: false, restartAfter: span(20, 1_500))
        return true
    }

    func freeze(_ address: NodeAddress, for span: TimeSpan) {
        guard let node = nodes[address], node.isUp, !node.isFrozen else { return }
        say("\(address) freezes for \(span)")
        nodes[address]?.isFrozen = true
        queue.schedule(.unfreeze(address), after: span)
    }

    func unfreeze(_ address: NodeAddress) {
        guard nodes[address]?.isFrozen == true else { return }
        nodes[address]?.isFrozen = false
        nodes[address]?.isTurnScheduled = false
        if nodes[address]?.isUp == true { scheduleTurn(address) }
    }

    // MARK: Connections

    func connect(_ pair: Pair) {
        guard nodes[pair.low]?.isUp == true, nodes[pair.high]?.isUp == true else { return }
        if network.isBlocked(from: pair.low, to: pair.high)
            || network.isBlocked(from: pair.high, to: pair.low)
        {
            queue.schedule(.connect(pair), after: .milliseconds(10 + random.below(50)))
            return
        }
        let wasUp = network[pair].isUp
        network[pair].isUp = true
        network[pair].generation += 1
        for (address, other) in [(pair.low, pair.high), (pair.high, pair.low)] {
            if wasUp { deliver(disconnection(of: other, lost: false, at: address), to: address) }
            deliver(
                pair.isWide
                    ? .linkConnected(other.region, other.node) : .connected(other.node), to: address)
        }
    }

    /// `lost`: that end sees that the other's process is gone.
    func disconnect(_ pair: Pair, lost: NodeAddress?) {
        guard network[pair].isUp else { return }
        network[pair].isUp = false
        network[pair].generation += 1
        for (address, other) in [(pair.low, pair.high), (pair.high, pair.low)] {
            guard let life = nodes[address]?.life else { continue }
            queue.schedule(
                .input(
                    address, life: life, disconnection(of: other, lost: lost == address, at: address)),
                after: .microseconds(100 + random.below(300)))
        }
    }

    /// `witness` sees the connection reset and a new one refused, though the other process lives and
    /// does not notice.
    private func bury(_ address: NodeAddress, before witness: NodeAddress) {
        let pair = Pair(address, witness)
        guard network[pair].isUp else { return }
        network[pair].isUp = false
        network[pair].generation += 1
        deliver(disconnection(of: address, lost: true, at: witness), to: witness)
        queue.schedule(.connect(pair), after: .milliseconds(10))
    }

    private func disconnection(
        of other: NodeAddress, lost: Bool, at address: NodeAddress
    ) -> NodeInput {
        other.region == address.region
            ? .disconnected(other.node, lost: lost) : .linkDisconnected(other.region, other.node)
    }

    // MARK: Faults

    private func span(_ low: UInt64, _ high: UInt64) -> TimeSpan {
        .milliseconds(low + random.below(high - low))
    }

    func injectFault() {
        counts.faults += 1
        let address = victim()
        switch random.pick(plan.momentary) {
        case .crash:
            if random.chance(1, in: 2) {
                nodes[address]?.armed = (Int(random.below(40)), Int(random.below(4)))
            } else {
                kill(address, silent: false, restartAfter: span(20, 1_500))
            }
        case .machineLoss: kill(address, silent: true, restartAfter: span(100, 2_500))
        case .groupCut:
            let partition = PartitionID(UInt32(random.below(UInt64(map.entries.count + 1))))
            let cut = GroupCut(node: address, partition: partition)
            say("messages of group \(partition) to and from \(address) are lost")
            groupCuts.append(cut)
            queue.schedule(.healGroup(cut), after: span(100, 1_500))
        case .powerLoss:
            for other in addresses where other.region == address.region {
                kill(other, silent: true, restartAfter: span(20, 800))
            }
        case .freeze: freeze(address, for: span(10, 1_200))
        case .partition:
            let healAfter = span(50, 1_500)
            // Sometimes its peers believe that its process is gone, and elect at once while it lives.
            let looksDead = random.chance(1, in: 2)
            say("\(address) is cut off for \(healAfter)\(looksDead ? ", looks dead" : "")")
            for other in addresses where other != address {
                block(address, other, for: healAfter)
                block(other, address, for: healAfter)
                if looksDead, other.region == address.region { bury(address, before: other) }
            }
        case .oneWayPartition:
            let other = random.pick(addresses)
            if other != address {
                let healAfter = span(50, 1_500)
                say("nothing goes from \(address) to \(other) for \(healAfter)")
                block(address, other, for: healAfter)
            }
        case .connectionReset:
            let other = random.pick(addresses)
            if other != address {
                let pair = Pair(address, other)
                disconnect(pair, lost: nil)
                queue.schedule(.connect(pair), after: span(5, 40))
            }
        case .takeover:
            for _ in 0...random.below(3) {
                let partition = PartitionID(UInt32(random.below(UInt64(map.entries.count + 1))))
                let node = random.pick(addresses)
                deliver(.campaign(partition), to: node)
            }
        case .clockJump:
            let jump = random.within(-400_000...400_000)
            nodes[address]?.clock.jump(microseconds: jump)
        case .regionCut:
            let healAfter = span(200, 2_500)
            for other in addresses where other.region != address.region {
                for own in addresses where own.region == address.region {
                    block(own, other, for: healAfter)
                    block(other, own, for: healAfter)
                }
            }
        case .loss, .duplication, .reordering, .stalls, .slowDisk, .clockSkew, .slowNode, .compaction:
            break
        }
    }

    /// Half of the time the node that a region depends on most.
    private func victim() -> NodeAddress {
        let region = random.pick(regions)
        if random.chance(1, in: 2), let epoch = published[region]?.keys.max() {
            return NodeAddress(region: region, node: epoch.node)
        }
        return random.pick(addresses)
    }

    private func block(_ from: NodeAddress, _ to: NodeAddress, for span: TimeSpan) {
        network.block(from: from, to: to)
        queue.schedule(.heal(from, to), after: span)
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
            unfreeze(address)
            if nodes[address]?.isUp == false { boot(address) }
        }
        for (i, a) in addresses.enumerated() {
            for b in addresses[(i + 1)...] where !network[Pair(a, b)].isUp { connect(Pair(a, b)) }
        }
    }
}
