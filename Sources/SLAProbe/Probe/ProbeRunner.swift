import EtcdAPI
import NIOCore
import NIOPosix
import Primitives
import Synchronization

/// Sends probes until the time is up or the task is cancelled, and writes what became of them.
package final class ProbeRunner: Sendable {
    private struct Region: Sendable {
        let name: String
        let index: Int
        let clients: [EtcdClient]
        /// Indices of the log's endpoints.
        let endpoints: [Int]
    }
    /// A figure for progress lines.
    package struct Progress: Sendable {
        package var probes: UInt64 = 0
        package var failures: UInt64 = 0
        package var running: Int = 0
    }

    private let options: ProbeOptions
    private let regions: [Region]
    private let log: ProbeLogWriter
    private let group: MultiThreadedEventLoopGroup
    private let keyPrefix: String
    /// By region, by key.
    private let witnesses: Mutex<[[RegisterWitness]]>
    private let counters = Mutex(Progress())
    private let startWallMicroseconds: UInt64
    private let start: Instant

    package init(_ options: ProbeOptions) throws {
        let parsed = try options.validated()
        let tls = try options.tls?.context()
        self.options = options
        let vantage = options.vantage ?? Host.name()
        let startWall = SystemClock.wallMicroseconds()
        let (log, description) = try ProbeLogWriter.open(directory: options.out, vantage: vantage) {
            for (name, endpoints) in parsed {
                _ = $0.index(ofRegion: name)
                for endpoint in endpoints { _ = $0.index(ofEndpoint: endpoint.description) }
            }
            $0.runs.append(
                .init(
                    startMicroseconds: startWall, ratePerSecond: options.rate,
                    timeoutMilliseconds: Int(options.timeout.milliseconds)))
        }
        self.log = log
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        self.group = group
        var description2 = description
        regions = parsed.map { name, endpoints in
            Region(
                name: name, index: description2.index(ofRegion: name),
                clients: endpoints.map {
                    EtcdClient(endpoint: $0, loop: group.next(), options: .init(tls: tls))
                },
                endpoints: endpoints.map { description2.index(ofEndpoint: $0.description) })
        }
        witnesses = Mutex(
            parsed.map { _ in (0..<options.keys).map { _ in RegisterWitness() } })
        // Keys of its own: what an earlier run left behind, or may still deliver, must not be
        // judged.
        keyPrefix = options.keyPrefix + vantage + "/\(String(startWall, radix: 36))/"
        startWallMicroseconds = startWall
        start = SystemClock.now()
    }

    package var isLogBroken: Bool { log.failure != nil }
    package var progress: Progress { counters.withLock { $0 } }

    package func run() async throws {
        let deadline =
            options.durationSeconds.map {
                start.advanced(by: TimeSpan(nanoseconds: UInt64($0 * 1e9)))
            } ?? .never
        await runOpenLoop(rate: options.rate, start: start, until: deadline) { number, due in
            await self.probe(number, due)
        }
        for region in regions {
            // Politeness only: a service that is down keeps a few dozen small keys.
            for client in region.clients {
                let removed = try? await client.delete(
                    keyPrefix, isPrefix: true, timeout: .seconds(1))
                if removed != nil { break }
            }
            for client in region.clients { await client.shutdown() }
        }
        try await group.shutdownGracefully()
        try log.finish()
    }

    // MARK: One probe

    private func probe(_ number: UInt64, _ due: Instant) async {
        counters.withLock { $0.running += 1 }
        // Reads and writes in turn; regions in turn; within a region, endpoints and keys in turn.
        let kind: ProbeKind = number % 2 == 0 ? .write : .read
        let turn = Int(truncatingIfNeeded: number / 2)
        let region = regions[turn % regions.count]
        let round = turn / regions.count
        let key = round % options.keys
        let first = round % region.clients.count
        let deadline = due.advanced(by: options.timeout)
        let result =
            switch kind {
            case .read: await read(region, key, first, deadline)
            case .write: await write(region, key, first, deadline)
            }
        let latency = result.finished.since(due).nanoseconds / 1000
        log.append(
            ProbeRecord(
                dueMicroseconds: startWallMicroseconds + due.since(start).nanoseconds / 1000,
                kind: kind,
                region: region.index, outcome: result.outcome, latencyMicroseconds: latency,
                attempts: result.attempts.map {
                    .init(
                        endpoint: region.endpoints[$0.endpoint], outcome: $0.outcome,
                        latencyMicroseconds: $0.finished.since($0.started).nanoseconds / 1000)
                }), number: number)
        counters.withLock {
            $0.running -= 1
            $0.probes += 1
            if result.outcome.isFailure { $0.failures += 1 }
        }
    }

    private func name(_ region: Region, _ key: Int) -> String {
        "\(keyPrefix)\(region.name)/\(key)"
    }

    private func read(
        _ region: Region, _ key: Int, _ first: Int, _ deadline: Instant
    ) async -> FailoverResult<Never> {
        await withFailover(
            endpoints: region.clients.count, first: first, deadline: deadline,
            hedgeAfter: options.hedgeAfter
        ) { endpoint, timeout in
            (await self.readOnce(region, key, region.clients[endpoint], timeout), nil)
        }
    }

    private func readOnce(
        _ region: Region, _ key: Int, _ client: EtcdClient, _ timeout: TimeSpan
    ) async -> Outcome {
        let mark = witnesses.withLock { $0[region.index][key].beginRead() }
        do throws(EtcdClientError) {
            let value = try await client.get(name(region, key), timeout: timeout).kv?.value
            let text = value.map { String(decoding: $0, as: UTF8.self) }
            return witnesses.withLock { $0[region.index][key].judge(text, since: mark) }
        } catch {
            return Outcome(error)
        }
    }

    /// A write is good when it is acknowledged and a read that begins after that sees it (or one
    /// that came after it). The read-back goes to another endpoint; it is not part of the latency,
    /// and if it gets no answer, nothing is said against the write.
    private func write(
        _ region: Region, _ key: Int, _ first: Int, _ deadline: Instant
    ) async -> FailoverResult<Never> {
        var result: FailoverResult<Never> = await withFailover(
            endpoints: region.clients.count, first: first, deadline: deadline,
            hedgeAfter: options.hedgeAfter
        ) { endpoint, timeout in
            // Each attempt is a write of its own: the one that timed out may come later.
            let number = self.witnesses.withLock {
                $0[region.index][key].beginWrite(at: SystemClock.now())
            }
            do throws(EtcdClientError) {
                try await region.clients[endpoint].put(
                    self.name(region, key), "\(number)", timeout: timeout)
                self.witnesses.withLock {
                    $0[region.index][key].acknowledge(number, at: SystemClock.now())
                }
                return (.ok, nil)
            } catch {
                self.witnesses.withLock {
                    $0[region.index][key].fail(number, mayHaveHappened: error.mayHaveHappened)
                }
                return (Outcome(error), nil)
            }
        }
        guard result.outcome == .ok else { return result }
        let other = region.clients[(first + 1) % region.clients.count]
        switch await readOnce(region, key, other, options.timeout) {
        case .wrongAnswer: result.outcome = .wrongAnswer
        case .staleRead: result.outcome = .staleRead
        case .ok, .timeout, .unavailable, .refused: break
        }
        return result
    }
}

extension Outcome {
    init(_ error: EtcdClientError) {
        self =
            switch error.kind {
            case .timeout: .timeout
            case .unavailable: .unavailable
            case .refused: .refused
            }
    }
}
