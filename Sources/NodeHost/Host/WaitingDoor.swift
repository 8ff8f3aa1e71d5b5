import EtcdAPI
import NIOCore
import Primitives

/// Where clients are served, while the node cannot serve them: whoever watches over it hears why, and that
/// the process is alive; clients hear that they should go elsewhere.
final class WaitingDoor: RPCHandler, @unchecked Sendable {
    private let server: RPCServer
    private let reason: String
    /// More lines of /metrics. On the loop.
    var figures: () -> [(name: String, value: Int)] = { [] }

    private init(server: RPCServer, reason: String) {
        self.server = server
        self.reason = reason
    }

    /// Not on the loop, as `close`.
    static func open(
        _ configuration: HostConfiguration, reason: String, loop: any EventLoop
    ) throws -> WaitingDoor {
        let door = try loop.submit {
            let door = WaitingDoor(server: RPCServer(loop: loop, limits: RPCLimits()), reason: reason)
            door.server.handler = door
            return door
        }.wait()
        try loop.flatSubmit {
            do throws(HostFailure) {
                let tls = try Host.tls(configuration.clientTLS, alpn: ["h2", "http/1.1"])
                return Host.listen(configuration.allListeners[...], tls: tls, on: loop) { _ in
                    door.server
                }
            } catch {
                return loop.makeFailedFuture(error)
            }
        }.wait()
        return door
    }

    /// Then the addresses are free again.
    func close() {
        let server = server
        // It waits for open connections at most as long as it is told to.
        try? server.loop.flatSubmit { server.shutdown(within: .milliseconds(100)) }.wait()
    }

    func onCall(_ call: CallReference, method: RPCMethod, metadata: CallMetadata) {
        server.finish(call, .unavailable, message: "polder: \(reason)")
    }
    func onMessage(_ call: CallReference, _ message: Bytes) {}
    func onHalfClose(_ call: CallReference) {}
    func onCancelled(_ call: CallReference) {}
    func onWritable(_ call: CallReference) {}

    func onHTTP(_ request: HTTPRequest, _ responder: HTTPResponder) {
        let path = request.target.prefix { $0 != "?" }
        func plain(_ status: Int, _ text: String) {
            responder.respond(
                HTTPResponse(status: status, contentType: "text/plain; charset=utf-8", text))
        }
        switch path {
        case "/livez": plain(200, "ok\n")
        case "/metrics":
            var text = "# TYPE polder_is_waiting gauge\npolder_is_waiting 1\n"
            for (name, value) in figures() { text += "# TYPE \(name) gauge\n\(name) \(value)\n" }
            plain(200, text)
        case "/health":
            let text = JSON.object([("health", .string("false")), ("reason", .string(reason))]).text
            plain(503, text)
        default: plain(503, "[-]serializable_read failed: \(reason)\n")
        }
    }
}
