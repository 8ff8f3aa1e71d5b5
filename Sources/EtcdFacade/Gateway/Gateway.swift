package import EtcdAPI
import Primitives

/// What etcd's flags say of plain HTTP: `--enable-grpc-gateway`, `--cors`, `--host-whitelist`.
package struct HTTPAccess: Sendable, Equatable {
    package var isGatewayEnabled = true
    /// /debug/requests, as etcd has it with --log-level debug.
    package var showsRequests = false
    /// Origins whose pages may read answers; empty or with "*": all.
    package var origins: Set<String> = []
    /// Names by which clients without TLS may call this server; empty or with "*": all.
    package var hosts: Set<String> = []
    package init() {}

    fileprivate func header(for origin: String?) -> String? {
        if origins.isEmpty || origins.contains("*") { return "*" }
        guard let origin, origins.contains(origin) else { return nil }
        return origin
    }

    fileprivate func allows(host authority: String) -> Bool {
        hosts.isEmpty || hosts.contains("*") || hosts.contains(Self.name(authority))
    }

    /// "name:port", "[address]:port", or either without its port.
    fileprivate static func name(_ authority: String) -> String {
        if authority.hasPrefix("["), let end = authority.firstIndex(of: "]") {
            return String(authority[authority.index(after: authority.startIndex)..<end])
        }
        let parts = authority.split(separator: ":", omittingEmptySubsequences: false)
        return parts.count == 2 ? String(parts[0]) : authority
    }
}

extension Facade {
    /// All of HTTP without gRPC comes through here.
    func onHTTPRequest(_ request: HTTPRequest, _ responder: HTTPResponder) {
        if let refusal = refusal(of: request) { return responder.respond(refusal) }
        if let origin = access.header(for: request.header("origin")) {
            responder.extraHeaders = [
                ("access-control-allow-methods", "POST, GET, OPTIONS, PUT, DELETE"),
                ("access-control-allow-origin", origin),
                ("access-control-allow-headers", "accept, content-type, authorization"),
            ]
        }
        if request.method == "OPTIONS" { return responder.respond(HTTPResponse(status: 200)) }
        let path = GatewayRoute.path(of: request.target)
        guard path.hasPrefix("/v3/"), access.isGatewayEnabled, let localCalls else {
            return onHTTP(request) { responder.respond($0) }
        }
        guard let route = GatewayRoute.all[path] else {
            return responder.respond(.gateway(.notFound, "Not Found"))
        }
        guard request.method == "POST" else {
            return responder.respond(
                .gateway(.unimplemented, "Method Not Allowed", httpStatus: 405))
        }
        guard let metadata = metadata(of: request) else {
            let timeout = request.header("grpc-timeout") ?? ""
            return responder.respond(
                .gateway(.invalidArgument, "invalid grpc-timeout: \(timeout)"))
        }
        let call = HTTPGatewayCall(route, localCalls, responder)
        call.begin(metadata)
        var values = JSONValues(request.body)
        if route.takesMany {
            while let value = values.next() { call.ask(value) }
        } else {
            // Nothing at all is the empty message; what follows the first value is passed over.
            call.ask(values.next() ?? "{}")
        }
        call.halfClose()
    }

    package func onUpgrade(_ request: HTTPRequest) -> [(name: String, value: String)]? {
        let path = GatewayRoute.path(of: request.target)
        guard access.isGatewayEnabled, localCalls != nil, GatewayRoute.all[path] != nil,
            refusal(of: request) == nil, metadata(of: request) != nil
        else { return nil }
        // A client that offers protocols wants one of them: the token's place in browsers.
        let offered = request.header("sec-websocket-protocol") ?? ""
        return offered.hasPrefix("Bearer") ? [("sec-websocket-protocol", "Bearer")] : []
    }

    package func onWebSocket(_ request: HTTPRequest, _ socket: WebSocket) {
        guard let localCalls, let metadata = metadata(of: request),
            let route = GatewayRoute.all[GatewayRoute.path(of: request.target)]
        else { return socket.close() }
        WebSocketGatewayCall(route, localCalls, socket).begin(metadata)
    }

    // MARK: Who may

    /// Nil: go on.
    private func refusal(of request: HTTPRequest) -> HTTPResponse? {
        if !request.isSecure, !access.allows(host: request.authority) {
            return HTTPResponse(
                status: 421, contentType: "text/plain; charset=utf-8",
                Self.unknownHost(HTTPAccess.name(request.authority)))
        }
        if let name = request.peerName, !name.isEmpty, refusesCertificateNames,
            GatewayRoute.path(of: request.target).hasPrefix("/v3/")
        {
            return HTTPResponse(
                status: 400, contentType: "text/plain; charset=utf-8",
                "CommonName of client sending a request against gateway will be ignored and not "
                    + "used as expected\n")
        }
        return nil
    }

    /// Against pages that get at this server by a name of their own (DNS rebinding, CVE-2018-5702).
    private static func unknownHost(_ name: String) -> String {
        """
        The request names a host that this server is not known by: \(name)
        Use TLS, or allow the name: --host-whitelist=\(name)

        """
    }

    /// A user's name in a client certificate does not reach the calls behind the gateway: once users
    /// are checked, such a request would quietly be somebody else's.
    private var refusesCertificateNames: Bool {
        authState.isEnabled && auth?.settings.usesCertificateNames == true
    }

    /// What gRPC says in its headers. Nil: a `grpc-timeout` that is none.
    private func metadata(of request: HTTPRequest) -> CallMetadata? {
        var metadata = CallMetadata()
        metadata.authority = request.authority
        if let text = request.header("grpc-timeout") {
            let bytes = Array(text.utf8)
            guard let timeout = bytes.withUnsafeBytes({ GRPCText.timeout($0) }) else { return nil }
            metadata.timeout = timeout
        }
        metadata.token = token(of: request)
        metadata.requiresLeader = request.header("grpc-metadata-hasleader") == "true"
        metadata.clientAPIVersion = request.header("grpc-metadata-client-api-version")
        return metadata
    }

    private func token(of request: HTTPRequest) -> String? {
        if let text = request.header("authorization") { return Self.withoutScheme(text) }
        if let text = request.header("grpc-metadata-token") { return text }
        // Pages cannot set headers of a WebSocket, but its protocols: "Bearer, TOKEN".
        guard let offered = request.header("sec-websocket-protocol"), offered.hasPrefix("Bearer,")
        else { return nil }
        return String(offered.dropFirst("Bearer,".count).drop { $0 == " " })
    }

    /// etcd takes the whole header for the token; the usual form is understood too.
    private static func withoutScheme(_ text: String) -> String {
        text.hasPrefix("Bearer ") ? String(text.dropFirst("Bearer ".count)) : text
    }
}

extension HTTPResponse {
    fileprivate static func gateway(
        _ status: GRPCStatus, _ message: String, httpStatus: Int? = nil
    ) -> HTTPResponse {
        .json(GatewayError.body(status, message), status: httpStatus ?? status.httpStatus)
    }
}
