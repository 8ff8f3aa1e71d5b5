/// Requests as bytes, and answers held against what was asked. Field numbers: etcd's rpc.proto.
struct Requests {
    let keys: KeySpace
    let pageLimit: Int
    /// At which the first page of the walk was read.
    private let walk: UnsafeMutablePointer<Int64>

    init(keys: KeySpace, pageLimit: Int) {
        self.keys = keys
        self.pageLimit = pageLimit
        walk = .allocate(capacity: 1)
        walk.initialize(to: 0)
    }

    /// Enough for every request of these keys.
    var bodyCapacity: Int { keys.keyBytes * 4 + keys.valueBytes + 128 }

    func write(_ exchange: inout Exchange, expectedModRevision: Int64) {
        var to = WireWriter(base: exchange.body)
        keys.setKey(exchange.key)
        switch exchange.kind {
        case .put:
            to.grpcPrefix(length: putLength)
            put(&to, exchange)
        case .get, .stale:
            let stale = exchange.kind == .stale
            to.grpcPrefix(length: WireWriter.fieldLength(keys.keyBytes) + (stale ? 2 : 0))
            to.bytes(1, keys.key, keys.keyBytes)
            if stale { to.number(7, 1) }
        case .page:
            let start = to.count
            to.count += 5
            // The first page starts at the prefix; the others from the least key above the last one they
            // saw (a zero byte behind it), at the first one's revision: as clients of etcd do it.
            if exchange.key == 0 {
                to.bytes(1, keys.key, keys.prefixBytes)
            } else {
                keys.setKey(exchange.key - 1)
                to.nested(1, length: keys.keyBytes + 1)
                (to.base + to.count).update(from: keys.key, count: keys.keyBytes)
                to.count += keys.keyBytes
                to.byte(0)
            }
            to.bytes(2, keys.end, keys.prefixBytes)
            if pageLimit > 0 { to.number(3, UInt64(pageLimit)) }
            if exchange.key > 0, walk.pointee > 0 { to.number(4, UInt64(walk.pointee)) }
            let length = to.count - start - 5
            to.count = start
            to.grpcPrefix(length: length)
            to.count += length
        case .update:
            // if mod_revision(key) == what we last saw then put else get: Kubernetes' update.
            let expected = UInt64(bitPattern: expectedModRevision)
            let compare =
                2 + WireWriter.fieldLength(keys.keyBytes) + 1 + WireWriter.varintLength(expected)
            let success = WireWriter.fieldLength(putLength)
            let failure = WireWriter.fieldLength(WireWriter.fieldLength(keys.keyBytes))
            to.grpcPrefix(
                length: WireWriter.fieldLength(compare) + WireWriter.fieldLength(success)
                    + WireWriter.fieldLength(failure))
            to.nested(1, length: compare)
            to.number(2, 2)  // Result EQUAL is 0 and left out; target MOD.
            to.bytes(3, keys.key, keys.keyBytes)
            to.number(6, expected)
            to.nested(2, length: success)
            to.nested(2, length: putLength)
            put(&to, exchange)
            to.nested(3, length: failure)
            to.nested(1, length: WireWriter.fieldLength(keys.keyBytes))
            to.bytes(1, keys.key, keys.keyBytes)
        }
        exchange.bodyCount = to.count
    }

    private var putLength: Int {
        WireWriter.fieldLength(keys.keyBytes) + WireWriter.fieldLength(keys.valueBytes)
    }

    private func put(_ to: inout WireWriter, _ exchange: Exchange) {
        to.bytes(1, keys.key, keys.keyBytes)
        to.bytes(2, keys.setValue(exchange.key, due: exchange.due), keys.valueBytes)
    }

    // MARK: Answers

    enum Verdict: Equatable {
        case right
        /// An update that came second.
        case lost
        case wrong(String)
    }

    /// Holds the answer against the rules; notes what it tells about the key.
    func check(_ exchange: Exchange, newest: inout Int64) -> Verdict {
        guard exchange.answerCount >= 5, exchange.answer[0] == 0 else {
            return .wrong("an answer of \(exchange.answerCount) bytes, or compressed")
        }
        var length = 0
        for i in 1...4 { length = length << 8 | Int(exchange.answer[i]) }
        guard length == exchange.answerCount - 5 else { return .wrong("not one whole message") }
        var reader = WireReader(exchange.answer + 5, length)
        var answer = Answer()
        while let field = reader.next() {
            switch (field.field, exchange.kind) {
            case (1, _): answer.revision = Requests.revision(field)
            case (2, .get), (2, .stale), (2, .page):
                answer.pairs += 1
                if let fault = pair(field, exchange, &answer) { return .wrong(fault) }
            case (4, .page): answer.count = Int(field.number)
            case (2, .update): answer.succeeded = field.number != 0
            case (3, .update):
                if let fault = response(field, exchange, &answer) { return .wrong(fault) }
            default: break
            }
        }
        guard !reader.isBroken else { return .wrong("not protocol buffers") }
        return judge(exchange, answer, &newest)
    }

    private struct Answer {
        var revision: Int64 = 0
        var pairs = 0
        var count = 0
        var modRevision: Int64 = 0
        var succeeded = false
    }

    private func judge(
        _ exchange: Exchange, _ answer: Answer, _ newest: inout Int64
    ) -> Verdict {
        guard answer.revision > 0 else { return .wrong("a header without revision") }
        let writes = exchange.kind == .put || answer.succeeded
        if writes, answer.revision <= exchange.floor {
            return .wrong("a write at \(answer.revision), sent after \(exchange.floor) was acknowledged")
        }
        if exchange.kind != .stale, answer.revision < exchange.floor {
            return .wrong("an answer at \(answer.revision), sent after \(exchange.floor) was acknowledged")
        }
        switch exchange.kind {
        case .put: break
        case .page:
            // Others may write under the prefix, too: at least ours are there.
            let left = keys.count - exchange.key
            let expected = pageLimit == 0 ? left : min(pageLimit, left)
            guard answer.pairs >= expected, answer.count >= left else {
                return .wrong("a page of \(answer.pairs) of \(answer.count)")
            }
            if exchange.key == 0 { walk.pointee = answer.revision }
        case .get, .stale:
            guard answer.pairs == 1 else { return .wrong("\(answer.pairs) keys instead of one") }
            if exchange.kind == .get, answer.modRevision < exchange.keyFloor {
                return .wrong("a value of \(answer.modRevision), \(exchange.keyFloor) was acknowledged")
            }
            note(exchange.key, answer.modRevision)
        case .update:
            guard answer.succeeded else {
                guard answer.pairs == 1, answer.modRevision >= exchange.keyFloor else {
                    return .wrong("a lost update at \(answer.modRevision) of \(exchange.keyFloor)")
                }
                note(exchange.key, answer.modRevision)
                newest = max(newest, answer.revision)
                return .lost
            }
        }
        if writes { note(exchange.key, answer.revision) }
        if exchange.kind != .stale { newest = max(newest, answer.revision) }
        return .right
    }

    private func note(_ key: Int, _ revision: Int64) {
        if revision > keys.acknowledged[key] { keys.acknowledged[key] = revision }
    }

    static func revision(_ header: WireField) -> Int64 {
        var reader = WireReader(header)
        while let field = reader.next(), field.field <= 3 {
            if field.field == 3 { return Int64(bitPattern: field.number) }
        }
        return 0
    }

    /// A key and its value; the fault, if it is not what was asked for.
    private func pair(_ message: WireField, _ exchange: Exchange, _ answer: inout Answer) -> String? {
        var reader = WireReader(message)
        var index: Int?
        while let field = reader.next() {
            switch field.field {
            case 1:
                index = keys.index(ofKey: field)
                guard exchange.kind == .page || index == exchange.key else { return "another key" }
            case 3: answer.modRevision = Int64(bitPattern: field.number)
            case 5:
                guard let index else { continue }
                guard keys.due(ofValue: field, key: index) != nil else { return "another value" }
            default: break
            }
        }
        return reader.isBroken ? "a broken key" : nil
    }

    /// ResponseOp of an update: a put's or a range's.
    private func response(
        _ message: WireField, _ exchange: Exchange, _ answer: inout Answer
    ) -> String? {
        var reader = WireReader(message)
        guard let field = reader.next(), field.field == 1 else { return nil }
        var range = WireReader(field)
        while let part = range.next() {
            guard part.field == 2 else { continue }
            answer.pairs += 1
            if let fault = pair(part, exchange, &answer) { return fault }
        }
        return range.isBroken ? "a broken response" : nil
    }
}
