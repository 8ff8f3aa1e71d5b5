import Primitives
import Testing
import Transport

@testable import NodeHost

@Suite struct NeighbourBookTests {
    private static let two = RegionID(2)
    private static func at(_ port: Int) -> PeerAddress { PeerAddress(host: "10.0.0.1", port: port) }
    private static func configured(_ ports: [UInt16: Int]) -> [PeerID: PeerAddress] {
        var found: [PeerID: PeerAddress] = [:]
        for (node, port) in ports { found[PeerID(region: two, node: NodeID(node))] = at(port) }
        return found
    }
    private static func listing(_ version: UInt64, _ ports: [UInt16: Int]) -> NeighbourBook.Listing {
        var nodes: [NodeID: PeerAddress] = [:]
        for (node, port) in ports { nodes[NodeID(node)] = at(port) }
        return .init(version: version, nodes: nodes)
    }

    @Test func `what a region says of its members counts instead of the configuration`() {
        var book = NeighbourBook(Self.configured([1: 11, 2: 12]))
        #expect(book.peers == Self.configured([1: 11, 2: 12]))
        let isNews = book.learn(Self.listing(5, [2: 12, 4: 14]), of: Self.two)
        #expect(isNews)
        #expect(book.peers == Self.configured([2: 12, 4: 14]))
    }

    @Test func `neither older lists, nor empty ones, nor regions that nobody named`() {
        var book = NeighbourBook(Self.configured([1: 11]))
        var news = [book.learn(Self.listing(5, [4: 14]), of: Self.two)]
        news.append(book.learn(Self.listing(5, [5: 15]), of: Self.two))
        news.append(book.learn(Self.listing(4, [5: 15]), of: Self.two))
        news.append(book.learn(Self.listing(9, [:]), of: Self.two))
        news.append(book.learn(Self.listing(9, [5: 15]), of: RegionID(3)))
        #expect(news == [true, false, false, false, false])
        #expect(book.peers == Self.configured([4: 14]))
    }

    @Test func `the file gives back what was known`() {
        var book = NeighbourBook(Self.configured([1: 11, 2: 12]))
        _ = book.learn(Self.listing(7, [2: 12, 4: 14]), of: Self.two)
        var later = NeighbourBook(Self.configured([1: 11, 2: 12]))
        let isRead = later.read(file: book.file)
        #expect(isRead)
        #expect(later == book)
    }

    @Test func `whoever changes the configuration has the last word`() {
        var book = NeighbourBook(Self.configured([1: 11]))
        _ = book.learn(Self.listing(7, [4: 14]), of: Self.two)
        var later = NeighbourBook(Self.configured([1: 21]))
        let isRead = later.read(file: book.file)
        #expect(isRead)
        #expect(later.peers == Self.configured([1: 21]))
    }

    @Test(arguments: [
        "", "polder-alarms 1\n", "polder-neighbours 1\nnode 1 h 2\n",
        "polder-neighbours 1\nregion 2 x\n", "polder-neighbours 1\nregion 2 1\nnode 1 h 70000\n",
        "polder-neighbours 1\nregion 2 1\nwhat 1 h 7\n",
    ])
    func `a damaged file changes nothing`(text: String) {
        var book = NeighbourBook(Self.configured([1: 11]))
        let isRead = book.read(file: text)
        #expect(!isRead)
        #expect(book == NeighbourBook(Self.configured([1: 11])))
    }

    @Test func `a frame carries all regions' lists`() throws {
        let listings = [Self.two: Self.listing(7, [2: 12, 4: 14]), RegionID(3): Self.listing(1, [1: 31])]
        var reader = ByteReader(NeighbourBook.frame(listings))
        let kind = try HostFrame.kind(&reader)
        #expect(kind == .neighbours)
        let read = try NeighbourBook.read(&reader)
        #expect(read == listings)
    }

    @Test(arguments: [
        PeerAddress(host: "h", port: 0), PeerAddress(host: "", port: 1), PeerAddress(host: "a b", port: 1),
        PeerAddress(host: "a\nnode", port: 1),
    ])
    func `a frame without an address is malformed`(address: PeerAddress) {
        let listing = NeighbourBook.Listing(version: 1, nodes: [NodeID(1): address])
        var reader = ByteReader(NeighbourBook.frame([Self.two: listing]))
        _ = try? HostFrame.kind(&reader)
        #expect(throws: DecodingError.self) { _ = try NeighbourBook.read(&reader) }
    }
}
