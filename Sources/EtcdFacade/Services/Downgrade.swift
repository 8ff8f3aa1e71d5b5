import EtcdAPI
import Primitives

extension Facade {
    /// As etcd 3.7 answers. Polder keeps no data in a format of etcd's: a target that etcd would take is
    /// valid, and there is nothing to do for it.
    func onDowngrade(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        try requireRoot(call)
        let action = try NumberFields(message)[1]
        let version = try decoding { () throws(CodecError) in
            var text = ""
            var reader = ProtoReader(message)
            while let tag = try reader.tag() {
                if tag == 0x12 {
                    text = String(decoding: try reader.bytes().slice, as: UTF8.self)
                } else {
                    try reader.skip(tag)
                }
            }
            return text
        }
        switch action {
        case 0:
            try checkTarget(version)
        case 1:
            try checkTarget(version)
            throw CallFailure(
                status: .failedPrecondition,
                text: "polder: data is not kept in etcd's format: there is nothing to downgrade")
        // etcd tells no error even if there is no job.
        case 2: break
        default: throw EtcdError.unknownMethod.failure
        }
        var builder = MessageBuilder(headers.at(node.status.revision))
        builder.field(2, versions.etcdCluster)
        answer(call, builder.bytes)
    }

    /// One minor version below the cluster's is what can be downgraded to.
    private func checkTarget(_ text: String) throws(CallFailure) {
        guard let target = Self.version(text), let ours = Self.version(versions.etcdCluster) else {
            throw EtcdError.downgradeVersionFormat.failure
        }
        guard target.major == ours.major, target.minor + 1 == ours.minor else {
            throw EtcdError.downgradeVersionInvalid.failure
        }
    }

    /// "3.5" or "3.5.0".
    private static func version(_ text: String) -> (major: Int, minor: Int)? {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 2 || parts.count == 3 else { return nil }
        let numbers = parts.compactMap { part in
            part.utf8.allSatisfy { (48...57).contains($0) } ? Int(part) : nil
        }
        guard numbers.count == parts.count else { return nil }
        return (numbers[0], numbers[1])
    }
}
