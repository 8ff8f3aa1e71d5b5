import EtcdAPI
package import Primitives

/// A unary call that took longer than it should, for the log. Never its keys or values.
package struct SlowCall: Sendable, Equatable {
    /// etcd warns of two: requests for keys, after `--warning-apply-duration`, and calls of any kind,
    /// after `--warning-unary-request-duration`.
    package enum Kind: Sendable { case keys, any }
    package var kind: Kind
    /// `/etcdserverpb.KV/Range`
    package var path: String
    package var took: TimeSpan
    package var expected: TimeSpan
    package var answerBytes: Int
    package var isFine: Bool

    /// Of the loop: whoever logs writes to a file. A tick is a quarter of a second.
    static let perTickMax = 3
}

extension Facade {
    /// A call is over, and its answer on the way.
    func ended(_ open: OpenCall, _ status: GRPCStatus, answerBytes: Int) {
        guard open.method.isPrompt else { return }
        let took = node.now.since(open.startedAt)
        if limits.measuresCalls { metrics.note(open.method, took) }
        let isOfKeys = open.method.isOfKeys
        let expected = isOfKeys ? min(limits.slowApply, limits.slowCall) : limits.slowCall
        guard took > expected else { return }
        if isOfKeys { metrics.slowApplies += 1 }
        guard let onSlowCall, slowCallsLeft > 0 else { return }
        slowCallsLeft -= 1
        if isOfKeys, took > limits.slowApply {
            onSlowCall(
                SlowCall(
                    kind: .keys, path: "\(open.method.path)", took: took,
                    expected: limits.slowApply, answerBytes: answerBytes, isFine: status == .ok))
        }
        if took > limits.slowCall {
            onSlowCall(
                SlowCall(
                    kind: .any, path: "\(open.method.path)", took: took,
                    expected: limits.slowCall, answerBytes: answerBytes, isFine: status == .ok))
        }
    }
}

extension RPCMethod {
    /// Not a stream, nor a call that waits for others by its nature.
    fileprivate var isPrompt: Bool {
        switch self {
        case .watch, .leaseKeepAlive, .reflection, .reflectionAlpha, .rangeStream, .snapshot,
            .electionObserve, .healthWatch, .lock, .electionCampaign:
            false
        default: true
        }
    }

    fileprivate var isOfKeys: Bool {
        switch self {
        case .range, .put, .deleteRange, .txn, .compact: true
        default: false
        }
    }
}
