package import EtcdAPI
package import Primitives
package import TLS

/// Certificate files, as etcdctl names them.
package struct ClientTLSFiles: Sendable, Equatable, Codable {
    package var ca: String?
    package var cert: String?
    package var key: String?
    package init(ca: String? = nil, cert: String? = nil, key: String? = nil) {
        self.ca = ca
        self.cert = cert
        self.key = key
    }

    package func context() throws -> TLSContext {
        try TLSContext(TLSConfiguration(ca: ca, certificate: cert, key: key, alpn: ["h2"]))
    }
}

package struct ProbeOptions: Sendable {
    /// Of a cluster without named regions.
    package var endpoints: [String] = []
    /// In the order given.
    package var regions: [(name: String, endpoints: [String])] = []
    /// Probes a second, reads and writes together, over all regions.
    package var rate = 50.0
    /// `nil`: until interrupted.
    package var durationSeconds: Double? = 60
    package var out = "probe"
    package var tls: ClientTLSFiles?
    package var timeout = TimeSpan.seconds(1)
    /// A client with several endpoints asks the next one after this long without an answer.
    package var hedgeAfter = TimeSpan.milliseconds(250)
    /// Where this prober stands; the host's name if not given.
    package var vantage: String?
    package var keyPrefix = "polder-probe/"
    /// Keys of each region that are written in turn: enough to reach every partition.
    package var keys = 32

    package init() {}

    /// Checks everything that can be checked without a connection.
    package func validated() throws(ProbeError) -> [(name: String, endpoints: [EtcdEndpoint])] {
        guard rate > 0, rate <= 100_000 else {
            throw .badOption("--rate must be between 0 and 100000 probes a second")
        }
        if let durationSeconds, durationSeconds <= 0 {
            throw .badOption("--duration must be more than nothing")
        }
        guard timeout > .zero, keys > 0 else {
            throw .badOption("--timeout must be more than nothing")
        }
        var all = regions
        let named = Set(regions.flatMap(\.endpoints))
        let others = endpoints.filter { !named.contains($0) }
        if !others.isEmpty {
            all.append((name: regions.isEmpty ? "default" : "other", endpoints: others))
        }
        guard !all.isEmpty else { throw .badOption("no endpoints: give --endpoints URL[,URL...]") }
        guard Set(all.map(\.name)).count == all.count else {
            throw .badOption("a region is named twice")
        }
        var parsed: [(name: String, endpoints: [EtcdEndpoint])] = []
        for (name, urls) in all {
            var endpoints: [EtcdEndpoint] = []
            for url in urls {
                guard let endpoint = EtcdEndpoint(url) else {
                    throw .badOption(
                        "'\(url)' is not an endpoint: write http://HOST:PORT or https://HOST:PORT")
                }
                if endpoint.isSecure && tls == nil {
                    throw .badOption("\(url) needs certificates: give --cacert, --cert and --key")
                }
                endpoints.append(endpoint)
            }
            guard !endpoints.isEmpty else { throw .badOption("region \(name) has no endpoints") }
            parsed.append((name, endpoints))
        }
        return parsed
    }
}
