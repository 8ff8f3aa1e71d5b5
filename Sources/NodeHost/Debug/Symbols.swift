import Glibc

/// What lies where in this process's memory, and what the functions there are called.
struct Symbols {
    struct Mapping {
        let start: UInt
        let end: UInt
        let fileOffset: UInt
        let path: String
    }

    /// Of code, in order of addresses.
    let mappings: [Mapping]
    private var tables: [String: ELFSymbols] = [:]

    init() {
        var found: [Mapping] = []
        for line in Symbols.text(of: "/proc/self/maps").split(separator: "\n") {
            let fields = line.split(separator: " ", omittingEmptySubsequences: true)
            guard fields.count >= 6, fields[1].contains("x"), fields[5].hasPrefix("/") else {
                continue
            }
            let ends = fields[0].split(separator: "-").compactMap { UInt($0, radix: 16) }
            guard ends.count == 2, let offset = UInt(fields[2], radix: 16) else { continue }
            let path = fields[5...].joined(separator: " ")
            found.append(Mapping(start: ends[0], end: ends[1], fileOffset: offset, path: path))
        }
        mappings = found
    }

    func mapping(of address: UInt) -> Int? {
        mappings.firstIndex { $0.start <= address && address < $0.end }
    }

    /// Where the function begins, and its name, readable and as the linker knows it.
    mutating func function(at address: UInt) -> (start: UInt, name: String, symbol: String)? {
        guard let at = mapping(of: address) else { return nil }
        let mapping = mappings[at]
        if tables[mapping.path] == nil { tables[mapping.path] = ELFSymbols(path: mapping.path) }
        let offset = address - mapping.start + mapping.fileOffset
        guard let found = tables[mapping.path]?.function(atFileOffset: offset) else { return nil }
        return (mapping.start &+ found.start &- mapping.fileOffset, demangled(found.name), found.name)
    }

    private func demangled(_ name: String) -> String {
        guard name.hasPrefix("$s") || name.hasPrefix("$S") else { return name }
        guard let text = polder_swift_demangle(name, UInt(name.utf8.count), nil, nil, 0) else {
            return name
        }
        defer { free(text) }
        return String(cString: text)
    }

    static func text(of path: String) -> String {
        guard let file = fopen(path, "r") else { return "" }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        while bytes.count < 16 << 20 {
            let count = fread(&buffer, 1, buffer.count, file)
            if count == 0 { break }
            bytes.append(contentsOf: buffer[..<count])
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

/// Of Swift's runtime.
@_silgen_name("swift_demangle")
private func polder_swift_demangle(
    _ name: UnsafePointer<CChar>?, _ length: UInt, _ buffer: UnsafeMutablePointer<CChar>?,
    _ size: UnsafeMutablePointer<UInt>?, _ flags: UInt32
) -> UnsafeMutablePointer<CChar>?

/// The functions of a 64-bit ELF file: its own table if it has one, else what it exports.
private final class ELFSymbols {
    private struct Function {
        let start: UInt
        let end: UInt
        let name: Int
    }
    private struct Section {
        let kind: UInt32
        let offset: Int
        let bytes: Int
        let link: Int
    }

    private let descriptor: Int32
    private var functions: [Function] = []
    private var names: [UInt8] = []
    private static let bytesMax = 256 << 20

    init(path: String) {
        descriptor = open(path, O_RDONLY | O_CLOEXEC)
        read()
        if descriptor >= 0 { close(descriptor) }
    }

    func function(atFileOffset offset: UInt) -> (start: UInt, name: String)? {
        var low = 0, high = functions.count
        while low < high {
            let middle = (low + high) / 2
            if functions[middle].start <= offset { low = middle + 1 } else { high = middle }
        }
        guard low > 0, offset < functions[low - 1].end else { return nil }
        let found = functions[low - 1]
        let end = names[found.name...].firstIndex(of: 0) ?? names.endIndex
        return (found.start, String(decoding: names[found.name..<end], as: UTF8.self))
    }

    private func bytes(_ offset: Int, _ count: Int) -> [UInt8]? {
        guard descriptor >= 0, offset >= 0, count >= 0, count <= Self.bytesMax else { return nil }
        var bytes = [UInt8](repeating: 0, count: count)
        var done = 0
        while done < count {
            let read = bytes.withUnsafeMutableBytes {
                pread(descriptor, $0.baseAddress.map { $0 + done }, count - done, offset + done)
            }
            guard read > 0 else { return nil }
            done += read
        }
        return bytes
    }

    private func read() {
        guard let header = bytes(0, 64), header[0..<4] == [0x7F, 0x45, 0x4C, 0x46], header[4] == 2,
            header[5] == 1
        else { return }
        func number(_ bytes: [UInt8], _ at: Int, _ size: Int) -> UInt {
            (0..<size).reduce(0) { $0 | UInt(bytes[at + $1]) << UInt(8 * $1) }
        }
        func sized(_ bytes: [UInt8], _ at: Int) -> Int { Int(clamping: number(bytes, at, 8)) }
        let sectionCount = Int(number(header, 60, 2)), sectionBytes = Int(number(header, 58, 2))
        guard sectionBytes >= 64, let raw = bytes(sized(header, 40), sectionCount * sectionBytes)
        else { return }
        let sections = (0..<sectionCount).map { i in
            let at = i * sectionBytes
            return Section(
                kind: UInt32(number(raw, at + 4, 4)), offset: sized(raw, at + 24),
                bytes: sized(raw, at + 32), link: Int(number(raw, at + 40, 4)))
        }
        // Addresses to offsets: symbols have the former, the kernel's maps the latter.
        let partCount = Int(number(header, 56, 2)), partBytes = Int(number(header, 54, 2))
        guard partBytes >= 56, let parts = bytes(sized(header, 32), partCount * partBytes) else {
            return
        }
        let loaded = (0..<partCount).map { $0 * partBytes }.filter { number(parts, $0, 4) == 1 }.map {
            (offset: number(parts, $0 + 8, 8), address: number(parts, $0 + 16, 8),
                bytes: number(parts, $0 + 32, 8))
        }
        // SHT_SYMTAB is 2, SHT_DYNSYM 11.
        guard let table = sections.first(where: { $0.kind == 2 }) ?? sections.first(where: { $0.kind == 11 }),
            sections.indices.contains(table.link), let symbols = bytes(table.offset, table.bytes),
            let strings = bytes(sections[table.link].offset, sections[table.link].bytes)
        else { return }
        names = strings
        for at in stride(from: 0, to: symbols.count - 23, by: 24) where symbols[at + 4] & 15 == 2 {
            let address = number(symbols, at + 8, 8), size = number(symbols, at + 16, 8)
            let name = Int(number(symbols, at, 4))
            guard address > 0, name < names.count,
                let part = loaded.first(where: { $0.address <= address && address - $0.address < $0.bytes })
            else { continue }
            let start = address - part.address + part.offset
            functions.append(Function(start: start, end: start + max(size, 1), name: name))
        }
        functions.sort { ($0.start, $0.end) < ($1.start, $1.end) }
    }
}
