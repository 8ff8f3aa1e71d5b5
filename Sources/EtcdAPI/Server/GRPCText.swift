package import Primitives

/// The small textual parts of gRPC over HTTP/2.
package enum GRPCText {
    /// `grpc-message` carries printable ASCII; everything else, and the percent sign, as %XX of UTF-8.
    package static func encodeMessage(_ message: String) -> String {
        func isPlain(_ byte: UInt8) -> Bool { byte >= 0x20 && byte <= 0x7E && byte != 0x25 }
        if message.utf8.allSatisfy(isPlain) { return message }
        let digits = Array("0123456789ABCDEF".utf8)
        var bytes: [UInt8] = []
        for byte in message.utf8 {
            if isPlain(byte) {
                bytes.append(byte)
            } else {
                bytes += [0x25, digits[Int(byte >> 4)], digits[Int(byte & 15)]]
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// The other way; what is no %XX stays as it is.
    package static func decodeMessage(_ message: String) -> String {
        guard message.utf8.contains(0x25) else { return message }
        func digit(_ byte: UInt8) -> UInt8? {
            switch byte {
            case 0x30...0x39: byte - 0x30
            case 0x41...0x46: byte - 0x41 + 10
            case 0x61...0x66: byte - 0x61 + 10
            default: nil
            }
        }
        let source = Array(message.utf8)
        var bytes: [UInt8] = []
        var i = 0
        while i < source.count {
            if source[i] == 0x25, i + 2 < source.count, let high = digit(source[i + 1]),
                let low = digit(source[i + 2])
            {
                bytes.append(high << 4 | low)
                i += 3
            } else {
                bytes.append(source[i])
                i += 1
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// `grpc-timeout`: at most eight digits and a unit.
    package static func timeout(_ value: UnsafeRawBufferPointer) -> TimeSpan? {
        guard value.count >= 2, value.count <= 9, let unit = value.last else { return nil }
        var amount: UInt64 = 0
        for byte in value.dropLast() {
            guard byte >= 0x30, byte <= 0x39 else { return nil }
            amount = amount * 10 + UInt64(byte - 0x30)
        }
        switch unit {
        case UInt8(ascii: "n"): return TimeSpan(nanoseconds: amount)
        case UInt8(ascii: "u"): return .microseconds(amount)
        case UInt8(ascii: "m"): return .milliseconds(amount)
        case UInt8(ascii: "S"): return .seconds(amount)
        case UInt8(ascii: "M"): return .seconds(amount * 60)
        case UInt8(ascii: "H"): return .seconds(amount * 3600)
        default: return nil
        }
    }

    /// `grpc-timeout` of a span, rounded up to a unit in which it has at most eight digits.
    package static func timeout(of span: TimeSpan) -> String {
        let units: [(UInt64, String)] = [
            (1, "n"), (1_000, "u"), (1_000_000, "m"), (1_000_000_000, "S"), (60_000_000_000, "M"),
            (3_600_000_000_000, "H"),
        ]
        for (nanoseconds, name) in units {
            let amount = span.nanoseconds / nanoseconds + (span.nanoseconds % nanoseconds == 0 ? 0 : 1)
            if amount < 100_000_000 { return "\(amount)\(name)" }
        }
        return "99999999H"
    }

    /// "application/grpc", also with "+proto" or parameters.
    static func isGRPC(_ contentType: UnsafeRawBufferPointer) -> Bool {
        let name: StaticString = "application/grpc"
        let count = name.utf8CodeUnitCount
        guard contentType.count >= count else { return false }
        let matches = name.withUTF8Buffer { expected in
            (0..<count).allSatisfy { contentType[$0] | 0x20 == expected[$0] | 0x20 }
        }
        guard matches else { return false }
        return contentType.count == count || contentType[count] == UInt8(ascii: "+")
            || contentType[count] == UInt8(ascii: ";")
    }
}
