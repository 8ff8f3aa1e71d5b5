/// The little that the mutator must know of formats. Written from the formats, not with our parsers: what
/// is under test does not help to test itself.

struct ProtoField {
    enum Value {
        case varint(UInt64)
        case bytes([UInt8])
    }
    var number: UInt64
    var type: UInt64
    var value: Value

    /// Nil: not a message to the last byte.
    static func split(_ bytes: [UInt8]) -> [ProtoField]? {
        var fields: [ProtoField] = []
        var at = 0
        func varint() -> UInt64? {
            var value: UInt64 = 0
            for i in 0..<10 {
                guard at < bytes.count else { return nil }
                let byte = bytes[at]
                at += 1
                value |= UInt64(byte & 0x7F) << UInt64(7 * i)
                if byte < 0x80 { return value }
            }
            return nil
        }
        func take(_ count: UInt64) -> [UInt8]? {
            guard count <= UInt64(bytes.count - at) else { return nil }
            defer { at += Int(count) }
            return Array(bytes[at..<(at + Int(count))])
        }
        while at < bytes.count {
            guard let tag = varint(), tag >> 3 != 0 else { return nil }
            let value: Value
            switch tag & 7 {
            case 0:
                guard let number = varint() else { return nil }
                value = .varint(number)
            case 1:
                guard let raw = take(8) else { return nil }
                value = .bytes(raw)
            case 2:
                guard let count = varint(), let raw = take(count) else { return nil }
                value = .bytes(raw)
            case 5:
                guard let raw = take(4) else { return nil }
                value = .bytes(raw)
            default: return nil
            }
            fields.append(ProtoField(number: tag >> 3, type: tag & 7, value: value))
        }
        return fields
    }

    static func join(_ fields: [ProtoField]) -> [UInt8] {
        var out: [UInt8] = []
        for field in fields {
            varint(field.number << 3 | field.type, &out)
            switch field.value {
            case .varint(let number): varint(number, &out)
            case .bytes(let raw):
                if field.type == 2 { varint(UInt64(raw.count), &out) }
                out += raw
            }
        }
        return out
    }

    static func varint(_ value: UInt64, _ out: inout [UInt8]) {
        var rest = value
        while rest >= 0x80 {
            out.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        out.append(UInt8(rest))
    }
}

struct HTTP2Frame {
    static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
    var type: UInt8
    var flags: UInt8
    var stream: UInt32
    var payload: [UInt8]
    /// Another than the payload's.
    var length: Int?

    static func split(_ bytes: [UInt8]) -> (preface: [UInt8], frames: [HTTP2Frame]) {
        var at = bytes.starts(with: preface) ? preface.count : 0
        let start = Array(bytes[..<at])
        var frames: [HTTP2Frame] = []
        while bytes.count - at >= 9 {
            let length = Int(bytes[at]) << 16 | Int(bytes[at + 1]) << 8 | Int(bytes[at + 2])
            let stream = bytes[(at + 5)..<(at + 9)].reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
            let end = min(bytes.count, at + 9 + length)
            frames.append(
                HTTP2Frame(
                    type: bytes[at + 3], flags: bytes[at + 4], stream: stream,
                    payload: Array(bytes[(at + 9)..<end])))
            at = end
        }
        return (start, frames)
    }

    var encoded: [UInt8] {
        let count = length ?? payload.count
        return [
            UInt8(truncatingIfNeeded: count >> 16), UInt8(truncatingIfNeeded: count >> 8),
            UInt8(truncatingIfNeeded: count), type, flags, UInt8(truncatingIfNeeded: stream >> 24),
            UInt8(truncatingIfNeeded: stream >> 16), UInt8(truncatingIfNeeded: stream >> 8),
            UInt8(truncatingIfNeeded: stream),
        ] + payload
    }
}

enum Base64 {
    private static let standard = Array(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    private static let forURLs = Array(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".utf8)

    static func encode(_ bytes: [UInt8], forURL: Bool = false) -> [UInt8] {
        let alphabet = forURL ? forURLs : standard
        var out: [UInt8] = []
        var at = 0
        while at < bytes.count {
            let rest = min(3, bytes.count - at)
            var group = UInt32(bytes[at]) << 16
            if rest > 1 { group |= UInt32(bytes[at + 1]) << 8 }
            if rest > 2 { group |= UInt32(bytes[at + 2]) }
            for i in 0...rest { out.append(alphabet[Int(group >> UInt32(18 - 6 * i)) & 63]) }
            if !forURL { for _ in rest..<3 { out.append(UInt8(ascii: "=")) } }
            at += rest
        }
        return out
    }

    static func decode(_ text: [UInt8]) -> [UInt8]? {
        var out: [UInt8] = []
        var group: UInt32 = 0
        var bits = 0
        for character in text {
            if character == UInt8(ascii: "=") { break }
            guard let value = standard.firstIndex(of: character) ?? forURLs.firstIndex(of: character)
            else { return nil }
            group = (group << 6 | UInt32(value)) & 0xFF_FFFF
            bits += 6
            if bits >= 8 {
                bits -= 8
                out.append(UInt8(truncatingIfNeeded: group >> UInt32(bits)))
            }
        }
        return out
    }
}
