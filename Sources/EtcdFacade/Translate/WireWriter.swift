import Primitives

/// Sizes of protobuf fields, zero for default values, which proto3 leaves out. All field numbers that
/// are written here are below 16, so a tag is one byte.
enum WireSize {
    @inline(__always) static func varint(_ value: UInt64) -> Int {
        (64 - (value | 1).leadingZeroBitCount + 6) / 7
    }
    static func field(_ value: UInt64) -> Int { value == 0 ? 0 : 1 + varint(value) }
    static func field(_ value: Int64) -> Int { field(UInt64(bitPattern: value)) }
    static func field(_ value: Bool) -> Int { value ? 2 : 0 }
    static func field(_ value: Bytes) -> Int { value.isEmpty ? 0 : message(value.count) }
    static func field(_ value: String) -> Int { value.isEmpty ? 0 : message(value.utf8.count) }
    /// A field that holds `size` bytes and is written even when they are none.
    static func message(_ size: Int) -> Int { 1 + varint(UInt64(size)) + size }
}

/// Writes into memory whose size was computed before: one allocation and one copy per answer.
struct WireWriter {
    private var at: UnsafeMutableRawPointer

    /// A message of exactly `size` bytes.
    static func message(_ size: Int, _ body: (inout WireWriter) -> Void) -> [UInt8] {
        guard size > 0 else { return [] }
        return [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
            guard let base = buffer.baseAddress else { return }
            var writer = WireWriter(at: UnsafeMutableRawPointer(base))
            body(&writer)
            let written = writer.at - UnsafeMutableRawPointer(base)
            invariant(written == size, "message of \(size) bytes, wrote \(written)")
            count = size
        }
    }

    private mutating func byte(_ value: UInt8) {
        at.storeBytes(of: value, as: UInt8.self)
        at += 1
    }
    mutating func varint(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            byte(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        byte(UInt8(truncatingIfNeeded: rest))
    }
    mutating func field(_ number: UInt8, _ value: UInt64) {
        guard value != 0 else { return }
        byte(number << 3)
        varint(value)
    }
    mutating func field(_ number: UInt8, _ value: Int64) {
        field(number, UInt64(bitPattern: value))
    }
    mutating func field(_ number: UInt8, _ value: Bool) { field(number, value ? UInt64(1) : 0) }
    mutating func field(_ number: UInt8, _ value: Bytes) {
        guard !value.isEmpty else { return }
        header(number, value.count)
        value.withUnsafeBytes { raw($0) }
    }
    mutating func field(_ number: UInt8, _ value: String) {
        guard !value.isEmpty else { return }
        header(number, value.utf8.count)
        for unit in value.utf8 { byte(unit) }
    }
    /// Tag and length; the caller writes `size` bytes next.
    mutating func header(_ number: UInt8, _ size: Int) {
        byte(number << 3 | 2)
        varint(UInt64(size))
    }
    mutating func raw(_ bytes: UnsafeRawBufferPointer) {
        guard let base = bytes.baseAddress, bytes.count > 0 else { return }
        at.copyMemory(from: base, byteCount: bytes.count)
        at += bytes.count
    }
    mutating func raw(_ bytes: [UInt8]) { bytes.withUnsafeBytes { raw($0) } }
}

/// For rare and small answers: grows as it goes.
struct WireBuilder {
    private(set) var bytes: [UInt8] = []

    private mutating func varint(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(truncatingIfNeeded: rest))
    }
    private mutating func tag(_ number: UInt8, _ kind: UInt8) {
        varint(UInt64(number) << 3 | UInt64(kind))
    }
    mutating func field(_ number: UInt8, _ value: UInt64) {
        guard value != 0 else { return }
        tag(number, 0)
        varint(value)
    }
    mutating func field(_ number: UInt8, _ value: Int64) {
        field(number, UInt64(bitPattern: value))
    }
    mutating func field(_ number: UInt8, _ value: Bool) { field(number, value ? UInt64(1) : 0) }
    mutating func field(_ number: UInt8, _ value: String) {
        guard !value.isEmpty else { return }
        message(number, Array(value.utf8))
    }
    /// Written even when empty: messages, and elements of repeated fields.
    mutating func message(_ number: UInt8, _ value: [UInt8]) {
        tag(number, 2)
        varint(UInt64(value.count))
        bytes.append(contentsOf: value)
    }
    mutating func message(_ number: UInt8, _ build: (inout WireBuilder) -> Void) {
        var inner = WireBuilder()
        build(&inner)
        message(number, inner.bytes)
    }
}
