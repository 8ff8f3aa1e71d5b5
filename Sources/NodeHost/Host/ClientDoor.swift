import EtcdAPI
import EtcdFacade
import Logging
import NIOCore
import Primitives
import Storage
import Transport

/// Everything of clients goes to the facade, except what only the shell can do: `/polder/fault`,
/// `/debug/pprof`.
final class ClientDoor: RPCHandler {
    private unowned let host: Host
    private let facade: Facade

    init(host: Host, facade: Facade) {
        self.host = host
        self.facade = facade
    }

    func onCall(_ call: CallReference, method: RPCMethod, metadata: CallMetadata) {
        facade.onCall(call, method: method, metadata: metadata)
    }
    func onMessage(_ call: CallReference, _ message: Bytes) { facade.onMessage(call, message) }
    func onHalfClose(_ call: CallReference) { facade.onHalfClose(call) }
    func onCancelled(_ call: CallReference) { facade.onCancelled(call) }
    func onWritable(_ call: CallReference) { facade.onWritable(call) }
    func onReadEnd() { host.turnIfFull() }

    func onUpgrade(_ request: HTTPRequest) -> [(name: String, value: String)]? {
        facade.onUpgrade(request)
    }
    func onWebSocket(_ request: HTTPRequest, _ socket: WebSocket) {
        facade.onWebSocket(request, socket)
    }

    func onHTTP(_ request: HTTPRequest, _ responder: HTTPResponder) {
        if Host.isProfilePath(request.target) { return host.onProfile(request, responder) }
        guard request.target.hasPrefix("/polder/fault") else {
            facade.onHTTP(request, responder)
            return
        }
        responder.respond(host.onFault(request))
    }
}

/// A port for those who watch over nodes: no data goes through it, so it may be open where the
/// others are not.
final class MetricsDoor: RPCHandler {
    private unowned let server: RPCServer
    private let facade: Facade

    init(server: RPCServer, facade: Facade) {
        self.server = server
        self.facade = facade
    }

    func onCall(_ call: CallReference, method: RPCMethod, metadata: CallMetadata) {
        server.finish(call, .unimplemented, message: "this port serves metrics and health only")
    }
    func onMessage(_ call: CallReference, _ message: Bytes) {}
    func onHalfClose(_ call: CallReference) {}
    func onCancelled(_ call: CallReference) {}
    func onWritable(_ call: CallReference) {}

    func onHTTP(_ request: HTTPRequest, _ responder: HTTPResponder) {
        let path = request.target.prefix { $0 != "?" }
        let isOpen = ["/metrics", "/health", "/livez", "/readyz", "/version"].contains {
            path == $0 || path.hasPrefix($0 + "/")
        }
        guard isOpen else {
            responder.respond(
                HTTPResponse(
                    status: 404, contentType: "text/plain; charset=utf-8", "404 page not found\n"))
            return
        }
        facade.onHTTP(request, responder)
    }
}

extension Host {
    /// `POST /polder/fault?peer=r2-n1&block=true&delay=40ms`; `peer` may be a region (`r2`) or `all`.
    /// Without block and delay the fault ends. `disk=200ms` instead: every sync of the log takes so much longer
    /// (0s ends it). Only where the configuration allows faults.
    func onFault(_ request: HTTPRequest) -> HTTPResponse {
        func plain(_ status: Int, _ text: String) -> HTTPResponse {
            HTTPResponse(status: status, contentType: "text/plain; charset=utf-8", text + "\n")
        }
        guard configuration.faultInjection else {
            return plain(403, "faults are not enabled on this node (faultInjection in node.yaml)")
        }
        guard request.method == "POST" else { return plain(405, "POST only") }
        var peer = "", block = false, delay = TimeSpan.zero, disk: TimeSpan?
        let query = request.target.split(separator: "?", maxSplits: 1).dropFirst().first ?? ""
        for pair in query.split(separator: "&") {
            let sides = pair.split(separator: "=", maxSplits: 1).map(String.init)
            let value = sides.count > 1 ? sides[1] : ""
            switch sides.first {
            case "peer": peer = value
            case "block": block = value != "false"
            case "delay":
                guard let span = TimeSpan(text: value) else { return plain(400, "delay=\(value)?") }
                delay = span
            case "disk":
                guard let span = TimeSpan(text: value) else { return plain(400, "disk=\(value)?") }
                disk = span
            default: return plain(400, "unknown parameter in \(query)")
            }
        }
        if let disk {
            log.delaySyncs(by: disk)
            logger.notice("the disk is made slow", metadata: ["by": "\(disk)"])
            return plain(200, "disk")
        }
        let chosen = configuration.peers.keys.sorted().filter {
            peer == "all" || peer == "\($0)" || peer == "r\($0.region)"
                || peer == regionName($0.region)
        }
        guard !chosen.isEmpty else { return plain(404, "no peer is called \(peer)") }
        let isNone = !block && delay == .zero
        let fault = Fault(block: block, delay: .nanoseconds(Int64(clamping: delay.nanoseconds)))
        for id in chosen { transport.setFault(isNone ? nil : fault, for: id) }
        return plain(200, chosen.map { "\($0)" }.joined(separator: " "))
    }

    private func regionName(_ id: RegionID) -> String {
        configuration.remoteRegions.first { $0.id == id }?.name ?? configuration.regionName
    }
}
