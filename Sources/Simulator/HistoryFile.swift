package import Primitives

/// Histories as lines of text, for `polder check` and for checkers of others (docs/formats.md, "Histories"):
///
///     # polder history 1
///     <client> <invoked> <returned> write <key> <value>
///     <client> <invoked> <returned> delete <key>
///     <client> <invoked> <returned> read <key> <value>
///     <client> <invoked> <returned> absent <key>
///
/// Times are microseconds of one clock; `-` for `returned`: no answer came, it may have taken effect at any
/// time or not at all. `absent` is a read that found no key. Keys and values are percent-encoded.
package enum HistoryFile {
    package static let header = "# polder history 1"

    package struct Malformed: Error, Equatable, Sendable, CustomStringConvertible {
        package let line: Int
        package let what: String
        package var description: String { "line \(line): \(what)" }
    }

    // MARK: Writing

    package static func line(client: String, key: Bytes, _ operation: RegisterOperation) -> String {
        let returned = operation.returnedAt == .never ? "-" : "\(operation.returnedAt.nanoseconds / 1_000)"
        let what =
            switch operation.kind {
            case .write(let value?): "write \(encoded(key)) \(encoded(value))"
            case .write(nil): "delete \(encoded(key))"
            case .read(let value?): "read \(encoded(key)) \(encoded(value))"
            case .read(nil): "absent \(encoded(key))"
            }
        return "\(client) \(operation.invokedAt.nanoseconds / 1_000) \(returned) \(what)"
    }

    static func lines(of world: World) -> [String] {
        var lines = [header]
        for region in world.regions {
            guard let timeline = world.timelines[region] else { continue }
            let keys = Linearizability.project(
                world.operations.filter { $0.region == region }, timeline: timeline,
                window: .seconds(4) * world.pace)
            for key in keys.keys.sorted() {
                let name = Bytes("\(region)/" + key.description)
                for operation in keys[key] ?? [] {
                    lines.append(line(client: "\(region)", key: name, operation))
                }
            }
        }
        return lines
    }

    private static func encoded(_ bytes: Bytes) -> String {
        if bytes.isEmpty { return "%" }
        let hex = Array("0123456789ABCDEF".utf8)
        var text: [UInt8] = []
        for byte in bytes.array {
            if byte > 32, byte < 127, byte != 37 {
                text.append(byte)
            } else {
                text.append(contentsOf: [37, hex[Int(byte >> 4)], hex[Int(byte & 15)]])
            }
        }
        return String(decoding: text, as: UTF8.self)
    }

    // MARK: Reading

    /// By key.
    package static func parse(
        _ text: some StringProtocol
    ) throws(Malformed) -> [Bytes: [RegisterOperation]] {
        var keys: [Bytes: [RegisterOperation]] = [:]
        var number = 0
        var hasHeader = false
        for line in text.utf8.split(separator: 10, omittingEmptySubsequences: false) {
            number += 1
            let words = line.split(whereSeparator: { $0 == 32 || $0 == 9 || $0 == 13 })
                .map { String(decoding: $0, as: UTF8.self) }
            guard let first = words.first else { continue }
            if first.hasPrefix("#") {
                if number == 1 { hasHeader = words.joined(separator: " ") == header }
                continue
            }
            guard hasHeader else { throw Malformed(line: 1, what: "must be \"\(header)\"") }
            let (key, operation) = try parse(words, at: number)
            keys[key, default: []].append(operation)
        }
        guard hasHeader else { throw Malformed(line: 1, what: "must be \"\(header)\"") }
        return keys
    }

    private static func parse(
        _ words: [String], at line: Int
    ) throws(Malformed) -> (Bytes, RegisterOperation) {
        guard words.count >= 5 else { throw Malformed(line: line, what: "too few words") }
        let invoked = try time(words[1], line)
        let returned = words[2] == "-" ? Instant.never : try time(words[2], line)
        guard returned >= invoked else { throw Malformed(line: line, what: "returned before it was invoked") }
        let key = try decoded(words[4], line)
        var kind = RegisterOperation.Kind.read(nil)
        switch (words[3], words.count) {
        case ("write", 6): kind = .write(try decoded(words[5], line))
        case ("delete", 5): kind = .write(nil)
        case ("read", 6): kind = .read(try decoded(words[5], line))
        case ("absent", 5): kind = .read(nil)
        default:
            throw Malformed(line: line, what: "\(words[3]) with \(words.count) words is no operation")
        }
        return (key, RegisterOperation(kind, invoked, returned))
    }

    private static func time(_ word: String, _ line: Int) throws(Malformed) -> Instant {
        guard let microseconds = UInt64(word), microseconds < UInt64.max / 1_000 else {
            throw Malformed(line: line, what: "\(word) is no time in microseconds")
        }
        return Instant(nanoseconds: microseconds * 1_000)
    }

    private static func decoded(_ word: String, _ line: Int) throws(Malformed) -> Bytes {
        if word == "%" { return .empty }
        var bytes: [UInt8] = []
        var rest = word.utf8[...]
        while let byte = rest.popFirst() {
            guard byte == 37 else {
                bytes.append(byte)
                continue
            }
            guard let high = rest.popFirst(), let low = rest.popFirst(),
                let value = UInt8(String(decoding: [high, low], as: UTF8.self), radix: 16)
            else { throw Malformed(line: line, what: "\(word) is not percent-encoded") }
            bytes.append(value)
        }
        return Bytes(bytes)
    }
}

/// `polder check`: is a history of one-key reads and writes linearizable?
package enum CheckCommand {
    package enum Verdict: Equatable, Sendable { case linearizable, broken, undecided }

    /// Linearizability is local: key by key.
    package static func run(
        _ keys: [Bytes: [RegisterOperation]], stepsMax: Int = 5_000_000,
        print line: (String) -> Void = { print($0) }
    ) -> Verdict {
        var broken = 0, undecided = 0, operations = 0
        for key in keys.keys.sorted() {
            // Reads without an answer say nothing.
            let history = (keys[key] ?? []).filter { operation in
                if case .read = operation.kind { return operation.returnedAt != .never }
                return true
            }
            operations += history.count
            switch Linearizability.check(history, stepsMax: stepsMax) {
            case .linearizable: break
            case .undecided:
                undecided += 1
                line("\(key): undecided, \(history.count) operations, too many of them at once")
            case .broken:
                broken += 1
                let end = firstBroken(history, stepsMax: stepsMax)
                line("\(key): NOT linearizable: no order explains its first \(end.count) operations")
                if let last = end.last {
                    line("  the last of these: \(HistoryFile.line(client: "-", key: key, last))")
                }
            }
        }
        line(
            "\(keys.count) keys, \(operations) operations: "
                + (broken > 0
                    ? "\(broken) keys NOT linearizable"
                    : undecided > 0 ? "\(undecided) keys undecided" : "linearizable"))
        return broken > 0 ? .broken : undecided > 0 ? .undecided : .linearizable
    }

    /// The shortest beginning, in order of the answers, that no order explains.
    private static func firstBroken(
        _ history: [RegisterOperation], stepsMax: Int
    ) -> [RegisterOperation] {
        let sorted = history.sorted { ($0.returnedAt, $0.invokedAt) < ($1.returnedAt, $1.invokedAt) }
        var low = 0, high = sorted.count
        while low < high {
            let middle = (low + high) / 2
            if Linearizability.check(beginning(of: sorted, middle), stepsMax: stepsMax) == .broken {
                high = middle
            } else {
                low = middle + 1
            }
        }
        return Array(sorted.prefix(low))
    }

    /// What had not been answered by then may have taken effect.
    private static func beginning(
        of sorted: [RegisterOperation], _ count: Int
    ) -> [RegisterOperation] {
        guard count > 0 else { return [] }
        let end = sorted[count - 1].returnedAt
        let open = sorted[count...].filter { operation in
            if case .write = operation.kind { return operation.invokedAt < end }
            return false
        }
        return sorted.prefix(count) + open.map { RegisterOperation($0.kind, $0.invokedAt, .never) }
    }
}
