package import FoundationEssentials
import Glibc

/// How far a mirror is, in a file that the next run reads. Written after what it says is true.
package struct MirrorState: Codable, Equatable, Sendable {
    /// Clusters' ids, hexadecimal: a state is of one pair.
    package var source: String
    package var destination: String
    package var prefix: Data
    /// Every change through it is at the destination.
    package var revision: Int64
    /// Keys below it have been copied; nil: all have.
    package var copiedTo: Data?
    /// Keys with leases may have run out while nobody looked after them: then all is compared again.
    package var hasLeases: Bool

    static func read(_ path: String) throws -> MirrorState? {
        guard access(path, F_OK) == 0 else { return nil }
        do {
            return try JSONDecoder().decode(
                MirrorState.self, from: try Data(contentsOf: URL(filePath: path)))
        } catch {
            throw MirrorError.state("\(path) is not a mirror's state: \(error)")
        }
    }

    func write(_ path: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        do {
            try encoder.encode(self).write(to: URL(filePath: path), options: .atomic)
        } catch {
            throw MirrorError.state("cannot write \(path): \(error)")
        }
    }
}
