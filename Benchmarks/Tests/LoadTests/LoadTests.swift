import CLoad
import Glibc
import Testing

@testable import polder_load

/// The generator must notice an answer that is not what was asked for.
@Suite struct LoadTests {
    private let requests = Requests(
        keys: KeySpace(prefix: "k/", count: 100, valueBytes: 32), pageLimit: 10)

    /// An exchange whose answer is `message`.
    private func exchange(_ kind: Kind, key: Int = 7, answer: (inout WireWriter) -> Void) -> Exchange {
        var exchange = Exchange(bodyCapacity: 1024)
        exchange.kind = kind
        exchange.key = key
        exchange.floor = 10
        exchange.keyFloor = 9
        let message = UnsafeMutablePointer<UInt8>.allocate(capacity: 1024)
        defer { message.deallocate() }
        var to = WireWriter(base: message)
        to.count = 5
        answer(&to)
        let length = to.count - 5
        to.count = 0
        to.grpcPrefix(length: length)
        exchange.append(message, length + 5)
        return exchange
    }

    private func header(_ to: inout WireWriter, revision: UInt64) {
        to.nested(1, length: 1 + WireWriter.varintLength(revision))
        to.number(3, revision)
    }

    private func pair(_ to: inout WireWriter, key: Int, value: Int, modRevision: UInt64) {
        requests.keys.setKey(key)
        to.nested(
            2,
            length: WireWriter.fieldLength(requests.keys.keyBytes) + 1
                + WireWriter.varintLength(modRevision) + WireWriter.fieldLength(32))
        to.bytes(1, requests.keys.key, requests.keys.keyBytes)
        to.number(3, modRevision)
        to.bytes(5, requests.keys.setValue(value, due: 5), 32)
    }

    private func verdict(_ exchange: Exchange) -> Requests.Verdict {
        var newest: Int64 = 10
        return requests.check(exchange, newest: &newest)
    }

    @Test func `a put must be newer than what was acknowledged before it was sent`() {
        #expect(verdict(exchange(.put) { header(&$0, revision: 11) }) == .right)
        #expect(verdict(exchange(.put) { header(&$0, revision: 10) }) != .right)
        #expect(verdict(exchange(.put) { _ in }) != .right)
    }

    @Test func `a linearizable get must not be older, its value must be its key's`() {
        let good = exchange(.get) {
            header(&$0, revision: 10)
            pair(&$0, key: 7, value: 7, modRevision: 9)
        }
        #expect(verdict(good) == .right)
        let old = exchange(.get) {
            header(&$0, revision: 10)
            pair(&$0, key: 7, value: 7, modRevision: 8)
        }
        #expect(verdict(old) != .right)
        let stale = exchange(.stale) {
            header(&$0, revision: 8)
            pair(&$0, key: 7, value: 7, modRevision: 8)
        }
        #expect(verdict(stale) == .right)
        let otherValue = exchange(.get) {
            header(&$0, revision: 10)
            pair(&$0, key: 7, value: 8, modRevision: 9)
        }
        #expect(verdict(otherValue) == .wrong("another value"))
        let otherKey = exchange(.get) {
            header(&$0, revision: 10)
            pair(&$0, key: 8, value: 8, modRevision: 9)
        }
        #expect(verdict(otherKey) == .wrong("another key"))
        #expect(verdict(exchange(.get) { header(&$0, revision: 10) }) == .wrong("0 keys instead of one"))
    }

    @Test func `a page must be full`() {
        let page = { (pairs: Int, count: UInt64) in
            exchange(.page, key: 0) {
                header(&$0, revision: 10)
                for i in 0..<pairs { pair(&$0, key: i, value: i, modRevision: 3) }
                $0.number(4, count)
            }
        }
        #expect(verdict(page(10, 100)) == .right)
        #expect(verdict(page(9, 100)) != .right)
        #expect(verdict(page(10, 99)) != .right)
    }

    @Test func `an answer that is cut or no protocol buffers is wrong`() {
        var cut = exchange(.put) { header(&$0, revision: 11) }
        cut.answerCount -= 1
        #expect(verdict(cut) == .wrong("not one whole message"))
        let odd = exchange(.put) {
            header(&$0, revision: 11)
            $0.byte(0xFF)
        }
        #expect(verdict(odd) == .wrong("not protocol buffers"))
    }

    @Test func `a request reads back as what was meant`() {
        for kind in Kind.allCases {
            var exchange = Exchange(bodyCapacity: requests.bodyCapacity)
            exchange.kind = kind
            exchange.key = 42
            requests.write(&exchange, expectedModRevision: 300)
            #expect(exchange.bodyCount <= requests.bodyCapacity)
            let length = (1...4).reduce(0) { $0 << 8 | Int(exchange.body[$1]) }
            #expect(length == exchange.bodyCount - 5)
            var reader = WireReader(exchange.body + 5, length)
            var fields = 0
            while reader.next() != nil { fields += 1 }
            #expect(!reader.isBroken && fields > 0)
        }
    }

    @Test func `even and random arrivals have the rate that was asked for`() {
        var luck = Luck(state: 1)
        let mean = (0..<100_000).reduce(0.0) { sum, _ in sum + luck.exponential(mean: 100) } / 100_000
        #expect(abs(mean - 100) < 2)
        #expect((0..<1000).allSatisfy { _ in (0..<7).contains(luck.below(7)) })
    }

    @Test func `round trips are measured on bound processors, and leave the thread where it may be`() {
        let before = processors()
        #expect(!before.isEmpty)
        for apart in [Int32(0), 1] {
            var times = [UInt64](repeating: 0, count: 50)
            var cpu: UInt64 = 0
            #expect(load_round_trip_times(apart, &times, 50, &cpu) == 0)
            #expect(times.allSatisfy { $0 > 0 })
            #expect(cpu > 0 && cpu <= times.reduce(0, +))
            #expect(processors() == before)
        }
    }

    /// Which of them this thread may use, as the kernel says it.
    private func processors() -> String {
        guard let file = fopen("/proc/thread-self/status", "r") else { return "" }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 1024)
        while fgets(&line, 1024, file) != nil {
            let text = String(decoding: line.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
            if text.hasPrefix("Cpus_allowed:") { return text }
        }
        return ""
    }
}
