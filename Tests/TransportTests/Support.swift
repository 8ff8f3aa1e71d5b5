import Foundation
import NIOCore
import NIOPosix
import Primitives
import TLS
import Testing

@testable import Transport

func peer(_ node: UInt16, region: UInt16 = 1) -> PeerID {
    PeerID(region: RegionID(rawValue: region), node: NodeID(rawValue: node))
}

/// One transport and what it told. Everything on the bench's loop.
final class TestNode: PeerTransportDelegate, @unchecked Sendable {
    enum Event: Equatable {
        case connected(PeerID, UInt64)
        case disconnected(PeerID, lost: Bool)
    }
    let id: PeerID
    var transport: PeerTransport!
    var port = 0
    var events: [Event] = []
    var frames: [PeerID: [Bytes]] = [:]
    var notes: [TransportNote] = []
    var deliveries = 0
    var onFrame: ((PeerID, Bytes) -> Void)?

    init(_ id: PeerID) { self.id = id }

    func onConnected(_ peer: PeerID, boot: UInt64) { events.append(.connected(peer, boot)) }
    func onDisconnected(_ peer: PeerID, lost: Bool) {
        events.append(.disconnected(peer, lost: lost))
    }
    func onFrame(_ peer: PeerID, _ frame: Bytes) {
        frames[peer, default: []].append(frame)
        onFrame?(peer, frame)
    }
    func onFramesDelivered() { deliveries += 1 }
    func onNote(_ note: TransportNote) { notes.append(note) }
    var answerTo: ((Bytes) -> Bytes?)?
    func onQuestion(_ question: Bytes, answer: @escaping (Bytes?) -> Void) {
        answer(answerTo?(question))
    }
}

/// Nodes on the loopback interface, on one loop of their own.
final class Bench: @unchecked Sendable {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    var loop: any EventLoop { group.next() }
    var nodes: [TestNode] = []

    /// Runs on the loop.
    func on<R: Sendable>(_ body: @escaping @Sendable () throws -> R) async throws -> R {
        try await loop.submit(body).get()
    }

    func start(
        _ id: PeerID, boot: UInt64 = 1, cluster: UInt64 = 7, port: Int = 0, tls: TLSContext? = nil,
        change: (inout TransportConfiguration) -> Void = { _ in }
    ) async throws -> TestNode {
        let node = TestNode(id)
        var configuration = TransportConfiguration(
            cluster: cluster, own: id, boot: boot,
            listen: PeerAddress(host: "127.0.0.1", port: port), tls: tls)
        configuration.redialMax = .milliseconds(50)
        // A machine that is busy with other things must not look like a dead peer.
        configuration.silenceMax = .seconds(60)
        change(&configuration)
        let made = configuration
        nodes.append(node)
        node.port = try await loop.flatSubmit {
            node.transport = PeerTransport(configuration: made, loop: self.loop, delegate: node)
            return node.transport.start()
        }.get()
        return node
    }

    /// Introduces nodes to one another.
    func connect(_ members: TestNode...) async throws {
        try await on {
            for node in members {
                node.transport.setPeers(
                    Dictionary(
                        uniqueKeysWithValues: members.map {
                            ($0.id, PeerAddress(host: "127.0.0.1", port: $0.port))
                        }))
            }
        }
    }

    func stop(_ node: TestNode) async throws {
        try await loop.flatSubmit { node.transport.shutdown() }.get()
    }

    /// Waits for what must come, as long as any machine may need.
    func until(
        _ what: String, _ condition: @escaping @Sendable () -> Bool,
        location: SourceLocation = #_sourceLocation
    ) async throws {
        for _ in 0..<12_000 {
            if try await on(condition) { return }
            try await Task.sleep(for: .milliseconds(5))
        }
        Issue.record("never: \(what)", sourceLocation: location)
        throw Never.waited
    }
    enum Never: Error { case waited }

    func finish() async throws {
        for node in nodes { try await stop(node) }
        try await group.shutdownGracefully()
    }
}

func withBench(_ body: (Bench) async throws -> Void) async throws {
    let bench = Bench()
    do {
        try await body(bench)
    } catch {
        try? await bench.finish()
        throw error
    }
    try await bench.finish()
}

/// Contexts of nodes, from one authority or from a foreign one.
final class Keys {
    let folder = FileManager.default.temporaryDirectory.appending(
        path: "polder-transport-\(UUID().uuidString)")
    let authority: CertificateAuthority

    init() throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        authority = try CertificateAuthority.create(name: "peers")
        try authority.write(certificate: path("ca.pem"), key: path("ca-key.pem"))
    }
    deinit { try? FileManager.default.removeItem(at: folder) }

    func path(_ name: String) -> String { folder.appending(path: name).path }

    func context(
        _ name: String, foreign: Bool = false, ip: String = "127.0.0.1"
    ) throws -> TLSContext {
        let issuer = foreign ? try CertificateAuthority.create(name: "foreign") : authority
        let file = "\(name)\(foreign ? "-foreign" : "")"
        try issuer.issue(
            commonName: name, dnsNames: [name, "localhost"], ipAddresses: [ip]
        )
        .write(certificate: path("\(file).pem"), key: path("\(file)-key.pem"))
        return try TLSContext(
            TLSConfiguration(
                ca: path("ca.pem"), certificate: path("\(file).pem"), key: path("\(file)-key.pem"),
                requireClientCertificate: true))
    }
}
