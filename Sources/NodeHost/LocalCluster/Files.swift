import CLinux
import Glibc

/// A system call that failed, with what was tried and the system's words.
package struct SystemError: Error, Equatable, CustomStringConvertible {
    package let action: String
    package let code: Int32
    package init(_ action: String, code: Int32 = errno) {
        self.action = action
        self.code = code
    }
    package var description: String { "\(action): \(String(cString: strerror(code)))" }
}

/// The few file operations of the shell.
package enum Files {
    package static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

    /// Absolute, so that it means the same in another process; need not exist.
    package static func absolute(_ path: String) -> String {
        if path.hasPrefix("/") { return path }
        guard let buffer = getcwd(nil, 0) else { return path }
        defer { free(buffer) }
        return String(cString: buffer) + "/" + path
    }

    package static func makeDirectory(_ path: String, mode: UInt32 = 0o700) throws(SystemError) {
        var partial = path.hasPrefix("/") ? "/" : ""
        for part in path.split(separator: "/") {
            partial += (partial.isEmpty || partial.hasSuffix("/") ? "" : "/") + part
            if mkdir(partial, mode_t(mode)) != 0, errno != EEXIST {
                throw SystemError("cannot create directory \(partial)")
            }
        }
        var info = stat()
        guard stat(path, &info) == 0, info.st_mode & S_IFMT == S_IFDIR else {
            throw SystemError("\(path)", code: ENOTDIR)
        }
    }

    package static func read(_ path: String) throws(SystemError) -> String {
        let descriptor = polder_open(path, O_RDONLY, 0)
        guard descriptor >= 0 else { throw SystemError("cannot read \(path)") }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        while true {
            let n = Glibc.read(descriptor, &chunk, chunk.count)
            if n < 0 && errno == EINTR { continue }
            guard n >= 0 else { throw SystemError("cannot read \(path)") }
            if n == 0 { break }
            bytes.append(contentsOf: chunk[..<n])
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Readers see the old file or the new one, never a part.
    package static func writeAtomically(
        _ text: String, to path: String, mode: UInt32 = 0o644
    ) throws(SystemError) {
        let temporary = "\(path).new"
        let descriptor = polder_open(temporary, O_WRONLY | O_CREAT | O_TRUNC, Int32(mode))
        guard descriptor >= 0 else { throw SystemError("cannot write \(temporary)") }
        defer { close(descriptor) }
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let n = rest.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
            if n < 0 && errno == EINTR { continue }
            guard n >= 0 else { throw SystemError("cannot write \(temporary)") }
            rest = rest.dropFirst(n)
        }
        guard fsync(descriptor) == 0 else { throw SystemError("cannot write \(temporary)") }
        guard rename(temporary, path) == 0 else { throw SystemError("cannot write \(path)") }
    }

    package static func entries(of directory: String) -> [String] {
        guard let handle = opendir(directory) else { return [] }
        defer { closedir(handle) }
        var names: [String] = []
        while let entry = readdir(handle) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    /// Does not follow symbolic links.
    package static func removeTree(_ path: String) throws(SystemError) {
        var info = stat()
        guard lstat(path, &info) == 0 else {
            if errno == ENOENT { return }
            throw SystemError("cannot remove \(path)")
        }
        if info.st_mode & S_IFMT == S_IFDIR {
            for name in entries(of: path) { try removeTree("\(path)/\(name)") }
            guard rmdir(path) == 0 else { throw SystemError("cannot remove \(path)") }
        } else {
            guard unlink(path) == 0 else { throw SystemError("cannot remove \(path)") }
        }
    }

    package static func lastLines(of path: String, count: Int) -> [String] {
        guard let text = try? read(path) else { return [] }
        return text.split(separator: "\n").suffix(count).map(String.init)
    }

    /// The running program, for starting it again.
    package static func ownExecutable() -> String {
        var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
        let n = readlink("/proc/self/exe", &buffer, buffer.count - 1)
        guard n > 0 else { return CommandLine.arguments.first ?? "polder" }
        return String(decoding: buffer[..<n].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// Held until the process ends; nil when somebody else has it.
    package static func lock(_ path: String) throws(SystemError) -> Int32? {
        let descriptor = polder_open(path, O_RDWR | O_CREAT, 0o600)
        guard descriptor >= 0 else { throw SystemError("cannot open \(path)") }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            close(descriptor)
            return nil
        }
        return descriptor
    }
}
