import Glibc

/// What a node may not use any more, and nobody can mend, goes into a directory of its own within the data
/// directory, and the node comes in anew, as one that has lost its disk (docs/decisions/0024). It is kept
/// until the node has everything again: if the region should need it, it can be put back by hand.
package enum SetAside {
    package static let name = "set-aside"
    static let reasonName = "reason"

    private static func path(_ directory: String) -> String { directory + "/" + name }

    /// This node has forgotten what it promised: it must not found a region.
    package static func isThere(in directory: String) -> Bool { Posix.exists(path(directory)) }

    /// Why, for the log of each start until the node has everything again.
    package static func reason(in directory: String) throws(StorageError) -> String? {
        let file = path(directory) + "/" + reasonName
        guard Posix.exists(file) else { return nil }
        return String(decoding: try Posix.readFile(file), as: UTF8.self).split(separator: "\n").first.map(String.init)
    }

    /// False: something has been set aside before, and this node has not got everything since. Then there
    /// is something wrong with the machine that no other node can mend.
    package static func begin(in directory: String, reason: String) throws(StorageError) -> Bool {
        guard !isThere(in: directory) else { return false }
        // Made whole elsewhere first: from the moment it has its name the rest follows.
        let new = path(directory) + ".new"
        try Posix.removeDirectory(new)
        try Posix.makeDirectory(new)
        let line = reason.split(separator: "\n").joined(separator: " ")
        try Posix.replaceFile(new, reasonName, Array((line + "\n").utf8))
        try Posix.rename(new, path(directory))
        try Posix.syncDirectory(directory)
        try finish(in: directory)
        return true
    }

    /// Before anything else is looked at: a crash may have come in between. The identity goes first: a log that
    /// is gone under an identity that is there would be taken for one that is empty.
    package static func finish(in directory: String) throws(StorageError) {
        guard isThere(in: directory) else { return }
        let identity = DataDirectory.identityName
        if !Posix.exists(path(directory) + "/" + identity) {
            guard Posix.exists(directory + "/" + identity) else { return }
            try Posix.rename(directory + "/" + identity, path(directory) + "/" + identity)
            try Posix.syncDirectory(path(directory))
            try Posix.syncDirectory(directory)
        }
        guard !Posix.exists(directory + "/" + identity) else { return }
        for entry in try Posix.names(in: directory) where entry != name && entry != DataDirectory.lockName {
            try Posix.rename(directory + "/" + entry, path(directory) + "/" + entry)
        }
        try Posix.syncDirectory(path(directory))
        try Posix.syncDirectory(directory)
    }

    /// The node has everything again. Returns what is left to be removed, which may take a while; nil: nothing.
    /// It goes under another name: half of it must not be taken for what has just been begun.
    package static func retire(in directory: String) throws(StorageError) -> String? {
        let gone = path(directory) + ".gone"
        if isThere(in: directory), !Posix.exists(gone) {
            try Posix.rename(path(directory), gone)
            try Posix.syncDirectory(directory)
        }
        return Posix.exists(gone) ? gone : nil
    }
}
