import EtcdAPI
import Primitives

extension Facade {
    func onMemberList(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        if try NumberFields(message)[1] != 0 {
            submit(.members(.list), call, as: .members(.memberList))
        } else {
            readIndex(call, linearizable: false, as: .memberList)
        }
    }

    func onMemberChange(
        _ method: RPCMethod, _ call: CallReference, _ message: Bytes
    ) throws(CallFailure) {
        let request = try MemberFields(message)
        let change: MembersRequest
        switch method {
        case .memberAdd:
            change = .add(peerURLs: request.urls(1), isLearner: request.number(2) != 0)
        case .memberRemove: change = .remove(request.number(1))
        case .memberUpdate: change = .update(request.number(1), peerURLs: request.urls(2))
        case .memberPromote: change = .promote(request.number(1))
        default: throw .notYetSupported("\(method)")
        }
        switch change {
        case .add(let urls, _), .update(_, let urls):
            guard !urls.isEmpty, urls.allSatisfy(isPeerURL) else {
                throw EtcdError.memberURLsInvalid.failure
            }
        case .list, .remove, .promote, .drain, .publish, .admit, .place: break
        }
        submit(.members(change), call, as: .members(method))
    }

    /// Scheme, host and port, and nothing else (etcd: types.NewURLs).
    private func isPeerURL(_ text: String) -> Bool {
        var rest = Substring(text)
        if rest.hasPrefix("http://") {
            rest = rest.dropFirst(7)
        } else if rest.hasPrefix("https://") {
            rest = rest.dropFirst(8)
        } else {
            return false
        }
        guard let colon = rest.lastIndex(of: ":"), colon > rest.startIndex else { return false }
        return UInt16(rest[rest.index(after: colon)...]) != nil && !rest.contains("/")
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
                if member.isLearner { inner.field(5, UInt64(1)) }
            }
        }
        return builder.bytes
    }

    /// As the directory has them. MemberAdd's answer names the new one before the list.
    func members(_ list: RegionMembers, subject: UInt64, for method: RPCMethod) -> [UInt8] {
        var builder = MessageBuilder(headers.at(.zero))
        // What members tell of themselves, where nobody has published it yet.
        let known = node.status.members
        func add(_ field: UInt8, _ member: RegionMembers.Member) {
            var urls = member.clientURLs
            if urls.isEmpty, member.isStarted {
                urls = known.first { $0.id == member.id }?.clientURLs ?? []
            }
            builder.message(field) { inner in
                inner.field(1, member.id)
                inner.field(2, member.name)
                for url in member.peerURLs { inner.field(3, url) }
                for url in urls { inner.field(4, url) }
                if member.isLearner { inner.field(5, UInt64(1)) }
            }
        }
        let isAdded = method == .memberAdd
        if isAdded, let added = list.members.first(where: { $0.id == subject }) { add(2, added) }
        for member in list.members { add(isAdded ? 3 : 2, member) }
        return builder.bytes
    }
}

/// Strings and numbers of a request about members.
private struct MemberFields {
    private var numbers: [UInt32: UInt64] = [:]
    private var texts: [UInt32: [String]] = [:]

    init(_ message: Bytes) throws(CallFailure) {
        var numbers: [UInt32: UInt64] = [:]
        var texts: [UInt32: [String]] = [:]
        try decoding { () throws(CodecError) in
            var reader = ProtoReader(message)
            while let tag = try reader.tag() {
                let field = UInt32(tag >> 3)
                switch tag & 7 {
                case 0: numbers[field] = UInt64(bitPattern: try reader.int64())
                case 2:
                    let text = String(decoding: try reader.bytes().array, as: UTF8.self)
                    texts[field, default: []].append(text)
                default: try reader.skip(tag)
                }
            }
        }
        self.numbers = numbers
        self.texts = texts
    }
    func number(_ field: UInt32) -> UInt64 { numbers[field] ?? 0 }
    func urls(_ field: UInt32) -> [String] { (texts[field] ?? []).sorted() }
}
