import EtcdAPI
import Primitives

/// A request's target, taken apart.
struct HTTPTarget {
    let path: String
    private let query: [(name: String, value: String)]

    init(_ target: String) {
        let parts = target.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        path = String(parts.first ?? "")
        var query: [(String, String)] = []
        if parts.count > 1 {
            for pair in parts[1].split(separator: "&") {
                let sides = pair.split(
                    separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                query.append(
                    (Self.unescaped(sides[0]), sides.count > 1 ? Self.unescaped(sides[1]) : ""))
            }
        }
        self.query = query
    }

    func has(_ name: String) -> Bool { query.contains { $0.name == name } }
    func value(_ name: String) -> String? { query.first { $0.name == name }?.value }
    func values(_ name: String) -> [String] {
        query.filter { $0.name == name && !$0.value.isEmpty }.map(\.value)
    }

    private static func unescaped(_ text: Substring) -> String {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "%"), rest.count >= 2,
                let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
            {
                bytes.append(value)
                rest = rest.dropFirst(2)
            } else {
                bytes.append(byte == UInt8(ascii: "+") ? UInt8(ascii: " ") : byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

extension Facade {
    /// What etcd serves beside gRPC, and Polder's own pages under /polder/. `respond` is called once,
    /// perhaps later: a health check asks the region.
    func onHTTP(_ request: HTTPRequest, respond: @escaping (HTTPResponse) -> Void) {
        let target = HTTPTarget(request.target)
        if request.method == "POST", let order = Order(target.path) {
            return onOrder(order, request, target, respond)
        }
        guard isPage(target.path) else { return respond(.refusal(404, "404 page not found")) }
        // As in etcd, these two do not care.
        let takesAll = target.path == "/metrics" || target.path == "/debug/vars"
        guard takesAll || request.method == "GET" || request.method == "HEAD" else {
            var refusal = HTTPResponse.refusal(405, "Method Not Allowed")
            refusal.headers.insert(("allow", "GET"), at: 0)
            return respond(refusal)
        }
        switch target.path {
        case "/health": onHealth(target, respond)
        case "/version": respond(.json(versionJSON))
        case "/metrics":
            respond(
                HTTPResponse(
                    status: 200, contentType: "text/plain; version=0.0.4; charset=utf-8",
                    metricsText()))
        case "/debug/vars": respond(.json(variablesJSON()))
        case "/debug/requests": respond(openCallsPage())
        case "/polder/status": respond(.json(statusJSON()))
        case "/polder/conflicts":
            // It shows keys and values.
            if let refusal = refusal(request) { return respond(refusal) }
            let limit = target.value("limit").flatMap(Int.init) ?? 100
            respond(.json(conflictsJSON(limit: min(max(0, limit), 10_000))))
        default:
            if !onCheck(target, respond) { respond(.refusal(404, "404 page not found")) }
        }
    }

    private func isPage(_ path: String) -> Bool {
        switch path {
        case "/health", "/version", "/metrics", "/debug/vars", "/polder/status", "/polder/conflicts":
            true
        case "/debug/requests": access.showsRequests
        default: path.hasPrefix("/livez") || path.hasPrefix("/readyz")
        }
    }

    /// The calls that are open: what, since when, and what for. Never their keys.
    private func openCallsPage() -> HTTPResponse {
        let now = node.now
        let open = calls.all.sorted { $0.startedAt < $1.startedAt }
        var rows = ""
        for call in open.prefix(Self.openCallsMax) {
            let seconds = Double(now.since(call.startedAt).milliseconds) / 1e3
            rows += "<tr><td>\(seconds)</td><td>\(call.method.path)</td><td>\(call.state.name)</td></tr>\n"
        }
        let more = open.count > Self.openCallsMax ? "<p>and \(open.count - Self.openCallsMax) more</p>" : ""
        return HTTPResponse(
            status: 200, contentType: "text/html; charset=utf-8",
            """
            <html><head><title>/debug/requests</title></head><body><h1>/debug/requests</h1>
            <p>\(open.count) open calls, the oldest first</p>
            <table><tr><th>seconds</th><th>method</th><th>state</th></tr>
            \(rows)</table>\(more)</body></html>

            """)
    }

    private static let openCallsMax = 1_000

    /// Go's expvar page, with those of etcd's variables that mean something here.
    private func variablesJSON() -> String {
        let status = node.status
        let figures = ProcessFigures.now()
        var json = JSONWriter()
        json.object { json in
            json.list("cmdline") { json in
                for word in CommandLine.arguments { json.value(word) }
            }
            json.member("file_descriptor_limit", figures.openFilesMax)
            json.object("memstats") { json in
                json.member("Sys", figures.virtualBytes)
                json.member("HeapInuse", figures.residentBytes)
            }
            json.object("raft.status") { json in
                json.member("id", String(status.memberID, radix: 16))
                json.member("term", status.epochRound)
                json.member("commit", status.decidedIndex)
                json.member("lead", String(status.sequencerMemberID, radix: 16))
                let leads = status.sequencerMemberID == status.memberID
                json.member("raftState", leads ? "StateLeader" : "StateFollower")
                json.member("applied", status.appliedIndex)
            }
        }
        return json.text
    }

    /// Nil: the request is root's, or authentication is off.
    func refusal(_ request: HTTPRequest) -> HTTPResponse? {
        guard authState.isEnabled else { return nil }
        do throws(CallFailure) {
            try requireRoot(
                try identify(
                    token: request.header("authorization"), certificateName: request.peerName))
            return nil
        } catch {
            return .refusal(error.status == .permissionDenied ? 403 : 401, error.text)
        }
    }

    private var versionJSON: String {
        var json = JSONWriter()
        json.object {
            $0.member("etcdserver", versions.etcd)
            $0.member("etcdcluster", versions.etcdCluster)
            $0.member("storage", versions.storage)
        }
        return json.text
    }
}

extension HTTPResponse {
    static func json(_ text: String, status: Int = 200) -> HTTPResponse {
        HTTPResponse(status: status, contentType: "application/json", text)
    }

    /// As Go's http.Error says it.
    static func refusal(_ status: Int, _ text: String) -> HTTPResponse {
        HTTPResponse(
            status: status,
            headers: [
                ("content-type", "text/plain; charset=utf-8"), ("x-content-type-options", "nosniff"),
            ],
            body: Bytes(text + "\n"))
    }
}
