import ArgumentParser
import Glibc
import NodeHost

/// Takes etcd's flags, whose syntax is Go's: they never pass through the parser of ours.
struct EtcdCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "etcd",
        abstract: "Runs one node with etcd's flags (also when the program is called etcd).",
        discussion: """
            A single node on 127.0.0.1:2379:
              polder etcd --data-dir /tmp/d
            """)

    @Argument(parsing: .captureForPassthrough, help: "etcd's flags; --help lists them.")
    var flags: [String] = []

    func run() throws { try EtcdCommand.run(flags) }

    /// The words after the name, if etcd was called for.
    static func flags(in words: [String]) -> [String]? {
        let name = words.first?.split(separator: "/").last ?? ""
        if name == "etcd" { return Array(words.dropFirst()) }
        return words.dropFirst().first == "etcd" ? Array(words.dropFirst(2)) : nil
    }

    static func run(_ flags: [String]) throws {
        var environment: [String: String] = [:]
        var entry = environ
        while let text = entry.pointee {
            let sides = String(cString: text).split(
                separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if sides.count == 2 { environment[String(sides[0])] = String(sides[1]) }
            entry += 1
        }
        let outcome = EtcdStart.run(flags, environment: environment)
        if outcome.code != 0 { throw Outcome(code: outcome.code, message: outcome.message) }
    }
}
