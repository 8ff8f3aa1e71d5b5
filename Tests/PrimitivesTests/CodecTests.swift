import Testing

@testable import Primitives

@Suite struct CodecTests {
    @Test func `requests and responses survive the wire`() throws {
        let put = Put(key: "k", value: "v", lease: LeaseID(-7), wantsPrevious: true)
        let nested = Transaction(
            compares: [
                Compare(range: KeyRange(key: "a", end: "b"), relation: .less, target: .value("x")),
                Compare(range: KeyRange(key: "c"), relation: .notEqual, target: .modRevision(-3)),
            ],
            success: [.put(put), .delete(Delete(range: .everything))],
            failure: [
                .range(RangeQuery(range: KeyRange(key: "a"), limit: 5, order: .descending, target: .value))
            ])
        let requests: [Request] = [
            .transaction(Transaction(success: [.transaction(nested)])),
            .leaseGrant(LeaseID(.min), ttlSeconds: 9), .leaseRevoke(LeaseID(1)), .leaseList,
            .compact(Revision(99)),
            .replicate(
                ReplicationBatch(
                    origin: RegionID(2), from: Revision(3), through: Revision(9),
                    seen: [.init(region: RegionID(1), revision: Revision(4))], changes: [row("k")])),
        ]
        for request in requests {
            var writer = ByteWriter()
            writer.request(request)
            var reader = ByteReader(Bytes(writer.bytes))
            #expect(try reader.request() == request)
            #expect(reader.isAtEnd)
        }
        let responses: [Response] = [
            .transaction(
                TransactionResult(
                    succeeded: true,
                    results: [
                        .put(previous: row("p")), .delete(deleted: 2, previous: [row("q")]),
                        .range(RangeResult(rows: [row("r")], more: true, count: 12)),
                    ]), revision: Revision(5)),
            .leaseTimeToLive(
                LeaseID(5), grantedSeconds: 10, remainingSeconds: -1, keys: ["a", "b"],
                revision: Revision(8)),
            .failed(.compacted),
        ]
        for response in responses {
            var writer = ByteWriter()
            writer.response(response)
            var reader = ByteReader(Bytes(writer.bytes))
            #expect(try reader.response() == response)
        }
    }

    @Test func `cut or random bytes are errors, never traps`() {
        var random = SplitMix(seed: 1)
        for _ in 0..<20_000 {
            let bytes = (0..<Int(random.below(40))).map { _ in
                UInt8(truncatingIfNeeded: random.chance(1, in: 2) ? random.below(10) : random.next())
            }
            var a = ByteReader(Bytes(bytes)), b = ByteReader(Bytes(bytes))
            _ = try? a.request()
            _ = try? b.response()
            #expect(a.offset <= bytes.count && b.offset <= bytes.count)
        }
    }

    private func row(_ key: Bytes) -> Row {
        Row(
            key: key, value: "v", createRevision: Revision(2), modRevision: Revision(3), version: 2,
            lease: LeaseID(-1), sub: 3,
            origin: Origin(region: RegionID(1), revision: Revision(3), stamp: Stamp(ticks: 77, region: RegionID(1))))
    }
}

@Suite struct FormatTests {
    // These values are part of the formats: they must never change.
    @Test func `the key hash is XXH64 with seed zero`() {
        #expect(KeyHash.hash("") == 0xEF46_DB37_51D8_E999)
        #expect(KeyHash.hash("a") == 0xD24E_C4F1_A98C_6E5B)
        #expect(KeyHash.hash("abc") == 0x44BC_2CF5_AD77_0999)
        #expect(KeyHash.hash("The quick brown fox jumps over the lazy dog") == 0x0B24_2D36_1FDA_71BC)
    }

    @Test func `the checksum is CRC-32C`() {
        #expect(CRC32C.checksum(Array("123456789".utf8)) == 0xE306_9283)
        #expect(CRC32C.checksum([UInt8](repeating: 0, count: 32)) == 0x8A91_36AA)
    }

    @Test func `equal partitions cover the hash space without gap or overlap`() {
        for count in [1, 2, 3, 8, 64] {
            let map = PartitionMap(equalPartitions: count)
            #expect(map.entries.first?.range.first == 0 && map.entries.last?.range.last == .max)
            for (a, b) in zip(map.entries, map.entries.dropFirst()) {
                #expect(a.range.last &+ 1 == b.range.first)
                #expect(map.partition(ofHash: a.range.last) == a.partition)
                #expect(map.partition(ofHash: b.range.first) == b.partition)
            }
        }
    }
}

@Suite struct KeyRangeTests {
    @Test func `ranges follow etcd's conventions`() {
        #expect(KeyRange(key: "a").contains("a") && !KeyRange(key: "a").contains("b"))
        #expect(KeyRange(key: "a", end: "c").contains("b") && !KeyRange(key: "a", end: "c").contains("c"))
        #expect(KeyRange(key: "b", end: Bytes([0])).contains("zzz"))
        #expect(KeyRange(key: "c", end: "a").isEmpty)
        #expect(KeyRange(key: "a", end: "c").overlaps(KeyRange(key: "b", end: Bytes([0]))))
        #expect(!KeyRange(key: "a", end: "b").overlaps(KeyRange(key: "b", end: "c")))
    }

    @Test func `bytes compare as unsigned, a prefix first`() {
        #expect(Bytes([0x7F]) < Bytes([0x80]) && Bytes("ab") < Bytes("abc"))
        #expect(Bytes("abcdefgh1") < Bytes("abcdefgh2") && !(Bytes("b") < Bytes("a")))
        let window = Bytes("hello world")[6..<11]
        #expect(window == "world" && window.hashValue == Bytes("world").hashValue)
    }

    @Test func `keys that differ little fall into different places of a table`() {
        var places: [Int: Int] = [:], hashes: Set<Int> = []
        var keys: [Bytes] = (0..<4096).map { Bytes("leased/\($0)") }
        keys += (0..<64).map { Bytes(Array(repeating: 0, count: $0)) }
        for key in keys {
            let hash = key._rawHashValue(seed: 7)
            hashes.insert(hash)
            places[hash & 4095, default: 0] += 1
        }
        #expect(hashes.count == keys.count)
        #expect(places.values.max() ?? 0 < 16)
        #expect(Bytes("leased/1")._rawHashValue(seed: 1) != Bytes("leased/1")._rawHashValue(seed: 2))
        let window = Bytes("a key in a message")[2..<5]
        #expect(window._rawHashValue(seed: 7) == Bytes("key")._rawHashValue(seed: 7))
    }
}
