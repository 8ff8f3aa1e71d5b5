import Primitives

/// `http://10.0.0.1:2379`: scheme, host and port, nothing else, as etcd's flags have it.
struct EtcdURL: Hashable, Sendable, CustomStringConvertible {
    let isSecure: Bool
    let address: NetworkAddress
    /// A socket in the file system: everything after `unix://`, as etcd has it.
    let unixPath: String?

    var description: String {
        if let unixPath { return "\(isSecure ? "unixs" : "unix")://\(unixPath)" }
        return "\(isSecure ? "https" : "http")://\(address)"
    }

    /// Where to listen: an address of this machine, since a name may mean several. Go takes IPv4 for
    /// `localhost`, and so do we.
    var listenAddress: NetworkAddress {
        address.host == "localhost" ? NetworkAddress(host: "127.0.0.1", port: address.port) : address
    }

    enum Refusal: Error { case because(String) }

    init(_ text: String) throws(Refusal) {
        guard let colon = text.range(of: "://") else {
            throw .because("\(text): a URL begins with http:// or https://")
        }
        let scheme = text[..<colon.lowerBound]
        switch scheme {
        case "http": isSecure = false
        case "https": isSecure = true
        case "unix", "unixs":
            let path = String(text[colon.upperBound...])
            // sun_path has 108 bytes on Linux, with a zero at the end.
            guard !path.isEmpty, path.utf8.count < 108 else {
                throw .because("\(text): a socket needs a path of at most 107 bytes")
            }
            isSecure = scheme == "unixs"
            unixPath = path
            address = NetworkAddress(host: path, port: 0)
            return
        default: throw .because("\(text): URL scheme must be http or https")
        }
        var rest = text[colon.upperBound...]
        if rest.hasSuffix("/") { rest = rest.dropLast() }
        guard !rest.contains("/") else { throw .because("\(text): URL must not contain a path") }
        // An empty host is all addresses of the machine.
        let whole = rest.hasPrefix(":") ? "0.0.0.0\(rest)" : String(rest)
        guard let address = NetworkAddress(whole) else {
            throw .because("\(text): URL address does not have the form host:port")
        }
        self.address = address
        unixPath = nil
    }
}

extension String {
    /// The first place of `word`; the standard library has none without Foundation.
    fileprivate func range(of word: String) -> Range<String.Index>? {
        ranges(of: word).first
    }
}

extension EtcdArguments {
    /// The URLs of a flag, in order; none twice.
    func urls(_ name: String) throws(ConfigurationError) -> [EtcdURL] {
        var found: [EtcdURL] = []
        for text in list(name) {
            let url = try url(text, of: name)
            guard !found.contains(url) else { throw refuse(name, "\(url) is given twice") }
            found.append(url)
        }
        return found
    }

    /// URLs to listen on.
    func listenURLs(_ name: String) throws(ConfigurationError) -> [EtcdURL] {
        let found = try urls(name)
        for url in found where url.unixPath == nil {
            let host = url.address.host
            let isNumeric = host.contains(":") || host.allSatisfy { $0.isNumber || $0 == "." }
            guard isNumeric || host == "localhost" else {
                throw refuse(name, "expected IP in URL for binding (\(url))")
            }
        }
        return found
    }

    func url(_ text: String, of name: String) throws(ConfigurationError) -> EtcdURL {
        do throws(EtcdURL.Refusal) {
            return try EtcdURL(text)
        } catch {
            switch error {
            case .because(let reason): throw refuse(name, reason)
            }
        }
    }

    /// `--initial-cluster`: name=URL, a name again for each further URL. In order of the names, which is
    /// the order of node ids, so that everybody who was told the same counts alike.
    func initialCluster() throws(ConfigurationError) -> [(name: String, urls: [EtcdURL])] {
        let flag = "initial-cluster"
        var found: [String: [EtcdURL]] = [:]
        var seen: Set<EtcdURL> = []
        for word in list(flag) {
            let sides = word.split(separator: "=", maxSplits: 1).map(String.init)
            guard sides.count == 2 else {
                throw refuse(flag, "\(word) does not have the form name=URL")
            }
            let url = try url(sides[1], of: flag)
            guard seen.insert(url).inserted else { throw refuse(flag, "\(url) is given twice") }
            found[sides[0], default: []].append(url)
        }
        return found.sorted { $0.key < $1.key }.map { (name: $0.key, urls: $0.value) }
    }
}
