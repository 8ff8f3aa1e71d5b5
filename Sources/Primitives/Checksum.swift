/// CRC-32C (Castagnoli, RFC 3720 appendix B.4), reflected, slicing by eight.
public enum CRC32C {
    private static let tables: [UInt32] = {
        var t = [UInt32](repeating: 0, count: 8 * 256)
        for i in 0..<256 {
            var crc = UInt32(i)
            for _ in 0..<8 { crc = crc & 1 == 1 ? (crc >> 1) ^ 0x82F6_3B78 : crc >> 1 }
            t[i] = crc
        }
        for i in 0..<256 {
            for k in 1..<8 {
                let before = t[(k - 1) * 256 + i]
                t[k * 256 + i] = (before >> 8) ^ t[Int(before & 0xFF)]
            }
        }
        return t
    }()

    /// The processor's own instruction, if it has one and the program has brought it along (this module
    /// knows no C). Takes and gives the checksum as it is between two pieces: not inverted.
    public typealias Step = @convention(c) (UInt32, UnsafeRawPointer?, Int) -> UInt32
    /// Set once, before anything runs.
    nonisolated(unsafe) public static var processor: Step?

    public static func checksum(_ bytes: UnsafeRawBufferPointer, seed: UInt32 = 0) -> UInt32 {
        if let processor, let start = bytes.baseAddress { return ~processor(~seed, start, bytes.count) }
        return slicing(bytes, seed: seed)
    }

    static func slicing(_ bytes: UnsafeRawBufferPointer, seed: UInt32) -> UInt32 {
        tables.withUnsafeBufferPointer { t in
            var crc = ~seed
            var i = 0
            let n = bytes.count
            while i &+ 8 <= n {
                let word = UInt64(
                    littleEndian: bytes.loadUnaligned(fromByteOffset: i, as: UInt64.self))
                let low = UInt32(truncatingIfNeeded: word) ^ crc
                let high = UInt32(truncatingIfNeeded: word >> 32)
                crc =
                    t[7 * 256 + Int(low & 0xFF)] ^ t[6 * 256 + Int((low >> 8) & 0xFF)]
                    ^ t[5 * 256 + Int((low >> 16) & 0xFF)] ^ t[4 * 256 + Int(low >> 24)]
                    ^ t[3 * 256 + Int(high & 0xFF)] ^ t[2 * 256 + Int((high >> 8) & 0xFF)]
                    ^ t[1 * 256 + Int((high >> 16) & 0xFF)] ^ t[Int(high >> 24)]
                i &+= 8
            }
            while i < n {
                crc = (crc >> 8) ^ t[Int((crc ^ UInt32(bytes[i])) & 0xFF)]
                i &+= 1
            }
            return ~crc
        }
    }

    public static func checksum(_ bytes: [UInt8]) -> UInt32 {
        bytes.withUnsafeBytes { checksum($0) }
    }
}
