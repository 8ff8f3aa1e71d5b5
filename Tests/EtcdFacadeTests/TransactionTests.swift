import EtcdAPI
import Foundation
import Primitives
import SwiftProtobuf
import Testing

@testable import EtcdFacade

@Suite struct TransactionTests {
    typealias Operation = Etcdserverpb_RequestOp
    typealias Transaction = Etcdserverpb_TxnRequest

    private func put(_ key: String, _ value: String = "v") -> Operation {
        .with {
            $0.requestPut = .with {
                $0.key = data(key)
                $0.value = data(value)
            }
        }
    }
    private func get(_ key: String, end: String = "") -> Operation {
        .with {
            $0.requestRange = .with {
                $0.key = data(key)
                $0.rangeEnd = data(end)
            }
        }
    }
    private func delete(_ key: String, end: Data = Data()) -> Operation {
        .with {
            $0.requestDeleteRange = .with {
                $0.key = data(key)
                $0.rangeEnd = end
            }
        }
    }
    private func nested(_ then: [Operation], _ otherwise: [Operation] = []) -> Operation {
        .with {
            $0.requestTxn = .with {
                $0.success = then
                $0.failure = otherwise
            }
        }
    }
    private func modified(_ key: String, at revision: Int64) -> Etcdserverpb_Compare {
        .with {
            $0.key = data(key)
            $0.target = .mod
            $0.result = .equal
            $0.modRevision = revision
        }
    }

    private func text(
        _ success: [Operation], failure: [Operation] = [], compares: [Etcdserverpb_Compare] = []
    ) -> String? {
        let client = Client()
        let call = client.begin(
            .txn,
            Transaction.with {
                $0.success = success
                $0.failure = failure
                $0.compare = compares
            })
        guard let outcome = client.output.outcomes[call], outcome.status != .ok else { return nil }
        #expect(outcome.status == .invalidArgument)
        return outcome.text
    }

    private let duplicate = EtcdError.duplicateKey.text
    private let tooMany = EtcdError.tooManyOperations.text

    @Test func `Kubernetes' create and update take their branches`() throws {
        let client = Client()
        let create = Transaction.with {
            $0.compare = [modified("a", at: 0)]
            $0.success = [put("a", "1")]
            $0.failure = [get("a")]
        }
        let made: Etcdserverpb_TxnResponse = try client.call(.txn, create)
        #expect(made.succeeded)
        #expect(made.header.revision == 2)
        #expect(made.responses.first?.responsePut.header.revision == 2)
        let again: Etcdserverpb_TxnResponse = try client.call(.txn, create)
        #expect(!again.succeeded)
        #expect(again.header.revision == 2)
        let kv = try #require(again.responses.first?.responseRange.kvs.first)
        #expect(kv.modRevision == 2)
        #expect(kv.version == 1)
        #expect(again.responses.first?.responseRange.count == 1)
    }

    @Test func `operations see those before them, and say so in their headers`() throws {
        let client = Client()
        try client.put("x", "old")
        let answer: Etcdserverpb_TxnResponse = try client.call(
            .txn,
            Transaction.with {
                $0.success = [
                    get("x"), delete("x"), nested([put("y", "1"), get("y")]), get("x", end: "z"),
                ]
            })
        #expect(answer.responses.count == 4)
        #expect(answer.responses[0].responseRange.header.revision == 2)
        #expect(answer.responses[0].responseRange.count == 1)
        #expect(answer.responses[1].responseDeleteRange.deleted == 1)
        #expect(answer.responses[1].responseDeleteRange.header.revision == 3)
        let inner = answer.responses[2].responseTxn
        #expect(inner.succeeded)
        #expect(inner.hasHeader)
        #expect(inner.header.revision == 0)
        #expect(inner.responses[1].responseRange.kvs.count == 1)
        #expect(answer.responses[3].responseRange.kvs.map(\.key) == [data("y")])
        #expect(answer.header.revision == 3)
    }

    @Test func `a transaction that cannot write is a read at one revision`() throws {
        let client = Client()
        try client.put("a", "1")
        try client.put("b", "2")
        let asked = client.node.linearizableReads
        let answer: Etcdserverpb_TxnResponse = try client.call(
            .txn,
            Transaction.with {
                $0.compare = [
                    .with {
                        $0.key = data("a")
                        $0.rangeEnd = data("c")
                        $0.target = .version
                        $0.result = .less
                        $0.version = 2
                    }
                ]
                $0.success = [get("a"), nested([get("b")]), get("a", end: "z")]
            })
        #expect(answer.succeeded)
        #expect(answer.responses[0].responseRange.kvs.count == 1)
        #expect(answer.responses[1].responseTxn.responses[0].responseRange.kvs.count == 1)
        #expect(answer.responses[2].responseRange.count == 2)
        #expect(answer.header.revision == 3)
        #expect(client.node.linearizableReads == asked + 1)
        #expect(client.node.requests.count == 2, "only the puts were submitted")
    }

    @Test func `compares follow etcd for every target, absent keys included`() throws {
        let client = Client()
        try client.put("a", "m")
        func holds(_ key: String, _ change: (inout Etcdserverpb_Compare) -> Void) throws -> Bool {
            var compare = Etcdserverpb_Compare.with { $0.key = data(key) }
            change(&compare)
            let read: Etcdserverpb_TxnResponse = try client.call(
                .txn, Transaction.with { $0.compare = [compare] })
            // The same through the path of writes.
            let written: Etcdserverpb_TxnResponse = try client.call(
                .txn,
                Transaction.with {
                    $0.compare = [compare]
                    $0.success = [delete("nothing")]
                })
            #expect(read.succeeded == written.succeeded)
            return read.succeeded
        }
        #expect(
            try holds("a") {
                $0.target = .value; $0.value = data("m")
            })
        #expect(
            try holds("a") {
                $0.target = .value; $0.value = data("l"); $0.result = .greater
            })
        #expect(
            try holds("a") {
                $0.target = .value; $0.value = data("z"); $0.result = .less
            })
        #expect(
            try holds("a") {
                $0.target = .create; $0.createRevision = 2
            })
        #expect(
            try holds("a") {
                $0.target = .lease; $0.lease = 0
            })
        #expect(
            try holds("a") {
                $0.target = .version; $0.version = 2; $0.result = .notEqual
            })
        #expect(
            try !holds("gone") {
                $0.target = .value; $0.value = data("")
            })
        #expect(
            try holds("gone") {
                $0.target = .mod; $0.modRevision = 0
            })
        #expect(
            try holds("gone") {
                $0.target = .version; $0.version = 0
            })
    }

    @Test func `what a compare does not know is equal, and related by nothing else`() throws {
        let client = Client()
        try client.put("a")
        for (target, result, expected) in [
            (7, 0, true), (7, 1, false), (7, 2, false), (7, 3, false), (7, 9, true), (0, 9, true),
        ] {
            let answer: Etcdserverpb_TxnResponse = try client.call(
                .txn,
                Transaction.with {
                    $0.compare = [
                        .with {
                            $0.key = data("a")
                            $0.target = .init(rawValue: target) ?? .version
                            $0.result = .init(rawValue: result) ?? .equal
                            $0.version = 5
                        }
                    ]
                })
            #expect(answer.succeeded == expected, "\(target) \(result)")
        }
    }

    @Test func `lists longer than the limit are refused, and the limit shrinks inside`() {
        let many = (0..<129).map { put("k\($0)") }
        #expect(text(many) == tooMany)
        #expect(text([], failure: many) == tooMany)
        #expect(text(Array(many.prefix(128))) == nil)
        let compares = (0..<129).map { modified("k\($0)", at: 0) }
        #expect(text([], compares: compares) == tooMany)
        // 100 here leave 28 for what is nested.
        let outer = (0..<99).map { put("o\($0)") }
        #expect(text(outer + [nested(Array(many.prefix(28)))]) == nil)
        #expect(text(outer + [nested(Array(many.prefix(29)))]) == tooMany)
        // Nesting deeper than the budget.
        var deep = put("bottom")
        for _ in 0..<200 { deep = nested([deep]) }
        #expect(text([deep]) == tooMany)
    }

    @Test func `issues inside a transaction are those of the request alone`() {
        #expect(text([put("")]) == EtcdError.emptyKey.text)
        #expect(text([], failure: [get("")]) == EtcdError.emptyKey.text)
        #expect(text([], compares: [modified("", at: 0)]) == EtcdError.emptyKey.text)
        #expect(text([Operation()]) == EtcdError.keyNotFound.text)
        #expect(text([nested([delete("")])]) == EtcdError.emptyKey.text)
        let sorted = Operation.with {
            $0.requestRange = .with {
                $0.key = data("a")
                $0.sortOrder = .UNRECOGNIZED(9)
            }
        }
        #expect(text([sorted]) == EtcdError.invalidSortOption.text)
        // The first in etcd's order wins: compares, success, failure.
        #expect(text([sorted], failure: [put("")]) == EtcdError.invalidSortOption.text)
    }

    @Test func `no key is written twice on one path`() {
        #expect(text([put("a"), put("a")]) == duplicate)
        #expect(text([put("a"), delete("a")]) == duplicate)
        #expect(text([delete("a"), put("a")]) == duplicate)
        #expect(text([put("b"), delete("a", end: data("c"))]) == duplicate)
        #expect(text([put("z"), delete("a", end: Data([0]))]) == duplicate)
        #expect(text([put("c"), delete("a", end: data("c"))]) == nil)
        #expect(text([delete("a"), delete("a")]) == nil)
        #expect(text([get("a"), put("a")]) == nil)
        #expect(text([put("a")], failure: [put("a")]) == nil)
        // Nested: the arms exclude each other, everything else does not.
        #expect(text([nested([put("a")], [put("a")])]) == nil)
        #expect(text([put("a"), nested([put("a")])]) == duplicate)
        #expect(text([put("a"), nested([], [put("a")])]) == duplicate)
        #expect(text([nested([put("a")]), nested([put("a")])]) == duplicate)
        #expect(text([nested([delete("a")]), put("a")]) == duplicate)
        #expect(text([nested([put("b")]), delete("a", end: data("c"))]) == duplicate)
        #expect(text([nested([nested([put("a")])]), put("a")]) == duplicate)
        #expect(text([nested([put("a")], [delete("a")])]) == nil)
    }
}
