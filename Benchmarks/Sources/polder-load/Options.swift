/// What is asked of the generator. Every figure has a default; `usage` tells them.
struct Options {
    struct Endpoint {
        var host = ""
        var port = ""
        var isSecure = false
        var authority: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
    }

    /// Which watches there are beside the requests.
    enum Watching { case each, same }

    var endpoints: [Endpoint] = []
    var connections = 16
    /// Requests a second; 0: a closed loop with `outstanding` requests.
    var rate = 1000.0
    var outstanding = 64
    var isPoisson = false
    var seconds = 10.0
    /// Ends earlier, after so many; 0: no.
    var requests = 0
    var warmSeconds = 1.0
    var timeoutSeconds = 10.0
    var keys = 10_000
    var prefix = "load/"
    var valueBytes = 256
    /// Weight of each kind of request.
    var weights = [Int](repeating: 0, count: Kind.count)
    var pageLimit = 500
    var skipsPreparing = false
    var onlyPrepares = false
    var watchers = 0
    var watchStreams = 10
    var watching = Watching.each
    var certificateAuthority: String?
    var certificate: String?
    var privateKey: String?
    var isInsecure = false
    var seed: UInt64 = 1

    static let usage = """
        polder-load --endpoints URL[,URL...] [options]: load of etcd's requests, and verified answers.

          --rate N          requests a second, sent when they are due (default 1000);
                            0: a closed loop of --outstanding N requests (default 64)
          --arrivals A      even (default) or poisson
          --seconds S       how long to measure (default 10); --requests N: so many, if that is less
          --warm S          before it, not counted (default 1)
          --connections N   spread over the endpoints (default 16)
          --mix M           of put, get, stale (serializable get), update (Txn that compares
                            mod_revision, puts, else gets) and page: put:1,get:4 (default put).
                            Pages follow one another through all keys, as a Kubernetes list does
          --keys N          (default 10000) --prefix P (default load/) --size BYTES of values (default 256)
          --limit N         keys of a page (default 500; 0: all)
          --prepared        the keys are there from an earlier run; they are not written first
          --prepare-only    writes the keys, --outstanding at a time, and ends
          --watchers N      watches beside the requests, on --watch-streams N streams (default 10);
                            --watch each: watch i is on a range with key i; same: all are on one key
          --timeout S       how long to wait for the last answers (default 10)
          --cacert FILE, --cert FILE, --key FILE, --insecure   for https
          --seed N          which keys come in which order

        polder-load limits DIR [--rounds N]: what this machine needs for one fdatasync of a file in DIR,
        one round trip over loopback, one memcpy.

        Prints one JSON object. Latencies (ms) count from when a request was due, so a stalled server
        is charged for all requests that it kept from being sent. Ends with 1 if an answer was wrong.
        """

    init(_ arguments: [String]) throws(OptionError) {
        var rest = arguments[...]
        weights[Kind.put.index] = 1
        while let name = rest.popFirst() {
            switch name {
            case "--prepared": skipsPreparing = true
            case "--insecure": isInsecure = true
            case "--prepare-only": onlyPrepares = true
            default:
                guard let value = rest.popFirst() else { throw OptionError("\(name) needs a value") }
                try set(name, value)
            }
        }
        guard !endpoints.isEmpty else { throw OptionError("--endpoints is missing") }
        guard keys >= 1, keys <= 100_000_000, connections >= 1, connections <= 20_000, valueBytes >= 16,
            valueBytes <= 8 << 20, outstanding >= 1, outstanding <= Worker.outstandingMax, rate >= 0,
            watchStreams >= 1, seconds > 0, watchers >= 0, prefix.utf8.count <= 512
        else { throw OptionError("a number is out of its range (values have 16 bytes at least)") }
        if watchers > 0, watching == .each, watchers > keys {
            throw OptionError("--watch each needs as many --keys as --watchers")
        }
    }

    private mutating func set(_ name: String, _ value: String) throws(OptionError) {
        switch name {
        case "--endpoints":
            for text in value.split(separator: ",") { endpoints.append(try Self.endpoint(String(text))) }
        case "--rate": rate = try number(name, value)
        case "--outstanding": outstanding = try number(name, value)
        case "--arrivals":
            guard value == "even" || value == "poisson" else { throw OptionError("even or poisson?") }
            isPoisson = value == "poisson"
        case "--seconds": seconds = try number(name, value)
        case "--requests": requests = try number(name, value)
        case "--warm": warmSeconds = try number(name, value)
        case "--timeout": timeoutSeconds = try number(name, value)
        case "--connections": connections = try number(name, value)
        case "--keys": keys = try number(name, value)
        case "--prefix": prefix = value
        case "--size": valueBytes = try number(name, value)
        case "--limit": pageLimit = try number(name, value)
        case "--watchers": watchers = try number(name, value)
        case "--watch-streams": watchStreams = try number(name, value)
        case "--watch":
            guard value == "each" || value == "same" else { throw OptionError("each or same?") }
            watching = value == "each" ? .each : .same
        case "--mix": try setMix(value)
        case "--cacert": certificateAuthority = value
        case "--cert": certificate = value
        case "--key": privateKey = value
        case "--seed": seed = try number(name, value)
        default: throw OptionError("unknown option \(name)")
        }
    }

    private mutating func setMix(_ value: String) throws(OptionError) {
        weights = [Int](repeating: 0, count: Kind.count)
        for part in value.split(separator: ",") {
            let sides = part.split(separator: ":")
            guard let kind = Kind.allCases.first(where: { $0.name == sides[0] }), sides.count <= 2,
                let weight = sides.count == 2 ? Int(sides[1]) : 1, weight >= 0, weight <= 1000
            else { throw OptionError("--mix: what is \(part)?") }
            weights[kind.index] = weight
        }
        guard weights.contains(where: { $0 > 0 }) else { throw OptionError("--mix is empty") }
    }

    private func number<N: LosslessStringConvertible>(
        _ name: String, _ value: String
    ) throws(OptionError) -> N {
        guard let number = N(value) else { throw OptionError("\(name): \(value) is no number") }
        return number
    }

    private static func endpoint(_ text: String) throws(OptionError) -> Endpoint {
        var endpoint = Endpoint()
        var rest = text[...]
        if rest.hasPrefix("https://") {
            endpoint.isSecure = true
            rest = rest.dropFirst(8)
        } else if rest.hasPrefix("http://") {
            rest = rest.dropFirst(7)
        }
        guard let colon = rest.lastIndex(of: ":"), UInt16(rest[rest.index(after: colon)...]) != nil
        else { throw OptionError("\(text) has no port") }
        endpoint.port = String(rest[rest.index(after: colon)...])
        endpoint.host = String(rest[..<colon].drop { $0 == "[" }.filter { $0 != "]" })
        return endpoint
    }
}

struct OptionError: Error {
    let text: String
    init(_ text: String) { self.text = text }
}
