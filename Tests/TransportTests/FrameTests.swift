import NIOCore
import Primitives
import Testing

@testable import Transport

struct FrameTests {
    func decode(_ bytes: [UInt8], piece: Int = .max, lengthMax: Int = FrameHeader.payloadMax) throws
        -> [Frame]
    {
        var decoder = FrameDecoder(checksum: true)
        decoder.lengthMax = lengthMax
        var frames: [Frame] = []
        var start = 0
        while start < bytes.count {
            let part = Array(bytes[start..<min(bytes.count, start + min(piece, bytes.count))])
            start += part.count
            try part.withUnsafeBytes { raw in
                var rest = raw
                while let frame = try decoder.next(&rest) { frames.append(frame) }
                #expect(rest.isEmpty)
            }
        }
        return frames
    }

    func encode(_ payloads: [Bytes], compress: Bool) -> [UInt8] {
        var buffer = ByteBuffer()
        for payload in payloads {
            buffer.writeFrame(.data, payload, compress: compress, checksum: true)
        }
        return Array(buffer.readableBytesView)
    }

    static func text(_ count: Int) -> Bytes { Bytes((0..<count).map { UInt8(($0 / 7) % 5) }) }

    @Test(arguments: [1, 3, 16, 17, 1000, Int.max], [true, false])
    func `Frames come out as they went in however they are cut`(piece: Int, compress: Bool) throws {
        let payloads = [.empty, Bytes("a"), Self.text(3000), Bytes("tail"), Self.text(100_000)]
        let wire = encode(payloads, compress: compress)
        #expect(try decode(wire, piece: piece).map(\.payload) == payloads)
        if compress { #expect(wire.count < 5000) }
    }

    @Test func `Bytes that do not get smaller travel as they are`() throws {
        var luck = SplitMix(seed: 1)
        let noise = Bytes((0..<5000).map { _ in UInt8(truncatingIfNeeded: luck.next()) })
        let wire = encode([noise], compress: true)
        #expect(wire.count == FrameHeader.size + 5000)
        #expect(try decode(wire).map(\.payload) == [noise])
    }

    @Test func `Every flipped bit is noticed`() throws {
        for compress in [true, false] {
            let wire = encode([Self.text(150)], compress: compress)
            for bit in 0..<wire.count * 8 {
                var damaged = wire
                damaged[bit / 8] ^= 1 << UInt8(bit % 8)
                // A longer length waits for bytes that never come: no frame either.
                let frames = (try? decode(damaged)) ?? []
                #expect(frames.isEmpty, "bit \(bit)")
            }
        }
    }

    @Test func `Announced sizes are bounded and believed only within reason`() throws {
        func header(length: UInt32, unpacked: UInt32, kind: UInt8 = 4) -> [UInt8] {
            var buffer = ByteBuffer()
            buffer.writeInteger(FrameHeader.magic, endianness: .little)
            buffer.writeInteger(FrameHeader.version)
            buffer.writeInteger(kind)
            buffer.writeInteger(length, endianness: .little)
            buffer.writeInteger(unpacked, endianness: .little)
            buffer.writeInteger(UInt32(0))
            return Array(buffer.readableBytesView)
        }
        let bad = [
            header(length: 65 << 20, unpacked: 65 << 20), header(length: 10, unpacked: 11),
            header(length: 10, unpacked: 60 << 20, kind: 0x84),
            header(length: 1, unpacked: 1, kind: 9),
        ]
        for bytes in bad { #expect(throws: FrameError.self) { try decode(bytes) } }
        #expect(throws: FrameError.self) {
            try decode(
                header(length: 5000, unpacked: 5000, kind: 1), lengthMax: FrameHeader.greetingMax)
        }
    }

    @Test func `Rubbish never gets past the decoder`() {
        var luck = SplitMix(seed: 7)
        for _ in 0..<500 {
            var wire = encode([Self.text(200), Bytes("x")], compress: true)
            for _ in 0..<(1 + luck.below(6)) {
                wire[Int(luck.below(UInt64(wire.count)))] = UInt8(truncatingIfNeeded: luck.next())
            }
            _ = try? decode(wire, piece: 1 + Int(luck.below(64)))
        }
        // An LZ4 block of rubbish with a right checksum.
        for _ in 0..<500 {
            let block = Bytes((0..<40).map { _ in UInt8(truncatingIfNeeded: luck.next()) })
            var buffer = ByteBuffer()
            buffer.writeFrame(.data, block, compress: false, checksum: false)
            buffer.setInteger(UInt8(0x84), at: 3)
            buffer.setInteger(UInt32(luck.below(4000)), at: 8, endianness: .little)
            var decoder = FrameDecoder(checksum: false)
            decoder.lengthMax = FrameHeader.payloadMax
            buffer.withUnsafeReadableBytes { raw in
                var rest = raw
                _ = try? decoder.next(&rest)
            }
        }
    }

    @Test func `The layout on the wire is the documented one`() {
        var buffer = ByteBuffer()
        buffer.writeFrame(.data, Bytes("abc"), compress: false, checksum: true)
        let sum = CRC32C.checksum([0x50, 0x4C, 1, 4, 3, 0, 0, 0, 3, 0, 0, 0] + Array("abc".utf8))
        let tail = (0..<4).map { UInt8(truncatingIfNeeded: sum >> (8 * UInt32($0))) }
        #expect(
            Array(buffer.readableBytesView)
                == [0x50, 0x4C, 1, 4, 3, 0, 0, 0, 3, 0, 0, 0] + tail + Array("abc".utf8))
    }

    @Test func `A hello says who dials whom`() throws {
        let hello = Hello(cluster: 9, from: peer(1), boot: 5, to: peer(2, region: 3))
        #expect(try Hello(hello.encoded()) == hello)
        #expect(throws: DecodingError.self) { try Hello(Bytes("x")) }
    }
}
