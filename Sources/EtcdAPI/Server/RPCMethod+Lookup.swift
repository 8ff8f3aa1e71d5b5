/// Finds the method of a `:path` without making a string of it: by the path's last eight bytes and
/// its length, then the whole.
struct RPCMethodTable {
    private static let size = 256
    private var slots = [UInt8](repeating: .max, count: size)
    private let methods = RPCMethod.allCases
    private let paths = RPCMethod.allCases.map(\.path)

    init() {
        for (i, path) in paths.enumerated() {
            var at = path.withUTF8Buffer { Self.hash(UnsafeRawBufferPointer($0)) }
            while slots[at] != .max { at = (at + 1) % Self.size }
            slots[at] = UInt8(i)
        }
    }

    func find(_ path: UnsafeRawBufferPointer) -> RPCMethod? {
        guard path.count >= 8 else { return nil }
        var at = Self.hash(path)
        while slots[at] != .max {
            let i = Int(slots[at])
            let found = paths[i].withUTF8Buffer { $0.count == path.count && $0.elementsEqual(path) }
            if found { return methods[i] }
            at = (at + 1) % Self.size
        }
        return nil
    }

    private static func hash(_ path: UnsafeRawBufferPointer) -> Int {
        let tail = path.loadUnaligned(fromByteOffset: path.count - 8, as: UInt64.self)
        let mixed = (tail ^ UInt64(path.count)) &* 0x9E37_79B9_7F4A_7C15
        return Int(mixed >> 56)
    }
}

extension RPCMethod {
    /// grpc-go's words for a path that names nothing we serve.
    static func unknown(_ path: String) -> String {
        guard path.hasPrefix("/"), let slash = path.lastIndex(of: "/"), slash != path.startIndex else {
            return "malformed method name: \"\(path)\""
        }
        let service = path[path.index(after: path.startIndex)..<slash]
        let method = path[path.index(after: slash)...]
        let prefix = "/\(service)/"
        let isKnown = allCases.contains { "\($0.path)".hasPrefix(prefix) }
        return isKnown
            ? "unknown method \(method) for service \(service)" : "unknown service \(service)"
    }
}
