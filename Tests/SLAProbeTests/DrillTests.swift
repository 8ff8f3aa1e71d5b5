import Foundation
import Primitives
import Testing

@testable import SLAProbe

@Suite struct DrillTests {
    private static let second: UInt64 = 1_000_000_000
    private func at(_ milliseconds: UInt64) -> Instant {
        Instant(nanoseconds: milliseconds * 1_000_000)
    }

    /// A thousand operations a second for twelve seconds; nothing is answered for `gap` milliseconds
    /// after the fifth second, then all at once.
    private func record(gap: UInt64) -> DrillRecord {
        var record = DrillRecord(registers: 1)
        for n in 0..<12_000 as Range<UInt64> {
            let isHeld = (5_000..<5_000 + gap).contains(n)
            record.completions.append(
                .init(
                    kind: n % 2 == 0 ? .read : .write, due: at(n),
                    finished: at((isHeld ? 5_000 + gap : n) + 2), outcome: .ok))
        }
        return record
    }

    @Test func `a stall without an error is a gap`() {
        let record = record(gap: 120)
        let gap = record.longestGap(from: at(4_000), to: at(11_000))
        #expect((118...124).contains(gap.span.milliseconds))
        #expect((4_999...5_003).contains(gap.start.nanoseconds / 1_000_000))
        #expect(record.longestGap(from: at(6_000), to: at(11_000)).span.milliseconds <= 3)
        #expect(record.longestWait(from: at(4_000), to: at(11_000)).milliseconds == 122)
    }

    @Test func `failures make a gap too, also one that does not end`() {
        var record = record(gap: 0)
        for n in record.completions.indices where (7_000..<7_300).contains(n) || n >= 11_500 {
            record.completions[n].outcome = .unavailable
        }
        #expect(
            (299...306).contains(
                record.longestGap(.write, from: at(6_000), to: at(11_000)).span.milliseconds))
        #expect(record.longestGap(from: at(6_000), to: at(12_500)).span.milliseconds > 900)
        #expect(record.errors == 800)
    }

    @Test func `a final value older than an acknowledged write is a loss`() {
        func write(
            _ value: UInt64, _ start: UInt64, _ end: UInt64,
            _ result: RegisterOperation.Result = .done
        )
            -> RegisterOperation
        {
            RegisterOperation(
                client: 0, action: .write(value), start: start, end: end, result: result)
        }
        let history = [
            write(1, 10, 20), write(2, 30, 40), write(3, 35, 50), write(4, 45, .max, .unknown),
        ]
        #expect(DrillRecord.lostWrites(history, finalValue: 3) == 0)
        #expect(DrillRecord.lostWrites(history, finalValue: 2) == 0)
        #expect(DrillRecord.lostWrites(history, finalValue: 4) == 0)
        #expect(DrillRecord.lostWrites(history, finalValue: 1) == 2)
        #expect(DrillRecord.lostWrites(history, finalValue: nil) == 3)
        #expect(DrillRecord.lostWrites([], finalValue: nil) == 0)
    }

    @Test func `the verdict is PASS only if everything that was claimed was seen`() {
        var good = DrillDocument(
            name: "leader-crash", hypothesis: "h", budgetGapMs: 150, rate: 1000, startedAt: 0)
        good.linearizable = true
        good.longestGapMs = 149
        func verdict(_ change: (inout DrillDocument) -> Void) -> String {
            var document = good
            change(&document)
            document.judge()
            return document.verdict
        }
        #expect(verdict { _ in } == "PASS")
        #expect(verdict { $0.longestGapMs = 151 } == "FAIL")
        #expect(verdict { $0.errors = 1 } == "FAIL")
        #expect(verdict { $0.lostWrites = 1 } == "FAIL")
        #expect(verdict { $0.linearizable = false } == "FAIL")
        #expect(verdict { $0.linearizable = nil } == "FAIL")
        #expect(verdict { $0.converged = false } == "FAIL")
        #expect(verdict { $0.findings = ["the cut had no effect"] } == "FAIL")
    }

    @Test func `drill.json has the fields that scripts read, and the page needs nothing else`()
        throws
    {
        let record = record(gap: 120)
        var document = DrillDocument(
            name: "leader-crash", hypothesis: Drill.leaderCrash.description.hypothesis,
            budgetGapMs: 150,
            rate: 1000, startedAt: 1_764_100_000)
        document.linearizable = true
        document.longestGapMs = 120
        document.phases = [
            .init(name: "load", atSeconds: 0), .init(name: "kill -9 r1-n1", atSeconds: 5),
        ]
        document.regions = [
            .init(
                name: "r1", operations: 12_000, errors: 0, errorsByOutcome: [:],
                acknowledgedWrites: 6_000,
                longestGapMs: 120, longestReadGapMs: 120, longestWriteGapMs: 119, gapAtSeconds: 5,
                baselineGapMs: 3, longestWaitMs: 122, p50Ms: 2, p99Ms: 60)
        ]
        document.judge()
        let object = try #require(
            try JSONSerialization.jsonObject(with: document.json()) as? [String: Any])
        for field in ["name", "verdict", "hypothesis"] { #expect(object[field] is String) }
        for field in ["longestGapMs", "errors", "lostWrites", "linearizable"] {
            #expect(object[field] is NSNumber)
        }
        let page = DrillPage.html(document, [.init(region: "r1", record: record, start: .zero)])
        if let path = ProcessInfo.processInfo.environment["POLDER_KEEP_PAGE"] {
            try page.write(toFile: path, atomically: true, encoding: .utf8)
        }
        #expect(page.contains("PASS"))
        for outside in ["<script", "src=", "<link", "@import", "url("] {
            #expect(!page.contains(outside))
        }
    }

    @Test func `who leads is read from a node's status`() {
        let json =
            #"{"sequencer":{"node":"r1-n2","epoch":3},"partitions":[{"id":1,"leader":"r1-n2"},{"id":2,"leader":null},{"id":3,"leader":"r1-n1"},{"id":4,"leader":"r1-n2"}]}"#
        let leaders = DevCluster.leaders(json: Array(json.utf8))
        #expect(leaders?.sequencer == "r1-n2")
        #expect(leaders?.partitions == ["r1-n2": 2, "r1-n1": 1])
        #expect(DevCluster.leaders(json: Array("<html>".utf8)) == nil)
        #expect(
            DevCluster.leaders(json: Array(#"{"sequencer":null,"partitions":[]}"#.utf8))?.sequencer
                == nil)
    }

    @Test func `conflicts are counted by their keys`() {
        let json =
            #"{"conflicts":[{"key":"YS8x","keyText":"a/1"},{"key":"Yi8x","keyText":"b/1"},{"key":"YS8y"}]}"#
        #expect(DevCluster.conflicts(json: Array(json.utf8), prefix: "a/") == 2)
        #expect(DevCluster.conflicts(json: Array(#"[{"key":"a/3"}]"#.utf8), prefix: "a/") == 1)
        #expect(DevCluster.conflicts(json: [], prefix: "a/") == 0)
    }

    @Test func `a drill that does not exist, or has no cluster, says so`() async {
        await #expect(throws: ProbeError.self) {
            try await DrillCommand.run(DrillOptions(name: "nope", dev: "/nowhere", out: "/tmp") { _, _ in nil })
        }
        let out = NSTemporaryDirectory() + "polder-drill-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: out) }
        let missing = await #expect(throws: DrillError.self) {
            try await DrillCommand.run(
                DrillOptions(name: "leader-crash", dev: "/nowhere", out: out) { _, _ in nil })
        }
        #expect(missing?.description.contains("polder dev --data-dir /nowhere") == true)
        #expect(
            DrillCommand.list().map(\.name) == ["leader-crash", "node-crash", "leader-freeze", "rolling-restart", "split",
                "move", "region-isolation",
            ])
    }
}

@Suite struct DrillCatalogueTests {
    @Test func `a partition goes to a node that does not vote there, or else to one that does not lead it`() {
        func places(_ voters: String) -> [DrillRun.Place] {
            DrillRun.places(
                json: Array(
                    """
                    {"regions": [{"nodes": [{"name": "a", "id": "1a"}, {"name": "b", "id": "1b"}, {"name": "c", "id": "1c"}]}],
                     "partitions": [{"id": 3, "leader": "b", "voters": [\(voters)]}, {"id": 4, "leader": null, "voters": []}]}
                    """.utf8))
        }
        let out = DrillRun.Place(id: 3, leader: "b", leaderID: "1b", target: "a", targetID: "1a")
        #expect(places("\"b\", \"c\"") == [out])
        #expect(places("\"a\", \"b\", \"c\"").map(\.target) == ["c"])
        #expect(DrillRun.places(json: Array("{}".utf8)).isEmpty)
    }

    @Test func `what may fail is what was due within the budget, and nothing where nobody dies`() {
        #expect(Drill.leaderCrash.errorsAllowed(rate: 1000) == 150)
        #expect(Drill.nodeCrash.errorsAllowed(rate: 1000) == 50)
        #expect(Drill.regionIsolation.errorsAllowed(rate: 1000) == 0)
    }

    /// What `/metrics` says, from two nodes; the second was started again in between.
    @Test func theSlowestSyncIsThatOfTheDrillAlone() {
        func text(_ counts: [(String, Int)]) -> String {
            counts.map { "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"\($0.0)\"} \($0.1)\n" }.joined()
                + "etcd_disk_wal_fsync_duration_seconds_sum 0.5\nup 1\n"
        }
        let one = DrillDisk.buckets(text([("0.001", 5), ("0.002", 7), ("0.004", 8), ("+Inf", 8)]))
        #expect(one == [0.001: 5, 0.002: 7, 0.004: 8, .infinity: 8])
        let before = DrillDisk(["a": one, "b": one])
        #expect(before.slowestSync(since: before) == nil)
        let calm = DrillDisk.buckets(text([("0.001", 9), ("0.002", 12), ("0.004", 13), ("+Inf", 13)]))
        #expect(DrillDisk(["a": calm, "b": one]).slowestSync(since: before) == 2)
        let anew = DrillDisk.buckets(text([("0.001", 1), ("0.002", 1), ("0.004", 2), ("+Inf", 2)]))
        #expect(DrillDisk(["a": calm, "b": anew]).slowestSync(since: before) == 4)
        let stuck = DrillDisk.buckets(text([("0.001", 9), ("0.002", 12), ("0.004", 13), ("+Inf", 14)]))
        #expect(DrillDisk(["a": stuck]).slowestSync(since: before) == 60_000)
    }

    @Test func `what the host took around a gap is told, and what it took otherwise is not`() {
        let stat = "cpu  1871487 38170 259327 936740 11969 0 28213 5610 0 0\ncpu0 912238 22559 125285\n"
        #expect(StolenTime.milliseconds(stat, ticksPerSecond: 100) == 56_100)
        #expect(StolenTime.milliseconds("cpu  1 2 3 4\n", ticksPerSecond: 100) == nil)
        #expect(StolenTime.milliseconds("intr 5\n", ticksPerSecond: 100) == nil)
        func at(_ ms: UInt64) -> Instant { Instant(nanoseconds: (10_000 + ms) * 1_000_000) }
        let seen = StolenTime([(at(0), 100), (at(500), 120), (at(1000), 190)])
        #expect(seen.milliseconds(from: at(940), to: at(1010)) == 70)
        #expect(seen.milliseconds(from: at(600), to: at(700)) == 0)
        #expect(seen.milliseconds(from: at(0), to: at(2000)) == 90)
        #expect(StolenTime([]).milliseconds(from: at(0), to: at(9)) == 0)
    }
}
