package import Primitives

extension ByteWriter {
    package mutating func groupMessage(_ message: GroupMessage) {
        switch message {
        case .askVote(let ballot, let decided, let configuration):
            byte(1)
            self.ballot(ballot)
            id(decided)
            varint(configuration)
        case .vote(let vote):
            byte(2)
            ballot(vote.question)
            byte(vote.answer.rawValue)
            ballot(vote.promised)
            id(vote.decided)
        case .prepare(let prepare):
            byte(3)
            ballot(prepare.ballot)
            id(prepare.after)
            ballot(prepare.same)
            id(prepare.sameThrough)
            varint(prepare.configuration)
        case .promise(let promise):
            byte(4)
            ballot(promise.ballot)
            id(promise.after)
            optional(promise.through)
            varint(promise.accepted.count)
            for accepted in promise.accepted {
                id(accepted.slot)
                ballot(accepted.ballot)
                logEntry(accepted.entry)
            }
            id(promise.decided)
            id(promise.keptAfter)
            varint(promise.lease.nanoseconds)
            ballot(promise.leaseBallot)
        case .refuse(let promised):
            byte(5)
            ballot(promised)
        case .accept(let accept):
            byte(6)
            ballot(accept.ballot)
            id(accept.first)
            varint(accept.entries.count)
            for entry in accept.entries { logEntry(entry) }
            id(accept.decided)
            id(accept.settled)
            byte((accept.begun ? 1 : 0) | (accept.probe ? 2 : 0))
            varint(accept.sentAt.nanoseconds)
            varint(accept.configuration)
        case .accepted(let accepted):
            byte(7)
            ballot(accepted.ballot)
            id(accepted.through)
            optional(accepted.resendFrom)
            id(accepted.decided)
            id(accepted.flushed)
            varint(accepted.sentAt.nanoseconds)
        case .campaign(let ballot):
            byte(8)
            self.ballot(ballot)
        case .gone(let number):
            byte(9)
            varint(number)
        case .askRelease(let ask):
            byte(10)
            varint(ask.question)
            ballot(ask.promised)
        case .released(let release):
            byte(11)
            varint(release.question)
            ballot(release.ballot)
            varint(release.configuration)
            id(release.through)
        }
    }

    private mutating func optional(_ slot: Slot?) {
        bool(slot != nil)
        if let slot { id(slot) }
    }
}

extension ByteReader {
    package mutating func groupMessage() throws(DecodingError) -> GroupMessage {
        switch try byte() {
        case 1:
            return .askVote(try ballot(), decided: try id(), configuration: try varint())
        case 2:
            let question = try ballot(), tag = try byte()
            guard let answer = GroupMessage.Vote.Answer(rawValue: tag) else {
                throw DecodingError("vote \(tag)")
            }
            return .vote(
                .init(question: question, answer: answer, promised: try ballot(), decided: try id()))
        case 3:
            return .prepare(
                .init(
                    ballot: try ballot(), after: try id(), same: try ballot(), sameThrough: try id(),
                    configuration: try varint()))
        case 4:
            let ballot = try ballot(), after: Slot = try id(), through = try optionalSlot()
            let n = try count(atLeast: 8)
            var accepted: [GroupMessage.Found] = []
            accepted.reserveCapacity(n)
            for _ in 0..<n {
                accepted.append(
                    .init(slot: try id(), ballot: try self.ballot(), entry: try logEntry()))
            }
            return .promise(
                .init(
                    ballot: ballot, after: after, through: through, accepted: accepted,
                    decided: try id(), keptAfter: try id(),
                    lease: TimeSpan(nanoseconds: try varint()), leaseBallot: try self.ballot()))
        case 5: return .refuse(promised: try ballot())
        case 6:
            let ballot = try ballot(), first: Slot = try id(), n = try count(atLeast: 5)
            var entries: [LogEntry] = []
            entries.reserveCapacity(n)
            for _ in 0..<n { entries.append(try logEntry()) }
            let decided: Slot = try id(), settled: Slot = try id(), flags = try byte()
            guard flags < 4 else { throw DecodingError("accept flags \(flags)") }
            return .accept(
                .init(
                    ballot: ballot, first: first, entries: entries, decided: decided,
                    settled: settled, begun: flags & 1 != 0, probe: flags & 2 != 0,
                    sentAt: Instant(nanoseconds: try varint()), configuration: try varint()))
        case 7:
            return .accepted(
                .init(
                    ballot: try ballot(), through: try id(), resendFrom: try optionalSlot(),
                    decided: try id(), flushed: try id(),
                    sentAt: Instant(nanoseconds: try varint())))
        case 8: return .campaign(try ballot())
        case 9: return .gone(try varint())
        case 10: return .askRelease(.init(question: try varint(), promised: try ballot()))
        case 11:
            return .released(
                .init(
                    question: try varint(), ballot: try ballot(), configuration: try varint(),
                    through: try id()))
        case let tag: throw DecodingError("group message \(tag)")
        }
    }

    private mutating func optionalSlot() throws(DecodingError) -> Slot? {
        try bool() ? try id() : nil
    }
}
