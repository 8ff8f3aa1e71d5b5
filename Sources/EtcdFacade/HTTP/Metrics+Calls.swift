import EtcdAPI
import Primitives

extension Facade {
    /// As go-grpc-prometheus names them.
    func writeCalls(_ out: inout MetricsText) {
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
