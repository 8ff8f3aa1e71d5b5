import Logging
import Primitives
import Storage
import Transport

// The members of other regions, who come and go as ours do.
extension Host {
    /// Our own region's, for others. Nil: nobody has said yet who they are.
    private var ownListing: NeighbourBook.Listing? {
        guard members.version > 0 else { return nil }
        var nodes: [NodeID: PeerAddress] = [:]
        for member in members.members where member.isStarted {
            if let address = peerAddress(of: member) { nodes[member.node.seat] = address }
        }
        return nodes.isEmpty ? nil : NeighbourBook.Listing(version: members.version, nodes: nodes)
    }

    func peerAddress(of member: RegionMembers.Member) -> PeerAddress? {
        guard let address = member.peerURLs.lazy.compactMap({ try? EtcdURL($0).address }).first else {
            return nil
        }
        return PeerAddress(host: address.host, port: address.port)
    }

    /// Everything that we know and `peer` may not: of its own region it knows more.
    func tellNeighbours(to peer: PeerID) {
        guard !configuration.remoteRegions.isEmpty else { return }
        var listings = neighbours.known
        listings[configuration.regionID] = ownListing
        listings[peer.region] = nil
        guard !listings.isEmpty else { return }
        transport.send(NeighbourBook.frame(listings), to: peer)
    }

    func tellNeighbours(besides from: PeerID? = nil) {
        guard !configuration.remoteRegions.isEmpty else { return }
        for peer in dialled.addresses.keys.sorted() where peer != from { tellNeighbours(to: peer) }
        transport.flush()
    }

    func onNeighbours(_ reader: inout ByteReader, from peer: PeerID) throws(DecodingError) {
        var isNews = false
        for (region, listing) in try NeighbourBook.read(&reader) where region != configuration.regionID {
            guard neighbours.learn(listing, of: region) else { continue }
            isNews = true
            logger.info(
                "members of another region",
                metadata: [
                    "region": "\(region)", "version": "\(listing.version)",
                    "nodes": "\(listing.nodes.keys.sorted())",
                ])
        }
        guard isNews else { return }
        keepNeighbours()
        followPeers()
        // It ends where nobody learns anything new.
        tellNeighbours(besides: peer)
    }

    private func keepNeighbours() {
        do throws(StorageError) {
            try directory.replaceFile(NeighbourBook.fileName, Array(neighbours.file.utf8))
        } catch {
            logger.error("members of other regions not kept", metadata: ["reason": "\(error)"])
        }
    }

    func restoreNeighbours() {
        do throws(StorageError) {
            guard let bytes = try directory.file(NeighbourBook.fileName) else { return }
            if neighbours.read(file: String(decoding: bytes, as: UTF8.self)) { return }
            logger.error(
                "members of other regions are forgotten: the file is damaged",
                metadata: ["file": "\(NeighbourBook.fileName)"])
        } catch {
            logger.error("members of other regions not read", metadata: ["reason": "\(error)"])
        }
    }
}
