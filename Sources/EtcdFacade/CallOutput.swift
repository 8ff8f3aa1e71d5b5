import EtcdAPI
import Primitives

/// Where answers go. `RPCServer` in production; tests record.
protocol CallOutput: AnyObject {
    func send(_ message: [UInt8], to call: CallReference)
    /// Whole messages one after the other, each behind gRPC's five bytes (flag 0, length).
    func sendFramed(_ messages: [UInt8], to call: CallReference)
    /// One message in parts, the first of which begins with gRPC's five bytes.
    func sendParts(_ parts: [Bytes], to call: CallReference)
    /// One message that begins with `head` (gRPC's five bytes first) and goes on with what others are sent too.
    func send(_ head: [UInt8], _ rest: SharedBytes, to call: CallReference)
    func share(_ bytes: Bytes) -> SharedBytes
    /// Whether there is memory for so many more bytes of answers that wait for their readers.
    func hasRoom(for bytes: Int) -> Bool
    /// The same for an answer that is small enough to need no room, unless its client reads none of them.
    func hasRoom(forSmall bytes: Int, to call: CallReference) -> Bool
    /// That memory is half used: every stream is to hold less.
    var isPressed: Bool { get }
    /// Asked now and then: clients that hold much of it and read slowly may be let go of.
    func relievePressure()
    func finish(_ call: CallReference, _ status: GRPCStatus, message: String)
    func bufferedBytes(of call: CallReference) -> Int
    /// Whose call it is, for those who take turns (`LoopSteps`).
    func owner(of call: CallReference) -> Int
}

extension RPCServer: CallOutput {}

extension CallOutput {
    func hasRoom(for bytes: Int) -> Bool { true }
    func hasRoom(forSmall bytes: Int, to call: CallReference) -> Bool { true }
    var isPressed: Bool { false }
    func relievePressure() {}
    func owner(of call: CallReference) -> Int { -1 }
    func share(_ bytes: Bytes) -> SharedBytes { SharedBytes(bytes, counting: UnreadBytes()) }
    func send(_ head: [UInt8], _ rest: SharedBytes, to call: CallReference) {
        sendFramed(head + rest.bytes.array, to: call)
    }
    func sendParts(_ parts: [Bytes], to call: CallReference) {
        sendFramed(parts.flatMap(\.array), to: call)
    }
    func sendFramed(_ messages: [UInt8], to call: CallReference) {
        var at = 0
        while at + 5 <= messages.count {
            let size = messages[(at + 1)..<(at + 5)].reduce(0) { $0 << 8 | Int($1) }
            send(Array(messages[(at + 5)..<(at + 5 + size)]), to: call)
            at += 5 + size
        }
    }
}

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
