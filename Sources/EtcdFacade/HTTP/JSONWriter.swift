import Primitives

/// Just enough JSON for what is served over plain HTTP; the order of members is the order of writing.
struct JSONWriter {
    private(set) var text = ""
    private var needsComma = false

    mutating func object(_ body: (inout JSONWriter) -> Void) { enclosed("{", "}", body) }
    mutating func array(_ body: (inout JSONWriter) -> Void) { enclosed("[", "]", body) }

    private mutating func enclosed(
        _ open: String, _ close: String, _ body: (inout JSONWriter) -> Void
    ) {
        separate()
        text += open
        needsComma = false
        body(&self)
        text += close
        needsComma = true
    }

    /// A member's name; its value is written next.
    mutating func name(_ name: String) {
        separate()
        quote(name)
        text += ":"
        needsComma = false
    }
    mutating func member(_ name: String, _ value: String) {
        self.name(name)
        self.value(value)
    }
    mutating func member(_ name: String, _ value: some BinaryInteger) {
        self.name(name)
        self.value(value)
    }
    mutating func member(_ name: String, _ value: Double) {
        self.name(name)
        separate()
        text += value.isFinite ? "\(value)" : "null"
        needsComma = true
    }
    mutating func member(_ name: String, _ value: Bool) {
        self.name(name)
        separate()
        text += value ? "true" : "false"
        needsComma = true
    }
    mutating func list(_ name: String, _ body: (inout JSONWriter) -> Void) {
        self.name(name)
        array(body)
    }
    mutating func object(_ name: String, _ body: (inout JSONWriter) -> Void) {
        self.name(name)
        object(body)
    }
    mutating func null() {
        separate()
        text += "null"
        needsComma = true
    }
    mutating func value(_ value: String) {
        separate()
        quote(value)
        needsComma = true
    }
    mutating func value(_ value: some BinaryInteger) {
        separate()
        text += "\(value)"
        needsComma = true
    }

    private mutating func separate() {
        if needsComma { text += "," }
        needsComma = false
    }

    private mutating func quote(_ value: String) {
        text += "\""
        for scalar in value.unicodeScalars {
            switch scalar {
            case "\"": text += "\\\""
            case "\\": text += "\\\\"
            case "\n": text += "\\n"
            case "\r": text += "\\r"
            case "\t": text += "\\t"
            case _ where scalar.value < 0x20:
                let digits = String(scalar.value, radix: 16)
                text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: text.unicodeScalars.append(scalar)
            }
        }
        text += "\""
    }
}

/// Standard base64 with padding: bytes in JSON, as the gateway writes them.
func base64(_ bytes: Bytes) -> String {
    let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    var out: [UInt8] = []
    out.reserveCapacity((bytes.count + 2) / 3 * 4)
    var i = 0
    while i < bytes.count {
        let left = bytes.count - i
        let word =
            UInt32(bytes[i]) << 16 | (left > 1 ? UInt32(bytes[i + 1]) << 8 : 0)
            | (left > 2 ? UInt32(bytes[i + 2]) : 0)
        for k in 0..<4 {
            out.append(
                k <= left ? alphabet[Int(word >> (18 - 6 * UInt32(k)) & 63)] : UInt8(ascii: "="))
        }
        i += 3
    }
    return String(decoding: out, as: UTF8.self)
}
