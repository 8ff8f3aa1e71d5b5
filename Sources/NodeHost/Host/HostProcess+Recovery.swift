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
        case .anew(let reason, let file):
            guard setAside(reason, file, configuration, peers: peers, logger: logger) else { return }
        }
        polder_close_others_on_exec()
        execv("/proc/self/exe", CommandLine.unsafeArgv)
        logger.critical("cannot begin again", metadata: ["errno": "\(errno)"])
    }

    /// A log that is damaged is not voted from, and a region that goes on without this node has everything that was
    /// acknowledged: it takes the node back as one that has lost its disk. False: somebody has to look at it.
    private static func setAside(
        _ reason: String, _ file: String?, _ configuration: HostConfiguration, peers: [PeerID: PeerAddress],
        logger: Logger
    ) -> Bool {
        let directory = configuration.dataDirectory
        if let file, !file.hasPrefix(directory + "/") { return false }
        let others = peers.isEmpty ? configuration.peers : peers
        guard others.keys.contains(where: { $0.region == configuration.regionID }) else { return false }
        do throws(StorageError) {
            guard try SetAside.begin(in: directory, reason: reason) else {
                logger.critical(
                    "there is data already that was set aside, and the node has not got everything since",
                    metadata: ["directory": "\(directory)/\(SetAside.name)"])
                return false
            }
        } catch {
            logger.critical("cannot be set aside", metadata: ["reason": "\(error)"])
            return false
        }
        logger.critical(
            "this node's data is damaged and is set aside: it comes in anew",
            metadata: ["reason": "\(reason)", "directory": "\(directory)/\(SetAside.name)"])
        return true
    }
}
