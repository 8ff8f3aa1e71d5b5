/// A CPU profile in pprof's format (profile.proto), with the names of functions: whoever reads it needs
/// neither the program nor its symbols. Not compressed, which `go tool pprof` takes as well.
struct ProfileFile {
    private(set) var bytes: [UInt8] = []
    private var strings: [String: Int] = ["": 0]
    private var texts = [""]
    private var functions: [UInt: UInt64] = [:]
    private var locations: [UInt: UInt64] = [:]

    init(_ samples: CPUProfile.Samples, _ symbols: inout Symbols) {
        let period = UInt64(1_000_000_000 / CPUProfile.hertz)
        // sample_type: how often, and for how long.
        for (kind, unit) in [("samples", "count"), ("cpu", "nanoseconds")] {
            message(1, valueType(kind, unit))
        }
        var body: [UInt8] = []
        for (stack, count) in samples.stacks.sorted(by: { $0.key.lexicographicallyPrecedes($1.key) }) {
            var sample = ProtoBytes()
            sample.packed(1, stack.map { location($0, &symbols) })
            sample.packed(2, [UInt64(count), UInt64(count) * period])
            var field = ProtoBytes()
            field.message(2, sample.bytes)
            body += field.bytes
        }
        bytes += body
        for (i, mapping) in symbols.mappings.enumerated() {
            var field = ProtoBytes()
            field.number(1, UInt64(i + 1))
            field.number(2, UInt64(mapping.start))
            field.number(3, UInt64(mapping.end))
            field.number(4, UInt64(mapping.fileOffset))
            field.number(5, text(mapping.path))
            field.number(7, 1)
            message(3, field.bytes)
        }
        for (i, text) in texts.enumerated() where i > 0 || text.isEmpty { message(6, Array(text.utf8)) }
        var rest = ProtoBytes()
        rest.number(9, samples.beganAtNanoseconds)
        rest.number(10, samples.nanoseconds)
        bytes += rest.bytes
        // period_type and period; their texts are known by now.
        message(11, valueType("cpu", "nanoseconds"))
        var last = ProtoBytes()
        last.number(12, period)
        bytes += last.bytes
    }

    private mutating func message(_ field: UInt8, _ body: [UInt8]) {
        var out = ProtoBytes()
        out.message(field, body)
        bytes += out.bytes
    }

    private mutating func text(_ value: String) -> UInt64 {
        if let known = strings[value] { return UInt64(known) }
        strings[value] = texts.count
        texts.append(value)
        return UInt64(texts.count - 1)
    }

    private mutating func valueType(_ kind: String, _ unit: String) -> [UInt8] {
        var out = ProtoBytes()
        out.number(1, text(kind))
        out.number(2, text(unit))
        return out.bytes
    }

    private mutating func location(_ address: UInt, _ symbols: inout Symbols) -> UInt64 {
        if let known = locations[address] { return known }
        let id = UInt64(locations.count + 1)
        locations[address] = id
        var out = ProtoBytes()
        out.number(1, id)
        if let mapping = symbols.mapping(of: address) { out.number(2, UInt64(mapping + 1)) }
        out.number(3, UInt64(address))
        if let found = symbols.function(at: address) {
            var line = ProtoBytes()
            line.number(1, function(found.start, found.name, found.symbol))
            out.message(4, line.bytes)
        }
        message(4, out.bytes)
        return id
    }

    private mutating func function(_ start: UInt, _ name: String, _ symbol: String) -> UInt64 {
        if let known = functions[start] { return known }
        let id = UInt64(functions.count + 1)
        functions[start] = id
        var out = ProtoBytes()
        out.number(1, id)
        out.number(2, text(name))
        out.number(3, text(symbol))
        message(5, out.bytes)
        return id
    }
}

/// Fields of a message that is rarely written, and of a handful of kinds.
private struct ProtoBytes {
    private(set) var bytes: [UInt8] = []

    private mutating func varint(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(rest))
    }
    mutating func number(_ field: UInt8, _ value: UInt64) {
        guard value != 0 else { return }
        bytes.append(field << 3)
        varint(value)
    }
    mutating func message(_ field: UInt8, _ body: [UInt8]) {
        bytes.append(field << 3 | 2)
        varint(UInt64(body.count))
        bytes += body
    }
    mutating func packed(_ field: UInt8, _ values: [UInt64]) {
        var body = ProtoBytes()
        for value in values { body.varint(value) }
        message(field, body.bytes)
    }
}
