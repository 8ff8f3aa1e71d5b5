import Primitives

/// What etcd was told, from the command line, the environment or a file, each value checked for its
/// kind. Precedence is etcd's: a file stands alone; otherwise flags win over the environment.
package struct EtcdArguments: Equatable, Sendable {
    package enum Request: Equatable, Sendable {
        case start
        case version
        case help
    }

    enum Source: Equatable, Sendable {
        case flag
        case environment
        case file(String, line: Int?)
    }

    struct Value: Equatable, Sendable {
        var text: String
        var source: Source
    }

    package private(set) var request = Request.start
    /// What a person should hear, though it is no error.
    package internal(set) var warnings: [EtcdWarning] = []
    private var values: [String: Value] = [:]

    package init(
        _ arguments: [String], environment: [String: String],
        readFile: (String) throws(ConfigurationError) -> String
    ) throws(ConfigurationError) {
        try readFlags(arguments)
        guard request == .start else { return }
        let file = values["config-file"]?.text ?? environment["ETCD_CONFIG_FILE"] ?? ""
        if !file.isEmpty {
            let others = values.keys.filter { $0 != "config-file" }.sorted()
            values = [:]
            try readConfigFile(try readFile(file), file: file)
            if !others.isEmpty {
                warn("a configuration file is given: flags and environment variables are ignored",
                    ["flags": others.map { "--" + $0 }.joined(separator: " ")])
            }
        } else {
            try readEnvironment(environment)
        }
        try judge()
    }

    // MARK: Asking

    func isGiven(_ name: String) -> Bool { values[name] != nil }

    /// What was given, or etcd's default.
    func text(_ name: String) -> String {
        values[name]?.text ?? EtcdFlag.named(name)?.standard ?? ""
    }

    /// Nil for the empty text, which is how etcd says "none".
    func nonempty(_ name: String) -> String? {
        let text = text(name)
        return text.isEmpty ? nil : text
    }

    func isOn(_ name: String) -> Bool { EtcdArguments.boolean(text(name)) ?? false }

    func number(_ name: String) -> Int { EtcdArguments.number(text(name)) ?? 0 }

    func list(_ name: String) -> [String] {
        text(name).split(separator: ",").map { word in
            String(word.drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
        }.filter { !$0.isEmpty }
    }

    func refuse(_ name: String, _ message: String) -> ConfigurationError {
        switch values[name]?.source {
        case .environment:
            let variable = EtcdFlag.named(name)?.environmentName ?? name
            return ConfigurationError(
                file: "environment", line: nil, path: variable, message: message)
        case .file(let file, let line):
            return ConfigurationError(file: file, line: line, path: name, message: message)
        case .flag, nil:
            return ConfigurationError(file: "etcd", line: nil, path: "--" + name, message: message)
        }
    }

    mutating func warn(_ message: String, _ metadata: [String: String] = [:]) {
        warnings.append(EtcdWarning(message: message, metadata: metadata))
    }

    // MARK: The command line

    private mutating func readFlags(_ arguments: [String]) throws(ConfigurationError) {
        func refuse(_ path: String, _ message: String) -> ConfigurationError {
            ConfigurationError(file: "etcd", line: nil, path: path, message: message)
        }
        if let word = arguments.first, word == "gateway" || word == "grpc-proxy" {
            throw refuse(word, "not supported: every node serves every client")
        }
        var rest = arguments[...]
        while let word = rest.popFirst() {
            guard word.hasPrefix("-"), word != "-", word != "--" else {
                throw refuse("", "\"\(word)\" is not a valid flag")
            }
            let body = word.drop { $0 == "-" }
            let sides = body.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            let name = String(sides.first ?? "")
            if name == "h" || name == "help" {
                request = .help
                return
            }
            guard let flag = EtcdFlag.named(name) else {
                throw refuse("--" + name, "flag provided but not defined" + hint(name))
            }
            let text: String
            if sides.count > 1 {
                text = String(sides[1])
            } else if flag.kind == .boolean {
                text = "true"
            } else if let next = rest.popFirst() {
                text = next
            } else {
                throw refuse("--" + name, "flag needs an argument")
            }
            try set(flag, text, .flag)
            if name == "version", isOn("version") {
                request = .version
                return
            }
        }
    }

    func hint(_ name: String, prefix: String = "--") -> String {
        EtcdFlag.suggestion(for: name).map { "; did you mean \(prefix)\($0)?" } ?? ""
    }

    /// The last one counts, as with etcd.
    mutating func set(
        _ flag: EtcdFlag, _ text: String, _ source: Source
    ) throws(ConfigurationError) {
        values[flag.name] = Value(text: text, source: source)
        switch flag.kind {
        case .text: break
        case .boolean:
            guard EtcdArguments.boolean(text) != nil else {
                throw refuse(flag.name, "\"\(text)\" is not true or false")
            }
        case .number:
            guard EtcdArguments.number(text) != nil else {
                throw refuse(flag.name, "\"\(text)\" is not a whole number")
            }
        case .duration:
            guard text.isEmpty || EtcdArguments.duration(text) != nil else {
                throw refuse(flag.name, "\"\(text)\" is not a time such as 10m or 1h30m")
            }
        }
    }

    // MARK: The environment

    private mutating func readEnvironment(
        _ environment: [String: String]
    ) throws(ConfigurationError) {
        var known: Set<String> = ["ETCD_UNSUPPORTED_ARCH", "ETCD_CONFIG_FILE"]
        for flag in EtcdFlag.all where flag.name != "version" {
            let variable = flag.environmentName
            known.insert(variable)
            guard let text = environment[variable], !text.isEmpty else { continue }
            if isGiven(flag.name) {
                warn("environment variable is shadowed by its flag", ["variable": variable])
            } else {
                try set(flag, text, .environment)
            }
        }
        for variable in environment.keys.sorted()
        where variable.hasPrefix("ETCD_") && !known.contains(variable) {
            let name = String(variable.dropFirst(5).lowercased().map { $0 == "_" ? "-" : $0 })
            let meant = EtcdFlag.suggestion(for: name).flatMap { EtcdFlag.named($0) }
            var metadata = ["variable": variable]
            if let meant { metadata["suggestion"] = meant.environmentName }
            warn("unrecognized environment variable", metadata)
        }
    }

    // MARK: What is not honoured

    /// Defaults are never worth a word: the sample configuration file spells all of them out.
    private mutating func judge() throws(ConfigurationError) {
        for flag in EtcdFlag.all {
            guard let value = values[flag.name],
                !EtcdArguments.areEqual(value.text, flag.standard, flag.kind),
                EtcdFlag.harmless[flag.name]?.contains(value.text) != true
            else { continue }
            switch flag.use {
            case .honoured: break
            case .refused(let reason): throw refuse(flag.name, reason)
            case .ignored(let reason):
                warn("flag is ignored", ["flag": "--" + flag.name, "reason": reason])
            }
        }
    }

    private static func areEqual(_ a: String, _ b: String, _ kind: EtcdFlag.Kind) -> Bool {
        switch kind {
        case .text: a == b || a.isEmpty
        case .boolean: boolean(a) == boolean(b)
        case .number: number(a) == number(b)
        case .duration: a.isEmpty || duration(a) == duration(b)
        }
    }

    // MARK: Go's syntax of values

    static func boolean(_ text: String) -> Bool? {
        switch text {
        case "1", "t", "T", "true", "TRUE", "True": true
        case "0", "f", "F", "false", "FALSE", "False": false
        default: nil
        }
    }

    static func number(_ text: String) -> Int? {
        let value = text.hasPrefix("0x") ? Int(text.dropFirst(2), radix: 16) : Int(text)
        guard let value, value >= 0 else { return nil }
        return value
    }

    /// `5s`, `1h30m`, `1.5s`; `0`.
    static func duration(_ text: String) -> TimeSpan? {
        if text == "0" { return .zero }
        let units: [(String, Double)] = [
            ("ns", 1), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9),
        ]
        var rest = text[...], nanoseconds = 0.0
        guard !rest.isEmpty else { return nil }
        while !rest.isEmpty {
            let digits = rest.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
            let unit = rest.dropFirst(digits.count).prefix { !($0.isNumber || $0 == ".") }
            guard let number = Double(digits), let scale = units.first(where: { $0.0 == unit })
            else { return nil }
            nanoseconds += number * scale.1
            rest = rest.dropFirst(digits.count + unit.count)
        }
        guard nanoseconds < 1e18 else { return nil }
        return TimeSpan(nanoseconds: UInt64(nanoseconds))
    }
}

/// Becomes one line of the log, once there is one.
package struct EtcdWarning: Equatable, Sendable {
    package var message: String
    package var metadata: [String: String]
}
