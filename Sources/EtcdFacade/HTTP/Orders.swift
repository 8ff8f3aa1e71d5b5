import EtcdAPI
import Primitives

/// What operators order over HTTP, beside etcd's services: `polder partition` and `polder node` do.
/// Any node takes an order; the region's directory decides.
extension Facade {
    enum Order: String {
        /// `?partition=N[&at=HEX]`: answered when clients are served by both halves.
        case split = "/polder/partitions/split"
        /// `?partition=N&members=HEX,HEX`: who votes, the leader first; without members: by the rule.
        case move = "/polder/partitions/move"
        /// `?count=N`: how many vote in a group.
        case replicas = "/polder/partitions/replicas"
        /// `?on=true|false`: whether only who votes in a partition holds its rows.
        case spread = "/polder/partitions/spread"
        /// `?id=HEX&drained=true|false`
        case drain = "/polder/members/drain"

        init?(_ path: String) { self.init(rawValue: path) }
    }

    func onOrder(
        _ order: Order, _ request: HTTPRequest, _ target: HTTPTarget,
        _ respond: @escaping (HTTPResponse) -> Void
    ) {
        if let refusal = refusal(request) { return respond(refusal) }
        do throws(BadOrder) {
            submit(try Self.request(order, target)) { response in
                respond(Self.answer(to: order, response))
            }
        } catch {
            respond(.order(400, "polder: " + error.text))
        }
    }

    private struct BadOrder: Error {
        let text: String
    }

    private static func request(
        _ order: Order, _ target: HTTPTarget
    ) throws(BadOrder) -> Request {
        switch order {
        case .split:
            let partition = try partition(target, from: 1)
            guard let text = target.value("at") else { return .split(partition, at: nil) }
            guard let cut = UInt64(text, radix: 16) else {
                throw BadOrder(text: "at: expected up to 16 hexadecimal digits")
            }
            return .split(partition, at: cut)
        case .move:
            let partition = try partition(target, from: 0)
            var members: [UInt64] = []
            for text in (target.value("members") ?? "").split(separator: ",") {
                guard let id = UInt64(text, radix: 16) else {
                    throw BadOrder(text: "members: expected members' ids, hexadecimal, with commas")
                }
                members.append(id)
            }
            return .members(.place(.wish(partition, members: members)))
        case .replicas:
            guard let count = target.value("count").flatMap(UInt8.init) else {
                throw BadOrder(text: "count: expected a number from 1 to \(Placement.replicasMax)")
            }
            return .members(.place(.replicas(Int(count))))
        case .spread:
            guard let isSpread = target.value("on").flatMap(Bool.init) else {
                throw BadOrder(text: "expected ?on=true or false")
            }
            return .members(.place(.spread(isSpread)))
        case .drain:
            guard let id = target.value("id").flatMap({ UInt64($0, radix: 16) }),
                let isDrained = target.value("drained").flatMap(Bool.init)
            else { throw BadOrder(text: "expected ?id=<member's id>&drained=true or false") }
            return .members(.drain(id, isDrained))
        }
    }

    private static func partition(
        _ target: HTTPTarget, from first: UInt32
    ) throws(BadOrder) -> PartitionID {
        guard let number = target.value("partition").flatMap(UInt32.init), number >= first else {
            throw BadOrder(text: "partition: expected a number from \(first)")
        }
        return PartitionID(number)
    }

    private static func answer(to order: Order, _ response: Response) -> HTTPResponse {
        switch response {
        case .split(let split):
            var json = JSONWriter()
            json.object { $0.split(split) }
            return .json(json.text)
        case .members: return .order(200, "done")
        case .failed(let error):
            let failure = error.failure
            let status =
                switch failure.status {
                case .notFound: 404
                case .invalidArgument: 400
                case .failedPrecondition: 409
                default: error == .timedOut ? 504 : 503
                }
            return .order(status, failure.text)
        case .transaction, .leaseGranted, .leaseRevoked, .leaseKeptAlive, .leaseTimeToLive, .leases,
            .compacted, .replicated, .auth:
            return .order(500, "polder: an answer to something else")
        }
    }
}

extension HTTPResponse {
    fileprivate static func order(_ status: Int, _ text: String) -> HTTPResponse {
        HTTPResponse(status: status, contentType: "text/plain; charset=utf-8", text + "\n")
    }
}
