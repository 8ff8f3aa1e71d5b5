/// What a request is.
enum Kind: UInt8, CaseIterable {
    case put, get, stale, update, page

    static let count = 5
    var index: Int { Int(rawValue) }
    var name: String {
        switch self {
        case .put: "put"
        case .get: "get"
        case .stale: "stale"
        case .update: "update"
        case .page: "page"
        }
    }
    var path: StaticString {
        switch self {
        case .put: "/etcdserverpb.KV/Put"
        case .get, .stale, .page: "/etcdserverpb.KV/Range"
        case .update: "/etcdserverpb.KV/Txn"
        }
    }
    var writes: Bool { self == .put || self == .update }
}

/// One request and its answer. In raw memory, used again: nghttp2 gives its address back with every
/// event of its stream.
struct Exchange {
    var due: UInt64 = 0
    /// The newest revision that had been acknowledged to anybody when this was sent: what a write or a
    /// linearizable read answers must not be older.
    var floor: Int64 = 0
    /// The same for its key's mod_revision.
    var keyFloor: Int64 = 0
    var key = 0
    var kind = Kind.put
    var isCounted = false
    /// Set while a connection has it.
    var connection: Int32 = -1
    /// A watch stream: `watch` says which. It is never complete.
    var watch: Int32 = -1
    var grpcStatus: Int32 = -1
    var body: UnsafeMutablePointer<UInt8>
    var bodyCapacity: Int
    var bodyCount = 0
    var bodySent = 0
    var answer: UnsafeMutablePointer<UInt8>
    var answerCapacity: Int
    var answerCount = 0

    init(bodyCapacity: Int) {
        body = .allocate(capacity: bodyCapacity)
        self.bodyCapacity = bodyCapacity
        answerCapacity = 1024
        answer = .allocate(capacity: answerCapacity)
    }

    mutating func append(_ bytes: UnsafePointer<UInt8>, _ count: Int) {
        if answerCount + count > answerCapacity {
            let capacity = max(answerCapacity * 2, answerCount + count)
            let larger = UnsafeMutablePointer<UInt8>.allocate(capacity: capacity)
            larger.update(from: answer, count: answerCount)
            answer.deallocate()
            answer = larger
            answerCapacity = capacity
        }
        (answer + answerCount).update(from: bytes, count: count)
        answerCount += count
    }

    func free() {
        body.deallocate()
        answer.deallocate()
    }
}
