import EtcdAPI
import Foundation
import NIOCore
import NIOPosix
import Primitives
import SwiftProtobuf
import Testing

@Suite struct EtcdEndpointTests {
    @Test func `endpoints are written as etcdctl writes them`() {
        #expect(
            EtcdEndpoint("https://10.0.0.1:2379/")
                == EtcdEndpoint(host: "10.0.0.1", port: 2379, isSecure: true))
        #expect(EtcdEndpoint("localhost:1")?.isSecure == false)
        #expect(EtcdEndpoint("http://[::1]:2379")?.host == "::1")
        #expect(EtcdEndpoint("http://[::1]:2379")?.description == "http://[::1]:2379")
        #expect(EtcdEndpoint("db")?.port == 2379)
        for bad in ["", "http://", "ftp://x:1", "a:b", "a:70000", "http://a:1/path"] {
            #expect(EtcdEndpoint(bad) == nil, "\(bad)")
        }
    }
}

@Suite(
    .serialized,
    .enabled(
        if: RealEtcd.executable != nil, "no etcd program on the PATH: apt-get install etcd-server"))
struct EtcdClientTests {
    private func withEtcd(_ body: (RealEtcd, EtcdClient) async throws -> Void) async throws {
        let etcd = try RealEtcd(executable: #require(RealEtcd.executable))
        defer { etcd.remove() }
        try etcd.start()
        let endpoint = try #require(EtcdEndpoint(etcd.url))
        let client = EtcdClient(
            endpoint: endpoint, loop: MultiThreadedEventLoopGroup.singleton.next())
        try await etcd.waitUntilServing()
        try await body(etcd, client)
        await client.shutdown()
    }

    @Test func `puts, gets, lists, transactions and deletes of a real etcd`() async throws {
        try await withEtcd { _, client in
            #expect(try await client.get("a").kv == nil)
            let first = try await client.put("a", "1")
            let read = try await client.get("a")
            #expect(read.kv?.value == Data("1".utf8))
            #expect(read.kv?.modRevision == first.header.revision)
            for n in 0..<25 { try await client.put("list/\(n)", "\(n)") }
            let list = try await client.list(prefix: "list/", pageSize: 10)
            #expect(list.kvs.count == 25)

            var txn = Etcdserverpb_TxnRequest()
            var compare = Etcdserverpb_Compare()
            compare.key = Data("a".utf8)
            compare.target = .mod
            compare.modRevision = first.header.revision
            txn.compare = [compare]
            var put = Etcdserverpb_PutRequest()
            put.key = Data("a".utf8)
            put.value = Data("2".utf8)
            var operation = Etcdserverpb_RequestOp()
            operation.requestPut = put
            txn.success = [operation]
            #expect(try await client.txn(txn).succeeded)
            #expect(try await !client.txn(txn).succeeded)
            #expect(try await client.delete("list/", isPrefix: true).deleted == 25)
            #expect(try await client.status().version.hasPrefix("3."))
        }
    }

    @Test func `a megabyte there and back`() async throws {
        try await withEtcd { _, client in
            let value = String(repeating: "0123456789abcdef", count: 1 << 16)
            try await client.put("big", value)
            #expect(try await client.get("big").kv?.value.count == 1 << 20)
        }
    }

    @Test func `a watch sees what is put, in order, and ends when it is cancelled`() async throws {
        try await withEtcd { _, client in
            let watch = client.watch("w/", isPrefix: true)
            var values: [String] = []
            for try await answer in watch {
                if answer.created {
                    for n in 0..<10 { try await client.put("w/\(n)", "\(n)") }
                }
                values += answer.events.map { String(decoding: $0.kv.value, as: UTF8.self) }
                if values.count == 10 { watch.cancel() }
            }
            #expect(values == (0..<10).map(String.init))
        }
    }

    @Test func `errors say what they are`() async throws {
        try await withEtcd { etcd, client in
            let refused = await #expect(throws: EtcdClientError.self) {
                try await client.put("", "x")
            }
            #expect(refused?.status == .invalidArgument)
            #expect(refused?.message == "etcdserver: key is not provided")
            #expect(refused?.mayHaveHappened == false)

            etcd.signal(SIGSTOP)
            let late = await #expect(throws: EtcdClientError.self) {
                try await client.put("a", "x", timeout: .milliseconds(200))
            }
            #expect(late?.kind == .timeout)
            #expect(late?.mayHaveHappened == true)
            etcd.signal(SIGCONT)

            etcd.stop()
            let gone = await #expect(throws: EtcdClientError.self) {
                for _ in 0..<2 { try await client.put("a", "x", timeout: .seconds(1)) }
            }
            #expect(gone?.kind == .unavailable)
            let refusedConnection = await #expect(throws: EtcdClientError.self) {
                try await client.put("a", "x", timeout: .seconds(1))
            }
            #expect(refusedConnection?.mayHaveHappened == false)
            try etcd.start()
            try await etcd.waitUntilServing()
        }
    }

    @Test func `a thousand calls at once`() async throws {
        try await withEtcd { _, client in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for n in 0..<1_000 {
                    group.addTask { try await client.put("many/\(n)", "x", timeout: .seconds(20)) }
                }
                try await group.waitForAll()
            }
            #expect(try await client.list(prefix: "many/").kvs.count == 1_000)
        }
    }
}
