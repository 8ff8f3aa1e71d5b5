/// Which files and rules a TLS endpoint uses. One configuration serves both roles: a node is a
/// server to those who dial it and a client to those it dials, as a rule with the same certificate.
package struct TLSConfiguration: Sendable, Equatable {
    /// PEM file with the certificates of the authorities we trust. `nil`: those of the system.
    package var ca: String?
    /// PEM file with our certificate, then those between it and the authority. Servers need one.
    package var certificate: String?
    /// PEM file with our private key, without a passphrase.
    package var key: String?
    /// Client role: these instead of the two above, if given.
    package var clientCertificate: String?
    package var clientKey: String?
    /// Lists of revoked certificates (PEM or DER), for all certificates that a peer shows.
    package var revocations: String?
    /// Server role: a client without a certificate of `ca` is refused.
    package var requireClientCertificate = false
    /// Client role: check the server's chain and name. Off only by a user's explicit wish.
    package var verifyServer = true
    package var minimumVersion = TLSVersion.tls12
    package var maximumVersion = TLSVersion.tls13
    /// OpenSSL cipher list for TLS 1.2, and cipher suites for TLS 1.3; `nil`: OpenSSL's own.
    package var ciphers: String?
    package var cipherSuites: String?
    /// Application protocols in order of preference, such as `h2`, `http/1.1`. Empty: none.
    package var alpn: [String] = []
    /// Peers whose certificate has none of these common names are refused. Empty: no such rule.
    package var allowedCommonNames: [String] = []
    /// The same of host names and IP addresses, for which a common name does not count.
    package var allowedHosts: [String] = []

    package init(
        ca: String? = nil, certificate: String? = nil, key: String? = nil,
        requireClientCertificate: Bool = false, alpn: [String] = []
    ) {
        self.ca = ca
        self.certificate = certificate
        self.key = key
        self.requireClientCertificate = requireClientCertificate
        self.alpn = alpn
    }

    /// By the names of its certificate.
    func admits(_ peer: TLSPeer?) -> Bool {
        if allowedCommonNames.isEmpty, allowedHosts.isEmpty { return true }
        guard let peer else { return false }
        return peer.commonName.map(allowedCommonNames.contains) ?? false
            || allowedHosts.contains(where: peer.isHost)
    }
}

package enum TLSVersion: Sendable { case tls12, tls13 }

package enum TLSRole: Sendable, Equatable {
    case server
    /// `expectedName`: the DNS name or IP address that the server's certificate must carry.
    case client(expectedName: String)
}

/// What a peer's certificate said; its chain was checked before anybody gets to see this.
package struct TLSPeer: Sendable, Equatable {
    package var commonName: String?
    package var dnsNames: [String]
    package var ipAddresses: [String]
    /// Seconds since 1970.
    package var expires: Int64

    package init(
        commonName: String?, dnsNames: [String] = [], ipAddresses: [String] = [], expires: Int64 = 0
    ) {
        self.commonName = commonName
        self.dnsNames = dnsNames
        self.ipAddresses = ipAddresses
        self.expires = expires
    }

    /// Exact, as common name, DNS name or IP address.
    package func carries(_ name: String) -> Bool {
        commonName == name || dnsNames.contains(name) || ipAddresses.contains(name)
    }

    /// By its alternative names, as one that dials it would find out.
    func isHost(_ name: String) -> Bool {
        dnsNames.contains(name) || ipAddresses.contains(name) || covers(name)
    }

    /// By a wildcard: `*.b.c` covers `a.b.c`, and neither `b.c` nor `x.a.b.c`.
    package func covers(_ name: String) -> Bool {
        guard let dot = name.firstIndex(of: "."), dot != name.startIndex else { return false }
        let parent = name[dot...]
        return parent.dropFirst().contains(".") && dnsNames.contains("*" + parent)
    }
}

/// Fired by `TLSHandler` as an inbound user event, before the first byte of application data.
package enum TLSEvent: Sendable, Equatable {
    case handshakeCompleted(alpn: String?, peer: TLSPeer?)
}

package enum TLSError: Error, Equatable, CustomStringConvertible {
    /// A file that is missing, unreadable or not what it should be; a person must act.
    case file(path: String, reason: String)
    case configuration(String)
    /// The other side is not whom it should be, or speaks no TLS that we accept.
    case handshake(String)
    case handshakeTimedOut
    /// Broken after the handshake: damage or an attack; nothing after it was delivered.
    case session(String)
    /// More was written before the handshake than we keep.
    case tooMuchBuffered(Int)
    case crypto(String)

    package var description: String {
        switch self {
        case .file(let path, let reason): "\(path): \(reason)"
        case .configuration(let reason): "TLS configuration: \(reason)"
        case .handshake(let reason): "TLS handshake failed: \(reason)"
        case .handshakeTimedOut: "TLS handshake not finished in time"
        case .session(let reason): "TLS session broken: \(reason)"
        case .tooMuchBuffered(let bytes): "\(bytes) bytes written before the TLS handshake"
        case .crypto(let reason): "OpenSSL: \(reason)"
        }
    }
}
