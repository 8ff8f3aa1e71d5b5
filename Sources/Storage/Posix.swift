import Glibc

/// The system calls of this module, with their failures as `StorageError`. One place, so that a test
/// can count on how each is checked.
enum Posix {
    static func failure(_ what: String, _ path: String, _ code: Int32 = errno) -> StorageError {
        let text = "\(what) \(path): \(String(cString: strerror(code)))"
        return code == ENOSPC || code == EDQUOT ? .noSpace(text) : .io(text)
    }

    static func open(
        _ path: String, _ flags: Int32, mode: mode_t = 0o600
    ) throws(StorageError) -> Int32 {
        let fd = Glibc.open(path, flags | O_CLOEXEC, mode)
        guard fd >= 0 else { throw failure("cannot open", path) }
        return fd
    }

    /// Creates the directory and makes its entry in the parent durable. Existing is fine.
    static func makeDirectory(_ path: String) throws(StorageError) {
        if mkdir(path, 0o700) == 0 {
            let parent = path.split(separator: "/", omittingEmptySubsequences: false).dropLast()
                .joined(separator: "/")
            try syncDirectory(parent.isEmpty ? (path.hasPrefix("/") ? "/" : ".") : parent)
        } else if errno != EEXIST {
            throw failure("cannot create directory", path)
        }
    }

    static func syncDirectory(_ path: String) throws(StorageError) {
        let fd = try open(path, O_RDONLY | O_DIRECTORY)
        defer { close(fd) }
        guard fsync(fd) == 0 else { throw failure("cannot sync directory", path) }
    }

    static func names(in path: String) throws(StorageError) -> [String] {
        guard let directory = opendir(path) else { throw failure("cannot list", path) }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    static func readFile(_ path: String) throws(StorageError) -> [UInt8] {
        let fd = try open(path, O_RDONLY)
        defer { close(fd) }
        var status = stat()
        guard fstat(fd, &status) == 0 else { throw failure("cannot read", path) }
        let size = Int(status.st_size)
        var bytes = [UInt8](repeating: 0, count: size)
        var done = 0
        while done < size {
            let n = bytes.withUnsafeMutableBytes {
                pread(fd, $0.baseAddress?.advanced(by: done), size - done, off_t(done))
            }
            if n < 0 && errno == EINTR { continue }
            guard n > 0 else { throw failure("cannot read", path, n == 0 ? EIO : errno) }
            done += n
        }
        return bytes
    }

    /// Of the last bytes those are left out that are zeros, in whole chunks; with the file's size.
    static func readFile(
        _ path: String, withoutZerosFrom chunkBytes: Int
    ) throws(StorageError) -> (bytes: [UInt8], fileBytes: Int) {
        let fd = try open(path, O_RDONLY)
        defer { close(fd) }
        var status = stat()
        guard fstat(fd, &status) == 0 else { throw failure("cannot read", path) }
        var bytes: [UInt8] = [], chunk = [UInt8](repeating: 0, count: chunkBytes), done = 0
        // What is not written to takes no memory.
        bytes.reserveCapacity(Int(status.st_size))
        while true {
            let n = chunk.withUnsafeMutableBytes { pread(fd, $0.baseAddress, chunkBytes, off_t(done)) }
            if n < 0 && errno == EINTR { continue }
            guard n >= 0 else { throw failure("cannot read", path) }
            if n == 0 { break }
            let isZero = chunk.withUnsafeBytes { raw in
                // In words, without a branch in each: 64 MiB of them are read at a start.
                let words = n / 8
                var any: UInt64 = 0
                for i in 0..<words { any |= raw.loadUnaligned(fromByteOffset: i * 8, as: UInt64.self) }
                return any == 0 && raw[(words * 8)..<n].allSatisfy { $0 == 0 }
            }
            if !isZero {
                bytes.append(contentsOf: repeatElement(0, count: done - bytes.count))
                bytes.append(contentsOf: chunk[..<n])
            }
            done += n
        }
        return (bytes, done)
    }

    /// As much of it as there is.
    static func read(
        _ count: Int, from fd: Int32, at offset: Int, path: String
    ) throws(StorageError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var done = 0
        while done < count {
            let n = bytes.withUnsafeMutableBytes {
                pread(fd, $0.baseAddress?.advanced(by: done), count - done, off_t(offset + done))
            }
            if n < 0 && errno == EINTR { continue }
            guard n >= 0 else { throw failure("cannot read", path) }
            if n == 0 { break }
            done += n
        }
        bytes.removeLast(count - done)
        return bytes
    }

    static func write(
        _ bytes: [UInt8], to fd: Int32, at offset: Int, path: String
    ) throws(StorageError) {
        var done = 0
        while done < bytes.count {
            let n = bytes.withUnsafeBytes {
                pwrite(fd, $0.baseAddress?.advanced(by: done), bytes.count - done, off_t(offset + done))
            }
            if n < 0 && errno == EINTR { continue }
            guard n > 0 else { throw failure("cannot write", path, n == 0 ? ENOSPC : errno) }
            done += n
        }
    }

    /// Whole or not at all, also across a crash.
    static func replaceFile(_ directory: String, _ name: String, _ bytes: [UInt8]) throws(StorageError) {
        let path = directory + "/" + name, temporary = path + ".new"
        let fd = try open(temporary, O_WRONLY | O_CREAT | O_TRUNC)
        defer { close(fd) }
        try write(bytes, to: fd, at: 0, path: temporary)
        guard fsync(fd) == 0 else { throw failure("cannot sync", temporary) }
        guard Glibc.rename(temporary, path) == 0 else { throw failure("cannot rename", temporary) }
        try syncDirectory(directory)
    }

    static func rename(_ from: String, _ to: String) throws(StorageError) {
        guard Glibc.rename(from, to) == 0 else { throw failure("cannot rename", from) }
    }

    static func remove(_ path: String) throws(StorageError) {
        guard unlink(path) == 0 || errno == ENOENT else { throw failure("cannot remove", path) }
    }

    /// With the files in it, if it exists. Not with directories.
    static func removeDirectory(_ path: String) throws(StorageError) {
        guard exists(path) else { return }
        for name in try names(in: path) { try remove(path + "/" + name) }
        guard rmdir(path) == 0 else { throw failure("cannot remove", path) }
    }

    static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

    static func monotonicNanoseconds() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    private final class Body {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    static func startThread(_ run: @escaping @Sendable () -> Void) throws(StorageError) -> pthread_t {
        var thread = pthread_t()
        let body = Unmanaged.passRetained(Body(run))
        let code = pthread_create(
            &thread, nil,
            { raw in
                guard let raw else { return nil }
                Unmanaged<Body>.fromOpaque(raw).takeRetainedValue().run()
                return nil
            }, body.toOpaque())
        guard code == 0 else {
            body.release()
            throw failure("cannot start a thread for", "storage", code)
        }
        return thread
    }
}

/// A mutex and its condition at stable addresses.
final class Monitor: @unchecked Sendable {
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

    init() {
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
    }
    deinit {
        pthread_mutex_destroy(mutex)
        pthread_cond_destroy(condition)
        mutex.deallocate()
        condition.deallocate()
    }
    func lock() { pthread_mutex_lock(mutex) }
    func unlock() { pthread_mutex_unlock(mutex) }
    func signal() { pthread_cond_signal(condition) }
    func broadcast() { pthread_cond_broadcast(condition) }
    func wait() { pthread_cond_wait(condition, mutex) }
    func wait(nanoseconds: UInt64) {
        var until = timespec()
        clock_gettime(CLOCK_REALTIME, &until)
        let sum = UInt64(until.tv_nsec) + nanoseconds
        until.tv_sec += Int(sum / 1_000_000_000)
        until.tv_nsec = Int(sum % 1_000_000_000)
        pthread_cond_timedwait(condition, mutex, &until)
    }
}

extension Posix {
    static func startDetachedThread(_ run: @escaping @Sendable () -> Void) throws(StorageError) {
        pthread_detach(try startThread(run))
    }
}
