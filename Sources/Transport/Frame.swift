import CLZ4
package import NIOCore
package import Primitives

/// How bytes lie on a connection between nodes. Little-endian:
///
///     offset 0   2  magic "PL"
///            2   1  version of this layout
///            3   1  kind; bit 7: the payload is an LZ4 block
///            4   4  bytes of payload on the wire
///            8   4  bytes of payload unpacked
///            12  4  CRC-32C of the 12 bytes before and of the payload on the wire;
///                   0 over TLS, which protects the bytes better
///
/// A change of anything here raises `version`.
package struct FrameHeader: Equatable {
    package static let size = 16
    static let magic: UInt16 = 0x4C50
    static let version: UInt8 = 1
    static let compressedFlag: UInt8 = 0x80
    /// Larger frames are refused on both sides: a bound on what a peer can make us hold.
    package static let payloadMax = 64 << 20
    /// Before the peer has said who it is.
    static let greetingMax = 4 << 10

    package enum Kind: UInt8, CaseIterable {
        /// Dialler's first frame, and the answers to it.
        case hello = 1
        case welcome = 2
        case refusal = 3
        case data = 4
        /// From the dialler, and back.
        case ping = 5
        case pong = 6
        /// From somebody who is not a peer yet: one question, one answer, and the end.
        case question = 7
        case answer = 8
    }

    var kind: Kind
    var isCompressed: Bool
    var length: Int
    var unpackedLength: Int
    var checksum: UInt32

    init(_ raw: UnsafeRawBufferPointer, lengthMax: Int) throws(FrameError) {
        func little<T: FixedWidthInteger>(_ offset: Int) -> T {
            T(littleEndian: raw.loadUnaligned(fromByteOffset: offset, as: T.self))
        }
        let magic: UInt16 = little(0)
        guard magic == Self.magic else { throw FrameError("no frame of ours") }
        guard raw[2] == Self.version else { throw FrameError("frame version \(raw[2])") }
        guard let kind = Kind(rawValue: raw[3] & ~Self.compressedFlag) else {
            throw FrameError("frame kind \(raw[3])")
        }
        self.kind = kind
        isCompressed = raw[3] & Self.compressedFlag != 0
        length = Int(little(4) as UInt32)
        unpackedLength = Int(little(8) as UInt32)
        checksum = little(12)
        guard length <= lengthMax, unpackedLength <= lengthMax else {
            throw FrameError(
                "frame of \(max(length, unpackedLength)) bytes, more than \(lengthMax)")
        }
        // LZ4 packs at most 255 to 1: more is a lie that would cost us memory.
        guard isCompressed ? unpackedLength <= length * 255 : unpackedLength == length else {
            throw FrameError("\(length) bytes for \(unpackedLength)")
        }
    }
}

package struct FrameError: Error, Equatable, CustomStringConvertible {
    package let description: String
    init(_ description: String) { self.description = description }
}

package struct Frame: Equatable {
    package let kind: FrameHeader.Kind
    package let payload: Bytes
    let wireBytes: Int
}

extension ByteBuffer {
    /// Appends a frame; returns its bytes on the wire. Compressed if `compress` and if it pays.
    @discardableResult
    package mutating func writeFrame(
        _ kind: FrameHeader.Kind, _ payload: Bytes, compress: Bool, checksum: Bool
    ) -> Int {
        let start = writerIndex
        let count = payload.count
        invariant(count <= FrameHeader.payloadMax, "frame of \(count) bytes")
        reserveCapacity(minimumWritableBytes: FrameHeader.size + count)
        writeInteger(FrameHeader.magic, endianness: .little)
        writeInteger(FrameHeader.version)
        writeInteger(kind.rawValue)
        writeInteger(UInt32(count), endianness: .little)
        writeInteger(UInt32(count), endianness: .little)
        writeInteger(UInt32(0))
        payload.withUnsafeBytes { raw in
            // An eighth less at least, or it is not worth the peer's unpacking.
            let packed = compress ? writePacked(raw, limit: count - count / 8) : 0
            if packed > 0 {
                setInteger(kind.rawValue | FrameHeader.compressedFlag, at: start + 3)
                setInteger(UInt32(packed), at: start + 4, endianness: .little)
            } else {
                writeBytes(raw)
            }
        }
        if checksum {
            let sum = withUnsafeReadableBytes { raw in
                let frame = UnsafeRawBufferPointer(rebasing: raw[(start - readerIndex)...])
                return FrameHeader.sum(
                    header: UnsafeRawBufferPointer(rebasing: frame[..<12]),
                    payload: UnsafeRawBufferPointer(rebasing: frame[FrameHeader.size...]))
            }
            setInteger(sum, at: start + 12, endianness: .little)
        }
        return writerIndex - start
    }

    private mutating func writePacked(_ raw: UnsafeRawBufferPointer, limit: Int) -> Int {
        guard limit > 0, let source = raw.assumingMemoryBound(to: CChar.self).baseAddress else {
            return 0
        }
        return writeWithUnsafeMutableBytes(minimumWritableBytes: limit) { target in
            let bytes = target.assumingMemoryBound(to: CChar.self).baseAddress
            return Int(LZ4_compress_default(source, bytes, Int32(raw.count), Int32(limit)))
        }
    }
}

extension FrameHeader {
    package static func sum(header: UnsafeRawBufferPointer, payload: UnsafeRawBufferPointer) -> UInt32 {
        CRC32C.checksum(payload, seed: CRC32C.checksum(header))
    }
}

/// Cuts a stream of bytes into frames. Memory grows with what has arrived, not with what was
/// announced.
package struct FrameDecoder {
    /// Raised once the peer is known.
    package var lengthMax = FrameHeader.greetingMax
    let checksum: Bool
    private var headerBytes: [UInt8] = []
    private var header: FrameHeader?
    private var payload: [UInt8] = []

    package init(checksum: Bool) {
        self.checksum = checksum
        headerBytes.reserveCapacity(FrameHeader.size)
    }

    /// The next whole frame, taken off the front of `input`; `nil`: all of `input` is taken, more
    /// is needed. After an error the decoder is of no use.
    package mutating func next(_ input: inout UnsafeRawBufferPointer) throws(FrameError) -> Frame? {
        if header == nil {
            take(FrameHeader.size - headerBytes.count, of: &input, into: &headerBytes)
            guard headerBytes.count == FrameHeader.size else { return nil }
            header = try parse(headerBytes)
        }
        guard let header else { return nil }
        let missing = header.length - payload.count
        if payload.isEmpty, input.count >= missing {
            payload.reserveCapacity(missing)
        }
        take(missing, of: &input, into: &payload)
        guard payload.count == header.length else { return nil }
        let wire = payload
        payload = []
        self.header = nil
        defer { headerBytes.removeAll(keepingCapacity: true) }
        if checksum {
            let sum = headerBytes.withUnsafeBytes { h in
                wire.withUnsafeBytes {
                    FrameHeader.sum(
                        header: UnsafeRawBufferPointer(rebasing: h[..<12]), payload: $0)
                }
            }
            guard sum == header.checksum else { throw FrameError("checksum") }
        }
        let bytes = header.isCompressed ? try unpack(wire, header.unpackedLength) : wire
        return Frame(
            kind: header.kind, payload: Bytes(bytes), wireBytes: FrameHeader.size + header.length)
    }

    private func parse(_ bytes: [UInt8]) throws(FrameError) -> FrameHeader {
        let result: Result<FrameHeader, FrameError> = bytes.withUnsafeBytes { raw in
            do throws(FrameError) {
                return .success(try FrameHeader(raw, lengthMax: lengthMax))
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    private func take(
        _ count: Int, of input: inout UnsafeRawBufferPointer, into target: inout [UInt8]
    ) {
        let n = min(count, input.count)
        target.append(contentsOf: input[..<n])
        input = UnsafeRawBufferPointer(rebasing: input[n...])
    }

    private func unpack(_ wire: [UInt8], _ count: Int) throws(FrameError) -> [UInt8] {
        var result: Int32 = -1
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { target, initialized in
            result = wire.withUnsafeBytes { source in
                LZ4_decompress_safe(
                    source.assumingMemoryBound(to: CChar.self).baseAddress,
                    UnsafeMutableRawBufferPointer(target).assumingMemoryBound(to: CChar.self)
                        .baseAddress, Int32(source.count), Int32(count))
            }
            initialized = max(0, Int(result))
        }
        guard Int(result) == count else { throw FrameError("LZ4 block") }
        return bytes
    }
}

/// The first words on a connection, the same in both directions.
package struct Hello: Equatable {
    /// The versions of the protocol *in* the frames that we speak; a common one is used.
    static let protocolVersion: UInt16 = 1

    var version = protocolVersion
    var cluster: UInt64
    var from: PeerID
    var boot: UInt64
    var to: PeerID
    /// What the sender's build knows, and what its region uses (`FeatureLevel`).
    var level = FeatureLevel.first
    var regionLevel = FeatureLevel.first

    package func encoded() -> Bytes {
        var writer = ByteWriter(capacity: 40)
        writer.fixed16(version)
        writer.fixed64(cluster)
        writer.id(from.region)
        writer.id(from.node)
        writer.fixed64(boot)
        writer.id(to.region)
        writer.id(to.node)
        writer.fixed16(level)
        writer.fixed16(regionLevel)
        return Bytes(writer.bytes)
    }

    package init(cluster: UInt64, from: PeerID, boot: UInt64, to: PeerID) {
        self.cluster = cluster
        self.from = from
        self.boot = boot
        self.to = to
    }

    package init(_ bytes: Bytes) throws(DecodingError) {
        var reader = ByteReader(bytes)
        version = try reader.fixed16()
        cluster = try reader.fixed64()
        from = PeerID(region: try reader.id(), node: try reader.id())
        boot = try reader.fixed64()
        to = PeerID(region: try reader.id(), node: try reader.id())
        // The first builds said no more.
        guard reader.remaining > 0 else { return }
        level = try reader.fixed16()
        regionLevel = try reader.fixed16()
        // What a later version appends is none of ours.
    }
}
