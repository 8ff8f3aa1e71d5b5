import Glibc
import Logging
import NIOCore
import Primitives
import Storage

/// A node that has left because its disk is full comes back when there is space: until then the process
/// waits, and writes nothing. The others go on without it, as without one that has crashed.
enum SpaceWait {
    /// Tells the program that takes this one's place. Not kept anywhere: who is started anew looks anew.
    static let variable = "POLDER_WAITS_FOR_SPACE"

    static var isWanted: Bool { getenv(variable) != nil }

    /// False: told to stop.
    static func run(
        _ configuration: HostConfiguration, loop: any EventLoop, logger: Logger, isStopped: () -> Bool
    ) throws -> Bool {
        guard isWanted else { return true }
        unsetenv(variable)
        let needed = configuration.spaceNeeded + configuration.spaceNeeded / 4
        func hasSpace() -> Bool {
            (try? DataDirectory.freeBytes(configuration.dataDirectory)).map { $0 >= needed } ?? true
        }
        guard !hasSpace() else { return true }
        logger.error(
            "the disk is full: this node takes no part until there is space",
            metadata: ["directory": "\(configuration.dataDirectory)", "needed": "\(needed)"])
        let door = try WaitingDoor.open(configuration, reason: "the disk is full", loop: loop)
        defer { door.close() }
        var looks = 0
        while !isStopped() {
            looks += 1
            guard looks % 10 == 0, hasSpace() else { continue }
            logger.notice("there is space again")
            return true
        }
        return false
    }
}

extension HostConfiguration {
    /// Room for what the store holds in memory, for the same again under way, and for a log segment.
    var spaceNeeded: UInt64 { UInt64(limits.logBytesBeforeFlush) * 2 + (64 << 20) }
}
