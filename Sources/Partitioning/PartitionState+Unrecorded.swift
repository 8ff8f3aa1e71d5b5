package import Primitives

// Records are written into the store when they must be (docs/decisions/0025), so that what comes and goes in
// between is never written.
extension PartitionState {
    /// What the store does not hold as the state has it.
    struct Unrecorded: Sendable {
        /// Attached to a lease since, in that order; a key that was detached and attached again more than once.
        var attached: [Bytes] = []
        /// Attached to none any more; the store holds a record of them.
        var detached: Set<Bytes> = []
        /// Whether the store holds a record of them.
        var leases: [LeaseID: Bool] = [:]
        var known: [LeaseID: Bool] = [:]
        var cursors: Set<RegionID> = []
        /// Of these the store *does* hold records, and of no others.
        var prepared: Set<Revision> = []

        var count: Int { attached.count + detached.count + leases.count + known.count }

        /// What the store does not hold, and no longer must, is as if it had never been.
        static func note(
            _ id: LeaseID, isThere: Bool, wasThere: Bool, in list: inout [LeaseID: Bool]
        ) {
            guard let isStored = list[id] else {
                list[id] = wasThere
                return
            }
            if !isThere, !isStored { list[id] = nil }
        }

        /// In order, each once.
        func attachedNow(_ leaseOfKey: [Bytes: Attachment]) -> [Bytes] {
            var found: [Bytes] = []
            for key in attached.sorted() where key != found.last && leaseOfKey[key] != nil { found.append(key) }
            return found
        }
    }

    // MARK: A store that holds another state

    /// Of what waits to be recorded, all that there is.
    package func lateRecords() -> [(key: Bytes, value: Bytes)] {
        var all: [(key: Bytes, value: Bytes)] = [(Self.scalarsKey, encodedScalars())]
        for (key, attachment) in leaseOfKey { all.append((Self.key(leaseOf: key), Self.value(attachment.lease))) }
        for (id, lease) in leases { all.append((Self.key(lease: id), lease.encoded())) }
        for id in knownLeases { all.append((Self.key(known: id), .empty)) }
        for (region, revision) in cursors { all.append((Self.key(cursor: region), Self.value(revision))) }
        for record in prepared { all.append((Self.key(prepared: record.revision), record.encoded())) }
        return all.sorted { $0.key < $1.key }
    }

    /// Those among the store's.
    package static func isLate(_ key: Bytes) -> Bool { key.count > 0 && "sklngp".utf8.contains(key[0]) }

    /// A snapshot is in the store that this state is ahead of: its records go for those of the state.
    package mutating func replaceRecords(
        _ stored: [(key: Bytes, value: Bytes)], into changes: inout [StoreChange]
    ) {
        let own = lateRecords()
        let keys = Set(own.map(\.key))
        for record in stored where Self.isLate(record.key) && !keys.contains(record.key) {
            changes.append(.removeRecord(group, key: record.key))
        }
        for record in own { changes.append(.putRecord(group, key: record.key, value: record.value)) }
        changes.append(.applied(group, applied))
        for key in leaseOfKey.keys { leaseOfKey[key]?.isRecorded = true }
        unrecorded = Unrecorded(prepared: Set(prepared.map(\.revision)))
        mustRecord = false
        isUntold = false
    }
}

extension EntryBody {
    /// To apply it once more, to a state of before, brings about the same: its records need not be in the store
    /// before the next entry's.
    var recordsMayWait: Bool {
        switch self {
        case .effects, .prepared, .aborted, .leaseGrant, .leaseRevoked, .leaseForgotten, .leaseCheckpoints: true
        case .begin, .seal, .compact, .auth, .members, .rehearsal, .split, .splitIntended, .splitPublished: false
        }
    }
}
