import Consensus
import GeoReplication
import Node
import Partitioning
package import Primitives

/// Damages real messages and records, and gives them to the parsers: each answers with a value or with
/// `DecodingError`, never with a crash or with more memory than the bytes are worth, and what it takes is
/// written and read again as the same. From a seed: the same every time.
package struct ParserFuzzer {
    package enum Target: String, CaseIterable, Sendable {
        case peerFrame, linkMessage, logRecord, entry, partitionRecords, conflictRecord, historyFile
    }

    package struct Report: Equatable, Sendable {
        package var rounds = 0
        package var accepted = 0
        package var refused = 0
        package var failures: [String] = []
    }

    private let corpus: [Target: [Bytes]]
    private var random: SplitMix

    /// Samples come from a short simulation.
    package init(seed: UInt64) {
        random = SplitMix(seed: seed)
        var found: [Target: [Bytes]] = [:]
        for i in 0..<2 as Range<UInt64> {
            var options = Simulation.Options(seed: seed &* 2 &+ i)
            options.duration = .milliseconds(300)
            options.regions = 2
            options.nodes = 3
            options.partitions = 2
            options.pace = 1
            let world = World(options: options)
            world.samples = [:]
            world.start()
            world.run(until: Instant.zero.advanced(by: .milliseconds(1_000)))
            for (target, samples) in world.samples ?? [:] { found[target, default: []] += samples }
            let history = HistoryFile.lines(of: world).prefix(40).joined(separator: "\n")
            found[.historyFile, default: []].append(Bytes(history))
            for address in world.addresses {
                guard let store = world.nodes[address]?.store else { continue }
                for group in store.groups {
                    var writer = ByteWriter()
                    writer.records(store.records(of: group))
                    found[.partitionRecords, default: []].append(Bytes(writer.bytes))
                    for record in store.records(of: group)
                    where record.key.starts(with: PartitionState.conflictPrefix) {
                        found[.conflictRecord, default: []].append(record.value)
                    }
                }
            }
        }
        corpus = found
    }

    package func samples(of target: Target) -> [Bytes] { corpus[target] ?? [] }
    package var sampleCount: Int { corpus.values.reduce(0) { $0 + $1.count } }

    /// `rounds` damaged inputs for one parser.
    package mutating func run(_ target: Target, rounds: Int) -> Report {
        var report = Report()
        let samples = corpus[target] ?? []
        guard !samples.isEmpty else {
            report.failures.append("\(target): no samples")
            return report
        }
        for _ in 0..<rounds {
            report.rounds += 1
            let input = damaged(samples)
            do {
                try Self.parse(target, input)
                report.accepted += 1
            } catch let error as Different {
                report.refused += 1
                if report.failures.count < 10 {
                    report.failures.append("\(target): \(error.what): \(input.array)")
                }
            } catch {
                report.refused += 1
            }
        }
        return report
    }

    // MARK: Damage

    private mutating func damaged(_ samples: [Bytes]) -> Bytes {
        var bytes = random.pick(samples).array
        for _ in 0..<(1 + random.below(4)) {
            let at = bytes.isEmpty ? 0 : Int(random.below(UInt64(bytes.count)))
            switch random.below(8) {
            case 0: if !bytes.isEmpty { bytes[at] ^= 1 << UInt8(random.below(8)) }
            case 1: if !bytes.isEmpty { bytes[at] = UInt8(truncatingIfNeeded: random.next()) }
            case 2: bytes.removeSubrange(at...)
            case 3: bytes.insert(UInt8(truncatingIfNeeded: random.next()), at: at)
            case 4:
                // A length or count beyond everything.
                let huge: [UInt8] = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]
                let short = Array(huge.prefix(Int(1 + random.below(10))))
                bytes.replaceSubrange(at..<min(bytes.count, at + 1), with: short)
            case 5:
                let other = random.pick(samples)
                if !other.isEmpty {
                    let from = Int(random.below(UInt64(other.count)))
                    bytes.replaceSubrange(at..., with: other[from..<other.count].array)
                }
            case 6:
                let end = min(bytes.count, at + Int(random.below(16)))
                bytes.insert(contentsOf: bytes[at..<end], at: at)
            default:
                let end = min(bytes.count, at + Int(random.below(16)))
                bytes.removeSubrange(at..<end)
            }
        }
        return Bytes(bytes)
    }

    // MARK: Parsers

    /// The parser was wrong: what it took it does not write and read again as the same.
    package struct Different: Error {
        package let what: String
    }

    package static func parse(_ target: Target, _ input: Bytes) throws {
        switch target {
        case .peerFrame:
            let frame = try PeerFrame.decode(input)
            try same(frame.messages) {
                var writer = ByteWriter()
                PeerFrame.encode(
                    frame.messages, keyspace: frame.keyspace, from: frame.from, to: frame.to,
                    into: &writer)
                return try PeerFrame.decode(Bytes(writer.bytes)).messages
            }
        case .linkMessage:
            let message = try LinkMessage(decoding: input)
            try same(message) { try LinkMessage(decoding: message.encoded()) }
        case .logRecord:
            var reader = ByteReader(input)
            let record = try reader.logRecord()
            try same(record) {
                var writer = ByteWriter()
                writer.logRecord(record)
                var again = ByteReader(Bytes(writer.bytes))
                return try again.logRecord()
            }
        case .entry:
            let entry = try EntryBody.decode(input)
            let encoded = entry.body.encoded(for: entry.request)
            try same(entry.body) { try EntryBody.decode(encoded).body }
        case .partitionRecords:
            var reader = ByteReader(input)
            let group = GroupID(keyspace: .standard, partition: PartitionID(1))
            _ = try PartitionState(group: group, records: try reader.records())
        case .conflictRecord:
            let record = try ConflictRecord(decoding: input)
            try same(record) { try ConflictRecord(decoding: record.encoded()) }
        case .historyFile:
            let keys = try HistoryFile.parse(input.description)
            var lines = [HistoryFile.header]
            for key in keys.keys.sorted() {
                for operation in keys[key] ?? [] {
                    lines.append(HistoryFile.line(client: "c", key: key, operation))
                }
            }
            try same(keys) { try HistoryFile.parse(lines.joined(separator: "\n")) }
        }
    }

    private static func same<T: Equatable>(_ value: T, _ again: () throws -> T) throws {
        let second: T
        do {
            second = try again()
        } catch {
            throw Different(what: "what it wrote is refused: \(error)")
        }
        if second != value { throw Different(what: "\(value) became \(second)") }
    }
}

extension ByteWriter {
    fileprivate mutating func records(_ records: [(key: Bytes, value: Bytes)]) {
        varint(records.count)
        for record in records {
            bytes(record.key)
            bytes(record.value)
        }
    }
}

extension ByteReader {
    fileprivate mutating func records() throws(DecodingError) -> [(key: Bytes, value: Bytes)] {
        var records: [(key: Bytes, value: Bytes)] = []
        for _ in 0..<(try count(atLeast: 2)) { records.append((try bytes(), try bytes())) }
        return records
    }
}
