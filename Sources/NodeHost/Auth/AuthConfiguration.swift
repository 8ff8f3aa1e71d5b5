import EtcdFacade
package import Primitives
import TLS

/// How clients show who they are, in etcd's terms.
package struct AuthConfiguration: Equatable, Sendable {
    package enum Tokens: Equatable, Sendable {
        case simple(timeToLive: TimeSpan)
        case web(algorithm: String, publicKey: String?, privateKey: String?, timeToLive: TimeSpan)
    }
    package var tokens = Tokens.simple(timeToLive: .seconds(300))
    package var bcryptCost = AuthConfiguration.standardCost
    /// The common name of a client's certificate is its user.
    package var usesCertificateNames = false
    package init() {}

    package static let standardCost = 10
    /// Each step doubles the time: 31 takes days.
    package static let costs = 4...31

    /// etcd's `--auth-token`: `simple`, or `jwt,sign-method=RS256,pub-key=...,priv-key=...,ttl=10m`.
    /// Throws what is wrong with it.
    package static func tokens(
        _ text: String, simpleTimeToLive: TimeSpan
    ) throws(AuthTokenError) -> (tokens: Tokens, unknown: [String]) {
        let parts = text.split(separator: ",", omittingEmptySubsequences: false)
        var options: [String: String] = [:]
        for part in parts.dropFirst() {
            let sides = part.split(separator: "=", omittingEmptySubsequences: false).map(String.init)
            guard sides.count == 2 else { throw AuthTokenError("\(part) is not option=value") }
            guard options.updateValue(sides[1], forKey: sides[0]) == nil else {
                throw AuthTokenError("\(sides[0]) is given twice")
            }
        }
        switch parts.first ?? "" {
        case "simple":
            return (.simple(timeToLive: simpleTimeToLive), options.keys.sorted())
        case "jwt":
            let algorithm = options["sign-method"] ?? ""
            guard TokenKey.algorithms.contains(algorithm) else {
                throw AuthTokenError(
                    "sign-method \"\(algorithm)\" is none of "
                        + TokenKey.algorithms.joined(separator: ", "))
            }
            var timeToLive = TimeSpan.seconds(300)
            if let ttl = options["ttl"], !ttl.isEmpty {
                guard let span = EtcdArguments.duration(ttl), span >= .seconds(1) else {
                    throw AuthTokenError("ttl \"\(ttl)\" is not a time such as 10m")
                }
                timeToLive = span
            }
            let known = ["sign-method", "ttl", "pub-key", "priv-key"]
            return (
                .web(
                    algorithm: algorithm, publicKey: options["pub-key"],
                    privateKey: options["priv-key"], timeToLive: timeToLive),
                options.keys.filter { !known.contains($0) }.sorted()
            )
        case let other:
            throw AuthTokenError("\"\(other)\" is neither simple nor jwt")
        }
    }

    /// The form that `tokens` reads.
    package var tokenText: String {
        switch tokens {
        case .simple: return "simple"
        case .web(let algorithm, let publicKey, let privateKey, let timeToLive):
            var text = "jwt,sign-method=\(algorithm)"
            if let publicKey { text += ",pub-key=\(publicKey)" }
            if let privateKey { text += ",priv-key=\(privateKey)" }
            return text + ",ttl=\(timeToLive.text)"
        }
    }

    var settings: AuthSettings {
        var settings = AuthSettings()
        settings.usesCertificateNames = usesCertificateNames
        switch tokens {
        case .simple(let timeToLive): settings.tokens = .simple(timeToLive: timeToLive)
        case .web(let algorithm, _, _, let timeToLive):
            settings.tokens = .web(algorithm: algorithm, timeToLive: timeToLive)
        }
        return settings
    }
}

package struct AuthTokenError: Error, Equatable {
    package let text: String
    init(_ text: String) { self.text = text }
}
