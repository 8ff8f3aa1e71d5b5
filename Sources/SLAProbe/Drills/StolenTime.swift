import Foundation
import Glibc
import Primitives

/// Processor time that a virtual machine's host gave to others: `steal` in /proc/stat (proc(5)), in steps of 10 ms.
/// A pause that the machine made is not the cluster's, and can be seen to be none.
final class StolenTime: @unchecked Sendable {
    private static let period = TimeSpan.milliseconds(20)
    private let lock = NSLock()
    private var samples: [(at: Instant, milliseconds: Double)] = []
    private var isEnded = false

    /// Looks every 20 ms, in a thread of its own, until `end`.
    init() {
        Thread.detachNewThread { [self] in
            while !lock.withLock({ isEnded }) {
                guard let text = try? String(contentsOfFile: "/proc/stat", encoding: .utf8),
                    let stolen = Self.milliseconds(text, ticksPerSecond: sysconf(Int32(_SC_CLK_TCK)))
                else { return }
                note(stolen, at: SystemClock.now())
                usleep(UInt32(Self.period.nanoseconds / 1000))
            }
        }
    }

    /// What a test says was seen.
    init(_ samples: [(at: Instant, milliseconds: Double)]) { self.samples = samples }

    func end() { lock.withLock { isEnded = true } }

    /// Nothing is kept of a moment in which nothing was taken: a drill of hours has few samples.
    private func note(_ stolen: Double, at now: Instant) {
        lock.withLock {
            if samples.last?.milliseconds != stolen { samples.append((now, stolen)) }
        }
    }

    /// Of all processors together, from a little before `from` to a little after `to`.
    func milliseconds(from: Instant, to: Instant) -> Double {
        lock.withLock {
            let margin = Self.period * 2
            let start = Instant(nanoseconds: from.nanoseconds - min(from.nanoseconds, margin.nanoseconds))
            let before = samples.last { $0.at < start } ?? samples.first
            let after = samples.last { $0.at <= to.advanced(by: margin) }
            guard let before, let after else { return 0 }
            return after.milliseconds - before.milliseconds
        }
    }

    /// Since the machine's start, of all processors; nil: not such a file, or a kernel without the figure.
    static func milliseconds(_ stat: String, ticksPerSecond: Int) -> Double? {
        guard let line = stat.split(separator: "\n").first, line.hasPrefix("cpu ") else { return nil }
        let fields = line.split(separator: " ")
        guard fields.count > 8, let ticks = Double(fields[8]), ticksPerSecond > 0 else { return nil }
        return ticks * 1000 / Double(ticksPerSecond)
    }
}
