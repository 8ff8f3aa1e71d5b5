import EtcdAPI
import EtcdFacade
import Logging
import NIOCore
import Node
import Primitives
import Storage
import Transport

// The region's members, as far as the shell has to do with them: whom to dial, what to tell of
// ourselves, who may come in.
extension Host {
    var members: RegionMembers { node.members }

    func listed(_ id: NodeID) -> RegionMembers.Member? {
        members.members.first { $0.node.seat == id.seat }
    }

    func memberID(of id: NodeID) -> UInt64 {
        listed(id)?.id ?? configuration.memberID(of: id.seat)
    }

    // MARK: Questions to the directory

    /// Calls of the host itself have tokens of their own.
    func askDirectory(
        _ request: MembersRequest, within: TimeSpan, then: @escaping (Response) -> Void
    ) {
        let token = nextHostCall
        nextHostCall += 1
        hostCalls[token] = then
        enqueue(
            .request(
                .members(request), token: token, deadline: Clocks.instant().advanced(by: within)))
    }

    /// True: the answer was for the host.
    func takeOwnAnswer(_ response: Response, token: UInt64) -> Bool {
        guard !hostCalls.isEmpty, let then = hostCalls.removeValue(forKey: token) else { return false }
        then(response)
        return true
    }

    // MARK: The list

    func onMembers(_ list: RegionMembers) {
        logger.info(
            "members",
            metadata: [
                "version": "\(list.version)", "voters": "\(list.voters)",
                "learners": "\(list.learners)",
            ])
        leaveIfRemoved()
        endIfOutdated(list.level)
        transport.setRegionLevel(list.level)
        alarms.rename(memberID(of: identity.node))
        alarms.voters = memberStatus.count { !$0.isLearner }
        alarms.keep(only: Set(list.members.map(\.id)))
        followPeers()
        tellNeighbours()
        publish()
    }

    /// etcd's --force-new-cluster, before the first turn.
    func standAlone() {
        logger.warning(
            "becoming a region of one: the other members must never start again with their data",
            metadata: ["members": "\(members.members.map(\.name))"])
        node.standAlone(at: Clocks.read(), into: &effects)
    }

    static var removed: HostFailure {
        HostFailure(
            code: 3,
            "this node has been removed from its region, or another has taken its place; "
                + "its data directory is of no more use")
    }

    /// etcd's member goes, too, when it hears that it was removed. Whoever is waiting for an answer gets it:
    /// the others still talk to this node, and everybody else is told to go to them.
    func leaveIfRemoved() {
        guard node.isRemoved, !isStopping else { return }
        isStopping = true
        logger.notice("removed from the region: clients are sent to the others")
        ServiceManager.tell("STOPPING=1")
        server.shutdown(within: .milliseconds(500)).whenComplete { _ in self.end.fail(Self.removed) }
    }

    /// Nothing of a later level has reached this build yet, and nothing may.
    func endIfOutdated(_ regionLevel: UInt16) {
        guard regionLevel > configuration.featureLevel else { return }
        end.fail(
            HostFailure(
                code: 3,
                "the region is at feature level \(regionLevel), and this build knows "
                    + "\(configuration.featureLevel): install the newer build again"))
    }

    /// After each new list, of our region or of another.
    func followPeers() {
        guard !isStopped, !end.hasFailed else { return }
        var listed = members.version == 0 ? configuration.ownPeers : [:]
        for member in members.members where member.node.seat != identity.node.seat {
            guard let address = peerAddress(of: member) else { continue }
            listed[PeerID(region: configuration.regionID, node: member.node.seat)] = address
        }
        listed.merge(neighbours.peers) { own, _ in own }
        let now = Clocks.instant()
        let isNews = dialled.follow(listed, at: now) { peer in
            peer.region == configuration.regionID && !node.incarnations(of: peer.node).isEmpty
        }
        if isNews { transport.setPeers(dialled.addresses) }
        farewell?.cancel()
        farewell = dialled.nextFarewell.map { at in
            loop.scheduleTask(in: .nanoseconds(Int64(at.since(now).nanoseconds))) { self.followPeers() }
        }
    }

    /// What etcd calls publishing: the list shows our name, where clients find us, and what we know.
    /// Tried again by the tick until it shows.
    func publish() {
        guard !isPublishing, !isStopping, let own = members.members.first(where: { $0.node == identity.node })
        else { return }
        let urls = configuration.me?.clientURLs ?? []
        let name = configuration.nodeName.isEmpty ? own.name : configuration.nodeName
        let level = configuration.featureLevel
        let zone = members.level >= FeatureLevel.placement ? configuration.zone : ""
        // Once in any case: who starts is not drained any more.
        guard
            !hasPublished || own.name != name || (!urls.isEmpty && own.clientURLs != urls)
                || own.level != level || (!zone.isEmpty && own.zone != zone)
        else { return }
        isPublishing = true
        let request = MembersRequest.publish(
            identity.node, name: name, clientURLs: urls.isEmpty ? own.clientURLs : urls,
            level: level, zone: zone)
        askDirectory(request, within: .seconds(5)) {
            self.isPublishing = false
            if case .members = $0 { self.hasPublished = true }
        }
    }

    // MARK: Who wants to come in

    func onQuestion(_ question: Bytes, answer: @escaping (Bytes?) -> Void) {
        var reader = ByteReader(question)
        guard case .ask(let asker)? = try? Admission.Message(&reader) else { return answer(nil) }
        func say(_ message: Admission.Message) {
            var writer = ByteWriter(capacity: 512)
            message.encode(into: &writer)
            answer(Bytes(writer.bytes))
        }
        let founders = identity.founders.map { Admission.Founder(seat: $0.seat, token: $0.token) }
        if let known = Admission.answer(to: asker, founders: founders) { return say(known) }
        logger.notice(
            "a new data directory asks to take part",
            metadata: ["seat": "\(asker.seat)", "name": "\(asker.name)"])
        askDirectory(.admit(asker), within: .seconds(3)) { response in
            switch response {
            case .members(let list, _):
                say(
                    .admitted(
                        list,
                        .init(
                            cluster: self.configuration.clusterID,
                            partitions: self.configuration.partitions)))
            case .failed(let error): say(.refused(error))
            case .transaction, .leaseGranted, .leaseRevoked, .leaseKeptAlive, .leaseTimeToLive,
                .leases, .compacted, .replicated, .auth, .split:
                answer(nil)
            }
        }
    }
}
