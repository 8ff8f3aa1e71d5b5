import Glibc
import Testing

@testable import TLS

struct CertificateTests {
    @Test func `An issued certificate says what was asked for, and its key is private`() throws {
        let shop = try Workshop()
        try shop.issue("r1-n2", dns: ["r1-n2", "localhost"], ip: ["127.0.0.1", "::1"], days: 30)
        let peer = try CertificateAuthority.inspect(shop.path("r1-n2.pem"))
        #expect(peer.commonName == "r1-n2")
        #expect(peer.dnsNames == ["r1-n2", "localhost"])
        #expect(peer.ipAddresses == ["127.0.0.1", "::1"])
        let days = (peer.expires - Int64(time(nil))) / 86_400
        #expect((29...30).contains(days))
        #expect(peer.carries("::1") && peer.carries("r1-n2") && !peer.carries("r1-n3"))
        var info = stat()
        #expect(stat(shop.path("r1-n2-key.pem"), &info) == 0 && info.st_mode & 0o777 == 0o600)
        #expect(stat(shop.path("ca-key.pem"), &info) == 0 && info.st_mode & 0o777 == 0o600)
    }

    @Test func `A wildcard covers one label, at the front`() {
        let peer = TLSPeer(commonName: nil, dnsNames: ["*.etcd.svc", "*.local"])
        #expect(peer.covers("a.etcd.svc"))
        for name in ["etcd.svc", "x.a.etcd.svc", ".etcd.svc", "a.local", "aetcd.svc", ""] {
            #expect(!peer.covers(name))
        }
    }

    @Test func `Who is admitted by name, and who by host`() {
        let peer = TLSPeer(commonName: "ann", dnsNames: ["a.b", "*.c.d"], ipAddresses: ["10.0.0.1"])
        #expect(TLSConfiguration().admits(nil))
        func admits(names: [String] = [], hosts: [String] = []) -> Bool {
            var rule = TLSConfiguration()
            (rule.allowedCommonNames, rule.allowedHosts) = (names, hosts)
            #expect(!rule.admits(nil))
            return rule.admits(peer)
        }
        #expect(admits(names: ["bob", "ann"]) && !admits(names: ["a.b"]))
        for host in ["a.b", "x.c.d", "10.0.0.1"] { #expect(admits(hosts: ["other", host])) }
        for host in ["ann", "c.d", "x.y.c.d", "10.0.0.2"] { #expect(!admits(hosts: [host])) }
    }

    @Test func `An authority that was written and loaded again issues for the same trust`() throws {
        let shop = try Workshop()
        let again = try CertificateAuthority.load(
            certificate: shop.path("ca.pem"), key: shop.path("ca-key.pem"))
        let server = try TLSContext(shop.issue("one", dns: ["localhost"]))
        let client = try TLSContext(shop.issue("two", dns: ["localhost"], by: again))
        let pair = try Pair(client: client, server: server)
        try pair.pump()
        #expect(pair.atClient.events.count == 1 && pair.atServer.events.count == 1)
        pair.finish()
    }

    @Test func `Names that would be read as OpenSSL's little language are refused`() throws {
        let authority = try CertificateAuthority.create(name: "x")
        for bad in ["a,IP:1.2.3.4", "", "a\nb", "a b"] {
            #expect(throws: TLSError.self) {
                try authority.issue(commonName: "x", dnsNames: [bad])
            }
        }
        #expect(throws: TLSError.self) {
            try authority.issue(commonName: "x", ipAddresses: ["localhost"])
        }
    }

    @Test func `Files that do not do are refused with the reason`() throws {
        let shop = try Workshop()
        let good = try shop.issue("good", dns: ["localhost"])
        try shop.issue("other", dns: ["localhost"])
        try shop.keep("rubbish.pem", Array("rubbish".utf8))
        try shop.issue("old", dns: ["localhost"], days: 0)

        func reason(_ change: (inout TLSConfiguration) -> Void) -> String {
            var configuration = good
            change(&configuration)
            do throws(TLSError) {
                _ = try TLSContext(configuration)
                return "accepted"
            } catch {
                return "\(error)"
            }
        }
        #expect(reason { _ in } == "accepted")
        #expect(
            reason { $0.key = "/nowhere/key.pem" } == "/nowhere/key.pem: No such file or directory")
        #expect(reason { $0.ca = "/nowhere/ca.pem" }.contains("No such file"))
        #expect(reason { $0.key = shop.path("other-key.pem") }.contains("does not belong"))
        #expect(reason { $0.certificate = shop.path("rubbish.pem") }.contains("no PEM certificate"))
        #expect(reason { $0.key = shop.path("rubbish.pem") }.contains("no PEM private key"))
        #expect(reason { $0.ca = shop.path("rubbish.pem") }.contains("no PEM certificates"))
        #expect(reason { $0.key = nil }.contains("no key"))
        #expect(reason { $0.ca = nil }.contains("no trusted CA"))
        #expect(reason { $0.ciphers = "NONSENSE" }.contains("NONSENSE"))
        #expect(
            reason {
                $0.certificate = shop.path("old.pem")
                $0.key = shop.path("old-key.pem")
            }.contains("expired"))
    }
}
