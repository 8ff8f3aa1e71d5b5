import Glibc

/// The files that the log's next segments are made from. A freed segment becomes a spare again, so that
/// in the steady state nothing is allocated or removed; what else is needed a thread of its own does:
/// to unlink a segment takes tens of milliseconds on some disks, in which no write may wait.
///
/// Files: `spare-<n>` (allocated in full, contents without meaning), `dead-<n>` (about to be removed).
final class SegmentPool: @unchecked Sendable {
    private let directory: String
    private let segmentBytes: Int
    private let monitor = Monitor()
    private var thread: pthread_t?

    // Under the monitor.
    private var ready: [String] = []
    /// Renamed, but a crash may still take that back: not to be written to.
    private var freed: [String] = []
    private var dead: [String] = []
    private var isWanted = false
    private var failure: StorageError?
    private var isStopping = false
    private var nextName = 1

    /// Freed segments beyond these are removed.
    private static let readyMax = 2

    /// What a crash left of spare and dead files goes; the first spare is made here.
    init(_ directory: String, segmentBytes: Int) throws(StorageError) {
        self.directory = directory
        self.segmentBytes = segmentBytes
        for name in try Posix.names(in: directory)
        where name.hasPrefix("spare") || name.hasPrefix("dead-") {
            let path = directory + "/" + name
            guard unlink(path) == 0 || errno == ENOENT else {
                throw Posix.failure("cannot remove", path)
            }
        }
        ready.append(try make(named: takeName("spare")))
        thread = try Posix.startThread { self.run() }
    }

    /// False: no spare, and the last attempt to make one failed; the disk is full.
    var hasReserve: Bool {
        monitor.lock()
        defer { monitor.unlock() }
        return failure == nil
    }

    var readyBytes: UInt64 {
        monitor.lock()
        defer { monitor.unlock() }
        return UInt64(ready.count * segmentBytes)
    }

    /// A spare for the next segment. Waits for the one that is being made.
    func take() throws(StorageError) -> String {
        monitor.lock()
        defer { monitor.unlock() }
        if ready.isEmpty { want() }
        while ready.isEmpty, isWanted || !freed.isEmpty { monitor.wait() }
        guard let path = ready.popLast() else {
            throw failure ?? .io("no spare segment in \(directory)")
        }
        if ready.isEmpty { want() }
        return path
    }

    /// The segment at `path` is not needed any more. When this returns it has lost its name.
    func give(_ path: String, bytes: Int) throws(StorageError) {
        monitor.lock()
        defer { monitor.unlock() }
        let isSpare = ready.count + freed.count < Self.readyMax && bytes >= segmentBytes
        let name = takeName(isSpare ? "spare" : "dead")
        guard rename(path, name) == 0 else { throw Posix.failure("cannot rename", path) }
        if isSpare { freed.append(name) } else { dead.append(name) }
        monitor.broadcast()
    }

    /// Tries again after a failure, and returns when it is known how that went.
    func retry() {
        monitor.lock()
        defer { monitor.unlock() }
        guard ready.isEmpty else { return }
        want()
        while isWanted { monitor.wait() }
    }

    func close() {
        monitor.lock()
        isStopping = true
        monitor.broadcast()
        monitor.unlock()
        if let thread { pthread_join(thread, nil) }
        thread = nil
    }

    // MARK: The thread

    private func want() {
        isWanted = true
        monitor.broadcast()
    }

    private func run() {
        monitor.lock()
        defer { monitor.unlock() }
        while true {
            if !freed.isEmpty {
                let renamed = freed
                monitor.unlock()
                var isSynced = true
                do throws(StorageError) {
                    try Posix.syncDirectory(directory)
                } catch {
                    isSynced = false
                }
                monitor.lock()
                freed.removeFirst(renamed.count)
                if isSynced {
                    ready += renamed
                    failure = nil
                } else {
                    dead += renamed
                }
                monitor.broadcast()
            } else if isWanted {
                let path = takeName("spare")
                monitor.unlock()
                var made: Result<String, StorageError>
                do throws(StorageError) {
                    made = .success(try make(named: path))
                } catch {
                    made = .failure(error)
                }
                monitor.lock()
                switch made {
                case .success(let path):
                    ready.append(path)
                    failure = nil
                case .failure(let error): failure = ready.isEmpty ? error : nil
                }
                isWanted = false
                monitor.broadcast()
            } else if let path = dead.popLast() {
                monitor.unlock()
                // What stays, if it fails, goes at the next start.
                unlink(path)
                monitor.lock()
            } else if isStopping {
                return
            } else {
                monitor.wait()
            }
        }
    }

    private func takeName(_ kind: String) -> String {
        defer { nextName += 1 }
        return "\(directory)/\(kind)-\(nextName)"
    }

    /// Allocated in full before it is needed: a full disk is met here, not in the middle of a write,
    /// and a sync then has no metadata to write (70 us instead of 2.6 ms on ext4).
    private func make(named path: String) throws(StorageError) -> String {
        let fd = try Posix.open(path, O_RDWR | O_CREAT)
        defer { Glibc.close(fd) }
        let code = posix_fallocate(fd, 0, off_t(segmentBytes))
        guard code == 0 else {
            unlink(path)
            throw Posix.failure("cannot allocate", path, code)
        }
        guard fsync(fd) == 0 else {
            unlink(path)
            throw Posix.failure("cannot sync", path)
        }
        return path
    }
}
