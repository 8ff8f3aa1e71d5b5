import EtcdAPI
import Primitives

/// Where answers go. `RPCServer` in production; tests record.
protocol CallOutput: AnyObject {
    func send(_ message: [UInt8], to call: CallReference)
    func finish(_ call: CallReference, _ status: GRPCStatus, message: String)
    func bufferedBytes(of call: CallReference) -> Int
}

extension RPCServer: CallOutput {}

/// Fills the headers of answers.
struct HeaderSource {
    let clusterID: UInt64
    let memberID: UInt64
    unowned let node: any NodeAccess

    init(_ node: any NodeAccess) {
        let status = node.status
        clusterID = status.clusterID
        memberID = status.memberID
        self.node = node
    }

    func at(_ revision: Revision) -> HeaderFields {
        HeaderFields(
            clusterID: clusterID, memberID: memberID, revision: revision, raftTerm: node.epochRound)
    }
}
