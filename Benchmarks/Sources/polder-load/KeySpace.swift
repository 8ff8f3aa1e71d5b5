import CLoad
import Glibc

/// The keys, the values that belong to them, and what has been acknowledged about each. A value says
/// whose it is and when it was due: `<key, 8 bytes> <due, 8 bytes> <filler>`.
struct KeySpace {
    static let digits = 8
    static let valueHead = 16

    let count: Int
    let keyBytes: Int
    let valueBytes: Int
    /// Prefix and room for the digits.
    let key: UnsafeMutablePointer<UInt8>
    /// The first key behind all of them.
    let end: UnsafeMutablePointer<UInt8>
    let prefixBytes: Int
    private let value: UnsafeMutablePointer<UInt8>
    /// mod_revision of the newest acknowledged write of each key.
    let acknowledged: UnsafeMutablePointer<Int64>

    init(prefix: String, count: Int, valueBytes: Int) {
        self.count = count
        self.valueBytes = valueBytes
        prefixBytes = prefix.utf8.count
        keyBytes = prefixBytes + KeySpace.digits
        key = .allocate(capacity: keyBytes)
        end = .allocate(capacity: max(1, prefixBytes))
        for (i, byte) in prefix.utf8.enumerated() {
            key[i] = byte
            end[i] = byte
        }
        if prefixBytes > 0 { end[prefixBytes - 1] += 1 }
        // Text that compresses by about a half, as the JSON and protobuf of real values does.
        value = .allocate(capacity: valueBytes)
        var state: UInt64 = 0x9E37_79B9_7F4A_7C15
        for i in 0..<valueBytes {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            let digit = UInt8(state >> 60)
            value[i] = digit < 10 ? 48 + digit : 87 + digit
        }
        acknowledged = .allocate(capacity: count)
        acknowledged.initialize(repeating: 0, count: count)
    }

    /// `key` then holds it.
    func setKey(_ index: Int) {
        var rest = index
        for i in 1...KeySpace.digits {
            key[keyBytes - i] = 48 + UInt8(rest % 10)
            rest /= 10
        }
    }

    /// The value of `index` that is due then.
    func setValue(_ index: Int, due: UInt64) -> UnsafeMutablePointer<UInt8> {
        UnsafeMutableRawPointer(value).storeBytes(of: UInt64(index).littleEndian, as: UInt64.self)
        UnsafeMutableRawPointer(value).storeBytes(
            of: due.littleEndian, toByteOffset: 8, as: UInt64.self)
        return value
    }

    /// Whether this is a value of that key; when it was due.
    func due(ofValue field: WireField, key index: Int) -> UInt64? {
        guard field.count == valueBytes,
            UInt64(littleEndian: UnsafeRawPointer(field.start).loadUnaligned(as: UInt64.self))
                == UInt64(index),
            memcmp(
                field.start + KeySpace.valueHead, value + KeySpace.valueHead,
                valueBytes - KeySpace.valueHead) == 0
        else { return nil }
        return UInt64(
            littleEndian: UnsafeRawPointer(field.start).loadUnaligned(fromByteOffset: 8, as: UInt64.self))
    }

    /// The index of a key of ours.
    func index(ofKey field: WireField) -> Int? {
        guard field.count == keyBytes, memcmp(field.start, key, prefixBytes) == 0 else { return nil }
        var index = 0
        for i in prefixBytes..<keyBytes {
            let digit = field.start[i]
            guard digit >= 48, digit < 58 else { return nil }
            index = index * 10 + Int(digit - 48)
        }
        return index < count ? index : nil
    }
}
