import Foundation
import Primitives
import Testing

@testable import SLAProbe

@Suite struct ProbeLogTests {
    static func record(
        _ due: UInt64, _ kind: ProbeKind = .read, _ outcome: Outcome = .ok, latency: UInt64 = 1_500
    ) -> ProbeRecord {
        ProbeRecord(
            dueMicroseconds: due, kind: kind, region: 0, outcome: outcome,
            latencyMicroseconds: latency,
            attempts: [
                .init(endpoint: 0, outcome: .timeout, latencyMicroseconds: 1_000_000),
                .init(endpoint: 1, outcome: outcome, latencyMicroseconds: latency),
            ])
    }

    @Test func `a line reads back as it was written, and JSON can read it too`() throws {
        var bytes: [UInt8] = []
        let record = Self.record(1_764_100_000_123_456, .write, .staleRead)
        ProbeLogFormat.append(record, to: &bytes)
        #expect(bytes.dropLast().withUnsafeBufferPointer { ProbeLogFormat.parse($0) } == record)
        let object = try JSONSerialization.jsonObject(with: Data(bytes)) as? [String: Any]
        #expect(object?["o"] as? String == "staleRead")
        for cut in 0..<bytes.count - 1 {
            #expect(bytes[0..<cut].withUnsafeBufferPointer { ProbeLogFormat.parse($0) } == nil)
        }
    }

    @Test func `records that finish out of order are written in order`() throws {
        let directory = NSTemporaryDirectory() + "polder-log-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let (log, description) = try ProbeLogWriter.open(directory: directory, vantage: "v") {
            _ = $0.index(ofRegion: "r1")
            _ = $0.index(ofEndpoint: "a")
            _ = $0.index(ofEndpoint: "b")
        }
        #expect(description.endpoints == ["a", "b"])
        for number in [2, 0, 1, 3] as [UInt64] {
            log.append(Self.record(number * 10), number: number)
        }
        try log.finish()
        var dues: [UInt64] = []
        let damaged = try ProbeLogReader(directory: directory).forEach {
            dues.append($0.dueMicroseconds)
        }
        #expect(dues == [0, 10, 20, 30])
        #expect(damaged == 0)
    }

    @Test func `a prober that was killed and started again goes on in the same files`() throws {
        let directory = NSTemporaryDirectory() + "polder-log-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: directory) }
        func run(_ start: UInt64, endpoint: String) throws {
            let (log, description) = try ProbeLogWriter.open(directory: directory, vantage: "v") {
                _ = $0.index(ofRegion: "r1")
                _ = $0.index(ofEndpoint: endpoint)
                $0.runs.append(
                    .init(startMicroseconds: start, ratePerSecond: 1, timeoutMilliseconds: 1000))
            }
            var record = Self.record(start)
            record.attempts = [
                .init(
                    endpoint: description.endpoints.firstIndex(of: endpoint) ?? 99, outcome: .ok,
                    latencyMicroseconds: 5)
            ]
            log.append(record, number: 0)
            try log.finish()
        }
        try run(1_000_000, endpoint: "a")
        let file = try #require(FileHandle(forWritingAtPath: directory + "/probe.jsonl"))
        file.seekToEndOfFile()
        file.write(Data(#"{"t":1764,"k":"re"#.utf8))
        try file.close()
        try run(2_000_000, endpoint: "b")
        let builder = try ReportBuilder.build(directories: [directory])
        #expect(builder.total.read.tally.probes == 2)
        #expect(builder.damagedLines == 1)
        #expect(builder.endpoints.keys.sorted() == ["a", "b"])
        #expect(builder.endpoints["b"]?.read.tally.probes == 1)
    }
}

@Suite struct ReportTests {
    /// 100 probes a second for a minute, reads and writes in turn; everything fails from 20 s to 23 s.
    static func builder() throws -> ReportBuilder {
        let directory = NSTemporaryDirectory() + "polder-report-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let (log, _) = try ProbeLogWriter.open(directory: directory, vantage: "here") {
            _ = $0.index(ofRegion: "r1")
            _ = $0.index(ofEndpoint: "http://a:1")
            _ = $0.index(ofEndpoint: "http://b:1")
            $0.runs.append(
                .init(startMicroseconds: 0, ratePerSecond: 100, timeoutMilliseconds: 1000))
        }
        for number in 0..<6_000 as Range<UInt64> {
            let isDown = (2_000..<2_300).contains(number)
            log.append(
                ProbeLogTests.record(
                    1_764_100_000_000_000 + number * 10_000, number % 2 == 0 ? .read : .write,
                    isDown ? .unavailable : .ok, latency: 1_000 + number % 100 * 10),
                number: number)
        }
        try log.finish()
        return try ReportBuilder.build(directories: [directory])
    }

    @Test func `the report counts, and finds the outage`() throws {
        let report = ReportDocument(try Self.builder(), objective: 0.99999)
        #expect(report.availability.read.probes == 3_000)
        #expect(report.availability.read.failures == 150)
        #expect(report.availability.read.ratio == 0.95)
        #expect(report.availability.read.lowerBound95 < 0.95)
        #expect(abs(report.availability.write.timeBased - 0.95) < 0.001)
        #expect(report.outages.count == 2)
        for outage in report.outages {
            #expect(abs(outage.seconds - 3) < 0.001)
            #expect(abs(outage.end - outage.start - 3) < 0.001)
        }
        #expect(report.latency.read.p50 > 1.4 && report.latency.read.p50 < 1.6)
        #expect(report.endpoints["http://a:1"]?.availability.read.ratio == 0)
        #expect(report.errorBudget.read.remaining < 0)
    }

    @Test func `report.json has the fields that scripts read`() throws {
        let json = try ReportDocument(try Self.builder(), objective: 0.999).json()
        let object = try #require(try JSONSerialization.jsonObject(with: json) as? [String: Any])
        let availability = try #require(object["availability"] as? [String: [String: Any]])
        for kind in ["read", "write"] {
            for field in ["ratio", "lowerBound95", "probes", "failures"] {
                #expect(availability[kind]?[field] is NSNumber, "\(kind).\(field)")
            }
        }
        let outages = try #require(object["outages"] as? [[String: Any]])
        for field in ["start", "end", "seconds"] { #expect(outages[0][field] is NSNumber) }
        #expect((object["latency"] as? [String: [String: Any]])?["read"]?["p99"] is NSNumber)
    }

    @Test func `the table for spreadsheets has a row for each class`() throws {
        let csv = ReportDocument(try Self.builder(), objective: 0.999).csv()
        let rows = csv.split(separator: "\n")
        #expect(rows.filter { $0.hasPrefix("total,") }.count == 2)
        #expect(rows.filter { $0.hasPrefix("endpoint,") }.count == 4)
        #expect(rows.filter { $0.hasPrefix("outage,r1,here") }.count == 2)
    }
}
