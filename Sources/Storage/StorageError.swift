package import Primitives

/// Why the disk cannot be used. Every case ends the process (or its start) with its text; none is
/// retried. `noSpace` before anything is lost only stops writes (see `WriteAheadLog`), and after `corrupt`
/// the store is fetched from another node (`StoreCopy`).
package enum StorageError: Error, Equatable, Sendable, CustomStringConvertible {
    /// A system call failed.
    case io(String)
    case noSpace(String)
    /// Bytes that had been synced are not what was written (protocol-rules.md S21).
    case damaged(file: String, offset: Int, reason: String)
    /// Belongs to another cluster, region or node.
    case foreign(String)
    /// Written by a newer format than this build knows.
    case newer(String)
    /// Another process uses the data directory.
    case locked(String)
    /// RocksDB's own text.
    case database(String)
    /// The store's files are not what was written, or lack what the log says they hold. The log is not
    /// concerned.
    case corrupt(String)

    package var description: String {
        switch self {
        case .io(let text), .foreign(let text), .newer(let text), .locked(let text): text
        case .noSpace(let text): "no space left on the disk: \(text)"
        case .damaged(let file, let offset, let reason):
            "damaged: \(file) at offset \(offset): \(reason)"
        case .database(let text): "store: \(text)"
        case .corrupt(let text): "damaged store: \(text)"
        }
    }
}

/// Whose data a directory holds. In the identity file and in every log segment.
package struct NodeIdentity: Hashable, Sendable {
    package var cluster: UInt64
    package var region: RegionID
    package var regionName: String
    package var node: NodeID
    /// Not admitted yet: `node` is a seat, or nobody. Such a directory holds no log and no promises.
    package var isNew = false
    /// Drawn when the directory was made; 0: before version 2.
    package var token: UInt64 = 0
    /// Those with whom it founded its region; empty: it was admitted to one.
    package var founders: [Founder] = []

    package struct Founder: Hashable, Sendable {
        package var seat: NodeID
        package var token: UInt64
        package init(seat: NodeID, token: UInt64) {
            self.seat = seat
            self.token = token
        }
    }

    package init(cluster: UInt64, region: RegionID, regionName: String, node: NodeID) {
        self.cluster = cluster
        self.region = region
        self.regionName = regionName
        self.node = node
    }
}
