import EtcdAPI
import Foundation
import Primitives
import Synchronization

/// Background load of a drill in one region: open loop, every attempt recorded.
///
/// Of eight operations four are reads of registers, two writes of registers (which all share: their
/// histories are checked for linearizability), two writes of keys that are never written again
/// (each must be there in the end). With contested keys one of the latter goes to those instead.
final class DrillLoad: Sendable {
    private let nodes: [DevCluster.Node]
    private let rate: Double
    private let timeout: TimeSpan
    /// Another node is asked as well when one has not answered for this long.
    private let hedgeAfter: TimeSpan
    private let prefix: String
    private let contestedPrefix: String?
    private static let contestedKeys: UInt64 = 16
    private let registers: Int
    private let region: String
    private let record: Mutex<DrillRecord>

    init(
        region: String, nodes: [DevCluster.Node], rate: Double, registers: Int, prefix: String,
        contestedPrefix: String? = nil, timeout: TimeSpan = .seconds(1),
        hedgeAfter: TimeSpan = .milliseconds(250)
    ) {
        self.region = region
        self.nodes = nodes
        self.rate = rate
        self.registers = registers
        self.prefix = prefix
        self.contestedPrefix = contestedPrefix
        self.timeout = timeout
        self.hedgeAfter = hedgeAfter
        record = Mutex(DrillRecord(registers: registers))
    }

    var recorded: DrillRecord { record.withLock { $0 } }

    /// Until the task is cancelled; then until everything under way has ended.
    func run() async {
        await runOpenLoop(rate: rate) { number, due in await self.operate(number, due) }
    }

    func registerKey(_ register: Int) -> String { "\(prefix)register/\(register)" }
    func onceKey(_ number: UInt64) -> String { "\(prefix)once/\(number)" }
    var oncePrefix: String { "\(prefix)once/" }

    private func operate(_ number: UInt64, _ due: Instant) async {
        let first = Int(truncatingIfNeeded: number / 8 % UInt64(nodes.count))
        // Mixed, so that readers and writers meet at every register.
        var random = SplitMix(seed: number)
        let register = Int(truncatingIfNeeded: random.below(UInt64(registers)))
        let kind: ProbeKind = number % 2 == 0 ? .read : .write
        let result: FailoverResult<Never>
        switch number % 8 {
        case 0, 2, 4, 6: result = await attempts(first, due) { await self.read(register, $0, $1) }
        case 1, 5:
            result = await attempts(first, due) { await self.write(register, number, $0, $1) }
        case 7 where contestedPrefix != nil:
            result = await attempts(first, due) { await self.contest(number, $0, $1) }
        default: result = await attempts(first, due) { await self.writeOnce(number, $0, $1) }
        }
        record.withLock {
            $0.completions.append(
                .init(kind: kind, due: due, finished: result.finished, outcome: result.outcome))
            if kind == .write && result.outcome == .ok { $0.acknowledgedWrites += 1 }
        }
    }

    private func attempts(
        _ first: Int, _ due: Instant, _ body: @escaping @Sendable (Int, TimeSpan) async -> Outcome
    ) async -> FailoverResult<Never> {
        await withFailover(
            endpoints: nodes.count, first: first, deadline: due.advanced(by: timeout),
            hedgeAfter: hedgeAfter
        ) { (await body($0, $1), nil) }
    }

    private func read(_ register: Int, _ node: Int, _ timeout: TimeSpan) async -> Outcome {
        let start = SystemClock.now().nanoseconds
        do throws(EtcdClientError) {
            let kv = try await nodes[node].client.get(registerKey(register), timeout: timeout).kv
            let text = kv.map { String(decoding: $0.value, as: UTF8.self) }
            return note(read: text, register, node, start)
        } catch {
            return Outcome(error)
        }
    }

    private func note(read text: String?, _ register: Int, _ node: Int, _ start: UInt64) -> Outcome
    {
        let end = SystemClock.now().nanoseconds
        let value = text.flatMap { UInt64($0) }
        return record.withLock {
            if let text, value == nil {
                $0.nonsense.append("register \(register): '\(text.prefix(40))'")
                return .wrongAnswer
            }
            $0.histories[register].append(
                RegisterOperation(
                    client: node, action: .read(value), start: start, end: end, result: .done))
            return .ok
        }
    }

    private func write(
        _ register: Int, _ number: UInt64, _ node: Int, _ timeout: TimeSpan
    ) async -> Outcome {
        // Each attempt writes a value of its own, so that a late one can be told from a repeated
        // one.
        let value = number * UInt64(nodes.count) + UInt64(node) + 1
        let start = SystemClock.now().nanoseconds
        let outcome: Outcome
        var result = RegisterOperation.Result.done
        do throws(EtcdClientError) {
            try await nodes[node].client.put(registerKey(register), "\(value)", timeout: timeout)
            outcome = .ok
        } catch {
            outcome = Outcome(error)
            guard error.mayHaveHappened else { return outcome }
            result = .unknown
        }
        let operation = RegisterOperation(
            client: node, action: .write(value), start: start, end: SystemClock.now().nanoseconds,
            result: result)
        record.withLock { $0.histories[register].append(operation) }
        return outcome
    }

    private func writeOnce(_ number: UInt64, _ node: Int, _ timeout: TimeSpan) async -> Outcome {
        // Every attempt writes the same: it does not matter which of them was carried out.
        let outcome = await put(onceKey(number), "\(number)", node, timeout)
        if outcome == .ok { record.withLock { _ = $0.acknowledgedKeys.insert(number) } }
        return outcome
    }

    private func contest(_ number: UInt64, _ node: Int, _ timeout: TimeSpan) async -> Outcome {
        let key = "\(contestedPrefix ?? "")\(number / 8 % Self.contestedKeys)"
        return await put(key, "\(region)-\(number)", node, timeout)
    }

    private func put(
        _ key: String, _ value: String, _ node: Int, _ timeout: TimeSpan
    ) async -> Outcome {
        do throws(EtcdClientError) {
            try await nodes[node].client.put(key, value, timeout: timeout)
            return .ok
        } catch {
            return Outcome(error)
        }
    }

    // MARK: Afterwards

    struct Verification: Sendable {
        /// In words, one for each loss.
        var lost: [String] = []
        var lostWrites = 0
        /// Could not be looked at: no verdict without it.
        var failure: String?
    }

    /// Reads everything back from `node`: registers (these reads join the histories), and the keys
    /// that were written once.
    func verify(with node: DevCluster.Node) async -> Verification {
        var verification = Verification()
        do {
            for register in 0..<registers {
                let start = SystemClock.now().nanoseconds
                let kv = try await node.client.get(registerKey(register)).kv
                let text = kv.map { String(decoding: $0.value, as: UTF8.self) }
                _ = note(read: text, register, -1, start)
                let history = record.withLock { $0.histories[register] }
                let lost = DrillRecord.lostWrites(history, finalValue: text.flatMap { UInt64($0) })
                guard lost > 0 else { continue }
                verification.lost.append("\(lost) writes of register \(register)")
                verification.lostWrites += lost
            }
            let missing = try await missingKeys(in: node)
            verification.lost += missing
            verification.lostWrites += missing.count
        } catch {
            verification.failure = "\(node.name): \(error)"
        }
        return verification
    }

    /// Acknowledged keys that `node` does not have, or not with their value.
    func missingKeys(in node: DevCluster.Node) async throws(EtcdClientError) -> [String] {
        let kvs = try await node.client.list(prefix: oncePrefix).kvs
        var found: [String: String] = [:]
        for kv in kvs {
            found[String(decoding: kv.key, as: UTF8.self)] = String(
                decoding: kv.value, as: UTF8.self)
        }
        return record.withLock { $0.acknowledgedKeys }.sorted()
            .filter { found[onceKey($0)] != "\($0)" }.map(onceKey)
    }
}
