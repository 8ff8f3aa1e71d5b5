import Primitives

/// Cuts a body into the JSON values that stand in it one after the other, without understanding them:
/// what is within a value is the decoder's business.
struct JSONValues {
    private let bytes: Bytes
    private var at = 0

    init(_ bytes: Bytes) { self.bytes = bytes }

    /// Nil: only white space is left. The last one may be cut short: it is handed over as it is.
    mutating func next() -> Bytes? {
        while at < bytes.count, Self.isSpace(bytes[at]) { at += 1 }
        guard at < bytes.count else { return nil }
        let start = at
        switch bytes[at] {
        case UInt8(ascii: "{"), UInt8(ascii: "["): passNested()
        case UInt8(ascii: "\""): passString()
        default: passWord()
        }
        return bytes[start..<at]
    }

    private mutating func passNested() {
        var depth = 0
        while at < bytes.count {
            switch bytes[at] {
            case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
            case UInt8(ascii: "}"), UInt8(ascii: "]"):
                depth -= 1
                if depth == 0 {
                    at += 1
                    return
                }
            case UInt8(ascii: "\""):
                passString()
                continue
            default: break
            }
            at += 1
        }
    }

    private mutating func passString() {
        at += 1
        while at < bytes.count {
            switch bytes[at] {
            case UInt8(ascii: "\\"): at = min(at + 2, bytes.count)
            case UInt8(ascii: "\""):
                at += 1
                return
            default: at += 1
            }
        }
    }

    private mutating func passWord() {
        repeat { at += 1 } while at < bytes.count && !Self.isSpace(bytes[at])
    }

    private static func isSpace(_ byte: UInt8) -> Bool {
        byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09
    }
}
