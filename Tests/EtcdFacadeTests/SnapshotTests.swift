import EtcdAPI
import Foundation
import Primitives
import SwiftProtobuf
import Testing

@testable import EtcdFacade

@Suite struct SnapshotTests {
    private func pieces(_ sizes: [Int]) -> [SnapshotPiece] {
        var left = sizes.reduce(0, +)
        return sizes.map { size in
            left -= size
            return SnapshotPiece(
                bytes: Bytes([UInt8](repeating: UInt8(size % 251), count: size)), remaining: UInt64(left))
        } + [SnapshotPiece(bytes: Bytes([UInt8](repeating: 9, count: 32)), remaining: 0)]
    }

    private func answers(_ client: Client, _ call: CallReference) throws -> [Etcdserverpb_SnapshotResponse] {
        try client.output.take(call).map { try Etcdserverpb_SnapshotResponse(serializedBytes: $0) }
    }

    @Test func `a snapshot comes in blobs of 32 KiB with what remains, and its digest last`() throws {
        let client = Client()
        client.node.snapshotPieces = pieces([100_000, 4096])
        let call = client.open(.snapshot)
        client.send(Etcdserverpb_SnapshotRequest(), to: call)
        let source = try #require(client.node.snapshots.first)
        for _ in 0..<4 { source.answer() }
        let all = try answers(client, call)
        #expect(all.map(\.blob.count) == [32768, 32768, 32768, 1696, 4096, 32])
        #expect(
            all.map(\.remainingBytes) == [71_328, 38_560, 5792, 4096, 0, 0])
        #expect(client.output.outcomes[call]?.status == .ok)
    }

    @Test func `a client that does not read is not read for`() throws {
        let client = Client()
        client.node.snapshotPieces = pieces([1 << 20, 1 << 20])
        let call = client.open(.snapshot)
        client.output.slow.insert(call)
        client.send(Etcdserverpb_SnapshotRequest(), to: call)
        let source = try #require(client.node.snapshots.first)
        source.answer()
        #expect(!source.isAsked)
        client.output.drain(call)
        client.facade.onWritable(call)
        #expect(source.isAsked)
    }

    @Test func `who goes lets the snapshot go, and what cannot be had is an error`() throws {
        let client = Client()
        let refused = client.open(.snapshot)
        client.send(Etcdserverpb_SnapshotRequest(), to: refused)
        #expect(client.output.outcomes[refused]?.text == EtcdError.tooManyRequests.text)

        client.node.snapshotPieces = pieces([10])
        let gone = client.open(.snapshot)
        client.send(Etcdserverpb_SnapshotRequest(), to: gone)
        client.facade.onCancelled(gone)
        #expect(client.node.snapshots[0].isClosed)

        let failed = client.open(.snapshot)
        client.send(Etcdserverpb_SnapshotRequest(), to: failed)
        client.node.snapshots[1].answer(.noSpace("no room"))
        #expect(client.output.outcomes[failed]?.status == .resourceExhausted)
        #expect(client.node.snapshots[1].isClosed)
    }

    @Test func `defragmentation asks for space and does not wait`() throws {
        let client = Client()
        let _: Etcdserverpb_DefragmentResponse = try client.call(
            .defragment, Etcdserverpb_DefragmentRequest())
        #expect(client.node.reclaims == 1)
    }
}
