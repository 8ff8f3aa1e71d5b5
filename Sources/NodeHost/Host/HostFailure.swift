package import Storage

/// Why a node cannot start or go on, with its exit code (docs/runbook.md):
/// 3 something here is in the way, 5 the data is damaged, 6 the disk does not take writes, 7 our bug.
package struct HostFailure: Error, Equatable, CustomStringConvertible {
    package let code: Int32
    package let message: String
    /// What the process may do itself, before anybody else has to (`HostProcess.recover`).
    package var cure = Cure.none
    package enum Cure: Equatable, Sendable {
        case none
        /// Wait until there is space.
        case space
        /// Fetch another node's store; why.
        case store(String)
        /// Set everything aside, and come in as a node that has lost its disk; why, and which file it is about.
        case anew(String, file: String? = nil)
    }
    package var description: String { message }

    package init(code: Int32, _ message: String, cure: Cure = .none) {
        self.code = code
        self.message = message
        self.cure = cure
    }

    package init(_ error: StorageError) {
        switch error {
        case .locked, .foreign, .newer: self.init(code: 3, "\(error)")
        case .damaged(let file, _, _): self.init(code: 5, "\(error)", cure: .anew("\(error)", file: file))
        case .database: self.init(code: 5, "\(error)")
        case .corrupt(let reason):
            self.init(code: 5, "\(error)")
            cure = .store(reason)
        case .io: self.init(code: 6, "\(error)")
        case .noSpace:
            self.init(code: 6, "\(error)")
            cure = .space
        }
    }
}
