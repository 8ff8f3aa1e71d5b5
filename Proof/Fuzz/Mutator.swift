import Primitives

/// How inputs are built, so that damage goes where it hurts.
enum Grammar {
    case bytes
    /// Protobuf: fields are repeated, dropped, nested, their numbers and lengths bent.
    case proto
    /// Words, brackets and quotes: JSON, YAML, flags.
    case text
    /// HTTP/2: whole frames are repeated, dropped, reordered, their headers bent.
    case frames
    /// PEM: what lies within the base64 is damaged as DER.
    case pem
}

struct Mutator {
    let grammar: Grammar
    private var random: SplitMix

    init(grammar: Grammar, seed: UInt64) {
        self.grammar = grammar
        random = SplitMix(seed: seed)
    }

    mutating func damaged(_ corpus: [[UInt8]], bytesMax: Int) -> [UInt8] {
        var bytes = pick(corpus)
        for _ in 0..<(1 + below(4)) {
            guard bytes.count <= bytesMax else { break }
            // A third of the damage knows nothing of any grammar.
            if below(3) == 0 {
                damage(&bytes, corpus)
                continue
            }
            switch grammar {
            case .bytes: damage(&bytes, corpus)
            case .proto: bytes = proto(bytes, pick(corpus), depth: 0)
            case .text: text(&bytes, pick(corpus))
            case .frames: frames(&bytes, pick(corpus))
            case .pem: pem(&bytes, corpus)
            }
        }
        return bytes
    }

    private mutating func below(_ bound: Int) -> Int { Int(random.below(UInt64(max(1, bound)))) }
    private mutating func byte() -> UInt8 { UInt8(truncatingIfNeeded: random.next()) }
    private mutating func pick(_ corpus: [[UInt8]]) -> [UInt8] { corpus[below(corpus.count)] }

    // MARK: Bytes

    private static let interesting: [UInt64] = [
        0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF,
        0x7FFF_FFFF_FFFF_FFFF, 0x8000_0000_0000_0000, 0xFFFF_FFFF_FFFF_FFFF,
    ]

    mutating func damage(_ bytes: inout [UInt8], _ corpus: [[UInt8]]) {
        guard !bytes.isEmpty else {
            bytes = (0..<(1 + below(8))).map { _ in byte() }
            return
        }
        var at = below(bytes.count)
        // Files are full of zeros that nobody reads.
        for _ in 0..<6 where bytes[at] == 0 { at = below(bytes.count) }
        switch below(12) {
        case 0: bytes[at] ^= 1 << UInt8(below(8))
        case 1: bytes[at] = byte()
        case 2: bytes.removeSubrange(at...)
        case 3: bytes.insert(byte(), at: at)
        case 4:
            let value = Self.interesting[below(Self.interesting.count)]
            let width = [1, 2, 4, 8][below(4)]
            let isBig = below(2) == 0
            for i in 0..<width where at + i < bytes.count {
                let shift = UInt64(8 * (isBig ? width - 1 - i : i))
                bytes[at + i] = UInt8(truncatingIfNeeded: value >> shift)
            }
        case 5:
            let other = pick(corpus)
            if !other.isEmpty {
                let from = below(other.count)
                bytes.replaceSubrange(at..., with: other[from...])
            }
        case 6:
            let end = min(bytes.count, at + 1 + below(32))
            bytes.insert(contentsOf: bytes[at..<end], at: at)
        case 7: bytes.removeSubrange(at..<min(bytes.count, at + 1 + below(16)))
        case 8: bytes[at] = bytes[at] &+ UInt8(truncatingIfNeeded: below(9) - 4)
        case 9:
            // A varint beyond everything.
            let huge: [UInt8] = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]
            bytes.replaceSubrange(at..<min(bytes.count, at + 1), with: huge.suffix(1 + below(10)))
        case 10:
            let other = below(bytes.count)
            bytes.swapAt(at, other)
        default:
            // One part, many times.
            let end = min(bytes.count, at + 1 + below(16))
            let part = Array(bytes[at..<end])
            for _ in 0..<below(64) { bytes.insert(contentsOf: part, at: at) }
        }
    }

    // MARK: Protobuf

    private mutating func proto(_ bytes: [UInt8], _ other: [UInt8], depth: Int) -> [UInt8] {
        guard var fields = ProtoField.split(bytes), !fields.isEmpty else {
            var out = bytes
            damage(&out, [other])
            return out
        }
        let at = below(fields.count)
        switch below(9) {
        case 0: fields.remove(at: at)
        case 1: fields.insert(fields[at], at: below(fields.count + 1))
        case 2: fields.swapAt(at, below(fields.count))
        case 3: fields[at].number = UInt64(below(20))
        case 4:
            fields[at].type = UInt64(below(6))
            if below(2) == 0 { fields[at].value = .varint(random.next()) }
        case 5:
            if let more = ProtoField.split(other), !more.isEmpty {
                fields.insert(more[below(more.count)], at: below(fields.count + 1))
            }
        case 6:
            // Into itself: a message within a message within a message.
            if case .bytes(var inner) = fields[at].value {
                for _ in 0..<below(70) where inner.count < 4096 {
                    inner = ProtoField.join([
                        ProtoField(number: fields[at].number, type: 2, value: .bytes(inner))
                    ])
                }
                fields[at].value = .bytes(inner)
            }
        default:
            switch fields[at].value {
            case .varint:
                fields[at].value = .varint(
                    below(2) == 0
                        ? Self.interesting[below(Self.interesting.count)] : UInt64(below(300)))
            case .bytes(let inner) where depth < 4 && below(4) > 0:
                fields[at].value = .bytes(proto(inner, other, depth: depth + 1))
            case .bytes(var inner):
                damage(&inner, [other])
                fields[at].value = .bytes(inner)
            }
        }
        return ProtoField.join(fields)
    }

    // MARK: Text

    private static let words = [
        "null", "true", "false", "0", "-1", "1e999", "9223372036854775808", "18446744073709551616",
        "\"\"", "{}", "[]", "{", "}", "[", "]", ",", ":", "\"", "\\", "\\u0000", "\\ud800", "\u{0}", "\n",
        "\t", "- ", "&a ", "*a", "<<: ", "!!binary ", "---\n", "%", "=", "--", "'", "|", ">", "#", "../",
        "http://", "unix://", "[::]:0", "127.0.0.1:99999", "é", "\u{FEFF}", "\u{202E}", "9999999h", "-1s",
        "1.5", "0x10", "1_000", "AAAA", "====",
    ]

    private mutating func text(_ bytes: inout [UInt8], _ other: [UInt8]) {
        let parts = Self.tokens(bytes)
        guard !parts.isEmpty else { return damage(&bytes, [other]) }
        let part = parts[below(parts.count)]
        switch below(8) {
        case 0: bytes.replaceSubrange(part, with: Self.words[below(Self.words.count)].utf8)
        case 1: bytes.insert(contentsOf: Self.words[below(Self.words.count)].utf8, at: part.lowerBound)
        case 2: bytes.removeSubrange(part)
        case 3: bytes.insert(contentsOf: bytes[part], at: parts[below(parts.count)].lowerBound)
        case 4:
            let more = Self.tokens(other)
            if !more.isEmpty { bytes.replaceSubrange(part, with: other[more[below(more.count)]]) }
        case 5:
            let open: [String] = ["[", "{\"a\":", "- ", "{a: ", "(", "\""]
            let word = open[below(open.count)]
            bytes.insert(
                contentsOf: String(repeating: word, count: 1 + below(400)).utf8, at: part.lowerBound)
        case 6:
            // A line, or what stands between two brackets, elsewhere.
            let start = part.lowerBound
            let end = min(bytes.count, start + below(200))
            let chunk = Array(bytes[start..<end])
            bytes.removeSubrange(start..<end)
            bytes.insert(contentsOf: chunk, at: below(bytes.count + 1))
        default:
            var inner = Array(bytes[part])
            damage(&inner, [other])
            bytes.replaceSubrange(part, with: inner)
        }
    }

    /// Runs of letters and digits, and everything else one by one.
    private static func tokens(_ bytes: [UInt8]) -> [Range<Int>] {
        var tokens: [Range<Int>] = []
        var start = 0
        func isWord(_ byte: UInt8) -> Bool {
            (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
                || byte == 0x5F || byte >= 0x80
        }
        while start < bytes.count {
            var end = start + 1
            if isWord(bytes[start]) { while end < bytes.count, isWord(bytes[end]) { end += 1 } }
            tokens.append(start..<end)
            start = end
        }
        return tokens
    }

    // MARK: HTTP/2

    private mutating func frames(_ bytes: inout [UInt8], _ other: [UInt8]) {
        var (preface, frames) = HTTP2Frame.split(bytes)
        guard !frames.isEmpty else { return damage(&bytes, [other]) }
        let at = below(frames.count)
        switch below(10) {
        case 0: frames.remove(at: at)
        case 1: frames.insert(frames[at], at: below(frames.count + 1))
        case 2: frames.swapAt(at, below(frames.count))
        case 3: frames[at].type = UInt8(below(12))
        case 4: frames[at].flags = byte()
        case 5: frames[at].stream = [0, 1, 2, 3, 5, 7, 0x7FFF_FFFF, UInt32(below(64))][below(8)]
        case 6:
            let more = HTTP2Frame.split(other).frames
            if !more.isEmpty { frames.insert(more[below(more.count)], at: below(frames.count + 1)) }
        case 7: for _ in 0..<below(100) { frames.insert(frames[at], at: at) }
        case 8: frames[at].length = below(2) == 0 ? below(1 << 24) : nil
        default: damage(&frames[at].payload, [other])
        }
        if below(200) == 0 { preface = [] }
        bytes = preface + frames.flatMap(\.encoded)
    }

    // MARK: PEM

    private mutating func pem(_ bytes: inout [UInt8], _ corpus: [[UInt8]]) {
        var lines = bytes.split(separator: 0x0A, omittingEmptySubsequences: false).map { Array($0) }
        let dash = UInt8(ascii: "-")
        let inner = lines.indices.filter { !lines[$0].isEmpty && lines[$0][0] != dash }
        guard let first = inner.first, let last = inner.last,
            !lines[first...last].contains(where: { $0.first == dash }),
            var der = Base64.decode(lines[first...last].flatMap { $0 })
        else { return text(&bytes, pick(corpus)) }
        damage(&der, corpus)
        let encoded = Base64.encode(der)
        let cut = stride(from: 0, to: encoded.count, by: 64).map {
            Array(encoded[$0..<min(encoded.count, $0 + 64)])
        }
        lines.replaceSubrange(first...last, with: cut)
        bytes = Array(lines.joined(separator: [0x0A]))
    }
}
