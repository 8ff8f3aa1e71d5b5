import Primitives

/// A JSON web token (RFC 7519) with etcd's claims, without its signature.
struct WebToken: Equatable {
    var user: Bytes
    var revision: UInt64
    /// Seconds since 1970. Tokens of others need not end.
    var expires = Int64.max
    var notBefore = Int64.min

    /// What is signed: header and claims.
    func signingText(algorithm: String) -> String {
        var header = JSONWriter()
        header.object {
            $0.member("alg", algorithm)
            $0.member("typ", "JWT")
        }
        var claims = JSONWriter()
        claims.object {
            $0.member("exp", expires)
            $0.member("revision", Int64(clamping: revision))
            $0.member("username", String(decoding: user.slice, as: UTF8.self))
        }
        return Base64URL.encode(Array(header.text.utf8)) + "."
            + Base64URL.encode(Array(claims.text.utf8))
    }

    /// nil: no token of this algorithm with these claims. The signature is not looked at.
    static func read(
        _ token: String, algorithm: String
    ) -> (token: WebToken, text: Substring.UTF8View, signature: [UInt8])? {
        let parts = token.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 3, let headerBytes = Base64URL.decode(parts[0].utf8),
            let claimBytes = Base64URL.decode(parts[1].utf8),
            let signature = Base64URL.decode(parts[2].utf8),
            let header = FlatJSON.read(headerBytes), let claims = FlatJSON.read(claimBytes),
            header["alg"] == .string(algorithm), header["crit"] == nil,
            case .string(let user)? = claims["username"],
            case .number(let revision)? = claims["revision"], revision >= 0, revision < 0x1p63
        else { return nil }
        var read = WebToken(user: Bytes(user), revision: UInt64(revision))
        for (name, place) in [("exp", \WebToken.expires), ("nbf", \WebToken.notBefore)] {
            guard let claim = claims[name] else { continue }
            guard case .number(let seconds) = claim, abs(seconds) < 0x1p62 else { return nil }
            read[keyPath: place] = Int64(seconds)
        }
        let end = parts[1].endIndex
        return (read, token[..<end].utf8, signature)
    }
}

/// The members of one JSON object; of those that are objects or lists only that they are there.
/// Strict: what is not JSON to the last byte is nothing.
struct FlatJSON {
    enum Value: Equatable {
        case string(String)
        case number(Double)
        case bool(Bool)
        case null
        case nested
    }
    private var bytes: [UInt8]
    private var at = 0
    private static let depthMax = 16

    static func read(_ bytes: [UInt8]) -> [String: Value]? {
        guard String(validating: bytes, as: UTF8.self) != nil else { return nil }
        var reader = FlatJSON(bytes: bytes)
        reader.skipSpace()
        guard let members = reader.object(depth: 0) else { return nil }
        reader.skipSpace()
        return reader.at == bytes.count ? members : nil
    }

    private var next: UInt8? { at < bytes.count ? bytes[at] : nil }

    private mutating func skipSpace() {
        while let byte = next, byte == 0x20 || byte == 0x09 || byte == 0x0A || byte == 0x0D { at += 1 }
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard next == byte else { return false }
        at += 1
        return true
    }

    private mutating func object(depth: Int) -> [String: Value]? {
        guard depth < Self.depthMax, take(UInt8(ascii: "{")) else { return nil }
        var members: [String: Value] = [:]
        skipSpace()
        if take(UInt8(ascii: "}")) { return members }
        while true {
            skipSpace()
            guard let name = string() else { return nil }
            skipSpace()
            guard take(UInt8(ascii: ":")), let value = value(depth: depth) else { return nil }
            // Which of two would count is a matter of taste: none does.
            guard members.updateValue(value, forKey: name) == nil else { return nil }
            skipSpace()
            if take(UInt8(ascii: "}")) { return members }
            guard take(UInt8(ascii: ",")) else { return nil }
        }
    }

    private mutating func list(depth: Int) -> Bool {
        guard depth < Self.depthMax, take(UInt8(ascii: "[")) else { return false }
        skipSpace()
        if take(UInt8(ascii: "]")) { return true }
        while true {
            guard value(depth: depth) != nil else { return false }
            skipSpace()
            if take(UInt8(ascii: "]")) { return true }
            guard take(UInt8(ascii: ",")) else { return false }
        }
    }

    private mutating func value(depth: Int) -> Value? {
        skipSpace()
        switch next {
        case UInt8(ascii: "{"): return object(depth: depth + 1) == nil ? nil : .nested
        case UInt8(ascii: "["): return list(depth: depth + 1) ? .nested : nil
        case UInt8(ascii: "\""): return string().map { .string($0) }
        case UInt8(ascii: "t"): return word("true") ? .bool(true) : nil
        case UInt8(ascii: "f"): return word("false") ? .bool(false) : nil
        case UInt8(ascii: "n"): return word("null") ? .null : nil
        default: return number().map { .number($0) }
        }
    }

    private mutating func word(_ text: StaticString) -> Bool {
        text.withUTF8Buffer { word in
            guard bytes.count - at >= word.count, bytes[at..<at + word.count].elementsEqual(word) else {
                return false
            }
            at += word.count
            return true
        }
    }

    private mutating func number() -> Double? {
        let start = at
        while let byte = next, (0x30...0x39).contains(byte) || "+-.eE".utf8.contains(byte) { at += 1 }
        let text = bytes[start..<at]
        guard let first = text.first, first == 0x2D || (0x30...0x39).contains(first),
            let value = Double(String(decoding: text, as: UTF8.self)), value.isFinite
        else { return nil }
        return value
    }

    private mutating func string() -> String? {
        guard take(UInt8(ascii: "\"")) else { return nil }
        var out: [UInt8] = []
        while let byte = next {
            at += 1
            switch byte {
            case UInt8(ascii: "\""): return String(decoding: out, as: UTF8.self)
            case UInt8(ascii: "\\"):
                guard let escape = next else { return nil }
                at += 1
                switch escape {
                case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): out.append(escape)
                case UInt8(ascii: "b"): out.append(0x08)
                case UInt8(ascii: "f"): out.append(0x0C)
                case UInt8(ascii: "n"): out.append(0x0A)
                case UInt8(ascii: "r"): out.append(0x0D)
                case UInt8(ascii: "t"): out.append(0x09)
                case UInt8(ascii: "u"):
                    guard let scalar = escapedScalar() else { return nil }
                    out.append(contentsOf: String(Character(scalar)).utf8)
                default: return nil
                }
            case 0..<0x20: return nil
            default: out.append(byte)
            }
        }
        return nil
    }

    private mutating func escapedScalar() -> Unicode.Scalar? {
        guard let high = hexadecimal() else { return nil }
        guard (0xD800...0xDBFF).contains(high) else { return Unicode.Scalar(high) }
        guard take(UInt8(ascii: "\\")), take(UInt8(ascii: "u")), let low = hexadecimal(),
            (0xDC00...0xDFFF).contains(low)
        else { return nil }
        return Unicode.Scalar(0x10000 + (high - 0xD800) << 10 + (low - 0xDC00))
    }

    private mutating func hexadecimal() -> UInt32? {
        guard bytes.count - at >= 4 else { return nil }
        let digits = bytes[at..<at + 4]
        guard digits.allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }) else { return nil }
        at += 4
        return UInt32(String(decoding: digits, as: UTF8.self), radix: 16)
    }
}
