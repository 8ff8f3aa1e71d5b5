import EtcdAPI
import Primitives

/// A health question that must ask the region before it can answer.
final class HTTPHealthCheck {
    let onReadIndex: (Result<ReadIndex, RequestError>) -> Void
    init(_ onReadIndex: @escaping (Result<ReadIndex, RequestError>) -> Void) {
        self.onReadIndex = onReadIndex
    }
}

/// etcd's health pages (server/etcdserver/api/etcdhttp/health.go): the same words, the same codes.
extension Facade {
    private enum Check: String, CaseIterable {
        case dataCorruption = "data_corruption"
        case serializableRead = "serializable_read"
        case linearizableRead = "linearizable_read"
        case nonLearner = "non_learner"
        /// Not etcd's.
        case diskSpeed = "disk_speed"

        static let live: [Check] = [.serializableRead]
        static let ready = Check.allCases
    }

    func onHealth(_ target: HTTPTarget, _ respond: @escaping (HTTPResponse) -> Void) {
        let isSerializable = target.value("serializable") == "true"
        let excluded = target.values("exclude")
        let status = node.status
        let alarm = status.alarms.first {
            !excluded.contains($0.kind.etcdName) && !status.alarmsOfOthers.contains($0)
        }
        if let alarm {
            metrics.healthFailures += 1
            return respond(Self.health(false, "ALARM \(alarm.kind.etcdName)"))
        }
        if !isSerializable, !hasLeader {
            metrics.healthFailures += 1
            return respond(Self.health(false, "RAFT NO LEADER"))
        }
        probe(linearizable: !isSerializable) { [self] problem in
            if let problem {
                metrics.healthFailures += 1
                respond(Self.health(false, "RANGE ERROR:\(problem)"))
            } else {
                metrics.healthSuccesses += 1
                respond(Self.health(true, ""))
            }
        }
    }

    private static func health(_ isHealthy: Bool, _ reason: String) -> HTTPResponse {
        var json = JSONWriter()
        json.object {
            $0.member("health", isHealthy ? "true" : "false")
            $0.member("reason", reason)
        }
        if isHealthy {
            return HTTPResponse(status: 200, contentType: "text/plain; charset=utf-8", json.text)
        }
        return .refusal(503, json.text)
    }

    /// /livez, /readyz and their single checks; false: not one of them.
    func onCheck(_ target: HTTPTarget, _ respond: @escaping (HTTPResponse) -> Void) -> Bool {
        let parts = target.path.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2 || parts.count == 3, parts[0].isEmpty else { return false }
        let all: [Check]
        let type = String(parts[1])
        switch parts[1] {
        case "livez": all = Check.live
        case "readyz": all = Check.ready
        default: return false
        }
        let chosen: [Check]
        if parts.count == 3 {
            guard let one = Check(rawValue: String(parts[2])), all.contains(one) else {
                return false
            }
            chosen = [one]
        } else {
            let excluded = target.values("exclude")
            chosen = all.filter { !excluded.contains($0.rawValue) }
        }
        run(chosen, type, target, respond)
        return true
    }

    private func run(
        _ checks: [Check], _ type: String, _ target: HTTPTarget,
        _ respond: @escaping (HTTPResponse) -> Void
    ) {
        // Only one of them has to wait.
        guard checks.contains(.linearizableRead) else {
            return respond(verdict(checks, type, isVerbose: target.has("verbose"), problem))
        }
        probe(linearizable: true) { [self] linearizable in
            respond(
                verdict(checks, type, isVerbose: target.has("verbose")) { check in
                    check == .linearizableRead ? linearizable : problem(of: check)
                })
        }
    }

    /// Of the checks that this node answers by itself. Nil: none.
    private func problem(of check: Check) -> String? {
        switch check {
        // A store that is found damaged is not served any more (NodeHost's `StoreRepair`): this alarm was
        // raised by a client.
        case .dataCorruption:
            node.status.alarms.contains { $0.kind == .corrupt }
                ? "alarm activated: \(Alarm.Kind.corrupt.etcdName)" : nil
        case .nonLearner: node.status.isLearner ? "node is a learner" : nil
        case .diskSpeed: node.status.isDiskSlow ? "the disk is slower than the others'" : nil
        case .linearizableRead: nil
        case .serializableRead: localProblem()
        }
    }

    private func verdict(
        _ checks: [Check], _ type: String, isVerbose: Bool, _ problem: (Check) -> String?
    ) -> HTTPResponse {
        var lines = ""
        var isFine = true
        for check in checks {
            let problem = problem(check)
            metrics.count(
                CallMetrics.Check(type: "/\(type)", name: check.rawValue), isFine: problem == nil)
            if let problem {
                isFine = false
                lines += "[-]\(check.rawValue) failed: \(problem)\n"
            } else {
                lines += "[+]\(check.rawValue) ok\n"
            }
        }
        let type = "text/plain; charset=utf-8"
        guard isFine else { return .refusal(503, lines) }
        return HTTPResponse(status: 200, contentType: type, (isVerbose ? lines : "") + "ok\n")
    }

    /// Reads one key at what the region (or this node alone) says is current. Nil: it worked.
    private func probe(linearizable: Bool, _ done: @escaping (String?) -> Void) {
        guard linearizable else { return done(localProblem()) }
        let check = HTTPHealthCheck { [weak self] answered in
            switch answered {
            case .failure(let error): done(error.failure.text)
            case .success: done(self?.localProblem())
            }
        }
        let token = pending.add(Pending(call: nil, kind: .healthCheck(check)))
        let deadline = node.now.advanced(by: limits.requestTimeout)
        node.readIndex(linearizable: true, deadline: deadline, token: token)
    }

    private func localProblem() -> String? {
        let query = RangeQuery(range: .everything, limit: 1, keysOnly: true)
        do throws(RequestError) {
            _ = try node.range(query, at: node.status.revision)
            return nil
        } catch {
            // It has been asked for: this node's part can be read.
            if error == .elsewhere { return nil }
            return error.failure.text
        }
    }
}
