import ArgumentParser
import NodeHost
import TLS

struct CertsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "certs", abstract: "A small certificate authority.",
        subcommands: [CreateCommand.self, ShowCommand.self])

    struct CreateCommand: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "create",
            abstract: "Issues a certificate; creates the authority first where there is none.",
            discussion: """
                Writes DIR/ca.crt, DIR/ca.key (when missing), DIR/NAME.crt and DIR/NAME.key:
                ECDSA P-256, PEM, keys readable by their owner only. Copy ca.crt everywhere
                and ca.key nowhere.

                A node's certificate carries the name r<region>-n<node>, by which its peers
                know it:
                  polder certs create --dir certs --name r1-n1 --dns etcd-1.example.com --ip 10.0.0.1
                A client's:
                  polder certs create --dir certs --name client
                """)

        @Option(help: "Where the files are.")
        var dir: String
        @Option(help: "The certificate's common name, and the files' name.")
        var name: String
        @Option(name: .customLong("dns"), help: "A DNS name that it is valid for; may be repeated.")
        var dnsNames: [String] = []
        @Option(name: .customLong("ip"), help: "An IP address that it is valid for; may be repeated.")
        var addresses: [String] = []
        @Option(help: "Days of validity.")
        var days = 825

        func run() throws {
            guard HostConfiguration.name(name) != nil else {
                throw Outcome.badFlags("--name \(name): expected letters, digits, '.', '_' and '-'")
            }
            guard (1...36_500).contains(days) else {
                throw Outcome.badFlags("--days must be between 1 and 36500")
            }
            let directory = Files.absolute(dir)
            let ca = directory + "/ca.crt", caKey = directory + "/ca.key"
            do {
                try Files.makeDirectory(directory)
                let authority: CertificateAuthority
                if Files.exists(ca), Files.exists(caKey) {
                    authority = try CertificateAuthority.load(certificate: ca, key: caKey)
                } else if Files.exists(ca) {
                    throw Outcome.inTheWay("\(ca) is there but its key \(caKey) is not")
                } else {
                    authority = try CertificateAuthority.create(name: "polder")
                    try authority.write(certificate: ca, key: caKey)
                    print("created \(ca)")
                }
                let file = "\(directory)/\(name)"
                try authority.issue(
                    commonName: name, dnsNames: dnsNames.isEmpty ? [name, "localhost"] : dnsNames,
                    ipAddresses: addresses, days: days
                ).write(certificate: file + ".crt", key: file + ".key")
                print("created \(file).crt")
            } catch let outcome as Outcome {
                throw outcome
            } catch {
                throw Outcome.inTheWay("\(error)")
            }
        }
    }

    struct ShowCommand: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "show", abstract: "Says whom certificates name and when they expire.",
            discussion: "  polder certs show /tmp/polder/certs/*.crt")

        @Argument(help: "PEM files.")
        var files: [String]

        func run() throws {
            for file in files {
                do {
                    let peer = try CertificateAuthority.inspect(file)
                    let names = (peer.dnsNames + peer.ipAddresses).joined(separator: " ")
                    print("\(file)  \(peer.commonName ?? "-")  [\(names)]  "
                        + "expires \(WallTime.text(secondsSince1970: peer.expires))")
                } catch {
                    throw Outcome.inTheWay("\(error)")
                }
            }
        }
    }
}
