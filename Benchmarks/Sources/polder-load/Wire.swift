// Protocol buffers, as much as requests of etcd need: a writer into raw memory, and a walk over the
// fields of an answer that decodes nothing it is not asked for. No allocation in either.

/// Appends to memory that is known to be large enough.
struct WireWriter {
    let base: UnsafeMutablePointer<UInt8>
    var count = 0

    mutating func byte(_ value: UInt8) {
        base[count] = value
        count += 1
    }

    mutating func varint(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            byte(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        byte(UInt8(truncatingIfNeeded: rest))
    }

    mutating func number(_ field: UInt64, _ value: UInt64) {
        varint(field << 3)
        varint(value)
    }

    mutating func bytes(_ field: UInt64, _ from: UnsafePointer<UInt8>, _ length: Int) {
        varint(field << 3 | 2)
        varint(UInt64(length))
        (base + count).update(from: from, count: length)
        count += length
    }

    /// The head of a nested message whose length is known.
    mutating func nested(_ field: UInt64, length: Int) {
        varint(field << 3 | 2)
        varint(UInt64(length))
    }

    /// gRPC's prefix: not compressed, four bytes of length.
    mutating func grpcPrefix(length: Int) {
        byte(0)
        byte(UInt8(truncatingIfNeeded: length >> 24))
        byte(UInt8(truncatingIfNeeded: length >> 16))
        byte(UInt8(truncatingIfNeeded: length >> 8))
        byte(UInt8(truncatingIfNeeded: length))
    }

    static func varintLength(_ value: UInt64) -> Int {
        max(1, (64 - value.leadingZeroBitCount + 6) / 7)
    }

    /// Of a field with `length` bytes and a number below 16.
    static func fieldLength(_ length: Int) -> Int { 1 + varintLength(UInt64(length)) + length }
}

/// One field of a message: a number, or bytes.
struct WireField {
    var field = 0
    var number: UInt64 = 0
    var start: UnsafePointer<UInt8>
    var count = 0
}

/// Walks the fields of a message. `isBroken` once it makes no sense.
struct WireReader {
    private var at: UnsafePointer<UInt8>
    private let end: UnsafePointer<UInt8>
    private(set) var isBroken = false

    init(_ start: UnsafePointer<UInt8>, _ count: Int) {
        at = start
        end = start + count
    }

    init(_ field: WireField) { self.init(field.start, field.count) }

    @inline(__always)
    private mutating func varint() -> UInt64 {
        var result: UInt64 = 0
        var shift: UInt64 = 0
        while at < end, shift < 64 {
            let byte = at.pointee
            at += 1
            result |= UInt64(byte & 0x7F) << shift
            if byte < 0x80 { return result }
            shift += 7
        }
        isBroken = true
        return 0
    }

    mutating func next() -> WireField? {
        guard at < end, !isBroken else { return nil }
        let tag = varint()
        var found = WireField(field: Int(truncatingIfNeeded: tag >> 3), start: at)
        switch tag & 7 {
        case 0:
            found.number = varint()
        case 2:
            let length = varint()
            guard length <= UInt64(end - at) else {
                isBroken = true
                return nil
            }
            found.start = at
            found.count = Int(length)
            at += Int(length)
        default:
            // etcd's messages have no fixed-width fields.
            isBroken = true
        }
        return isBroken ? nil : found
    }
}
