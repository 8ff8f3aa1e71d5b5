import Logging
import NIOCore
import Node
import Primitives
import Storage
import Synchronization
import TLS
import Transport

/// What comes before a node is one: with an empty data directory it asks the others who it is
/// (`Admission`). Listens where the node will listen, has no peers, and answers nothing but questions.
final class Entrance: @unchecked Sendable {
    private let configuration: HostConfiguration
    private let loop: any EventLoop
    private let logger: Logger
    private let transport: PeerTransport
    /// The transport holds it weakly.
    private let delegate: EntranceDelegate
    private var admission: Admission
    private var tick: RepeatedTask?
    private var toldAt = Instant.zero
    /// Read by the thread that waits.
    let outcome = Mutex<Admission.Outcome?>(nil)

    init(
        _ configuration: HostConfiguration, token: UInt64, isReturning: Bool, loop: any EventLoop,
        logger: Logger, transport: EntranceTransport
    ) {
        self.configuration = configuration
        self.loop = loop
        self.logger = logger
        self.transport = transport.transport
        delegate = transport.delegate
        admission = Entrance.admission(configuration, token: token, isReturning: isReturning)
    }

    /// Who returns, because what it had is set aside, has forgotten what it promised: it founds nothing, and
    /// does not say that it is new.
    static func admission(
        _ configuration: HostConfiguration, token: UInt64, isReturning: Bool
    ) -> Admission {
        let asker = RegionMembers.Asker(
            token: token, seat: configuration.isJoining ? .none : configuration.nodeID,
            name: configuration.nodeName,
            peerURLs: configuration.me.map { [configuration.peerURL(of: $0)] } ?? [],
            level: configuration.featureLevel)
        return Admission(
            asker: asker,
            initial: configuration.isJoining || isReturning ? [] : configuration.members.map(\.id))
    }

    func start() -> EventLoopFuture<Void> {
        transport.start().flatMapErrorThrowing { error in
            throw HostFailure(
                code: 3, "cannot listen on \(self.configuration.peerAddress) for peers: \(error)")
        }.map { _ in
            self.toldAt = Clocks.instant()
            self.tick = self.loop.scheduleRepeatedTask(
                initialDelay: .zero, delay: .milliseconds(200)
            ) { _ in self.ask() }
        }
    }

    func stop() -> EventLoopFuture<Void> {
        tick?.cancel()
        return transport.shutdown()
    }

    private func ask() {
        var writer = ByteWriter(capacity: 128)
        admission.question.encode(into: &writer)
        let question = Bytes(writer.bytes)
        for member in configuration.members where member.id != configuration.nodeID {
            let address = PeerAddress(host: member.peer.host, port: member.peer.port)
            let peer = PeerID(region: configuration.regionID, node: member.id)
            transport.ask(question, of: address, as: peer).whenSuccess { self.heard($0) }
        }
        let now = Clocks.instant()
        guard now.since(toldAt) >= .seconds(3) else { return }
        toldAt = now
        tell()
    }

    private func tell() {
        if let refusal = admission.refusal {
            logger.warning(
                "not admitted to the region yet", metadata: ["reason": "\(refusal)"])
        } else if !admission.missing.isEmpty {
            let names = configuration.members.filter { admission.missing.contains($0.id) }
                .map(\.name)
            logger.warning(
                "a new region begins when all of its members have come",
                metadata: ["missing": "\(names.joined(separator: ", "))"])
        } else {
            logger.warning("waiting for a member of the region to answer")
        }
    }

    private func heard(_ answer: Bytes) {
        var reader = ByteReader(answer)
        guard let message = try? Admission.Message(&reader) else { return }
        _ = admission.step(message)
        guard let found = admission.outcome else { return }
        tick?.cancel()
        outcome.withLock { if $0 == nil { $0 = found } }
    }

    // MARK: Others who ask

    func onQuestion(_ question: Bytes, answer: @escaping (Bytes?) -> Void) {
        var reader = ByteReader(question)
        guard let message = try? Admission.Message(&reader), let reply = admission.step(message)
        else { return answer(nil) }
        var writer = ByteWriter(capacity: 64)
        reply.encode(into: &writer)
        answer(Bytes(writer.bytes))
    }
}

/// The way in, from the outside.
extension Entrance {
    /// Who this data directory belongs to; asks the others if nobody knows. Nil: told to stop.
    static func identity(
        of configuration: inout HostConfiguration, loop: any EventLoop, logger: Logger,
        isStopped: () -> Bool
    ) throws -> NodeIdentity? {
        var identity = NodeIdentity(
            cluster: configuration.clusterID, region: configuration.regionID,
            regionName: configuration.regionName, node: configuration.nodeID)
        let isReturning: Bool
        do throws(StorageError) {
            try SetAside.finish(in: configuration.dataDirectory)
            isReturning = SetAside.isThere(in: configuration.dataDirectory)
            if isReturning {
                let reason = try SetAside.reason(in: configuration.dataDirectory) ?? "unknown"
                logger.warning(
                    "data of this node was set aside, and it has not got everything since",
                    metadata: ["reason": "\(reason)", "directory": "\(configuration.dataDirectory)/\(SetAside.name)"])
            }
            if let found = try DataDirectory.identity(at: configuration.dataDirectory) {
                if !found.isNew {
                    // Checked against what the configuration says when the directory is opened.
                    if found.node.seat == identity.node { identity.node = found.node }
                    identity.token = found.token
                    identity.founders = found.founders
                    return identity
                }
                identity.token = found.token
            } else {
                identity.token = UInt64.random(in: 1...UInt64.max)
            }
            identity.isNew = true
            // A token that was told must be kept; who joins does not know yet where it belongs.
            if !configuration.isJoining {
                try DataDirectory.open(configuration.dataDirectory, identity: identity).close()
            }
        } catch {
            throw HostFailure(error)
        }
        var outcome = admission(configuration, token: identity.token, isReturning: isReturning).outcome
        if outcome == nil {
            outcome = try ask(
                configuration, token: identity.token, isReturning: isReturning, loop: loop, logger: logger,
                isStopped: isStopped)
        }
        identity.isNew = false
        switch outcome {
        case nil: return nil
        case .founded(let founders):
            identity.founders = founders.map { .init(seat: $0.seat, token: $0.token) }
            logger.notice(
                "the region is founded", metadata: ["members": "\(founders.map(\.seat))"])
        case .admitted(let list, let region):
            guard let me = list.members.first(where: { $0.token == identity.token }) else {
                return nil
            }
            configuration.take(list, region, me: me)
            identity.cluster = configuration.clusterID
            identity.node = me.node
            logger.notice("admitted to the region", metadata: ["node": "\(me.node)"])
        }
        return identity
    }

    private static func ask(
        _ configuration: HostConfiguration, token: UInt64, isReturning: Bool, loop: any EventLoop,
        logger: Logger, isStopped: () -> Bool
    ) throws -> Admission.Outcome? {
        let entrance = try loop.submit {
            let transport = try Host.entranceTransport(configuration, loop: loop)
            let entrance = Entrance(
                configuration, token: token, isReturning: isReturning, loop: loop, logger: logger,
                transport: transport)
            transport.delegate.entrance = entrance
            return entrance
        }.wait()
        try loop.flatSubmit { entrance.start() }.wait()
        var outcome: Admission.Outcome?
        while outcome == nil, !isStopped() { outcome = entrance.outcome.withLock { $0 } }
        try loop.flatSubmit { entrance.stop() }.wait()
        return outcome
    }
}

/// The transport wants its delegate before the entrance is whole.
final class EntranceDelegate: PeerTransportDelegate, @unchecked Sendable {
    weak var entrance: Entrance?
    func onConnected(_ peer: PeerID, boot: UInt64) {}
    func onDisconnected(_ peer: PeerID, lost: Bool) {}
    func onFrame(_ peer: PeerID, _ frame: Bytes) {}
    func onQuestion(_ question: Bytes, answer: @escaping (Bytes?) -> Void) {
        guard let entrance else { return answer(nil) }
        entrance.onQuestion(question, answer: answer)
    }
}

struct EntranceTransport: Sendable {
    let transport: PeerTransport
    let delegate: EntranceDelegate
}

extension HostConfiguration {
    func peerURL(of member: Member) -> String {
        "\(peerTLS == nil ? "http" : "https")://\(member.peer)"
    }

    /// The list is the region's; ours was a guess, or the way to ask.
    fileprivate mutating func take(
        _ list: RegionMembers, _ region: Admission.Region, me: RegionMembers.Member
    ) {
        let own = self.me?.clientURLs ?? []
        clusterID = region.cluster
        partitions = region.partitions
        nodeID = me.node.seat
        if nodeName.isEmpty { nodeName = me.name }
        var found: [Member] = []
        for member in list.members {
            guard let address = member.peerURLs.lazy.compactMap({ try? EtcdURL($0).address }).first else {
                continue
            }
            let isMe = member.node == me.node
            found.append(
                Member(
                    id: member.node.seat, name: isMe ? nodeName : member.name, peer: address,
                    clientURLs: isMe ? own : member.clientURLs))
        }
        members = found
        isJoining = false
    }
}
