import Dispatch
import Foundation
import Glibc
import Synchronization

package enum ProbeError: Error, CustomStringConvertible, Equatable {
    case cannotWrite(path: String, reason: String)
    case cannotRead(path: String, reason: String)
    case badOption(String)
    case noData(path: String)

    package var description: String {
        switch self {
        case .cannotWrite(let path, let reason): "cannot write \(path): \(reason)"
        case .cannotRead(let path, let reason): "cannot read \(path): \(reason)"
        case .badOption(let text): text
        case .noData(let path): "\(path) holds no probes: run `polder probe --out \(path)` first"
        }
    }
}

/// Appends to `DIR/probe.jsonl`, on a queue of its own: a slow disk must not delay probes.
package final class ProbeLogWriter: Sendable {
    package static let fileName = "probe.jsonl"
    package static let descriptionName = "meta.json"
    /// A prober that is killed loses at most this much (and what was still under way).
    private static let flushBytes = 64 << 10

    private struct State: ~Copyable {
        var buffer: [UInt8] = []
        var order = InOrder<ProbeRecord>()
        var failure: ProbeError?
    }
    private let state = Mutex(State())
    private let queue = DispatchQueue(label: "polder.probe.log")
    private let descriptor: Int32
    private let path: String

    /// Adds a run to the description in `directory`, which is made if need be.
    package static func open(
        directory: String, vantage: String,
        describe: (inout ProbeLogDescription) -> Void
    ) throws -> (ProbeLogWriter, ProbeLogDescription) {
        do {
            try FileManager.default.createDirectory(
                atPath: directory, withIntermediateDirectories: true)
        } catch {
            throw ProbeError.cannotWrite(path: directory, reason: error.localizedDescription)
        }
        let url = URL(fileURLWithPath: directory).appendingPathComponent(descriptionName)
        var description = ProbeLogDescription(vantage: vantage)
        if FileManager.default.fileExists(atPath: url.path) {
            description = try readDescription(directory: directory)
        }
        describe(&description)
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        do {
            try encoder.encode(description).write(to: url, options: .atomic)
        } catch {
            throw ProbeError.cannotWrite(path: url.path, reason: error.localizedDescription)
        }
        let path = URL(fileURLWithPath: directory).appendingPathComponent(fileName).path
        return (try ProbeLogWriter(path: path), description)
    }

    package static func readDescription(directory: String) throws -> ProbeLogDescription {
        let url = URL(fileURLWithPath: directory).appendingPathComponent(descriptionName)
        do {
            let description = try JSONDecoder().decode(
                ProbeLogDescription.self, from: Data(contentsOf: url))
            guard description.version == ProbeLogFormat.version else {
                throw ProbeError.cannotRead(
                    path: url.path, reason: "its version is \(description.version)")
            }
            return description
        } catch let error as ProbeError {
            throw error
        } catch {
            throw ProbeError.cannotRead(path: url.path, reason: error.localizedDescription)
        }
    }

    private init(path: String) throws {
        self.path = path
        let descriptor = Glibc.open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else {
            throw ProbeError.cannotWrite(path: path, reason: String(cString: strerror(errno)))
        }
        self.descriptor = descriptor
        // A line that a killed prober left unfinished becomes one damaged line, not two.
        let size = lseek(descriptor, 0, SEEK_END)
        var last: UInt8 = 0
        if size > 0, pread(descriptor, &last, 1, size - 1) == 1, last != UInt8(ascii: "\n") {
            state.withLock { $0.buffer.append(UInt8(ascii: "\n")) }
        }
    }

    package func append(_ record: ProbeRecord, number: UInt64) {
        let (wasEmpty, isFull) = state.withLock { state in
            let wasEmpty = state.buffer.isEmpty
            // Two steps: the closure must not touch `state` while `order` is being changed.
            var ready: [ProbeRecord] = []
            state.order.add(record, number: number) { ready.append($0) }
            for record in ready { ProbeLogFormat.append(record, to: &state.buffer) }
            return (wasEmpty && !state.buffer.isEmpty, state.buffer.count > Self.flushBytes)
        }
        if isFull {
            queue.async { self.flush() }
        } else if wasEmpty {
            queue.asyncAfter(deadline: .now() + 1) { [weak self] in self?.flush() }
        }
    }

    /// The first write that failed, if any: probes that are not recorded are not worth sending.
    package var failure: ProbeError? { state.withLock { $0.failure } }

    /// Everything appended is on disk when this returns.
    package func finish() throws {
        queue.sync { flush() }
        if let failure { throw failure }
    }

    deinit { _ = Glibc.close(descriptor) }

    private func flush() {
        let bytes = state.withLock { state in
            defer { state.buffer.removeAll(keepingCapacity: true) }
            return state.buffer
        }
        guard !bytes.isEmpty else { return }
        var offset = 0
        while offset < bytes.count {
            let written = bytes.withUnsafeBytes { raw in
                write(descriptor, raw.baseAddress.map { $0 + offset }, bytes.count - offset)
            }
            if written < 0 && errno == EINTR { continue }
            guard written > 0 else {
                let reason = String(cString: strerror(errno))
                state.withLock {
                    $0.failure = $0.failure ?? .cannotWrite(path: path, reason: reason)
                }
                return
            }
            offset += written
        }
        _ = fdatasync(descriptor)
    }
}

/// Reads a log of any size line by line.
package struct ProbeLogReader {
    package let directory: String
    package let description: ProbeLogDescription
    private let bytes: Data

    package init(directory: String) throws {
        self.directory = directory
        description = try ProbeLogWriter.readDescription(directory: directory)
        let url = URL(fileURLWithPath: directory).appendingPathComponent(ProbeLogWriter.fileName)
        do {
            bytes = try Data(contentsOf: url, options: .mappedIfSafe)
        } catch {
            throw ProbeError.cannotRead(path: url.path, reason: error.localizedDescription)
        }
    }

    /// Returns how many lines were damaged.
    package func forEach(_ body: (ProbeRecord) -> Void) -> Int {
        bytes.withUnsafeBytes { raw in
            let all = raw.bindMemory(to: UInt8.self)
            var damaged = 0
            var start = 0
            while start < all.count {
                let rest = UnsafeBufferPointer(rebasing: all[start...])
                let length =
                    rest.baseAddress.flatMap { base in
                        memchr(base, 10, rest.count).map {
                            UnsafeRawPointer($0) - UnsafeRawPointer(base)
                        }
                    } ?? rest.count
                let line = UnsafeBufferPointer(rebasing: rest[0..<length])
                start += length + 1
                if line.isEmpty { continue }
                if let record = ProbeLogFormat.parse(line),
                    record.region < description.regions.count,
                    record.attempts.allSatisfy({ $0.endpoint < description.endpoints.count })
                {
                    body(record)
                } else {
                    damaged += 1
                }
            }
            return damaged
        }
    }
}
