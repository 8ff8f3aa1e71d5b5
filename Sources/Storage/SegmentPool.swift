import Glibc

/// The files that the log's next segments are made from. A freed segment becomes a spare again, so that
/// in the steady state nothing is allocated or removed; what else is needed a thread of its own does:
/// to unlink a segment takes tens of milliseconds on some disks, in which no write may wait.
///
/// Files: `spare-<n>` (contents without meaning; allocated in full, or the node ended while it was being
/// made), `dead-<n>` (about to be removed).
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
    private var waiters = 0
    private var failure: StorageError?
    private var isStopping = false
    private var nextName = 1

    /// Freed segments beyond these are removed.
    private static let readyMax = 2
    /// Allocated in one go; in a file system in memory that takes a processor's time, 0.3 ms a MiB.
    private static let pieceBytes = 2 << 20
    /// After each piece of a spare that nobody waits for yet.
    private static let pauseNanoseconds: UInt64 = 4_000_000

    /// Whole spares of the process before are used again if `keepsSpares`, what else it left goes; if there is
    /// none, one is made here.
    init(_ directory: String, segmentBytes: Int, keepsSpares: Bool) throws(StorageError) {
        self.directory = directory
        self.segmentBytes = segmentBytes
        var whole: [String] = []
        for name in try Posix.names(in: directory)
        where name.hasPrefix("spare") || name.hasPrefix("dead-") {
            let path = directory + "/" + name
            if name.hasPrefix(Self.prefix), let number = Int(name.dropFirst(Self.prefix.count)) {
                nextName = max(nextName, number + 1)
                if keepsSpares, whole.count < Self.readyMax, try isWhole(path) {
                    whole.append(path)
                    continue
                }
            }
            guard unlink(path) == 0 || errno == ENOENT else {
                throw Posix.failure("cannot remove", path)
            }
        }
        // Of a freed segment the new name may not have reached the disk.
        if !whole.isEmpty { try Posix.syncDirectory(directory) }
        ready = whole
        if ready.isEmpty { ready.append(try make(named: takeName("spare"))) }
        thread = try Posix.startThread { self.run() }
    }

    private static let prefix = "spare-"

    /// Allocated in full, and that is on the disk when this returns.
    private func isWhole(_ path: String) throws(StorageError) -> Bool {
        let fd = try Posix.open(path, O_RDWR)
        defer { Glibc.close(fd) }
        var status = stat()
        guard fstat(fd, &status) == 0, Int(status.st_size) == segmentBytes,
            Int(status.st_blocks) * 512 >= segmentBytes
        else { return false }
        return fsync(fd) == 0
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
        waiters += 1
        monitor.broadcast()
        while ready.isEmpty, isWanted || !freed.isEmpty { monitor.wait() }
        waiters -= 1
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
        waiters += 1
        while isWanted { monitor.wait() }
        waiters -= 1
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
                    made = .success(try make(named: path, unhurried: true))
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

    private func pause() {
        monitor.lock()
        if waiters == 0, !isStopping { monitor.wait(nanoseconds: Self.pauseNanoseconds) }
        monitor.unlock()
    }

    private func takeName(_ kind: String) -> String {
        defer { nextName += 1 }
        return "\(directory)/\(kind)-\(nextName)"
    }

    /// Allocated in full before it is needed: a full disk is met here, not in the middle of a write,
    /// and a sync then has no metadata to write (70 us instead of 2.6 ms on ext4). `unhurried`: while nobody
    /// waits for it others have the processor in between.
    private func make(named path: String, unhurried: Bool = false) throws(StorageError) -> String {
        let fd = try Posix.open(path, O_RDWR | O_CREAT)
        defer { Glibc.close(fd) }
        var done = 0
        while done < segmentBytes {
            let bytes = min(Self.pieceBytes, segmentBytes - done)
            let code = posix_fallocate(fd, off_t(done), off_t(bytes))
            guard code == 0 else {
                unlink(path)
                throw Posix.failure("cannot allocate", path, code)
            }
            done += bytes
            if unhurried, done < segmentBytes { pause() }
        }
        guard fsync(fd) == 0 else {
            unlink(path)
            throw Posix.failure("cannot sync", path)
        }
        return path
    }
}
