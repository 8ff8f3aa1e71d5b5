import BoltFile
import CLinux
package import EtcdSnapshot
import Glibc
import TLS

/// A file that `etcdctl snapshot save` wrote, or a copy of etcd's own database.
package final class SnapshotFile {
    package enum Integrity: Equatable {
        /// The digest at its end is right.
        case whole
        /// A copy of `member/snap/db`: nothing says whether it is whole.
        case unknown
    }

    package let path: String
    /// Of the database, without the digest.
    package let bytes: UInt64
    package let integrity: Integrity
    /// SHA-256 of the database, hexadecimal.
    package let digest: String
    package let reader: EtcdBackendReader
    private let descriptor: Int32

    /// Reads the whole file once. `checksDigest` false: a wrong digest is as good as none.
    package init(_ path: String, checksDigest: Bool = true) throws(HostFailure) {
        self.path = path
        descriptor = polder_open(path, O_RDONLY, 0)
        guard descriptor >= 0 else {
            throw HostFailure(code: 3, "cannot read \(path): \(String(cString: strerror(errno)))")
        }
        do throws(HostFailure) {
            var status = stat()
            guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
                throw HostFailure(code: 3, "\(path) is not a file")
            }
            let size = UInt64(max(0, status.st_size))
            // etcd's own way to tell: a database is whole pages.
            let hasDigest = size % 512 == 32
            bytes = hasDigest ? size - 32 : size
            guard size % 512 == 0 || hasDigest else {
                throw HostFailure(
                    code: 5, "\(path) has \(size) bytes: no snapshot of etcd, or not all of one")
            }
            let (found, wanted) = try Self.digests(descriptor, bytes, path)
            if hasDigest, found == wanted {
                integrity = .whole
            } else {
                guard !hasDigest || !checksDigest else {
                    throw HostFailure(
                        code: 5, "\(path) is damaged: its SHA-256 is not the one at its end")
                }
                integrity = .unknown
            }
            digest = found.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
            do throws(BoltError) {
                reader = try EtcdBackendReader(BoltReader(descriptor: descriptor, limit: bytes))
            } catch {
                throw HostFailure(code: 5, "\(path): \(error)")
            }
        } catch {
            close(descriptor)
            throw error
        }
    }

    deinit { close(descriptor) }

    private static func digests(
        _ descriptor: Int32, _ bytes: UInt64, _ path: String
    ) throws(HostFailure) -> (found: [UInt8], wanted: [UInt8]) {
        let digest = SHA256Digest()
        var buffer = [UInt8](repeating: 0, count: 1 << 20)
        var offset: UInt64 = 0
        func read(_ count: Int) throws(HostFailure) -> Int {
            while true {
                let n = pread(descriptor, &buffer, count, off_t(offset))
                if n >= 0 { return n }
                guard errno == EINTR else {
                    throw HostFailure(
                        code: 6, "cannot read \(path): \(String(cString: strerror(errno)))")
                }
            }
        }
        while offset < bytes {
            let n = try read(min(buffer.count, Int(bytes - offset)))
            guard n > 0 else { throw HostFailure(code: 5, "\(path) has become shorter") }
            buffer.withUnsafeBytes { digest.update(UnsafeRawBufferPointer(rebasing: $0[..<n])) }
            offset += UInt64(n)
        }
        let n = try read(SHA256Digest.bytes)
        return (digest.finish(), Array(buffer[..<n]))
    }
}
