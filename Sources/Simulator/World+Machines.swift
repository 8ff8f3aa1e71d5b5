import Consensus
import Node
import Primitives

/// Processes that start and die, connections that come and go, and the faults that do it.
extension World {
    // MARK: Processes

    func boot(_ address: NodeAddress) {
        guard let node = nodes[address], !node.isUp, !node.isRetired else { return }
        guard node.identity.node != .none else { return askToTakePart(address) }
        node.life += 1
        let configuration = configuration(of: node)
        let reading = node.clock.reading(at: queue.now)
        if let stream = node.stream { streams.append(stream) }
        node.stream = WatchStream(address: address, life: node.life)
        do {
            let core = try Node(configuration: configuration, restored: node.restored(), at: reading)
            learn(core.authState, at: address)
            node.start(core)
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

    private func configuration(of node: SimulatedNode) -> NodeConfiguration {
        let seats = (1...nodesPerRegion).map { NodeID(UInt16($0)) }
        let identity = node.identity
        var configuration = NodeConfiguration(
            region: node.address.region, node: identity.node,
            nodes: identity.isFounder ? seats : identity.peers,
            otherRegions: regions.filter { $0 != node.address.region && $0 != awaitedRegion }.map {
                .init(region: $0, nodes: seats)
            },
            partitions: map.entries.count, boot: Mutation.bootReused.isOn ? 1 : random.next(),
            limits: NodeLimits(pace: pace))
        configuration.isFounder = identity.isFounder
        configuration.founding = RegionMembers(
            members: seats.map {
                .init(
                    id: UInt64($0.rawValue), node: $0, token: UInt64($0.rawValue), name: "n\($0)",
                    peerURLs: ["http://n\($0)"], level: FeatureLevel.own)
            }, used: seats, level: FeatureLevel.own)
        return configuration
    }

    /// An operator starts its machines, and everybody else's again with a configuration that names it.
    func addRegion() {
        guard let region = awaitedRegion else { return }
        say("region \(region) is added")
        awaitedRegion = nil
        for address in addresses {
            if address.region == region {
                queue.schedule(.boot(address), after: paced(random.below(200)))
            } else {
                let restart = paced(20 + random.below(200))
                queue.schedule(.act(.kill(address, restartAfter: restart)), after: paced(random.below(300)))
            }
        }
    }

    /// Killed: its peers see resets, if they can be reached at all. `silent`: the machine went with it.
    func kill(_ address: NodeAddress, silent: Bool, restartAfter: TimeSpan) {
        guard let node = nodes[address], node.isUp else { return }
        say("\(address) \(silent ? "is lost" : "is killed")")
        counts.crashes += 1
        nodes[address]?.crash(random: &random)
        for i in underWay
        where operations[i].node == address.node && operations[i].region == address.region {
            finish(UInt64(i) + 1, .unknown, at: address)
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
        kill(address, silent: false, restartAfter: node.armedRestart)
        return true
    }

    /// Killed at a step of the protocol: by what it sends.
    func crashes(
        _ address: NodeAddress, sending sends: [(to: NodeID, message: PeerMessage)], isSent: Bool
    ) -> Bool {
        guard let node = nodes[address], let armed = node.armedMoment, armed.afterSending == isSent,
            sends.contains(where: { Moment($0.message) == armed.moment })
        else { return false }
        say("\(address) dies at \(armed.moment), \(isSent ? "sent" : "not sent")")
        kill(address, silent: false, restartAfter: node.armedRestart)
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
            queue.schedule(.connect(pair), after: paced(10 + random.below(50)))
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
    func bury(_ address: NodeAddress, before witness: NodeAddress) {
        let pair = Pair(address, witness)
        guard network[pair].isUp else { return }
        network[pair].isUp = false
        network[pair].generation += 1
        deliver(disconnection(of: address, lost: true, at: witness), to: witness)
        queue.schedule(.connect(pair), after: paced(10))
    }

    private func disconnection(
        of other: NodeAddress, lost: Bool, at address: NodeAddress
    ) -> NodeInput {
        other.region == address.region
            ? .disconnected(other.node, lost: lost) : .linkDisconnected(other.region, other.node)
    }
}
