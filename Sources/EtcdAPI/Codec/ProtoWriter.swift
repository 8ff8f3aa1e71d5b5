package import Primitives

/// Writes the wire format into an array whose size is known before: lengths of inner messages come
/// before them, so every encoder has a size beside it. Zero values are left out (proto3).
///
/// A pointer instead of appends: an answer of a thousand keys is some ten thousand small writes.
package struct ProtoWriter: ~Copyable {
    private let buffer: UnsafeMutableBufferPointer<UInt8>
    private var at = 0

    private init(_ buffer: UnsafeMutableBufferPointer<UInt8>) { self.buffer = buffer }

    /// So much is written on the stack and copied: to make an array of unknown contents is not
    /// specialized, and costs six hundred instructions.
    private static let smallBytes = 1024

    /// `body` must write exactly `count` bytes.
    package static func build(_ count: Int, _ body: (inout ProtoWriter) -> Void) -> [UInt8] {
        if count <= smallBytes {
            return withUnsafeTemporaryAllocation(byteCount: count, alignment: 1) { memory in
                var writer = ProtoWriter(into: memory)
                body(&writer)
                invariant(writer.at == count, "encoded \(writer.at) bytes, counted \(count)")
                return Array(UnsafeRawBufferPointer(memory))
            }
        }
        return [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
            var writer = ProtoWriter(UnsafeMutableBufferPointer(rebasing: buffer[..<count]))
            body(&writer)
            invariant(writer.at == count, "encoded \(writer.at) bytes, counted \(count)")
            initialized = count
        }
    }

    /// Onto memory of the caller's, a little at a time: see `written`.
    init(into memory: UnsafeMutableRawBufferPointer) {
        self.init(memory.bindMemory(to: UInt8.self))
    }
    /// Since the start or `restart`; valid as long as the memory.
    var written: UnsafeBufferPointer<UInt8> { UnsafeBufferPointer(rebasing: buffer[..<at]) }
    mutating func restart() { at = 0 }

    /// Of a message of `count` bytes: not compressed, its length.
    mutating func grpcPrefix(_ count: Int) {
        byte(0)
        for shift in [24, 16, 8, 0] { byte(UInt8(truncatingIfNeeded: count >> shift)) }
    }

    package mutating func varint(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            byte(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        byte(UInt8(truncatingIfNeeded: rest))
    }

    private mutating func byte(_ value: UInt8) {
        precondition(at < buffer.count)
        buffer[at] = value
        at &+= 1
    }

    package mutating func uint64(_ field: UInt32, _ value: UInt64) {
        guard value != 0 else { return }
        varint(UInt64(field << 3))
        varint(value)
    }
    package mutating func int64(_ field: UInt32, _ value: Int64) {
        uint64(field, UInt64(bitPattern: value))
    }
    package mutating func bool(_ field: UInt32, _ value: Bool) { uint64(field, value ? 1 : 0) }

    package mutating func bytes(_ field: UInt32, _ value: Bytes) {
        guard value.length != 0 else { return }
        message(field, value.length)
        raw(value)
    }
    package mutating func string(_ field: UInt32, _ value: String) {
        guard !value.isEmpty else { return }
        message(field, value.utf8.count)
        for unit in value.utf8 { byte(unit) }
    }
    /// Tag and length of an inner message, which follows.
    package mutating func message(_ field: UInt32, _ count: Int) {
        varint(UInt64(field << 3 | 2))
        varint(UInt64(count))
    }
    /// Bytes that are encoded already.
    package mutating func raw(_ value: Bytes) {
        precondition(value.length <= buffer.count - at)
        value.withRaw { source in
            UnsafeMutableRawBufferPointer(UnsafeMutableBufferPointer(rebasing: buffer[at...]))
                .copyMemory(from: source)
        }
        at &+= value.length
    }
}

/// Sizes of what `ProtoWriter` writes.
package enum ProtoSize {
    package static func varint(_ value: UInt64) -> Int { (70 - (value | 1).leadingZeroBitCount) / 7 }
    package static func uint64(_ field: UInt32, _ value: UInt64) -> Int {
        value == 0 ? 0 : tag(field) + varint(value)
    }
    package static func int64(_ field: UInt32, _ value: Int64) -> Int {
        uint64(field, UInt64(bitPattern: value))
    }
    package static func bool(_ field: UInt32, _ value: Bool) -> Int { value ? tag(field) + 1 : 0 }
    package static func bytes(_ field: UInt32, _ count: Int) -> Int {
        count == 0 ? 0 : message(field, count)
    }
    package static func message(_ field: UInt32, _ count: Int) -> Int {
        tag(field) + varint(UInt64(count)) + count
    }
    private static func tag(_ field: UInt32) -> Int { varint(UInt64(field << 3)) }
}
