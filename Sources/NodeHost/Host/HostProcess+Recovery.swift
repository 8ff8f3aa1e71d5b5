import CLinux
import Glibc
import Logging
import NIOCore
import Primitives
import Storage
import Transport

// What the process does about a disk that has failed it, beside ending with a reason.
extension HostProcess {
    /// Does not return if there is something to be done: the program begins again in its own place (same
    /// process, nothing of the old one's memory), and does it before it takes part in anything.
    static func recover(
        from failure: HostFailure, _ configuration: HostConfiguration, peers: [PeerID: PeerAddress],
        logger: Logger
    ) {
        switch failure.cure {
        case .none: return
        case .space:
            logger.error("cannot go on without space", metadata: ["reason": "\(failure.message)"])
            setenv(SpaceWait.variable, "1", 1)
        case .store(let reason):
            logger.critical(
                "the store is damaged and is not used any more", metadata: ["reason": "\(reason)"])
            do throws(StorageError) {
                try StoreDamage.mark(
                    .init(reason: reason, peers: StoreRepair.lines(of: peers, configuration)),
                    in: configuration.dataDirectory)
            } catch {
                // Without the mark it would be used again.
                logger.critical("cannot be marked", metadata: ["reason": "\(error)"])
                return
            }
            // Alone it is refused at the next start, too: docs/runbook.md.
        }
        polder_close_others_on_exec()
        execv("/proc/self/exe", CommandLine.unsafeArgv)
        logger.critical("cannot begin again", metadata: ["errno": "\(errno)"])
    }
}
