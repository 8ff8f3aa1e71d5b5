import ArgumentParser
import EtcdAPI
import Foundation
import Glibc
import NIOPosix
import NodeHost
import Primitives
import SwiftProtobuf
import TLS

extension SnapshotCommandLine {
    struct SaveCommand: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "save",
            abstract: "Takes a snapshot of a running node, of Polder or of etcd.",
            discussion: """
                The node writes what it holds at one revision; a node that is cut off from the
                others gives the newest that it has. The file is restored by etcd
                (`etcdctl snapshot restore`) or imported (`polder snapshot import`).

                  polder snapshot save backup.db --endpoints http://127.0.0.1:2379
                """)

        @Argument(help: "The file to write; replaced when the snapshot is complete.")
        var file: String
        @OptionGroup var client: EtcdClientOptions

        func run() throws {
            let path = Files.absolute(file)
            let endpoints = try client.clients(named: "--endpoints", client.server.endpoints)
            guard endpoints.count == 1, let source = endpoints.first else {
                throw Outcome.badFlags("--endpoints: a snapshot is taken of one node")
            }
            let bytes = try wait { try await Self.save(source, to: path) }
            print("saved \(bytes) bytes to \(file)")
        }

        private static func save(_ client: EtcdClient, to path: String) async throws -> Int {
            let part = path + ".part"
            let descriptor = Glibc.open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
            guard descriptor >= 0 else { throw Outcome.inTheWay("\(SystemError("cannot write \(part)"))") }
            defer { Glibc.close(descriptor) }
            do {
                let written = try await receive(client, descriptor, part)
                // etcd's way to tell: whole pages and a digest.
                guard written % 512 == 32 else {
                    throw Outcome(code: 4, message: "the node sent \(written) bytes, which is no snapshot")
                }
                guard fsync(descriptor) == 0, rename(part, path) == 0 else {
                    throw Outcome.inTheWay("\(SystemError("cannot write \(path)"))")
                }
                await client.shutdown()
                return written
            } catch {
                unlink(part)
                if let error = error as? EtcdClientError {
                    throw Outcome(code: 4, message: "\(client.endpoint): \(error.message)")
                }
                throw error
            }
        }

        private static func receive(
            _ client: EtcdClient, _ descriptor: Int32, _ part: String
        ) async throws -> Int {
            let stream = client.stream(.snapshot, heldBytesMax: 8 << 20)
            stream.send([], isLast: true)
            var written = 0
            for try await message in stream.messages {
                let answer = try Etcdserverpb_SnapshotResponse(serializedBytes: message)
                var rest = answer.blob[...]
                while !rest.isEmpty {
                    let n = rest.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
                    if n < 0 && errno == EINTR { continue }
                    guard n > 0 else { throw Outcome.inTheWay("\(SystemError("cannot write \(part)"))") }
                    rest = rest.dropFirst(n)
                    written += n
                }
                stream.took(message.count)
            }
            return written
        }
    }
}

/// Certificates for talking gRPC to etcd; named as etcdctl names them.
struct EtcdClientOptions: ParsableArguments {
    @OptionGroup var server: ServerOptions
    @Option(help: "Who this is, if authentication is on: NAME:PASSWORD.")
    var user: String?

    func clients(named flag: String, _ texts: String) throws -> [EtcdClient] {
        let files = server.certificates
        return try Self.signedIn(
            Self.clients(texts, flag: flag, ca: files.cacert, certificate: files.cert, key: files.key),
            as: user, flag: "--user")
    }

    /// The same clients, as a user.
    static func signedIn(_ clients: [EtcdClient], as user: String?, flag: String) throws -> [EtcdClient] {
        guard let user else { return clients }
        let parts = user.split(separator: ":", maxSplits: 1).map(String.init)
        guard parts.count == 2 else { throw Outcome.badFlags("\(flag): expected NAME:PASSWORD") }
        do {
            return try clients.map { client in
                try wait { try await client.signedIn(as: parts[0], password: parts[1]) }
            }
        } catch let error as EtcdClientError {
            throw Outcome(code: 4, message: error.message)
        }
    }

    static func clients(
        _ texts: String, flag: String, ca: String?, certificate: String?, key: String?
    ) throws -> [EtcdClient] {
        let endpoints = try texts.split(separator: ",").map { text in
            guard let endpoint = EtcdEndpoint(text.trimmingCharacters(in: .whitespaces)) else {
                throw Outcome.badFlags(
                    "\(flag) \(text): expected an address such as http://127.0.0.1:2379")
            }
            return endpoint
        }
        guard !endpoints.isEmpty else { throw Outcome.badFlags("\(flag) names none") }
        guard (certificate == nil) == (key == nil) else {
            throw Outcome.badFlags("a certificate and its key go together (\(flag))")
        }
        var options = EtcdClient.Options()
        options.connectTimeout = .seconds(5)
        if ca != nil || certificate != nil || endpoints.contains(where: \.isSecure) {
            do {
                options.tls = try TLSContext(
                    TLSConfiguration(ca: ca, certificate: certificate, key: key, alpn: ["h2"]))
            } catch {
                throw Outcome.inTheWay("\(error)")
            }
        }
        let loops = MultiThreadedEventLoopGroup.singleton
        return endpoints.map { EtcdClient(endpoint: $0, loop: loops.next(), options: options) }
    }
}
