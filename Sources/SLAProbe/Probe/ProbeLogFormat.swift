/// One line of `probe.jsonl` for one probe:
///
///     {"t":1764100000000000,"k":"read","g":0,"o":"ok","l":1830,"a":[[0,"ok",1790]]}
///
/// `t` due time (microseconds since 1970), `k` kind, `g` region, `o` outcome of the client that may
/// use any endpoint of the region, `l` its latency from the due time in microseconds, `a` the
/// attempts: endpoint, outcome, latency. Regions and endpoints are indices into `meta.json`. Lines
/// are in the order of due times. Any JSON reader can read it; ours reads just this shape, because
/// a month of probes is a hundred million lines.
package enum ProbeLogFormat {
    package static let version = 1

    package static func append(_ record: ProbeRecord, to out: inout [UInt8]) {
        func put(_ text: StaticString) {
            out.append(
                contentsOf: UnsafeBufferPointer(
                    start: text.utf8Start, count: text.utf8CodeUnitCount))
        }
        put("{\"t\":")
        out.append(contentsOf: String(record.dueMicroseconds).utf8)
        put(",\"k\":\"")
        out.append(contentsOf: record.kind.name.utf8)
        put("\",\"g\":")
        out.append(contentsOf: String(record.region).utf8)
        put(",\"o\":\"")
        out.append(contentsOf: record.outcome.name.utf8)
        put("\",\"l\":")
        out.append(contentsOf: String(record.latencyMicroseconds).utf8)
        put(",\"a\":[")
        for (index, attempt) in record.attempts.enumerated() {
            if index > 0 { put(",") }
            put("[")
            out.append(contentsOf: String(attempt.endpoint).utf8)
            put(",\"")
            out.append(contentsOf: attempt.outcome.name.utf8)
            put("\",")
            out.append(contentsOf: String(attempt.latencyMicroseconds).utf8)
            put("]")
        }
        put("]}\n")
    }

    /// `nil` for a damaged line: the last one of a prober that was killed, or a hand's edit.
    package static func parse(_ line: UnsafeBufferPointer<UInt8>) -> ProbeRecord? {
        var cursor = Cursor(line)
        guard cursor.skip("{\"t\":"), let due = cursor.number(),
            cursor.skip(",\"k\":\""), let kindName = cursor.word(),
            let kind = ProbeKind.allCases.first(where: { $0.name == kindName }),
            cursor.skip("\",\"g\":"), let region = cursor.number(),
            cursor.skip(",\"o\":\""), let outcome = cursor.word().flatMap({ Outcome(name: $0) }),
            cursor.skip("\",\"l\":"), let latency = cursor.number(),
            cursor.skip(",\"a\":[")
        else { return nil }
        var record = ProbeRecord(
            dueMicroseconds: due, kind: kind, region: Int(clamping: region), outcome: outcome,
            latencyMicroseconds: latency, attempts: [])
        while !cursor.skip("]}") {
            if !record.attempts.isEmpty, !cursor.skip(",") { return nil }
            guard cursor.skip("["), let endpoint = cursor.number(), cursor.skip(",\""),
                let outcome = cursor.word().flatMap({ Outcome(name: $0) }), cursor.skip("\","),
                let latency = cursor.number(), cursor.skip("]")
            else { return nil }
            record.attempts.append(
                .init(
                    endpoint: Int(clamping: endpoint), outcome: outcome,
                    latencyMicroseconds: latency))
        }
        return cursor.isAtEnd ? record : nil
    }

    private struct Cursor {
        let bytes: UnsafeBufferPointer<UInt8>
        var at = 0
        init(_ bytes: UnsafeBufferPointer<UInt8>) { self.bytes = bytes }
        var isAtEnd: Bool { at == bytes.count }

        mutating func skip(_ text: StaticString) -> Bool {
            let count = text.utf8CodeUnitCount
            guard at + count <= bytes.count else { return false }
            for i in 0..<count where bytes[at + i] != text.utf8Start[i] { return false }
            at += count
            return true
        }

        mutating func number() -> UInt64? {
            var value: UInt64 = 0
            let start = at
            while at < bytes.count, case let digit = bytes[at] &- 48, digit < 10 {
                let (product, overflow) = value.multipliedReportingOverflow(by: 10)
                let (sum, carry) = product.addingReportingOverflow(UInt64(digit))
                if overflow || carry { return nil }
                value = sum
                at += 1
            }
            return at > start ? value : nil
        }

        mutating func word() -> Substring? {
            let start = at
            while at < bytes.count, bytes[at] != UInt8(ascii: "\"") { at += 1 }
            guard at > start, at - start < 32 else { return nil }
            return Substring(decoding: bytes[start..<at], as: UTF8.self)
        }
    }
}

/// `meta.json`: what the numbers in the log's lines mean. Grows when a prober is started again with
/// other endpoints; indices already given out keep their meaning.
package struct ProbeLogDescription: Codable, Sendable, Equatable {
    package struct Run: Codable, Sendable, Equatable {
        package var startMicroseconds: UInt64
        package var ratePerSecond: Double
        package var timeoutMilliseconds: Int
    }
    package var version = ProbeLogFormat.version
    /// Where the prober stood: a host name, unless told otherwise.
    package var vantage: String
    package var regions: [String] = []
    package var endpoints: [String] = []
    package var runs: [Run] = []

    package init(vantage: String) { self.vantage = vantage }

    package mutating func index(ofRegion name: String) -> Int { Self.index(of: name, in: &regions) }
    package mutating func index(ofEndpoint url: String) -> Int {
        Self.index(of: url, in: &endpoints)
    }
    private static func index(of name: String, in list: inout [String]) -> Int {
        if let index = list.firstIndex(of: name) { return index }
        list.append(name)
        return list.count - 1
    }
}

/// Puts finished probes back into the order in which they were due.
package struct InOrder<Element> {
    private var waiting: [UInt64: Element] = [:]
    private var next: UInt64 = 0
    package init() {}

    /// Calls `body` for every element whose turn has come.
    package mutating func add(_ element: Element, number: UInt64, _ body: (Element) -> Void) {
        waiting[number] = element
        while let ready = waiting.removeValue(forKey: next) {
            next += 1
            body(ready)
        }
    }
}
