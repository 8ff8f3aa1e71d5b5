/// An immutable run of bytes: a window on a shared `[UInt8]`.
///
/// Keys and values travel as slices of the buffer they arrived in, so passing one on costs a
/// reference count and slicing costs no copy. A slice keeps its whole buffer alive: whoever keeps
/// bytes for long (a cache, an index) takes a `compact()` copy first.
public struct Bytes: Sendable {
    public let storage: [UInt8]
    public let start: UInt32
    public let end: UInt32

    @inlinable public init(storage: [UInt8], start: Int, end: Int) {
        invariant(0 <= start && start <= end && end <= storage.count, "\(start)..<\(end)")
        self.storage = storage
        self.start = UInt32(truncatingIfNeeded: start)
        self.end = UInt32(truncatingIfNeeded: end)
    }

    @inlinable public init(_ array: [UInt8]) {
        self.init(storage: array, start: 0, end: array.count)
    }

    @inlinable public init(_ bytes: some Sequence<UInt8>) {
        self.init(Array(bytes))
    }

    @inlinable public init(_ raw: UnsafeRawBufferPointer) {
        self.init(Array(raw))
    }

    @inlinable public init(_ text: String) {
        self.init(Array(text.utf8))
    }

    public static let empty = Bytes([])

    @inlinable public var count: Int { Int(end &- start) }
    @inlinable public var isEmpty: Bool { end == start }

    @inlinable public subscript(index: Int) -> UInt8 { storage[Int(start) + index] }

    /// A window on this window; offsets count from this window's first byte. No copy.
    @inlinable public subscript(range: Range<Int>) -> Bytes {
        Bytes(
            storage: storage, start: Int(start) + range.lowerBound,
            end: Int(start) + range.upperBound)
    }

    @inlinable public func withUnsafeBytes<R, E: Error>(
        _ body: (UnsafeRawBufferPointer) throws(E) -> R
    ) throws(E) -> R {
        let lower = Int(start), upper = Int(end)
        // Typed throws do not pass through the standard library's rethrowing closure: carry a Result.
        let result: Result<R, E> = storage.withUnsafeBytes { raw in
            do throws(E) {
                return .success(try body(UnsafeRawBufferPointer(rebasing: raw[lower..<upper])))
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    /// The same bytes in a buffer of their own, if this is a window on a larger one.
    @inlinable public func compact() -> Bytes {
        count == storage.count ? self : Bytes(array)
    }

    @inlinable public var array: [UInt8] {
        count == storage.count ? storage : Array(storage[Int(start)..<Int(end)])
    }

    @inlinable public var slice: ArraySlice<UInt8> { storage[Int(start)..<Int(end)] }

    public func starts(with prefix: Bytes) -> Bool {
        count >= prefix.count && self[0..<prefix.count] == prefix
    }

    /// This key and a zero byte: the smallest key after it.
    public var successor: Bytes { Bytes(array + [0]) }
}

extension Bytes: Hashable, Comparable {
    @inlinable public static func == (a: Bytes, b: Bytes) -> Bool {
        guard a.count == b.count else { return false }
        return a.withUnsafeBytes { x in b.withUnsafeBytes { y in x.elementsEqualMemory(y) } }
    }

    /// Bytewise, unsigned; a prefix comes before what it is a prefix of (etcd's key order).
    @inlinable public static func < (a: Bytes, b: Bytes) -> Bool {
        a.withUnsafeBytes { x in b.withUnsafeBytes { y in x.precedes(y) } }
    }

    @inlinable public func hash(into hasher: inout Hasher) {
        withUnsafeBytes { hasher.combine(bytes: $0) }
    }

    /// For tables of bytes alone, of which a request asks several for each of its keys: eight bytes are folded in
    /// by one multiplication, a quarter of what SipHash takes for a short key. Clients choose keys, so nobody
    /// outside may know the secret with which it begins.
    @inlinable public func _rawHashValue(seed: Int) -> Int {
        withUnsafeBytes { raw in
            var state = BytesHash.secret ^ UInt64(bitPattern: Int64(seed))
            let n = raw.count
            var i = 0
            while i &+ 8 <= n {
                state = BytesHash.fold(state ^ raw.loadUnaligned(fromByteOffset: i, as: UInt64.self))
                i &+= 8
            }
            var rest: UInt64 = 0
            while i < n {
                rest = rest << 8 | UInt64(raw[i])
                i &+= 1
            }
            state = BytesHash.fold(state ^ rest)
            return Int(Int64(bitPattern: BytesHash.fold(state ^ UInt64(n))))
        }
    }
}

public enum BytesHash {
    /// Of this process: the standard library's own hashes begin with a number that is drawn at its start.
    public static let secret = UInt64(bitPattern: Int64("polder".hashValue)) | 1

    /// Both halves of the product: each bit of `a` reaches all of the result.
    @inlinable static func fold(_ a: UInt64) -> UInt64 {
        let (high, low) = (a &+ 0x9E37_79B9_7F4A_7C15).multipliedFullWidth(by: 0xD6E8_FEB8_6659_FD93)
        return high ^ low
    }
}

extension UnsafeRawBufferPointer {
    @inlinable func elementsEqualMemory(_ other: UnsafeRawBufferPointer) -> Bool {
        var i = 0
        let n = count
        while i &+ 8 <= n {
            if loadUnaligned(fromByteOffset: i, as: UInt64.self)
                != other.loadUnaligned(fromByteOffset: i, as: UInt64.self) { return false }
            i &+= 8
        }
        while i < n {
            if self[i] != other[i] { return false }
            i &+= 1
        }
        return true
    }

    @inlinable func precedes(_ other: UnsafeRawBufferPointer) -> Bool {
        let n = Swift.min(count, other.count)
        var i = 0
        while i &+ 8 <= n {
            let x = UInt64(bigEndian: loadUnaligned(fromByteOffset: i, as: UInt64.self))
            let y = UInt64(bigEndian: other.loadUnaligned(fromByteOffset: i, as: UInt64.self))
            if x != y { return x < y }
            i &+= 8
        }
        while i < n {
            if self[i] != other[i] { return self[i] < other[i] }
            i &+= 1
        }
        return count < other.count
    }
}

extension Bytes: ExpressibleByStringLiteral, CustomStringConvertible {
    public init(stringLiteral value: String) { self.init(value) }

    /// For people who debug: text where it is text. Never logged in production (style.md).
    public var description: String { String(decoding: slice, as: UTF8.self) }
}
