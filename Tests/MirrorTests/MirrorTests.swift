import EtcdAPI
import Foundation
import Testing

@testable import Mirror

private func row(_ key: String, _ value: String, lease: Int64 = 0) -> Mvccpb_KeyValue {
    var row = Mvccpb_KeyValue()
    row.key = Data(key.utf8)
    row.value = Data(value.utf8)
    row.lease = lease
    return row
}

private func text(_ operation: MirrorOperation) -> String {
    switch operation {
    case .put(let row): "put \(String(decoding: row.key, as: UTF8.self))"
    case .delete(let key): "delete \(String(decoding: key, as: UTF8.self))"
    }
}

@Suite struct MirrorTests {
    @Test func `a page's difference is what is missing, other, or too much`() {
        let operations = Mirror.difference(
            source: [row("a", "1"), row("b", "2"), row("c", "3", lease: 7), row("e", "5")],
            destination: [row("a", "1"), row("b", "other"), row("c", "3"), row("d", "4")])
        #expect(operations.map(text) == ["put b", "put c", "put e", "delete d"])
    }

    @Test func `of several changes of a key only the last is written, where it stands`() {
        let operations = MirrorWriter.lastOfEach([
            .put(row("a", "1")), .put(row("b", "1")), .delete(Data("a".utf8)), .put(row("c", "1")),
            .put(row("b", "2")),
        ])
        #expect(operations.map(text) == ["delete a", "put c", "put b"])
    }

    @Test func `transactions stay within etcd's limits`() {
        let many = (0..<250).map { MirrorOperation.put(row("k\($0)", "v")) }
        #expect(MirrorWriter.batches(many).map(\.count) == [100, 100, 50])
        let large = String(repeating: "x", count: 700_000)
        let few = (0..<3).map { MirrorOperation.put(row("k\($0)", large)) }
        #expect(MirrorWriter.batches(few).map(\.count) == [1, 1, 1])
        #expect(MirrorWriter.batches([]).isEmpty)
    }

    @Test func `a lease that is kept alive keeps its time, one that runs out gets what remains`() {
        #expect(MirrorLeases.ttl(remaining: 30, granted: 30) == 30)
        #expect(MirrorLeases.ttl(remaining: 20, granted: 30) == 30)
        #expect(MirrorLeases.ttl(remaining: 10, granted: 30) == 10)
        #expect(MirrorLeases.ttl(remaining: 0, granted: 3600) == 1)
    }

    @Test func `pages shrink when values are large and grow when they are small`() {
        var sizes = PageSizer()
        for _ in 0..<10 { sizes.saw(bytes: 1000, keys: Int(sizes.limit)) }
        #expect(sizes.limit == 1000)
        for _ in 0..<20 { sizes.saw(bytes: 100 << 20, keys: Int(sizes.limit)) }
        #expect(sizes.limit == 1)
        sizes.shrink()
        #expect(sizes.limit == 1)
    }

    @Test func `a state is read as it was written, and rubbish is refused`() throws {
        let path = FileManager.default.temporaryDirectory
            .appendingPathComponent("polder-mirror-\(UInt64.random(in: 0...UInt64.max))").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        #expect(try MirrorState.read(path) == nil)
        let state = MirrorState(
            source: "a", destination: "b", prefix: Data("p".utf8), revision: 7,
            copiedTo: Data([0, 255]), hasLeases: true)
        try state.write(path)
        #expect(try MirrorState.read(path) == state)
        try Data("{".utf8).write(to: URL(fileURLWithPath: path))
        #expect(throws: MirrorError.self) { _ = try MirrorState.read(path) }
    }
}
