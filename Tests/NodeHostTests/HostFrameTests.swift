import Primitives
import Storage
import Testing
import Transport

@testable import NodeHost

@Suite struct HostFrameTests {
    private let group = GroupID(keyspace: .standard, partition: PartitionID(3))

    @Test func `snapshot messages survive the wire`() throws {
        let messages: [SnapshotMessage] = [
            .offer(group, number: 7, applied: Slot(99)),
            .offer(group, number: 7, applied: Slot(99), hashes: .all),
            .chunk(group, number: 7, index: 0, Bytes(Array(repeating: 5, count: 300))),
            .end(group, number: 7, chunks: 1), .next(group, number: 7, next: 8),
            .refused(group, number: .max),
        ]
        for message in messages {
            var reader = ByteReader(message.encoded())
            #expect(try HostFrame.kind(&reader) == .snapshot)
            #expect(try SnapshotMessage(&reader) == message)
        }
    }

    @Test func `messages about copies of stores survive the wire, cut ones are errors`() throws {
        let messages: [StoreCopyMessage] = [
            .wanted(number: 7, needs: [group: Slot(99), GroupID(keyspace: .standard, partition: .directory): .zero]),
            .chunk(number: 7, index: 0, Bytes(Array(repeating: 5, count: 300))),
            .end(number: 7, chunks: 1), .next(number: 7, next: 8),
            .refused(number: .max, reason: "busy"), .spread(number: 3),
        ]
        for message in messages {
            let whole = message.encoded()
            var reader = ByteReader(whole)
            #expect(try HostFrame.kind(&reader) == .storeCopy)
            #expect(try StoreCopyMessage(&reader) == message)
            for length in 0..<whole.count {
                #expect(throws: DecodingError.self) {
                    var reader = ByteReader(whole[0..<length])
                    _ = try HostFrame.kind(&reader)
                    _ = try StoreCopyMessage(&reader)
                }
            }
        }
    }

    @Test func `messages about rows held elsewhere survive the wire, cut ones are errors`() throws {
        let row = Row(
            key: "k", value: "value", createRevision: Revision(3), modRevision: Revision(9), version: 2,
            lease: LeaseID(7), sub: 1,
            origin: Origin(region: RegionID(1), revision: Revision(9), stamp: .zero))
        let hashes = HashRanges([HashRange(first: 5, last: 9), HashRange(first: 20, last: .max)])
        let range = KeyRange(key: "a", end: "z")
        let messages: [RowsMessage] = [
            .ask(number: 1, at: Revision(8), hashes, .rows(range, limit: 7, keysOnly: true)),
            .ask(number: 2, at: Revision(8), .all, .count(range)),
            .ask(number: 3, at: Revision(8), hashes, .changes(after: Revision(2), withPrevious: true)),
            .ask(number: 4, at: Revision(8), hashes, .hash(compacted: Revision(1))),
            .ask(number: 5, at: Revision(8), hashes, .leases),
            .ask(number: .max, at: Revision(8), hashes, .keys(of: LeaseID(-1))),
            .answer(number: 1, .rows([row, row], isWhole: false)), .answer(number: 2, .count(5)),
            .answer(
                number: 3,
                .changes(
                    [RevisionChanges(revision: Revision(9), rows: [row])], through: Revision(10),
                    previous: [row])),
            .answer(number: 4, .hash(77)), .answer(number: 5, .leases([LeaseID(1), LeaseID(-9)])),
            .ask(number: 8, at: Revision(8), .all, .leaseTimes),
            .answer(number: 8, .leaseTimes([LeaseID(1): 60, LeaseID(-9): 5])),
            .answer(number: 6, .keys(["a", "b"])), .answer(number: 7, .refused(.compacted)),
        ]
        for message in messages {
            let whole = message.encoded()
            var reader = ByteReader(whole)
            #expect(try HostFrame.kind(&reader) == .rows)
            #expect(try RowsMessage(&reader) == message)
            for length in 0..<whole.count {
                #expect(throws: DecodingError.self) {
                    var reader = ByteReader(whole[0..<length])
                    _ = try HostFrame.kind(&reader)
                    _ = try RowsMessage(&reader)
                }
            }
        }
    }

    @Test func `changes of several nodes are told in one order, and what they replaced is remembered`() {
        func row(_ key: Bytes, _ revision: Int64, sub: UInt32 = 0) -> Row {
            Row(
                key: key, value: "v", createRevision: Revision(1), modRevision: Revision(revision), version: 2,
                lease: LeaseID(0), sub: sub,
                origin: Origin(region: RegionID(1), revision: Revision(revision), stamp: .zero))
        }
        let here = [
            RevisionChanges(revision: Revision(5), rows: [row("b", 5, sub: 1)]),
            RevisionChanges(revision: Revision(8), rows: [row("b", 8)]),
        ]
        let there = [
            RevisionChanges(revision: Revision(4), rows: [row("a", 4)]),
            RevisionChanges(revision: Revision(5), rows: [row("a", 5, sub: 0)]),
        ]
        let merged = JoinedChanges.merge([here, there], through: Revision(7))
        #expect(merged.map(\.revision) == [Revision(4), Revision(5)])
        #expect(merged[1].rows.map(\.key) == ["a", "b"])

        var joined = JoinedChanges()
        joined.pass(Revision(3))
        let hasRoom = joined.add(here, through: Revision(8))
        #expect(hasRoom)
        joined.know([row("a", 4)], before: there)
        #expect(joined.previous("a", at: Revision(4)) == .some(row("a", 4)))
        #expect(joined.previous("a", at: Revision(3)) == nil)
        // Of a key that changes twice, both.
        joined.know([row("a", 2), row("a", 4)], before: there)
        #expect(joined.previous("a", at: Revision(3)) == .some(row("a", 2)))
        #expect(joined.previous("a", at: Revision(4)) == .some(row("a", 4)))
        joined.pass(Revision(5))
        #expect(joined.own.map(\.revision) == [Revision(8)] && joined.due == Revision(8))
    }

    @Test func `a damaged store is fetched from whom the node knew last, or else from the configuration's`() {
        var configuration = HostConfiguration()
        let here = PeerID(region: RegionID(1), node: NodeID(3)), there = PeerID(region: RegionID(2), node: NodeID(1))
        let address = PeerAddress(host: "n3", port: 2380)
        let lines = StoreRepair.lines(of: [here: address, there: address], configuration)
        #expect(lines == ["1 3 n3 2380"])
        #expect(StoreRepair.peers(of: .init(reason: "x", peers: lines), configuration) == [here: address])
        #expect(StoreRepair.peers(of: .init(reason: "x"), configuration).isEmpty)
        configuration.members = [1, 2].map {
            .init(
                id: NodeID($0), name: "n\($0)", peer: NetworkAddress(host: "n\($0)", port: 2380),
                clientURLs: [])
        }
        let others = StoreRepair.peers(of: .init(reason: "x", peers: ["1 3 n3"]), configuration)
        #expect(Array(others.keys) == [PeerID(region: RegionID(1), node: NodeID(2))])
    }

    @Test func `a cut or lengthened snapshot message is an error, never a trap`() throws {
        let whole = SnapshotMessage.chunk(group, number: 1, index: 2, "payload").encoded()
        for length in 0..<whole.count {
            #expect(throws: DecodingError.self) {
                var reader = ByteReader(whole[0..<length])
                _ = try HostFrame.kind(&reader)
                _ = try SnapshotMessage(&reader)
            }
        }
        var longer = ByteReader(Bytes(whole.array + [0]))
        _ = try HostFrame.kind(&longer)
        #expect(throws: DecodingError.self) { _ = try SnapshotMessage(&longer) }
    }

    @Test func `unknown kinds and versions are told apart from damage`() throws {
        var unknown = ByteReader(Bytes([99, HostFrame.version]))
        #expect(try HostFrame.kind(&unknown) == nil)
        var newer = ByteReader(Bytes([1, HostFrame.version + 1]))
        #expect(try HostFrame.kind(&newer) == nil)
        #expect(throws: DecodingError.self) {
            var empty = ByteReader(.empty)
            _ = try HostFrame.kind(&empty)
        }
    }

    @Test func `the log's thread wakes the loop once for many tickets`() {
        let mark = DurableMark()
        #expect(mark.raise(1))
        #expect(!mark.raise(2))
        #expect(mark.take() == 2)
        #expect(mark.raise(3))
        #expect(mark.take() == 3)
    }

    @Test func `the first reason why a node cannot go on is the one that counts`() {
        let end = HostEnd()
        #expect(!end.hasFailed)
        end.fail(HostFailure(code: 6, "first"))
        end.fail(HostFailure(code: 5, "second"))
        guard case .failed(let reason) = end.wait(orSignal: -1) else {
            Issue.record("no failure")
            return
        }
        #expect(reason == HostFailure(code: 6, "first"))
    }

    @Test func `endpoints read as etcdctl reads them`() {
        #expect(Endpoint("127.0.0.1:2379")?.description == "http://127.0.0.1:2379")
        #expect(Endpoint("https://h:1/")?.description == "https://h:1")
        #expect(Endpoint("ftp://h:1") == nil)
        #expect(Endpoint("https://") == nil)
    }

    @Test func `JSON is escaped`() {
        let text = JSON.object([("a\"b", .string("x\n\u{1}é")), ("n", .null)]).text
        #expect(text == #"{"a\"b":"x\n\u0001é","n":null}"#)
    }

    @Test func `wall time prints as RFC 3339`() {
        #expect(
            WallTime.text(secondsSince1970: 1_764_100_158, microseconds: 42)
                == "2025-11-25T19:49:18.000042Z")
    }
}
