import Primitives
import Testing

@testable import Consensus

@Suite struct GroupMessageCodecTests {
    @Test func `every message survives the wire`() throws {
        let term = Ballot(round: 7, node: NodeID(2))
        let entry = LogEntry(term: term, number: 3, kind: .normal, payload: "effects")
        let messages: [GroupMessage] = [
            .askVote(term, decided: Slot(9), configuration: 3),
            .vote(
                .init(question: term, answer: .candidateBehind, promised: term, decided: Slot(4))),
            .prepare(.init(ballot: term, after: Slot(1), same: .zero, sameThrough: Slot(1), configuration: 0)),
            .promise(
                .init(
                    ballot: term, after: Slot(1), through: Slot(2),
                    accepted: [.init(slot: Slot(2), ballot: term, entry: entry)], decided: Slot(1),
                    keptAfter: .zero, lease: .milliseconds(3), leaseBallot: term)),
            .refuse(promised: term),
            .accept(
                .init(
                    ballot: term, first: Slot(5), entries: [entry, entry], decided: Slot(4),
                    settled: Slot(2), begun: true, probe: false, sentAt: Instant(nanoseconds: 77),
                    configuration: 300)),
            .accepted(
                .init(
                    ballot: term, through: Slot(5), resendFrom: Slot(6), decided: Slot(4),
                    flushed: Slot(3), sentAt: .zero)),
            .campaign(term),
        ]
        for message in messages {
            var writer = ByteWriter()
            writer.groupMessage(message)
            var reader = ByteReader(Bytes(writer.bytes))
            #expect(try reader.groupMessage() == message)
            try reader.expectEnd()
            for length in 0..<writer.bytes.count {
                var short = ByteReader(Bytes(writer.bytes)[0..<length])
                #expect(throws: DecodingError.self) { _ = try short.groupMessage() }
            }
        }
    }

    @Test func `messages and effects stay small`() {
        #expect(MemoryLayout<GroupMessage>.size <= 104)
        #expect(MemoryLayout<Effect>.size <= 112)
    }
}
