import Primitives

/// A node's directory: one process at a time, one node for ever.
package final class DataDirectory {
    package static let formatVersion = 1
    package let path: String
    package let identity: NodeIdentity
    package var logPath: String { path + "/wal" }
    package var storePath: String { path + "/store" }

    /// Creates the directory (mode 0700) and its identity, or checks them; holds the lock until
    /// `close()` or the end of the process.
    package static func open(
        _ path: String, identity: NodeIdentity
    ) throws(StorageError) -> DataDirectory { fatalError() }

    /// What the identity file says; nil: there is none (a new directory).
    package static func identity(at path: String) throws(StorageError) -> NodeIdentity? { fatalError() }

    package func close() {}

    /// Bytes that this user may still write on the file system.
    package func freeBytes() throws(StorageError) -> UInt64 { fatalError() }

    private init(path: String, identity: NodeIdentity) {
        self.path = path
        self.identity = identity
    }
}
