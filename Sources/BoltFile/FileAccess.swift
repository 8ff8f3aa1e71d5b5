import Glibc

/// The system calls of this module.
enum FileAccess {
    static func failure(_ what: String, _ code: Int32 = errno) -> BoltError {
        let text = "\(what): \(String(cString: strerror(code)))"
        return code == ENOSPC || code == EDQUOT ? .noSpace(text) : .io(text)
    }

    static func write(
        _ bytes: UnsafeRawBufferPointer, to fd: Int32, at offset: UInt64
    ) throws(BoltError) {
        var done = 0
        while done < bytes.count {
            let n = pwrite(
                fd, bytes.baseAddress?.advanced(by: done), bytes.count - done,
                off_t(offset) + off_t(done))
            if n < 0 && errno == EINTR { continue }
            guard n > 0 else { throw failure("cannot write", n == 0 ? ENOSPC : errno) }
            done += n
        }
    }

    /// Exactly `count` bytes; nil: the file ends before.
    static func read(
        _ count: Int, from fd: Int32, at offset: UInt64
    ) throws(BoltError) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        var done = 0
        while done < count {
            let n = bytes.withUnsafeMutableBytes {
                pread(fd, $0.baseAddress?.advanced(by: done), count - done, off_t(offset) + off_t(done))
            }
            if n < 0 && errno == EINTR { continue }
            guard n >= 0 else { throw failure("cannot read") }
            if n == 0 { return nil }
            done += n
        }
        return bytes
    }

    static func size(of fd: Int32) throws(BoltError) -> UInt64 {
        var status = stat()
        guard fstat(fd, &status) == 0 else { throw failure("cannot look at the file") }
        return UInt64(max(0, status.st_size))
    }
}
