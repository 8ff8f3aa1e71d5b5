import EtcdAPI
import Foundation
import Glibc
import NIOCore
import NIOPosix
import Primitives

/// A real etcd of one member with a directory of its own, if this machine has one.
final class RealEtcd: @unchecked Sendable {
    let clientPort: Int
    private let peerPort: Int
    private let directory: String
    private let executable: String
    private var process: Process?

    var url: String { "http://127.0.0.1:\(clientPort)" }

    /// The first `etcd` on the PATH that is a program and not somebody's script around one.
    static let executable: String? = {
        let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
        for folder in path.split(separator: ":") {
            let file = "\(folder)/etcd"
            guard let handle = FileHandle(forReadingAtPath: file) else { continue }
            defer { try? handle.close() }
            if handle.readData(ofLength: 4) == Data([0x7F, 0x45, 0x4C, 0x46]) { return file }
        }
        return nil
    }()

    init(executable: String) throws {
        self.executable = executable
        clientPort = try Self.freePort()
        peerPort = try Self.freePort()
        directory = NSTemporaryDirectory() + "polder-etcd-\(UUID().uuidString)"
        try FileManager.default.createDirectory(
            atPath: directory, withIntermediateDirectories: true)
    }

    func start() throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: executable)
        let peer = "http://127.0.0.1:\(peerPort)"
        process.arguments = [
            "--name", "one", "--data-dir", directory + "/data",
            "--listen-client-urls", url, "--advertise-client-urls", url,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", "one=\(peer)", "--log-level", "error",
        ]
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
        self.process = process
    }

    func signal(_ number: Int32) { if let process { kill(process.processIdentifier, number) } }

    func stop() {
        signal(SIGKILL)
        process?.waitUntilExit()
        process = nil
    }

    func remove() {
        stop()
        try? FileManager.default.removeItem(atPath: directory)
    }

    func waitUntilServing() async throws {
        let endpoint = EtcdEndpoint(host: "127.0.0.1", port: clientPort, isSecure: false)
        let client = EtcdClient(
            endpoint: endpoint, loop: MultiThreadedEventLoopGroup.singleton.next())
        for _ in 0..<500 {
            if (try? await client.get("x", timeout: .seconds(1))) != nil {
                return await client.shutdown()
            }
            try await Task.sleep(for: .milliseconds(20))
        }
        throw POSIXError(.ETIMEDOUT)
    }

    static func freePort() throws -> Int {
        let channel = try ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .bind(host: "127.0.0.1", port: 0).wait()
        defer { try? channel.close().wait() }
        guard let port = channel.localAddress?.port else { throw POSIXError(.EADDRINUSE) }
        return port
    }
}
