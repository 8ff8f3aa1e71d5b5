import Primitives
import Testing

@testable import NodeHost

@Suite struct ChecksumTests {
    @Test func `the processor computes the checksum that the tables do`() throws {
        // Null where the processor has no such instruction: then the tables it is.
        guard let step = HostProcess.processorChecksum else { return }
        var draw = SplitMix(seed: 3)
        let bytes = (0..<400).map { _ in UInt8(truncatingIfNeeded: draw.next()) }
        for count in 0..<bytes.count {
            let start = Int(draw.next() % 9), end = min(bytes.count, start + count)
            let seed = UInt32(truncatingIfNeeded: draw.next())
            bytes.withUnsafeBytes { raw in
                let part = UnsafeRawBufferPointer(rebasing: raw[min(start, end)..<end])
                #expect(
                    ~step(~seed, part.baseAddress, part.count) == CRC32C.checksum(part, seed: seed))
            }
        }
        #expect(~step(~0, Array("123456789".utf8), 9) == 0xE306_9283)
    }
}
