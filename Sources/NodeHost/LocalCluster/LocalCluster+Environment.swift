import CLinux
import Glibc
import Primitives
import TLS

extension LocalCluster.Environment {
    /// The real one: nodes are this same program.
    package static func standard() -> LocalCluster.Environment {
        let serve = [
            Files.ownExecutable(), "serve", "--with-parent", "\(getpid())", "-c",
        ]
        nonisolated(unsafe) var fetch: HTTPFetch?
        return LocalCluster.Environment(
            serve: serve,
            makeCertificates: { try $0.makeCertificates() },
            isServing: { plan, node in
                if fetch == nil { fetch = try? plan.makeFetch() }
                return fetch.map { plan.isServing(node, $0) } ?? false
            },
            say: { HostOutput.say($0) })
    }
}

extension LocalCluster {
    /// For `dev-node start`: asks the node that `dev.json` describes until it serves.
    package static func waitUntilServing(directory: String, node name: String) throws(Failure) {
        let file = directory + "/\(name)/node.yaml"
        let configuration: HostConfiguration
        do {
            configuration = try HostConfiguration(yaml: try Files.read(file), file: file)
        } catch {
            throw Failure(exitCode: 3, message: "\(error)")
        }
        let tls = configuration.clientTLS != nil
        var settings = LocalClusterSettings(directory: directory)
        settings.tls = tls
        let plan = LocalClusterPlan(settings)
        let node = LocalNode(
            name: name, region: configuration.regionID, node: configuration.nodeID,
            directory: directory + "/\(name)", clientPort: configuration.clientAddress.port,
            peerPort: configuration.peerAddress.port)
        let deadline = now.advanced(by: .seconds(30))
        while now < deadline {
            if let fetch = try? plan.makeFetch(), plan.isServing(node, fetch) { return }
            usleep(20_000)
        }
        let lines = Files.lastLines(of: node.log, count: 12).map { "  " + $0 }
        throw Failure(
            exitCode: 4,
            message: ([
                "\(name) was started but does not answer after 30s; its last log lines (\(node.log)):"
            ] + lines).joined(separator: "\n"))
    }
}

extension LocalClusterPlan {
    /// One authority for the cluster, a certificate per node (its name, localhost, 127.0.0.1) and one
    /// for clients. What exists and is valid for a month more stays.
    package func makeCertificates() throws {
        guard settings.tls else { return }
        try Files.makeDirectory(certificates)
        let authority: CertificateAuthority
        if Files.exists(certificateAuthority), Files.exists(certificateAuthorityKey) {
            authority = try CertificateAuthority.load(
                certificate: certificateAuthority, key: certificateAuthorityKey)
        } else {
            authority = try CertificateAuthority.create(name: "polder dev")
            try authority.write(certificate: certificateAuthority, key: certificateAuthorityKey)
        }
        for node in nodes where !LocalClusterPlan.isFresh(certificate(of: node), key(of: node)) {
            try authority.issue(
                commonName: node.name, dnsNames: [node.name, "localhost"],
                ipAddresses: ["127.0.0.1", "::1"]
            ).write(certificate: certificate(of: node), key: key(of: node))
        }
        if !LocalClusterPlan.isFresh(clientCertificate, clientKey) {
            try authority.issue(commonName: "client").write(
                certificate: clientCertificate, key: clientKey)
        }
    }

    private static func isFresh(_ certificate: String, _ key: String) -> Bool {
        guard Files.exists(certificate), Files.exists(key),
            let peer = try? CertificateAuthority.inspect(certificate)
        else { return false }
        return peer.expires > Int64(time(nil)) + 30 * 86_400
    }

    package func makeFetch() throws -> HTTPFetch {
        guard settings.tls else { return HTTPFetch() }
        return HTTPFetch(
            tls: try TLSContext(
                TLSConfiguration(
                    ca: certificateAuthority, certificate: clientCertificate, key: clientKey,
                    alpn: ["http/1.1"])))
    }

    /// `/health` answers after a linearizable read, as etcd's does.
    package func isServing(_ node: LocalNode, _ fetch: HTTPFetch) -> Bool {
        guard let endpoint = Endpoint(node.clientURL(tls: settings.tls)),
            let answer = try? fetch.get("/health", from: endpoint, timeout: .milliseconds(800))
        else { return false }
        return answer.status == 200
    }
}
