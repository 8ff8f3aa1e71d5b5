import CZlib
package import Primitives

/// A message that a client has compressed with gzip (RFC 1952, by zlib), made what it was in small steps: it may be a
/// thousand times as long as what came. What it claims to be is looked at first, what it is counts. The texts of
/// failures are those that Go's package has.
package final class Inflation {
    private let message: Bytes
    private let limit: Int
    /// Where zlib's state expects it, as long as there is any.
    private let stream: UnsafeMutablePointer<z_stream>
    private var offset = 0
    private var out: [UInt8] = []
    private static let stepBytes = 16 << 10

    /// `.tooLarge` above `limit` bytes.
    package init(_ message: Bytes, limit: Int) throws(MessageReader.Failure) {
        self.message = message
        self.limit = limit
        stream = .allocate(capacity: 1)
        stream.initialize(to: z_stream())
        guard polder_inflate_gzip_init(stream) == Z_OK else { throw .damaged("no memory") }
        guard !message.isEmpty else { throw .damaged("EOF") }
        let claimed = message.withUnsafeBytes { raw in
            // ISIZE, the last four bytes (RFC 1952, 2.3.1).
            raw.count < 4
                ? 0 : Int(UInt32(littleEndian: raw.loadUnaligned(fromByteOffset: raw.count - 4, as: UInt32.self)))
        }
        guard claimed <= limit else { throw .tooLarge(claimed) }
        out.reserveCapacity(claimed)
    }

    deinit {
        inflateEnd(stream)
        stream.deallocate()
    }

    /// What is held for it.
    package var bytes: Int { message.count + out.count }

    /// The next 16 KiB, some 20 us. The result is the whole message, when it is.
    package func step() throws(MessageReader.Failure) -> Bytes? {
        var outcome = Z_OK
        withUnsafeTemporaryAllocation(byteCount: Self.stepBytes, alignment: 1) { chunk in
            message.withUnsafeBytes { raw in
                let rest = UnsafeRawBufferPointer(rebasing: raw[offset...])
                // zlib does not write to its input.
                stream.pointee.next_in = UnsafeMutablePointer(
                    mutating: rest.bindMemory(to: UInt8.self).baseAddress)
                stream.pointee.avail_in = UInt32(rest.count)
                stream.pointee.next_out = chunk.bindMemory(to: UInt8.self).baseAddress
                stream.pointee.avail_out = UInt32(chunk.count)
                outcome = inflate(stream, Z_NO_FLUSH)
                offset += rest.count - Int(stream.pointee.avail_in)
            }
            out.append(contentsOf: chunk[..<(chunk.count - Int(stream.pointee.avail_out))])
        }
        guard out.count <= limit else { throw .tooLarge(out.count) }
        switch outcome {
        case Z_STREAM_END:
            if offset == message.count { return Bytes(out) }
            // Another member follows.
            inflateReset(stream)
            return nil
        case Z_OK, Z_BUF_ERROR:
            if offset == message.count, stream.pointee.avail_out > 0 { throw .damaged("unexpected EOF") }
            return nil
        default: throw .damaged(failure)
        }
    }

    private var failure: String {
        switch stream.pointee.msg.map({ String(cString: $0) }) {
        case "incorrect header check": "gzip: invalid header"
        case "incorrect data check", "incorrect length check": "gzip: invalid checksum"
        default: "flate: corrupt input before offset \(offset)"
        }
    }
}
