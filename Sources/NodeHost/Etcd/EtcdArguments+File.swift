import Yams

extension EtcdArguments {
    /// etcd's configuration file: the flags' names as keys, those of TLS in two groups. Lists may be
    /// written as YAML lists or with commas; a key without a value is as good as none.
    mutating func readConfigFile(_ text: String, file: String) throws(ConfigurationError) {
        func refuse(_ node: Node?, _ path: String, _ message: String) -> ConfigurationError {
            ConfigurationError(file: file, line: node?.mark?.line, path: path, message: message)
        }
        let root: Node?
        do {
            root = try Yams.compose(yaml: text)
        } catch {
            throw refuse(nil, "", "not YAML: \(error)")
        }
        guard let root else { return }
        guard case .mapping(let mapping) = root else {
            throw refuse(root, "", "expected keys and values")
        }
        for (key, node) in mapping {
            let name = key.scalar?.string ?? ""
            switch name {
            case "client-transport-security": try readSecurity(node, file, name, prefix: "")
            case "peer-transport-security": try readSecurity(node, file, name, prefix: "peer-")
            default: try readEntry(name, key, node, file, path: name)
            }
        }
    }

    private mutating func readSecurity(
        _ node: Node, _ file: String, _ group: String, prefix: String
    ) throws(ConfigurationError) {
        if node.scalar.map({ EtcdArguments.isNull($0) }) == true { return }
        guard case .mapping(let mapping) = node else {
            throw ConfigurationError(
                file: file, line: node.mark?.line, path: group, message: "expected keys and values")
        }
        let whose = prefix.isEmpty ? "client" : "peer"
        for (key, value) in mapping {
            let key = (node: key, name: key.scalar?.string ?? "")
            let name: String =
                switch key.name {
                case "client-cert-auth", "client-crl-file", "client-cert-file", "client-key-file":
                    prefix + key.name
                case "allowed-cn", "allowed-cns": whose + "-cert-allowed-cn"
                case "allowed-hostname", "allowed-hostnames": whose + "-cert-allowed-hostname"
                case "skip-client-san-verification": "peer-skip-client-san-verification"
                default: prefix + key.name
                }
            try readEntry(name, key.node, value, file, path: "\(group).\(key.name)")
        }
    }

    private mutating func readEntry(
        _ name: String, _ key: Node, _ node: Node, _ file: String, path: String
    ) throws(ConfigurationError) {
        let line = key.mark?.line
        guard let flag = EtcdFlag.named(name), name != "version", name != "config-file" else {
            // etcd reads on over what it does not know; what looks like a slip of the pen does not pass.
            if EtcdFlag.suggestion(for: name) != nil {
                throw ConfigurationError(
                    file: file, line: line, path: path,
                    message: "unknown key" + hint(name, prefix: ""))
            }
            warn("unknown key is ignored", ["file": file, "key": path])
            return
        }
        let text: String
        switch node {
        case .scalar(let scalar):
            if EtcdArguments.isNull(scalar) { return }
            text = scalar.string
        case .sequence(let items):
            let words = items.compactMap { $0.scalar?.string }
            guard words.count == items.count else {
                throw ConfigurationError(
                    file: file, line: line, path: path, message: "expected a list of words")
            }
            text = words.joined(separator: ",")
        case .mapping, .alias:
            throw ConfigurationError(file: file, line: line, path: path, message: "expected a value")
        }
        // Go's times are nanoseconds there, as etcd reads files.
        let isTime = if case .duration = flag.kind { text.allSatisfy(\.isNumber) && Int64(text) != nil } else { false }
        try set(flag, isTime ? text + "ns" : text, .file(file, line: line))
    }

    private static func isNull(_ scalar: Node.Scalar) -> Bool {
        guard scalar.style == .plain || scalar.style == .any else { return false }
        return ["", "~", "null", "Null", "NULL"].contains(scalar.string)
    }
}
