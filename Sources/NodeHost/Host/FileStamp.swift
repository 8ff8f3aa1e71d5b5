import Glibc

/// By what a changed file is known.
struct FileStamp: Equatable {
    private let inode: UInt64
    private let size: Int64
    private let seconds: Int
    private let nanoseconds: Int

    /// Zeros if there is none.
    init(_ path: String) {
        var status = stat()
        let isThere = stat(path, &status) == 0
        inode = isThere ? UInt64(status.st_ino) : 0
        size = isThere ? Int64(status.st_size) : 0
        seconds = isThere ? status.st_mtim.tv_sec : 0
        nanoseconds = isThere ? status.st_mtim.tv_nsec : 0
    }
}

extension HostConfiguration {
    /// All that certificates, keys, authorities and revocations are read from.
    var certificateFiles: [String] {
        [clientTLS, peerTLS].flatMap { files in
            files.map {
                [$0.certificate, $0.key, $0.clientCertificate, $0.clientKey, $0.ca, $0.revocations]
                    .compactMap { $0 }
            } ?? []
        }
    }
}
