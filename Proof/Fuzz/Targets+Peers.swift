import NIOCore
import Node
import NodeHost
import Primitives
import Simulator
import Transport

extension FuzzTarget {
    /// What comes over a line between nodes: frames, and in them greetings and snapshots' messages.
    nonisolated(unsafe) static let peerFrames = FuzzTarget(
        name: "peer-frames", what: "a peer's bytes: frames, greetings, snapshots' messages",
        repair: repairFrames
    ) {
        let group = GroupID(keyspace: .standard, partition: PartitionID(1))
        let messages: [SnapshotMessage] = [
            .offer(group, number: 1, applied: Slot(9)),
            .offer(group, number: 1, applied: Slot(9), hashes: .all), .chunk(group, number: 1, index: 2, "chunk"),
            .end(group, number: 1, chunks: 3), .next(group, number: 1, next: 4), .refused(group, number: 1),
        ]
        let hello = Hello(
            cluster: 7, from: PeerID(region: RegionID(1), node: NodeID(1)), boot: 5,
            to: PeerID(region: RegionID(1), node: NodeID(2)))
        var question = ByteWriter()
        Admission.Message.ask(
            .init(token: 9, seat: NodeID(1), name: "n1", peerURLs: ["http://a:2380"])
        ).encode(into: &question)
        let there = PeerAddress(host: "10.0.0.1", port: 2380)
        let neighbours = NeighbourBook.frame([
            RegionID(1): .init(version: 3, nodes: [NodeID(1): there, NodeID(4): there]),
            RegionID(2): .init(version: 300, nodes: [NodeID(2): there]),
        ])
        let rows = rowsMessages.map { $0.encoded() }
        var samples: [[UInt8]] = []
        for compress in [false, true] {
            var all = ByteBuffer()
            all.writeFrame(.hello, hello.encoded(), compress: false, checksum: true)
            all.writeFrame(.ping, .empty, compress: false, checksum: true)
            all.writeFrame(.question, Bytes(question.bytes), compress: false, checksum: true)
            for message in messages { all.writeFrame(.data, message.encoded(), compress: compress, checksum: true) }
            all.writeFrame(.data, neighbours, compress: compress, checksum: true)
            for message in rows { all.writeFrame(.data, message, compress: compress, checksum: true) }
            all.writeFrame(.data, Bytes([UInt8](repeating: 7, count: 3000)), compress: compress, checksum: true)
            samples.append(Array(all.readableBytesView))
        }
        return Prepared(samples: samples) { input in
            var seen: [Int] = []
            for piece in [input.count, 5] {
                seen.append(try frames(input, piece: max(1, piece)))
            }
            guard seen[0] == seen[1] else { throw Finding("\(seen) frames, depending on the pieces") }
            if seen[0] == 0 { throw DecodingError("no frame") }
        }
    }

    private static func frames(_ input: [UInt8], piece: Int) throws -> Int {
        var decoder = FrameDecoder(checksum: true)
        decoder.lengthMax = FrameHeader.payloadMax
        var found = 0
        for start in stride(from: 0, to: input.count, by: piece) {
            let part = Array(input[start..<min(input.count, start + piece)])
            do {
                try part.withUnsafeBytes { raw in
                    var rest = raw
                    while let frame = try decoder.next(&rest) {
                        found += 1
                        try content(frame)
                    }
                }
            } catch let finding as Finding {
                throw finding
            } catch { return found }
        }
        return found
    }

    private static func content(_ frame: Frame) throws {
        switch frame.kind {
        case .hello, .welcome:
            guard let hello = try? Hello(frame.payload) else { return }
            guard try Hello(hello.encoded()) == hello else { throw Finding("\(hello) became another") }
        case .data:
            guard frame.payload.count > 2, frame.payload[1] == 1 else { return }
            if frame.payload[0] == 20 { return try neighbours(frame.payload[2..<frame.payload.count]) }
            if frame.payload[0] == 19 { return try rows(frame.payload[2..<frame.payload.count]) }
            guard frame.payload[0] == 3 else { return }
            var reader = ByteReader(frame.payload[2..<frame.payload.count])
            guard let message = try? SnapshotMessage(&reader) else { return }
            let encoded = message.encoded()
            var again = ByteReader(encoded[2..<encoded.count])
            guard try SnapshotMessage(&again) == message else { throw Finding("\(message) became another") }
        case .question, .answer:
            var reader = ByteReader(frame.payload)
            guard let message = try? Admission.Message(&reader) else { return }
            var writer = ByteWriter()
            message.encode(into: &writer)
            var again = ByteReader(Bytes(writer.bytes))
            guard try Admission.Message(&again) == message else {
                throw Finding("\(message) became another")
            }
        case .refusal, .ping, .pong: break
        }
    }

    /// What nodes of a region that is spread ask one another.
    private static var rowsMessages: [RowsMessage] {
        let range = KeyRange(key: "a", end: "b")
        let hashes = HashRanges([HashRange(first: 5, last: 9), HashRange(first: 100, last: .max)])
        let row = Row(
            key: "k", value: "v", createRevision: Revision(2), modRevision: Revision(4), version: 2,
            lease: LeaseID(7), sub: 1,
            origin: Origin(region: RegionID(1), revision: Revision(4), stamp: .zero))
        let questions: [RowsQuestion] = [
            .rows(range, limit: 10, keysOnly: true), .count(range),
            .changes(after: Revision(3), withPrevious: true), .hash(compacted: Revision(1)), .leases,
            .keys(of: LeaseID(-7)),
        ]
        let answers: [RowsAnswer] = [
            .rows([row, row], isWhole: false), .count(3),
            .changes([RevisionChanges(revision: Revision(4), rows: [row])], through: Revision(9), previous: [row]),
            .hash(77), .leases([LeaseID(1), LeaseID(-1)]), .keys(["x", "y"]), .refused(.elsewhere),
        ]
        return questions.map { .ask(number: 300, at: Revision(9), hashes, $0) }
            + answers.map { .answer(number: 300, $0) }
    }

    private static func rows(_ body: Bytes) throws {
        var reader = ByteReader(body)
        guard let message = try? RowsMessage(&reader) else { return }
        let encoded = message.encoded()
        var again = ByteReader(encoded[2..<encoded.count])
        guard try RowsMessage(&again) == message else { throw Finding("\(message) became another") }
    }

    /// What was heard is passed on, and kept in a file.
    private static func neighbours(_ body: Bytes) throws {
        var reader = ByteReader(body)
        guard let told = try? NeighbourBook.read(&reader) else { return }
        let encoded = NeighbourBook.frame(told)
        var again = ByteReader(encoded[2..<encoded.count])
        guard try NeighbourBook.read(&again) == told else { throw Finding("\(told) became another") }
        var configured: [PeerID: PeerAddress] = [:]
        for region in told.keys {
            configured[PeerID(region: region, node: NodeID(1))] = PeerAddress(host: "a", port: 1)
        }
        var book = NeighbourBook(configured), later = book
        for (region, listing) in told { _ = book.learn(listing, of: region) }
        guard later.read(file: book.file), later == book else {
            throw Finding("\(book.file) became another")
        }
    }

    private static func repairFrames(_ input: [UInt8]) -> [UInt8] {
        var bytes = input
        var at = 0
        while at + FrameHeader.size <= bytes.count {
            let length = (0..<4).reduce(0) { $0 | Int(bytes[at + 4 + $1]) << (8 * $1) }
            let end = at + FrameHeader.size + length
            guard end <= bytes.count else { break }
            let sum = bytes.withUnsafeBytes { raw in
                CRC32C.checksum(
                    UnsafeRawBufferPointer(rebasing: raw[(at + FrameHeader.size)..<end]),
                    seed: CRC32C.checksum(UnsafeRawBufferPointer(rebasing: raw[at..<(at + 12)])))
            }
            for i in 0..<4 { bytes[at + 12 + i] = UInt8(truncatingIfNeeded: sum >> UInt32(8 * i)) }
            at = end
        }
        return bytes
    }

    /// The pure modules' own formats; their samples come from a short simulation.
    nonisolated(unsafe) static let pure: [FuzzTarget] = ParserFuzzer.Target.allCases.map { target in
        let names: [ParserFuzzer.Target: (String, String)] = [
            .peerFrame: ("peer-messages", "what nodes of a region say to one another"),
            .linkMessage: ("link-messages", "what regions say to one another"),
            .logRecord: ("log-records", "records of the log"),
            .entry: ("log-entries", "entries of a group's log"),
            .partitionRecords: ("partition-records", "a partition's own records"),
            .conflictRecord: ("conflict-records", "records of conflicts"),
            .historyFile: ("history-files", "histories for `polder check`"),
        ]
        let (name, what) = names[target] ?? (target.rawValue, "")
        return FuzzTarget(name: name, what: what, grammar: target == .historyFile ? .text : .bytes) {
            let samples = ParserFuzzer(seed: 1).samples(of: target).map(\.array)
            // Enough variety, and a corpus that fits the cache.
            let some = samples.enumerated().filter { $0.offset % max(1, samples.count / 400) == 0 }
            return Prepared(samples: some.map(\.element)) { input in
                do {
                    try ParserFuzzer.parse(target, Bytes(input))
                } catch let error as ParserFuzzer.Different {
                    throw Finding(error.what)
                }
            }
        }
    }
}
