import EtcdAPI
import Primitives

extension Facade {
    /// As go-grpc-prometheus names them.
    func writeCalls(_ out: inout MetricsText) {
        metrics.clients.write(&out)
        let used = RPCMethod.allCases.filter { metrics.started(of: $0) > 0 }
        out.family(
            "grpc_server_started_total", "counter", "Total number of RPCs started on the server.")
        for method in used {
            out.sample("grpc_server_started_total", method.labels, "\(metrics.started(of: method))")
        }
        out.family(
            "grpc_server_msg_received_total", "counter",
            "Total number of RPC stream messages received on the server.")
        for method in used {
            out.sample(
                "grpc_server_msg_received_total", method.labels,
                "\(metrics.messagesReceived(of: method))")
        }
        out.family(
            "grpc_server_msg_sent_total", "counter",
            "Total number of gRPC stream messages sent by the server.")
        for method in used {
            let watched = method == .watch ? watches.messagesTotal : 0
            out.sample(
                "grpc_server_msg_sent_total", method.labels,
                "\(metrics.messagesSent(of: method) + watched)")
        }
        writeDurations(used, &out)
        out.family(
            "grpc_server_handled_total", "counter",
            "Total number of RPCs completed on the server, regardless of success or failure.")
        for method in used {
            for status in GRPCStatus.allCases {
                let total = metrics.handled(of: method, status)
                guard total > 0 else { continue }
                out.sample(
                    "grpc_server_handled_total",
                    [("grpc_code", status.prometheusName)] + method.labels, "\(total)")
            }
        }
    }

    /// `--metrics extensive`, as go-grpc-prometheus shows them.
    private func writeDurations(_ used: [RPCMethod], _ out: inout MetricsText) {
        let name = "grpc_server_handling_seconds"
        let measured = used.filter { (metrics.durations(of: $0)?.count ?? 0) > 0 }
        guard !measured.isEmpty else { return }
        out.family(
            name, "histogram",
            "Histogram of response latency (seconds) of gRPC that had been application-level handled "
                + "by the server.")
        for method in measured {
            metrics.durations(of: method)?.write(name, method.labels, &out)
        }
    }
}

extension RPCMethod {
    enum Shape { case unary, serverStream, bothStream }

    var shape: Shape {
        switch self {
        case .watch, .leaseKeepAlive, .reflection, .reflectionAlpha: .bothStream
        case .rangeStream, .snapshot, .electionObserve, .healthWatch: .serverStream
        default: .unary
        }
    }

    fileprivate var labels: [(String, String)] {
        let parts = "\(path)".split(separator: "/").map(String.init)
        let kind =
            switch shape {
            case .unary: "unary"
            case .serverStream: "server_stream"
            case .bothStream: "bidi_stream"
            }
        return [
            ("grpc_method", parts.last ?? ""), ("grpc_service", parts.first ?? ""),
            ("grpc_type", kind),
        ]
    }
}

extension GRPCStatus {
    fileprivate var prometheusName: String {
        switch self {
        case .ok: "OK"
        case .cancelled: "Canceled"
        case .unknown: "Unknown"
        case .invalidArgument: "InvalidArgument"
        case .deadlineExceeded: "DeadlineExceeded"
        case .notFound: "NotFound"
        case .alreadyExists: "AlreadyExists"
        case .permissionDenied: "PermissionDenied"
        case .resourceExhausted: "ResourceExhausted"
        case .failedPrecondition: "FailedPrecondition"
        case .aborted: "Aborted"
        case .outOfRange: "OutOfRange"
        case .unimplemented: "Unimplemented"
        case .internal: "Internal"
        case .unavailable: "Unavailable"
        case .dataLoss: "DataLoss"
        case .unauthenticated: "Unauthenticated"
        }
    }
}

/// Calls by what their clients say that they speak (`client-api-version`).
struct ClientCounts {
    private var names: [String] = []
    private var unary: [UInt64] = []
    private var streams: [UInt64] = []
    /// Whoever calls has most likely called before.
    private var last = 0
    /// The header holds what the client likes.
    private static let namesMax = 32

    mutating func count(_ version: String?, isStream: Bool) {
        let name = version ?? "unknown"
        if last >= names.count || names[last] != name { last = index(name) }
        if isStream { streams[last] += 1 } else { unary[last] += 1 }
    }

    private mutating func index(_ name: String) -> Int {
        if let known = names.firstIndex(of: name) { return known }
        let isFull = names.count >= Self.namesMax
        if isFull, let other = names.firstIndex(of: "other") { return other }
        names.append(isFull ? "other" : name)
        unary.append(0)
        streams.append(0)
        return names.count - 1
    }

    func write(_ out: inout MetricsText) {
        let family = "etcd_server_client_requests_total"
        guard !names.isEmpty else { return }
        out.family(
            family, "counter", "The total number of client requests per client version.")
        for (kind, counts) in [("stream", streams), ("unary", unary)] {
            for (i, name) in names.enumerated() where counts[i] > 0 {
                out.sample(family, [("client_api_version", name), ("type", kind)], "\(counts[i])")
            }
        }
    }
}
