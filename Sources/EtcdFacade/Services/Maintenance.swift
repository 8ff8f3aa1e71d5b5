import EtcdAPI
import Primitives

/// What is told to those who ask for etcd's version: whose calls are served. Kubernetes wants three
/// numbers, and trusts progress requests from 3.6 on.
package struct ServedVersions: Sendable {
    package var etcd = "3.7.0"
    package var etcdCluster = "3.7.0"
    package var storage = "3.7.0"
    /// The schema of the files that snapshots are.
    package var snapshot = "3.5.0"
    package var polder = "0.1.0"
    package init() {}
}

extension Facade {
    func onStatus(_ call: CallReference) {
        let status = node.status
        var builder = MessageBuilder(headers.at(status.revision))
        builder.field(2, versions.etcd)
        builder.field(3, status.storeBytes)
        builder.field(4, status.sequencerMemberID)
        builder.field(5, status.decidedIndex)
        builder.field(6, status.epochRound)
        builder.field(7, status.appliedIndex)
        if status.sequencer == nil { builder.field(8, EtcdError.noLeader.text) }
        for problem in status.problems { builder.field(8, problem) }
        for alarm in status.alarms {
            builder.field(8, "memberID:\(alarm.memberID) alarm:\(alarm.kind.etcdName) ")
        }
        builder.field(9, status.storeBytesInUse)
        if status.isLearner { builder.field(10, UInt64(1)) }
        builder.field(11, versions.storage)
        builder.field(12, status.quotaBytes)
        // downgradeInfo: none under way.
        builder.message(13, [])
        answer(call, builder.bytes)
    }

    func onHash(_ call: CallReference) {
        let revision = node.status.revision
        hash(at: revision, for: call, counting: \.hashes) { builder, hash in
            builder.field(2, UInt64(hash))
        }
    }

    func onHashKV(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        let asked = Revision(try NumberFields(message)[1])
        let status = node.status
        if asked > .zero, asked < status.compactRevision { throw EtcdError.compacted.failure }
        if asked > status.revision { throw EtcdError.futureRevision.failure }
        let revision = asked > .zero ? asked : status.revision
        hash(at: revision, for: call, counting: \.revisionHashes) { builder, hash in
            builder.field(2, UInt64(hash))
            // etcd: -1 before the first compaction.
            builder.field(
                3, status.compactRevision > .zero ? status.compactRevision.rawValue : Int64(-1))
            builder.field(4, revision.rawValue)
        }
    }

    private func hash(
        at revision: Revision, for call: CallReference,
        counting durations: WritableKeyPath<CallMetrics, DurationCounts>,
        _ build: @escaping (inout MessageBuilder, UInt32) -> Void
    ) {
        guard var open = calls[call] else { return }
        open.state = .computes
        calls[call] = open
        let header = headers.at(node.status.revision)
        let begun = node.now
        node.hash(at: revision) { [weak self] result in
            guard let self, self.calls[call] != nil else { return }
            switch result {
            case .success(let hash):
                let took = self.node.now.since(begun)
                self.metrics[keyPath: durations].note(nanoseconds: took.nanoseconds)
                var builder = MessageBuilder(header)
                build(&builder, hash)
                self.answer(call, builder.bytes)
            case .failure(let error): self.fail(call, error.failure)
            }
        }
    }

    // MARK: MoveLeader

    /// As in etcd: only the leader takes it, and a member that is unknown is a bad transferee.
    func onMoveLeader(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        try requireRoot(call)
        let target = UInt64(bitPattern: try NumberFields(message)[1])
        let status = node.status
        guard status.sequencer != nil, status.sequencerMemberID == status.memberID else {
            throw EtcdError.notLeader.failure
        }
        guard let member = status.members.first(where: { $0.id == target && !$0.isLearner }) else {
            throw EtcdError.badLeaderTransferee.failure
        }
        if target == status.memberID { return answer(call, []) }
        guard let (token, deadline) = wait(call, as: .moveLeader) else { return }
        node.moveLeader(to: member.node, deadline: deadline, token: token)
    }

    func onLeaderMoved(_ answered: Result<ReadIndex, RequestError>, _ call: CallReference) {
        switch answered {
        // As etcd's, without a header.
        case .success: answer(call, [])
        case .failure: fail(call, EtcdError.transferTimedOut.failure)
        }
    }

    /// GET lists by kind, whoever's they are; the others answer with the alarm in question.
    func onAlarm(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        let numbers = try NumberFields(message)
        if numbers[1] != 0 { try requireRoot(call) }
        let member = UInt64(bitPattern: numbers[2])
        let kind = UInt8(exactly: numbers[3]).flatMap(Alarm.Kind.init(rawValue:))
        var told: [Alarm] = []
        switch numbers[1] {
        case 0: told = node.status.alarms.filter { numbers[3] == 0 || $0.kind == kind }
        case 1, 2:
            if let kind {
                let alarm = Alarm(memberID: member, kind: kind)
                let isRaised = numbers[1] == 1
                let hasChanged = node.setAlarm(alarm, isRaised: isRaised)
                // etcd tells of one that was raised before, too.
                if hasChanged || isRaised && node.status.alarms.contains(alarm) { told = [alarm] }
            }
        default: throw EtcdError.unknownMethod.failure
        }
        var builder = MessageBuilder(headers.at(node.status.revision))
        for alarm in told {
            builder.message(2) {
                $0.field(1, alarm.memberID)
                $0.field(2, UInt64(alarm.kind.rawValue))
            }
        }
        answer(call, builder.bytes)
    }

    // MARK: gRPC health

    func onHealthCheck(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        guard try serviceName(message).isEmpty else {
            throw CallFailure(status: .notFound, text: "unknown service")
        }
        answer(call, Self.serving)
    }

    func onHealthWatch(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        guard var open = calls[call] else { return }
        let isKnown = try serviceName(message).isEmpty
        open.state = .observes
        calls[call] = open
        // SERVICE_UNKNOWN is 3; the stream stays open, as the health protocol wants.
        sendOnStream(isKnown ? Self.serving : [8, 3], to: call, .healthWatch)
    }

    private static let serving: [UInt8] = [8, 1]
    /// HealthListResponse: the empty name, which is the whole server, serves.
    static let allServing: [UInt8] = [10, 6, 10, 0, 18, 2] + serving

    private func serviceName(_ message: Bytes) throws(CallFailure) -> String {
        try decoding { () throws(CodecError) in
            var name = ""
            var reader = ProtoReader(message)
            while let tag = try reader.tag() {
                if tag == 0x0A {
                    name = String(decoding: try reader.bytes().slice, as: UTF8.self)
                } else {
                    try reader.skip(tag)
                }
            }
            return name
        }
    }
}

extension Alarm.Kind {
    var etcdName: String {
        switch self {
        case .noSpace: "NOSPACE"
        case .corrupt: "CORRUPT"
        }
    }
}
