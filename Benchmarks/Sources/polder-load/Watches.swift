import CLoad
import Histogram

/// The watches beside the requests: what was created, what has come, how late. Every value says when
/// its put was due, so a delay is the whole way from there to the watcher.
struct Watches {
    private(set) var created = 0
    private(set) var events = 0
    private(set) var expected = 0
    private(set) var delays = Tally.histogram()
    private(set) var first: UInt64 = 0
    private(set) var last: UInt64 = 0
    private let count: Int
    private let streams: Int
    private let watching: Options.Watching
    /// The revision of the last event of each watch of a stream.
    private let seen: UnsafeMutablePointer<Int64>
    private let eachMax: Int

    init() {
        count = 0
        streams = 1
        watching = .each
        eachMax = 0
        seen = .allocate(capacity: 1)
    }

    init(_ options: Options, streams: Int) {
        count = options.watchers
        self.streams = streams
        watching = options.watching
        eachMax = (count + streams - 1) / streams
        seen = .allocate(capacity: eachMax * streams)
        seen.initialize(repeating: 0, count: eachMax * streams)
    }

    var isComplete: Bool { events >= expected }

    /// What has come so far was warming up.
    mutating func restart() {
        events = 0
        expected = 0
        delays = Tally.histogram()
    }

    /// A put of this key was sent.
    mutating func expect(key: Int) {
        guard count > 0 else { return }
        expected += watching == .same ? count : (key < count ? 1 : 0)
    }

    // MARK: Creation

    func bodyCapacity(_ keys: KeySpace) -> Int { eachMax * (keys.keyBytes * 2 + 64) }

    /// Watch `i` is on stream `i % streams`.
    func write(_ exchange: inout Exchange, _ keys: KeySpace) {
        var to = WireWriter(base: exchange.body)
        var index = Int(exchange.watch)
        while index < count {
            keys.setKey(watching == .same ? 0 : index)
            // A range with one key in it: from the key to the same with a zero byte and a one behind.
            let range =
                WireWriter.fieldLength(keys.keyBytes) + WireWriter.fieldLength(keys.keyBytes + 1)
            to.grpcPrefix(length: WireWriter.fieldLength(range))
            to.nested(1, length: range)
            to.bytes(1, keys.key, keys.keyBytes)
            to.nested(2, length: keys.keyBytes + 1)
            (to.base + to.count).update(from: keys.key, count: keys.keyBytes)
            to.count += keys.keyBytes
            to.byte(1)
            index += streams
        }
        exchange.bodyCount = to.count
    }

    // MARK: Events

    /// Takes the whole messages that have come; the fault, if one is not what it should be.
    mutating func take(_ exchange: inout Exchange, _ keys: KeySpace) -> String? {
        var start = 0
        var fault: String?
        while exchange.answerCount - start >= 5 {
            var length = 0
            for i in 1...4 { length = length << 8 | Int(exchange.answer[start + i]) }
            guard exchange.answer[start] == 0 else { return "a compressed message" }
            guard exchange.answerCount - start - 5 >= length else { break }
            fault = take(exchange.answer + start + 5, length, Int(exchange.watch), keys) ?? fault
            start += 5 + length
        }
        if start > 0 {
            let left = exchange.answerCount - start
            exchange.answer.update(from: exchange.answer + start, count: left)
            exchange.answerCount = left
        }
        return fault
    }

    private mutating func take(
        _ message: UnsafePointer<UInt8>, _ length: Int, _ stream: Int, _ keys: KeySpace
    ) -> String? {
        var reader = WireReader(message, length)
        var watch = 0
        let now = load_now()
        while let field = reader.next() {
            switch field.field {
            case 2: watch = Int(truncatingIfNeeded: field.number)
            case 3: created += field.number != 0 ? 1 : 0
            case 4 where field.number != 0: return "a watch was cancelled"
            case 11:
                guard watch >= 0, watch < eachMax else { return "an event of watch \(watch)" }
                if let fault = event(field, stream * eachMax + watch, now, keys) { return fault }
            default: break
            }
        }
        return reader.isBroken ? "not protocol buffers" : nil
    }

    private mutating func event(
        _ message: WireField, _ watch: Int, _ now: UInt64, _ keys: KeySpace
    ) -> String? {
        var reader = WireReader(message)
        while let field = reader.next(), field.field <= 2 {
            guard field.field == 2 else { continue }
            var pair = WireReader(field)
            var key: Int?
            var revision: Int64 = 0
            while let part = pair.next() {
                switch part.field {
                case 1: key = keys.index(ofKey: part)
                case 3: revision = Int64(bitPattern: part.number)
                case 5:
                    guard let key, let due = keys.due(ofValue: part, key: key) else { return "another value" }
                    guard revision > seen[watch] else {
                        return "revision \(revision) after \(seen[watch])"
                    }
                    seen[watch] = revision
                    if events == 0 { first = now }
                    last = now
                    events += 1
                    delays.record(now > due ? now - due : 1)
                default: break
                }
            }
        }
        return reader.isBroken ? "a broken event" : nil
    }
}
