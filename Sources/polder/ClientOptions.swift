import ArgumentParser
import Foundation
import NodeHost
import TLS

/// As etcdctl has them.
struct CertificateOptions: ParsableArguments {
    @Option(help: "Certificate of the authority that the servers' certificates come from.")
    var cacert: String?
    @Option(help: "This client's certificate.")
    var cert: String?
    @Option(help: "Its key.")
    var key: String?
}

struct ServerOptions: ParsableArguments {
    @Option(help: "Client addresses, comma-separated.")
    var endpoints = "http://127.0.0.1:2379"
    @OptionGroup var certificates: CertificateOptions
}

/// How the commands that ask a cluster find it; named as etcdctl names it.
struct ClientOptions: ParsableArguments {
    @OptionGroup var server: ServerOptions
    @Option(name: .customLong("dev"), help: "The directory of a running `polder dev`: says all of the above.")
    var dev: String?

    struct Resolved {
        var endpoints: [Endpoint]
        var fetch: HTTPFetch
    }

    func resolve() throws -> Resolved {
        var texts = server.endpoints.split(separator: ",").map(String.init)
        let given = server.certificates
        var files: (ca: String?, cert: String?, key: String?) = (given.cacert, given.cert, given.key)
        if let dev {
            let description = try DevDescription.read(Files.absolute(dev))
            texts = description.regions.flatMap { $0.nodes.map(\.client) }
            files = (description.tls?.ca, description.tls?.cert, description.tls?.key)
        }
        let found = try texts.map { text in
            guard let endpoint = Endpoint(text.trimmingCharacters(in: .whitespaces)) else {
                throw Outcome.badFlags(
                    "\(text): expected an address such as http://127.0.0.1:2379")
            }
            return endpoint
        }
        guard !found.isEmpty else { throw Outcome.badFlags("--endpoints names none") }
        guard (files.cert == nil) == (files.key == nil) else {
            throw Outcome.badFlags("--cert and --key go together")
        }
        var tls: TLSContext?
        if files.ca != nil || files.cert != nil || found.contains(where: \.isSecure) {
            do {
                tls = try TLSContext(
                    TLSConfiguration(
                        ca: files.ca, certificate: files.cert, key: files.key, alpn: ["http/1.1"]))
            } catch {
                throw Outcome.inTheWay("\(error)")
            }
        }
        return Resolved(endpoints: found, fetch: HTTPFetch(tls: tls))
    }
}

/// `dev.json`, as far as commands need it.
struct DevDescription: Decodable {
    struct Region: Decodable {
        let name: String
        let nodes: [Node]
    }
    struct Node: Decodable {
        let name: String
        let client: String
        let pid: Int32?
    }
    struct Files: Decodable {
        let ca: String
        let cert: String
        let key: String
    }
    let regions: [Region]
    let tls: Files?

    static func read(_ directory: String) throws -> DevDescription {
        let file = directory + "/dev.json"
        do {
            let text = try NodeHost.Files.read(file)
            return try JSONDecoder().decode(DevDescription.self, from: Data(text.utf8))
        } catch let error as SystemError where error.code == ENOENT {
            throw Outcome.inTheWay(
                "no polder dev is serving from \(directory) (there is no dev.json)")
        } catch {
            throw Outcome.inTheWay("\(file): \(error)")
        }
    }
}
