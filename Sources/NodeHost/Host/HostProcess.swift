/// `polder serve`: one node as one process.
package enum HostProcess {
    package struct Outcome: Equatable, Sendable {
        package let code: Int32
        package let message: String
    }

    package static func run(_ configuration: HostConfiguration) -> Outcome {
        Outcome(code: 4, message: "serving is not wired up yet")
    }
}
