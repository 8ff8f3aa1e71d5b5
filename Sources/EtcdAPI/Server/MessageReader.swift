package import Primitives

/// Cuts a stream of bytes into gRPC's messages: a flag, a length of four bytes, the message; anywhere
/// in DATA frames, several in one or one in many.
package struct MessageReader {
    package enum Failure: Error, Equatable {
        case tooLarge(Int)
        case compressed
        case badFlag(UInt8)
        /// It cannot be inflated.
        case damaged(String)
    }

    private var prefix: UInt64 = 0
    private var prefixCount = 0
    private var length = 0
    private var partial: [UInt8] = []
    /// Compressed messages are good.
    var takesCompressed = false
    /// The last message is.
    private(set) var isCompressed = false

    package init() {}

    /// Nothing of a message is waiting for its rest.
    package var isEmpty: Bool { prefixCount == 0 }
    package var partialBytes: Int { partial.count }
    var partialCapacity: Int { partial.capacity }

    /// The next message of `data`, whose first `offset` bytes are done; nil: all is taken.
    /// The message is a copy in a buffer of its own size, so whoever keeps it keeps no more.
    package mutating func next(
        _ data: UnsafeRawBufferPointer, _ offset: inout Int, limit: Int
    ) throws(Failure) -> Bytes? {
        if prefixCount == 0, data.count - offset >= 5 {
            // The usual case: prefix and message at once.
            let flag = data[offset]
            let big = data.loadUnaligned(fromByteOffset: offset + 1, as: UInt32.self)
            let count = Int(UInt32(bigEndian: big))
            try check(flag, count, limit)
            if data.count - offset - 5 >= count {
                isCompressed = flag == 1
                let start = offset + 5
                offset = start + count
                return Bytes(UnsafeRawBufferPointer(rebasing: data[start..<offset]))
            }
        }
        while prefixCount < 5 {
            guard offset < data.count else { return nil }
            prefix = prefix << 8 | UInt64(data[offset])
            prefixCount += 1
            offset += 1
            guard prefixCount == 5 else { continue }
            length = Int(prefix & 0xFFFF_FFFF)
            try check(UInt8(truncatingIfNeeded: prefix >> 32), length, limit)
        }
        let taken = min(length - partial.count, data.count - offset)
        partial.grow(by: taken, limit: length)
        partial.append(contentsOf: UnsafeRawBufferPointer(rebasing: data[offset..<(offset + taken)]))
        offset += taken
        guard partial.count == length else { return nil }
        isCompressed = prefix >> 32 == 1
        let message = Bytes(partial)
        partial = []
        prefix = 0
        prefixCount = 0
        length = 0
        return message
    }

    private func check(_ flag: UInt8, _ count: Int, _ limit: Int) throws(Failure) {
        if flag > 1 { throw .badFlag(flag) }
        if flag == 1, !takesCompressed { throw .compressed }
        if count > limit { throw .tooLarge(count) }
    }
}

extension [UInt8] {
    /// Makes room for what is coming, in steps: the whole length is only the peer's word yet, and
    /// doubling up to the end would hold twice what there is.
    mutating func grow(by added: Int, limit: Int) {
        let needed = count + added
        guard needed > capacity else { return }
        reserveCapacity(Swift.max(needed, Swift.min(limit, Swift.max(2 * capacity, 64 << 10))))
    }
}
