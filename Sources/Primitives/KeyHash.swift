/// The hash that places a user key: XXH64 with seed 0 over the whole key.
/// It is part of the on-disk and wire formats: never `Hasher`, whose seed changes with the process.
public enum KeyHash {
    private static let p1: UInt64 = 0x9E37_79B1_85EB_CA87
    private static let p2: UInt64 = 0xC2B2_AE3D_27D4_EB4F
    private static let p3: UInt64 = 0x1656_67B1_9E37_79F9
    private static let p4: UInt64 = 0x85EB_CA77_C2B2_AE63
    private static let p5: UInt64 = 0x27D4_EB2F_1656_67C5

    public static func hash(_ key: Bytes) -> UInt64 {
        key.withUnsafeBytes { hash($0) }
    }

    public static func hash(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
        let n = bytes.count
        var i = 0
        var h: UInt64
        if n >= 32 {
            var v1 = p1 &+ p2, v2 = p2, v3: UInt64 = 0, v4 = 0 &- p1
            while i + 32 <= n {
                v1 = round(v1, word(bytes, i))
                v2 = round(v2, word(bytes, i + 8))
                v3 = round(v3, word(bytes, i + 16))
                v4 = round(v4, word(bytes, i + 24))
                i += 32
            }
            h = rotate(v1, 1) &+ rotate(v2, 7) &+ rotate(v3, 12) &+ rotate(v4, 18)
            h = merge(merge(merge(merge(h, v1), v2), v3), v4)
        } else {
            h = p5
        }
        h = h &+ UInt64(n)
        while i + 8 <= n {
            h = rotate(h ^ round(0, word(bytes, i)), 27) &* p1 &+ p4
            i += 8
        }
        if i + 4 <= n {
            let w = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: i, as: UInt32.self))
            h = rotate(h ^ (UInt64(w) &* p1), 23) &* p2 &+ p3
            i += 4
        }
        while i < n {
            h = rotate(h ^ (UInt64(bytes[i]) &* p5), 11) &* p1
            i += 1
        }
        h = (h ^ (h >> 33)) &* p2
        h = (h ^ (h >> 29)) &* p3
        return h ^ (h >> 32)
    }

    private static func word(_ b: UnsafeRawBufferPointer, _ i: Int) -> UInt64 {
        UInt64(littleEndian: b.loadUnaligned(fromByteOffset: i, as: UInt64.self))
    }
    private static func rotate(_ x: UInt64, _ by: UInt64) -> UInt64 { (x << by) | (x >> (64 - by)) }
    private static func round(_ acc: UInt64, _ input: UInt64) -> UInt64 {
        rotate(acc &+ input &* p2, 31) &* p1
    }
    private static func merge(_ acc: UInt64, _ v: UInt64) -> UInt64 {
        (acc ^ round(0, v)) &* p1 &+ p4
    }
}

/// A contiguous part of the hash space, both ends included (so that the last one can end at 2^64-1).
public struct HashRange: Hashable, Sendable {
    public let first: UInt64
    public let last: UInt64
    public init(first: UInt64, last: UInt64) {
        invariant(first <= last)
        self.first = first
        self.last = last
    }
    public static let all = HashRange(first: 0, last: .max)
    @inlinable public func contains(_ hash: UInt64) -> Bool { first <= hash && hash <= last }
}

/// Some of the hash space: ranges in order, without overlap, none next to another.
public struct HashRanges: Hashable, Sendable {
    public private(set) var ranges: [HashRange]

    public init(_ unordered: [HashRange]) {
        ranges = []
        for range in unordered.sorted(by: { $0.first < $1.first }) {
            if let last = ranges.last, last.last == .max || range.first <= last.last + 1 {
                ranges[ranges.count - 1] = HashRange(first: last.first, last: max(last.last, range.last))
            } else {
                ranges.append(range)
            }
        }
    }

    public static let all = HashRanges([.all])
    public var isAll: Bool { ranges.count == 1 && ranges[0] == .all }
    public var isEmpty: Bool { ranges.isEmpty }

    public func contains(_ hash: UInt64) -> Bool {
        var low = 0, high = ranges.count
        while low < high {
            let middle = (low + high) / 2
            if ranges[middle].last < hash { low = middle + 1 } else { high = middle }
        }
        return low < ranges.count && ranges[low].first <= hash
    }

    /// What of `range` is not among them.
    public func missing(from range: HashRange) -> [HashRange] {
        var left: [HashRange] = []
        var next: UInt64? = range.first
        for own in ranges where own.last >= range.first && own.first <= range.last {
            guard let from = next else { break }
            if own.first > from { left.append(HashRange(first: from, last: own.first - 1)) }
            next = own.last == .max ? nil : max(from, own.last + 1)
        }
        if let from = next, from <= range.last { left.append(HashRange(first: from, last: range.last)) }
        return left
    }

    public func contains(_ other: HashRanges) -> Bool {
        other.ranges.allSatisfy { missing(from: $0).isEmpty }
    }
}
