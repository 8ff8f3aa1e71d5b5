/// Why a configuration was refused, with the place: `node.yaml:12: listen.client: ...`.
package struct ConfigurationError: Error, Equatable, CustomStringConvertible {
    package let file: String
    package let line: Int?
    package let path: String
    package let message: String

    package init(file: String, line: Int?, path: String, message: String) {
        self.file = file
        self.line = line
        self.path = path
        self.message = message
    }

    package var description: String {
        var text = file
        if let line { text += ":\(line)" }
        if !path.isEmpty { text += ": \(path)" }
        return text + ": " + message
    }
}
