/// Base 64 for URLs, without padding (RFC 4648 section 5): the alphabet of tokens.
enum Base64URL {
    private static let digits = Array(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".utf8)
    private static let values: [UInt8] = {
        var values = [UInt8](repeating: 0xFF, count: 256)
        for (value, digit) in digits.enumerated() { values[Int(digit)] = UInt8(value) }
        return values
    }()

    static func encode(_ bytes: [UInt8]) -> String {
        var text: [UInt8] = []
        text.reserveCapacity((bytes.count * 4 + 2) / 3)
        var rest = bytes[...]
        while let first = rest.popFirst() {
            let second = rest.popFirst(), third = rest.popFirst()
            text.append(digits[Int(first >> 2)])
            text.append(digits[Int(first << 4 & 0x30 | (second ?? 0) >> 4)])
            if let second { text.append(digits[Int(second << 2 & 0x3C | (third ?? 0) >> 6)]) }
            if let third { text.append(digits[Int(third & 0x3F)]) }
        }
        return String(decoding: text, as: UTF8.self)
    }

    /// nil: not in the one form that `encode` makes. Two texts for the same bytes would be two tokens.
    static func decode(_ text: some Collection<UInt8>) -> [UInt8]? {
        guard text.count % 4 != 1 else { return nil }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.count * 3 / 4)
        var bits: UInt32 = 0, count = 0
        for digit in text {
            let value = values[Int(digit)]
            guard value != 0xFF else { return nil }
            bits = bits << 6 | UInt32(value)
            count += 6
            if count >= 8 {
                count -= 8
                bytes.append(UInt8(truncatingIfNeeded: bits >> UInt32(count)))
            }
        }
        return bits & (1 << UInt32(count) - 1) == 0 ? bytes : nil
    }
}
