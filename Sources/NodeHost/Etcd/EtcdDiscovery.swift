import CLinux
import NIOCore

/// How the start asks DNS; tests answer themselves.
package struct EtcdResolver: Sendable {
    /// The answer to a question for SRV records, as it came; nil: none.
    var services: @Sendable (_ name: String) -> [UInt8]?
    /// The address behind a name, as text; nil: there is none.
    var address: @Sendable (_ host: String) -> String?

    /// What /etc/resolv.conf and /etc/hosts say; each with the system's time-outs.
    package static let system = EtcdResolver(
        services: { name in
            // Through UDP or TCP, as the resolver sees fit.
            var answer = [UInt8](repeating: 0, count: 65_535)
            let length = Int(polder_query_srv(name, &answer, Int32(answer.count)))
            return length > 0 ? Array(answer.prefix(length)) : nil
        },
        address: { host in
            (try? SocketAddress.makeAddressResolvingHost(host, port: 0))?.ipAddress
        })
}

/// One SRV record (RFC 2782), without priority and weight: every one names a member.
struct ServiceRecord: Equatable {
    var target: String
    var port: Int

    static let recordsMax = 64

    /// Those of an answer in DNS's own form (RFC 1035); nil: it is not one.
    static func parse(_ answer: [UInt8]) -> [ServiceRecord]? {
        guard answer.count >= 12 else { return nil }
        func number(_ at: Int) -> Int? {
            at + 2 <= answer.count ? Int(answer[at]) << 8 | Int(answer[at + 1]) : nil
        }
        guard let questions = number(4), let answers = number(6), questions <= 4 else { return nil }
        var at = 12
        for _ in 0..<questions {
            guard let (_, next) = name(answer, at) else { return nil }
            at = next + 4
        }
        var found: [ServiceRecord] = []
        for _ in 0..<min(answers, recordsMax) {
            guard let (_, next) = name(answer, at), let kind = number(next),
                let length = number(next + 8), next + 10 + length <= answer.count
            else { return nil }
            let data = next + 10
            if kind == 33 {
                guard length >= 7, let port = number(data + 4), let (target, _) = name(answer, data + 6)
                else { return nil }
                found.append(ServiceRecord(target: target, port: port))
            }
            at = data + length
        }
        return found
    }

    /// The name at `at`, and where it ends there. Its end may stand elsewhere: names are compressed.
    private static func name(_ answer: [UInt8], _ at: Int) -> (String, end: Int)? {
        var at = at, end: Int?, labels: [String] = [], jumps = 0
        while true {
            guard at < answer.count else { return nil }
            let length = Int(answer[at])
            if length >= 0xC0 {
                guard at + 1 < answer.count, jumps < 32 else { return nil }
                jumps += 1
                end = end ?? at + 2
                at = (length & 0x3F) << 8 | Int(answer[at + 1])
            } else if length == 0 {
                return (labels.joined(separator: "."), end ?? at + 1)
            } else {
                guard length < 64, at + 1 + length <= answer.count, labels.count < 128 else { return nil }
                labels.append(String(decoding: answer[at + 1..<at + 1 + length], as: UTF8.self))
                at += 1 + length
            }
        }
    }
}

extension EtcdArguments {
    /// `--discovery-srv`: the members that `_etcd-server-ssl._tcp` and `_etcd-server._tcp` of the domain
    /// name. One of them is this node: the one with the address that it tells its peers. In order of
    /// the URLs, so that everybody counts alike.
    func discoveredCluster(
        _ advertised: [EtcdURL], _ resolver: EtcdResolver
    ) throws(ConfigurationError) -> [(name: String, urls: [EtcdURL])] {
        let flag = "discovery-srv", domain = text(flag)
        guard !isGiven("initial-cluster") else {
            throw refuse(
                flag,
                "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\" or "
                    + "\"discovery-srv\"")
        }
        let suffix = nonempty("discovery-srv-name").map { "-" + $0 } ?? ""
        var found: [(name: String, urls: [EtcdURL])] = [], asked: [String] = [], seesItself = false
        for (scheme, service) in [("https", "etcd-server-ssl"), ("http", "etcd-server")] {
            let question = "_\(service)\(suffix)._tcp.\(domain)"
            asked.append(question)
            guard let answer = resolver.services(question) else { continue }
            guard let records = ServiceRecord.parse(answer) else {
                throw refuse(flag, "\(question): the answer is not DNS's")
            }
            for record in records {
                let url = try url("\(scheme)://\(record.target):\(record.port)", of: flag)
                guard !found.contains(where: { $0.urls == [url] }) else { continue }
                guard let own = advertised.first(where: { isSame($0, url, resolver) }) else {
                    found.append((name: "\(url.address)", urls: [url]))
                    continue
                }
                guard own.isSecure == url.isSecure else {
                    throw refuse(
                        flag,
                        "bootstrap at \(url) from DNS for \(service) has scheme mismatch with expected "
                            + "peer \(own)")
                }
                seesItself = true
                found.append((name: text("name"), urls: [url]))
            }
        }
        guard !found.isEmpty else {
            throw refuse(flag, "no SRV records: " + asked.joined(separator: ", "))
        }
        guard seesItself else {
            let own = advertised.map { "\($0)" }.joined(separator: ",")
            throw refuse(
                flag,
                "none of the members that DNS names has the address of --initial-advertise-peer-urls "
                    + "(\(own)): " + found.map { "\($0.urls[0])" }.sorted().joined(separator: ", "))
        }
        return found.sorted { "\($0.urls[0])" < "\($1.urls[0])" }
    }

    private func isSame(_ a: EtcdURL, _ b: EtcdURL, _ resolver: EtcdResolver) -> Bool {
        guard a.address.port == b.address.port else { return false }
        if a.address.host == b.address.host { return true }
        guard let one = resolver.address(a.address.host) else { return false }
        return one == resolver.address(b.address.host)
    }
}
