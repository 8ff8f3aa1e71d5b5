import Glibc

/// The unix socket through which `polder dev-node` talks to the `polder dev` of a directory: one line
/// in (`stop r1-n1`), one line out (`ok ...` or `error ...`), then the end.
enum ControlSocket {
    /// The path may be longer than a socket address holds (108 bytes): it is reached through an open
    /// directory in /proc instead.
    private static func withAddress<R>(
        _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> R
    ) throws(SystemError) -> R {
        let cut = path.lastIndex(of: "/") ?? path.startIndex
        let directory = open(String(path[..<cut]), O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard directory >= 0 else { throw SystemError("cannot open \(path[..<cut])") }
        defer { close(directory) }
        let short = "/proc/self/fd/\(directory)\(path[cut...])"
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let room = MemoryLayout.size(ofValue: address.sun_path)
        guard short.utf8.count < room else { throw SystemError(path, code: ENAMETOOLONG) }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: short.utf8) }
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }

    private static func make() throws(SystemError) -> Int32 {
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        let descriptor = socket(AF_UNIX, kind, 0)
        guard descriptor >= 0 else { throw SystemError("cannot make a socket") }
        return descriptor
    }

    static func listen(_ path: String) throws(SystemError) -> Int32 {
        unlink(path)
        let descriptor = try make()
        guard try withAddress(path, { bind(descriptor, $0, $1) }) == 0,
            Glibc.listen(descriptor, 16) == 0
        else {
            let error = SystemError("cannot listen on \(path)")
            close(descriptor)
            throw error
        }
        return descriptor
    }

    /// Nil: nobody listens there.
    static func ask(_ path: String, _ question: String) throws(SystemError) -> String? {
        guard Files.exists(path) else { return nil }
        let descriptor = try make()
        defer { close(descriptor) }
        guard try withAddress(path, { connect(descriptor, $0, $1) }) == 0 else {
            if errno == ECONNREFUSED || errno == ENOENT { return nil }
            throw SystemError("cannot reach \(path)")
        }
        send(question + "\n", to: descriptor)
        var answer: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        while true {
            let n = read(descriptor, &chunk, chunk.count)
            if n < 0 && errno == EINTR { continue }
            if n <= 0 { break }
            answer.append(contentsOf: chunk[..<n])
        }
        return String(decoding: answer, as: UTF8.self)
    }

    /// Unbuffered, to the end: what a script waits for must be there when it is said.
    static func write(_ text: String, to descriptor: Int32) {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let n = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if n < 0 && errno == EINTR { continue }
            guard n > 0 else { return }
            rest = rest.dropFirst(n)
        }
    }

    /// Lines here are far below a socket's buffer: a peer that takes none of it is dropped.
    static func send(_ text: String, to descriptor: Int32) {
        _ = Array(text.utf8).withUnsafeBytes {
            Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
        }
    }
}
