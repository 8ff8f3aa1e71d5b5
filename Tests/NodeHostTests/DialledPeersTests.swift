import Primitives
import Testing
import Transport

@testable import NodeHost

@Suite struct DialledPeersTests {
    private static func peer(_ node: UInt16) -> PeerID { PeerID(region: RegionID(1), node: NodeID(node)) }
    private static func list(_ nodes: UInt16...) -> [PeerID: PeerAddress] {
        var found: [PeerID: PeerAddress] = [:]
        for node in nodes { found[peer(node)] = PeerAddress(host: "10.0.0.1", port: Int(node)) }
        return found
    }
    private static func at(_ seconds: UInt64) -> Instant { Instant.zero.advanced(by: .seconds(seconds)) }

    /// One was added nine seconds before another left: the first one's time was up a second later, and took
    /// both. The second one heard nothing any more, and its clients got no answers.
    @Test func `who leaves is talked to for ten seconds, whenever lists changed before`() {
        var peers = DialledPeers()
        var isNeeded = false
        func follow(_ list: [PeerID: PeerAddress], _ seconds: UInt64) -> Bool {
            peers.follow(list, at: Self.at(seconds)) { _ in isNeeded }
        }
        #expect(follow(Self.list(1, 2), 0))
        #expect(peers.nextFarewell == nil)
        #expect(!follow(Self.list(2), 1))
        #expect(peers.nextFarewell == Self.at(11))
        #expect(follow(Self.list(2, 3), 10))
        #expect(!follow(Self.list(3), 10))
        #expect(peers.addresses == Self.list(1, 2, 3))
        #expect(follow(Self.list(3), 11))
        #expect(peers.addresses == Self.list(2, 3))
        #expect(peers.nextFarewell == Self.at(20))
        isNeeded = true
        #expect(!follow(Self.list(3), 20))
        #expect(peers.nextFarewell == Self.at(30))
        isNeeded = false
        #expect(!follow(Self.list(3), 21))
        #expect(follow(Self.list(3), 30))
        #expect(peers.addresses == Self.list(3))
        #expect(peers.nextFarewell == nil)
    }

    @Test func `who comes back has left no more, and a new address counts`() {
        var peers = DialledPeers()
        func follow(_ list: [PeerID: PeerAddress], _ seconds: UInt64) -> Bool {
            peers.follow(list, at: Self.at(seconds)) { _ in false }
        }
        #expect(follow(Self.list(1, 2), 0))
        #expect(!follow(Self.list(1), 1))
        #expect(!follow(Self.list(1, 2), 2))
        #expect(peers.nextFarewell == nil)
        #expect(!follow(Self.list(1), 20))
        #expect(peers.nextFarewell == Self.at(30))
        let moved = [Self.peer(1): PeerAddress(host: "10.0.0.2", port: 1)]
        #expect(follow(moved, 30))
        #expect(peers.addresses == moved)
    }
}
