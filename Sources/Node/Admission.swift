package import Primitives

/// How a process with an empty data directory gets to take part. It may be one of those that found
/// the region, or have lost its disk: it cannot know, so it asks, and never votes on a guess
/// (protocol-rules.md S15; decision 0010).
///
/// The first of the initial members founds the region when it has heard that *all* of them are new;
/// the others learn it from any that knows. Everybody else is admitted by the directory under a new
/// name. A majority would not do: one disk lost and one late start would found the region again.
package struct Admission: Sendable {
    package typealias Asker = RegionMembers.Asker

    package struct Founder: Hashable, Sendable {
        package var seat: NodeID
        package var token: UInt64
        package init(seat: NodeID, token: UInt64) {
            self.seat = seat
            self.token = token
        }
    }

    package enum Message: Hashable, Sendable {
        /// From a new process to everybody.
        case ask(Asker)
        /// "I am new myself."
        case alsoNew(Founder)
        /// The region exists, and these have founded it.
        case founded([Founder])
        /// You take part under the name that stands beside your token.
        case admitted(RegionMembers, Region)
        /// Not now, or not at all; the asker goes on asking.
        case refused(RequestError)
    }

    /// What a member that joins with nothing but an address must be told.
    package struct Region: Hashable, Sendable {
        package var cluster: UInt64
        package var partitions: Int
        package init(cluster: UInt64, partitions: Int) {
            self.cluster = cluster
            self.partitions = partitions
        }
    }

    package enum Outcome: Equatable, Sendable {
        case founded([Founder])
        case admitted(RegionMembers, Region)
    }

    package let asker: Asker
    /// The initial members' seats; empty: this one joins a region that exists.
    private let initial: [NodeID]
    private var heard: [NodeID: UInt64] = [:]
    package private(set) var outcome: Outcome?
    /// Why it takes so long, for the log.
    package private(set) var refusal: RequestError?

    package init(asker: Asker, initial: [NodeID]) {
        self.asker = asker
        self.initial = initial.sorted()
        if initial.contains(asker.seat) { heard[asker.seat] = asker.token }
        found()
    }

    /// Who has not been heard of yet, if this one is to found the region.
    package var missing: [NodeID] {
        initial.first == asker.seat ? initial.filter { heard[$0] == nil } : []
    }

    package var question: Message { .ask(asker) }

    package mutating func step(_ message: Message) -> Message? {
        switch message {
        case .ask(let other):
            guard other.seat != .none, initial.contains(asker.seat) else { return nil }
            return .alsoNew(Founder(seat: asker.seat, token: asker.token))
        case .alsoNew(let other):
            // The newest counts: it may have lost its disk again meanwhile.
            if initial.contains(other.seat), other.seat != asker.seat {
                heard[other.seat] = other.token
            }
            found()
        case .founded(let founders):
            guard outcome == nil,
                founders.contains(Founder(seat: asker.seat, token: asker.token))
            else { break }
            outcome = .founded(founders)
        case .admitted(let list, let region):
            guard outcome == nil, list.members.contains(where: { $0.token == asker.token }) else {
                break
            }
            outcome = .admitted(list, region)
        case .refused(let error): refusal = error
        }
        return nil
    }

    private mutating func found() {
        guard outcome == nil, let first = initial.first, first == asker.seat, missing.isEmpty else {
            return
        }
        outcome = .founded(initial.map { Founder(seat: $0, token: heard[$0] ?? 0) })
    }

    /// What a member of the region answers at once; nil: the directory decides
    /// (`MembersRequest.admit`).
    package static func answer(to asker: Asker, founders: [Founder]) -> Message? {
        founders.contains(Founder(seat: asker.seat, token: asker.token)) && asker.token != 0
            ? .founded(founders) : nil
    }
}

// MARK: Encoding, version 1

extension Admission.Message {
    package func encode(into writer: inout ByteWriter) {
        writer.byte(1)
        switch self {
        case .ask(let asker):
            writer.byte(1)
            writer.asker(asker)
        case .alsoNew(let founder):
            writer.byte(2)
            writer.id(founder.seat)
            writer.fixed64(founder.token)
        case .founded(let founders):
            writer.byte(3)
            writer.varint(founders.count)
            for founder in founders {
                writer.id(founder.seat)
                writer.fixed64(founder.token)
            }
        case .admitted(let list, let region):
            writer.byte(4)
            writer.members(list)
            writer.fixed64(region.cluster)
            writer.varint(region.partitions)
        case .refused(let error):
            writer.byte(5)
            writer.byte(error.rawValue)
        }
    }

    package init(_ reader: inout ByteReader) throws(DecodingError) {
        let format = try reader.byte()
        guard format == 1 else { throw DecodingError("admission version \(format)") }
        switch try reader.byte() {
        case 1: self = .ask(try reader.asker())
        case 2: self = .alsoNew(.init(seat: try reader.id(), token: try reader.fixed64()))
        case 3:
            var founders: [Admission.Founder] = []
            for _ in 0..<(try reader.count(atLeast: 9)) {
                founders.append(.init(seat: try reader.id(), token: try reader.fixed64()))
            }
            self = .founded(founders)
        case 4:
            let list = try reader.members(), cluster = try reader.fixed64()
            let partitions = try reader.varint()
            guard partitions > 0, partitions <= 4096 else {
                throw DecodingError("\(partitions) partitions")
            }
            self = .admitted(list, .init(cluster: cluster, partitions: Int(partitions)))
        case 5:
            let tag = try reader.byte()
            guard let error = RequestError(rawValue: tag) else { throw DecodingError("error \(tag)") }
            self = .refused(error)
        case let tag: throw DecodingError("admission \(tag)")
        }
        try reader.expectEnd()
    }
}
