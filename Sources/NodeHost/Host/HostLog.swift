import Glibc
package import Logging

/// Log lines on standard error: one line each, text or JSON, written whole (one system call), so that
/// lines of several threads never mix. Keys and values of users are never logged.
package struct HostLogHandler: LogHandler {
    package var logLevel: Logger.Level
    package var metadata: Logger.Metadata = [:]
    private let label: String
    private let format: HostConfiguration.LogFormat

    package init(label: String, level: Logger.Level, format: HostConfiguration.LogFormat) {
        self.label = label
        logLevel = level
        self.format = format
    }

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    package func log(event: LogEvent) {
        var fields = metadata
        for (key, value) in event.metadata ?? [:] { fields[key] = value }
        let sorted = fields.sorted { $0.key < $1.key }
        let line: String
        switch format {
        case .text:
            var text = "\(WallTime.now()) \(event.level.rawValue.uppercased()) \(label): \(event.message)"
            for (key, value) in sorted { text += " \(key)=\(HostLogHandler.quotedIfNeeded("\(value)"))" }
            line = text
        case .json:
            // etcd's names, so that what reads etcd's log reads this one.
            var members: [(String, JSON)] = [
                ("level", .string(HostLogHandler.etcdName(event.level))), ("ts", .string(WallTime.now())),
                ("logger", .string(label)), ("msg", .string("\(event.message)")),
            ]
            for (key, value) in sorted { members.append((key, .string("\(value)"))) }
            line = JSON.object(members).text
        }
        ControlSocket.write(HostLogHandler.oneLine(line) + "\n", to: 2)
    }

    private static func etcdName(_ level: Logger.Level) -> String {
        switch level {
        case .trace, .debug: "debug"
        case .info, .notice: "info"
        case .warning: "warn"
        case .error: "error"
        case .critical: "fatal"
        }
    }

    private static func quotedIfNeeded(_ text: String) -> String {
        let plain = !text.isEmpty && text.utf8.allSatisfy { $0 > 32 && $0 < 127 && $0 != 34 && $0 != 61 }
        return plain ? text : JSON.string(text).text
    }

    /// What a peer or a client sent may be quoted in a message: it must not forge a line.
    private static func oneLine(_ text: String) -> String {
        guard text.utf8.contains(where: { $0 < 32 }) else { return text }
        return String(text.map { $0.isNewline || $0 == "\t" ? " " : $0 })
    }
}

extension HostConfiguration {
    func makeLogger() -> Logger {
        let level = Logger.Level(rawValue: logLevel.rawValue) ?? .info
        var logger = Logger(label: "polder") { _ in
            HostLogHandler(label: "polder", level: level, format: logFormat)
        }
        logger[metadataKey: "node"] = "\(nodeName)"
        return logger
    }
}
