import EtcdAPI
import Primitives

extension Facade {
    func onMemberList(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        let isLinearizable = try NumberFields(message)[1] != 0
        readIndex(call, linearizable: isLinearizable, as: .memberList)
    }

    func memberList() -> [UInt8] {
        // etcd's member answers carry no revision.
        var builder = MessageBuilder(headers.at(.zero))
        for member in node.status.members {
            builder.message(2) { inner in
                inner.field(1, member.id)
                inner.field(2, member.name)
                for url in member.peerURLs { inner.field(3, url) }
                for url in member.clientURLs { inner.field(4, url) }
            }
        }
        return builder.bytes
    }
}
