package import Primitives
package import Transport

/// Where the nodes of the other regions are, as those regions say themselves. The configuration names
/// who founded them; members come and go. What a region tells of its members is passed on from node
/// to node, kept in the data directory, and counts instead of the configuration (decision 0018).
package struct NeighbourBook: Equatable {
    /// One region's members that have started.
    package struct Listing: Equatable {
        /// Of the region's list of members: the later one counts.
        package var version: UInt64
        /// By seats. Never empty.
        package var nodes: [NodeID: PeerAddress]
        package init(version: UInt64, nodes: [NodeID: PeerAddress]) {
            self.version = version
            self.nodes = nodes
        }
    }

    static let nodesMax = 255
    static let regionsMax = 64

    private var configured: [RegionID: [NodeID: PeerAddress]] = [:]
    package private(set) var known: [RegionID: Listing] = [:]

    package init(_ configured: [PeerID: PeerAddress]) {
        for (peer, address) in configured { self.configured[peer.region, default: [:]][peer.node] = address }
    }

    /// Whom to talk to.
    var peers: [PeerID: PeerAddress] {
        var found: [PeerID: PeerAddress] = [:]
        for (region, nodes) in configured {
            for (node, address) in known[region]?.nodes ?? nodes {
                found[PeerID(region: region, node: node)] = address
            }
        }
        return found
    }

    /// True: news. A region that the configuration does not name is none of ours.
    package mutating func learn(_ listing: Listing, of region: RegionID) -> Bool {
        guard configured[region] != nil, !listing.nodes.isEmpty,
            listing.version > known[region]?.version ?? 0
        else { return false }
        known[region] = listing
        return true
    }

    // MARK: Between nodes

    /// Parts: region, version, count, and for each node its seat, host and port.
    package static func frame(_ listings: [RegionID: Listing]) -> Bytes {
        var writer = HostFrame.begin(.neighbours)
        writer.varint(listings.count)
        for (region, listing) in listings.sorted(by: { $0.key < $1.key }) {
            writer.id(region)
            writer.varint(listing.version)
            writer.varint(listing.nodes.count)
            for (node, address) in listing.nodes.sorted(by: { $0.key < $1.key }) {
                writer.id(node)
                writer.string(address.host)
                writer.varint(address.port)
            }
        }
        return Bytes(writer.bytes)
    }

    package static func read(_ reader: inout ByteReader) throws(DecodingError) -> [RegionID: Listing] {
        let count = try reader.varint()
        guard count <= UInt64(regionsMax) else { throw DecodingError("\(count) regions") }
        var found: [RegionID: Listing] = [:]
        for _ in 0..<count {
            let region: RegionID = try reader.id(), version = try reader.varint()
            let nodes = try reader.varint()
            guard nodes <= UInt64(nodesMax) else { throw DecodingError("\(nodes) nodes of a region") }
            var listing = Listing(version: version, nodes: [:])
            for _ in 0..<nodes {
                let node: NodeID = try reader.id(), host = String(try reader.string())
                let port = try reader.varint()
                // The file has them between blanks.
                guard !host.isEmpty, host.utf8.count <= 255, (1...65535).contains(port),
                    host.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F })
                else { throw DecodingError("no address: port \(port)") }
                listing.nodes[node] = PeerAddress(host: host, port: Int(port))
            }
            found[region] = listing
        }
        try reader.expectEnd()
        return found
    }

    // MARK: The file

    static let fileName = "neighbours"
    private static let fileTitle = "polder-neighbours 1"

    /// `region`, `configured` and `node` lines (docs/formats.md). What was configured when it was written
    /// stands beside it: whoever changes that has the last word.
    package var file: String {
        var lines = [Self.fileTitle]
        for (region, listing) in known.sorted(by: { $0.key < $1.key }) {
            lines.append("region \(region) \(listing.version)")
            lines += Self.lines("configured", configured[region] ?? [:])
            lines += Self.lines("node", listing.nodes)
        }
        return lines.joined(separator: "\n") + "\n"
    }

    private static func lines(_ word: String, _ nodes: [NodeID: PeerAddress]) -> [String] {
        nodes.sorted { $0.key < $1.key }.map { "\(word) \($0.key) \($0.value.host) \($0.value.port)" }
    }

    /// False: it is not such a file, and nothing has changed.
    package mutating func read(file: String) -> Bool {
        let lines = file.split(separator: "\n")
        guard lines.first.map(String.init) == Self.fileTitle,
            lines.count <= Self.regionsMax * (2 * Self.nodesMax + 1)
        else { return false }
        var found: [(region: RegionID, configured: [NodeID: PeerAddress], listing: Listing)] = []
        for line in lines.dropFirst() {
            let words = line.split(separator: " ")
            switch (words.first, words.count) {
            case ("region", 3):
                guard let region = UInt16(words[1]), let version = UInt64(words[2]) else { return false }
                found.append((RegionID(region), [:], Listing(version: version, nodes: [:])))
            case ("configured", 4), ("node", 4):
                guard !found.isEmpty, let node = UInt16(words[1]), let port = Int(words[3]),
                    (1...65535).contains(port)
                else { return false }
                let address = PeerAddress(host: String(words[2]), port: port)
                if words[0] == "node" {
                    found[found.count - 1].listing.nodes[NodeID(node)] = address
                } else {
                    found[found.count - 1].configured[NodeID(node)] = address
                }
            default: return false
            }
        }
        for entry in found where entry.configured == configured[entry.region] {
            _ = learn(entry.listing, of: entry.region)
        }
        return true
    }
}
