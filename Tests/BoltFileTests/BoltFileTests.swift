import Primitives
import Testing

@testable import BoltFile

@Suite struct BoltFileTests {
    private func roundTrip(_ contents: Contents, _ sourceLocation: SourceLocation = #_sourceLocation) throws {
        let file = ScratchFile()
        let size = try write(contents, to: file)
        #expect(size == UInt64(file.bytes.count), sourceLocation: sourceLocation)
        #expect(isSame(try read(file), contents), sourceLocation: sourceLocation)
    }

    @Test func `what was written is read back, from nothing to several levels of branches`() throws {
        try roundTrip([])
        try roundTrip([("empty", [])])
        try roundTrip([("a", [("k", "v")]), ("b", []), ("c", items(40, valueBytes: 10, seed: 1))])
        for count in [1, 2, 59, 60, 500, 5000, 60_000] {
            try roundTrip([("key", items(count, valueBytes: 100, seed: UInt64(count))), ("last", [("x", "")])])
        }
    }

    @Test func `values beyond a page and long keys find their place`() throws {
        try roundTrip([("key", items(50, valueBytes: 20_000, seed: 2))])
        try roundTrip([("key", items(300, valueBytes: 10, keyBytes: 5_000, seed: 3))])
        for length in 4030...4096 {
            try roundTrip([("key", [("a", Bytes([UInt8](repeating: 7, count: length))), ("b", "x")])])
        }
    }

    @Test func `small buckets are inside their parent's page`() throws {
        let file = ScratchFile()
        // Two metas, the root, the freelist.
        #expect(try write([("a", [("k", "v")]), ("b", [])], to: file) == 4 * 4096)
        #expect(try write([("a", [("k", Bytes([UInt8](repeating: 0, count: 2000)))])], to: file) == 5 * 4096)
    }

    @Test func `many buckets make a tree of their own`() throws {
        let names = (0..<400).map { Bytes("bucket-\(10_000 + $0)") }
        try roundTrip(names.map { ($0, [("key", "value")]) })
    }

    @Test func `the checksum of the metas is FNV-1a`() {
        #expect(BoltFormat.fnv([]) == 0xCBF2_9CE4_8422_2325)
        #expect(BoltFormat.fnv(Array("foobar".utf8)) == 0x8594_4171_F739_67E8)
    }

    @Test func `keys out of order are refused`() throws {
        let writer = BoltWriter(descriptor: ScratchFile().descriptor)
        try writer.begin("b")
        try writer.put("m", "")
        #expect(throws: BoltError.self) { try writer.put("m", "") }
        #expect(throws: BoltError.self) { try writer.put("a", "") }
        #expect(throws: BoltError.self) { try writer.put("", "") }
        #expect(throws: BoltError.self) { try writer.begin("a") }
    }

    @Test func `one damaged meta page does not matter, two do`() throws {
        let file = ScratchFile()
        _ = try write([("a", [("k", "v")])], to: file)
        let whole = file.bytes
        for offset in [20, 4096 + 20] {
            var bytes = whole
            bytes[offset] ^= 1
            file.bytes = bytes
            #expect(try read(file).count == 1)
        }
        var bytes = whole
        bytes[20] ^= 1
        bytes[4096 + 20] ^= 1
        file.bytes = bytes
        #expect(throws: BoltError.damaged("neither of its two meta pages is valid")) { try read(file) }
    }

    @Test func `a file that is cut is refused`() throws {
        let file = ScratchFile()
        _ = try write([("key", items(500, valueBytes: 100, seed: 4))], to: file)
        let whole = file.bytes
        for kept in [0, 1, 79, 80, 4095, 4096, 8192, whole.count - 4096, whole.count - 1] {
            file.bytes = Array(whole[..<kept])
            #expect(throws: BoltError.self) { try read(file) }
        }
    }

    @Test func `a page that leads to itself is refused`() throws {
        let file = ScratchFile()
        _ = try write([("key", items(2000, valueBytes: 100, seed: 5))], to: file)
        var bytes = file.bytes
        // The branch's first child becomes the branch.
        let branch = try #require(
            (2..<bytes.count / 4096).first { bytes[$0 * 4096 + 8] == UInt8(BoltFormat.PageKind.branch) })
        BoltFormat.put(UInt64(branch), into: &bytes, at: branch * 4096 + 16 + 8)
        file.bytes = bytes
        #expect(throws: BoltError.damaged("page \(branch) is reached twice")) { try read(file) }
    }

    @Test func `huge counts and sizes are refused before memory is taken for them`() throws {
        let file = ScratchFile()
        _ = try write([("key", items(2000, valueBytes: 100, seed: 6))], to: file)
        let whole = file.bytes
        let leaf = try #require(
            (2..<whole.count / 4096).first { whole[$0 * 4096 + 8] == UInt8(BoltFormat.PageKind.leaf) })
        for (offset, bytes) in [(10, 2), (12, 4), (20, 4), (24, 4), (28, 4)] {
            var damaged = whole
            for i in 0..<bytes { damaged[leaf * 4096 + offset + i] = 0xFF }
            file.bytes = damaged
            #expect(throws: BoltError.self) { try read(file) }
        }
    }

    @Test func `whatever bytes change, reading ends with keys in order or an error`() throws {
        let file = ScratchFile()
        _ = try write(
            [("a", [("k", "v")]), ("key", items(900, valueBytes: 60, seed: 7)), ("lease", items(30, valueBytes: 9, seed: 8))],
            to: file)
        let whole = file.bytes
        var luck = Generator(9), refused = 0
        for _ in 0..<300 {
            var bytes = whole
            for _ in 0..<Int.random(in: 1...4, using: &luck) {
                // Mostly where pages begin: that is where structure is.
                let page = Int.random(in: 2..<bytes.count / 4096, using: &luck) * 4096
                let at = page + Int.random(in: 0..<(Bool.random(using: &luck) ? 64 : 4096), using: &luck)
                bytes[at] = UInt8.random(in: 0...255, using: &luck)
            }
            file.bytes = bytes
            do {
                for (_, items) in try read(file) {
                    let keys = items.map(\.key)
                    #expect(zip(keys, keys.dropFirst()).allSatisfy { $0 < $1 })
                }
            } catch is BoltError {
                refused += 1
            }
        }
        #expect(refused > 20)
    }
}
