import EtcdAPI
import Foundation
import Primitives
import Synchronization
import Testing

@testable import SLAProbe

@Suite struct RegisterWitnessTests {
    private func at(_ n: UInt64) -> Instant { Instant(nanoseconds: n) }

    @Test func `a read must not miss what was acknowledged before it began`() {
        var witness = RegisterWitness()
        #expect(witness.judge(nil, since: witness.beginRead()) == .ok)
        let early = witness.beginRead()
        let one = witness.beginWrite(at: at(1))
        witness.acknowledge(one, at: at(2))
        #expect(witness.judge(nil, since: early) == .ok)
        #expect(witness.judge(nil, since: witness.beginRead()) == .wrongAnswer)
        #expect(witness.judge("1", since: witness.beginRead()) == .ok)
        let between = witness.beginRead()
        let two = witness.beginWrite(at: at(3))
        #expect(witness.judge("2", since: between) == .ok)
        witness.acknowledge(two, at: at(4))
        #expect(witness.judge("1", since: between) == .ok)
        #expect(witness.judge("1", since: witness.beginRead()) == .staleRead)
    }

    @Test func `overlapping writes may end in either order, unknown ones at any time`() {
        var witness = RegisterWitness()
        let one = witness.beginWrite(at: at(1))
        let two = witness.beginWrite(at: at(2))
        witness.acknowledge(two, at: at(3))
        witness.acknowledge(one, at: at(4))
        #expect(witness.judge("1", since: witness.beginRead()) == .ok)
        #expect(witness.judge("2", since: witness.beginRead()) == .ok)
        let three = witness.beginWrite(at: at(5))
        witness.fail(three, mayHaveHappened: true)
        let four = witness.beginWrite(at: at(6))
        witness.acknowledge(four, at: at(7))
        #expect(witness.judge("3", since: witness.beginRead()) == .ok)
        #expect(witness.judge("2", since: witness.beginRead()) == .staleRead)
    }

    @Test func `what was never written is a wrong answer`() {
        var witness = RegisterWitness()
        for bad in ["0", "1", "x", ""] {
            #expect(witness.judge(bad, since: witness.beginRead()) == .wrongAnswer)
        }
        let one = witness.beginWrite(at: at(1))
        witness.acknowledge(one, at: at(2))
        #expect(witness.judge("2", since: witness.beginRead()) == .wrongAnswer)
    }

    @Test func `a long life needs no more memory, and old values stay stale`() {
        var witness = RegisterWitness(acknowledgedMax: 4)
        for n in 1...100 as ClosedRange<UInt64> {
            witness.acknowledge(witness.beginWrite(at: at(n * 2)), at: at(n * 2 + 1))
        }
        #expect(witness.judge("3", since: witness.beginRead()) == .staleRead)
        #expect(witness.judge("100", since: witness.beginRead()) == .ok)
    }
}

@Suite struct FailoverTests {
    private func run(
        _ outcomes: [Outcome], first: Int = 0
    ) async -> FailoverResult<Int> {
        await withFailover(
            endpoints: outcomes.count, first: first,
            deadline: SystemClock.now().advanced(by: .seconds(3600)), hedgeAfter: .seconds(1800)
        ) { endpoint, _ in (outcomes[endpoint], endpoint) }
    }

    @Test func `the next endpoint is asked as soon as one fails, each once`() async {
        let good = await run([.unavailable, .refused, .ok, .ok])
        #expect(good.outcome == .ok)
        #expect(good.value == 2)
        #expect(good.attempts.map(\.endpoint) == [0, 1, 2])
        let bad = await run([.unavailable, .timeout], first: 1)
        #expect(bad.outcome == .unavailable)
        #expect(bad.attempts.map(\.endpoint) == [1, 0])
    }

    @Test func `a wrong answer is not made good by another endpoint`() async {
        let result = await run([.wrongAnswer, .ok])
        #expect(result.outcome == .wrongAnswer)
        #expect(result.attempts.count == 1)
    }

    @Test func `a probe that comes too late is a timeout`() async {
        let result: FailoverResult<Int> = await withFailover(
            endpoints: 2, first: 0, deadline: .zero, hedgeAfter: .zero
        ) { _, _ in (.ok, 1) }
        #expect(result.outcome == .timeout)
        #expect(result.attempts.isEmpty)
    }

    @Test func `a slow endpoint is hedged, and counted when it answers`() async {
        let release = AsyncStream<Void>.makeStream()
        let result: FailoverResult<Int> = await withFailover(
            endpoints: 2, first: 0, deadline: SystemClock.now().advanced(by: .seconds(3600)),
            hedgeAfter: .milliseconds(1)
        ) { endpoint, _ in
            if endpoint == 0 {
                for await _ in release.stream { break }
                return (.timeout, 0)
            }
            release.continuation.finish()
            return (.ok, 1)
        }
        #expect(result.outcome == .ok)
        #expect(Set(result.attempts.map(\.endpoint)) == [0, 1])
    }
}

@Suite struct ProbeOptionsTests {
    @Test func `bad options are refused before anything is sent`() {
        func message(_ change: (inout ProbeOptions) -> Void) -> String? {
            var options = ProbeOptions()
            options.endpoints = ["http://a:1"]
            change(&options)
            do {
                _ = try options.validated()
                return nil
            } catch {
                return error.description
            }
        }
        #expect(message { _ in } == nil)
        #expect(message { $0.rate = 0 } != nil)
        #expect(message { $0.endpoints = [] } != nil)
        #expect(message { $0.endpoints = ["nonsense://x"] }?.contains("nonsense://x") == true)
        #expect(message { $0.endpoints = ["https://a:1"] }?.contains("--cacert") == true)
        #expect(message { $0.durationSeconds = -1 } != nil)
        #expect(message { $0.regions = [("r", ["a:1"]), ("r", ["b:1"])] } != nil)
    }

    @Test func `endpoints that belong to a region are not probed twice`() throws {
        var options = ProbeOptions()
        options.endpoints = ["http://a:1", "http://b:1"]
        options.regions = [("r1", ["http://a:1"]), ("r2", ["http://b:1"])]
        #expect(try options.validated().map(\.name) == ["r1", "r2"])
    }
}

@Suite(
    .serialized,
    .enabled(
        if: RealEtcd.executable != nil, "no etcd program on the PATH: apt-get install etcd-server"))
struct ProbeRunnerTests {
    @Test func `a probe of a real etcd finds it available, and its page needs nothing else`()
        async throws
    {
        let etcd = try RealEtcd(executable: #require(RealEtcd.executable))
        defer { etcd.remove() }
        try etcd.start()
        try await etcd.waitUntilServing()
        let out = NSTemporaryDirectory() + "polder-probe-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: out) }
        var options = ProbeOptions()
        options.endpoints = [etcd.url]
        options.rate = 100
        options.durationSeconds = 1.5
        options.timeout = .seconds(5)
        options.out = out
        try await ProbeRunner(options).run()

        var report = ReportOptions(directories: [out])
        report.format = .json
        report.minimumAvailability = 0.999
        let printed = Mutex("")
        let code = try ReportCommand.run(report) { text in printed.withLock { $0 += text } }
        #expect(code == 0)
        let document = try JSONDecoder().decode(
            ReportDocument.self, from: Data(printed.withLock { $0 }.utf8))
        #expect(document.availability.read.probes == 75)
        #expect(document.availability.write.probes == 75)
        #expect(document.availability.write.failures == 0)
        #expect(document.latency.write.p50 > 0)
        let page = try String(contentsOfFile: out + "/report.html", encoding: .utf8)
        #expect(page.contains("<svg"))
        for outside in ["<script", "src=", "<link", "@import", "url("] {
            #expect(!page.contains(outside))
        }
    }

    @Test func `an endpoint where nobody listens is unavailable, and CI hears of it`() async throws
    {
        let out = NSTemporaryDirectory() + "polder-probe-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: out) }
        var options = ProbeOptions()
        options.endpoints = ["http://127.0.0.1:\(try RealEtcd.freePort())"]
        options.rate = 50
        options.durationSeconds = 0.5
        options.out = out
        try await ProbeRunner(options).run()
        var report = ReportOptions(directories: [out])
        report.minimumAvailability = 0.5
        #expect(try ReportCommand.run(report) { _ in } == 1)
        let builder = try ReportBuilder.build(directories: [out])
        #expect(builder.total.read.tally.count(.unavailable) > 0)
        #expect(builder.outages.allSatisfy { !$0.isOver })
    }
}
