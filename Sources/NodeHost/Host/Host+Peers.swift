import GeoReplication
import Logging
import NIOCore
import Node
import Primitives
import Storage
import Transport

/// The transport holds its delegate weakly and wants it before the host is whole.
final class PeerDelegate: PeerTransportDelegate {
    weak var host: Host?

    func onConnected(_ peer: PeerID, boot: UInt64) { host?.onConnected(peer) }
    func onDisconnected(_ peer: PeerID, lost: Bool) { host?.onDisconnected(peer, lost: lost) }
    func onFrame(_ peer: PeerID, _ frame: Bytes) { host?.onFrame(peer, frame) }
    func onNote(_ note: TransportNote) { host?.onNote(note) }
    func onQuestion(_ question: Bytes, answer: @escaping (Bytes?) -> Void) {
        guard let host else { return answer(nil) }
        host.onQuestion(question, answer: answer)
    }
}

extension Host {
    // MARK: From peers

    func onConnected(_ peer: PeerID) {
        logger.info("connected", metadata: ["peer": "\(peer)"])
        var writer = HostFrame.begin(.greeting)
        writer.string(PolderVersion.text)
        let urls = configuration.me?.clientURLs ?? []
        writer.varint(UInt64(urls.count))
        for url in urls { writer.string(url) }
        transport.send(Bytes(writer.bytes), to: peer)
        if peer.region == configuration.regionID {
            transport.send(alarms.frame, to: peer)
            enqueue(.connected(peer.node))
        } else {
            enqueue(.linkConnected(peer.region, peer.node))
        }
        tellNeighbours(to: peer)
    }

    func onDisconnected(_ peer: PeerID, lost: Bool) {
        logger.info("disconnected", metadata: ["peer": "\(peer)", "lost": "\(lost)"])
        figures.disconnectedAt[peer] = Clocks.instant()
        courier.onDisconnected(peer)
        copier.onDisconnected(peer)
        if peer.region == configuration.regionID {
            for other in members.nodes where other.seat == peer.node {
                elsewhere.onDisconnected(other, at: Clocks.instant())
            }
        }
        if peer.region == configuration.regionID {
            alarms.forget(memberID(of: peer.node))
        }
        if peer.region == configuration.regionID {
            enqueue(.disconnected(peer.node, lost: lost))
        } else {
            enqueue(.linkDisconnected(peer.region, peer.node))
        }
    }

    func onFrame(_ peer: PeerID, _ frame: Bytes) {
        do throws(DecodingError) {
            var reader = ByteReader(frame)
            guard let kind = try HostFrame.kind(&reader) else {
                figures.framesUnknown += 1
                return
            }
            try onFrame(peer, kind, &reader)
        } catch {
            // A peer of the same cluster that speaks nonsense: dropped and counted, never fatal.
            figures.framesMalformed += 1
            logger.error(
                "malformed frame", metadata: ["peer": "\(peer)", "reason": "\(error.what)"])
        }
    }

    private func onFrame(
        _ peer: PeerID, _ kind: HostFrame.Kind, _ reader: inout ByteReader
    ) throws(DecodingError) {
        let isOurRegion = peer.region == configuration.regionID
        switch kind {
        case .messages:
            guard isOurRegion else { throw DecodingError("messages from another region") }
            let frame = try PeerFrame.decode(try reader.raw(reader.remaining))
            guard frame.keyspace == .standard else {
                throw DecodingError("keyspace \(frame.keyspace)")
            }
            guard frame.from.seat == peer.node else { throw DecodingError("from \(frame.from)") }
            guard frame.to == identity.node else {
                // Meant for another incarnation: a sign of life, and no more.
                enqueue(.message(from: frame.from, .heartbeat))
                return
            }
            for message in frame.messages { enqueue(.message(from: frame.from, message)) }
        case .link:
            guard !isOurRegion else { throw DecodingError("a link's message from our region") }
            let message = try reader.linkMessage()
            try reader.expectEnd()
            enqueue(.linkMessage(peer.region, peer.node, message))
        case .snapshot:
            guard isOurRegion else { throw DecodingError("a snapshot from another region") }
            let message = try SnapshotMessage(&reader)
            do throws(StorageError) {
                try courier.onMessage(message, from: peer, at: Clocks.instant())
            } catch {
                end.fail(HostFailure(error))
            }
            transport.flush()
        case .rows:
            guard isOurRegion else { throw DecodingError("another region's rows") }
            let bytes = reader.remaining
            onRows(try RowsMessage(&reader), from: peer, bytes: bytes)
        case .disk:
            guard isOurRegion else { throw DecodingError("another region's disk") }
            try onDisk(&reader, from: peer)
        case .storeCopy:
            guard isOurRegion else { throw DecodingError("a store from another region") }
            let message = try StoreCopyMessage(&reader)
            do throws(StorageError) {
                try copier.onMessage(message, from: peer, at: Clocks.instant())
            } catch {
                end.fail(HostFailure(error))
            }
            transport.flush()
        case .alarms:
            guard isOurRegion else { throw DecodingError("alarms from another region") }
            let from = memberID(of: peer.node)
            if try alarms.merge(&reader, from: from) { noticeAlarms() }
            keepAlarms()
        case .load:
            guard isOurRegion else { throw DecodingError("another region's load") }
            try onLoad(&reader, from: peer)
        case .neighbours: try onNeighbours(&reader, from: peer)
        case .greeting:
            versions[peer] = String(try reader.string().prefix(64))
            // Builds before etcd's flags say no more than their version.
            guard reader.remaining > 0 else { return }
            let count = try reader.varint()
            guard count <= 64 else { throw DecodingError("\(count) client URLs") }
            var urls: [String] = []
            for _ in 0..<count { urls.append(String(try reader.string().prefix(256))) }
            advertised[peer] = urls
        }
    }

    func onNote(_ note: TransportNote) {
        switch note {
        case .refusedInbound, .refusedByPeer, .malformed, .queueOverflow:
            logger.warning("transport: \(note)")
        case .connectionFailed: logger.debug("transport: \(note)")
        case .isOutdated(let level): endIfOutdated(level)
        case .faultSet: logger.notice("transport: \(note)")
        }
    }

    // MARK: To peers

    /// One frame per peer and turn, in the order in which the peers are first named.
    func sendToPeers() {
        for (to, message) in effects.sends {
            let slot = Int(to.rawValue)
            while outgoing.count <= slot { outgoing.append([]) }
            if outgoing[slot].isEmpty { outgoingOrder.append(to) }
            outgoing[slot].append(message)
        }
        for to in outgoingOrder {
            var writer = HostFrame.begin(.messages, capacity: 1024)
            PeerFrame.encode(
                outgoing[Int(to.rawValue)], keyspace: .standard, from: identity.node, to: to,
                into: &writer)
            outgoing[Int(to.rawValue)].removeAll(keepingCapacity: true)
            transport.send(
                Bytes(writer.bytes), to: PeerID(region: configuration.regionID, node: to.seat))
        }
        outgoingOrder.removeAll(keepingCapacity: true)
        for send in effects.linkSends {
            var writer = HostFrame.begin(.link)
            writer.linkMessage(send.message)
            transport.send(Bytes(writer.bytes), to: PeerID(region: send.region, node: send.node))
        }
    }

    /// To every node of this region, at once.
    func tellRegion(_ frame: Bytes) {
        for peer in dialled.addresses.keys.sorted() where peer.region == configuration.regionID {
            transport.send(frame, to: peer)
        }
        transport.flush()
    }

    // MARK: Snapshots

    /// Where a group's rows lie, as far as its log is applied; the directory has none. Nil: not here.
    func hashes(of group: GroupID) -> HashRange? {
        if group.partition == .directory { return HashRange(first: 0, last: 0) }
        return node.range(of: group.partition)
    }

    func onSnapshotInstalled(_ group: GroupID) {
        // Its rows are in the store, and do not count yet.
        if isPartial {
            isStoreClean = false
            servesAllPresent = false
        }
        do throws(StorageError) {
            enqueue(.snapshotInstalled(group, records: try store.records(of: group)))
        } catch {
            end.fail(HostFailure(error))
        }
    }
}
