import Yams

/// Strict reading of one YAML mapping: what is asked for must have the right type, and what nobody
/// asked for is an error that names its line.
struct YAMLReader {
    let file: String
    let path: String
    private let line: Int?
    private var unread: [String: Node] = [:]
    private var order: [String] = []

    /// `known` is for the hint that follows an unknown key.
    init(text: String, file: String) throws(ConfigurationError) {
        let root: Node?
        do {
            root = try Yams.compose(yaml: text)
        } catch let error as YamlError {
            throw YAMLReader.translate(error, file: file)
        } catch {
            throw ConfigurationError(file: file, line: nil, path: "", message: "not YAML: \(error)")
        }
        guard let root else {
            throw ConfigurationError(file: file, line: nil, path: "", message: "the file is empty")
        }
        try self.init(node: root, file: file, path: "")
    }

    private init(node: Node, file: String, path: String) throws(ConfigurationError) {
        self.file = file
        self.path = path
        line = node.mark?.line
        guard case .mapping(let mapping) = node else {
            throw ConfigurationError(
                file: file, line: line, path: path, message: "expected keys and values")
        }
        for (key, value) in mapping {
            guard let name = key.scalar?.string else {
                throw ConfigurationError(
                    file: file, line: key.mark?.line, path: path, message: "a key must be a word")
            }
            guard unread.updateValue(value, forKey: name) == nil else {
                throw ConfigurationError(
                    file: file, line: key.mark?.line, path: path, message: "\(name) is given twice")
            }
            order.append(name)
        }
    }

    // MARK: Values

    mutating func mapping(_ key: String) throws(ConfigurationError) -> YAMLReader? {
        guard let node = take(key) else { return nil }
        return try YAMLReader(node: node, file: file, path: join(key))
    }

    mutating func mappings(_ key: String) throws(ConfigurationError) -> [YAMLReader]? {
        guard let node = take(key) else { return nil }
        guard case .sequence(let items) = node else { throw fail(key, node, "expected a list") }
        var readers: [YAMLReader] = []
        for (index, item) in items.enumerated() {
            readers.append(try YAMLReader(node: item, file: file, path: "\(join(key))[\(index)]"))
        }
        return readers
    }

    mutating func string(_ key: String) throws(ConfigurationError) -> String? {
        guard let node = take(key) else { return nil }
        return try text(key, node)
    }

    mutating func strings(_ key: String) throws(ConfigurationError) -> [String]? {
        guard let node = take(key) else { return nil }
        guard case .sequence(let items) = node else { return [try text(key, node)] }
        var values: [String] = []
        for item in items { values.append(try text(key, item)) }
        return values
    }

    mutating func integer(
        _ key: String, in range: ClosedRange<Int>
    ) throws(ConfigurationError) -> Int? {
        guard let node = take(key) else { return nil }
        guard let scalar = node.scalar, let value = Int(scalar.string) else {
            throw fail(key, node, "expected a whole number")
        }
        guard range.contains(value) else {
            throw fail(
                key, node, "\(value) is not between \(range.lowerBound) and \(range.upperBound)")
        }
        return value
    }

    /// Decimal or `0x...`: ids are printed in hexadecimal by etcd's tools.
    mutating func id64(_ key: String) throws(ConfigurationError) -> UInt64? {
        guard let node = take(key) else { return nil }
        let text = node.scalar?.string ?? ""
        let value =
            text.hasPrefix("0x") ? UInt64(text.dropFirst(2), radix: 16) : UInt64(text)
        guard let value, value != 0 else { throw fail(key, node, "expected a 64-bit id, not 0") }
        return value
    }

    mutating func boolean(_ key: String) throws(ConfigurationError) -> Bool? {
        guard let node = take(key) else { return nil }
        switch node.scalar?.string {
        case "true": return true
        case "false": return false
        default: throw fail(key, node, "expected true or false")
        }
    }

    mutating func choice<T: RawRepresentable & CaseIterable>(
        _ key: String, _ type: T.Type
    ) throws(ConfigurationError) -> T? where T.RawValue == String {
        guard let node = take(key) else { return nil }
        guard let value = node.scalar.flatMap({ T(rawValue: $0.string) }) else {
            let all = T.allCases.map(\.rawValue).joined(separator: ", ")
            throw fail(key, node, "expected one of \(all)")
        }
        return value
    }

    /// A value with a syntax of its own; `expected` says which.
    mutating func parsed<T>(
        _ key: String, expected: String, _ parse: (String) -> T?
    ) throws(ConfigurationError) -> T? {
        guard let node = take(key) else { return nil }
        guard let value = node.scalar.flatMap({ parse($0.string) }) else {
            throw fail(key, node, "expected \(expected)")
        }
        return value
    }

    func required<T>(_ key: String, _ value: T?) throws(ConfigurationError) -> T {
        guard let value else { throw fail("\(key) is missing") }
        return value
    }

    /// Whatever nobody asked for is misspelt or misplaced: better said than ignored.
    func finish() throws(ConfigurationError) {
        guard let key = order.first(where: { unread[$0] != nil }), let node = unread[key] else {
            return
        }
        throw fail(key, node, "unknown key")
    }

    func fail(_ message: String) -> ConfigurationError {
        ConfigurationError(file: file, line: line, path: path, message: message)
    }

    // MARK: Helpers

    private mutating func take(_ key: String) -> Node? { unread.removeValue(forKey: key) }

    private func join(_ key: String) -> String { path.isEmpty ? key : "\(path).\(key)" }

    private func text(_ key: String, _ node: Node) throws(ConfigurationError) -> String {
        guard let scalar = node.scalar, !scalar.string.isEmpty else {
            throw fail(key, node, "expected text")
        }
        return scalar.string
    }

    private func fail(_ key: String, _ node: Node, _ message: String) -> ConfigurationError {
        ConfigurationError(
            file: file, line: node.mark?.line ?? line, path: join(key), message: message)
    }

    private static func translate(_ error: YamlError, file: String) -> ConfigurationError {
        switch error {
        case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _),
            .composer(_, let problem, let mark, _):
            return ConfigurationError(
                file: file, line: mark.line, path: "", message: "not YAML: \(problem)")
        case .duplicatedKeysInMapping(let duplicates, let context):
            let names = duplicates.sorted().joined(separator: ", ")
            return ConfigurationError(
                file: file, line: context.mark.line, path: "", message: "given twice: \(names)")
        case .no, .memory, .reader, .writer, .emitter, .representer, .dataCouldNotBeDecoded:
            return ConfigurationError(
                file: file, line: nil, path: "", message: "not YAML: \(error)")
        }
    }
}
